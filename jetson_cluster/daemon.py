"""The loop: one turn takes what has arrived, embeds it, catalogues it, and keeps the queue file true.

In: a Config. Out: `queue.csv`, `status.json`, the catalog, and messages to systemd. `Daemon.step()`
does one turn and says what it did; `run` is a loop around it. Clocks are passed in and nothing here
sleeps, so that tests drive it turn by turn.
"""

import contextlib
import logging
import os
import threading
import time
from typing import Callable, Mapping, NamedTuple, Optional

from jetson_cluster import (
    __version__, codebook, frame, gpu_losses, health, heat, policy, recipe, sensors)
from jetson_cluster.catalog import Catalog
from jetson_cluster.clocks import boot_identity, utc_now
from jetson_cluster.config import Config, make_folders
from jetson_cluster.downlink import printable_path
from jetson_cluster.embedder import AUTO, CPU, TENSORRT, open_embedder
from jetson_cluster.embedder.base import Embedder, Options
from jetson_cluster.embedder.tensorrt import missing
from jetson_cluster.errors import GpuLost, WorldError
from jetson_cluster.inbox import Inbox
from jetson_cluster.ingest import Ingest
from jetson_cluster.lock import lock_folder
from jetson_cluster.pipeline import Pipeline
from jetson_cluster.placing import Placing
from jetson_cluster.publisher import Publisher
from jetson_cluster.records import MISSING, QUEUED, WAITING
from jetson_cluster.starting import Starting
from jetson_cluster.uplinked import Uplinked
from jetson_cluster.waiting import Turns

log = logging.getLogger(__name__)

LOOK_S = 1.0  # how often the codebook and the policy are looked at for a change
LONGEST_WAIT_S = LOOK_S  # also bounds the time between two watchdog messages
REFUSALS_SHOWN = 20
MAY_USE_GPU = (AUTO, TENSORRT)
GPU_REST_S = 6 * 3600.0  # then a lost GPU is tried again: months on the processor would be a waste
# `once` waits for it to cool, but not for ever: a sensor may be broken, and what waits is not lost.
HOT_PATIENCE_S = 600.0
HOT_SAID_EVERY_S = 60.0


