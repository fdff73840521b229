"""Catalogs of the formats before become one of this: all of it or nothing, and nothing is lost."""

import os
import re
import sqlite3

import pytest

from catalog_checks import NOT_UTF8, all_rows, assert_counts_hold, counted, python
from catalogued import SPACE, arrival, image, record, refusal
from jetson_cluster import database, schema
from jetson_cluster.catalog import Catalog
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.schema import MISSING, QUEUED, WAITING

# The formats before, word for word: 1 is that before images could wait ...
IMAGES_1 = """
CREATE TABLE images (
    id INTEGER PRIMARY KEY,             -- order of arrival
    sha256 BLOB NOT NULL UNIQUE,
    path NOT NULL,                      -- TEXT, or BLOB where the name is not UTF-8
    bytes INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    captured_at TEXT NOT NULL,
    state TEXT NOT NULL,                -- queued or missing
    cluster INTEGER NOT NULL,           -- of the codebook; without one, the provisional group
    distance REAL NOT NULL, second_distance REAL NOT NULL, ratio REAL NOT NULL,
    far INTEGER NOT NULL, novelty REAL NOT NULL, representative REAL NOT NULL,
    interest REAL NOT NULL,             -- what orders an image within its cluster
    soft BLOB NOT NULL);                -- soft membership, see pack_soft
CREATE INDEX images_by_interest ON images (state, cluster, interest DESC, id);
CREATE INDEX images_far ON images (ratio, id) WHERE far = 1 AND state = 'queued';
"""
# ... and 2 that before passes, acknowledgements and orders.
IMAGES_2 = """
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
OTHERS = """
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
FORMATS = {1: IMAGES_1 + OTHERS, 2: IMAGES_2 + OTHERS}
TABLES = ("images", "embeddings", "files", "refusals", "attempts", "groups", "meta")
COLUMNS = ("id, sha256, path, bytes, width, height, captured_at, state, cluster, distance, "
           "second_distance, ratio, far, novelty, representative, interest, soft")
NOT_BEFORE = ("format", "space_checksum")  # facts that the formats before did not keep


def shape(path):
    """The schema's own words without how they are laid out, and the number of the format."""
    db = sqlite3.connect(path)
    try:
        words = sorted((kind, name, " ".join((sql or "").replace('"', "").split()))
                       for kind, name, sql in db.execute(
                           "SELECT type, name, sql FROM sqlite_master"))
        return words, db.execute("PRAGMA user_version").fetchone()[0]
    finally:
        db.close()


def what_was_known(path):
    """All that a format before knows, of a catalog of any format."""
    rows = all_rows(path, TABLES)
    db = sqlite3.connect(path)
    try:
        rows["images"] = db.execute("SELECT %s FROM images ORDER BY id" % COLUMNS).fetchall()
    finally:
        db.close()
    rows["meta"] = [row for row in rows["meta"] if row[0] not in NOT_BEFORE]
    return rows


@pytest.fixture(params=sorted(FORMATS))
def number(request):
    """A format before this one."""
    return request.param


@pytest.fixture
def older(number, tmp_path):
    """A catalog of that format with images, one of them missing, and all else."""
    path = str(tmp_path / "catalog.sqlite")
    with Catalog(path, SPACE) as new:
        record(new, [image("/inbox/%d.png" % content, content) for content in range(30)]
               + [image(NOT_UTF8, 99)], [refusal("/inbox/bad.png")])
        new.mark_missing([3], exists=lambda path: False)
        new.begin_attempts([arrival("/inbox/killer.png")])
        new.remember("mount", "/inbox")
        if number > 1:
            new.record([image("/inbox/hot.png", 200)._replace(embedding=None)], None, [])
    rows = what_was_known(path)
    for name in (path, path + "-wal", path + "-shm"):
        if os.path.exists(name):
            os.unlink(name)
    db = sqlite3.connect(path)
    db.executescript(re.sub("--.*", "", FORMATS[number]) + "PRAGMA user_version = %d;" % number)
    for table, held in rows.items():
        if held:
            db.executemany("INSERT INTO %s VALUES (%s)" % (
                table, database.marks_for(held[0])), held)
    db.execute("PRAGMA journal_mode = WAL")
    db.commit()
    db.close()
    return path


def test_a_catalog_of_a_format_before_is_brought_up_to_date_and_loses_nothing(
        older, number, tmp_path):
    before = what_was_known(older)
    waiting = {WAITING: 1} if number > 1 else {}
    with Catalog(older, SPACE) as catalog:
        assert counted(catalog) == dict({QUEUED: 30, MISSING: 1, "refused": 1}, **waiting)
        assert_counts_hold(catalog)
        assert catalog.attempts([arrival("/inbox/killer.png")])
        row = catalog.rows([1])[1]
        assert (row.quality, row.signature, row.twin, row.pinned, row.sent_in) == (1, 0, 0, None, None)
    assert what_was_known(older) == before
    fresh = str(tmp_path / "fresh.sqlite")
    Catalog(fresh, SPACE).close()
    assert shape(older) == shape(fresh) and shape(fresh)[1] == schema.FORMAT == 3


