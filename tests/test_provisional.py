"""Groups that stand in for clusters: few, apart from one another, near to all they took."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking_cases import terms_for
from jetson_cluster import provisional, ranking
from jetson_cluster.codebook import normalise
from jetson_cluster.provisional import LEAST_REACH, MOST_GROUPS, Groups

QUICK = settings(deadline=None, max_examples=40, database=None)
NONE = Groups(np.empty((0,), np.float32), 0.0)


def distances(points, leaders):
    """float64 [N, g]."""
    wide = points.astype(np.float64)
    return np.sqrt(np.stack([((wide - leader) ** 2).sum(axis=1) for leader in
                             leaders.astype(np.float64)], axis=1))


def stream(seed, count, dimension, spread):
    """Scenes of many images each, `spread` apart within a scene; zero rows among them."""
    random = np.random.RandomState(seed)
    scenes = random.normal(size=(random.randint(1, 40), dimension))
    drawn = scenes[random.randint(0, len(scenes), count)]
    drawn = drawn + spread * random.normal(size=drawn.shape)
    drawn[random.uniform(size=count) < 0.02] = 0
    return (drawn * random.uniform(0.1, 50)).astype(np.float32)


@QUICK
@given(seed=st.integers(0, 2 ** 31), count=st.sampled_from([1, 5, 150, 400]),
       dimension=st.sampled_from([1, 3, 64]), spread=st.sampled_from([0.0, 0.03, 0.3, 3.0]),
       batch=st.sampled_from([1, 7, 1000]))
def test_what_the_groups_promise_after_every_batch(seed, count, dimension, spread, batch):
    embeddings = stream(seed, count, dimension, spread)
    groups = NONE
    for start in range(0, count, batch):
        before = groups
        groups = provisional.admit(before, embeddings[start:start + batch])
        leaders = groups.leaders
        assert leaders.dtype == np.float32 and leaders.shape[1:] == (dimension,)
        assert 1 <= len(leaders) <= MOST_GROUPS
        doublings = np.log2(groups.reach / LEAST_REACH)
        assert doublings == round(doublings) and groups.reach >= before.reach
        apart = distances(leaders, leaders)[~np.eye(len(leaders), dtype=bool)]
        assert (apart > groups.reach * (1 - 1e-5)).all()
        # A leader that fell away was within reach of one that stayed, as reach had doubled by then:
        # what it took is within reach * (1 + 1/2 + 1/4 + ...).
        taken = normalise(embeddings[:start + batch])
        nearest = distances(taken, leaders).min(axis=1)
        assert (nearest <= 2 * groups.reach).all()
        if doublings == 0:
            assert (nearest <= groups.reach * (1 + 1e-5)).all()
        if groups.reach == before.reach:
            np.testing.assert_array_equal(leaders[:len(before.leaders)], before.leaders)


@QUICK
@given(seed=st.integers(0, 2 ** 31), count=st.sampled_from([3, 200]))
def test_groups_do_not_depend_on_how_the_stream_was_cut_into_batches(seed, count):
    embeddings = stream(seed, count, 16, 0.5)
    at_once = provisional.admit(NONE, embeddings)
    one_by_one = NONE
    for row in range(count):
        one_by_one = provisional.admit(one_by_one, embeddings[row:row + 1])
    np.testing.assert_array_equal(at_once.leaders, one_by_one.leaders)
    assert at_once.reach == one_by_one.reach


def test_reach_doubles_as_often_as_it_must():
    """65 images at right angles, 1.41 apart: one too many until reach is 1.6."""
    apart = np.eye(MOST_GROUPS + 1, dtype=np.float32)
    fitting = provisional.admit(NONE, apart[:-1])
    assert len(fitting.leaders) == MOST_GROUPS and fitting.reach == LEAST_REACH
    grown = provisional.admit(fitting, apart[-1:])
    assert len(grown.leaders) == 1 and grown.reach == 32 * LEAST_REACH


def test_copies_of_one_scene_found_one_group():
    scene = np.random.RandomState(1).normal(size=(1, 128))
    copies = (scene + 0.003 * np.random.RandomState(2).normal(size=(300, 128))).astype(np.float32)
    assert len(provisional.admit(NONE, copies).leaders) == 1


@QUICK
@given(seed=st.integers(0, 2 ** 31), count=st.sampled_from([1, 80]))
def test_where_an_image_is_placed(seed, count):
    embeddings = stream(seed, count, 8, 0.4)
    groups = provisional.admit(NONE, embeddings)
    found = provisional.place(groups, embeddings)
    away = distances(normalise(embeddings), groups.leaders)
    np.testing.assert_allclose(
        away[np.arange(count), found.cluster], away.min(axis=1), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.distance, away.min(axis=1), rtol=1e-3, atol=1e-6)
    interest = provisional.interest(found.novelty)
    assert ((interest >= 0.5) & (interest <= 1)).all()
    assert not found.far.any() and (found.soft_weight == [1, 0, 0, 0]).all()
    for values in found:
        assert len(values) == count and not np.isnan(values).any()


def test_every_group_is_heard_once_before_any_is_heard_twice():
    embeddings = stream(3, 500, 32, 0.2)
    placed = provisional.place(provisional.admit(NONE, embeddings), embeddings)
    made = np.zeros(500, ranking.CANDIDATE)
    made["image"], made["interest"] = np.arange(500), provisional.interest(placed.novelty)
    for name in ("cluster", "ratio", "far", "soft_index", "soft_weight"):
        made[name] = getattr(placed, name)
    present = len(np.unique(placed.cluster))
    assert present > 5
    ranked = ranking.order(made, terms_for(MOST_GROUPS), present)
    assert len({placed.cluster[place.image] for place in ranked}) == present
