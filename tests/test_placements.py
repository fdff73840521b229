"""Placing all images anew in the catalog: each once, in order, and a restart goes on from there."""

import numpy as np
import pytest

from catalogued import SPACE, image, placement, record
from jetson_cluster import sketches
from jetson_cluster.catalog import Catalog
from jetson_cluster.placements import Worth
from jetson_cluster.provisional import Groups
from jetson_cluster.quality import Measures

MEASURES = Measures(0.5, 0.25, 0.5, 0.5, 0.0, 0.0)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "catalog.sqlite")


@pytest.fixture
def catalog(path):
    with Catalog(path, SPACE) as opened:
        yield opened


def fill(catalog, count, first=0):
    """So many images, every other one measured; their ids."""
    return [number for number, _ in record(catalog, [
        image("/inbox/%d.png" % content, content)._replace(
            measures=MEASURES if content % 2 else None) for content in range(first, first + count)])]


def worth(count, seed=1):
    random = np.random.RandomState(seed)
    return Worth(*random.uniform(size=(3, count)).astype(np.float32))


def test_at_first_nothing_is_to_be_placed(catalog):
    assert (catalog.placed_by, catalog.valued_by) == ("", "")
    assert (catalog.clusters, catalog.clustered) == (0, False)
    start, until = catalog.unplaced
    assert start == until and catalog.next_unplaced(10)[0] == []


def test_what_places_the_images_is_remembered(catalog, path):
    catalog.begin_placing("book", "policy", 7, True)
    catalog.close()
    with Catalog(path, SPACE) as again:
        assert (again.placed_by, again.valued_by) == ("book", "policy")
        assert (again.clusters, again.clustered) == (7, True)


def test_all_older_images_are_placed_once_and_new_ones_are_not(catalog):
    numbers = fill(catalog, 10)
    catalog.begin_placing("book", "policy", 3, True)
    assert not catalog.only_worth
    fill(catalog, 5, first=100)
    done = []
    while True:
        images, embeddings, measures = catalog.next_unplaced(4)
        if not images:
            break
        assert embeddings.shape == (len(images), 8)
        assert measures == [MEASURES if (number - 1) % 2 else None for number in images]
        catalog.place(images, placement(images, seed=7))
        done += images
    assert done == numbers
    catalog.end_placing()
    start, until = catalog.unplaced
    assert start == until


def test_embeddings_and_measures_come_in_the_order_of_the_ids(catalog):
    numbers = fill(catalog, 10)
    catalog.begin_placing("book", "policy", 3, True)
    images, embeddings, _ = catalog.next_unplaced(10)
    np.testing.assert_array_equal(embeddings, catalog.embeddings_of(numbers))
    kept = np.stack([image("/x", content).embedding for content in range(10)][::-1])
    back = catalog.embeddings_of(numbers[::-1])
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, kept.astype(np.float16).astype(np.float32))


def test_the_newest_embeddings_come_oldest_first(catalog):
    numbers = fill(catalog, 10)
    images, embeddings = catalog.newest_embeddings(4)
    assert images == numbers[-4:]
    np.testing.assert_array_equal(embeddings, catalog.embeddings_of(images))
    assert catalog.newest_embeddings(100)[0] == numbers


def test_placing_anew_changes_place_and_worth_and_nothing_else(catalog):
    images = fill(catalog, 6)
    catalog.begin_placing("book", "policy", 5, True)
    catalog.move("hold", images[:1])
    before = catalog.rows(images)
    placed = placement(images, clusters=5, seed=3)
    placed = placed._replace(worth=worth(6))
    catalog.place(images, placed)
    for row, number in enumerate(images):
        held, was = catalog.rows([number])[number], before[number]
        assert held.cluster == placed.assessment.cluster[row]
        assert held.novelty == placed.assessment.novelty[row]
        assert (held.interest, held.quality, held.signature) == tuple(
            values[row] for values in placed.worth)
        for name in ("sha256", "path", "state", "captured_at", "measures", "twin", "pinned"):
            assert getattr(held, name) == getattr(was, name)


def test_sketch_and_reach_are_written_with_the_place_and_anew_with_another_place(catalog):
    images = fill(catalog, 4)
    assert not catalog.candidates_of(images)["reach"].any()  # they have no sketch
    catalog.begin_placing("book", "policy", 5, True)
    for reach in (0.25, 0.5):
        placed = placement(images, clusters=5)
        sketch = sketches.of(np.random.RandomState(int(8 * reach)).normal(size=(4, 8)))
        catalog.place(images, placed._replace(sketches=sketch, assessment=placed.assessment._replace(
            reach=np.full(4, reach, np.float32))))
        found = np.sort(catalog.candidates_of(images), order="image")
        np.testing.assert_array_equal(found["sketch"], sketch)
        assert found["reach"].tolist() == [reach] * 4 == [
            row.reach for row in catalog.rows(images).values()]


