"""Building a plan with each TensorRT, 8.2 to 11, over the stand-in, which notes what is asked."""

import signal
import sys
import traceback

import fake_jetson
import pytest
from fake_tensorrt import building

from jetson_cluster.embedder import builder, trt
from jetson_cluster.embedder.gpu import Gpu
from jetson_cluster.errors import JetsonClusterError, UserError, WorldError

COSTLY = {"CUBLAS", "CUBLAS_LT", "CUDNN"}


@pytest.fixture(params=fake_jetson.VERSIONS)
def rover(request):
    """A machine with this TensorRT and a CUDA context."""
    with fake_jetson.jetson(request.param, nvcc=False) as machine:
        with Gpu():
            yield machine


def build(machine, onnx_path, precision="fp32", max_batch=8, timing_cache=None,
          workspace_bytes=48 << 20, progress=lambda text, allow_s: None, **options):
    module = machine.tensorrt
    try:
        return builder.build_plan(
            module, trt.make_logger(module), onnx_path, (32, 32), max_batch, precision,
            workspace_bytes, timing_cache, progress, **options)
    except JetsonClusterError as error:
        # A test keeps the error, its traceback the builder, which must not outlive the context.
        traceback.clear_frames(error.__traceback__)
        raise


def flags_of(machine, monkeypatch):
    """The flags set and cleared while a test builds, by name."""
    told = {"set_flag": [], "clear_flag": []}
    config = type(machine.tensorrt.Builder(
        trt.make_logger(machine.tensorrt)).create_builder_config())
    for name, flags in told.items():
        def note(self, flag, plain=getattr(config, name), flags=flags):
            flags.append(flag.name)
            plain(self, flag)

        monkeypatch.setattr(config, name, note)
    return told


def test_one_to_the_largest_batch_within_the_workspace_given(rover, tiny):
    built = build(rover, tiny, max_batch=5)
    noted, = rover.builds
    assert noted.profile == {"image": [[1, 3, 32, 32], [5, 3, 32, 32], [5, 3, 32, 32]]}
    assert noted.workspace_bytes == 48 << 20
    assert built.layers == 2 and built.plan.startswith(building.PLAN)


def test_precision_is_a_flag_where_there_is_one_and_else_the_graphs(rover, tiny, monkeypatch):
    flags = flags_of(rover, monkeypatch)
    if trt.precision_is_the_graphs(rover.tensorrt):
        pytest.importorskip("onnxconverter_common")
    halved = build(rover, tiny, "fp16")
    if trt.precision_is_the_graphs(rover.tensorrt):
        assert flags["set_flag"] == [] and rover.builds[-1].precision == "the graph's"
        assert halved.layers == 4  # the casts at both ends
    else:
        assert flags["set_flag"] == ["FP16"] and rover.builds[-1].precision != "the graph's"
        assert halved.layers == 2
    assert flags["clear_flag"] == []


def test_float32_is_float32_and_not_tensorfloat(rover, tiny, monkeypatch):
    flags = flags_of(rover, monkeypatch)
    build(rover, tiny, "fp32")
    assert flags == {"set_flag": [], "clear_flag": ["TF32"]}
    assert rover.builds[-1].precision == "the graph's"


def test_version_11_is_the_first_here_whose_precision_is_the_graphs():
    """With TensorRT for RTX, which test_builder.py asks."""
    found = []
    for version in fake_jetson.VERSIONS:
        with fake_jetson.jetson(version, nvcc=False) as machine:
            if trt.precision_is_the_graphs(machine.tensorrt):
                found.append(version)
    assert found == ["11.0.0"]


def test_the_costly_kernels_are_left_out(rover, tiny):
    built = build(rover, tiny)
    noted, = rover.builds
    assert not COSTLY & set(noted.tactic_sources)
    assert built.tactic_sources == "+".join(sorted(noted.tactic_sources)) or "none"


