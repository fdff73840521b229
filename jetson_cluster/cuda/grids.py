"""How the kernels are launched: blocks, shares of the centroids, and sizes of what they work in.

Pure functions of shapes and of the number of multiprocessors; the constants are nearest.cu's and
preprocess.cu's own, and a test compares them.
"""

from typing import NamedTuple, Tuple

import numpy as np

BLOCK = 256  # threads of every block of every kernel
MOST_NEIGHBOURS = 4
# Above this many rows the tiled product costs less than measuring every distance: on one
# multiprocessor a tile of 64 rows takes about as long as 16 rows measured one by one.
FEW_ROWS = 16
FEW_STEP = 32  # centroids that a block of nearest_few measures at once, 4 in each of 8 warps
FEW_RESIDENT = 4  # blocks that a multiprocessor holds at once, by registers
TILE_ROWS = 64
TILE_CENTROIDS = 128
TILE_DEPTH = 16
MANY_RESIDENT = 2
PARTIAL_BYTES = 8 * MOST_NEIGHBOURS  # what one block leaves of one row
PIXELS = 1024  # of a block of frames_to_planes
MOST_FRAMES = 65535  # the second dimension of a grid
ROUNDING = 2.0 ** -24  # of one float32 operation, relative


class Launch(NamedTuple):
    """One launch of a nearest kernel."""

    many: bool  # nearest_many_*, else nearest_few_*
    grid: Tuple[int, int]  # (rows or tiles of rows, shares of the centroids)
    slice: int  # centroids of one share, the last one may be smaller


def nearest_launch(rows: int, k: int, multiprocessors: int) -> Launch:
    """How to look up `rows` embeddings among `k` centroids.

    Centroids are shared between blocks only where rows alone would leave multiprocessors idle.
    """
    many = rows > FEW_ROWS
    blocks = -(-rows // TILE_ROWS) if many else rows
    step = TILE_CENTROIDS if many else FEW_STEP
    wanted = multiprocessors * (MANY_RESIDENT if many else FEW_RESIDENT)
    shares = max(1, min(-(-k // step), -(-wanted // blocks)))
    per_share = -(-(-(-k // shares)) // step) * step
    return Launch(many, (blocks, -(-k // per_share)), per_share)


def ticket_count(multiprocessors: int) -> int:
    """Tickets for any launch: one for each first coordinate of a grid with more than one share."""
    return max(FEW_ROWS, multiprocessors * MANY_RESIDENT)


def partial_bytes(multiprocessors: int) -> int:
    """Bytes for what blocks leave each other, for any launch.

    Shares are at most wanted / blocks rounded up, and more than one only where blocks < wanted, so
    blocks x shares < 2 x wanted.
    """
    few = 2 * max(FEW_ROWS, multiprocessors * FEW_RESIDENT)
    many = 2 * multiprocessors * MANY_RESIDENT * TILE_ROWS
    return max(few, many) * PARTIAL_BYTES


def stored_centroids(centroids: np.ndarray, dtype) -> np.ndarray:
    """Centroids as nearest.cu reads them: `dtype` [k, D rounded up to 16], the rest zero."""
    k, dimension = centroids.shape
    stored = np.zeros((k, -(-dimension // TILE_DEPTH) * TILE_DEPTH), dtype)
    stored[:, :dimension] = centroids
    return stored


def half_norms_and_doubt(stored: np.ndarray, dimension: int) -> Tuple[np.ndarray, float]:
    """Half squared lengths float32 [k] of stored centroids, and how wrong nearest_many may rank.

    A product summed in `dimension` steps is out by at most dimension roundings of |x||c|, the
    row's length (a quarter as long a sum) and its use by dimension / 8 + 8 more, the half squared
    length and the subtraction by 4 of |c|^2 / 2. 1.2 and the rest leave room for the terms of
    higher order. See Higham, Accuracy and Stability of Numerical Algorithms, 3.1.
    """
    squared = np.einsum("kd,kd->k", stored, stored, dtype=np.float64)
    longest = float(np.sqrt(squared.max()))
    doubt = ROUNDING * ((1.2 * dimension + 16) * longest + 2 * longest ** 2)
    most = float(np.finfo(np.float32).max)
    return np.minimum(squared / 2, most).astype(np.float32), min(doubt, most)


def planes_grid(frames: int, pixels: int) -> Tuple[int, int]:
    """The grid of frames_to_planes."""
    return -(-pixels // PIXELS), frames
