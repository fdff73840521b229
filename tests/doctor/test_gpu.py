"""What the doctor says of the GPU, over stand-ins for PyCUDA and TensorRT, and without either."""

import hashlib
import json
import os
import shutil
import sys
import tempfile
import types

import pytest

from jetson_cluster import gpu_losses, lock
from jetson_cluster.cuda import launcher
from jetson_cluster.doctor import child
from jetson_cluster.doctor import gpu as probes
from jetson_cluster.embedder import engine

UNIT = "[Service]\nUser=rover\nSupplementaryGroups=video\nExecStart=/x run --config %s\n"


@pytest.fixture
def rover(computer, config, tiny):
    """A Nano with everything, and a model of its own for its plan to stand beside."""
    computer.nano()
    computer.gpu()
    folder = config.parent
    for name in ("tiny.onnx", "tiny.recipe.yaml"):
        shutil.copy(os.path.join(os.path.dirname(tiny), name), str(folder / name))
    config.write_text(config.read_text().replace(tiny, str(folder / "tiny.onnx")).replace(
        "embedder: onnxruntime", "embedder: auto"))
    return computer


def test_what_is_there_is_found_with_its_versions(rover, config):
    case = rover.case(config)
    assert probes.tensorrt(case).found == "tensorrt 8.2.1.8 in memory"
    assert probes.pycuda(case).found == "2022.1, built for CUDA 10.2.0"
    assert probes.driver(case).found == "CUDA 10.2"
    assert probes.gpu(case).found == "NVIDIA Tegra X1, compute capability 5.3, 4.3 GB"
    assert probes.nodes(case).level == "ok"


def test_no_context_is_made_for_it(monkeypatch):
    fakes = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "fakes")
    monkeypatch.syspath_prepend(fakes)
    from fake_pycuda import driver, machine

    pretended = machine.Machine()
    for name, module in driver.make(pretended).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(pretended, "make_context", None)  # to call it would be an error
    facts = child.cuda()
    assert facts["gpus"][0]["capability"] == [5, 3] and not pretended.violations


@pytest.mark.parametrize("embedder, level", [
    ("tensorrt", "bad"), ("auto", "warn"), ("cpu", "skip")])
def test_what_tensorrt_lacks_is_as_bad_as_the_config_makes_it(computer, config, embedder, level):
    computer.nano()
    computer.without("tensorrt", "tensorrt_rtx", "pycuda")
    case = computer.case(config, "embedder=" + embedder)
    for probe in (probes.tensorrt, probes.pycuda, probes.nodes):
        finding = probe(case)
        assert finding.level == level and finding.stops == "tensorrt"
        assert bool(finding.mend) == (level != "skip")
    for probe in (probes.driver, probes.gpu, probes.kernels, probes.engine):
        assert probe(case).level == "skip"


def test_where_there_is_no_gpu_its_software_is_not_missed(computer, config):
    computer.without("tensorrt", "tensorrt_rtx", "pycuda")
    case = computer.case(config, "embedder=auto")
    assert not case.has_gpu
    assert {probe(case).level for _, probe in probes.PROBES} == {"skip", "ok"}


@pytest.mark.parametrize("on_a_jetson, closed, mend", [
    (True, True, "python3 -m venv --system-site-packages /opt/x"),
    (True, False, "sudo apt-get install python3-libnvinfer"),
    (False, True, "/opt/x/python -m pip install tensorrt")])
def test_tensorrt_comes_from_where_the_computer_has_it(computer, config, on_a_jetson, closed, mend):
    if on_a_jetson:
        computer.nano()
    computer.without("tensorrt", "tensorrt_rtx")
    case = computer.case(config, "embedder=tensorrt")
    case.facts("python").update(closed=closed, prefix="/opt/x", executable="/opt/x/python")
    assert probes.tensorrt(case).mend == mend


@pytest.mark.parametrize("version, embedder, level", [
    ("7.1.3.0", "tensorrt", "bad"), ("8.0.1.6", "auto", "warn"), ("8.2.0.6", "auto", "ok"),
    ("10.3.0", "auto", "ok")])
def test_a_tensorrt_older_than_it_is_written_for_is_told(
        computer, config, version, embedder, level):
    computer.nano()
    case = computer.case(config, "embedder=" + embedder)
    case._known["facts tensorrt"] = (
        {"name": "tensorrt", "version": version, "path": "", "lacks": []}, None)
    finding = probes.tensorrt(case)
    assert finding.level == level and version in finding.found
    assert ("8.2" in finding.needed) == (finding.stops == "tensorrt") == (level != "ok")


def test_tensorrt_for_rtx_counts_its_versions_anew(computer, config):
    case = computer.case(config, "embedder=tensorrt")
    case._known["facts tensorrt"] = (
        {"name": "tensorrt_rtx", "version": "1.0.0.21", "path": "", "lacks": []}, None)
    assert probes.tensorrt(case).level == "ok"