class Step(NamedTuple):
    """What one turn did."""

    taken: int  # files handled, whatever became of them
    added: int  # images new to the catalog
    refused: int
    placed_anew: int
    published: bool

    @property
    def idle(self) -> bool:
        return not (self.taken or self.placed_anew or self.published)


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
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        config = self.config
        self._starting("loading the network", 600)
        self.model = recipe.load_model(config.model, config.recipe)
        self._batch = config.batch or self.model.recipe.max_batch
        self._policy = Uplinked("policy", config.policy, self._kept("policy.yaml"), policy.load)
        self._policy.start()
        limits = frame.Limits(config.inbox.max_file_bytes, config.inbox.max_pixels,
                              config.inbox.sixteen_bit_white)
        self._pipeline = Pipeline(self._open_embedder, limits, self._now)
        self._opened.append(self._pipeline)
        # After the network: if the model is wrong, that is to be said, not what follows from it.
        self._codebook = Uplinked("codebook", config.codebook, self._kept("codebook.npz"),
                                  lambda path: codebook.load(
                                      path, self.model.space, self.model.recipe.dimension))
        self._codebook.start()
        self._catalog = Catalog(config.catalog_path, self.model.space, self._starting)
        self._opened.append(self._catalog)
        self._catalog.begin_boot(boot_identity())
        self._catalog.forget_refusals(repr(limits), frame.DEPENDS_ON_LIMITS)
        self._placing = Placing(self._catalog, config.queue.rows)
        self._use(self._codebook.value)
        self._warn_of_unknown_clusters()
        log.info("Started: %s, %s, %s", self.model.space, self._pipeline.embedder.description,
                 "%d clusters" % self._placing.clusters if self._placing.clustered
                 else "no codebook yet")
        self._inbox = Inbox(config.inbox.path, config.inbox.settle_s, config.inbox.rescan_s,
                            self._catalog.known, self._monotonic, self.wake.set,
                            mount=self._catalog.meta(self._mount_key))
        self._inbox.start()
        self._turns = Turns(self._inbox, self._catalog)
        self._ingest = Ingest(self._pipeline, self._catalog, self._placing.record, self._turns,
                              self._batch, self._now, self._monotonic)
        self._publisher = Publisher(config, self._catalog, self._placing, self._monotonic)
        self._heat = heat.Heat(heat.levels(config.heat.warm_c, config.heat.hot_c),
                               self._monotonic, self._sysfs)
        self._reporter = health.Reporter(config.status_path, self._notifier, self._monotonic,
                                         self._now)
        self._looked_at = self._started_at = self._monotonic()
        self._starting.ready()

    def _open_embedder(self) -> Embedder:
        """Called in the network's own thread."""
        config, tensorrt = self.config, self.config.tensorrt
        options = Options(config.threads, tensorrt.plan, tensorrt.workspace_bytes,
                          tensorrt.centroids, self._starting)
        name = config.embedder
        may_use_gpu = name in MAY_USE_GPU and not missing()
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

    @property
    def _mount_key(self) -> str:
        return "mount of " + printable_path(self.config.inbox.path)

    def _kept(self, name: str) -> str:
        return os.path.join(self.config.state_dir, "last-good", name)

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

        Raises GpuLost if the GPU failed: the process has to end, and loses nothing by it.
        """
        with self._noting_gpu_loss():
            return self._step()

    def _step(self) -> Step:
        self._look()
        if self._heat.look():
            self._reporter.changed = True
        taken = self._ingest.step(self._heat.level)
        if self._inbox.available:
            self._catalog.remember(self._mount_key, self._inbox.mount)
        self._reporter.count(taken.added)
        placed = self._placing.place_some()
        if taken.files or placed or self._catalog.disturbed:
            self._publisher.stale = True
        published = self._publish()
        if taken.files or placed or published:
            self._reporter.changed = True
        self._tell()
        return Step(taken.files, taken.added, taken.refused, placed, published)

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
        with self._noting_gpu_loss():
            while self._ingest.finish_one().files:
                self._publisher.stale = True
        self._publish(at_once=True)
        self._tell(at_once=True)

    def next_due_s(self) -> float:
        """Seconds until a turn could find work although nothing set `wake`."""
        rest_s = self._ingest.rest_s
        # After a rest those that wait are taken, even if the inbox has nothing. Without one they
        # were not to be had this turn, and asking again at once would find no more.
        after_rest = rest_s and self._catalog.counts[WAITING]
        ingest_due_s = rest_s if after_rest else max(self._inbox.next_due_s(), rest_s)
        return max(0.0, min(LONGEST_WAIT_S, ingest_due_s, self._publisher.next_due_s()))

    @property
    def queued(self) -> int:
        """Images in the queue, the file's head and the rest."""
        return self._catalog.counts[QUEUED]

    @property
    def network_s(self) -> float:
        """Seconds the network has worked since the start."""
        return self._ingest.spent.network_s

    @property
    def gpu_rested(self) -> bool:
        """Whether the processor has stood in for a lost GPU long enough to try the GPU again."""
        return self._gpu_given_up and self._monotonic() - self._started_at >= GPU_REST_S

    @property
    def inbox_available(self) -> bool:
        return self._inbox.available

    @property
    def hot_s(self) -> float:
        """Seconds since the heat stopped the embedding; 0 while it goes on."""
        return 0.0 if self._heat.level.embeds else self._monotonic() - self._heat.since

    @property
    def heat_words(self) -> str:
        """How hot it is and what follows from it."""
        return "%s: %s" % (self._heat.level.name, heat.describe(
            self._heat.level.name, self._heat.zones, self._catalog.counts[WAITING]))

    @property
    def settled(self) -> bool:
        """Nothing waits: no file ready, settling or in flight, no image for its embedding or its
        place, none gone."""
        progress = self._placing.progress
        return (self._inbox.drained and not self._ingest.busy and not self._publisher.looking
                and progress.done >= progress.total
                and self._catalog.counts[WAITING] <= self._turns.in_vain)

    def _look(self) -> None:
        """Read codebook and policy again if they changed."""
        if self._monotonic() - self._looked_at < LOOK_S:
            return
        self._looked_at = self._monotonic()
        if self._policy.poll():
            log.info("PolicyTaken: %s", self._policy.path)
            self._publisher.stale = True
            self._warn_of_unknown_clusters()
        if self._codebook.poll():
            log.info("CodebookTaken: %s, %d clusters", self._codebook.path, self._codebook.value.k)
            self._use(self._codebook.value)
            self._publisher.stale = True
            self._warn_of_unknown_clusters()
        for uplinked in (self._policy, self._codebook):
            if uplinked.error:
                self._reporter.note(uplinked.error)

    def _use(self, clusters: Optional[codebook.Codebook]) -> None:
        self._pipeline.use(clusters)
        self._placing.use(clusters)

    def _warn_of_unknown_clusters(self) -> None:
        """A policy written for another codebook weighs the wrong things, silently."""
        unknown = (self._policy.value or policy.EMPTY).unknown_clusters(self._placing.clusters)
        if self._placing.clustered and unknown:
            log.warning("PolicyNamesNoCluster: %s speaks of clusters %s; the codebook has 0 to %d",
                        self._policy.path, unknown, self._placing.clusters - 1)

    def _publish(self, at_once: bool = False) -> bool:
        """Write the queue file if it is due; True if it was written."""
        wanted = self._policy.value or policy.EMPTY
        published = self._publisher.publish_if_due(wanted, self._inbox.available, at_once)
        if self._publisher.error:
            self._reporter.note(self._publisher.error)
        return published

    def _tell(self, at_once: bool = False) -> None:
        counts = self._catalog.counts
        line = "%d queued, %d refused, %d waiting in the inbox" % (
            counts[QUEUED], counts["refused"], self._inbox.backlog)
        if counts[WAITING] or self._heat.level.name in ("warm", "hot"):
            line += "; " + self.heat_words
        self._reporter.tell(line, lambda: self._status(running=not at_once), at_once)

    def _status(self, running: bool) -> dict:
        progress, counts, hottest = self._placing.progress, self._catalog.counts, self._heat.hottest
        return {
            "written_at": self._now(), "running": running, "process": os.getpid(),
            "version": __version__,
            "embedder": self._pipeline.embedder.description, "space": self.model.space,
            "gpu": {"given_up": self._gpu_given_up, "lost_of_late": len(self._gpu_losses.recent())},
            "codebook": {"path": self.config.codebook, "error": self._codebook.error,
                         "clusters": self._placing.clusters if self._placing.clustered else 0},
            "policy": {"path": self.config.policy, "error": self._policy.error},
            "images": {state: counts[state] for state in (QUEUED, WAITING, MISSING)},
            "queued_bytes": self._catalog.queued_bytes,
            "files_refused": counts["refused"],
            "inbox": {"path": self.config.inbox.path, "available": self._inbox.available,
                      "watched": self._inbox.watching,
                      "ready": self._inbox.backlog, "settling": self._inbox.settling},
            "placing_anew": {"done": progress.done, "total": progress.total},
            "heat": {"level": self._heat.level.name, "hottest_c": hottest and hottest[1],
                     "zones": self._heat.zones},
            "power_mw": sensors.power_mw(self._sysfs), "gpu_load": sensors.gpu_load(self._sysfs),
            "images_per_s": round(self._reporter.images_per_s, 2),
            "ms_per_image": {stage: round(1000 * spent / max(1, self._ingest.spent.images), 2)
                             for stage, spent in (
                                 ("decode", self._ingest.spent.decode_s),
                                 ("network", self._ingest.spent.network_s),
                                 ("catalog", self._ingest.spent.catalog_s),
                                 ("queue", self._publisher.spent_s))},
            "disk": health.disk_of(self.config.state_dir),
            "last_error": self._reporter.last_error,
            "refusals": [{"path": refusal.path, "code": refusal.code, "reason": refusal.reason,
                          "refused_at": refusal.refused_at}
                         for refusal in self._catalog.refusals(REFUSALS_SHOWN)],
        }


