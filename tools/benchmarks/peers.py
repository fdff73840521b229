"""What the ranking is measured against: other rules for the order in which to send a stream.

In: a Case, one stream with the archive that went before it. Out: int [m], the places of the stream
in the order to send them. Every rule sees the same embeddings, scaled to length 1 as ours are.
"""

from typing import NamedTuple

import numpy as np
from sklearn.ensemble import IsolationForest

from jetson_cluster.codebook import Codebook, normalise

TREES = 100  # scikit-learn's own number, and with all of the archive in each tree what DORA takes


class Case(NamedTuple):
    """One stream of m images as the rover sees it, in the order of arrival."""

    archive: np.ndarray  # float32 [n, D], raw embeddings
    embeddings: np.ndarray  # float32 [m, D], raw
    bytes: np.ndarray  # int64 [m]
    measures: np.ndarray  # float32 [m, fields of quality.Measures]
    sha256: np.ndarray  # text [m]
    codebook: Codebook  # fitted to the archive
    seed: int


def first_come(case: Case) -> np.ndarray:
    """First in, first out."""
    return np.arange(len(case.embeddings))


def every_nth(case: Case, share: float) -> np.ndarray:
    """Every n-th as it arrived, n so that `share` of the stream is meant; then those after them."""
    step = max(1, int(round(1 / share)))
    places = np.arange(len(case.embeddings))
    return np.lexsort((places, places % step))


def at_random(case: Case, draw: int) -> np.ndarray:
    """One of many random orders."""
    return np.random.RandomState([case.seed, draw]).permutation(len(case.embeddings))


def farthest_first(case: Case) -> np.ndarray:
    """Greedy k-centre (Gonzalez, 1985) within the stream; it begins with the first that came."""
    return _farthest_first(normalise(case.embeddings), np.empty((0, case.embeddings.shape[1])))


def farthest_first_after_archive(case: Case) -> np.ndarray:
    """Greedy k-centre that begins with the archive's centroids as if they had been sent."""
    return _farthest_first(normalise(case.embeddings), case.codebook.centroids)


def _farthest_first(points: np.ndarray, sent: np.ndarray) -> np.ndarray:
    distance = np.full(len(points), np.inf)
    for centre in sent:
        distance = np.minimum(distance, np.linalg.norm(points - centre, axis=1))
    order = []
    for _ in points:
        order.append(int(distance.argmax()))  # the first that came, on a tie
        distance = np.minimum(distance, np.linalg.norm(points - points[order[-1]], axis=1))
        distance[order] = -np.inf
    return np.array(order)


def isolation_forest(case: Case) -> np.ndarray:
    """The least ordinary first, by an Isolation Forest (Liu et al., 2008) fitted to the archive."""
    forest = IsolationForest(n_estimators=TREES, max_samples=len(case.archive),
                             random_state=case.seed)
    forest.fit(normalise(case.archive))
    return np.argsort(forest.score_samples(normalise(case.embeddings)), kind="stable")


def novelty_only(case: Case) -> np.ndarray:
    """The farthest from its cluster first, in the cluster's own scale."""
    return np.argsort(-case.codebook.assess(case.embeddings).ratio, kind="stable")
