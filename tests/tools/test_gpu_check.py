"""tools/gpu_check where there is no GPU, and the parts of it that need none.

tests/cuda/test_gpu_check.py runs all of it over a pretended GPU.
"""

import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tools" / "lib")]

import venvs  # noqa: E402  (found through the line above)
from gpu import cases, clusters, pythons, report, sanitizer, timing  # noqa: E402

from jetson_cluster import codebook  # noqa: E402

GPU = {"cuda_of_driver": "13.0", "driver_path": "/usr/lib/libcuda.so.580"}


def gpu_check(driver_folder):
    """(exit status, stdout, stderr) with what lies in a folder for NVIDIA's driver."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "gpu_check")], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
        env=dict(os.environ, LD_LIBRARY_PATH=str(driver_folder)))
    return done.returncode, done.stdout, done.stderr


def test_without_a_driver_one_line_says_what_was_looked_for(tmp_path):
    (tmp_path / "libcuda.so.1").write_text("not a library, so that it holds on any machine\n")
    status, printed, said = gpu_check(tmp_path)
    assert (status, printed) == (1, "")
    line, = said.splitlines()
    assert line.startswith("gpu_check: no GPU: NVIDIA's driver cannot be loaded (")
    assert "libcuda.so.1" in line and "/dev/nvidia" in line and "/dev/nvhost-gpu" in line


@pytest.mark.parametrize("count, initialised, words", [
    (0, 0, "NVIDIA's driver is here and knows no GPU"),
    (1, 100, "NVIDIA's driver is here, and cuInit fails: no device, it says (100)"),
])
def test_a_driver_without_a_gpu_is_quoted(tmp_path, count, initialised, words):
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here")
    (tmp_path / "driver.c").write_text(
        "int cuInit(unsigned flags) { return %d; }\n"
        "int cuDeviceGetCount(int *count) { *count = %d; return 0; }\n"
        "int cuGetErrorString(int error, const char **said)"
        "{ *said = \"no device, it says\"; return 0; }\n" % (initialised, count))
    subprocess.check_call(["gcc", "-shared", "-fPIC", "-o", str(tmp_path / "libcuda.so.1"),
                           str(tmp_path / "driver.c")])
    assert gpu_check(tmp_path) == (1, "", "gpu_check: no GPU: {}\n".format(words))


def question(rows=5, k=40, dimension=20, **more):
    """A question with an answer that is right: (Question, index, distance)."""
    generator = np.random.RandomState(rows)
    asked = cases.Question(
        "group", generator.randn(rows, dimension).astype(np.float32),
        codebook.normalise(generator.randn(k, dimension).astype(np.float32)), "float32", **more)
    truth = cases.true_distances(asked.embeddings, asked.centroids)
    index = truth.argsort(axis=1, kind="stable")[:, :4].astype(np.int32)
    return asked, index, np.take_along_axis(truth, index, axis=1).astype(np.float32)


def test_true_distances_are_those_of_the_differences():
    generator = np.random.RandomState(1)
    lengths = np.float32([1e30, 1e-30, 1, 1, 0, 3, 9])
    rows = generator.randn(7, 30).astype(np.float32) * lengths[:, None]
    unit = rows.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-300)
    held = generator.randn(9, 30).astype(np.float32)
    held[:3] = unit[2] + generator.randn(3, 30) * 1e-7  # a product would lose their digits
    differences = np.linalg.norm(unit[:, None] - held.astype(np.float64), axis=2)
    np.testing.assert_allclose(cases.true_distances(rows, held), differences, rtol=1e-9)


def test_a_right_answer_is_right():
    asked, index, distance = question()
    problem, used = cases.judge(asked, index, distance)
    assert problem == "" and 0 < used < 0.5


def test_every_question_has_an_answer_that_is_right():
    for asked in cases.questions(quick=True):
        rows = asked.embeddings.astype(np.float64)
        finite = np.isfinite(rows).all(axis=1)
        rows[~finite] = 0
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
        held = asked.centroids.astype(asked.stored).astype(np.float64)
        truth = np.stack([np.sqrt(((row - held) ** 2).sum(axis=1)) for row in rows])
        index = truth.argsort(axis=1, kind="stable")[:, :asked.neighbours]
        distance = np.take_along_axis(truth, index, axis=1)
        index[~finite], distance[~finite] = np.arange(index.shape[1]), np.nan
        if asked.rows is not None:
            index, distance = index[asked.rows], distance[asked.rows]
        problem, used = cases.judge(asked, index.astype(np.int32), distance.astype(np.float32))
        assert problem == "" and used < 0.5, asked.name


def spoil(index, distance, how):
    """Make a right answer wrong."""
    if how == "other":
        index[2, 0] = (index[2].max() + 1) % 40
    elif how == "swapped":
        index[1, [0, 1]] = index[1, [1, 0]]
    elif how == "far":
        distance[3, 2] *= np.float32(1.00001)
    elif how == "twice":
        index[0, 1] = index[0, 0]
    elif how == "none":
        index[4, 3] = -7
    elif how == "beyond":
        index[4, 3] = 40
    elif how == "nan":
        distance[0, 0] = np.nan


@pytest.mark.parametrize("how, words", [
    ("other", "row 2, place 0: centroid "), ("swapped", "row 1, place 0: centroid "),
    ("far", "row 3, place 2: distance "), ("twice", "the same centroid twice"),
    ("none", "an index that no centroid has"), ("beyond", "an index that no centroid has"),
    ("nan", "row 0, place 0: distance nan"),
])
def test_a_wrong_answer_is_found_and_its_place_named(how, words):
    asked, index, distance = question()
    spoil(index, distance, how)
    assert cases.judge(asked, index, distance)[0].startswith(words)


def test_of_equal_centroids_only_the_lowest_first_is_right():
    asked, _, _ = question(k=4)
    asked = asked._replace(centroids=asked.centroids[np.arange(8) % 4], ties=True)
    truth = cases.true_distances(asked.embeddings, asked.centroids)
    index = truth.argsort(axis=1, kind="stable")[:, :4].astype(np.int32)
    distance = np.take_along_axis(truth, index, axis=1).astype(np.float32)
    assert cases.judge(asked, index, distance)[0] == ""
    index[2, [0, 1]] = index[2, [1, 0]]
    assert cases.judge(asked, index, distance)[0].startswith("of equal centroids, a higher index")


def test_rows_that_are_the_same_must_get_the_same_bits():
    asked, index, distance = question()
    rows = np.arange(50) % 5
    asked = asked._replace(rows=rows)
    index, distance = index[rows], distance[rows]
    assert cases.judge(asked, index, distance)[0] == ""
    distance[31, 2] = np.nextafter(distance[31, 2], np.float32(9))
    assert cases.judge(asked, index, distance)[0] == "rows that are the same get different answers"


def test_a_row_that_is_not_finite_has_one_right_answer():
    asked, index, distance = question()
    asked.embeddings[1, 3] = np.inf
    assert "not finite" in cases.judge(asked, index, distance)[0]
    index[1], distance[1] = np.arange(4), np.nan
    assert cases.judge(asked, index, distance)[0] == ""


@pytest.mark.parametrize("quick, rows, k, dimension", [
    (True, 1000, 4096, 4096), (False, 65536, 4096, 4096)])
def test_the_questions_reach_the_largest_sizes(quick, rows, k, dimension):
    most = [0, 0, 0]
    for asked in cases.questions(quick):
        most = [max(pair) for pair in zip(
            most, (asked.count, len(asked.centroids), asked.embeddings.shape[1]))]
    assert most == [rows, k, dimension]


def test_what_is_timed_includes_the_sizes_the_goals_name():
    sizes = timing.sizes(quick=False)
    assert {(1, 128), (1, 512), (1, 4096), (4096, 512), (65536, 512)} <= {
        (size.rows, size.k) for size in sizes}
    assert {size.dimension for size in sizes} == {2048}


def test_runs_are_as_many_as_the_time_allows():
    asked = []

    def took(ms):
        def times(runs):
            asked.append(runs)
            return [ms] * runs
        return times
    assert timing.measured(took(0.001), quick=False)["runs"] == timing.MOST
    assert timing.measured(took(1e6), quick=False) == {
        "ms": 1e6, "ms_least": 1e6, "ms_most": 1e6, "runs": timing.FEWEST}
    assert asked == [timing.WARM_UPS, timing.MOST, timing.WARM_UPS, timing.FEWEST]


def test_the_codebook_made_here_is_one_that_flies(tmp_path):
    embeddings = np.abs(np.random.RandomState(2).randn(60, 33)).astype(np.float32)
    made = clusters.codebook_of(embeddings, "space")
    codebook.save(str(tmp_path / "codebook.npz"), made)
    assert codebook.load(str(tmp_path / "codebook.npz"), "space").identity == made.identity
    assert made.k == 10 and made.counts.sum() == 60
    found = made.nearest(embeddings, 1).index[:, 0]
    assert len(np.unique(found)) > 5
    alike = clusters.codebook_of(np.ones((12, 4), np.float32), "space")
    codebook.save(str(tmp_path / "alike.npz"), alike)
    assert codebook.load(str(tmp_path / "alike.npz")).k == 2


@pytest.mark.parametrize("status, output, words", [
    (0, "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n", "clean"),
    (0, "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n", "clean"),
    (sanitizer.FOUND, "========= COMPUTE-SANITIZER\n========= Invalid __global__ read of size 4\n"
     "=========     at few\n", "Invalid __global__ read of size 4; at few"),
    (1, "========= Error: Device not supported\n", "could not run (status 1): Error: Device not "
     "supported"),
    (0, "", "could not run (status 0): "),
])
def test_the_sanitizers_words_are_understood(status, output, words):
    assert sanitizer.verdict(status, output) == words


def test_packages_are_those_of_the_drivers_cuda():
    assert dict(pythons.extras(("kernels",), "12.2")) == {"pycuda": "pycuda.driver"}
    assert dict(pythons.extras(("speed", "network"), "13.0")) == {
        "pycuda": "pycuda.driver", "tensorrt-cu13": "tensorrt",
        "onnxconverter-common": "onnxconverter_common", "cupy-cuda13x[ctk]": "cupy"}


def test_the_toolkit_is_found_behind_a_link(tmp_path):
    (tmp_path / "cuda" / "bin").mkdir(parents=True)
    (tmp_path / "cuda" / "include").mkdir()
    (tmp_path / "cuda" / "include" / "cuda.h").write_text("")
    (tmp_path / "cuda" / "bin" / "nvcc").write_text("#!/bin/sh\n")
    (tmp_path / "cuda" / "bin" / "nvcc").chmod(0o755)
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "nvcc").symlink_to(tmp_path / "cuda" / "bin" / "nvcc")
    assert pythons.toolkit({"PATH": str(tmp_path / "path")}) == str(tmp_path / "cuda")


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No Python has PyCUDA."""
    monkeypatch.setattr(pythons, "has", lambda *_: False)
    monkeypatch.setattr(pythons, "L4T", str(tmp_path / "nv_tegra_release"))
    return tmp_path / "nv_tegra_release"


