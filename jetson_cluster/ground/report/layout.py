"""Where each image lies on the map: alike images near one another, on a plane.

In: points float32 [N, d], as the codebook sees them. Out: places float32 [N, 2] in 0..1, by UMAP (which
keeps neighbours together and tears what is far apart) or by PCA (which keeps directions and is quick).
"""

import importlib.util

import numpy as np
from sklearn.decomposition import PCA

from jetson_cluster.errors import UserError

KINDS = ("umap", "pca")
AXES = 50  # what UMAP is given: of 2,048 numbers the rest is noise to it, and costs most of its time
SAMPLE = 10000  # axes from so many images are those of all
CHUNK_ROWS = 2048  # bounds what is held in float32 at a time: 16 MB of 2,048 numbers each
NEIGHBOURS = 15  # UMAP's own default: local shape against the whole
LEAST_DISTANCE = 0.5  # with its default, 0.1, a kind of terrain is a speck one cannot draw around
LEAST_FOR_UMAP = 8  # fewer have no neighbourhoods to keep
ROUNDING = 1e-3  # of the longest axis: less is what float16 makes of points on a line


def check_available(kind: str) -> None:
    """Raise UserError where the library for this kind of map is absent: told before hours of work."""
    if kind == "umap" and importlib.util.find_spec("umap") is None:
        raise UserError("--map umap: the library umap-learn is not installed; install "
                        "'jetson-cluster[ground]', or use --map pca")


def principal(points: np.ndarray, axes: int, seed: int) -> np.ndarray:
    """float32 [N, at most `axes`]: float16 or float32 points [N, d] along where they differ most.

    The directions are orthonormal: two points are never farther apart here than they were.
    """
    step = -(-len(points) // SAMPLE)
    sample = points[::step].astype(np.float32)
    most = min(axes, *sample.shape)
    if not np.ptp(sample, axis=0).any():  # one image, or copies of one: there is no direction
        return np.zeros((len(points), most), np.float32)
    # The randomised solver is for few axes of many numbers; else the exact one is as quick.
    solver = "randomized" if most < 0.5 * min(sample.shape) else "full"
    fitted = PCA(most, svd_solver=solver, random_state=seed).fit(sample)
    flat = np.empty((len(points), most), np.float32)
    for start in range(0, len(points), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        flat[rows] = (points[rows] - fitted.mean_) @ fitted.components_.T
    return flat


def place(points: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """The map: float32 [N, 2], each in 0..1, the longer side filled. Same seed, same map.

    UMAP: McInnes, Healy and Melville, 2018, on the first 50 principal axes. Few images, and those that
    lie on a line or in one point, have the map of PCA.
    """
    if kind == "umap" and len(points) >= LEAST_FOR_UMAP:
        flat = principal(points, AXES, seed)
        if _varying(flat) > 1:
            return _into_unit(_umap(flat, seed))
    flat = principal(points, 2, seed)
    return _into_unit(np.pad(flat, ((0, 0), (0, 2 - flat.shape[1]))))


def _varying(flat: np.ndarray) -> int:
    sizes = np.ptp(flat, axis=0)
    return int(np.count_nonzero(sizes > ROUNDING * sizes.max()))


def _umap(points: np.ndarray, seed: int) -> np.ndarray:
    import umap  # compiles for seconds when it is imported

    # From the principal axes, not from the graph's spectrum: the same on every computer, and what
    # lies far apart begins far apart. One thread: with more no two maps are the same.
    return umap.UMAP(
        n_neighbors=min(NEIGHBOURS, len(points) - 1), min_dist=LEAST_DISTANCE, init="pca",
        random_state=seed, n_jobs=1).fit_transform(points)


def _into_unit(places: np.ndarray) -> np.ndarray:
    low, high = places.min(axis=0), places.max(axis=0)
    size = max(float((high - low).max()), np.finfo(np.float32).tiny)
    return (0.5 + (places - (low + high) / 2) / size).clip(0, 1).astype(np.float32)
