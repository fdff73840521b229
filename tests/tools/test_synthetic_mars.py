"""The drawn archive: repeatable, complete, honest about itself, and silent about its classes."""

import csv
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

TOOLS = os.path.join(os.path.dirname(__file__), "..", "..", "tools")
SCRIPT = os.path.join(TOOLS, "synthetic_mars.py")
sys.path.insert(0, TOOLS)

from synthetic_mars import CLASSES, DISCOVERIES, JUNK, ODD, draw, plan, write_archive  # noqa: E402

SMALL = (64, 48)


def command(*arguments):
    return subprocess.run(
        [sys.executable, SCRIPT] + [str(argument) for argument in arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
    )


def contents(folder):
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(str(folder)))}


def rows(path):
    with open(str(path), newline="") as table:
        return list(csv.DictReader(table))


@pytest.mark.parametrize("name", CLASSES + ODD)
def test_every_kind_of_picture_has_the_asked_size_and_is_not_flat(name):
    picture = draw(name, 3, 0, 0, (80, 60))
    assert picture.shape == (60, 80, 3) and picture.dtype == np.uint8
    assert len(np.unique(picture)) > 8


@pytest.mark.parametrize("name", ["tracks", "sunset"])
def test_the_same_numbers_draw_the_same_pixels_whatever_was_drawn_between(name):
    first = draw(name, 5, 2, 1, SMALL)
    for other in ("plain", "deck", "dunes"):
        draw(other, 5, 2, 1, SMALL)
    assert np.array_equal(first, draw(name, 5, 2, 1, SMALL))


def test_seed_scene_and_shot_each_change_the_picture():
    pictures = [draw("strata", *numbers, size=SMALL) for numbers in
                [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1)]]
    for i, one in enumerate(pictures):
        for other in pictures[:i]:
            assert not np.array_equal(one, other)


def test_shots_of_one_scene_resemble_each_other_more_than_another_scene_of_the_terrain():
    def look(scene, shot):
        return draw("slabs", 1, scene, shot, SMALL).mean(axis=(0, 1))

    within = [np.linalg.norm(look(scene, 0) - look(scene, 1)) for scene in range(6)]
    between = [np.linalg.norm(look(scene, 0) - look(scene + 1, 0)) for scene in range(6)]
    assert np.mean(within) < 0.5 * np.mean(between)


def test_an_archive_is_the_same_on_one_process_and_on_three(tmp_path):
    write_archive(str(tmp_path / "one"), 20, 4, SMALL, odd=3, processes=1,
                  truth=str(tmp_path / "one.csv"))
    write_archive(str(tmp_path / "three"), 20, 4, SMALL, odd=3, processes=3,
                  truth=str(tmp_path / "three.csv"))
    assert len(contents(tmp_path / "one")) == 20
    assert contents(tmp_path / "one") == contents(tmp_path / "three")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "three.csv").read_bytes()


def test_the_table_names_every_picture_once_and_lies_outside_the_folder(tmp_path):
    write_archive(str(tmp_path / "pictures"), 16, 1, SMALL, odd=4)
    table = rows(tmp_path / "truth.csv")
    assert sorted(row["name"] for row in table) == sorted(contents(tmp_path / "pictures"))
    for row in table:
        assert row["odd"] == ("discovery" if row["class"] in DISCOVERIES
                              else "junk" if row["class"] in JUNK else "")


def test_file_names_are_unique_and_tell_nothing_of_the_class():
    names = [picture.name for picture in plan(600, 1, odd=16)]
    assert len(set(names)) == 600
    assert names == sorted(names, key=lambda name: name.split("_")[2])
    for name in names:
        assert not any(word in name for word in CLASSES + ODD)


def test_pictures_of_a_scene_follow_each_other_and_time_advances():
    pictures = plan(300, 2)
    scenes = [picture.scene for picture in pictures]
    assert scenes == sorted(scenes)
    assert max(Counter(scenes).values()) > 1
    moments = [picture.taken for picture in pictures]
    assert all(one < other for one, other in zip(moments, moments[1:]))
    assert len({picture.name[:7] for picture in pictures}) > 10


@pytest.mark.parametrize("odd", [0, 1, 6, 16])
def test_as_many_odd_ones_as_asked_finds_and_spoilt_frames_alternating(odd):
    kinds = Counter(picture.odd for picture in plan(100, 3, odd=odd))
    assert kinds["discovery"] + kinds["junk"] == odd
    assert kinds["discovery"] >= kinds["junk"]
    assert odd < 2 or kinds["junk"] >= 1


def test_a_uniform_archive_holds_all_terrain_alike_and_a_dominated_one_does_not():
    uniform = Counter(picture.terrain for picture in plan(240, 1, odd=0))
    assert set(uniform) == set(CLASSES) and set(uniform.values()) == {20}
    dominated = Counter(picture.terrain for picture in plan(240, 1, odd=0, skew="dominated"))
    assert set(dominated) == set(CLASSES) and max(dominated.values()) == 144


