"""A stand-in for CuPy, computing in numpy: only what tools/gpu/peer.py asks, and strictly.

Arrays of the device and of the host do not mix; what lies between two events can be asked for once
both were recorded, one after the other, and the device was waited for. That CuPy has these names
was looked up in 14.2.0.
"""

import time
import types

import numpy as np

__version__ = "14.2.0"
uint8, int64, float32 = np.uint8, np.int64, np.float32
_recorded = [0]
_waited_for = [0]


class ndarray(np.ndarray):
    """An array in device memory."""


def _device(*arrays):
    for array in arrays:
        if not isinstance(array, ndarray):
            raise TypeError("Unsupported type " + str(type(array)))


def asarray(array):
    """A copy on the device."""
    if isinstance(array, ndarray):
        raise TypeError("it is on the device already")
    return array.copy().view(ndarray)


def asnumpy(array):
    """A copy on the host."""
    _device(array)
    return np.array(array)


def empty(shape, dtype):
    """What was never written is no number."""
    return np.full(shape, -1 if np.dtype(dtype).kind == "i" else 255, dtype).view(ndarray)


def zeros(shape, dtype):
    """Zeros."""
    return np.zeros(shape, dtype).view(ndarray)


def matmul(left, right, out):
    """The product."""
    _device(left, right, out)
    np.matmul(left, right, out=out)


def subtract(left, right, out):
    """The difference."""
    _device(left, right, out)
    np.subtract(left, right, out=out)


def argmin(array, axis, out):
    """The place of the least."""
    _device(array, out)
    out[...] = np.argmin(array, axis=axis)


def copyto(target, source):
    """A copy on the device."""
    _device(target, source)
    target[...] = source


class Event:
    """A moment in the stream."""

    place = 0

    def record(self):
        """It is now."""
        _recorded[0] += 1
        self.place, self.moment = _recorded[0], time.perf_counter()


class Device:
    """The one GPU."""

    def __init__(self, number=0):
        if number != 0:
            raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")

    def use(self):
        """It is in use."""

    def synchronize(self):
        """All is done."""
        _waited_for[0] = _recorded[0]


def _elapsed(start, end):
    if not start.place or end.place < start.place:
        raise RuntimeError("cudaErrorInvalidResourceHandle: invalid resource handle")
    if end.place > _waited_for[0]:
        raise RuntimeError("cudaErrorNotReady: device not ready")
    return 1000 * (end.moment - start.moment)


cuda = types.SimpleNamespace(
    Device=Device, Event=Event, get_elapsed_time=_elapsed,
    runtime=types.SimpleNamespace(memGetInfo=lambda: (3 << 30, 4 << 30)))
