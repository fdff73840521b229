"""Keeps the queue file on disk true to the catalog.

In: the catalog, the head of the queue, and the policy. Out: `queue.csv`, rewritten when it is stale
and due, never more often than the config says, and only if it would differ; and the previews of what
stands in it; and the lists of passes that orders made. While images are placed anew the order on
disk stays, less those that left the queue, and by the pins and holds of now.
"""

import logging
import os
import time
from typing import Callable, Dict, List, Optional, Tuple

from jetson_cluster import quality, ranking
from jetson_cluster.catalog import Catalog
from jetson_cluster.config import Config
from jetson_cluster.downlink import QueueRow, read_queue, write_queue
from jetson_cluster.errors import UserError
from jetson_cluster.head import PINNED, Head
from jetson_cluster.pass_lists import PassLists
from jetson_cluster.placing import Placing
from jetson_cluster.policy import Policy
from jetson_cluster.previews import Previews
from jetson_cluster.ranking import Ranked
from jetson_cluster.records import Row
from jetson_cluster.schema import QUEUED
from jetson_cluster.walker import is_gone

log = logging.getLogger(__name__)


class Publisher:
    """Writes one queue file. `stale` is set by whoever changed what it is made from."""

    def __init__(self, config: Config, catalog: Catalog, placing: Placing, head: Head,
                 monotonic: Callable[[], float]):
        self._path, self._interval_s = config.queue.path, config.queue.interval_s
        self._verify_s = config.inbox.rescan_s
        self._catalog, self._placing, self._head = catalog, placing, head
        self._monotonic = monotonic
        self._most = config.queue.rows
        self._previews = Previews(config.previews_path, catalog)
        self._lists = PassLists(config.state_dir, catalog, self._previews)
        self._published_at = monotonic() - self._interval_s
        self._verified_at = monotonic()
        self._rows = None  # type: Optional[List[QueueRow]]  # as they stand on disk
        self.head = []  # type: List[Row]  # of the queue as last made, in its order
        self.stale = True
        self.looking = False  # the last turn found files gone: those in their places are unlooked at
        self._not_written = ""  # why the file could not be written, "" once it could
        self.spent_s = 0.0

    @property
    def error(self) -> str:
        """Why a file could not be written, "" once all could."""
        return self._not_written or self._lists.error

    def next_due_s(self) -> float:
        """Seconds until there may be something to do; not below 0 by much."""
        now = self._monotonic()
        verify_due = self._verified_at + self._verify_s - now
        publish_due = self._published_at + self._interval_s - now
        return min(verify_due, publish_due) if self.stale else verify_due

    def publish_if_due(self, policy: Policy, inbox_available: bool, at_once: bool = False) -> bool:
        """Write the file if it is stale and due (or `at_once`); True if it was written.

        A failure to write is told once, kept in `error`, and tried again.
        """
        now = self._monotonic()
        if now - self._verified_at >= self._verify_s:
            self.stale = True  # files may have gone, which no event need have told
        if not self.stale or not (at_once or now - self._published_at >= self._interval_s):
            return False
        begun = time.perf_counter()
        self._lists.write_due()
        rows = self._make_rows(policy, inbox_available)
        if rows is None:
            return False
        self._published_at, self._verified_at, self.stale = now, now, bool(self._lists.error)
        if rows == self._rows and os.path.exists(self._path):
            return False  # looked through, nothing changed: spare the flash
        try:
            write_queue(self._path, rows)
        except OSError as error:
            # What stands on disk now is not known: a rename may be done and not be safe yet.
            self.stale, self._rows = True, None
            if not self._not_written:
                log.error("QueueNotWritten: %s: %s", self._path, error)
            self._not_written = "QueueNotWritten: %s: %s" % (self._path, error)
            return False
        self._rows, self._not_written = rows, ""
        self._previews.tidy([row.image for row in self.head])
        self.spent_s += time.perf_counter() - begun
        return True

    def _make_rows(self, policy: Policy, inbox_available: bool) -> Optional[List[QueueRow]]:
        """The head of the queue, every file of it there.

        None when files were found gone: the next turn looks at those that took their places, so
        that many gone files do not hold up one turn.
        """
        self.looking = False
        progress = self._placing.progress
        if progress.done < progress.total:
            self._catalog.take_disturbed()  # all is read anew when that is done
            return self._still_queued(policy)
        ranked = self._head.order(policy)
        held = self._catalog.rows([place.image for place in ranked])
        gone = [row for row in held.values() if is_gone(row.path)]
        # An inbox that is unmounted is no reason to think that its images are gone.
        if not gone or not inbox_available:
            self.head = [held[place.image] for place in ranked]
            return self._describe(ranked, held, policy)
        missing = self._catalog.mark_missing([row.image for row in gone])
        if missing:
            log.warning("ImagesMissing: %d gone from the inbox, such as %s", len(missing),
                        held[missing[0]].path)
        self.looking = True
        return None

    def _still_queued(self, policy: Policy) -> List[QueueRow]:
        """The rows as they stand on disk, less those that left the queue since; the pinned first."""
        before = self._rows
        if before is None:
            try:
                before = read_queue(self._path) if os.path.exists(self._path) else []
                self._rows = before
            except UserError as error:
                log.warning("QueueUnreadable: %s; it is empty until all images are placed", error)
                before = []
        order = self._head.meanwhile(policy, before)
        held = self._catalog.rows([image for image, _ in order])
        order = [(image, row) for image, row in order
                 if image in held and held[image].state == QUEUED][:self._most]
        previews = self._previews.ensure([image for image, row in order if row is None])
        pins, rows, cumulative = set(self._head.pins(policy)), [], 0
        for rank, (image, row) in enumerate(order, 1):
            here = held[image]
            cumulative += here.bytes
            if row is None:
                row = QueueRow(rank, "", here.state, "", "", "", PINNED, here.bytes, 0,
                               previews.get(image, ""), here.captured_at, here.sha256, here.path)
            rows.append(row._replace(
                rank=rank, cumulative_bytes=cumulative, path=here.path,
                reason=_reason(row.reason, image in pins)))
        self.head = [held[image] for image, _ in order]
        return rows

    def _describe(self, ranked: List[Ranked], held: Dict[int, Row], policy: Policy
                  ) -> List[QueueRow]:
        clustered, rows, cumulative = self._placing.clustered, [], 0
        previews = self._previews.ensure([place.image for place in ranked])
        resemblances = self._placing.resemblances([held[place.image] for place in ranked])
        for rank, place in enumerate(ranked, 1):
            row = held[place.image]
            cumulative += row.bytes
            label, reason = said_of(row, place, policy, clustered, resemblances.get(row.image))
            rows.append(QueueRow(
                rank=rank, score="%.4g" % place.score, state=row.state,
                cluster=str(row.cluster) if clustered else "", label=label,
                novelty="%.2f" % row.novelty if clustered else "",
                reason=reason, bytes=row.bytes, cumulative_bytes=cumulative,
                preview=previews.get(row.image, ""),
                captured_at=row.captured_at, sha256=row.sha256, path=row.path))
        return rows


def said_of(row: Row, place: Ranked, policy: Policy, clustered: bool, alike
            ) -> Tuple[str, str]:
    """(the cluster's label, why it stands there) of an image; `alike` as placing.resemblances."""
    label, spoken = ranking.names_of(policy.labels if clustered else {}, row.cluster)
    verdict = "" if row.quality == 1 or row.measures is None else quality.judge(
        row.measures, policy.quality).reason
    return label, ranking.reason(row, spoken, policy.weights.get(row.cluster, 1.0), place,
                                 clustered, verdict, alike)


def _reason(before: str, pinned: bool) -> str:
    """The reason in the row of an image that is pinned now, or is not."""
    if before.startswith(PINNED) == pinned:
        return before
    return PINNED + "; " + before if pinned else before[len(PINNED):].lstrip("; ")
