"""Short forms of embeddings, from which ranking tells how far apart two images are.

In: embeddings. Out: 32 whole numbers each, 64 bytes in the catalog. A random projection keeps
distances (Johnson and Lindenstrauss 1984): with 32 numbers they are off by 11 to 15 % in the mean
square (measured on both networks, drawn and real pictures). With 1,024 numbers ranking sends as many
classes of terrain from the same streams, and hardly more kinds of odd ones.
"""

import functools
from typing import Tuple

import numpy as np

from jetson_cluster.codebook import normalise

NUMBERS = 32
# Whole numbers in float32, of which products and sums below 2^24 are exact: a distance is the same
# on every machine and in whatever company it is worked out. A step is far below the error above.
STEPS = 1024  # to 1, the length of an embedding
ENDLESS = np.float32(1e30)  # squared distance to what has no sketch
SEED = 20110414  # another one would make another projection, and all sketches kept worthless


@functools.lru_cache(maxsize=4)
def _projection(dimension: int) -> np.ndarray:
    """float64 [D, 32]. The numbers of RandomState are promised to be the same in every NumPy."""
    return np.random.RandomState(SEED).standard_normal((dimension, NUMBERS)) / np.sqrt(NUMBERS)


def of(embeddings: np.ndarray) -> np.ndarray:
    """int16 [N, 32], in steps of 1/1024, of raw embeddings float32 [N, D]."""
    # As the catalog gives them back: placed anew, an image has the sketch that it had.
    points = normalise(embeddings.astype(np.float16).astype(np.float32))
    return np.rint(STEPS * (points @ _projection(points.shape[1]))).astype(np.int16)


def pack(sketch: np.ndarray) -> bytes:
    """int16 [32] as 64 bytes."""
    return sketch.astype("<i2").tobytes()


def unpack(packed: bytes) -> np.ndarray:
    """int16 [n, 32] of n packed ones, one after the other."""
    return np.frombuffer(packed, "<i2").reshape(-1, NUMBERS).astype(np.int16)


def sides(sketches: np.ndarray, known: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """(a, b) float32 [N, 34] of int16 [N, 32]: a @ b.T are distances squared, in steps.

    Without end where one is not `known`, bool [N].
    """
    made = sketches.astype(np.float32)
    lengths = np.where(known, np.einsum("nd,nd->n", made, made), ENDLESS)[:, None]
    ones = np.ones_like(lengths)
    return (np.concatenate([made, lengths, ones], axis=1),
            np.concatenate([-2 * made, ones, lengths], axis=1))
