"""What float16 changes, on real Mars tiles: networks converted by the code that the builder uses.

ONNX Runtime runs both graphs on the processor. It has no float16 convolution: it computes in
float32, and left to itself it rounds nothing in between. Here every layer's result is rounded to
float16, as a GPU with float32 sums does. Not shown: a GPU whose sums are float16, too.
"""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from jetson_cluster import codebook
from jetson_cluster.embedder import builder
from jetson_cluster.embedder.base import network_input
from jetson_cluster.errors import WorldError

CLUSTERS = 10
COSINE = 0.999
SAME_CLUSTER = 0.99


@pytest.fixture(scope="module")
def export(root, tmp_path_factory):
    """(recipe's stem, source) -> the exported network; skips where the weights cannot be had."""
    module = pytest.importorskip("jetson_cluster.ground.export")
    folder = tmp_path_factory.mktemp("networks")

    def get(name, source):
        try:
            return module.export(str(root / "engines" / (name + ".yaml")), source,
                                 str(folder / (name + ".onnx")))
        except WorldError as error:
            pytest.skip("{}'s weights cannot be had: {}".format(name, error))

    return get


def tiles(mars, described):
    """uint8 [60, H, W, 3]."""
    size = (described.input_width, described.input_height)
    kernel = getattr(Image, described.resample.upper())
    return np.stack([np.asarray(Image.open(str(path)).convert("RGB").resize(size, kernel))
                     for path in sorted(mars.glob("cluster*.png"))])


def rounding(content):
    """The float16 graph with two nodes behind each that copy float16, which every runtime can.

    Without them ONNX Runtime hands float32 from layer to layer and leaves the rounding out; a
    single copy between two layers is not enough to dissuade it.
    """
    model = onnx.load_model_from_string(content)
    kept = {each.name for each in model.graph.output}
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        for place, name in enumerate(node.output):
            if name not in kept:
                node.output[place] = name + "_computed"
                nodes += [helper.make_node("Identity", [name + "_computed"], [name + "_copied"]),
                          helper.make_node("Identity", [name + "_copied"], [name])]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()


def session_of(model):
    """An ONNX Runtime session of an ONNX file or of its bytes, run as it is written."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 2
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def test_the_comparison_rounds_between_layers(tmp_path):
    """1 + 2^-12 is 1 in float16; a runtime that keeps float32 in between would find the rest."""
    pytest.importorskip("onnxconverter_common")
    weights = [numpy_helper.from_array(np.full((1, 3), value, np.float32), name)
               for name, value in (("little", 2.0 ** -12), ("one", 1.0))]
    graph = helper.make_graph(
        [helper.make_node("Add", ["image", "little"], ["sum"]),
         helper.make_node("Sub", ["sum", "one"], ["embedding"])], "made",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 3])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 7
    onnx.save(model, str(tmp_path / "net.onnx"))
    feed = {"image": np.ones((1, 3), np.float32)}
    half = builder.half_precision(str(tmp_path / "net.onnx"))
    assert session_of(str(tmp_path / "net.onnx")).run(None, feed)[0].min() == 2.0 ** -12
    assert session_of(rounding(half)).run(None, feed)[0].max() == 0


def embedded(model, frames):
    session = session_of(model)
    return np.concatenate([session.run(None, {"image": network_input(frames[place:place + 4])})[0]
                           for place in range(0, len(frames), 4)])


@pytest.mark.parametrize("name, source", [
    ("efficientnet_lite0", "imagenet"), ("inception_v3", "nsfwjs")])
def test_float16_keeps_the_direction_and_the_cluster_of_mars_tiles(export, mars, name, source):
    pytest.importorskip("onnxconverter_common")
    clustering = pytest.importorskip("jetson_cluster.ground.clustering")
    model = export(name, source)
    frames = tiles(mars, model.recipe)
    single = embedded(model.onnx_path, frames)
    half = embedded(rounding(builder.half_precision(model.onnx_path)), frames)
    cosines = (codebook.normalise(single) * codebook.normalise(half)).sum(axis=1)
    fitted = clustering.fit_codebook(
        single, [str(place) for place in range(len(frames))], CLUSTERS, 0, model.space).codebook
    found = [fitted.nearest(each, 1).index[:, 0] for each in (single, half)]
    same = (found[0] == found[1]).mean()
    print("{}, {} tiles: cosine of float16 to float32 at least {:.7f}, mean {:.7f}; {:.1f} % with "
          "the same of {} centroids ({} in use)".format(
              name, len(frames), cosines.min(), cosines.mean(), 100 * same, CLUSTERS,
              len(np.unique(found[0]))))
    assert len(frames) == 60
    assert (half != single).any(axis=1).all()  # it was float16
    assert cosines.min() >= COSINE
    assert same >= SAME_CLUSTER
    assert len(np.unique(found[0])) == CLUSTERS
