"""The report's map in a real browser: where images are, the lasso, and what the filters show."""

import io

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="a corpus needs pyarrow")
pytest.importorskip("sklearn", reason="the map needs scikit-learn")

import browser
import surveyed
from PIL import Image
from reported import (  # noqa: F401: fixtures among them
    WIDE, archive, at, chromium, frame, hashes, inside, lasso, median_colour, page, points,
    selection, shown, slide, told, url, view_after, write,
)


# ---- the map -----------------------------------------------------------------------------------


def test_the_map_shows_every_image_where_the_data_say_in_its_clusters_colour(page):
    data = told(page)
    page.locator("#with-pictures").uncheck()
    page.locator("#with-names").uncheck()
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), int)
    swatches = page.locator("#cluster-list .swatch").evaluate_all(
        "all => all.map(one => getComputedStyle(one).backgroundColor.match(/[0-9]+/g).map(Number))")
    places = points(page, data).round().astype(int)
    match = np.abs(picture[places[:, 1], places[:, 0]] - np.array(swatches)[data["cluster"]])
    # Of images that lie on one another only the last one is seen.
    assert (match.max(axis=1) < 12).sum() > 45 and len(set(map(tuple, swatches))) == 4


def test_the_lasso_selects_just_what_lies_in_it(page):
    data = told(page)
    places = points(page, data)
    middle = np.median(places[data["cluster"] == 1], axis=0)
    box = (*(middle - 90.5), *(middle + 90.5))
    expected = inside(places, *box)
    assert 5 <= expected.sum() < 60
    lasso(page, *box)
    assert page.locator("#selected-count").inner_text() == "%d images selected" % expected.sum()
    assert hashes(page) == set(np.array(data["sha256"])[expected])


def test_with_shift_a_lasso_adds_and_with_alt_it_takes_away(page):
    data = told(page)
    places = points(page, data)
    boxes = [(*(np.median(places[data["cluster"] == one], axis=0) - 60.5),
              *(np.median(places[data["cluster"] == one], axis=0) + 60.5)) for one in (0, 1)]
    first, second = (inside(places, *box) for box in boxes)
    assert first.any() and second.any() and not (first & second).any()
    lasso(page, *boxes[0])
    lasso(page, *boxes[1], key="Shift")
    assert hashes(page) == set(np.array(data["sha256"])[first | second])
    lasso(page, *boxes[0], key="Alt")
    assert hashes(page) == set(np.array(data["sha256"])[second])
    lasso(page, *boxes[0])
    assert hashes(page) == set(np.array(data["sha256"])[first])


def test_the_lasso_leaves_out_what_the_filters_hide(page):
    data = told(page)
    page.get_by_role("button", name="only cluster 2", exact=True).click()
    assert shown(page) == data["clusters"][2]["size"]
    box = page.locator("#canvas").bounding_box()
    lasso(page, box["x"] + 2, box["y"] + 2, box["x"] + box["width"] - 2,
          box["y"] + box["height"] - 2)
    assert hashes(page) == set(np.array(data["sha256"])[data["cluster"] == 2])


def test_dragging_moves_the_map_and_the_wheel_zooms_to_the_pointer(page):
    data = told(page)
    before = points(page, data)
    page.mouse.move(600, 500)
    page.mouse.down()
    page.mouse.move(640, 470, steps=4)
    page.mouse.up()
    frame(page)
    moved = points(page, data)
    assert np.allclose(moved - before, [40, -30], atol=0.01)
    view_after(page, lambda: page.mouse.wheel(0, -200))
    zoomed = points(page, data)
    factor = np.exp(200 * 0.0015)
    assert np.allclose(zoomed - [640, 470], factor * (moved - [640, 470]), atol=0.5)
    page.locator("#zoom-fit").click()
    frame(page)
    assert np.allclose(points(page, data), before, atol=0.01)


