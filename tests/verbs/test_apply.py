"""The verb `apply`: an order file followed by hand does what the drop folder would."""

import json

import pytest
from operated import Operations


@pytest.fixture
def rover(tmp_path):
    with Operations(tmp_path) as made:
        yield made


def write(rover, name, text):
    path = rover.folder / name
    path.write_text(text)
    return path


def test_a_file_is_followed_and_stays_where_it_is(rover, capsys):
    rover.add(100, 100, 100)
    path = write(rover, "sol400.yaml", "- {id: 1, hold: sol0000.jpg}\n- {id: 2, pass: 100}\n")
    assert rover.command("apply", path) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "sol400.yaml line 1: applied: order 1: held sol0000.jpg (was queued)",
        "sol400.yaml line 2: applied: order 2: pass 1: 1 image, 100 B of 100 B"]
    assert err == "" and path.exists() and rover.states() == ["held", "sent", "queued"]
    before = rover.everything()
    assert rover.command("apply", path) == 0
    assert capsys.readouterr().out.count("repeated: order") == 2
    assert rover.everything() == before


def test_refused_orders_are_named_by_file_and_line_and_the_others_hold(rover, capsys):
    rover.add(100)
    path = write(rover, "a.csv", "1,hld,sol0000.jpg\n2,hold,sol0000.jpg\n3,pin,none.jpg\n")
    assert rover.command("apply", path) == 2
    out, err = capsys.readouterr()
    assert out == "a.csv line 2: applied: order 2: held sol0000.jpg (was queued)\n"
    first, second = err.splitlines()
    assert "error: a.csv line 1: refused: order 1: no action is called 'hld'" in first
    assert "error: a.csv line 3: refused: order 3: no image is called none.jpg" in second


def test_json_tells_of_every_line(rover, capsys):
    rover.add(100)
    path = write(rover, "a.csv", "1,hld,sol0000.jpg\n2,hold,sol0000.jpg\n")
    assert rover.command("apply", path, "--json") == 2
    told = json.loads(capsys.readouterr().out)
    assert [(one["line"], one["id"], one["result"]) for one in told] == [
        (1, "1", "refused"), (2, "2", "applied")]


@pytest.mark.parametrize("name, text, why", [
    ("a.txt", "", "a.txt: refused: its name must end in .yaml or .csv"),
    ("a.yaml", "\n- {id: 1", "a.yaml line 2: refused: its YAML is broken"),
    ("none.csv", None, "none.csv: cannot be read: No such file or directory")])
def test_a_file_that_is_none_is_one_line(rover, capsys, name, text, why):
    path = rover.folder / name if text is None else write(rover, name, text)
    assert rover.command("apply", path) == 2
    err = capsys.readouterr().err
    assert why in err and len(err.splitlines()) == 1


def test_an_empty_file_says_that_it_is(rover, capsys):
    assert rover.command("apply", write(rover, "a.csv", "# nothing today\n")) == 0
    assert capsys.readouterr().out == "a.csv: no orders in it\n"


def test_drop_folder_and_hand_share_their_ids(rover, capsys):
    rover.add(100)
    path = write(rover, "a.csv", "7,hold,sol0000.jpg\n")
    rover.command("apply", path)
    other = write(rover, "b.csv", "7,pin,sol0000.jpg\n")
    assert rover.command("apply", other) == 2
    assert "id 7 was used for: hold sol0000.jpg" in capsys.readouterr().err
