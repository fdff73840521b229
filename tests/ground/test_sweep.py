"""A sweep finds how many kinds there are where that is plain: in words, numbers and a plot."""

import csv
import json

import numpy as np
import pytest
from embedded import terrain
from PIL import Image
from sklearn.metrics import davies_bouldin_score, silhouette_score

from jetson_cluster import codebook
from jetson_cluster.codebook import Preparation
from jetson_cluster.errors import UserError
from jetson_cluster.ground import sweep, sweep_report
from jetson_cluster.ground.clustering import clusters_of
from jetson_cluster.ground.sweep import Trial


def plain_kinds(kinds, images=600, seed=0):
    """float32 [images, 16]: kinds that lie far apart, a little of each."""
    random = np.random.default_rng(seed)
    middles = 4 * random.standard_normal((kinds, 16))
    return (middles[np.arange(images) % kinds]
            + 0.3 * random.standard_normal((images, 16))).astype(np.float32)


@pytest.mark.parametrize("kinds", [4, 8, 16])
@pytest.mark.parametrize("normalisation", codebook.NORMALISATIONS)
def test_where_the_kinds_are_plain_their_number_is_recommended(kinds, normalisation):
    found = sweep.sweep(plain_kinds(kinds), Preparation(normalisation), [2, 4, 8, 16, 32], 0)
    assert found.recommended == kinds
    assert found.reason.startswith("k = %d does best in four measures" % kinds)
    assert "silhouette is best here" in found.reason
    best = next(trial for trial in found.trials if trial.k == kinds)
    assert best.stability > 0.95 and best.silhouette == max(one.silhouette for one in found.trials)


def test_the_measures_are_those_of_their_names():
    embeddings = terrain()[0]
    points = codebook.normalise(embeddings)
    found = sweep.sweep(embeddings, Preparation(), [3, 6, 9], 5)
    for trial in found.trials:
        labels = [clusters_of(embeddings, Preparation(), trial.k, 5 + number)[1] for number in range(3)]
        assert trial.silhouette == pytest.approx(
            np.mean([silhouette_score(points, one) for one in labels]), abs=1e-4)
        assert trial.davies_bouldin == pytest.approx(
            np.mean([davies_bouldin_score(points, one) for one in labels]), rel=1e-3)
        within = [sum(((points[one == c] - points[one == c].mean(axis=0)) ** 2).sum()
                      for c in range(trial.k)) for one in labels]
        assert trial.inertia == pytest.approx(
            np.mean(within) / ((points - points.mean(axis=0)) ** 2).sum(), rel=1e-3)
    assert np.all(np.diff([trial.inertia for trial in found.trials]) < 0)


def test_where_there_are_no_kinds_it_is_said_that_no_k_stands_out():
    noise = np.random.default_rng(0).standard_normal((900, 64)).astype(np.float32)
    found = sweep.sweep(noise, Preparation(), [4, 16, 64], 0)
    assert "no k stands out" in found.reason
    assert "no k stands out" not in sweep.sweep(plain_kinds(8), Preparation(), [4, 8, 16], 0).reason


def trials(*rows):
    return [Trial(*row) for row in rows]


def test_the_elbow_is_where_inertia_stops_to_fall_fast():
    flat = (0.1, 1.0, 0.9)
    made = trials((8, 1.0, *flat), (16, 0.3, *flat), (32, 0.2, *flat), (64, 0.1, *flat))
    assert sweep.recommend(made, 10 ** 6)[0] == 16
    assert "the elbow of inertia is best here" in sweep.recommend(made, 10 ** 6)[1]


def test_three_measures_outvote_one_and_the_reason_says_which_disagrees():
    made = trials((8, 0.9, 0.1, 2.0, 0.95), (16, 0.5, 0.4, 1.0, 0.9), (32, 0.45, 0.3, 1.5, 0.5))
    k, reason = sweep.recommend(made, 10 ** 6)
    assert k == 16 and "stability over seeds is best at 8" in reason
    assert "silhouette is best here" in reason and "inertia 50 % of that of one cluster" in reason


