"""`jetson-cluster run`: the daemon, until SIGTERM or Ctrl-C, which finish the current batch."""

import argparse
import logging
import os
import signal
import threading
import time

from jetson_cluster import daemon, gpu_losses, loops
from jetson_cluster.clocks import boot_identity
from jetson_cluster.verbs import add_config_arguments, config_of

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    return run_until_stopped(args, loops.run)


def run_until_stopped(args: argparse.Namespace, loop) -> int:
    """Run `loop(daemon, stop)` with SIGTERM and SIGINT setting `stop`."""
    stop, config = threading.Event(), config_of(args)
    losses = gpu_losses.GpuLosses.of(config.state_dir, boot_identity(), time.monotonic)

    def end_the_start(number, _frame):
        # Nothing can be lost yet, and a build would be waited for: end at once. But without a word
        # the next start would suspect the GPU.
        losses.end()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end_the_start)
    with daemon.Daemon(config) as opened:
        def finish(number, _frame):
            log.info("Stopping: signal %d; finishing the current batch", number)
            stop.set()
            opened.wake.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, finish)
        loop(opened, stop)
    log.info("Stopped")
    return 0
