"""Launches of the kernels as the launcher makes them, and what is true, in float64.

In: embeddings and centroids as numpy arrays, a worker of cpu_kernels. Out: indices and distances.
"""

import pathlib

import numpy as np
from cpu_kernels import Memory

from jetson_cluster.cuda import grids

CUDA = pathlib.Path(grids.__file__).resolve().parent
NEAREST = CUDA / "nearest.cu"
PREPROCESS = CUDA / "preprocess.cu"


def nearest(worker, embeddings, centroids, neighbours=4, stored="float16", multiprocessors=1,
            seed=0, offset=0, doubt=None):
    """What nearest.cu says: (index int32 [N, n], distance float32 [N, n]).

    `offset` is in bytes: where in its allocation the first embedding begins. `doubt` replaces the
    bound that the launcher computes.
    """
    rows, dimension = embeddings.shape
    k = len(centroids)
    neighbours = min(neighbours, k)
    held = grids.stored_centroids(centroids, stored)
    half_norms, bound = grids.half_norms_and_doubt(held, dimension)
    launch = grids.nearest_launch(rows, k, multiprocessors)
    index = np.full((rows, neighbours), -7, np.int32)
    distance = np.full((rows, neighbours), -7, np.float32)
    tickets = np.zeros(grids.ticket_count(multiprocessors), np.uint32)
    shifted = np.zeros(offset // 4 + embeddings.size, np.float32)
    shifted[offset // 4:] = embeddings.ravel()
    parameters = [
        Memory(shifted, offset), np.int32(rows), Memory(held), np.int32(k), np.int32(dimension),
        np.int32(launch.slice), np.int32(neighbours), Memory(index), Memory(distance),
        Memory(np.zeros(grids.partial_bytes(multiprocessors), np.uint8)), Memory(tickets)]
    if launch.many:
        parameters += [Memory(half_norms), np.float32(bound if doubt is None else doubt)]
    worker.launch("nearest_{}_{}".format("many" if launch.many else "few",
                                         {"float16": "half", "float32": "float"}[stored]),
                  launch.grid, parameters, seed=seed)
    assert not tickets.any(), "a ticket was not put back"
    return index, distance


def planes(worker, frames, seed=0):
    """What preprocess.cu makes of frames uint8 [N, H, W, 3]: float32 [N, 3, H, W]."""
    count, height, width, _ = frames.shape
    made = np.full((count, 3, height, width), -7, np.float32)
    pixels = height * width
    worker.launch("frames_to_planes", grids.planes_grid(count, pixels), [
        Memory(frames), np.uint64(frames.nbytes), np.int32(pixels), Memory(made)], seed=seed)
    return made


def true_distances(embeddings, centroids, stored="float16"):
    """float64 [N, k], of rows scaled to length 1 in float64 to the centroids as they are stored."""
    rows = embeddings.astype(np.float64)
    lengths = np.sqrt((rows ** 2).sum(axis=1, keepdims=True))
    rows = rows / np.where(lengths > 0, lengths, 1)
    held = centroids.astype(stored).astype(np.float64)
    return np.stack([np.sqrt(((row - held) ** 2).sum(axis=1)) for row in rows])


def assert_true(index, distance, truth):
    """The answer is right: distances to float32 accuracy, the nearest ones, nearest first.

    2.5e-7 is what rounding the row's numbers to float32 can move a distance, and 2e-7 of the
    distance what summing 4096 squares and the root can lose. About half of either was seen.
    """
    rows, neighbours = index.shape
    chosen = np.take_along_axis(truth, index, axis=1)
    best = np.sort(truth, axis=1)[:, :neighbours]
    leeway = 2.5e-7 + 2e-7 * best
    assert (np.abs(distance - chosen) <= leeway).all(), np.abs(distance - chosen).max()
    assert (chosen <= best + leeway).all()
    assert (np.diff(distance, axis=1) >= 0).all()
    assert all(len(set(row)) == neighbours for row in index.tolist())
