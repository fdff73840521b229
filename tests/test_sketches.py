"""Sketches: distances between embeddings, from 32 whole numbers each, the same everywhere."""

import numpy as np
import pytest

from jetson_cluster import sketches
from jetson_cluster.codebook import normalise
from jetson_cluster.sketches import ENDLESS, NUMBERS, STEPS

EXPECTED = [[225, 39, 68, -337], [167, 75, -27, 109], [-114, -57, 125, 112]]


def some(count=400, dimension=256, seed=0):
    """Embeddings of twenty scenes, of many lengths."""
    random = np.random.RandomState(seed)
    scenes = 0.5 + random.uniform(size=(20, dimension))
    made = scenes[np.arange(count) % 20] + 0.3 * random.normal(size=(count, dimension))
    return (made * random.uniform(0.1, 50, (count, 1))).astype(np.float32)


def distances(sketch, other, known=None):
    everything = np.ones(len(sketch), bool) if known is None else known
    return sketches.sides(sketch, everything)[0] @ sketches.sides(other, everything)[1].T


def test_distances_are_kept_within_an_eighth_in_the_mean_square():
    embeddings = some()
    points = normalise(embeddings).astype(np.float64)
    exact = np.linalg.norm(points[:, None] - points[None, :], axis=2)
    made = sketches.of(embeddings)
    assert made.shape == (400, NUMBERS) and made.dtype == np.int16
    apart = ~np.eye(400, dtype=bool)
    ratio = np.sqrt(distances(made, made))[apart] / STEPS / exact[apart]
    assert 0.95 < ratio.mean() < 1.05 and 0.05 < np.sqrt(((ratio - 1) ** 2).mean()) < 0.14


def test_a_distance_is_the_same_whole_number_in_any_company():
    made = sketches.of(some())
    exact = ((made[:, None].astype(np.int64) - made[None, :]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(distances(made, made), exact)
    np.testing.assert_array_equal(distances(made[7:8], made[7:8]), [[0]])
    places = np.random.RandomState(1).permutation(400)[:77]
    np.testing.assert_array_equal(distances(made[places], made[places]), exact[places][:, places])


def test_what_is_not_known_is_at_no_distance():
    made = sketches.of(some(3))
    found = distances(made, made, np.array([True, False, True]))
    assert (found[1] >= ENDLESS).all() and (found[:, 1] >= ENDLESS).all()
    assert found[0, 0] == 0 and found[0, 2] < ENDLESS


def test_length_does_not_matter_and_neither_does_keeping_it_as_float16():
    embeddings = some(50)
    made = sketches.of(embeddings)
    assert abs(sketches.of(8 * embeddings).astype(int) - made).max() <= 1
    np.testing.assert_array_equal(
        sketches.of(embeddings.astype(np.float16).astype(np.float32)), made)
    assert not sketches.of(np.zeros((2, 256), np.float32)).any()


@pytest.mark.parametrize("dimension", [3, 768, 1280, 2048])
def test_any_number_of_numbers_is_told_in_32(dimension):
    made = sketches.of(some(40, dimension))
    assert made.shape == (40, NUMBERS) and abs(made).max() < 4 * STEPS


def test_the_projection_is_the_one_that_kept_sketches_were_made_with():
    """Another one would make all of a catalog's sketches worthless, on any Python or NumPy."""
    made = sketches.of(np.eye(8, dtype=np.float32)[:3])
    assert made[:, :4].tolist() == EXPECTED


def test_what_is_packed_comes_back():
    made = sketches.of(some(5))
    packed = [sketches.pack(one) for one in made]
    assert {len(one) for one in packed} == {64}
    np.testing.assert_array_equal(sketches.unpack(b"".join(packed)), made)
    assert sketches.unpack(b"").shape == (0, NUMBERS)
