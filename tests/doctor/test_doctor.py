"""The examination as a whole: the verdict, the exit code, what people and machines get to read."""

import json
import os
import subprocess
import sys

import pytest

from jetson_cluster import doctor
from jetson_cluster.doctor import findings, report, verdict
from jetson_cluster.errors import UserError, WorldError


def by_name(found):
    return {row.name: row.finding for row in found.rows}


def call(*arguments, **environment):
    """Run the command: (exit code, standard output, standard error)."""
    done = subprocess.Popen(
        [sys.executable, "-m", "jetson_cluster", "doctor"] + [str(word) for word in arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ, **environment))
    out, err = done.communicate(timeout=120)
    return done.returncode, out.decode(), err.decode()


def everything_below(folder):
    return sorted((place, name) for place, names, files in os.walk(str(folder))
                  for name in names + files)


def test_a_computer_with_a_processor_alone_could_run_and_nothing_is_touched(computer, config):
    computer.without("tensorrt", "tensorrt_rtx", "pycuda", "openvino")
    before = everything_below(config.parent)
    found = doctor.examine(computer.case(config, "embedder=auto"))
    rows = by_name(found)
    assert found.exit_code == 0 and found.could_start and found.runtimes == ["onnxruntime"]
    assert "auto gives ONNX Runtime" in rows["embedder"].found
    assert "because of TensorRT" in rows["embedder"].found
    assert rows["daemon"].found == "could start, with 1 warning"  # there is no codebook
    assert everything_below(config.parent) == before


def test_a_nano_with_everything_runs_on_tensorrt(computer, config):
    computer.nano()
    computer.gpu()
    computer.program("nvcc", "echo sm_53")
    found = doctor.examine(computer.case(config, "embedder=auto"))
    assert found.runtimes == ["tensorrt"] and found.exit_code == 0
    assert by_name(found)["embedder"].found == "embedder: auto gives TensorRT 8.2.1.8"


def test_tensorrt_that_is_insisted_on_and_missing_is_the_worlds_fault(computer, config):
    computer.without("tensorrt", "tensorrt_rtx", "pycuda")
    found = doctor.examine(computer.case(config, "embedder=tensorrt"))
    rows = by_name(found)
    assert found.exit_code == 1 and found.runtimes == []
    assert rows["TensorRT"].level == rows["PyCUDA"].level == rows["embedder"].level == "bad"
    assert "could not start" in rows["daemon"].found and "TensorRT" in rows["daemon"].found


def test_a_computer_without_any_runtime_could_not_run(computer, config):
    computer.without("tensorrt", "tensorrt_rtx", "pycuda", "onnxruntime", "openvino")
    found = doctor.examine(computer.case(config, "embedder=cpu"))
    assert found.exit_code == 1 and "gives none" in by_name(found)["embedder"].found


