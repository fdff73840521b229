"""From a plan to numbers: runtime, engine, execution context.

Inputs are read from device memory when the stream comes to it, the network runs in ONNX Runtime,
outputs are written to device memory. An engine and a context hold device memory of their own, so
that one that outlives the CUDA context is seen.
"""

import numpy as np

from fake_tensorrt.building import PLAN, unsealed
from fake_tensorrt.common import check, check_shape, host_memory

ALIGNMENT = 256
DTYPES = {"FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8, "INT32": np.int32,
          "BOOL": np.bool_}


class Tensor:
    """An input or output of an engine."""

    def __init__(self, told, is_input, profile):
        self.name, self.shape, self.dtype = told[0], tuple(told[1]), told[2]
        self.is_input = is_input
        self.profile = profile.get(self.name) or [list(self.shape)] * 3

    def wrong_shape(self, shape):
        """Why an input cannot have this shape, or ""."""
        if len(shape) != len(self.shape):
            return "{} dimensions, {} has {}".format(len(shape), self.name, len(self.shape))
        for own, given, low, high in zip(self.shape, shape, self.profile[0], self.profile[2]):
            if not low <= given <= high or own not in (-1, given):
                return "{} of {} is outside of the profile's {} to {}".format(
                    shape, self.name, tuple(self.profile[0]), tuple(self.profile[2]))
        return ""

    def most_bytes(self, batch):
        """Bytes at the largest shape; `batch` stands for what an output leaves open."""
        shape = self.profile[2] if self.is_input else [
            batch if each < 0 else each for each in self.shape]
        return int(np.prod(shape)) * np.dtype(DTYPES[self.dtype]).itemsize


