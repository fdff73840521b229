"""tools/install-on-jetson as it is, on a Jetson that is a folder: what it does and repeats.

Not shown here: JetPack itself, pip, systemd and the GPU.
"""

import io
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from jetson_root import ROOT, Jetson, commands, one_error, position


@pytest.fixture
def jetson(tmp_path):
    return Jetson(tmp_path)


def test_a_fresh_jetson_gets_everything_in_an_order_that_works(jetson):
    jetson.install("--power-mode", "0")
    calls = jetson.calls()
    order = [position(calls, part) for part in (
        "python3 -m venv --system-site-packages /opt/jetson-cluster",
        "install pip==21.3.1", "python3.6.txt", "python3.6-cuda.txt",
        "--force-reinstall " + str(ROOT), "systemd-sysusers", "systemd-tmpfiles --create",
        "daemon-reload", "nvpmodel -m 0", "jetson-cluster build --config",
        "jetson-cluster doctor --config", "systemctl enable --now jetson-cluster")]
    assert order == sorted(order)
    for source, target in (
            ("jetson-cluster.service", "etc/systemd/system/jetson-cluster.service"),
            ("jetson-cluster.sysusers.conf", "usr/lib/sysusers.d/jetson-cluster.conf"),
            ("jetson-cluster.tmpfiles.conf", "usr/lib/tmpfiles.d/jetson-cluster.conf"),
            ("jetson-cluster.env", "etc/default/jetson-cluster"),
            ("config.yaml", "etc/jetson-cluster/config.yaml"),
            ("policy.yaml", "etc/jetson-cluster/policy.yaml")):
        installed = jetson.root / target
        assert installed.read_bytes() == (ROOT / "systemd" / source).read_bytes()
        assert installed.stat().st_mode & 0o777 == 0o644
    state = jetson.root / "var/lib/jetson-cluster"
    assert sorted(path.name for path in state.iterdir()) == [
        "codebook.npz", "model.onnx", "model.recipe.yaml"]
    assert (state / "model.onnx").read_text() == "a network"
    assert not list(jetson.root.rglob("*.tmp"))


def test_the_engine_is_built_by_the_account_that_the_service_runs_under(jetson):
    jetson.install()
    calls = jetson.calls()
    for verb in ("build", "doctor"):
        call = calls[position(calls, "env HOME=/var/lib/jetson-cluster LANG=C.UTF-8 "
                                     "/opt/jetson-cluster/bin/jetson-cluster {} --config "
                                     "/etc/jetson-cluster/config.yaml".format(verb))]
        assert call.startswith("runuser -u jetson-cluster -- ")


