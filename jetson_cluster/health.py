"""How the daemon says that it lives: to systemd by datagram, to people by `status.json`.

In: what the loop knows of itself. Out: READY, WATCHDOG, STATUS and STOPPING messages where systemd
asked for them (NOTIFY_SOCKET), and a status file that is always whole, for people and for
Prometheus.
"""

import json
import logging
import shutil
import socket
import sqlite3
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from jetson_cluster import prom
from jetson_cluster.errors import UserError
from jetson_cluster.files import write_atomically
from jetson_cluster.logs import printable
from jetson_cluster.schema import STATES

log = logging.getLogger(__name__)

SEND_S = 1.0
STATUS_BUSY_S = 5.0
STATUS_IDLE_S = 60.0  # flash wears: an idle rover writes its status once a minute
RATE_WINDOW_S = 60.0
NUMBER = (int, float)
MAYBE_NUMBER = NUMBER + (type(None),)
# What the status file holds; `...` stands for any key, and there may be more keys than these.
STATUS_SHAPE = {
    "written_at": str, "running": bool, "process": int, "version": str,
    "embedder": str, "space": str, "gpu": {"given_up": bool, "lost_of_late": int},
    "codebook": {"path": str, "error": str, "clusters": int},
    "policy": {"path": str, "error": str, "amendments": int, "unknown_targets": [str]},
    "images": {state: int for state in STATES}, "bytes": {state: int for state in STATES},
    "files_refused": int, "files_quarantined": int,
    "oldest_queued": {"captured_at": str, "passes": int},
    "last_pass": {"number": int, "made_at": str, "images": int, "bytes": int, "previews": int,
                  "preview_bytes": int},
    "accepting": {"images": bool, "why_not": str}, "paused": str,
    "queue": {"path": str, "error": str}, "retention": {"error": str},
    "orders": {"path": str, "error": str}, "outbox": {"path": str, "links": int, "error": str},
    "previews": {"made": int, "mean_bytes": MAYBE_NUMBER, "mean_psnr_db": MAYBE_NUMBER},
    "inbox": {"path": str, "available": bool, "watched": bool, "ready": int, "settling": int},
    "placing_anew": {"done": int, "total": int}, "images_per_s": NUMBER,
    "heat": {"level": str, "hottest_c": MAYBE_NUMBER, "zones": {...: NUMBER}},
    "power_mw": {...: int}, "gpu_load": MAYBE_NUMBER,
    "ms_per_image": {...: NUMBER}, "disk": {"free_bytes": int, "total_bytes": int},
    "inbox_disk": {"free_bytes": MAYBE_NUMBER, "total_bytes": MAYBE_NUMBER},
    "last_error": {"at": str, "what": str},
    "refusals": [{"path": str, "code": str, "reason": str, "refused_at": str}]}


class Notifier:
    """Speaks systemd's notification protocol, sd_notify(3); silent where nobody listens."""

    def __init__(self, environment: Mapping[str, str]):
        address = environment.get("NOTIFY_SOCKET", "")
        # "@" stands for the leading NUL of an abstract socket.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._told_failure = False

    def ready(self) -> None:
        self._send("READY=1")

    def alive(self, status: str) -> None:
        """One turn of the loop is done; `status` is the line `systemctl status` shows."""
        self._send("WATCHDOG=1\nSTATUS=" + printable(status))

    def starting(self, status: str, extend_s: float) -> None:
        """Still starting: allow `extend_s` more seconds before systemd gives up."""
        self._send("STATUS=%s\nEXTEND_TIMEOUT_USEC=%d" % (printable(status), extend_s * 1e6))

    def stopping(self) -> None:
        self._send("STOPPING=1\nSTATUS=finishing the current batch")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                # A listener that is stuck must not stop the loop; the next turn tells it more.
                channel.settimeout(SEND_S)
                channel.sendto(message.encode("utf-8"), self._address)
        except OSError as error:
            # Without systemd's ear the images still matter; systemd itself restarts us if it must.
            if not self._told_failure:
                log.warning("NotifySocketUnreachable: %s: %s",
                            self._address.replace("\0", "@"), error)
            self._told_failure = True


