"""The graph writer: folding is exact, padding is TensorFlow's, what comes out is what TensorRT 8.2
reads."""

import numpy as np
import onnx
import onnxruntime
import pytest

from jetson_cluster.errors import UserError
from jetson_cluster.ground.graph import Convolution, GraphWriter, Scaling, fold, same_pads

SCALING = Scaling((120.0, 110.5, 100.25), (50.0, 60.0, 70.0))


def convolution(seed=0, gamma=True, channels=5):
    random = np.random.default_rng(seed)
    return Convolution(
        "first", random.normal(size=(channels, 3, 3, 3)).astype(np.float32),
        random.uniform(0.5, 2, channels).astype(np.float32) if gamma else None,
        *(random.normal(size=channels).astype(np.float32) for _ in range(2)),
        random.uniform(0.01, 3, channels).astype(np.float32))


def run(model, frames):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"image": frames.astype(np.float32)})[0]


def by_hand(source, frames, epsilon):
    """Scale, convolve without padding, normalise: in float64, by the definitions."""
    mean, std = (np.array(v)[None, :, None, None] for v in SCALING)
    windows = np.lib.stride_tricks.sliding_window_view((frames - mean) / std, (3, 3), axis=(2, 3))
    values = np.einsum("ncrsyx,ocyx->nors", windows, source.kernel.astype(np.float64))
    gamma = 1 if source.gamma is None else source.gamma[:, None, None]
    return (gamma * (values - source.mean[:, None, None])
            / np.sqrt(source.variance.astype(np.float64) + epsilon)[:, None, None]
            + source.beta[:, None, None])


@pytest.mark.parametrize("gamma", [True, False])
def test_scaling_and_batch_norm_fold_into_one_convolution(gamma):
    source = convolution(gamma=gamma)
    frames = np.random.default_rng(1).integers(0, 256, (2, 3, 12, 9))
    writer = GraphWriter(12, 9)
    x = writer.convolution(writer.image, "first", *fold(source, 1e-3, SCALING))
    model = writer.finish(x, "test", grid=True)
    assert [node.op_type for node in model.graph.node] == ["Conv", "Identity"]
    np.testing.assert_allclose(run(model, frames), by_hand(source, frames, 1e-3), atol=1e-4)


@pytest.mark.parametrize("broken", [{"variance": np.full(5, -1, np.float32)},
                                    {"beta": np.full(5, np.nan, np.float32)},
                                    {"kernel": np.full((5, 3, 3, 3), np.inf, np.float32)}])
def test_weights_that_cannot_be_folded_are_refused_by_name(broken):
    with pytest.raises(UserError, match="'first'"), np.errstate(all="ignore"):
        fold(convolution()._replace(**broken), 1e-3)


@pytest.mark.parametrize("size, kernel, stride, pads", [
    (224, 3, 2, (0, 1)), (112, 3, 1, (1, 1)), (56, 5, 2, (1, 2)), (7, 1, 1, (0, 0)),
    (225, 3, 2, (1, 1)), (4, 1, 2, (0, 0))])
def test_same_padding_is_tensorflows(size, kernel, stride, pads):
    assert same_pads(size, kernel, stride) == pads
    assert (size + sum(pads) - kernel) // stride + 1 == -(-size // stride)


def test_what_is_written_is_what_an_old_parser_reads():
    writer = GraphWriter(8, 8)
    x = writer.convolution(writer.image, "first", *fold(convolution(), 1e-3))
    model = writer.finish(writer.relu6(x), "test", grid=False)
    assert (model.ir_version, [o.version for o in model.opset_import]) == (7, [13])
    image, = model.graph.input
    shape = image.type.tensor_type.shape.dim
    assert image.name == "image" and shape[0].dim_param == "N"
    assert [d.dim_value for d in shape[1:]] == [3, 8, 8]
    output, = model.graph.output
    assert output.name == "embedding"
    assert [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim] == ["N", 5]
    onnx.checker.check_model(model, full_check=True)
    for batch in (1, 3):
        assert run(model, np.zeros((batch, 3, 8, 8))).shape == (batch, 5)


def test_the_embedding_is_the_grid_averaged():
    frames = np.random.default_rng(2).integers(0, 256, (3, 3, 10, 8))
    found = []
    for grid in (True, False):
        writer = GraphWriter(10, 8)
        x = writer.relu(writer.convolution(writer.image, "c", *fold(convolution(), 1e-3)))
        found.append(run(writer.finish(x, "test", grid), frames))
    np.testing.assert_allclose(found[0].mean(axis=(2, 3)), found[1], rtol=1e-5)


def test_an_average_pool_counts_its_padding_only_when_told():
    ones = np.ones((1, 3, 4, 4))
    for count, corner in ((True, 4 / 9), (False, 1.0)):
        writer = GraphWriter(4, 4)
        model = writer.finish(writer.average_pool(writer.image, "pool", count), "test", grid=True)
        assert run(model, ones)[0, 0, 0, 0] == pytest.approx(corner)


def test_an_image_too_small_for_the_network_is_refused():
    writer = GraphWriter(2, 9)
    with pytest.raises(UserError, match="too small.*'pool'"):
        writer.max_pool(writer.image, "pool")
