"""Whether what stands in a catalog can be true: for damage that SQLite itself does not notice.

In: a catalog's file, after a turn or a start ended in a way that nobody foresaw. Out: what is
impossible in it, in words. SQLite keeps no checksums of its pages: one bit that a card flips may make
a number of a text, or name a cluster that there is not.
"""

import contextlib
import os
import sqlite3
from typing import Iterator

import numpy as np

from jetson_cluster.codebook import NEIGHBOURS
from jetson_cluster.database import PATIENCE_S, is_damage
from jetson_cluster.errors import WorldError
from jetson_cluster.preview import FORMATS
from jetson_cluster.schema import STATES

MARK = "catalog.suspect"  # beside the catalog: it is to be looked at before it is used again
CHUNK = 10000
NUMBER = ("integer", "real")
NAME = ("text", "blob")
# What may stand in each column that is never NULL.
COLUMNS = {
    "images": {"sha256": ("blob",), "path": NAME, "bytes": ("integer",), "width": ("integer",),
               "height": ("integer",), "captured_at": ("text",), "state": ("text",),
               "quality": NUMBER, "signature": NUMBER, "twin": ("integer",)},
    "files": {"path": NAME, "bytes": ("integer",), "mtime_ns": ("integer",), "image": ("integer",)},
    "refusals": {"path": NAME, "bytes": ("integer",), "mtime_ns": ("integer",), "code": ("text",),
                 "reason": ("text",), "refused_at": ("text",)},
    "attempts": {"path": NAME, "bytes": ("integer",), "mtime_ns": ("integer",),
                 "points": ("integer",)},
    "previews": {"format": ("text",), "psnr_db": NUMBER, "content": ("blob",)},
    "passes": {"made_at": ("text",), "origin": ("text",), "budget_bytes": ("integer",),
               "images": ("integer",), "bytes": ("integer",), "previews": ("integer",),
               "preview_bytes": ("integer",), "last_image": ("integer",)},
    "remembered": {"sha256": ("blob",), "state": ("text",), "pass": ("integer",)},
    "audit": {"at": ("text",), "origin": ("text",), "action": ("text",), "target": ("text",),
              "result": ("text",), "detail": ("text",)},
    "tallies": {"state": ("text",), "images": ("integer",), "bytes": ("integer",)},
    "outbox": {"name": ("text",), "image": ("integer",), "made": ("integer",)},
    "embeddings": {"vector": ("blob",)}, "groups": {"leader": ("blob",)},
}
# And in those of an image that has a place.
PLACED = ("cluster", "distance", "second_distance", "ratio", "far", "novelty", "representative",
          "interest")
RULES = (
    ("an image in a state that there is not",
     "images WHERE state NOT IN (%s)" % ", ".join("'%s'" % state for state in STATES)),
    ("a checksum of the wrong length", "images WHERE LENGTH(sha256) <> 32"),
    ("an image with half a place", "images WHERE soft IS NOT NULL AND (LENGTH(soft) <> %d OR %s)" % (
        4 * NEIGHBOURS, " OR ".join("typeof(%s) NOT IN ('integer', 'real')" % name
                                    for name in PLACED))),
    ("a preview of a kind that there is not",
     "previews WHERE format NOT IN (%s)" % ", ".join(
         "'%s'" % name for name in FORMATS + ("jpeg",))),
    ("embeddings of different lengths",
     "embeddings WHERE LENGTH(vector) <> (SELECT LENGTH(vector) FROM embeddings LIMIT 1)"),
    ("an image with a place and no embedding",
     "images WHERE soft IS NOT NULL AND id NOT IN (SELECT image FROM embeddings)"),
    ("a file of an image that there is not",
     "files WHERE image NOT IN (SELECT id FROM images)"),
)


def mark(catalog_path: str) -> None:
    """Have the catalog looked at before it is used again; raises OSError."""
    with open(_mark_of(catalog_path), "w") as stream:
        stream.write("the catalog is checked at the next start\n")


def is_marked(catalog_path: str) -> bool:
    return os.path.exists(_mark_of(catalog_path))


def unmark(catalog_path: str) -> None:
    """It was looked at; raises OSError."""
    os.unlink(_mark_of(catalog_path))


def _mark_of(catalog_path: str) -> str:
    return os.path.join(os.path.dirname(os.path.abspath(catalog_path)), MARK)


def unsound(catalog_path: str) -> str:
    """What is impossible in the catalog, in words; "" if nothing is. Minutes for a million images.

    Raises WorldError if it cannot be looked at now, as on a full disk: that says nothing against it.
    """
    try:
        with contextlib.closing(sqlite3.connect(
                catalog_path, isolation_level=None, timeout=PATIENCE_S)) as database:
            return next(_faults(database), "")
    except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
        if isinstance(error, sqlite3.OperationalError) and not is_damage(error):
            raise WorldError("catalog %s: is to be checked, and cannot be: %s" % (
                catalog_path, error))
        return str(error)


def _faults(database: sqlite3.Connection) -> Iterator[str]:
    found = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        yield found
    for table, columns in COLUMNS.items():
        wrong = " OR ".join("typeof(%s) NOT IN (%s)" % (name, ", ".join(
            "'%s'" % kind for kind in kinds)) for name, kinds in columns.items())
        if database.execute("SELECT 1 FROM %s WHERE %s LIMIT 1" % (table, wrong)).fetchone():
            yield "something of the wrong kind in the table %s" % table
        for _ in database.execute("SELECT * FROM %s" % table):
            pass  # text that is none fails here
    for words, where in RULES:
        if database.execute("SELECT 1 FROM %s LIMIT 1" % where).fetchone():
            yield words
    tallied, counted = (
        {(state, count) for state, count in database.execute(statement) if count}
        for statement in ("SELECT state, images FROM tallies",
                          "SELECT state, COUNT(*) FROM images GROUP BY state UNION ALL "
                          "SELECT 'refused', COUNT(*) FROM refusals"))
    if tallied != counted:
        yield "counts that are not those of the images"
    yield from _memberships(database)


def _memberships(database: sqlite3.Connection) -> Iterator[str]:
    clusters = (database.execute("SELECT value FROM meta WHERE key = 'clusters'").fetchone()
                or (None,))[0]
    if clusters is None:
        return
    if not isinstance(clusters, int) or clusters < 1:
        yield "%r clusters" % (clusters,)
        return
    cursor = database.execute("SELECT soft FROM images WHERE soft IS NOT NULL")
    while True:
        rows = cursor.fetchmany(CHUNK)
        if not rows:
            return
        raw = np.frombuffer(b"".join(row[0] for row in rows), np.uint8).reshape(len(rows), -1)
        index = raw[:, :2 * NEIGHBOURS].copy().view("<u2")
        weight = raw[:, 2 * NEIGHBOURS:].copy().view("<f2")
        if not np.isfinite(weight).all() or (weight < 0).any() or (weight > 2).any():
            yield "an image that belongs to clusters more than wholly"
        if (index >= clusters).any() and not _underway(database):
            yield "an image of a cluster that there is not"


def _underway(database: sqlite3.Connection) -> bool:
    """Whether images are being placed anew, of which some then have their old clusters."""
    held = dict(database.execute(
        "SELECT key, value FROM meta WHERE key IN ('placed_to', 'place_until')"))
    return (held.get("placed_to") or 0) < (held.get("place_until") or 0)
