"""The kernel sources on a CPU: built by g++ with tests/fakes/cuda, run in a process of their own.

In: a .cu file, numpy arrays. Out: what the kernel made of them, or `KernelFault` saying what is
wrong.
Two builds, `checked` (address and undefined-behaviour sanitizers: bounds, alignment) and `races`.
A process of its own, because a sanitizer ends it.
"""

import pathlib
import re
import struct
import subprocess
import tempfile
from typing import List, NamedTuple

import numpy as np

FAKES = pathlib.Path(__file__).resolve().parents[1] / "fakes" / "cuda"
COMMON = ["g++", "-std=c++14", "-fno-strict-aliasing", "-ffp-contract=off", "-Wall",
          "-Wno-unknown-pragmas", "-fno-threadsafe-statics",
          "-I" + str(FAKES), "-include", "cuda_on_cpu.h"]
SANITIZERS = ["-fsanitize=address,undefined", "-fsanitize-sections=cuda_shared",
              "-fno-sanitize-recover=all"]
# Flags for the kernel, flags for the rest, more sources. Only the kernel is watched.
FLAVOURS = {
    "checked": (["-O1", "-g"] + SANITIZERS, ["-O2"], []),
    "races": (["-O1", "-fsanitize=thread"], ["-O2", "-DWATCH_RACES"], ["races.cpp"]),
}


class KernelFault(Exception):
    """A kernel went out of bounds, raced, or did not bring all threads to a barrier."""


class Memory(NamedTuple):
    """An array in device memory; the kernel gets a pointer `offset` bytes into it."""

    array: np.ndarray
    offset: int = 0


def kernel_names(source: pathlib.Path) -> List[str]:
    """The names of the __global__ functions of a .cu file."""
    return re.findall(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(",
                      source.read_text())


def build(source: pathlib.Path, flavour: str, folder: pathlib.Path) -> pathlib.Path:
    """Compiles a .cu file, unchanged, into a worker program; raises CalledProcessError.

    What does not depend on the kernel is compiled once a folder.
    """
    kernel_flags, other_flags, more = FLAVOURS[flavour]
    objects = []
    for file in ["fibers.cpp", "worker.cpp"] + more:
        objects.append(folder / "{}-{}.o".format(flavour, file))
        if not objects[-1].exists():
            _compile(other_flags, FAKES / file, objects[-1])
    names = "".join("X({})".format(name) for name in kernel_names(source))
    objects.append(folder / "{}-{}.o".format(flavour, source.stem))
    _compile(kernel_flags + ["-DKERNEL_SOURCE=\"{}\"".format(source), "-DKERNEL_NAMES=" + names],
             FAKES / "kernels.cpp", objects[-1])
    program = folder / "{}-{}".format(flavour, source.stem)
    # races.cpp stands in for what the compiler would link for -fsanitize=thread.
    linking = SANITIZERS if flavour == "checked" else []
    subprocess.check_call(
        ["g++"] + linking + [str(path) for path in objects] + ["-o", str(program)])
    return program


def _compile(flags, source, target):
    subprocess.check_call(COMMON + flags + ["-c", str(source), "-o", str(target)])


class Worker:
    """A worker program, started when needed and again after a fault; a context manager."""

    def __init__(self, program):
        self.program = program
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process is not None:
            self.process.stdin.close()
            self.process.stdout.close()
            self.process.wait()
            self.errors.close()
            self.process = None

    def _start(self):
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [str(self.program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors)

    def launch(self, name, grid, parameters, block=256, seed=0):
        """Runs a kernel; `Memory` parameters are changed in place. Raises KernelFault.

        `grid` is (x, y), the other parameters are numpy scalars.
        """
        request = [_text(name), struct.pack("<5I", grid[0], grid[1], block, seed, len(parameters))]
        for parameter in parameters:
            is_memory = isinstance(parameter, Memory)
            content = (parameter.array if is_memory else parameter).tobytes()
            offset = parameter.offset if is_memory else 0
            request.append(struct.pack("<3I", is_memory, offset, len(content)) + content)
        if self.process is None:
            self._start()
        self.process.stdin.write(b"".join(request))
        self.process.stdin.flush()
        problem = self._read(struct.unpack("<I", self._read(4))[0]).decode("utf-8")
        if problem:
            self.__exit__()
            raise KernelFault(problem)
        for parameter in parameters:
            if isinstance(parameter, Memory):
                content = self._read(parameter.array.nbytes)
                parameter.array[...] = np.frombuffer(content, parameter.array.dtype).reshape(
                    parameter.array.shape)

    def _read(self, count):
        content = self.process.stdout.read(count)
        if len(content) != count:
            self.process.wait()
            self.errors.seek(0)
            words = self.errors.read().decode("utf-8", "replace")
            self.__exit__()
            raise KernelFault(words or "the worker ended without a word")
        return content


def _text(text):
    return struct.pack("<I", len(text)) + text.encode("utf-8")
