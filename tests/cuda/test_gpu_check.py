"""tools/gpu_check, all of it, on a rover without a GPU: the real PyCUDA over the pretend driver.

The driver runs the kernels on the processor, TensorRT and CuPy are stand-ins. Shown is that the
check does its work, that its JSON is whole, and that it finds faults put in on purpose; no figure
means anything here.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FAKES = ROOT / "tests" / "fakes"
# What the pretend driver lacks of PyCUDA's functions is looked up when called, not at import.
LAZY = "import os, sys\nsys.setdlopenflags(os.RTLD_LAZY)\n"
TENSORRT = """
import sys
sys.path.append({!r})
import fake_tensorrt
import pycuda.driver
made = fake_tensorrt.make("8.2.1.8", pycuda.driver)
made.__spec__ = __spec__
sys.modules[__name__] = made
"""
NVCC = """#!/bin/sh
[ "$1" = --version ] && echo "Cuda compilation tools, release 11.8, V11.8.89" && exit 0
exec {} {} "$@"
"""
# The checker's words and ways, NVIDIA's; `{}` is what it does with the program it is given.
SANITIZER = """#!/bin/sh
[ "$1 $3" = "--tool --error-exitcode" ] || exit 9
tool=$2 found=$4
shift 4
echo "========= COMPUTE-SANITIZER"
{}
"""
CLEAN = '"$@" || exit 1\necho "========= ERROR SUMMARY: 0 errors"'
FINDS = """
[ "$tool" = racecheck ] || exit 1
echo "========= Error: Race reported between Write access at few<float> and Read access"
echo "========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)"
exit "$found"
"""
TIMES = {"ms", "ms_least", "ms_most", "runs"}


class Rover:
    """A pretended rover: runs tools/gpu_check of a checkout."""

    def __init__(self, python, environment, folder):
        self.python = python
        self.environment = environment
        self.folder = folder

    def check(self, *arguments, root=ROOT, **more):
        """(exit status, the JSON, stdout, stderr)."""
        out = self.folder / "out.json"
        if out.exists():
            out.unlink()
        done = subprocess.run(
            [self.python, str(root / "tools" / "gpu_check"), "--quick", "--out", str(out)] + [
                str(argument) for argument in arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            universal_newlines=True, env=dict(self.environment, **more))
        assert out.exists(), done.stderr
        return done.returncode, json.loads(out.read_text()), done.stdout, done.stderr


@pytest.fixture(scope="module")
def parts(toolchain, tmp_path_factory):
    """(rover_pycuda, python, packages) of the rover's Python; skips where something is missing."""
    for tool in ("gcc", "g++"):
        if shutil.which(tool) is None:
            pytest.skip("no {} here: tools/gpu_check was NOT run (apt-get install g++)".format(
                tool))
    try:
        toolchain.package_folder("nvidia.cuda_profiler_api")
    except ImportError as error:
        pytest.skip(str(error))
    import rover_pycuda

    cache = pathlib.Path(os.environ.get("JETSON_CLUSTER_CACHE") or str(ROOT / ".cache")).resolve()
    cache.mkdir(parents=True, exist_ok=True)
    python = rover_pycuda.ready(cache)
    if python is None:
        pytest.skip("no Python 3.6 here: tools/gpu_check was NOT run on the rover's Python")
    return rover_pycuda, python, rover_pycuda.packages(python, cache)


def rover_with(parts, folder, kernels=None):
    """A Rover whose GPU runs this checkout's kernels, or those of another folder."""
    rover_pycuda, python, packages = parts
    site, nvcc = folder / "site", folder / "bin" / "nvcc"
    site.mkdir()
    nvcc.parent.mkdir()
    (site / "sitecustomize.py").write_text(LAZY)
    (site / "tensorrt.py").write_text(TENSORRT.format(str(FAKES)))
    nvcc.write_text(NVCC.format(sys.executable, FAKES / "cuda" / "nvcc.py"))
    nvcc.chmod(0o755)
    driver = rover_pycuda.build_driver(folder, kernels or rover_pycuda.KERNELS)
    environment = rover_pycuda.environment(driver, nvcc, folder / "calls")
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(site), str(packages), str(FAKES / "fake_cupy")])
    return Rover(python, environment, folder)


def write_sanitizer(rover, does):
    """Put a checker into the rover's PATH, or another in its place."""
    program = rover.folder / "bin" / "compute-sanitizer"
    program.write_text(SANITIZER.format(does))
    program.chmod(0o755)
    return str(program)


@pytest.fixture(scope="module")
def rover(parts, tmp_path_factory):
    """A rover on which nothing is wrong."""
    rover = rover_with(parts, tmp_path_factory.mktemp("rover"))
    write_sanitizer(rover, CLEAN)
    return rover


