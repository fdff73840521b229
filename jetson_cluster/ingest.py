"""From files to catalog: what the daemon does with its inbox, and `fit` with an archive.

In: a source of arrivals, and what the heat allows. Out: every one of them in the catalog, as an
image or as a refusal with its reason; while it is hot, as an image that waits to be embedded. A
file is noted durably before it is decoded and the note crossed out once it is, so that one which
ends the program is given up after three tries. After the first it is tried alone, when nothing else
waits, so that no other file is blamed and none is held up.
"""

import contextlib
import logging
import sqlite3
import time
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from jetson_cluster.attempts import ATTEMPT_POINTS
from jetson_cluster.catalog import Catalog
from jetson_cluster.heat import NORMAL, Level
from jetson_cluster.inbox import Arrival
from jetson_cluster.pipeline import Outcome, Pipeline
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


NOTHING = Taken(0, 0, 0)


class Spent(NamedTuple):
    """Seconds spent since the start, by stage, and the images that took them."""

    images: int
    decode_s: float
    network_s: float
    catalog_s: float


class PreviewTally(NamedTuple):
    """The previews made since the start, summed."""

    made: int = 0
    bytes: int = 0
    psnr_db: float = 0.0

    def with_those_of(self, images: List[Image]) -> "PreviewTally":
        made = [image.preview for image in images if image.preview is not None]
        return PreviewTally(self.made + len(made),
                            self.bytes + sum(len(preview.content) for preview in made),
                            self.psnr_db + sum(preview.psnr_db for preview in made))

    def means(self) -> Dict[str, Optional[float]]:
        """How many, and what they are on average, None without any."""
        return {"made": self.made,
                "mean_bytes": round(self.bytes / self.made, 1) if self.made else None,
                "mean_psnr_db": round(self.psnr_db / self.made, 2) if self.made else None}


