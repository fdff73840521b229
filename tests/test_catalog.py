"""What the catalog promises: each content once, true counts, nothing half done, nothing lost."""

import os
import sqlite3

import numpy as np
import pytest

from catalog_checks import NOT_UTF8, assert_counts_hold, counted, python
from catalogued import SPACE, arrival, image, placement, record, refusal
from jetson_cluster import catalog as catalogs
from jetson_cluster.catalog import Catalog, open_or_rebuild
from jetson_cluster.errors import UserError
from jetson_cluster.inbox import Arrival
from jetson_cluster.preview import Preview
from jetson_cluster.quality import Measures
from jetson_cluster.records import Refusal
from jetson_cluster.schema import (
    ACKED, DELETED, DROPPED, HELD, MISSING, QUEUED, SENT, WAITING)


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
    assert counted(catalog) == {QUEUED: 2}
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


# ---- what is asked of it --------------------------------------------------------------------------

def test_sizes_are_counted_by_state_as_images_are(catalog):
    record(catalog, [image("/inbox/%d.png" % number, number) for number in range(4)],
           [refusal("/inbox/bad.png")])
    catalog.mark_missing([2], exists=lambda path: False)
    catalog.move("hold", [4])
    assert counted(catalog) == {QUEUED: 2, MISSING: 1, HELD: 1, "refused": 1}
    assert catalog.sizes[QUEUED] == 100 + 102 and catalog.sizes[HELD] == 103
    assert catalog.sizes[MISSING] == 101 and catalog.sizes["refused"] == 7
    assert_counts_hold(catalog)


def test_the_oldest_of_the_queue_is_known(catalog):
    assert catalog.oldest_queued() is None
    record(catalog, [image("/inbox/%d.png" % content, content) for content in (9, 4, 6)])
    assert catalog.oldest_queued() == (1, "2026-01-01T00:00:00Z")
    catalog.move("ack", [1, 2])
    assert catalog.oldest_queued()[0] == 3


def test_files_that_ended_the_program_are_counted_apart(catalog):
    record(catalog, [], [refusal("/inbox/a.png"),
                         refusal("/inbox/b.png")._replace(code="quarantined")])
    assert catalog.quarantined() == 1
    record(catalog, [image("/inbox/b.png", 1)])
    assert catalog.quarantined() == 0


def test_measures_and_preview_come_with_the_embedding_and_not_before(catalog):
    measures, preview = Measures(0.5, 0.25, 0.5, 0.5, 0.0, 0.0), Preview(b"tiny", "webp", 8, 6, 31.5)
    held = image("/inbox/a.png", 1)
    catalog.record([held._replace(embedding=None)], None, [])
    assert catalog.rows([1])[1].measures is None and catalog.preview_of(1) is None
    record(catalog, [held._replace(measures=measures, preview=preview)])
    assert catalog.rows([1])[1].measures == measures
    assert catalog.preview_of(1) == ("webp", b"tiny")
    assert catalog.preview_sizes([1, 2]) == {1: ("webp", 4, 31.5)}
    assert_counts_hold(catalog)


def test_images_that_go_missing_are_those_of_the_queue_only(catalog):
    """Another process may have sent or held one since it was found gone."""
    record(catalog, [image("/inbox/%d.png" % number, number) for number in range(4)])
    catalog.begin_pass([1], [], 1000, "test", "2026-01-02T00:00:00Z")
    catalog.move("hold", [2])
    assert catalog.mark_missing([1, 2, 3], exists=lambda path: False) == [3]
    assert counted(catalog) == {SENT: 1, HELD: 1, MISSING: 1, QUEUED: 1}


@pytest.mark.parametrize("action, state", [("hold", HELD), ("ack", ACKED)])
def test_a_file_seen_again_does_not_undo_what_operations_did(catalog, action, state):
    record(catalog, [image("/inbox/a.png", 1)])
    catalog.mark_missing([1], exists=lambda path: False)
    catalog.move(action, [1])
    assert catalog.known([arrival("/inbox/a.png")]) == {"/inbox/a.png"}
    assert not record(catalog, [image("/inbox/b.png", 1)])
    assert catalog.state_of(1) == state


