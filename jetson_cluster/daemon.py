"""The loop: one turn takes what has arrived, embeds it, catalogues it, and keeps the queue file true.

In: a Config. Out: `queue.csv`, `status.json`, the catalog, and messages to systemd. `Daemon.step()`
does one turn and says what it did; loops.py is the loop around it. Clocks are passed in and nothing
here sleeps, so that tests drive it turn by turn.
"""

import contextlib
import logging
import os
import sqlite3
import threading
import time
from typing import Callable, Mapping, NamedTuple, Optional, Tuple

from jetson_cluster import (
    codebook, frame, gpu_losses, health, heat, preview, recipe, sensors)
from jetson_cluster.catalog import open_or_rebuild
from jetson_cluster.clocks import boot_identity, utc_now
from jetson_cluster.config import Config, make_folders
from jetson_cluster.embedder import AUTO, CPU, TENSORRT, open_embedder
from jetson_cluster.embedder.base import Embedder, Options
from jetson_cluster.embedder.tensorrt import missing
from jetson_cluster.errors import GpuLost, JetsonClusterError
from jetson_cluster.head import Head
from jetson_cluster.inbox import Inbox, mount_key
from jetson_cluster.ingest import NOTHING, Ingest
from jetson_cluster.lock import lock_folder
from jetson_cluster.operations import Operations
from jetson_cluster.pausing import Pause, failure_of, may_pass
from jetson_cluster.pipeline import Pipeline
from jetson_cluster.placing import Placing
from jetson_cluster.publisher import Publisher
from jetson_cluster.report import Parts, status_of
from jetson_cluster.schema import QUEUED, WAITING
from jetson_cluster.starting import Starting
from jetson_cluster.uplinked import Uplinked
from jetson_cluster.waiting import Turns
from jetson_cluster.wishes import Wishes, uplinked_policy

log = logging.getLogger(__name__)

LOOK_S = 1.0  # how often the codebook and the policy are looked at for a change
LONGEST_WAIT_S = LOOK_S  # also bounds the time between two watchdog messages
GPU_REST_S = 6 * 3600.0  # then a lost GPU is tried again: months on the processor would be a waste


class Step(NamedTuple):
    """What one turn did."""

    taken: int  # files handled, whatever became of them
    added: int  # images new to the catalog
    refused: int
    placed_anew: int
    published: bool
    orders: int = 0  # carried out

    @property
    def idle(self) -> bool:
        return not (self.taken or self.placed_anew or self.published or self.orders)


