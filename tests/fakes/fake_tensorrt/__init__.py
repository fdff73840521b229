"""A strict stand-in for NVIDIA's `tensorrt`, in one of its versions; tests get it of fake_jetson.

In: a version, "8.2.1.8" to "11.0.0", and PyCUDA's driver, real or pretended. Out: a module that
shows only names that version has. It parses with onnx, and runs networks in ONNX Runtime: its plan
holds the ONNX file, its engine reads inputs from device memory and writes outputs there.

Not shown: TensorRT's own numbers, speed, memory, and what it refuses of a correct ONNX file. Names
are checked against NVIDIA's modules by tests/embedder/test_names.py.

FP16: with onnxconverter-common, BuilderFlag.FP16 makes the plan's network an FP16 graph; without
it (Python 3.6), the network runs in float32 and its outputs are rounded through float16. A graph
that is FP16 itself, as version 11 needs it, runs as it is.
"""

import types

from fake_tensorrt import building, common, enumerations, graph, running
from fake_tensorrt.world import World


def make(version, driver=None, machine=None):
    """A module `tensorrt` of this version.

    `machine` is the pretended computer of fake_pycuda; without one, `driver` is the real PyCUDA's
    (over a pretended CUDA, say), whose memory is then used at once instead of in a stream's turn.
    What broke a rule is in the machine's `violations`, else in the module's `_violations`.
    """
    module = types.ModuleType("tensorrt")
    module.__version__ = version
    world = World(module, version, driver, machine)
    for part in (enumerations, common, graph, building, running):
        for name, value in part.define(world).items():
            setattr(module, name, value)
    module._violations = world.violations
    return module
