"""Candidates to rank, and what stands for the catalog that gives them out."""

import math

import numpy as np

from jetson_cluster import codebook, sketches
from jetson_cluster.codebook import NEIGHBOURS, QUANTILE_POINTS, Codebook
from jetson_cluster.ranking import CANDIDATE, Terms

LN = math.log(0.3)


def terms_for(clusters, **changes):
    """Terms of equal weights with nothing on the ground, but for `changes`."""
    base = Terms(weights=np.ones(clusters), on_ground=np.zeros(clusters), log_discount=LN)
    return base._replace(**changes)


def alike(count, interest=1.0):
    """CANDIDATE [count], images 1, 2, ... that belong to cluster 0 and to no other."""
    made = np.zeros(count, CANDIDATE)
    made["image"] = np.arange(1, count + 1)
    made["interest"], made["ratio"], made["quality"], made["bytes"] = interest, 1, 1, 1000
    made["soft_weight"][:, 0] = 1
    return made


def beside_another_kind(made):
    """The same and one image more, 99, of another kind and worth next to nothing.

    So no kind is ahead of all others, as it is where there is only one.
    """
    other = alike(1, 1e-8)
    other["image"], other["cluster"], other["soft_index"] = 99, 1, 1
    return np.concatenate([made, other])


def candidates(seed, count, clusters, skew=0.0, hard=False, far_share=0.1, coarse=False,
               twins=0.0, near=False):
    """CANDIDATE [count] over clusters of sizes 1 / rank^skew.

    hard: each in one cluster only; coarse: many of the very same worth; twins: that share of them
    belongs to groups of near-duplicates; near: most of a cluster lie within their reach.
    """
    random = np.random.RandomState(seed)
    share = 1 / np.arange(1, clusters + 1) ** skew
    made = np.zeros(count, CANDIDATE)
    made["image"] = np.arange(1, count + 1)
    made["cluster"] = random.choice(clusters, count, p=share / share.sum())
    made["interest"] = random.uniform(size=count) ** 2
    if coarse:
        made["interest"] = np.round(made["interest"], 1)
    made["ratio"] = random.uniform(0.3, 1.2, count)
    made["far"] = random.uniform(size=count) < far_share
    made["ratio"][made["far"]] += 1
    made["interest"][made["far"]] *= 0.5
    made["quality"] = random.choice([0.3, 0.6, 1, 1], count)
    made["bytes"] = random.randint(1, 2 * 10 ** 6, count)
    made["soft_index"][:] = made["cluster"][:, None]
    made["soft_weight"][:, 0] = 1
    if not hard and clusters > NEIGHBOURS:
        made["soft_index"][:, 1:] = (made["cluster"][:, None] + np.arange(1, NEIGHBOURS)) % clusters
        others = np.sort(random.uniform(size=(count, NEIGHBOURS - 1)) ** 4)[:, ::-1]
        made["soft_weight"][:, 1:] = others.astype(np.float16)
        made["soft_weight"] /= np.linalg.norm(made["soft_weight"], axis=1)[:, None]
    if twins:
        joined = random.permutation(np.flatnonzero(random.uniform(size=count) < twins))
        first = joined[np.arange(len(joined)) % (len(joined) // 4 + 1)]
        made["twin"][joined] = made["image"][first]
        for name in ("cluster", "soft_index", "soft_weight"):
            made[name][joined] = made[name][first]
    if near:
        middles = random.normal(0, 200, (clusters, sketches.NUMBERS))
        made["sketch"] = middles[made["cluster"]] + random.normal(0, 60, made["sketch"].shape)
        made["reach"] = random.choice([0, 0.3, 0.6], count, p=[0.1, 0.3, 0.6])
    return made


def terrain(seed, k, spread, skew, count, dimension=24, near=False):
    """CANDIDATE [count] as a codebook makes them of clustered embeddings; near: with sketches."""
    random = np.random.RandomState(seed)
    centroids = codebook.normalise(random.normal(size=(k, dimension)).astype(np.float32))
    share = 1 / np.arange(1, k + 1) ** skew

    def drawn(number):
        middle = centroids[random.choice(k, number, p=share / share.sum())]
        return (middle + spread * random.normal(size=middle.shape)).astype(np.float32)

    half = codebook.half_squared_lengths(centroids)
    found = codebook.nearest(codebook.normalise(drawn(3000)), centroids, half, 2)
    scale, margin = found.distance[:, 0].mean(), 1 - found.distance[:, 0] / found.distance[:, 1]
    points = np.linspace(0, 1, QUANTILE_POINTS)
    ratio = found.distance[:, 0] / scale
    book = Codebook("net", "l2", centroids, np.full(k, 9), np.full(k, scale, np.float32),
                    np.quantile(ratio, points).astype(np.float32),
                    np.quantile(margin, points).astype(np.float32),
                    float(np.quantile(ratio, 0.5)), float(np.quantile(ratio, 0.95)))
    embeddings = drawn(count)
    found = book.assess(embeddings)
    made = alike(count)
    if near:
        made["sketch"], made["reach"] = sketches.of(embeddings), found.reach
    for name in ("cluster", "ratio", "far", "soft_index", "soft_weight"):
        made[name] = getattr(found, name)
    made["interest"] = 0.6 * found.novelty + 0.4 * found.representative
    # Where pictures of one format differ in size by what they show, it is by about so much.
    made["bytes"] = np.exp(random.normal(13, 0.4, count))
    return made


class Store:
    """Stands for the catalog: gives candidates out as its SQL does."""

    def __init__(self, made, sent=()):
        self.made, self.sent, self.reads = made, set(sent), 0

    def candidates(self, cluster, limit, per_byte=False):
        self.reads += 1
        mine = self.made[self.made["cluster"] == cluster]
        worth = mine["interest"].astype(np.float64)
        if per_byte:
            worth = worth / mine["bytes"]
        return mine[np.lexsort((mine["image"], -worth))][:limit]

    def far_candidates(self, limit, without=()):
        far = self.made[self.made["far"] & ~np.isin(self.made["cluster"], without)]
        return far[np.lexsort((far["image"], far["ratio"]))][:limit]

    def oldest_candidates(self, until, limit, without=()):
        old = self.made[(self.made["image"] <= until) & ~np.isin(self.made["cluster"], without)]
        return old[np.argsort(old["image"])][:limit]

    def candidates_of(self, images):
        return self.made[np.isin(self.made["image"], images)]

    def sent_twins(self, groups):
        return self.sent & set(groups)
