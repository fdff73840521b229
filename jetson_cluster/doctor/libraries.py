"""Python and the libraries: which are here, whether they load, and what numpy's OpenBLAS wants.

In: a Case. Out: one finding a probe. Every library is tried in a process of its own: on a Nano the
mere import of numpy 1.19.5 can end the one that does it.
"""

import functools
import os
import sqlite3
import tempfile
from typing import Tuple

from jetson_cluster.doctor.case import AUTO, CPU, Case, with_python
from jetson_cluster.doctor.findings import WORLD, Finding, bad, ok, warn

# The rover's: the last releases for Python 3.6, and what everything was tested with at the low end.
LEAST = {"numpy": "1.19.5", "PIL": "8.4.0", "yaml": "6.0.1", "watchdog": "2.3.1",
         "onnxruntime": "1.10.0", "openvino": "2024.1"}
PACKAGES = {"PIL": "Pillow", "yaml": "PyYAML"}  # whose module is named otherwise
LEAST_PYTHON = (3, 6)
LEAST_SQLITE = (3, 22, 0)
# OpenBLAS in the wheels of 1.19.5 for aarch64 takes a Nano's processor for another one.
TROUBLED_BEFORE = (1, 20)
CORETYPE, ARMV8 = "OPENBLAS_CORETYPE", "ARMV8"
SERVICE_ENVIRONMENT = "/etc/default/jetson-cluster"


def python(case: Case) -> Finding:
    facts = case.facts("python")
    if "error" in facts:
        return bad(WORLD, str(facts["error"]), "a Python that starts")
    found = "%s in %s%s" % (facts["version"], facts["prefix"], "" if not facts["virtual"] else
                            ", a virtual environment" + (
                                "" if not facts["closed"] else " without the system's packages"))
    if numbers(str(facts["version"])) < LEAST_PYTHON:
        return bad(WORLD, found, "3.6 or newer")
    if case.jetson and facts["closed"]:
        return warn(found, "the system's packages: JetPack's TensorRT is one of them, pip has none",
                    "python3 -m venv --system-site-packages %s" % facts["prefix"])
    return ok(found)


@with_python
def package(module: str, case: Case) -> Finding:
    """A library that the daemon cannot do without."""
    facts, least = case.facts(module), LEAST[module]
    name = PACKAGES.get(module, module)
    install = "%s install '%s>=%s'" % (case.pip, name, least)
    if "error" in facts:
        if module == "numpy" and "Illegal instruction" in str(facts["error"]):
            install = "export %s=%s" % (CORETYPE, ARMV8)
        return bad(WORLD, _absence(facts), "%s or newer" % least, install)
    if numbers(str(facts["version"])) < numbers(least):
        return warn(str(facts["version"]), "%s, the oldest it was tested with" % least, install)
    return ok(str(facts["version"]))


@with_python
def runtime(module: str, case: Case) -> Finding:
    """A library that runs the network on the processor."""
    facts, least = case.facts(module), LEAST[module]
    wanted = case.embedder in (AUTO, CPU) or case.embedder.split("-")[0] == module
    install = "%s install '%s>=%s'" % (case.pip, module, least)
    if "error" in facts:
        return case.lacking(module, _absence(facts), "%s or newer" % least, install)
    if wanted and numbers(str(facts["version"])) < numbers(least):
        return warn(str(facts["version"]), "%s, the oldest it was tested with" % least, install)
    return ok(str(facts["version"]).split("-")[0] + (
        "" if wanted else "; embedder: %s does not use it" % case.embedder))


def _absence(facts) -> str:
    return "not installed" if facts.get("absent") else str(facts["error"])


def openblas(case: Case) -> Finding:
    """The variable that decides whether numpy lives on a Nano, here and in the service."""
    value = case.machine.environment.get(CORETYPE)
    numpy = case.facts("numpy")
    version = str(numpy.get("version", ""))
    if case.machine.architecture != "aarch64":
        if value:
            return warn("%s=%s on %s" % (CORETYPE, value, case.machine.architecture),
                        "not set: here it makes OpenBLAS take its slowest code",
                        "unset %s" % CORETYPE)
        return ok("%s is not set, as is right on %s" % (CORETYPE, case.machine.architecture))
    if version and numbers(version) >= TROUBLED_BEFORE:
        return ok("numpy %s does not need %s" % (version, CORETYPE))
    setting = "%s=%s" % (CORETYPE, ARMV8)
    if not value:
        if "error" in numpy:
            return bad(WORLD, "%s is not set, and numpy does not load" % CORETYPE, setting,
                       "export " + setting)
        return warn("%s is not set" % CORETYPE, "%s: on a Nano numpy %s dies without it" % (
            setting, version), "export " + setting)
    if case.serves and setting not in (case.machine.text(SERVICE_ENVIRONMENT) or "").split():
        return bad(WORLD, "%s=%s here, but %s does not set it for the service" % (
            CORETYPE, value, SERVICE_ENVIRONMENT), setting + " in that file",
            "echo %s | sudo tee -a %s" % (setting, SERVICE_ENVIRONMENT))
    return ok("%s=%s" % (CORETYPE, value))


def sqlite(case: Case) -> Finding:
    """Its version, and whether its write-ahead log works, tried in a temporary folder."""
    found = sqlite3.sqlite_version
    try:
        with tempfile.TemporaryDirectory(prefix="jetson-cluster-") as folder:
            database = sqlite3.connect(os.path.join(folder, "try.sqlite"))
            try:
                mode = database.execute("PRAGMA journal_mode = WAL").fetchone()[0]
                database.execute("CREATE TABLE tried (thing)")
            finally:
                database.close()
    except OSError as error:
        found += "; its write-ahead log was not tried, there is no folder to write to (%s)" % error
    else:
        if mode != "wal":
            return bad(WORLD, "%s keeps a journal of kind '%s'" % (found, mode),
                       "a SQLite with write-ahead log (WAL)")
        found += ", write-ahead log works"
    if sqlite3.sqlite_version_info < LEAST_SQLITE:
        return warn(found, "3.22, the oldest it was tested with")
    return ok(found)


@with_python
def locale(case: Case) -> Finding:
    encoding = str(case.facts("python").get("encoding", "unknown"))
    if encoding.lower().replace("-", "") != "utf8":
        return warn("Python takes names of files for %s" % encoding,
                    "utf-8; other names are shown with their bytes as \\xNN",
                    "export LANG=C.UTF-8   # the service has it already")
    return ok(encoding)


def numbers(version: str) -> Tuple[int, ...]:
    """"1.19.5rc1" -> (1, 19, 5): the leading number of each part, for comparison."""
    parts = []
    for part in version.split("."):
        digits = part[:len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        parts.append(int(digits))
    return tuple(parts)


PROBES = (
    ("python", python), ("numpy", functools.partial(package, "numpy")), ("openblas", openblas),
    ("Pillow", functools.partial(package, "PIL")), ("PyYAML", functools.partial(package, "yaml")),
    ("watchdog", functools.partial(package, "watchdog")), ("SQLite", sqlite), ("locale", locale),
    ("ONNX Runtime", functools.partial(runtime, "onnxruntime")),
    ("OpenVINO", functools.partial(runtime, "openvino")))
