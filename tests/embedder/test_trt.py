"""Finding TensorRT, and listening to it."""

import importlib
import logging
import sys

import fake_jetson
import pytest

from jetson_cluster.embedder import trt
from jetson_cluster.errors import WorldError


@pytest.fixture
def nowhere(monkeypatch):
    """No TensorRT of any kind."""
    for name in trt.MODULES:
        monkeypatch.setitem(sys.modules, name, None)


def test_without_tensorrt_one_line_says_how_to_get_it(nowhere):
    with pytest.raises(WorldError) as caught:
        trt.find()
    text = str(caught.value)
    assert "\n" not in text
    for part in ("python3-libnvinfer", "--system-site-packages", "pip install tensorrt"):
        assert part in text


def test_a_folder_called_tensorrt_is_not_taken_for_it(monkeypatch, tmp_path):
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    importlib.invalidate_caches()
    with pytest.raises(WorldError, match="'tensorrt' is a folder here, not NVIDIA's"):
        trt.find()
    sys.modules.pop("tensorrt", None)


def test_a_tensorrt_that_is_too_old_is_refused_by_its_number(monkeypatch, tmp_path):
    """7.1 has no build_serialized_network."""
    (tmp_path / "tensorrt.py").write_text("__version__ = '7.1.3.0'\nclass Builder: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    importlib.invalidate_caches()
    with pytest.raises(WorldError, match="tensorrt 7.1.3.0 is too old, 8.2 is the least"):
        trt.find()
    sys.modules.pop("tensorrt", None)


def test_bindings_without_their_libraries_are_said_to_lack_them(monkeypatch, tmp_path):
    (tmp_path / "tensorrt.py").write_text(
        "raise ImportError('libnvinfer.so.8: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    importlib.invalidate_caches()
    with pytest.raises(WorldError, match="libnvinfer.so.8: cannot open"):
        trt.find()


def test_tensorrt_is_preferred_to_tensorrt_for_rtx():
    with fake_jetson.jetson("8.6.1.6", nvcc=False) as machine:
        assert trt.find() is machine.tensorrt


@pytest.fixture(params=fake_jetson.VERSIONS + ("RTX",))
def module(request):
    """Each TensorRT: the stand-ins, and NVIDIA's own for RTX where that is installed."""
    if request.param == "RTX":
        yield pytest.importorskip("tensorrt_rtx")
        return
    with fake_jetson.jetson(request.param, nvcc=False) as machine:
        yield machine.tensorrt


def test_only_errors_are_errors_in_our_log(module, caplog):
    caplog.set_level(logging.DEBUG)
    logger, severity = trt.make_logger(module), module.ILogger.Severity
    for level in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"):
        logger.log(getattr(severity, level), "a line\n  of level " + level)
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, "TensorRT: a line of level INTERNAL_ERROR"),
        (logging.ERROR, "TensorRT: a line of level ERROR"),
        (logging.DEBUG, "TensorRT: a line of level WARNING"),
        (logging.DEBUG, "TensorRT: a line of level INFO"),
        (logging.DEBUG, "TensorRT: a line of level VERBOSE")]


def test_the_last_errors_are_kept_or_else_the_last_warnings(module):
    logger, severity = trt.make_logger(module), module.ILogger.Severity
    assert logger.last_errors() == "TensorRT does not say why"
    logger.log(severity.WARNING, "little memory")
    logger.log(severity.INFO, "all is well")
    assert logger.last_errors() == "little memory"
    for number in range(trt.REMEMBERED + 1):
        logger.log(severity.ERROR, "error {}".format(number))
    assert logger.last_errors() == "error 1; error 2; error 3"


@pytest.mark.parametrize("raised", [KeyboardInterrupt, ValueError])
def test_nothing_is_raised_out_of_the_log_but_afterwards(module, raised):
    logger, severity = trt.make_logger(module), module.ILogger.Severity
    lines = []

    def fail():
        lines.append(1)
        raise raised("here")

    logger.on_line = fail
    for _ in range(3):
        logger.log(severity.INFO, "a line")
    assert lines == [1]
    with pytest.raises(raised, match="here"):
        logger.reraise()
    logger.reraise()
