"""`jetson-cluster report`: what it writes, what it refuses, and what no file's name can do to it."""

import argparse
import base64
import hashlib
import io
import json
import os
import re
import resource

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="a corpus needs pyarrow")
pytest.importorskip("sklearn", reason="the map needs scikit-learn")

import surveyed
from PIL import Image

from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.ground import report
from jetson_cluster.ground.corpus.shards import Failure
from jetson_cluster.ground.report import atlas, build, content, folder, sheets
from jetson_cluster.ground.report.data import Cluster

HOSTILE = ["<img src=x onerror=alert(1)>.png", "a<script>alert(2)<!--.png",
           "{{policy}}{{data}}.png", "line\nbreak\u202egnp.png", os.fsdecode(b"caf\xe9 #1?&%41.png"),
           "\u706b\u661f \U0001f534.png", "'\"\\.png", "<!--.png"]


@pytest.fixture
def archive(tmp_path):
    """A corpus of 24 pictures of 4 kinds, eight of them with hostile names, and its codebook."""
    rows = [surveyed.row(os.path.join(str(tmp_path), "archive", name), number % 4, number,
                         captured_at="2031-04-%02dT05:17:00Z" % (number + 1))
            for number, name in enumerate(HOSTILE + ["%02d.png" % number for number in range(16)])]
    surveyed.write_corpus(tmp_path / "corpus", rows, failed=[
        Failure(str(tmp_path / "archive" / "</script>.txt"), "not_an_image", "It is <b>text</b>.")])
    surveyed.codebook_of(tmp_path / "book.npz")
    (tmp_path / "policy.yaml").write_text(
        "clusters: {1: {label: '</script><img src=x onerror=alert(3)>', weight: 2}}\n")
    return tmp_path


def run(folder, *arguments, out="report", map_kind="pca"):
    """The verb, with the corpus and the codebook of `archive`; returns where it wrote."""
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    written = str(folder / out)
    assert report.run(parser.parse_args([
        str(folder / "corpus"), "--codebook", str(folder / "book.npz"), "--out", written, "--map",
        map_kind, *arguments])) == 0
    return written


def told(page):
    """The data a page holds, found as a browser finds them: to the first end of the script."""
    text = open(page, encoding="utf-8").read()
    start = text.index('<script type="application/json" id="data">')
    return json.loads(text[text.index(">", start) + 1:text.index("</script", start)])


def column(data, name, kind):
    return np.frombuffer(base64.b64decode(data[name]), kind)


# ---- what is written ---------------------------------------------------------------------------


def test_a_folder_holds_the_page_the_sprites_and_a_sheet_for_each_cluster(archive, capsys):
    out = run(archive)
    assert sorted(os.listdir(out)) == [folder.MARKER, "index.html", "sheets", "sprites"]
    assert os.listdir(os.path.join(out, "sprites")) == ["00001.webp"]
    assert sorted(os.listdir(os.path.join(out, "sheets"))) == [
        "cluster-%05d.png" % number for number in range(4)]
    assert "24 images in 4 clusters" in capsys.readouterr().out
    assert sorted(os.listdir(archive)) == [
        "archive", "book.npz", "corpus", "policy.yaml", "report"]  # nothing half made beside it


