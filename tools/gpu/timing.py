"""What is timed and how, the same for the kernels and for what they are compared with.

Before each run a large copy flushes the GPU's caches, as the network does between two lookups, and
keeps the GPU busy while the host queues what is timed; so the time between the two events is the
GPU's alone. The empty interval between two events is measured too, and left in every time.
"""

import statistics
from typing import Callable, List, NamedTuple

import numpy as np

WARM_UPS = 3
FEWEST, MOST = 5, 100
ENOUGH_MS, QUICK_MS = 4000.0, 100.0  # of one row of a table


class Size(NamedTuple):
    """One lookup: N rows among k centroids of D numbers."""

    rows: int
    k: int
    dimension: int


def sizes(quick: bool) -> List[Size]:
    """What the tables show; quick ones say nothing about speed, only that the measuring works."""
    if quick:
        return [Size(1, 32, 64), Size(1, 64, 64), Size(100, 64, 64)]
    return [Size(1, k, 2048) for k in (128, 512, 4096)] + [
        Size(rows, 512, 2048) for rows in (8, 4096, 65536)]


def flush_bytes(quick: bool, free: int) -> int:
    """Of the copy that flushes caches: several times the largest there are, and not all memory."""
    return 1 << 20 if quick else min(256 << 20, free // 8)


class Data(NamedTuple):
    """What is looked up: rows as a network gives them, near some centroid or other."""

    embeddings: np.ndarray  # float32 [n, D], n at most 4096; larger N repeat them
    centroids: np.ndarray  # float32 [k, D]


def data(size: Size) -> Data:
    """The same numbers for everything that is compared."""
    random = np.random.RandomState(size.k)
    centroids = random.rand(size.k, size.dimension).astype(np.float32) ** 3
    centroids /= np.sqrt((centroids ** 2).sum(axis=1, keepdims=True))
    rows = centroids[random.randint(size.k, size=min(size.rows, 4096))]
    noise = random.rand(*rows.shape).astype(np.float32) ** 3
    return Data(rows * 20 + noise * 0.5, centroids * np.float32(0.8))


def half_squared_lengths(centroids: np.ndarray) -> np.ndarray:
    """float32 [k]: what a product leaves out of half a squared distance."""
    return 0.5 * np.einsum("kd,kd->k", centroids, centroids)


def measured(time_of: Callable[[int], List[float]], quick: bool) -> dict:
    """Milliseconds of many runs; `time_of(n)` does n and times each."""
    last = time_of(WARM_UPS)[-1]
    enough_ms = QUICK_MS if quick else ENOUGH_MS
    runs = int(min(MOST, max(FEWEST, enough_ms / max(last, 1e-3))))
    times = time_of(runs)
    return {"ms": statistics.median(times), "ms_least": min(times), "ms_most": max(times),
            "runs": runs}
