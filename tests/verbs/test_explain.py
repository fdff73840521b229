"""The verb `explain`: the arithmetic of a place, and why something is in no place."""

import json

import pytest
from operated import AT, Operations

from jetson_cluster.records import Refusal


@pytest.fixture
def rover(tmp_path):
    with Operations(tmp_path) as made:
        yield made


def explain(rover, capsys, target, *more):
    assert rover.command("explain", target, *more) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_the_factors_multiply_to_the_score(rover, capsys):
    images = rover.add(100, 100, 100)
    told = json.loads(explain(rover, capsys, "sol0001.jpg", "--json"))
    assert (told["rank"], told["image"], told["state"]) == (2, images[1], "queued")
    product = 1.0
    for value in told["factors"].values():
        product *= value
    assert product == pytest.approx(told["score"], rel=1e-5)
    assert told["account"] == [] and told["sent"] is None
    people = explain(rover, capsys, rover.sha(images[1])[:8])
    assert "rank 2 of the queue" in people and "%.4g" % told["score"] in people


def test_a_sent_and_acknowledged_image_says_in_which_pass_and_who_said_so(rover, capsys):
    image, = rover.add(100)
    rover.catalog.begin_pass([image], [], 100, "order 46", AT)
    assert "sent in pass 1, made at %s (order 46)" % AT in explain(rover, capsys, "sol0000.jpg")
    rover.command("ack", "--pass", "1")
    capsys.readouterr()
    people = explain(rover, capsys, "sol0000.jpg")
    assert "acknowledged" in people and "command line: ack, applied" in people


def test_a_held_image_says_since_which_order(rover, capsys):
    image, = rover.add(100)
    orders = rover.folder / "o.csv"
    orders.write_text("42,hold,%s\n" % rover.sha(image)[:7].upper())
    rover.command("apply", orders)
    capsys.readouterr()
    people = explain(rover, capsys, "sol0000.jpg")
    assert ", by order 42 (by hand, o.csv)" in people
    told = json.loads(explain(rover, capsys, "sol0000.jpg", "--json"))
    assert [(one["action"], one["order_id"]) for one in told["account"]] == [("hold", "42")]


def test_a_held_image_names_the_hold_that_held_it_not_one_that_changed_nothing(rover, capsys):
    rover.add(100)
    rover.catalog.audit("2026-01-01T00:00:00Z", "test", None, "hold", "sol0000.jpg", "applied", "")
    rover.catalog.move("hold", [1])
    rover.catalog.audit("2026-01-02T00:00:00Z", "test", None, "hold", "sol0000.jpg", "unchanged", "")
    assert "held since 2026-01-01T00:00:00Z, by test" in explain(rover, capsys, "sol0000.jpg")


def test_the_account_speaks_of_this_image_and_no_other(rover, capsys):
    images = rover.add(100, 100, names=["a.jpg", "ba.jpg"])
    for target in ("ba.jpg", rover.sha(images[1]), str(rover.inbox / "ba.jpg")):
        rover.command("pin", target)
    rover.command("hold", "none.jpg")
    capsys.readouterr()
    assert json.loads(explain(rover, capsys, "a.jpg", "--json"))["account"] == []
    assert len(json.loads(explain(rover, capsys, "ba.jpg", "--json"))["account"]) == 3


def test_an_image_that_waits_to_be_embedded_has_no_place(rover, capsys):
    rover.add(100, embedded=False)
    told = json.loads(explain(rover, capsys, "sol0000.jpg", "--json"))
    assert told["state"] == "waiting" and told["rank"] is None


def test_near_duplicates_are_named(rover, capsys):
    images = rover.add(100, 100, 100)
    rover.catalog._db.execute("UPDATE images SET twin = ? WHERE id IN (?, ?)",
                              (images[0], images[0], images[1]))
    told = json.loads(explain(rover, capsys, "sol0001.jpg", "--json"))
    assert [twin["image"] for twin in told["near_duplicates"]] == [images[0]]


def unknown(rover, capsys, target):
    assert rover.command("explain", target) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    return err


def test_a_file_elsewhere_is_said_to_be_elsewhere(rover, capsys, tmp_path):
    path = tmp_path / "elsewhere.jpg"
    path.write_text("whatever")
    assert "is not below the inbox, " in unknown(rover, capsys, str(path))


def test_a_refused_file_says_why_it_is_no_image(rover, capsys):
    path = rover.inbox / "notes.jpg"
    path.write_text("no image")
    rover.catalog.record([], None, [Refusal(str(path), 8, 1, "damaged", "cut short", AT)])
    for target in ("notes.jpg", str(path)):
        assert "notes.jpg is no usable image: cut short (damaged" in unknown(rover, capsys, target)


@pytest.mark.parametrize("name, why", [
    ("new.jpg", "is not catalogued yet; does the daemon run?"),
    ("new.jpg.part", "by its name it is hidden or not finished")])
def test_a_file_in_the_inbox_that_is_not_catalogued_says_why(rover, capsys, name, why):
    (rover.inbox / name).write_text("x")
    assert why in unknown(rover, capsys, name)


def test_what_is_nowhere_is_said_to_be_nowhere(rover, capsys):
    err = unknown(rover, capsys, "none.jpg")
    assert "no image is called none.jpg" in err and str(rover.inbox) in err
    (rover.inbox / "link.jpg").symlink_to("nowhere")
    assert "it is no regular file" in unknown(rover, capsys, "link.jpg")


def test_a_name_that_several_have_is_refused_with_them(rover, capsys):
    rover.add(100, 100, names=["left/a.jpg", "right/a.jpg"])
    err = unknown(rover, capsys, "a.jpg")
    assert "left/a.jpg" in err and "right/a.jpg" in err
    assert "explain takes one image" in unknown(rover, capsys, "pass:1")