def test_the_page_says_of_every_image_what_the_corpus_knows(archive):
    from jetson_cluster import codebook
    from jetson_cluster.ground import corpus as corpora
    data = told(os.path.join(run(archive), "index.html"))
    corpus = corpora.read(str(archive / "corpus"))
    assessed = codebook.load(str(archive / "book.npz")).assess(corpus.embeddings())
    assert data["count"] == 24
    hashes = [column(data, "sha256", "u1").reshape(-1, 32)[at].tobytes().hex() for at in range(24)]
    rows = [corpus.sha256.index(sha256) for sha256 in hashes]
    folders = [data["folders"][folder] for folder in column(data, "folder", "<u4")]
    assert [os.path.join(folder, name) for folder, name in zip(folders, data["names"])] == [
        corpus.paths[row] for row in rows]
    assert column(data, "bytes", "<f8").tolist() == corpus.bytes[rows].tolist()
    assert np.allclose(column(data, "distance", "<f4"), assessed.distance[rows])
    assert column(data, "pixels", "<i4").tolist() == 24 * [120, 80]
    captured = column(data, "captured", "<f8")
    assert captured[hashes.index(corpus.sha256[corpus.paths.index(
        str(archive / "archive" / "00.png"))])] == 1933478220000  # 2031-04-09T05:17:00Z
    clusters = np.repeat([cluster["number"] for cluster in data["clusters"]],
                         [cluster["size"] for cluster in data["clusters"]])
    assert clusters.tolist() == assessed.cluster[rows].tolist()


def test_a_single_file_holds_everything_but_the_sheets(archive):
    page = run(archive, "--single-file", out="report.html")
    data, text = told(page), open(page, encoding="utf-8").read()
    sprites = re.findall(r'<script type="text/plain" class="sprite">([^<]*)</script>', text)
    assert data["sprites"] == 1 == len(sprites) and data["sheets"] is False
    assert Image.open(io.BytesIO(base64.b64decode(sprites[0]))).format == "WEBP"
    assert not (archive / "report").exists()


def test_labels_and_weights_come_from_the_policy_and_unknown_clusters_are_told(archive, capsys):
    (archive / "policy.yaml").write_text("clusters: {0: {label: dunes}, 9: {label: gone}}\n")
    data = told(os.path.join(run(archive, "--policy", str(archive / "policy.yaml")), "index.html"))
    assert [cluster["label"] for cluster in data["clusters"]] == ["dunes", "", "", ""]
    assert "names cluster 9, but the codebook has only 0 to 3" in capsys.readouterr().out


def test_a_corpus_whose_embed_was_stopped_is_told(archive, capsys):
    description = archive / "corpus" / "corpus.json"
    description.write_text(description.read_text().replace("true", "false"))
    run(archive)
    assert "is not complete" in capsys.readouterr().out


def test_thumbnails_that_cannot_be_decoded_are_grey_and_counted(tmp_path, capsys):
    rows = [surveyed.row(str(tmp_path / "a" / ("%d.png" % number)), number, number)
            for number in range(4)]
    surveyed.write_corpus(tmp_path / "corpus", [rows[0]._replace(thumbnail=b"RIFF....WEBP")]
                          + rows[1:])
    surveyed.codebook_of(tmp_path / "book.npz")
    run(tmp_path)
    assert "1 thumbnails of the corpus cannot be decoded" in capsys.readouterr().out


def test_a_second_report_takes_the_place_of_the_first_but_not_of_what_people_put_there(archive):
    out = run(archive)
    for name in ("selection.csv", os.path.join("sheets", "cluster-00099.png")):
        open(os.path.join(out, name), "w").close()
    assert run(archive) == out
    assert sorted(os.listdir(out)) == [folder.MARKER, "index.html", "selection.csv", "sheets",
                                       "sprites"]
    assert len(os.listdir(os.path.join(out, "sheets"))) == 4
    assert [name for name in os.listdir(archive) if name.startswith(".")] == []


def test_a_report_that_cannot_be_written_leaves_the_old_one(archive):
    out = run(archive)
    before = open(os.path.join(out, "index.html"), "rb").read()
    assert len(before) > 40000
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40000, limits[1]))
    try:
        with pytest.raises(WorldError, match="report .*: cannot be written: File too large"):
            run(archive)
        with pytest.raises(WorldError, match="report .*: cannot be written: File too large"):
            run(archive, "--single-file", out="one.html")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert open(os.path.join(out, "index.html"), "rb").read() == before
    assert sorted(os.listdir(archive)) == ["archive", "book.npz", "corpus", "policy.yaml", "report"]


# ---- names cannot do anything ------------------------------------------------------------------


