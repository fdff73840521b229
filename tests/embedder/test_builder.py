"""NVIDIA's own parser and builder, TensorRT for RTX, on a machine without a GPU, for one of sm_86.

Shown: that the code's calls are ones NVIDIA's module takes, that it reads both networks and builds
them in FP32 and FP16, and what it says of broken files. Not shown: TensorRT 8's builder, and that a
plan runs: not even RTX's can be loaded without a GPU.
"""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jetson_cluster import recipe
from jetson_cluster.embedder import builder, trt
from jetson_cluster.errors import UserError, WorldError

WORKSPACE_BYTES = 64 << 20
CAPABILITY = "8.6"


@pytest.fixture(scope="session")
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason=(
        "TensorRT for RTX is not installed (tests/tensorrt-requirements.txt)"))


@pytest.fixture(scope="session")
def inception(root, tmp_path_factory):
    """InceptionV3 as `jetson-cluster export` writes it; the weights come from an npm package."""
    export = pytest.importorskip("jetson_cluster.ground.export")
    out = tmp_path_factory.mktemp("inception") / "inception_v3.onnx"
    try:
        export.export(str(root / "engines" / "inception_v3.yaml"), "nsfwjs", str(out))
    except WorldError as error:
        pytest.skip("InceptionV3's weights cannot be had: {}".format(error))
    return str(out)


@pytest.fixture
def network(request):
    """The ONNX file of the fixture that the test names."""
    return request.getfixturevalue(request.param)


class Progress:
    """What was said, and for how long systemd was told to wait."""

    def __init__(self):
        self.told = []

    def __call__(self, text, allow_s):
        self.told.append((text, allow_s))


def build(rtx, onnx_path, shape, precision="fp32", max_batch=8, **options):
    return builder.build_plan(
        rtx, trt.make_logger(rtx), str(onnx_path), shape, max_batch, precision, WORKSPACE_BYTES,
        None, options.pop("progress", Progress()), compute_capability=CAPABILITY, **options)


def weight_bytes(onnx_path):
    """The bytes of the float32 weights in an ONNX file."""
    return sum(numpy_helper.to_array(each).nbytes for each in onnx.load(onnx_path).graph.initializer
               if each.data_type == TensorProto.FLOAT)


@pytest.mark.parametrize("network", ["lite0", "inception"], indirect=True)
def test_nvidias_builder_makes_a_plan_of_the_weights_size_and_of_half_for_fp16(rtx, network):
    described = recipe.load_model(network).recipe
    shape = (described.input_height, described.input_width)
    single, half = (build(rtx, network, shape, precision) for precision in ("fp32", "fp16"))
    weights = weight_bytes(network)
    for name, built, expected in (("fp32", single, weights), ("fp16", half, weights / 2)):
        print("{} {}: {} layers, plan {:.1f} MB for {:.1f} MB of weights, {:.1f} s, {}".format(
            described.name, name, built.layers, len(built.plan) / 1e6, expected / 1e6,
            built.seconds, built.tactic_sources))
        # What is beside the weights: kernels and their description.
        assert expected < len(built.plan) < expected + 3e6
        assert built.timing_cache is None  # RTX times nothing
        assert set(built.tactic_sources.split("+")) <= set(rtx.TacticSource.__members__)
    assert half.layers == single.layers + 2  # the casts at both ends


def test_progress_is_told_at_both_ends_with_the_time_to_allow(rtx, tiny):
    progress = Progress()
    build(rtx, tiny, (32, 32), progress=progress)
    first, last = progress.told[0], progress.told[-1]
    assert first == ("building the engine for tiny.onnx: minutes on a Nano", 1800.0)
    assert last[0].startswith("built the engine for tiny.onnx in ") and last[1] > 0
    assert len(progress.told) == 2  # it took no ten seconds


def test_a_long_build_tells_of_itself_every_ten_seconds_and_no_more(rtx, tiny):
    """The clock moves on by a second whenever it is looked at, which is once a line of the log."""
    seconds = iter(range(100000))
    progress = Progress()
    built = build(rtx, tiny, (32, 32), progress=progress, clock=lambda: float(next(seconds)))
    between = [text for text, _ in progress.told[1:-1]]
    assert between[:2] == ["building the engine for tiny.onnx: 10 s so far",
                           "building the engine for tiny.onnx: 20 s so far"]
    assert len(between) == (built.seconds - 2) // 10


