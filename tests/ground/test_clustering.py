"""Fitting a codebook: the clusters, their scales, and tables from images the clusters never saw."""

import os
import subprocess
import sys

import numpy as np
import pytest

from jetson_cluster import codebook
from jetson_cluster.errors import UserError
from jetson_cluster.ground.clustering import (
    FOLDS,
    PSEUDO_MEMBERS,
    assign_folds,
    cross_validate,
    fit_codebook,
    kmeans,
    scales,
)

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")


def terrain(kinds=6, scenes=40, shots=5, dimension=32, seed=0):
    """(embeddings, scene names, kind of each): scenes of a few kinds, shots of a scene alike."""
    rng = np.random.default_rng(seed)
    centres = 2.0 * np.random.default_rng(99).standard_normal((kinds, dimension))
    kind = np.repeat(rng.integers(0, kinds, scenes), shots)
    views = centres[kind] + np.repeat(rng.standard_normal((scenes, dimension)), shots, axis=0)
    views += 0.15 * rng.standard_normal(views.shape)
    lengths = rng.uniform(0.5, 20.0, (len(views), 1))
    names = ["sol%03d" % scene for scene in np.repeat(np.arange(scenes), shots)]
    return (views * lengths).astype(np.float32), names, kind


def fitted(k=6, seed=0, **kinds):
    embeddings, scenes, _ = terrain(**kinds)
    return fit_codebook(embeddings, scenes, k, seed, "net/layer@0")


def distances(points, centroids):
    """float64 [N, k], the slow way."""
    return np.linalg.norm(points[:, None, :].astype(float) - centroids[None].astype(float), axis=2)


def test_a_cluster_holds_one_kind_of_terrain_where_the_kinds_are_plain():
    embeddings, scenes, kind = terrain(scenes=60)
    made = fit_codebook(embeddings, scenes, 18, 0, "s").codebook
    cluster = made.nearest(embeddings, 1).index[:, 0]
    kinds_in = [set(kind[cluster == c]) for c in range(18)]
    assert all(len(kinds) == 1 for kinds in kinds_in)
    assert set().union(*kinds_in) == set(kind)
    assert made.counts.tolist() == np.bincount(cluster, minlength=18).tolist()


def test_the_same_input_and_seed_give_the_same_codebook_bit_for_bit():
    one, other = fitted().codebook, fitted().codebook
    assert one.identity == other.identity
    for field in one._fields:
        assert np.array_equal(getattr(one, field), getattr(other, field)), field


def test_another_process_gives_the_same_codebook_bit_for_bit():
    program = "from test_clustering import fitted; print(fitted().codebook.identity)"
    path = os.pathsep.join([os.path.abspath(ROOT), os.path.dirname(os.path.abspath(__file__))])
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True,
                            text=True, env=dict(os.environ, PYTHONPATH=path))
    assert answer.stdout.strip() == fitted().codebook.identity


def test_another_seed_starts_elsewhere():
    points = codebook.normalise(terrain(kinds=40, scenes=80)[0])
    assert not np.array_equal(kmeans(points, 12, 0), kmeans(points, 12, 1))


def test_the_length_of_an_embedding_does_not_matter_and_the_input_stays_as_it_was():
    embeddings, scenes, _ = terrain()
    before = embeddings.copy()
    made = fit_codebook(embeddings, scenes, 6, 0, "s").codebook
    assert np.array_equal(embeddings, before)
    doubled = fit_codebook(embeddings * 2, scenes, 6, 0, "s").codebook
    assert doubled.identity == made.identity


def test_centroids_are_the_means_of_their_images():
    embeddings, scenes, _ = terrain()
    made = fit_codebook(embeddings, scenes, 6, 0, "s").codebook
    points = codebook.normalise(embeddings)
    cluster = distances(points, made.centroids).argmin(axis=1)
    for c in range(made.k):
        assert np.allclose(made.centroids[c], points[cluster == c].mean(axis=0), atol=1e-5)


def test_more_clusters_than_images_is_refused_with_both_numbers():
    embeddings, scenes, _ = terrain(scenes=2)
    with pytest.raises(UserError, match=r"\b11\b.*\b10\b") as refused:
        fit_codebook(embeddings, scenes, 11, 0, "s")
    assert "\n" not in str(refused.value)


