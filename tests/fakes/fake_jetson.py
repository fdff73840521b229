"""A pretended rover for tests: PyCUDA and TensorRT as stand-ins, put where `import` finds them.

    with fake_jetson.jetson("8.2.1.8") as machine:
        ...                                 # import pycuda.driver, tensorrt: the stand-ins
        assert machine.count("memcpy_htod_async") == 1

At the end all that lives on in CUDA contexts, and every other broken rule, fails the test.
"""

import contextlib
import gc
import os
import shutil
import sys
import tempfile

import fake_pycuda.driver
import fake_tensorrt
from fake_pycuda.machine import Machine

MODULES = ("pycuda", "pycuda.driver", "pycuda.compiler", "tensorrt", "tensorrt_rtx")
VERSIONS = ("8.2.1.8", "8.6.1.6", "10.3.0", "11.0.0")


@contextlib.contextmanager
def jetson(version="8.2.1.8", gpu="NVIDIA Tegra X1", compute_capability=(5, 3), strict=True,
           nvcc=True, machine=None, **more):
    """A Machine whose `tensorrt` and `driver` are what `import` gives within.

    `version` None: no TensorRT there. `gpu` None: no GPU. `nvcc` False: PATH is left as it is, else
    a compiler is on it. `strict` False: violations are kept for the test to look at. `machine`:
    one to go on with. More keywords are Machine's: multiprocessors, total_memory, cuda.
    """
    machine = machine or Machine(gpu, compute_capability, **more)
    modules = fake_pycuda.driver.make(machine)
    machine.driver = modules["pycuda.driver"]
    machine.tensorrt = fake_tensorrt.make(version, machine.driver, machine) if version else None
    modules.update({"tensorrt": machine.tensorrt, "tensorrt_rtx": None})
    before = {name: sys.modules.get(name) for name in MODULES if name in sys.modules}
    sys.modules.update(modules)
    try:
        with compiler_on_path() if nvcc else contextlib.suppress():
            yield machine
        gc.collect()
        machine.violations += machine.leftovers()
    finally:
        for name in MODULES:
            sys.modules.pop(name, None)
        sys.modules.update(before)
    if strict and machine.violations:
        raise AssertionError("the GPU was misused:\n  " + "\n  ".join(machine.violations))


@contextlib.contextmanager
def compiler_on_path():
    """A program `nvcc` for code that looks whether there is one; PyCUDA's stand-in compiles."""
    folder = tempfile.mkdtemp()
    path = os.environ.get("PATH", "")
    try:
        program = os.path.join(folder, "nvcc")
        with open(program, "w") as stream:
            stream.write("#!/bin/sh\necho this compiler is not to be run >&2\nexit 1\n")
        os.chmod(program, 0o755)
        os.environ["PATH"] = folder + os.pathsep + path
        yield
    finally:
        os.environ["PATH"] = path
        shutil.rmtree(folder)
