"""`tools/bench fit`: k-means here against its peers, on drawn embeddings whose classes are known.

Every method runs in a process of its own, in turns, one for each seed. Seconds and memory are what it
takes beyond reading the data; inertia and agreement are worked out alike for all, from the centroids.
Inertia alone does not choose a method: what counts is whether clusters are the classes, which is what
the adjusted Rand index says (1: the same, 0: chance).

    tools/bench fit [--images 30000] [--dimension 2048] [--k 128] [--classes 128] [--seeds 3]
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import machine
import numpy as np

from jetson_cluster import codebook

OURS = "ours"
SLICE_IMAGES = 8  # of the loop in pure Python
LOOP_ITERATIONS, LOOP_MOVED = 100, 1e-4  # of the torch loop: ends when no centroid moves farther
# What sets drawn classes apart, and what blurs them: parts of a standard deviation of a number.
APART, LIGHT, WITHIN, NOISE, DEAD = 0.8, 0.5, 0.6, 0.7, 0.5
LIGHTS, DIRECTIONS = 8, 12
SKEW = 0.7  # sizes fall with this power of their rank, as terrain's do


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("images", 30000), ("dimension", 2048), ("k", 128), ("classes", 128),
                          ("seeds", 3)):
        parser.add_argument("--" + name, type=int, default=default)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # method, data, seed
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], args.one[1], args.k, int(args.one[2]))))
        return
    methods = [name for name in METHODS if name != "torch cdist loop"
               or importlib.util.find_spec("torch")]
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "drawn.npz")
        points, classes = draw(args.images, args.dimension, args.classes)
        np.savez(data, points=points, classes=classes)
        loop_s = pure_python_s(points[:SLICE_IMAGES], args.k)
        del points
        runs = {name: [] for name in methods}
        for seed in range(args.seeds):
            for name in methods:
                runs[name].append(json.loads(subprocess.check_output(
                    [sys.executable, __file__, "--k", str(args.k), "--one", name, data, str(seed)])))
                print("%s, seed %d: %.1f s" % (name, seed, runs[name][-1]["seconds"]),
                      file=sys.stderr, flush=True)
    print("%s; %d images of %d classes, %d numbers, k = %d, median of %d seeds\n" % (
        machine.kind(), args.images, args.classes, args.dimension, args.k, args.seeds))
    print(machine.table(
        ["method", "seconds", "of ours", "inertia over the least", "agreement (adjusted Rand index)",
         "memory beyond the data, MB"],
        [line(name, runs) for name in methods] + [pure_python_line(
            loop_s * args.images / SLICE_IMAGES, runs)]))
    if "torch cdist loop" not in methods:
        print("\ntorch is not installed here: its loop is left out (pip install torch)")


def draw(images, dimension, classes):
    """(float32 [images, dimension] of length 1, int [images]): as a network's last ReLU gives them.

    Classes of unequal size have middles of their own and vary in a few directions of their own; light
    varies alike in all; below a threshold numbers are 0.
    """
    random = np.random.default_rng(0)
    share = 1 / np.arange(1, classes + 1) ** SKEW
    kind = random.choice(classes, images, p=share / share.sum())

    def normal(*shape):
        return random.standard_normal(shape, dtype=np.float32)

    points = APART * normal(classes, dimension)[kind]
    points += LIGHT / LIGHTS ** 0.5 * normal(images, LIGHTS) @ normal(LIGHTS, dimension)
    for number in range(classes):
        own = kind == number
        points[own] += (WITHIN / DIRECTIONS ** 0.5 * normal(own.sum(), DIRECTIONS)
                        @ normal(DIRECTIONS, dimension))
    for start in range(0, images, 1000):
        points[start:start + 1000] += NOISE * normal(*points[start:start + 1000].shape)
    return codebook.normalise(np.maximum(points - np.float32(DEAD), 0)), kind


def measure(name, data, k, seed):
    """What one method gives with one seed."""
    with np.load(data) as held:
        points, classes = held["points"], held["classes"]
    work = METHODS[name]()  # imports what it needs
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    centroids = np.ascontiguousarray(work(points, k, seed), np.float32)
    seconds = time.perf_counter() - begun
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    from sklearn.metrics import adjusted_rand_score

    found = codebook.nearest(points, centroids, codebook.half_squared_lengths(centroids), 1)
    return {"seconds": seconds, "memory_mb": (peak_kb - before_kb) / 1e3,
            "inertia": float((found.distance.astype(np.float64) ** 2).sum()),
            "agreement": float(adjusted_rand_score(classes, found.index[:, 0])),
            "iterations": getattr(work, "iterations", None)}


def line(name, runs):
    """One line of the table."""
    own = runs[name]
    least = min(run["inertia"] for each in runs.values() for run in each)
    return [name, machine.median_and_spread([run["seconds"] for run in own]),
            "%.2f" % statistics.median(run["seconds"] / ours["seconds"]
                                       for run, ours in zip(own, runs[OURS])),
            "%.2f %%" % (100 * statistics.median(run["inertia"] / least - 1 for run in own)),
            machine.median_and_spread([run["agreement"] for run in own]),
            "%.0f" % statistics.median(run["memory_mb"] for run in own)]


def pure_python_line(iteration_s, runs):
    """The loop over lists, worked out from a slice of one iteration of it."""
    iterations = [run["iterations"] for run in runs.get("torch cdist loop", [])]
    count = statistics.median(iterations) if iterations else LOOP_ITERATIONS
    seconds = iteration_s * count
    told = "as the torch loop took" if iterations else "at most"
    return ["pure-Python loop",
            "%.3g (worked out from %d images of one iteration, times %d iterations %s)" % (
                seconds, SLICE_IMAGES, count, told),
            "%.0f" % (seconds / statistics.median(run["seconds"] for run in runs[OURS])), "", "", ""]


# ---- the methods: each imports its library and gives what makes centroids ------------------------


def ours():
    """As `jetson-cluster fit` does it."""
    from jetson_cluster.ground.clustering import kmeans

    return kmeans


def faiss_kmeans():
    """faiss as it comes."""
    import faiss

    def work(points, k, seed):
        trainer = faiss.Kmeans(points.shape[1], k, seed=seed)
        trainer.train(points)
        return trainer.centroids
    return work


def sklearn_kmeans():
    """Lloyd's algorithm from k-means++, as it comes."""
    from sklearn.cluster import KMeans

    return lambda points, k, seed: KMeans(k, random_state=seed).fit(points).cluster_centers_


