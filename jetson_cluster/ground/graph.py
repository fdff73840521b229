"""A small writer of ONNX graphs for convolutional networks in inference form.

In: convolutions with their batch normalisation, as numpy arrays. Out: an `onnx.ModelProto` that
takes raw 0..255 RGB, opset 13 and IR version 7, which is what TensorRT 8.2's parser accepts.
"""

from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jetson_cluster.errors import UserError

OPSET = 13
IR_VERSION = 7
INPUT_NAME = "image"


class Convolution(NamedTuple):
    """A convolution without bias, followed by batch normalisation, as a weights file has it."""

    name: str
    kernel: np.ndarray  # float32 [out, in / groups, rows, columns]
    gamma: Optional[np.ndarray]  # float32 [out]; None where the source has no scale
    beta: np.ndarray  # float32 [out]
    mean: np.ndarray  # float32 [out]
    variance: np.ndarray  # float32 [out]


class Scaling(NamedTuple):
    """The network was trained on (pixel - mean) / std; both per channel R, G, B, pixels 0..255."""

    mean: Tuple[float, float, float]
    std: Tuple[float, float, float]


class Tensor(NamedTuple):
    """A value in the graph: its name and its shape without the batch."""

    name: str
    channels: int
    rows: int
    columns: int


def fold(convolution: Convolution, epsilon: float,
         scaling: Optional[Scaling] = None) -> Tuple[np.ndarray, np.ndarray]:
    """Merge batch normalisation, and the pixel scaling if given, into kernel and bias.

    Computed in float64, returned as float32 [out, in, rows, columns] and [out]. With `scaling` the
    result is exact only where the convolution is never padded with anything but the mean.
    Raises UserError on weights that cannot be folded (not finite, variance not positive).
    """
    kernel = convolution.kernel.astype(np.float64)
    spread = convolution.variance.astype(np.float64) + epsilon
    if not np.all(spread > 0):
        raise UserError(f"weights: '{convolution.name}' has a variance that is not positive")
    factor = 1.0 / np.sqrt(spread)
    if convolution.gamma is not None:
        factor = factor * convolution.gamma.astype(np.float64)
    kernel = kernel * factor[:, None, None, None]
    bias = convolution.beta.astype(np.float64) - convolution.mean.astype(np.float64) * factor
    if scaling is not None:
        kernel = kernel / np.asarray(scaling.std, np.float64)[None, :, None, None]
        mean = np.asarray(scaling.mean, np.float64)[None, :, None, None]
        bias = bias - (kernel * mean).sum(axis=(1, 2, 3))
    kernel, bias = kernel.astype(np.float32), bias.astype(np.float32)
    if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
        raise UserError(f"weights: '{convolution.name}' holds numbers that are not finite")
    return kernel, bias


