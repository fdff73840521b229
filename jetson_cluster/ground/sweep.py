"""Which k: several are tried, measured in four ways, and one is recommended with the reason in words.

In: embeddings and a range of k. Out: a Sweep. Nothing here knows the truth; each measure is blind in
its own way, so the recommendation is the k that all four together like best, and says which of them
disagree.
"""

from typing import Callable, Iterable, List, NamedTuple, Sequence, Tuple

import numpy as np
from sklearn.metrics import (
    adjusted_rand_score,
    davies_bouldin_score,
    pairwise_distances,
    silhouette_score,
)

from jetson_cluster.codebook import Preparation
from jetson_cluster.errors import UserError
from jetson_cluster.ground.clustering import IMAGES_PER_CLUSTER, clusters_of

SEEDS = 3  # of each k; stability compares every two of them
SILHOUETTE_IMAGES = 4000  # their distances to one another are 64 MB
LEAST_VARIANCE = 1e-12  # an archive of copies has none
UNSTABLE = 0.5  # below it two runs agree on less than half of what chance leaves open


class Trial(NamedTuple):
    """What was measured at one k; means over the seeds."""

    k: int
    inertia: float  # mean squared distance to the own centroid, by that at k = 1
    silhouette: float  # -1 to 1, of a sample; the higher the better apart
    davies_bouldin: float  # the lower the better apart
    stability: float  # mean adjusted Rand index of two seeds' clusters, 1: the same


class Sweep(NamedTuple):
    """What was tried, in order of k, and what came of it."""

    trials: List[Trial]
    recommended: int
    reason: str


def span(text: str, steps: int) -> List[int]:
    """The k to try for "16:512", in `steps` equal ratios; raises UserError."""
    try:
        least, most = (int(part) for part in text.split(":"))
    except ValueError:
        raise UserError("--sweep %s: must be the least and the largest k, as in 16:512" % text)
    if not 2 <= least < most:
        raise UserError("--sweep %s: the least k must be 2 or more, and the largest more than it" % (
            text))
    if steps < 3:
        raise UserError("--sweep-steps %d: three k are the fewest that can be compared" % steps)
    found = sorted({round(k) for k in np.geomspace(least, most, steps).tolist()})
    if len(found) < 3:
        raise UserError("--sweep %s: there are only %d k in it, three are the fewest that can be "
                        "compared" % (text, len(found)))
    return found


