"""What operations do to images, what survives the loss of the catalog, and what each action refuses."""

import os
import sqlite3

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalogued import SPACE, image, record, sha256_of
from jetson_cluster.catalog import Catalog, open_or_rebuild
from jetson_cluster.database import set_aside
from jetson_cluster.ledger import MOVES, refusal
from jetson_cluster.passbook import Stale
from jetson_cluster.schema import (
    ACKED, DELETED, DROPPED, HELD, MISSING, QUEUED, SENT, STATES, WAITING)

AT = "2026-01-02T00:00:00Z"


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "catalog.sqlite")


@pytest.fixture
def catalog(path):
    with Catalog(path, SPACE) as opened:
        opened.recall()
        yield opened


def fill(catalog, count=6):
    """So many queued images; their ids."""
    return [number for number, _ in record(
        catalog, [image("/inbox/%d.png" % content, content) for content in range(count)])]


def states(catalog, images):
    return [catalog.state_of(number) for number in images]


def anew(catalog, path, count=6):
    """The catalog lost, made anew from the journal, and the inbox read again."""
    catalog.close()
    set_aside(path)
    reopened = open_or_rebuild(path, SPACE, lambda doing, allow_s: None)
    return reopened, fill(reopened, count)


def test_a_pass_marks_its_images_sent_and_numbers_go_up(catalog):
    images = fill(catalog)
    assert catalog.begin_pass(images[:2], [], 1000, "test", AT) == 1
    assert catalog.begin_pass(images[2:3], [], 1000, "test", AT) == 2
    assert states(catalog, images) == [SENT, SENT, SENT, QUEUED, QUEUED, QUEUED]
    assert (catalog.pass_images(1), catalog.pass_images(2)) == (images[:2], images[2:3])
    assert catalog.pass_of(1).bytes == 100 + 101
    assert catalog.pass_of(3) is None and catalog.last_pass == 2


def test_a_pass_with_an_image_that_is_not_queued_any_more_changes_nothing(catalog):
    images = fill(catalog)
    catalog.move("hold", images[1:2])
    with pytest.raises(Stale):
        catalog.begin_pass(images[:2], [], 1000, "test", AT)
    assert states(catalog, images[:2]) == [QUEUED, HELD]
    assert catalog.last_pass == 0


def test_only_what_was_sent_comes_back_by_a_nack(catalog):
    images = fill(catalog)
    catalog.begin_pass(images[:3], [], 1000, "test", AT)
    catalog.move("ack", images[:1])
    moved = catalog.move_pass("nack", 1)
    assert images[0] not in moved and moved[images[1]][:2] == (SENT, QUEUED)
    assert states(catalog, images[:3]) == [ACKED, QUEUED, QUEUED]


def test_an_image_whose_file_is_gone_is_missing_after_a_nack_and_queued_when_it_is_back(catalog):
    images = fill(catalog, 1)
    catalog.begin_pass(images, [], 1000, "test", AT)
    record(catalog, [image("/inbox/0.png", 77)])  # another picture under the same name
    catalog.move("nack", images)
    assert states(catalog, images) == [MISSING]
    record(catalog, [image("/inbox/back.png", 0)])
    assert states(catalog, images) == [QUEUED]
    assert catalog.rows(images)[images[0]].path == "/inbox/back.png"


def test_an_image_never_embedded_waits_again_after_it_was_held(catalog):
    catalog.record([image("/inbox/hot.png", 5)], None, [])
    number = catalog.find(sha256_of(5))[0]
    catalog.move("hold", [number])
    assert states(catalog, [number]) == [HELD]
    catalog.move("release", [number])
    assert states(catalog, [number]) == [WAITING]


def test_a_held_image_that_is_embedded_meanwhile_stays_held(catalog):
    catalog.record([image("/inbox/hot.png", 5)], None, [])
    number = catalog.find(sha256_of(5))[0]
    catalog.move("hold", [number])
    record(catalog, [image("/inbox/hot.png", 5)])
    assert states(catalog, [number]) == [HELD]
    catalog.move("release", [number])
    assert states(catalog, [number]) == [QUEUED]


def test_pins_are_kept_in_their_order_until_the_acknowledgement(catalog):
    images = fill(catalog)
    catalog.move("pin", [images[3]])
    catalog.move("pin", [images[0]])
    catalog.move("pin", [images[3]])  # it is pinned already
    assert catalog.pinned() == [images[3], images[0]]
    catalog.begin_pass([images[3]], [], 1000, "test", AT)
    assert catalog.pinned() == [images[0]]
    catalog.move("nack", [images[3]])
    assert catalog.pinned() == [images[3], images[0]]
    catalog.move("ack", [images[3]])
    catalog.move("resend", [images[3]])
    assert catalog.pinned() == [images[0]]