class Reporter:
    """Tells systemd of every turn and writes the status file as often as it is worth a write.

    Set `changed` where something in the status is another than before.
    """

    def __init__(self, path: str, prom_path: str, notifier: Notifier,
                 monotonic: Callable[[], float], now: Callable[[], str]):
        self._path, self._prom_path, self._notifier = path, prom_path, notifier
        self._monotonic, self._now = monotonic, now
        self._started_at = monotonic()
        self._written_at = self._started_at - STATUS_IDLE_S
        self._finished = []  # type: List[Tuple[float, int]]
        self._not_written = self._line = ""
        self._wrong = ()  # type: Sequence[str]
        self.changed = True
        self.last_error = {"at": "", "what": ""}

    def note(self, wrong: Sequence[str]) -> None:
        """What is wrong at this moment: keep the newest of it, with the time it was first seen."""
        for error in wrong:
            if error not in self._wrong:
                self._keep(error)
        self._wrong = wrong

    def _keep(self, error: str) -> None:
        self.last_error, self.changed = {"at": self._now(), "what": error}, True

    def count(self, images: int) -> None:
        """So many images joined the queue just now."""
        self._finished.append((self._monotonic(), images))

    @property
    def images_per_s(self) -> float:
        """Over the last minute, or since the start."""
        now = self._monotonic()
        self._finished = [(at, images) for at, images in self._finished
                          if now - at <= RATE_WINDOW_S]
        return sum(images for _, images in self._finished) / max(
            1.0, min(RATE_WINDOW_S, now - self._started_at))

    def tell(self, line: str, status: Callable[[], Dict[str, Any]], at_once: bool = False) -> None:
        """A turn is done: `line` for systemd, and `status()` into the file if that is due."""
        now = self._monotonic()
        self._notifier.alive(line)
        self.changed, self._line = self.changed or line != self._line, line
        if not at_once and now - self._written_at < (
                STATUS_BUSY_S if self.changed else STATUS_IDLE_S):
            return
        self._written_at, self.changed = now, False
        try:
            held = status()
            write_status(self._path, held)
            write_atomically(self._prom_path, prom.text(held).encode("utf-8"))
        except (OSError, sqlite3.Error) as error:
            why = "StatusNotWritten: %s: %s" % (
                getattr(error, "filename", None) or self._path, error)
            if not self._not_written:  # once until it is written again, whichever file it is
                log.error("%s", why)
            if why != self._not_written:
                self._keep(why)
            self._not_written = why
        else:
            self._not_written = ""


def write_status(path: str, status: Dict[str, Any]) -> None:
    """Replace the status file; raises OSError and leaves the old one if it cannot."""
    write_atomically(path, (json.dumps(status, indent=1) + "\n").encode("utf-8"))


def read_status(path: str) -> Dict[str, Any]:
    """The status as last written; raises UserError if there is none or it is something else."""
    try:
        with open(path, encoding="utf-8") as stream:
            status = json.load(stream)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError("status file %s: cannot be read (%s); is the daemon set up to write there "
                        "(state_dir), and has it run yet?" % (
                            path, getattr(error, "strerror", None) or error))
    wrong = _misfit(status, STATUS_SHAPE)
    if wrong is not None:
        raise UserError("status file %s: of another version or damaged (%s is not as expected); "
                        "the running daemon writes a new one within a minute" % (
                            path, "'%s'" % wrong if wrong else "the whole"))
    return status


def _misfit(value: Any, shape: Any, where: str = "") -> Optional[str]:
    """The dotted key of the first thing in `value` that is not of `shape`; None if all is."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return where
        keys = value if ... in shape else shape
        # What is absent is `...`, which is of no shape, not even of one that may be None.
        inner = [(key, value.get(key, ...), shape.get(key, shape.get(...))) for key in keys]
    elif isinstance(shape, list):
        if not isinstance(value, list):
            return where
        inner = [(str(number), held, shape[0]) for number, held in enumerate(value)]
    else:
        return None if isinstance(value, shape) else where
    found = (_misfit(held, wanted, (where and where + ".") + key) for key, held, wanted in inner)
    return next((wrong for wrong in found if wrong is not None), None)


def disk_of(folder: str) -> Dict[str, Optional[int]]:
    """Free and total bytes of the disk that holds `folder`; None if it is not there."""
    try:
        usage = shutil.disk_usage(folder)
    except FileNotFoundError:
        return {"free_bytes": None, "total_bytes": None}
    return {"free_bytes": usage.free, "total_bytes": usage.total}
