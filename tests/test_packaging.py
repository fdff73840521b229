"""The package as pip sees it: built, installed on this Python, giving the command it promises."""

import os
import pathlib
import re
import subprocess
import sys
import zipfile

import pytest

buildapi = pytest.importorskip("flit_core.buildapi")

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = (
    "import sys; from flit_core import buildapi; print(getattr(buildapi, sys.argv[1])(sys.argv[2]))"
)


def run(command, **options):
    """Runs a command that must succeed; returns its stdout."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind, folder):
    """Builds the sdist or the wheel of the checkout into a folder; returns its path."""
    name = run([sys.executable, "-c", BUILD, "build_" + kind, str(folder)], cwd=str(ROOT))
    return folder / name.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the checkout, opened."""
    with zipfile.ZipFile(str(build("wheel", tmp_path_factory.mktemp("wheel")))) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel):
    """The wheel's METADATA, as text."""
    name, = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return wheel.read(name).decode("utf-8")


def required(metadata, extra=None):
    """The lower bound of every library required, with an extra or without: name → version."""
    bounds = {}
    for line in re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE):
        marker = re.search(r"extra == ['\"](\w+)['\"]", line)
        if (marker.group(1) if marker else None) == extra:
            name, bound = re.match(r"([\w.-]+) *\(?>=([\d.]+)", line).groups()
            bounds[name.lower()] = tuple(int(part) for part in bound.split("."))
    return bounds


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel):
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "jetson_cluster").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == package


def test_the_wheel_admits_python_36_and_carries_the_version(metadata):
    version = re.search(r'__version__ = "(.+)"', (ROOT / "jetson_cluster/__init__.py").read_text())
    assert "\nName: jetson-cluster\n" in metadata
    assert "\nVersion: {}\n".format(version.group(1)) in metadata
    assert "\nRequires-Python: >=3.6\n" in metadata


def test_the_extras_are_those_the_readme_names(metadata):
    extras = re.findall(r"^Provides-Extra: (\w+)$", metadata, re.MULTILINE)
    assert sorted(extras) == ["cpu", "ground", "jetson", "test"]


def test_tensorrt_and_pycuda_are_never_forced_on_a_computer(metadata):
    assert set(required(metadata)) == {"numpy", "pillow", "pyyaml", "watchdog"}
    assert "tensorrt" not in metadata.split("\n\n")[0].lower()


def test_the_rovers_pinned_versions_are_enough_for_flight(metadata):
    pins = dict(
        line.lower().split("==")
        for line in (ROOT / "tests" / "rover-requirements.txt").read_text().split()
        if "==" in line
    )
    needed = dict(required(metadata), **required(metadata, extra="test"))
    # Installed with Python 3.9 and newer only, by their markers.
    for name in sorted(set(needed) - {"vermin"}):
        assert tuple(int(part) for part in pins[name].split(".")) >= needed[name], name


def test_an_sdist_installs_and_gives_the_command(tmp_path):
    sdist = build("sdist", tmp_path)
    target = tmp_path / "installed"
    # No index and no isolation: what is built is what is here, and the network is not asked.
    run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
         "--no-build-isolation", "--disable-pip-version-check", "--target", str(target),
         str(sdist)],
        cwd=str(tmp_path),
    )
    environment = dict(os.environ, PYTHONPATH=str(target))
    command = str(target / "bin" / "jetson-cluster")
    ran = run([command, "--help"], cwd=str(tmp_path), env=environment)
    assert ran.startswith("usage: jetson-cluster")
    module = run(
        [sys.executable, "-m", "jetson_cluster", "--help"], cwd=str(tmp_path), env=environment
    )
    assert module.startswith("usage: jetson-cluster")
    origin = run(
        [sys.executable, "-c", "import jetson_cluster; print(jetson_cluster.__file__)"],
        cwd=str(tmp_path), env=environment,
    )
    assert str(target) in origin
