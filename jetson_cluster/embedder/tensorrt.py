"""The network as a TensorRT engine on the GPU, with the centroid lookup straight behind it.

In: frames uint8 [N, H, W, 3]. Out: embeddings and their nearest centroids. A batch goes up in one copy,
preprocess.cu makes planes of it, the engine embeddings, nearest.cu finds their centroids where they
lie, and one copy brings all of it back. One thread does everything, from `activate` to `close`.
"""

import logging
import os
import traceback
from typing import List, Optional

import numpy as np

from jetson_cluster.codebook import NEIGHBOURS, Codebook, Nearest
from jetson_cluster.cuda.launcher import Kernels, Lookup
from jetson_cluster.embedder import engine, trt
from jetson_cluster.embedder.base import Embedded, Embedder, Options
from jetson_cluster.embedder.execution import Execution
from jetson_cluster.embedder.gpu import Gpu, load_driver
from jetson_cluster.errors import WorldError
from jetson_cluster.recipe import Model

log = logging.getLogger(__name__)

ALIGNED = 256  # TensorRT wants its tensors on multiples of so many bytes
FOUND_BYTES = 8 * NEIGHBOURS  # of one image: distances float32, then indices int32


def missing() -> List[str]:
    """What this machine lacks to run TensorRT, each with its remedy; [] where nothing is."""
    lacking = []
    for needed in (trt.find, load_driver):
        try:
            needed()
        except WorldError as error:
            lacking.append(str(error))
    return lacking


class TensorRTEmbedder(Embedder):
    """The engine of this model for this GPU, built first where there is none."""

    name = "tensorrt"

    def __init__(self, model: Model, max_batch: int, options: Options = Options()):
        super().__init__(model, max_batch, options)
        self._described = self.name
        self._gpu = self._runtime = self._engine = self._execution = self._kernels = None
        self._lookup = None  # type: Optional[Lookup]

    @property
    def description(self) -> str:
        return self._described

    def _activate(self) -> None:
        lacking = missing()
        if lacking:
            raise WorldError("embedder tensorrt cannot run here: %s; or set embedder: cpu" % (
                "; ".join(lacking)))
        self._gpu = Gpu()
        try:
            self._load(trt.find())
        except BaseException as error:
            # The traceback's frames hold the engine, which must not outlive its context.
            traceback.clear_frames(error.__traceback__)
            self._close()
            raise

    def _load(self, module) -> None:
        path = engine.plan_path(self.model, self.options.plan)
        logger = trt.make_logger(module)
        with self._gpu.guarded():
            # First the engine: building it wants the memory that the kernels would take.
            self._runtime, self._engine = engine.open_engine(
                module, logger, self.model, self.max_batch, self._gpu.device, self.options)
            self._execution = Execution(module, self._engine, path)
            self._kernels = Kernels(os.path.dirname(os.path.abspath(path)))
            recipe = self.model.recipe
            pixels = recipe.input_height * recipe.input_width * 3
            self._frames = self._gpu.allocate(self.max_batch * pixels)
            self._planes = self._gpu.allocate(self.max_batch * pixels * 4)
            # Found places first: then one copy of the first bytes brings them and the embeddings.
            self._embeddings_at = -(-self.max_batch * FOUND_BYTES // ALIGNED) * ALIGNED
            self._answer = self._gpu.allocate(
                self._embeddings_at + self.max_batch * self._execution.dimension * 4)
        self._logger = logger
        self._described = "%s %s, %s, on %s" % (
            module.__name__, module.__version__, recipe.precision, self._gpu.device.name)

    def _use(self, codebook: Optional[Codebook]) -> None:
        with self._gpu.guarded():
            if self._lookup is not None:
                self._lookup.close()
                self._lookup = None
        if codebook is None:
            return
        try:
            with self._gpu.guarded():
                self._lookup = Lookup(self._kernels, codebook.centroids, self.options.centroids)
        except WorldError as error:
            log.warning("LookupOnProcessor: the %d centroids do not fit: %s", codebook.k, error)

    def _embed(self, frames: np.ndarray) -> np.ndarray:
        return self._process(frames).embeddings

    def _process(self, frames: np.ndarray) -> Embedded:
        frames = np.ascontiguousarray(frames)
        rows, height, width, _ = frames.shape
        neighbours = min(NEIGHBOURS, self._lookup.k) if self._lookup else 0
        distances = int(self._answer)
        indices = distances + rows * neighbours * 4
        embeddings = distances + self._embeddings_at
        with self._gpu.guarded():
            stream = self._gpu.stream
            self._gpu.up(frames, self._frames)
            self._kernels.planes(self._frames, rows, height, width, self._planes, stream)
            if not self._execution.enqueue(rows, int(self._planes), embeddings, stream):
                raise self._gpu.lost("TensorRT does not run the engine: %s" % (
                    self._logger.last_errors()))
            if neighbours:
                self._lookup.nearest(embeddings, rows, neighbours, indices, distances, stream)
            answer = self._gpu.down(
                self._answer, self._embeddings_at + rows * self._execution.dimension * 4)
        numbers = answer[self._embeddings_at:].view(np.float32).reshape(rows, -1)
        if not neighbours:
            return Embedded(numbers, None)
        found = rows * neighbours * 4
        return Embedded(numbers, Nearest(
            answer[found:2 * found].view(np.int32).reshape(rows, neighbours),
            answer[:found].view(np.float32).reshape(rows, neighbours)))

    def _close(self) -> None:
        """In the order that CUDA and TensorRT want: users before what they use, the context last."""
        gpu = self._gpu
        if not gpu.abandon(self._lookup, self._execution, self._kernels, self._engine, self._runtime):
            if self._lookup is not None:
                with gpu.guarded():
                    self._lookup.close()
            if self._execution is not None:
                self._execution.close()
        self._lookup = self._execution = self._kernels = None
        self._frames = self._planes = self._answer = None
        self._engine = None
        self._runtime = None
        self._gpu = None
        gpu.close()