def test_a_sent_image_whose_file_was_overwritten_stays_sent(catalog):
    record(catalog, [image("/inbox/a.png", 1)])
    catalog.begin_pass([1], [], 1000, "test", "2026-01-02T00:00:00Z")
    record(catalog, [image("/inbox/a.png", 2)])
    assert counted(catalog) == {SENT: 1, QUEUED: 1}
    assert_counts_hold(catalog)


def test_near_duplicates_share_the_group_of_the_first_of_them(catalog):
    record(catalog, [image("/inbox/%d.png" % number, number) for number in range(5)])
    catalog.join_twins([(2, 1)])
    catalog.join_twins([(4, 2), (5, 3)])
    assert [catalog.rows([number])[number].twin for number in range(1, 6)] == [1, 1, 3, 1, 3]
    assert catalog.twins_of(2) == [1, 4] and catalog.twins_of(3) == [5]


def test_what_was_deleted_stays_known_by_its_content_and_not_by_its_path(catalog):
    record(catalog, [image("/inbox/a.png", 1), image("/inbox/b.png", 2)])
    catalog.move("ack", [1])
    catalog.retire([1, 2])
    assert counted(catalog) == {DELETED: 1, DROPPED: 1}
    assert catalog.known([arrival("/inbox/a.png"), arrival("/inbox/b.png", 2)]) == set()
    assert_counts_hold(catalog)


def test_only_what_joins_or_leaves_the_queue_otherwise_than_as_new_disturbs_it(catalog):
    """New ones are offered to the head of the queue one by one; all others have it read again."""
    images = [image("/inbox/%d.png" % number, number) for number in range(20)]
    record(catalog, images)
    wait(catalog, image("/inbox/hot.png", 50))
    record(catalog, [image("/inbox/hot.png", 50)])
    assert not catalog.disturbed and catalog.take_disturbed() == set()
    cluster = catalog.rows([3])[3].cluster
    for change in (lambda: catalog.mark_missing([3], exists=lambda path: False),
                   lambda: catalog.known([arrival("/inbox/2.png", 2)]),
                   lambda: record(catalog, [image("/inbox/2.png", 60)]),
                   lambda: record(catalog, [image("/inbox/2.png", 2)]),
                   lambda: catalog.move("hold", [3]), lambda: catalog.move("release", [3]),
                   lambda: catalog.begin_pass([3], [], 1000, "test", "2026-01-02T00:00:00Z")):
        change()
        assert catalog.disturbed and catalog.take_disturbed() == {cluster}


# ---- a damaged one -------------------------------------------------------------------------------

def test_a_damaged_catalog_is_set_aside_and_made_anew(path, caplog):
    with open(path, "wb") as stream:
        stream.write(b"text, no database" * 100)
    with open_or_rebuild(path, SPACE, lambda doing, allow_s: None) as catalog:
        assert counted(catalog) == {} and len(record(catalog, [image("/inbox/a.png", 1)])) == 1
    with open(path + ".damaged-1", "rb") as stream:
        assert stream.read() == b"text, no database" * 100
    assert "CatalogDamaged: catalog %s: is damaged" % path in caplog.text


def test_a_catalog_that_is_not_ours_is_never_set_aside(path):
    Catalog(path, "other/net@0").close()
    with pytest.raises(UserError, match="other/net@0"):
        open_or_rebuild(path, SPACE, lambda doing, allow_s: None)
    assert os.listdir(os.path.dirname(path)) == ["catalog.sqlite"]


# ---- images that wait to be embedded -------------------------------------------------------------

def wait(catalog, *images):
    """Catalogue images as it is done while it is too hot to embed them."""
    return catalog.record([held._replace(embedding=None) for held in images], None, [])


