"""What the daemon does while its catalog cannot be written: it waits, and tries again.

In: the error of a turn. Out: whether to wait, and how long; or what to end with. A full disk, a
failing one, another process that holds the catalog: nothing is lost by waiting, and a restart would
mend nothing. One line in the log says that it began, one that it is over.
"""

import logging
import sqlite3
from typing import Callable

from jetson_cluster import soundness
from jetson_cluster.database import is_damage, set_aside
from jetson_cluster.errors import WorldError

log = logging.getLogger(__name__)

RETRY_S = 2.0


def may_pass(error: Exception) -> bool:
    """Whether the cause is the disk or the moment, not the file and not the program."""
    return isinstance(error, sqlite3.OperationalError) and not is_damage(error)


def failure_of(error: Exception, path: str, close: Callable[[], None]) -> WorldError:
    """What to end with for an error that no waiting mends, and that may be the catalog's.

    `path` is the catalog's; a damaged one is closed with `close` and set aside.
    """
    if may_pass(error):
        return WorldError("catalog %s: %s" % (path, error))
    if is_damage(error):
        close()
        return WorldError("catalog %s: is damaged (%s); it is now %s, and at the next start the "
                          "images are catalogued anew" % (path, error, set_aside(path)))
    log.error("TurnFailed: %s: %s", type(error).__name__, error, exc_info=error)
    try:
        soundness.mark(path)
    except OSError as failure:
        log.error("CatalogNotMarked: %s: %s", path, failure)
    return WorldError("%s: %s; catalog %s may be damaged, and is checked at the next start" % (
        type(error).__name__, error, path))


class Pause:
    """`why` says what is waited for, "" while all is well."""

    def __init__(self, path: str, monotonic: Callable[[], float]):
        self._path, self._monotonic = path, monotonic
        self._until = 0.0
        self.why, self.since = "", monotonic()

    @property
    def left_s(self) -> float:
        """Seconds until the next try; 0 when it is time."""
        return max(0.0, self._until - self._monotonic()) if self.why else 0.0

    def begin(self, error: Exception) -> None:
        """A turn failed: rest before the next."""
        if not self.why:
            self.since = self._monotonic()
            log.error("CatalogNotWritten: %s: %s; nothing is taken in until it can be written, and "
                      "nothing is lost", self._path, error)
        self.why = "CatalogNotWritten: %s: %s" % (self._path, error)
        self._until = self._monotonic() + RETRY_S

    def over(self) -> None:
        """A turn went well."""
        if self.why:
            log.warning("CatalogWrittenAgain: %s", self._path)
            self.why = ""