def test_only_the_asked_classes_are_drawn():
    assert {p.terrain for p in plan(40, 1, ["dunes", "veins"], odd=0)} == {"dunes", "veins"}


def test_every_file_carries_its_time_and_says_it_was_drawn(tmp_path):
    pictures = write_archive(str(tmp_path / "pictures"), 30, 1, SMALL, odd=0)
    assert {picture.name[-3:] for picture in pictures} == {"jpg", "png"}
    for picture in pictures:
        with Image.open(str(tmp_path / "pictures" / picture.name)) as image:
            assert image.format == {"jpg": "JPEG", "png": "PNG"}[picture.name[-3:]]
            assert image.size == SMALL
            exif = image.getexif()
        taken = exif.get_ifd(0x8769)[0x9003]
        assert taken == picture.taken.strftime("%Y:%m:%d %H:%M:%S")
        assert "not a photograph" in exif[0x0131]
        assert picture.terrain not in repr(dict(exif.get_ifd(0x8769)))


def test_a_broken_off_run_is_continued_and_finished_pictures_stay_untouched(tmp_path):
    folder = tmp_path / "pictures"
    pictures = write_archive(str(folder), 12, 1, SMALL, odd=0)
    whole = contents(folder)
    kept, lost = pictures[0].name, pictures[5].name
    os.utime(str(folder / kept), (1000, 1000))
    (folder / lost).rename(folder / (lost + ".part"))
    write_archive(str(folder), 12, 1, SMALL, odd=0)
    assert contents(folder) == whole
    assert os.stat(str(folder / kept)).st_mtime == 1000


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"mine")
    answer = command(folder, "--count", 4, "--odd", 0, "--size", "64x48")
    assert answer.returncode == 2
    assert "holiday.jpg" in answer.stderr and answer.stderr.count("\n") == 1
    assert contents(folder) == {"holiday.jpg": b"mine"}


def test_a_picture_of_another_seed_under_the_same_name_is_refused_but_replaced_by_force(tmp_path):
    folder = tmp_path / "pictures"
    name = plan(4, 1, odd=0)[0].name
    folder.mkdir()
    Image.new("RGB", SMALL).save(str(folder / name), "JPEG")
    (folder / "notes.txt").write_bytes(b"mine")
    assert command(folder, "--count", 4, "--odd", 0, "--size", "64x48").returncode == 2
    forced = command(folder, "--count", 4, "--odd", 0, "--size", "64x48", "--force")
    assert forced.returncode == 0, forced.stderr
    with Image.open(str(folder / name)) as image:
        assert np.asarray(image).any()
    assert len(contents(folder)) == 5 and contents(folder)["notes.txt"] == b"mine"


@pytest.mark.parametrize("arguments, word", [
    (["--count", "0"], "--count"),
    (["--count", "many"], "--count"),
    (["--count", "3", "--odd", "4"], "--odd"),
    (["--odd", "-1"], "--odd"),
    (["--size", "400"], "WIDTHxHEIGHT"),
    (["--size", "4x4"], "--size"),
    (["--classes", "dunes,ocean"], "ocean"),
    (["--classes", "dunes,dunes"], "twice"),
    (["--skew", "left"], "--skew"),
    (["--processes", "0"], "--processes"),
    (["--seed", "1.5"], "--seed"),
])
def test_bad_arguments_get_one_line_and_exit_code_2_before_anything_is_written(
    tmp_path, arguments, word
):
    answer = command(tmp_path / "pictures", *arguments)
    assert answer.returncode == 2
    assert word in answer.stderr and answer.stderr.count("\n") == 1
    assert not (tmp_path / "pictures").exists()


def test_the_command_writes_pictures_table_and_contact_sheet(tmp_path):
    answer = command(
        tmp_path / "in" / "pictures", "--count", 6, "--odd", 2, "--size", "64x48", "--seed", 9,
        "--classes", "dunes, veins", "--truth", tmp_path / "answers.csv",
        "--contact-sheet", tmp_path / "sheet.png",
    )
    assert answer.returncode == 0, answer.stderr
    assert len(contents(tmp_path / "in" / "pictures")) == 6
    assert len(rows(tmp_path / "answers.csv")) == 6
    with Image.open(str(tmp_path / "sheet.png")) as sheet:
        assert sheet.size == (1600, 4 * (150 + 14))


def test_a_disk_that_will_not_is_exit_code_1_in_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    answer = command(tmp_path / "file" / "pictures", "--count", 1, "--odd", 0)
    assert answer.returncode == 1
    assert answer.stderr.count("\n") == 1 and "file" in answer.stderr


