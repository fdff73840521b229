"""A codebook good enough to compare runtimes with, made without the ground's libraries.

In: embeddings. Out: a Codebook of a few centroids with plausible statistics. `jetson-cluster fit`
makes better ones; the rover, which has neither faiss nor scikit-learn, can make this one.
"""

import numpy as np

from jetson_cluster import codebook
from jetson_cluster.codebook import QUANTILE_POINTS, Codebook

ROUNDS = 8
IMAGES_PER_CLUSTER = 6
LEAST = 1e-6  # scales must be positive, also where all images are alike


def codebook_of(embeddings: np.ndarray, space: str) -> Codebook:
    """Lloyd's algorithm from evenly chosen images; embeddings float32 [N, D], at least two."""
    points = codebook.normalise(embeddings)
    k = max(2, len(points) // IMAGES_PER_CLUSTER)
    centroids = points[np.linspace(0, len(points) - 1, k).astype(int)].copy()
    for _ in range(ROUNDS):
        found = nearest(points, centroids)
        for number in np.unique(found.index[:, 0]):
            centroids[number] = points[found.index[:, 0] == number].mean(axis=0)
    found = nearest(points, centroids)
    cluster, first, second = found.index[:, 0], found.distance[:, 0], found.distance[:, 1]
    scales = np.full(k, max(float(first.mean()), LEAST), np.float32)
    ratio = first / scales[cluster]
    margin = 1 - first / np.maximum(second, LEAST)
    ramp = np.linspace(0, 1, QUANTILE_POINTS)
    return Codebook(
        space=space, normalisation="l2", centroids=centroids,
        counts=np.bincount(cluster, minlength=k).astype(np.int64), scales=scales,
        novelty_quantiles=np.quantile(ratio, ramp).astype(np.float32),
        margin_quantiles=np.quantile(margin, ramp).astype(np.float32),
        r50=max(float(np.quantile(ratio, 0.5)), LEAST),
        r95=max(float(np.quantile(ratio, 0.95)), LEAST))


def nearest(points, centroids):
    """The two nearest centroids of each point."""
    return codebook.nearest(points, centroids, codebook.half_squared_lengths(centroids), 2)
