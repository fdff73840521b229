"""What is sent first: a total order, the same every time, mixed, and true to the weights."""

import collections
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ranking_cases import alike, beside_another_kind, candidates, terms_for, terrain

from jetson_cluster import ranking, sketches
from jetson_cluster.ranking import AGED, CANDIDATE, FAR, PIN, Ranked
from jetson_cluster.scoring import Resemblance

QUICK = settings(deadline=None, max_examples=50, database=None)
SEEDS = st.integers(0, 2 ** 31)


def images_of(ranked):
    return [place.image for place in ranked]


def with_image(made, ranked):
    return made[np.array(images_of(ranked)) - 1]


# ---- the measured forms, in numbers worked out by hand -----------------------------------------

def test_each_image_of_the_same_kind_ahead_leaves_three_tenths_of_the_score():
    ranked = ranking.order(beside_another_kind(alike(4)), terms_for(
        2, weights=np.array([2.0, 1.0])), 4)
    assert [row.score for row in ranked] == pytest.approx([2.0, 0.6, 0.18, 0.054])
    assert [row.kin for row in ranked] == [0, 1, 2, 3]


def test_an_image_half_of_the_kind_ahead_is_discounted_half_in_the_logarithm():
    made = alike(2)
    made["soft_weight"][1, 0] = 0.5
    made["interest"][1] = 0.9
    ranked = ranking.order(beside_another_kind(made), terms_for(2), 2)
    assert ranked[1].score == pytest.approx(0.9 * 0.5477226)  # the root of 0.3


def test_images_on_the_ground_count_against_their_kind_as_those_ahead_do():
    made = alike(3)
    made["cluster"][2], made["soft_index"][2], made["interest"][2] = 1, 1, 0.5
    ranked = ranking.order(beside_another_kind(made), terms_for(
        2, on_ground=np.array([1.75, 0.25])), 3)
    assert images_of(ranked) == [3, 1, 2]
    # What every kind has, 0.25 at first and then 1.25, counts nothing.
    assert [row.score for row in ranked] == pytest.approx([0.5, 0.3 ** 0.5, 0.3 ** 1.5])
    assert [row.kin_on_ground for row in ranked] == [0.25, 1.75, 1.75]
    assert [row.kin for row in ranked] == [0, 0, 1]
    assert [row.common for row in ranked] == [0.25, 1.25, 1.25]


def test_what_every_kind_has_ahead_of_it_counts_nothing():
    """An image of two kinds is not behind one of a single kind, however many were sent of all."""
    made = alike(3)
    made["cluster"] = made["soft_index"][:, 0] = [0, 1, 0]
    made["soft_index"][2, 1], made["soft_weight"][2, :2] = 1, 0.7
    made["interest"] = [0.8, 0.8, 0.9]
    for on_ground in (0, 3, 1000):
        ranked = ranking.order(made, terms_for(2, on_ground=np.full(2, float(on_ground))), 3)
        assert images_of(ranked) == [3, 1, 2]
        assert [row.score for row in ranked] == pytest.approx([0.9, 0.8, 0.8])


def test_an_image_that_is_partly_of_a_kind_that_never_comes_is_not_ahead_for_that():
    made = alike(2)
    made["interest"] = [0.8, 0.9]
    made["soft_index"][0, 1], made["soft_weight"][0, :2] = 1, 0.7  # of cluster 1 there is no image
    for on_ground in (0.0, 5.0, 1000.0):
        ranked = ranking.order(made, terms_for(2, on_ground=np.array([on_ground, 0])), 2)
        assert images_of(ranked) == [2, 1]
        assert [row.score for row in ranked] == pytest.approx([0.9, 0.8])


def test_a_kind_of_which_none_is_left_does_not_say_what_every_kind_has():
    made = alike(3)
    made["interest"] = [1, 0.9, 0.8]
    ranked = ranking.order(made, terms_for(2, on_ground=np.array([5.0, 0.0])), 3)
    assert [row.score for row in ranked] == pytest.approx([1, 0.9, 0.8])
    assert [row.common for row in ranked] == [5, 6, 7]


