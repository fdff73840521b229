"""From an ONNX file to a TensorRT plan: parse, check, build. Nothing is kept; engine.py does that.

In: NVIDIA's module, an ONNX file with one input [N, 3, H, W] and one output [N, D], both float32.
Out: the plan's bytes, for this TensorRT and this GPU alone.
"""

import contextlib
import logging
import os
import signal
import threading
import time
import warnings
from typing import Callable, NamedTuple, Optional, Tuple

from jetson_cluster.checking import one_line
from jetson_cluster.embedder.trt import (
    keeps_timings, precision_is_the_graphs, without_collecting)
from jetson_cluster.errors import UserError, WorldError

log = logging.getLogger(__name__)

# Libraries of kernels that cost a Nano 160 to 400 MB of its memory once a plan uses any of them.
COSTLY_SOURCES = ("CUBLAS", "CUBLAS_LT", "CUDNN")
ALLOW_S = 1800.0  # what a Nano may need from one sign of life to the next
LOAD_S = 300.0  # and for what follows the building
TELL_EVERY_S = 10.0
ERRORS_SHOWN = 3  # newer parsers complain of every node that follows a bad one


class Built(NamedTuple):
    """A plan and how it came about."""

    plan: bytes
    timing_cache: Optional[bytes]  # what was timed on the way; None where this TensorRT keeps none
    tactic_sources: str  # the kernels that were allowed, "CUBLAS+CUDNN" say
    seconds: float
    layers: int  # of the network as parsed


@without_collecting()
def build_plan(trt, logger, onnx_path: str, shape: Tuple[int, int], max_batch: int, precision: str,
               workspace_bytes: int, timing_cache: Optional[bytes],
               progress: Callable[[str, float], None], compute_capability: Optional[str] = None,
               clock: Callable[[], float] = time.monotonic) -> Built:
    """Build a plan for 1 to `max_batch` images of `shape` (height, width). Takes minutes on a Nano.

    `precision` is "fp16" or "fp32". `timing_cache` is an earlier build's, for the same TensorRT and
    GPU, and whole: TensorRT 10 ends the process on a damaged one. `progress` gets what is being
    done and the seconds to allow for it. `compute_capability` ("8.6") is for TensorRT-RTX alone,
    which can build for a GPU that is not there. Raises UserError if the model is at fault,
    WorldError if TensorRT is.
    """
    begun = clock()
    name = os.path.basename(onnx_path)
    progress("building the engine for %s: minutes on a Nano" % name, ALLOW_S)
    logger.forget()
    logger.on_line = _Ticker(
        lambda elapsed_s: progress("building the engine for %s: %d s so far" % (name, elapsed_s),
                                   ALLOW_S), clock)
    try:
        try:
            builder = trt.Builder(logger)
        except TypeError:  # what the binding makes of a null pointer
            raise WorldError("TensorRT's builder does not start: %s" % logger.last_errors())
        network = builder.create_network(_explicit_batch(trt))
        # The network's weights lie in the parser's memory: it must live until the plan is built.
        parser = trt.OnnxParser(network, logger)
        _parse(trt, logger, parser, onnx_path, precision)
        _check(trt, network, onnx_path, shape, max_batch)
        config = _configured(trt, builder, network, shape, max_batch, precision, workspace_bytes)
        if compute_capability is not None:
            config.num_compute_capabilities = 1
            config.set_compute_capability(
                getattr(trt.ComputeCapability, "SM" + compute_capability.replace(".", "")), 0)
        timed = keeps_timings(trt) and _use_timings(config, timing_cache)
        plan, sources = _build(trt, logger, builder, network, config, onnx_path)
        timings = bytes(config.get_timing_cache().serialize()) if timed else None
    finally:
        logger.on_line = None
    seconds = clock() - begun
    progress("built the engine for %s in %d s" % (name, seconds), LOAD_S)
    return Built(plan, timings, "+".join(sources) or "none", seconds, network.num_layers)


class _Ticker:
    """Calls `tell(elapsed seconds)` when called itself, but not more often than TELL_EVERY_S."""

    def __init__(self, tell: Callable[[float], None], clock: Callable[[], float]):
        self._tell, self._clock = tell, clock
        self._begun = self._told = clock()

    def __call__(self) -> None:
        now = self._clock()
        if now - self._told >= TELL_EVERY_S:
            self._told = now
            self._tell(now - self._begun)


def half_precision(onnx_path: str) -> bytes:
    """The ONNX file with float16 inside and float32 at its input and output, serialised.

    For a TensorRT that takes its precision from the graph. Weights too large for float16 become
    infinite, and the embedder refuses the network at its start. Raises UserError if the file cannot
    be converted, WorldError if the converter is not installed.
    """
    try:
        import onnx
        from onnxconverter_common import float16
    except ImportError as error:
        raise WorldError("this TensorRT takes float16 from the ONNX file, and what converts that "
                         "is not to be had (%s): 'pip install onnx onnxconverter-common', or set "
                         "'precision: fp32' in the recipe" % error)
    try:
        with warnings.catch_warnings():
            # numpy's, when a weight overflows
            warnings.simplefilter("ignore", RuntimeWarning)
            # Its defaults raise weights next to nothing, clip large ones, and tell of each.
            converted = float16.convert_float_to_float16(
                onnx.load(onnx_path), min_positive_val=0.0, max_finite_val=float("inf"),
                keep_io_types=True)
        return converted.SerializeToString()
    # Both libraries raise what they like; they share no base but Exception.
    except Exception as error:
        raise UserError("model %s: cannot be converted to float16: %s" % (
            onnx_path, one_line(error)))