def test_each_action_says_why_it_refuses_a_state():
    for action, moves in MOVES.items():
        for state in STATES:
            assert bool(refusal(action, state)) == (state not in moves), (action, state)
    assert refusal("hold", SENT) == "it was sent already; nack or resend it first"


def test_images_are_found_by_hash_path_name_and_pass(catalog):
    images = fill(catalog)
    catalog.begin_pass(images[1:3], [], 1000, "test", AT)
    assert catalog.find(sha256_of(2)[:8].upper()) == [images[2]]
    assert catalog.find("/inbox/4.png") == catalog.find("4.png") == [images[4]]
    assert catalog.find("pass:1") == images[1:3]
    for nothing in ("pass:9", "pass:x", "%.png", "_.png", "nbox/4.png", "abcde", "/inbox", ""):
        assert catalog.find(nothing) == [], nothing


def test_what_the_ground_has_is_never_queued_again_although_the_catalog_is_lost(catalog, path):
    images = fill(catalog)
    catalog.begin_pass(images[:3], [], 1000, "test", AT)
    catalog.move("ack", images[:2])
    catalog.move("hold", images[4:5])
    catalog.move("pin", images[5:])
    catalog.audit(AT, "test", "order-7", "pin", "x", "done", "")
    reopened, numbers = anew(catalog, path)
    with reopened:
        assert states(reopened, numbers) == [ACKED, ACKED, SENT, QUEUED, HELD, QUEUED]
        assert reopened.pinned() == [numbers[5]]
        assert reopened.last_pass == 1
        assert reopened.pass_images(1) == numbers[:3]
        assert reopened.audited("order-7") is not None


def test_an_acknowledgement_that_was_not_committed_is_recalled_at_the_next_start(catalog, path):
    images = fill(catalog)
    catalog.recall()
    catalog.close()
    with open(path, "rb") as stream:
        before = stream.read()
    with Catalog(path, SPACE) as second:
        second.move("ack", images[:1])
    lose_commits_since(path, before)
    with open_or_rebuild(path, SPACE, lambda doing, allow_s: None) as third:
        assert states(third, images[:2]) == [ACKED, QUEUED]


def lose_commits_since(path, noted):
    """As if the disk had not kept what was committed since the file held `noted`."""
    with open(path, "wb") as stream:
        stream.write(noted)
    for side in ("-wal", "-shm"):
        if os.path.exists(path + side):
            os.unlink(path + side)


def test_all_that_operations_did_comes_back_from_the_journal_when_commits_are_lost(catalog, path):
    images = fill(catalog)
    catalog.move("hold", images[3:4])
    catalog.recall()
    catalog.close()
    with open(path, "rb") as stream:
        noted = stream.read()
    with Catalog(path, None) as second:
        second.begin_pass(images[:3], [], 1000, "test", AT)
        second.move("nack", images[1:2])
        second.move("ack", images[2:3])
        second.move("pin", images[3:5])
        wanted, pins = states(second, images), second.pinned()
    lose_commits_since(path, noted)
    with open_or_rebuild(path, SPACE, lambda doing, allow_s: None) as third:
        assert states(third, images) == wanted == [SENT, QUEUED, ACKED, HELD, QUEUED, QUEUED]
        assert (third.pinned(), third.last_pass) == (pins, 1)


def test_a_journal_that_lost_lines_changes_nothing_and_is_completed(catalog, path):
    images = fill(catalog)
    catalog.move("ack", images[:2])
    catalog.move("resend", images[:1])
    catalog.move("pin", images[3:4])
    before = states(catalog, images)
    catalog.recall()
    catalog.close()
    with open(os.path.join(os.path.dirname(path), "journal"), "r+") as stream:
        lines = stream.readlines()
        stream.seek(0)
        stream.truncate()
        stream.writelines(lines[:1])  # of which the first says that the image is acknowledged
    with open_or_rebuild(path, SPACE, lambda doing, allow_s: None) as again:
        assert states(again, images) == before
        reopened, numbers = anew(again, path)
    with reopened:
        assert states(reopened, numbers) == before
        assert reopened.pinned() == [numbers[3]]


