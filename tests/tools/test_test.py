"""How tools/test adds up its runs, and when it says no."""

import importlib.machinery
import importlib.util
import pathlib
import subprocess
import sys

import pytest

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "tools" / "test"


@pytest.fixture(scope="module")
def tool():
    """tools/test as a module."""
    loader = importlib.machinery.SourceFileLoader("tools_test", str(PROGRAM))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("tools_test", loader))
    loader.exec_module(module)
    return module


@pytest.fixture
def finished(tool):
    """A session in which one test passed."""
    session = tool.Session(quick=False, arguments=[])
    session.passed = 1
    return session


def test_every_kind_of_outcome_is_counted_once(tool, tmp_path):
    (tmp_path / "test_sample.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_also_good(): pass\n"
        "def test_bad(): assert False\n"
        "def test_left_out(): pytest.skip('not here')\n"
        "@pytest.fixture\n"
        "def broken(): raise ValueError\n"
        "def test_without_its_fixture(broken): pass\n"
    )
    report = tmp_path / "report.xml"
    subprocess.call(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null",
         "--rootdir", str(tmp_path), "--junitxml", str(report), str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    assert tool.counts(str(report)) == (2, 2, 1)


def test_tests_that_passed_and_nothing_else_is_success(finished):
    assert finished.exit_status(strict=True) == 0


def test_no_test_at_all_is_no_success(tool):
    assert tool.Session(quick=False, arguments=[]).exit_status(strict=False) == 1


def test_one_failure_outweighs_every_pass(finished):
    finished.failed = 1
    assert finished.exit_status(strict=False) == 1


def test_an_environment_that_cannot_be_made_is_a_failure(finished):
    finished.broke("no environment")
    assert finished.exit_status(strict=False) == 1


@pytest.mark.parametrize("words", [["--help"], ["--quick", "-h"]])
def test_help_is_its_own_and_makes_nothing(tool, monkeypatch, capsys, words):
    monkeypatch.setattr(tool.os, "makedirs", lambda *_, **__: pytest.fail("makes folders"))
    assert tool.main(words) == 0
    assert capsys.readouterr().out.strip() == tool.__doc__.strip()


def test_help_to_a_reader_that_is_gone_says_nothing():
    done = subprocess.run("(sleep 0.1; %s %s --help) | true" % (sys.executable, PROGRAM),
                          shell=True, stderr=subprocess.PIPE)
    assert done.stderr == b""


@pytest.mark.parametrize("soak", [True, False])
def test_a_soak_is_the_fault_tests_at_full_length_and_no_other_run(tool, monkeypatch, soak):
    calls = []
    monkeypatch.setattr(tool, "test_environment", lambda python: {})
    monkeypatch.setattr(tool.subprocess, "call",
                        lambda command, env, **_: calls.append((command, env)) or 2)
    session = tool.Session(quick=False, arguments=["-k", "kill"], soak=soak)
    session.run_tests("main", "python", tool.selection(session))
    (command, env), = calls
    assert ("tests/faults" in command) is soak and command[-2:] == ["-k", "kill"]
    assert env.get("JETSON_CLUSTER_SOAK") == ("1" if soak else None)
    assert session.quick is soak


def test_without_python_36_the_run_says_so_and_ci_fails(tool, finished, capsys):
    tool.run_rover(finished, pythons={})
    assert "LACKING: no Python 3.6" in capsys.readouterr().out
    assert (finished.exit_status(strict=False), finished.exit_status(strict=True)) == (0, 1)