def test_what_was_converted_is_a_catalog_like_any_other(older):
    with Catalog(older, SPACE) as catalog:
        catalog.record([image("/inbox/late.png", 201)._replace(embedding=None)], None, [])
        assert len(record(catalog, [image("/inbox/late.png", 201)])) == 1
        catalog.begin_pass([1, 2], [], 10000, "test", "2026-01-02T00:00:00Z")
        catalog.move("ack", [1])
        catalog.move("hold", [5])
        catalog.move("pin", [6])
        assert catalog.last_pass == 1 and catalog.pinned() == [6]
        assert_counts_hold(catalog)
    with Catalog(older, SPACE) as catalog:
        assert catalog.state_of(1) == "acked"


def test_a_conversion_is_announced_before_it_begins_with_the_time_it_may_take(older, number):
    said = []

    def progress(doing, allow_s):
        said.append((doing, allow_s, shape(older)[1]))

    for _ in range(2):  # the second time there is nothing to convert
        with Catalog(older, SPACE, progress) as catalog:
            # Memory the daemon shares with a GPU is given back.
            assert catalog._db.execute("PRAGMA cache_size").fetchone()[0] == -2048
    images = 31 if number == 1 else 32
    assert [(doing, version) for doing, _, version in said] == [
        ("converting the catalog of %d images to format 3" % images, number)]
    assert said[0][1] == pytest.approx(60 + images / 1000.0)


def test_a_conversion_has_memory_to_work_in(older, monkeypatch):
    upgrade, seen = schema.upgrade, []

    def seeing(db, version):
        seen.append(db.execute("PRAGMA cache_size").fetchone()[0])
        upgrade(db, version)

    monkeypatch.setattr(schema, "upgrade", seeing)
    Catalog(older, SPACE).close()
    assert seen == [-65536]


def test_a_full_disk_leaves_the_format_before_as_it_was(older, monkeypatch):
    before, upgrade = (what_was_known(older), shape(older)), schema.upgrade

    def on_a_full_disk(db, version):
        db.execute("PRAGMA max_page_count = %d" % db.execute("PRAGMA page_count").fetchone()[0])
        upgrade(db, version)

    monkeypatch.setattr(schema, "upgrade", on_a_full_disk)
    with pytest.raises(WorldError, match="is the disk full"):
        Catalog(older, SPACE)
    assert (what_was_known(older), shape(older)) == before
    monkeypatch.undo()
    with Catalog(older, SPACE) as catalog:
        assert catalog.counts[QUEUED] == 30


def test_a_catalog_of_a_format_before_and_another_space_stays_as_it_is(older):
    before = what_was_known(older), shape(older)
    with pytest.raises(UserError, match="other/net@0"):
        Catalog(older, "other/net@0")
    assert (what_was_known(older), shape(older)) == before


def test_a_verb_leaves_a_format_before_to_the_daemon(older, number):
    before = what_was_known(older), shape(older)
    with pytest.raises(UserError, match="format %d; the daemon converts it" % number):
        Catalog(older, None)
    assert (what_was_known(older), shape(older)) == before


# Converts one copy after the other, and is killed while it does: before the first statement, before
# the second, and so on, until one is through.
KILLED = """
import os, shutil, signal, sys
from catalogued import SPACE
from jetson_cluster import schema
from jetson_cluster.catalog import Catalog
upgrade, path, number, code = schema.upgrade, sys.argv[1], 0, None
while code != 0:
    number += 1
    copy = "%s.%d" % (path, number)
    for side in ("", "-wal"):
        if os.path.exists(path + side):
            shutil.copy(path + side, copy + side)
    child = os.fork()
    if not child:
        left = [number]
        def count(statement):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
        def counting(db, version):
            db.set_trace_callback(count)
            upgrade(db, version)
        schema.upgrade = counting
        Catalog(copy, SPACE).close()
        os._exit(0)
    code = os.waitpid(child, 0)[1]
print(number)
"""


def test_a_conversion_killed_at_any_statement_is_done_as_a_whole_at_the_next_start(older, tmp_path):
    before, old_shape = what_was_known(older), shape(older)
    converting = python(KILLED, older)
    tries = int(converting.communicate()[0])
    assert converting.returncode == 0 and tries > 40
    whole = "%s.%d" % (older, tries)
    assert shape(whole)[1] == schema.FORMAT
    for number in range(1, tries):
        copy = "%s.%d" % (older, number)
        found = shape(copy)
        assert what_was_known(copy) == before and found in (old_shape, shape(whole))
        Catalog(copy, SPACE).close()
        assert shape(copy) == shape(whole) and all_rows(copy) == all_rows(whole)


def test_a_new_file_that_could_not_be_made_whole_is_made_at_the_next_start(tmp_path, monkeypatch):
    path = str(tmp_path / "catalog.sqlite")

    def fails(db):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(schema, "count", fails)
    with pytest.raises(WorldError, match="is the disk full"):
        Catalog(path, SPACE)
    monkeypatch.undo()
    with Catalog(path, SPACE) as catalog:
        assert counted(catalog) == {} and set(catalog.counts) == set(schema.STATES) | {"refused"}