def sklearn_minibatch():
    """As it comes."""
    from sklearn.cluster import MiniBatchKMeans

    return lambda points, k, seed: MiniBatchKMeans(k, random_state=seed).fit(points).cluster_centers_


def torch_loop():
    """All distances with torch.cdist, the nearest, their means, again: from images drawn by chance."""
    import torch

    def work(points, k, seed):
        held = torch.from_numpy(points)
        drawn = torch.randperm(len(held), generator=torch.Generator().manual_seed(seed))[:k]
        centroids = held[drawn].clone()
        for iteration in range(1, LOOP_ITERATIONS + 1):
            nearest = torch.cdist(held, centroids).argmin(dim=1)
            sums = torch.zeros_like(centroids).index_add_(0, nearest, held)
            counts = torch.bincount(nearest, minlength=k)[:, None]
            moved = torch.where(counts > 0, sums / counts.clamp(min=1), centroids)
            farthest = (moved - centroids).norm(dim=1).max()
            centroids, work.iterations = moved, iteration
            if farthest < LOOP_MOVED:
                break
        return centroids.numpy()
    return work


METHODS = {OURS: ours, "scikit-learn KMeans": sklearn_kmeans,
           "scikit-learn MiniBatchKMeans": sklearn_minibatch, "faiss.Kmeans": faiss_kmeans,
           "torch cdist loop": torch_loop}


def pure_python_s(points, k):
    """Seconds that a loop over lists takes to find the nearest of k centroids for these points."""
    rows = points.tolist()
    centroids = [rows[number % len(rows)] for number in range(k)]
    begun = time.perf_counter()
    for row in rows:
        best = None
        for centroid in centroids:
            squared = 0.0
            for one, other in zip(row, centroid):
                squared += (one - other) ** 2
            if best is None or squared < best:
                best = squared
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
