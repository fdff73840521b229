"""What `tools/bench yield` measures with: days, budgets, measures, and the rules it compares."""

import itertools
import os
import pathlib
import sys

import numpy as np
import pytest
from PIL import Image

from jetson_cluster import passes, quality, recipe
from jetson_cluster.codebook import QUANTILE_POINTS, Codebook, normalise

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools" / "benchmarks"))

import measures  # noqa: E402  (found through the line above)
import pictures  # noqa: E402
import streams  # noqa: E402
from pictures import DISCOVERY, JUNK, TERRAIN, Picture  # noqa: E402

PLAN = streams.Plan(archive=(6, 9), dominating=12, ordinary=(2, 4), held_out=(2, 3), shots=2,
                    discoveries=(1, 2), junk_share=0.2, copies_of_dominating=0.5,
                    copies_of_others=0.5)


@pytest.fixture(scope="module")
def shown():
    """Five classes of eight scenes of three shots, each repeated; finds and spoilt frames."""
    terrain = [Picture("%s-%d-%d" % (name, scene, shot), name, TERRAIN, "%s %d" % (name, scene), "")
               for name in "abcde" for scene in range(8) for shot in range(3)]
    copies = [one._replace(path=one.path + "-again", copy_of=one.path) for one in terrain]
    return terrain + copies + [
        Picture("find-%s-%d" % (kind, number), kind, DISCOVERY, "find %s %d" % (kind, number), "")
        for kind in "xyz" for number in range(3)] + [
        Picture("junk-%d" % number, "blank", JUNK, "junk %d" % number, "") for number in range(20)]


# ---- days ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_archive_and_stream_share_no_scene_and_the_archive_knows_no_held_out_class(shown, seed):
    day = streams.draw(shown, PLAN, seed)
    archive = [shown[place] for place in day.archive]
    arrived = [shown[place] for place in day.arrivals]
    assert not {one.scene for one in archive} & {one.scene for one in arrived}
    assert {one.role for one in archive} == {TERRAIN}
    known = {one.kind for one in archive}
    assert known == set("abcde") - set(day.held_out) and 1 <= len(day.held_out) <= 2
    assert set("abcde") <= {one.kind for one in arrived}


@pytest.mark.parametrize("seed", range(8))
def test_one_class_dominates_and_near_repeats_follow_what_they_repeat(shown, seed):
    day = streams.draw(shown, PLAN, seed)
    arrived = [shown[place] for place in day.arrivals]
    counts = {name: sum(one.kind == name for one in arrived) for name in "abcde"}
    assert max(counts, key=counts.get) == day.dominating not in day.held_out
    assert len(set(day.arrivals.tolist())) == len(day.arrivals)
    repeats = [(before.path, one.copy_of)
               for before, one in zip(arrived, arrived[1:]) if one.copy_of]
    assert repeats and all(before == source for before, source in repeats)
    junk = sum(one.role == JUNK for one in arrived)
    assert abs(junk / len(arrived) - PLAN.junk_share) < 0.02
    assert 1 <= len({one.kind for one in arrived if one.role == DISCOVERY}) <= 2


def test_a_seed_is_a_day(shown):
    first, again, other = (streams.draw(shown, PLAN, seed) for seed in (3, 3, 4))
    assert (first.arrivals == again.arrivals).all() and (first.archive == again.archive).all()
    assert first.arrivals.tolist() != other.arrivals.tolist()


# ---- measures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_what_is_sent_is_what_a_pass_would_take(seed):
    random = np.random.RandomState(seed)
    sizes, order = random.randint(1, 100, 30), random.permutation(30)
    budget = int(random.randint(1, 800))
    chosen = passes.choose([passes.Item(int(place), int(sizes[place])) for place in order], budget)
    assert measures.sent(order, sizes, budget) == [item.image for item in chosen]


def test_a_file_that_does_not_fit_is_skipped_and_a_smaller_one_behind_it_sent():
    assert measures.sent([0, 1, 2], np.array([60, 70, 30]), 95) == [0, 2]


def truth_of(terrain, odd, junk):
    return measures.Truth(np.array(terrain), np.array(odd), np.array(junk, bool))


