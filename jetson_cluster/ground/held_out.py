"""How images fit clusters that were made without them: what is ordinary, measured honestly.

In: embeddings, and which of them were taken together. Out: for every image how far it is from clusters
made of the others, in the terms of the codebook. An image's own cluster would say too little: its
centroid leans toward it, and a neighbour of the same scene leans with it.
"""

from typing import Callable, List, NamedTuple, Optional, Sequence

import numpy as np

from jetson_cluster import codebook
from jetson_cluster.codebook import Preparation, normalise
from jetson_cluster.lookup import CHUNK_ROWS

FOLDS = 3
LEAST_SCENES = 2 * FOLDS  # with fewer, one scene would be most of a fold
BLOCKS_PER_FOLD = 10
PSEUDO_MEMBERS = 10  # a small cluster's mean distance is drawn toward the global one by so many
LEAST_SCALE = 1e-6  # an archive of copies has no spread; a scale must still be positive


class Clusters(NamedTuple):
    """Clusters, and how far their images are from them: as prepared, and as ranking compares them."""

    preparation: Preparation
    centroids: np.ndarray  # float32 [k, d], of prepared embeddings
    scales: np.ndarray  # float32 [k], see `scales`
    middles: np.ndarray  # float32 [k, D], means of embeddings of length 1
    middle_scales: np.ndarray  # float32 [k], of the distances to those


class HeldOut(NamedTuple):
    """How n images fit clusters that were made without them."""

    ratio: np.ndarray  # float32 [n], distance to the nearest centroid / its scale
    margin: np.ndarray  # float32 [n], 1 - nearest distance / second distance
    middle_ratio: np.ndarray  # float32 [n], as `ratio`, of embeddings of length 1


def clusters_around(embeddings: np.ndarray, preparation: Preparation, centroids: np.ndarray,
                    cluster: np.ndarray, distance: np.ndarray) -> Clusters:
    """What is to be known of clusters that raw embeddings float32 [N, D] were put into.

    `cluster` int [N] and `distance` float32 [N] are the nearest centroid of each and how far it is.
    """
    k = len(centroids)
    spread = scales(cluster, distance, k)
    if preparation.is_plain:
        return Clusters(preparation, centroids, spread, centroids, spread)
    points = normalise(embeddings)
    middles = np.zeros((k, points.shape[1]), np.float32)
    for number in np.unique(cluster):
        middles[number] = points[cluster == number].mean(axis=0)
    return Clusters(preparation, centroids, spread, middles,
                    scales(cluster, _apart(points, middles, cluster), k))


def scales(cluster: np.ndarray, distance: np.ndarray, k: int) -> np.ndarray:
    """float32 [k], s[c] = sqrt(mu[c] mu): how far an ordinary image is from each centroid.

    `cluster` int [N] and `distance` [N] are those of the training images. n/(n-1) undoes that a
    centroid lies nearer to the images it was made from.
    """
    counts = np.bincount(cluster, minlength=k).astype(np.float64)
    sums = np.bincount(cluster, weights=distance, minlength=k)
    informed = counts > 1  # a single image lies on its centroid and says nothing of its spread
    weight = np.where(informed, counts, 0)
    unbiased = np.where(informed, sums / np.maximum(counts - 1, 1), 0)
    mean = (weight * unbiased).sum() / max(weight.sum(), 1)
    shrunk = (weight * unbiased + PSEUDO_MEMBERS * mean) / (weight + PSEUDO_MEMBERS)
    return np.maximum(np.sqrt(shrunk * mean), LEAST_SCALE).astype(np.float32)


def compare(embeddings: np.ndarray, clusters: Clusters) -> HeldOut:
    """How raw embeddings float32 [n, D] fit the clusters."""
    points = clusters.preparation.apply(embeddings)
    found = codebook.nearest(points, clusters.centroids,
                             codebook.half_squared_lengths(clusters.centroids), 2)
    cluster, first = found.index[:, 0], found.distance[:, 0]
    second = found.distance[:, 1] if len(clusters.centroids) > 1 else np.full(
        len(first), np.inf, np.float32)
    ratio = first / clusters.scales[cluster]
    middle_ratio = ratio
    if not clusters.preparation.is_plain:
        middle_ratio = _apart(normalise(embeddings), clusters.middles,
                              cluster) / clusters.middle_scales[cluster]
    return HeldOut(ratio, 1 - first / np.maximum(second, np.finfo(np.float32).tiny), middle_ratio)


def _apart(points: np.ndarray, middles: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """float32 [n], from each of float32 [n, D] to the middle of its cluster."""
    apart = np.empty(len(points), np.float32)
    for start in range(0, len(points), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        difference = points[part] - middles[cluster[part]]
        apart[part] = np.sqrt(np.einsum("nd,nd->n", difference, difference))
    return apart


def assign_folds(scenes: Sequence[str], notes: List[str]) -> np.ndarray:
    """int [N]: the fold of each image, whole scenes together, folds of about one size."""
    names, scene, sizes = np.unique(np.array(scenes), return_inverse=True, return_counts=True)
    if len(names) < LEAST_SCENES:
        blocks = min(FOLDS * BLOCKS_PER_FOLD, len(scenes))
        notes.append("fewer than %d folders, too few to tell scenes apart by them; %d runs of "
                     "neighbouring files stand for scenes" % (LEAST_SCENES, blocks))
        return np.arange(len(scenes)) * blocks // len(scenes) % FOLDS
    most = -(-len(scenes) // LEAST_SCENES)
    large = np.flatnonzero(sizes > most)
    if len(large):
        notes.append("%d folders hold more than a sixth of the images each; runs of their neighbouring "
                     "files stand for scenes" % len(large))
    for name in large:
        inside = np.flatnonzero(scene == name)
        runs = -(-len(inside) // most)
        scene[inside] = len(sizes) + np.arange(len(inside)) * runs // len(inside)
        sizes = np.bincount(scene, minlength=len(sizes) + runs)
    fold_of, load = np.zeros(len(sizes), int), np.zeros(FOLDS)
    for name in np.argsort(-sizes, kind="stable"):
        fold_of[name] = load.argmin()
        load[fold_of[name]] += sizes[name]
    return fold_of[scene]


def cross_validate(embeddings: np.ndarray, folds: np.ndarray,
                   cluster: Callable[[np.ndarray], Clusters]) -> Optional[HeldOut]:
    """Each fold against what `cluster` makes of the other two; None if one would have too few images.

    Raw embeddings float32 [N, D]; the answer is in their order.
    """
    held_out = HeldOut(*(np.empty(len(embeddings), np.float32) for _ in HeldOut._fields))
    for fold in range(FOLDS):
        inside = folds == fold
        if not inside.any():
            continue
        training = embeddings[~inside]
        if len(training) < 2:
            return None
        for whole, part in zip(held_out, compare(embeddings[inside], cluster(training))):
            whole[inside] = part
    return held_out
