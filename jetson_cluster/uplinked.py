"""A file that the ground may replace at any time: the codebook, the policy.

In: a path and how to read it. Out: the value of the newest good version. A bad version is reported
once and the last good one stays, also over a restart: a copy of it is kept beside the catalog. It
stays as well where the file goes away, which is reported once nobody can be about to replace it.
"""

import logging
import os
import time
from typing import Any, Callable, Optional

from jetson_cluster.errors import UserError
from jetson_cluster.files import sha256_of, sync_folder, write_atomically

log = logging.getLogger(__name__)

ABSENT_S = 60.0  # a file that is replaced by hand is gone for a moment


class Uplinked:
    """Follows one file. `value` is what it last held that was good, None if it never was there."""

    def __init__(self, kind: str, path: str, kept_path: str, read: Callable[[str], Any],
                 monotonic: Callable[[], float] = time.monotonic):
        """`read(path)` raises UserError on a bad file. `kept_path` is for the good copy."""
        self.kind, self.path, self.value = kind, path, None
        self.error = ""  # what is wrong with the file as it stands, "" if nothing
        self.digest = ""  # SHA-256 of the file that `value` was read from, "" for none
        self._kept_path, self._read, self._seen = kept_path, read, None
        self._monotonic, self._gone_at = monotonic, None  # type: Callable, Optional[float]

    def start(self) -> None:
        """Read the file, or the last good version if it is bad or absent.

        Raises UserError if it is bad and there is no good version.
        """
        if self.poll():
            return
        if os.path.exists(self._kept_path):
            try:
                self.value = self._read(self._kept_path)
                self.digest = sha256_of(self._kept_path)
            except UserError as error:
                # Of the two it is the file itself that has to be mended.
                log.warning("CopyNotUsed: %s", error)
        if self.value is not None and self.error:
            log.warning("%sRefused: going on with the last good one, %s", self.kind.capitalize(),
                        self._kept_path)
        elif self.value is not None:
            self._absent(", %s; remove that as well to do without" % self._kept_path)
        elif self.error:
            raise UserError(self.error)

    def poll(self) -> bool:
        """Read the file again if it changed; True if `value` is new."""
        signature = _signature(self.path)
        if signature is None:
            self._missed()
            return False
        self._gone_at = None
        if signature == self._seen:
            return False
        self._seen = signature
        try:
            value, digest = self._read(self.path), sha256_of(self.path)
        except UserError as error:
            self.error = str(error)
            log.error("%sRefused: %s", self.kind.capitalize(), error)
            return False
        except OSError as error:
            self._seen = None  # it went away or failed in between: look again
            log.warning("%sUnreadable: %s: %s", self.kind.capitalize(), self.path,
                        error.strerror or error)
            return False
        self.value, self.digest, self.error = value, digest, ""
        self._keep()
        return True

    def _missed(self) -> None:
        """The file is not there; what it said last still holds."""
        now = self._monotonic()
        if self._gone_at is None:  # somebody may be about to put a new one in place
            self._gone_at, self._seen, self.error = now, None, ""
        elif self.value is not None and not self.error and now - self._gone_at >= ABSENT_S:
            self._absent("; put it back")

    def _absent(self, more: str) -> None:
        self.error = "%sAbsent: %s: it is not there; going on with the last good one%s" % (
            self.kind.capitalize(), self.path, more)
        log.warning("%s", self.error)

    def _keep(self) -> None:
        try:
            folder = os.path.dirname(self._kept_path)
            if not os.path.isdir(folder):
                os.makedirs(folder, exist_ok=True)
                sync_folder(os.path.dirname(folder))
            with open(self.path, "rb") as stream:
                content = stream.read()
            if _signature(self.path) == self._seen:  # else it is not what was found to be good
                write_atomically(self._kept_path, content)
        except OSError as error:
            log.warning("CopyNotKept: %s: %s", self._kept_path, error)


def in_force(path: str, kept_path: str, read: Callable[[str], Any]) -> Any:
    """What the daemon goes by, for other processes: the file, or the last good version if it is bad.

    Writes nothing. Raises UserError if both are bad.
    """
    if os.path.exists(path):
        try:
            return read(path)
        except UserError as error:
            if not os.path.exists(kept_path):
                raise
            log.warning("PolicyNotUsed: %s; going by the last good one, as the daemon does", error)
    return read(kept_path if os.path.exists(kept_path) else path)


def _signature(path: str) -> Optional[tuple]:
    """What changes when the file does; None if it is not there."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return (error.errno,)  # reading it will say what is wrong
    return found.st_size, found.st_mtime_ns, found.st_ino
