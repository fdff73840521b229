"""What is installed on a Jetson is what was tested: one version of each package everywhere."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tools" / "lib" / "jetson"
PINNED = r"^([A-Za-z][\w.-]*)==([\d.]+)$"


def pins(*names):
    """Package (lower case, "-" for "_") → version, of requirement files that pin every line."""
    found = {}
    for name in names:
        for line in (FOLDER / name).read_text().splitlines():
            if line and not line.startswith("#"):
                package, version = re.match(PINNED, line).groups()
                assert normal(package) not in found, package
                found[normal(package)] = version
    return found


def normal(package):
    return package.lower().replace("_", "-")


def mentioned(path):
    """Package → version for every `package==version` in any file."""
    return {normal(package): version for package, version in re.findall(
        r"\b([A-Za-z][\w.-]*?) ?==([\d.]+)\b", (ROOT / path).read_text())}


def number(version):
    return tuple(int(part) for part in version.split("."))


JETPACK_4 = pins("python3.6.txt", "python3.6-cuda.txt")
JETPACK_6 = pins("python3.10.txt", "python3.10-cuda.txt")


@pytest.mark.parametrize("elsewhere, shared", [
    ("tests/rover-requirements.txt", {"numpy", "pillow", "pyyaml", "watchdog", "onnxruntime",
                                      "protobuf", "flatbuffers", "flit-core"}),
    ("tests/cuda/rover_pycuda.py", {"pycuda", "pytools", "numpy", "setuptools", "mako"}),
    ("tools/lib/venvs.py", {"pip"}),
])
def test_the_rover_gets_the_versions_that_the_tests_run_with(elsewhere, shared):
    tested = mentioned(elsewhere)
    both = set(tested) & set(JETPACK_4)
    assert shared <= both
    assert {name: JETPACK_4[name] for name in both} == {name: tested[name] for name in both}


@pytest.mark.parametrize("pinned", [JETPACK_4, JETPACK_6], ids=["JetPack 4", "JetPack 6"])
def test_both_rovers_get_what_the_package_asks_for(pinned):
    project = (ROOT / "pyproject.toml").read_text()
    bounds = dict(re.findall(r'"([\w-]+) >=([\d.]+)"', project.split("[project.optional")[0]))
    assert set(bounds) == {"numpy", "Pillow", "PyYAML", "watchdog"}
    bounds["pycuda"] = re.search(r'"pycuda >=([\d.]+)"', project).group(1)
    bounds["onnxruntime"] = re.search(r'"onnxruntime >=([\d.]+)"', project).group(1)
    for package, bound in bounds.items():
        assert number(pinned[normal(package)]) >= number(bound), package


def test_the_installer_pins_nothing_itself():
    for path in ("tools/install-on-jetson", "tools/lib/jetson/checks.sh"):
        assert mentioned(path) == {}


def test_what_a_package_needs_is_pinned_with_it():
    # From the packages' own metadata; pip installs with --no-deps, so nothing else would notice.
    needs = {"onnxruntime": {"numpy", "protobuf", "flatbuffers"}, "mako": {"markupsafe"},
             "pycuda": {"pytools", "mako", "numpy"}, "pytools": {"platformdirs"}}
    for pinned in (JETPACK_4, JETPACK_6):
        for package, needed in needs.items():
            assert package in pinned and needed <= set(pinned)
