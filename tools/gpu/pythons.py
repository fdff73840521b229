"""The Python that the check runs in: one that has PyCUDA, or a virtual environment that gets it.

In: what the check is to do. Out: the path of an executable, and what could not be had. On a Jetson
the environment is tools/install-on-jetson's to make, for TensorRT comes with JetPack alone;
elsewhere .venv-gpu/ is made and PyCUDA is compiled for the CUDA toolkit that is there.
"""

import glob
import os
import shutil
import subprocess
import sys
import tempfile
from typing import Dict, List, NamedTuple, Optional, Tuple

import venvs

INSTALLED = "/opt/jetson-cluster/bin/python"  # tools/install-on-jetson's
FOLDER = os.path.join(venvs.ROOT, ".venv-gpu")
L4T = "/etc/nv_tegra_release"


class Chosen(NamedTuple):
    """What runs the parts."""

    python: str
    absent: List[str]  # what it lacks and could not get, in words


def choose(wanted: Tuple[str, ...], gpu: dict, environment: Dict[str, str]) -> Chosen:
    """A Python with PyCUDA for the parts `wanted` on the GPU that `probe` found.

    Where there is none and none can be made, this one: what it lacks shows in the parts.
    """
    candidates = [sys.executable, INSTALLED, os.path.join(FOLDER, "bin", "python")]
    able = [python for python in candidates if has(python, "pycuda.driver", environment)]
    if able and able[0] != candidates[-1]:
        return Chosen(able[0], [])
    if os.path.exists(L4T):
        return Chosen(sys.executable, ["no Python here has PyCUDA; run tools/install-on-jetson, "
                                       "then %s tools/gpu_check" % INSTALLED])
    try:
        base = venvs.ground_python(venvs.find_pythons())
        python = venvs.ready(FOLDER, base, venvs.PACKAGE)
    except venvs.SetupError as error:
        return Chosen(able[0] if able else sys.executable, [
            "no %s: %s" % (os.path.basename(FOLDER), " ".join(str(error).split())[-300:])])
    absent = []
    for package, module in extras(wanted, gpu["cuda_of_driver"]):
        if not has(python, module, environment):
            absent += install(python, package, gpu["driver_path"], environment)
    return Chosen(python, absent)


def extras(wanted: Tuple[str, ...], cuda: str) -> List[Tuple[str, str]]:
    """(package, module that tells it is there) of what the parts need beside the project's own.

    `cuda` is the newest CUDA that the driver knows, "13.0".
    """
    major = cuda.split(".")[0]
    packages = [("pycuda", "pycuda.driver")]
    if "network" in wanted:
        # The converter: from TensorRT 11 on, precision is the graph's own.
        packages += [("tensorrt-cu" + major, "tensorrt"),
                     ("onnxconverter-common", "onnxconverter_common")]
    if "speed" in wanted:
        packages += [("cupy-cuda%sx[ctk]" % major, "cupy")]  # [ctk]: with cuBLAS
    return packages


def install(python: str, package: str, driver: str, environment: Dict[str, str]) -> List[str]:
    """pip-install one package; [] or why that could not be. `driver` is libcuda's path."""
    venvs.say("installing %s" % package)
    try:
        with tempfile.TemporaryDirectory() as folder:
            what = pycuda_source(python, driver, folder, environment) \
                if package == "pycuda" else package
            _pip(python, ["install", what], environment)
    except Failed as error:
        return ["%s: pip could not install it: %s" % (package, error)]
    return []


class Failed(Exception):
    """pip did not do it; the message is what it or the compiler said last."""


def pycuda_source(python: str, driver: str, folder: str, environment: Dict[str, str]) -> str:
    """The folder of PyCUDA's sources, set up for the toolkit and the driver that are here.

    Without cuRAND, which nothing here uses and not every toolkit has; and with the driver under the
    name that a linker looks for.
    """
    _pip(python, ["download", "--no-deps", "--no-binary=pycuda", "--dest", folder, "pycuda"],
         environment)
    archive, = glob.glob(os.path.join(folder, "pycuda-*.tar.gz"))
    shutil.unpack_archive(archive, folder)
    os.symlink(driver, os.path.join(folder, "libcuda.so"))
    source = archive[:-len(".tar.gz")]
    settings = {"CUDA_ENABLE_CURAND": False, "CUDADRV_LIB_DIR": [folder]}
    root = toolkit(environment)
    if root:
        settings["CUDA_ROOT"] = root
    with open(os.path.join(source, "siteconf.py"), "w") as stream:
        stream.writelines("%s = %r\n" % pair for pair in sorted(settings.items()))
    return source


def _pip(python: str, arguments: List[str], environment: Dict[str, str]) -> None:
    done = subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", "--quiet"] + arguments,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        universal_newlines=True, env=environment)
    if done.returncode != 0:
        lines = done.stdout.strip().splitlines() or ["it said nothing"]
        lines = [line.strip() for line in lines]
        telling = [line for line in lines if "fatal error" in line]
        telling += [line for line in reversed(lines) if line.lower().startswith("error:")]
        raise Failed((telling + lines[-1:])[0][:300])


def toolkit(environment: Dict[str, str]) -> Optional[str]:
    """The folder of the CUDA toolkit, or None; nvcc on PATH may be a link or a script elsewhere."""
    nvcc = shutil.which("nvcc", path=environment.get("PATH"))
    folders = [os.path.dirname(os.path.dirname(os.path.realpath(nvcc)))] if nvcc else []
    folders += ["/usr/local/cuda"] + sorted(glob.glob("/usr/local/cuda-*"), reverse=True)
    return next((folder for folder in folders
                 if os.path.exists(os.path.join(folder, "include", "cuda.h"))), None)


def with_module(module: str, chosen: str, environment: Dict[str, str]) -> Optional[str]:
    """The chosen Python if it has a module, else another of this machine's that has it, or None."""
    others = [sys.executable, shutil.which("python3", path=environment.get("PATH"))]
    return next((python for python in [chosen] + others
                 if python and has(python, module, environment)), None)


def has(python: str, module: str, environment: Dict[str, str]) -> bool:
    """Whether that Python can import a module."""
    try:
        return subprocess.call([python, "-c", "import numpy, " + module], env=environment,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False
