"""Which file the catalog opens, and what SQLite is asked: nothing new to the rover's, no scans."""

import ast
import os
import re
import sqlite3

import pytest

from catalog_checks import all_rows
from catalogued import SPACE, arrival, image, record
from jetson_cluster import database, schema
from jetson_cluster.catalog import Catalog
from jetson_cluster.database import Damaged, is_damage
from jetson_cluster.errors import UserError, WorldError


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "catalog.sqlite")


@pytest.fixture
def catalog(path):
    with Catalog(path, SPACE) as opened:
        yield opened


def change(path, *statements):
    """Write into the file as no program of ours does."""
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def made(path, *statements):
    Catalog(path, SPACE).close()
    change(path, *statements)


def foreign(path, version):
    change(path, "CREATE TABLE notes (text)", "PRAGMA user_version = %d" % version)


def of_a_later_format(path):
    made(path, "PRAGMA user_version = %d" % (schema.FORMAT + 1),
         "UPDATE meta SET value = %d WHERE key = 'format'" % (schema.FORMAT + 1))


# ---- which file it opens -------------------------------------------------------------------------

@pytest.mark.parametrize("prepare, error, words", [
    (lambda path: Catalog(path, "other/net@0").close(), UserError, "other/net@0"),
    (lambda path: foreign(path, 0), UserError, "another program"),
    (lambda path: foreign(path, schema.FORMAT), UserError, "another program"),
    (lambda path: foreign(path, schema.FORMAT + 1), UserError, "another program"),
    (of_a_later_format, UserError, "format %d" % (schema.FORMAT + 1)),
    (lambda path: open(path, "wb").write(b"text, no database" * 100), Damaged, "move it aside"),
    (lambda path: made(path, "DROP TABLE images"), Damaged, "a table is missing"),
    (lambda path: made(path, "DROP TABLE meta"), Damaged, "a table is missing"),
    (lambda path: made(path, "PRAGMA user_version = 2"), Damaged, "of format 2, and of format 3"),
    (lambda path: made(path, "UPDATE meta SET value = 'nat/layer@0' WHERE key = 'space'"), Damaged,
     "is not what was written"),
    (os.mkdir, WorldError, "cannot be"),
], ids=["space", "foreign", "same-number", "newer-foreign", "newer", "text", "no-images", "no-meta",
        "format", "damaged-space", "folder"])
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


def test_a_verb_opens_the_catalog_of_whatever_space_but_makes_none(path):
    with pytest.raises(UserError, match="has the daemon run with this config"):
        Catalog(path, None)
    assert not os.path.exists(path)
    Catalog(path, "any/layer@0").close()
    with Catalog(path, None) as opened:
        assert opened.meta("space") == "any/layer@0"


def test_what_was_committed_is_forced_to_disk(catalog):
    """A power cut cannot be had in a test; the settings that SQLite's promise rests on can."""
    settings = [catalog._db.execute("PRAGMA " + name).fetchone()[0]
                for name in ("journal_mode", "synchronous")]
    assert settings == ["wal", 2]


def test_a_transaction_within_another_is_a_part_of_it(catalog, path):
    before = all_rows(path)
    with pytest.raises(KeyError):
        with catalog.together():
            record(catalog, [image("/inbox/a.png", 1)])
            catalog.remember("mount", "/inbox")
            raise KeyError
    assert all_rows(path) == before
    with catalog.together():
        record(catalog, [image("/inbox/a.png", 1)])
        catalog.remember("mount", "/inbox")
    assert catalog.meta("mount") == "/inbox" and catalog.counts["queued"] == 1


def test_a_fact_that_is_the_same_is_not_written_again(catalog):
    catalog.remember("mount", "/inbox")
    asked = []
    catalog._db.set_trace_callback(lambda sql: asked.append(sql))  # 3.6 wants it hashable
    catalog.remember("mount", "/inbox")
    catalog._db.set_trace_callback(None)
    assert [sql.split()[0] for sql in asked] == ["SELECT"]


@pytest.mark.parametrize("error, damaged", [
    (sqlite3.DatabaseError("database disk image is malformed"), True),
    (sqlite3.DatabaseError("file is not a database"), True),
    (sqlite3.OperationalError("database or disk is full"), False),
    (sqlite3.OperationalError("database is locked"), False),
    (OSError("file is not a database"), False)])
