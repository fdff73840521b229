"""How an archive's embeddings are prepared for clustering: what `fit --normalise --pca` asks for.

In: raw embeddings. Out: a codebook.Preparation, which the rover applies to every image as well.
"""

import numpy as np
from sklearn.decomposition import PCA

from jetson_cluster.codebook import Preparation
from jetson_cluster.errors import UserError

SEED = 0  # of the randomised solver: the same archive gives the same components


def check(components: int, images: int, dimension: int) -> None:
    """Raise UserError if so many images of so many numbers have no so many components."""
    if components > min(images, dimension):
        raise UserError("--pca %d: %d images with %d numbers each have at most %d components" % (
            components, images, dimension, min(images, dimension)))


def learn(embeddings: np.ndarray, normalisation: str, components: int) -> Preparation:
    """The Preparation of raw embeddings float32 [N, D]; `components` 0 keeps all numbers.

    With `components` it keeps the directions of largest variance, as many as there are at most. Few
    of them carry what tells scenes apart, and clustering and the rover's lookup take less time by it.
    """
    scaled = Preparation(normalisation)
    kept = min(components, *embeddings.shape)
    if not kept:
        return scaled
    points = scaled.apply(embeddings)
    fitted = PCA(kept, random_state=SEED).fit(points)
    return scaled._replace(mean=fitted.mean_.astype(np.float32),
                           components=np.ascontiguousarray(fitted.components_, np.float32))
