"""The report as one file, with 30,000 images, and on a light page, in a real browser."""

import hashlib
import io
import time

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="a corpus needs pyarrow")
pytest.importorskip("sklearn", reason="the map needs scikit-learn")

import browser
import surveyed
from PIL import Image
from reported import (  # noqa: F401: fixtures among them
    DARK, WIDE, archive, at, chromium, frame, hashes, inside, lasso, median_colour, pictures_shown,
    points, saved, shown, slide, told, url, write,
)

from jetson_cluster import orders
from jetson_cluster.ground.corpus.shards import Row


def test_a_single_file_moved_elsewhere_has_its_pictures_with_it(chromium, archive, tmp_path):
    write(archive, "one.html", "--single-file")
    (tmp_path / "moved.html").write_bytes((archive / "one.html").read_bytes())
    with browser.page(chromium, tmp_path.as_uri(), **WIDE) as page:
        at(page, (tmp_path / "moved.html").as_uri() + "#cluster-2")
        tile = page.locator("#rows .tile").nth(0)
        pictures_shown(page)
        colour = median_colour(tile.screenshot(), 10, 25, 86, 70)
        assert np.abs(colour - surveyed.COLOURS[2]).max() < 25
        assert page.get_by_role("link", name="Contact sheet").count() == 0


