"""The catalog's SQLite file itself: how it is opened, converted and set aside, its transactions.

In: a path and the embedding space it belongs to. Out: an open database, or one clear error. WAL with
synchronous=FULL: what a committed transaction wrote survives a power cut. The daemon and the verbs
of the command line use the one file at the same time.
"""

import contextlib
import hashlib
import logging
import os
import sqlite3
from typing import Callable, Iterable, Optional, Sequence

from jetson_cluster import schema
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.files import sync_folder

log = logging.getLogger(__name__)

# The daemon shares 4 GB with a GPU; converting is done before there is other work. With 2 MB it
# wrote 4.8 GB for 500,000 images, with 64 MB 0.76 GB.
CACHE_KB, CONVERTING_CACHE_KB = 2048, 65536
# It took 16 us an image on a workstation and wrote 1.5 kB for each: 0.3 ms if a card takes 5 MB/s.
CONVERTING_S, CONVERTING_S_PER_IMAGE = 60.0, 0.001
# 32 MB: pages of the indices, which every image changes at random, go to their place once for
# thousands of images, and not once for hundreds as with SQLite's 1000.
CHECKPOINT_PAGES = 8000
PATIENCE_S = 30.0  # for another process that writes
# What SQLite says of a damaged file; the last three where a bit of the tables' own text is another.
DAMAGE = ("malformed", "not a database", "Could not decode", "no such table", "no such column",
          "has no column")
DAMAGED_KEPT = 3  # damaged catalogs kept for people to look at
SIDE_FILES = ("", "-wal", "-shm")
VARIABLES = 500  # SQLite allows 999 in one statement; two lists may stand in one


class Damaged(WorldError):
    """The file is no sound database any more: see set_aside."""


