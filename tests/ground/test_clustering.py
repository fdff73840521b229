"""Fitting a codebook: the clusters, their scales, and tables from images the clusters never saw."""

import functools
import os
import subprocess
import sys

import numpy as np
import pytest
from embedded import distances, terrain

from jetson_cluster import codebook
from jetson_cluster.errors import UserError
from jetson_cluster.ground import matching, preparing
from jetson_cluster.ground.clustering import clusters_of, fit_codebook, kmeans
from jetson_cluster.ground.held_out import PSEUDO_MEMBERS

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")


def fitted(k=6, seed=0, **kinds):
    embeddings, scenes, _ = terrain(**kinds)
    return fit_codebook(embeddings, scenes, k, seed, "net/layer@0")


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
    folders = [ROOT, os.path.dirname(__file__), os.path.join(ROOT, "tests", "helpers")]
    path = os.pathsep.join(map(os.path.abspath, folders))
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


PREPARATIONS = [(normalisation, components) for normalisation in codebook.NORMALISATIONS
                for components in (0, 12)]


@pytest.mark.parametrize("normalisation, components", PREPARATIONS)
def test_what_the_rover_makes_of_the_file_is_what_was_worked_out_here(
        tmp_path, normalisation, components):
    embeddings, scenes, _ = terrain(scenes=60)
    prepare = functools.partial(preparing.learn, normalisation=normalisation, components=components)
    made = fit_codebook(embeddings, scenes, 7, 0, "net/layer@0", prepare)
    path = str(tmp_path / "codebook.npz")
    codebook.save(path, made.codebook)
    book = codebook.load(path, "net/layer@0", embeddings.shape[1])
    told = book.assess(embeddings)
    np.testing.assert_array_equal(told.cluster, made.cluster)
    # As it is defined, in float64, from the archive itself.
    points = prepare(embeddings).apply(embeddings).astype(np.float64)
    means = np.stack([points[made.cluster == number].mean(axis=0) for number in range(7)])
    apart = np.linalg.norm(points[:, None] - means[None], axis=2)
    np.testing.assert_array_equal(apart.argmin(axis=1), told.cluster)
    np.testing.assert_allclose(told.distance, apart.min(axis=1), rtol=1e-3)
    np.testing.assert_allclose(told.ratio, apart.min(axis=1) / book.scales[told.cluster], rtol=1e-3)
    np.testing.assert_array_equal(book.counts, np.bincount(told.cluster))
    np.testing.assert_allclose(
        book.archive_mean, codebook.normalise(embeddings).mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("normalisation, components", PREPARATIONS)
def test_half_of_a_clusters_new_images_are_within_their_reach_of_its_middle(
        normalisation, components):
    """Two images are as near as is usual within the reach, which is sqrt(2) of that to the middle."""
    embeddings, scenes, _ = terrain(scenes=300)
    embeddings = 5 * codebook.normalise(embeddings)
    prepare = functools.partial(preparing.learn, normalisation=normalisation, components=components)
    book = fit_codebook(embeddings, scenes, 6, 0, "s", prepare).codebook
    points, own = codebook.normalise(embeddings), book.nearest(embeddings, 1).index[:, 0]
    fresh = 5 * codebook.normalise(terrain(scenes=300, seed=5)[0])
    found, fresh_points = book.assess(fresh), codebook.normalise(fresh)
    apart = np.concatenate([np.linalg.norm(
        fresh_points[found.cluster == number] - points[own == number].mean(axis=0), axis=1)
        / found.reach[found.cluster == number] for number in range(6)])
    assert 0.4 < (apart * codebook.REACH < 1).mean() < 0.6


def test_measured_reaches_are_those_that_follow_from_the_scales_where_both_can_be_had():
    embeddings, scenes, _ = terrain(scenes=120)
    plain = fit_codebook(embeddings, scenes, 6, 0, "s").codebook
    # All components and no other normalisation: distances are the same, but nothing says so.
    turned = fit_codebook(embeddings, scenes, 6, 0, "s", lambda part: preparing.learn(
        embeddings, "l2", embeddings.shape[1])).codebook
    one, other = plain.assess(embeddings), turned.assess(embeddings)
    np.testing.assert_array_equal(one.cluster, other.cluster)
    np.testing.assert_allclose(one.reach, other.reach, rtol=5e-3)
    np.testing.assert_allclose(one.ratio, other.ratio, rtol=5e-3)


def test_going_on_from_a_codebook_with_the_same_images_changes_nothing():
    embeddings, scenes, _ = terrain()
    first = fit_codebook(embeddings, scenes, 9, 3, "s")
    again = fit_codebook(embeddings, scenes, 9, 8, "s", like=first.codebook)
    np.testing.assert_array_equal(again.cluster, first.cluster)
    np.testing.assert_allclose(again.codebook.centroids, first.codebook.centroids, atol=1e-6)


@pytest.mark.parametrize("normalisation, components", PREPARATIONS)
def test_going_on_under_another_preparation_begins_with_the_same_clusters(normalisation, components):
    embeddings, scenes, _ = terrain()
    embeddings = 5 * codebook.normalise(embeddings)  # else "none" tells them apart by their length
    first = fit_codebook(embeddings, scenes, 6, 0, "s").codebook
    prepare = functools.partial(preparing.learn, normalisation=normalisation, components=components)
    again = fit_codebook(embeddings, scenes, 6, 1, "s", prepare, first)
    common = matching.shared(first.nearest(embeddings, 1).index[:, 0], again.cluster, 6, 6)
    assert np.trace(common) > 0.8 * len(embeddings)


def test_more_clusters_than_before_begin_where_the_old_ones_are_far():
    embeddings, scenes, kind = terrain(scenes=120)
    known = kind != 2
    old = fit_codebook(embeddings[known], np.array(scenes)[known], 5, 0, "s").codebook
    made = fit_codebook(embeddings, scenes, 6, 0, "s", like=old)
    assert set(made.cluster[~known]) == {5}
    np.testing.assert_allclose(made.codebook.centroids[:5], old.centroids, atol=0.02)


@pytest.mark.parametrize("before", [20, 32])
def test_more_clusters_than_before_are_about_as_good_as_from_a_fresh_start(before):
    random = np.random.default_rng(before)
    kinds = random.normal(size=(40, 24)).astype(np.float32)
    points = codebook.normalise(kinds[random.integers(0, 40, 4000)]
                                + 0.25 * random.normal(size=(4000, 24)).astype(np.float32))

    def inertia(centroids):
        return (distances(points, centroids).min(axis=1) ** 2).sum()

    grown = kmeans(points, 40, 0, kmeans(points, before, 0))
    assert inertia(grown) < 1.05 * inertia(kmeans(points, 40, 0))


def test_clusters_that_the_archive_has_no_image_of_are_left_out_and_the_smallest_if_too_many():
    points = codebook.normalise(np.repeat(np.eye(6, dtype=np.float32), [9, 8, 7, 6, 5, 4], axis=0)
                                + 0.01 * np.random.default_rng(0).standard_normal((39, 6), np.float32))
    elsewhere = -np.eye(6, dtype=np.float32)[:2]
    start = np.concatenate([elsewhere, np.eye(6, dtype=np.float32)])
    found = kmeans(points, 4, 0, start)
    assert found.argmax(axis=1).tolist() == [0, 1, 2, 3]
    assert sorted(kmeans(points, 6, 0, start).argmax(axis=1)) == list(range(6))


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