class Ingest:
    """Moves arrivals through the pipeline into the catalog, a batch a call."""

    def __init__(self, pipeline: Pipeline, catalog: Catalog,
                 record: Callable[[List[Image], List[Refusal]], int],
                 source, batch: int, now: Callable[[], str],
                 monotonic: Callable[[], float] = time.monotonic):
        """`record` writes one batch into the catalog and says how many images were new.

        `source` is an Inbox or the like of it: take(limit) gives files to read, [] when there are
        none at the moment; done(arrival) is called for those that are in the catalog and
        give_back(arrival) for those that were written to while they were read. Where it can be
        hot it also has take_new(limit), which leaves out the images that wait.
        """
        self._pipeline, self._catalog, self._write = pipeline, catalog, record
        self._source, self._batch, self._now = source, batch, now
        self._monotonic, self._rest_until = monotonic, monotonic()
        self._suspects = []  # type: List[Arrival]
        self._unrecorded = None  # type: Optional[Outcome]  # the catalog could not be written
        self.spent = Spent(0, 0.0, 0.0, 0.0)
        self.previews = PreviewTally()

    @property
    def busy(self) -> bool:
        """Whether anything taken from the source is not in the catalog yet."""
        return bool(len(self._pipeline) or self._suspects or self._unrecorded)

    @property
    def rest_s(self) -> float:
        """Seconds until the heat allows another batch."""
        return max(0.0, self._rest_until - self._monotonic())

    def step(self, level: Level = NORMAL, accepting: bool = True) -> Taken:
        """Start on new files as far as `level` allows, and finish the oldest batch.

        Where it allows no embedding, new files are identified and wait; where not `accepting`, they
        stay in the inbox. Raises what the network raised, and what the catalog did: then nothing
        is lost, and the next step tries again.
        """
        if not accepting:
            self._source.take_new(0)  # so that it goes on looking at what there is
        if not accepting or self._unrecorded:
            begun = NOTHING
        elif level.embeds:
            begun = self._feed(level)
        else:
            # A file renamed over one in flight must be recorded after it: the last one is believed.
            begun = NOTHING if len(self._pipeline) else self._identify()
        done = self.finish_one()
        if done.files:
            self._rest_until = self._monotonic() + level.pause_s
        return Taken(*(sum(counts) for counts in zip(begun, done)))

    def finish_one(self) -> Taken:
        """Finish the oldest batch in flight, taking nothing new."""
        if self._unrecorded is None:
            if not len(self._pipeline):
                return NOTHING
            try:
                # Decoded while the batch before was in the network; from here on no file is to blame.
                self._catalog.cancel_attempts(self._pipeline.wait_decoded())
                self._unrecorded = self._pipeline.collect()
            except sqlite3.Error:
                raise  # the batch is still in flight, and none will be blamed that is recorded later
            except BaseException:
                self._blame_none(self._pipeline.arrivals)
                raise
        outcome = self._unrecorded
        added, catalog_s = self._record(outcome.images, outcome.refusals)
        self._unrecorded = None
        self._hand_over(outcome)
        self.previews = self.previews.with_those_of(outcome.images)
        spent = self.spent
        self.spent = Spent(
            spent.images + len(outcome.images), spent.decode_s + outcome.decode_s,
            spent.network_s + outcome.embed_s, spent.catalog_s + catalog_s)
        return Taken(len(outcome.arrivals), added, len(outcome.refusals))

    def _hand_over(self, outcome: Outcome) -> None:
        """Tell the source what became of its files."""
        for arrival in outcome.changed:
            self._source.give_back(arrival)
        for arrival in set(outcome.arrivals) - set(outcome.changed):
            self._source.done(arrival)

    def let_go(self) -> None:
        """What is in flight cannot be recorded now and will be read again: no file is to blame."""
        unrecorded = self._unrecorded.arrivals if self._unrecorded else []
        self._blame_none(self._pipeline.arrivals + unrecorded)

    def _blame_none(self, arrivals: List[Arrival]) -> None:
        """Network, disk or user stopped the work, not the files that are in flight."""
        try:
            self._catalog.cancel_attempts(arrivals)
        except sqlite3.Error as error:
            log.error("AttemptsNotCancelled: %s", error)  # the disk is full: it is what is reported

    def _feed(self, level: Level) -> Taken:
        """Fill the pipeline; return what was given up instead."""
        given_up = 0
        batch_size = max(1, int(level.share * self._batch))
        ahead = 1 if level.pause_s else BATCHES_AHEAD
        while len(self._pipeline) < ahead and not self.rest_s:
            taken = self._source.take(batch_size)
            batch, refused = self._sort_out(taken)
            given_up += refused
            if not taken and self._suspects and not len(self._pipeline):
                batch = self._suspects[:1]
            if batch:
                with self._giving_back(batch):
                    self._catalog.begin_attempts(batch)
                self._suspects = [suspect for suspect in self._suspects if suspect not in batch]
                self._pipeline.submit(batch)
            elif not taken:
                break
        return Taken(given_up, 0, given_up)

    @contextlib.contextmanager
    def _giving_back(self, files: List[Arrival]):
        """Should the catalog fail within, offer these files again: nothing else remembers them."""
        try:
            yield
        except sqlite3.Error:
            self._suspects = [suspect for suspect in self._suspects if suspect not in files]
            for arrival in files:
                self._source.give_back(arrival)
            raise

    def _identify(self) -> Taken:
        """Catalogue new files without embedding them; suspects stay for cooler times."""
        batch, given_up = self._sort_out(self._source.take_new(self._batch))
        if not batch:
            return Taken(given_up, 0, given_up)
        with self._giving_back(batch):
            self._catalog.begin_attempts(batch)
            try:
                outcome = self._pipeline.identify(batch)
                self._catalog.record(outcome.images, None, outcome.refusals)
                self._catalog.cancel_attempts(outcome.changed)
            except BaseException:
                self._blame_none(batch)
                raise
        self._log(outcome.refusals)
        self._hand_over(outcome)
        return Taken(len(batch) + given_up, 0, len(outcome.refusals) + given_up)

    def _sort_out(self, taken: List[Arrival]) -> Tuple[List[Arrival], int]:
        """(files of `taken` to read now, how many were given up); suspects are put aside."""
        with self._giving_back(taken):
            tried = self._catalog.attempts(taken)
            hopeless = [arrival for arrival in taken
                        if tried.get(arrival.path, 0) >= MOST_POINTS]
            if hopeless:
                self._record([], [self._given_up(arrival) for arrival in hopeless])
        for arrival in hopeless:
            self._source.done(arrival)
        self._suspects += [arrival for arrival in taken
                           if 0 < tried.get(arrival.path, 0) < MOST_POINTS]
        return [arrival for arrival in taken if arrival.path not in tried], len(hopeless)

    def _given_up(self, arrival: Arrival) -> Refusal:
        return Refusal(arrival.path, arrival.bytes, arrival.mtime_ns, "quarantined",
                       "the program ended %d times while reading this file; to have it read again, "
                       "copy it under another name" % MOST_ATTEMPTS, self._now())

    def _record(self, images, refusals):
        """(images added, seconds it took)."""
        begun = time.perf_counter()
        added = self._write(images, refusals)
        self._log(refusals)
        return added, time.perf_counter() - begun

    def _log(self, refusals: List[Refusal]) -> None:
        for refusal in refusals:
            log.warning("FileRefused: %s: %s (%s)", refusal.path, refusal.reason, refusal.code)
