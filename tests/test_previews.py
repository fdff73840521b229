"""Previews as files: whole or made again, those that are wanted and the newest of the others."""

import os

import pytest

from catalogued import SPACE, image, record, sha256_of
from jetson_cluster import previews
from jetson_cluster.catalog import Catalog
from jetson_cluster.preview import Preview
from jetson_cluster.previews import Previews

FORMATS = ["webp", "palette", "jpeg"]
SUFFIX = {"webp": ".webp", "palette": ".png", "jpeg": ".jpg"}


class Rover:
    """A catalog with previews of known contents, every third image without one."""

    def __init__(self, folder, count):
        self.folder = folder / "previews"
        self.catalog = Catalog(str(folder / "catalog.sqlite"), SPACE)
        self.numbers = [number for number, _ in record(self.catalog, [
            image("/inbox/%d.png" % content, content)._replace(preview=self.made(content))
            for content in range(count)])]
        self.previews = self.start()

    def start(self):
        return Previews(str(self.folder), self.catalog)

    def made(self, content):
        if content % 3 == 2:
            return None
        return Preview(b"%d" % content * (50 + content), FORMATS[content % 2], 8, 6, 30.0)

    def path(self, content):
        return str(self.folder / (sha256_of(content)[:16] + SUFFIX[FORMATS[content % 2]]))

    def files(self):
        return sorted(os.listdir(str(self.folder))) if self.folder.exists() else []

    def close(self):
        self.catalog.close()


@pytest.fixture
def rover(tmp_path):
    made = Rover(tmp_path, 60)
    yield made
    made.close()


def test_previews_are_files_named_by_content_with_the_bytes_of_the_catalog(rover):
    paths = rover.previews.ensure(rover.numbers[:5])
    assert paths == {content + 1: rover.path(content) for content in (0, 1, 3, 4)}
    for content in (0, 1, 3, 4):
        with open(rover.path(content), "rb") as stream:
            assert stream.read() == rover.made(content).content
    assert len(rover.files()) == 4


def test_without_previews_no_folder_is_made(rover):
    assert rover.previews.ensure([3, 6]) == {} and not rover.folder.exists()
    assert rover.previews.ensure([]) == {}
    rover.previews.tidy([])
    assert not rover.folder.exists()


def test_what_is_there_is_not_written_again(rover):
    rover.previews.ensure(rover.numbers[:4])
    before = {name: os.stat(str(rover.folder / name)).st_mtime_ns for name in rover.files()}
    for held in (rover.previews, rover.start()):
        assert len(held.ensure(rover.numbers[:4])) == 3
        assert before == {name: os.stat(str(rover.folder / name)).st_mtime_ns
                          for name in rover.files()}


@pytest.mark.parametrize("left", [b"", b"0" * 10, b"0" * 1000])
def test_a_file_that_a_power_cut_left_short_is_made_again(rover, left):
    rover.previews.ensure([1])
    with open(rover.path(0), "wb") as stream:
        stream.write(left)
    rover.start().ensure([1])
    with open(rover.path(0), "rb") as stream:
        assert stream.read() == rover.made(0).content
    assert len(rover.files()) == 1


def test_a_folder_that_cannot_be_written_is_said_once_and_tried_again(rover, caplog):
    rover.folder.write_text("a file where the folder should be")
    for _ in range(3):
        assert rover.previews.ensure(rover.numbers[:4]) == {}
    assert caplog.text.count("PreviewNotWritten: %s: " % rover.folder) == 1
    rover.folder.unlink()
    assert len(rover.previews.ensure(rover.numbers[:4])) == 3
    os.unlink(rover.path(0))
    rover.folder.rename(rover.folder.parent / "aside")
    rover.folder.write_text("again")
    assert len(rover.previews.ensure(rover.numbers[:7])) == 3  # those that surely were there
    assert caplog.text.count("PreviewNotWritten") == 2


def test_those_that_are_wanted_and_the_newest_of_the_others_stay(rover, monkeypatch):
    monkeypatch.setattr(previews, "SPARE", 5)
    monkeypatch.setattr(previews, "TIDY_EVERY", 10)
    rover.previews.ensure(rover.numbers)
    for age, content in enumerate(content for content in range(60) if content % 3 < 2):
        os.utime(rover.path(content), (1000 + age, 1000 + age))
    rover.previews.tidy([1, 2, 3, 4])
    newest = [content for content in range(60) if content % 3 < 2][-5:]
    assert rover.files() == sorted(
        os.path.basename(rover.path(content)) for content in [0, 1, 3] + newest)
    # What was removed is made again when it is wanted.
    assert rover.previews.ensure([11]) == {11: rover.path(10)}
    assert os.path.exists(rover.path(10))


def test_the_folder_is_looked_through_only_now_and_then(rover, monkeypatch):
    monkeypatch.setattr(previews, "SPARE", 1)
    monkeypatch.setattr(previews, "TIDY_EVERY", 10)
    rover.previews.ensure([1, 2])
    rover.previews.tidy([])  # earlier runs may have left some
    assert len(rover.files()) == 1
    rover.previews.ensure([1, 2, 4])
    rover.previews.tidy([])
    assert len(rover.files()) == 3
    rover.previews.ensure(rover.numbers)
    rover.previews.tidy([])
    assert len(rover.files()) == 1


def test_what_earlier_runs_left_half_written_goes_with_the_others(rover, monkeypatch):
    monkeypatch.setattr(previews, "SPARE", 1)
    rover.previews.ensure([1, 2])
    half = rover.folder / "0123456789abcdef.webp.77.tmp"
    half.write_bytes(b"half")
    os.utime(str(half), (1000, 1000))
    again = rover.start()
    again.ensure([1])
    again.tidy([1])
    assert rover.files() == sorted(os.path.basename(rover.path(content)) for content in (0, 1))


def test_a_file_that_cannot_be_removed_is_said_and_stops_nothing(rover, monkeypatch, caplog):
    monkeypatch.setattr(previews, "SPARE", 1)
    rover.previews.ensure([1, 2])
    (rover.folder / "a folder.webp").mkdir()
    os.utime(str(rover.folder / "a folder.webp"), (1000, 1000))
    rover.previews.tidy([1])
    assert "PreviewsNotTidied: %s: " % rover.folder in caplog.text
    assert len(rover.previews.ensure([1, 2])) == 2