def test_no_name_ends_the_data_or_becomes_an_element(archive):
    for out, arguments in (("report", []), ("one.html", ["--single-file"])):
        page = run(archive, "--policy", str(archive / "policy.yaml"), *arguments, out=out)
        page = page if arguments else os.path.join(page, "index.html")
        data, text = told(page), open(page, encoding="utf-8").read()
        assert set(HOSTILE) <= set(data["names"])
        assert data["clusters"][1]["label"] == "</script><img src=x onerror=alert(3)>"
        assert data["failed"][0][2] == "It is <b>text</b>."
        assert text.count("<script") == text.count("</script>") == 2 + (1 if arguments else 0)
        assert "<img src=x" not in text and "<!--" not in text


def test_the_page_allows_its_own_program_and_style_and_no_other(archive):
    text = open(os.path.join(run(archive), "index.html"), encoding="utf-8", newline="").read()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL).group(1)
    program = re.search(r"<script>(.*?)</script>", text, re.DOTALL).group(1)

    def hashed(part):
        return "'sha256-%s'" % base64.b64encode(
            hashlib.sha256(part.encode("utf-8")).digest()).decode()

    assert policy == ("default-src 'none'; script-src %s; style-src %s; img-src 'self' file: data: "
                      "blob:; base-uri 'none'; form-action 'none'" % (
                          hashed(program), hashed(style)))
    assert "unsafe" not in policy
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_the_program_never_makes_html_of_text():
    program = build.program_text()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                "Function(", "setTimeout(\"", "srcdoc", "fetch(", "XMLHttpRequest", "localStorage"):
        assert way not in program, way


# ---- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("out, arguments, message", [
    ("nowhere/report", [], "there is no folder .*nowhere; make it first"),
    ("archive", [], "holds files that are no report; name a new folder"),
    ("policy.yaml", [], "is no folder"),
    ("report", ["--single-file"], "name a file that ends in .html"),
    ("report", ["--seed", "-1"], "--seed -1: must be a whole number from 0"),
    ("report", ["--policy", "absent.yaml"], "--policy absent.yaml: no such file")])
def test_what_cannot_work_is_refused_in_a_line_before_anything_is_read(
        archive, out, arguments, message):
    (archive / "book.npz").unlink()  # its absence would be told, were it looked for
    with pytest.raises(UserError, match=message) as raised:
        run(archive, *arguments, out=out)
    assert "\n" not in str(raised.value)


def test_a_codebook_of_another_space_is_refused(archive):
    from jetson_cluster import codebook
    book = codebook.load(str(archive / "book.npz"))
    codebook.save(str(archive / "book.npz"), book._replace(space="other/layer@0"))
    with pytest.raises(UserError, match="made for the embedding space other/layer@0"):
        run(archive)


def test_a_folder_that_is_no_corpus_is_refused(archive):
    (archive / "corpus" / "corpus.json").unlink()
    with pytest.raises(UserError, match="there is no corpus.json"):
        run(archive)


# ---- sprites and sheets ------------------------------------------------------------------------


