"""The demo copes with any folder: copies, equal names, links, files that are not finished."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "lib"))

import arrivals  # noqa: E402  (found through the line above)


@pytest.fixture
def folder(tmp_path):
    """Two subfolders with equal base names and copies, beside what is no image to send."""
    folder = tmp_path / "own"
    for name, content in (("sol1/a.png", "1"), ("sol2/a.png", "2"), ("sol2/b.png", "1"),
                          ("sol2/c.png", "3"), ("sol1/half.png.part", "4"), ("sol1/x.TMP", "5"),
                          (".hidden/d.png", "6"), ("sol1/.e.png", "7"), ("sol1/two\nlines", "8")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (folder / "sol1" / "link.png").symlink_to(folder / "sol1" / "a.png")
    (folder / "sol1" / "dangling.png").symlink_to(folder / "nowhere")
    return folder


def status(images=0, missing=0, refused=0, ready=0, settling=0):
    return {"images": {"queued": images, "missing": missing}, "files_refused": refused,
            "inbox": {"ready": ready, "settling": settling}}


def test_links_and_hidden_and_unfinished_files_are_not_sent(folder):
    assert [os.path.relpath(path, str(folder)) for path in arrivals.images_below(str(folder))] == [
        "sol1/a.png", "sol2/a.png", "sol2/b.png", "sol2/c.png"]


def test_a_copy_is_not_sent_since_the_daemon_would_count_it_once(folder):
    sent = arrivals.one_of_each(arrivals.images_below(str(folder)))
    assert [os.path.relpath(path, str(folder)) for path in sent] == [
        "sol1/a.png", "sol2/a.png", "sol2/c.png"]


def test_each_file_gets_a_name_of_its_own():
    assert arrivals.names_for(["/a/x.png", "/b/x.png", "/c/x-2.png", "/d/x.png", "/e/y", "/f/y"]) \
        == ["x.png", "x-2.png", "x-2-2.png", "x-3.png", "y", "y-2"]


def test_the_camera_leaves_every_file_whole_in_the_inbox(folder, tmp_path):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    paths = arrivals.images_below(str(folder))
    camera = str(ROOT / "tools" / "lib" / "camera.py")
    sender = subprocess.Popen([sys.executable, camera, str(inbox)], stdin=subprocess.PIPE)
    sender.communicate(os.fsencode("\n".join(paths)))
    assert sender.returncode == 0
    assert {path.name: path.read_text() for path in inbox.iterdir()} == {
        "a.png": "1", "a-2.png": "2", "b.png": "1", "c.png": "3"}


def test_waiting_ends_as_soon_as_everything_is_accounted_for():
    patience = arrivals.Patience(5)
    assert not patience.is_over(status(images=2, ready=3), 0)
    assert not patience.is_over(status(images=2, missing=1, refused=1), 1)
    assert patience.is_over(status(images=3, missing=1, refused=1), 2)


def test_waiting_ends_with_what_there_is_once_nothing_waits_and_nothing_comes():
    patience = arrivals.Patience(5)
    assert not patience.is_over(status(images=2), 0)
    assert not patience.is_over(status(images=4), 70)
    assert not patience.is_over(status(images=4), 70 + arrivals.QUIET_S - 1)
    assert patience.is_over(status(images=4), 70 + arrivals.QUIET_S)


@pytest.mark.parametrize("pending", ["ready", "settling"])
def test_waiting_goes_on_while_a_file_waits(pending):
    patience = arrivals.Patience(5)
    for now_s in (0, 1000):
        assert not patience.is_over(status(images=4, **{pending: 1}), now_s)
