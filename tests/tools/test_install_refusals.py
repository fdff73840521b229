"""tools/install-on-jetson before it changes anything: what it lacks, refuses and says."""

import os
import re
import shutil
import subprocess
import tempfile

import pytest
from jetson_root import PROGRAM, ROOT, Jetson, commands, one_error


@pytest.fixture
def jetson(tmp_path):
    return Jetson(tmp_path)


def test_a_dry_run_goes_on_after_what_is_missing(jetson):
    (jetson.root / "etc/nv_tegra_release").unlink()
    jetson.tell("uid", "1000")
    status, out, err = jetson.run("--dry-run")
    assert (status, err) == (0, "")
    assert out.count("MISSING  ") == 2 and commands(out)[-1] == "+ sync"
    assert "Without --dry-run this would end here" in out


def without(path):
    return lambda jetson: (jetson.root / path).unlink()


def told(name, text=""):
    return lambda jetson: jetson.tell(name, text)


def says(path, text):
    return lambda jetson: jetson.write(path, text)


LACKS = [
    (told("uid", "1000"), "root: ", "sudo"),
    (without("etc/nv_tegra_release"), "Jetson: ", "the rover's computer"),
    (says("etc/nv_tegra_release", ""), "Jetson: ", "does not begin with a release"),
    (says("etc/nv_tegra_release", "# R35 (release), REVISION: 4.1"), "R35.4", "JetPack 4.6.1"),
    (says("etc/nv_tegra_release", "# R32 (release), REVISION: 6.1"), "R32.6", "JetPack 4.6.1"),
    (told("python", "3.8"), "Python: ", "JetPack 4.6 has 3.6"),
    (without("usr/bin/python3"), "Python: ", "not there"),
    (told("no-python3-venv"), "python3-venv: ", "apt-get install python3-venv"),
    (told("no-python3-dev"), "python3-dev: ", "apt-get install python3-dev"),
    (told("no-python3-libnvinfer"), "python3-libnvinfer: ", "apt-get install python3-libnvinfer"),
    (without("usr/bin/g++"), "g++: ", "apt-get install g++"),
    (without("usr/bin/runuser"), "runuser: ", "apt-get install util-linux"),
    (without("usr/bin/systemctl"), "systemctl: ", "apt-get install systemd"),
    (without("usr/bin/systemd-sysusers"), "systemd-sysusers: ", "apt-get install systemd"),
    (without("usr/bin/systemd-tmpfiles"), "systemd-tmpfiles: ", "apt-get install systemd"),
    (without("usr/local/cuda/bin/nvcc"), "CUDA: ", "apt-get install cuda-toolkit-10-2"),
    (without("usr/local/cuda/include/curand.h"), "CUDA: ", "apt-get install cuda-toolkit-10-2"),
    (told("free_kb", "400000"), "disk of /opt: ", "400 MB free; make it 1000 MB"),
    (says("etc/jetson-cluster/config.yaml", "model: /data/a.onnx\n"), "model: ", "/data/a.onnx"),
]


@pytest.mark.parametrize("spoil, what, mend", LACKS)
def test_what_is_missing_is_named_with_its_remedy_before_anything_changes(
        jetson, spoil, what, mend):
    spoil(jetson)
    before = jetson.files()
    status, out, err = jetson.run("--model", jetson.model)
    lines = [line for line in out.splitlines() if line.startswith("MISSING  ")]
    assert status == 1 and len(err.splitlines()) == 1
    assert "nothing was changed" in one_error(err)
    assert all(what in line and mend in line for line in lines[:1]) and lines
    assert jetson.files() == before and jetson.calls() == []


def test_everything_that_is_missing_is_named_at_once(jetson):
    jetson.tell("uid", "1000")
    jetson.tell("no-python3-venv")
    without("usr/bin/g++")(jetson)
    status, out, err = jetson.run("--model", jetson.model)
    assert status == 1 and out.count("MISSING  ") == 3 and "(3)" in one_error(err)


def test_without_an_answer_of_nvpmodel_no_power_mode_can_be_set(jetson):
    without("usr/bin/nvpmodel")(jetson)
    status, out, _ = jetson.run("--model", jetson.model, "--power-mode", "0")
    assert status == 1 and "MISSING  power mode: " in out
    assert "note     power mode: " in jetson.install()