TWINS = 3000  # images that have a double
BRIGHT = (0.0, 0.999, 0.0, 1.0, 0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The URL of a report of 30,000 images in one file, and its folder.

    Two thirds are bad frames, of two kinds; the first tenth comes in pairs of one picture each.
    """
    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(5)
    kinds = rng.integers(0, 16, 30000)
    kinds[1:TWINS:2] = kinds[:TWINS:2]
    vectors = (5 * np.eye(16)[kinds] + rng.standard_normal((30000, 16))).astype(np.float16)
    vectors[1:TWINS:2] = vectors[:TWINS:2]
    thumbnails = [surveyed.coded(surveyed.picture(kind, kind, (24, 16))) for kind in range(16)]
    surveyed.write_corpus(folder / "corpus", [
        Row("/archive/sol%04d/%05d.jpg" % (number // 30, number),
            hashlib.sha256(b"%d" % number).hexdigest(), 100000 + number, 1, 1200, 800,
            "2031-%02d-%02dT05:17:00Z" % (1 + number // 2500, 1 + number // 100 % 25),
            np.array((DARK, BRIGHT, surveyed.SOUND)[number % 3], np.float16),
            thumbnails[kinds[number]], vectors[number])
        for number in range(30000)], shard_images=10000)
    surveyed.codebook_of(folder / "book.npz", kinds=16)
    return write(folder, "large.html", "--single-file"), folder


def test_thirty_thousand_images_are_drawn_and_selected_rightly(chromium, large):
    url, folder = large
    with browser.page(chromium, folder.as_uri(), **WIDE) as page:
        begun = time.monotonic()
        at(page, url)
        print("opened in %.2f s" % (time.monotonic() - begun))
        data = told(page)
        assert data["count"] == 30000
        page.evaluate("""() => {  // one note for each frame that is drawn
          window.frames_ms = [];
          const canvas = document.getElementById("canvas");
          new MutationObserver(() => window.frames_ms.push(Number(canvas.dataset.milliseconds)))
            .observe(canvas, {attributeFilter: ["data-milliseconds"]});
        }""")
        page.mouse.move(700, 500)
        page.mouse.down()
        for step in range(60):
            page.mouse.move(700 + 2 * step, 500 - step)
        page.mouse.up()
        for step in range(30):
            page.mouse.wheel(0, -60)
            frame(page)
        frame(page)
        drawn = page.evaluate("window.frames_ms")
        assert len(drawn) > 20
        print("%d frames, a median of %.1f ms each, %.1f at most" % (
            len(drawn), np.median(drawn), max(drawn)))
        page.locator("#zoom-fit").click()
        frame(page)
        places = points(page, data)
        box = (450.5, 300.5, 820.5, 640.5)
        lasso(page, *box)
        got, names = hashes(page), np.array(data["sha256"])
        clearly = np.minimum(np.abs(places - box[:2]), np.abs(places - box[2:])).min(axis=1) > 0.01
        expected = inside(places, *box)
        assert 2000 < expected.sum() < 29000
        assert set(names[expected & clearly]) <= got <= set(names[expected | ~clearly])
        page.locator("#search").fill("sol0007")
        assert shown(page) == 30


def drawn(page):
    """The images whose tiles are in the document, in their order."""
    return [int(image) for image in page.locator("#rows .tile").evaluate_all(
        "all => all.sort((one, other) => one.dataset.at - other.dataset.at)"
        ".map(one => one.dataset.image)")]


def test_galleries_of_thousands_are_right_and_hold_only_what_is_in_sight(chromium, large):
    url, folder = large
    with browser.page(chromium, folder.as_uri(), **WIDE) as page:
        at(page, url + "#exposures")
        data = told(page)
        assert page.locator("#rows-head h2").inner_text() == "20,000 bad frames"
        heads = page.locator("#rows .head")
        assert heads.count() == 1 and "10,000 images" in heads.inner_text()
        first = heads.locator("h3").inner_text()
        assert 20 < len(drawn(page)) < 300
        assert all(data["reasons"][str(image)].startswith(first) for image in drawn(page))
        page.locator("#rows .rows").focus()
        page.keyboard.press("End")  # the other kind
        frame(page)
        assert 20 < len(drawn(page)) < 300
        assert not any(data["reasons"][str(image)].startswith(first) for image in drawn(page))
        slide(page, "Time taken to", 100)
        times = data["captured"]
        early = times < np.floor((times.min() + np.ptp(times) / 4) / 1000) * 1000 + 1000
        bad = np.array([str(image) in data["reasons"] for image in range(30000)])
        assert 5000 < shown(page) == early.sum() < 12000
        assert page.locator("#rows-head h2").inner_text() == "{:,} bad frames".format(
            (early & bad).sum())
        page.locator("#filters-clear").click()

        page.get_by_role("link", name="Near-duplicates").click()
        pairs = [np.flatnonzero(data["group"] == group) for group in np.unique(data["group"])[1:]]
        assert sum(map(len, pairs)) >= TWINS
        page.locator("#rows-head h2").filter(has_text="{:,} groups".format(len(pairs))).wait_for()
        images = drawn(page)
        assert 4 < len(images) < 300
        groups = data["group"][images]
        assert groups.min() >= 0
        assert sorted(images) == np.flatnonzero(np.isin(data["group"], groups)).tolist()
        page.locator("#rows-head button").click()
        assert len(hashes(page)) == sum(map(len, pairs)) - len(pairs)

        page.get_by_role("link", name="Outliers").click()
        far = int(data["far"].sum())
        assert far > 1000
        page.locator("#rows-head h2").filter(has_text="{:,} outliers".format(far)).wait_for()
        assert data["far"][drawn(page)].all() and 20 < len(drawn(page)) < 300

        page.get_by_role("link", name="Unreadable").click()
        page.locator("#rows-head h2").filter(has_text="0 files are no usable images").wait_for()

        page.get_by_role("link", name="Clusters", exact=True).click()
        page.locator(".card").nth(15).wait_for()
        assert page.locator(".card .count").all_inner_texts() == [
            "{:,} images".format((data["cluster"] == number).sum()) for number in range(16)]


@pytest.mark.parametrize("first, last, suffix", [(1, 4, "yaml"), (1, 300, "csv"), (1, 400, None)])
def test_a_large_selection_is_ordered_as_far_as_the_rover_reads(chromium, large, first, last, suffix):
    url, folder = large
    with browser.page(chromium, folder.as_uri(), **WIDE) as page:
        at(page, url)
        slide(page, "Time taken to", last)
        count = shown(page)
        page.keyboard.press("a")
        if suffix is None:
            assert count > 10000 and page.locator("#save-orders").is_disabled()
            assert "at most 10,000 orders" in page.locator("#order-note").inner_text()
            return
        if suffix == "csv":  # between what YAML and what CSV can hold
            page.locator("#select-none").click()
            while shown(page) > 9000:
                last -= 40
                slide(page, "Time taken to", last)
            count = shown(page)
            page.keyboard.press("a")
        name, content = saved(page, "#save-orders")
        assert name.endswith(suffix)
        parsed = orders.parse(content, name)
        assert parsed.refused == [] and len({order.order_id for order in parsed.actions}) == len(
            parsed.actions)
        assert sum(len(order.targets) for order in parsed.actions) == count > 100


def test_a_light_page_is_drawn_in_light_colours(chromium, archive, url):
    with browser.page(chromium, archive.as_uri(), color_scheme="light", **WIDE) as page:
        at(page, url)
        picture = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"))
        assert np.median(picture) > 230
        page.emulate_media(color_scheme="dark")
        frame(page)
        assert np.median(np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"))) < 40
