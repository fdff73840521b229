"""What the catalog promises: each content once, true counts, nothing half done, nothing lost."""

import ast
import hashlib
import os
import re
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from jetson_cluster import catalog as catalogs
from jetson_cluster import database, ranking
from jetson_cluster.catalog import Catalog
from jetson_cluster.codebook import NEIGHBOURS, Assessment
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.inbox import Arrival
from jetson_cluster.ranking import Placement
from jetson_cluster.records import MISSING, QUEUED, WAITING, Image, Refusal

SPACE = "net/layer@0123456789abcdef"
NOT_UTF8 = os.fsdecode(b"/inbox/caf\xe9.png")


def arrival(path, content=1, mtime_ns=1):
    return Arrival(path, 100 + content, mtime_ns, 1)


def image(path, content, dimension=8, **more):
    """Content number `content` at a path."""
    random = np.random.RandomState(content)
    return Image(arrival(path, content, **more), hashlib.sha256(b"%d" % content).hexdigest(),
                 64, 48, "2026-01-01T00:00:00Z", random.normal(size=dimension).astype(np.float32))


def placement(images, clusters=3, seed=0):
    """Some placement of a batch; what ranking makes of it is not the catalog's business."""
    random = np.random.RandomState(seed)
    count = len(images)
    cluster = random.randint(0, clusters, count).astype(np.int32)
    numbers = random.uniform(size=(6, count)).astype(np.float32)
    soft_weight = np.sort(random.uniform(size=(count, NEIGHBOURS)).astype(np.float32))[:, ::-1]
    return Placement(
        Assessment(cluster, numbers[0], numbers[1], numbers[2], numbers[2] > 0.8, numbers[3],
                   numbers[4], np.repeat(cluster[:, None], NEIGHBOURS, axis=1), soft_weight),
        interest=numbers[5])


def record(catalog, images, refusals=(), **more):
    return catalog.record(images, placement(images, **more), list(refusals))


def refusal(path, reason="cut short"):
    return Refusal(path, 7, 1, "damaged", reason, "2026-01-01T00:00:00Z")


def assert_true_to_itself(path):
    """Everything the catalog says of itself, counted again by SQL from the file."""
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
        assert one("SELECT COUNT(*) FROM images WHERE state <> 'missing' AND NOT EXISTS "
                   "(SELECT 1 FROM files WHERE image = id AND files.path = images.path)") == 0
        assert one("SELECT COUNT(*) FROM files JOIN refusals USING (path)") == 0
        counts = {QUEUED: one("SELECT COUNT(*) FROM images WHERE state = 'queued'"),
                  WAITING: one("SELECT COUNT(*) FROM images WHERE state = 'waiting'"),
                  MISSING: one("SELECT COUNT(*) FROM images WHERE state = 'missing'"),
                  "refused": one("SELECT COUNT(*) FROM refusals")}
        assert sum(counts.values()) == images + counts["refused"]
        return counts, one("SELECT COALESCE(SUM(bytes), 0) FROM images WHERE state = 'queued'")
    finally:
        db.close()


def assert_counts_hold(catalog):
    counts, queued_bytes = assert_true_to_itself(catalog.path)
    assert (catalog.counts, catalog.queued_bytes) == (counts, queued_bytes)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "catalog.sqlite")


@pytest.fixture
def catalog(path):
    with Catalog(path, SPACE) as opened:
        yield opened


def test_what_was_committed_is_forced_to_disk(catalog):
    """A power cut cannot be had in a test; the settings that SQLite's promise rests on can."""
    settings = [catalog._db.execute("PRAGMA " + name).fetchone()[0]
                for name in ("journal_mode", "synchronous")]
    assert settings == ["wal", 2]


