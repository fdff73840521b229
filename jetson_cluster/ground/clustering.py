"""k-means over an archive's embeddings, and everything the rover's ranking needs to know of it.

In: embeddings float32 [N, D] with the scene each belongs to. Out: a Codebook and notes for the person
who asked for it. Same input, same seed, same number of threads: the same codebook, bit for bit.
"""

from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

import faiss
import numpy as np

from jetson_cluster import codebook
from jetson_cluster.codebook import QUANTILE_POINTS, REACH, Codebook, Preparation, normalise
from jetson_cluster.errors import UserError
from jetson_cluster.ground.held_out import (
    LEAST_SCALE,
    Clusters,
    assign_folds,
    clusters_around,
    compare,
    cross_validate,
)
from jetson_cluster.ground.sampling import drawn

ITERATIONS = 100  # a bound only: faiss stops when no image changes cluster, after 20 to 40
# One start now and then merges two plain clusters. Which is best shows after a few iterations on a
# part of the images: at half the cost of three whole runs ten such starts agreed better with known
# classes and had less inertia.
STARTS, START_ITERATIONS, START_IMAGES = 10, 8, 64  # images for each centroid
# Old clusters that have to be parted may stand in the way of new ones: so much more inertia is borne,
# for the sake of clusters that stay as they were.
WORTH_KEEPING = 1.02
IMAGES_PER_CLUSTER = 10  # fewer than that on average and clusters describe single images

Prepare = Callable[[np.ndarray], Preparation]


class Fitted(NamedTuple):
    """A codebook, and what its maker should know about it."""

    codebook: Codebook
    notes: List[str]  # a sentence each
    cluster: np.ndarray  # int32 [N], of each image
    ratio: np.ndarray  # float32 [N], how far each is from clusters made without it, see HeldOut


def plain(_embeddings: np.ndarray) -> Preparation:
    """Scaling to length 1, whatever the embeddings."""
    return Preparation()


