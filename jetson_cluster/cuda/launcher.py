"""Compiles the kernels for the GPU at hand, keeps what was compiled, and launches it, by PyCUDA.

In: a current CUDA context (the caller's, whose thread alone may call this), device pointers, a
stream. Out: device memory that the caller gave. Nothing here waits for the GPU, except that
`Lookup` copies the centroids up when it is made.
"""

import hashlib
import logging
import os
import shutil
from typing import NamedTuple

import numpy as np

from jetson_cluster.cuda import grids
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.files import write_atomically

log = logging.getLogger(__name__)

FOLDER = os.path.dirname(os.path.abspath(__file__))
# JetPack puts the compiler here and leaves it out of PATH.
USUAL_NVCC = "/usr/local/cuda/bin/nvcc"
OPTIONS = ["-std=c++14"]
BLOCK = (grids.BLOCK, 1, 1)
# The kernels' parameters, as struct formats: P pointer, i int32, Q uint64, f float32.
FEW = "PiPiiiiPPPP"
MANY = FEW + "Pf"
PLANES = "PQiP"
STORED = {"float16": "half", "float32": "float"}


class Target(NamedTuple):
    """What compiled kernels depend on, beside their source."""

    architecture: str  # "sm_53"
    cuda: str  # the CUDA version PyCUDA was built for, "10.2.0"


def image_path(folder: str, name: str, source: str, target: Target) -> str:
    """Where the compiled form of one source text is kept for one target."""
    digest = hashlib.sha256("\0".join(
        [source, target.architecture, target.cuda] + OPTIONS).encode("utf-8")).hexdigest()
    return os.path.join(folder, "%s-%s-%s.cubin" % (name, target.architecture, digest[:16]))


def source_of(name: str) -> str:
    """The text of `name`.cu of this package."""
    with open(os.path.join(FOLDER, name + ".cu"), encoding="utf-8") as stream:
        return stream.read()


def read_image(path: str) -> bytes:
    """A compiled image; raises ValueError if it is not what was written, OSError."""
    with open(path, "rb") as stream:
        held = stream.read()
    image, digest = held[:-hashlib.sha256().digest_size], held[-hashlib.sha256().digest_size:]
    if hashlib.sha256(image).digest() != digest:
        raise ValueError("its checksum is wrong")
    return image


class Kernels:
    """nearest.cu and preprocess.cu, loaded into the current CUDA context.

    `cache_folder` keeps what was compiled: seconds at the first start on a Nano, none afterwards,
    and no compiler is needed then. Raises WorldError where the kernels can be had in neither way.
    """

    def __init__(self, cache_folder: str):
        import pycuda.driver as driver

        device = driver.Context.get_device()
        self.multiprocessors = device.get_attribute(
            driver.device_attribute.MULTIPROCESSOR_COUNT)
        self._target = Target("sm_%d%d" % device.compute_capability(),
                              "%d.%d.%d" % driver.get_version())
        self._folder = cache_folder
        self._nearest = self._load("nearest", driver)
        self._preprocess = self._load("preprocess", driver)
        self._planes = self.prepared(self._preprocess, "frames_to_planes", PLANES)

    def nearest_function(self, many: bool, stored: str):
        """The kernel for many rows or few, of centroids kept as `stored`."""
        name = "nearest_%s_%s" % ("many" if many else "few", STORED[stored])
        return self.prepared(self._nearest, name, MANY if many else FEW)

    @staticmethod
    def prepared(module, name: str, parameters: str):
        """A kernel of a module with the types of its parameters."""
        return module.get_function(name).prepare(list(parameters))

    def planes(self, frames, count: int, height: int, width: int, planes, stream=None) -> None:
        """uint8 [count, height, width, 3] at `frames` to float32 [count, 3, height, width].

        Both are device pointers; `frames` starts on a multiple of 4 bytes. The numbers stay 0..255.
        """
        pixels = height * width
        if count < 1 or count > grids.MOST_FRAMES or pixels < 1 or pixels >= 2 ** 31:
            raise ValueError("cannot convert %d frames of %d x %d" % (count, height, width))
        if int(frames) % 4:
            raise ValueError("frames must start on a multiple of 4 bytes")
        self._planes.prepared_async_call(
            grids.planes_grid(count, pixels), BLOCK, stream,
            int(frames), count * pixels * 3, pixels, int(planes))

    def _load(self, name, driver):
        source = source_of(name)
        path = image_path(self._folder, name, source, self._target)
        if os.path.isfile(path):
            try:
                return driver.module_from_buffer(read_image(path))
            except (OSError, ValueError, driver.Error) as error:
                log.warning("KernelsUnreadable: %s: %s; compiling them again",
                            path, error)
        image = self._compile(name, source, driver)
        try:
            os.makedirs(self._folder, exist_ok=True)
            write_atomically(path, image + hashlib.sha256(image).digest())
        except OSError as error:
            log.warning("KernelsNotKept: %s; every start will compile them", error)
        return driver.module_from_buffer(image)

    def _compile(self, name, source, driver):
        nvcc = shutil.which("nvcc") or (USUAL_NVCC if os.path.exists(USUAL_NVCC) else None)
        if nvcc is None:
            raise WorldError(
                "CUDA kernel %s.cu: no nvcc on PATH nor at %s, and none compiled for %s in %s; "
                "install CUDA's compiler (on a Jetson: apt-get install cuda-nvcc-10-2)" % (
                    name, USUAL_NVCC, self._target.architecture, self._folder))
        from pycuda.compiler import compile as compile_cuda

        log.info("compiling %s.cu for %s", name, self._target.architecture)
        try:
            return compile_cuda(source, nvcc=nvcc, options=list(OPTIONS), no_extern_c=True,
                                arch=self._target.architecture, cache_dir=False)
        except driver.CompileError as error:
            raise WorldError("CUDA kernel %s.cu does not compile for %s: %s" % (
                name, self._target.architecture, " ".join(str(error).split())[-800:]))