def test_content_acknowledged_is_not_sent_even_if_the_images_table_says_queued(catalog, path):
    images = fill(catalog)
    catalog.move("ack", images[:1])
    catalog._db.execute("UPDATE images SET state = 'queued' WHERE id = ?", images[:1])
    with pytest.raises(Stale):
        catalog.begin_pass(images[:1], [], 1000, "test", AT)


def test_age_is_counted_in_passes(catalog):
    images = fill(catalog, 2)
    assert catalog.aged_until(2) == 0
    catalog.begin_pass([], [], 0, "test", AT)
    later = record(catalog, [image("/inbox/later.png", 50)])[0][0]
    catalog.begin_pass([], [], 0, "test", AT)
    assert catalog.aged_until(2) == images[-1]
    assert catalog.aged_until(1) == later
    assert (catalog.passes_since(images[0]), catalog.passes_since(later)) == (2, 1)


def test_what_was_sent_counts_half_as_much_after_a_half_life(catalog):
    images = fill(catalog, 4)
    catalog.begin_pass(images[:1], [], 1000, "test", AT)
    now = catalog.on_ground(2.0, 3)
    for _ in range(2):
        catalog.begin_pass([], [], 0, "test", AT)
    catalog.begin_pass(images[1:2], [], 1000, "test", AT)
    row = catalog.rows(images)[images[1]]
    second = np.zeros(3)
    np.add.at(second, row.soft_index, row.soft_weight)
    np.testing.assert_allclose(catalog.on_ground(2.0, 3), second + now * 0.5 ** 1.5, rtol=1e-6)
    catalog.move_pass("nack", 4)
    np.testing.assert_allclose(catalog.on_ground(2.0, 3), now * 0.5 ** 1.5, rtol=1e-6)


def test_two_processes_may_change_one_catalog(catalog, path):
    images = fill(catalog)
    catalog.changed_elsewhere()
    assert not catalog.changed_elsewhere()
    catalog.move("hold", images[:1])
    assert not catalog.changed_elsewhere()
    with Catalog(path, None) as other:
        other.move("ack", images[1:2])
    assert catalog.changed_elsewhere()
    assert not catalog.changed_elsewhere()
    assert catalog.counts[ACKED] == 1


def test_retired_images_stay_known_and_what_comes_back_is_what_it_was(catalog):
    images = fill(catalog)
    catalog.move("ack", images[:1])
    catalog.retire(images[:2])
    assert states(catalog, images[:2]) == [DELETED, DROPPED]
    assert len(catalog.embeddings_of(images[:2])) == 2
    fill(catalog)
    assert states(catalog, images[:2]) == [ACKED, QUEUED]


ACTIONS = st.lists(st.tuples(st.sampled_from(sorted(MOVES) + ["pass", "retire", "appear"]),
                             st.lists(st.integers(0, 5), unique=True)), max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(ACTIONS)
def test_every_action_done_twice_is_done_once_and_counts_stay_true(tmp_path_factory, actions):
    path = str(tmp_path_factory.mktemp("ledger") / "catalog.sqlite")
    with Catalog(path, SPACE) as catalog:
        catalog.recall()
        images = fill(catalog)
        acknowledged = set()
        for name, places in actions:
            chosen = [images[place] for place in places]
            if name == "pass":
                chosen = [number for number in chosen if catalog.state_of(number) == QUEUED]
                catalog.begin_pass(chosen, [], 1000, "test", AT)
            elif name == "retire":
                catalog.retire(chosen)
            elif name == "appear":
                fill(catalog)
            else:
                catalog.move(name, chosen)
                once = states(catalog, images), catalog.pinned()
                catalog.move(name, chosen)
                assert (states(catalog, images), catalog.pinned()) == once
            acknowledged |= {number for number in images
                             if catalog.state_of(number) in (ACKED, DELETED)}
            if name == "resend":
                acknowledged -= set(chosen)
            assert all(catalog.state_of(number) in (ACKED, DELETED) for number in acknowledged)
            counts = dict(sqlite3.connect(path).execute(
                "SELECT state, COUNT(*) FROM images GROUP BY state"))
            assert {state: count for state, count in catalog.counts.items()
                    if count and state != "refused"} == counts
        fill(catalog)  # all files are there again
        before = {number: catalog.state_of(number) for number in images}
        reopened, numbers = anew(catalog, path)
        with reopened:
            for number, again in zip(images, numbers):
                assert reopened.state_of(again) == before[number]