def test_a_yield_counts_classes_odd_ones_and_junk_within_each_budget():
    truth = truth_of(["a"] * 8 + ["b", "c", "c", ""] + ["a"] * 8,
                     [""] * 8 + ["", "c", "c", "find"] + [""] * 8, [True] + [False] * 19)
    order = np.array([0, 9, 8, 10, 1] + [11] + list(range(2, 8)) + list(range(12, 20)))
    found = measures.judge(order, np.full(20, 10), truth)
    assert measures.BUDGETS == (0.05, 0.10, 0.25)  # of 20 files: 1, 2 and 5
    assert found.classes == pytest.approx([1 / 3, 2 / 3, 1])
    assert found.odd_kinds == pytest.approx([0, 1 / 2, 1 / 2])
    assert found.odd == pytest.approx([0, 1 / 3, 2 / 3])
    assert found.junk == pytest.approx([1, 1 / 2, 1 / 5])
    assert found.precision == pytest.approx(1 / 3)  # of the first three one is odd
    assert found.mean_rank == pytest.approx((2 + 4 + 6) / 3 / 20)


def test_the_mean_rank_of_random_orders_is_the_middle():
    truth = truth_of(["a"] * 40, ["x"] * 5 + [""] * 35, [False] * 40)
    orders = [np.random.RandomState(seed).permutation(40) for seed in range(400)]
    ranks = [measures.judge(order, np.ones(40), truth).mean_rank for order in orders]
    assert np.mean(ranks) == pytest.approx(0.5, abs=0.02)


def test_no_order_shows_more_classes_than_the_best_one():
    random = np.random.RandomState(0)
    truth = truth_of(["a", "a", "b", "b", "c", ""], ["c", "", "", "", "", ""], [False] * 6)
    for _ in range(5):
        sizes = random.randint(1, 40, 6)
        best = measures.judge(measures.best_classes(sizes, truth), sizes, truth).classes
        every = [measures.judge(np.array(order), sizes, truth).classes
                 for order in itertools.permutations(range(6))]
        assert best == np.max(every, axis=0).tolist()


def test_a_yield_survives_being_averaged():
    one = measures.Yield([1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12], 13, 14)
    again = measures.unflat(measures.flat(one))
    assert all(np.array_equal(before, after) for before, after in zip(one, again))


# ---- the rules -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def peers():
    pytest.importorskip("sklearn", reason="only where the benchmarks run")
    import peers
    return peers


@pytest.fixture(scope="module")
def ours():
    pytest.importorskip("sklearn", reason="only where the benchmarks run")
    import ours
    return ours


@pytest.fixture
def case(peers):
    """An archive around two directions; a stream of both, one image unlike either at place 7."""
    random = np.random.RandomState(1)
    middles = np.eye(8, dtype=np.float32)[:2]

    def near(count):
        return (middles[np.arange(count) % 2]
                + 0.1 * random.normal(size=(count, 8))).astype(np.float32)

    archive, stream = near(60), near(20)
    stream[7] = -1
    unit = normalise(archive)
    centroids = np.stack([unit[::2].mean(axis=0), unit[1::2].mean(axis=0)])
    ramp = np.linspace(0, 2, QUANTILE_POINTS, dtype=np.float32)
    codebook = Codebook("net/layer@0", "l2", centroids, np.array([30, 30]),
                        np.full(2, 0.25, np.float32), ramp, ramp / 2, 1.0, 1.8)
    fine = np.array(quality.Measures(0.0, 0.0, 0.5, 0.6, 0.0, 0.0), np.float32)
    return peers.Case(archive, stream, np.arange(1000, 1020), np.tile(fine, (20, 1)),
                      np.array(["%064x" % number for number in range(20)]), codebook, 5)


def test_every_rule_sends_each_image_once(case, peers, ours):
    orders = [peers.first_come(case), peers.every_nth(case, 0.1), peers.at_random(case, 3),
              peers.farthest_first(case), peers.farthest_first_after_archive(case),
              peers.isolation_forest(case), peers.novelty_only(case),
              ours.order(case, ours.DEFAULT)]
    assert all(sorted(order.tolist()) == list(range(20)) for order in orders)


def test_every_nth_goes_through_the_stream_in_strides(case, peers):
    assert peers.every_nth(case, 0.25)[:7].tolist() == [0, 4, 8, 12, 16, 1, 5]


def test_random_orders_differ_by_draw_and_repeat(case, peers):
    first, again, other = (peers.at_random(case, draw).tolist() for draw in (1, 1, 2))
    assert first == again != other


def test_the_image_unlike_the_archive_leads_wherever_difference_decides(case, peers):
    for rule in (peers.farthest_first_after_archive, peers.isolation_forest, peers.novelty_only):
        assert rule(case)[0] == 7