def test_one_content_under_two_paths_is_one_image(catalog):
    added = record(catalog, [image("/inbox/a.png", 1), image("/inbox/b.png", 1),
                             image("/inbox/c.png", 2)])
    assert [row for _, row in added] == [0, 2]
    assert catalog.counts == {QUEUED: 2, WAITING: 0, MISSING: 0, "refused": 0}
    assert len(set(catalog.images_at(["/inbox/a.png", "/inbox/b.png"]).values())) == 1
    assert catalog.known([arrival("/inbox/a.png"), arrival("/inbox/b.png")]) == {
        "/inbox/a.png", "/inbox/b.png"}
    assert_counts_hold(catalog)


def test_an_image_whose_path_was_overwritten_goes_by_its_other_path(catalog):
    (number, _), = record(catalog, [image("/inbox/a.png", 1), image("/inbox/b.png", 1)])
    record(catalog, [image("/inbox/a.png", 2)])
    assert catalog.rows([number])[number].path == "/inbox/b.png"
    record(catalog, [], [refusal("/inbox/b.png")])
    assert catalog.rows([number])[number].state == MISSING
    assert_counts_hold(catalog)


def test_a_file_read_again_after_a_change_is_not_known(catalog):
    record(catalog, [image("/inbox/a.png", 1, mtime_ns=5)])
    assert catalog.known([arrival("/inbox/a.png", 1, mtime_ns=5)])
    assert not catalog.known([arrival("/inbox/a.png", 1, mtime_ns=6)])
    assert not catalog.known([arrival("/inbox/a.png", 2, mtime_ns=5)])


def test_a_refusal_is_known_unless_it_may_pass(catalog):
    passing = [refusal("/inbox/%s.png" % code)._replace(code=code) for code in catalogs.PASSING]
    record(catalog, [], passing + [refusal("/inbox/bad.png")])
    arrivals = [Arrival(held.path, held.bytes, held.mtime_ns, 1)
                for held in passing + [refusal("/inbox/bad.png")]]
    assert catalog.known(arrivals) == {"/inbox/bad.png"}
    assert [held.path for held in catalog.refusals(1)] == ["/inbox/bad.png"]


def test_thousands_of_arrivals_can_be_asked_about_at_once(catalog):
    images = [image("/inbox/%04d.png" % number, number) for number in range(1500)]
    record(catalog, images)
    arrivals = [held.arrival for held in images] + [arrival("/inbox/new.png")]
    assert len(catalog.known(arrivals)) == 1500
    assert len(catalog.images_at([held.path for held in arrivals])) == 1500
    numbers = list(catalog.images_at([held.path for held in arrivals]).values())
    assert len(catalog.rows(numbers)) == 1500
    catalog.begin_attempts(arrivals)
    assert len(catalog.attempts(arrivals)) == 1501


def test_names_that_are_not_utf8_are_kept_byte_for_byte(catalog):
    (number, _), = record(catalog, [image(NOT_UTF8, 1)], [refusal(NOT_UTF8 + "2", NOT_UTF8)])
    assert catalog.rows([number])[number].path == NOT_UTF8
    assert catalog.known([arrival(NOT_UTF8)]) == {NOT_UTF8}
    assert catalog.refusals(1)[0].path == NOT_UTF8 + "2"
    catalog.begin_attempts([arrival(NOT_UTF8)])
    assert catalog.attempts([arrival(NOT_UTF8)]) == {NOT_UTF8: 3}
    assert not catalog.mark_missing([number], exists=lambda path: path == NOT_UTF8)
    assert_counts_hold(catalog)