@pytest.fixture(scope="module")
def whole(rover, tiny):
    """What a whole check of it gives."""
    return rover.check("--model", tiny)


def checkout(folder, *edits):
    """A copy of what gpu_check needs of this checkout, with edits (path, old text, new text)."""
    copy = folder / "checkout"
    for name in ("jetson_cluster", "tools", "engines"):
        shutil.copytree(str(ROOT / name), str(copy / name),
                        ignore=shutil.ignore_patterns("__pycache__"))
    for path, old, new in edits:
        text = (copy / path).read_text()
        assert text.count(old) == 1
        (copy / path).write_text(text.replace(old, new))
    return copy


def test_a_rover_without_a_fault_passes(whole):
    status, result, _, complaints = whole
    assert (status, result["wrong"], result["ok"]) == (0, [], True), complaints
    assert "pretend driver" not in complaints


def test_the_machine_is_described(rover, whole):
    _, result, printed, _ = whole
    environment = result["environment"]
    assert environment["gpu"] == {
        "name": "pretended Tegra X1", "gpus": 1, "compute_capability": "5.3", "multiprocessors": 1,
        "memory_bytes": 4 << 30, "clock_mhz": 921.6, "memory_clock_mhz": 1600.0,
        "memory_bus_bits": 64, "l2_bytes": 262144, "cuda_of_driver": "10.2",
        "driver_path": str(rover.folder / "libcuda.so.1")}
    versions = environment["versions"]
    assert versions["python"].startswith("3.6.") and versions["pycuda"] == "2022.1"
    assert versions["tensorrt"] == "8.2.1.8" and versions["tensorrt_rtx"] is None
    assert versions["cuda_of_pycuda"] == "11.8.0"
    assert versions["nvcc"] == "release 11.8, V11.8.89"
    assert set(environment["machine"]) == {
        "architecture", "system", "cores", "driver", "model", "l4t", "power_mode"}
    assert printed.startswith(
        "pretended Tegra X1 (compute capability 5.3, 1 multiprocessor, 4.3 GB)")
    assert "nothing is wrong" in printed


def test_every_kind_of_question_is_asked_of_the_kernels(whole):
    kernels = whole[1]["kernels"]
    asked = {group["name"]: group for group in kernels["groups"]}
    assert {"shapes", "large", "alone, and shifted in memory", "fewer neighbours",
            "equal centroids", "small gaps between long vectors", "more near-ties than candidates",
            "rows of zeros", "centroids of zeros", "rows that are not finite", "full of ties",
            "frames to planes"} < set(asked)
    for group in kernels["groups"]:
        assert group["asked"] > 0 and group["left_out"] == []
        assert 0 <= group["most_of_leeway"] <= 1
    assert kernels["compile_s"] > kernels["load_s"] > 0
    assert kernels["wrong"] == []


def test_every_lookup_is_timed_beside_a_copy_and_beside_cublas(whole):
    speed = whole[1]["speed"]
    assert set(speed["copy"]) == TIMES | {"bytes", "gb_s"}
    copy = speed["copy"]
    assert copy["gb_s"] == pytest.approx(2 * copy["bytes"] / copy["ms"] / 1e6)
    assert speed["empty_ms"] > 0
    sizes = {(row["rows"], row["k"], row["dimension"]) for row in speed["nearest"]}
    assert len(sizes) * 2 == len(speed["nearest"])  # both kinds of storage
    for row in speed["nearest"]:
        assert set(row) == TIMES | {"rows", "k", "dimension", "stored", "gb_s", "share_of_copy",
                                    "gflop_s", "left_out", "ratio_to_peer"}
        assert row["left_out"] == "" and row["ms_least"] <= row["ms"] <= row["ms_most"]
        assert row["share_of_copy"] == pytest.approx(row["gb_s"] / copy["gb_s"])
        assert row["gflop_s"] == pytest.approx(
            2 * row["rows"] * row["k"] * row["dimension"] / row["ms"] / 1e6)
    for row in speed["planes"]:
        assert set(row) == TIMES | {"frames", "height", "width", "gb_s", "share_of_copy"}
    assert [peer["tf32"] for peer in speed["peers"]] == [False, True]
    for peer, name in zip(speed["peers"], ("tf32_off", "tf32_on")):
        assert peer["library"] == "cupy 14.2.0" and peer["absent"] == ""
        for other in peer["rows"]:
            assert other["agrees"] == 1
            for row in speed["nearest"]:
                if all(row[key] == other[key] for key in ("rows", "k", "dimension")):
                    assert row["ratio_to_peer"][name] == pytest.approx(row["ms"] / other["ms"])


