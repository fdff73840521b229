"""The report's clusters, galleries and large view in a real browser; names in it; its keys."""

import os

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="a corpus needs pyarrow")
pytest.importorskip("sklearn", reason="the map needs scikit-learn")

import browser
import surveyed
from reported import (  # noqa: F401: fixtures among them
    HOSTILE, KINDS, WIDE, archive, at, chromium, frame, hashes, median_colour, page,
    pictures_shown, points, selection, shown, told, url, write,
)


# ---- heading -----------------------------------------------------------------------------------


def test_the_heading_names_the_images_folder_and_tells_the_summary_whole_where_it_is_cut(page):
    assert page.locator("h1").inner_text() == "archive"  # not "corpus", as any corpus may be called
    assert page.title() == "archive: 4 clusters"
    page.set_viewport_size({"width": 1100, "height": 700})
    summary = page.locator("#summary")
    assert summary.evaluate("line => line.scrollWidth > line.clientWidth")
    assert summary.get_attribute("title") == summary.text_content()


# ---- clusters and galleries --------------------------------------------------------------------


def test_the_wall_tells_of_every_cluster_and_sorts_them(page):
    page.get_by_role("link", name="Clusters", exact=True).click()
    titles = page.locator(".card h3").all_inner_texts()
    assert titles == ["0 · dunes", "1 · " + KINDS[1], "2 · " + KINDS[2], "Cluster 3"]
    assert "15 images · weight 1" not in page.locator(".card").nth(0).inner_text()
    assert "15 images · weight 2" in page.locator(".card").nth(1).inner_text()
    page.locator("#cluster-order").select_option("weight")
    assert page.locator(".card h3").nth(0).inner_text() == "2 · " + KINDS[2]
    page.locator(".card").nth(0).locator(".thumb").nth(5).wait_for()


def test_filters_change_the_counts_on_the_wall_and_leave_it_where_it_is(page):
    page.set_viewport_size({"width": 1400, "height": 400})
    page.get_by_role("link", name="Clusters", exact=True).click()
    page.locator(".card").last.scroll_into_view_if_needed()
    page.locator(".card").last.locator(".thumb").nth(5).wait_for()
    cards = page.locator(".card").element_handles()
    scrolled = page.locator("#rows-head").evaluate("head => head.scrollTop")
    page.locator("#search").fill("sol0/")
    assert shown(page) == 10
    assert [card.query_selector(".count").inner_text() for card in cards] == [
        "3 of 15 images", "3 of 15 images · weight 2", "2 of 15 images · weight 3", "2 of 15 images"]
    page.locator("#cluster-list input").nth(2).uncheck()
    assert shown(page) == 8
    assert [card.get_attribute("class") for card in cards] == ["card", "card", "card out", "card"]
    page.locator("#filters-clear").click()
    assert [card.query_selector(".count").inner_text() for card in cards] == [
        "15 images", "15 images · weight 2", "15 images · weight 3", "15 images"]
    assert page.locator(".card.out").count() == 0
    assert page.locator("#rows-head").evaluate("head => head.scrollTop") == scrolled > 0


def test_a_cluster_shows_typical_unusual_random_and_all_its_members(page):
    data = told(page)
    page.set_viewport_size({"width": 1400, "height": 1800})  # else not all rows are in sight
    page.goto(page.url.split("#")[0] + "#cluster-1")
    assert page.locator("#rows-head h2").inner_text() == "1 · " + KINDS[1]
    heads = page.locator("#rows .head h3").all_inner_texts()
    assert heads == ["Most typical", "Most unusual", "At random", "All"]
    rows = [row.split() for row in page.locator("#rows .row").evaluate_all(
        "rows => rows.sort((one, other) => parseInt(one.style.top) - parseInt(other.style.top))"
        ".map(row => [...row.children].map(tile => tile.dataset.image).join(' '))")]
    members = [str(at) for at in np.flatnonzero(data["cluster"] == 1)]
    some = len(rows[0])
    assert rows[0] == members[:some] and rows[1] == members[:-some - 1:-1] and some > 1
    assert [image for row in rows for image in row][-len(members):] == members
    page.get_by_role("button", name="draw again").click()
    assert page.locator("#rows .tile").count() == 2 * some + 2 * len(members)
    sheet = page.get_by_role("link", name="Contact sheet").get_attribute("href")
    assert sheet == "sheets/cluster-00001.png"


def test_the_contact_sheet_that_is_linked_is_there(page, archive):
    assert (archive / "report" / "sheets" / "cluster-00001.png").is_file()


@pytest.mark.parametrize("view, title, pictures", [
    ("near-duplicates", "1 group of near-duplicates", 2), ("outliers", "2 outliers", 2),
    ("exposures", "1 bad frame", 1)])