class Database:
    """One open file; use it from one thread. A context manager."""

    def __init__(self, path: str, space: Optional[str],
                 progress: Callable[[str, float], None] = lambda doing, allow_s: None):
        """Open or create the database of the embedding space `space`.

        With a space of None the file must be there, in the newest format, of whatever space. Before a
        conversion `progress` is told of it, and how many seconds it may take. Raises UserError if
        the file belongs to another space or is no catalog, Damaged if it is damaged, WorldError if
        it cannot be opened.
        """
        self.path, self._progress, self._data_version = path, progress, None
        if space is None and not os.path.exists(path):
            raise UserError("catalog %s: is not there; has the daemon run with this config?" % path)
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=PATIENCE_S)
        except sqlite3.Error as error:
            raise WorldError("catalog %s: cannot be opened (%s); the folder must exist and be "
                             "writable" % (path, error))
        try:
            self._open(space)
            self._opened()
        except sqlite3.Error as error:
            self._db.close()
            if is_damage(error):
                raise Damaged("catalog %s: is damaged (%s); move it aside and the images are "
                              "catalogued anew" % (path, error))
            raise WorldError("catalog %s: cannot be used (%s); is the disk full or failing?" % (
                path, error))
        except BaseException:
            self._db.close()
            raise

    def _open(self, space: Optional[str]) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        tables = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master")}
        ours = tables & {"images", "meta"}
        if tables and not ours:
            raise UserError("catalog %s: a database of another program; set state_dir to a new "
                            "folder, or move the file aside" % self.path)
        if len(ours) == 1:
            raise Damaged("catalog %s: is damaged (a table is missing); move it aside and the images "
                          "are catalogued anew" % self.path)
        noted = (self.meta("format") or version) if tables else 0
        if noted != version:
            raise Damaged("catalog %s: is damaged (of format %s, and of format %s); move it aside "
                          "and the images are catalogued anew" % (self.path, version, noted))
        if version not in range(schema.FORMAT + 1):
            raise UserError("catalog %s: format %d, and this program reads up to %d; move it aside"
                            % (self.path, version, schema.FORMAT))
        if space is None and version != schema.FORMAT:
            raise UserError("catalog %s: format %d; the daemon converts it to format %d when it "
                            "starts" % (self.path, version, schema.FORMAT))
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA wal_autocheckpoint = %d" % CHECKPOINT_PAGES)
        self._db.execute("PRAGMA cache_size = -%d" % CACHE_KB)
        if version:
            self._check_space(space)
        if version < schema.FORMAT:
            self._upgrade(version, space)

    def _check_space(self, space: Optional[str]) -> None:
        held, checksum = self.meta("space"), self.meta("space_checksum")
        if checksum is not None and checksum != _checksum(str(held)):
            raise Damaged("catalog %s: is damaged (its embedding space %r is not what was written); "
                          "move it aside and the images are catalogued anew" % (self.path, held))
        if space is not None and held != space:
            raise UserError(
                "catalog %s: holds embeddings of %s, but the model here gives %s; set state_dir to "
                "a new folder, or move the catalog aside" % (self.path, held, space))

    def _upgrade(self, version: int, space: str) -> None:
        """Make the tables, or convert those of an older format, all or nothing."""
        if version:
            images = self._db.execute("SELECT COUNT(*) FROM images").fetchone()[0]
            self._progress("converting the catalog of %d images to format %d" % (
                images, schema.FORMAT), CONVERTING_S + images * CONVERTING_S_PER_IMAGE)
            self._db.execute("PRAGMA cache_size = -%d" % CONVERTING_CACHE_KB)
        with Database._transaction(self):
            schema.upgrade(self._db, version)
            self._set_meta("format", schema.FORMAT)
            self._set_meta("space", space)
            self._set_meta("space_checksum", _checksum(space))
        self._db.execute("PRAGMA cache_size = -%d" % CACHE_KB)
        if version:
            log.info("CatalogConverted: %s, from format %d to %d", self.path, version,
                     schema.FORMAT)

    def _opened(self) -> None:
        """The file is open and ours: read what is to be kept in memory."""

    def __enter__(self):
        return self

    def __exit__(self, *_exception) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def _transaction(self):
        """All that is done within, or nothing of it; one within another is a part of it."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._committing()
            self._db.execute("COMMIT")
        except BaseException:
            # A full disk makes SQLite roll back by itself; a second ROLLBACK would hide the cause.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._ended(committed=False)
            raise
        self._ended(committed=True)

    def _committing(self) -> None:
        """A transaction is about to be committed; it is not, if this raises."""

    def _ended(self, committed: bool) -> None:
        """A transaction is over."""

    def together(self):
        """A context in which all changes are made, or none."""
        return self._transaction()

    def changed_elsewhere(self) -> bool:
        """Whether another process wrote to the file since this was last asked."""
        before, self._data_version = self._data_version, self._db.execute(
            "PRAGMA data_version").fetchone()[0]
        return before != self._data_version

    def meta(self, key: str):
        """The value kept under `key`, or None."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def remember(self, key: str, value: str) -> None:
        """Keep a small fact over restarts; written only if it is another one than before."""
        if self.meta(key) != value:
            with self._transaction():
                self._set_meta(key, value)

    def _set_meta(self, key: str, value) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def marks_for(values) -> str:
    return ",".join("?" * len(values))


def parts_of(values: Sequence) -> Iterable[Sequence]:
    for start in range(0, len(values), VARIABLES // 2):
        yield values[start:start + VARIABLES // 2]


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that the file itself is unsound, not the disk or the moment."""
    return isinstance(error, sqlite3.DatabaseError) and any(
        words in str(error) for words in DAMAGE)


def set_aside(path: str) -> str:
    """Move a damaged catalog out of the way, with its side files; where it is now. Raises OSError.

    The newest is NAME.damaged-1; DAMAGED_KEPT are kept.
    """
    for number in range(DAMAGED_KEPT, 0, -1):
        for side in SIDE_FILES:
            moved = "%s.damaged-%d%s" % (path, number, side)
            before = "%s.damaged-%d%s" % (path, number - 1, side) if number > 1 else path + side
            with contextlib.suppress(FileNotFoundError):
                os.unlink(moved)
            with contextlib.suppress(FileNotFoundError):
                os.rename(before, moved)
    sync_folder(os.path.dirname(os.path.abspath(path)))
    return path + ".damaged-1"


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
