"""An archive larger than k-means needs is sampled, and every image is placed all the same."""

import numpy as np
import pytest
from embedded import terrain

from jetson_cluster.ground import sampling
from jetson_cluster.ground.clustering import fit_codebook
from jetson_cluster.ground.sampling import IMAGES_PER_CENTROID


def test_all_images_are_taken_up_to_so_many_for_each_centroid():
    most = 3 * IMAGES_PER_CENTROID
    assert sampling.choose(most, 3, 0).indices.tolist() == list(range(most))
    assert sampling.choose(most, 3, 0).words == ""
    sample = sampling.choose(most + 1, 3, 0)
    assert len(set(sample.indices.tolist())) == most and (np.diff(sample.indices) > 0).all()
    assert sample.words.startswith(
        "%d of %d images are clustered, 512 for each of 3 centroids" % (most, most + 1))


def test_a_sample_is_drawn_evenly_and_by_the_seed():
    drawn = sampling.choose(200000, 10, 1).indices
    assert np.abs(np.histogram(drawn, 10, (0, 200000))[0] - 512).max() < 5 * 512 ** 0.5
    assert (drawn == sampling.choose(200000, 10, 1).indices).all()
    assert (drawn != sampling.choose(200000, 10, 2).indices).any()


@pytest.mark.parametrize("at_once", [1, 7, 8192])
def test_every_image_is_placed_and_counted_and_those_of_the_sample_as_held_out(monkeypatch, at_once):
    monkeypatch.setattr(sampling, "AT_ONCE", at_once)
    embeddings, scenes, _ = terrain()
    drawn = np.sort(np.random.default_rng(0).choice(len(embeddings), 120, replace=False))
    fitted = fit_codebook(embeddings[drawn], [scenes[place] for place in drawn], 6, 0, "s")
    asked = []

    def read(part):
        asked.extend(part)
        return embeddings[list(part)]

    book, placed = sampling.place_all(len(embeddings), read, fitted.codebook,
                                      sampling.Sample(drawn, "some"), fitted.ratio)
    assert asked == list(range(len(embeddings)))
    told = book.assess(embeddings)
    np.testing.assert_array_equal(placed.cluster, told.cluster)
    assert book.counts.tolist() == np.bincount(told.cluster, minlength=6).tolist()
    others = np.setdiff1d(np.arange(len(embeddings)), drawn)
    np.testing.assert_allclose(placed.ratio[others], told.ratio[others], rtol=1e-4)
    np.testing.assert_array_equal(placed.ratio[drawn], fitted.ratio)
    assert (placed.ratio[drawn] != told.ratio[drawn]).mean() > 0.9
