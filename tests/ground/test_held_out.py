"""How far images are from clusters made without them: scales, folds, comparisons."""

import functools

import numpy as np
import pytest
from embedded import terrain

from jetson_cluster import codebook
from jetson_cluster.codebook import Preparation
from jetson_cluster.ground import preparing
from jetson_cluster.ground.clustering import clusters_of
from jetson_cluster.ground.held_out import FOLDS, assign_folds, compare, cross_validate, scales


def six(part, k=6, prepare=lambda part: Preparation()):
    """The clusters of embeddings."""
    return clusters_of(part, prepare(part), k, 0)[0]


def test_a_small_clusters_scale_is_drawn_to_the_global_one_as_by_ten_more_images():
    # Two clusters of ten: 5.4 / 9 = 0.6 and 1.8 / 9 = 0.2, together 0.4; with ten more of 0.4 each
    # 0.5 and 0.3; the scales are the roots of 0.5 x 0.4 and 0.3 x 0.4.
    cluster, distance = np.repeat([0, 1], 10), np.repeat([0.54, 0.18], 10).astype(np.float32)
    assert scales(cluster, distance, 2).tolist() == pytest.approx([0.4472136, 0.3464102])


def test_a_cluster_of_one_image_takes_the_global_scale():
    distance = np.array([0.2, 0.4, 0.6, 0.0], np.float32)
    assert scales(np.array([0, 0, 0, 1]), distance, 3).tolist() == pytest.approx([0.6, 0.6, 0.6])


def test_no_scene_is_in_two_folds_and_folds_are_about_one_size():
    scenes = ["a"] * 12 + ["b"] * 3 + list("cdefghij") * 6 + ["k"] * 10
    folds = assign_folds(scenes, [])
    homes = {scene: {int(f) for f, s in zip(folds, scenes) if s == scene} for scene in scenes}
    assert all(len(home) == 1 for home in homes.values())
    sizes = np.bincount(folds, minlength=FOLDS)
    assert sizes.sum() == len(scenes) and sizes.max() - sizes.min() <= 4


def test_a_folder_with_most_of_the_images_is_no_one_scene_and_that_is_said():
    notes = []
    scenes = ["all"] * 540 + list("abcde") * 12
    folds = assign_folds(scenes, notes)
    sizes = np.bincount(folds, minlength=FOLDS)
    assert sizes.max() - sizes.min() <= 100
    assert all(len(set(folds[540 + number::5])) == 1 for number in range(5))
    assert np.count_nonzero(np.diff(folds[:540])) == 5  # runs of neighbours
    assert len(notes) == 1 and notes[0].startswith("1 folders hold more than a sixth")


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


def test_images_held_out_by_scene_look_less_familiar_than_by_chance():
    embeddings, scenes, _ = terrain(kinds=40, scenes=60)
    forty = functools.partial(six, k=40)
    by_scene = cross_validate(embeddings, assign_folds(scenes, []), forty)
    by_chance = cross_validate(embeddings, np.arange(len(embeddings)) % FOLDS, forty)
    assert np.median(by_scene.ratio) > 1.2 * np.median(by_chance.ratio)


def test_every_image_is_held_out_once_and_its_numbers_stand_in_its_place():
    embeddings, scenes, _ = terrain(scenes=31)
    folds = assign_folds(scenes, [])
    held_out = cross_validate(embeddings, folds, six)
    for fold in range(FOLDS):
        alone = compare(embeddings[folds == fold], six(embeddings[folds != fold]))
        for whole, part in zip(held_out, alone):
            np.testing.assert_array_equal(whole[folds == fold], part)


def test_a_fold_that_would_leave_one_image_leaves_none_held_out():
    assert cross_validate(terrain()[0][:2], np.array([0, 1]), functools.partial(six, k=1)) is None


def test_plain_embeddings_are_as_far_from_middles_as_from_centroids():
    embeddings, scenes, _ = terrain()
    made = six(embeddings)
    found = compare(embeddings, made)
    assert made.middles is made.centroids and found.middle_ratio is found.ratio


@pytest.mark.parametrize("normalisation", codebook.NORMALISATIONS)
@pytest.mark.parametrize("components", [0, 10])
def test_middles_are_the_means_of_the_clusters_images_at_length_one(normalisation, components):
    embeddings, scenes, _ = terrain()
    preparation = preparing.learn(embeddings, normalisation, components)
    made, cluster = clusters_of(embeddings, preparation, 6, 0)
    points, found = codebook.normalise(embeddings), compare(embeddings, made)
    for number in range(6):
        own = points[cluster == number]
        np.testing.assert_allclose(made.middles[number], own.mean(axis=0), atol=1e-5)
        apart = np.linalg.norm(own - own.mean(axis=0), axis=1)
        np.testing.assert_allclose(found.middle_ratio[cluster == number] * made.middle_scales[number],
                                   apart, atol=1e-4)


def test_turning_all_embeddings_changes_no_distance():
    embeddings, scenes, _ = terrain()
    whole = preparing.learn(embeddings, "l2", embeddings.shape[1])  # only turns
    turned, plain = (clusters_of(embeddings, one, 6, 0) for one in (whole, Preparation()))
    np.testing.assert_array_equal(turned[1], plain[1])
    np.testing.assert_allclose(turned[0].scales, plain[0].scales, rtol=1e-3)
    np.testing.assert_allclose(turned[0].middle_scales, plain[0].scales, rtol=1e-3)
