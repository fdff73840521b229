"""The whole TensorRT path on the rover's Python 3.6 with the real PyCUDA 2022.1.

PyCUDA's driver is the pretended one of tests/fakes/cuda, which runs the project's kernels as they
are; TensorRT is the stand-in. Not shown: a GPU's memory, streams that overlap, TensorRT itself.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import fake_jetson
import numpy as np
import pytest
from rover import Rover, drop, until

from jetson_cluster import codebook

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CLASSES = ("Device", "Context", "Stream", "DeviceAllocation", "Function", "Module")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """`start(*arguments, **variables)`: on_the_rover.py as a Popen; skips without Python 3.6."""
    sys.path.append(str(ROOT / "tests" / "cuda"))
    import rover_pycuda
    import toolchain

    for package in ("nvidia.cuda_nvrtc", "nvidia.cuda_runtime", "nvidia.cuda_profiler_api"):
        try:
            toolchain.package_folder(package)
        except ImportError as error:
            pytest.skip(str(error))
    if shutil.which("g++") is None:
        pytest.skip("no g++ here: TensorRT's path was NOT run on the rover's Python "
                    "(apt-get install g++)")
    cache = pathlib.Path(os.environ.get("JETSON_CLUSTER_CACHE") or str(ROOT / ".cache")).resolve()
    cache.mkdir(parents=True, exist_ok=True)
    python = rover_pycuda.ready(cache)
    if python is None:
        pytest.skip("no Python 3.6 here: TensorRT's path was NOT run on the rover's Python")
    packages = rover_pycuda.packages(python, cache)
    folder = tmp_path_factory.mktemp("rover")
    nvcc = folder / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\nexec {} {} \"$@\"\n".format(
        sys.executable, ROOT / "tests" / "fakes" / "cuda" / "nvcc.py"))
    nvcc.chmod(0o755)
    environment = rover_pycuda.environment(
        rover_pycuda.build_driver(folder), nvcc, folder / "calls")
    environment["PYTHONPATH"] += os.pathsep + str(packages)

    started = []

    def begin(*arguments, **variables):
        started.append(subprocess.Popen(
            [python, str(HERE / "on_the_rover.py")] + [str(each) for each in arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            universal_newlines=True, env=dict(environment, **variables)))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:  # a test failed before its end
            process.kill()
        process.communicate()


def ended(process):
    """(exit status, stdout, stderr); fails where the process hangs."""
    said, complaints = process.communicate(timeout=120)
    return process.returncode, said, complaints


@pytest.fixture
def rover(start):
    """`rover(*arguments)`: (exit status, stdout, stderr) of on_the_rover.py."""
    return lambda *arguments: ended(start(*arguments))


@pytest.mark.parametrize("version", ["8.2.1.8", "8.6.1.6"])
def test_the_embedder_finds_over_the_real_pycuda_what_numpy_finds(rover, tiny, tmp_path, version):
    generator = np.random.RandomState(4)
    frames = generator.randint(0, 256, (5, 32, 32, 3)).astype(np.uint8)
    centroids = codebook.normalise(generator.rand(40, 48).astype(np.float32))
    inputs, outputs = tmp_path / "inputs.npz", tmp_path / "outputs.npz"
    np.savez(str(inputs), frames=frames, centroids=centroids)
    status, said, complaints = rover("embed", version, tiny, inputs, outputs)
    assert (status, said) == (0, ""), complaints
    assert "pretend driver" not in complaints
    # The tiny network computes means of cells; its float16 engine rounds them.
    means = frames.reshape(5, 4, 8, 4, 8, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2).reshape(5, 48)
    with np.load(str(outputs)) as made:
        for place, rows in enumerate((1, 5)):
            embeddings = made["embeddings" + str(place)]
            np.testing.assert_allclose(embeddings, means[:rows], rtol=1e-3)
            told = codebook.nearest(codebook.normalise(embeddings), centroids,
                                    codebook.half_squared_lengths(centroids), 4)
            assert (made["index" + str(place)] == told.index).all()
            np.testing.assert_allclose(made["distance" + str(place)], told.distance, rtol=1e-6)


@pytest.fixture
def folders(tmp_path, tiny):
    """A rover's folders, with a codebook and an image in the inbox."""
    made = Rover(tmp_path, tiny)
    with open(str(made.config), "a") as stream:
        stream.write("tensorrt: {plan: state/tiny.plan}\n")
    made.make_codebook(["red", "green", "blue"])
    drop(made.inbox, "red.png", "red", 0)
    return made


def command(folders, verb):
    """The arguments for jetson-cluster with its network on the GPU of a Jetson Nano."""
    return "cli", "8.2.1.8", verb, "--config", folders.config, "--set", "embedder=tensorrt"


def assert_ended_with_the_gpu(process):
    """PyCUDA would end the process with 134, of a thread or at the exit, had it an occasion."""
    status, _, complaints = ended(process)
    assert status == 3, complaints
    assert "Traceback" not in complaints and "pretend driver" not in complaints
    assert complaints.strip().splitlines()[-1].startswith(
        "jetson-cluster: error: the GPU is lost (")


def assert_works_as_if_nothing_had_been(rover, folders, names):
    status, said, complaints = rover(*command(folders, "once"))
    assert (status, said) == (0, ""), complaints
    assert "pretend driver" not in complaints and "Traceback" not in complaints
    assert sorted(folders.names()) == names


@pytest.mark.parametrize("good_waits", [0, 1])
def test_a_gpu_that_is_lost_while_it_is_opened_ends_the_process_with_3(
        start, rover, folders, good_waits):
    """The first wait is for the network's trial; the second for what follows, with a codebook."""
    (folders.folder / "lost").write_text(str(good_waits))
    assert_ended_with_the_gpu(start(
        *command(folders, "run"), PRETEND_GPU_LOST=str(folders.folder / "lost")))
    assert not (folders.state / "queue.csv").exists()
    assert_works_as_if_nothing_had_been(rover, folders, ["red.png"])


def test_a_gpu_that_is_lost_in_a_turn_ends_the_process_with_3(start, rover, folders):
    process = start(*command(folders, "run"), PRETEND_GPU_LOST=str(folders.folder / "lost"))
    until(lambda: process.poll() is not None
          or (folders.state / "queue.csv").exists() and folders.names() == ["red.png"])
    assert process.poll() is None, ended(process)[2]
    (folders.folder / "lost").write_text("0")
    drop(folders.inbox, "green.png", "green", 1)
    assert_ended_with_the_gpu(process)
    assert folders.names() == ["red.png"]
    assert_works_as_if_nothing_had_been(rover, folders, ["green.png", "red.png"])


def test_the_stand_in_of_pycuda_has_only_names_of_the_real_one(rover):
    status, said, complaints = rover("names")
    assert status == 0, complaints
    real = json.loads(said)
    with fake_jetson.jetson() as machine:
        for name, value in vars(machine.driver).items():
            if name.startswith("__"):
                continue
            assert name in real
            if isinstance(value, type) and issubclass(value, Exception):
                ours = " ".join(each.__name__ for each in value.__mro__)
                assert ours == real[name]
            if name in CLASSES or name in ("ctx_flags", "device_attribute"):
                for member, held in vars(value).items():
                    if not member.startswith("_"):
                        assert name + "." + member in real
                        if name not in CLASSES:
                            assert real[name + "." + member] == held
