"""What float16 changes, on real Mars tiles: both networks converted by the code that the builder uses.

ONNX Runtime runs both graphs on the processor. It has no float16 convolution: it computes each layer
in float32 and rounds its result to float16, as a GPU with float32 sums does. Not shown: a GPU whose
sums are float16, too.
"""

import numpy as np
import pytest
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


def session_of(model):
    """An ONNX Runtime session of an ONNX file or of its bytes."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 2
    # Else ONNX Runtime may leave out the rounding between two layers it joins.
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


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
    half = embedded(builder.half_precision(model.onnx_path), frames)
    cosines = (codebook.normalise(single) * codebook.normalise(half)).sum(axis=1)
    fitted = clustering.fit_codebook(
        single, [str(place) for place in range(len(frames))], CLUSTERS, 0, model.space).codebook
    found = [fitted.nearest(each, 1).index[:, 0] for each in (single, half)]
    same = (found[0] == found[1]).mean()
    print("{}, {} tiles: cosine of float16 to float32 at least {:.7f}, mean {:.7f}; {:.1f} % with the "
          "same of {} centroids ({} in use)".format(
              name, len(frames), cosines.min(), cosines.mean(), 100 * same, CLUSTERS,
              len(np.unique(found[0]))))
    assert len(frames) == 60
    assert (half != single).any(axis=1).all()  # it was float16
    assert cosines.min() >= COSINE
    assert same >= SAME_CLUSTER
    assert len(np.unique(found[0])) == CLUSTERS
