"""Shell scripts and the Dockerfile, read by shellcheck and hadolint."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "Dockerfile.l4t"
FOLDERS = (".ci", "jetson_cluster", "systemd", "tests", "tools")


def shell_scripts():
    """Every file of the checkout that a shell runs or reads."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if not path.is_file() or path.suffix == ".pyc":
                continue
            with path.open("rb") as stream:
                first = stream.readline(80)
            if path.suffix == ".sh" or re.match(rb"#!.*\b(ba|da)?sh\b", first):
                yield path


SCRIPTS = list(shell_scripts())


def linter(name):
    """The path of a linter, beside this Python or on PATH; skips where there is none."""
    places = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    path = shutil.which(name, path=places)
    if path is None:
        pytest.skip("no {} here: pip install -r tests/lint-requirements.txt".format(name))
    return path


def complaints(command):
    """Exit status and everything a linter said."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          universal_newlines=True, cwd=str(ROOT))
    return done.returncode, done.stdout


def test_the_scripts_are_found():
    names = {path.relative_to(ROOT).as_posix() for path in SCRIPTS}
    assert {".ci/run", "tools/install-on-jetson", "tools/lib/jetson/checks.sh"} <= names


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_shellcheck_has_nothing_to_say(path):
    assert complaints([linter("shellcheck"), "--external-sources", str(path)]) == (0, "")


def test_hadolint_has_nothing_to_say():
    assert complaints([linter("hadolint"), "--failure-threshold", "style", str(DOCKERFILE)]) == (
        0, "")


def test_shellcheck_sees_a_mistake(tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/bin/bash\nrm -r $1/*\n")
    status, text = complaints([linter("shellcheck"), str(script)])
    assert status == 1 and "SC2086" in text


@pytest.mark.parametrize("line, rule", [
    ("RUN cd /tmp && ls", "DL3003"), ("USER root", "DL3002"), ("RUN [ $x = 1 ]", "SC2086")])
def test_hadolint_sees_a_mistake(tmp_path, line, rule):
    copy = tmp_path / "Dockerfile"
    copy.write_text(DOCKERFILE.read_text() + line + "\n")
    status, text = complaints([linter("hadolint"), "--failure-threshold", "style", str(copy)])
    assert status == 1 and rule in text
