"""What ranking, passes and retention read of the catalog is what stands in it, best first."""

import numpy as np
import pytest

from catalogued import SPACE, image, placement, record, sha256_of
from jetson_cluster import sketches
from jetson_cluster.candidates import HALF_LIVES_COUNTED
from jetson_cluster.catalog import Catalog
from jetson_cluster.preview import Preview
from jetson_cluster.ranking import CANDIDATE

AT = "2026-01-02T00:00:00Z"
CLUSTERS = 3


@pytest.fixture
def catalog(tmp_path):
    with Catalog(str(tmp_path / "catalog.sqlite"), SPACE) as opened:
        yield opened


def fill(catalog, count, **more):
    """So many images; (their ids, their placement)."""
    images = [image("/inbox/%d.png" % content, content) for content in range(count)]
    placed = placement(images, clusters=CLUSTERS, **more)
    return [number for number, _ in catalog.record(images, placed, [])], placed


def in_order(catalog, numbers, *keys):
    """CANDIDATE of all of them, by the keys, the first of which decides first."""
    found = catalog.candidates_of(numbers)
    return found[np.lexsort([key(found) for key in keys[::-1]])]


def test_a_candidate_is_what_the_placement_said(catalog):
    numbers, (found, worth, _) = fill(catalog, 20)
    back = in_order(catalog, numbers, lambda held: held["image"])
    assert back.dtype == CANDIDATE and back["image"].tolist() == numbers
    for name, expected in (
            ("cluster", found.cluster), ("interest", worth.interest), ("ratio", found.ratio),
            ("far", found.far), ("soft_index", found.soft_index), ("quality", worth.quality),
            ("bytes", 100 + np.arange(20)), ("twin", np.zeros(20, np.int64)),
            ("soft_weight", found.soft_weight.astype(np.float16))):
        np.testing.assert_array_equal(back[name], expected)


def test_a_candidate_has_its_sketch_and_reach_and_without_a_sketch_no_reach(catalog):
    """Images of before there were sketches are near no other."""
    images = [image("/inbox/%d.png" % content, content) for content in range(3)]
    placed = placement(images, clusters=CLUSTERS)
    sketch = np.arange(3 * sketches.NUMBERS, dtype=np.int16).reshape(3, -1)
    placed = placed._replace(
        sketches=sketch, assessment=placed.assessment._replace(
            reach=np.array([0.5, 0.25, 0.125], np.float32)))
    numbers = [number for number, _ in catalog.record(images, placed, [])]
    back = in_order(catalog, numbers, lambda held: held["image"])
    np.testing.assert_array_equal(back["sketch"], sketch)
    assert back["reach"].tolist() == [0.5, 0.25, 0.125]
    older, _ = fill(catalog, 10)
    back = catalog.candidates_of(older)
    assert len(back) == 7 and not back["sketch"].any() and not back["reach"].any()


def test_the_best_of_a_cluster_come_first_and_no_more_than_asked(catalog):
    numbers, _ = fill(catalog, 200)
    for per_byte in (False, True):
        best = in_order(
            catalog, numbers,
            lambda held: -held["interest"].astype(np.float64) / (held["bytes"] if per_byte else 1),
            lambda held: held["image"])
        for cluster in range(CLUSTERS):
            mine = best[best["cluster"] == cluster]
            np.testing.assert_array_equal(catalog.candidates(cluster, 1000, per_byte), mine)
            np.testing.assert_array_equal(catalog.candidates(cluster, 7, per_byte), mine[:7])
    assert len(catalog.candidates(CLUSTERS, 10)) == 0


def test_far_images_come_nearest_first_without_the_clusters_that_are_left_out(catalog):
    numbers, _ = fill(catalog, 200)
    nearest = in_order(catalog, numbers, lambda held: held["ratio"], lambda held: held["image"])
    nearest = nearest[nearest["far"]]
    np.testing.assert_array_equal(catalog.far_candidates(5), nearest[:5])
    np.testing.assert_array_equal(
        catalog.far_candidates(1000, (0, 2)), nearest[nearest["cluster"] == 1])


