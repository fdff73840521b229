"""Numbers and labels stay with their clusters, and what does not stay is told."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetson_cluster.codebook import QUANTILE_POINTS, Codebook
from jetson_cluster.ground import matching
from jetson_cluster.ground.matching import GONE, KEPT, MOVED, NEW

QUICK = settings(deadline=None, max_examples=80, database=None)


def matched(old, new, old_k, new_k, labels=None, far=(), weights=None):
    """(order, changes) of what `fit --like` makes of old and new clusters of the same images.

    `far` are images that the old codebook calls so.
    """
    old, new = np.array(old), np.array(new)
    known = np.setdiff1d(np.arange(len(old)), far)
    paired = matching.pairs(matching.shared(old[known], new[known], old_k, new_k))
    order = matching.order(paired, new_k)
    number = np.argsort(order)
    return order, matching.changes(
        matching.shared(old[known], number[new[known]], old_k, new_k),
        np.bincount(number[new], minlength=new_k),
        [(was, int(number[one])) for was, one in paired], labels or {}, weights or {})


@QUICK
@given(seed=st.integers(0, 2 ** 31), k=st.integers(1, 12))
def test_the_same_clusters_in_another_order_get_their_numbers_back(seed, k):
    random = np.random.RandomState(seed)
    old = np.concatenate([np.arange(k), random.randint(0, k, 100)])
    turned = random.permutation(k)
    order, changes = matched(old, turned[old], k, k)
    np.testing.assert_array_equal(order, turned)
    assert [change.what for change in changes] == [KEPT] * k
    assert [change.number for change in changes] == [change.was for change in changes]


@QUICK
@given(seed=st.integers(0, 2 ** 31), old_k=st.integers(1, 9), new_k=st.integers(1, 9),
       images=st.integers(1, 60))
def test_every_number_is_given_once_and_every_cluster_is_accounted_for(seed, old_k, new_k, images):
    random = np.random.RandomState(seed)
    order, changes = matched(random.randint(0, old_k, images), random.randint(0, new_k, images),
                             old_k, new_k)
    assert sorted(order) == list(range(new_k))
    assert [change.number for change in changes if change.what != GONE] == list(range(new_k))
    was = [change.was for change in changes if change.what != NEW]
    assert sorted(was) == list(range(old_k))
    assert sum(change.images for change in changes) == images
    for change in changes:
        if change.what in (KEPT, MOVED) and change.was < new_k:
            assert change.number == change.was
        assert change.common <= min(change.images, change.had)


def test_a_cluster_that_splits_keeps_its_number_in_the_larger_part_and_the_other_is_new():
    order, changes = matched([0] * 10 + [1] * 10, [2] * 10 + [0] * 6 + [1] * 4, 2, 3)
    assert order.tolist() == [2, 0, 1]
    assert [(change.what, change.images) for change in changes] == [(KEPT, 10), (MOVED, 6), (NEW, 4)]


def test_of_two_clusters_that_fall_together_the_larger_gives_the_number_and_the_other_is_gone():
    _, changes = matched([0] * 4 + [1] * 9 + [2] * 5, [0] * 13 + [1] * 5, 3, 2)
    assert [(change.what, change.was, change.number) for change in changes] == [
        (KEPT, 2, 0), (MOVED, 1, 1), (GONE, 0, None)]


def test_terrain_that_the_old_codebook_did_not_know_was_in_none_of_its_clusters():
    old, new = [0] * 20 + [0] * 20 + [1] * 9, [0] * 20 + [2] * 20 + [1] * 9
    _, changes = matched(old, new, 2, 3, far=range(20, 40))
    assert [(change.what, change.had) for change in changes] == [(KEPT, 20), (KEPT, 9), (NEW, 0)]
    _, changes = matched(old, new, 2, 3)
    assert [(change.what, change.had) for change in changes] == [(MOVED, 40), (KEPT, 9), (NEW, 0)]


def test_terrain_that_was_not_known_does_not_take_the_label_of_what_it_is_least_unlike():
    # 300 images of a new kind, all nearest to 1 and far from it, beside 100 that are of it.
    old = np.array([0] * 50 + [1] * 100 + [1] * 300)
    new = np.array([0] * 50 + [2] * 100 + [1] * 300)
    _, changes = matched(old, new, 2, 3, {1: "rocks"}, far=range(150, 450), weights={1: 3.0})
    assert [(one.what, one.number, one.images) for one in changes] == [
        (KEPT, 0, 50), (KEPT, 1, 100), (NEW, 2, 300)]
    assert (changes[1].label, changes[1].weight) == ("rocks", 3.0)


def test_a_new_cluster_on_a_number_that_the_policy_weighs_is_told():
    _, changes = matched([0] * 9 + [0] * 9, [0] * 9 + [1] * 9, 1, 2, far=range(9, 18),
                         weights={1: 5.0})
    assert "  1 is new, 9 images; the policy weighs it 5: change that" in matching.describe(changes)


def test_clusters_with_little_in_common_are_not_taken_for_one_another():
    old = [0] * 10 + [1] * 10
    new = ([0] * 4 + [1] * 3 + [2] * 3) + ([0] * 4 + [1] * 3 + [2] * 3)
    _, changes = matched(old, new, 2, 3)
    assert {change.what for change in changes} <= {MOVED, NEW, GONE}
    scattered = np.repeat(np.arange(10), 10)
    _, changes = matched(scattered, np.tile(np.arange(10), 10), 10, 10)
    assert [change.what for change in changes] == [NEW] * 10 + [GONE] * 10


def test_the_team_is_told_what_is_not_as_it_was_by_its_labels():
    labels = {0: "sand", 1: "=rock", 2: "sky", 3: "wheel"}
    old = [0] * 20 + [1] * 20 + [3] * 8
    new = [1] * 20 + [0] * 12 + [2] * 8 + [3] * 8
    _, changes = matched(old, new, 5, 4, labels)
    lines = matching.describe(changes)
    assert lines[0] == "clusters as in the old codebook: 2 kept, 1 moved, 1 new, 2 gone"
    assert "  1 (=rock) moved: 12 of its 20 images stayed, 0 are new in it" in lines
    assert "  2 is new, 8 images; the policy calls it sky: change that" in lines
    assert "  2 (sky) is gone: none of these images are like it" in lines
    assert "  4 is gone: none of these images are like it" in lines
    assert not any("sand" in line or "wheel" in line for line in lines)


def test_a_number_that_the_new_codebook_does_not_have_is_another_and_that_is_told():
    _, changes = matched([0] * 5 + [1] * 5 + [2] * 9, [0] * 10 + [1] * 9, 3, 2, {2: "dunes"})
    assert [(change.was, change.number) for change in changes if change.label == "dunes"] in (
        [(2, 0)], [(2, 1)])
    number = next(change.number for change in changes if change.was == 2)
    assert "  2 (dunes) has the number %d now: change the policy" % number in (
        matching.describe(changes))


def test_changes_are_a_table_that_no_spreadsheet_runs(tmp_path):
    _, changes = matched([0, 0, 1], [0, 0, 1], 3, 2, {0: "=1+1", 2: "dünen"})
    matching.write(str(tmp_path / "changes.csv"), changes)
    with open(str(tmp_path / "changes.csv"), newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["what"] for row in rows] == [KEPT, KEPT, GONE]
    assert [row["label"] for row in rows] == ["'=1+1", "", "dünen"]
    assert rows[2]["number"] == "" and rows[0]["images"] == "2"


@pytest.mark.parametrize("reaches", [True, False])
def test_a_codebook_in_another_order_places_everything_as_before_under_other_numbers(reaches):
    random = np.random.RandomState(0)
    ramp = np.linspace(0, 1, QUANTILE_POINTS).astype(np.float32)
    book = Codebook("net", "l2", random.normal(size=(6, 9)).astype(np.float32), np.arange(1, 7),
                    random.uniform(0.3, 0.6, 6).astype(np.float32), ramp, ramp, 0.5, 0.9)
    if reaches:
        book = Codebook(*book._replace(reaches=random.uniform(0.3, 0.6, 6).astype(np.float32)))
    order = random.permutation(6)
    turned = matching.numbered(book, order)
    embeddings = random.normal(size=(50, 9)).astype(np.float32)
    one, other = book.assess(embeddings), turned.assess(embeddings)
    np.testing.assert_array_equal(order[other.cluster], one.cluster)
    for name in ("distance", "ratio", "novelty", "reach"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-5)
    assert turned.counts.tolist() == book.counts[order].tolist()