def define(world):
    """Runtime, ICudaEngine, IExecutionContext."""
    trt = world.trt

    class Runtime:
        __slots__ = ("_logger",)
        __module__ = "tensorrt.tensorrt"

        def __init__(self, logger):
            self._logger = check(logger, trt.ILogger, "Runtime")

        logger = property(lambda self: self._logger)

        def deserialize_cuda_engine(self, serialized_engine):
            content = bytes(memoryview(serialized_engine))
            device = world.device()
            try:
                if device is None:
                    raise ValueError("no CUDA context")
                header, model = unsealed(PLAN, content)
                if header["version"] != world.text:
                    raise ValueError("the plan was built by version {}, this is {}".format(
                        header["version"], world.text))
                if header["compute_capability"] != device[1]:
                    raise ValueError("the plan was built for compute capability {}, this is {}"
                                     .format(header["compute_capability"], device[1]))
                problem = world.fault("deserialize")
                if problem:
                    raise ValueError(problem)
                memory = world.reserve(len(model), "a TensorRT engine")
                if memory is None:
                    raise ValueError("out of device memory")
            except ValueError as error:
                world.log(self._logger, "ERROR", "the engine cannot be deserialized: {}".format(
                    error))
                return None
            if header["gpu"] != device[0]:
                world.log(self._logger, "WARNING", "the plan was built on another model of device")
            return ICudaEngine(self, header, model, content, memory)

    @world.strict
    class ICudaEngine:
        # The runtime is kept alive by the engine, as NVIDIA's bindings do from 8.0.
        __slots__ = ("_runtime", "_header", "_model", "_plan", "_memory", "_tensors")
        __module__ = "tensorrt.tensorrt"

        def __init__(self, runtime, header, model, plan, memory):
            self._runtime, self._header = runtime, header
            self._model, self._plan, self._memory = model, plan, memory
            self._tensors = [
                Tensor(told, kind == "inputs", header["profile"])
                for kind in ("inputs", "outputs") for told in header[kind]]

        name = property(lambda self: "Unnamed Network 0")
        num_layers = property(lambda self: self._header["layers"])
        num_optimization_profiles = property(lambda self: 1)
        tactic_sources = property(lambda self: self._header["tactic_sources"])
        device_memory_size = world.until(10)(property(
            lambda self: sum(each.most_bytes(self._batch()) for each in self._tensors)))
        device_memory_size_v2 = world.since(10)(property(
            lambda self: sum(each.most_bytes(self._batch()) for each in self._tensors)))

        def _batch(self):
            return max([each.profile[2][0] for each in self._tensors if each.is_input] + [1])

        def _tensor(self, which, what):
            if type(which) is str:
                found = [each for each in self._tensors if each.name == which]
                if found:
                    return found[0]
            elif type(which) is not int:
                raise TypeError("{}: incompatible function arguments".format(what))
            elif 0 <= which < len(self._tensors):
                return self._tensors[which]
            world.log(self._runtime._logger, "ERROR", "{}: there is no tensor {!r}".format(
                what, which))
            return None

        def serialize(self):
            return host_memory(world, self._plan)

        def create_execution_context(self):
            if not world.here("create_execution_context"):
                return None
            size = sum(each.most_bytes(self._batch()) for each in self._tensors)
            problem = world.fault("execution_context")
            memory = None if problem else world.reserve(size, "a TensorRT execution context")
            if memory is None:
                world.log(self._runtime._logger, "ERROR",
                          problem or "out of memory for an execution context")
                return None
            return IExecutionContext(self, memory)

        # By number, until 9.

        num_bindings = world.until(9)(property(lambda self: len(self._tensors)))

        @world.until(9)
        def get_binding_name(self, index):
            return self._tensor(check(index, int, "get_binding_name"), "get_binding_name").name

        @world.until(9)
        def get_binding_index(self, name):
            names = [each.name for each in self._tensors]
            return names.index(name) if check(name, str, "get_binding_index") in names else -1

        @world.until(9)
        def binding_is_input(self, index):
            return self._tensor(index, "binding_is_input").is_input

        @world.until(9)
        def get_binding_shape(self, index):
            return trt.Dims(self._tensor(index, "get_binding_shape").shape)

        @world.until(9)
        def get_binding_dtype(self, index):
            return getattr(trt.DataType, self._tensor(index, "get_binding_dtype").dtype)

        @world.until(9)
        def get_profile_shape(self, profile_index, binding):
            check(profile_index, int, "get_profile_shape")
            return [trt.Dims(each) for each in self._tensor(binding, "get_profile_shape").profile]

        # By name, from 8.5.

        num_io_tensors = world.since(8, 5)(property(lambda self: len(self._tensors)))

        @world.since(8, 5)
        def get_tensor_name(self, index):
            return self._tensor(check(index, int, "get_tensor_name"), "get_tensor_name").name

        @world.since(8, 5)
        def get_tensor_mode(self, name):
            tensor = self._tensor(check(name, str, "get_tensor_mode"), "get_tensor_mode")
            if tensor is None:
                return trt.TensorIOMode.NONE
            return trt.TensorIOMode.INPUT if tensor.is_input else trt.TensorIOMode.OUTPUT

        @world.since(8, 5)
        def get_tensor_shape(self, name):
            tensor = self._tensor(check(name, str, "get_tensor_shape"), "get_tensor_shape")
            return trt.Dims(tensor.shape if tensor else ())

        @world.since(8, 5)
        def get_tensor_dtype(self, name):
            tensor = self._tensor(check(name, str, "get_tensor_dtype"), "get_tensor_dtype")
            return getattr(trt.DataType, tensor.dtype if tensor else "FLOAT")

        @world.since(8, 5)
        def get_tensor_profile_shape(self, name, profile_index):
            check(profile_index, int, "get_tensor_profile_shape")
            tensor = self._tensor(check(name, str, "get_tensor_profile_shape"), "a profile")
            return [trt.Dims(each) for each in tensor.profile]

    @world.strict
    class IExecutionContext:
        __slots__ = ("_engine", "_memory", "_shapes", "_addresses")
        __module__ = "tensorrt.tensorrt"

        def __init__(self, engine, memory):
            self._engine, self._memory = engine, memory
            self._shapes = {each.name: each.shape for each in engine._tensors
                            if each.is_input and -1 not in each.shape}
            self._addresses = {}

        engine = property(lambda self: self._engine)

        def _error(self, text):
            world.log(self._engine._runtime._logger, "ERROR", text)
            return False

        def _set_shape(self, which, shape, what):
            shape = check_shape(shape, what)
            tensor = self._engine._tensor(which, what)
            if tensor is None or not tensor.is_input:
                return self._error("{}: {!r} is no input".format(what, which))
            problem = tensor.wrong_shape(shape)
            if problem:
                return self._error("{}: {}".format(what, problem))
            self._shapes[tensor.name] = shape
            return True

        def _shape(self, tensor):
            if tensor.is_input:
                return self._shapes.get(tensor.name, tensor.shape)
            if not self._ready():
                return tensor.shape
            batch = next(self._shapes[each.name][0] for each in self._engine._tensors
                         if each.is_input)
            return tuple(batch if each < 0 else each for each in tensor.shape)

        def _ready(self):
            return all(each.name in self._shapes for each in self._engine._tensors if each.is_input)

        # By number, until 9.

        all_binding_shapes_specified = world.until(9)(property(lambda self: self._ready()))

        @world.until(9)
        def set_binding_shape(self, binding, shape):
            return self._set_shape(check(binding, int, "set_binding_shape"), shape,
                                   "set_binding_shape")

        @world.until(9)
        def get_binding_shape(self, binding):
            return trt.Dims(self._shape(self._engine._tensor(
                check(binding, int, "get_binding_shape"), "get_binding_shape")))

        @world.until(9)
        def execute_async_v2(self, bindings, stream_handle, input_consumed=None):
            return self._bound(bindings, check(stream_handle, int, "execute_async_v2"))

        # In all versions; it waits for what it started.
        def execute_v2(self, bindings):
            done = self._bound(bindings, 0)
            world.driver.Context.synchronize()
            return done

        def _bound(self, bindings, handle):
            tensors = self._engine._tensors
            if not isinstance(bindings, (list, tuple)) or any(
                    type(each) is not int for each in bindings):
                raise TypeError("incompatible function arguments: bindings are ints")
            if len(bindings) != len(tensors):
                world.violation("{} bindings for an engine of {}".format(
                    len(bindings), len(tensors)))
                return self._error("the bindings are not those of the engine")
            return self._enqueue({each.name: address for each, address in zip(tensors, bindings)},
                                 handle)

        # By name, from 8.5.

        @world.since(8, 5)
        def set_input_shape(self, name, shape):
            return self._set_shape(check(name, str, "set_input_shape"), shape, "set_input_shape")

        @world.since(8, 5)
        def get_tensor_shape(self, name):
            tensor = self._engine._tensor(check(name, str, "get_tensor_shape"), "get_tensor_shape")
            return trt.Dims(self._shape(tensor) if tensor else ())

        @world.since(8, 5)
        def set_tensor_address(self, name, memory):
            check(memory, int, "set_tensor_address")
            tensor = self._engine._tensor(check(name, str, "set_tensor_address"),
                                          "set_tensor_address")
            if tensor is None:
                return False
            self._addresses[tensor.name] = memory
            return True

        @world.since(8, 5)
        def get_tensor_address(self, name):
            return self._addresses.get(check(name, str, "get_tensor_address"), 0)

        @world.since(8, 5)
        def execute_async_v3(self, stream_handle):
            check(stream_handle, int, "execute_async_v3")
            lacking = [each.name for each in self._engine._tensors
                       if each.name not in self._addresses]
            if lacking:
                return self._error("no address is set for {}".format(", ".join(lacking)))
            return self._enqueue(dict(self._addresses), stream_handle)

        def _enqueue(self, addresses, handle):
            if not world.here("an execution"):
                return self._error("no usable CUDA context")
            if world.machine:
                world.machine.called("execute", handle)
            problem = world.fault("execute")
            if problem:
                return self._error(problem)
            if not self._ready():
                return self._error("not all shapes of inputs are set")
            for name, address in addresses.items():
                if address % ALIGNMENT:
                    world.violation("tensor {} at {:#x}, not on a multiple of {}".format(
                        name, address, ALIGNMENT))
                    return self._error("tensor {} is not aligned".format(name))
            tensors, shapes = self._engine._tensors, dict(self._shapes)
            session = world.session(self._engine._model, None)
            rounded = self._engine._header["precision"] == "fp16 outputs"

            def work(read, write):
                given = {each.name: read(addresses[each.name], shapes[each.name],
                                         DTYPES[each.dtype])
                         for each in tensors if each.is_input}
                outputs = [each for each in tensors if not each.is_input]
                for each, made in zip(outputs, session.run([each.name for each in outputs], given)):
                    if rounded:
                        with np.errstate(over="ignore"):
                            made = made.astype(np.float16)
                    write(addresses[each.name],
                          np.ascontiguousarray(made, DTYPES[each.dtype]))

            try:
                world.enqueue(handle, work)
            except world.driver.Error as error:
                return self._error(str(error))
            return True

    return {"Runtime": Runtime, "ICudaEngine": ICudaEngine, "IExecutionContext": IExecutionContext}