def test_the_oldest_come_first_up_to_the_newest_that_is_old(catalog):
    numbers, _ = fill(catalog, 50)
    catalog.move("hold", numbers[:1])
    assert catalog.oldest_candidates(numbers[10], 100)["image"].tolist() == numbers[1:11]
    assert catalog.oldest_candidates(numbers[10], 3)["image"].tolist() == numbers[1:4]
    left = catalog.oldest_candidates(numbers[-1], 100, (1,))
    assert set(left["cluster"]) == {0, 2}


def test_what_is_not_queued_is_no_candidate(catalog):
    numbers, placed = fill(catalog, 200)
    cluster = int(placed.assessment.cluster[0])
    here = catalog.candidates(cluster, 1000)["image"].tolist()
    assert set(here) & set(catalog.far_candidates(1000)["image"].tolist())
    catalog.begin_pass(here[:5], [], 1000, "test", AT)
    catalog.move("ack", here[5:10])
    catalog.move("hold", here[10:15])
    catalog.mark_missing(here[15:], exists=lambda path: False)
    assert catalog.take_disturbed() == {cluster} and not catalog.take_disturbed()
    left = set(numbers) - set(here)
    assert len(catalog.candidates(cluster, 1000)) == len(catalog.candidates_of(here)) == 0
    assert set(catalog.far_candidates(1000)["image"].tolist()) <= left
    assert set(catalog.oldest_candidates(1000, 1000)["image"].tolist()) == left


def test_more_candidates_can_be_asked_for_by_name_than_one_statement_takes(catalog):
    numbers, _ = fill(catalog, 1100)
    assert sorted(catalog.candidates_of(numbers + [10 ** 6])["image"].tolist()) == numbers
    assert len(catalog.candidates_of([])) == 0


def test_what_is_on_the_ground_is_counted_by_membership_and_fades_with_the_passes(catalog):
    numbers, placed = fill(catalog, 40)
    soft = placed.assessment.soft_weight.astype(np.float16).astype(np.float64)
    expected = np.zeros((40, CLUSTERS))
    np.add.at(expected, (np.arange(40)[:, None], placed.assessment.soft_index), soft)
    assert not catalog.on_ground(5.0, CLUSTERS).any()
    for start in range(0, 40, 4):
        catalog.begin_pass(numbers[start:start + 4], [], 1000, "test", AT)
    ago = 9 - np.arange(40) // 4
    weights = np.where(ago < HALF_LIVES_COUNTED * 1.0, 0.5 ** ago, 0)
    np.testing.assert_allclose(
        catalog.on_ground(1.0, CLUSTERS), (weights[:, None] * expected).sum(axis=0), rtol=1e-6)
    # One of another codebook, while images are placed anew, is left out.
    assert len(catalog.on_ground(1.0, 1)) == 1


def test_groups_are_sent_once_one_of_them_is_on_the_ground_or_on_its_way(catalog):
    numbers, _ = fill(catalog, 9)
    catalog.join_twins([(2, 1), (4, 3), (6, 5), (8, 7)])
    catalog.begin_pass([2, 3], [], 1000, "test", AT)
    catalog.move("ack", [3])
    catalog.move("hold", [6])
    catalog.move("ack", [7])
    catalog.retire([7])
    assert catalog.sent_twins({1, 3, 5, 7, 9}) == {1, 3, 7}
    catalog.move("nack", [2])
    assert catalog.sent_twins([1, 5]) == set() and catalog.sent_twins([]) == set()


def test_an_image_has_the_near_duplicates_of_its_group(catalog):
    fill(catalog, 5)
    catalog.join_twins([(2, 1), (4, 2)])
    assert catalog.twins_of(1) == [2, 4] and catalog.twins_of(4) == [1, 2]
    assert catalog.twins_of(3) == catalog.twins_of(5) == []