@pytest.mark.parametrize("part", [0.01, 0.9])
def test_what_the_progress_raises_comes_out_once_tensorrt_is_done(rtx, tiny, part):
    """While it parses and while it builds: nothing may come out of the log, where that happens."""
    def ticking():
        seconds = iter(range(100000))
        return lambda: float(next(seconds))

    lines = build(rtx, tiny, (32, 32), clock=ticking()).seconds

    def interrupted(text, _allow_s):
        if "so far" in text and int(text.split()[-4]) >= part * lines:
            raise KeyboardInterrupt(text)

    with pytest.raises(KeyboardInterrupt, match="so far"):
        build(rtx, tiny, (32, 32), progress=interrupted, clock=ticking())


# --- broken networks ---------------------------------------------------------------------------


def graph_of(nodes, inputs, outputs, weights=()):
    graph = helper.make_graph(
        nodes, "made",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs],
        weights)
    model = helper.make_model(graph, opset_imports=[
        helper.make_opsetid("", 13), helper.make_opsetid("org.example", 1)])
    model.ir_version = 7
    return model


IMAGE = ("image", TensorProto.FLOAT, ["N", 3, 32, 32])
VECTOR = ("embedding", TensorProto.FLOAT, ["N", 3])
POOL = [helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["embedding"])]


@pytest.fixture
def refusal(rtx, tmp_path):
    """(a network, precision) -> the one line it is refused with."""
    def refuse(model, precision="fp32", shape=(32, 32), max_batch=8):
        path = tmp_path / "net.onnx"
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        with pytest.raises(UserError) as caught:
            build(rtx, path, shape, precision, max_batch)
        text = str(caught.value)
        assert "\n" not in text and str(path) in text
        print(text)
        return text

    return refuse


DEADLOCK = """
import gc, sys
sys.path.insert(0, {root!r})
import tensorrt_rtx
from jetson_cluster.embedder import builder, trt
from jetson_cluster.errors import UserError
class Holder: pass
gc.disable()
holder = Holder()
holder.itself, holder.builder = holder, tensorrt_rtx.Builder(trt.make_logger(tensorrt_rtx))
del holder
# TensorRT tells an old logger that there is a new one, and this is how the lock is held.
logger = trt.make_logger(tensorrt_rtx)
one_line = trt.one_line
trt.one_line = lambda text: gc.collect() and "" or one_line(text)  # within log(), of all times
try:
    builder.build_plan(tensorrt_rtx, logger, {model!r}, (32, 32), 8, "fp32", 1 << 26, None,
                       lambda *_: None, compute_capability="8.6")
except UserError as error:
    print(error)
"""


def test_an_older_builder_among_pythons_garbage_does_not_block_the_next(rtx, root, tmp_path):
    """TensorRT logs while it holds the lock that the end of a builder wants."""
    (tmp_path / "net.onnx").write_bytes(b"no network")
    done = subprocess.run(
        [sys.executable, "-c", DEADLOCK.format(root=str(root), model=str(tmp_path / "net.onnx"))],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
        universal_newlines=True)
    assert done.returncode == 0 and "TensorRT cannot read it" in done.stdout, done.stdout


