"""Runs on the rover's Python: the project's launcher over the real PyCUDA, and ways to misuse it.

In: what to do, a cache folder, a file with arrays. Out: a file with what came of them (`work`), or
an error of PyCUDA's. Not a test itself; test_launcher.py runs it in a process of its own.
"""

import os
import sys

# PyCUDA names many more driver functions than the pretend driver has: look them up when called.
sys.setdlopenflags(os.RTLD_LAZY)

import numpy as np  # noqa: E402
import pycuda.driver as driver  # noqa: E402

from jetson_cluster.cuda import launcher  # noqa: E402


def copied_up(array):
    """Device memory with an array's content."""
    buffer = driver.mem_alloc(array.nbytes)
    driver.memcpy_htod(buffer, np.ascontiguousarray(array))
    return buffer


def copied_down(buffer, shape, dtype, stream):
    """An array with device memory's content."""
    array = np.empty(shape, dtype)
    driver.memcpy_dtoh_async(array, buffer, stream)
    stream.synchronize()
    return array


def look_up(kernels, embeddings, centroids, stored, neighbours, stream):
    """Index and distance, by way of device memory."""
    rows = len(embeddings)
    given = copied_up(embeddings)
    index = driver.mem_alloc(rows * neighbours * 4)
    distance = driver.mem_alloc(rows * neighbours * 4)
    with launcher.Lookup(kernels, centroids, stored) as lookup:
        lookup.nearest(given, rows, neighbours, index, distance, stream)
        lookup.nearest(int(given), rows, neighbours, int(index), int(distance), stream)
        answer = (copied_down(index, (rows, neighbours), np.int32, stream),
                  copied_down(distance, (rows, neighbours), np.float32, stream))
    for buffer in (given, index, distance):
        buffer.free()
    return answer


def work(kernels, arrays):
    """Both kinds of storage, few rows and many, and frames to planes."""
    stream = driver.Stream()
    made = {}
    for name in ("few", "many"):
        for stored in ("float16", "float32"):
            made[name + stored + "index"], made[name + stored + "distance"] = look_up(
                kernels, arrays[name], arrays["centroids"], stored, 4, stream)
    frames = arrays["frames"]
    count, height, width, _ = frames.shape
    given, planes = copied_up(frames), driver.mem_alloc(frames.size * 4)
    kernels.planes(given, count, height, width, planes, stream)
    made["planes"] = copied_down(planes, (count, 3, height, width), np.float32, stream)
    given.free()
    planes.free()
    return made


def misuse(kernels, how, arrays):
    """One mistake; the driver must not let it pass."""
    few = arrays["few"]
    given = copied_up(few)
    prepared = launcher.Kernels.prepared
    if how == "copy_overrun":
        driver.memcpy_htod(given, np.concatenate([few, few[:1]]))
    elif how == "copy_back_overrun":
        driver.memcpy_dtoh(np.empty(few.size + 1, np.float32), given)
    elif how == "host_pointer":
        kernels.planes(arrays["frames"].ctypes.data // 4 * 4, 1, 2, 2, given)
    elif how == "wide_argument":  # k as int64, the kernel has int32
        at = int(given)
        prepared(kernels._nearest, "nearest_few_half", "PiPqiiiPPPP").prepared_call(
            (1, 1), launcher.BLOCK, at, 1, at, 1, 1, 32, 1, at, at, at, at)
    elif how == "narrow_argument":  # the number of bytes as int32, the kernel has uint64
        prepared(kernels._preprocess, "frames_to_planes", "PiiP").prepared_call(
            (1, 1), launcher.BLOCK, int(given), 12, 4, int(given))
    elif how == "missing_argument":
        prepared(kernels._preprocess, "frames_to_planes", "PQi").prepared_call(
            (1, 1), launcher.BLOCK, int(given), 12, 4)
    elif how == "large_block":
        prepared(kernels._preprocess, "frames_to_planes", launcher.PLANES).prepared_call(
            (1, 1), (512, 1, 1), int(given), 12, 4, int(given))
    elif how == "unknown_kernel":
        prepared(kernels._preprocess, "frames_to_plane", launcher.PLANES)
    elif how == "used_after_free":
        given.free()
        kernels.planes(int(given), 1, 2, 2, int(given))
    else:
        sys.exit("no such mistake: " + how)


def main(how, cache, inputs, outputs):
    """Makes a context, does what is asked, takes the context down again."""
    launcher.USUAL_NVCC = os.environ.get("USUAL_NVCC", launcher.USUAL_NVCC)
    driver.init()
    flags = driver.ctx_flags.SCHED_BLOCKING_SYNC
    context = driver.Device(0).make_context(flags)
    try:
        kernels = launcher.Kernels(cache)
        with np.load(inputs) as arrays:
            if how == "work":
                np.savez(outputs, **work(kernels, arrays))
            else:
                misuse(kernels, how, arrays)
        del kernels
    finally:
        context.pop()
        context.detach()


if __name__ == "__main__":
    main(*sys.argv[1:])
