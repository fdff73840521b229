"""What can only be found out by importing a library, told by a process made for that alone.

In: a name of FACTS, and words for it. Out: one line of JSON on standard output. An error
that an import raises is an answer ("error"); one that ends the process is seen by whoever started
it (machine.py).
"""

import importlib
import importlib.util
import json
import os
import platform
import sys
from typing import Callable, Dict

from jetson_cluster.checking import one_line

CFG = "pyvenv.cfg"


def python() -> Dict[str, object]:
    """The interpreter, what it takes file names for, and the SQLite in it."""
    import sqlite3

    config = os.path.join(sys.prefix, CFG)
    closed = False
    if os.path.isfile(config):
        with open(config, encoding="utf-8") as stream:
            words = [line.replace(" ", "").strip().lower() for line in stream]
        closed = "include-system-site-packages=false" in words
    return {"version": platform.python_version(), "executable": sys.executable,
            "prefix": sys.prefix, "virtual": sys.prefix != sys.base_prefix,
            "closed": closed,  # a virtual environment that does not see the system's packages
            "encoding": sys.getfilesystemencoding(), "sqlite": sqlite3.sqlite_version}


def library(name: str) -> Callable[[], Dict[str, object]]:
    """What tells the version of a library."""
    def facts() -> Dict[str, object]:
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError) as error:
            return {"error": one_line(error), "absent": importlib.util.find_spec(name) is None}
        if name == "watchdog":
            return {"version": importlib.import_module("watchdog.version").VERSION_STRING}
        return {"version": str(module.__version__)}
    return facts


def tensorrt() -> Dict[str, object]:
    """The TensorRT that the daemon would take."""
    from jetson_cluster.embedder import trt
    from jetson_cluster.errors import WorldError

    try:
        module = trt.find()
    except WorldError as error:
        return {"error": str(error),
                "absent": all(importlib.util.find_spec(name) is None for name in trt.MODULES)}
    converts = trt.precision_is_the_graphs(module)
    needed = ("onnx", "onnxconverter_common") if converts else ()
    return {"name": module.__name__, "version": module.__version__,
            "path": getattr(module, "__file__", None) or "",
            # What it lacks to build in float16.
            "lacks": [name for name in needed if importlib.util.find_spec(name) is None]}


def cuda() -> Dict[str, object]:
    """PyCUDA, the driver, the GPUs. No context is made: that costs memory the daemon may need."""
    try:
        import pycuda
        import pycuda.driver as driver
    except (ImportError, OSError) as error:  # also where libcuda.so.1 is missing
        return {"error": one_line(error), "absent": importlib.util.find_spec("pycuda") is None}
    facts = {"pycuda": pycuda.VERSION_TEXT, "built_for": list(driver.get_version()),
             "driver_error": "", "gpus": []}
    try:
        driver.init()
        facts["driver"] = driver.get_driver_version()  # 10020 is CUDA 10.2
        for number in range(driver.Device.count()):
            device = driver.Device(number)
            facts["gpus"].append({
                "name": device.name(), "capability": list(device.compute_capability()),
                "bytes": device.total_memory()})
    except driver.Error as error:
        facts["driver_error"] = one_line(error)
    return facts


def network(path: str) -> Dict[str, object]:
    """Whether a file can be read as ONNX, by the smaller library that is here."""
    lacks = []
    for read in (_by_onnx, _by_onnxruntime):
        try:
            return read(path)
        except ImportError as error:
            lacks.append(one_line(error))
    return {"error": "; ".join(lacks)}


def _by_onnx(path: str) -> Dict[str, object]:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        nodes = len(onnx.load(path, load_external_data=False).graph.node)
    except DecodeError as error:
        return {"wrong": one_line(error)}
    return {"by": "onnx"} if nodes else {"wrong": "there is no network in it"}


def _by_onnxruntime(path: str) -> Dict[str, object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # the answer says it
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no other base
        # Any other may be a lack of this library's, such as of an operator that TensorRT has.
        kind = "wrong" if type(error).__name__ == "InvalidProtobuf" else "error"
        return {kind: one_line(error)}
    return {"by": "onnxruntime"}


FACTS = {name: library(name) for name in (
    "numpy", "PIL", "yaml", "watchdog", "onnxruntime", "openvino")}
FACTS.update(python=python, tensorrt=tensorrt, cuda=cuda, network=network)


def main(name: str, *words: str) -> None:
    """Print what is to be known of `name`, one of FACTS."""
    print("\n" + json.dumps(FACTS[name](*words)))
