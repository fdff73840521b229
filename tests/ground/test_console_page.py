"""The console's page in a real browser: what a team does with it, by mouse and by keyboard."""

import contextlib
import re

import pytest

pytest.importorskip("flask", reason="no Flask here: pip install '.[ground]'")
pytest.importorskip("waitress", reason="no waitress here: pip install '.[ground]'")
pytest.importorskip("ruamel.yaml", reason="no ruamel.yaml here: pip install '.[ground]'")

import browser
import consoled

from jetson_cluster import orders, policy
from jetson_cluster.ground import console
from jetson_cluster.ground.console.desk import Desk

EVIL = ("<img src=x onerror=alert(1)>.jpg", "\"'><svg onload=alert(2)>.jpg", "a\n\u202egpj.exe",
        "javascript:alert(3)", "{{7*7}}${7*7}.jpg", "\udcff\udcfe.jpg")


@pytest.fixture(scope="module")
def running():
    with browser.chromium() as opened:
        yield opened


@pytest.fixture
def down(tmp_path):
    return consoled.Down(tmp_path / "down", names=EVIL)


@pytest.fixture
def page(running, down):
    with served(running, down) as opened:
        yield opened


@contextlib.contextmanager
def served(running, down):
    with Desk(str(down.catalog), down.book, str(down.policy), str(down.orders)) as desk:
        with console.serving(desk) as url:
            with browser.page(running, url.split("?")[0],
                              viewport={"width": 1400, "height": 900}) as opened:
                opened.goto(url)
                ready(opened)
                yield opened


def ready(page):
    page.wait_for_selector("#draft .tile")


def label(page, cluster):
    return page.get_by_label("Name of cluster %d" % cluster, exact=True)


def weight(page, cluster):
    return page.get_by_label("Weight of cluster %d" % cluster, exact=True)


def rename(page, cluster, text):
    label(page, cluster).fill(text)
    label(page, cluster).press("Enter")


def until(page, expression, argument=None):
    page.wait_for_function(expression, arg=argument)


def order_holds(page, words):
    until(page, "words => document.getElementById('order-text').textContent.includes(words)", words)


def row_of(page, name):
    """The words of a class's row: [name, now, edited, change]."""
    row = page.locator("#classes tbody tr", has_text=name)
    return row.locator("th, td").all_text_contents()[:4] if row.count() else None


def test_nothing_on_a_cluster_s_card_stands_over_its_edge(page):
    for width in (1400, 1360, 1000, 400):
        page.set_viewport_size({"width": width, "height": 900})
        over = page.locator("#wall article").evaluate_all("""cards => cards.filter(card =>
            [...card.querySelectorAll(".head *")].some(part => part.getBoundingClientRect().right
                > card.getBoundingClientRect().right - 8)).length""")
        assert over == 0, width


def test_clusters_are_named_and_weighed_and_images_asked_for_and_all_of_it_saved(page, down):
    assert page.locator("#now .tile").count() == page.locator("#draft .tile").count() > 5
    before = int(row_of(page, "cluster 2")[1])

    rename(page, 2, "layered rock")
    until(page, "() => document.querySelector('#classes').textContent.includes('layered rock')")
    for _ in range(3):
        page.get_by_label("More of cluster 2", exact=True).click()
    order_holds(page, "weight: {2: 5}")
    until(page, "before => Number([...document.querySelectorAll('#classes tr')].find("
                "row => row.textContent.includes('layered rock')).cells[2].textContent) > before",
          before)
    assert row_of(page, "layered rock")[1] == str(before)  # now is as it was
    marked = {side: set(page.locator("#%s .tile.%s" % (side, kind)).evaluate_all(
        "tiles => tiles.map(tile => tile.facts.image)")) for side, kind in (
            ("now", "out"), ("draft", "new"))}
    there = {side: set(page.locator("#%s .tile" % side).evaluate_all(
        "tiles => tiles.map(tile => tile.facts.image)")) for side in ("now", "draft")}
    assert marked == {"now": there["now"] - there["draft"],
                      "draft": there["draft"] - there["now"]} and marked["draft"]

    held = page.locator("#now .tile").nth(0)
    name = held.get_attribute("aria-label").split(",")[0]
    held.click()
    page.locator("#viewer").get_by_role("button", name="Hold", exact=True).click()
    until(page, "() => document.querySelector('#viewer-actions [aria-pressed=true]')")
    until(page, "() => document.getElementById('viewer-draft').textContent.includes('held by')")
    page.keyboard.press("Escape")
    order_holds(page, "hold: ")
    until(page, "name => ![...document.querySelectorAll('#draft .tile')].some("
                "tile => tile.getAttribute('aria-label').startsWith(name))", name)

    page.get_by_label("Look through cluster 4").click()
    page.wait_for_selector("#members .tile")
    assert page.locator("#members .tile").count() == 20
    page.locator("#members .tile").nth(3).press("p")
    page.locator("#members .tile").nth(5).press("m")
    until(page, "() => document.querySelectorAll('#members .liked').length === 1")
    page.locator("#members").get_by_role("button", name="Close").click()
    until(page, "() => document.querySelector('#draft .tile').dataset.mark === 'pin'")
    order_holds(page, "more_like: ")

    shown = page.locator("#order-bytes").text_content()
    page.get_by_role("button", name="Save", exact=True).click()
    page.wait_for_selector("#save:disabled")
    assert shown == "%d bytes" % down.orders.stat().st_size
    names = [action.name for action in orders.parse(down.orders.read_bytes(), "o.yaml").actions]
    assert names == ["weight", "label", "more_like", "pin", "hold"]
    said = policy.load(str(down.policy))
    assert (said.labels, said.weights) == ({2: "layered rock"}, {2: 5.0})
    assert len(said.pins) == len(said.holds) == len(said.targets) == 1

    drafted = page.locator("#draft .tile").evaluate_all("tiles => tiles.map(one => one.ariaLabel)")
    page.reload()
    ready(page)
    assert label(page, 2).input_value() == "layered rock" and weight(page, 2).input_value() == "5"
    assert page.locator("#save").text_content() == "Saved"
    assert page.locator(".chip").count() == 3
    again = page.locator("#draft .tile").evaluate_all("tiles => tiles.map(one => one.ariaLabel)")
    assert again == drafted


