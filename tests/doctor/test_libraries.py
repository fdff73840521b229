"""What the doctor says of Python and the libraries: real imports, in processes of their own."""

import functools
import sys
import tempfile

import pytest

from jetson_cluster import doctor
from jetson_cluster.doctor import libraries as probes
from jetson_cluster.doctor import machine

KILLED = "import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n"
numpy = functools.partial(probes.package, "numpy")
onnxruntime = functools.partial(probes.runtime, "onnxruntime")
openvino = functools.partial(probes.runtime, "openvino")


def test_what_is_installed_here_is_found_with_its_version(computer, config):
    import numpy as installed

    case = computer.case(config)
    assert numpy(case) == ("ok", installed.__version__, "", "", "", "")
    assert probes.python(case).found.startswith("%d.%d." % sys.version_info[:2])
    for module in ("PIL", "yaml", "watchdog"):
        assert probes.package(module, case).level == "ok"
    assert onnxruntime(case).level == "ok"


def test_a_library_that_is_missing_is_bad_with_the_command_that_brings_it(computer, config):
    computer.without("yaml")
    finding = probes.package("yaml", computer.case(config))
    assert (finding.level, finding.fault) == ("bad", "world")
    assert "no yaml here" in finding.found
    assert finding.mend == "%s -m pip install 'PyYAML>=6.0.1'" % sys.executable


def test_of_a_python_that_may_not_be_started_only_it_is_bad(computer, config, monkeypatch):
    monkeypatch.setattr(machine.sys, "executable", str(computer.root / "no-python"))
    found = doctor.examine(computer.case(config))
    rows = {row.name: row.finding for row in found.rows}
    assert "cannot be started: No such file" in rows["python"].found
    assert rows["python"].level == "bad"
    for name in ("numpy", "Pillow", "PyYAML", "watchdog", "locale", "ONNX Runtime", "OpenVINO",
                 "TensorRT", "PyCUDA", "embedder"):
        assert rows[name][:2] == ("skip", "cannot be told without python")
    assert not found.could_start and found.runtimes == []
    assert [name for name in rows if "pip install" in rows[name].mend] == []


MAKES = """
import os, pathlib
for place in (pathlib.Path.home() / "made", pathlib.Path(os.environ["XDG_CACHE_HOME"]) / "made"):
    os.makedirs(str(place), exist_ok=True)
__version__ = "9.9"
"""