def test_what_numpys_death_leaves_is_still_examined(computer, config):
    computer.library("numpy", "import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    found = doctor.examine(computer.case(config))
    rows = by_name(found)
    assert found.exit_code == 1 and rows["numpy"].level == "bad"
    assert rows["codebook"].found == "cannot be read without numpy"
    assert rows["model"].level == "warn" and "could not be read as ONNX" in rows["model"].found


def test_the_command_tells_machines_in_the_shape_its_docstring_promises(config):
    code, out, _ = call("--config", config, "--json", "--set", "embedder=cpu")
    told = json.loads(out)
    assert code == told["exit_code"] == 0 and told["could_start"] is True
    assert list(told) == ["version", "config", "could_start", "embedder", "exit_code", "rows"]
    assert told["config"] == str(config)
    places = [(row["group"], row["name"]) for row in told["rows"]]
    assert len(set(places)) == len(places)
    assert sorted({row["group"] for row in told["rows"]}) == sorted(doctor.GROUPS)
    for row in told["rows"]:
        assert list(row) == ["group", "name", "level", "found", "needed", "mend", "fault", "stops"]
        assert row["level"] in ("ok", "warn", "bad", "skip") and row["found"]
        assert all("\n" not in value for value in row.values())
        assert bool(row["needed"]) == (row["level"] in ("warn", "bad"))
        assert (row["fault"] in ("config", "world")) == (row["level"] == "bad")


@pytest.mark.parametrize("content, told", [
    (None, "there is none; the rest of this goes by the defaults"),
    ("batch: many\ncentroids: 3", "2 mistakes")])
def test_a_config_that_is_missing_or_wrong_is_the_users_fault(tmp_path, content, told):
    config = tmp_path / "config.yaml"
    if content:
        config.write_text(content)
    code, out, err = call("--config", config)
    assert code == 2 and told in out and "Traceback" not in err
    assert "could not start: config" in out


def test_a_probe_that_fails_is_a_row_and_not_the_end(computer, config, caplog):
    case = computer.case(config)

    def fails(_case):
        raise KeyError("no\nsuch thing")
    caplog.set_level("DEBUG")
    finding = doctor.guarded(fails, case)
    assert finding.level == "warn"
    assert "could not be examined: KeyError: 'no\\nsuch thing'" in finding.found
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("error, level, fault", [
    (UserError("x"), "bad", "config"), (WorldError("x"), "bad", "world"),
    (PermissionError(13, "denied"), "warn", "")])
def test_errors_that_mean_something_keep_their_meaning(computer, config, error, level, fault):
    def fails(_case):
        raise error
    finding = doctor.guarded(fails, computer.case(config))
    assert (finding.level, finding.fault) == (level, fault)


NO = {"tensorrt": "no GPU", "onnxruntime": "not installed", "openvino": "not installed"}


@pytest.mark.parametrize("embedder, stopped, given_up, runtimes, why", [
    ("auto", (), "", ["tensorrt"], ""),
    ("auto", ("tensorrt",), "", ["onnxruntime", "openvino"], "TensorRT: no GPU"),
    ("auto", ("tensorrt", "openvino"), "", ["onnxruntime"], "TensorRT: no GPU"),
    ("auto", NO, "", [], "TensorRT: no GPU; ONNX Runtime: not installed; OpenVINO: not installed"),
    ("auto", ("openvino",), "lost", ["onnxruntime"], "lost"),
    ("tensorrt", ("openvino",), "lost", ["onnxruntime"], "lost"),
    ("tensorrt", ("tensorrt",), "", [], "TensorRT: no GPU"),
    ("cpu", ("tensorrt",), "", ["onnxruntime", "openvino"], ""),
    ("cpu", ("onnxruntime", "openvino"), "", [],
     "ONNX Runtime: not installed; OpenVINO: not installed"),
    ("openvino-float32", (), "", ["openvino"], ""),
    ("openvino", ("openvino",), "", [], "OpenVINO: not installed")])
def test_the_runtime_is_chosen_as_the_daemon_chooses_it(embedder, stopped, given_up, runtimes, why):
    choice = verdict.choose(embedder, {name: NO[name] for name in stopped}, given_up)
    assert (list(choice.runtimes), choice.why) == (runtimes, why)


def test_a_gpu_alone_with_nothing_to_fall_back_on_is_told():
    stopped = {"onnxruntime": "x", "openvino": "x"}
    choice = verdict.choose("auto", stopped)
    told = verdict.of_embedder("auto", choice, {}, stopped, True, True, "m")
    assert told.level == "warn" and "should the GPU be lost" in told.found
    told = verdict.of_embedder("auto", choice, {}, stopped, True, False, "m")
    assert told.level == "ok"


def test_a_gpu_that_is_not_used_is_told():
    stopped = {"tensorrt": "not installed"}
    for has_gpu, level in ((True, "warn"), (False, "ok")):
        told = verdict.of_embedder(
            "auto", verdict.choose("auto", stopped), {"openvino": "1"}, stopped, has_gpu, True, "m")
        assert told.level == level and "the faster of ONNX Runtime and OpenVINO 1" in told.found


def rows():
    long = "something found that takes many words " * 4
    return [findings.Row("Computer", "one", findings.ok(long)),
            findings.Row("GPU", "the second", findings.warn("found", "needed " + long, "m " * 80)),
            findings.Row("Verdict", "three", findings.bad("world", "found", "needed", "mend it"))]


def test_people_read_aligned_groups_and_remedies_only_where_they_are_needed():
    lines = report.to_lines(doctor.Report(rows(), []), None)
    heads = [line for line in lines if not line.startswith(" ")]
    assert heads == "Computer\n\nLibraries\n\nGPU\n\nFiles\n\nService\n\nVerdict".split("\n")
    assert lines[1].startswith("  ok    one         something found")
    assert "  WARN  the second  found" in lines and "  BAD   three       found" in lines
    assert sum("mend:" in line for line in lines) == 2


def test_long_lines_are_wrapped_but_what_is_to_be_copied_is_not():
    lines = report.to_lines(doctor.Report(rows(), []), 80)
    assert all(len(line) <= 80 for line in lines if "mend:" not in line)
    assert any("m " * 79 + "m" in line for line in lines)
    assert all(line.startswith(" " * 20) for line in lines if line.strip().startswith("words"))