def test_a_network_that_is_as_it_should_be_is_not_refused(rtx, tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(graph_of(POOL, [IMAGE], [VECTOR]), str(path))
    for precision in recipe.PRECISIONS:
        assert build(rtx, path, (32, 32), precision).plan


def test_a_truncated_file_is_named_with_the_parsers_words(refusal, lite0):
    with open(lite0, "rb") as stream:
        content = stream.read()
    assert "MODEL_DESERIALIZE_FAILED" in refusal(content[:len(content) // 2])
    # For FP16 the graph is converted before the parser sees it: protobuf is the one that complains.
    text = refusal(content[:len(content) // 2], "fp16")
    assert "cannot be converted to float16: " in text and "arsing" in text


def test_bytes_that_are_no_network_are_named_with_the_parsers_words(refusal):
    assert "MODEL_DESERIALIZE_FAILED" in refusal(b"no network")
    assert "cannot be converted to float16: " in refusal(b"no network", "fp16")


@pytest.mark.parametrize("precision", recipe.PRECISIONS)
def test_an_operator_tensorrt_does_not_know_is_named(refusal, precision):
    unknown = helper.make_node("Sparkle", ["pooled"], ["lit"], name="lights", domain="org.example")
    text = refusal(graph_of([POOL[0], unknown, helper.make_node("Flatten", ["lit"], ["embedding"])],
                            [IMAGE], [VECTOR]), precision)
    assert "cannot read it: " in text and "Sparkle" in text and "lights" in text


def test_only_the_first_of_many_complaints_is_shown(refusal):
    nodes = [helper.make_node("Sparkle", ["image"], ["lit{}".format(place)], domain="org.example")
             for place in range(9)]
    sums = helper.make_node("Sum", ["lit{}".format(place) for place in range(9)], ["pooled"])
    text = refusal(graph_of(nodes + [sums, POOL[1]], [IMAGE], [VECTOR]))
    assert text.count("Sparkle") <= 3 * builder.ERRORS_SHOWN and "; and " in text


@pytest.mark.parametrize("image, told", [
    (("image", TensorProto.FLOAT, ["N", 3, 48, 32]), "takes float [-1, 3, 48, 32]"),
    (("image", TensorProto.FLOAT, ["N", 1, 32, 32]), "takes float [-1, 1, 32, 32]"),
    (("image", TensorProto.FLOAT16, ["N", 3, 32, 32]), "takes half [-1, 3, 32, 32]"),
    (("image", TensorProto.FLOAT, ["N", 3, "H", "W"]), "takes float [-1, 3, -1, -1]"),
])
def test_an_input_that_is_not_the_recipes_is_named(refusal, image, told):
    vector = ("embedding", image[1], ["N", image[2][1]])
    text = refusal(graph_of(POOL, [image], [vector]))
    assert told in text and "its recipe says float32 [N, 3, 32, 32]" in text


@pytest.mark.parametrize("precision", recipe.PRECISIONS)
def test_a_second_output_is_named(refusal, precision):
    text = refusal(graph_of(POOL, [IMAGE], [
        VECTOR, ("pooled", TensorProto.FLOAT, ["N", 3, 1, 1])]), precision)
    assert "has 1 inputs (image) and 2 outputs (embedding, pooled)" in text


def test_a_second_input_is_named(refusal):
    nodes = [helper.make_node("Add", ["image", "flat"], ["sum"]),
             helper.make_node("GlobalAveragePool", ["sum"], ["pooled"]), POOL[1]]
    text = refusal(graph_of(nodes, [IMAGE, ("flat",) + IMAGE[1:]], [VECTOR]))
    assert "2 inputs (image, flat)" in text


def test_a_map_instead_of_a_vector_is_named(refusal):
    text = refusal(graph_of(POOL[:1], [IMAGE], [("pooled", TensorProto.FLOAT, ["N", 3, 1, 1])]))
    assert "gives float [-1, 3, 1, 1], expected a vector" in text


def test_a_fixed_batch_is_refused_but_for_one_at_a_time(rtx, refusal, tmp_path):
    fixed = graph_of(POOL, [("image", TensorProto.FLOAT, [4, 3, 32, 32])],
                     [("embedding", TensorProto.FLOAT, [4, 3])])
    assert "takes exactly 4 images at a time" in refusal(fixed, max_batch=4)
    one = graph_of(POOL, [("image", TensorProto.FLOAT, [1, 3, 32, 32])],
                   [("embedding", TensorProto.FLOAT, [1, 3])])
    assert "takes exactly 1 images at a time" in refusal(one)
    path = tmp_path / "one.onnx"
    onnx.save(one, str(path))
    assert build(rtx, path, (32, 32), max_batch=1).plan


def test_a_missing_file_is_the_users_error(rtx, tmp_path):
    for precision in recipe.PRECISIONS:
        with pytest.raises(UserError, match="absent.onnx"):
            build(rtx, tmp_path / "absent.onnx", (32, 32), precision)


# --- half precision ----------------------------------------------------------------------------


def test_a_converted_graph_is_half_the_size_and_keeps_its_ends_in_float32(lite0):
    pytest.importorskip("onnxconverter_common")
    converted = onnx.load_model_from_string(builder.half_precision(lite0))
    assert [each.type.tensor_type.elem_type for each in
            list(converted.graph.input) + list(converted.graph.output)] == [TensorProto.FLOAT] * 2
    kinds = {each.data_type for each in converted.graph.initializer}
    assert TensorProto.FLOAT16 in kinds and TensorProto.FLOAT not in kinds
    assert converted.opset_import[0].version == onnx.load(lite0).opset_import[0].version
    assert 0.49 < converted.ByteSize() / os.path.getsize(lite0) < 0.51


def test_weights_are_rounded_and_neither_clipped_nor_raised(tmp_path):
    """The converter's own defaults move a weight below 1e-7 and clip at 10000, without an error."""
    pytest.importorskip("onnxconverter_common")
    values = np.array([1e-9, -3e-8, 0.1, 20000.0, -65504.0], np.float32).reshape(1, 5)
    model = graph_of([helper.make_node("Add", ["image", "weights"], ["embedding"])],
                     [("image", TensorProto.FLOAT, ["N", 5])],
                     [("embedding", TensorProto.FLOAT, ["N", 5])],
                     [numpy_helper.from_array(values, "weights")])
    onnx.save(model, str(tmp_path / "net.onnx"))
    converted = onnx.load_model_from_string(builder.half_precision(str(tmp_path / "net.onnx")))
    found = numpy_helper.to_array(converted.graph.initializer[0])
    np.testing.assert_array_equal(found, values.astype(np.float16))