def test_a_driver_that_finds_no_gpu_is_told_in_its_words(computer, config):
    computer.nano()
    computer.gpu(what="gpu=None")
    case = computer.case(config, "embedder=tensorrt")
    assert "no CUDA-capable device" in probes.driver(case).found
    assert probes.gpu(case).level == "bad" and "none" in probes.gpu(case).found


def test_a_missing_driver_is_not_taken_for_a_missing_pycuda(computer, config):
    computer.library("pycuda", "raise ImportError('libcuda.so.1: cannot open shared object file')")
    finding = probes.pycuda(computer.case(config, "embedder=tensorrt"))
    assert "libcuda.so.1" in finding.found and "driver" in finding.needed


def test_a_gpu_older_than_the_kernels_is_refused(computer, config):
    computer.gpu(what="gpu='NVIDIA Tegra K1', compute_capability=(3, 2)")
    finding = probes.gpu(computer.case(config, "embedder=tensorrt"))
    assert finding.level == "bad" and "3.2" in finding.found and "5.3" in finding.needed


def test_a_driver_older_than_pycudas_cuda_is_told(computer, config):
    case = computer.case(config, "embedder=tensorrt")
    case.facts("cuda").clear()
    case.facts("cuda").update(built_for=[12, 2, 0], driver=10020, driver_error="", gpus=[])
    finding = probes.driver(case)
    assert finding.level == "bad" and "10.2, older than the 12.2.0" in finding.found


def test_closed_device_nodes_are_named_with_the_group_that_opens_them(computer, config):
    computer.nano()
    for name, mode in (("nvmap", 0o660), ("nvhost-ctrl", 0o666), ("nvhost-dbg-gpu", 0o600)):
        computer.file("/dev/" + name, "").chmod(mode)
    computer.file("/etc/systemd/system/jetson-cluster.service",
                  (UNIT % config).replace("SupplementaryGroups=video\n", ""))
    finding = probes.nodes(computer.case(config, "embedder=tensorrt"))
    assert finding.level == "bad"
    assert finding.mend.startswith("sudo usermod -aG video rover   # ")
    assert finding.found.startswith("user rover may not open /dev/nvmap")
    assert "nvhost-dbg-gpu" not in finding.found  # CUDA does without it


def plan_of(case, path, content=b"a plan", **changes):
    """Write a plan with the certificate that would fit, but for `changes`."""
    held = engine.wanted(types.SimpleNamespace(__name__="tensorrt", __version__="8.2.1.8"),
                         case.model, case.batch, engine.Device("NVIDIA Tegra X1", "5.3"),
                         case.config.tensorrt.workspace_bytes)
    held = held._replace(plan_sha256=hashlib.sha256(content).hexdigest(),
                         built_at="2026-01-01T00:00:00Z", build_s=321.0)._replace(**changes)
    with open(path, "wb") as stream:
        stream.write(content)
    with open(engine.certificate_path(path), "w") as stream:
        json.dump(held._asdict(), stream)


def test_an_engine_that_fits_is_shown(rover, config):
    case, path = rover.case(config), str(config.parent / "tiny.plan")
    plan_of(case, path)
    assert probes.engine(case) == (
        "ok", path + ", 0.0 MB, built 2026-01-01T00:00:00Z in 321 s", "", "", "", "")


@pytest.mark.parametrize("changes, told", [
    ({"tensorrt": "tensorrt 8.5.0.1"}, "tensorrt was tensorrt 8.5.0.1, is tensorrt 8.2.1.8 here"),
    ({"gpu": "NVIDIA Tegra X2"}, "gpu was NVIDIA Tegra X2"), ({"max_batch": 4}, "max_batch was 4"),
    ({"plan_sha256": "0" * 64}, "damaged")])
def test_an_engine_that_would_be_built_again_says_because_of_what(rover, config, changes, told):
    case, path = rover.case(config), str(config.parent / "tiny.plan")
    plan_of(case, path, **changes)
    finding = probes.engine(case)
    assert finding.level == "warn" and told in finding.found and path in finding.found
    assert finding.mend.endswith("build --config %s" % config)
    assert os.listdir(str(config.parent)).count("tiny.plan") == 1  # it was only looked at


def test_no_engine_is_told_and_where_it_would_go(rover, config):
    place = config.parent / "elsewhere"
    place.mkdir()
    case = rover.case(config, "tensorrt.plan=%s" % (place / "x.plan"))
    finding = probes.engine(case)
    assert finding.level == "warn" and finding.found.startswith(str(place / "x.plan"))
    assert "none there yet" in finding.found


def test_an_engine_that_could_not_be_kept_stops_tensorrt(rover, config):
    case = rover.case(config, "tensorrt.plan=/nowhere/x.plan", "embedder=tensorrt")
    finding = probes.engine(case)
    assert finding.level == "bad" and "cannot write to /nowhere" in finding.found


