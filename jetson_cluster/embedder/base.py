"""What every embedder is: `activate`, `embed`, `close`, with the checks in one place.

In: frames uint8 [N, H, W, 3], RGB. Out: embeddings float32 [N, D]. A runtime fills in `_activate`,
`_embed` and `_close` only. All three are called from one and the same thread (a CUDA context belongs
to the thread that made it).
"""

import numpy as np

from jetson_cluster.errors import UserError
from jetson_cluster.recipe import Model


class Embedder:
    """One network in one runtime. A context manager: entering activates, leaving closes."""

    name = ""  # as in the config's `embedder`

    def __init__(self, model: Model, max_batch: int):
        self.model = model
        self.max_batch = max_batch
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

    def embed(self, frames: np.ndarray) -> np.ndarray:
        """Embeddings float32 [N, D] of frames uint8 [N, H, W, 3]; any N, run in batches.

        A row may hold numbers that are not finite: that image is then to be refused. Raises
        ValueError on frames of another shape or type, UserError if the output is not N x D.
        """
        if not self._active:
            raise ValueError("embed() before activate()")
        recipe = self.model.recipe
        expected = (recipe.input_height, recipe.input_width, 3)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != expected:
            raise ValueError("frames are %s %s, expected uint8 (N, %d, %d, %d)" % (
                (frames.dtype, frames.shape) + expected))
        parts = [self._embed(frames[start:start + self.max_batch])
                 for start in range(0, len(frames), self.max_batch)]
        embeddings = np.concatenate(parts) if parts else np.empty((0, recipe.dimension), np.float32)
        if embeddings.shape != (len(frames), recipe.dimension):
            raise UserError("model %s gives embeddings of shape %s, but its recipe %s says %d numbers "
                            "an image; set `dimension: %s` or use the model of that recipe" % (
                                self.model.onnx_path, embeddings.shape, recipe.path,
                                recipe.dimension, embeddings.shape[-1]))
        return np.ascontiguousarray(embeddings, np.float32)

    def close(self) -> None:
        """Free the network; calling it again does nothing."""
        if self._active:
            self._active = False
            self._close()

    def _activate(self) -> None:
        raise NotImplementedError

    def _embed(self, frames: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError


def network_input(frames: np.ndarray) -> np.ndarray:
    """Frames uint8 [N, H, W, 3] as the network takes them: float32 [N, 3, H, W], still 0 to 255."""
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2), np.float32)
