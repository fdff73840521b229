"""What `fit` does to embeddings first is learnt from them and goes with the codebook."""

import numpy as np
import pytest
from embedded import terrain

from jetson_cluster import codebook
from jetson_cluster.errors import UserError
from jetson_cluster.ground import preparing


@pytest.mark.parametrize("normalisation", codebook.NORMALISATIONS)
def test_without_components_there_is_nothing_to_learn(normalisation):
    made = preparing.learn(terrain()[0], normalisation, 0)
    assert made.normalisation == normalisation and not made.components.size and not made.mean.size


@pytest.mark.parametrize("normalisation", codebook.NORMALISATIONS)
def test_components_are_the_directions_of_largest_variance(normalisation):
    embeddings = terrain()[0]
    made = preparing.learn(embeddings, normalisation, 5)
    points = codebook.Preparation(normalisation).apply(embeddings).astype(np.float64)
    covariance = np.cov(points.T)
    values, vectors = np.linalg.eigh(covariance)
    told = np.abs((vectors[:, ::-1][:, :5].T * made.components).sum(axis=1))
    np.testing.assert_allclose(told, 1, atol=1e-3)
    np.testing.assert_allclose(made.apply(embeddings).var(axis=0, ddof=1), values[::-1][:5], rtol=1e-2)
    np.testing.assert_allclose(made.mean, points.mean(axis=0), atol=1e-4 * np.abs(points).max())
    np.testing.assert_allclose(made.components @ made.components.T, np.eye(5), atol=1e-5)


def test_the_same_embeddings_give_the_same_preparation_bit_for_bit():
    one, other = (preparing.learn(terrain()[0], "sqrt", 7) for _ in range(2))
    assert one.components.tobytes() == other.components.tobytes()
    assert one.components.dtype == one.mean.dtype == np.float32


def test_of_a_few_images_as_many_components_are_kept_as_there_can_be():
    assert preparing.learn(terrain()[0][:4], "l2", 10).components.shape == (4, 32)


@pytest.mark.parametrize("images, dimension, most", [(20, 32, 20), (200, 32, 32)])
def test_more_components_than_there_can_be_are_refused(images, dimension, most):
    preparing.check(most, images, dimension)
    with pytest.raises(UserError, match="at most %d components" % most):
        preparing.check(most + 1, images, dimension)