def test_farthest_first_begins_with_the_first_that_came_and_goes_to_the_farthest_of_it(case, peers):
    points = normalise(case.embeddings)
    order = peers.farthest_first(case)
    assert order[0] == 0
    assert order[1] == np.linalg.norm(points - points[0], axis=1).argmax()
    spread = [min(np.linalg.norm(points[one] - points[other]) for other in order[:place])
              for place, one in enumerate(order) if place]
    assert all(before >= after - 1e-6 for before, after in zip(spread, spread[1:]))


def test_ours_is_the_order_of_the_rovers_own_queue_and_heeds_quality(case, ours):
    order = ours.order(case, ours.DEFAULT)
    assert order.tolist() == ours.order(case, ours.DEFAULT).tolist()
    spoilt = case.measures.copy()
    spoilt[order[0]] = quality.Measures(1.0, 0.0, 0.0, 1.0, 0.0, 0.0)  # black
    judged = case._replace(measures=spoilt)
    assert ours.order(judged, ours.DEFAULT)[0] != order[0]
    assert ours.order(ours.unmeasured(judged), ours.DEFAULT).tolist() == ours.order(
        ours.unmeasured(case), ours.DEFAULT).tolist()


def test_our_quality_gate_sends_spoilt_frames_last_and_keeps_the_order_of_the_others(case, ours):
    spoilt = case.measures.copy()
    spoilt[[2, 5]] = quality.Measures(1.0, 0.0, 0.0, 1.0, 0.0, 0.0)
    gated = ours.gated(case._replace(measures=spoilt), np.arange(20))
    assert gated.tolist() == [place for place in range(20) if place not in (2, 5)] + [2, 5]


# ---- the pictures --------------------------------------------------------------------------------


@pytest.fixture
def picture():
    """Something in focus, with light and shade."""
    random = np.random.RandomState(2)
    layers = [np.asarray(Image.fromarray(random.randint(20, 120, (3 * side, 4 * side)).astype(
        np.uint8)).resize((400, 300), Image.BICUBIC)).astype(int) for side in (8, 40)]
    return Image.fromarray(np.clip(sum(layers), 0, 255).astype(np.uint8)).convert("RGB")


def test_spoilt_frames_are_spoilt_and_other_looks_are_not(picture):
    thresholds = quality.Thresholds()
    for change in (pictures.cropped, pictures.nearly_repeated):
        made = change(picture, np.random.RandomState(3))
        assert made.size == picture.size
        assert quality.judge(quality.measure(made), thresholds).factor == 1
    for kind, spoil in pictures.SPOILERS:
        made = spoil(picture, np.random.RandomState(3))
        assert made.size == picture.size
        if kind == "noise":  # which our quality gate does not always see
            assert abs(np.corrcoef(np.ravel(made), np.ravel(picture))[0, 1]) < 0.01
        else:
            assert quality.judge(quality.measure(made), thresholds).factor < 0.6, kind


def test_a_near_repeat_is_much_nearer_than_another_look(picture):
    def difference(change):
        made = change(picture, np.random.RandomState(4)).resize((40, 30), Image.BOX)
        small = picture.resize((40, 30), Image.BOX)
        return np.abs(np.asarray(made).astype(int) - np.asarray(small)).mean()

    assert 3 * difference(pictures.nearly_repeated) < difference(pictures.cropped)


def test_pictures_are_read_as_the_rover_does_and_again_only_when_one_changed(
        picture, tiny, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    found = []
    for number in range(3):
        path = str(tmp_path / ("%d.png" % number))
        picture.rotate(90 * number).save(path)
        found.append(Picture(path, "a", TERRAIN, str(number), ""))
    cache, model = str(tmp_path / "pool.npz"), recipe.load_model(tiny)
    pool = pictures.read(found, model, cache)
    assert pool.embeddings.shape == (3, 48) and pool.measures.shape == (3, 7)
    assert pool.bytes.tolist() == [os.path.getsize(one.path) for one in found]
    with monkeypatch.context() as patched:
        patched.setattr(pictures, "open_embedder", None)  # whoever calls it fails
        again = pictures.read(found, model, cache)
    assert (again.embeddings == pool.embeddings).all()
    picture.rotate(180).save(found[0].path)
    changed = pictures.read(found, model, cache)
    assert (changed.embeddings[0] != pool.embeddings[0]).any()
    assert (changed.embeddings[1:] == pool.embeddings[1:]).all()
