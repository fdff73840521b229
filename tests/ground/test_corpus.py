"""The corpus: every readable image once, nothing embedded twice, whatever became of the archive."""

import csv
import glob
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("pyarrow", reason="the corpus needs pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq
from archives import archive, contents, draw, hashed_after, name_or_end

from jetson_cluster import frame, quality, recipe
from jetson_cluster.embedder import open_embedder
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.ground import corpus
from jetson_cluster.ground.corpus import listing, looking, making, shards
from jetson_cluster.ground.corpus.shards import Failure, Row
from jetson_cluster.walker import Arrival


@pytest.fixture
def model(tiny):
    return recipe.load_model(tiny)


@pytest.fixture
def made(tmp_path, model):
    """embed(...): `tmp_path/archive` into `tmp_path/corpus`, ONNX Runtime, one process."""
    def embed(sources=(str(tmp_path / "archive"),), folder=tmp_path / "corpus", **options):
        options = dict({"embedder": "onnxruntime", "workers": 1}, **options)
        return corpus.embed([str(source) for source in sources], str(folder), model, **options)
    return embed


def description_of(got):
    return shards.read_description(got.folder)


NO_NETWORK = {"embedder": "tensorrt"}  # not to be had here: a run that opens a network fails


# ---- what is in it -----------------------------------------------------------------------------


def test_every_image_is_there_once_in_the_order_of_the_paths(tmp_path, made):
    folder = archive(tmp_path / "archive", 20)
    got = made()
    assert len(got) == 20 and got.paths == sorted(got.paths)
    assert got.paths[0] == str(folder / "copy.png")  # the first of its two paths
    assert got.scenes[1:] == [os.path.dirname(path) for path in got.paths[1:]]
    assert got.copies[got.sha256[0]] == [str(folder / "copy.png"), str(folder / "sol0" / "000.png")]
    assert got.bytes.tolist() == [os.path.getsize(path) for path in got.paths]
    assert got.complete


def test_embeddings_are_those_the_rover_would_compute(tmp_path, made, model):
    archive(tmp_path / "archive", 20)
    got = made()
    with open_embedder("onnxruntime", model, 8) as embedder:
        expected = embedder.embed(np.stack([frame.load(path, 32, 32, resample="bilinear").pixels
                                            for path in got.paths]))
    assert got.embeddings().dtype == np.float32
    np.testing.assert_array_equal(got.embeddings(), expected.astype(np.float16))


def test_embeddings_and_thumbnails_come_in_the_order_asked(tmp_path, made):
    archive(tmp_path / "archive", 20)
    got = made(shard_images=6)
    asked = [13, 2, 2, 19, 0]
    np.testing.assert_array_equal(got.embeddings(asked), got.embeddings()[asked])
    assert got.thumbnails(asked) == [got.thumbnails()[index] for index in asked]
    assert got.embeddings([]).shape == (0, 48) and got.thumbnails([]) == []


def test_measures_are_those_of_the_rover(tmp_path, made):
    archive(tmp_path / "archive", 3)
    got = made()
    expected = [quality.unpack(quality.pack(quality.measure(Image.open(path).convert("RGB"))))
                for path in got.paths]
    np.testing.assert_array_equal(got.measures, np.array(expected, np.float32))


@pytest.mark.parametrize("size, side, expected", [
    ((150, 300), 299, (48, 96)), ((960, 480), 299, (96, 48)), ((10, 20), 299, (10, 20)),
    ((9000, 30), 299, (96, 1)), ((128, 64), 32, (32, 16))])
def test_thumbnails_are_small_and_in_the_pictures_own_proportions(tmp_path, size, side, expected):
    found = looking.look_at(looking.look(str(draw(tmp_path / "image.png", 0, size))),
                            looking.Geometry(side, side, "bicubic", frame.Limits()))
    thumbnail = Image.open(io.BytesIO(found.thumbnail))
    assert (found.width, found.height) == size and thumbnail.size == expected
    red, green, blue = np.asarray(thumbnail).reshape(-1, 3).mean(axis=0)
    assert max(abs(red - 200), abs(green - 40), abs(blue - 30)) < 12
    assert len(found.thumbnail) < 3000


def test_every_image_has_its_thumbnail_and_size(tmp_path, made):
    draw(tmp_path / "archive" / "high.png", 0, (15, 30))
    draw(tmp_path / "archive" / "wide.png", 2, (32, 16))
    got = made()
    assert list(zip(got.widths, got.heights)) == [(15, 30), (32, 16)]
    assert [Image.open(io.BytesIO(content)).size for content in got.thumbnails()] == [
        (15, 30), (32, 16)]


def test_a_picture_that_cannot_be_measured_is_still_an_image(tmp_path, monkeypatch):
    path = draw(tmp_path / "image.png", 0)
    monkeypatch.setattr(looking, "measure", lambda image: 1 / 0)
    geometry = looking.Geometry(32, 32, "bilinear", frame.Limits())
    found = looking.look_at(looking.look(str(path)), geometry)
    assert np.isnan(found.measures).all() and found.measures.dtype == np.float16
    assert found.thumbnail and found.pixels.shape == (32, 32, 3)


def test_bad_files_are_listed_with_their_reasons_and_stop_nothing(tmp_path, made):
    folder = archive(tmp_path / "archive", 5)
    whole = (folder / "sol0" / "003.png").read_bytes()
    (folder / "half.png").write_bytes(whole[:len(whole) // 2])
    os.symlink(folder / "sol0" / "000.png", folder / "link.png")  # left out, as in the inbox
    got = made()
    assert [(os.path.basename(path), code) for path, code, _ in got.failed] == [
        ("empty.jpg", "empty"), ("half.png", "damaged"), ("notes.txt", "not_an_image")]
    assert all(reason for _, _, reason in got.failed)
    with open(tmp_path / "corpus" / "failed.csv", newline="") as stream:
        assert [row["path"] for row in csv.DictReader(stream)] == [f.path for f in got.failed]
    assert len(got) == 5


def test_names_that_are_not_utf8_are_names_like_any_other(tmp_path, made):
    folder = tmp_path / "archive"
    names = [b"sol\xff/\xe4.png", b"sol\xff/\n.png", "ä.png".encode()]
    for seed, name in enumerate(names):
        draw(os.fsdecode(os.fsencode(folder) + b"/" + name), seed)
    (folder / os.fsdecode(b"\xfe.png")).write_bytes(b"")
    got = made()
    assert {os.fsencode(os.path.relpath(path, folder)) for path in got.paths} == set(names)
    assert [os.fsencode(os.path.basename(f.path)) for f in got.failed] == [b"\xfe.png"]
    made(**NO_NETWORK)  # they are known by these names


def test_any_tool_reads_the_shards(tmp_path, made, model):
    archive(tmp_path / "archive", 5)
    got = made()
    table = pq.read_table(glob.glob(str(tmp_path / "corpus" / "*.parquet"))[0])
    assert table.column_names == [
        "path", "path_raw", "sha256", "bytes", "mtime_ns", "width", "height", "captured_at",
        "scene", "measures", "thumbnail", "embedding"]
    assert table.schema.metadata[b"jetson_cluster.space"].decode() == got.space == model.space
    assert table.schema.field("embedding").type == pa.list_(pa.float16(), 48)
    assert set(table.column("path_raw").to_pylist()) == {None}


def test_capture_times_are_exifs_and_else_the_files(tmp_path, made):
    exif = Image.Exif()
    exif[0x8769] = {0x9003: "2026:11:22 06:40:00"}
    draw(tmp_path / "archive" / "dated.jpg", 0, exif=exif)
    plain = draw(tmp_path / "archive" / "plain.jpg", 1)
    os.utime(plain, (86400, 86400))
    assert made().captured_at == ["2026-11-22T06:40:00Z", "1970-01-02T00:00:00Z"]
    for name in ("dated", "plain"):
        os.rename(tmp_path / "archive" / (name + ".jpg"), tmp_path / "archive" / (name + "2.jpg"))
        os.utime(tmp_path / "archive" / (name + "2.jpg"), (172800, 172800))
    assert made(**NO_NETWORK).captured_at == ["2026-11-22T06:40:00Z", "1970-01-03T00:00:00Z"]


# ---- the second time ---------------------------------------------------------------------------


def test_nothing_is_embedded_or_written_twice(tmp_path, made):
    archive(tmp_path / "archive", 20)
    before = contents(made())
    shard = tmp_path / "corpus" / "shard-000001.parquet"
    inode, told = os.stat(shard).st_ino, []
    assert contents(made(tell=told.append, **NO_NETWORK)) == before
    assert told == ["21 of 23 files are embedded already"]
    assert os.stat(shard).st_ino == inode


def test_only_new_and_changed_files_are_embedded(tmp_path, made):
    folder = archive(tmp_path / "archive", 20)
    made()
    draw(folder / "new.png", 100)
    draw(folder / "sol1" / "001.png", 101)
    os.unlink(folder / "sol2" / "002.png")
    told, fresh = [], made(folder=tmp_path / "fresh")
    assert contents(made(tell=told.append)) == contents(fresh)
    assert told[0] == "19 of 23 files are embedded already"
    assert str(folder / "sol2" / "002.png") not in fresh.paths


def test_moved_files_keep_their_embeddings(tmp_path, made):
    folder = archive(tmp_path / "archive", 20)
    made(shard_images=6)
    os.rename(folder / "sol0", folder / "elsewhere")
    got = made(shard_images=6, **NO_NETWORK)
    assert contents(got) == contents(made(folder=tmp_path / "fresh"))


def test_files_that_only_look_known_are_embedded_while_others_are_still_to_be_hashed(
        tmp_path, made, monkeypatch):
    monkeypatch.setattr(making, "COMPARED_FILES", 4)
    monkeypatch.setattr(making, "identify", hashed_after(tmp_path / "hashed"))
    folder = tmp_path / "archive"
    for number in range(12):
        draw(folder / ("%02d.ppm" % number), number)  # all of one size
    made([folder / "00.ppm"])
    seen, told = [], []
    shutil.copy(folder / "00.ppm", folder / "99.ppm")
    made(progress=lambda *counts: seen.append((counts, (tmp_path / "hashed").stat().st_size)),
         tell=told.append)
    assert [hashed for _, hashed in seen] == [4] * 4 + [8] * 4 + [12] * 4
    assert [counts for counts, _ in seen][-1] == (12, 12, 1)
    assert "1 files are of a content that is embedded already" in told


def test_an_image_that_became_a_bad_file_drops_out(tmp_path, made):
    folder = archive(tmp_path / "archive", 5)
    made()
    (folder / "sol1" / "001.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    got = made()
    assert str(folder / "sol1" / "001.png") not in got.paths
    assert str(folder / "sol1" / "001.png") in [failure.path for failure in got.failed]


def test_the_copy_takes_over_when_the_first_is_gone(tmp_path, made):
    folder = archive(tmp_path / "archive", 5)
    made()
    os.unlink(folder / "copy.png")
    got = made(**NO_NETWORK)
    assert len(got) == 5 and got.paths[0] == str(folder / "sol0" / "000.png")


def test_images_that_are_there_but_not_named_are_dropped_only_when_told(tmp_path, made):
    folder = archive(tmp_path / "archive", 9)
    before = contents(made())
    with pytest.raises(UserError, match="6 of its images were not named .* first %s" % (
            folder / "copy.png")):
        made([folder / "sol1", folder / "sol2" / "002.png"])
    assert contents(corpus.read(tmp_path / "corpus")) == before
    assert len(made([folder / "sol1"], drop=True, **NO_NETWORK)) == 3


def test_images_that_are_gone_are_told(tmp_path, made):
    folder, told = archive(tmp_path / "archive", 20), []
    made()
    for name in ("004", "001"):
        os.unlink(folder / "sol1" / (name + ".png"))
    os.unlink(folder / "copy.png")  # its content is there still: no image is lost
    assert len(made(tell=told.append)) == 18
    assert "2 images are gone from the archive and dropped, first %s" % (
        folder / "sol1" / "001.png") in told


def test_an_image_whose_copy_is_spoiled_is_gone(tmp_path, made):
    folder, told = archive(tmp_path / "archive", 20), []
    made()
    os.unlink(folder / "sol0" / "000.png")
    (folder / "copy.png").write_bytes(b"spoiled")
    assert len(made(tell=told.append)) == 19
    assert told[1:] == ["1 images are gone from the archive and dropped, first %s" % (
        folder / "sol0" / "000.png")]


@pytest.mark.parametrize("emptied", [False, True])
def test_a_whole_folder_that_is_gone_is_dropped_only_when_told(tmp_path, made, emptied):
    folder, told = archive(tmp_path / "archive", 20), []
    shutil.move(folder / "sol2", folder / "disk" / "sol2")
    before = contents(made())
    shutil.rmtree(folder / "disk")
    if emptied:  # as an unmounted disk leaves its mount point
        (folder / "disk").mkdir()
    with pytest.raises(UserError, match="6 of its 21 images would be dropped: the folder %s is "
                       "gone or empty; .* give --drop" % (folder / "disk")):
        made(**NO_NETWORK)
    assert contents(corpus.read(tmp_path / "corpus")) == before
    assert len(made(drop=True, tell=told.append, **NO_NETWORK)) == 14
    assert "6 images are gone from the archive and dropped, first %s" % (
        folder / "disk" / "sol2" / "002.png") in told


def test_a_folder_whose_files_only_look_moved_is_not_dropped_either(tmp_path, made):
    folder = archive(tmp_path / "archive", 9)
    before = made().paths
    for path in (folder / "sol1").iterdir():  # others of the same size take their place elsewhere
        (folder / ("not%s" % path.name)).write_bytes(bytes(path.stat().st_size))
    shutil.rmtree(folder / "sol1")
    with pytest.raises(UserError, match="the folder %s is gone or empty" % (folder / "sol1")):
        made()
    assert corpus.read(tmp_path / "corpus").paths == before


def test_more_than_half_of_a_corpus_is_dropped_only_when_told(tmp_path, made):
    folder = archive(tmp_path / "archive", 9)
    made()
    for number in (0, 3, 1, 4, 2, 5):
        os.unlink(folder / ("sol%d" % (number % 3)) / ("%03d.png" % number))
    os.unlink(folder / "copy.png")
    with pytest.raises(UserError, match="7 of its 10 images would be dropped: they are gone from "
                       "%s" % folder):
        made()
    assert len(corpus.read(tmp_path / "corpus")) == 9
    assert len(made(drop=True)) == 3


def test_what_lies_in_a_folder_that_cannot_be_read_is_kept():
    arrival = Arrival("/archive/a/1.png", 1, 1, 1)
    wanted = making._wanted(listing.Listing([arrival], [], ["/archive/b"]))
    assert wanted("/archive/a/1.png") and wanted("/archive/b/c/2.png")
    assert not wanted("/archive/a/2.png") and not wanted("/archive/bc/2.png")


def test_small_shards_are_put_together_with_what_removed_rows_leave(tmp_path, made):
    for number in range(11):
        draw(tmp_path / "archive" / ("%02d.png" % number), number)
    made(shard_images=8)
    for number in range(5):
        os.unlink(tmp_path / "archive" / ("%02d.png" % number))
    got = made(shard_images=8)
    assert [len(shards.read_shard(got.folder, number, description_of(got), ["path"]))
            for number in shards.shard_numbers(got.folder)] == [6]


def test_all_shards_but_one_are_more_than_half_full(tmp_path, made):
    for number in range(12):
        draw(tmp_path / "archive" / ("%02d.png" % number), number)
        got = made(shard_images=8)
    lengths = sorted(len(shards.read_shard(got.folder, number, description_of(got), ["path"]))
                     for number in shards.shard_numbers(got.folder))
    assert sum(lengths) == 12 and all(length > 4 for length in lengths[1:])
    assert contents(got) == contents(made(folder=tmp_path / "fresh"))


EDIT = st.tuples(st.sampled_from(["draw", "remove", "copy", "move", "spoil", "touch"]),
                 st.integers(0, 7), st.integers(0, 7))


def edit(folder, what, one, other):
    """One thing that happens to an archive of eight possible files."""
    path, target = folder / ("%d.png" % one), folder / ("%d.png" % other)
    if what == "draw":
        draw(path, 10 + other)
    elif not path.exists():
        return
    elif what == "remove":
        path.unlink()
    elif what == "copy" and one != other:
        shutil.copy(path, target)
    elif what == "move":
        os.rename(path, target)
    elif what == "spoil":
        path.write_bytes(b"%d" % other)
    elif what == "touch":
        os.utime(path, (other, other))


@settings(max_examples=15, deadline=None, suppress_health_check=[
    HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.lists(EDIT, min_size=1, max_size=6), min_size=1, max_size=4), st.integers(1, 5))
def test_whatever_happened_the_corpus_is_as_if_made_afresh(
        tmp_path, made, tmp_path_factory, history, shard_images):
    folder = tmp_path_factory.mktemp("edited")
    draw(folder / "archive" / "always.png", 99)
    for edits in history:
        for one in edits:
            edit(folder / "archive", *one)
        got = made([folder / "archive"], folder / "corpus", shard_images=shard_images, drop=True)
    fresh = made([folder / "archive"], folder / "fresh")
    assert contents(got) == contents(fresh)


# ---- damage and mistakes -----------------------------------------------------------------------


def test_a_damaged_shard_is_told_and_made_anew(tmp_path, made, caplog):
    archive(tmp_path / "archive", 20)
    before = contents(made(shard_images=8))
    path = tmp_path / "corpus" / "shard-000002.parquet"
    group, content = pq.read_metadata(path).row_group(0), bytearray(path.read_bytes())
    embeddings, = (column for column in map(group.column, range(group.num_columns))
                   if column.path_in_schema.startswith("embedding."))
    content[embeddings.data_page_offset + embeddings.total_compressed_size // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"shard-000002.parquet cannot be used \(.*\)") as error:
        got = corpus.read(tmp_path / "corpus")
        got.embeddings(), got.thumbnails()
    assert "\n" not in str(error.value)
    assert contents(made(shard_images=8)) == before
    assert "ShardDamaged" in caplog.text
    assert os.path.exists(str(path) + ".damaged")


@settings(max_examples=200, deadline=None, suppress_health_check=[
    HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_flipped_bit_is_noticed_or_changes_nothing(tmp_path, made, data):
    if not (tmp_path / "corpus").exists():
        archive(tmp_path / "archive", 6)
        made()
    path = tmp_path / "corpus" / "shard-000001.parquet"
    if not (tmp_path / "whole").exists():
        shutil.copy(path, tmp_path / "whole")
    sound = (tmp_path / "whole").read_bytes()
    path.write_bytes(sound)
    before = contents(corpus.read(tmp_path / "corpus"))
    # Half of them in the footer, which has no checksum of its own.
    last = len(sound) - 1
    place = data.draw(st.integers(0, last) | st.integers(last - 3000, last))
    damaged = bytearray(sound)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(damaged))
    try:
        assert contents(corpus.read(tmp_path / "corpus")) == before
    except UserError as error:
        assert "shard-000001.parquet cannot be used" in str(error) and "\n" not in str(error)


def test_a_shard_of_another_network_is_not_believed(tmp_path, made):
    archive(tmp_path / "archive", 5)
    made()
    folder = str(tmp_path / "corpus")
    table = shards.read_shard(folder, 1, description_of(corpus.read(folder)))
    shards.write_shard(folder, 2, table, "other/layer@0")
    with pytest.raises(UserError, match="its embeddings are of the space 'other/layer@0'"):
        corpus.read(folder)


def test_a_corpus_of_another_network_is_refused_by_name(tmp_path, made, lite0):
    archive(tmp_path / "archive", 3)
    space = made().space
    other = recipe.load_model(lite0)
    with pytest.raises(UserError, match="of the space %s, not of %s" % (space, other.space)):
        corpus.embed([str(tmp_path / "archive")], str(tmp_path / "corpus"), other)
    with pytest.raises(UserError, match="not of other"):
        corpus.read(tmp_path / "corpus", "other")


@pytest.mark.parametrize("content, told", [
    (None, "there is no corpus.json"), ("{", "damaged"), ("[]", "damaged"),
    ('{"format": 1}', "damaged"), ('{"format": 9}', "of format 9, this version reads format 1")])
def test_what_is_no_corpus_is_one_clear_line(tmp_path, content, told):
    if content is not None:
        (tmp_path / "corpus.json").write_text(content)
    with pytest.raises(UserError, match=told) as error:
        corpus.read(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_an_archive_without_one_image_is_one_clear_line(tmp_path, made):
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "notes.md").write_text("no image")
    with pytest.raises(UserError, match="not one of its 1 files is a readable image"):
        made()
    assert [failure.code for failure in corpus.read(tmp_path / "corpus").failed] == ["not_an_image"]


def test_two_runs_at_once_in_one_corpus_are_refused(tmp_path, made):
    archive(tmp_path / "archive", 3)
    made()
    from jetson_cluster.lock import lock_folder
    with lock_folder(str(tmp_path / "corpus")), pytest.raises(
            WorldError, match=r"in use by .*; stop it first, or name another --out$"):
        made()


def test_numbers_float16_cannot_hold_are_refused(tmp_path):
    from jetson_cluster.ground.corpus.embedding import judged
    path = draw(tmp_path / "image.png", 0)
    look = looking.look_at(looking.look(str(path)),
                           looking.Geometry(32, 32, "bilinear", frame.Limits()))
    assert isinstance(judged(look, np.full(3, 65504, np.float32)), Row)
    assert judged(look, np.array([0, -65536], np.float32)).code == "overflow"
    assert judged(look, np.array([0, np.nan], np.float32)).code == "not_finite"


# ---- what is meant -----------------------------------------------------------------------------


def names(found, folder):
    return [os.path.relpath(arrival.path, folder) for arrival in found.files]


def test_folders_lists_globs_and_images_may_be_named_together(tmp_path):
    folder = archive(tmp_path / "archive", 9)
    (tmp_path / "list").write_bytes(b"archive/copy.png\r\n\narchive/gone.png\n")
    found = listing.list_files([str(folder / "sol1"), str(tmp_path / "list"),
                                str(folder / "**" / "00[26].png"),
                                str(folder / "sol1" / "001.png")], str(tmp_path / "corpus"))
    assert names(found, folder) == ["copy.png", "sol0/006.png", "sol1/001.png", "sol1/004.png",
                                    "sol1/007.png", "sol2/002.png"]
    assert found.failures == [Failure(str(folder / "gone.png"), "absent", "There is no such file.")]


def test_a_list_may_name_files_that_are_not_utf8(tmp_path):
    draw(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"), 0)
    (tmp_path / "list.txt").write_bytes(b"\xff.png\n")
    found = listing.list_files([str(tmp_path / "list.txt")], str(tmp_path / "corpus"))
    assert [os.fsencode(name) for name in names(found, tmp_path)] == [b"\xff.png"]


def test_a_damaged_image_is_not_taken_for_a_list(tmp_path):
    whole = draw(tmp_path / "image.png", 0).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[:40])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "zeros.png").write_bytes(bytes(100))
    found = listing.list_files([str(tmp_path / name) for name in (
        "image.png", "half.png", "empty.png", "zeros.png")], str(tmp_path / "corpus"))
    assert names(found, tmp_path) == ["empty.png", "half.png", "image.png", "zeros.png"]


def test_a_corpus_within_its_archive_is_not_read_as_images(tmp_path, made):
    draw(tmp_path / "image.png", 0)
    for _ in range(2):
        got = made([tmp_path])
    assert got.paths == [str(tmp_path / "image.png")] and got.failed == []


def test_another_corpus_within_an_archive_is_not_read_as_images(tmp_path, made):
    draw(tmp_path / "image.png", 0)
    draw(tmp_path / "theirs" / "image.png", 1)
    (tmp_path / "theirs" / "corpus.json").write_text("[]")  # an archive may have such a file
    made([tmp_path], tmp_path / "deeper" / "other")
    for damaged in (False, True):
        if damaged:
            (tmp_path / "deeper" / "other" / "corpus.json").write_text("{")
        got = made([tmp_path])
        assert [os.path.relpath(path, tmp_path) for path in got.paths] == [
            "image.png", "theirs/image.png"]
        assert [os.path.relpath(failure.path, tmp_path) for failure in got.failed] == [
            "theirs/corpus.json"]


@pytest.mark.parametrize("source, told", [
    ("nowhere", "no such file or folder"), ("*.nothing", "no file has such a name"),
    ("hollow", "no files there"), ("list.txt", "no files there, the first it names is")])
def test_a_source_that_means_nothing_is_one_clear_line(tmp_path, source, told):
    (tmp_path / "hollow").mkdir()
    (tmp_path / "list.txt").write_text("gone.png\n")
    with pytest.raises(UserError, match=told):
        listing.list_files([str(tmp_path / source)], str(tmp_path / "corpus"))


def test_a_folder_that_cannot_be_read_is_listed_and_the_rest_is_found(tmp_path, monkeypatch):
    draw(tmp_path / "image.png", 0)
    monkeypatch.chdir(tmp_path)
    for _ in range(20):  # until no path reaches it
        os.mkdir("d" * 250)
        os.chdir("d" * 250)
    found = listing.list_files([str(tmp_path)], str(tmp_path / "corpus"))
    assert names(found, tmp_path) == ["image.png"]
    assert [failure.code for failure in found.failures] == ["unreadable"]
    assert len(found.unread) == 1


# ---- processes that die ------------------------------------------------------------------------


def test_a_file_that_ends_its_process_is_given_up_alone():
    arrivals = [Arrival("/x/%s%d" % ("deadly" if number in (3, 4, 17) else "fine", number), 0, 0, 0)
                for number in range(24)]
    with looking.Crew(lambda: looking.processes(2), 8) as crew:
        found = [result for _, result in crew.each(name_or_end, arrivals, None)]
    for number, result in enumerate(found):
        if number in (3, 4, 17):
            assert result == Failure("/x/deadly%d" % number, "crashed", looking.CRASHED)
        else:
            assert result == "fine%d" % number


def test_processes_that_never_live_are_not_laid_to_the_files(tmp_path, tiny):
    draw(tmp_path / "archive" / "image.png", 0)
    script = tmp_path / "unguarded.py"  # each process runs it again, and fails in it
    script.write_text("from jetson_cluster import recipe\n"
                      "from jetson_cluster.ground import corpus\n"
                      "model = recipe.load_model(%r)\n"
                      "corpus.embed([%r], %r, model, 'onnxruntime', workers=1)\n" % (
                          tiny, str(tmp_path / "archive"), str(tmp_path / "corpus")))
    told = subprocess.run([sys.executable, str(script)], stderr=subprocess.PIPE, text=True).stderr
    assert "the processes that decode images end as soon as they are started" in told
    assert not corpus.read(tmp_path / "corpus").complete


# ---- on disk -----------------------------------------------------------------------------------

NAMES = st.binary(min_size=1, max_size=20).map(lambda name: os.fsdecode(
    b"/" + name.replace(b"\0", b"")))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(NAMES, st.text(st.characters(exclude_categories=["Cs"])))))
def test_any_name_and_reason_comes_back_from_the_list_of_bad_files(tmp_path, listed):
    failures = [Failure(path, "damaged", reason.replace("\0", "")) for path, reason in listed]
    shards.write_failed(str(tmp_path), failures)
    assert shards.read_failed(str(tmp_path)) == failures


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(NAMES, st.integers(0, 2 ** 63 - 1), st.binary(max_size=50))))
def test_any_row_comes_back_from_a_shard(tmp_path, listed):
    random = np.random.RandomState(len(listed))
    rows = [Row(path, "%064x" % number, number, number, 1, 2, "", random.rand(7).astype(np.float16),
                thumbnail, random.rand(5).astype(np.float16)) for path, number, thumbnail in listed]
    shards.write_shard(str(tmp_path), 1, shards.table_of(rows, 5), "space")
    description = shards.Description("space", 5, True)
    back = shards.rows_of(shards.read_shard(str(tmp_path), 1, description), 5)
    assert len(back) == len(rows)
    for row, other in zip(rows, back):
        assert row[:7] + (row.thumbnail,) == other[:7] + (other.thumbnail,)
        np.testing.assert_array_equal(row.embedding, other.embedding)
        np.testing.assert_array_equal(row.measures, other.measures)


def test_corpus_json_says_what_made_it(tmp_path, made, model):
    archive(tmp_path / "archive", 3)
    made()
    said = json.loads((tmp_path / "corpus" / "corpus.json").read_text())
    assert said["space"] == model.space and said["recipe"]["onnx_sha256"] == model.onnx_sha256
