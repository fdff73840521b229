"""The catalog's SQLite file itself: its tables, how it is opened and converted, its transactions.

In: a path and the embedding space it belongs to. Out: an open database, or one clear error. Written
for SQLite 3.22 (no UPSERT, no window functions, no column is ever dropped). WAL with
synchronous=FULL: what a committed transaction wrote survives a power cut.
"""

import contextlib
import logging
import re
import sqlite3
from typing import Callable, Iterable, Sequence

from jetson_cluster.errors import UserError, WorldError

log = logging.getLogger(__name__)

SCHEMA_VERSION = 2
# The images alone, because format 1 had them otherwise.
IMAGES = """
CREATE TABLE images (
    id INTEGER PRIMARY KEY,             -- order of arrival
    sha256 BLOB NOT NULL UNIQUE,
    path NOT NULL,                      -- TEXT, or BLOB where the name is not UTF-8
    bytes INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    captured_at TEXT NOT NULL,
    state TEXT NOT NULL,                -- queued, waiting or missing
    -- From here on NULL until the image is embedded, all of it.
    cluster INTEGER,                    -- of the codebook; without one, the provisional group
    distance REAL, second_distance REAL, ratio REAL, far INTEGER,
    novelty REAL, representative REAL,
    interest REAL,                      -- what orders an image within its cluster
    soft BLOB,                          -- soft membership, see pack_soft
    CHECK (state <> 'queued' OR soft IS NOT NULL));
CREATE INDEX images_by_interest ON images (state, cluster, interest DESC, id);
CREATE INDEX images_far ON images (ratio, id) WHERE far = 1 AND state = 'queued';
CREATE INDEX images_waiting ON images (id) WHERE state = 'waiting';
"""
SCHEMA = IMAGES + """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE groups (               -- while there is no codebook
    number INTEGER PRIMARY KEY,
    leader BLOB NOT NULL);              -- float32 [D]
CREATE TABLE embeddings (
    image INTEGER PRIMARY KEY,
    vector BLOB NOT NULL);              -- float16 [D]
CREATE TABLE files (path PRIMARY KEY, bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
                    image INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX files_by_image ON files (image);
CREATE TABLE refusals (id INTEGER PRIMARY KEY, path NOT NULL UNIQUE, bytes INTEGER NOT NULL,
                       mtime_ns INTEGER NOT NULL, code TEXT NOT NULL, reason TEXT NOT NULL,
                       refused_at TEXT NOT NULL);
CREATE TABLE attempts (path PRIMARY KEY, bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
                       points INTEGER NOT NULL) WITHOUT ROWID;
"""
# The daemon shares 4 GB with a GPU; converting is done before there is other work. With 2 MB it
# wrote 4.8 GB for 500,000 images, with 64 MB 0.76 GB.
CACHE_KB, CONVERTING_CACHE_KB = 2048, 65536
# It took 16 us an image on a workstation and wrote 1.5 kB for each: 0.3 ms if a card takes 5 MB/s.
CONVERTING_S, CONVERTING_S_PER_IMAGE = 60.0, 0.001
VARIABLES = 500  # SQLite allows 999 in one statement; two lists may stand in one


class Database:
    """One open file; use it from one thread. A context manager."""

    def __init__(self, path: str, space: str,
                 progress: Callable[[str, float], None] = lambda doing, allow_s: None):
        """Open or create the database of the embedding space `space`.

        Before a conversion `progress` is told of it, and how many seconds it may take. Raises
        UserError if the file belongs to another space or is no catalog, WorldError if it cannot be
        opened or is damaged.
        """
        self.path, self._progress = path, progress
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30)
        except sqlite3.Error as error:
            raise WorldError("catalog %s: cannot be opened (%s); the folder must exist and be "
                             "writable" % (path, error))
        try:
            self._open(space)
            self._opened()
        except sqlite3.Error as error:
            self._db.close()
            damaged = "malformed" in str(error) or "not a database" in str(error)
            raise WorldError("catalog %s: %s (%s); %s" % (
                path, "is damaged" if damaged else "cannot be used", error,
                "move it aside and the images are catalogued anew" if damaged
                else "is the disk full or failing?"))
        except UserError:
            self._db.close()
            raise

    def _open(self, space: str) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version not in range(SCHEMA_VERSION + 1):
            raise UserError("catalog %s: format %d, and this program reads up to %d; move it aside"
                            % (self.path, version, SCHEMA_VERSION))
        tables = [row[0] for row in self._db.execute("SELECT name FROM sqlite_master")]
        if tables and (version == 0 or "images" not in tables):
            raise UserError("catalog %s: a database of another program; set state_dir to a new "
                            "folder, or move the file aside" % self.path)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA cache_size = -%d" % CACHE_KB)
        if version == 0:
            with Database._transaction(self):
                self._create(SCHEMA)
                self._set_meta("space", space)
                self._db.execute("PRAGMA user_version = %d" % SCHEMA_VERSION)
        held = self.meta("space")
        if held != space:
            raise UserError(
                "catalog %s: holds embeddings of %s, but the model here gives %s; set state_dir to "
                "a new folder, or move the catalog aside" % (self.path, held, space))
        if version == 1:
            self._from_format_1()

    def _create(self, schema: str) -> None:
        # executescript() would commit before it begins.
        for statement in filter(str.strip, re.sub("--.*", "", schema).split(";")):
            self._db.execute(statement)

    def _from_format_1(self) -> None:
        """Let an image be without its place, all or nothing; embeddings are not touched."""
        images = self._db.execute("SELECT COUNT(*) FROM images").fetchone()[0]
        self._progress("converting the catalog of %d images to format %d" % (
            images, SCHEMA_VERSION), CONVERTING_S + images * CONVERTING_S_PER_IMAGE)
        self._db.execute("PRAGMA cache_size = -%d" % CONVERTING_CACHE_KB)
        with Database._transaction(self):
            self._db.execute("ALTER TABLE images RENAME TO images_of_format_1")
            for index in ("images_by_interest", "images_far"):
                self._db.execute("DROP INDEX " + index)
            self._create(IMAGES)
            self._db.execute("INSERT INTO images SELECT * FROM images_of_format_1")
            self._db.execute("DROP TABLE images_of_format_1")
            self._db.execute("PRAGMA user_version = %d" % SCHEMA_VERSION)
        self._db.execute("PRAGMA cache_size = -%d" % CACHE_KB)
        log.info("CatalogConverted: %s, from format 1 to %d", self.path, SCHEMA_VERSION)

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
        """All that is done within, or nothing of it."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            # A full disk makes SQLite roll back by itself; a second ROLLBACK would hide the cause.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

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
