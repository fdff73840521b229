"""The rover's Python 3.6 with the real PyCUDA 2022.1, and the pretend driver it talks to.

In: a cache folder. Out: a python that has `pycuda.driver`, and a folder with libcuda.so.1. Building
PyCUDA takes one to two minutes, once; NVIDIA's headers come from PyPI, no CUDA need be installed.
"""

import contextlib
import fcntl
import importlib.util
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from typing import Optional

import toolchain
from cpu_kernels import COMMON, FAKES, kernel_names

PYCUDA = "pycuda==2022.1"
# Every pin, or pip 21 searches for minutes; what PyCUDA imports, and numpy to build it against.
PINS = ["setuptools==59.6.0", "wheel==0.37.1", "numpy==1.19.5", "appdirs==1.4.4",
        "platformdirs==2.4.0", "Mako==1.1.6", "MarkupSafe==2.0.1", "dataclasses==0.8",
        "typing_extensions==4.1.1", "importlib-metadata==4.8.3", "zipp==3.6.0"]
PYTOOLS = "pytools==2022.1.12"  # there are no wheels of it
ROOT = pathlib.Path(__file__).resolve().parents[2]
KERNELS = ROOT / "jetson_cluster" / "cuda"


def _venvs():
    spec = importlib.util.spec_from_file_location("venvs", str(ROOT / "tools" / "lib" / "venvs.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def python_36():
    """A Python 3.6 of this machine (venvs.Python), or None."""
    return _venvs().find_pythons().get((3, 6))


def include_folders():
    """The folders with cuda.h, cuda_fp16.h and cudaProfiler.h."""
    return [toolchain.include_folder(),
            toolchain.package_folder("nvidia.cuda_profiler_api") / "include"]


def ready(cache: pathlib.Path) -> Optional[str]:
    """The path of a Python 3.6 with PyCUDA, built if need be; None where there is no 3.6.

    Raises SetupError or CalledProcessError where it cannot be made.
    """
    base = python_36()
    if base is None:
        return None
    venvs = _venvs()
    folder = cache / "pycuda-2022.1-python3.6"
    with _alone(cache):
        python = venvs.ready(str(folder), base, [
            venvs.Install(["--only-binary=:all:"] + PINS),
            venvs.Install(["--no-deps", "--no-build-isolation", PYTOOLS])])
        if not (folder / "built").exists():
            _build(python, folder)
            (folder / "built").write_text(PYCUDA + "\n")
    return python


@contextlib.contextmanager
def _alone(cache):
    """One process at a time makes things in the cache: tests of several files run side by side."""
    with open(str(cache / "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def packages(python: str, cache: pathlib.Path) -> pathlib.Path:
    """A folder for PYTHONPATH with what flies, and a runtime for the network, for that Python."""
    requirements = ROOT / "tests" / "rover-requirements.txt"
    folder = cache / "rover-packages-{:x}".format(zlib.crc32(requirements.read_bytes()))
    with _alone(cache):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=str(cache)) as made:
                _run([python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet",
                      "--no-deps", "--only-binary=:all:", "-r", str(requirements),
                      "--target", os.path.join(made, "it")])
                shutil.move(os.path.join(made, "it"), str(folder))
    return folder


def _build(python, folder):
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    sources = folder / "sources"
    _run(pip + ["download", "--no-deps", "--no-binary=:all:", "--no-build-isolation",
                "--dest", str(sources), PYCUDA])
    archive, = sources.glob("pycuda-*.tar.gz")
    with tarfile.open(str(archive)) as tar:
        tar.extractall(str(sources))
    source = pathlib.Path(str(archive)[:-len(".tar.gz")])
    # The linker wants a libcuda to name; what is in it is looked up when PyCUDA is used.
    subprocess.check_call(["gcc", "-shared", "-x", "c", "/dev/null", "-Wl,-soname,libcuda.so.1",
                           "-o", str(sources / "libcuda.so")])
    _run([python, "configure.py", "--no-cuda-enable-curand",
          "--cuda-inc-dir=" + ",".join(str(path) for path in include_folders()),
          "--cudadrv-lib-dir=" + str(sources)], cwd=str(source))
    # Some Pythons are built to drop a library that defines nothing, as this libcuda does.
    _run(pip + ["install", "--no-deps", "--no-build-isolation", "."], cwd=str(source),
         env=dict(os.environ, LDFLAGS="-Wl,--no-as-needed"))


def _run(command, **options):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, universal_newlines=True, **options)
    if done.returncode != 0:
        raise RuntimeError("{}\nfailed: {}".format(done.stdout[-3000:], " ".join(command)))


def build_driver(folder: pathlib.Path, kernels: pathlib.Path = KERNELS) -> pathlib.Path:
    """Builds the pretend libcuda.so.1 into `folder`, with both kernel sources of another in it."""
    objects = []
    flags = ["-O2", "-fPIC", "-I" + str(toolchain.include_folder())]
    for source in (kernels / "nearest.cu", kernels / "preprocess.cu"):
        names = "".join("X({})".format(name) for name in kernel_names(source))
        objects.append(folder / (source.stem + ".o"))
        subprocess.check_call(COMMON + flags + [
            "-DKERNEL_SOURCE=\"{}\"".format(source), "-DKERNEL_NAMES=" + names,
            "-c", str(FAKES / "kernels.cpp"), "-o", str(objects[-1])])
    for name in ("fibers.cpp", "cubin.cpp", "pretend_libcuda.cpp"):
        objects.append(folder / (name + ".o"))
        subprocess.check_call(COMMON + flags + ["-c", str(FAKES / name), "-o", str(objects[-1])])
    library = folder / "libcuda.so.1"
    subprocess.check_call(["g++", "-shared", "-Wl,-soname,libcuda.so.1"] +
                          [str(path) for path in objects] + ["-o", str(library), "-lpthread"])
    return library


def environment(driver: pathlib.Path, nvcc: pathlib.Path, calls: pathlib.Path) -> dict:
    """The environment variables of a rover process: its driver, its compiler, this checkout."""
    return dict(os.environ, LD_LIBRARY_PATH=str(driver.parent), NVCC_CALLS=str(calls),
                PATH=os.pathsep.join([str(nvcc.parent), os.environ["PATH"]]),
                PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1")