def test_a_second_distance_without_end_reads_back_as_a_number(catalog):
    held = [image("/inbox/a.png", 1)]
    placed = placement(held)
    placed = placed._replace(assessment=placed.assessment._replace(
        second_distance=np.array([np.inf], np.float32)))
    catalog.record(held, placed, [])
    assert catalog.rows([1])[1].second_distance == np.finfo(np.float32).max


def test_if_only_the_policy_changed_only_the_worth_is_found_anew(catalog):
    numbers = fill(catalog, 10)
    catalog.record([image("/inbox/hot.png", 99)._replace(embedding=None)], None, [])
    catalog.begin_placing("book", "policy", 3, True)
    catalog.end_placing()
    before = catalog.rows(numbers)
    catalog.begin_placing("book", "another policy", 3, True)
    assert catalog.only_worth and catalog.unplaced == (0, 11)
    done = []
    while True:
        known = catalog.next_unvalued(4, with_embeddings=bool(done))
        if not known.images:
            break
        rows = [before[number] for number in known.images]
        assert known.novelty.tolist() == [row.novelty for row in rows]
        assert known.representative.tolist() == [row.representative for row in rows]
        assert known.measures == [row.measures for row in rows]
        if done:
            np.testing.assert_array_equal(known.embeddings, catalog.embeddings_of(known.images))
        else:
            assert known.embeddings is None
        made = worth(len(known.images), seed=len(done))
        catalog.value(known.images, made)
        after = catalog.rows(known.images)
        assert [after[number].interest for number in known.images] == made.interest.tolist()
        assert all(after[number].cluster == before[number].cluster for number in known.images)
        done += known.images
    assert done == numbers  # the one that waits has no worth yet


@pytest.mark.parametrize("restarted", [False, True])
def test_another_policy_while_places_are_found_anew_does_not_leave_old_places(
        catalog, path, restarted):
    """Only worth would be found, and the rest would stay where the codebook before put it."""
    fill(catalog, 10)
    catalog.begin_placing("book", "policy", 3, True)
    images, _, _ = catalog.next_unplaced(4)
    catalog.place(images, placement(images))
    if restarted:
        catalog.close()
        catalog = Catalog(path, SPACE)
    catalog.begin_placing("book", "another policy", 3, True)
    assert not catalog.only_worth and catalog.unplaced == (0, 10)
    if restarted:
        catalog.close()


def test_another_policy_while_only_worth_is_found_stays_at_that(catalog):
    fill(catalog, 10)
    catalog.begin_placing("book", "policy", 3, True)
    catalog.end_placing()
    for policy in ("second", "third"):
        catalog.begin_placing("book", policy, 3, True)
        known = catalog.next_unvalued(4, False)
        catalog.value(known.images, worth(4))
    assert catalog.only_worth and catalog.unplaced == (4, 10)


def test_what_a_format_before_placed_is_placed_anew_and_not_only_valued(catalog):
    """It kept no name for what gave worth, and no sketches, which come with the place."""
    fill(catalog, 3)
    catalog.remember("placed_by", "book")
    catalog.begin_placing("book", "policy", 3, True)
    assert not catalog.only_worth and catalog.unplaced == (0, 3)


@pytest.mark.parametrize("worth_only", [False, True])
def test_a_restart_goes_on_where_it_was(catalog, path, worth_only):
    numbers = fill(catalog, 10)
    catalog.begin_placing("book", "policy", 3, True)
    if worth_only:
        catalog.end_placing()
        catalog.begin_placing("book", "another", 3, True)
        catalog.value(catalog.next_unvalued(4, False).images, worth(4))
    else:
        images, _, _ = catalog.next_unplaced(4)
        catalog.place(images, placement(images))
    catalog.close()
    with Catalog(path, SPACE) as again:
        assert again.unplaced == (4, 10) and again.only_worth is worth_only
        left = again.next_unvalued(10, False).images if worth_only else again.next_unplaced(10)[0]
        assert left == numbers[4:]


def test_groups_are_kept_as_saved_and_only_the_new_ones_are_written(catalog):
    assert catalog.groups().leaders.size == 0 and catalog.groups().reach == 0
    leaders = np.random.RandomState(0).normal(size=(9, 5)).astype(np.float32)
    catalog.save_groups(Groups(leaders[:4], 0.1), unchanged=0)
    written = []
    catalog._db.set_trace_callback(lambda sql: written.append(sql))  # 3.6 wants it hashable
    catalog.save_groups(Groups(leaders[:6], 0.1), unchanged=4)
    catalog._db.set_trace_callback(None)
    assert len([sql for sql in written if sql.startswith("INSERT INTO groups")]) == 2
    np.testing.assert_array_equal(catalog.groups().leaders, leaders[:6])
    catalog.save_groups(Groups(leaders[6:], 0.2), unchanged=0)
    np.testing.assert_array_equal(catalog.groups().leaders, leaders[6:])
    assert catalog.groups().reach == 0.2