def python(code, *arguments, **environment):
    """Start a Python of its own with this checkout's modules."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(catalogs.__file__)))
    return subprocess.Popen(
        [sys.executable, "-c", code] + list(arguments), stdout=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=root, **environment))


def test_a_name_is_the_same_file_under_every_locale(path):
    """Without a locale, as under systemd, Python 3.6 takes names for ASCII."""
    done = python(
        "import os, sys\n"
        "from jetson_cluster.catalog import Catalog\n"
        "from jetson_cluster.inbox import Arrival\n"
        "name = os.fsdecode(b'/inbox/d\\xc3\\xbcne.png')\n"
        "with Catalog(sys.argv[1], %r) as catalog:\n"
        "    catalog.begin_attempts([Arrival(name, 1, 1, 1)])\n" % SPACE,
        path, LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    done.communicate()
    assert done.returncode == 0
    name = os.fsdecode(b"/inbox/d\xc3\xbcne.png")
    with Catalog(path, SPACE) as catalog:
        assert catalog.attempts([Arrival(name, 1, 1, 1)]) == {name: 3}


@pytest.mark.parametrize("year", [1902, 2038, 2262, 2300, 2446])
def test_a_file_of_any_date_the_disk_can_hold_is_catalogued(catalog, tmp_path, year):
    file = tmp_path / "image.png"
    file.write_bytes(b"x")
    seconds = int((year - 1970) * 365.2425 * 86400)
    os.utime(str(file), (seconds, seconds))
    seen = Arrival(str(file), 1, os.stat(str(file)).st_mtime_ns, 1)
    catalog.begin_attempts([seen])
    assert catalog.attempts([seen]) == {str(file): 3}
    record(catalog, [image(str(file), 1)._replace(arrival=seen)])
    assert catalog.known([seen]) == {str(file)}
    assert not catalog.known([seen._replace(mtime_ns=seen.mtime_ns + 2 ** 63)])


def test_an_attempt_is_over_once_there_is_a_verdict(catalog):
    arrivals = [arrival("/inbox/%s.png" % name) for name in ("good", "bad", "left")]
    catalog.begin_attempts(arrivals)
    record(catalog, [image("/inbox/good.png", 1)], [refusal("/inbox/bad.png")])
    assert catalog.attempts(arrivals) == {"/inbox/left.png": 3}
    catalog.cancel_attempts(arrivals)
    assert catalog.attempts(arrivals) == {}


# ---- which file it opens -------------------------------------------------------------------------

def foreign(path, version):
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE notes (text)")
    db.execute("PRAGMA user_version = %d" % version)
    db.commit()
    db.close()


@pytest.mark.parametrize("prepare, error, words", [
    (lambda path: Catalog(path, "other/net@0").close(), UserError, "other/net@0"),
    (lambda path: foreign(path, 0), UserError, "another program"),
    (lambda path: foreign(path, database.SCHEMA_VERSION), UserError, "another program"),
    (lambda path: foreign(path, database.SCHEMA_VERSION + 1), UserError, "format 3"),
    (lambda path: open(path, "wb").write(b"text, no database" * 100), WorldError, "move it aside"),
    (os.mkdir, WorldError, "cannot be"),
], ids=["space", "foreign", "same-number", "newer", "text", "folder"])
def test_a_file_that_is_no_catalog_of_ours_is_left_alone_with_one_clear_line(
        path, prepare, error, words):
    prepare(path)
    before = open(path, "rb").read() if os.path.isfile(path) else None
    with pytest.raises(error) as caught:
        Catalog(path, SPACE)
    message = str(caught.value)
    assert message.startswith("catalog %s: " % path) and "\n" not in message and words in message
    assert before is None or open(path, "rb").read() == before


def test_the_folder_must_exist(tmp_path):
    with pytest.raises(WorldError, match="the folder must exist"):
        Catalog(str(tmp_path / "absent" / "catalog.sqlite"), SPACE)


# The format before images could wait, word for word.
FORMAT_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
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
TABLES = ("images", "embeddings", "files", "refusals", "attempts", "groups", "meta")


def all_tables(path):
    """Every row of every table, and the schema's own words without how they are laid out."""
    db = sqlite3.connect(path)
    try:
        rows = {table: db.execute("SELECT * FROM %s ORDER BY 1" % table).fetchall()
                for table in TABLES}
        schema = sorted((kind, name, " ".join((sql or "").replace('"', "").split()))
                        for kind, name, sql in db.execute(
                            "SELECT type, name, sql FROM sqlite_master"))
        return rows, schema, db.execute("PRAGMA user_version").fetchone()[0]
    finally:
        db.close()


