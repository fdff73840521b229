"""What this machine is beside its GPU: versions of everything that takes part, and what is absent.

    python -m gpu.environment RESULT.json

Out: a JSON file: {"versions": {name: text or null}, "machine": {...}, "absent": [text]}.
"""

import importlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys

from jetson_cluster import __version__
from jetson_cluster.cuda import launcher

MODULES = ("numpy", "pycuda", "tensorrt", "tensorrt_rtx", "onnx", "onnxconverter_common",
           "onnxruntime", "PIL", "yaml")


def main(arguments) -> int:
    """The program described above."""
    versions, reasons = {"jetson_cluster": __version__, "python": platform.python_version()}, {}
    for name in MODULES:
        try:
            versions[name] = version_of(importlib.import_module(name))
        except (ImportError, OSError, RuntimeError) as error:  # a library of theirs may be missing
            versions[name] = None
            reasons[name] = " ".join(str(error).split())
    if versions["tensorrt"] or versions["tensorrt_rtx"]:  # one of them is enough
        reasons.pop("tensorrt", None)
    reasons.pop("tensorrt_rtx", None)
    absent = ["%s: %s" % (name, reasons[name]) for name in MODULES if name in reasons]
    versions["cuda_of_pycuda"] = cuda_of_pycuda()
    nvcc = shutil.which("nvcc") or launcher.USUAL_NVCC
    versions["nvcc"] = matched(output_of([nvcc, "--version"]), r"release .*")
    if versions["nvcc"] is None:
        absent.append("nvcc: %s does not say its version" % nvcc)
    driver = read("/proc/driver/nvidia/version") or ""
    machine = {
        "architecture": platform.machine(), "system": platform.platform(),
        "cores": os.cpu_count(), "driver": matched(driver, r"Kernel Module.*?(?=  )"),
        "model": (read("/proc/device-tree/model") or "").strip("\0\n") or None,
        "l4t": matched(read("/etc/nv_tegra_release") or "", r"R.*?REVISION: [0-9.]+"),
        "power_mode": matched(output_of(["nvpmodel", "-q"]), r"NV Power Mode.*"),
    }
    with open(arguments[0], "w", encoding="utf-8") as stream:
        json.dump({"versions": versions, "machine": machine, "absent": absent}, stream)
    return 0


def version_of(module) -> str:
    """A module's version, as it says it."""
    if module.__name__ == "pycuda":
        return module.VERSION_TEXT
    return str(getattr(module, "__version__", "unknown"))


def cuda_of_pycuda():
    """Which CUDA PyCUDA was built for; None where it cannot be imported."""
    try:
        import pycuda.driver as driver
    except (ImportError, OSError):
        return None
    return "%d.%d.%d" % driver.get_version()


def read(path):
    """A file's text, or None."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return None


def output_of(command) -> str:
    """What a program prints; "" where it cannot be run."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, universal_newlines=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def matched(text: str, pattern: str):
    """What of a text fits a pattern, or None."""
    found = re.search(pattern, text)
    return " ".join(found.group(0).split()) if found else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
