"""The launcher itself, on the rover's Python 3.6 with the real PyCUDA, over a pretend driver.

The driver (tests/fakes/cuda/pretend_libcuda.cpp) runs the kernels on the CPU and holds every call
to the compiled cubin. Not shown: a real driver's timing, streams that overlap, a real GPU's errors.
"""

import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from jetson_cluster import codebook
from jetson_cluster.cuda import launcher

HERE = pathlib.Path(__file__).resolve().parent
NANO = launcher.Target("sm_53", "10.2.0")


def test_compiled_kernels_are_kept_apart_by_source_gpu_and_cuda():
    paths = {
        launcher.image_path("/kept", "nearest", "source", NANO),
        launcher.image_path("/kept", "nearest", "source.", NANO),
        launcher.image_path("/kept", "nearest", "source", NANO._replace(architecture="sm_87")),
        launcher.image_path("/kept", "nearest", "source", NANO._replace(cuda="11.4.0")),
    }
    assert len(paths) == 4
    assert all(path.startswith("/kept/nearest-sm_") and path.endswith(".cubin") for path in paths)


@pytest.mark.parametrize("name", ["nearest", "preprocess"])
def test_the_sources_are_found_beside_the_launcher(name):
    assert "__global__" in launcher.source_of(name)


class Rover:
    """Calls on_the_rover.py with one cache folder, driver and compiler."""

    def __init__(self, python, environment, folder):
        self.python = python
        self.environment = environment
        self.cache = folder / "cache"
        self.calls = pathlib.Path(environment["NVCC_CALLS"])
        self.inputs = folder / "inputs.npz"
        self.outputs = folder / "outputs.npz"
        generator = np.random.RandomState(3)
        self.arrays = {
            "few": generator.randn(5, 77).astype(np.float32),
            "many": generator.randn(90, 77).astype(np.float32),
            "centroids": codebook.normalise(generator.randn(150, 77).astype(np.float32)),
            "frames": generator.randint(0, 256, (3, 29, 31, 3)).astype(np.uint8),
        }
        np.savez(str(self.inputs), **self.arrays)

    def run(self, how, **more):
        """Returns (exit status, output)."""
        done = subprocess.run(
            [self.python, str(HERE / "on_the_rover.py"), how, str(self.cache), str(self.inputs),
             str(self.outputs)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True,
            env=dict(self.environment, **more))
        return done.returncode, done.stdout

    def compilations(self):
        """How often the compiler was called so far."""
        return len(self.calls.read_text().splitlines()) if self.calls.exists() else 0


@pytest.fixture(scope="module")
def built(toolchain, tmp_path_factory):
    """(python, environment) of a rover; skips where something for it is missing."""
    for tool in ("gcc", "g++"):
        if shutil.which(tool) is None:
            pytest.skip("no {} here: the launcher was NOT run (apt-get install g++)".format(tool))
    import rover_pycuda

    try:
        toolchain.package_folder("nvidia.cuda_profiler_api")
    except ImportError as error:
        pytest.skip(str(error))
    cache = os.environ.get("JETSON_CLUSTER_CACHE") or str(HERE.parents[1] / ".cache")
    os.makedirs(cache, exist_ok=True)
    python = rover_pycuda.ready(pathlib.Path(cache).resolve())
    if python is None:
        pytest.skip("no Python 3.6 here: the launcher was NOT run on the rover's Python")
    folder = tmp_path_factory.mktemp("driver")
    nvcc = folder / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\nexec {} {} \"$@\"\n".format(
        sys.executable, HERE.parent / "fakes" / "cuda" / "nvcc.py"))
    nvcc.chmod(0o755)
    driver = rover_pycuda.build_driver(folder)
    return python, rover_pycuda.environment(driver, nvcc, folder / "calls")


@pytest.fixture(scope="module")
def rover(built, tmp_path_factory):
    """A rover with compiled kernels in its cache."""
    python, environment = built
    folder = tmp_path_factory.mktemp("rover")
    rover = Rover(python, dict(environment, NVCC_CALLS=str(folder / "calls")), folder)
    status, output = rover.run("work")
    assert status == 0, output
    assert output == ""
    return rover