def _explicit_batch(trt) -> int:
    """The flags for create_network: TensorRT 8 needs one that later ones ignore or do not know."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    return 0 if flag is None else 1 << int(flag)


def _parse(trt, logger, parser, onnx_path: str, precision: str) -> None:
    if precision == "fp16" and precision_is_the_graphs(trt):
        parsed = parser.parse(half_precision(onnx_path))
    else:
        # Not parse(): 8.2's reads a Python buffer while it does not hold the interpreter's lock.
        parsed = parser.parse_from_file(onnx_path)
    logger.reraise()
    if not parsed:
        errors = [one_line(parser.get_error(place)) for place in range(parser.num_errors)]
        more = len(errors) - ERRORS_SHOWN
        raise UserError("model %s: TensorRT cannot read it: %s%s" % (
            onnx_path, "; ".join(errors[:ERRORS_SHOWN]) or logger.last_errors(),
            "; and %d more" % more if more > 0 else ""))


def _check(trt, network, onnx_path: str, shape: Tuple[int, int], max_batch: int) -> None:
    """Raise UserError unless the network takes images [N, 3, H, W] and gives a vector for each."""
    inputs = [network.get_input(place) for place in range(network.num_inputs)]
    outputs = [network.get_output(place) for place in range(network.num_outputs)]
    if len(inputs) != 1 or len(outputs) != 1:
        raise UserError("model %s has %d inputs (%s) and %d outputs (%s), expected one image and "
                        "one vector" % (
                            onnx_path, len(inputs), ", ".join(one.name for one in inputs),
                            len(outputs), ", ".join(one.name for one in outputs)))
    taken, given = tuple(inputs[0].shape), tuple(outputs[0].shape)
    if (len(taken) != 4 or taken[1:] != (3,) + tuple(shape)
            or inputs[0].dtype != trt.DataType.FLOAT):
        raise UserError("model %s takes %s %s, but its recipe says float32 [N, 3, %d, %d]" % (
            (onnx_path, _plain(inputs[0].dtype), list(taken)) + tuple(shape)))
    if taken[0] != -1 and not taken[0] == max_batch == 1:
        raise UserError("model %s takes exactly %d images at a time; export it with a batch of any "
                        "size, or set the batch to 1 if it takes one" % (onnx_path, taken[0]))
    if len(given) != 2 or outputs[0].dtype != trt.DataType.FLOAT:
        raise UserError("model %s gives %s %s, expected a vector for each image, float32 [N, D]" % (
            onnx_path, _plain(outputs[0].dtype), list(given)))


def _plain(kind) -> str:
    """"DataType.HALF" as "half"."""
    return str(kind).rsplit(".", 1)[-1].lower()


def _configured(trt, builder, network, shape: Tuple[int, int], max_batch: int, precision: str,
                workspace_bytes: int):
    config = builder.create_builder_config()
    if hasattr(config, "set_memory_pool_limit"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    else:
        config.max_workspace_size = workspace_bytes
    if precision == "fp32":
        # Newer GPUs would round float32's 23 bits to TensorFloat's 10, no more than float16 has.
        config.clear_flag(trt.BuilderFlag.TF32)
    elif not precision_is_the_graphs(trt):
        config.set_flag(trt.BuilderFlag.FP16)
    profile = builder.create_optimization_profile()
    one, most = (1, 3) + tuple(shape), (max_batch, 3) + tuple(shape)
    profile.set_shape(network.get_input(0).name, one, most, most)
    config.add_optimization_profile(profile)
    return config


def _use_timings(config, held: Optional[bytes]) -> bool:
    """Give the build what was timed before, or an empty cache to fill; whether it takes either."""
    for content in (held, b"") if held else (b"",):
        cache = config.create_timing_cache(content)
        # A cache of another GPU must not be used: False, and not the True that would force it.
        if cache is not None and config.set_timing_cache(cache, False):
            return True
        log.info("TimingCacheRefused: TensorRT does not take one of %d bytes", len(content))
    return False


def _build(trt, logger, builder, network, config, onnx_path: str):
    """(plan's bytes, names of the tactic sources allowed); the costly ones only if it must be."""
    usual = config.get_tactic_sources()
    frugal = usual
    for name in COSTLY_SOURCES:
        if hasattr(trt.TacticSource, name):
            frugal &= ~(1 << int(getattr(trt.TacticSource, name)))
    for sources in (frugal, usual) if frugal != usual else (usual,):
        config.set_tactic_sources(sources)
        plan = _attempt(builder, network, config)
        logger.reraise()
        if plan is not None:
            return bytes(plan), _names(trt, sources)
        if sources != usual:
            log.warning("EngineWantsMoreKernels: %s cannot be built without %s (%s); building it "
                        "with them, which costs memory", onnx_path,
                        ", ".join(_names(trt, usual & ~frugal)), logger.last_errors())
    raise WorldError("TensorRT builds no engine for %s: %s" % (onnx_path, logger.last_errors()))


def _attempt(builder, network, config):
    """The plan in TensorRT's memory, or None."""
    try:
        with _ctrl_c_ends_at_once():
            return builder.build_serialized_network(network, config)
    except (RuntimeError, MemoryError, ValueError) as error:  # the binding's, for any C++ exception
        log.warning("BuilderFailed: %s: %s", type(error).__name__, one_line(error))
        return None


def _names(trt, sources: int):
    return [name for name, source in sorted(trt.TacticSource.__members__.items())
            if sources >> int(source) & 1]


@contextlib.contextmanager
def _ctrl_c_ends_at_once():
    """End the process on Ctrl-C in the minutes in which Python could not raise KeyboardInterrupt.

    Nothing is lost by it: what is built is written whole or not at all.
    """
    python = signal.default_int_handler
    ours = (threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is python)
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, python)