@pytest.fixture
def of_format_1(path):
    """A catalog as the format before wrote it, with images, one of them missing, and all else."""
    with Catalog(path, SPACE) as new:
        record(new, [image("/inbox/%d.png" % number, number) for number in range(30)]
               + [image(NOT_UTF8, 99)], [refusal("/inbox/bad.png")])
        new.mark_missing([3], exists=lambda path: False)
        new.begin_attempts([arrival("/inbox/killer.png")])
        new.remember("mount", "/inbox")
        new.begin_placing("a codebook")
    rows, _, _ = all_tables(path)
    for name in (path, path + "-wal", path + "-shm"):
        if os.path.exists(name):
            os.unlink(name)
    db = sqlite3.connect(path)
    db.executescript(re.sub("--.*", "", FORMAT_1) + "PRAGMA user_version = 1;")
    for table, held in rows.items():
        if held:
            db.executemany("INSERT INTO %s VALUES (%s)" % (
                table, database.marks_for(held[0])), held)
    db.execute("PRAGMA journal_mode = WAL")
    db.commit()
    db.close()
    return path


def test_a_catalog_of_the_format_before_is_brought_up_to_date_and_loses_nothing(
        of_format_1, tmp_path):
    rows, _, version = all_tables(of_format_1)
    assert version == 1
    with Catalog(of_format_1, SPACE) as catalog:
        assert catalog.counts == {QUEUED: 30, WAITING: 0, MISSING: 1, "refused": 1}
        assert_counts_hold(catalog)
        assert catalog.attempts([arrival("/inbox/killer.png")])
    fresh = str(tmp_path / "fresh.sqlite")
    Catalog(fresh, SPACE).close()
    assert all_tables(of_format_1) == (rows,) + all_tables(fresh)[1:]
    with Catalog(of_format_1, SPACE) as catalog:  # and it is one like any other
        catalog.record([image("/inbox/hot.png", 200)], None, [])
        assert len(record(catalog, [image("/inbox/hot.png", 200)])) == 1
        assert_counts_hold(catalog)


def test_a_conversion_is_announced_before_it_begins_with_the_time_it_may_take(of_format_1):
    said = []

    def progress(doing, allow_s):
        said.append((doing, allow_s, all_tables(of_format_1)[2]))

    for _ in range(2):  # the second time there is nothing to convert
        with Catalog(of_format_1, SPACE, progress) as catalog:
            # Memory the daemon shares with a GPU is given back.
            assert catalog._db.execute("PRAGMA cache_size").fetchone()[0] == -2048
    assert [(doing, version) for doing, _, version in said] == [
        ("converting the catalog of 31 images to format 2", 1)]
    assert said[0][1] == pytest.approx(60.031)


def test_a_conversion_has_memory_to_work_in(of_format_1, monkeypatch):
    create, seen = database.Database._create, []

    def seeing(self, schema):
        seen.append(self._db.execute("PRAGMA cache_size").fetchone()[0])
        create(self, schema)

    monkeypatch.setattr(database.Database, "_create", seeing)
    Catalog(of_format_1, SPACE).close()
    assert seen == [-65536]


def test_a_full_disk_leaves_the_format_before_as_it_was(of_format_1, monkeypatch):
    before = all_tables(of_format_1)
    create = database.Database._create

    def on_a_full_disk(self, schema):
        self._db.execute("PRAGMA max_page_count = %d" % (
            self._db.execute("PRAGMA page_count").fetchone()[0]))
        create(self, schema)

    monkeypatch.setattr(database.Database, "_create", on_a_full_disk)
    with pytest.raises(WorldError, match="is the disk full"):
        Catalog(of_format_1, SPACE)
    assert all_tables(of_format_1) == before
    monkeypatch.undo()
    with Catalog(of_format_1, SPACE) as catalog:
        assert catalog.counts[QUEUED] == 30


def test_a_catalog_of_the_format_before_and_another_space_stays_as_it_is(of_format_1):
    before = all_tables(of_format_1)
    with pytest.raises(UserError, match="other/net@0"):
        Catalog(of_format_1, "other/net@0")
    assert all_tables(of_format_1) == before