def test_on_a_jetson_without_pycuda_its_installer_is_named(nowhere):
    nowhere.write_text("# R32 (release), REVISION: 7.1\n")
    chosen = pythons.choose(("kernels",), GPU, dict(os.environ))
    assert chosen.python == sys.executable
    assert "tools/install-on-jetson" in chosen.absent[0]


def test_where_no_environment_can_be_made_this_python_goes_on_and_says_so(nowhere, monkeypatch):
    def fail(*_):
        raise venvs.SetupError("no way to the registry\nfailed: pip install")
    monkeypatch.setattr(venvs, "ready", fail)
    chosen = pythons.choose(("kernels",), GPU, dict(os.environ))
    assert chosen.python == sys.executable
    assert chosen.absent == [
        "no .venv-gpu: no way to the registry failed: pip install"]


def test_what_cannot_be_installed_is_said_package_by_package(nowhere, monkeypatch):
    monkeypatch.setattr(venvs, "find_pythons", lambda: {
        (3, 11): venvs.Python((3, 11), "/usr/bin/python3.11", True)})
    # This Python can run pip, and pip is told that there is nothing anywhere.
    monkeypatch.setattr(venvs, "ready", lambda *_: sys.executable)
    nothing = dict(os.environ, PIP_NO_INDEX="1", PIP_FIND_LINKS="", PIP_EXTRA_INDEX_URL="")
    chosen = pythons.choose(("speed",), GPU, nothing)
    assert len(chosen.absent) == 2
    for line, package in zip(chosen.absent, ("pycuda", "cupy-cuda13x[ctk]")):
        assert line.startswith(package + ": pip could not install it: ERROR: ")


def test_a_table_is_markdown():
    assert report.table(["a", "b"], [[1, "x"]]) == "| a | b |\n| --- | --- |\n| 1 | x |"
