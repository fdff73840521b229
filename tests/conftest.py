"""What every test may use: the checkout, real networks, and real Mars tiles if they lie beside it."""

import logging
import os
import pathlib
import sys

import pytest
from hypothesis import settings

# People's runs look for new counterexamples; a submission must not fail by what luck finds in it.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI") == "true":
    settings.load_profile("ci")

ROOT = pathlib.Path(__file__).resolve().parents[1]
# What several tests share, and the stand-ins for the GPU; after everything else, for a folder here
# must not pass for a package of that name.
sys.path += [str(ROOT / "tests" / "helpers"), str(ROOT / "tests" / "fakes")]


@pytest.fixture(autouse=True)
def logging_as_it_was():
    """The command line's main() sets up logging for its process; the next test has its own."""
    log = logging.getLogger()
    handlers, level = list(log.handlers), log.level
    yield
    log.handlers[:] = handlers
    log.setLevel(level)


@pytest.fixture(scope="session")
def root():
    """The checkout's folder, a pathlib.Path."""
    return ROOT


@pytest.fixture(scope="session")
def mars():
    """The folder of real Mars tiles, 60 PNG files `clusterNN_M.png`; skips where it is absent."""
    folder = ROOT.parent / "shared" / "mars"
    if not list(folder.glob("cluster*.png")):
        pytest.skip("no real Mars tiles: {} holds no cluster*.png".format(folder))
    return folder


@pytest.fixture(scope="session")
def lite0():
    """EfficientNet-Lite0, an ONNX file (a str) with its recipe beside it; tools/test exports it."""
    told = os.environ.get("JETSON_CLUSTER_TEST_NETWORK")
    path = told or str(ROOT / ".venv-test" / "networks" / "efficientnet_lite0.onnx")
    if not os.path.isfile(path):
        if told:
            pytest.fail("the network that tools/test exports is missing: " + path)
        pytest.skip("no network here yet; `tools/test --quick` exports it to " + path)
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A real network small enough for thousands of images: 32 x 32 pixels to 48 numbers.

    Returns the path (a str) of an ONNX file with its recipe beside it: mean colours of a 4 x 4 grid.
    """
    import onnx
    from onnx import TensorProto, helper

    folder = tmp_path_factory.mktemp("tiny")
    graph = helper.make_graph(
        [helper.make_node("AveragePool", ["image"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
         helper.make_node("Flatten", ["pooled"], ["embedding"])],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 48])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 7
    path = folder / "tiny.onnx"
    onnx.save(model, str(path))
    (folder / "tiny.recipe.yaml").write_text(
        "name: tiny\nnetwork: other\ninput: {width: 32, height: 32, resample: bilinear}\n"
        "scaling: in_graph\nlayer: pooled\ndimension: 48\nmax_batch: 8\n")
    return str(path)
