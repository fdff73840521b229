"""What the daemon does before it is ready: building an engine takes minutes, and looks like a hang.

In: what is being done and how long it may take. Out: the same to systemd, which waits for it, to the
log, and into a small file for `jetson-cluster status`. The file goes when the daemon is ready.
"""

import contextlib
import json
import logging
import os
from typing import Callable

from jetson_cluster.files import write_atomically
from jetson_cluster.health import Notifier

log = logging.getLogger(__name__)

FILE_NAME = "starting.json"  # in state_dir


class Starting:
    """Call it with what is being done and the seconds to allow for it."""

    def __init__(self, state_dir: str, notifier: Notifier, since_boot_s: Callable[[], float]):
        self._path = os.path.join(state_dir, FILE_NAME)
        self._notifier, self._since_boot_s = notifier, since_boot_s

    def __call__(self, doing: str, allow_s: float) -> None:
        log.info("Starting: %s", doing)
        self._notifier.starting(doing, allow_s)
        content = json.dumps({"doing": doing, "until_s": self._since_boot_s() + allow_s}) + "\n"
        try:
            write_atomically(self._path, content.encode("utf-8"))
        except OSError as error:
            log.warning("StartNotNoted: %s: %s", self._path, error)

    def ready(self) -> None:
        """The daemon works from now on."""
        self._notifier.ready()
        self.over()

    def over(self) -> None:
        """The start has ended, well or not."""
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
        except OSError as error:
            log.warning("StartNotNoted: %s: %s", self._path, error)


def underway(state_dir: str, since_boot_s: float) -> str:
    """What a daemon that holds `state_dir` is doing before it is ready; "" if it is, or hangs."""
    try:
        with open(os.path.join(state_dir, FILE_NAME), encoding="utf-8") as stream:
            held = json.load(stream)
        return str(held["doing"]) if since_boot_s <= float(held["until_s"]) else ""
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("StartUnreadable: %s: %s", os.path.join(state_dir, FILE_NAME), error)
        return ""