def test_a_gallery_shows_what_it_is_for(page, view, title, pictures):
    page.goto(page.url.split("#")[0] + "#" + view)
    assert page.locator("#rows-head h2").inner_text() == title
    assert page.locator("#rows .tile").count() == pictures
    expected = {"near-duplicates": ["016.png", "020.png"], "exposures": ["008.png"],
                "outliers": ["059.png"]}[view]  # and of the rest the one least like its cluster
    names = page.locator("#rows .tile").evaluate_all(
        "all => all.sort((one, other) => one.dataset.at - other.dataset.at)"
        ".map(one => one.ariaLabel.split(',')[0])")
    assert names[:len(expected)] == expected
    page.locator("#rows-head button").click()
    assert len(selection(page)) == (pictures - 1 if view == "near-duplicates" else pictures)
    page.locator("#clusters-none").click()  # galleries follow the filters
    page.locator("#rows-head h2").filter(has_text="0 ").wait_for()
    assert page.locator("#rows .tile").count() == 0


def test_files_that_are_no_images_are_listed_word_for_word(page):
    page.get_by_role("link", name="Unreadable").click()
    assert page.locator("td").all_inner_texts() == [
        "/archive/<b>notes</b>.txt", "not_an_image", "It begins with <script>."]


def test_tiles_carry_the_pictures_of_their_images(chromium, archive, page):
    page.goto(page.url.split("#")[0] + "#cluster-2")
    tile = page.locator("#rows .tile").nth(0)
    pictures_shown(page)
    colour = median_colour(tile.screenshot(), 10, 25, 86, 70)
    assert np.abs(colour - surveyed.COLOURS[2]).max() < 25


# ---- large view --------------------------------------------------------------------------------


