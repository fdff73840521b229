"""A CUDA context for one part of the check, and device memory that is given back at its end.

Needs numpy and PyCUDA only, so that the kernels can be checked where nothing else is installed.
"""

import contextlib

import numpy as np

UPLOAD_BYTES = 64 << 20  # a Nano's processor and GPU share their memory: no second copy of it all
MOST_OF_FREE = 0.8  # beyond that a Nano begins to end other programs


class TooLarge(Exception):
    """The GPU has too little memory left for a question; it is left out."""


@contextlib.contextmanager
def context():
    """PyCUDA's driver module with a context of the first GPU current in this thread."""
    import pycuda.driver as driver

    driver.init()
    # Blocking, as the daemon has it.
    made = driver.Device(0).make_context(driver.ctx_flags.SCHED_BLOCKING_SYNC)
    try:
        yield driver
    finally:
        made.pop()
        made.detach()


class Memory(contextlib.ExitStack):
    """Device memory, freed when this is left; a context manager."""

    def __init__(self, driver):
        super().__init__()
        self._driver = driver

    def room(self, size: int) -> None:
        """Raises TooLarge where `size` bytes more would fill the GPU."""
        free, _ = self._driver.mem_get_info()
        if size > MOST_OF_FREE * free:
            raise TooLarge("%d MB asked for, %d MB free" % (size >> 20, free >> 20))

    def allocate(self, size: int):
        """Uninitialised device memory."""
        buffer = self._driver.mem_alloc(size)
        self.callback(buffer.free)
        return buffer

    def up(self, array: np.ndarray, rows=None, offset: int = 0) -> int:
        """The address of device memory that holds an array's rows, or those that `rows` names.

        `offset` is in bytes: how far into its allocation they begin.
        """
        rows = np.arange(len(array)) if rows is None else rows
        row_bytes = array[:1].nbytes
        address = int(self.allocate(offset + len(rows) * row_bytes)) + offset
        step = max(1, UPLOAD_BYTES // row_bytes)
        for start in range(0, len(rows), step):
            self._driver.memcpy_htod(address + start * row_bytes,
                                     np.ascontiguousarray(array[rows[start:start + step]]))
        return address

    def down(self, address, shape, dtype, stream) -> np.ndarray:
        """An array with device memory's content, once the stream is done."""
        array = np.empty(shape, dtype)
        self._driver.memcpy_dtoh_async(array, address, stream)
        stream.synchronize()
        return array
