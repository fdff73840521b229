"""What must hold of any catalog, counted again by SQL from its file; and Pythons of their own."""

import os
import sqlite3
import subprocess
import sys

from jetson_cluster import catalog as catalogs
from jetson_cluster.schema import STATES

NOT_UTF8 = os.fsdecode(b"/inbox/caf\xe9.png")
TABLES = ("images", "embeddings", "files", "refusals", "attempts", "groups", "meta", "previews",
          "passes", "remembered", "audit", "amendments", "outbox", "tallies")


def assert_true_to_itself(path):
    """The file holds no contradiction; (count, bytes) by state, of those that have any."""
    db = sqlite3.connect(path)
    try:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        one = lambda sql: db.execute(sql).fetchone()[0]  # noqa: E731
        images = one("SELECT COUNT(*) FROM images")
        assert one("SELECT COUNT(DISTINCT sha256) FROM images") == images
        embedded = one("SELECT COUNT(*) FROM images WHERE soft IS NOT NULL AND cluster IS NOT NULL")
        assert one("SELECT COUNT(*) FROM images WHERE soft IS NULL AND cluster IS NULL AND "
                   "interest IS NULL AND state <> 'queued'") == images - embedded
        assert one("SELECT COUNT(*) FROM images WHERE state = 'waiting' AND soft IS NOT NULL") == 0
        assert one("SELECT COUNT(*) FROM embeddings JOIN images ON id = image "
                   "WHERE soft IS NOT NULL") == embedded
        assert one("SELECT COUNT(*) FROM embeddings") == embedded
        assert one("SELECT COUNT(*) FROM files WHERE image NOT IN (SELECT id FROM images)") == 0
        assert one("SELECT COUNT(*) FROM previews WHERE image NOT IN (SELECT id FROM images)") == 0
        assert one("SELECT COUNT(*) FROM images WHERE state IN ('queued', 'waiting') AND NOT EXISTS "
                   "(SELECT 1 FROM files WHERE image = id AND files.path = images.path)") == 0
        assert one("SELECT COUNT(*) FROM images JOIN files ON image = id "
                   "WHERE state IN ('deleted', 'dropped')") == 0
        assert one("SELECT COUNT(*) FROM files JOIN refusals USING (path)") == 0
        assert one("SELECT COUNT(*) FROM images WHERE twin > id") == 0
        counted = {row[0]: row[1:] for row in db.execute(
            "SELECT state, COUNT(*), SUM(bytes) FROM images GROUP BY state")}
        assert set(counted) <= set(STATES)
        refused = db.execute("SELECT COUNT(*), SUM(bytes) FROM refusals").fetchone()
        return dict(counted, refused=refused) if refused[0] else counted
    finally:
        db.close()


def assert_counts_hold(catalog):
    """The file is sound, and the catalog's counts are those of its tables."""
    counted = assert_true_to_itself(catalog.path)
    none = dict.fromkeys(STATES + ("refused",), 0)
    assert catalog.counts == dict(none, **{state: held[0] for state, held in counted.items()})
    assert catalog.sizes == dict(none, **{state: held[1] for state, held in counted.items()})
    assert all(catalog.count_of(state) == catalog.counts[state] for state in catalog.counts)


def counted(catalog):
    """The catalog's counts, of the states that any image, or any refused file, is in."""
    return {state: count for state, count in catalog.counts.items() if count}


def all_rows(path, tables=TABLES):
    """Every row of these tables."""
    db = sqlite3.connect(path)
    try:
        return {table: db.execute("SELECT * FROM %s ORDER BY 1" % table).fetchall()
                for table in tables}
    finally:
        db.close()


def python(code, *arguments, **environment):
    """Start a Python of its own with this checkout's modules and tests/helpers."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(catalogs.__file__)))
    folders = os.pathsep.join([root, os.path.join(root, "tests", "helpers")])
    return subprocess.Popen(
        [sys.executable, "-c", code] + list(arguments), stdout=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=folders, **environment))
