"""The pool against looking at everything: the same order, or next to nothing given away."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ranking_cases import Store, candidates, terms_for, terrain

from jetson_cluster import pool as pools
from jetson_cluster import ranking
from jetson_cluster.pool import Pool
from jetson_cluster.ranking import AGED, CANDIDATE, FAR
from jetson_cluster.sketches import STEPS

QUICK = settings(deadline=None, max_examples=50, database=None)
SEEDS = st.integers(0, 2 ** 31)


def worth(ranked):
    return sum(place.score for place in ranked)


def test_an_empty_catalog_has_an_empty_queue():
    assert Pool(5, 10).order(Store(np.zeros(0, CANDIDATE)), terms_for(5)) == []


@QUICK
@given(seed=SEEDS, count=st.integers(0, 400), clusters=st.sampled_from([1, 2, 7, 40]),
       rows=st.sampled_from([1, 20, 90]), skew=st.sampled_from([0.0, 1.0, 4.0]),
       coarse=st.booleans(), twins=st.sampled_from([0, 0.5]), data=st.data())
def test_where_images_belong_to_one_cluster_the_pool_orders_as_if_it_held_everything(
        seed, count, clusters, rows, skew, coarse, twins, data):
    """Exact: within a cluster all have the same kin, so that worth alone decides.

    With so few candidates for each cluster at first that they often run out.
    """
    made = candidates(seed, count, clusters, skew, hard=True, far_share=0.1, coarse=coarse,
                      twins=twins)
    random = np.random.RandomState(seed)
    numbers = random.permutation(count + 5)
    terms = terms_for(
        clusters, weights=random.choice(data.draw(st.sampled_from([[1], [0, 0.2, 1, 5]])),
                                        clusters).astype(float),
        on_ground=random.uniform(0, 5, clusters), near_duplicate=0.25,
        aged_until=data.draw(st.sampled_from([0, count // 2])),
        aged_every=data.draw(st.sampled_from([0, 4, 20])),
        pins=tuple(numbers[:3].tolist()), held=frozenset(numbers[2:12].tolist()),
        places_before=data.draw(st.integers(0, 30)), per_byte=data.draw(st.booleans()))
    sent = set(made["twin"][:20].tolist()) - {0}
    pool = Pool(clusters, rows)
    pool._first_depth = data.draw(st.sampled_from([1, 3, pool._first_depth]))
    everything = ranking.order(made, terms._replace(sent_twins=frozenset(sent)), rows)
    store = Store(made, sent)
    assert pool.order(store, terms) == everything
    assert pool.order(store, terms) == everything


def test_a_cluster_whose_candidates_run_out_is_read_deeper():
    made = candidates(5, 9000, 600, skew=6, hard=True, far_share=0)
    store, pool = Store(made), Pool(600, 150)
    first = pool.order(store, terms_for(600))
    assert store.reads > 600 and first == ranking.order(made, terms_for(600), 150)
    reads = store.reads
    assert pool.order(store, terms_for(600)) == first and store.reads == reads


def test_far_images_badly_taken_and_old_ones_held_do_not_hide_those_behind_them():
    made = candidates(6, 1000, 4, hard=True, far_share=0.5)
    made["quality"][:900] = 0.1
    terms = terms_for(4, aged_until=1000, aged_every=4, held=frozenset(range(1, 700)))
    ranked = Pool(4, 40).order(Store(made), terms)
    assert ranked == ranking.order(made, terms, 40)
    assert [row.image for row in ranked if row.slot == AGED][:2] == [700, 701]
    assert sum(row.slot == FAR for row in ranked) == 8


def test_near_duplicates_of_what_was_sent_do_not_hide_the_others_of_their_cluster():
    """The best five thousand of a cluster are one stop of the rover, and one of them was sent."""
    made = candidates(8, 6000, 2, hard=True, far_share=0)
    made["cluster"] = 0
    made["soft_index"] = 0
    made["interest"][:5000] = np.linspace(1, 0.5, 5000)
    made["twin"][:5000] = 1
    made["interest"][5000:] = 0.45
    ranked = Pool(2, 30).order(Store(made, sent={1}), terms_for(2, near_duplicate=0.25))
    assert [row.image for row in ranked] == list(range(5001, 5031))


def test_a_million_near_duplicates_are_not_all_read():
    made = candidates(8, 200000, 1, hard=True, far_share=0)
    made["twin"] = 1
    store, pool = Store(made, sent={1}), Pool(1, 10)
    assert len(pool.order(store, terms_for(1, near_duplicate=0.25))) == 10
    assert sum(map(len, pool._held.values())) < 3 * pools.MOST


def two_kinds(count, few):
    """One cluster of images that are all alike but for the last few, which interest less."""
    made = candidates(8, count, 1, hard=True, far_share=0)
    made["reach"], made["sketch"] = 0.5, np.random.RandomState(1).normal(0, 5, (count, 32))
    made["interest"] = np.linspace(1, 0.5, count)
    made["interest"][-few:], made["sketch"][-few:, 0] = 0.3, 2 * STEPS
    return made


def test_a_kind_that_shares_a_cluster_with_thousands_of_another_is_found_behind_them():
    made = two_kinds(pools.TARGET + 5000, 20)
    store, pool = Store(made), Pool(1, 30)
    ranked = pool.order(store, terms_for(1))
    assert store.reads > 1 and ranked == ranking.order(made, terms_for(1), 30)
    assert ranked[1].image > len(made) - 20


def test_of_a_million_images_that_are_alike_not_all_are_read():
    made = two_kinds(200000, 1)
    pool = Pool(1, 10)
    assert len(pool.order(Store(made), terms_for(1))) == 10
    assert sum(map(len, pool._held.values())) < 3 * pools.MOST


@QUICK
@given(seed=SEEDS, data=st.data())
def test_what_is_offered_and_forgotten_leaves_the_pool_as_one_just_filled(seed, data):
    made = candidates(seed, 600, 9, skew=1.5, far_share=0.1, twins=0.2,
                      near=data.draw(st.booleans()))
    here = np.zeros(len(made), bool)
    here[:200] = True
    terms = terms_for(9, weights=np.array([1.0, 0, 1, 2, 1, 1, 1, 0, 1]), aged_every=5,
                      aged_until=100, near_duplicate=0.25, per_byte=data.draw(st.booleans()))
    here[50:60] = False  # they wait to be embedded, and come when they are old already
    store, pool = Store(made[here]), Pool(9, 30)
    fresh = 200
    for _ in range(data.draw(st.integers(1, 6))):
        action = data.draw(st.sampled_from(["order", "offer", "remove", "embed", "age", "weigh"]))
        if action in ("offer", "embed"):
            more = data.draw(st.integers(1, 60))
            new = np.arange(fresh, min(600, fresh + more))
            if action == "embed":
                new = np.arange(50, 60)
            new = new[~here[new]]
            here[new] = True
            store.made = made[here]
            pool.offer(made[new])
            fresh += more * (action == "offer")
        elif action == "age":
            terms = terms._replace(aged_until=terms.aged_until + 50)
        elif action == "weigh":
            terms = terms._replace(weights=terms.weights[::-1].copy())
        else:
            head = pool.order(store, terms)
            if action == "remove":
                gone = data.draw(st.sampled_from(head)).image - 1
                here[gone] = False
                store.made = made[here]
                store.sent.add(int(made["twin"][gone]))
                pool.forget(int(made["cluster"][gone]))
                pool.forget_sent()
    kept, new = pool.order(store, terms), Pool(9, 30)
    new._depth = dict(pool._depth)  # how deep was read is all that may differ
    assert kept == new.order(store, terms)


def test_an_image_whose_first_near_duplicate_comes_later_is_known_as_one():
    made = candidates(9, 100, 2, hard=True, far_share=0)
    store, pool, terms = Store(made[:99].copy()), Pool(2, 10), terms_for(2, near_duplicate=0.25)
    best = pool.order(store, terms)[0].image
    made["twin"][[best - 1, 99]], made["interest"][99] = best, 0
    store.made = made
    pool.offer(made[99:])
    store.sent = {best}  # the later one was sent and given back, say
    pool.forget_sent()
    ranked = pool.order(store, terms)
    assert ranked == Pool(2, 10).order(store, terms)
    assert all(place.duplicate for place in ranked if place.image == best)
    assert ranked[0].image != best


@pytest.mark.parametrize("per_byte, near", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("k, spread, skew", [
    (4, 0.25, 1), (16, 0.25, 1), (32, 0.3, 2), (64, 0.2, 0), (64, 0.2, 2), (256, 0.15, 1)])
def test_where_images_belong_to_several_clusters_the_pool_gives_away_next_to_nothing(
        k, spread, skew, per_byte, near):
    """Not exact: an image cut from its cluster's candidates may have fewer kin ahead than others.

    Of the score over 200 rows, the pool gives away less than a fiftieth.
    """
    made, terms = terrain(1, k, spread, skew, 20000, near=near), terms_for(k, per_byte=per_byte)
    exact = ranking.order(made, terms, 200)
    pooled = Pool(k, 200).order(Store(made), terms)
    assert len(pooled) == 200 and pooled[0] == exact[0]
    assert worth(pooled) >= 0.98 * worth(exact)


def test_a_pass_of_thousands_gives_away_next_to_nothing_either():
    made, terms = terrain(2, 32, 0.25, 1, 60000), terms_for(32, on_ground=np.full(32, 20.0))
    exact = ranking.order(made, terms, 3000)
    pooled = Pool(32, 3000).order(Store(made), terms)
    logs = [sum(math.log(place.score) for place in ranked) for ranked in (exact, pooled)]
    assert len(pooled) == 3000 and worth(pooled) >= 0.98 * worth(exact)
    # The sum is that of the first few; the mean of the logarithms speaks for those behind too.
    assert (logs[1] - logs[0]) / 3000 > -0.05 * abs(logs[0]) / 3000