class Daemon:
    """Everything that runs on the rover. A context manager; use it from one thread."""

    def __init__(self, config: Config, environment: Mapping[str, str] = os.environ,
                 monotonic: Callable[[], float] = time.monotonic,
                 now: Callable[[], str] = None, sysfs: str = sensors.ROOT):
        """Open everything. Raises UserError or WorldError; then nothing is left open.

        `sysfs` stands for /sys, where the temperatures are.
        """
        self.config = config
        self.wake = threading.Event()  # set whenever a turn might find work
        self._monotonic = monotonic
        self._now = now or utc_now
        self._notifier = health.Notifier(environment)
        self._sysfs = sysfs
        make_folders(config)
        self._lock = lock_folder(config.state_dir)
        self._starting = Starting(config.state_dir, self._notifier, monotonic)
        self._gpu_losses = gpu_losses.GpuLosses.of(config.state_dir, boot_identity(), monotonic)
        self._gpu_given_up = False
        self._opened = []
        try:
            with self._noting_gpu_loss():
                self._open()
        except BaseException as error:
            self.close()
            ours = isinstance(error, JetsonClusterError) or not isinstance(error, Exception)
            if ours or getattr(self, "_catalog", None) is None:
                raise
            raise self._failed(error)

    def _open(self) -> None:
        config = self.config
        self._starting("loading the network", 600)
        self.model = recipe.load_model(config.model, config.recipe)
        self._batch = config.batch or self.model.recipe.max_batch
        policy_file = uplinked_policy(config, self._monotonic)
        policy_file.start()
        limits = frame.Limits(config.inbox.max_file_bytes, config.inbox.max_pixels,
                              config.inbox.sixteen_bit_white)
        self._pipeline = Pipeline(self._open_embedder, limits, self._now,
                                  lambda image: preview.examine(image, *config.preview))
        self._opened.append(self._pipeline)
        # After the network: if the model is wrong, that is to be said, not what follows from it.
        self._codebook = Uplinked("codebook", config.codebook,
                                  os.path.join(config.kept_path, "codebook.npz"),
                                  lambda path: codebook.load(
                                      path, self.model.space, self.model.recipe.dimension),
                                  self._monotonic)
        self._codebook.start()
        self._catalog = open_or_rebuild(config.catalog_path, self.model.space, self._starting)
        self._opened.append(self._catalog)
        self._catalog.begin_boot(boot_identity())
        self._catalog.forget_refusals(repr(limits), frame.DEPENDS_ON_LIMITS)
        self._pause = Pause(config.catalog_path, self._monotonic)
        self._wishes = Wishes(policy_file, self._catalog, self._now)
        self._head = Head(self._catalog, config.queue.rows)
        self._placing = Placing(self._catalog, self._head, self._monotonic)
        self._use_codebook()
        log.info("Started: %s, %s, %s", self.model.space, self._pipeline.embedder.description,
                 "%d clusters" % self._placing.clusters if self._placing.clustered
                 else "no codebook yet")
        self._inbox = Inbox(config.inbox.path, config.inbox.settle_s, config.inbox.rescan_s,
                            self._catalog.known, self._monotonic, self.wake.set,
                            mount=self._catalog.meta(mount_key(config.inbox.path)))
        self._inbox.start()
        self._turns = Turns(self._inbox, self._catalog)
        self._ingest = Ingest(self._pipeline, self._catalog, self._placing.record, self._turns,
                              self._batch, self._now, self._monotonic)
        self._publisher = Publisher(config, self._catalog, self._placing, self._head,
                                    self._monotonic)
        self._heat = heat.Heat(heat.levels(config.heat.warm_c, config.heat.hot_c),
                               self._monotonic, self._sysfs)
        self._operations = Operations(config, self._catalog, self._head, self._wishes.amended,
                                      lambda: self._inbox.available, self._monotonic, self._now)
        self._reporter = health.Reporter(config.status_path, config.status.prom, self._notifier,
                                         self._monotonic, self._now)
        self._parts = Parts(
            config, self.model.space, self._gpu_losses, self._gpu_given_up, self._pipeline,
            self._codebook, self._wishes, self._catalog, self._placing, self._inbox, self._ingest,
            self._publisher, self._operations, self._heat, self._pause, self._reporter, self._sysfs)
        self._looked_at = self._started_at = self._monotonic()
        self._use_next = None  # type: Optional[Callable[[], None]]
        self._starting.ready()

    def _open_embedder(self) -> Embedder:
        """Called in the network's own thread."""
        config, tensorrt = self.config, self.config.tensorrt
        options = Options(config.threads, tensorrt.plan, tensorrt.workspace_bytes,
                          tensorrt.centroids, self._starting)
        name = config.embedder
        may_use_gpu = name in (AUTO, TENSORRT) and not missing()
        if may_use_gpu:
            self._gpu_losses.begin()
        self._gpu_given_up = (may_use_gpu and tensorrt.cpu_fallback
                              and self._gpu_losses.too_many())
        if self._gpu_given_up:
            log.error("GpuGivenUp: lost %d times within %d minutes; the processor takes over, for "
                      "%d hours", gpu_losses.TOO_MANY, gpu_losses.WITHIN_S / 60, GPU_REST_S / 3600)
            name = CPU
        embedder = open_embedder(name, self.model, self._batch, options)
        if embedder.name != TENSORRT:
            self._gpu_losses.end()
        return embedder

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(self, _kind, error, _trace) -> None:
        try:
            self.close()
        except Exception as failure:
            if error is None:
                raise
            log.error("CloseFailed: %s", failure)  # what ended the daemon is what is reported

    def close(self) -> None:
        """Let go of everything; what is in flight is dropped and read again at the next start."""
        with contextlib.ExitStack() as last_first:  # all of them, also where one fails
            last_first.callback(self._lock.close)
            last_first.callback(self._starting.over)
            last_first.callback(self._gpu_losses.end)
            for resource in self._opened:
                last_first.callback(resource.close)
            if getattr(self, "_inbox", None) is not None:
                last_first.callback(self._inbox.stop)
            self._opened = []

    # ---- one turn ----------------------------------------------------------------------------

    def step(self) -> Step:
        """One turn: look for changed files, take images, place older ones, publish.

        Raises GpuLost if the GPU failed, WorldError if the catalog is damaged: the process has to
        end, and loses nothing by it.
        """
        with self._noting_gpu_loss():
            if self._pause.left_s:
                self._tell()
                return Step(0, 0, 0, 0, False)
            try:
                step = self._step()
                self._pause.over()
                self._tell()
            except JetsonClusterError:
                raise
            except Exception as error:
                step = self._not_written(error)
                self._tell()
            return step

    def _not_written(self, error: Exception) -> Step:
        """A turn failed: wait if the catalog only cannot be written, else end."""
        if not may_pass(error):
            raise self._failed(error)
        self._pause.begin(error)
        return Step(0, 0, 0, 0, False)

    def _failed(self, error: Exception) -> Exception:
        return failure_of(error, self.config.catalog_path, self._catalog.close)

    def _step(self) -> Step:
        self._look()
        if self._heat.look():
            self._reporter.changed = True
        orders = self._operations.look()
        if orders:
            self._looked_at -= LOOK_S  # they may have amended the policy
        taken = self._ingest.step(self._heat.level, self._operations.accepting)
        if self._inbox.available:
            self._catalog.remember(mount_key(self.config.inbox.path), self._inbox.mount)
        self._reporter.count(taken.added)
        placed = self._placing.place_some()
        if taken.files or placed or orders or self._catalog.disturbed:
            self._publisher.stale = True
        published = self._publish()
        if taken.files or placed or published or orders:
            self._reporter.changed = True
        return Step(taken.files, taken.added, taken.refused, placed, published, orders)

    @contextlib.contextmanager
    def _noting_gpu_loss(self):
        try:
            yield
        except GpuLost:
            self._gpu_losses.note()
            raise

    def drain(self) -> None:
        """Finish what is in flight and publish it; take nothing new. Raises GpuLost, as a turn does."""
        self._notifier.stopping()
        try:
            with self._noting_gpu_loss():
                while self._ingest.finish_one() != NOTHING:
                    self._publisher.stale = True
            self._publish(at_once=True)
            self._complete_journal()
        except sqlite3.Error as error:
            self._not_written(error)
            self._ingest.let_go()
        self._tell(at_once=True)

    def _complete_journal(self) -> None:
        try:
            self._catalog.recall()
        except OSError as error:  # only the journal's: the next start makes up for it
            log.error("JournalNotWritten: %s: %s; the next start completes it",
                      self._catalog.journal.path, error.strerror or error)

    def next_due_s(self) -> float:
        """Seconds until a turn could find work although nothing set `wake`."""
        rest_s = self._ingest.rest_s
        # After a rest those that wait are taken, even if the inbox has nothing. Without one they
        # were not to be had this turn, and asking again at once would find no more.
        after_rest = rest_s and self._catalog.count_of(WAITING)
        ingest_due_s = rest_s if after_rest else max(self._inbox.next_due_s(), rest_s)
        if not self._operations.accepting:
            ingest_due_s = LONGEST_WAIT_S  # whatever lies in the inbox stays there
        if self._pause.why:
            return min(LONGEST_WAIT_S, self._pause.left_s)
        return max(0.0, min(LONGEST_WAIT_S, ingest_due_s, self._publisher.next_due_s(),
                            self._operations.next_due_s()))

    @property
    def queued(self) -> int:
        """Images in the queue, the file's head and the rest."""
        return self._catalog.count_of(QUEUED)

    @property
    def network_s(self) -> float:
        """Seconds the network has worked since the start."""
        return self._ingest.spent.network_s

    @property
    def gpu_rested(self) -> bool:
        """Whether the processor has stood in for a lost GPU long enough to try the GPU again."""
        return self._gpu_given_up and self._monotonic() - self._started_at >= GPU_REST_S

    @property
    def left(self) -> int:
        """Files and images known to wait."""
        return self._inbox.backlog + self._inbox.settling + self._catalog.count_of(WAITING)

    @property
    def inbox_available(self) -> bool:
        return self._inbox.available

    @property
    def held_up(self) -> Tuple[str, float, str]:
        """(what keeps images from being taken in, for how many seconds, when that may be over)."""
        now = self._monotonic()
        if not self._heat.level.embeds:
            return (self.heat_words, now - self._heat.since,
                    "it is cooler, or raise heat.hot_c if that sensor is wrong")
        if self._pause.why:
            return self._pause.why, now - self._pause.since, "the disk can be written again"
        if not self._operations.accepting:
            return (self._operations.retention.error, now - self._operations.not_accepting_since,
                    "there is room")
        return "", 0.0, ""

    @property
    def heat_words(self) -> str:
        """How hot it is and what follows from it."""
        return "%s: %s" % (self._heat.level.name, heat.describe(
            self._heat.level.name, self._heat.zones, self._catalog.count_of(WAITING)))

    @property
    def settled(self) -> bool:
        """Nothing waits: no file ready, settling or in flight, no image for its embedding or its
        place, none gone."""
        progress = self._placing.progress
        return (self._inbox.drained and not self._ingest.busy and not self._publisher.looking
                and progress.done >= progress.total and not self._pause.why
                and self._operations.settled
                and self._catalog.count_of(WAITING) <= self._turns.in_vain)

    def _look(self) -> None:
        """Take note of what other processes wrote, and read codebook and policy if they changed."""
        if self._catalog.changed_elsewhere():
            self._head.forget_all()
            self._publisher.stale = True
        if self._monotonic() - self._looked_at < LOOK_S:
            return
        if self._codebook.poll():
            log.info("CodebookTaken: %s, %d clusters", self._codebook.path, self._codebook.value.k)
            self._use_next = self._use_codebook
        if self._wishes.look():
            self._use_next = self._use_next or self._use_policy
        # Kept until it succeeds: the catalog may not be writable just now.
        (self._use_next or self._placing.look_for_targets)()
        self._reporter.changed |= self._use_next is not None
        self._use_next = None
        self._looked_at = self._monotonic()

    def _use_codebook(self) -> None:
        self._pipeline.use(self._codebook.value)
        self._use_policy()

    def _use_policy(self) -> None:
        """Also where only the codebook changed: what images are worth depends on both."""
        self._placing.use(self._codebook.value, self._wishes.policy)
        if getattr(self, "_publisher", None) is not None:
            self._publisher.stale = True

    def _publish(self, at_once: bool = False) -> bool:
        """Write the queue file if it is due, and the outbox after it; True if the file was written."""
        published = self._publisher.publish_if_due(
            self._wishes.policy, self._inbox.available, at_once)
        self._operations.publish(self._publisher.head, at_once)
        return published

    def _tell(self, at_once: bool = False) -> None:
        try:
            counts = self._catalog.counts
            line = "%d queued, %d sent, %d acked, %d refused, %d waiting in the inbox" % (
                counts[QUEUED], counts["sent"], counts["acked"], counts["refused"],
                self._inbox.backlog)
        except sqlite3.Error as error:
            line, counts = str(error), None
        if not self._inbox.available:
            line += "; the inbox is not there"
        wrong = tuple(filter(None, (self._pause.why, self._publisher.error, self._wishes.error,
                                    self._codebook.error) + self._operations.errors))
        self._reporter.note(wrong)
        line = "; ".join((line,) + wrong)
        if counts and (counts[WAITING] or self._heat.level.name in ("warm", "hot")):
            line += "; " + self.heat_words
        self._reporter.tell(
            line, lambda: status_of(self._parts, not at_once, self._now()), at_once)
