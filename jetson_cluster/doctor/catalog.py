"""The catalog, looked at without touching it, also while the daemon writes to it.

In: its path. Out: an SQLite connection that only reads; what the daemon remembers of the inbox.
"""

import contextlib
import os
import sqlite3
from typing import Iterator, Optional
from urllib.parse import quote

from jetson_cluster.doctor.case import Case
from jetson_cluster.downlink import printable_path


def is_shared(path: str) -> bool:
    """Whether the write-ahead log is in use: a daemon runs, or was killed."""
    return all(os.path.exists(path + ending) for ending in ("-wal", "-shm"))


def is_orphaned(path: str) -> bool:
    """Whether there is a log with something in it that could only be read by making its index."""
    try:
        return os.path.getsize(path + "-wal") > 0 and not is_shared(path)
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def catalog_read(path: str) -> Iterator[sqlite3.Connection]:
    """A connection that only reads; raises sqlite3.Error.

    Where the log is in use its files are there and are read along. Where they are not, SQLite would
    make them, as the user who looks: taken as unchanging, the catalog is left as it is.
    """
    options = "mode=ro" if is_shared(path) else "mode=ro&immutable=1"
    database = sqlite3.connect("file:%s?%s" % (quote(os.fsencode(path)), options), uri=True,
                               isolation_level=None, timeout=5)
    try:
        yield database
    finally:
        database.close()


def remembered_mount(case: Case) -> Optional[str]:
    """Where the inbox was mounted when a daemon last saw it; None if that cannot be told."""
    try:
        with catalog_read(case.config.catalog_path) as database:
            row = database.execute("SELECT value FROM meta WHERE key = ?", (
                "mount of " + printable_path(case.config.inbox.path),)).fetchone()
    except sqlite3.Error:
        return None  # the catalog's own row says what is wrong with it
    return row[0] if row else None
