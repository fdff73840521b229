"""The images that were catalogued while it was too hot to embed them, as files to be read again.

In: the catalog's waiting images and the inbox. Out: `Turns`, a source for ingest that gives a batch
of new files and a batch of waiting ones in turns: the waiting come oldest first, and a new image
waits for one batch at most. A waiting image whose files are gone or rewritten becomes missing; one
whose files cannot be examined goes on waiting.
"""

import logging
from typing import List, Optional, Set, Tuple

from jetson_cluster.catalog import Catalog
from jetson_cluster.inbox import Arrival, Inbox
from jetson_cluster.records import mtime_in
from jetson_cluster.schema import WAITING
from jetson_cluster.walker import examine

log = logging.getLogger(__name__)

PIECE = 500  # waiting images looked at in one go: thousands that are gone must not hold up a turn


class Turns:
    """What ingest takes its files from: the inbox, and by turns the images that wait."""

    def __init__(self, inbox: Inbox, catalog: Catalog):
        self._inbox, self._catalog = inbox, catalog
        self._after = 0  # the id of the waiting image looked at last
        self._taken = set()  # type: Set[Arrival]
        self._new_ones_turn = True
        # So many that wait were examined one after the other, and none of them could be: where that
        # is all that wait, waiting for them is in vain for now.
        self.in_vain = 0

    def take(self, limit: int) -> List[Arrival]:
        """At most `limit` files, new ones or waiting ones."""
        new_ones_turn, self._new_ones_turn = self._new_ones_turn, not self._new_ones_turn
        if new_ones_turn:
            return self._inbox.take(limit) or self._take_waiting(limit)
        return self._take_waiting(limit) or self._inbox.take(limit)

    def take_new(self, limit: int) -> List[Arrival]:
        """At most `limit` new files."""
        self.in_vain = 0
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
        if not self._inbox.look_again():
            return []
        found, gone, in_doubt, looked_at = [], [], [], 0
        start, from_the_start = self._after, False
        while len(found) < limit and looked_at < PIECE:
            rows = [row for row in self._catalog.waiting(self._after, limit - len(found))
                    if not from_the_start or row[0] <= start]
            if not rows:
                if found or self._taken or not start or from_the_start:
                    break
                # Some were given back, have returned or can be examined again.
                self._after, from_the_start = 0, True
                continue
            self._after, looked_at = rows[-1][0], looked_at + len(rows)
            for image, files in rows:
                try:
                    arrival = _unchanged(files)
                except OSError as error:
                    in_doubt.append((files[0][0], error))
                    continue
                if arrival is None:
                    gone.append(image)
                else:
                    found.append(arrival)
        # An inbox that was unmounted meanwhile is no reason to think that its images are gone.
        if (gone or in_doubt) and not self._inbox.look_again():
            self._after = start
            return []
        if gone:
            self._catalog.mark_missing(gone, exists=lambda path: False)
            log.warning("ImagesMissing: %d that waited to be embedded are gone from the inbox",
                        len(gone))
        self._count_in_vain(bool(found), in_doubt)
        self._taken.update(found)
        return found

    def _count_in_vain(self, found: bool, in_doubt: List[Tuple[str, OSError]]) -> None:
        if in_doubt and not self.in_vain:
            path, error = in_doubt[0]
            log.warning("ImagesInDoubt: %d that wait to be embedded cannot be examined, such as "
                        "%r (%s); they go on waiting", len(in_doubt), path, error.strerror)
        self.in_vain = 0 if found else min(
            self.in_vain + len(in_doubt), self._catalog.count_of(WAITING))


def _unchanged(files: List[Tuple[str, int, int]]) -> Optional[Arrival]:
    """The first of an image's (path, bytes, mtime_ns) that is there as it was catalogued.

    None if surely none is; raises OSError if that cannot be told.
    """
    doubt = None  # type: Optional[OSError]
    for path, size, mtime_ns in files:
        try:
            arrival = examine(path)
        except OSError as error:
            doubt = error
            continue
        if arrival is not None and (arrival.bytes, mtime_in(arrival.mtime_ns)) == (size, mtime_ns):
            return arrival
    if doubt is not None:
        raise doubt
    return None
