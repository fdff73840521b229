"""The verb `pass`: what goes down next, in the form that people and radios want it."""

import csv
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest
from operated import Operations

from jetson_cluster.downlink import QueueRow, write_queue


@pytest.fixture
def rover(tmp_path):
    with Operations(tmp_path) as made:
        yield made


def paths(rover, *numbers):
    return [str(rover.inbox / ("sol%04d.jpg" % number)) for number in numbers]


def test_a_pass_is_printed_for_people_with_its_sum_and_what_is_left(rover, capsys):
    rover.add(1500, 3000, 500)
    assert rover.command("pass", "--budget", "2.5 kB") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split() == ["kind", "size", "sum", "path"]
    assert lines[1].split() == ["1", "image", "1.5", "kB", "1.5", "kB", paths(rover, 0)[0]]
    assert lines[2].split() == ["2", "image", "500", "B", "2.0", "kB", paths(rover, 2)[0]]
    assert lines[3] == "pass 1: 2 images, 0 previews, 2.0 kB of 2.5 kB; 500 B left over"
    assert len(lines) == 4 and err == ""
    assert rover.states() == ["sent", "queued", "sent"]
    row, = rover.catalog.audit_rows(5)
    assert (row.origin, row.action, row.target, row.result) == (
        "command line", "pass", "2500", "applied")


def test_paths_are_printed_one_a_line_or_with_zero_bytes_between(rover, capsysbinary):
    rover.add(100, 100, names=["caf\udce9.jpg", "two\nlines.jpg"])
    here = os.fsencode(str(rover.inbox))
    assert rover.command("pass", "--budget", "200", "-0") == 0
    assert capsysbinary.readouterr().out == (
        here + b"/caf\xe9.jpg\0" + here + b"/two\nlines.jpg\0")
    assert rover.command("pass", "--show", "1", "--paths") == 0
    out, err = capsysbinary.readouterr()
    assert out == here + b"/caf\xe9.jpg\n" + here + b"/two\nlines.jpg\n"
    assert b"a path holds a line break; take -0" in err
    assert rover.command("pass", "--show", "1", "--paths", "-0") == 0
    assert capsysbinary.readouterr().out == (
        here + b"/caf\xe9.jpg\0" + here + b"/two\nlines.jpg\0")


