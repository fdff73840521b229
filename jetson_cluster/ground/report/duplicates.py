"""Near-duplicates of a whole archive, by the rule by which the rover finds them among its newest.

In: directions [N, D], which are embeddings at length 1, and each image's reach. Out: for each image the
group of nearly the same images it belongs to. Nothing here holds N x N numbers, nor a copy of the
directions, however large the archive.
"""

import numpy as np

from jetson_cluster.codebook import normalise
from jetson_cluster.ground.report.layout import principal
from jetson_cluster.twins import least_cosines

AXES = 64  # nearest neighbours along so many axes are nearest neighbours
CHECKED = 8  # of an image's nearest along the axes, so many are compared in full
SLACK = 2e-4  # squared distance that float16 and the matrix product may add at the limit
ROWS = 512  # bounds the [rows, N] distances: 61 MB at 30,000 images


def group(directions: np.ndarray, reach: np.ndarray, seed: int) -> np.ndarray:
    """int32 [N]: the lowest row of the group each belongs to; -1 for what is like no other.

    Directions are float16 [N, D], see codebook.normalise. An image joins the one before it that is
    most like it, if that is like enough (see twins.py): as on the rover, but over all images, not the
    last 512.
    """
    before = most_alike_before(directions, reach, seed)
    root = np.arange(len(directions), dtype=np.int32)
    for row in np.flatnonzero(before >= 0):  # rising, so that the one before has its root already
        root[row] = root[before[row]]
    sizes = np.bincount(root, minlength=len(root))
    return np.where(sizes[root] > 1, root, -1).astype(np.int32)


def most_alike_before(directions: np.ndarray, reach: np.ndarray, seed: int) -> np.ndarray:
    """int64 [N]: the earlier row most like each, -1 where none is like enough.

    Distances along a few principal axes are never longer than whole ones, so what is too far apart
    there is out; of the rest the nearest few are measured in full.
    """
    flat = principal(directions, AXES, seed)
    # |x|^2 - 2xy + |y|^2 in one matrix product: passes over N x N / 2 numbers are what takes time.
    squares, ones = np.einsum("nd,nd->n", flat, flat)[:, None], np.ones((len(flat), 1), np.float32)
    left, right = np.hstack([-2 * flat, squares, ones]), np.hstack([flat, ones, squares])
    least = least_cosines(reach.astype(np.float64))
    # Of two directions with the cosine c the squared distance is 2 - 2c.
    most_squared = 2 - 2 * least + SLACK
    found = np.full(len(directions), -1, np.int64)
    for start in range(0, len(directions), ROWS):
        stop = min(start + ROWS, len(directions))
        squared = left[start:stop] @ right[:stop].T
        squared[:, start:][np.triu_indices(stop - start)] = np.inf  # only those before it
        near = squared.min(axis=1) <= most_squared[start:stop]
        for row in np.flatnonzero(near):
            found[start + row] = _best(directions, start + row, squared[row],
                                       least[start + row], most_squared[start + row])
    return found


def _best(directions: np.ndarray, row: int, squared: np.ndarray, least: float, most: float) -> int:
    count = min(CHECKED, len(squared))
    nearest = np.argpartition(squared, count - 1)[:count]
    nearest = np.sort(nearest[squared[nearest] <= most])
    # Normalised once more: float16 has changed their lengths, by more than matters here.
    cosines = normalise(directions[nearest]) @ normalise(directions[row:row + 1])[0]
    best = int(cosines.argmax())
    return int(nearest[best]) if cosines[best] >= least else -1
