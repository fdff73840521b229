"""What is sent first: a total order, the same every time, mixed, and true to the weights."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetson_cluster import codebook, ranking
from jetson_cluster.codebook import NEIGHBOURS, QUANTILE_POINTS, Codebook
from jetson_cluster.ranking import CANDIDATE, Placement, Pool, Ranked
from jetson_cluster.records import Row

QUICK = settings(deadline=None, max_examples=50, database=None)
SEEDS = st.integers(0, 2 ** 31)


def candidates(seed, count, clusters, skew=0.0, hard=False, far_share=0.1, coarse=False):
    """CANDIDATE [count] over clusters of sizes 1 / rank^skew; hard: each in one cluster only."""
    random = np.random.RandomState(seed)
    share = 1 / np.arange(1, clusters + 1) ** skew
    made = np.zeros(count, CANDIDATE)
    made["image"] = np.arange(1, count + 1)
    made["cluster"] = random.choice(clusters, count, p=share / share.sum())
    made["interest"] = random.uniform(size=count) ** 2
    if coarse:  # many images of the very same worth
        made["interest"] = np.round(made["interest"], 1)
    made["ratio"] = random.uniform(0.3, 1.2, count)
    made["far"] = random.uniform(size=count) < far_share
    made["ratio"][made["far"]] += 1
    made["interest"][made["far"]] *= 0.5
    made["soft_index"][:] = made["cluster"][:, None]
    made["soft_weight"][:, 0] = 1
    if not hard and clusters > NEIGHBOURS:
        made["soft_index"][:, 1:] = (made["cluster"][:, None] + np.arange(1, NEIGHBOURS)) % clusters
        others = np.sort(random.uniform(size=(count, NEIGHBOURS - 1)) ** 4)[:, ::-1]
        made["soft_weight"][:, 1:] = others.astype(np.float16)
        made["soft_weight"] /= np.linalg.norm(made["soft_weight"], axis=1)[:, None]
    return made


# ---- the measured forms, in numbers worked out by hand -----------------------------------------

def alike(count, interest=1.0):
    """CANDIDATE [count], images 1, 2, ... that belong to cluster 0 and to no other."""
    made = np.zeros(count, CANDIDATE)
    made["image"] = np.arange(1, count + 1)
    made["interest"], made["ratio"] = interest, 1
    made["soft_weight"][:, 0] = 1
    return made


def test_interest_is_six_tenths_novelty_and_four_tenths_representative():
    zeros, novelty = np.zeros(4), np.array([1, 0, 1, 0.5])
    representative = np.array([0, 1, 1, 0.25])
    found = codebook.Assessment(
        zeros, zeros, zeros, zeros, zeros, novelty, representative, zeros, zeros)
    assert ranking.interest(found).tolist() == pytest.approx([0.6, 0.4, 1.0, 0.4])


def test_each_image_of_the_same_kind_ahead_leaves_three_tenths_of_the_score():
    ranked = ranking.order(alike(4), np.array([2.0]), 4)
    assert [row.score for row in ranked] == pytest.approx([2.0, 0.6, 0.18, 0.054])
    assert [row.kin for row in ranked] == [0, 1, 2, 3]


def test_an_image_half_of_the_kind_ahead_is_discounted_half_in_the_logarithm():
    made = alike(2)
    made["soft_weight"][1, 0] = 0.5
    made["interest"][1] = 0.9
    ranked = ranking.order(made, np.array([1.0]), 2)
    assert ranked[1].score == pytest.approx(0.9 * 0.5477226)  # the root of 0.3


def test_the_tenth_and_the_twentieth_place_and_no_other_go_to_far_images():
    made = alike(40)
    made["far"][30:] = True
    made["ratio"][30:] = np.arange(12, 2, -1)  # image 40 is the nearest, then 39
    made["interest"][30:] = 1e-8
    made["soft_weight"][30:] = 0
    made["soft_weight"][:30] = 0
    ranked = ranking.order(made, np.array([1.0]), 25)
    assert [place for place, row in enumerate(ranked, 1) if row.by_far_slot] == [10, 20]
    assert [ranked[9].image, ranked[19].image] == [40, 39]
    assert [row.image for row in ranked[:9]] == list(range(1, 10))


def images_of(ranked):
    return [place.image for place in ranked]


def with_image(made, ranked):
    return made[np.array(images_of(ranked)) - 1]


@QUICK
@given(seed=SEEDS, count=st.integers(1, 120), clusters=st.sampled_from([1, 2, 6, 16]),
       rows=st.integers(1, 150), coarse=st.booleans())
def test_the_order_is_total_and_does_not_depend_on_how_the_candidates_came(
        seed, count, clusters, rows, coarse):
    made, weights = candidates(seed, count, clusters, coarse=coarse), np.ones(clusters)
    ranked = ranking.order(made, weights, rows)
    assert len(ranked) == len(set(images_of(ranked))) == min(rows, count)
    random = np.random.RandomState(seed)
    shuffled = random.permutation(np.concatenate([made, made[random.uniform(size=count) < 0.3]]))
    assert ranking.order(shuffled, weights, rows) == ranked
    assert ranking.order(made, weights, 10 ** 6)[:rows] == ranked


@QUICK
@given(seed=SEEDS, count=st.integers(1, 150), clusters=st.sampled_from([1, 3, 16]))
def test_along_the_queue_scores_only_fall_but_for_the_places_kept_for_far_images(
        seed, count, clusters):
    made = candidates(seed, count, clusters)
    weights = np.random.RandomState(seed).choice([0, 0.5, 1, 1, 3], clusters).astype(float)
    ranked = ranking.order(made, weights, count)
    assert all(math.isfinite(place.score) and place.score >= 0 for place in ranked)
    scores = [place.score for place in ranked if not place.by_far_slot]
    assert all(after <= before for before, after in zip(scores, scores[1:]))


@QUICK
@given(seed=SEEDS, count=st.integers(1, 100), clusters=st.sampled_from([1, 3, 16]))
def test_each_score_is_what_the_formula_gives_for_what_stands_ahead(seed, count, clusters):
    made, weights = candidates(seed, count, clusters), np.linspace(0.5, 2, clusters)
    counts = np.zeros(clusters)
    ranked = ranking.order(made, weights, count)
    for place, held in zip(ranked, with_image(made, ranked)):
        kin = (counts[held["soft_index"]] * held["soft_weight"]).sum()
        assert place.kin == pytest.approx(kin, rel=1e-5, abs=1e-6)
        assert place.score == pytest.approx(
            weights[held["cluster"]] * max(held["interest"], 1e-9) * 0.3 ** kin, rel=1e-4)
        np.add.at(counts, held["soft_index"], held["soft_weight"])


def test_a_cluster_that_dominates_does_not_fill_the_head():
    made = candidates(1, 1000, 10, skew=4, hard=True, far_share=0)
    assert (made["cluster"] == 0).mean() > 0.9
    head = with_image(made, ranking.order(made, np.ones(10), 10))
    present = len(np.unique(made["cluster"]))
    assert len(np.unique(head["cluster"])) >= min(present, 7)


def test_sand_that_is_split_over_five_clusters_still_counts_as_sand():
    made = candidates(2, 60, 8, hard=True, far_share=0)
    sand = made["cluster"] < 5
    made["interest"] = np.where(sand, 0.8, 0.5)
    apart = with_image(made, ranking.order(made, np.ones(8), 8))
    made["soft_index"][sand] = [0, 1, 2, 3]
    made["soft_weight"][sand] = 0.5
    together = with_image(made, ranking.order(made, np.ones(8), 8))
    assert (apart["cluster"] < 5).sum() == 5 and (together["cluster"] < 5).sum() <= 4
    assert set(together["cluster"][:4]) > {5, 6, 7}


@pytest.mark.parametrize("count", [50, 600])
def test_weight_nothing_goes_last_however_many_of_another_kind_are_ahead(count):
    made = candidates(3, count, 3, hard=True, far_share=0)
    ranked = ranking.order(made, np.array([1.0, 0.0, 0.001]), count)
    clusters = with_image(made, ranked)["cluster"]
    unwanted = (made["cluster"] == 1).sum()
    assert unwanted > 5 and (clusters[-unwanted:] == 1).all()
    assert [place.score for place in ranked[-unwanted:]] == [0] * unwanted
    # Among themselves they still stand by interest.
    interests = with_image(made, ranked)["interest"][-unwanted:]
    assert (np.diff(interests) <= 0).all()


def test_weight_ten_goes_first():
    made = candidates(4, 90, 3, hard=True, far_share=0)
    made["interest"] = 0.5
    head = with_image(made, ranking.order(made, np.array([1.0, 10.0, 1.0]), 3))
    assert head["cluster"].tolist()[:2] == [1, 1]


@QUICK
@given(seed=SEEDS, far_share=st.sampled_from([0.0, 0.02, 0.3]))
def test_far_images_have_one_place_in_ten_the_nearest_of_them_first(seed, far_share):
    made = candidates(seed, 120, 6, far_share=far_share)
    made["interest"][made["far"]] = 0  # none would come on its merits
    ranked = ranking.order(made, np.ones(6), 40)
    slots = [place for place, held in enumerate(ranked) if held.by_far_slot]
    far = made[made["far"]]
    assert slots == list(range(9, 40, 10))[:len(far)]
    by_ratio = far["image"][np.lexsort((far["image"], far["ratio"]))]
    assert [ranked[slot].image for slot in slots] == by_ratio[:len(slots)].tolist()
    assert not any(made["far"][held.image - 1] for held in ranked if not held.by_far_slot)


def test_an_empty_catalog_has_an_empty_queue():
    pool, nothing = Pool(5, 10), np.zeros(0, CANDIDATE)
    assert ranking.order(nothing, np.ones(5), 10) == []
    assert pool.order(lambda cluster, limit: nothing, lambda limit: nothing, np.ones(5)) == []


# ---- the pool, against ordering everything -------------------------------------------------------

class Store:
    """Stands for the catalog: gives candidates out as its SQL does."""

    def __init__(self, made):
        self.made = made
        self.reads = 0

    def fill(self, cluster, limit):
        self.reads += 1
        mine = self.made[self.made["cluster"] == cluster]
        return mine[np.lexsort((mine["image"], -mine["interest"]))][:limit]

    def fill_far(self, limit):
        far = self.made[self.made["far"]]
        return far[np.lexsort((far["image"], far["ratio"]))][:limit]


@QUICK
@given(seed=SEEDS, count=st.integers(0, 400), clusters=st.sampled_from([1, 2, 7, 40]),
       rows=st.sampled_from([1, 20, 90]), skew=st.sampled_from([0.0, 1.0, 4.0]),
       coarse=st.booleans(), weighted=st.booleans())
def test_where_images_belong_to_one_cluster_the_pool_orders_as_if_it_held_everything(
        seed, count, clusters, rows, skew, coarse, weighted):
    """Exact: within a cluster all have the same kin, so interest alone decides."""
    made = candidates(seed, count, clusters, skew, hard=True, far_share=0.05, coarse=coarse)
    weights = np.random.RandomState(seed).choice(
        [0, 0.2, 1, 5] if weighted else [1], clusters).astype(float)
    store, pool = Store(made), Pool(clusters, rows)
    assert pool.order(store.fill, store.fill_far, weights) == ranking.order(made, weights, rows)


def test_a_cluster_whose_candidates_run_out_is_read_deeper():
    made = candidates(5, 9000, 600, skew=6, hard=True, far_share=0)
    store, pool = Store(made), Pool(600, 150)
    first = pool.order(store.fill, store.fill_far, np.ones(600))
    assert store.reads > 600 and first == ranking.order(made, np.ones(600), 150)
    reads = store.reads
    assert pool.order(store.fill, store.fill_far, np.ones(600)) == first and store.reads == reads


@QUICK
@given(seed=SEEDS, data=st.data())
def test_what_is_offered_and_forgotten_leaves_the_pool_as_one_just_filled(seed, data):
    made = candidates(seed, 600, 9, skew=1.5, far_share=0.1)
    here = np.zeros(len(made), bool)
    here[:200] = True
    store, pool, weights = Store(made[here]), Pool(9, 30), np.ones(9)
    fresh = 200
    for _ in range(data.draw(st.integers(1, 6))):
        action = data.draw(st.sampled_from(["order", "offer", "remove"]))
        if action == "offer":
            more = data.draw(st.integers(1, 60))
            here[fresh:fresh + more] = True
            store.made = made[here]
            pool.offer(made[fresh:fresh + more])
            fresh += more
        elif action == "remove":
            head = pool.order(store.fill, store.fill_far, weights)
            gone = data.draw(st.sampled_from(head)).image - 1
            here[gone] = False
            store.made = made[here]
            pool.forget(int(made["cluster"][gone]))
    kept, new = pool.order(store.fill, store.fill_far, weights), Pool(9, 30)
    new._depth = list(pool._depth)  # how deep was read is all that may differ
    assert kept == new.order(store.fill, store.fill_far, weights)


def terrain(seed, k, spread, skew, count, dimension=24):
    """CANDIDATE [count] as a codebook makes them of clustered embeddings."""
    random = np.random.RandomState(seed)
    centroids = codebook.normalise(random.normal(size=(k, dimension)).astype(np.float32))
    share = 1 / np.arange(1, k + 1) ** skew

    def drawn(number):
        middle = centroids[random.choice(k, number, p=share / share.sum())]
        return (middle + spread * random.normal(size=middle.shape)).astype(np.float32)

    half = codebook.half_squared_lengths(centroids)
    found = codebook.nearest(codebook.normalise(drawn(3000)), centroids, half, 2)
    scale, margin = found.distance[:, 0].mean(), 1 - found.distance[:, 0] / found.distance[:, 1]
    points = np.linspace(0, 1, QUANTILE_POINTS)
    ratio = found.distance[:, 0] / scale
    book = Codebook("net", "l2", centroids, np.full(k, 9), np.full(k, scale, np.float32),
                    np.quantile(ratio, points).astype(np.float32),
                    np.quantile(margin, points).astype(np.float32),
                    float(np.quantile(ratio, 0.5)), float(np.quantile(ratio, 0.95)))
    assessment = book.assess(drawn(count))
    placed = Placement(assessment, ranking.interest(assessment))
    return ranking.candidates_of(list(range(1, count + 1)), placed, list(range(count)))


@pytest.mark.parametrize("k, spread, skew", [
    (4, 0.25, 1), (16, 0.25, 1), (32, 0.3, 2), (64, 0.2, 0), (64, 0.2, 2), (256, 0.15, 1)])
def test_where_images_belong_to_several_clusters_the_pool_gives_away_next_to_nothing(
        k, spread, skew):
    """Not exact: an image cut from its cluster's candidates may have fewer kin ahead than others.

    Of the score over 200 rows, the pool gives away less than a fiftieth.
    """
    made, weights = terrain(1, k, spread, skew, 6000), np.ones(k)
    store, pool = Store(made), Pool(k, 200)
    exact = ranking.order(made, weights, 200)
    pooled = pool.order(store.fill, store.fill_far, weights)
    assert len(pooled) == 200 and pooled[:3] == exact[:3]
    assert sum(place.score for place in pooled) >= 0.98 * sum(place.score for place in exact)


# ---- words for the operator ----------------------------------------------------------------------

def told(far=False, novelty=0.5, representative=0.5, label="dunes", weight=1.0, kin=0.0,
         by_far_slot=False, clustered=True):
    row = Row(1, "00", "/inbox/a.png", 1, "", "queued", 3, novelty, representative, far)
    return ranking.reason(row, label, weight, Ranked(1, 0.5, kin, by_far_slot), clustered)


@pytest.mark.parametrize("case, words", [
    (dict(novelty=0.93), "unusual for dunes (stranger than 93% of the archive); nothing like it "
                         "ahead"),
    (dict(novelty=1.0), "unusual for dunes (stranger than 99% of the archive); nothing like it "
                        "ahead"),
    (dict(representative=0.8), "typical dunes (clearer than 80% of the archive); nothing like it "
                               "ahead"),
    (dict(), "ordinary dunes; nothing like it ahead"),
    (dict(far=True, novelty=0.05), "unlike the whole archive; nothing like it ahead"),
    (dict(far=True, by_far_slot=True, novelty=0.05),
     "unlike the whole archive: discovery or junk (1 place in 10 is kept for these); nothing like "
     "it ahead"),
    (dict(clustered=False, kin=1.0), "no clusters yet, sorted by difference; one like it ahead"),
    (dict(clustered=False, weight=2.0), "no clusters yet, sorted by difference; nothing like it "
                                        "ahead"),
    (dict(weight=0.5), "ordinary dunes; weight 0.5; nothing like it ahead"),
    (dict(kin=0.4), "ordinary dunes; little like it ahead"),
    (dict(kin=0.8), "ordinary dunes; one like it ahead"),
    (dict(kin=6.7), "ordinary dunes; 7 like it ahead"),
])
def test_the_reason_says_why_an_image_stands_where_it_does(case, words):
    assert told(**case) == words


def test_a_cluster_without_a_label_is_spoken_of_by_its_number():
    assert ranking.names_of({3: "dunes"}, 3) == ("dunes", "dunes")
    assert ranking.names_of({3: "dunes"}, 4) == ("", "cluster 4")
