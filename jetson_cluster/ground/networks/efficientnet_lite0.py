"""EfficientNet-Lite0: EfficientNet-B0 (Tan and Le 2019, arXiv:1905.11946) without squeeze and
excitation and with ReLU6.

In: a torch state dict in the naming of the `efficientnet_lite_pytorch` package. Out: an ONNX model
up to a block, or to the averaged head. Padding is TensorFlow's SAME, which is lopsided at stride 2.
"""

from typing import NamedTuple, Tuple

import onnx

from jetson_cluster.errors import UserError
from jetson_cluster.ground.graph import GraphWriter, Scaling, Tensor, fold, same_pads
from jetson_cluster.ground.weights import Weights

EPSILON = 1e-3
HEAD_CHANNELS = 1280


class Block(NamedTuple):
    """Expand, depthwise convolution, project; added to its input where the shapes allow."""

    kernel: int
    stride: int
    expand: int
    channels: int


def _stage(repeats: int, kernel: int, stride: int, expand: int, channels: int) -> Tuple[Block, ...]:
    return (Block(kernel, stride, expand, channels),) + (
        Block(kernel, 1, expand, channels),) * (repeats - 1)


BLOCKS = (_stage(1, 3, 1, 1, 16) + _stage(2, 3, 2, 6, 24) + _stage(2, 5, 2, 6, 40)
          + _stage(3, 3, 2, 6, 80) + _stage(3, 5, 1, 6, 112) + _stage(4, 5, 2, 6, 192)
          + _stage(1, 3, 1, 6, 320))
LAYERS = ("stem",) + tuple(f"block{i}" for i in range(len(BLOCKS))) + ("head", "avg_pool")


def build(weights: Weights, layer: str, grid: bool, rows: int, columns: int,
          scaling: Scaling) -> onnx.ModelProto:
    """The graph up to `layer` (one of LAYERS) for images of rows x columns.

    Output `embedding` [N, D], averaged over the layer's grid, or with `grid` the map itself.
    Raises UserError for weights that are not EfficientNet-Lite0's.
    """
    if weights.style != "torch":
        raise UserError(f"weights {weights.path}: EfficientNet-Lite0 is read from a torch state "
                        "dict (.pth or .safetensors), not from a Keras file")
    writer = GraphWriter(rows, columns)
    x = _stem(writer, weights, scaling)
    done = "stem"
    for index, block in enumerate(BLOCKS):
        if done == layer:
            break
        x = _block(writer, x, weights, f"_blocks.{index}.", block)
        done = f"block{index}"
    if layer in ("head", "avg_pool"):
        x = writer.relu6(_convolution(writer, x, weights, "_conv_head", "_bn1", 1, 1,
                                      HEAD_CHANNELS))
    return writer.finish(x, "efficientnet_lite0", grid)


def _stem(writer: GraphWriter, weights: Weights, scaling: Scaling) -> Tensor:
    """The first convolution, with the pixel scaling inside.

    It is padded with zeros *after* scaling, which is the mean before it: padding with the mean and
    convolving without padding is exact, also at the border.
    """
    if len(set(scaling.mean)) != 1:
        raise UserError("recipe: efficientnet_lite0 needs one scaling.mean for all three channels, "
                        "since its first convolution is padded with it")
    source = weights.torch_convolution("_conv_stem", "_bn0")
    weights.expect_shape(source.name, source.kernel, (32, 3, 3, 3))
    kernel, bias = fold(source, EPSILON, scaling)
    image = writer.image
    top, bottom = same_pads(image.rows, 3, 2)
    left, right = same_pads(image.columns, 3, 2)
    x = writer.pad(image, "padded", (top, left, bottom, right), scaling.mean[0])
    return writer.relu6(writer.convolution(x, "_conv_stem", kernel, bias, stride=2))


def _block(writer: GraphWriter, x: Tensor, weights: Weights, prefix: str, block: Block) -> Tensor:
    start = x
    if block.expand != 1:
        x = writer.relu6(_convolution(writer, x, weights, prefix + "_expand_conv", prefix + "_bn0",
                                      1, 1, x.channels * block.expand))
    x = writer.relu6(_convolution(writer, x, weights, prefix + "_depthwise_conv", prefix + "_bn1",
                                  block.kernel, block.stride, x.channels, depthwise=True))
    x = _convolution(writer, x, weights, prefix + "_project_conv", prefix + "_bn2",
                     1, 1, block.channels)
    if block.stride == 1 and start.channels == block.channels:
        x = writer.add(x, start, prefix + "sum")
    return x


def _convolution(writer: GraphWriter, x: Tensor, weights: Weights, conv: str, norm: str, size: int,
                 stride: int, channels: int, depthwise: bool = False) -> Tensor:
    source = weights.torch_convolution(conv, norm)
    weights.expect_shape(source.name, source.kernel,
                         (channels, 1 if depthwise else x.channels, size, size))
    kernel, bias = fold(source, EPSILON)
    top, bottom = same_pads(x.rows, size, stride)
    left, right = same_pads(x.columns, size, stride)
    return writer.convolution(x, conv, kernel, bias, stride=stride,
                              pads=(top, left, bottom, right), groups=channels if depthwise else 1)