@pytest.mark.parametrize("verb", ["build", "doctor"])
def test_the_command_knows_the_verbs_it_is_called_with(verb):
    done = subprocess.run([sys.executable, "-m", "jetson_cluster", verb, "--help"], cwd=str(ROOT),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    assert done.returncode == 0 and "--config" in done.stdout, done.stderr


def test_numpy_and_pycuda_get_the_environment_they_need(jetson):
    jetson.install()
    lines = (jetson.told / "environments").read_text().splitlines()
    of_numpy = lines[position(lines, "python3.6.txt")]
    of_pycuda = lines[position(lines, "python3.6-cuda.txt")]
    cuda = "ARMV8 {}/usr/local/cuda/bin ".format(jetson.root)
    assert of_numpy.startswith("ARMV8 ") and of_pycuda.startswith(cuda)
    assert [line for line in lines if line.startswith(cuda + "jetson-cluster build ")]


def test_a_second_run_changes_nothing_and_restarts_the_service(jetson):
    jetson.install()
    first, _ = jetson.files(), jetson.calls()
    out = jetson.install()
    calls = jetson.calls()
    assert jetson.files() == first
    assert "is a virtual environment already" in out
    assert not [call for call in calls if "-m venv" in call]
    assert calls[0] == "systemctl stop jetson-cluster"  # nothing imports half a package
    assert calls[-2:] == ["systemctl enable --now jetson-cluster", "sync "]


@pytest.mark.parametrize("name", [
    "etc/jetson-cluster/config.yaml", "etc/jetson-cluster/policy.yaml",
    "etc/default/jetson-cluster"])
def test_settings_that_were_changed_are_kept_and_the_new_ones_put_beside(jetson, name):
    mine = jetson.write(name, "# mine\n")
    out = jetson.install()
    assert mine.read_text() == "# mine\n"
    beside = pathlib.Path(str(mine) + ".new")
    assert beside.exists() and "{} is kept as it is".format(mine) in out
    first = jetson.files()
    jetson.install()
    assert jetson.files() == first


def test_a_new_model_and_unit_replace_the_old_ones(jetson):
    jetson.install()
    jetson.give("a better network")
    unit = jetson.write("etc/systemd/system/jetson-cluster.service", "of an older version\n")
    jetson.install()
    state = jetson.root / "var/lib/jetson-cluster"
    assert (state / "model.onnx").read_text() == "a better network"
    assert "of an older version" not in unit.read_text()


@pytest.mark.parametrize("state", ["active", "activating", "deactivating"])
def test_a_service_that_is_not_at_rest_is_stopped_first(jetson, state):
    # "activating" is one that builds its engine, or waits for its restart.
    jetson.tell("active", state)
    jetson.install()
    assert jetson.calls()[0] == "systemctl stop jetson-cluster"


@pytest.mark.parametrize("state", ["inactive", "failed", "unknown"])
def test_a_service_at_rest_is_not_stopped(jetson, state):
    jetson.tell("active", state)
    jetson.install()
    assert not [call for call in jetson.calls() if "stop" in call]


@pytest.mark.parametrize("large", ["network", "codebook"])
def test_what_belongs_together_is_replaced_together_or_not_at_all(jetson, large):
    jetson.install()
    state = jetson.root / "var/lib/jetson-cluster"
    before = {path.name: path.read_bytes() for path in state.iterdir()}
    jetson.give("a better network" * (100000 if large == "network" else 1))
    if large == "codebook":
        with zipfile.ZipFile(str(jetson.codebook), "a") as archive:
            archive.writestr("ballast.npy", array_bytes(1000000))
    status, out, err = jetson.run("--model", jetson.model, "--codebook", jetson.codebook,
                                  largest_file=500000)
    assert status == 1 and one_error(err), out + err
    assert {path.name: path.read_bytes() for path in state.iterdir()} == before
    assert (jetson.told / "active").exists()
    jetson.install()
    assert (state / "model.onnx").read_bytes() == jetson.model.read_bytes()


def array_bytes(size):
    """An array of so many bytes, as numpy writes it."""
    stream = io.BytesIO()
    np.save(stream, np.zeros(size, np.uint8))
    return stream.getvalue()


def test_a_dry_run_prints_what_a_real_one_does_and_does_nothing(jetson):
    jetson.tell("active", "active")
    before = jetson.files()
    arguments = ("--model", jetson.model, "--power-mode", "1")
    status, dry, err = jetson.run("--dry-run", *arguments)
    assert (status, err) == (0, "")
    assert jetson.files() == before and jetson.calls() == []
    status, real, _ = jetson.run(*arguments)
    assert status == 0 and commands(dry) == commands(real)
    # And what was printed is what was called, but for the shell's own and for files.
    own = [line for line in commands(real) if re.match(r"\+ (export|install|mv) ", line)]
    assert len(jetson.calls()) == len(commands(real)) - len(own)


def test_the_power_mode_is_advised_on_and_changed_only_when_asked(jetson):
    jetson.tell("nvpmodel", "NV Power Mode: 5W\n1\n")
    out = jetson.install()
    assert "--power-mode 0 (MAXN)" in out
    assert not [call for call in jetson.calls() if "nvpmodel" in call]
    assert "--power-mode 0 (MAXN)" not in jetson.install("--power-mode", "0")
    assert "nvpmodel -m 0" in jetson.calls()


def test_without_a_model_the_service_waits_and_nothing_is_built(jetson):
    status, out, err = jetson.run()
    calls = jetson.calls()
    assert (status, err) == (0, "") and "note     model: none" in out
    assert "systemctl enable jetson-cluster" in calls
    assert not [call for call in calls if "cluster build" in call or "--now" in call]
    jetson.install()  # and the model may come later
    assert (jetson.told / "active").exists()


@pytest.mark.parametrize("installed", [False, True])
@pytest.mark.parametrize("line, path", [
    ("model: /data/net.onnx", "data/net.onnx"),
    ("model : /data/net.onnx", "data/net.onnx"),
    ("'model': /data/net.onnx", "data/net.onnx"),
    ("model: '/data/net.onnx'  # on the card", "data/net.onnx"),
    ("model: /data/net#1.onnx", "data/net#1.onnx"),
    ("model: net.onnx", "etc/jetson-cluster/net.onnx"),
    ("model: null", "var/lib/jetson-cluster/model.onnx"),
    ("model: ~  # as it comes", "var/lib/jetson-cluster/model.onnx"),
    ("model:  # as it comes", "var/lib/jetson-cluster/model.onnx")])
def test_a_model_of_the_operators_own_is_found_where_the_settings_say(
        jetson, line, path, installed):
    if installed:
        assert jetson.run()[0] == 0
    jetson.calls()
    jetson.write("etc/jetson-cluster/config.yaml", "log_level: info\n" + line + "\n")
    model = jetson.write(path, "a network")
    status, out, err = jetson.run()
    assert (status, err) == (0, "") and "ok       model: {}\n".format(model) in out
    assert position(jetson.calls(), "systemctl enable --now")


def test_settings_are_read_as_the_daemon_reads_them_where_it_is_installed(jetson):
    jetson.install()
    jetson.write("etc/jetson-cluster/config.yaml", "{log_level: info, model: /data/net.onnx}\n")
    model = jetson.write("data/net.onnx", "a network")
    assert "ok       model: {}\n".format(model) in jetson.run()[1]


def test_jetpack_6_gets_its_own_packages_and_no_settings_for_a_nano(tmp_path):
    jetson = Jetson(tmp_path, jetpack=6)
    jetson.tell("nvpmodel", "NV Power Mode: 15W\n0\n")
    jetson.install()
    calls = jetson.calls()
    assert position(calls, "python3.10.txt") < position(calls, "python3.10-cuda.txt")
    assert not (jetson.root / "etc/default").exists()
    assert {line.split()[0] for line in
            (jetson.told / "environments").read_text().splitlines()} == {"unset"}


def test_wheels_make_the_internet_unneeded(jetson, tmp_path):
    (tmp_path / "given" / "wheels").mkdir()
    jetson.install("--wheels", "wheels")
    installs = [call for call in jetson.calls() if " -m pip " in call]
    assert len(installs) == 4
    for call in installs:
        assert "--no-index --find-links {}".format(tmp_path / "given" / "wheels") in call


@pytest.mark.parametrize("jetpack, version, tag", [("4", "3.6", "cp36m"), ("6", "3.10", "abi3")])
def test_wheels_are_fetched_for_the_rover_and_not_for_this_computer(jetson, jetpack, version, tag):
    status, out, err = jetson.run("--fetch-wheels", "wheels", "--jetpack", jetpack)
    assert (status, err) == (0, "")
    wheels, sources = jetson.calls()
    assert "--platform manylinux2014_aarch64" in wheels and "--abi " + tag in wheels
    assert "--python-version {} ".format(version.replace(".", "")) in wheels
    assert wheels.endswith("python{}.txt".format(version))
    assert "pycuda" in sources and sources.endswith("python{}-cuda.txt".format(version))


STEPS = ["systemctl stop", "python3 -m venv", "pip==", "python3.6.txt", "cuda.txt", "reinstall",
         "sysusers", "tmpfiles", "daemon-reload", "nvpmodel -m", "cluster build",
         "cluster doctor", "enable --now"]


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """The files of an installation that nothing disturbed."""
    jetson = Jetson(tmp_path_factory.mktemp("complete"))
    jetson.install("--power-mode", "0")
    return {name: digest for name, digest in jetson.files().items()}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_is_one_line_and_another_run_completes(jetson, complete, step):
    jetson.tell("active", "active")
    jetson.tell("fail", step)
    status, out, err = jetson.run("--model", jetson.model, "--codebook", jetson.codebook,
                                  "--power-mode", "0")
    assert status == 1 and one_error(err), out + err
    # What was running before runs again, whatever the installation got to.
    assert (jetson.told / "active").exists()
    jetson.forget("fail")
    jetson.install("--power-mode", "0")
    assert jetson.files() == complete


def interrupted(jetson, step, number):
    """Runs the program until it is at a step, then sends a signal to it and all it started."""
    jetson.tell("active", "active")
    jetson.tell("hang", step)
    running = jetson.start("--model", jetson.model, "--codebook", jetson.codebook,
                           "--power-mode", "0")
    deadline = time.monotonic() + 60
    while not (jetson.told / "hanging").exists():
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.02)
    os.killpg(running.pid, number)
    running.communicate(timeout=240)
    jetson.forget("hang")
    return running.returncode


@pytest.mark.parametrize("step", ["python3.6.txt", "reinstall", "tmpfiles", "cluster build"])
def test_after_a_power_cut_another_run_completes(jetson, complete, step):
    assert interrupted(jetson, step, signal.SIGKILL) == -signal.SIGKILL
    jetson.install("--power-mode", "0")
    assert jetson.files() == complete


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interruption_starts_the_service_again(jetson, number, status):
    assert interrupted(jetson, "cluster build", number) == status
    assert jetson.calls()[-1] == "systemctl --no-block start jetson-cluster"
