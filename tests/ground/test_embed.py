"""`jetson-cluster embed` as a user has it: what it says, what it refuses, and killed anywhere."""

import io
import os
import random
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("pyarrow", reason="the corpus needs pyarrow")

from archives import archive, contents, draw

from jetson_cluster import cli
from jetson_cluster.ground import corpus
from jetson_cluster.ground.corpus import shards
from jetson_cluster.ground.embed import Progress, duration

# The command in a process of its own, which ends itself by SIGKILL before or after the n-th time
# that a file of the corpus is renamed into place or removed: between those nothing shows on disk.
ENDS_ITSELF = """
import os, signal, sys
from jetson_cluster import cli

left, after, folder = int(sys.argv[1]), sys.argv[2] == "after", sys.argv[3]

def counted(change):
    def changed(path, *more):
        global left
        ours = os.fsdecode(path).startswith(folder + "/")
        left -= ours
        if ours and left == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            change(path, *more)
        finally:
            if ours and left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    return changed

os.rename, os.unlink = counted(os.rename), counted(os.unlink)
if __name__ == "__main__":
    sys.exit(cli.main(sys.argv[4:]))
"""


def embed(source, tiny, out, *more):
    return cli.main(["embed", str(source), "--model", tiny, "--out", str(out), "--embedder",
                     "onnxruntime", "--workers", "1", *more])


def test_an_archive_becomes_a_corpus_and_the_command_says_so(tmp_path, tiny, capsys):
    folder = archive(tmp_path / "archive", 20)
    out = tmp_path / "corpus"
    assert embed(folder, tiny, out) == 0
    said = capsys.readouterr()
    assert "embedding with ONNX Runtime" in said.out
    assert "1 files are copies of others and count once" in said.out
    assert "2 files are no usable images (1 empty, 1 not_an_image), listed in %s" % (
        out / "failed.csv") in said.out
    assert "%s: 20 images, 48 numbers each, of the space tiny/pooled@" % out in said.out
    assert "23 of 23 files" in said.err
    assert len(corpus.read(out)) == 20


def test_what_is_embedded_already_is_said_and_not_done_again(tmp_path, tiny, capsys):
    folder = archive(tmp_path / "archive", 20)
    embed(folder, tiny, tmp_path / "corpus")
    os.rename(folder / "sol1", folder / "moved")
    capsys.readouterr()
    assert embed(folder, tiny, tmp_path / "corpus") == 0
    said = capsys.readouterr().out
    assert "14 of 23 files are embedded already" in said
    assert "7 files are of a content that is embedded already" in said
    assert "embedding with" not in said


@pytest.mark.parametrize("more, told", [
    (["--batch", "-1"], "--batch -1: must be a whole number from 0 to 1024"),
    (["--workers", "9999"], "--workers 9999: must be"),
    (["--shard-images", "0"], "--shard-images 0: must be a whole number from 1 to"),
    (["--model", "absent.onnx"], "model absent.onnx: there is no such file")])
def test_a_mistake_is_one_clear_line_before_anything_is_made(tmp_path, tiny, capsys, more, told):
    draw(tmp_path / "archive" / "image.png", 0)
    assert embed(tmp_path / "archive", tiny, tmp_path / "corpus", *more) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
    assert not (tmp_path / "corpus").exists()


def test_an_archive_that_is_not_there_is_one_clear_line(tmp_path, tiny, capsys):
    assert embed(tmp_path / "absent", tiny, tmp_path / "corpus") == 2
    assert "%s: no such file or folder\n" % (tmp_path / "absent") in capsys.readouterr().err


def test_a_corpus_that_cannot_be_made_is_one_clear_line(tmp_path, tiny, capsys):
    draw(tmp_path / "archive" / "image.png", 0)
    (tmp_path / "file").write_text("")
    assert embed(tmp_path / "archive", tiny, tmp_path / "file" / "corpus") == 1
    assert "cannot be made" in capsys.readouterr().err


# ---- killed ------------------------------------------------------------------------------------