def test_csv_and_json_say_the_same_for_machines(rover, capsys):
    rover.add(100, 100, previews=10)
    (rover.folder / "policy.yaml").write_text("previews: first\n")
    assert rover.command("pass", "--budget", "120", "--csv") == 0
    out = capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    assert list(rows[0]) == ["pass", "kind", "bytes", "cumulative_bytes", "sha256", "path"]
    assert [(row["pass"], row["kind"], row["bytes"], row["cumulative_bytes"]) for row in rows] == [
        ("1", "preview", "10", "10"), ("1", "preview", "10", "20"), ("1", "image", "100", "120")]
    for row in rows[:2]:
        with open(row["path"], "rb") as stream:
            assert stream.read() == b"p" * 10
    assert rover.command("pass", "--show", "1", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pass"] == 1 and told["bytes"] == 120 and told["left_bytes"] == 0
    assert [{key: str(value) for key, value in row.items()} for row in told["files"]] == [
        dict(row) for row in rows]
    assert told["made_before"] is True


def test_a_dry_run_says_it_is_none_and_changes_nothing(rover, capsys):
    rover.add(100, 100)
    before = rover.everything()
    assert rover.command("pass", "--budget", "100", "--dry-run") == 0
    assert "not made: a pass: 1 image" in capsys.readouterr().out
    assert rover.everything() == before and not rover.catalog.audit_rows(1)


def test_a_dry_run_has_no_number_in_any_form(rover, capsys):
    rover.add(100)
    assert rover.command("pass", "--budget", "100", "--dry-run", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pass"] is None and told["files"][0]["pass"] is None
    assert rover.command("pass", "--budget", "100", "--dry-run", "--csv") == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(",image,100,100,")


def test_with_an_outbox_a_pass_is_refused_and_a_dry_run_is_not(rover, capsys):
    rover.add(100)
    outbox = ("--set", "outbox.path=%s" % (rover.folder / "outbox"))
    assert rover.command("pass", "--budget", "4MB", *outbox) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    assert "outbox.path is set (%s)" % (rover.folder / "outbox") in err
    assert rover.states() == ["queued"]
    assert rover.command("pass", "--budget", "4MB", "--dry-run", "--paths", *outbox) == 0
    assert capsys.readouterr().out.splitlines() == paths(rover, 0)


def test_a_pass_that_had_no_budget_is_shown_without_a_remainder(rover, capsys):
    rover.catalog.begin_pass(rover.add(1500), [], 0, "outbox", "2026-01-02T03:04:05Z")
    assert rover.command("pass", "--show", "1") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "pass 1: 1 image, 0 previews, 1.5 kB"
    assert rover.command("pass", "--show", "1", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["budget_bytes"], told["bytes"], told["left_bytes"]) == (None, 1500, None)


def test_an_empty_pass_is_said_on_standard_error_and_is_no_failure(rover, capsys):
    assert rover.command("pass", "--budget", "4MB", "--paths") == 0
    assert capsys.readouterr() == ("", "jetson-cluster: no pass; no image is queued\n")
    assert rover.catalog.last_pass == 0


def test_the_same_number_prints_the_same_pass_and_changes_nothing(rover, capsys):
    rover.add(100, 100, 100)
    rover.command("pass", "--budget", "200", "--number", "1", "--paths")
    first, before = capsys.readouterr().out, rover.everything()
    assert rover.command("pass", "--budget", "200", "--number", "1", "--paths") == 0
    out, err = capsys.readouterr()
    assert out == first and "made before, at " in err
    assert rover.everything() == before


@pytest.mark.parametrize("words, why", [
    (("--budget", "4Mb"), "--budget '4Mb': not an amount of bytes"),
    (("--budget", "-1"), None), ((), None), (("--budget", "1kB", "--show", "1"), None),
    (("--budget", "1kB", "--csv", "--json"), None),
    (("--budget", "1kB", "--csv", "-0"), "-0 prints paths; it takes no --csv, no --json"),
    (("--show", "0"), "--show 0: passes are numbered from 1"),
    (("--show", "1"), "pass 1: there was none; the last one is 0"),
    (("--show", "1", "--number", "1"), "it takes no --number"),
    (("--budget", "1kB", "--number", "5"), "numbers go up by one; the next pass is 1")])
def test_what_makes_no_sense_is_one_line(rover, capsys, words, why):
    rover.add(100)
    if why is None:  # argparse says it
        with pytest.raises(SystemExit) as ended:
            rover.command("pass", *words)
        assert ended.value.code == 2
    else:
        assert rover.command("pass", *words) == 2
        err = capsys.readouterr().err
        assert why in err and len(err.splitlines()) == 1
    assert rover.states() == ["queued"]


def test_without_a_catalog_it_says_so_and_makes_none(tmp_path, capsys):
    rover = Operations(tmp_path)
    rover.catalog.close()
    for path in rover.state.glob("*"):
        path.unlink()
    from jetson_cluster import cli

    assert cli.main(["pass", "--config", str(rover.config()), "--budget", "4MB"]) == 2
    err = capsys.readouterr().err
    assert "is not there; has the daemon run" in err and len(err.splitlines()) == 1
    assert list(rover.state.glob("*")) == []


def test_an_inbox_that_is_not_there_is_said_and_nothing_is_called_missing(rover, capsys):
    rover.add(100)
    rover.inbox.rename(rover.folder / "unplugged")
    assert rover.command("pass", "--budget", "4MB") == 0
    assert "the inbox is not there (unmounted?)" in capsys.readouterr().err
    assert rover.states() == ["queued"]


def test_while_images_are_placed_anew_the_published_queue_is_taken_and_that_is_said(rover, capsys):
    images = rover.add(100, 100)
    write_queue(str(rover.state / "queue.csv"), [QueueRow(
        1, "0.5", "queued", "", "", "", "", 100, 100, "", "", rover.sha(images[1]), "/x")])
    rover.catalog.begin_placing("another", "test", 64, True)
    assert rover.command("pass", "--budget", "4MB", "--paths") == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == paths(rover, 1) and "images are being placed anew" in err


# ---- output that fails, and other processes: the real command ------------------------------------


def run(rover, words, **more):
    command = [sys.executable, "-m", "jetson_cluster", words[0], "--config", str(rover.config())]
    return subprocess.Popen(command + list(words[1:]), stderr=subprocess.PIPE, **more)


def test_a_list_that_cannot_be_written_fails_and_says_how_to_see_it_again(rover, capsys):
    rover.add(100, 100)
    with open("/dev/full", "wb") as full:
        done = run(rover, ["pass", "--budget", "100", "--paths"], stdout=full)
        err = done.communicate(timeout=60)[1].decode()
    assert done.returncode == 1 and len(err.splitlines()) == 1
    assert "No space left" in err and "jetson-cluster pass --show 1" in err
    assert rover.command("pass", "--show", "1", "--paths") == 0
    assert capsys.readouterr().out.splitlines() == paths(rover, 0)


def test_a_reader_that_is_gone_is_a_failure_for_a_pass(rover):
    rover.add(100)
    reading, writing = os.pipe()
    os.close(reading)
    done = run(rover, ["pass", "--budget", "100", "--csv"], stdout=writing)
    os.close(writing)
    err = done.communicate(timeout=60)[1].decode()
    assert done.returncode == 1 and "pass --show 1" in err and "Exception" not in err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_as_root_it_becomes_the_owner_so_that_no_file_of_root_appears():
    # Not below pytest's own folder, which nobody else may enter.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        with Operations(pathlib.Path(folder)) as rover:
            rover.add(100, 100, previews=10)
            (rover.folder / "policy.yaml").write_text("previews: first\n")
            for path in [rover.state] + list(rover.state.glob("*")):
                os.chown(str(path), 65534, 65534)
            done = run(rover, ["pass", "--budget", "1kB", "--paths"], stdout=subprocess.PIPE)
            out, err = done.communicate(timeout=60)
            assert (done.returncode, err) == (0, b"") and len(out.splitlines()) == 4
            made = {path.name: path.stat().st_uid for path in rover.state.rglob("*")}
            assert set(made.values()) == {65534} and {"journal", "previews"} <= set(made)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_whoever_may_not_write_there_is_told_whom_to_become():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        with Operations(pathlib.Path(folder)) as rover:
            rover.add(100)

            # Once all is imported, which may lie where nobody else may read.
            become = ("import os, sys; from jetson_cluster import cli; "
                      "from jetson_cluster.verbs import pass_; os.setgid(65534); "
                      "os.setuid(65534); sys.exit(cli.main(sys.argv[1:]))")
            done = subprocess.Popen(
                [sys.executable, "-c", become, "pass", "--config", str(rover.config()),
                 "--budget", "1kB"], stderr=subprocess.PIPE)
            err = done.communicate(timeout=60)[1].decode()
            assert done.returncode == 2 and len(err.splitlines()) == 1
            assert "belongs to user root" in err and "sudo -u root jetson-cluster pass" in err
            assert rover.states() == ["queued"]
