"""The daemon's turns, one after the other: for ever, or until its inbox is empty.

In: an open Daemon and an event that says to stop. Out: nothing; what is in flight is finished.
"""

import logging
import threading

from jetson_cluster.daemon import GPU_REST_S, Daemon
from jetson_cluster.errors import GpuLost, WorldError

log = logging.getLogger(__name__)

# `once` waits for it to cool, but not for ever: a sensor may be broken, and what waits is not lost.
# Likewise for a disk that is full.
PATIENCE_S = 600.0
SAID_EVERY_S = 60.0


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

    Raises WorldError if the inbox is not there, if heat or a full disk held it up for PATIENCE_S,
    or if `stop` was set before it was done.
    """
    added = refused = 0
    said_s = 0.0  # for how long it had been held up when that was last said
    while not stop.is_set():
        daemon.wake.clear()
        step = daemon.step()
        added, refused = added + step.added, refused + step.refused
        if not daemon.inbox_available:
            raise WorldError("inbox %s is not there (unmounted?)" % daemon.config.inbox.path)
        if step.idle and daemon.settled:
            break
        why, held_up_s, mend = daemon.held_up
        if step.idle and held_up_s >= PATIENCE_S:
            daemon.drain()
            raise WorldError("%s; for %d minutes now: what waits is not lost, run this again when %s" % (
                why, PATIENCE_S / 60, mend))
        said_s = min(said_s, held_up_s)
        if held_up_s - said_s >= SAID_EVERY_S:
            said_s = held_up_s
            log.warning("StillHeldUp: %s", why)
        if step.idle:
            daemon.wake.wait(daemon.next_due_s())
    daemon.drain()
    if not daemon.settled:
        raise WorldError("inbox %s: stopped before it was empty (files known to wait: %d); nothing "
                         "is lost, run this again" % (daemon.config.inbox.path, daemon.left))
    log.info("Emptied: %d new images, %d files refused, %d images queued in all", added, refused,
             daemon.queued)