def test_what_a_library_makes_when_it_is_imported_is_made_elsewhere(computer, config, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    computer.environment.update(HOME=str(home), XDG_CACHE_HOME=str(home / "cache"))
    computer.library("openvino", MAKES)
    assert openvino(computer.case(config)).found.startswith("9.9")
    assert list(home.iterdir()) == []
    assert [place.name for place in computer.libraries.iterdir()] == ["openvino.py"]


def test_without_a_folder_for_such_things_libraries_are_still_found(
        computer, config, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert numpy(computer.case(config)).level == "ok"


def test_a_users_own_libraries_are_still_found(computer, config, tmp_path, monkeypatch):
    monkeypatch.setattr(machine.site, "getuserbase", lambda: str(tmp_path))
    computer.library("openvino", "import os\n__version__ = os.environ['PYTHONUSERBASE']\n")
    assert computer.case(config).facts("openvino") == {"version": str(tmp_path)}


def test_a_library_older_than_it_was_tested_with_is_told(computer, config):
    computer.library("numpy", "__version__ = '1.16.6rc1'")
    finding = numpy(computer.case(config))
    assert finding.level == "warn" and finding.found == "1.16.6rc1" and "1.19.5" in finding.needed


def test_numpy_that_kills_the_process_is_survived_and_mended_by_the_variable(computer, config):
    computer.library("numpy", KILLED)
    computer.architecture = "aarch64"
    case = computer.case(config)
    finding = numpy(case)
    assert finding.level == "bad" and "signal 4 (Illegal instruction)" in finding.found
    assert finding.mend == "export OPENBLAS_CORETYPE=ARMV8"
    assert not case.numpy_works
    assert probes.openblas(case).level == "bad"


def test_a_library_that_never_comes_back_is_told(computer, config, monkeypatch):
    monkeypatch.setattr(machine, "LIMIT_S", 0.3)
    computer.library("watchdog", "import threading\nthreading.Event().wait(60)")
    finding = probes.package("watchdog", computer.case(config))
    assert finding.level == "bad" and "no answer within 0.3 s" in finding.found


def test_a_library_that_ends_the_process_is_told_in_its_own_words(computer, config):
    computer.library("yaml", "import sys\nsys.exit('yaml: out of order')")
    assert "code 1 on it: yaml: out of order" in probes.package("yaml", computer.case(config)).found


@pytest.mark.parametrize("architecture, version, value, level", [
    ("aarch64", "1.19.5", "ARMV8", "ok"), ("aarch64", "1.19.5", None, "warn"),
    ("aarch64", "1.26.4", None, "ok"), ("x86_64", "1.19.5", None, "ok"),
    ("x86_64", "2.1.0", "ARMV8", "warn")])
def test_openblas_wants_its_variable_on_arm_with_an_old_numpy_and_nowhere_else(
        computer, config, architecture, version, value, level):
    computer.architecture = architecture
    computer.library("numpy", "__version__ = %r" % version)
    if value:
        computer.environment["OPENBLAS_CORETYPE"] = value
    finding = probes.openblas(computer.case(config))
    assert finding.level == level
    assert bool(finding.mend) == (level == "warn")


def test_a_variable_that_the_service_does_not_have_is_told(computer, config):
    computer.architecture = "aarch64"
    computer.library("numpy", "__version__ = '1.19.5'")
    computer.environment["OPENBLAS_CORETYPE"] = "ARMV8"
    computer.file("/etc/systemd/system/jetson-cluster.service",
                  "[Service]\nUser=rover\nExecStart=/x run --config %s\n" % config)
    finding = probes.openblas(computer.case(config))
    assert finding.level == "bad" and "/etc/default/jetson-cluster" in finding.mend
    computer.file("/etc/default/jetson-cluster", "# why\nOPENBLAS_CORETYPE=ARMV8\n")
    assert probes.openblas(computer.case(config)).level == "ok"


@pytest.mark.parametrize("embedder, level", [
    ("onnxruntime", "bad"), ("auto", "skip"), ("cpu", "skip"), ("openvino", "skip")])
def test_a_missing_runtime_is_as_bad_as_the_config_makes_it(computer, config, embedder, level):
    computer.without("onnxruntime")
    finding = onnxruntime(computer.case(config, "embedder=" + embedder))
    assert finding.level == level and finding.stops == "onnxruntime"


def test_openvino_in_float32_is_openvinos_as_well(computer, config):
    computer.without("openvino")
    finding = openvino(computer.case(config, "embedder=openvino-float32"))
    assert finding.level == "bad" and finding.mend.endswith("install 'openvino>=2024.1'")


def test_a_jetson_with_a_closed_virtual_environment_is_told(computer, config):
    computer.nano()
    case = computer.case(config)
    if not case.facts("python")["virtual"]:
        pytest.skip("this Python is in no virtual environment")
    finding = probes.python(case)
    assert case.facts("python")["closed"] == (finding.level == "warn")
    assert ("--system-site-packages" in finding.mend) == (finding.level == "warn")


def test_sqlite_is_tried_and_where_it_cannot_be_that_is_said(computer, config, monkeypatch):
    case = computer.case(config)
    assert "write-ahead log works" in probes.sqlite(case).found

    def nowhere(**_):
        raise FileNotFoundError("No usable temporary directory")
    monkeypatch.setattr(probes.tempfile, "TemporaryDirectory", nowhere)
    finding = probes.sqlite(case)
    assert finding.level == "ok" and "not tried" in finding.found


def test_a_language_without_utf8_is_told(computer, config):
    assert probes.locale(computer.case(config)) == ("ok", "utf-8", "", "", "", "")
    computer.environment.update(LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    finding = probes.locale(computer.case(config))
    assert finding.level == "warn" and "LANG=C.UTF-8" in finding.mend


@pytest.mark.parametrize("version, parts", [
    ("1.19.5", (1, 19, 5)), ("2.0.0rc1", (2, 0, 0)), ("2024.1.0-15008", (2024, 1, 0)),
    ("1.x", (1,)), ("", ())])
def test_a_version_is_compared_by_its_numbers(version, parts):
    assert probes.numbers(version) == parts