def test_near_by_an_image_is_shown_as_its_picture(page):
    data = told(page)
    image = 0  # the most typical of its cluster has the first right to a place
    page.keyboard.press("Tab")
    for _ in range(8):
        x, y = points(page, data)[image]
        page.mouse.move(x, y)
        view_after(page, lambda: page.mouse.wheel(0, -300))
    page.mouse.move(5, 5)
    page.locator("#with-names").uncheck()
    page.locator("#canvas:not([data-pictures='0'])").wait_for()
    x, y = points(page, data)[image].round().astype(int)
    colour = median_colour(page.screenshot(), x - 20, y - 15, x + 20, y + 15)
    assert np.abs(colour - surveyed.COLOURS[data["cluster"][image]]).max() < 25


def test_pointing_at_an_image_tells_its_name_and_clicking_shows_it_large(page):
    data = told(page)
    places = points(page, data)
    # One that no other lies near, so that there is no doubt which is meant.
    apart = np.linalg.norm(places[:, None] - places, axis=2) + 1e9 * np.eye(len(places))
    image = int(apart.min(axis=1).argmax())
    page.locator("#with-pictures").uncheck()
    page.mouse.move(*places[image])
    assert page.locator("#hover p").inner_text().startswith(data["names"][image])
    page.mouse.click(*places[image])
    assert page.locator("#viewer h2").inner_text() == data["names"][image]
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()


# ---- filters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("words, count", [
    ("sol3", 10), ("SOL3/03", 10), ("sol3 035", 1), ("dunes", 15), ("nowhere", 0), ("<IMG SRC=x", 16),
    ("caf\\xe9", 1), ("\\u202e", 1)])
def test_the_search_finds_words_of_names_folders_and_labels(page, words, count):
    page.keyboard.press("/")
    page.keyboard.insert_text(words)
    assert shown(page) == count


def test_the_search_finds_an_image_by_the_beginning_of_its_hash(page):
    data = told(page)
    page.locator("#search").fill(data["sha256"][17][:10])
    assert shown(page) == 1
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    assert hashes(page) == {data["sha256"][17]}


def test_filters_by_cluster_novelty_and_time_meet(page):
    data = told(page)
    page.locator("#cluster-list input").nth(3).uncheck()
    assert shown(page) == (data["cluster"] != 3).sum()
    slide(page, "Novelty from", 160)
    least = data["novelty"].min() + (data["novelty"].max() - data["novelty"].min()) * 160 / 400
    novel = (data["cluster"] != 3) & (data["novelty"] >= least)
    assert 0 < shown(page) == novel.sum() < 45
    slide(page, "Novelty from", 0)
    slide(page, "Time taken to", 100)
    times = data["captured"]
    early = (data["cluster"] != 3) & (times <= np.nanmin(times) + (
        np.nanmax(times) - np.nanmin(times)) / 4)  # what has no time is not early
    assert 0 < shown(page) == early.sum() < 45
    page.locator("#filters-clear").click()
    assert shown(page) == 60


def test_no_cluster_and_all_clusters(page):
    page.locator("#clusters-none").click()
    assert shown(page) == 0
    page.locator("#clusters-all").click()
    assert shown(page) == 60


# ---- typed bounds ------------------------------------------------------------------------------

DAY_MS = 86400e3
SECOND_MS = 2064312007000  # 2035-06-01T12:00:07Z


