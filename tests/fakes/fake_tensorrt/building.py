"""From a network to a plan: optimisation profiles, builder configuration, timing cache, builder.

A plan holds the ONNX network, for whom it was built and how; `unsealed` takes it apart again. A
builder holds device memory, which what it made shares: one that outlives the CUDA context is seen.
"""

import hashlib
import json
import struct
import warnings
from typing import NamedTuple, Tuple

from fake_tensorrt.common import check, check_shape, host_memory

PLAN = b"pretended TensorRT plan\n"
CACHE = b"pretended TensorRT timing cache\n"
BUILDER_BYTES = 256  # a real one takes far more
MOST_WORKSPACE = 1 << 30  # what a version without a limit may take, as the default
DEFAULT_SOURCES = ("CUBLAS", "CUBLAS_LT", "CUDNN", "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")


class Build(NamedTuple):
    """What a test may want to know of a plan's making."""

    version: str
    precision: str  # "the graph's", or by BuilderFlag.FP16 "fp16 graph" or "fp16 outputs"
    workspace_bytes: int
    tactic_sources: Tuple[str, ...]
    profile: dict  # {input: [min, opt, max]}
    timed: int  # layers whose timing the cache did not hold
    remembered: int  # layers whose timing it held


def sealed(magic, header, body=b""):
    """Bytes whose damage is noticed."""
    told = json.dumps(header, sort_keys=True).encode("utf-8")
    content = magic + struct.pack("<Q", len(told)) + told + body
    return content + hashlib.sha256(content).digest()


def unsealed(magic, content):
    """(header, body); raises ValueError for anything but undamaged bytes of this kind."""
    if not content.startswith(magic) or hashlib.sha256(content[:-32]).digest() != content[-32:]:
        raise ValueError("not one of its own, or damaged")
    start = len(magic) + 8
    length, = struct.unpack("<Q", content[len(magic):start])
    return json.loads(content[start:start + length].decode("utf-8")), content[start + length:-32]


def fp16_model(model):
    """(model, precision) as BuilderFlag.FP16 allows: an FP16 graph if there is a converter."""
    try:
        from onnxconverter_common import float16
    except ImportError:
        return model, "fp16 outputs"
    import onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numbers that become zero or infinite in float16
        made = float16.convert_float_to_float16(
            onnx.load_model_from_string(model), keep_io_types=True)
    return made.SerializeToString(), "fp16 graph"


def profile_problem(network, profiles):
    """Why these profiles do not do for a network, or ""."""
    dynamic = [each for each in network._inputs if -1 in each._shape]
    if dynamic and not profiles:
        return "network has dynamic inputs, but no optimization profile has been defined"
    for profile in profiles:
        for tensor in network._inputs:
            shapes = profile._shapes.get(tensor.name)
            if shapes is None:
                if -1 in tensor._shape:
                    return "the profile has no shape for input " + tensor.name
                continue
            for shape in shapes:
                if len(shape) != len(tensor._shape) or any(
                        own not in (-1, given) for own, given in zip(tensor._shape, shape)):
                    return "the profile's shape {} is none of input {} {}".format(
                        shape, tensor.name, tensor._shape)
    return ""


