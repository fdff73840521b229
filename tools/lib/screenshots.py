"""Drives the report and the console in chromium, as a team would, and writes pictures of them.

    screenshots.py FOLDER REPORT/index.html CONSOLE-COMMAND...

In: where to put the pictures, a report, and the command that starts the console on a free port. Out:
WebP files in FOLDER, and the policy and the order that the console saved. Needs Playwright and Pillow.
"""

import io
import os
import pathlib
import shutil
import subprocess
import sys

from PIL import Image
from playwright.sync_api import sync_playwright

SIZE = {"width": 1360, "height": 860}
SHOWN_WIDTH = 1088  # pixels: as wide as a README is shown
QUALITY = 62
FLAGS = ["--disable-background-networking", "--disable-component-update", "--disable-gpu"]
NAMED, HEAVIER, STEPS = "smooth plain", 2, 4  # the first card's new name; the one made to weigh more
SETTLED_MS = 1500  # what is drawn after a change is drawn by then


def main(folder, report, *console):
    """Write all pictures; returns the exit status."""
    os.makedirs(folder, exist_ok=True)
    with sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        show_report(chromium, pathlib.Path(report).resolve().as_uri(), folder)
        show_console(chromium, console, folder)
        chromium.close()
    return 0


def show_report(chromium, url, folder):
    """The map with a selection, and a cluster."""
    page = chromium.new_page(viewport=SIZE, color_scheme="dark")
    page.goto(url)
    page.locator("#canvas").wait_for()
    page.wait_for_timeout(SETTLED_MS)
    box = page.locator("#canvas").bounding_box()
    page.keyboard.press("l")
    corners = [(0.12, 0.15), (0.42, 0.12), (0.46, 0.45), (0.15, 0.5), (0.12, 0.15)]
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=8)
    page.mouse.up()
    page.keyboard.press("l")
    page.wait_for_timeout(SETTLED_MS)
    save(page, folder, "report-map")
    page.locator("a[href='#clusters']").click()
    page.wait_for_timeout(SETTLED_MS)
    save(page, folder, "report-clusters")
    page.close()


def show_console(chromium, command, folder):
    """A cluster named, one made heavier, images pinned and held; the next pass; saved."""
    server = subprocess.Popen(command, stdout=subprocess.PIPE, universal_newlines=True)
    try:
        url = next(line.split(" at ", 1)[1].strip() for line in server.stdout
                   if line.startswith("console at "))
        page = chromium.new_page(viewport=SIZE)
        page.goto(url)
        page.locator("#draft .tile").first.wait_for()
        page.locator("#wall-order").select_option("queued")
        cards = page.locator("#wall article")
        cards.nth(0).locator(".label").fill(NAMED)
        page.keyboard.press("Tab")
        for _ in range(STEPS):
            cards.nth(HEAVIER).locator("button[aria-label^=More]").click()
        for place, key in ((2, "h"), (7, "p"), (4, "m")):
            page.locator("#now .tile").nth(place).focus()
            page.keyboard.press(key)
            page.wait_for_timeout(SETTLED_MS)
        page.mouse.move(1, 1)
        save(page, folder, "console")
        page.keyboard.press("Control+s")
        page.wait_for_timeout(SETTLED_MS)
        page.close()
    finally:
        server.terminate()
        server.wait()


def save(page, folder, name):
    """FOLDER/NAME.webp of what the page shows."""
    shown = Image.open(io.BytesIO(page.screenshot()))
    smaller = shown.resize((SHOWN_WIDTH, SHOWN_WIDTH * shown.height // shown.width), Image.LANCZOS)
    path = os.path.join(folder, name + ".webp")
    smaller.convert("RGB").save(path, quality=QUALITY, method=6)
    print("  %s, %d KB" % (os.path.relpath(path), os.path.getsize(path) // 1000))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