def test_the_difference_from_the_last_orders_is_shown(page, down):
    rename(page, 1, "sand")
    order_holds(page, "label: {1: sand}")
    page.keyboard.press("Control+s")
    page.wait_for_selector("#save:disabled")
    page.get_by_label("Less of cluster 3", exact=True).click()
    order_holds(page, "weight: {3: 0.5}")
    kinds = page.locator("#order-text span").evaluate_all(
        "lines => lines.map(line => [line.className, line.textContent.split(', ')[1].trim()])")
    assert kinds == [["added", "weight: {3: 0.5}}"], ["same", "label: {1: sand}}"]]
    assert "%d bytes when it was last written" % down.orders.stat().st_size in (
        page.locator("#order-about").text_content())


def test_hostile_names_and_labels_are_text_and_nothing_else(page, down):
    evil = "<img src=x onerror=alert(9)><b>&amp;"
    rename(page, 0, evil)
    until(page, "evil => document.querySelector('#classes').textContent.includes(evil)", evil)
    assert page.locator("#classes b, #order-text b, #wall b, #classes img").count() == 0
    seen = set()
    for cluster in range(6):
        page.get_by_label("Look through cluster %d" % cluster).click()
        page.wait_for_selector("#members .tile")
        image = page.locator("#members .tile").evaluate_all(
            "tiles => tiles.map(tile => [tile.facts.image, tile.ariaLabel])")
        seen.update(words for _, words in image)
        page.keyboard.press("Escape")
        until(page, "() => !document.querySelector('dialog[open]')")
    for name in (EVIL[0], EVIL[1], "a\\x0a\\u202egpj.exe", EVIL[3], EVIL[4], "\\xff\\xfe.jpg"):
        assert any(words.startswith(name) for words in seen), name
    page.locator("#words").fill("<img src")
    page.locator("#words").press("Enter")
    page.wait_for_selector("#members .tile")
    page.locator("#members .tile").click()
    until(page, "name => document.getElementById('viewer-title').textContent === name", EVIL[0])
    page.keyboard.press("Control+s")
    page.wait_for_selector("#save:disabled", state="attached")
    assert policy.load(str(down.policy)).labels == {0: evil}


