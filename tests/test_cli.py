"""The command as people and systemd use it: exit codes, one-line errors, clean ends."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from jetson_cluster.verbs.queue import when

COMMAND = [sys.executable, "-m", "jetson_cluster"]


def call(*arguments):
    """Run the command: (exit code, standard output, standard error)."""
    done = subprocess.Popen(COMMAND + [str(argument) for argument in arguments],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = done.communicate(timeout=120)
    return done.returncode, out.decode(), err.decode()


def fails_with_one_line(code, err):
    """The one line on standard error of a failure the user can mend."""
    lines = [line for line in err.splitlines() if "jetson-cluster: error:" in line]
    assert len(lines) == 1 and "Traceback" not in err, err
    assert code == 2
    return lines[0]


def save_noise(path, seed):
    random = np.random.RandomState(seed)
    Image.fromarray(random.randint(0, 256, (40, 40, 3)).astype(np.uint8)).save(str(path))


@pytest.fixture
def rover(tmp_path, tiny):
    """A config file over fresh folders, with five images in the inbox."""
    (tmp_path / "inbox").mkdir()
    for seed in range(5):
        save_noise(tmp_path / "inbox" / ("%d.png" % seed), seed)
    config = tmp_path / "config.yaml"
    config.write_text(
        "state_dir: state\nmodel: {}\ncodebook: codebook.npz\npolicy: policy.yaml\n"
        "embedder: onnxruntime\nthreads: 1\ninbox: {{path: inbox, settle_s: 0.05}}\n"
        "orders: {{path: orders}}\nretention: {{free_bytes: 0}}\n".format(tiny))
    (tmp_path / "orders").mkdir()
    return config


def test_once_then_queue_and_status_tell_people_what_there_is(rover):
    (rover.parent / "inbox" / "notes.txt").write_text("no image")
    code, _, err = call("once", "--config", rover)
    assert code == 0 and "notes.txt" in err
    code, out, _ = call("queue", "--config", rover, "--rows", 3)
    assert code == 0 and "3 of 5 rows" in out and len(out.splitlines()) == 5
    code, out, _ = call("status", "--config", rover)
    assert code == 0 and "5 queued" in out and "notes.txt" in out and "not running" in out


def test_queue_and_status_speak_json_to_machines(rover):
    call("once", "--config", rover)
    rows = json.loads(call("queue", "--config", rover, "--rows", 0, "--json")[1])
    status = json.loads(call("status", "--config", rover, "--json")[1])
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert status["images"]["queued"] == 5 and status["running"] is False


def test_sigterm_finishes_what_is_begun_and_exits_0(rover):
    with open(str(rover.parent / "log"), "w") as log:
        running = subprocess.Popen(COMMAND + ["run", "--config", str(rover)], stderr=log)
    status = rover.parent / "state" / "status.json"
    deadline = time.monotonic() + 60
    while not status.exists():
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.05)
    for seed in range(5, 60):
        save_noise(rover.parent / "inbox" / ("%d.png" % seed), seed)
    time.sleep(0.5)
    assert json.loads(call("status", "--config", rover, "--json")[1])["running"] is True
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 0
    ended = json.loads(status.read_text())
    assert ended["running"] is False and "Stopped" in (rover.parent / "log").read_text()
    rows = json.loads(call("queue", "--config", rover, "--rows", 0, "--json")[1])
    assert len(rows) == ended["images"]["queued"] > 0


@pytest.mark.parametrize("content, told", [
    ("inbx: {}", "did you mean 'inbox'"),
    ("batch: many", "'batch' must be a whole number"),
    ("[1, 2", "not valid YAML"),
    ("model: /nowhere/model.onnx", "/nowhere/model.onnx"),
    ("inbox: {settle_s: -1}\nqueue: {rows: 0}", "2 mistakes"),
])
def test_a_wrong_config_is_one_line_that_names_file_and_key(rover, content, told):
    rover.write_text(content + "\nstate_dir: state\n" if content != "[1, 2" else content)
    code, _, err = call("run", "--config", rover)
    line = fails_with_one_line(code, err)
    assert told in line


def test_no_config_at_all_is_one_line(tmp_path):
    code, _, err = call("run", "--config", tmp_path / "none.yaml")
    assert "none.yaml" in fails_with_one_line(code, err)


def test_a_model_that_is_no_network_is_one_line(rover, tiny, tmp_path):
    model = tmp_path / "broken.onnx"
    model.write_bytes(b"this is no network")
    recipe = tiny.replace(".onnx", ".recipe.yaml")
    code, _, err = call("once", "--config", rover, "--set", "model=%s" % model,
                        "--set", "recipe=%s" % recipe)
    assert "broken.onnx" in fails_with_one_line(code, err)


def test_a_recipe_of_another_size_than_its_model_is_one_line(rover, tiny, tmp_path):
    recipe = tmp_path / "wrong.yaml"
    with open(tiny.replace(".onnx", ".recipe.yaml")) as stream:
        recipe.write_text(stream.read().replace("width: 32, height: 32", "width: 64, height: 64"))
    code, _, err = call("once", "--config", rover, "--set", "recipe=%s" % recipe)
    assert "64" in fails_with_one_line(code, err)


def test_a_catalog_of_another_model_is_refused_by_name(rover, tiny, tmp_path):
    call("once", "--config", rover)
    recipe = tmp_path / "other.yaml"
    with open(tiny.replace(".onnx", ".recipe.yaml")) as stream:
        recipe.write_text(stream.read().replace("name: tiny", "name: another"))
    code, _, err = call("once", "--config", rover, "--set", "recipe=%s" % recipe)
    line = fails_with_one_line(code, err)
    assert "tiny/pooled" in line and "another/pooled" in line and "catalog.sqlite" in line


def test_names_that_the_terminal_cannot_show_are_shown_in_part(rover):
    odd = os.fsencode(str(rover.parent / "inbox")) + b"/caf\xe9-\xc3\xa9.txt"
    with open(odd, "wb") as stream:
        stream.write(b"no image")
    call("once", "--config", rover)
    for language in ("C", "C.UTF-8"):
        done = subprocess.Popen(COMMAND + ["status", "--config", str(rover)],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=dict(os.environ, LC_ALL=language, PYTHONCOERCECLOCALE="0"))
        out, err = done.communicate(timeout=60)
        assert done.returncode == 0 and b"caf" in out and not err


def test_no_name_breaks_the_table_or_colours_the_terminal(rover):
    for number, name in enumerate(("two\nlines.png", "\x1b[31mred.png", "bell\x07\x9b.png")):
        save_noise(rover.parent / "inbox" / name, 50 + number)
    (rover.parent / "inbox" / "\x1b[2Jno\nimage").write_text("text")
    call("once", "--config", rover)
    code, out, _ = call("queue", "--config", rover)
    assert code == 0 and len(out.splitlines()) == 1 + 8 + 1
    assert "two\\x0alines.png" in out and "\\x1b[31mred.png" in out and "bell\\x07\\x9b" in out
    status = call("status", "--config", rover)[1]
    assert "\\x1b[2Jno\\x0aimage" in status
    assert all(letter.isprintable() or letter == "\n" for letter in out + status)


def test_a_negative_number_of_rows_is_one_line(rover):
    code, _, err = call("queue", "--config", rover, "--rows", -5)
    assert "--rows -5" in fails_with_one_line(code, err)


def test_the_queue_says_how_old_it_is(rover):
    call("once", "--config", rover)
    path = str(rover.parent / "state" / "queue.csv")
    os.utime(path, (1000000000, 1000000000))
    last = call("queue", "--config", rover)[1].splitlines()[-1]
    assert last.endswith("at 2001-09-09T01:46:40Z") and " days ago" in last


@pytest.mark.parametrize("ago_s, words", [
    (0, "0 s ago, at "), (12.9, "12 s ago, at "), (119, "119 s ago"), (120, "2 min ago"),
    (7199, "119 min ago"), (7200, "2 h ago"), (172799, "47 h ago"), (172800, "2 days ago"),
    (-3, "at 2001-09-09T01:46:40Z, by a clock ahead of this one")])
def test_an_age_is_told_in_the_unit_that_fits(ago_s, words):
    assert when(1000000000, 1000000000 + ago_s).startswith(words)


@pytest.mark.parametrize("content", ["[]", "{}", "null", "{\"running\": true, \"process\": 1}"])
def test_a_status_of_another_version_is_one_line(rover, content):
    call("once", "--config", rover)
    (rover.parent / "state" / "status.json").write_text(content)
    for more in ((), ("--json",)):
        code, _, err = call("status", "--config", rover, *more)
        assert "of another version or damaged" in fails_with_one_line(code, err)


def test_a_daemon_that_was_killed_is_not_running_though_its_number_lives(rover):
    call("once", "--config", rover)
    path = rover.parent / "state" / "status.json"
    status = json.loads(path.read_text())
    path.write_text(json.dumps(dict(status, running=True, process=os.getpid())))
    assert "not running" in call("status", "--config", rover)[1]


def test_a_reader_that_stops_reading_causes_no_complaint(rover):
    call("once", "--config", rover)
    done = subprocess.Popen(
        "%s -m jetson_cluster queue --config %s | head -n 1" % (sys.executable, rover),
        shell=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _, err = done.communicate(timeout=60)
    assert err == b""


def shell(words):
    done = subprocess.Popen(words, shell=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            executable="/bin/bash")
    out, err = done.communicate(timeout=60)
    return done.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("words", ["queue", "queue --json", "status", "explain 0.png", "pin 0.png",
                                   "apply orders.csv"])
def test_output_that_fails_is_one_line_a_reader_that_is_gone_none_and_none_at_all_is_fine(
        rover, words):
    call("once", "--config", rover)
    (rover.parent / "orders.csv").write_text("1,hold,1.png\n")
    verb, _, more = words.partition(" ")
    command = "cd %s; PYTHONPATH=%s %s -m jetson_cluster %s --config %s %s" % (
        rover.parent, os.getcwd(), sys.executable, verb, rover, more)
    code, _, err = shell(command + " >/dev/full")
    assert (code, err) == (1, "jetson-cluster: error: standard output: cannot be written to: No "
                              "space left on device\n")
    assert shell("(%s; echo $? >&2) | true" % command)[2] == "0\n"
    assert shell(command + " >&-") == (0, "", "")
    assert shell(command + " >&- <&-") == (0, "", "")


@pytest.mark.parametrize("words", ["--help", "--version", "pass --help"])
def test_help_that_cannot_be_written_is_one_line_and_a_reader_that_is_gone_none(words):
    command = "%s -m jetson_cluster %s" % (sys.executable, words)
    code, _, err = shell(command + " >/dev/full")
    assert (code, err) == (1, "jetson-cluster: error: standard output: cannot be written to: No "
                              "space left on device\n")
    assert shell("(sleep 0.1; %s; echo $? >&2) | true" % command)[2] == "0\n"


def test_the_doctor_needs_no_output(rover):
    code, out, err = shell("%s -m jetson_cluster doctor --config %s >&-" % (sys.executable, rover))
    assert code in (0, 1) and (out, err) == ("", "")


def test_help_lists_every_verb_and_works_without_any_config():
    code, out, _ = call("--help")
    assert code == 0
    for verb in ("run", "once", "queue", "explain", "pass", "ack", "nack", "resend", "hold",
                 "release", "pin", "unpin", "apply", "status", "build", "doctor", "export", "fit"):
        assert "\n    %s " % verb in out
    assert call("queue", "--help")[0] == 0


def test_under_systemd_lines_carry_their_priority(rover):
    (rover.parent / "inbox" / "notes.txt").write_text("no image")
    done = subprocess.Popen(COMMAND + ["once", "--config", str(rover)], stderr=subprocess.PIPE,
                            env=dict(os.environ, JOURNAL_STREAM="8:1"))
    lines = done.communicate(timeout=60)[1].decode().splitlines()
    assert all(line.startswith("<") for line in lines)
    assert any(line.startswith("<4>FileRefused") for line in lines)