def test_k_that_leave_few_images_a_cluster_are_not_recommended():
    made = trials((4, 0.9, 0.1, 2.0, 0.6), (8, 0.6, 0.2, 1.5, 0.7), (16, 0.5, 0.2, 1.5, 0.7),
                  (64, 0.1, 0.9, 0.1, 1.0))
    k, reason = sweep.recommend(made, 200)
    assert k in (8, 16) and "1 larger k would leave fewer than 10 images a cluster" in reason
    k, reason = sweep.recommend(made, 90)
    assert k == 4 and "too few" in reason
    k, reason = sweep.recommend(made, 640)
    assert k == 64 and "it is the largest that was tried: try larger ones as well" in reason


def test_the_k_of_a_sweep_are_in_equal_ratios():
    assert sweep.span("16:512", 6) == [16, 32, 64, 128, 256, 512]
    assert sweep.span("2:5", 64) == [2, 3, 4, 5]


@pytest.mark.parametrize("text, steps, told", [
    ("16", 8, "as in 16:512"), ("a:b", 8, "as in 16:512"), ("1:9", 8, "2 or more"),
    ("9:9", 8, "2 or more"), ("9:4", 8, "2 or more"), ("4:9", 2, "fewest"), ("4:5", 8, "fewest")])
def test_a_range_that_is_none_is_one_clear_line(text, steps, told):
    with pytest.raises(UserError, match=told) as refused:
        sweep.span(text, steps)
    assert "\n" not in str(refused.value)


def test_more_clusters_than_images_is_one_clear_line():
    with pytest.raises(UserError, match="only 40 different images"):
        sweep.sweep(plain_kinds(4, 40), Preparation(), [4, 20, 40], 0)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_an_archive_of_copies_is_swept_without_a_stumble():
    found = sweep.sweep(np.ones((60, 8), np.float32), Preparation(), [2, 3, 4], 0)
    assert all(np.isfinite(trial).all() for trial in found.trials)


def test_what_was_found_stands_in_a_table_a_plot_and_json(tmp_path):
    found = sweep.sweep(plain_kinds(4), Preparation(), [2, 4, 8], 0)
    stem = str(tmp_path / "codebook.sweep")
    written = sweep_report.write(stem, found, {"images": 600})
    assert written == [stem + ".csv", stem + ".json", stem + ".png"]
    with open(written[0], newline="") as stream:
        rows = list(csv.DictReader(stream))
    with open(written[1]) as stream:
        held = json.load(stream)
    assert [int(row["k"]) for row in rows] == [trial["k"] for trial in held["trials"]] == [2, 4, 8]
    assert float(rows[1]["silhouette"]) == pytest.approx(found.trials[1].silhouette)
    assert (held["recommended"], held["reason"], held["images"]) == (4, found.reason, 600)
    with Image.open(written[2]) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
        assert image.size == (900, 600)
    for colour in ((0x1f, 0x6f, 0x8b), (0xc8, 0x55, 0x3d)):  # the curves, and what is recommended
        assert (np.abs(pixels - colour).sum(axis=1) < 10).sum() > 100


def test_every_measure_is_drawn_over_k_and_the_recommended_k_marked_in_each():
    found = sweep.sweep(plain_kinds(4), Preparation(), [2, 4, 8], 0)
    panels = sweep_report.plot(found).axes
    assert len(panels) == 4
    for panel, name in zip(panels, ("inertia", "silhouette", "davies_bouldin", "stability")):
        curve, mark = panel.lines
        np.testing.assert_allclose(curve.get_xdata(), [2, 4, 8])
        np.testing.assert_allclose(curve.get_ydata(), [getattr(one, name) for one in found.trials])
        assert list(mark.get_xdata()) == [4, 4]
    table = [sweep_report.heading()] + [sweep_report.line(trial) for trial in found.trials]
    assert len({len(line) for line in table}) == 1
