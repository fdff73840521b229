"""What the operations team wants, as a small file it can uplink: names and weights of clusters.

In: `policy.yaml`. Out: a checked `Policy`. The daemon reads it again when it changes; a bad one is
reported and the last good one stays.
"""

import os
from typing import Any, Dict, NamedTuple

import numpy as np

from jetson_cluster.checking import Checker
from jetson_cluster.errors import UserError

WEIGHT_MOST = 1000.0


class Policy(NamedTuple):
    """Labels and weights by cluster number; an absent cluster has no label and weight 1."""

    labels: Dict[int, str]
    weights: Dict[int, float]

    def weights_of(self, clusters: int) -> np.ndarray:
        """float64 [clusters]: the weight of each cluster."""
        return np.array([self.weights.get(cluster, 1.0) for cluster in range(clusters)])

    def unknown_clusters(self, clusters: int) -> list:
        """Numbers that the policy speaks of but a codebook of so many clusters does not have."""
        return sorted(number for number in set(self.labels) | set(self.weights)
                      if number >= clusters)


EMPTY = Policy({}, {})


def load(path: str) -> Policy:
    """Read and check a policy; a file that is not there is an empty policy. Raises UserError."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return EMPTY
    except OSError as error:
        raise UserError("policy %s: cannot be read: %s" % (path, error.strerror or error))
    checker = Checker("policy", path)
    content = checker.read()
    top = checker.mapping({} if content is None else content, "", ("clusters",))
    labels, weights = {}, {}
    clusters = top.get("clusters")
    if clusters is not None and not isinstance(clusters, dict):
        checker.wrong("'clusters' must map cluster numbers to {label, weight}")
        clusters = None
    for number, entry in (clusters or {}).items():
        where = "clusters.%s" % number
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            checker.wrong("'%s': a cluster is a whole number from 0" % where)
            continue
        entry = checker.mapping(entry, where, ("label", "weight"))
        if entry.get("label") is not None:
            labels[number] = _label(checker, entry["label"], where + ".label")
        if entry.get("weight") is not None:
            weights[number] = checker.number(entry["weight"], where + ".weight", 0, WEIGHT_MOST)
    checker.finish()
    return Policy(labels, weights)


def _label(checker: Checker, value: Any, where: str) -> str:
    text = checker.text(value, where)
    if len(text) > 80 or not text.isprintable():
        checker.wrong("'%s' must be at most 80 printable characters" % where)
    return text
