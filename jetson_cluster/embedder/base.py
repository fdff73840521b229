"""What every embedder is: `activate`, `embed`, `close`, with the checks in one place.

In: frames uint8 [N, H, W, 3], RGB. Out: embeddings float32 [N, D] and, from a runtime that looks them
up itself, their nearest centroids. A runtime fills in `_activate`, `_embed` (or `_process` and `_use`)
and `_close` only. All are called from one and the same thread (a CUDA context belongs to the thread
that made it).
"""

import logging
from typing import Callable, List, NamedTuple, Optional

import numpy as np

from jetson_cluster.codebook import Codebook, Nearest
from jetson_cluster.errors import UserError
from jetson_cluster.recipe import Model

log = logging.getLogger(__name__)


def said(doing: str, _allow_s: float) -> None:
    """Progress for a person: in the log."""
    log.info("%s", doing)


class Options(NamedTuple):
    """How a runtime may work; each heeds what concerns it."""

    threads: int = 0  # of the processor; 0: one a core
    plan: Optional[str] = None  # TensorRT's engine file; None: beside the model
    workspace_bytes: int = 64 * 2 ** 20  # that TensorRT may use while it computes
    centroids: str = "float32"  # or "float16": how they are kept on the GPU
    progress: Callable[[str, float], None] = said  # what is being done, seconds to allow for it


class Embedded(NamedTuple):
    """What a runtime made of N frames."""

    embeddings: np.ndarray  # float32 [N, D]
    nearest: Optional[Nearest]  # in the codebook in use; None: whoever needs them looks them up


class Embedder:
    """One network in one runtime. A context manager: entering activates, leaving closes."""

    name = ""  # as in the config's `embedder`

    def __init__(self, model: Model, max_batch: int, options: Options = Options()):
        self.model = model
        self.max_batch = max_batch
        self.options = options
        self._active = False

    def __enter__(self) -> "Embedder":
        self.activate()
        return self

    def __exit__(self, *_exception) -> None:
        self.close()

    @property
    def description(self) -> str:
        """The runtime with its version and precision, for the log and the status."""
        return self.name

    def activate(self) -> None:
        """Load the network; raises UserError if model or recipe are wrong, WorldError otherwise."""
        if not self._active:
            self._activate()
            self._active = True

    def use(self, codebook: Optional[Codebook]) -> None:
        """Look up embeddings in this codebook from now on, if this runtime does that; None: in none.

        Raises UserError if the runtime cannot hold the codebook's numbers.
        """
        if not self._active:
            raise ValueError("use() before activate()")
        self._use(codebook)

    def embed(self, frames: np.ndarray) -> np.ndarray:
        """Embeddings float32 [N, D] of frames uint8 [N, H, W, 3]; see process()."""
        return self.process(frames).embeddings

    def process(self, frames: np.ndarray) -> Embedded:
        """What the network makes of frames uint8 [N, H, W, 3]; any N, run in batches.

        A row may hold numbers that are not finite: that image is then to be refused. Raises
        ValueError on frames of another shape or type, UserError if the output is not N x D, GpuLost
        if the GPU failed.
        """
        if not self._active:
            raise ValueError("process() before activate()")
        recipe = self.model.recipe
        expected = (recipe.input_height, recipe.input_width, 3)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != expected:
            raise ValueError("frames are %s %s, expected uint8 (N, %d, %d, %d)" % (
                (frames.dtype, frames.shape) + expected))
        parts = [self._process(frames[start:start + self.max_batch])
                 for start in range(0, len(frames), self.max_batch)]
        embeddings = np.empty((0, recipe.dimension), np.float32)
        if parts:
            embeddings = np.concatenate([part.embeddings for part in parts])
        if embeddings.shape != (len(frames), recipe.dimension):
            raise UserError("model %s gives embeddings of shape %s, but its recipe %s says %d numbers "
                            "an image; set `dimension: %s` or use the model of that recipe" % (
                                self.model.onnx_path, embeddings.shape, recipe.path,
                                recipe.dimension, embeddings.shape[-1]))
        return Embedded(np.ascontiguousarray(embeddings, np.float32), _together(parts))

    def close(self) -> None:
        """Free the network; calling it again does nothing."""
        if self._active:
            self._active = False
            self._close()

    def _activate(self) -> None:
        raise NotImplementedError

    def _process(self, frames: np.ndarray) -> Embedded:
        return Embedded(self._embed(frames), None)

    def _embed(self, frames: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _use(self, codebook: Optional[Codebook]) -> None:
        """A runtime on the processor leaves the lookup to the codebook itself."""

    def _close(self) -> None:
        raise NotImplementedError


def _together(parts: List[Embedded]) -> Optional[Nearest]:
    """The nearest centroids of all batches; None if the runtime does not look them up."""
    found = [part.nearest for part in parts]
    if not found or found[0] is None:
        return None
    return Nearest(np.concatenate([one.index for one in found]),
                   np.concatenate([one.distance for one in found]))


def network_input(frames: np.ndarray) -> np.ndarray:
    """Frames uint8 [N, H, W, 3] as the network takes them: float32 [N, 3, H, W], still 0 to 255."""
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2), np.float32)