def test_the_engine_is_built_loaded_compared_and_flown(whole):
    network = whole[1]["network"]
    assert network["model"] == "tiny.onnx"
    build, use, daemons = network["build"], network["use"], network["daemons"]
    assert build["plan_bytes"] > 0 and build["open_s"] > 0 and build["build_s"] >= 0
    assert use["load_s"] > 0 and use["runtime"].startswith("tensorrt 8.2.1.8, fp16")
    assert [row["batch"] for row in use["images_per_s"]] == [1, 8]
    for row in use["images_per_s"]:
        assert row["images_per_s"] == pytest.approx(1000 * row["batch"] / row["ms"])
    sets = {row["images"]: row for row in use["agreement"]}
    assert {"probe", "drawn"} <= set(sets)
    for row in sets.values():
        assert 0.999 <= row["cosine_least"] <= row["cosine_median"] <= 1.00001
        assert row["same_nearest"] > 0.9
    assert use["lookup_differs"] == 0 and use["process_bytes"] > use["gpu_bytes"]
    assert daemons["images"] == 12 and set(daemons["seconds"]) == {"tensorrt", "onnxruntime"}
    assert daemons["at_another_rank"] <= 12 and daemons["other_cluster"] == 0


def test_what_is_only_missed_is_said(whole):
    absent, = whole[1]["absent"]
    assert absent.startswith("onnxconverter_common: No module")


def test_the_sanitizer_is_asked_where_there_is_one(whole):
    sanitizer = whole[1]["kernels"]["sanitizer"]
    assert sanitizer["program"].endswith("compute-sanitizer")
    assert sanitizer["tools"] == dict.fromkeys(
        ("memcheck", "racecheck", "synccheck", "initcheck"), "clean")


def test_one_part_alone_leaves_the_others_out(rover):
    status, result, _, complaints = rover.check("--only", "network", "--model", "missing.onnx")
    assert status == 1
    assert result["kernels"] is None and result["speed"] is None
    wrong, = result["wrong"]
    assert "missing.onnx: there is no such file" in wrong
    assert "Traceback" not in complaints


def test_centroids_that_go_up_wrong_are_found_and_the_question_named(rover, tmp_path):
    root = checkout(tmp_path, ("jetson_cluster/cuda/launcher.py", "self._upload(driver, held)",
                               "self._upload(driver, held[::-1].copy())"))
    status, result, printed, _ = rover.check("--only", "kernels", root=root)
    assert status == 1 and not result["ok"]
    assert result["wrong"][0].startswith("shapes: 1 x 5, k 2, float16, nearest 2: row 0, place 0: ")
    assert result["wrong"][0] in printed
    # One centroid reversed is the same centroid.
    assert not [line for line in result["wrong"] if line.startswith("shapes: 1 x 5, k 1,")]


def test_a_launch_that_cuda_refuses_ends_the_asking_and_is_named(rover, tmp_path):
    write_sanitizer(rover, FINDS)
    root = checkout(tmp_path, ("jetson_cluster/cuda/launcher.py",
                               "BLOCK = (grids.BLOCK, 1, 1)", "BLOCK = (2 * grids.BLOCK, 1, 1)"))
    try:
        status, result, _, _ = rover.check("--only", "kernels", root=root)
    finally:
        write_sanitizer(rover, CLEAN)
    assert status == 1
    asking, found = result["wrong"]
    assert asking.startswith("shapes: 1 x 5, k 1, float16, nearest 1: CUDA: cuLaunchKernel")
    assert asking.endswith("nothing more was asked")
    assert found.startswith("racecheck: Error: Race reported between Write access")
    tools = result["kernels"]["sanitizer"]["tools"]
    assert tools["memcheck"].startswith("could not run (status 1)")


def test_wrong_kernels_are_found_by_their_answers_and_by_the_networks(parts, tiny, tmp_path):
    root = checkout(
        tmp_path,
        # Ties go to whoever asks, instead of to the lower index.
        ("jetson_cluster/cuda/nearest.cu", "key = other < key ? other : key;",
         "key = (other >> 32) < (key >> 32) ? other : key;"),
        # Red is green.
        ("jetson_cluster/cuda/preprocess.cu", "plane[at] = pixel[at * 3];",
         "plane[at] = pixel[at * 3 + 1];"))
    rover = rover_with(parts, tmp_path, root / "jetson_cluster" / "cuda")
    status, result, _, _ = rover.check("--only", "kernels", root=root)
    assert result["kernels"]["sanitizer"]["program"] is None
    assert any("no compute-sanitizer" in line for line in result["absent"])
    groups = {line.split(":")[0] for line in result["wrong"]}
    assert status == 1
    assert {"equal centroids", "8 frames of 299 x 299"} & groups == {"equal centroids"}
    assert [line for line in result["wrong"]
            if line.startswith("3 frames of 31 x 33: ") and "are not the frames'" in line]
    status, result, _, _ = rover.check("--only", "network", "--model", tiny, root=root)
    assert status == 1
    assert [line for line in result["wrong"]
            if "gives other embeddings than the network" in line], result["wrong"]
