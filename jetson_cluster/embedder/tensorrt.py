"""The network as a TensorRT engine on the GPU, with the centroid lookup straight behind it.

In: frames uint8 [N, H, W, 3]. Out: embeddings and their nearest centroids. A batch goes up in one copy,
preprocess.cu makes planes of it, the engine embeddings, nearest.cu finds their centroids where they
lie, and one copy brings all of it back. One thread does everything, from `activate` to `close`.

nearest.cu compares embeddings scaled to length 1. Where a codebook has them prepared otherwise
(codebook.Preparation: roots, components) it finds nothing, and the processor looks them up.
"""

import logging
import os
import traceback
from typing import List, Optional

import numpy as np

from jetson_cluster.codebook import NEIGHBOURS, Codebook, Nearest, normalise
from jetson_cluster.cuda.launcher import Kernels, Lookup
from jetson_cluster.embedder import engine, probe_frames, trt
from jetson_cluster.embedder.base import Embedded, Embedder, Options
from jetson_cluster.embedder.execution import Execution
from jetson_cluster.embedder.gpu import Gpu, load_driver
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.recipe import Model

log = logging.getLogger(__name__)

ALIGNED = 256  # TensorRT wants its tensors on multiples of so many bytes
MOST_CENTROIDS = 4096  # what nearest.cu is proved to
# float16 moves a distance by at most 0.0005 (see Lookup); a wrong centroid, by far more.
DISTANCE_WITHIN = 0.002
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

    @property
    def _path(self) -> str:
        return engine.plan_path(self.model, self.options.plan)

    @property
    def cosine(self) -> float:
        """To ONNX Runtime's embeddings of the probe frames, at least; 0 where not measured yet."""
        return engine.read_certificate(self._path).cosine

    def note_cosine(self, cosine: float) -> None:
        """Keep it with the engine: what was measured once need not be at every start."""
        engine.note_cosine(self._path, cosine)

    def _activate(self) -> None:
        lacking = missing()
        if lacking:
            raise WorldError("embedder tensorrt cannot run here: %s; or set embedder: cpu" % (
                "; ".join(lacking)))
        self._gpu = Gpu()
        try:
            try:
                self._load(trt.find())
            except WorldError:
                self._gpu.check()  # TensorRT fails in its own words where the GPU is lost
                raise
        except BaseException as error:
            # The traceback's frames hold the engine, which must not outlive its context.
            traceback.clear_frames(error.__traceback__)
            self._close()
            raise

    def _load(self, module) -> None:
        path = self._path
        logger = trt.make_logger(module)
        with self._gpu.guarded():
            # First the engine: building it wants the memory that the kernels would take.
            self._runtime, self._engine = engine.open_engine(
                module, logger, self.model, self.max_batch, self._gpu.device, self.options,
                self._gpu.check)
            self._execution = Execution(module, logger, self._engine, path)
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
        if not codebook.preparation.is_plain:
            log.info("LookupOnProcessor: embeddings are prepared (%s) for this codebook",
                     codebook.preparation)
            return
        try:
            if codebook.k > MOST_CENTROIDS:
                raise UserError("more than %d" % MOST_CENTROIDS)
            with self._gpu.guarded():
                self._lookup = Lookup(self._kernels, codebook.centroids, self.options.centroids)
        except (UserError, WorldError) as error:
            log.warning("LookupOnProcessor: %d centroids: %s", codebook.k, error)
            return
        if not self._finds_what_is_true(codebook):
            log.error("LookupOnProcessor: the GPU finds wrong centroids for the probe frames")
            with self._gpu.guarded():
                self._lookup.close()
            self._lookup = None

    def _finds_what_is_true(self, codebook: Codebook) -> bool:
        """Whether the probe frames' centroids lie where the GPU says, and none lies nearer."""
        embeddings, found = self._process(probe_frames(self.model.recipe)[:self.max_batch])
        if found.index.min() < 0 or found.index.max() >= codebook.k:
            return False
        told = codebook.nearest(embeddings, NEIGHBOURS)
        away = normalise(embeddings)[:, None] - codebook.centroids[found.index]
        measured = np.sqrt((away ** 2).sum(axis=2))
        # A NaN is not within anything.
        return bool((np.abs(found.distance - measured) <= DISTANCE_WITHIN).all()
                    and (np.abs(found.distance - told.distance) <= DISTANCE_WITHIN).all())

    def _process(self, frames: np.ndarray) -> Embedded:
        try:
            return self._run(frames)
        except WorldError as error:  # no memory, of all times now: only a fresh start can help
            raise self._gpu.lost(str(error))

    def _run(self, frames: np.ndarray) -> Embedded:
        frames = np.ascontiguousarray(frames)
        rows, height, width, _ = frames.shape
        neighbours = min(NEIGHBOURS, self._lookup.k) if self._lookup else 0
        distances = int(self._answer)
        indices = distances + rows * neighbours * 4
        embeddings = distances + self._embeddings_at
        with self._gpu.guarded():
            stream = self._gpu.stream
            self._logger.forget()
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
