"""The images that were catalogued while it was too hot to embed them, as files to be read again.

In: the catalog's waiting images and the inbox. Out: `Turns`, a source for ingest that gives a batch
of new files and a batch of waiting ones in turns: the waiting come oldest first, and a new image
waits for one batch at most. A waiting image whose files are gone or rewritten becomes missing.
"""

import logging
from typing import List, Optional, Set, Tuple

from jetson_cluster.catalog import Catalog
from jetson_cluster.inbox import Arrival, Inbox
from jetson_cluster.records import mtime_in
from jetson_cluster.walker import look

log = logging.getLogger(__name__)

PIECE = 500  # waiting images looked at in one go: thousands that are gone must not hold up a turn


class Turns:
    """What ingest takes its files from: the inbox, and by turns the images that wait."""

    def __init__(self, inbox: Inbox, catalog: Catalog):
        self._inbox, self._catalog = inbox, catalog
        self._after = 0  # the id of the waiting image looked at last
        self._taken = set()  # type: Set[Arrival]
        self._new_ones_turn = True

    def take(self, limit: int) -> List[Arrival]:
        """At most `limit` files, new ones or waiting ones."""
        new_ones_turn, self._new_ones_turn = self._new_ones_turn, not self._new_ones_turn
        if new_ones_turn:
            return self._inbox.take(limit) or self._take_waiting(limit)
        return self._take_waiting(limit) or self._inbox.take(limit)

    def take_new(self, limit: int) -> List[Arrival]:
        """At most `limit` new files."""
        return self._inbox.take(limit)

    def done(self, arrival: Arrival) -> None:
        """This taken file is in the catalog."""
        if arrival in self._taken:
            self._taken.remove(arrival)
        else:
            self._inbox.done(arrival)

    def give_back(self, arrival: Arrival) -> None:
        """This taken file was written to while it was read."""
        if arrival in self._taken:
            self._taken.remove(arrival)  # what it is now the inbox finds
        else:
            self._inbox.give_back(arrival)

    def _take_waiting(self, limit: int) -> List[Arrival]:
        found, looked_at = [], 0  # type: List[Arrival], int
        # An inbox that is unmounted is no reason to think that its images are gone.
        while self._inbox.available and len(found) < limit and looked_at < PIECE:
            rows = self._catalog.waiting(self._after, limit - len(found))
            if not rows:
                if found or self._taken or not self._after:
                    break
                self._after = 0  # once more from the start: some were given back or have returned
                continue
            self._after, looked_at = rows[-1][0], looked_at + len(rows)
            arrivals = [(image, _unchanged(files)) for image, files in rows]
            found += [arrival for _, arrival in arrivals if arrival is not None]
            gone = [image for image, arrival in arrivals if arrival is None]
            if gone:
                self._catalog.mark_missing(gone, exists=lambda path: False)
                log.warning("ImagesMissing: %d that waited to be embedded are gone from the inbox",
                            len(gone))
        self._taken.update(found)
        return found


def _unchanged(files: List[Tuple[str, int, int]]) -> Optional[Arrival]:
    """The first of an image's (path, bytes, mtime_ns) that is there as it was catalogued."""
    for path, size, mtime_ns in files:
        arrival = look(path)
        if arrival is not None and (arrival.bytes, mtime_in(arrival.mtime_ns)) == (size, mtime_ns):
            return arrival
    return None
