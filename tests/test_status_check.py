"""`jetson-cluster status --check`: what a container's health check asks, and its answers."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from statuses import status
from jetson_cluster import health
from jetson_cluster.lock import lock_folder
from jetson_cluster.starting import FILE_NAME, Starting, underway
from jetson_cluster.verbs.status import health_trouble

COMMAND = [sys.executable, "-m", "jetson_cluster", "status"]
NOON = 1714564800.0  # 2024-05-01T12:00:00Z
STATUS = status(written_at="2024-05-01T12:00:00Z", running=True, process=7)


def iso(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


@pytest.fixture
def rover(tmp_path):
    """A config over a state folder that has no status yet."""
    (tmp_path / "state").mkdir()
    config = tmp_path / "config.yaml"
    config.write_text("state_dir: state\nmodel: model.onnx\ninbox: {path: inbox}\n")
    return config


def write(rover, **changes):
    health.write_status(str(rover.parent / "state" / "status.json"), dict(STATUS, **changes))


@contextlib.contextmanager
def a_daemon_holds(rover):
    """This process holds the folder's lock, as a daemon does; the check runs in another one."""
    with lock_folder(str(rover.parent / "state")):
        yield


def check(rover, *arguments):
    """Runs the check; returns exit code, standard output and standard error."""
    done = subprocess.Popen(COMMAND + ["--config", str(rover), "--check"] + list(arguments),
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = done.communicate(timeout=120)
    return done.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("age_s, sound", [
    (0, True), (299, True), (301, False), (-299, True), (-301, False), (1e9, False)])
def test_a_status_must_be_of_the_last_minutes_by_either_side_of_the_clock(age_s, sound):
    trouble = health_trouble(STATUS, NOON + age_s, 5.0)
    assert (trouble == "") is sound
    if not sound:
        assert "process 7" in trouble and "2024-05-01T12:00:00Z" in trouble
        assert "5 minutes" in trouble


def test_a_daemon_that_ended_is_told_from_one_that_is_stuck():
    assert "does not run" in health_trouble(dict(STATUS, running=False), NOON, 5.0)


@pytest.mark.parametrize("damaged", ["", "yesterday", "2024-05-01", "2024-13-01T12:00:00Z"])
def test_a_time_that_is_none_is_no_health(damaged):
    assert "damaged" in health_trouble(dict(STATUS, written_at=damaged), NOON, 5.0)


def test_a_living_daemon_passes_without_a_word(rover):
    write(rover, written_at=iso(time.time()), process=os.getpid())
    with a_daemon_holds(rover):
        assert check(rover) == (0, "", "")


def test_a_daemon_that_was_killed_fails_in_one_line(rover):
    write(rover, written_at=iso(time.time()))  # its last status says that it runs
    code, out, err = check(rover)
    assert (code, out, len(err.splitlines())) == (1, "", 1) and "does not run" in err


def test_a_stuck_daemon_fails_in_one_line(rover):
    write(rover, written_at=iso(time.time() - 1000))
    with a_daemon_holds(rover):
        code, out, err = check(rover)
        assert (code, out, len(err.splitlines())) == (1, "", 1) and "stuck" in err
        assert check(rover, "30")[0] == 0


def test_no_status_yet_fails_with_exit_1_and_a_wrong_config_with_2(rover):
    code, _, err = check(rover)
    assert (code, len(err.splitlines())) == (1, 1) and "status.json" in err
    rover.write_text("stat_dir: state\n")
    assert check(rover)[0] == 2


@pytest.mark.parametrize("wrong", ["0", "-1", "soon", "inf", "nan"])
def test_minutes_that_are_none_are_refused(rover, wrong):
    code, _, err = check(rover, wrong)
    assert code == 2 and err.endswith(
        "argument --check: a number of minutes above 0, not '%s'\n" % wrong)


def test_the_check_of_a_real_daemon_follows_its_life(rover, tiny):
    rover.write_text("state_dir: state\nmodel: %s\nembedder: onnxruntime\nthreads: 1\n"
                     "policy: policy.yaml\ninbox: {path: inbox}\norders: {path: orders}\n"
                     % json.dumps(str(tiny)))
    (rover.parent / "inbox").mkdir()
    with open(str(rover.parent / "log"), "wb") as log:
        daemon = subprocess.Popen([sys.executable, "-m", "jetson_cluster", "run",
                                   "--config", str(rover)], stderr=log)
    try:
        deadline = time.monotonic() + 60
        while check(rover)[0] != 0:
            assert time.monotonic() < deadline and daemon.poll() is None
        daemon.send_signal(signal.SIGKILL)
        daemon.wait(30)
        assert check(rover)[0] == 1
    finally:
        if daemon.poll() is None:
            daemon.kill()
            daemon.wait(30)


def test_a_daemon_that_builds_its_engine_for_minutes_is_well_and_says_what_it_does(rover):
    """Whatever status a process before it left; but not for longer than it asked for."""
    state = rover.parent / "state"
    write(rover, written_at=iso(time.time() - 3600))
    starting = Starting(str(state), health.Notifier({}), time.monotonic)
    with a_daemon_holds(rover):
        starting("building the engine for model.onnx", 1800)
        assert check(rover) == (0, "", "")
        done = subprocess.run(COMMAND + ["--config", str(rover)], stdout=subprocess.PIPE, timeout=60)
        assert done.returncode == 0
        assert done.stdout.decode() == "daemon      starting: building the engine for model.onnx\n"
        starting("building the engine for model.onnx", -1)
        assert check(rover)[0] == 1
        starting("building the engine for model.onnx", 1800)
        starting.ready()
        assert check(rover)[0] == 1
        starting("building the engine for model.onnx", 1800)
    assert check(rover)[0] == 1  # it ended while it started


@pytest.mark.parametrize("content", [b"", b"[]", b'{"doing": "x"}', b'{"doing": 1, "until_s": "x"}'])
def test_a_damaged_note_of_a_start_is_no_start(tmp_path, content, caplog):
    (tmp_path / FILE_NAME).write_bytes(content)
    assert underway(str(tmp_path), 0.0) == "" and "StartUnreadable" in caplog.text
