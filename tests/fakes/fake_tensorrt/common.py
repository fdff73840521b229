"""Loggers, shapes and memory of the host, as every TensorRT has them."""

import ctypes

from fake_tensorrt.enumerations import Arithmetic, enumeration, numbered

SEVERITIES = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
MAX_DIMS = 8


def check(value, kind, what):
    """Raises TypeError, as pybind11 does, for an argument of another type."""
    if kind is int:
        fits = type(value) is int
    elif kind is str:
        fits = type(value) is str
    else:
        fits = isinstance(value, kind)
    if not fits:
        raise TypeError("{}: incompatible function arguments, {!r} is no {}".format(
            what, value, kind.__name__))
    return value


def check_shape(value, what):
    """A tuple of ints of what may stand for a Dims: a list, a tuple, a Dims."""
    if not isinstance(value, (list, tuple)) and type(value).__name__ != "Dims":
        raise TypeError("{}: incompatible function arguments, {!r} is no shape".format(what, value))
    shape = tuple(value)
    if len(shape) > MAX_DIMS or any(type(each) is not int for each in shape):
        raise TypeError("{}: incompatible function arguments, {!r} is no shape".format(what, value))
    return shape


class _Initialised(type):
    """A subclass of a pybind11 class must have called its __init__."""

    def __call__(cls, *args, **kwargs):
        made = super().__call__(*args, **kwargs)
        if not getattr(made, "_ready", False):
            raise TypeError("tensorrt.tensorrt.ILogger.__init__() must be called when overriding "
                            "__init__")
        return made


class ILogger(metaclass=_Initialised):
    """What a program's own logger derives from."""

    def __init__(self):
        self._ready = True

    def log(self, severity, msg):
        raise RuntimeError("Tried to call pure virtual function \"ILogger::log\"")


def host_memory(world, content):
    """Bytes that TensorRT gives away: a buffer, with no length and no items of its own."""
    def enter(self):
        return self

    def leave(self, *exception):
        pass

    names = {
        "_fields_": [("_content", ctypes.c_ubyte * len(content))], "__slots__": (),
        "__module__": "tensorrt.tensorrt", "__enter__": enter, "__exit__": leave,
        "nbytes": property(lambda self: len(content)),
        "dtype": property(lambda self: world.trt.DataType.INT8)}
    made = type("IHostMemory", (ctypes.Structure,), names)
    return made.from_buffer_copy(content)


def define(world):
    """ILogger, Logger, Dims."""
    severity = enumeration("Severity", numbered(*SEVERITIES), Arithmetic)
    members = {"Severity": severity, "__module__": "tensorrt.tensorrt"}
    members.update(severity.__members__)
    base = _Initialised("ILogger", (ILogger,), dict(members))

    class Logger(base):
        """TensorRT's own logger; it prints."""

        __module__ = "tensorrt.tensorrt"

        def __init__(self, min_severity=severity.WARNING):
            base.__init__(self)
            self.min_severity = check(min_severity, severity, "Logger")

        def log(self, severity, msg):
            if severity <= self.min_severity:
                print("[TRT] [{}] {}".format(severity.name[0], msg))

    class Dims:
        """A shape; a tuple or a list does as well."""

        __slots__ = ("_sizes",)
        __module__ = "tensorrt.tensorrt"
        __hash__ = None

        def __init__(self, shape=()):
            self._sizes = list(check_shape(shape, "Dims"))

        def __len__(self):
            return len(self._sizes)

        def __getitem__(self, place):
            found = self._sizes[place]
            return tuple(found) if isinstance(place, slice) else found

        def __eq__(self, other):
            if not isinstance(other, (list, tuple)):
                raise TypeError("Dims.__eq__: incompatible function arguments")
            return self._sizes == list(other)

        def __repr__(self):
            return repr(tuple(self._sizes))

    def init_libnvinfer_plugins(logger, namespace):
        check(namespace, str, "init_libnvinfer_plugins")
        return True

    return {"ILogger": base, "Logger": Logger, "Dims": Dims,
            "init_libnvinfer_plugins": init_libnvinfer_plugins}
