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
    with open(str(out) + ".work/skipped.csv", newline="") as stream:
        skipped = {os.path.basename(row["path"]): row for row in csv.DictReader(stream)}
    assert set(skipped) == {"empty.jpg", "notes.txt"} and all(
        row["reason"] for row in skipped.values())
    assert "skipped 2 files" in capsys.readouterr().out


def test_a_list_of_paths_serves_as_an_archive(archive, tiny, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join("archive/sol0/%02d.png" % number for number in range(20))
                      + "\narchive/sol0/gone.png\n")
    out = tmp_path / "codebook.npz"
    assert fit(listed, tiny, out, "-k", "3") == 0
    assert codebook.load(str(out)).counts.sum() == 20


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


@pytest.mark.parametrize("k, told", [("0", "at least one"), ("61", "60 different images")])
def test_an_impossible_k_is_one_clear_line(archive, tiny, tmp_path, capsys, k, told):
    assert fit(archive, tiny, tmp_path / "codebook.npz", "-k", k) == 2
    assert told in capsys.readouterr().err


def test_an_archive_that_is_not_there_is_one_clear_line(tiny, tmp_path, capsys):
    assert fit(tmp_path / "nowhere", tiny, tmp_path / "codebook.npz", "-k", "2") == 2
    assert "nowhere" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_told_before_hours_of_embedding(archive, tiny, tmp_path,
                                                                           capsys):
    (tmp_path / "file").write_text("")
    assert fit(archive, tiny, tmp_path / "file" / "codebook.npz", "-k", "3") == 1
    assert "cannot be made" in capsys.readouterr().err
