"""`jetson-cluster fit` on real files: complete, repeatable, continued where it was stopped."""

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from jetson_cluster import cli, codebook

COLOURS = [(200, 40, 30), (40, 190, 60), (30, 60, 200)]


@pytest.fixture
def archive(tmp_path):
    """60 pictures of three colours in three folders."""
    folder = tmp_path / "archive"
    random = np.random.RandomState(0)
    for number in range(60):
        sol = folder / ("sol%d" % (number // 20))
        sol.mkdir(parents=True, exist_ok=True)
        pixels = np.array(COLOURS[number % 3]) + random.randint(-25, 26, (48, 64, 3))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(str(sol / ("%02d.png" % number)))
    return folder


def fit(archive, tiny, out, *more):
    return cli.main(["fit", str(archive), "--model", tiny, "--out", str(out), "--embedder",
                     "onnxruntime", *more])


def skipped_of(out):
    """{name: reason} of what the fit to `out` left aside."""
    with open(str(out) + ".work/skipped.csv", newline="") as stream:
        return {os.path.basename(row["path"]): row["reason"] for row in csv.DictReader(stream)}


def test_the_clusters_of_an_archive_are_its_kinds(archive, tiny, tmp_path, capsys):
    out = tmp_path / "codebook.npz"
    assert fit(archive, tiny, out, "-k", "3") == 0
    fitted = codebook.load(str(out))
    assert sorted(fitted.counts) == [20, 20, 20]
    assert fitted.space.startswith("tiny/pooled@")
    assert "3 clusters of 60 images" in capsys.readouterr().out


def test_the_same_archive_and_seed_give_the_same_codebook(archive, tiny, tmp_path):
    for name in ("a", "b"):
        fit(archive, tiny, tmp_path / (name + ".npz"), "-k", "5", "--seed", "7")
    assert (codebook.load(str(tmp_path / "a.npz")).identity
            == codebook.load(str(tmp_path / "b.npz")).identity)


def test_no_image_is_dropped_when_the_last_batch_is_not_full(archive, tiny, tmp_path):
    out = tmp_path / "codebook.npz"
    assert fit(archive, tiny, out, "-k", "2", "--batch", "7") == 0  # 60 = 8 x 7 + 4
    assert codebook.load(str(out)).counts.sum() == 60


def test_unreadable_files_are_skipped_and_listed(archive, tiny, tmp_path, capsys):
    (archive / "empty.jpg").write_bytes(b"")
    (archive / "notes.txt").write_text("no image")
    out = tmp_path / "codebook.npz"
    assert fit(archive, tiny, out, "-k", "3") == 0
    assert codebook.load(str(out)).counts.sum() == 60
    skipped = skipped_of(out)
    assert set(skipped) == {"empty.jpg", "notes.txt"} and all(skipped.values())
    assert "skipped 2 files" in capsys.readouterr().out


def test_a_list_of_paths_serves_as_an_archive(archive, tiny, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join("archive/sol0/%02d.png" % number for number in range(20))
                      + "\narchive/sol0/gone.png\n")
    out = tmp_path / "codebook.npz"
    assert fit(listed, tiny, out, "-k", "3") == 0
    assert codebook.load(str(out)).counts.sum() == 20
    assert skipped_of(out) == {"gone.png": "no such file"}


def test_a_list_that_names_no_file_at_all_is_one_clear_line(tiny, tmp_path, capsys):
    listed = tmp_path / "list.txt"
    listed.write_text("gone.png\nlost.png\n")
    assert fit(listed, tiny, tmp_path / "codebook.npz", "-k", "1") == 2
    assert "no files there, the first it names is %s" % (tmp_path / "gone.png") in (
        capsys.readouterr().err)


def test_refusals_are_told_however_many_of_another_archive_came_later(archive, tiny, tmp_path):
    (archive / "empty.jpg").write_bytes(b"")
    other = tmp_path / "other"
    other.mkdir()
    for number in range(100):
        (other / ("%d.txt" % number)).write_text("no image")
    (other / "image.png").write_bytes((archive / "sol0" / "00.png").read_bytes())
    work = str(tmp_path / "work")
    assert fit(archive, tiny, tmp_path / "a.npz", "-k", "3", "--work", work) == 0
    assert fit(other, tiny, tmp_path / "b.npz", "-k", "1", "--work", work) == 0
    assert fit(archive, tiny, tmp_path / "a.npz", "-k", "3", "--work", work) == 0
    with open(os.path.join(work, "skipped.csv"), newline="") as stream:
        assert [os.path.basename(row["path"]) for row in csv.DictReader(stream)] == ["empty.jpg"]


def test_a_copy_counts_once(archive, tiny, tmp_path):
    (archive / "copy.png").write_bytes((archive / "sol0" / "00.png").read_bytes())
    out = tmp_path / "codebook.npz"
    fit(archive, tiny, out, "-k", "3")
    assert codebook.load(str(out)).counts.sum() == 60


def test_a_killed_fit_continues_where_it_stopped(archive, tiny, tmp_path, capsys):
    out = tmp_path / "codebook.npz"
    slow = ("import sys, time\n"
            "from jetson_cluster import cli, frame\n"
            "load = frame.load\n"
            "def slowly(*arguments):\n"
            "    time.sleep(0.05)\n"
            "    return load(*arguments)\n"
            "frame.load = slowly\n"
            "cli.main(sys.argv[1:])\n")
    running = subprocess.Popen([sys.executable, "-c", slow, "fit", str(archive), "--model", tiny,
                                "--out", str(out), "-k", "3", "--embedder", "onnxruntime"])
    work = str(out) + ".work/catalog.sqlite-wal"
    deadline = time.monotonic() + 60
    while not (os.path.exists(work) and os.path.getsize(work) > 200000):
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert fit(archive, tiny, out, "-k", "3") == 0
    told = capsys.readouterr().out
    already = int(told.split(" of 60 files are embedded already")[0].split()[-1])
    assert 0 < already < 60
    assert codebook.load(str(out)).counts.sum() == 60


def test_another_k_embeds_nothing_again(archive, tiny, tmp_path, capsys):
    out = tmp_path / "codebook.npz"
    fit(archive, tiny, out, "-k", "3")
    capsys.readouterr()
    assert fit(archive, tiny, out, "-k", "4") == 0
    told = capsys.readouterr().out
    assert "60 of 60 files are embedded already" in told and "embedding" not in told.split("already")[1].split("embeddings")[0]


@pytest.mark.parametrize("numbers, told", [
    (["-k", "0"], "at least one"), (["-k", "61"], "the 60 files"),
    (["-k", "65537"], "at most 65536"),
    (["-k", "3", "--batch", "-1"], "--batch -1: must be a whole number from 0 to 1024"),
    (["-k", "3", "--seed", "99999999999"], "--seed 99999999999: must be"),
    (["-k", "3", "--seed", "-1"], "--seed -1: must be")])
def test_an_impossible_number_is_one_clear_line_before_anything_is_embedded(
        archive, tiny, tmp_path, capsys, numbers, told):
    assert fit(archive, tiny, tmp_path / "codebook.npz", *numbers) == 2
    said = capsys.readouterr()
    assert told in said.err and "embedding" not in said.out and "Traceback" not in said.err
    assert not (tmp_path / "codebook.npz.work").exists()


def test_the_largest_seed_is_a_seed(archive, tiny, tmp_path):
    assert fit(archive, tiny, tmp_path / "c.npz", "-k", "3", "--seed", str(2 ** 31 - 1)) == 0


def test_more_clusters_than_different_images_is_one_clear_line(archive, tiny, tmp_path, capsys):
    (archive / "copy.png").write_bytes((archive / "sol0" / "00.png").read_bytes())
    assert fit(archive, tiny, tmp_path / "codebook.npz", "-k", "61") == 2
    assert "60 different images" in capsys.readouterr().err


def test_an_archive_that_is_not_there_is_one_clear_line(tiny, tmp_path, capsys):
    assert fit(tmp_path / "nowhere", tiny, tmp_path / "codebook.npz", "-k", "2") == 2
    assert "%s: no such file or folder" % (tmp_path / "nowhere") in capsys.readouterr().err


@pytest.mark.parametrize("out, told", [
    ("z.txt", "z.txt: a codebook's name must end in .npz"),
    ("file/codebook.npz", "there is no folder"), ("absent/codebook.npz", "make it first"),
    ("archive", "is a folder"), ("/proc/codebook.npz", "nothing can be written in /proc")])
def test_a_place_that_cannot_be_written_is_told_before_hours_of_embedding(
        archive, tiny, tmp_path, capsys, out, told):
    (tmp_path / "file").write_text("")
    work = str(tmp_path / "work")
    assert fit(archive, tiny, os.path.join(str(tmp_path), out), "-k", "3", "--work", work) == 2
    said = capsys.readouterr()
    assert told in said.err and "embedding" not in said.out and not os.path.exists(work)


def test_a_work_folder_that_cannot_be_made_is_one_clear_line(archive, tiny, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert fit(archive, tiny, tmp_path / "codebook.npz", "-k", "3", "--work",
               str(tmp_path / "file" / "work")) == 1
    assert "cannot be made" in capsys.readouterr().err