def test_of_near_duplicates_all_but_the_first_count_a_quarter_once():
    made = alike(4)
    made["soft_weight"] = 0  # nothing but the near-duplicates between them
    made["interest"] = [0.5, 1, 0.9, 0.3]
    made["twin"] = [0, 2, 2, 2]
    ranked = ranking.order(made, terms_for(1, near_duplicate=0.25), 4)
    assert images_of(ranked) == [2, 1, 3, 4]
    assert [row.score for row in ranked] == pytest.approx([1, 0.5, 0.225, 0.075])
    assert [row.duplicate for row in ranked] == [False, False, True, True]


def test_the_image_that_others_are_near_duplicates_of_is_one_of_them():
    made = alike(2)
    made["soft_weight"] = 0
    made["interest"], made["twin"] = [0.5, 1], [0, 1]  # as when only the later one was noted
    ranked = ranking.order(made, terms_for(1, near_duplicate=0.25), 2)
    assert images_of(ranked) == [2, 1] and ranked[1].score == pytest.approx(0.125)
    assert ranked[1].duplicate


def test_a_near_duplicate_of_an_image_that_was_sent_counts_a_quarter_from_the_start():
    made = alike(2)
    made["soft_weight"] = 0
    made["twin"] = [7, 0]
    ranked = ranking.order(made, terms_for(1, near_duplicate=0.25, sent_twins=frozenset([7])), 2)
    assert [(row.image, row.score, row.duplicate) for row in ranked] == [
        (2, 1, False), (1, 0.25, True)]


def test_per_byte_an_image_of_half_the_size_scores_twice():
    made = alike(2)
    made["bytes"] = [2000, 1000]
    ranked = ranking.order(beside_another_kind(made), terms_for(2, per_byte=True), 2)
    assert images_of(ranked) == [2, 1]
    assert [row.score for row in ranked] == pytest.approx([1 / 1000, 0.3 / 2000])


def test_every_fifth_place_and_no_other_goes_to_far_images():
    made = alike(40)
    made["far"][30:] = True
    made["ratio"][30:] = np.arange(12, 2, -1)  # image 40 is the nearest, then 39
    made["interest"][30:] = 1e-8
    made["soft_weight"] = 0
    ranked = ranking.order(made, terms_for(1), 25)
    assert [place for place, row in enumerate(ranked, 1) if row.slot == FAR] == [5, 10, 15, 20, 25]
    assert images_of(ranked[4::5])[:4] == [40, 39, 38, 37]
    assert images_of(ranked[:4] + ranked[5:9]) == list(range(1, 9))


def placed_at(made, *distances):
    """The same on a line, so far from its beginning, each with a reach of 0.5."""
    made["reach"] = 0.5
    made["sketch"][:, 0] = sketches.STEPS * np.array(distances)
    return made


def test_half_as_far_from_the_nearest_ahead_as_its_reach_leaves_a_quarter_of_the_score():
    made = placed_at(alike(4), 0, 0.25, 0.75, 0.0625)
    made["soft_weight"] = 0  # nothing but the distances between them
    made["interest"] = [1, 0.9, 0.8, 0.7]
    ranked = ranking.order(made, terms_for(1), 4)
    assert images_of(ranked) == [1, 3, 2, 4]
    assert [row.nearness for row in ranked] == [1, 1, 0.25, 0.04]
    assert [row.score for row in ranked] == pytest.approx([1, 0.8, 0.225, 0.028])
    assert not any(row.duplicate for row in ranked)


def test_two_kinds_that_share_a_cluster_take_turns():
    made = placed_at(alike(40), *np.repeat([0, 2], 20))
    made["interest"] = np.linspace(1, 0.3, 40)
    assert images_of(ranking.order(made, terms_for(1), 2)) == [1, 21]
    made["reach"] = 0  # as of images without sketches
    assert images_of(ranking.order(made, terms_for(1), 2)) == [1, 2]


def test_an_image_without_a_sketch_is_near_none_and_none_is_near_it():
    made = placed_at(alike(3), 0, 0, 0)
    made["soft_weight"], made["reach"] = 0, [0.5, 0, 0.5]
    made["interest"] = [0.8, 1, 0.6]
    ranked = ranking.order(made, terms_for(1), 3)
    assert [(row.image, row.nearness) for row in ranked] == [(2, 1), (1, 1), (3, 0.04)]


