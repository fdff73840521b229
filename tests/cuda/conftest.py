"""The kernels' sources and the programs they are built into, once for all tests of a file."""

import importlib.util
import pathlib
import shutil
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # cpu_kernels, toolchain, questions: helpers of these tests alone


@pytest.fixture(scope="session")
def toolchain():
    """NVIDIA's compiler 11.8; skips where its packages are not installed."""
    import toolchain

    for package in ("nvidia.cuda_nvrtc", "nvidia.cuda_nvcc", "nvidia.cuda_runtime"):
        try:
            toolchain.package_folder(package)
        except ImportError as error:
            pytest.skip(str(error))
    return toolchain


@pytest.fixture(scope="session")
def workers(tmp_path_factory):
    """`workers(source, flavour)`: a running worker for a .cu file, built at the first call."""
    if importlib.util.find_spec("nvidia") is None:
        pytest.skip("the kernels run on the CPU once, in the environment with NVIDIA's compiler")
    if shutil.which("g++") is None:
        pytest.skip("no g++ here: the kernels were NOT run on the CPU (apt-get install g++)")
    import cpu_kernels

    folder = tmp_path_factory.mktemp("kernels")
    running = {}

    def worker(source, flavour):
        if (source, flavour) not in running:
            running[source, flavour] = cpu_kernels.Worker(
                cpu_kernels.build(pathlib.Path(source), flavour, folder))
        return running[source, flavour]

    yield worker
    for each in running.values():
        each.__exit__()
