"""The nearest centroids of points, exactly, on the processor.

In: points and centroids of one space, float32. Out: which are nearest and how far, as all differences
would have it, at the cost of one matrix product.
"""

from typing import NamedTuple

import numpy as np

# The matrix product's rounding changes a gap between squared distances by up to 2.8e-6 of
# |x|^2 + |c|^2 (measured, D to 4095).
ROUNDING = 4e-6
CHUNK_ROWS = 2048  # bounds the [chunk, k] score matrix: 4 MB at k = 512


class Nearest(NamedTuple):
    """For N embeddings, their n nearest centroids, nearest first; ties to the lower index."""

    index: np.ndarray  # int32 [N, n]
    distance: np.ndarray  # float32 [N, n], Euclidean


def half_squared_lengths(centroids: np.ndarray) -> np.ndarray:
    """float32 [k] of centroids float32 [k, D], as `nearest` needs them."""
    return 0.5 * np.einsum("kd,kd->k", centroids, centroids)


def nearest(points: np.ndarray, centroids: np.ndarray, half_norms: np.ndarray,
            neighbours: int) -> Nearest:
    """The `neighbours` (at most k) nearest of centroids float32 [k, D] to points float32 [N, D].

    Squared distances come from one matrix product, |x|^2 - 2xc + |c|^2. That loses digits where the
    distance, or the gap between two, is small against |x|^2, so such rows are measured again
    from the differences themselves.
    """
    neighbours = min(neighbours, len(centroids))
    if len(points) == 1:
        found, squared = _nearest_to_one(points[0], centroids, half_norms, neighbours)
        return Nearest(found[None].astype(np.int32), np.sqrt(squared)[None])
    index = np.empty((len(points), neighbours), np.int32)
    distance = np.empty((len(points), neighbours), np.float32)
    for start in range(0, len(points), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        index[part], distance[part] = _nearest_chunk(
            points[part], centroids, half_norms, neighbours)
    return Nearest(index, distance)


def _nearest_to_one(point, centroids, half_norms, neighbours):
    """(indices, squared distances) for one point: few calls, for they cost more than the numbers."""
    closeness = np.dot(centroids, point)  # a fifth faster than @ for one vector
    closeness -= half_norms
    last = len(closeness) - neighbours
    edge = np.partition(closeness, last)[last]
    doubt = ROUNDING * (0.5 * np.dot(point, point) + half_norms.max())
    return _measured(point, centroids, np.flatnonzero(closeness >= edge - doubt), neighbours)


def _nearest_chunk(points, centroids, half_norms, neighbours):
    closeness = points @ centroids.T
    closeness -= half_norms  # largest where the distance is smallest
    # One more than asked for, where there is one: a near-tie at the edge must be seen as one.
    candidates = min(neighbours + 1, len(centroids))
    rows = np.arange(len(points))
    index = np.empty((len(points), candidates), np.int32)
    best = np.empty((len(points), candidates), np.float32)
    for place in range(candidates):  # argmax gives the lower index on a tie
        index[:, place] = closeness.argmax(axis=1)
        best[:, place] = closeness[rows, index[:, place]]
        closeness[rows, index[:, place]] = -np.inf
    norms = np.einsum("nd,nd->n", points, points)[:, None]
    squared = norms - 2 * best
    doubt = ROUNDING * (norms + 2 * half_norms[index])
    unsure = (squared < 1000 * doubt).any(axis=1)
    close = np.diff(squared, axis=1) < doubt[:, 1:]
    unsure |= close.any(axis=1)
    _measure_again(points, centroids, index, squared, np.flatnonzero(unsure))
    if candidates > neighbours:
        edge = best[:, neighbours - 1] - doubt[:, neighbours - 1] / 2
        for row in np.flatnonzero(close[:, -1]):
            # A tie at the edge may go on beyond the candidates, whose closeness is -inf by now.
            others = np.flatnonzero(closeness[row] >= edge[row])
            if len(others):
                index[row], squared[row] = _measured(
                    points[row], centroids, np.concatenate([index[row], others]), candidates)
    return index[:, :neighbours], np.sqrt(np.maximum(squared[:, :neighbours], 0))


def _measure_again(points, centroids, index, squared, rows):
    """Put the candidates of `rows` in order by their differences, in place."""
    exact = np.empty((len(rows), index.shape[1]), np.float32)
    for place in range(index.shape[1]):
        difference = points[rows] - centroids[index[rows, place]]
        exact[:, place] = np.einsum("nd,nd->n", difference, difference)
    order = np.lexsort((index[rows], exact), axis=1)
    index[rows] = np.take_along_axis(index[rows], order, axis=1)
    squared[rows] = np.take_along_axis(exact, order, axis=1)


def _measured(point, centroids, candidates, most):
    """The nearest `most` of `candidates` to one point, by differences: (indices, squared)."""
    difference = point - centroids[candidates]
    exact = np.einsum("nd,nd->n", difference, difference)
    order = np.lexsort((candidates, exact))[:most]
    return candidates[order], exact[order]
