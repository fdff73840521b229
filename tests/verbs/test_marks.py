"""The verbs ack, nack, resend, hold, release, pin, unpin: many images at once, each told of."""

import io
import json
import os
import sys

import pytest
from operated import AT, Operations

from jetson_cluster.records import Refusal


@pytest.fixture
def rover(tmp_path):
    with Operations(tmp_path) as made:
        yield made


def feed(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.mark.parametrize("verb, before, after", [
    ("ack", "sent", "acked"), ("nack", "sent", "queued"), ("resend", "acked", "queued"),
    ("hold", "queued", "held"), ("release", "held", "queued")])
def test_each_verb_moves_an_image_and_says_so(rover, capsys, verb, before, after):
    image, = rover.add(100)
    if before in ("sent", "acked"):
        rover.catalog.begin_pass([image], [], 100, "test", AT)
    if before in ("acked", "held"):
        rover.catalog.move({"acked": "ack", "held": "hold"}[before], [image])
    assert rover.command(verb, "sol0000.jpg") == 0
    out, err = capsys.readouterr()
    assert "sol0000.jpg (was " in out and before in out and len(out.splitlines()) == 1
    assert err == ""
    assert rover.state_of(image) == after
    assert rover.catalog.audit_rows(1)[0].origin == "command line"


def test_pin_and_unpin_change_the_head_of_the_queue(rover, capsys):
    images = rover.add(100, 100)
    assert rover.command("pin", "sol0001.jpg") == 0
    assert rover.catalog.pinned() == [images[1]]
    assert rover.command("unpin", rover.sha(images[1])[:10]) == 0
    assert rover.catalog.pinned() == []


def test_all_of_a_pass_is_acknowledged_by_its_number(rover, capsys):
    for name in ("--pass", None):
        images = rover.add(100, 100)
        number = rover.catalog.begin_pass(images, [], 200, "test", AT)
        words = ("--pass", number) if name else ("pass:%d" % number,)
        assert rover.command("ack", *words) == 0
        assert "acked 2 of the 2 images of pass %d" % number in capsys.readouterr().out
    assert rover.states() == ["acked"] * 4


def test_thousands_of_hashes_come_on_standard_input(rover, capsys, monkeypatch):
    images = rover.add(*[10] * 1200)
    hashes = [rover.sha(image) for image in images]
    rover.catalog.begin_pass(images, [], 20000, "test", AT)
    feed(monkeypatch, ("# as received\n\n" + "\r\n".join(hashes) + "\n").encode("ascii"))
    assert rover.command("ack", "-") == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 1200 and out[0] == "acked sol0000.jpg (was sent in pass 1)"
    assert set(rover.states()) == {"acked"}
    assert len(rover.catalog.audit_rows(100)) == 12


def test_an_unknown_target_is_named_and_the_others_are_done(rover, capsys, monkeypatch):
    rover.add(100, 100)
    feed(monkeypatch, b"sol0001.jpg\ncaf\xe9.jpg\n")
    assert rover.command("hold", "none.jpg", "sol0000.jpg", "-", "pass:x", "a1b2") == 2
    out, err = capsys.readouterr()
    assert [line.split()[1] for line in out.splitlines()] == ["sol0000.jpg", "sol0001.jpg"]
    assert [line[len("jetson-cluster: error: "):] for line in err.splitlines()] == [
        "no image is called none.jpg", "no image is called caf\\xe9.jpg",
        "a pass is named like pass:12, not 'pass:x'",
        "no image is called a1b2; a hash needs at least 6 digits"]
    assert rover.states() == ["held", "held"]


def test_an_ambiguous_name_is_refused_with_what_it_may_mean(rover, capsys):
    rover.add(100, 100, names=["left/a.jpg", "right/a.jpg"])
    assert rover.command("pin", "a.jpg") == 2
    err = capsys.readouterr().err
    assert "left/a.jpg" in err and "right/a.jpg" in err and rover.sha(1)[:16] in err
    assert rover.catalog.pinned() == []


def test_a_path_from_here_is_taken_for_what_it_is(rover, capsys, monkeypatch):
    rover.add(100, 100, names=["left/a.jpg", "right/a.jpg"])
    monkeypatch.chdir(str(rover.inbox))
    assert rover.command("pin", "./left/a.jpg", os.path.join("right", "a.jpg")) == 0
    assert len(rover.catalog.pinned()) == 2


def test_json_tells_of_every_target(rover, capsys):
    rover.add(100)
    assert rover.command("hold", "sol0000.jpg", "none.jpg", "--json") == 2
    held, unknown = json.loads(capsys.readouterr().out)
    assert held["result"] == "applied" and held["images"] == [
        {"sha256": rover.sha(1), "path": str(rover.inbox / "sol0000.jpg"), "before": "queued",
         "after": "held"}]
    assert unknown == {"target": "none.jpg", "result": "refused", "images": [], "candidates": [],
                       "words": "no image is called none.jpg"}


def test_no_name_moves_the_cursor_of_the_terminal(rover, capsys):
    rover.add(100, names=["\x1b[2Jred.jpg"])
    assert rover.command("hold", rover.sha(1)) == 0
    assert "held \\x1b[2Jred.jpg" in capsys.readouterr().out


def test_a_file_that_was_refused_is_named_with_its_reason(rover, capsys):
    path = rover.inbox / "cut.jpg"
    path.write_text("no image")
    rover.catalog.record([], None, [Refusal(str(path), 8, 1, "damaged", "It is cut short", AT)])
    for target in ("cut.jpg", str(path)):
        assert rover.command("hold", target) == 2
        assert capsys.readouterr().err.strip().endswith("cut.jpg is no usable image: It is cut short")


@pytest.mark.parametrize("verb, policy", [
    ("release", "holds"), ("pin", "holds"), ("unpin", "pins")])
def test_a_mark_that_the_policy_overrules_says_so(rover, capsys, verb, policy):
    rover.add(100, 100)
    file = rover.folder / "policy.yaml"
    file.write_text("%s: [%s]" % (policy, rover.sha(1)[:10]))
    words = ("--set", "policy=%s" % file)
    assert rover.command(verb, "sol0000.jpg", "sol0001.jpg", *words) == 0
    err = capsys.readouterr().err
    assert "sol0000.jpg: the policy %s it all the same ('%s' in %s)" % (policy, policy, file) in err
    assert len(err.splitlines()) == 1


def test_nothing_to_mark_is_one_line(rover, capsys):
    assert rover.command("ack") == 2
    err = capsys.readouterr().err
    assert "ack: name images: by hash" in err and len(err.splitlines()) == 1


def test_a_catalog_that_another_process_holds_is_one_line(rover, capsys, monkeypatch):
    import sqlite3

    from jetson_cluster import database

    rover.add(100)
    connect = sqlite3.connect
    # Half a minute is right for people and long for a test.
    monkeypatch.setattr(database.sqlite3, "connect", lambda path, **more: connect(
        path, **dict(more, timeout=0.1)))
    other = connect(rover.path)
    other.execute("BEGIN IMMEDIATE")
    try:
        assert rover.command("hold", "sol0000.jpg") == 1
    finally:
        other.close()
    err = capsys.readouterr().err
    assert "another process has been writing to it" in err and len(err.splitlines()) == 1
    assert rover.states() == ["queued"]