def test_a_near_duplicate_ahead_counts_once_by_the_smaller_of_its_factors():
    made = placed_at(alike(3), 0, 0.0625, 0.4)
    made["soft_weight"], made["twin"] = 0, 1
    made["interest"] = [1, 0.9, 0.8]
    ranked = ranking.order(made, terms_for(1, near_duplicate=0.25), 3)
    assert [(row.image, row.duplicate) for row in ranked] == [(1, False), (3, True), (2, True)]
    assert [row.score for row in ranked] == pytest.approx([1, 0.8 * 0.25, 0.9 * 0.04])


def test_what_is_ahead_in_a_place_kept_for_it_is_something_to_be_near_to():
    made = placed_at(alike(2), 0, 0)
    made["soft_weight"] = 0
    ranked = ranking.order(made, terms_for(1, pins=(2,)), 2)
    assert [(row.image, row.slot, row.nearness) for row in ranked] == [(2, PIN, 1), (1, "", 0.04)]


# ---- the whole, for any candidates ---------------------------------------------------------------

def by_the_formula(made, terms, rows):
    """The order as the description gives it, everything looked at for every place."""
    left = {int(one["image"]): one for one in made if int(one["image"]) not in terms.held}
    ahead, before = np.zeros(len(terms.weights)), set(terms.sent_twins)
    chosen, number, shown = [], terms.places_before, []
    pins = collections.deque(pin for pin in terms.pins if pin in left)

    def group(one):
        return int(one["twin"] or one["image"])

    def near(one):
        if not one["reach"]:
            return 1.0
        squared = [int(((one["sketch"].astype(int) - other) ** 2).sum()) for other in shown]
        reach = (sketches.STEPS * float(one["reach"])) ** 2
        return max(0.04, min([1.0] + [distance / reach for distance in squared]))

    def kin(one, counts):
        parts = [counts[index] * float(share)
                 for index, share in zip(one["soft_index"], one["soft_weight"])]
        return parts[0] + parts[1] + parts[2] + parts[3]

    def log_score(one):
        score = np.log(max(float(one["interest"]), 1e-9))
        weight = terms.weights[one["cluster"]]
        if weight > 0:
            score = np.log(weight) + score
        if terms.per_byte:
            score -= np.log(float(one["bytes"]))
        like = terms.near_duplicate if group(one) in before else 1
        score += np.log(min(near(one), like))
        return weight > 0, score + terms.log_discount * kin(one, more)

    def wanted(one):
        return terms.weights[one["cluster"]] > 0

    while left and len(chosen) < rows:
        there = [one["soft_index"][0] for one in left.values()
                 if wanted(one) or not any(map(wanted, left.values()))]
        counts = terms.on_ground + ahead
        more = np.maximum(counts - counts[there].min(), 0)
        slot, which = "", []
        if pins:
            slot, which = PIN, [left[pins.popleft()]]
        elif number % 5 == 4:
            slot = FAR
            which = sorted((one for one in left.values()
                            if one["far"] and one["quality"] >= 0.5 and wanted(one)),
                           key=lambda one: (one["ratio"], one["image"]))
        elif ranking.is_aged_place(number, terms.aged_every):
            slot = AGED
            which = sorted((one for one in left.values()
                            if one["image"] <= terms.aged_until and wanted(one)),
                           key=lambda one: one["image"])
        if not which:
            slot = ""
            which = sorted(left.values(), key=lambda one: (log_score(one), -one["image"]))[::-1]
        one = which[0]
        weighted, score = log_score(one)
        chosen.append(Ranked(int(one["image"]), math.exp(score) if weighted else 0.0,
                             kin(one, ahead), kin(one, terms.on_ground), slot,
                             group(one) in before,
                             kin(one, terms.on_ground) + kin(one, ahead) - kin(one, more),
                             near(one)))
        if one["reach"]:
            shown.append(one["sketch"].astype(int))
        before.add(group(one))
        np.add.at(ahead, one["soft_index"], one["soft_weight"].astype(float))
        number += slot != PIN
        del left[int(one["image"])]
    return chosen


