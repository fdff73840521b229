"""Groups that stand in for clusters until a codebook arrives, so that the queue is diverse at once.

In: embeddings, as they come. Out: at most 64 groups, each around a leader, and where every image
belongs. Streaming k-centre by doubling (Charikar, Chekuri, Feder, Motwani 1997): an image further
than `reach` from every leader leads a group of its own; when there are too many, reach doubles
and leaders within it of one another fall together.
"""

from typing import NamedTuple

import numpy as np

from jetson_cluster.codebook import (
    NEIGHBOURS, Assessment, half_squared_lengths, nearest, normalise)

MOST_GROUPS = 64
# An image nearer to a leader than this shows the same scene; it never founds a group.
LEAST_REACH = 0.05
# Discounted by no less than this, every group is heard once before any is heard twice: interest
# runs from 0.5 at the leader to 1 at its reach.
DISCOUNT = 0.3


class Groups(NamedTuple):
    """The leaders float32 [g, D], of length 1, and how far each reaches (Euclidean)."""

    leaders: np.ndarray
    reach: float


def admit(groups: Groups, embeddings: np.ndarray) -> Groups:
    """The groups after raw embeddings float32 [N, D] came, one after the other.

    Leaders keep their numbers unless reach grew; then all images must be placed anew.
    """
    reach = max(groups.reach, LEAST_REACH)
    leaders = list(groups.leaders)
    for point in normalise(embeddings):
        if not leaders or _distances(np.array(leaders), point).min() > reach:
            leaders.append(point)
            while len(leaders) > MOST_GROUPS:
                reach *= 2
                leaders = _thin(leaders, reach)
    return Groups(np.array(leaders, np.float32), reach)


def _thin(leaders, reach):
    kept = []
    for leader in leaders:
        if not kept or _distances(np.array(kept), leader).min() > reach:
            kept.append(leader)
    return kept


def _distances(points, point):
    difference = points - point
    return np.sqrt(np.einsum("nd,nd->n", difference, difference))


def place(groups: Groups, embeddings: np.ndarray) -> Assessment:
    """Where raw embeddings float32 [N, D] fall among the groups.

    Novelty runs from 0 at the leader to 1 at its reach, representative the other way round.
    """
    found = nearest(normalise(embeddings), groups.leaders,
                    half_squared_lengths(groups.leaders), 2)
    rows = len(embeddings)
    cluster, distance = found.index[:, 0], found.distance[:, 0]
    second = found.distance[:, 1] if len(groups.leaders) > 1 else np.full(rows, np.inf, np.float32)
    share = np.minimum(1, distance / groups.reach).astype(np.float32)
    soft_weight = np.zeros((rows, NEIGHBOURS), np.float32)
    soft_weight[:, 0] = 1
    return Assessment(
        cluster=cluster, distance=distance, second_distance=second, ratio=share,
        far=np.zeros(rows, bool), novelty=share, representative=1 - share,
        soft_index=np.repeat(cluster[:, None], NEIGHBOURS, axis=1), soft_weight=soft_weight,
        reach=np.zeros(rows, np.float32))


def interest(novelty: np.ndarray) -> np.ndarray:
    """What images are worth that fell so far among the groups: 0.5 at the leader, 1 at its reach."""
    return 0.5 + 0.5 * novelty
