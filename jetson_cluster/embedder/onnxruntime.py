"""The network in ONNX Runtime, on the processor. Works on Python 3.6 (1.10) and newer."""

import numpy as np

from jetson_cluster.embedder.base import Embedder, Options, network_input
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.recipe import Model


class OnnxRuntimeEmbedder(Embedder):
    """Any ONNX file with one image input and one vector output, in float32."""

    name = "onnxruntime"

    def __init__(self, model: Model, max_batch: int, options: Options = Options()):
        super().__init__(model, max_batch, options)
        self._session = None

    @property
    def description(self) -> str:
        import onnxruntime
        return "ONNX Runtime %s, float32" % onnxruntime.__version__

    def _activate(self) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise WorldError("ONNX Runtime is not to be had (%s); install it with "
                             "'pip install onnxruntime'" % error)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.options.threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                self.model.onnx_path, options, providers=["CPUExecutionProvider"])
        # ONNX Runtime's own exceptions share no base but Exception.
        except Exception as error:
            raise UserError("model %s: ONNX Runtime cannot load it: %s" % (
                self.model.onnx_path, " ".join(str(error).split())))
        self._check_signature()

    def _check_signature(self) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise UserError("model %s has %d inputs and %d outputs, expected one image and one "
                            "vector" % (self.model.onnx_path, len(inputs), len(outputs)))
        recipe, shape = self.model.recipe, inputs[0].shape
        expected = [3, recipe.input_height, recipe.input_width]
        fits = len(shape) == 4 and all(
            not isinstance(found, int) or found == wanted
            for found, wanted in zip(shape[1:], expected))
        if inputs[0].type != "tensor(float)" or not fits:
            raise UserError("model %s takes %s %s, but recipe %s says float32 [N, 3, %d, %d]" % (
                (self.model.onnx_path, inputs[0].type, shape, recipe.path) + tuple(expected[1:])))
        self._input = inputs[0].name

    def _embed(self, frames: np.ndarray) -> np.ndarray:
        return self._session.run(None, {self._input: network_input(frames)})[0]

    def _close(self) -> None:
        self._session = None