def run(daemon: Daemon, stop: threading.Event) -> None:
    """Turn until `stop` is set (which should also set `daemon.wake`), then finish what is begun.

    Raises GpuLost to be started again with the GPU, once the processor has stood in for it long enough.
    """
    while not stop.is_set():
        if daemon.gpu_rested:
            daemon.drain()
            raise GpuLost("the processor has stood in for the lost GPU for %d hours; ending, to be "
                          "started with the GPU again" % (GPU_REST_S / 3600))
        daemon.wake.clear()
        if daemon.step().idle:
            daemon.wake.wait(daemon.next_due_s())
    daemon.drain()


def once(daemon: Daemon, stop: threading.Event) -> None:
    """Turn until the inbox is empty and nothing in it changes any more, then publish and return.

    Raises WorldError if the inbox is not there, or if it was too hot to embed for HOT_PATIENCE_S.
    """
    added = refused = 0
    said_s = 0.0  # for how long it had been hot when that was last said
    while not stop.is_set():
        daemon.wake.clear()
        step = daemon.step()
        added, refused = added + step.added, refused + step.refused
        if not daemon.inbox_available:
            raise WorldError("inbox %s is not there (unmounted?)" % daemon.config.inbox.path)
        if step.idle and daemon.settled:
            break
        if step.idle and daemon.hot_s >= HOT_PATIENCE_S:
            daemon.drain()
            raise WorldError(
                "too hot for %d minutes now (%s); what waits is in the catalog: run this again when "
                "it is cooler, or raise heat.hot_c if that sensor is wrong" % (
                    HOT_PATIENCE_S / 60, daemon.heat_words))
        said_s = min(said_s, daemon.hot_s)
        if daemon.hot_s - said_s >= HOT_SAID_EVERY_S:
            said_s = daemon.hot_s
            log.warning("StillHot: %s", daemon.heat_words)
        if step.idle:
            daemon.wake.wait(daemon.next_due_s())
    daemon.drain()
    log.info("Emptied: %d new images, %d files refused, %d images queued in all", added, refused,
             daemon.queued)