def test_where_it_does_not_work_without_them_they_are_taken_and_that_is_said(rover, tiny, caplog):
    known = set(rover.tensorrt.TacticSource.__members__)
    if not COSTLY & known:
        pytest.skip("this TensorRT has none of them")
    rover.tactics_needed = ("CUDNN",)
    built = build(rover, tiny)
    noted, = rover.builds
    assert "CUDNN" in noted.tactic_sources and "CUDNN" in built.tactic_sources
    assert "EngineWantsMoreKernels: {}".format(tiny) in caplog.text
    assert "no implementation found for a layer" in caplog.text


def test_a_build_that_fails_both_ways_is_the_worlds_failure_in_tensorrts_words(rover, tiny):
    for words in ("no room for a layer", "still no room for a layer"):
        rover.fail_next("build", words)
    once = not COSTLY & set(rover.tensorrt.TacticSource.__members__)
    with pytest.raises(WorldError) as caught:
        build(rover, tiny)
    assert rover.builds == []
    text = str(caught.value)
    assert text.startswith("TensorRT builds no engine for {}: ".format(tiny)) and "\n" not in text
    assert ("no room for a layer" if once else "still no room for a layer") in text


def test_the_timing_cache_goes_in_and_out(rover, tiny):
    first = build(rover, tiny)
    again = build(rover, tiny, timing_cache=first.timing_cache)
    assert [(noted.timed, noted.remembered) for noted in rover.builds] == [(2, 0), (0, 2)]
    assert again.timing_cache.startswith(building.CACHE)


def test_a_timing_cache_of_another_gpu_is_refused_and_the_build_goes_on(rover, tiny, caplog):
    caplog.set_level("INFO")
    kept = build(rover, tiny).timing_cache
    header, _ = building.unsealed(building.CACHE, kept)
    foreign = building.sealed(building.CACHE, dict(header, device=["Orin", "8.7"]))
    build(rover, tiny, timing_cache=foreign)
    assert "TimingCacheRefused: TensorRT does not take one of {} bytes".format(
        len(foreign)) in caplog.text
    assert [(noted.timed, noted.remembered) for noted in rover.builds] == [(2, 0), (2, 0)]


def test_a_tensorrt_that_takes_no_timing_cache_at_all_builds_without(rover, tiny, monkeypatch):
    module = rover.tensorrt
    config = type(module.Builder(trt.make_logger(module)).create_builder_config())
    monkeypatch.setattr(config, "create_timing_cache", lambda self, content: None)
    built = build(rover, tiny)
    assert built.plan and built.timing_cache is None


def test_a_broken_network_is_refused_in_the_parsers_words(rover, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(UserError) as caught:
        build(rover, str(broken))
    text = str(caught.value)
    assert "model {}: TensorRT cannot read it: ".format(broken) in text
    assert "MODEL_DESERIALIZE_FAILED" in text and "\n" not in text


def test_without_the_converter_the_remedy_is_named(tiny, monkeypatch):
    """What version 11 says on a machine that has TensorRT and nothing else."""
    monkeypatch.setitem(sys.modules, "onnxconverter_common", None)
    with fake_jetson.jetson("11.0.0", nvcc=False) as machine, Gpu():
        with pytest.raises(WorldError, match="pip install onnx onnxconverter-common") as caught:
            build(machine, tiny, "fp16")
    assert "precision: fp32" in str(caught.value)


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_ctrl_c_ends_a_build_at_once_unless_somebody_sees_to_it(rover, tiny, handler):
    """Python's own handler would raise in the log, from where nothing may come out."""
    minutes = iter(range(0, 10 ** 6, 60))
    handlers = set()
    before = signal.signal(signal.SIGINT, handler)
    try:
        build(rover, tiny, progress=lambda text, allow_s: handlers.add(
            signal.getsignal(signal.SIGINT)), clock=lambda: float(next(minutes)))
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert handlers == {handler, signal.SIG_DFL if handler is not signal.SIG_IGN else handler}
