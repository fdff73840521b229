"""Embeddings of images whose terrain is known, without images; for the tests of the ground."""

import numpy as np


def terrain(kinds=6, scenes=40, shots=5, dimension=32, seed=0):
    """(embeddings, scene names, kind of each): scenes of a few kinds, shots of a scene alike."""
    rng = np.random.default_rng(seed)
    centres = 2.0 * np.random.default_rng(99).standard_normal((kinds, dimension))
    kind = np.repeat(rng.integers(0, kinds, scenes), shots)
    views = centres[kind] + np.repeat(rng.standard_normal((scenes, dimension)), shots, axis=0)
    views += 0.15 * rng.standard_normal(views.shape)
    lengths = rng.uniform(0.5, 20.0, (len(views), 1))
    names = ["sol%03d" % scene for scene in np.repeat(np.arange(scenes), shots)]
    return (views * lengths).astype(np.float32), names, kind


def distances(points, centroids):
    """float64 [N, k], the slow way."""
    return np.linalg.norm(points[:, None, :].astype(float) - centroids[None].astype(float), axis=2)
