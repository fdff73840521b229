"""Which image to send next: pure functions from what is known of the images to an order.

In: the best candidates of each cluster (from the catalog) and the clusters' weights (from the
policy). Out: images in the order to send them, each with its score and what stood ahead of it.

The three rankers are those of NASA's OASIS (Castano et al., 2007: key target signature, novelty,
representative sampling); their forms here, and the soft diversity over them, are the measured ones
of the design notes: score = weight x (0.6 novelty + 0.4 representative) x 0.3^(u.n), where u is
the image's soft membership of clusters and n counts the memberships of everything ahead of it.
"""

import math
from collections import deque
from typing import Dict, List, NamedTuple, Tuple

import numpy as np

from jetson_cluster.codebook import NEIGHBOURS, Assessment

NOVELTY_SHARE = 0.6
REPRESENTATIVE_SHARE = 0.4
LOG_DISCOUNT = math.log(0.3)  # what one image of just this kind ahead takes off the log of the score
FLOOR = 1e-9  # interest may be 0; its logarithm must still be a number
# The logarithm that stands for weight 0: below what any number of images of its kind ahead, 1.2 each,
# can take off another's score.
LAST = -1e6
FAR_EVERY = 10  # one place in ten belongs to images beyond r95: discoveries seen, junk no flood
POOL_TARGET = 8192  # candidates held over all clusters: 200 rows are ordered in tens of milliseconds
POOL_LEAST = 16

CANDIDATE = np.dtype([
    ("image", np.int64), ("cluster", np.int32), ("interest", np.float32), ("ratio", np.float32),
    ("far", np.bool_), ("soft_index", np.int32, (NEIGHBOURS,)),
    ("soft_weight", np.float32, (NEIGHBOURS,))])


class Placement(NamedTuple):
    """Where N images belong, and what orders them within their cluster."""

    assessment: Assessment
    interest: np.ndarray  # float32 [N]


class Ranked(NamedTuple):
    """One image in its place. `kin` is u.n: how many of its kind are ahead of it."""

    image: int
    score: float
    kin: float
    by_far_slot: bool


def interest(assessment: Assessment) -> np.ndarray:
    """float32 [N] in 0..1: how much each image is worth before weight and diversity."""
    return (NOVELTY_SHARE * assessment.novelty
            + REPRESENTATIVE_SHARE * assessment.representative).astype(np.float32)


def candidates_of(images: List[int], placement: Placement, rows: List[int]) -> np.ndarray:
    """CANDIDATE [n] of images just catalogued; `rows` says which rows of the placement they are."""
    found = placement.assessment
    made = np.empty(len(images), CANDIDATE)
    for name, values in (("cluster", found.cluster), ("ratio", found.ratio), ("far", found.far),
                         ("interest", placement.interest), ("soft_index", found.soft_index),
                         ("soft_weight", found.soft_weight)):
        made[name] = values[rows]
    made["image"] = images
    # As the catalog will give them back: a restart must not change the order.
    made["soft_weight"] = made["soft_weight"].astype(np.float16)
    return made


def order(candidates: np.ndarray, weights: np.ndarray, rows: int) -> List[Ranked]:
    """The first `rows` of CANDIDATE [N] in the order to send them, given weights float [k].

    Greedy: each place goes to the highest score given everything ahead of it; on a tie to the
    image that came first. Every tenth place goes to the nearest of the images beyond r95, if
    there is one whose cluster has any weight. The same candidates in any order give the same answer.
    """
    pool = candidates[np.unique(candidates["image"], return_index=True)[1]]
    members = _members(pool, len(weights))
    log_weights = np.log(weights, out=np.full(len(weights), LAST), where=weights > 0)
    log_base = (log_weights[pool["cluster"]]
                + np.log(np.maximum(pool["interest"].astype(np.float64), FLOOR)))
    kin = np.zeros(len(pool))
    score = log_base.copy()  # -inf once chosen
    wanted = pool["far"] & (weights[pool["cluster"]] > 0)
    far = deque(place for place in np.lexsort((pool["image"], pool["ratio"])) if wanted[place])
    chosen = []
    while len(chosen) < min(rows, len(pool)):
        while far and score[far[0]] == -np.inf:
            far.popleft()
        by_far_slot = bool(far) and len(chosen) % FAR_EVERY == FAR_EVERY - 1
        pick = far[0] if by_far_slot else int(score.argmax())
        chosen.append(Ranked(int(pool["image"][pick]), math.exp(score[pick]), float(kin[pick]),
                             by_far_slot))
        score[pick] = -np.inf
        for cluster, share in zip(pool["soft_index"][pick], pool["soft_weight"][pick]):
            if share > 0:
                places, weight = members[cluster]
                kin[places] += share * weight
                score[places] += LOG_DISCOUNT * share * weight
    return chosen


