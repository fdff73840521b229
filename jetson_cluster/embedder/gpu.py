"""The GPU as one thread owns it: a CUDA context, a stream, memory, and what its errors mean.

In: nothing; the first GPU is taken. Out: a current context for the kernels and for TensorRT. Everything
is made, used and freed in one thread. An error of CUDA's while the GPU works becomes GpuLost, after
which nothing here is freed: a dead context only fails again, and the process ends anyway.
"""

import contextlib
import traceback
from typing import Iterator

import numpy as np

from jetson_cluster.embedder.engine import Device
from jetson_cluster.errors import GpuLost, WorldError

# What a lost GPU leaves: kept, so that no destructor talks to the dead context before the exit.
_ABANDONED = []


def load_driver():
    """PyCUDA's driver module, initialised, with at least one GPU; raises WorldError in one line."""
    try:
        import pycuda.driver as driver
    except ImportError as error:  # also where libcuda.so.1 is missing
        raise WorldError("PyCUDA is not to be had (%s); it needs NVIDIA's driver, and "
                         "'pip install pycuda' beside the CUDA toolkit" % error)
    try:
        driver.init()
        count = driver.Device.count()
    except driver.Error as error:
        raise WorldError("no GPU for CUDA (%s)" % error)
    if not count:
        raise WorldError("no GPU for CUDA (the driver knows none)")
    return driver


class Gpu:
    """A CUDA context of the thread that makes it, current until `close`. A context manager."""

    def __init__(self):
        """Raises WorldError where there is no GPU, GpuLost where there is one that fails."""
        self._driver = load_driver()
        self._buffers = []
        self._lost = False
        self.stream = self._context = None
        try:
            with self.guarded():
                device = self._driver.Device(0)
                self.device = Device(device.name(), "%d.%d" % device.compute_capability())
                # Without blocking the thread spins while it waits: a core lost to the decoders.
                self._context = device.make_context(self._driver.ctx_flags.SCHED_BLOCKING_SYNC)
                self.stream = self._driver.Stream()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Gpu":
        return self

    def __exit__(self, _kind, _error, trace) -> None:
        # The traceback's frames hold what TensorRT made, which must not outlive the context.
        traceback.clear_frames(trace)
        self.close()

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Within it an error of CUDA's is GpuLost, or WorldError where memory does not suffice."""
        try:
            yield
        except self._driver.MemoryError as error:
            raise WorldError("the GPU has too little memory left (%s); set a smaller batch, or end "
                             "what else uses it" % error)
        except self._driver.Error as error:
            raise self.lost("CUDA: %s" % error)

    def lost(self, what: str) -> GpuLost:
        """The error to raise; from here on nothing of this context is touched."""
        self._lost = True
        return GpuLost("the GPU is lost (%s); only a new process can use it again" % (
            " ".join(what.split())))

    def check(self) -> None:
        """Raise GpuLost if the context is dead, whatever library noticed it first."""
        with self.guarded():
            self._driver.Context.synchronize()

    def allocate(self, size: int):
        """Device memory of `size` bytes, freed by `close`; raises WorldError if there is not so much."""
        with self.guarded():
            buffer = self._driver.mem_alloc(size)
        self._buffers.append(buffer)
        return buffer

    def up(self, array: np.ndarray, buffer) -> None:
        """Copy a contiguous array to device memory, in the stream's order; it must live that long."""
        self._driver.memcpy_htod_async(buffer, array, self.stream)

    def down(self, buffer, size: int) -> np.ndarray:
        """The first `size` bytes of device memory, uint8, once everything in the stream is done."""
        held = np.empty(size, np.uint8)
        self._driver.memcpy_dtoh_async(held, buffer, self.stream)
        self.stream.synchronize()
        return held

    def close(self) -> None:
        """Free everything and leave the context; once is enough, more does no harm.

        Whatever else lives in the context (engine, kernels) must be gone before.
        """
        if self._lost:
            _ABANDONED.append((self._buffers, self.stream, self._context))
            self._buffers, self.stream, self._context = [], None, None
            return
        with self.guarded():
            while self._buffers:
                self._buffers.pop().free()
            self.stream = None
            if self._context is not None:
                context, self._context = self._context, None
                context.pop()
                context.detach()

    def abandon(self, *things) -> bool:
        """Where the context is dead, keep `things` from being freed; whether it is."""
        if self._lost:
            _ABANDONED.append(things)
        return self._lost