def some_terms(seed, count, clusters):
    """Terms in which everything that may be set is set."""
    random = np.random.RandomState(seed)
    numbers = random.permutation(count + 2)
    return terms_for(
        clusters, weights=random.choice([0, 0.5, 1, 1, 3], clusters).astype(float),
        on_ground=random.choice([0, 1], clusters) * random.uniform(0, 9, clusters),
        aged_until=count // 3, aged_every=int(random.choice([0, 2, 5, 7, 20])),
        near_duplicate=0.25, sent_twins=frozenset(numbers[:count // 10].tolist()),
        pins=tuple(numbers[-3:].tolist()), held=frozenset(numbers[-5:-2].tolist()),
        per_byte=bool(random.choice(2)), places_before=int(random.choice([0, 3, 1234567])))


@QUICK
@given(seed=SEEDS, count=st.integers(0, 90), clusters=st.sampled_from([1, 3, 16]),
       plain=st.booleans(), near=st.booleans())
def test_the_order_is_that_of_the_formula(seed, count, clusters, plain, near):
    made = candidates(seed, count, clusters, coarse=plain, twins=0.4, near=near)
    terms = terms_for(clusters) if plain else some_terms(seed, count, clusters)
    ranked, expected = ranking.order(made, terms, count), by_the_formula(made, terms, count)
    assert [(row.image, row.slot, row.duplicate) for row in ranked] == [
        (row.image, row.slot, row.duplicate) for row in expected]
    for got, wanted in zip(ranked, expected):
        assert got.score == pytest.approx(wanted.score, rel=1e-9)
        assert got.nearness == pytest.approx(wanted.nearness, rel=1e-12)
        assert (got.kin, got.kin_on_ground, got.common) == pytest.approx(
            (wanted.kin, wanted.kin_on_ground, wanted.common), abs=1e-9)


@pytest.mark.parametrize("clusters, hard, near", [
    (1, True, False), (5, False, False), (40, False, False), (1, True, True), (5, False, True)])
def test_the_order_is_that_of_the_formula_over_many_blocks_of_candidates(clusters, hard, near):
    made = candidates(7, 1500, clusters, skew=1.5, hard=hard, twins=0.2, near=near)
    terms = terms_for(clusters, near_duplicate=0.25, aged_until=100, aged_every=20)
    assert images_of(ranking.order(made, terms, 60)) == images_of(by_the_formula(made, terms, 60))


@QUICK
@given(seed=SEEDS, count=st.integers(1, 120), clusters=st.sampled_from([1, 2, 6, 16]),
       rows=st.integers(1, 150), coarse=st.booleans(), near=st.booleans())
def test_the_order_is_total_and_does_not_depend_on_how_the_candidates_came(
        seed, count, clusters, rows, coarse, near):
    made = candidates(seed, count, clusters, coarse=coarse, twins=0.3, near=near)
    terms = some_terms(seed, count, clusters)
    ranked = ranking.order(made, terms, rows)
    there = count - len(terms.held & set(made["image"].tolist()))
    assert len(ranked) == len(set(images_of(ranked))) == min(rows, there)
    random = np.random.RandomState(seed)
    shuffled = random.permutation(np.concatenate([made, made[random.uniform(size=count) < 0.3]]))
    assert ranking.order(shuffled, terms, rows) == ranked
    assert ranking.order(made, terms, 10 ** 6)[:rows] == ranked


@QUICK
@given(seed=SEEDS, count=st.integers(1, 150), clusters=st.sampled_from([1, 3, 16]))
def test_scores_fall_along_the_queue_while_not_every_kind_was_seen(seed, count, clusters):
    """But for the places that are kept; and later they fall within each round over the kinds."""
    made = candidates(seed, count, clusters, twins=0.3)
    ranked = ranking.order(made, some_terms(seed, count, clusters), count)
    assert all(math.isfinite(place.score) and place.score >= 0 for place in ranked)
    scores = [place.score for place in ranked if not place.slot and place.common == 0]
    assert all(after <= before for before, after in zip(scores, scores[1:]))


def test_far_down_the_queue_interest_still_matters():
    """Once all kinds have many ahead, those of many kinds in part are not simply behind."""
    made = terrain(3, 64, 0.25, 1, 8000)
    # Of most kinds that the codebook knows there is nothing here.
    made = made[(made["cluster"] < 16) & ~made["far"]]
    made["image"] = np.arange(1, len(made) + 1)
    interests = with_image(made, ranking.order(made, terms_for(64), 200))["interest"]
    best_tenth = np.quantile(made["interest"], 0.9)
    assert (interests[100:] > best_tenth).mean() > 0.6
    ground = with_image(made, ranking.order(made, terms_for(64, on_ground=np.full(64, 25.0)), 100))
    assert (ground["interest"] > best_tenth).mean() > 0.8


# ---- clusters and their weights ------------------------------------------------------------------

def test_a_cluster_that_dominates_does_not_fill_the_head():
    made = candidates(1, 1000, 10, skew=4, hard=True, far_share=0)
    assert (made["cluster"] == 0).mean() > 0.9
    head = with_image(made, ranking.order(made, terms_for(10), 10))
    present = len(np.unique(made["cluster"]))
    assert len(np.unique(head["cluster"])) >= min(present, 7)


def test_sand_that_is_split_over_five_clusters_still_counts_as_sand():
    made = candidates(2, 60, 8, hard=True, far_share=0)
    sand = made["cluster"] < 5
    made["interest"] = np.where(sand, 0.8, 0.5)
    apart = with_image(made, ranking.order(made, terms_for(8), 8))
    made["soft_index"][sand] = [0, 1, 2, 3]
    made["soft_weight"][sand] = 0.5
    together = with_image(made, ranking.order(made, terms_for(8), 8))
    assert (apart["cluster"] < 5).sum() == 5 and (together["cluster"] < 5).sum() <= 4
    assert set(together["cluster"][:4]) > {5, 6, 7}


@pytest.mark.parametrize("on_ground", [0, 1e7])
@pytest.mark.parametrize("count", [50, 600])
def test_weight_nothing_goes_last_however_many_of_another_kind_were_sent_or_are_ahead(
        count, on_ground):
    made = candidates(3, count, 3, hard=True, far_share=0)
    terms = terms_for(3, weights=np.array([1.0, 0.0, 0.001]),
                      on_ground=np.array([on_ground, 0, on_ground]))
    ranked = ranking.order(made, terms, count)
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
    head = with_image(made, ranking.order(
        made, terms_for(3, weights=np.array([1.0, 10.0, 1.0])), 3))
    assert head["cluster"].tolist()[:2] == [1, 1]


@QUICK
@given(seed=SEEDS, factor=st.sampled_from([1.01, 2, 100]))
def test_more_weight_brings_no_image_of_its_cluster_further_back(seed, factor):
    made = candidates(seed, 80, 6, hard=True, far_share=0, twins=0.3)
    weights = np.random.RandomState(seed).choice([0.2, 1, 3], 6)
    heavier = weights * np.where(np.arange(6) == 2, factor, 1)
    before, after = (images_of(ranking.order(made, terms_for(
        6, weights=held, near_duplicate=0.25), 80)) for held in (weights, heavier))
    for image in made["image"][made["cluster"] == 2]:
        assert after.index(image) <= before.index(image)


# ---- pins, holds, and the places that are kept ---------------------------------------------------

@QUICK
@given(seed=SEEDS, data=st.data())
def test_pins_come_first_in_their_order_and_held_images_not_at_all(seed, data):
    made = candidates(seed, 60, 6, skew=1)
    numbers = st.lists(st.integers(1, 70), max_size=12, unique=True)
    pins, held = data.draw(numbers), data.draw(numbers)
    ranked = ranking.order(made, terms_for(
        6, weights=np.array([1.0, 0, 1, 1, 0, 2]), pins=tuple(pins), held=frozenset(held)), 60)
    there = [pin for pin in pins if pin <= 60 and pin not in held]
    assert images_of(ranked[:len(there)]) == there
    assert [row.slot == PIN for row in ranked] == [True] * len(there) + [False] * (
        len(ranked) - len(there))
    assert sorted(images_of(ranked)) == [image for image in range(1, 61) if image not in held]


def test_a_pinned_image_counts_against_its_kind_and_has_the_score_of_its_place():
    ranked = ranking.order(beside_another_kind(alike(3)), terms_for(2, pins=(3, 2)), 3)
    assert [(row.image, row.score) for row in ranked] == [
        (3, 1), (2, pytest.approx(0.3)), (1, pytest.approx(0.09))]


@QUICK
@given(seed=SEEDS, far_share=st.sampled_from([0.0, 0.02, 0.3]), before=st.integers(0, 30))
def test_far_images_that_were_well_taken_have_one_place_in_five_the_nearest_first(
        seed, far_share, before):
    made = candidates(seed, 120, 6, far_share=far_share)
    made["interest"][made["far"]] = 0  # none would come on its merits
    ranked = ranking.order(made, terms_for(6, places_before=before), 40)
    slots = [place for place, held in enumerate(ranked) if held.slot == FAR]
    far = made[made["far"] & (made["quality"] >= 0.5)]
    assert slots == [place for place in range(40) if (place + before) % 5 == 4][:len(far)]
    by_ratio = far["image"][np.lexsort((far["image"], far["ratio"]))]
    assert [ranked[slot].image for slot in slots] == by_ratio[:len(slots)].tolist()
    assert not any(made["far"][held.image - 1] for held in ranked if not held.slot)


@pytest.mark.parametrize("every", [2, 3, 5, 7, 10, 19, 20, 33, 100])
def test_one_place_in_so_many_is_kept_for_the_oldest_and_none_of_them_is_a_far_ones(every):
    kept = [place for place in range(20000) if ranking.is_aged_place(place, every)]
    assert not any(ranking.is_far_place(place) for place in kept)
    # Where both kinds of place would fall together and the next is one as well, one is lost.
    assert 20000 / every * 0.9 <= len(kept) <= 20000 / every + 1
    if every >= 5:
        assert len(kept) >= 20000 // every
    assert max(np.diff(kept)) <= every + 1


def test_the_oldest_takes_its_place_and_pins_do_not_shift_the_places():
    made = alike(60, interest=np.linspace(0.1, 1, 60).astype(np.float32))
    made["soft_weight"] = 0
    terms = terms_for(1, aged_until=15, aged_every=20, pins=(50, 40))
    ranked = ranking.order(made, terms, 40)
    assert {place: row.image for place, row in enumerate(ranked) if row.slot == AGED} == {
        4: 1, 24: 2}
    none_old = ranking.order(made, terms._replace(aged_until=0), 40)
    assert not any(row.slot == AGED for row in none_old)


def test_clusters_of_no_weight_have_no_kept_places():
    made = candidates(5, 100, 4, hard=True, far_share=0.4)
    made["quality"] = 1
    terms = terms_for(4, weights=np.array([1.0, 0, 1, 0]), aged_until=100, aged_every=5)
    ranked = ranking.order(made, terms, 60)
    slots = with_image(made, [row for row in ranked if row.slot])
    assert len(slots) > 8 and set(slots["cluster"]) == {0, 2}


@pytest.mark.parametrize("sent_a_pass", [3, 8])
def test_nothing_starves_although_better_images_keep_coming(sent_a_pass):
    """Every tenth pass or so later an old image is sent, be passes ever so small."""
    random = np.random.RandomState(sent_a_pass)
    queued, newest, sent, newest_at = np.zeros(0, CANDIDATE), 0, [], []
    for number in range(300):
        new = candidates(number, 12, 5, far_share=0.05)
        new["image"] += newest
        new["twin"] = 0
        new["interest"] = 0.01 if number == 0 else 0.5 + 0.5 * random.uniform(size=12)
        newest += 12
        queued = np.concatenate([queued, new])
        aged_until = newest_at[-10] if len(newest_at) >= 10 else 0
        head = ranking.order(queued, terms_for(
            5, aged_until=aged_until, aged_every=20, places_before=len(sent)), sent_a_pass)
        newest_at.append(newest)
        sent += images_of(head)
        queued = queued[~np.isin(queued["image"], images_of(head))]
        # Each such place takes the oldest: after n of them the first n images are gone.
        places = (len(sent) - 10 * sent_a_pass) // 20
        assert places <= 0 or queued["image"].min() > places
    assert set(range(1, 13)) <= set(sent)


def test_what_was_sent_before_makes_the_next_passes_show_more_kinds():
    """Six images a pass, from a stream that a few kinds dominate."""
    def kinds_sent(half_life_passes):
        queued, sent = candidates(11, 3000, 60, skew=1.5, far_share=0), []
        ground = np.zeros(60)
        for _ in range(10):
            head = with_image(every, ranking.order(queued, terms_for(60, on_ground=ground), 6))
            sent += head["cluster"].tolist()
            queued = queued[~np.isin(queued["image"], head["image"])]
            if half_life_passes:
                ground *= 0.5 ** (1 / half_life_passes)
                np.add.at(ground, head["soft_index"], head["soft_weight"].astype(float))
        return len(set(sent))

    every = candidates(11, 3000, 60, skew=1.5, far_share=0)
    assert 2 * kinds_sent(5) >= 3 * kinds_sent(None)


def test_an_empty_catalog_has_an_empty_queue():
    assert ranking.order(np.zeros(0, CANDIDATE), terms_for(5, pins=(3,)), 10) == []


# ---- words for the operator ----------------------------------------------------------------------

TOLD = collections.namedtuple("TOLD", "far novelty representative quality")


def told(far=False, novelty=0.5, representative=0.5, quality=1.0, label="dunes", weight=1.0,
         kin=0.0, kin_on_ground=0.0, slot="", duplicate=False, clustered=True, verdict="",
         resemblance=None, nearness=1.0):
    row = TOLD(far, novelty, representative, quality)
    ranked = Ranked(1, 0.5, kin, kin_on_ground, slot, duplicate, nearness=nearness)
    return ranking.reason(row, label, weight, ranked, clustered, verdict, resemblance)


@pytest.mark.parametrize("case, words", [
    (dict(novelty=0.93), "unusual for dunes (stranger than 93% of the archive); nothing like it "
                         "ahead"),
    (dict(novelty=1.0), "unusual for dunes (stranger than 99% of the archive); nothing like it "
                        "ahead"),
    (dict(representative=0.8), "typical dunes (clearer than 80% of the archive); nothing like it "
                               "ahead"),
    (dict(), "ordinary dunes; nothing like it ahead"),
    (dict(far=True, novelty=0.05), "unlike the whole archive; nothing like it ahead"),
    (dict(far=True, slot=FAR, novelty=0.05),
     "unlike the whole archive: discovery or junk (1 place in 5 is kept for these); nothing like "
     "it ahead"),
    (dict(clustered=False, kin=1.0), "no clusters yet, sorted by difference; one like it ahead"),
    (dict(clustered=False, weight=2.0), "no clusters yet, sorted by difference; nothing like it "
                                        "ahead"),
    (dict(weight=0.5), "ordinary dunes; weight 0.5; nothing like it ahead"),
    (dict(kin=0.4), "ordinary dunes; little like it ahead"),
    (dict(kin=0.8), "ordinary dunes; one like it ahead"),
    (dict(kin=6.7), "ordinary dunes; 7 like it ahead"),
    (dict(kin_on_ground=3.2), "ordinary dunes; nothing like it ahead; 3 like it already on the "
                              "ground"),
    (dict(slot=PIN), "pinned by operations; ordinary dunes; nothing like it ahead"),
    (dict(slot=AGED), "has waited longest (some places are kept for the oldest); ordinary dunes; "
                      "nothing like it ahead"),
    (dict(resemblance=Resemblance("blueberries", 0.918)),
     "92% like blueberries; ordinary dunes; nothing like it ahead"),
    (dict(resemblance=Resemblance("blueberries", 0.1)), "ordinary dunes; nothing like it ahead"),
    (dict(quality=0.4, verdict="blurred"), "ordinary dunes; blurred (counts 0.4); nothing like it "
                                           "ahead"),
    (dict(duplicate=True, kin=1), "ordinary dunes; near-duplicate of one ahead or sent; one like "
                                  "it ahead"),
    (dict(nearness=0.49, kin=1), "ordinary dunes; much like one ahead; one like it ahead"),
    (dict(nearness=0.5, kin=1), "ordinary dunes; one like it ahead"),
    (dict(nearness=0.04, duplicate=True, kin=1), "ordinary dunes; near-duplicate of one ahead or "
                                                 "sent; one like it ahead"),
    (dict(slot=PIN, resemblance=Resemblance("a1b2c3d4", 1.0), novelty=0.8, quality=0.25,
          verdict="over-exposed", duplicate=True, weight=3, kin=2, kin_on_ground=1),
     "pinned by operations; 100% like a1b2c3d4; unusual for dunes (stranger than 80% of the "
     "archive); over-exposed (counts 0.25); near-duplicate of one ahead or sent; weight 3; 2 like "
     "it ahead; 1 like it already on the ground"),
])
def test_the_reason_says_why_an_image_stands_where_it_does(case, words):
    assert told(**case) == words


def test_a_cluster_without_a_label_is_spoken_of_by_its_number():
    assert ranking.names_of({3: "dunes"}, 3) == ("dunes", "dunes")
    assert ranking.names_of({3: "dunes"}, 4) == ("", "cluster 4")
