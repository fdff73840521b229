"""How the daemon says that it lives: to systemd by datagram, to people by `status.json`.

In: what the loop knows of itself. Out: READY, WATCHDOG, STATUS and STOPPING messages where systemd
asked for them (NOTIFY_SOCKET), and a status file that is always whole.
"""

import json
import logging
import os
import shutil
import socket
from typing import Any, Dict, Mapping

from jetson_cluster.errors import UserError
from jetson_cluster.files import write_atomically

log = logging.getLogger(__name__)

SEND_S = 1.0


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
        self._send("WATCHDOG=1\nSTATUS=" + status)

    def starting(self, status: str, extend_s: float) -> None:
        """Still starting: allow `extend_s` more seconds before systemd gives up."""
        self._send("STATUS=%s\nEXTEND_TIMEOUT_USEC=%d" % (status, extend_s * 1e6))

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


def write_status(path: str, status: Dict[str, Any]) -> None:
    """Replace the status file; raises OSError and leaves the old one if it cannot."""
    write_atomically(path, (json.dumps(status, indent=1) + "\n").encode("utf-8"))


def read_status(path: str) -> Dict[str, Any]:
    """The status as last written; raises UserError if there is none."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError) as error:
        raise UserError("status file %s: cannot be read (%s); is the daemon set up to write there "
                        "(state_dir), and has it run yet?" % (path, error))


def disk_of(folder: str) -> Dict[str, int]:
    """Free and total bytes of the disk that holds `folder`."""
    usage = shutil.disk_usage(folder)
    return {"free_bytes": usage.free, "total_bytes": usage.total}


def is_running(process: int) -> bool:
    """Whether a process of that number lives (it may be another program's by now)."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it lives, as another user
    return True