def test_an_engine_that_the_daemon_may_not_read_is_told(rover, config):
    rover.file("/etc/systemd/system/jetson-cluster.service", UNIT % config)
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        os.chmod(folder, 0o755)
        path = os.path.join(folder, "x.plan")
        case = rover.case(config, "embedder=tensorrt", "tensorrt.plan=" + path)
        plan_of(case, path)
        assert probes.engine(case).level == "ok"
        os.chmod(engine.certificate_path(path), 0o600)
        finding = probes.engine(case)
    assert finding.level == "bad" and "user rover may not read" in finding.found
    assert finding.mend == "sudo chown rover " + engine.certificate_path(path)


def test_an_engine_where_the_sandbox_forbids_writing_stops_tensorrt(rover, config):
    unit = (UNIT % config).replace("User=rover", "User=root") + "ProtectSystem=strict\n"
    rover.file("/etc/systemd/system/jetson-cluster.service", unit)
    finding = probes.engine(rover.case(config, "embedder=tensorrt"))
    assert finding.level == "bad" and "because of ProtectSystem=strict" in finding.found
    assert "ReadWritePaths=-%s" % config.parent in finding.mend
    plan_of(rover.case(config), str(config.parent / "tiny.plan"))
    assert probes.engine(rover.case(config)).level == "ok"  # it is only read
    rover.file("/etc/systemd/system/jetson-cluster.service",
               unit + "InaccessiblePaths=%s\n" % config.parent)
    finding = probes.engine(rover.case(config, "embedder=tensorrt"))
    assert finding.level == "bad" and "does not see it" in finding.found


def test_a_tensorrt_that_wants_float16_from_the_graph_needs_the_converter(rover, config):
    rover.gpu(tensorrt="11.0.0")
    case = rover.case(config, "embedder=tensorrt")
    case.facts("tensorrt")["lacks"] = ["onnxconverter_common"]
    finding = probes.engine(case)
    assert finding.level == "bad" and finding.mend.endswith("pip install onnxconverter-common")


def test_kernels_compiled_already_need_no_compiler(rover, config):
    case = rover.case(config)
    finding = probes.kernels(case)
    if not os.path.exists(launcher.USUAL_NVCC):
        assert finding.level == "warn" and finding.mend == "sudo apt-get install cuda-nvcc-10-2"
    for name in probes.KERNELS:
        path = launcher.image_path(str(config.parent), name, launcher.source_of(name),
                                   launcher.Target("sm_53", "10.2.0"))
        with open(path, "wb") as stream:
            stream.write(b"compiled" + hashlib.sha256(b"compiled").digest())
    assert probes.kernels(case).found == "compiled for sm_53, in %s" % config.parent
    with open(path, "r+b") as stream:
        stream.write(b"C")
    finding = probes.kernels(case)
    assert finding.level == "warn" or os.path.exists(launcher.USUAL_NVCC)
    assert "%s: its checksum is wrong" % os.path.basename(path) in finding.found
    rover.program("nvcc", "echo sm_53")
    finding = probes.kernels(case)
    assert finding.level == "ok" and "checksum is wrong" in finding.found


@pytest.mark.parametrize("script, level", [
    ("echo unknown option >&2; exit 1", "ok"), ("echo sm_53; echo sm_72", "ok"),
    ("echo sm_75; echo sm_80", "warn")])
def test_a_compiler_is_asked_whether_it_knows_the_gpu(rover, config, script, level):
    rover.program("nvcc", script)
    finding = probes.kernels(rover.case(config))
    assert finding.level == level
    assert ("does not know that GPU" in finding.found) == (level == "warn")


def test_a_gpu_that_was_lost_too_often_is_told_with_what_follows(rover, config):
    state = config.parent / "state"
    state.mkdir()
    losses = gpu_losses.GpuLosses(str(state / "gpu-losses.json"), "this-boot", lambda: 4900.0)
    assert probes.losses(rover.case(config)).level == "ok"
    losses.note()
    assert "starts on the processor" not in probes.losses(rover.case(config)).found
    losses.note()
    losses.note()
    case = rover.case(config)
    finding = probes.losses(case)
    assert finding.level == "warn" and finding.found == (
        "lost 3 times within the last 10 minutes: the daemon starts on the processor")
    assert case.gpu_given_up
    assert not rover.case(config, "tensorrt.cpu_fallback=false").gpu_given_up
    rover.since_boot_s = 9000.0
    assert probes.losses(rover.case(config)).level == "ok"


def test_a_process_that_ended_without_a_word_while_it_used_the_gpu_is_told(rover, config):
    state = config.parent / "state"
    state.mkdir()
    losses = gpu_losses.GpuLosses(str(state / "gpu-losses.json"), "this-boot", lambda: 4900.0)
    losses.begin()
    with lock.lock_folder(str(state)):
        assert probes.losses(rover.case(config)).level == "ok"  # a daemon uses it now
    finding = probes.losses(rover.case(config))
    assert finding.level == "warn" and "ended without a word" in finding.found
    assert not rover.case(config).gpu_given_up
    losses.begin()
    losses.begin()
    case = rover.case(config)
    assert case.gpu_given_up  # two were noted, and the next start notes the third
    assert probes.losses(case).found.endswith("the daemon starts on the processor")
    losses.end()
    assert not rover.case(config).gpu_given_up
