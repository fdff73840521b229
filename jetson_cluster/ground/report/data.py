"""What a report tells of an archive, worked out once: nothing here knows of pages or pictures.

In: a corpus, a codebook and a policy. Out: a `Survey`, every column of it in the order of the page:
cluster by cluster, the most typical image of each first, so that a cluster is a range of rows.
"""

from typing import Callable, List, NamedTuple

import numpy as np

from jetson_cluster import quality
from jetson_cluster.codebook import QUANTILE_POINTS, Codebook, normalise
from jetson_cluster.errors import UserError
from jetson_cluster.ground.report import duplicates, layout
from jetson_cluster.policy import Policy

CHUNK_ROWS = 2048  # embeddings held in float32 at a time: 16 MB of 2,048 numbers each


class Cluster(NamedTuple):
    """One cluster of the archive; its images are the rows from `start`, `size` of them."""

    number: int
    label: str  # "" if the team has not named it
    weight: float
    start: int
    size: int
    spread: float  # mean distance of its images to its centroid; 0 if it has none


class Survey(NamedTuple):
    """N images in the order of the page; `row` says which of the corpus each one is."""

    row: np.ndarray  # int64 [N]
    cluster: np.ndarray  # int32 [N]
    distance: np.ndarray  # float32 [N], to the centroid
    novelty: np.ndarray  # float32 [N], 0..1, see `novelty_of`
    far: np.ndarray  # bool [N], beyond r95: unlike the archive the codebook was made from
    factor: np.ndarray  # float32 [N], what bad exposure and the like multiply the score by; 1: sound
    reasons: List[str]  # [N], what is wrong with the frame; "" if nothing is
    group: np.ndarray  # int32 [N], the near-duplicates it belongs to; -1: none
    place: np.ndarray  # float32 [N, 2], on the map, 0..1
    clusters: List[Cluster]  # all k of the codebook, by number


class _Assessed(NamedTuple):
    """In the order of the corpus."""

    directions: np.ndarray  # float16 [N, D], the corpus's embeddings at length 1
    points: np.ndarray  # float16 [N, d], as the codebook sees them
    cluster: np.ndarray
    distance: np.ndarray
    ratio: np.ndarray
    far: np.ndarray
    reach: np.ndarray


def survey(corpus, book: Codebook, policy: Policy, map_kind: str, seed: int,
           tell: Callable[[str], None]) -> Survey:
    """Everything about the images of a corpus. `tell` is called with what is being done.

    Holds all embeddings in float16, 4 KB an image of 2,048 numbers, twice: as directions and as the
    codebook sees them; beside that a sample of them (layout.SAMPLE) in float32. Raises UserError for a
    corpus that holds no images or embeddings that are not finite.
    """
    if not len(corpus):
        raise UserError("corpus %s: it holds no images" % corpus.folder)
    tell("placing %d images among %d clusters" % (len(corpus), book.k))
    assessed = _assess(corpus, book)
    tell("looking for near-duplicates")
    group = duplicates.group(assessed.directions, assessed.reach, seed)
    tell("drawing the map by %s" % map_kind.upper())
    place = layout.place(assessed.points, map_kind, seed)
    row = np.lexsort((assessed.distance, assessed.cluster))
    verdicts = [quality.judge(quality.Measures(*map(float, corpus.measures[at])), policy.quality)
                for at in row]
    return Survey(
        row=row, cluster=assessed.cluster[row], distance=assessed.distance[row],
        novelty=novelty_of(assessed.ratio, book)[row], far=assessed.far[row],
        factor=np.array([verdict.factor for verdict in verdicts], np.float32),
        reasons=[verdict.reason for verdict in verdicts],
        group=group[row], place=place[row],
        clusters=clusters_of(assessed.cluster, assessed.distance, book.k, policy))


def _assess(corpus, book: Codebook) -> _Assessed:
    whole = None
    for start in range(0, len(corpus), CHUNK_ROWS):
        rows = np.arange(start, min(start + CHUNK_ROWS, len(corpus)))
        raw = corpus.embeddings(rows)
        if not np.isfinite(raw).all():
            raise UserError("corpus %s: its embeddings hold numbers that are not finite; embed it "
                            "anew" % corpus.folder)
        found = book.assess(raw)
        part = _Assessed(normalise(raw).astype(np.float16), book.prepare(raw).astype(np.float16),
                         found.cluster, found.distance, found.ratio, found.far, found.reach)
        if whole is None:  # written into, for to put parts together is to hold them twice
            whole = _Assessed(*(np.empty((len(corpus), *column.shape[1:]), column.dtype)
                                for column in part))
        for column, filled in zip(whole, part):
            column[rows] = filled
    return whole


def novelty_of(ratio: np.ndarray, book: Codebook) -> np.ndarray:
    """float32 [N]: the share of the codebook's held-out images that were nearer to their cluster.

    Ranking's novelty, but for far images: ranking gives them little, as they are as often junk; here
    they stand at the end of the scale, where people look for them.
    """
    ramp = np.linspace(0, 1, QUANTILE_POINTS)
    return np.interp(ratio, book.novelty_quantiles, ramp).astype(np.float32)


def clusters_of(cluster: np.ndarray, distance: np.ndarray, k: int, policy: Policy
                ) -> List[Cluster]:
    """What is known of each cluster; the ranges are those of images sorted by cluster."""
    sizes = np.bincount(cluster, minlength=k)
    starts = np.cumsum(sizes) - sizes
    spreads = np.bincount(cluster, distance, k) / np.maximum(sizes, 1)
    return [Cluster(number, policy.labels.get(number, ""), policy.weights.get(number, 1.0),
                    int(starts[number]), int(sizes[number]), float(spreads[number]))
            for number in range(k)]
