"""What stands in the log: one line a message, whatever a file is called; a traceback as it is."""

import logging
import os
import subprocess
import sys
import warnings

import pytest

from jetson_cluster import logs

FORGED = "/inbox/ev\n<3>CatalogDamaged: x.jpg"


@pytest.fixture(params=["journal", "terminal"])
def said(request, capsys, monkeypatch):
    """What is said while something is done, line by line, in the journal's form and a terminal's."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    if request.param == "journal":
        monkeypatch.setenv("JOURNAL_STREAM", "8:1")

    def lines(message, *words, **more):
        logs.start(False)
        logging.getLogger("x").warning(message, *words, **more)
        return capsys.readouterr().err.splitlines()

    yield lines
    logging.captureWarnings(False)


def test_no_name_begins_a_line_of_its_own(said):
    line, = said("FileRefused: %s: it is not JPEG", FORGED)
    assert line.endswith("FileRefused: /inbox/ev\\x0a<3>CatalogDamaged: x.jpg: it is not JPEG")


@pytest.mark.parametrize("name, shown", [
    ("\x1b[31mred", "\\x1b[31mred"), ("a\r\x85b\u2028c", "a\\x0d\\x85b\\u2028c"),
    (os.fsdecode(b"caf\xe9"), "caf\\xe9"), ("naïve Mars", "naïve Mars")])
def test_what_is_no_printable_character_stands_as_its_number(said, name, shown):
    line, = said("NotDeleted: %s", name)
    assert line.endswith("NotDeleted: " + shown)


def test_a_traceback_keeps_its_lines(said):
    try:
        raise ValueError("why")
    except ValueError as error:
        first, second, *_, last = said("TurnFailed: %s", FORGED, exc_info=error)
    assert "TurnFailed: /inbox/ev\\x0a" in first and "Traceback (most recent" in second
    assert last.endswith("ValueError: why")


def test_a_warning_of_pythons_is_one_line(capsys):
    logs.start(False)
    logging.captureWarnings(False)  # pytest's own
    logging.getLogger("py.warnings").warning(
        "%s", warnings.formatwarning("odd tag", UserWarning, "frame.py", 7, "image.load()"))
    line, = capsys.readouterr().err.splitlines()
    assert line.endswith("frame.py:7: UserWarning: odd tag image.load()")


def test_an_error_that_names_such_a_file_is_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "jetson_cluster", "status", "--config", "a\nb.yaml"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 2
    line, = done.stderr.decode().splitlines()
    assert line.startswith("jetson-cluster: error: config a\\x0ab.yaml: ")