class Lookup:
    """Centroids on the device, and the search for the nearest of them. A context manager.

    `centroids` are float32 [k, D], kept there as `stored`: float16 halves the reading, which is
    what takes time, and moves a distance by at most 0.0005 of the centroid's length.
    Launches must follow one another in one stream: they share what blocks leave each other.
    """

    def __init__(self, kernels: Kernels, centroids: np.ndarray, stored: str = "float16"):
        import pycuda.driver as driver

        self.k, self.dimension = centroids.shape
        with np.errstate(over="ignore"):
            held = grids.stored_centroids(centroids, stored)
        if not np.isfinite(held).all():
            raise UserError("codebook: its centroids hold numbers beyond %s, the largest that fits "
                            "in %s; keep them in float32" % (np.finfo(stored).max, stored))
        half_norms, self._doubt = grids.half_norms_and_doubt(held, self.dimension)
        self._multiprocessors = kernels.multiprocessors
        self._few = kernels.nearest_function(False, stored)
        self._many = kernels.nearest_function(True, stored)
        tickets = np.zeros(grids.ticket_count(kernels.multiprocessors), np.uint32)
        self._buffers = []
        try:
            self._centroids = self._upload(driver, held)
            self._half_norms = self._upload(driver, half_norms)
            self._tickets = self._upload(driver, tickets)
            self._partial = driver.mem_alloc(grids.partial_bytes(kernels.multiprocessors))
            self._buffers.append(self._partial)
        except driver.Error:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def nearest(self, embeddings, rows: int, neighbours: int, index, distance,
                stream=None) -> None:
        """Launches the search; the answer is there once `stream` gets past it.

        Device pointers: `embeddings` float32 [rows, D], raw, straight from the network; `index`
        int32 and `distance` float32, both [rows, neighbours], are written: nearest first, Euclidean
        after scaling the row to length 1, ties to the lower index. 1 to 4 neighbours, at most k.
        """
        if rows < 1 or not 1 <= neighbours <= min(grids.MOST_NEIGHBOURS, self.k):
            raise ValueError("cannot find %d nearest of %d centroids for %d rows" % (
                neighbours, self.k, rows))
        launch = grids.nearest_launch(rows, self.k, self._multiprocessors)
        parameters = [
            int(embeddings), rows, int(self._centroids), self.k, self.dimension, launch.slice,
            neighbours, int(index), int(distance), int(self._partial), int(self._tickets)]
        function = self._few
        if launch.many:
            function = self._many
            parameters += [int(self._half_norms), self._doubt]
        function.prepared_async_call(launch.grid, BLOCK, stream, *parameters)

    def close(self) -> None:
        """Frees the device memory; more than once does no harm."""
        while self._buffers:
            self._buffers.pop().free()

    def _upload(self, driver, array):
        buffer = driver.mem_alloc(array.nbytes)
        self._buffers.append(buffer)
        driver.memcpy_htod(buffer, array)
        return buffer