def test_every_thumbnail_stands_in_its_own_cell_of_a_sprite():
    colours = np.random.default_rng(0).integers(0, 256, (150, 3))
    sizes = [(96, 64), (64, 96), (96, 96), (20, 96)]
    made = list(atlas.sprites([surveyed.coded(Image.new("RGB", sizes[at % 4], tuple(colour)), "PNG")
                               for at, colour in enumerate(colours.tolist())]))
    assert [len(sprite.sizes) for sprite in made] == [atlas.CELLS, 6]
    for at, colour in enumerate(colours):
        sprite = made[at // atlas.CELLS]
        place = at % atlas.CELLS
        assert sprite.sizes[place].tolist() == list(sizes[at % 4])
        picture = np.asarray(Image.open(io.BytesIO(sprite.content)), int)
        x, y = place % atlas.COLUMNS * atlas.CELL, place // atlas.COLUMNS * atlas.CELL
        width, height = sizes[at % 4]
        inside = picture[y + 6:y + height - 6, x + 6:x + width - 6]
        # WebP keeps colours at half the resolution, and coarsely.
        assert np.abs(inside.mean(axis=(0, 1)) - colour).max() < 8


def test_a_thumbnail_larger_than_a_cell_is_made_smaller():
    picture, readable = atlas.opened(surveyed.coded(Image.new("RGB", (400, 100)), "JPEG"))
    assert picture.size == (96, 24) and readable


def test_a_sheet_shows_the_whole_range_of_a_large_cluster_in_ten_rows_of_ten():
    chosen = sheets.chosen(5000)
    assert len(chosen) == 100 and chosen[0] == 0 and chosen[-1] == 4999
    assert np.diff(chosen).min() >= 50 and np.diff(chosen).max() <= 51
    assert sheets.chosen(100).tolist() == list(range(100))
    assert sheets.chosen(3).tolist() == [0, 1, 2]
    cluster = Cluster(7, "", 1.0, 0, 5000, 0.5)
    picture = Image.open(io.BytesIO(sheets.sheet(cluster, 100 * [surveyed.coded(
        Image.new("RGB", (96, 96), (200, 100, 50)))])))
    assert picture.format == "PNG" and picture.size == (1028, 1056)
    pixels = np.asarray(picture.convert("RGB"), int)
    for row in range(10):
        for at in range(10):
            x, y = 16 + at * 100, 44 + row * 100
            assert np.abs(pixels[y + 48, x + 48] - (200, 100, 50)).max() < 10
            assert np.abs(pixels[y + 48, x + 98] - pixels[0, 0]).max() < 10 or at == 9


@pytest.mark.parametrize("size, shown, expected", [
    (5000, 100, ["Cluster 7: rock", "100 of 5000 images, from the most typical to the most unusual"]),
    (2, 2, ["Cluster 7: rock", "all 2 images, from the most typical to the most unusual"]),
    (1, 1, ["Cluster 7: rock", "its only image"])])
def test_a_sheet_says_what_it_shows(size, shown, expected):
    assert sheets.caption(Cluster(7, "rock", 1.0, 0, size, 0.5), shown) == expected


def test_a_long_label_is_cut_on_a_sheet_where_there_is_no_room():
    sheet = sheets.sheet(Cluster(7, "W" * 80, 1.0, 0, 1, 0.0), [b"unreadable"])
    pixels = np.asarray(Image.open(io.BytesIO(sheet)).convert("RGB"), int)
    margin = pixels[:sheets.CAPTION, -sheets.MARGIN + 1:]
    assert np.abs(margin - pixels[0, 0]).max() < 10


# ---- small things ------------------------------------------------------------------------------


@pytest.mark.parametrize("paths, title", [
    (["/data/mars32k/a.png", "/data/mars32k/b/c.png"], "mars32k"), (["/data/sol7/a.png"], "sol7"),
    (["/a/1.png", "/b/1.png"], "crawl")])
def test_a_report_is_called_after_the_folder_its_images_share_else_after_its_corpus(paths, title):
    assert report.title_of(paths, "out/crawl/") == title


def test_images_are_named_by_as_many_digits_as_tell_them_apart():
    assert content.named_by(["a" * 64, "b" * 64]) == 12
    assert content.named_by(["a" * 20 + "b" * 44, "a" * 20 + "c" * 44]) == 21


@pytest.mark.parametrize("text, expected", [
    ("1970-01-01T00:00:01Z", 1000), ("1970-01-01T01:00:00+01:00", 0), ("1970-01-01T00:00:00", 0),
    ("2031-04-09T05:17:00.250Z", 1933478220250)])
def test_times_are_told_in_milliseconds(text, expected):
    assert content.epoch_ms(text) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "2031-13-01T00:00:00Z"])
def test_a_time_that_is_not_known_is_no_number(text):
    assert np.isnan(content.epoch_ms(text))