def waiting_paths(catalog, after=0):
    return [[path for path, _, _ in files] for _, files in catalog.waiting(after, 1000)]


def test_an_image_that_waits_is_known_counted_and_not_in_the_queue(catalog, path):
    wait(catalog, image("/inbox/a.png", 1), image(NOT_UTF8, 2))
    for opened in (catalog, Catalog(path, SPACE)):
        assert counted(opened) == {WAITING: 2}
        assert opened.sizes[QUEUED] == 0
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
    assert counted(catalog) == {QUEUED: 2, WAITING: 1}
    assert catalog.rows([2])[2].captured_at == "2026-02-02T00:00:00Z"
    np.testing.assert_array_equal(
        catalog.embeddings_of([2])[0], late.embedding.astype(np.float16).astype(np.float32))
    assert not record(catalog, [late])
    assert_counts_hold(catalog)


def test_known_content_does_not_wait_whatever_the_heat(catalog):
    (number, _), = record(catalog, [image("/inbox/a.png", 1)])
    assert not wait(catalog, image("/inbox/copy.png", 1))
    assert counted(catalog) == {QUEUED: 1}
    catalog.mark_missing([number], exists=lambda path: False)
    wait(catalog, image("/inbox/again.png", 1))
    row = catalog.rows([number])[number]
    assert (row.path, row.bytes, row.state) == ("/inbox/again.png", 101, QUEUED)
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
    assert counted(catalog) == {MISSING: 1}
    assert not catalog.disturbed  # the queue is none the wiser
    assert catalog.known([arrival("/inbox/a.png")]) == {"/inbox/a.png"}
    assert catalog.counts[WAITING] == 1
    catalog.mark_missing([1], exists=lambda path: False)
    assert [number for number, _ in record(catalog, [image("/inbox/a.png", 1)])] == [1]
    assert counted(catalog) == {QUEUED: 1}
    assert_counts_hold(catalog)


def test_a_waiting_image_whose_file_is_overwritten_goes_by_its_other_path_or_is_missing(catalog):
    wait(catalog, image("/inbox/a.png", 1), image("/inbox/b.png", 1))
    record(catalog, [image("/inbox/a.png", 2)])
    assert catalog.counts[WAITING] == 1 and waiting_paths(catalog) == [["/inbox/b.png"]]
    wait(catalog, image("/inbox/b.png", 3))
    assert counted(catalog) == {QUEUED: 1, WAITING: 1, MISSING: 1}
    record(catalog, [], [refusal("/inbox/b.png")])  # of other content than the one that waited
    assert counted(catalog) == {QUEUED: 1, MISSING: 2, "refused": 1}
    assert_counts_hold(catalog)


@pytest.mark.parametrize("code, missing", [
    ("damaged", {}), ("quarantined", {}), ("vanished", {MISSING: 1})])
def test_a_waiting_image_that_turns_out_to_be_none_is_refused_and_not_missing(
        catalog, code, missing):
    held = image("/inbox/a.png", 1)
    wait(catalog, held, image("/inbox/copy.png", 1), image("/inbox/b.png", 2))
    for name in ("/inbox/a.png", "/inbox/copy.png"):
        record(catalog, [], [Refusal(name, held.arrival.bytes, held.arrival.mtime_ns, code, "why",
                                     "2026-01-01T00:00:00Z")])
        assert_counts_hold(catalog)
    assert counted(catalog) == dict({WAITING: 1, "refused": 2}, **missing)
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
    catalog.begin_placing("another codebook", "a policy", 3, True)
    images, embeddings, measures = catalog.next_unplaced(10)
    assert images == [1] and len(embeddings) == 1 and measures == [None]
    catalog.place(images, placement(images))
    assert_counts_hold(catalog)


def test_no_image_can_be_queued_without_a_place(catalog):
    wait(catalog, image("/inbox/a.png", 1))
    with pytest.raises(sqlite3.IntegrityError):
        catalog._db.execute("UPDATE images SET state = 'queued'")
