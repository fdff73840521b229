"""The catalog that came down, copied, so that nothing done here touches it.

In: a catalog's file, perhaps one that a daemon is writing to at this moment. Out: a whole copy of
it as it was at one moment, made by SQLite's own backup. The file itself is only read.
"""

import contextlib
import os
import sqlite3
from urllib.parse import quote

from jetson_cluster.database import is_damage
from jetson_cluster.errors import UserError, WorldError


def copy_catalog(source: str, target: str) -> None:
    """Copy the catalog at `source` to a new file. Raises UserError and WorldError."""
    if not os.path.isfile(source):
        raise UserError(f"catalog {source}: no such file; give the catalog.sqlite that came down")
    try:
        with contextlib.closing(sqlite3.connect(_read_only(source), uri=True)) as original, \
                contextlib.closing(sqlite3.connect(target)) as made:
            # All pages in one step, that is in one transaction: between steps whatever another
            # process commits has the backup begin again, and beside a busy daemon it never ends.
            # With a write-ahead log, as the daemon keeps it, a reader stops no writer.
            original.backup(made, pages=-1)
    except sqlite3.Error as error:
        if is_damage(error):
            raise UserError(f"catalog {source}: is no catalog, or is damaged ({error}); fetch it "
                            "again") from error
        raise WorldError(f"catalog {source}: cannot be copied to {target} ({error}); is the disk "
                         "full, or may the file not be read?") from error


def space_of(path: str, source: str) -> str:
    """The embedding space of a copy; `source` is what messages call it. Raises UserError."""
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            row = database.execute("SELECT value FROM meta WHERE key = 'space'").fetchone()
    except sqlite3.Error as error:
        raise UserError(f"catalog {source}: is no catalog of this program ({error})") from error
    if row is None:
        raise UserError(f"catalog {source}: says nothing of its embedding space; is it empty?")
    return str(row[0])


def _read_only(path: str) -> str:
    """A URL by which SQLite opens the file and leaves nothing beside it."""
    url = "file:" + quote(os.fsencode(os.path.abspath(path))) + "?mode=ro"
    # In a folder that may not be written to, a catalog that came down alone opens only so. One with
    # a write-ahead log beside it is being written to, or was when it was copied.
    return url if os.path.exists(path + "-wal") else url + "&immutable=1"
