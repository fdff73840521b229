"""`tools/bench nearest`: the nearest centroid in numpy against faiss's exact index, in turns."""

import statistics
import time

import faiss
import machine
import numpy as np

from jetson_cluster import codebook

ROUNDS = 9
DIMENSION = 2048


def main():
    """Print the table."""
    print(machine.kind() + "; D = %d, the two nearest\n" % DIMENSION)
    print(machine.table(["vectors", "k", "ours, ms", "faiss IndexFlatL2, ms", "ratio"],
                        [row(vectors, k) for vectors in (1, 10000) for k in (128, 512)]))


def row(vectors, k):
    """One line; both give the same centroids, or the program ends."""
    random = np.random.RandomState(k)
    centroids = codebook.normalise(random.rand(k, DIMENSION).astype(np.float32) ** 3)
    points = codebook.normalise(random.rand(vectors, DIMENSION).astype(np.float32) ** 3)
    half_norms = codebook.half_squared_lengths(centroids)
    index = faiss.IndexFlatL2(DIMENSION)
    index.add(centroids)
    if (codebook.nearest(points, centroids, half_norms, 2).index != index.search(points, 2)[1]).any():
        raise SystemExit("the two disagree")
    repeats = 200 if vectors == 1 else 1
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(timed(lambda: codebook.nearest(points, centroids, half_norms, 2), repeats))
        theirs.append(timed(lambda: index.search(points, 2), repeats))
    ratios = [one / other for one, other in zip(ours, theirs)]
    return [vectors, k, "%.3g" % statistics.median(ours), "%.3g" % statistics.median(theirs),
            machine.median_and_spread(ratios)]


def timed(work, repeats):
    """Milliseconds a call."""
    begun = time.perf_counter()
    for _ in range(repeats):
        work()
    return 1000 * (time.perf_counter() - begun) / repeats


if __name__ == "__main__":
    main()
