"""k-means over an archive's embeddings, and everything the rover's ranking needs to know of it.

In: embeddings float32 [N, D] with the scene each belongs to. Out: a Codebook and notes for the person
who asked for it. Same input, same seed, same number of threads: the same codebook, bit for bit.
"""

from typing import List, NamedTuple, Sequence

import faiss
import numpy as np

from jetson_cluster import codebook
from jetson_cluster.codebook import QUANTILE_POINTS, Codebook, normalise
from jetson_cluster.errors import UserError

ITERATIONS = 100  # a bound only: faiss stops when no image changes cluster, after about ten
STARTS = 3  # the best of so many; one start now and then merges two plain clusters
FOLDS = 3
LEAST_SCENES = 2 * FOLDS  # with fewer, one scene would be most of a fold
BLOCKS_PER_FOLD = 10
PSEUDO_MEMBERS = 10  # a small cluster's mean distance is drawn toward the global one by so many
IMAGES_PER_CLUSTER = 10  # fewer than that on average and clusters describe single images
LEAST_SCALE = 1e-6  # an archive of copies has no spread; a scale must still be positive


class Fitted(NamedTuple):
    """A codebook, and what its maker should know about it, a sentence each."""

    codebook: Codebook
    notes: List[str]


class HeldOut(NamedTuple):
    """How images fit clusters that were made without them."""

    ratio: np.ndarray  # float32 [n], distance to the nearest centroid / its scale
    margin: np.ndarray  # float32 [n], 1 - nearest distance / second distance


def fit_codebook(embeddings: np.ndarray, scenes: Sequence[str], k: int, seed: int,
                 space: str) -> Fitted:
    """Fit k clusters to raw embeddings float32 [N, D]; `scenes` [N] names what was taken together.

    Images of one scene are never in both halves of a held-out comparison, else every image would
    look familiar. Raises UserError if there are fewer images than clusters.
    """
    count = len(embeddings)
    if k > count:
        raise UserError("-k %d: more clusters than the %d different images of the archive; about %d "
                        "is sensible" % (k, count, max(1, count // IMAGES_PER_CLUSTER)))
    if not np.isfinite(embeddings).all():
        raise UserError("the archive's embeddings hold numbers that are not finite; the model is "
                        "damaged")
    notes = []
    if count < IMAGES_PER_CLUSTER * k:
        sensible = max(1, count // IMAGES_PER_CLUSTER)
        notes.append("%d images are few for %d cluster%s; %s would describe terrain rather than "
                     "single images" % (count, k, "s" if k > 1 else "",
                                        "-k %d" % sensible if sensible < k else "more of them"))
    points = normalise(embeddings)
    centroids = kmeans(points, k, seed)
    found = codebook.nearest(points, centroids, codebook.half_squared_lengths(centroids), 1)
    held_out = cross_validate(points, assign_folds(scenes, notes), k, seed)
    if not len(held_out.ratio):
        notes.append("too few images to hold some out; novelty is measured on the training images")
        held_out = compare(points, centroids, scales(found, k))
    ramp = np.linspace(0, 1, QUANTILE_POINTS)
    r50, r95 = np.maximum(np.quantile(held_out.ratio, (0.5, 0.95)), LEAST_SCALE)
    return Fitted(Codebook(
        space=space, normalisation="l2", centroids=centroids,
        counts=np.bincount(found.index[:, 0], minlength=k), scales=scales(found, k),
        novelty_quantiles=np.quantile(held_out.ratio, ramp).astype(np.float32),
        margin_quantiles=np.quantile(held_out.margin, ramp).astype(np.float32),
        r50=float(r50), r95=float(r95)), notes)


def kmeans(points: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Centroids float32 [k, D] of float32 [N, D], by k-means++ and Lloyd's iterations in faiss."""
    trainer = faiss.Kmeans(points.shape[1], k, niter=ITERATIONS, nredo=STARTS, seed=seed,
                           init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
                           min_points_per_centroid=1, max_points_per_centroid=len(points))
    trainer.train(points)
    return trainer.centroids


def scales(found: codebook.Nearest, k: int) -> np.ndarray:
    """float32 [k], s[c] = sqrt(mu[c] mu): how far an ordinary image is from each centroid.

    `found` holds the training images' own cluster and distance. n/(n-1) undoes that a centroid lies
    nearer to the images it was made from.
    """
    cluster, distance = found.index[:, 0], found.distance[:, 0]
    counts = np.bincount(cluster, minlength=k).astype(np.float64)
    sums = np.bincount(cluster, weights=distance, minlength=k)
    informed = counts > 1  # a single image lies on its centroid and says nothing of its spread
    weight = np.where(informed, counts, 0)
    unbiased = np.where(informed, sums / np.maximum(counts - 1, 1), 0)
    mean = (weight * unbiased).sum() / max(weight.sum(), 1)
    shrunk = (weight * unbiased + PSEUDO_MEMBERS * mean) / (weight + PSEUDO_MEMBERS)
    return np.maximum(np.sqrt(shrunk * mean), LEAST_SCALE).astype(np.float32)


def assign_folds(scenes: Sequence[str], notes: List[str]) -> np.ndarray:
    """int [N]: the fold of each image, whole scenes together, folds of about one size."""
    names, scene, sizes = np.unique(np.array(scenes), return_inverse=True, return_counts=True)
    if len(names) < LEAST_SCENES:
        blocks = min(FOLDS * BLOCKS_PER_FOLD, len(scenes))
        notes.append("fewer than %d folders, too few to tell scenes apart by them; %d runs of "
                     "neighbouring files stand for scenes" % (LEAST_SCENES, blocks))
        return np.arange(len(scenes)) * blocks // len(scenes) % FOLDS
    fold_of, load = np.zeros(len(names), int), np.zeros(FOLDS)
    for name in np.argsort(-sizes, kind="stable"):
        fold_of[name] = load.argmin()
        load[fold_of[name]] += sizes[name]
    return fold_of[scene]


def cross_validate(points: np.ndarray, folds: np.ndarray, k: int, seed: int) -> HeldOut:
    """Each fold against clusters of the other two; empty if a fold would leave too few images."""
    held_out = []
    for fold in range(FOLDS):
        inside = folds == fold
        training = points[~inside]
        if not inside.any() or len(training) < 2:
            continue
        centroids = kmeans(training, min(k, len(training)), seed)
        found = codebook.nearest(training, centroids, codebook.half_squared_lengths(centroids), 1)
        held_out.append(compare(points[inside], centroids, scales(found, len(centroids))))
    if not held_out:
        return HeldOut(np.empty(0, np.float32), np.empty(0, np.float32))
    return HeldOut(*map(np.concatenate, zip(*held_out)))


def compare(points: np.ndarray, centroids: np.ndarray, scale: np.ndarray) -> HeldOut:
    """How float32 [n, D] fit the clusters."""
    found = codebook.nearest(points, centroids, codebook.half_squared_lengths(centroids), 2)
    first = found.distance[:, 0]
    second = found.distance[:, 1] if len(centroids) > 1 else np.full(len(first), np.inf, np.float32)
    ratio = first / scale[found.index[:, 0]]
    return HeldOut(ratio, 1 - first / np.maximum(second, np.finfo(np.float32).tiny))
