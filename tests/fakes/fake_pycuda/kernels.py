"""The project's CUDA kernels, computed by numpy from the parameters of a launch.

In: a .cu source, "compiled" into an image that holds its kernels' names, parameters and bounds,
read from the source. Out: what the kernels write. That the real kernels compute the same is what
tests/cuda shows; here it is their callers that are checked: parameters, grids, every buffer's size.
"""

import hashlib
import json
import re

import numpy as np

from fake_pycuda.machine import DeviceFault

MAGIC = b"\x7fELF pretended cubin\n"
KERNEL = re.compile(r"__global__\s+void\s+__launch_bounds__\((\d+)[^)]*\)\s*(\w+)\s*\(([^)]*)\)")
TILE_ROWS, DEPTH, PARTIAL_BYTES, PIXELS = 64, 16, 32, 1024  # nearest.cu's and preprocess.cu's own


class NotAnImage(Exception):
    """These bytes are not kernels compiled for this GPU."""


def parameter_format(declaration):
    """The struct format of one parameter as C++ declares it."""
    if "*" in declaration:
        return "P"
    for words, form in (("unsigned long long", "Q"), ("float", "f"), ("int", "i")):
        if declaration.strip().startswith(words):
            return form
    raise ValueError("a parameter of an unknown type: " + declaration)


def build(source, architecture):
    """What stands for a cubin."""
    text = re.sub(r"//[^\n]*", "", source)
    found = {name: {"threads": int(threads), "format": "".join(
        parameter_format(each) for each in parameters.split(","))}
        for threads, name, parameters in KERNEL.findall(text)}
    body = json.dumps({"architecture": architecture, "kernels": found,
                       "source": hashlib.sha256(source.encode("utf-8")).hexdigest()})
    return MAGIC + body.encode("ascii")


def load(image, architecture):
    """{name: Kernel} of an image; raises NotAnImage for damage and for another architecture."""
    if not image.startswith(MAGIC):
        raise NotAnImage()
    try:
        held = json.loads(image[len(MAGIC):].decode("ascii"))
    except ValueError:
        raise NotAnImage()
    if held["architecture"] != architecture:
        raise NotAnImage()
    return {name: Kernel(name, each["format"], each["threads"])
            for name, each in held["kernels"].items()}


class Kernel:
    """One kernel of an image."""

    def __init__(self, name, form, threads):
        self.name = name
        self.form = form
        self.threads = threads

    def wrong_launch(self, form, grid, block):
        """Why a launch cannot be, or ""."""
        if form != self.form:
            return "parameters {}, the source has {}".format(form, self.form)
        if len(block) != 3 or int(np.prod(block)) != self.threads:
            return "blocks of {}, compiled for {}".format(block, self.threads)
        if not 1 <= len(grid) <= 3 or min(grid) < 1 or max(grid[1:], default=1) > 65535:
            return "a grid of {}".format(grid)
        return ""

    def run(self, machine, grid, values):
        """Computes it. Raises DeviceFault where memory does not suffice."""
        if self.name == "frames_to_planes":
            frames_to_planes(machine, grid, *values)
        else:
            nearest(machine, grid, self.name, *values)


def frames_to_planes(machine, grid, frames, size, pixels, planes):
    """preprocess.cu."""
    count = grid[1]
    if size != count * pixels * 3 or grid[0] != -(-pixels // PIXELS):
        raise DeviceFault("a grid of {} for {} bytes of {} pixels".format(grid, size, pixels))
    if frames % 4:
        raise DeviceFault("frames do not start on a multiple of 4 bytes")
    given = machine.array(frames, (count, pixels, 3), np.uint8)
    machine.array(planes, (count, 3, pixels), np.float32)[:] = given.transpose(0, 2, 1)


def nearest(machine, grid, name, embeddings, rows, centroids, k, dimension, share, neighbours,
            index, distance, partial, tickets, half_norms=None, doubt=None):
    """nearest.cu: distances measured from differences, in float64 here."""
    many = "_many_" in name
    stored = np.float16 if name.endswith("_half") else np.float32
    blocks = -(-rows // TILE_ROWS) if many else rows
    if grid[0] != blocks or not (grid[1] - 1) * share < k <= grid[1] * share:
        raise DeviceFault("a grid of {} with shares of {} for {} rows and {} centroids".format(
            grid, share, rows, k))
    if not 1 <= neighbours <= min(4, k):
        raise DeviceFault("{} neighbours of {}".format(neighbours, k))
    points = machine.array(embeddings, (rows, dimension), np.float32)
    held = machine.array(centroids, (k, -(-dimension // DEPTH) * DEPTH), stored)
    if held[:, dimension:].any():
        raise DeviceFault("the centroids are not padded with zeros")
    if grid[1] > 1:
        machine.array(partial, (rows, grid[1], PARTIAL_BYTES), np.uint8)
        if machine.array(tickets, (grid[0],), np.uint32).any():
            raise DeviceFault("a ticket is not zero")
    if many:
        halves = machine.array(half_norms, (k,), np.float32)
        true = (held.astype(np.float64) ** 2).sum(axis=1) / 2
        if not np.allclose(halves, true, rtol=1e-5) or not doubt > 0:
            raise DeviceFault("half squared lengths, or doubt, are not the centroids'")
    found, measured = _nearest_rows(points, held[:, :dimension].astype(np.float64), neighbours)
    machine.array(index, (rows, neighbours), np.int32)[:] = found
    machine.array(distance, (rows, neighbours), np.float32)[:] = measured


def _nearest_rows(points, centroids, neighbours):
    rows = points.astype(np.float64)
    with np.errstate(all="ignore"):
        length = np.sqrt((rows ** 2).sum(axis=1, keepdims=True))
        rows = (rows / np.where(length == 0, 1, length)).astype(np.float32).astype(np.float64)
    distances = np.stack([np.sqrt(((row - centroids) ** 2).sum(axis=1)) for row in rows])
    # As float32 before they are ranked: the kernel's ties are those of the numbers it writes.
    distances = distances.astype(np.float32)
    ranked = np.where(np.isnan(distances), np.inf, distances)
    order = np.argsort(ranked, axis=1, kind="stable")[:, :neighbours]
    return order, np.take_along_axis(distances, order, axis=1)