# What came to SQLite after 3.22, which JetPack 4.6 has.
TOO_NEW = re.compile(
    r"ON\s+CONFLICT|RETURNING|\bOVER\s*\(|VACUUM\s+INTO|GENERATED\s+ALWAYS|\bSTRICT\b"
    r"|NULLS\s+(FIRST|LAST)|MATERIALIZED|FILTER\s*\(|RENAME\s+COLUMN|DROP\s+COLUMN|\bIIF\s*\("
    r"|->|(RIGHT|FULL)\s+(OUTER\s+)?JOIN|DISTINCT\s+FROM|\bTRUE\b|\bFALSE\b", re.IGNORECASE)


def statements(source):
    """The text constants of a module that are SQL."""
    for node in ast.walk(ast.parse(source)):
        # A string constant keeps its text in `s` on Python 3.6, in `value` since.
        text = node.value if hasattr(node, "value") else getattr(node, "s", None)
        if isinstance(text, str) and re.search(
                r"\b(SELECT|INSERT|UPDATE|DELETE|CREATE|VACUUM|ALTER)\b", text):
            yield text


def test_no_statement_needs_more_than_sqlite_322():
    folder, found = os.path.dirname(catalogs.__file__), 0
    for name in sorted(os.listdir(folder)):
        if name.endswith(".py"):
            with open(os.path.join(folder, name), encoding="utf-8") as stream:
                for statement in statements(stream.read()):
                    found += 1
                    assert not TOO_NEW.search(statement), (name, statement)
    assert found > 20
    for bad in ("INSERT INTO a VALUES (1) ON CONFLICT (b) DO NOTHING", "SELECT sum(a) OVER ()",
                "SELECT a FROM b ORDER BY a NULLS FIRST", "DELETE FROM a RETURNING b"):
        assert [TOO_NEW.search(held) is not None for held in statements("x = %r" % bad)] == [True]


# ---- what ranking reads --------------------------------------------------------------------------

def test_what_is_offered_to_the_pool_is_what_the_catalog_gives_back(catalog):
    images = [image("/inbox/%d.png" % number, number) for number in range(200)]
    placed = placement(images)
    added = catalog.record(images, placed, [])
    offered = ranking.candidates_of([held for held, _ in added], placed, [row for _, row in added])
    for cluster in range(3):
        mine = offered[offered["cluster"] == cluster]
        mine = mine[np.lexsort((mine["image"], -mine["interest"]))]
        np.testing.assert_array_equal(catalog.candidates(cluster, 1000), mine)
        np.testing.assert_array_equal(catalog.candidates(cluster, 7), mine[:7])
    far = offered[offered["far"]]
    np.testing.assert_array_equal(
        catalog.far_candidates(5), far[np.lexsort((far["image"], far["ratio"]))][:5])
    gone = int(far["image"][0])
    catalog.mark_missing([gone], exists=lambda path: False)
    assert gone not in catalog.far_candidates(1000)["image"]
    assert gone not in catalog.candidates(int(far["cluster"][0]), 1000)["image"]
    assert catalog.take_disturbed() == {int(far["cluster"][0])} and not catalog.take_disturbed()


def test_no_question_of_the_loop_reads_the_whole_catalog(catalog):
    record(catalog, [image("/inbox/a.png", 1)])
    asked = []
    catalog._db.set_trace_callback(lambda sql: asked.append(sql))  # 3.6 wants it hashable
    catalog.candidates(0, 10)
    catalog.far_candidates(10)
    catalog.rows([1, 2])
    catalog.known([arrival("/inbox/a.png")])
    catalog.mark_missing([1], exists=lambda path: False)
    catalog.next_unplaced(10)
    record(catalog, [image("/inbox/b.png", 2)])
    catalog.record([image("/inbox/hot.png", 3)], None, [])
    catalog.waiting(0, 10)
    catalog._db.set_trace_callback(None)
    asked = [sql for sql in asked if re.match("SELECT|UPDATE|DELETE", sql)]
    assert len(asked) > 10
    for sql in asked:
        plan = " ".join(row[3] for row in catalog._db.execute("EXPLAIN QUERY PLAN " + sql))
        assert "TEMP B-TREE" not in plan, sql
        # The far images' own index holds nothing else and is read only as far as asked.
        assert not re.sub("SCAN images USING INDEX images_far", "", plan).count("SCAN"), (sql, plan)