def test_no_images_at_all_is_refused():
    with pytest.raises(UserError, match=r"\b3\b.*\b0\b"):
        fit_codebook(np.empty((0, 8), np.float32), [], 3, 0, "s")


def test_few_images_for_the_clusters_is_said():
    assert any("-k 20 " in note for note in fitted(k=100).notes)
    assert not any("-k" in note for note in fitted(k=20).notes)


@pytest.mark.parametrize("count", [1, 9])
def test_one_cluster_of_few_images_is_not_told_to_be_one_cluster(count):
    made = fit_codebook(terrain()[0][:count], ["s"] * count, 1, 0, "s")
    assert made.notes[0].startswith("%d images are few for 1 cluster; more of them " % count)
    assert not any("-k" in note for note in made.notes)


@pytest.mark.parametrize("count, k", [(1, 1), (2, 1), (2, 2), (3, 2), (5, 5), (7, 3)])
def test_a_handful_of_images_still_makes_a_codebook_that_loads(tmp_path, count, k):
    embeddings = terrain()[0][:: 5][:count]
    made = fit_codebook(embeddings, ["s"] * count, k, 0, "net/layer@0")
    path = str(tmp_path / "codebook.npz")
    codebook.save(path, made.codebook)
    assert codebook.load(path, "net/layer@0").identity == made.codebook.identity
    assert made.notes