def test_the_large_view_shows_the_image_itself_whatever_its_name_and_all_about_it(page, archive):
    for number, name in HOSTILE.items():
        page.locator("#search").fill("sol%d/" % (number // 10))
        shown(page)
        data = told(page)
        page.goto(page.url.split("#")[0] + "#cluster-%d" % (number % 4))
        image = data["names"].index(name)
        page.locator("#rows .tile[data-image='%d']" % image).first.click()
        page.locator("#viewer img").wait_for()  # hidden until it is loaded
        assert page.locator("#viewer img").evaluate("image => image.naturalWidth") == 120
        facts = page.locator("#viewer dl").inner_text()
        assert data["sha256"][image] in facts and "120 × 80 pixels" in facts
        page.keyboard.press("Escape")


def test_the_large_view_goes_from_image_to_image_and_selects(page):
    data = told(page)
    page.goto(page.url.split("#")[0] + "#cluster-0")
    page.locator("#rows .tile").nth(0).click()
    members = [at for at in np.flatnonzero(data["cluster"] == 0)]
    assert page.locator("#viewer h2").inner_text() == data["names"][members[0]]
    page.keyboard.press("ArrowRight")
    assert page.locator("#viewer h2").inner_text() == data["names"][members[1]]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")  # there is nothing before the first
    assert page.locator("#viewer h2").inner_text() == data["names"][members[0]]
    page.locator("#viewer .select").click()
    page.keyboard.press("Escape")
    assert hashes(page) == {data["sha256"][members[0]]}


def test_an_image_that_is_gone_is_shown_by_its_thumbnail_and_that_is_said(chromium, tmp_path):
    rows = [surveyed.row(str(tmp_path / "archive" / ("%d.png" % number)), number, number)
            for number in range(4)]
    surveyed.write_corpus(tmp_path / "corpus", rows)
    surveyed.codebook_of(tmp_path / "book.npz")
    os.unlink(rows[1].path)
    with browser.page(chromium, tmp_path.as_uri(), expected=["ERR_FILE_NOT_FOUND"], **WIDE) as page:
        at(page, write(tmp_path, "report") + "#cluster-1")
        page.locator("#rows .tile").nth(0).click()
        page.locator("#viewer .note").filter(has_text="This is the thumbnail").wait_for()
        assert not page.locator("#viewer img").is_visible()
        pictures_shown(page)
        colour = median_colour(page.locator("#viewer .picture .thumb").screenshot(), 9, 9, 200, 200)
        assert np.abs(colour - surveyed.COLOURS[1]).max() < 25


def test_show_on_the_map_brings_the_image_to_the_middle(page):
    data = told(page)
    page.goto(page.url.split("#")[0] + "#cluster-3")
    page.locator("#rows .tile").nth(0).click()
    page.locator("#viewer .on-map").click()
    page.locator("#canvas").wait_for()
    frame(page)
    image = int(np.flatnonzero(data["cluster"] == 3)[0])
    box = page.locator("#canvas").bounding_box()
    assert np.allclose(points(page, data)[image], [box["x"] + box["width"] / 2,
                                                   box["y"] + box["height"] / 2], atol=1)


# ---- names and labels can do nothing -----------------------------------------------------------


def test_hostile_names_and_labels_are_shown_and_not_obeyed(page):
    for view in ("map", "clusters", "cluster-1", "cluster-3", "near-duplicates", "outliers",
                 "exposures", "failed"):
        page.goto(page.url.split("#")[0] + "#" + view)
        frame(page)
        assert page.locator("main img, [onerror], aside img, header img, b:not(#cluster-list b)"
                            ).count() == 0
    assert page.locator("#cluster-list .name").nth(1).inner_text() == KINDS[1]
    page.goto(page.url.split("#")[0] + "#cluster-3")
    names = page.locator("#rows .tile").evaluate_all("all => all.map(one => one.title)")
    assert [name for name in names if name.startswith(HOSTILE[3])]
    assert not [name for name in names if "\n" in name or "\u202e" in name]


def test_a_program_put_into_the_page_is_not_run(chromium, archive, url):
    # What the content security policy is for, should ever a text get in as HTML after all.
    with browser.page(chromium, archive.as_uri(), expected=[
            "Content Security Policy", "asked for https://example.org", "ERR_FILE_NOT_FOUND"]) as page:
        failed = {}
        page.on("requestfailed", lambda request: failed.update({request.url: request.failure}))
        at(page, url)
        with page.expect_event("requestfailed", lambda request: request.url.endswith("/x")):
            page.evaluate("""() => {
              document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.ran = 1'>");
              const script = document.createElement("script");
              script.textContent = "window.ran = 2";
              document.body.append(script);
              new Image().src = "https://example.org/leak.png";
            }""")
        frame(page)  # the picture that is not there has said so
        assert page.evaluate("window.ran") is None
        assert failed["https://example.org/leak.png"] == "csp"  # it never left


# ---- keys --------------------------------------------------------------------------------------


def test_the_map_can_be_used_with_keys_alone(page):
    data = told(page)
    while page.evaluate("document.activeElement.id") != "canvas":
        page.keyboard.press("Tab")
    before = points(page, data)
    page.keyboard.press("ArrowRight")
    frame(page)
    assert np.allclose(points(page, data) - before, [-60, 0], atol=0.01)
    page.keyboard.press("0")
    page.keyboard.press("+")
    frame(page)
    places = points(page, data)
    box = page.locator("#canvas").bounding_box()
    middle = np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])
    # Bring an image under the cross, by steps of 60 pixels, within the 60 that count as on it.
    dx, dy = np.round((places[0] - middle) / 60).astype(int)
    for key, count in (("ArrowRight", dx), ("ArrowLeft", -dx), ("ArrowDown", dy), ("ArrowUp", -dy)):
        for _ in range(max(0, count)):
            page.keyboard.press(key)
    page.keyboard.press(" ")
    assert len(selection(page)) == 1
    page.locator("#canvas").focus()
    page.keyboard.press("Enter")
    assert page.locator("#viewer h2").inner_text() in data["names"]
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    assert selection(page) == []


def test_rows_of_pictures_can_be_used_with_keys_alone(page):
    data = told(page)
    page.goto(page.url.split("#")[0] + "#outliers")
    page.goto(page.url.split("#")[0] + "#cluster-0")
    page.locator("#rows .rows").focus()
    images = [int(image) for image in page.locator("#rows .tile").evaluate_all(
        "all => all.sort((one, other) => one.dataset.at - other.dataset.at)"
        ".map(one => one.dataset.image)")]
    page.keyboard.press("ArrowRight")
    page.keyboard.press(" ")
    assert hashes(page) == {data["sha256"][images[1]]}
    page.locator("#rows .rows").focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    assert page.locator("#viewer h2").inner_text() == page.evaluate(
        "name => name", data["names"][images[-1]])
    page.keyboard.press("Escape")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    first_row = page.locator("#viewer .position").inner_text().split(" of ")
    assert int(first_row[0]) > 1 and int(first_row[1]) == len(images)


def test_shift_and_click_selects_a_run_of_pictures(page):
    page.goto(page.url.split("#")[0] + "#cluster-0")
    page.locator("#rows .tile").nth(0).click(modifiers=["Control"])
    page.locator("#rows .tile").nth(3).click(modifiers=["Shift"])
    assert len(selection(page)) == 4


def test_the_address_names_the_view_and_a_reload_keeps_it(page):
    page.goto(page.url.split("#")[0] + "#cluster-2")
    page.reload()
    assert page.locator("#rows-head h2").inner_text() == "2 · " + KINDS[2]
    page.goto(page.url.split("#")[0] + "#cluster-99")  # there is none: the map
    assert page.locator("#canvas").is_visible()
