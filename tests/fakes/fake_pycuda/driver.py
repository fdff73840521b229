"""What PyCUDA 2022.1 shows of a machine: the modules `pycuda`, `pycuda.driver`, `pycuda.compiler`.

Names, keywords, error classes and their words are PyCUDA's own (wrap_cudadrv.cpp, driver.py); what
the project does not use is left out, and asking for it is an AttributeError.
"""

import struct
import sys
import types

import numpy as np

from fake_pycuda import kernels
from fake_pycuda.machine import DeviceFault


def host_bytes(thing, writable):
    """The bytes of a contiguous buffer, a view; raises as PyCUDA does where it is none."""
    if isinstance(thing, np.ndarray):
        if not thing.flags.c_contiguous and not thing.flags.f_contiguous:
            raise BufferError("ndarray is not contiguous")
        if writable and not thing.flags.writeable:
            raise ValueError("buffer source array is read-only")
        flat = thing if thing.flags.c_contiguous else thing.T
        return flat.reshape(-1).view(np.uint8)
    view = memoryview(thing)
    if writable and view.readonly:
        raise BufferError("Object is not writable.")
    return np.frombuffer(view, np.uint8)


def enumeration(name, **values):
    """A class whose attributes are ints, as Boost's enumerations are."""
    return type(name, (), dict(values, __slots__=()))


class Errors:
    """PyCUDA's exceptions, made anew for each driver."""

    def __init__(self):
        names = {"__module__": "pycuda._driver"}
        self.Error = type("Error", (Exception,), dict(names))
        for name in ("MemoryError", "LogicError", "LaunchError", "RuntimeError"):
            setattr(self, name, type(name, (self.Error,), dict(names)))


def make(machine):
    """The three modules of a fresh PyCUDA for this machine, by name."""
    errors = machine.errors = Errors()
    driver = types.ModuleType("pycuda.driver")
    for name, value in vars(errors).items():
        setattr(driver, name, value)
    driver.CompileError = type("CompileError", (errors.Error,), {
        "__init__": _compile_error, "__str__": lambda self: self.msg,
        "__module__": "pycuda.driver"})
    driver.ctx_flags = enumeration(
        "ctx_flags", SCHED_AUTO=0, SCHED_SPIN=1, SCHED_YIELD=2, SCHED_BLOCKING_SYNC=4, MAP_HOST=8)
    driver.device_attribute = enumeration(
        "device_attribute", MULTIPROCESSOR_COUNT=16, INTEGRATED=18, TOTAL_CONSTANT_MEMORY=9)
    driver.get_version = lambda: machine.cuda
    driver.get_driver_version = lambda: machine.cuda[0] * 1000 + machine.cuda[1] * 10
    driver.init = lambda flags=0: machine.initialise()
    _add_contexts(driver, machine)
    _add_memory(driver, machine)
    _add_modules(driver, machine)
    compiler = types.ModuleType("pycuda.compiler")
    compiler.compile = _compiler(machine)
    package = types.ModuleType("pycuda")
    package.__path__ = []
    package.VERSION, package.VERSION_TEXT = (2022, 1), "2022.1"
    package.driver, package.compiler = driver, compiler
    return {"pycuda": package, "pycuda.driver": driver, "pycuda.compiler": compiler}


def _compile_error(self, msg, command_line, stdout=None, stderr=None):
    self.msg, self.command_line, self.stdout, self.stderr = msg, command_line, stdout, stderr


