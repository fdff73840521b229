"""What the parts of one pretended TensorRT share: its version, the GPU it sees, whom it logs to.

`World.since` and `World.until` mark what a version has, `World.strict` leaves the rest out of a
class. With __slots__ such a class takes no attribute it does not know, as pybind11's classes.
"""

import hashlib

import numpy as np

ABSENT = object()


class ProcessAborted(BaseException):
    """TensorRT would have ended the process here; nothing that catches Exception may hide it."""


def words(version):
    """"8.2.1.8" → (8, 2, 1, 8)."""
    return tuple(int(part) for part in version.split("."))


class World:
    """One loaded TensorRT."""

    def __init__(self, module, version, driver, machine):
        self.trt = module
        self.version = words(version)
        self.text = version
        self.machine = machine
        self._driver = driver
        self.violations = machine.violations if machine else []
        self.sessions = {}

    # Names.

    def since(self, *version):
        """Marks what came with a version."""
        return lambda thing: thing if self.version >= version else ABSENT

    def until(self, *version):
        """Marks what is there until a version, itself included, as far as its numbers go."""
        return lambda thing: thing if self.version[:len(version)] <= version else ABSENT

    @staticmethod
    def strict(cls):
        """The class without what its version has not."""
        for name in [name for name, value in vars(cls).items() if value is ABSENT]:
            delattr(cls, name)
        return cls

    # The GPU.

    @property
    def driver(self):
        """PyCUDA's driver."""
        if self._driver is None:
            import pycuda.driver

            self._driver = pycuda.driver
        return self._driver

    def device(self):
        """(name, "5.3"); None, said and noted, where this thread has no usable CUDA context."""
        try:
            device = self.driver.Context.get_device()
        except self.driver.Error as error:
            self.violation("TensorRT used without a CUDA context: {}".format(error))
            return None
        return device.name(), "%d.%d" % device.compute_capability()

    def here(self, what):
        """Whether this thread may use TensorRT's objects now; noted where it may not."""
        try:
            self.driver.Context.get_device()
        except self.driver.Error as error:
            if not (self.machine and self.machine.is_lost()):
                self.violation("{} without a CUDA context: {}".format(what, error))
            return False
        return True

    def violation(self, text):
        """Notes a broken rule."""
        self.violations.append(text)

    def fault(self, what):
        """Whether a test arranged for this to fail now; its words, or ""."""
        if self.machine is None:
            return ""
        try:
            self.machine.fault(what)
        except self.driver.Error as error:
            return str(error)
        return ""

    def reserve(self, size, what):
        """Device memory that TensorRT takes for itself; None if there is not so much."""
        try:
            memory = self.driver.mem_alloc(max(1, size))
        except self.driver.MemoryError:
            return None
        if self.machine:
            self.machine.allocations[int(memory)].what = what
        return memory

    def enqueue(self, handle, work):
        """Has `work(read, write)` done in the stream's turn.

        read(address, shape, dtype) gives an array of device memory, write(address, array) puts one.
        """
        if self.machine:
            self.machine.enqueue(handle, "TensorRT", lambda: work(
                lambda *what: self.machine.array(*what).copy(), self._write))
            return
        self.driver.Context.synchronize()
        work(self._fetch, lambda address, array: self.driver.memcpy_htod(address, array))

    def _write(self, address, array):
        self.machine.array(address, array.shape, array.dtype)[:] = array

    def _fetch(self, address, shape, dtype):
        array = np.empty(shape, dtype)
        self.driver.memcpy_dtoh(array, address)
        return array

    # Logging.

    def log(self, logger, severity, text):
        """What TensorRT does with a line; an exception that leaves log() ends the process."""
        severity = getattr(self.trt.ILogger.Severity, severity)
        base = self.trt.Logger if isinstance(logger, self.trt.Logger) else None
        try:
            if base is not None:
                base.log(logger, severity, text)  # an override of it is never called
            else:
                logger.log(severity, text)
        except Exception as error:
            self.abort("an exception left log(): {!r}".format(error))

    def abort(self, why):
        """Ends the process, as far as a stand-in can."""
        self.violation(why)
        raise ProcessAborted(why)

    # Networks.

    def session(self, model, compute_capability):
        """An ONNX Runtime session of a model's bytes, made once."""
        import onnxruntime

        key = hashlib.sha256(model).hexdigest()
        if key not in self.sessions:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            options.intra_op_num_threads = 2
            self.sessions[key] = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"])
        return self.sessions[key]
