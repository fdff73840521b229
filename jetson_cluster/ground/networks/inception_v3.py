"""InceptionV3 (Szegedy et al. 2015, arXiv:1512.00567) as Keras and torchvision lay it out.

In: `Weights` in Keras's or torchvision's naming. Out: an ONNX model up to a mixed block, or to the
averaged features. The two differ in one thing besides the names: whether the 3x3 average pools
count their padding (torchvision) or not (Keras).
"""

from typing import List, NamedTuple, Tuple, Union

import onnx

from jetson_cluster.errors import UserError
from jetson_cluster.ground.graph import GraphWriter, Scaling, Tensor, fold
from jetson_cluster.ground.weights import Weights

EPSILON = 1e-3
LAYERS = tuple(f"mixed{i}" for i in range(11)) + ("avg_pool",)

#: The order in which a Keras weights file lists the convolutions (and their batch normalisations),
#: as creation numbers: Keras sorts layers by depth from the output, and reads files by position.
KERAS_FILE_ORDER = (
    1, 2, 3, 4, 5, 9, 7, 10, 6, 8, 11, 12, 16, 14, 17, 13, 15, 18, 19, 23, 21, 24, 20, 22, 25, 26,
    28, 29, 27, 30, 35, 36, 32, 37, 33, 38, 31, 34, 39, 40, 45, 46, 42, 47, 43, 48, 41, 44, 49, 50,
    55, 56, 52, 57, 53, 58, 51, 54, 59, 60, 65, 66, 62, 67, 63, 68, 61, 64, 69, 70, 73, 74, 71, 75,
    72, 76, 81, 78, 82, 79, 80, 83, 84, 77, 85, 90, 87, 91, 88, 89, 92, 93, 86, 94)


class Unit(NamedTuple):
    """Convolution, batch normalisation, ReLU. `name` is torchvision's."""

    name: str
    channels: int
    rows: int
    columns: int
    stride: int = 1
    same: bool = True


class Fork(NamedTuple):
    """Units that all read the same value and are joined."""

    units: Tuple[Unit, ...]


AVERAGE, MAX = "average", "max"
Step = Union[Unit, Fork, str]
Branch = Tuple[Step, ...]


def _five(pool: int) -> Tuple[Branch, ...]:
    return (
        (Unit("branch1x1", 64, 1, 1),),
        (Unit("branch5x5_1", 48, 1, 1), Unit("branch5x5_2", 64, 5, 5)),
        (Unit("branch3x3dbl_1", 64, 1, 1), Unit("branch3x3dbl_2", 96, 3, 3),
         Unit("branch3x3dbl_3", 96, 3, 3)),
        (AVERAGE, Unit("branch_pool", pool, 1, 1)),
    )


def _seven(c: int) -> Tuple[Branch, ...]:
    return (
        (Unit("branch1x1", 192, 1, 1),),
        (Unit("branch7x7_1", c, 1, 1), Unit("branch7x7_2", c, 1, 7),
         Unit("branch7x7_3", 192, 7, 1)),
        (Unit("branch7x7dbl_1", c, 1, 1), Unit("branch7x7dbl_2", c, 7, 1),
         Unit("branch7x7dbl_3", c, 1, 7), Unit("branch7x7dbl_4", c, 7, 1),
         Unit("branch7x7dbl_5", 192, 1, 7)),
        (AVERAGE, Unit("branch_pool", 192, 1, 1)),
    )


_EXPANDED = (
    (Unit("branch1x1", 320, 1, 1),),
    (Unit("branch3x3_1", 384, 1, 1),
     Fork((Unit("branch3x3_2a", 384, 1, 3), Unit("branch3x3_2b", 384, 3, 1)))),
    (Unit("branch3x3dbl_1", 448, 1, 1), Unit("branch3x3dbl_2", 384, 3, 3),
     Fork((Unit("branch3x3dbl_3a", 384, 1, 3), Unit("branch3x3dbl_3b", 384, 3, 1)))),
    (AVERAGE, Unit("branch_pool", 192, 1, 1)),
)
_REDUCE_TO_17 = (
    (Unit("branch3x3", 384, 3, 3, 2, False),),
    (Unit("branch3x3dbl_1", 64, 1, 1), Unit("branch3x3dbl_2", 96, 3, 3),
     Unit("branch3x3dbl_3", 96, 3, 3, 2, False)),
    (MAX,),
)
_REDUCE_TO_8 = (
    (Unit("branch3x3_1", 192, 1, 1), Unit("branch3x3_2", 320, 3, 3, 2, False)),
    (Unit("branch7x7x3_1", 192, 1, 1), Unit("branch7x7x3_2", 192, 1, 7),
     Unit("branch7x7x3_3", 192, 7, 1), Unit("branch7x7x3_4", 192, 3, 3, 2, False)),
    (MAX,),
)
_STEM = (
    Unit("Conv2d_1a_3x3", 32, 3, 3, 2, False), Unit("Conv2d_2a_3x3", 32, 3, 3, 1, False),
    Unit("Conv2d_2b_3x3", 64, 3, 3), MAX,
    Unit("Conv2d_3b_1x1", 80, 1, 1, 1, False), Unit("Conv2d_4a_3x3", 192, 3, 3, 1, False), MAX,
)
#: Keras's block name, torchvision's, and the branches in the order both create and join them.
_BLOCKS = (
    ("mixed0", "Mixed_5b", _five(32)), ("mixed1", "Mixed_5c", _five(64)),
    ("mixed2", "Mixed_5d", _five(64)), ("mixed3", "Mixed_6a", _REDUCE_TO_17),
    ("mixed4", "Mixed_6b", _seven(128)), ("mixed5", "Mixed_6c", _seven(160)),
    ("mixed6", "Mixed_6d", _seven(160)), ("mixed7", "Mixed_6e", _seven(192)),
    ("mixed8", "Mixed_7a", _REDUCE_TO_8), ("mixed9", "Mixed_7b", _EXPANDED),
    ("mixed10", "Mixed_7c", _EXPANDED),
)