def test_the_launcher_finds_what_numpy_finds(rover):
    with np.load(str(rover.outputs)) as made:
        for name in ("few", "many"):
            points = codebook.normalise(rover.arrays[name])
            for stored in ("float16", "float32"):
                held = rover.arrays["centroids"].astype(stored).astype(np.float32)
                told = codebook.nearest(points, held, codebook.half_squared_lengths(held), 4)
                assert (made[name + stored + "index"] == told.index).all()
                np.testing.assert_allclose(made[name + stored + "distance"], told.distance,
                                           rtol=1e-6)
        frames = rover.arrays["frames"]
        assert (made["planes"] == frames.transpose(0, 3, 1, 2)).all()


def test_kernels_are_compiled_at_the_first_start_alone(rover):
    assert rover.compilations() == 2
    assert "-arch sm_53" in rover.calls.read_text()
    assert rover.run("work") == (0, "")
    assert rover.compilations() == 2
    assert len(list(rover.cache.iterdir())) == 2


def test_a_damaged_cache_is_said_and_compiled_again(rover):
    damaged, = rover.cache.glob("preprocess-*.cubin")
    whole = damaged.read_bytes()
    damaged.write_bytes(b"\0" * len(whole))
    before = rover.compilations()
    status, output = rover.run("work")
    assert status == 0
    assert "KernelsUnreadable" in output and damaged.name in output
    assert rover.compilations() == before + 1
    assert damaged.read_bytes() == whole


def test_a_cache_that_cannot_be_written_costs_only_time(built, tmp_path):
    python, environment = built
    rover = Rover(python, dict(environment, NVCC_CALLS=str(tmp_path / "calls")), tmp_path)
    rover.cache = tmp_path / "inputs.npz" / "cache"
    status, output = rover.run("work")
    assert status == 0
    assert "KernelsNotKept" in output


def test_without_a_compiler_one_line_says_what_to_install(built, tmp_path):
    python, environment = built
    rover = Rover(python, environment, tmp_path)
    status, output = rover.run("work", PATH=str(tmp_path), USUAL_NVCC=str(tmp_path / "nvcc"))
    last = output.strip().splitlines()[-1]
    assert status == 1
    assert "WorldError: CUDA kernel nearest.cu: no nvcc on PATH" in last
    assert "none compiled for sm_53" in last and "cuda-nvcc-10-2" in last


def test_a_compiler_that_fails_is_quoted_in_one_line(built, tmp_path):
    python, environment = built
    rover = Rover(python, environment, tmp_path)
    failing = tmp_path / "nvcc"
    failing.write_text("#!/bin/sh\necho this GPU is too old >&2\nexit 1\n")
    failing.chmod(0o755)
    status, output = rover.run("work", PATH=str(tmp_path) + ":/bin:/usr/bin")
    last = output.strip().splitlines()[-1]
    assert status == 1
    assert "WorldError: CUDA kernel nearest.cu does not compile for sm_53" in last
    assert "this GPU is too old" in last


@pytest.mark.parametrize("how, words", [
    ("copy_overrun", "copy: 1848 bytes where the allocation has 1540"),
    ("copy_back_overrun", "copy: 1544 bytes where the allocation has 1540"),
    ("host_pointer", "parameter 0: not a device address"),
    ("wide_argument", "80 bytes of parameters, the cubin says 72"),
    ("narrow_argument", "24 bytes of parameters, the cubin says 32"),
    ("missing_argument", "20 bytes of parameters, the cubin says 32"),
    ("large_block", "512 threads, compiled for 256"),
    ("unknown_kernel", "cuModuleGetFunction failed"),
    ("used_after_free", "parameter 0: not a device address"),
])
def test_the_driver_does_not_let_a_mistake_pass(rover, how, words):
    status, output = rover.run(how)
    assert status != 0
    assert words in output