def test_embeddings_come_back_as_float16_kept_them(catalog):
    images = [image("/inbox/%d.png" % number, number) for number in range(5)]
    numbers = [number for number, _ in record(catalog, images)]
    back = catalog.embeddings_of(numbers[::-1])
    kept = np.stack([held.embedding for held in images[::-1]]).astype(np.float16)
    np.testing.assert_array_equal(back, kept.astype(np.float32))
    assert back.dtype == np.float32 and catalog.next_unplaced(3)[0] == []


# ---- images that wait to be embedded -------------------------------------------------------------

def wait(catalog, *images):
    """Catalogue images as it is done while it is too hot to embed them."""
    return catalog.record([held._replace(embedding=None) for held in images], None, [])


def waiting_paths(catalog, after=0):
    return [[path for path, _, _ in files] for _, files in catalog.waiting(after, 1000)]


def test_an_image_that_waits_is_known_counted_and_not_in_the_queue(catalog, path):
    wait(catalog, image("/inbox/a.png", 1), image(NOT_UTF8, 2))
    for opened in (catalog, Catalog(path, SPACE)):
        assert opened.counts == {QUEUED: 0, WAITING: 2, MISSING: 0, "refused": 0}
        assert opened.queued_bytes == 0
        assert opened.known([arrival("/inbox/a.png")]) == {"/inbox/a.png"}
        assert waiting_paths(opened) == [["/inbox/a.png"], [NOT_UTF8]]
        assert len(opened.candidates(0, 10)) == len(opened.far_candidates(10)) == 0
        assert opened.next_unplaced(10)[0] == []
        assert_counts_hold(opened)
    opened.close()


def test_an_image_that_waited_is_new_to_the_queue_once_it_is_embedded(catalog):
    wait(catalog, image("/inbox/a.png", 1), image("/inbox/b.png", 2))
    late = image("/inbox/b.png", 2)._replace(captured_at="2026-02-02T00:00:00Z", width=48)
    added = record(catalog, [late, image("/inbox/c.png", 3)])
    assert [(number, row) for number, row in added] == [(2, 0), (3, 1)]  # in order of arrival
    assert catalog.counts == {QUEUED: 2, WAITING: 1, MISSING: 0, "refused": 0}
    assert catalog.rows([2])[2].captured_at == "2026-02-02T00:00:00Z"
    np.testing.assert_array_equal(
        catalog.embeddings_of([2])[0], late.embedding.astype(np.float16).astype(np.float32))
    assert not record(catalog, [late])
    assert_counts_hold(catalog)


def test_known_content_does_not_wait_whatever_the_heat(catalog):
    (number, _), = record(catalog, [image("/inbox/a.png", 1)])
    assert not wait(catalog, image("/inbox/copy.png", 1))
    assert catalog.counts == {QUEUED: 1, WAITING: 0, MISSING: 0, "refused": 0}
    catalog.mark_missing([number], exists=lambda path: False)
    wait(catalog, image("/inbox/again.png", 1))
    assert catalog.rows([number])[number][2:6] == (
        "/inbox/again.png", 101, "2026-01-01T00:00:00Z", QUEUED)
    assert_counts_hold(catalog)


def test_one_content_under_two_names_waits_once(catalog):
    wait(catalog, image("/inbox/b.png", 1), image("/inbox/a.png", 1))
    wait(catalog, image("/inbox/c.png", 1))
    assert catalog.counts[WAITING] == 1
    assert waiting_paths(catalog) == [["/inbox/a.png", "/inbox/b.png", "/inbox/c.png"]]
    assert len(record(catalog, [image("/inbox/c.png", 1)])) == 1
    assert waiting_paths(catalog) == [] and catalog.counts[QUEUED] == 1
    assert_counts_hold(catalog)


