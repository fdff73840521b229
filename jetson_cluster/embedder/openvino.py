"""The network in OpenVINO, on the processor, in the precision that suits the chip or in float32."""

import numpy as np

from jetson_cluster.embedder.base import Embedder, Options, network_input
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.recipe import Model


class OpenVinoEmbedder(Embedder):
    """The same ONNX file; OpenVINO chooses bfloat16 by itself where the chip computes in it."""

    name = "openvino"
    precision = ""  # OpenVINO's INFERENCE_PRECISION_HINT; "" leaves it to OpenVINO

    def __init__(self, model: Model, max_batch: int, options: Options = Options()):
        super().__init__(model, max_batch, options)
        self._compiled = None
        self._request = None

    @property
    def description(self) -> str:
        import openvino
        precision = ""
        if self._compiled is not None:
            precision = ", " + self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        return "OpenVINO %s%s" % (openvino.__version__.split("-")[0], precision)

    def _activate(self) -> None:
        try:
            import openvino
        except ImportError as error:
            raise WorldError("OpenVINO is not to be had (%s); install it with "
                             "'pip install openvino', or set embedder: onnxruntime" % error)
        settings = {"PERFORMANCE_HINT": "LATENCY"}  # one request at a time, on all cores
        if self.precision:
            settings["INFERENCE_PRECISION_HINT"] = self.precision
        if self.options.threads:
            settings["INFERENCE_NUM_THREADS"] = str(self.options.threads)
        try:
            self._compiled = openvino.Core().compile_model(
                self.model.onnx_path, "CPU", settings)
        except RuntimeError as error:
            raise UserError("model %s: OpenVINO cannot load it: %s" % (
                self.model.onnx_path, " ".join(str(error).split())))
        self._request = self._compiled.create_infer_request()

    def _embed(self, frames: np.ndarray) -> np.ndarray:
        # The output array is the request's own memory, overwritten by the next call.
        return np.array(self._request.infer([network_input(frames)])[0], np.float32)

    def _close(self) -> None:
        self._request = self._compiled = None


class OpenVinoFloat32Embedder(OpenVinoEmbedder):
    """For networks whose embeddings bfloat16 changes too much."""

    name = "openvino-float32"
    precision = "f32"