def _add_contexts(driver, machine):
    errors = machine.errors

    class Device:
        __slots__ = ("_number",)

        def __init__(self, number):
            machine.check_initialised("cuDeviceGet")
            if number != 0:
                raise errors.LogicError("cuDeviceGet failed: invalid device ordinal")
            self._number = number

        @staticmethod
        def count():
            machine.check_initialised("cuDeviceGetCount")
            return 1

        def name(self):
            return machine.gpu

        def compute_capability(self):
            return machine.compute_capability

        def total_memory(self):
            return machine.total_memory

        def pci_bus_id(self):
            return "0000:00:00.0"

        def get_attribute(self, attribute):
            known = {driver.device_attribute.MULTIPROCESSOR_COUNT: machine.multiprocessors,
                     driver.device_attribute.INTEGRATED: 1,
                     driver.device_attribute.TOTAL_CONSTANT_MEMORY: 65536}
            return known[attribute]

        def make_context(self, flags=0):
            if not isinstance(flags, int):
                raise TypeError("make_context(flags: int)")
            return Context(machine.make_context(flags))

    class Context:
        __slots__ = ("_state",)

        def __init__(self, state):
            self._state = state

        @staticmethod
        def pop():
            machine.pop()

        def push(self):
            machine.push(self._state)

        def detach(self):
            machine.detach(self._state)

        @staticmethod
        def get_device():
            machine.current("cuCtxGetDevice")
            return Device(0)

        @staticmethod
        def get_current():
            return Context(machine.current("Context.get_current"))

        @staticmethod
        def synchronize():
            machine.synchronize(None, "cuCtxSynchronize")

    class Stream:
        __slots__ = ("_handle",)

        def __init__(self, flags=0):
            self._handle = machine.new_stream()

        @property
        def handle(self):
            return self._handle

        def synchronize(self):
            machine.synchronize(self._handle, "cuStreamSynchronize")

        def __del__(self, ending=sys.is_finalizing):
            if hasattr(self, "_handle") and not ending():
                machine.end_stream(self._handle)

    driver.Device, driver.Context, driver.Stream = Device, Context, Stream


def _add_memory(driver, machine):
    errors = machine.errors

    class DeviceAllocation:
        __slots__ = ("_allocation", "_freed")

        def __init__(self, allocation):
            self._allocation, self._freed = allocation, False

        def __int__(self):
            return self._allocation.address

        __index__ = __int__

        def free(self):
            if self._freed:
                raise errors.LogicError("device_allocation::free failed: invalid resource handle")
            self._freed = True
            machine.free(self._allocation)

        def __del__(self, ending=sys.is_finalizing):
            if not self._freed and not ending():
                self._freed = True
                if not self._allocation.context.gone:  # the context took it along, and said so
                    machine.free(self._allocation)

    def device_address(thing):
        if type(thing) is int or isinstance(thing, DeviceAllocation):
            return int(thing)
        raise TypeError("a device address is an int or a DeviceAllocation, not {}".format(
            type(thing).__name__))

    def stream_handle(stream):
        if stream is None:
            return 0
        if not isinstance(stream, driver.Stream):
            raise TypeError("not a Stream: " + type(stream).__name__)
        return stream.handle

    def begin(name, routine, address, size):
        machine.current(routine)
        machine.called(name, size)
        machine.fault("memcpy")
        try:
            return machine.place(address, size)
        except DeviceFault as fault:
            machine.violation("{}: {}".format(name, fault))
            raise errors.LogicError(routine + " failed: invalid argument")

    def copy_later(stream, name, address, size, work):
        handle = stream_handle(stream)
        machine.enqueue(handle, name, lambda: work(machine.place(address, size)))

    def memcpy_htod(dest, src):
        address, given = device_address(dest), host_bytes(src, False)
        place = begin("memcpy_htod", "cuMemcpyHtoD", address, len(given))
        machine.drain_all()
        machine.current("cuMemcpyHtoD")
        place[:] = given

    def memcpy_dtoh(dest, src):
        address, wanted = device_address(src), host_bytes(dest, True)
        place = begin("memcpy_dtoh", "cuMemcpyDtoH", address, len(wanted))
        machine.drain_all()
        machine.current("cuMemcpyDtoH")
        wanted[:] = place

    def memcpy_htod_async(dest, src, stream=None):
        address, given = device_address(dest), host_bytes(src, False)
        begin("memcpy_htod_async", "cuMemcpyHtoDAsync", address, len(given))
        before = given.copy()

        def copy(place):
            if not np.array_equal(given, before):
                machine.violation("memory of the host changed before it was copied to the device")
            place[:] = given

        copy_later(stream, "memcpy_htod_async", address, len(given), copy)

    def memcpy_dtoh_async(dest, src, stream=None):
        address, wanted = device_address(src), host_bytes(dest, True)
        begin("memcpy_dtoh_async", "cuMemcpyDtoHAsync", address, len(wanted))
        wanted[:] = 0xFF  # whoever reads before the copy is done reads no numbers

        def copy(place):
            wanted[:] = place

        copy_later(stream, "memcpy_dtoh_async", address, len(wanted), copy)

    def memset_d8(dest, data, size):
        place = begin("memset_d8", "cuMemsetD8", device_address(dest), size)
        machine.drain_all()
        place[:] = data

    def mem_alloc(bytes):
        if not isinstance(bytes, (int, np.integer)):
            raise TypeError("mem_alloc(bytes: int)")
        return DeviceAllocation(machine.allocate(int(bytes)))

    def mem_get_info():
        machine.current("cuMemGetInfo")
        return machine.total_memory - machine.live_bytes(), machine.total_memory

    for function in (memcpy_htod, memcpy_dtoh, memcpy_htod_async, memcpy_dtoh_async, memset_d8,
                     mem_alloc, mem_get_info):
        setattr(driver, function.__name__, function)
    driver.DeviceAllocation = DeviceAllocation
    driver.pagelocked_empty = lambda shape, dtype, order="C", mem_flags=0: _pagelocked(
        machine, shape, dtype, order)