def changed_archive(tmp_path, tiny):
    """An archive with a corpus of an earlier state of it, so that there is all kinds of work."""
    folder = archive(tmp_path / "archive", 24)
    embed(folder, tiny, tmp_path / "before", "--shard-images", "5")
    for number in range(6):
        os.unlink(folder / "sol0" / ("%03d.png" % (3 * number)))
        draw(folder / "new" / ("%d.png" % number), 100 + number)
    draw(folder / "sol1" / "001.png", 200)
    embed(folder, tiny, tmp_path / "fresh")
    return folder, contents(corpus.read(tmp_path / "fresh"))


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_change_on_disk_the_next_run_makes_the_same_corpus(tmp_path, tiny, when):
    folder, expected = changed_archive(tmp_path, tiny)
    script = tmp_path / "ends_itself.py"
    script.write_text(ENDS_ITSELF)
    killed = 0
    for count in range(1, 100):
        out = tmp_path / ("corpus%d" % count)
        subprocess.run(["cp", "-a", str(tmp_path / "before"), str(out)], check=True)
        ended = subprocess.run(
            [sys.executable, str(script), str(count), when, str(out), "embed", str(folder),
             "--model", tiny, "--out", str(out), "--embedder", "onnxruntime", "--workers", "1",
             "--shard-images", "5"], capture_output=True)
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        killed += 1
        corpus.read(out)  # sound, if not complete
        assert embed(folder, tiny, out, "--shard-images", "5") == 0
        assert contents(corpus.read(out)) == expected
        assert not [name for name in os.listdir(out) if name.startswith(".shard")]
    assert killed >= 10


def test_killed_at_random_points_it_goes_on_and_leaves_no_process(tmp_path, tiny):
    folder = archive(tmp_path / "archive", 400)
    embed(folder, tiny, tmp_path / "fresh")
    out, chance, kept = tmp_path / "corpus", random.Random(1), []
    for _ in range(100):
        running = subprocess.Popen(
            [sys.executable, "-m", "jetson_cluster", "embed", str(folder), "--model", tiny, "--out",
             str(out), "--embedder", "onnxruntime", "--workers", "2", "--shard-images", "16"],
            start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        enough = len(kept) + chance.randint(1, 8)
        while running.poll() is None and len(shard_files(out)) < enough:
            time.sleep(0.001)
        time.sleep(chance.random() / 50)
        running.kill()
        # Whoever holds the other end of the pipe lives: it ends with the last process.
        said = running.communicate(timeout=60)[0]
        if running.returncode == 0:
            break
        assert running.returncode == -signal.SIGKILL, said
        assert set(kept) <= set(shard_files(out)) or (out / "failed.csv").exists()
        kept = shard_files(out)
    assert running.returncode == 0
    assert contents(corpus.read(out)) == contents(corpus.read(tmp_path / "fresh"))


def shard_files(folder):
    return shards.shard_numbers(str(folder)) if folder.exists() else []


# ---- progress ----------------------------------------------------------------------------------


def test_progress_tells_rate_and_time_left():
    stream, clock = io.StringIO(), iter([0.0, 100.0, 105.0, 110.0, 120.0])
    progress = Progress(stream, lambda: next(clock))
    for done in (1, 11, 21, 41):  # the first after 100 s: the network was being loaded
        progress(done, 41, 0)
    assert stream.getvalue() == (
        "1 of 41 files\n21 of 41 files, 2.0 a second, 10 s left\n"
        "41 of 41 files, 2.0 a second, 0 s left\n")


def test_files_of_known_content_do_not_hasten_the_time_left():
    stream, clock = io.StringIO(), iter([0.0, 1.0, 2.0, 12.0, 22.0])
    progress = Progress(stream, lambda: next(clock))
    for done, known in ((500, 500), (501, 500), (811, 800), (821, 800)):
        progress(done, 1000, known)
    assert stream.getvalue() == (
        "811 of 1000 files (800 of known content), 1.0 a second, 3 min left\n"
        "821 of 1000 files (800 of known content), 1.0 a second, 3 min left\n")


@pytest.mark.parametrize("seconds, shown", [
    (0, "0 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"), (12600, "3.5 h")])
def test_time_left_is_in_units_that_suit_it(seconds, shown):
    assert duration(seconds) == shown