def build(weights: Weights, layer: str, grid: bool, rows: int, columns: int,
          scaling: Scaling) -> onnx.ModelProto:
    """The graph up to `layer` (one of LAYERS) for images of rows x columns.

    Output `embedding` [N, D], averaged over the layer's grid, or with `grid` the map itself.
    Raises UserError for weights that are not InceptionV3's.
    """
    assembly = _Assembly(weights, GraphWriter(rows, columns), scaling)
    x = assembly.chain(assembly.writer.image, _STEM, "")
    for block, prefix, branches in _BLOCKS:
        parts: List[Tensor] = []
        for branch in branches:
            parts += assembly.branch(x, branch, prefix + ".")
        x = assembly.writer.concat(parts, block)
        if block == layer:
            break
    return assembly.writer.finish(x, "inception_v3", grid)


class _Assembly:
    """Turns the tables above into nodes, taking weights in the order in which units are created."""

    def __init__(self, weights: Weights, writer: GraphWriter, scaling: Scaling) -> None:
        self.writer = writer
        self._weights = weights
        self._scaling = scaling
        self._keras_pairs = iter(_keras_pairs(weights) if weights.style == "keras" else ())

    def chain(self, x: Tensor, steps: Branch, prefix: str) -> Tensor:
        """One step after another."""
        for step in steps:
            if step == MAX:
                x = self.writer.max_pool(x, f"{x.name}.{prefix}max_pool")
            elif step == AVERAGE:
                x = self.writer.average_pool(x, prefix + "average_pool",
                                             count_padding=self._weights.style == "torch")
            else:
                x = self._unit(x, step, prefix + step.name)
        return x

    def branch(self, x: Tensor, steps: Branch, prefix: str) -> List[Tensor]:
        """A branch's end, or its ends where it forks: all are joined with the other branches'."""
        fork = steps[-1]
        if not isinstance(fork, Fork):
            return [self.chain(x, steps, prefix)]
        x = self.chain(x, steps[:-1], prefix)
        return [self._unit(x, unit, prefix + unit.name) for unit in fork.units]

    def _unit(self, x: Tensor, unit: Unit, name: str) -> Tensor:
        if self._weights.style == "keras":
            source = self._weights.keras_convolution(*next(self._keras_pairs))
        else:
            source = self._weights.torch_convolution(name + ".conv", name + ".bn")
        self._weights.expect_shape(source.name, source.kernel,
                                   (unit.channels, x.channels, unit.rows, unit.columns))
        # The first convolution has no padding, so the pixel scaling folds into it exactly.
        first = x is self.writer.image
        kernel, bias = fold(source, EPSILON, self._scaling if first else None)
        pads = (unit.rows // 2, unit.columns // 2) * 2 if unit.same else (0, 0, 0, 0)
        return self.writer.relu(
            self.writer.convolution(x, name, kernel, bias, stride=unit.stride, pads=pads))


def _keras_pairs(weights: Weights) -> List[Tuple[str, str]]:
    """The names of each convolution's and its batch normalisation's layer, in creation order."""
    kernels = weights.keras_layers_with("kernel", ndim=4)
    norms = weights.keras_layers_with("moving_mean", ndim=1)
    count = len(KERAS_FILE_ORDER)
    for what, names in (("convolutions", kernels), ("batch normalisations", norms)):
        if len(names) != count:
            raise UserError(f"weights {weights.path}: {len(names)} {what} where InceptionV3 has "
                            f"{count}; is it another network's file?")
    pairs = dict(zip(KERAS_FILE_ORDER, zip(kernels, norms)))
    return [pairs[number] for number in range(1, count + 1)]
