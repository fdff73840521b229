"""A report of 60 pictures in a real browser, and what its tests do there.

Fixtures: `chromium`, `archive` (a folder with a corpus, its codebook and the pictures), `url` (of its
report) and `page` (the report, opened as a file). Import them into a test module to use them.
"""

import argparse
import base64
import csv
import io
import json
import os
import pathlib

import browser
import numpy as np
import pytest
import surveyed
from PIL import Image

from jetson_cluster.ground import report
from jetson_cluster.ground.corpus.shards import Failure

WIDE = {"viewport": {"width": 1400, "height": 900}}
KINDS = ("dunes", "<img src=x onerror=alert(1)>", "=1+1, \"rock\"", "")  # the labels of the clusters
HOSTILE = {3: "<img src=x onerror=alert(2)>.png", 6: os.fsdecode(b"caf\xe9 #1?&%41.png"),
           9: "line\nbreak\u202egnp.png", 12: "=cmd|'calc'!A0.png"}
DARK = (0.999, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as running:
        yield running


def write(folder, name, *arguments):
    """The report of folder/corpus at folder/name; returns the URL to open."""
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    out = folder / name
    assert report.run(parser.parse_args([
        str(folder / "corpus"), "--codebook", str(folder / "book.npz"), "--map", "pca",
        "--out", str(out), *arguments])) == 0
    return (out if out.suffix == ".html" else out / "index.html").as_uri()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A folder with a corpus of 60 pictures: 4 kinds, hostile names, a dark frame, twins, an outlier."""
    folder = tmp_path_factory.mktemp("archive <b>")
    rows = []
    for number in range(60):
        vector = {20: surveyed.embedding(0, 16), 59: np.eye(16)[15] + 0.1 * np.eye(16)[3]}
        rows.append(surveyed.row(
            os.path.join(str(folder), "archive", "sol%d" % (number // 10),
                         HOSTILE.get(number, "%03d.png" % number)),
            number % 4, number, measures=DARK if number == 8 else surveyed.SOUND,
            vector=vector.get(number),
            captured_at="" if number == 30 else "2031-04-%02dT05:17:00Z" % (1 + number // 3)))
    surveyed.write_corpus(folder / "corpus", rows, failed=[
        Failure("/archive/<b>notes</b>.txt", "not_an_image", "It begins with <script>.")])
    surveyed.codebook_of(folder / "book.npz", r95=1.9)
    (folder / "policy.yaml").write_text(json.dumps({"clusters": {
        number: {"label": label, "weight": 1 + number} for number, label in enumerate(KINDS)
        if label}}).replace('"0"', "0").replace('"1"', "1").replace('"2"', "2"))
    return folder


@pytest.fixture(scope="module")
def url(archive):
    return write(archive, "report", "--policy", str(archive / "policy.yaml"))


@pytest.fixture
def page(chromium, archive, url):
    """The report's map, drawn; it may show files of the archive and its own."""
    with browser.page(chromium, archive.as_uri(), **WIDE) as opened:
        yield at(opened, url)


def at(opened, url):
    """The page at this address, once its map or its rows are drawn."""
    opened.goto(url)
    opened.locator("#canvas[data-view], #rows-head h2").first.wait_for()
    return opened


def frame(page):
    """Wait until what was changed is drawn."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")


def pictures_shown(page):
    """Wait until the pictures of all tiles are decoded and drawn."""
    page.evaluate("""async () => {
      for (const tile of document.querySelectorAll(".tile .thumb")) {
        const picture = new Image();
        picture.src = tile.style.backgroundImage.slice(5, -2);
        await picture.decode();
      }
    }""")
    frame(page)


def median_colour(picture, left, top, right, bottom):
    """The median colour of a box of a PNG, float [3]."""
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), int)
    return np.median(pixels[top:bottom, left:right].reshape(-1, 3), axis=0)


def view_after(page, work):
    """Do something that moves the map, which may take the browser a moment; wait until it is drawn."""
    from playwright.sync_api import expect
    canvas = page.locator("#canvas")
    before = canvas.get_attribute("data-view")
    work()
    expect(canvas).not_to_have_attribute("data-view", before)


def told(page):
    """What the page was told: the data it holds, with the image's numbers as arrays."""
    data = json.loads(page.locator("#data").text_content())
    kinds = {"place": "<u2", "sha256": "u1", "novelty": "<f4", "captured": "<f8",
             "group": "<i4", "far": "u1"}
    for name, kind in kinds.items():
        data[name] = np.frombuffer(base64.b64decode(data[name]), kind)
    data["place"] = data["place"].reshape(-1, 2) / 65535
    data["sha256"] = [row.tobytes().hex() for row in data["sha256"].reshape(-1, 32)]
    data["cluster"] = np.repeat([cluster["number"] for cluster in data["clusters"]],
                                [cluster["size"] for cluster in data["clusters"]])
    return data


def points(page, data):
    """float [N, 2]: where on the screen each image is, by the view that the map says it shows."""
    x, y, scale = map(float, page.locator("#canvas").get_attribute("data-view").split())
    box = page.locator("#canvas").bounding_box()
    middle = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
    return (data["place"] - [x, y]) * scale + middle


def lasso(page, left, top, right, bottom, key=None):
    """Drag around a rectangle of the screen, with a key held."""
    if page.locator("#tool-lasso").get_attribute("aria-pressed") == "false":
        page.locator("#tool-lasso").click()
    if key:
        page.keyboard.down(key)
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom)):
        page.mouse.move(x, y, steps=3)
    page.mouse.up()
    if key:
        page.keyboard.up(key)


def inside(places, left, top, right, bottom):
    """Which points are in a rectangle: bool [N]; none may lie on its edge."""
    away = np.minimum(np.abs(places - [left, top]), np.abs(places - [right, bottom]))
    assert len(places) > 1000 or away.min() > 0.01
    return ((places > [left, top]) & (places < [right, bottom])).all(axis=1)


def saved(page, button):
    """(name, bytes) of the file that a button of the page saves."""
    with page.expect_download() as download:
        page.locator(button).click()
    return download.value.suggested_filename, pathlib.Path(download.value.path()).read_bytes()


def selection(page):
    """What is selected, as the CSV says: a dict for each image."""
    if page.locator("#save-csv").is_disabled():
        return []
    return list(csv.DictReader(io.StringIO(saved(page, "#save-csv")[1].decode("utf-8"), newline="")))


def hashes(page):
    return {line["sha256"] for line in selection(page)}


def shown(page):
    """How many images the filters show, once it says so."""
    frame(page)
    words = page.locator("#shown-count").inner_text().replace(",", "").split()
    return int(words[1 if words[0] == "all" else 0])


def slide(page, name, value):
    """Put a slider of 0..400 somewhere."""
    page.get_by_role("slider", name=name, exact=True).evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }",
        value)