def test_everything_can_be_done_from_the_keyboard(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    weight(page, 0).focus()
    page.keyboard.press("ArrowUp")
    order_holds(page, "weight: {0: 2}")
    assert page.evaluate("document.activeElement.ariaLabel") == "Weight of cluster 0"
    label(page, 0).focus()
    page.keyboard.type("dunes")
    page.keyboard.press("Tab")
    order_holds(page, "label: {0: dunes}")
    page.locator("#draft .tile").first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
    place = "[...document.querySelectorAll('#draft .tile')].indexOf(document.activeElement)"
    assert page.evaluate(place) == 1
    page.keyboard.press("p")
    order_holds(page, "pin: ")
    until(page, "() => document.activeElement.closest('#draft')")
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[open]")
    first = page.locator("#viewer-title").text_content()
    page.keyboard.press("ArrowRight")
    assert page.locator("#viewer-title").text_content() != first
    page.keyboard.press("Escape")
    for gone in ("pin: ", "label: ", "weight: "):
        page.keyboard.press("Control+z")
        until(page, "gone => !document.getElementById('order-text').textContent.includes(gone)",
              gone)
    page.keyboard.press("Control+Shift+z")
    order_holds(page, "weight: {0: 2}")


def test_an_image_is_let_go_by_a_button_of_its_own_and_the_focus_stays_near(page):
    for place in (0, 1):
        page.locator("#draft .tile").nth(place + 2).press("p")
        until(page, "count => document.querySelectorAll('#asked .chip').length === count",
              place + 1)
    names = page.locator("#asked .chip .name").all_text_contents()
    for name in names:
        button = page.get_by_role("button", name="Unpin " + name, exact=True)
        button.focus()
        page.keyboard.press("Enter")
        button.wait_for(state="detached")
        assert page.evaluate("document.activeElement !== document.body && "
                             "document.activeElement.closest('#asked, #next') !== null")


def test_of_many_images_found_it_is_told_how_many_are_shown(running, tmp_path):
    down = consoled.Down(tmp_path / "down", each=50)
    with served(running, down) as page:
        page.locator("#words").fill("SOL")
        page.locator("#words").press("Enter")
        until(page, "() => document.getElementById('members-count').textContent "
                    "=== '240 of 300 images'")
        page.locator("#members-more").click()
        until(page, "() => document.getElementById('members-count').textContent === '300 images'")
        assert page.locator("#members .tile").count() == 300
        assert not page.locator("#members-more").is_visible()


def test_what_another_program_changed_is_said_and_what_was_not_saved_stays(page, down):
    rename(page, 1, "dunes")
    order_holds(page, "label: {1: dunes}")
    down.policy.write_text("clusters: {3: {weight: 4}}\n")
    page.keyboard.press("Control+s")
    until(page, "() => document.getElementById('said').textContent.includes('another program')")
    until(page, "() => document.getElementById('notes').textContent.includes('weight 3: 4')")
    assert weight(page, 3).input_value() == "4" and label(page, 1).input_value() == "dunes"
    page.keyboard.press("Control+s")
    page.wait_for_selector("#save:disabled", state="attached")
    said = policy.load(str(down.policy))
    assert (said.labels, said.weights) == ({1: "dunes"}, {3: 4.0})


def test_the_file_that_a_browser_is_started_with_leads_to_the_console(running, down):
    with Desk(str(down.catalog), down.book, str(down.policy), str(down.orders)) as desk:
        with console.serving(desk) as url:
            way_in = console.way_in(desk, url)
            with browser.page(running, url.split("?")[0], way_in) as page:
                page.goto(way_in)
                ready(page)
                assert page.url == url.split("?")[0]


def test_what_is_refused_is_said_and_the_old_value_stands_again(page):
    weight(page, 1).fill("many")
    weight(page, 1).press("Tab")
    until(page, "() => document.getElementById('said').textContent.includes('from 0 to 1000')")
    assert weight(page, 1).input_value() == "1"
    weight(page, 1).fill("0,25")  # as some of us write it
    weight(page, 1).press("Tab")
    order_holds(page, "weight: {1: 0.25}")


def test_another_budget_makes_another_pass(page, down):
    before = page.locator("#now .tile").count()
    page.locator("#budget").fill("500kB")
    page.locator("#budget").press("Enter")
    until(page, "before => document.querySelectorAll('#now .tile').length < before", before)
    page.locator("#budget").fill("4 apples")
    page.locator("#budget").press("Enter")
    until(page, "() => document.getElementById('pass-state').textContent.includes("
                "'amount of bytes')")


def test_every_control_has_a_name_and_the_pictures_load(page):
    # As assistive software finds them.
    assert page.evaluate("""() => [...document.querySelectorAll('button, input, select')].filter(
        one =>
        one.checkVisibility() && !(one.ariaLabel || one.textContent.trim() || one.labels?.length)
    ).map(one => one.outerHTML)""") == []
    until(page, "() => [...document.querySelectorAll('#now img')].every(one => one.complete)")
    assert page.evaluate("() => [...document.querySelectorAll('#now img')].every("
                         "one => one.naturalWidth === 128)")


def test_the_page_fits_a_narrow_window(page):
    for width in (1400, 1000, 700, 420):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_nothing_in_the_page_asks_for_anything_from_elsewhere(root):
    for path in (root / "jetson_cluster" / "ground" / "console" / "page").iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(
            r"https?:|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text), path.name