@pytest.fixture
def decade(chromium, tmp_path):
    """The report of 120 images over ten years, three of them within two seconds, one of no time."""
    times = ["%d-%02d-11T05:17:00Z" % (2031 + month // 12, 1 + month % 12) for month in range(116)]
    times += ["2035-06-01T12:00:06Z", "2035-06-01T12:00:07.500Z", "2035-06-01T12:00:08Z", ""]
    surveyed.write_corpus(tmp_path / "corpus", [
        surveyed.row(str(tmp_path / "archive" / ("%03d.png" % number)), number % 4, number,
                     captured_at=time) for number, time in enumerate(times)])
    surveyed.codebook_of(tmp_path / "book.npz")
    with browser.page(chromium, tmp_path.as_uri(), **WIDE) as opened:
        yield at(opened, write(tmp_path, "report"))


def field(page, name):
    return page.get_by_label(name + ", exactly", exact=True)


def test_a_day_and_a_second_of_ten_years_can_be_picked(decade):
    times = told(decade)["captured"]
    assert (np.nanmax(times) - np.nanmin(times)) / 400 > 8 * DAY_MS  # what a slider can tell apart
    assert field(decade, "Time taken from").input_value() == "2031-01-11T05:17"
    assert "UTC" in decade.get_by_role("group", name="Time taken", exact=True).inner_text()
    field(decade, "Time taken from").fill("2035-06-01T00:00:00")
    field(decade, "Time taken to").fill("2035-06-01T23:59:59")
    assert shown(decade) == 3
    field(decade, "Time taken to").fill("2035-06-01T12:00:07")  # all of that second
    assert shown(decade) == 2
    field(decade, "Time taken from").fill("2035-06-01T12:00:07")
    assert shown(decade) == 1
    field(decade, "Time taken to").fill("")  # as good as none
    assert shown(decade) == np.sum(times >= SECOND_MS) > 2
    decade.locator("#filters-clear").click()
    assert shown(decade) == 120
    assert field(decade, "Time taken from").input_value() == "2031-01-11T05:17"


def test_typed_bounds_and_sliders_follow_one_another(decade):
    times = told(decade)["captured"]
    first, last = np.nanmin(times), np.nanmax(times)
    begin, end = (decade.get_by_role("slider", name="Time taken " + name, exact=True)
                  for name in ("from", "to"))
    field(decade, "Time taken from").fill("2035-06-01T12:00:07")
    assert int(begin.input_value()) == round((SECOND_MS - first) / (last - first) * 400)
    assert begin.get_attribute("aria-valuetext") == "2035-06-01T12:00:07Z"
    slide(decade, "Time taken to", 100)  # before that: the other one goes with it
    quarter = (first + (last - first) / 4) // 1000 * 1000
    assert begin.input_value() == "100"
    for name in ("Time taken from", "Time taken to"):
        assert field(decade, name).evaluate("field => field.valueAsNumber") == quarter
    slide(decade, "Time taken from", 0)
    assert shown(decade) == np.sum(times < quarter + 1000)


def test_a_range_that_ends_before_it_begins_shows_nothing_and_says_so(decade):
    field(decade, "Time taken to").fill("2033-01-01T00:00:00")
    field(decade, "Time taken from").fill("2034-01-01T00:00:00")
    assert shown(decade) == 0
    group = decade.get_by_role("group", name="Time taken", exact=True)
    assert group.locator("output").inner_text() == "ends before it begins"
    assert field(decade, "Time taken to").input_value() == "2033-01-01T00:00"  # it is not moved
    field(decade, "Time taken from").fill("2032-01-01T00:00:00")
    assert shown(decade) == 12 and group.locator("output").inner_text() == ""


def test_a_date_can_be_changed_with_keys_alone_which_are_no_shortcuts_then(decade):
    decade.get_by_role("slider", name="Time taken to", exact=True).focus()
    decade.keyboard.press("Tab")
    assert field(decade, "Time taken from").evaluate("field => field === document.activeElement")
    decade.keyboard.press("ArrowUp")  # month or day, as the browser's language has it
    decade.keyboard.press("a")
    typed = field(decade, "Time taken from").evaluate("field => field.valueAsNumber")
    times = told(decade)["captured"]
    assert typed > np.nanmin(times) and shown(decade) == np.sum(times >= typed) < 119
    assert selection(decade) == []


def test_novelty_can_be_bounded_by_typed_numbers(page):
    novelty = told(page)["novelty"].astype(float)
    least, most = np.sort(novelty)[[20, 40]].round(3) + [0, 0.002]
    field(page, "Novelty from").fill("%.3f" % least)
    field(page, "Novelty to").fill("%.3f" % most)
    assert shown(page) == np.sum((novelty >= least) & (novelty < most + 0.001)) > 15
    slide(page, "Novelty from", 0)
    slide(page, "Novelty to", 400)
    assert shown(page) == 60
    rounded = np.floor(novelty.min() * 1000) / 1000
    assert field(page, "Novelty from").input_value() == "%g" % rounded
