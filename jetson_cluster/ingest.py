"""From files to catalog: what the daemon does with its inbox, and `fit` with an archive.

In: a source of arrivals. Out: every one of them in the catalog, as an image or as a refusal with its
reason. A file is noted durably before it is decoded and the note crossed out once it is, so that one
which ends the program is given up after three tries. After the first it is tried alone, when nothing
else waits, so that no other file is blamed and none is held up.
"""

import logging
import sqlite3
import time
from typing import Callable, List, NamedTuple

from jetson_cluster.catalog import ATTEMPT_POINTS, Catalog
from jetson_cluster.inbox import Arrival
from jetson_cluster.pipeline import Pipeline
from jetson_cluster.records import Image, Refusal

log = logging.getLogger(__name__)

BATCHES_AHEAD = 2  # one in the network, one being decoded
MOST_ATTEMPTS = 3
MOST_POINTS = MOST_ATTEMPTS * ATTEMPT_POINTS


class Taken(NamedTuple):
    """What one batch brought."""

    files: int  # whatever became of them
    added: int  # images new to the catalog
    refused: int


class Spent(NamedTuple):
    """Seconds spent since the start, by stage, and the images that took them."""

    images: int
    decode_s: float
    network_s: float
    catalog_s: float


class Ingest:
    """Moves arrivals through the pipeline into the catalog, a batch a call."""

    def __init__(self, pipeline: Pipeline, catalog: Catalog,
                 record: Callable[[List[Image], List[Refusal]], int],
                 source, batch: int, now: Callable[[], str]):
        """`record` writes one batch into the catalog and says how many images were new.

        `source` is an Inbox or the like of it: take(limit) gives files to read, [] when there are
        none at the moment; done(arrival) is called for those that are in the catalog and
        give_back(arrival) for those that were written to while they were read.
        """
        self._pipeline, self._catalog, self._write = pipeline, catalog, record
        self._source, self._batch, self._now = source, batch, now
        self._suspects = []  # type: List[Arrival]
        self.spent = Spent(0, 0.0, 0.0, 0.0)

    @property
    def busy(self) -> bool:
        """Whether anything taken from the source is not in the catalog yet."""
        return bool(len(self._pipeline) or self._suspects)

    def step(self) -> Taken:
        """Start on new files and finish the oldest batch; raises what the network raised."""
        given_up = self._feed()
        done = self.finish_one()
        return Taken(done.files + given_up, done.added, done.refused + given_up)

    def finish_one(self) -> Taken:
        """Finish the oldest batch in flight, taking nothing new."""
        if not len(self._pipeline):
            return Taken(0, 0, 0)
        try:
            # Decoded while the batch before was in the network; from here on no file is to blame.
            self._catalog.cancel_attempts(self._pipeline.wait_decoded())
            outcome = self._pipeline.collect()
            added, catalog_s = self._record(outcome.images, outcome.refusals)
        except BaseException:
            self._blame_none()
            raise
        for arrival in outcome.changed:
            self._source.give_back(arrival)
        for arrival in set(outcome.arrivals) - set(outcome.changed):
            self._source.done(arrival)
        spent = self.spent
        self.spent = Spent(
            spent.images + len(outcome.images), spent.decode_s + outcome.decode_s,
            spent.network_s + outcome.embed_s, spent.catalog_s + catalog_s)
        return Taken(len(outcome.arrivals), added, len(outcome.refusals))

    def _blame_none(self) -> None:
        """Network, disk or user stopped the work, not the files that are in flight."""
        try:
            self._catalog.cancel_attempts(self._pipeline.arrivals)
        except sqlite3.Error as error:
            log.error("AttemptsNotCancelled: %s", error)  # the disk is full: it is what is reported

    def _feed(self) -> int:
        """Fill the pipeline; return how many files were given up instead."""
        given_up = 0
        while len(self._pipeline) < BATCHES_AHEAD:
            waiting = len(self._suspects)
            batch, hopeless = self._next_batch()
            if hopeless:
                self._record([], [self._given_up(arrival) for arrival in hopeless])
                for arrival in hopeless:
                    self._source.done(arrival)
                given_up += len(hopeless)
            if batch:
                self._catalog.begin_attempts(batch)
                self._pipeline.submit(batch)
            elif not hopeless and len(self._suspects) == waiting:
                break
        return given_up

    def _next_batch(self):
        """(files to read now, files given up); both empty when nothing is there."""
        batch = self._source.take(self._batch)
        if not batch and self._suspects and not len(self._pipeline):
            return [self._suspects.pop(0)], []
        tried = self._catalog.attempts(batch)
        hopeless = [arrival for arrival in batch if tried.get(arrival.path, 0) >= MOST_POINTS]
        self._suspects += [arrival for arrival in batch
                           if 0 < tried.get(arrival.path, 0) < MOST_POINTS]
        return [arrival for arrival in batch if arrival.path not in tried], hopeless

    def _given_up(self, arrival: Arrival) -> Refusal:
        return Refusal(arrival.path, arrival.bytes, arrival.mtime_ns, "quarantined",
                       "the program ended %d times while reading this file; to have it read again, "
                       "copy it under another name" % MOST_ATTEMPTS, self._now())

    def _record(self, images, refusals):
        """(images added, seconds it took)."""
        begun = time.perf_counter()
        added = self._write(images, refusals)
        for refusal in refusals:
            log.warning("FileRefused: %s: %s (%s)", refusal.path, refusal.reason, refusal.code)
        return added, time.perf_counter() - begun
