"""Which Python the tools choose, and when an environment is made anew."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "lib"))

import venvs  # noqa: E402  (found through the line above)


def pythons(*minors, without_venv=()):
    """Pythons 3.N as find_pythons returns them."""
    return {
        (3, minor): venvs.Python((3, minor), "/python3.{}".format(minor), minor not in without_venv)
        for minor in minors
    }


@pytest.fixture
def here():
    """The Python these tests run on."""
    return venvs.Python(sys.version_info[:2], sys.executable, True)


def test_the_running_python_is_found():
    found = venvs.find_pythons()
    assert sys.version_info[:2] in found
    done = subprocess.run(
        [found[sys.version_info[:2]].path, "-c", "import sys; print(sys.version_info[1])"],
        stdout=subprocess.PIPE, universal_newlines=True, check=True,
    )
    assert int(done.stdout) == sys.version_info[1]


def test_what_does_not_run_is_no_python(tmp_path, monkeypatch):
    shim = tmp_path / "python3.99"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (3, 99) not in venvs.find_pythons()


@pytest.mark.parametrize(
    "minors, chosen", [((6, 11, 13), 11), ((6, 10, 12), 12), ((9, 10), 10), ((13,), 13)]
)
def test_ground_work_takes_311_or_the_nearest(minors, chosen):
    assert venvs.ground_python(pythons(*minors)).version == (3, chosen)


def test_a_python_that_can_make_environments_is_preferred():
    assert venvs.ground_python(pythons(11, 12, without_venv=(11,))).version == (3, 12)
    assert venvs.ground_python(pythons(11, without_venv=(11,))).version == (3, 11)


def test_without_a_python_for_ground_work_the_message_says_what_to_install():
    with pytest.raises(venvs.SetupError, match="apt-get install python3"):
        venvs.ground_python(pythons(6, 9))


def test_an_environment_made_from_the_same_things_is_kept(here):
    installs = [venvs.Install(["-r", "tests/rover-requirements.txt"])]
    assert venvs.fingerprint(here, installs) == venvs.fingerprint(here, installs)


def test_other_packages_or_another_python_make_it_anew(here):
    old = venvs.fingerprint(here, [venvs.Install(["numpy"])])
    assert venvs.fingerprint(here, [venvs.Install(["numpy", "pillow"])]) != old
    assert venvs.fingerprint(here, [venvs.Install(["numpy"], instead=["pillow"])]) != old
    assert venvs.fingerprint(here._replace(path="/elsewhere"), [venvs.Install(["numpy"])]) != old


def test_a_changed_requirement_file_makes_it_anew(here, tmp_path):
    wanted = tmp_path / "requirements.txt"
    installs = [venvs.Install(["-r", str(wanted)])]
    wanted.write_text("numpy")
    old = venvs.fingerprint(here, installs)
    wanted.write_text("numpy <2")
    assert venvs.fingerprint(here, installs) != old
