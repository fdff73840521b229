"""A file that the ground may replace at any time: the codebook, the policy.

In: a path and how to read it. Out: the value of the newest good version. A bad version is reported
once and the last good one stays, also over a restart: a copy of it is kept beside the catalog.
"""

import logging
import os
from typing import Any, Callable, Optional

from jetson_cluster.errors import UserError
from jetson_cluster.files import write_atomically

log = logging.getLogger(__name__)


class Uplinked:
    """Follows one file. `value` is what it last held that was good, None if it never was there."""

    def __init__(self, kind: str, path: str, kept_path: str, read: Callable[[str], Any]):
        """`read(path)` raises UserError on a bad file. `kept_path` is for the good copy."""
        self.kind, self.path, self.value = kind, path, None
        self.error = ""  # what is wrong with the file as it stands, "" if nothing
        self._kept_path, self._read, self._seen = kept_path, read, None

    def start(self) -> None:
        """Read the file, or the last good version if it is bad or absent.

        Raises UserError if it is bad and there is no good version.
        """
        if self.poll():
            return
        if os.path.exists(self._kept_path):
            try:
                self.value = self._read(self._kept_path)
            except UserError as error:
                # Of the two it is the file itself that has to be mended.
                log.warning("CopyNotUsed: %s", error)
        if self.value is not None:
            log.warning("%s%s: going on with the last good one, %s%s", self.kind.capitalize(),
                        "Refused" if self.error else "Absent", self._kept_path,
                        "" if self.error else "; remove that as well to do without")
        elif self.error:
            raise UserError(self.error)

    def poll(self) -> bool:
        """Read the file again if it changed; True if `value` is new."""
        signature = _signature(self.path)
        if signature == self._seen:
            return False
        self._seen = signature
        if signature is None:
            # Somebody is about to put a new one in place; what it said last still holds.
            self.error = ""
            return False
        try:
            value = self._read(self.path)
        except UserError as error:
            self.error = str(error)
            log.error("%sRefused: %s", self.kind.capitalize(), error)
            return False
        self.value, self.error = value, ""
        self._keep()
        return True

    def _keep(self) -> None:
        try:
            os.makedirs(os.path.dirname(self._kept_path), exist_ok=True)
            with open(self.path, "rb") as stream:
                content = stream.read()
            if _signature(self.path) == self._seen:  # else it is not what was found to be good
                write_atomically(self._kept_path, content)
        except OSError as error:
            log.warning("CopyNotKept: %s: %s", self._kept_path, error)


def _signature(path: str) -> Optional[tuple]:
    """What changes when the file does; None if it is not there."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return (error.errno,)  # reading it will say what is wrong
    return found.st_size, found.st_mtime_ns, found.st_ino