def fit_codebook(embeddings: np.ndarray, scenes: Sequence[str], k: int, seed: int, space: str,
                 prepare: Prepare = plain, like: Optional[Codebook] = None) -> Fitted:
    """Fit k clusters to raw embeddings float32 [N, D]; `scenes` [N] names what was taken together.

    `prepare` gives the Preparation of embeddings; `like` is a codebook to go on from. Images of one
    scene are never in both halves of a held-out comparison, else every image would look familiar.
    Raises UserError if there are fewer images than clusters.
    """
    count = len(embeddings)
    if k > count:
        raise UserError("-k %d: more clusters than the %d different images of the archive; about %d "
                        "is sensible" % (k, count, max(1, count // IMAGES_PER_CLUSTER)))
    check_finite(embeddings)
    notes = []
    if count < IMAGES_PER_CLUSTER * k:
        sensible = max(1, count // IMAGES_PER_CLUSTER)
        notes.append("%d images are few for %d cluster%s; %s would describe terrain rather than "
                     "single images" % (count, k, "s" if k > 1 else "",
                                        "-k %d" % sensible if sensible < k else "more of them"))
    made, cluster = clusters_of(embeddings, prepare(embeddings), k, seed, like)
    held_out = cross_validate(
        embeddings, assign_folds(scenes, notes),
        lambda part: clusters_of(part, prepare(part), min(k, len(part)), seed, like)[0])
    if held_out is None:
        notes.append("too few images to hold some out; novelty is measured on the training images")
        held_out = compare(embeddings, made)
    ramp = np.linspace(0, 1, QUANTILE_POINTS)
    r50, r95 = np.maximum(np.quantile(held_out.ratio, (0.5, 0.95)), LEAST_SCALE)
    book = Codebook(
        space=space, normalisation=made.preparation.normalisation, centroids=made.centroids,
        counts=np.bincount(cluster, minlength=k), scales=made.scales,
        novelty_quantiles=np.quantile(held_out.ratio, ramp).astype(np.float32),
        margin_quantiles=np.quantile(held_out.margin, ramp).astype(np.float32),
        r50=float(r50), r95=float(r95))
    if not made.preparation.is_plain:
        usual = max(float(np.median(held_out.middle_ratio)), LEAST_SCALE)
        book = Codebook(*book._replace(
            mean=made.preparation.mean, components=made.preparation.components,
            reaches=(REACH * usual * made.middle_scales).astype(np.float32),
            middle=normalise(embeddings).mean(axis=0)))
    return Fitted(book, notes, cluster, held_out.ratio)


def check_finite(embeddings: np.ndarray) -> None:
    """Raise UserError if float32 [N, D] hold what is no number."""
    if not np.isfinite(embeddings).all():
        raise UserError("the archive's embeddings hold numbers that are not finite; the model is "
                        "damaged")


def clusters_of(embeddings: np.ndarray, preparation: Preparation, k: int, seed: int,
                like: Optional[Codebook] = None) -> Tuple[Clusters, np.ndarray]:
    """k clusters of raw embeddings float32 [N, D], and int32 [N], which cluster each is in."""
    points = preparation.apply(embeddings)
    start = None if like is None else _centroids_as(like, preparation, embeddings, points)
    centroids = kmeans(points, k, seed, start)
    found = codebook.nearest(points, centroids, codebook.half_squared_lengths(centroids), 1)
    cluster, distance = found.index[:, 0], found.distance[:, 0]
    return clusters_around(embeddings, preparation, centroids, cluster, distance), cluster


def _centroids_as(like: Codebook, preparation: Preparation, embeddings: np.ndarray,
                  points: np.ndarray) -> np.ndarray:
    """float32 [m, d], where a codebook's clusters are under another preparation: its images' means."""
    if preparation is like.preparation or preparation.is_plain and like.preparation.is_plain:
        return like.centroids
    cluster = like.nearest(embeddings, 1).index[:, 0]
    return np.stack([points[cluster == number].mean(axis=0) for number in np.unique(cluster)])


def kmeans(points: np.ndarray, k: int, seed: int, start: Optional[np.ndarray] = None) -> np.ndarray:
    """Centroids float32 [k, d] of float32 [N, d]: the best start by k-means++, then Lloyd's iterations.

    With `start`, float32 [m, d], it goes on from those centroids instead, in their order: without
    those that no point is nearest to, the largest if there are too many, and where there are too few
    with more of them, the best of several that are drawn as k-means++ does; unless a start without
    any of them is clearly better then.
    """
    points = np.ascontiguousarray(points, np.float32)
    if start is None:
        begun, _ = _best_start(_some(points, START_IMAGES * k, seed), k, seed)
    else:
        begun = _begun(points, start, k, seed)
    return _trained(points, k, seed, begun, niter=ITERATIONS)[0]


def _trained(points: np.ndarray, k: int, seed: int, begun: Optional[np.ndarray] = None,
             **options) -> Tuple[np.ndarray, float]:
    """(centroids, their inertia before the last iteration)."""
    trainer = faiss.Kmeans(points.shape[1], k, seed=seed, min_points_per_centroid=1,
                           max_points_per_centroid=len(points), **options)
    trainer.train(points, init_centroids=begun)
    return trainer.centroids, float(trainer.obj[-1])


def _best_start(points: np.ndarray, k: int, seed: int) -> Tuple[np.ndarray, float]:
    """(centroids float32 [k, d] after a few iterations of the best start, their inertia)."""
    return _trained(points, k, seed, niter=START_ITERATIONS, nredo=STARTS,
                    init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS)


def _some(points: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most so many of float32 [N, d], evenly drawn."""
    if len(points) <= most:
        return points
    return points[drawn(len(points), most, seed)]


def _begun(points: np.ndarray, start: np.ndarray, k: int, seed: int) -> np.ndarray:
    """float32 [k, d] to begin from, see `kmeans`."""
    found = codebook.nearest(points, start, codebook.half_squared_lengths(start), 1)
    sizes = np.bincount(found.index[:, 0], minlength=len(start))
    held = np.sort(np.argsort(-sizes, kind="stable")[:min(k, np.count_nonzero(sizes))])
    if len(held) == k:
        return start[held]
    some = _some(points, START_IMAGES * k, seed)
    tries = [_trained(some, k, seed, _with_more(some, start[held], k, number),
                      niter=START_ITERATIONS) for number in range(STARTS)]
    begun, inertia = min(tries, key=lambda tried: tried[1])
    afresh, least = _best_start(some, k, seed)
    return begun if inertia <= WORTH_KEEPING * least else afresh


def _with_more(points: np.ndarray, start: np.ndarray, k: int, seed: int) -> np.ndarray:
    """float32 [k, d]: centroids float32 [m, d], then points drawn by greedy k-means++.

    Of several points drawn each time, by their squared distance to what there is, it takes the one
    that leaves least of that in all (Arthur and Vassilvitskii, 2007, in their remarks).
    """
    begun, random = list(start), np.random.default_rng(seed)
    found = codebook.nearest(points, start, codebook.half_squared_lengths(start), 1)
    squared = found.distance[:, 0].astype(np.float64) ** 2
    lengths, candidates = np.einsum("nd,nd->n", points, points), 2 + int(np.log(k))
    while len(begun) < k:
        total = squared.sum()
        picked = random.choice(len(points), candidates, p=squared / total if total else None)
        away = lengths[:, None] + lengths[picked] - 2 * points @ points[picked].T
        left = np.minimum(np.maximum(away, 0), squared[:, None])
        best = int(left.sum(axis=0).argmin())
        begun.append(points[picked[best]])
        squared = left[:, best]
    return np.array(begun, np.float32)