@pytest.mark.parametrize("k", [1, 2, 8])
def test_an_archive_of_copies_makes_a_usable_codebook(tmp_path, k):
    embeddings = np.repeat(terrain()[0][:1], 40, axis=0)
    made = fit_codebook(embeddings, [str(i // 4) for i in range(40)], k, 0, "s").codebook
    path = str(tmp_path / "codebook.npz")
    codebook.save(path, made)
    found = codebook.load(path).assess(embeddings[:3])
    assert made.counts.sum() == 40
    for field in ("distance", "ratio", "novelty", "representative", "soft_weight"):
        assert np.isfinite(getattr(found, field)).all(), field


def test_more_clusters_than_different_images_leaves_no_centroid_without_a_place():
    embeddings = np.repeat(terrain()[0][::50], 20, axis=0)  # 4 different images, 20 copies each
    made = fit_codebook(embeddings, [str(i // 5) for i in range(80)], 16, 0, "s").codebook
    assert np.isfinite(made.centroids).all() and (made.scales > 0).all()
    assert made.counts.sum() == 80
    assert made.nearest(embeddings, 1).distance.max() < 1e-2


def test_a_row_of_zeros_is_an_image_like_any_other():
    embeddings, scenes, _ = terrain()
    embeddings[7] = 0
    made = fit_codebook(embeddings, scenes, 6, 0, "s").codebook
    assert np.isfinite(made.centroids).all() and made.counts.sum() == len(embeddings)


def test_scales_are_the_mean_distance_unbiased_and_drawn_toward_the_global_one():
    embeddings, scenes, _ = terrain(kinds=3, scenes=30)
    made = fit_codebook(embeddings, scenes, 9, 0, "s").codebook
    apart = distances(codebook.normalise(embeddings), made.centroids)
    cluster, distance = apart.argmin(axis=1), apart.min(axis=1)
    members = [distance[cluster == c] for c in range(9)]
    unbiased = [part.sum() / (len(part) - 1) for part in members]
    overall = sum(len(p) * u for p, u in zip(members, unbiased)) / len(distance)
    for c, (part, mean) in enumerate(zip(members, unbiased)):
        assert len(part) > 1
        mu = (len(part) * mean + PSEUDO_MEMBERS * overall) / (len(part) + PSEUDO_MEMBERS)
        assert made.scales[c] == pytest.approx(np.sqrt(mu * overall), rel=1e-4)


def test_a_small_clusters_scale_is_drawn_to_the_global_one_as_by_ten_more_images():
    # Two clusters of ten: 5.4 / 9 = 0.6 and 1.8 / 9 = 0.2, together 0.4; with ten more of 0.4 each
    # 0.5 and 0.3; the scales are the roots of 0.5 x 0.4 and 0.3 x 0.4.
    found = codebook.Nearest(np.repeat([[0], [1]], 10, axis=0).astype(np.int32),
                             np.repeat([[0.54], [0.18]], 10, axis=0).astype(np.float32))
    assert scales(found, 2).tolist() == pytest.approx([0.4472136, 0.3464102])


def test_a_cluster_of_one_image_takes_the_global_scale():
    found = codebook.Nearest(np.array([[0], [0], [0], [1]], np.int32),
                             np.array([[0.2], [0.4], [0.6], [0.0]], np.float32))
    assert scales(found, 3).tolist() == pytest.approx([0.6, 0.6, 0.6])


def test_no_scene_is_in_two_folds_and_folds_are_about_one_size():
    scenes = ["a"] * 30 + ["b"] * 3 + list("cdefghij") * 4 + ["k"] * 20
    folds = assign_folds(scenes, [])
    homes = {scene: {int(f) for f, s in zip(folds, scenes) if s == scene} for scene in scenes}
    assert all(len(home) == 1 for home in homes.values())
    sizes = np.bincount(folds, minlength=FOLDS)
    assert sizes.sum() == len(scenes) and sizes.max() - sizes.min() <= 4


def test_folds_do_not_depend_on_chance_or_on_the_order_of_images():
    scenes = terrain(scenes=20)[1]
    folds = assign_folds(scenes, [])
    assert np.array_equal(folds, assign_folds(scenes, []))
    turned = np.random.default_rng(3).permutation(len(scenes))
    assert np.array_equal(folds[turned], assign_folds([scenes[i] for i in turned], []))


def test_with_too_few_scenes_neighbouring_images_stay_together_and_it_is_said():
    notes = []
    folds = assign_folds(["a"] * 150 + ["b"] * 150, notes)
    assert len(notes) == 1 and "too few" in notes[0]
    assert set(folds) == set(range(FOLDS))
    assert np.count_nonzero(np.diff(folds)) < 60
    assert any("too few" in note for note in fitted(scenes=2, shots=50).notes)
    assert not fitted().notes


def test_images_held_out_by_scene_look_less_familiar_than_by_chance():
    embeddings, scenes, _ = terrain(kinds=40, scenes=60)
    points = codebook.normalise(embeddings)
    by_scene = cross_validate(points, assign_folds(scenes, []), 40, 0)
    by_chance = cross_validate(points, np.arange(len(points)) % FOLDS, 40, 0)
    assert np.median(by_scene.ratio) > 1.2 * np.median(by_chance.ratio)


def test_every_image_is_held_out_once():
    points = codebook.normalise(terrain(scenes=31)[0])
    held_out = cross_validate(points, assign_folds(terrain(scenes=31)[1], []), 6, 0)
    assert len(held_out.ratio) == len(held_out.margin) == len(points)


def test_tables_rise_and_r50_and_r95_are_theirs():
    made = fitted().codebook
    for table in (made.novelty_quantiles, made.margin_quantiles):
        assert table.shape == (65,) and (np.diff(table) >= 0).all()
    assert made.r50 == pytest.approx(made.novelty_quantiles[32], rel=1e-6)
    assert made.novelty_quantiles[60] <= made.r95 <= made.novelty_quantiles[61]
    assert 0 <= made.margin_quantiles[0] and made.margin_quantiles[-1] <= 1


def test_novelty_of_new_scenes_of_the_same_terrain_is_spread_evenly():
    made = fitted(scenes=200).codebook
    fresh = made.assess(terrain(scenes=200, seed=1)[0])
    familiar = np.sort(fresh.ratio)
    quantile = np.interp(familiar, made.novelty_quantiles, np.linspace(0, 1, 65))
    assert np.abs(quantile - np.linspace(0, 1, len(quantile))).max() < 0.12
    assert 0.01 < fresh.far.mean() < 0.12


def test_terrain_the_archive_lacks_is_beyond_r95():
    embeddings, scenes, kind = terrain(scenes=120)
    known = kind != 2
    made = fit_codebook(embeddings[known], np.array(scenes)[known], 5, 0, "s").codebook
    assert made.assess(embeddings[~known]).far.mean() > 0.9


def test_every_large_array_is_float32_and_the_space_is_kept():
    made = fitted().codebook
    for field in ("centroids", "scales", "novelty_quantiles", "margin_quantiles"):
        assert getattr(made, field).dtype == np.float32, field
    assert made.space == "net/layer@0" and made.normalisation == "l2"
