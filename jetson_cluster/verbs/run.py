"""`jetson-cluster run`: the daemon, until SIGTERM or Ctrl-C, which finish the current batch."""

import argparse
import logging
import signal
import threading

from jetson_cluster import daemon
from jetson_cluster.verbs import add_config_arguments, config_of

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    return run_until_stopped(args, daemon.run)


def run_until_stopped(args: argparse.Namespace, loop) -> int:
    """Run `loop(daemon, stop)` with SIGTERM and SIGINT setting `stop`."""
    stop = threading.Event()
    # While it starts nothing can be lost: Ctrl-C ends it at once, even in the minutes of building an
    # engine, in which Python cannot raise KeyboardInterrupt where it would have to.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with daemon.Daemon(config_of(args)) as opened:
        def finish(number, _frame):
            log.info("Stopping: signal %d; finishing the current batch", number)
            stop.set()
            opened.wake.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, finish)
        loop(opened, stop)
    log.info("Stopped")
    return 0