def define(world):
    """IOptimizationProfile, ITimingCache, IBuilderConfig, Builder."""
    trt = world.trt

    class IOptimizationProfile:
        __slots__ = ("_shapes",)
        __module__ = "tensorrt.tensorrt"

        def __init__(self):
            self._shapes = {}

        def set_shape(self, input, min, opt, max):
            check(input, str, "set_shape")
            shapes = [check_shape(each, "set_shape") for each in (min, opt, max)]
            for shape, which in zip(shapes, ("min", "opt", "max")):
                if len(shape) != len(shapes[0]) or any(each < 0 for each in shape):
                    raise RuntimeError("Shape provided for {} is inconsistent with other "
                                       "shapes.".format(which))
            self._shapes[input] = shapes

        def get_shape(self, input):
            return [trt.Dims(each) for each in self._shapes.get(check(input, str, "get_shape"), [])]

        def __bool__(self):
            return bool(self._shapes) and all(
                low <= best <= high for shapes in self._shapes.values()
                for low, best, high in zip(*shapes))

    class ITimingCache:
        __slots__ = ("_device", "_known")
        __module__ = "tensorrt.tensorrt"

        def __init__(self, device, known):
            self._device, self._known = device, set(known)

        def serialize(self):
            return host_memory(world, sealed(CACHE, {
                "version": world.text, "device": self._device, "known": sorted(self._known)}))

        def reset(self):
            self._known = set()
            return True

        def combine(self, input_cache, ignore_mismatch):
            check(ignore_mismatch, bool, "combine")
            if check(input_cache, ITimingCache, "combine")._device != self._device:
                if not ignore_mismatch:
                    return False
            self._known |= input_cache._known
            return True

    @world.strict
    class IBuilderConfig:
        __slots__ = ("_logger", "_memory", "_flags", "_workspace", "_sources", "_profiles",
                     "_cache", "_verbosity", "_level", "_iterations")
        __module__ = "tensorrt.tensorrt"

        def __init__(self, logger, memory):
            self._logger, self._memory = logger, memory
            self._flags = 1 << int(trt.BuilderFlag.TF32)  # on by default
            self._workspace = MOST_WORKSPACE
            self._sources = sum(1 << int(each) for each in trt.TacticSource.__members__.values())
            self._profiles, self._cache = [], None
            self._verbosity = trt.ProfilingVerbosity.LAYER_NAMES_ONLY
            self._level, self._iterations = 3, 1

        def set_flag(self, flag):
            self._flags |= 1 << int(check(flag, trt.BuilderFlag, "set_flag"))

        def clear_flag(self, flag):
            self._flags &= ~(1 << int(check(flag, trt.BuilderFlag, "clear_flag")))

        def get_flag(self, flag):
            return bool(self._flags >> int(check(flag, trt.BuilderFlag, "get_flag")) & 1)

        def _set_workspace(self, size):
            self._workspace = check(size, int, "max_workspace_size")

        max_workspace_size = world.until(9)(property(lambda self: self._workspace, _set_workspace))

        @world.since(8, 4)
        def set_memory_pool_limit(self, pool, pool_size):
            check(pool, trt.MemoryPoolType, "set_memory_pool_limit")
            if pool == trt.MemoryPoolType.WORKSPACE:
                self._workspace = check(pool_size, int, "set_memory_pool_limit")
            else:
                world.log(self._logger, "ERROR", "no such pool on this device: {}".format(pool))

        @world.since(8, 4)
        def get_memory_pool_limit(self, pool):
            check(pool, trt.MemoryPoolType, "get_memory_pool_limit")
            return self._workspace if pool == trt.MemoryPoolType.WORKSPACE else 0

        def _set_verbosity(self, verbosity):
            self._verbosity = check(verbosity, trt.ProfilingVerbosity, "profiling_verbosity")

        profiling_verbosity = property(lambda self: self._verbosity, _set_verbosity)

        def _set_iterations(self, count):
            self._iterations = check(count, int, "avg_timing_iterations")

        avg_timing_iterations = property(lambda self: self._iterations, _set_iterations)

        def _set_level(self, level):
            self._level = check(level, int, "builder_optimization_level")

        builder_optimization_level = world.since(8, 6)(
            property(lambda self: self._level, _set_level))

        num_optimization_profiles = property(lambda self: len(self._profiles))

        def add_optimization_profile(self, profile):
            if not check(profile, IOptimizationProfile, "add_optimization_profile"):
                world.log(self._logger, "ERROR", "the profile is not min <= opt <= max")
                return -1
            self._profiles.append(profile)
            return len(self._profiles) - 1

        def set_tactic_sources(self, tactic_sources):
            known = sum(1 << int(each) for each in trt.TacticSource.__members__.values())
            if check(tactic_sources, int, "set_tactic_sources") & ~known:
                world.log(self._logger, "ERROR", "unknown tactic sources {:#x}".format(
                    tactic_sources))
                return False
            self._sources = tactic_sources
            return True

        def get_tactic_sources(self):
            return self._sources

        def create_timing_cache(self, serialized_timing_cache):
            content = bytes(memoryview(serialized_timing_cache))
            device = world.device()
            if device is None:
                return None
            if not content:
                return ITimingCache(list(device), ())
            try:
                header, _ = unsealed(CACHE, content)
                if header["version"] != world.text:
                    raise ValueError("of version " + header["version"])
            except ValueError as error:
                text = "the timing cache cannot be read: {}".format(error)
                if world.version >= (10,):
                    world.abort(text)
                world.log(self._logger, "ERROR", text)
                return None
            return ITimingCache(header["device"], header["known"])

        def set_timing_cache(self, cache, ignore_mismatch):
            check(cache, ITimingCache, "set_timing_cache")
            check(ignore_mismatch, bool, "set_timing_cache")
            if cache._device != list(world.device() or ()) and not ignore_mismatch:
                world.log(self._logger, "ERROR", "the timing cache is of another device")
                return False
            self._cache = cache
            return True

        def get_timing_cache(self):
            return self._cache

    @world.strict
    class Builder:
        __slots__ = ("_logger", "_memory")
        __module__ = "tensorrt.tensorrt"

        def __init__(self, logger):
            self._logger = check(logger, trt.ILogger, "Builder")
            self._memory = None
            if world.here("a builder"):
                self._memory = world.reserve(BUILDER_BYTES, "a TensorRT builder")
            if self._memory is None:
                world.log(logger, "ERROR", "no builder: no CUDA context, or out of device memory")
                raise TypeError("pybind11::init(): factory function returned nullptr")

        logger = property(lambda self: self._logger)
        platform_has_fast_fp16 = world.until(10)(property(lambda self: True))
        platform_has_fast_int8 = world.until(10)(
            property(lambda self: (world.device() or ("", "0.0"))[1] not in ("5.3", "0.0")))
        num_DLA_cores = property(lambda self: 0)

        def create_network(self, flags=0):
            known = sum(1 << int(each)
                        for each in trt.NetworkDefinitionCreationFlag.__members__.values())
            if check(flags, int, "create_network") & ~known:
                world.log(self._logger, "ERROR", "unknown network flags {:#x}".format(flags))
                return None
            return trt.INetworkDefinition(flags, self._logger, self._memory)

        def create_builder_config(self):
            return IBuilderConfig(self._logger, self._memory)

        def create_optimization_profile(self):
            return IOptimizationProfile()

        def build_serialized_network(self, network, config):
            check(network, trt.INetworkDefinition, "build_serialized_network")
            check(config, IBuilderConfig, "build_serialized_network")
            try:
                return host_memory(world, self._built(network, config))
            except ValueError as error:
                world.log(self._logger, "ERROR", str(error))
                return None

        def _built(self, network, config):
            device = world.device()
            if device is None:
                raise ValueError("no CUDA context to build in")
            if network._model is None or not network._outputs:
                raise ValueError("the network has no output")
            if network._parser() is None:
                world.violation("the parser was gone before its network was built")
                raise ValueError("the weights of the network are gone with its parser")
            problem = profile_problem(network, config._profiles) or world.fault("build")
            if problem:
                raise ValueError(problem)
            names = tuple(name for name, each in trt.TacticSource.__members__.items()
                          if config._sources >> int(each) & 1)
            lacking = set(world.machine.tactics_needed if world.machine else ()) - set(names)
            if lacking:
                raise ValueError("no implementation found for a layer, tactic sources {} are off"
                                 .format(", ".join(sorted(lacking))))
            return self._plan(network, config, device, names)

        def _plan(self, network, config, device, names):
            model, precision = network._model, "the graph's"
            fp16 = trt.BuilderFlag.__members__.get("FP16")
            typed = trt.NetworkDefinitionCreationFlag.__members__.get("STRONGLY_TYPED")
            if fp16 is not None and config.get_flag(fp16):
                if typed is not None and network._flags >> int(typed) & 1:
                    raise ValueError("a strongly typed network takes no precision flags")
                model, precision = fp16_model(model)
            known = config._cache._known if config._cache is not None else set()
            timed = 0
            for layer in network._layers:
                key = "{}/{}".format(precision, layer.name)
                if key not in known:
                    world.log(self._logger, "VERBOSE", "timing {}".format(layer.name))
                    known.add(key)
                    timed += 1
            profile = {name: [list(shape) for shape in shapes]
                       for each in config._profiles[:1] for name, shapes in each._shapes.items()}
            header = {
                "version": world.text, "gpu": device[0], "compute_capability": device[1],
                "precision": precision, "profile": profile, "tactic_sources": config._sources,
                "layers": len(network._layers),
                "inputs": [[each._name, list(each._shape), each._dtype]
                           for each in network._inputs],
                "outputs": [[each._name, list(each._shape), each._dtype]
                            for each in network._outputs]}
            if world.machine:
                world.machine.builds.append(Build(
                    world.text, precision, config._workspace, names, profile, timed,
                    len(network._layers) - timed))
            world.log(self._logger, "INFO", "built a plan of {} layers".format(header["layers"]))
            return sealed(PLAN, header, model)

    return {"IOptimizationProfile": IOptimizationProfile, "ITimingCache": ITimingCache,
            "IBuilderConfig": IBuilderConfig, "Builder": Builder}
