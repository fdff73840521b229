"""A report in the place of an older one: what is kept, what goes, and after a kill at any point."""

import os

import pytest

pytest.importorskip("pyarrow", reason="the report's package needs pyarrow")
pytest.importorskip("sklearn", reason="the report's package needs scikit-learn")

from jetson_cluster.errors import UserError
from jetson_cluster.ground.report import folder

THEIRS = {"selection.csv": "path\n", "orders/pin.yaml": "pin: []\n", "sheets/notes.txt": "dunes\n",
          ".hidden": ""}


def fill(text):
    """Who makes a report that says `text`."""
    def made(path):
        for name in ("", *folder.MADE):
            os.mkdir(os.path.join(path, name))
        for name in (folder.MARKER, "index.html", "sprites/00001.webp", "sheets/cluster-00000.png"):
            put(path, {name: text})
        return text
    return made


def put(path, contents):
    for name, text in contents.items():
        os.makedirs(os.path.dirname(os.path.join(path, name)), exist_ok=True)
        with open(os.path.join(path, name), "w") as stream:
            stream.write(text)


def files(path):
    """All files in a folder: {path in it: text}."""
    return {os.path.relpath(os.path.join(at, name), path): open(os.path.join(at, name)).read()
            for at, _, names in os.walk(path) for name in names}


@pytest.fixture
def out(tmp_path):
    """A report that says "first", into which people have put files."""
    path = str(tmp_path / "report")
    assert folder.replace(path, fill("first")) == "first"
    put(path, dict(THEIRS, **{"sheets/cluster-00099.png": "of a larger k", "sprites/00009.webp": ""}))
    return path


def expected(text):
    """What a report that says `text` holds, with what people have put into it."""
    return dict(THEIRS, **{name: text for name in (
        folder.MARKER, "index.html", "sprites/00001.webp", "sheets/cluster-00000.png")})


def test_a_new_report_keeps_what_people_put_in_and_nothing_of_the_old_one(out, tmp_path):
    folder.check(out)
    folder.replace(out, fill("second"))
    assert files(out) == expected("second")
    assert os.listdir(tmp_path) == ["report"]


def killed_while_filling(out, fresh, old):
    fill("second")(fresh)
    os.unlink(os.path.join(fresh, folder.MARKER))
    os.unlink(os.path.join(fresh, "index.html"))


def killed_between_the_renames(out, fresh, old):
    fill("second")(fresh)
    os.rename(out, old)


def killed_after_the_renames(out, fresh, old):
    killed_between_the_renames(out, fresh, old)
    os.rename(fresh, out)


def killed_while_files_are_moved(out, fresh, old):
    killed_after_the_renames(out, fresh, old)
    os.rename(os.path.join(old, "selection.csv"), os.path.join(out, "selection.csv"))


def killed_while_the_old_one_is_removed(out, fresh, old):
    folder.replace(out, fill("second"))
    put(old, {"sheets/cluster-00000.png": "first"})


@pytest.mark.parametrize("killed", [
    killed_while_filling, killed_between_the_renames, killed_after_the_renames,
    killed_while_files_are_moved, killed_while_the_old_one_is_removed])
def test_the_next_report_after_a_kill_has_everything(out, tmp_path, killed):
    killed(out, str(tmp_path / ".report.new"), str(tmp_path / ".report.old"))
    folder.check(out)
    folder.replace(out, fill("third"))
    assert files(out) == expected("third")
    assert os.listdir(tmp_path) == ["report"]


def test_the_old_report_is_back_before_the_next_is_begun(out, tmp_path):
    killed_between_the_renames(out, str(tmp_path / ".report.new"), str(tmp_path / ".report.old"))

    def fails(path):
        assert open(os.path.join(out, "index.html")).read() == "first"
        raise OSError("disk full")
    with pytest.raises(OSError, match="disk full"):
        folder.replace(out, fails)
    assert files(out)["index.html"] == "first" and os.listdir(tmp_path) == ["report"]


def test_a_file_made_anew_after_a_kill_takes_no_ones_place(out, tmp_path):
    killed_after_the_renames(out, str(tmp_path / ".report.new"), str(tmp_path / ".report.old"))
    put(out, {"selection.csv": "newer\n"})
    folder.replace(out, fill("third"))
    assert files(out) == dict(expected("third"), **{
        "selection.csv": "newer\n", "selection.csv.old": "path\n"})


@pytest.mark.parametrize("name, contents", [
    ("report", {"index.html": "of another site"}), (".report.new", {"mine.txt": ""}),
    (".report.old", {"mine.txt": ""})])
def test_a_folder_that_no_report_made_is_refused_and_left(tmp_path, name, contents):
    put(str(tmp_path / name), contents)
    with pytest.raises(UserError, match="no report; (name a new folder|move it)"):
        folder.check(str(tmp_path / "report"))
    assert files(str(tmp_path / name)) == contents