def test_a_waiting_image_that_is_gone_is_missing_and_waits_again_when_it_is_back(catalog):
    wait(catalog, image("/inbox/a.png", 1))
    assert catalog.mark_missing([1], exists=lambda path: False) == [1]
    assert catalog.counts == {QUEUED: 0, WAITING: 0, MISSING: 1, "refused": 0}
    assert not catalog.disturbed  # the queue is none the wiser
    assert catalog.known([arrival("/inbox/a.png")]) == {"/inbox/a.png"}
    assert catalog.counts[WAITING] == 1
    catalog.mark_missing([1], exists=lambda path: False)
    assert [number for number, _ in record(catalog, [image("/inbox/a.png", 1)])] == [1]
    assert catalog.counts == {QUEUED: 1, WAITING: 0, MISSING: 0, "refused": 0}
    assert_counts_hold(catalog)


def test_a_waiting_image_whose_file_is_overwritten_goes_by_its_other_path_or_is_missing(catalog):
    wait(catalog, image("/inbox/a.png", 1), image("/inbox/b.png", 1))
    record(catalog, [image("/inbox/a.png", 2)])
    assert catalog.counts[WAITING] == 1 and waiting_paths(catalog) == [["/inbox/b.png"]]
    wait(catalog, image("/inbox/b.png", 3))
    assert catalog.counts == {QUEUED: 1, WAITING: 1, MISSING: 1, "refused": 0}
    record(catalog, [], [refusal("/inbox/b.png")])  # of other content than the one that waited
    assert catalog.counts == {QUEUED: 1, WAITING: 0, MISSING: 2, "refused": 1}
    assert_counts_hold(catalog)


@pytest.mark.parametrize("code, missing", [("damaged", 0), ("quarantined", 0), ("vanished", 1)])
def test_a_waiting_image_that_turns_out_to_be_none_is_refused_and_not_missing(
        catalog, code, missing):
    held = image("/inbox/a.png", 1)
    wait(catalog, held, image("/inbox/copy.png", 1), image("/inbox/b.png", 2))
    for name in ("/inbox/a.png", "/inbox/copy.png"):
        record(catalog, [], [Refusal(name, held.arrival.bytes, held.arrival.mtime_ns, code, "why",
                                     "2026-01-01T00:00:00Z")])
        assert_counts_hold(catalog)
    assert catalog.counts == {QUEUED: 0, WAITING: 1, MISSING: missing, "refused": 2}
    assert waiting_paths(catalog) == [["/inbox/b.png"]]


def test_waiting_images_come_in_order_of_arrival_a_part_at_a_time(catalog):
    wait(catalog, *[image("/inbox/%04d.png" % number, number) for number in range(999, 399, -1)])
    record(catalog, [image("/inbox/0998.png", 998)])
    first = catalog.waiting(0, 300)
    rest = catalog.waiting(first[-1][0], 1000)
    names = [files[0][0] for _, files in first + rest]
    assert names == ["/inbox/%04d.png" % number for number in range(999, 399, -1) if number != 998]
    assert [number for number, _ in first + rest] == [1] + list(range(3, 601))


def test_images_that_wait_are_left_out_when_all_are_placed_anew(catalog):
    record(catalog, [image("/inbox/a.png", 1)])
    wait(catalog, image("/inbox/b.png", 2))
    catalog.begin_placing("another codebook")
    images, embeddings = catalog.next_unplaced(10)
    assert images == [1] and len(embeddings) == 1
    catalog.place(images, placement(images))
    assert_counts_hold(catalog)


def test_no_image_can_be_queued_without_a_place(catalog):
    wait(catalog, image("/inbox/a.png", 1))
    with pytest.raises(sqlite3.IntegrityError):
        catalog._db.execute("UPDATE images SET state = 'queued'")