def test_damage_is_told_from_a_disk_that_is_full_or_busy(error, damaged):
    assert is_damage(error) is damaged


def test_the_last_three_damaged_catalogs_are_kept_with_their_side_files(tmp_path):
    path = str(tmp_path / "catalog.sqlite")
    for number in range(5):
        for side in ("", "-wal"):
            with open(path + side, "w") as stream:
                stream.write("%d%s" % (number, side))
        assert database.set_aside(path) == path + ".damaged-1"
    assert not os.path.exists(path) and not os.path.exists(path + "-wal")
    kept = {name: (tmp_path / name).read_text() for name in os.listdir(str(tmp_path))}
    assert kept == {"catalog.sqlite.damaged-%d%s" % (5 - number, side): "%d%s" % (number, side)
                    for number in (2, 3, 4) for side in ("", "-wal")}


# ---- what SQLite is asked ------------------------------------------------------------------------

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
    folder, found = os.path.dirname(database.__file__), 0
    for name in sorted(os.listdir(folder)):
        if name.endswith(".py"):
            with open(os.path.join(folder, name), encoding="utf-8") as stream:
                for statement in statements(stream.read()):
                    found += 1
                    assert not TOO_NEW.search(statement), (name, statement)
    assert found > 80
    for bad in ("INSERT INTO a VALUES (1) ON CONFLICT (b) DO NOTHING", "SELECT sum(a) OVER ()",
                "SELECT a FROM b ORDER BY a NULLS FIRST", "DELETE FROM a RETURNING b"):
        assert [TOO_NEW.search(held) is not None for held in statements("x = %r" % bad)] == [True]


# Read in the order of an index that holds nothing else, or short tables: as far as asked.
READ_IN_ORDER = re.compile(
    "SCAN (images USING INDEX images_(far|queued|unpreviewed)|refusals USING INDEX refusals_quarantined"
    "|embeddings|tallies|amendments|passes)")


def test_no_question_of_the_loop_reads_the_whole_catalog(catalog):
    record(catalog, [image("/inbox/%d.png" % number, number) for number in range(20)])
    asked = []
    catalog._db.set_trace_callback(lambda sql: asked.append(sql))  # 3.6 wants it hashable
    catalog.candidates(0, 10)
    catalog.far_candidates(10, (1, 2))
    catalog.oldest_candidates(10, 10, (1, 2))
    catalog.candidates_of([1, 2])
    catalog.pinned()
    catalog.move("pin", [1])
    catalog.begin_pass([5, 6], [7], 1000, "test", "2026-01-02T00:00:00Z")
    catalog.on_ground(5.0, 3)
    catalog.join_twins([(3, 2)])
    catalog.sent_twins([1, 2])
    catalog.twins_of(3)
    catalog.unsent_previews(10)
    catalog.preview_sizes([1, 2])
    catalog.oldest_queued()
    assert catalog.counts and catalog.sizes and catalog.quarantined() == 0
    assert catalog.aged_until(1) and catalog.passes_since(1) == 1 and catalog.pass_images(1)
    catalog.rows([1, 2])
    catalog.ids_by_prefix("abcdef", 2)
    catalog.known([arrival("/inbox/1.png", 1)])
    catalog.mark_missing([8], exists=lambda path: False)
    catalog.begin_placing("a codebook", "a policy", 3, True)
    catalog.next_unplaced(10)
    catalog.next_unvalued(10, True)
    catalog.newest_embeddings(10)
    record(catalog, [image("/inbox/b.png", 102)])
    catalog.record([image("/inbox/hot.png", 103)._replace(embedding=None)], None, [])
    catalog.waiting(0, 10)
    catalog.move("ack", [5])
    catalog.move_pass("nack", 1)
    catalog.retire([5])
    catalog.amendments()
    catalog._db.set_trace_callback(None)
    asked = [sql for sql in asked if re.match("SELECT|UPDATE|DELETE", sql)]
    assert len(asked) > 60
    for sql in asked:
        plan = " ".join(row[3] for row in catalog._db.execute("EXPLAIN QUERY PLAN " + sql))
        few = sql.startswith("SELECT id FROM images WHERE sha256 BETWEEN")
        assert few or "TEMP B-TREE" not in plan, (sql, plan)
        assert not READ_IN_ORDER.sub("", plan).count("SCAN"), (sql, plan)
