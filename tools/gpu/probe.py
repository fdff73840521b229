"""Which GPU is here, asked of NVIDIA's driver alone: neither CUDA nor PyCUDA need be installed.

    python -m gpu.probe

Prints one line of JSON: {"gpu": {...}}, or {"none": "what was looked for, in words"}. Run it in a
process of its own: CUDA, once started, does not survive a fork.
"""

import ctypes
import glob
import json
import os
import sys

DRIVER = "libcuda.so.1"
NODES = ("/dev/nvidia[0-9]*", "/dev/nvhost-gpu", "/dev/nvgpu/*", "/dev/dxg")
# cuda.h's numbers of attributes.
MULTIPROCESSORS, CLOCK_KHZ, MEMORY_CLOCK_KHZ, BUS_BITS, L2_BYTES, MAJOR, MINOR = (
    16, 13, 36, 37, 38, 75, 76)


class NoGpu(Exception):
    """There is none, in words."""


def main() -> int:
    """The program described above."""
    try:
        print(json.dumps({"gpu": look()}))
    except NoGpu as reason:
        print(json.dumps({"none": str(reason)}))
    return 0


def look() -> dict:
    """The first GPU's numbers; raises NoGpu."""
    try:
        library = ctypes.CDLL(DRIVER)
    except OSError as error:
        found = sorted(path for pattern in NODES for path in glob.glob(pattern))
        raise NoGpu("NVIDIA's driver cannot be loaded (%s); of %s there %s" % (
            error, ", ".join(NODES), "are " + ", ".join(found) if found else "is none"))
    _call(library, "cuInit", 0)
    count = _number(library, "cuDeviceGetCount")
    if not count:
        raise NoGpu("NVIDIA's driver is here and knows no GPU")
    device = _number(library, "cuDeviceGet", 0)
    name = ctypes.create_string_buffer(256)
    _call(library, "cuDeviceGetName", name, len(name), device)
    memory = ctypes.c_size_t()
    _call(library, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)

    def attribute(which):
        return _number(library, "cuDeviceGetAttribute", which, device)
    version = _number(library, "cuDriverGetVersion")
    return {
        "name": name.value.decode("utf-8", "replace"), "gpus": count,
        "compute_capability": "%d.%d" % (attribute(MAJOR), attribute(MINOR)),
        "multiprocessors": attribute(MULTIPROCESSORS), "memory_bytes": memory.value,
        "clock_mhz": attribute(CLOCK_KHZ) / 1000,
        "memory_clock_mhz": attribute(MEMORY_CLOCK_KHZ) / 1000,
        "memory_bus_bits": attribute(BUS_BITS), "l2_bytes": attribute(L2_BYTES),
        "cuda_of_driver": "%d.%d" % (version // 1000, version % 1000 // 10),
        "driver_path": driver_path()}


def driver_path() -> str:
    """Where the driver's library lies that this process has loaded, links followed."""
    with open("/proc/self/maps") as maps:
        paths = [line.rstrip("\n").split(None, 5)[5] for line in maps if "/" in line]
    return next((path for path in paths if os.path.basename(path).startswith("libcuda.so")), "")


def _number(library, function, *arguments) -> int:
    """What a function of the driver writes into its first argument."""
    number = ctypes.c_int()
    _call(library, function, ctypes.byref(number), *arguments)
    return number.value


def _call(library, function, *arguments) -> None:
    status = getattr(library, function)(*arguments)
    if status:
        said = ctypes.c_char_p()
        library.cuGetErrorString(status, ctypes.byref(said))
        raise NoGpu("NVIDIA's driver is here, and %s fails: %s (%d)" % (
            function, (said.value or b"unknown error").decode("utf-8", "replace"), status))


if __name__ == "__main__":
    sys.exit(main())