def test_the_worst_are_those_of_least_worth_newest_first_and_never_pinned(catalog):
    numbers, (found, worth, _) = fill(catalog, 60)
    weights = [1.0, 0.25, 3.0]
    catalog.move("pin", numbers[7:9])
    catalog.record([image("/inbox/hot.png", 99)._replace(embedding=None)], None, [])
    value = worth.interest.astype(np.float64) * np.array(weights)[found.cluster]
    by_worth = [numbers[row] for row in sorted(range(60), key=lambda row: (value[row], -row))
                if row not in (7, 8)]
    assert catalog.worst("queued", weights, 10) == by_worth[:10]
    assert catalog.worst("queued", weights, 1000) == by_worth
    assert catalog.worst("queued", weights, 10, set(by_worth[1:9])) == by_worth[:1] + by_worth[9:18]
    assert catalog.worst("waiting", weights, 10) == [61]
    assert catalog.worst("waiting", weights, 10, {61}) == []
    assert catalog.worst("acked", weights, 10) == []
    unwanted = [numbers[row] for row in range(60) if found.cluster[row] == 2 and row not in (7, 8)]
    assert set(catalog.worst("queued", [1.0, 1.0, 0.0], len(unwanted))) == set(unwanted)


def test_a_row_says_all_that_is_known_of_an_image(catalog):
    numbers, (found, worth, _) = fill(catalog, 3)
    catalog.begin_pass(numbers[1:2], numbers[2:], 1000, "test", AT)
    catalog.move("pin", numbers[2:])
    catalog.record([image("/inbox/hot.png", 99)._replace(embedding=None)], None, [])
    rows = catalog.rows(numbers + [4, 5])
    assert set(rows) == set(numbers + [4])
    row = rows[numbers[1]]
    assert (row.sha256, row.path, row.bytes, row.width, row.height) == (
        sha256_of(1), "/inbox/1.png", 101, 64, 48)
    assert (row.state, row.sent_in, row.preview_sent_in, row.pinned) == ("sent", 1, None, None)
    assert (rows[numbers[2]].preview_sent_in, rows[numbers[2]].pinned) == (1, 1)
    assert row.cluster == found.cluster[1] and row.far is bool(found.far[1])
    assert row.interest == worth.interest[1] and row.quality == 1 and row.signature == 0
    np.testing.assert_array_equal(row.soft_index, found.soft_index[1])
    waiting = rows[4]
    assert waiting.state == "waiting" and waiting.measures is None
    assert all(value is None for value in waiting[waiting._fields.index("cluster"):
                                                  waiting._fields.index("sent_in")])


def test_all_the_paths_of_an_image_are_known(catalog):
    record(catalog, [image("/inbox/b.png", 1, mtime_ns=5), image("/inbox/a.png", 1, mtime_ns=2 ** 63)])
    assert catalog.paths_of(1) == [("/inbox/a.png", 101, -2 ** 63), ("/inbox/b.png", 101, 5)]
    assert catalog.paths_of(2) == []


def test_previews_are_sent_once_in_order_of_arrival(catalog):
    previews = [image("/inbox/%d.png" % content, content)._replace(
        preview=Preview(b"x" * (10 + content), "webp", 8, 6, 30.0 + content)) for content in range(6)]
    record(catalog, previews + [image("/inbox/none.png", 50)])
    assert catalog.preview_of(2) == ("webp", b"x" * 11) and catalog.preview_of(7) is None
    assert catalog.preview_sizes(range(1, 9)) == {
        number: ("webp", 9 + number, 29.0 + number) for number in range(1, 7)}
    assert catalog.unsent_previews(4) == [1, 2, 3, 4]
    catalog.begin_pass([3], [1, 2], 1000, "test", AT)
    assert catalog.unsent_previews(4) == [4, 5, 6]  # of the third the image itself was sent
    assert catalog.pass_previews(1) == [1, 2] and catalog.pass_of(1).preview_bytes == 10 + 11
    catalog.move_pass("nack", 1)
    assert catalog.unsent_previews(9) == [1, 2, 3, 4, 5, 6]


def test_candidates_asked_for_by_id_are_looked_up_and_not_searched_for(catalog):
    asked = []
    catalog._db.set_trace_callback(lambda sql: asked.append(sql))  # 3.6 wants it hashable
    catalog.candidates_of([1, 2, 3])
    catalog._db.set_trace_callback(None)
    plan = [row[-1] for sql in asked for row in catalog._db.execute("EXPLAIN QUERY PLAN " + sql)]
    assert plan and all("INTEGER PRIMARY KEY" in step for step in plan), plan