def _members(pool: np.ndarray, clusters: int) -> List[Tuple[np.ndarray, np.ndarray]]:
    """For each cluster the places in the pool that belong to it at all, and how much."""
    place, column = np.nonzero(pool["soft_weight"] > 0)
    cluster, weight = pool["soft_index"][place, column], pool["soft_weight"][place, column]
    by_cluster = np.argsort(cluster, kind="stable")
    bounds = np.searchsorted(cluster[by_cluster], np.arange(clusters + 1))
    return [(place[by_cluster[start:end]], weight[by_cluster[start:end]].astype(np.float64))
            for start, end in zip(bounds, bounds[1:])]


class Pool:
    """The best candidates of every cluster, kept up as images come; ranking looks at no others.

    Filled from the catalog (`fill`) whenever a cluster's candidates are not known, so that a
    million images cost no more memory and no more time than a few thousand. Where images belong to
    several clusters in part, one beyond these candidates could at times stand a little higher:
    the sum of the scores is then up to 1 % less than with every image looked at (measured).
    """

    def __init__(self, clusters: int, rows: int):
        self.clusters = clusters
        self._rows = rows
        depth = max(POOL_LEAST, POOL_TARGET // clusters)
        self._depth = [depth] * clusters
        self._blocks = {}  # type: Dict[int, np.ndarray]
        self._far = None

    def offer(self, candidates: np.ndarray) -> None:
        """Take CANDIDATE [n] of images newly queued; those that are too poor fall out."""
        for cluster in np.unique(candidates["cluster"]):
            if cluster in self._blocks:
                mine = candidates[candidates["cluster"] == cluster]
                self._blocks[cluster] = self._cut(
                    np.concatenate([self._blocks[cluster], mine]), cluster)
        if self._far is not None and candidates["far"].any():
            joined = np.concatenate([self._far, candidates[candidates["far"]]])
            self._far = joined[np.lexsort((joined["image"], joined["ratio"]))][:self._rows]

    def _cut(self, block: np.ndarray, cluster: int) -> np.ndarray:
        return block[np.lexsort((block["image"], -block["interest"]))][:self._depth[cluster]]

    def forget(self, cluster: int) -> None:
        """The queued images of `cluster` changed: read them again before the next order."""
        self._blocks.pop(cluster, None)
        self._far = None

    def order(self, fill, fill_far, weights: np.ndarray) -> List[Ranked]:
        """The head of the queue.

        `fill(cluster, limit)` and `fill_far(limit)` give the catalog's best candidates, CANDIDATE [n].
        Where a cluster's candidates are all used up, more of it are read and the order made again.
        """
        if self._far is None:
            self._far = fill_far(self._rows)
        while True:
            for cluster in range(self.clusters):
                if cluster not in self._blocks:
                    self._blocks[cluster] = fill(cluster, self._depth[cluster])
            pool = np.concatenate(list(self._blocks.values()) + [self._far])
            ranked = order(pool, weights, self._rows)
            deeper = self._used_up(ranked)
            if not deeper:
                return ranked
            for cluster in deeper:
                self._depth[cluster] = min(2 * self._depth[cluster], self._rows)
                del self._blocks[cluster]

    def _used_up(self, ranked: List[Ranked]) -> List[int]:
        chosen = np.array([row.image for row in ranked], np.int64)
        return [cluster for cluster, block in self._blocks.items()
                if len(block) == self._depth[cluster] < self._rows
                and np.isin(block["image"], chosen).all()]


def reason(row, label: str, weight: float, ranked: Ranked, clustered: bool) -> str:
    """Why an image stands in its place, in words for the operator; `row` is a catalog.Row."""
    parts = []
    if not clustered:
        parts.append("no clusters yet, sorted by difference")
    elif ranked.by_far_slot:
        parts.append("unlike the whole archive: discovery or junk (1 place in 10 is kept for these)")
    elif row.far:
        parts.append("unlike the whole archive")
    elif row.novelty >= 0.7:
        parts.append("unusual for %s (stranger than %d%% of the archive)" % (
            label, min(99, int(100 * row.novelty))))
    elif row.representative >= 0.7:
        parts.append("typical %s (clearer than %d%% of the archive)" % (
            label, min(99, int(100 * row.representative))))
    else:
        parts.append("ordinary %s" % label)
    if clustered and weight != 1:
        parts.append("weight %g" % weight)
    parts.append(_kin_in_words(ranked.kin))
    return "; ".join(parts)


def _kin_in_words(kin: float) -> str:
    if kin < 0.25:
        return "nothing like it ahead"
    if kin < 1.5:
        return "one like it ahead" if kin >= 0.75 else "little like it ahead"
    return "%d like it ahead" % round(kin)


def names_of(labels: Dict[int, str], cluster: int) -> Tuple[str, str]:
    """The label of a cluster ("" if it has none) and how to speak of it in a sentence."""
    label = labels.get(cluster, "")
    return label, label or "cluster %d" % cluster