def sweep(embeddings: np.ndarray, preparation: Preparation, ks: Sequence[int], seed: int,
          progress: Callable[[Trial], None] = lambda trial: None) -> Sweep:
    """Try every k on raw embeddings float32 [N, D]; `progress` is told of each as it is done.

    Raises UserError where a k is not below the number of images.
    """
    if ks[-1] >= len(embeddings):
        raise UserError("--sweep to %d: only %d different images; at most 1 of %d makes sense" % (
            ks[-1], len(embeddings), max(1, len(embeddings) // IMAGES_PER_CLUSTER)))
    points = preparation.apply(embeddings)
    total = float(points.var(axis=0, dtype=np.float64).sum())
    drawn = np.random.default_rng(seed).permutation(len(points))[:SILHOUETTE_IMAGES]
    apart = pairwise_distances(points[drawn])
    trials = []
    for k in ks:
        runs = [clusters_of(embeddings, preparation, k, (seed + number) % 2 ** 31)
                for number in range(SEEDS)]
        labels = [cluster for _, cluster in runs]
        trials.append(Trial(
            k, _mean(_inertia(points, made.centroids[cluster]) for made, cluster in runs)
            / max(total, LEAST_VARIANCE),
            _mean(_silhouette(apart, cluster[drawn]) for cluster in labels),
            _mean(_davies_bouldin(points, cluster) for cluster in labels),
            _mean(adjusted_rand_score(one, other)
                  for place, one in enumerate(labels) for other in labels[:place])))
        progress(trials[-1])
    return Sweep(trials, *recommend(trials, len(embeddings)))


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _inertia(points: np.ndarray, own: np.ndarray) -> float:
    """The mean squared distance of float32 [N, d] to their own centroids."""
    away = points - own
    return float(np.einsum("nd,nd->n", away, away).mean(dtype=np.float64))


def _silhouette(apart: np.ndarray, labels: np.ndarray) -> float:
    """Of distances [n, n]; 0 where there are no two clusters, or only single images."""
    clusters = len(np.unique(labels))
    if not 1 < clusters < len(labels):
        return 0.0
    return float(silhouette_score(apart, labels, metric="precomputed"))


def _davies_bouldin(points: np.ndarray, labels: np.ndarray) -> float:
    """1 where there is one cluster."""
    return float(davies_bouldin_score(points, labels)) if len(np.unique(labels)) > 1 else 1.0


# ---- the recommendation ------------------------------------------------------------------------


def recommend(trials: Sequence[Trial], images: int) -> Tuple[int, str]:
    """(k, the reason in words) of trials in order of k, for an archive of so many images.

    Every measure is brought to 0..1 over the trials, and the k with the highest mean of the four is
    taken, the smallest if several have it. Of inertia, which only ever falls, it is the elbow that
    counts: how far below the straight line between its ends it lies, over the logarithm of k (as
    "Kneedle" does; Satopaa and others, 2011).
    """
    sensible = [trial for trial in trials if trial.k * IMAGES_PER_CLUSTER <= images]
    few = len(trials) - len(sensible)
    if len(sensible) < 3:
        smallest = trials[0]
        return smallest.k, (
            "k = %d: %d images are too few for most of these k, for which a cluster would have fewer "
            "than %d on average; the smallest is taken" % (smallest.k, images, IMAGES_PER_CLUSTER))
    marks = _marks(sensible)
    together = marks.mean(axis=1)
    best = int(together.argmax())
    chosen, favoured = sensible[best], marks.argmax(axis=0)
    words = [_agreement(name, sensible[place].k, chosen.k)
             for name, place in zip(("the elbow of inertia", "silhouette", "Davies-Bouldin index",
                                     "stability over seeds"), favoured)]
    reason = ("k = %d does best in four measures taken together: %s; silhouette %.2f, "
              "Davies-Bouldin %.2f, stability %.2f, inertia %.0f %% of that of one cluster" % (
                  chosen.k, ", ".join(words), chosen.silhouette, chosen.davies_bouldin,
                  chosen.stability, 100 * chosen.inertia))
    if few:
        reason += ("; %d larger k would leave fewer than %d images a cluster and are left out" % (
            few, IMAGES_PER_CLUSTER))
    if chosen is sensible[-1] and not few:
        reason += "; it is the largest that was tried: try larger ones as well"
    if chosen.stability < UNSTABLE:
        reason += ("; no k stands out: another seed draws other borders, so choose by how many "
                   "clusters the team can name")
    return chosen.k, reason


def _agreement(name: str, favoured: int, chosen: int) -> str:
    return "%s is best here" % name if favoured == chosen else "%s is best at %d" % (name, favoured)


def _marks(trials: Sequence[Trial]) -> np.ndarray:
    """float [n, 4] in 0..1, 1 the best of each measure; 0 throughout where it tells none apart."""
    table = np.array([(trial.inertia, trial.silhouette, -trial.davies_bouldin, trial.stability)
                      for trial in trials])
    logs = np.log([trial.k for trial in trials])
    along = (logs - logs[0]) / (logs[-1] - logs[0])
    table[:, 0] = table[0, 0] + along * (table[-1, 0] - table[0, 0]) - table[:, 0]
    spread = np.ptp(table, axis=0)
    return np.where(spread > 1e-9, (table - table.min(axis=0)) / np.maximum(spread, 1e-9), 0)