def _pagelocked(machine, shape, dtype, order):
    machine.current("cuMemHostAlloc")
    machine.called("pagelocked_empty", shape)
    return np.empty(shape, dtype, order)


def _add_modules(driver, machine):
    errors = machine.errors

    class Function:
        __slots__ = ("_kernel", "_format")

        def __init__(self, kernel):
            self._kernel = kernel

        def prepare(self, arg_types, texrefs=[]):
            self._format = "".join(
                each if isinstance(each, str) else np.dtype(each).char for each in arg_types)
            return self

        def prepared_async_call(self, grid, block, stream, *args, **kwargs):
            if not isinstance(block, tuple) or stream is not None and not isinstance(
                    stream, driver.Stream):
                raise TypeError("prepared_async_call(grid, block, stream, *args)")
            if set(kwargs) - {"shared_size"}:
                raise TypeError("unknown keyword arguments: " + ", ".join(kwargs))
            self._launch(grid, block, stream.handle if stream else 0, args)

        def prepared_call(self, grid, block, *args, **kwargs):
            self.prepared_async_call(grid, block, None, *args, **kwargs)

        def _launch(self, grid, block, handle, args):
            machine.current("cuLaunchKernel")
            given = [int(each) if isinstance(each, driver.DeviceAllocation) else each
                     for each in args]
            values = struct.unpack(self._format, struct.pack(self._format, *given))
            machine.called("launch", self._kernel.name)
            machine.fault("launch")
            problem = self._kernel.wrong_launch(self._format, grid, block)
            if problem:
                machine.violation("launch of {}: {}".format(self._kernel.name, problem))
                raise errors.LogicError("cuLaunchKernel failed: invalid argument")
            machine.enqueue(handle, self._kernel.name,
                            lambda: self._kernel.run(machine, grid, values))

    class Module:
        __slots__ = ("_kernels",)

        def __init__(self, found):
            self._kernels = found

        def get_function(self, name):
            machine.current("cuModuleGetFunction")
            if name not in self._kernels:
                raise errors.LogicError("cuModuleGetFunction failed: named symbol not found")
            return Function(self._kernels[name])

    def module_from_buffer(buffer, options=[], message_handler=None):
        machine.current("cuModuleLoadDataEx")
        machine.called("module_from_buffer", len(buffer))
        machine.fault("module")
        try:
            return Module(kernels.load(bytes(buffer), "sm_%d%d" % machine.compute_capability))
        except kernels.NotAnImage:
            raise errors.LogicError(
                "cuModuleLoadDataEx failed: device kernel image is invalid - ")

    driver.Function, driver.Module = Function, Module
    driver.module_from_buffer = module_from_buffer


def _compiler(machine):
    def compile(source, nvcc="nvcc", options=None, keep=False, no_extern_c=False, arch=None,
                code=None, cache_dir=None, include_dirs=[], target="cubin"):
        machine.called("compile", arch)
        return kernels.build(source, arch)

    return compile