def same_pads(size: int, kernel: int, stride: int) -> Tuple[int, int]:
    """Padding before and after that makes ceil(size / stride) outputs, TensorFlow's SAME."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class GraphWriter:
    """Adds nodes one after another; every method takes and returns `Tensor`s."""

    def __init__(self, rows: int, columns: int) -> None:
        self.image = Tensor(INPUT_NAME, 3, rows, columns)
        self._nodes: List[onnx.NodeProto] = []
        self._constants: List[onnx.TensorProto] = []

    def convolution(self, x: Tensor, name: str, kernel: np.ndarray, bias: np.ndarray,
                    stride: int = 1, pads: Sequence[int] = (0, 0, 0, 0), groups: int = 1) -> Tensor:
        """`pads` in ONNX order: top, left, bottom, right; filled with zeros."""
        weight = self._constant(name + ".weight", kernel)
        offset = self._constant(name + ".bias", bias)
        self._node("Conv", [x.name, weight, offset], name, kernel_shape=list(kernel.shape[2:]),
                   strides=[stride, stride], pads=list(pads), group=groups)
        return self._window(x, name, kernel.shape[2:], stride, pads)._replace(
            channels=kernel.shape[0])

    def relu(self, x: Tensor) -> Tensor:
        return x._replace(name=self._node("Relu", [x.name], x.name + ".relu"))

    def relu6(self, x: Tensor) -> Tensor:
        low, high = self._scalar("relu6.low", 0.0), self._scalar("relu6.high", 6.0)
        return x._replace(name=self._node("Clip", [x.name, low, high], x.name + ".relu6"))

    def add(self, x: Tensor, y: Tensor, name: str) -> Tensor:
        return x._replace(name=self._node("Add", [x.name, y.name], name))

    def pad(self, x: Tensor, name: str, pads: Sequence[int], value: float) -> Tensor:
        """Pad rows and columns with `value`; `pads` top, left, bottom, right."""
        top, left, bottom, right = pads
        amounts = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
        self._node("Pad", [x.name, self._constant(name + ".pads", amounts),
                           self._scalar(name + ".value", value)], name, mode="constant")
        return x._replace(name=name, rows=x.rows + top + bottom, columns=x.columns + left + right)

    def max_pool(self, x: Tensor, name: str) -> Tensor:
        """3x3, stride 2, no padding."""
        self._node("MaxPool", [x.name], name, kernel_shape=[3, 3], strides=[2, 2])
        return self._window(x, name, (3, 3), 2, (0, 0, 0, 0))

    def average_pool(self, x: Tensor, name: str, count_padding: bool) -> Tensor:
        """3x3, stride 1, same size; whether the padding counts as zeros differs by framework."""
        self._node("AveragePool", [x.name], name, kernel_shape=[3, 3], strides=[1, 1],
                   pads=[1, 1, 1, 1], count_include_pad=int(count_padding))
        return x._replace(name=name)

    def concat(self, tensors: Sequence[Tensor], name: str) -> Tensor:
        """Join along the channels."""
        self._node("Concat", [t.name for t in tensors], name, axis=1)
        return tensors[0]._replace(name=name, channels=sum(t.channels for t in tensors))

    def finish(self, x: Tensor, name: str, grid: bool) -> onnx.ModelProto:
        """Make `x` the output: averaged over the grid as `embedding` [N, channels], or with `grid`
        as it is, `grid` [N, channels, rows, columns]. The model is checked and shape-inferred."""
        if grid:
            shape = ["N", x.channels, x.rows, x.columns]
            self._node("Identity", [x.name], "grid")
        else:
            shape = ["N", x.channels]
            self._node("GlobalAveragePool", [x.name], "pooled")
            self._node("Flatten", ["pooled"], "embedding", axis=1)
        source = helper.make_tensor_value_info(
            self.image.name, TensorProto.FLOAT, ["N", 3, self.image.rows, self.image.columns])
        output = helper.make_tensor_value_info(
            "grid" if grid else "embedding", TensorProto.FLOAT, shape)
        model = helper.make_model(
            helper.make_graph(self._nodes, name, [source], [output], self._constants),
            opset_imports=[helper.make_opsetid("", OPSET)], producer_name="jetson-cluster")
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        return model

    def _node(self, kind: str, inputs: List[str], output: str, **attributes: object) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, name: str, array: np.ndarray) -> str:
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _scalar(self, name: str, value: float) -> str:
        if all(constant.name != name for constant in self._constants):
            self._constant(name, np.array(value, np.float32))
        return name

    @staticmethod
    def _window(x: Tensor, name: str, kernel: Sequence[int], stride: int,
                pads: Sequence[int]) -> Tensor:
        top, left, bottom, right = pads
        rows = (x.rows + top + bottom - kernel[0]) // stride + 1
        columns = (x.columns + left + right - kernel[1]) // stride + 1
        if min(rows, columns) < 1:
            raise UserError("recipe: its input is too small for this network: nothing is left of "
                            f"the image at '{name}'")
        return x._replace(name=name, rows=rows, columns=columns)