def test_little_memory_is_a_note(jetson):
    jetson.write("proc/meminfo", "MemTotal: 1979000 kB\nSwapTotal: 0 kB\n")
    assert "note     memory: 1979 MB" in jetson.install()


@pytest.mark.parametrize("arguments, told", [
    (["--modle", "x"], "unknown argument '--modle'"),
    (["--model"], "--model needs a value"),
    (["--model", "net.recipe.yaml"], "not an .onnx file"),
    (["--model", "none.onnx"], "no such file"),
    (["--model", "alone.onnx"], "no alone.recipe.yaml beside it"),
    (["--codebook", "none.npz"], "no such file"),
    (["--wheels", "none"], "no such folder"),
    (["--power-mode", "fast"], "not a number"),
    (["--jetpack", "5"], "neither 4 nor 6"),
])
def test_a_wrong_argument_is_one_line(jetson, arguments, told):
    (jetson.model.parent / "alone.onnx").touch()
    before = jetson.files()
    status, _, err = jetson.run(*arguments)
    assert status == 2 and len(err.splitlines()) == 1 and told in one_error(err)
    assert jetson.files() == before


def test_a_name_that_begins_with_a_dash_is_a_name(jetson):
    folder = jetson.model.parent
    for name in ("net.onnx", "net.recipe.yaml", "terrain.npz"):
        shutil.copy(str(folder / name), str(folder / ("-" + name)))
    (folder / "-wheels").mkdir()
    status, out, err = jetson.run(
        "--model", "-net.onnx", "--codebook", "-terrain.npz", "--wheels", "-wheels")
    assert (status, err) == (0, ""), out + err
    jetson.calls()
    assert jetson.run("--fetch-wheels", "-new")[::2] == (0, "")
    assert all("--dest {}/-new".format(folder) in call for call in jetson.calls())


def test_help_names_every_option():
    done = subprocess.run(["bash", str(PROGRAM), "--help"], stdout=subprocess.PIPE,
                          universal_newlines=True)
    branches = re.findall(r"^ +(--[a-z| -]+)\)", PROGRAM.read_text(), re.MULTILINE)
    options = set(re.findall(r"--[a-z-]+", " ".join(branches)))
    assert done.returncode == 0 and {"--help", "--model", "--dry-run"} <= options
    assert options == set(re.findall(r"--[a-z-]+", done.stdout))


def on_this_machine(arguments, **options):
    """Runs the program on this machine as it is; returns exit status and both outputs."""
    environment = {key: value for key, value in os.environ.items()
                   if key != "JETSON_CLUSTER_TEST_ROOT"}
    done = subprocess.run([str(PROGRAM)] + arguments, stdout=subprocess.PIPE, env=environment,
                          stderr=subprocess.PIPE, universal_newlines=True, **options)
    return done.returncode, done.stdout, done.stderr


not_on_a_jetson = pytest.mark.skipif(
    os.path.exists("/etc/nv_tegra_release"), reason="this is a Jetson")


@not_on_a_jetson
def test_a_dry_run_on_this_machine_tells_what_it_lacks():
    status, out, err = on_this_machine(["--dry-run"])
    assert (status, err) == (0, "") and "MISSING  Jetson: " in out
    assert "+ /usr/bin/python3 -m venv --system-site-packages /opt/jetson-cluster" in out


@not_on_a_jetson
def test_a_real_run_on_this_machine_is_refused():
    status, out, err = on_this_machine([])
    assert status == 1 and "nothing was changed" in one_error(err)
    assert commands(out) == []


@not_on_a_jetson
@pytest.mark.skipif(os.geteuid() != 0, reason="the tests above ran as an ordinary user")
def test_a_dry_run_needs_no_root():
    nobody = 65534
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for name in ("tools", "systemd"):  # where that user may read them
            shutil.copytree(str(ROOT / name), os.path.join(folder, name),
                            ignore=shutil.ignore_patterns("__pycache__"))
        done = subprocess.run(
            [os.path.join(folder, "tools", "install-on-jetson"), "--dry-run"], cwd="/",
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
            preexec_fn=lambda: os.setuid(nobody))
    assert (done.returncode, done.stderr) == (0, "")
    assert "MISSING  root: run this with sudo" in done.stdout
