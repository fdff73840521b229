"""A real browser for the tests of pages: Debian's chromium, driven by Playwright.

In: a URL and where the page may fetch from. Out: Playwright's page, at the end of which the test
fails if anything was written to the console as an error, was thrown and not caught, or was asked for
from elsewhere. Skips where Playwright or chromium is absent.

    with browser.chromium() as running, browser.page(running, "file:///tmp/report/") as page:
        page.goto("file:///tmp/report/index.html")
"""

import contextlib
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Without these it looks up its maker's hosts at every start, which a closed network refuses. Nothing
# but this computer has a name: a page that asks for more is seen to fail, not let through.
FLAGS = ("--disable-background-networking", "--disable-component-update", "--disable-gpu",
         "--disable-quic", "--disable-sync", "--no-first-run",
         "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost")
WITHIN_THE_PAGE = ("data:", "blob:", "about:")


@contextlib.contextmanager
def chromium():
    """A running browser; for a fixture of module scope, for it takes a second to start."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="no Playwright here: pip install playwright")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no chromium here: apt-get install --no-install-recommends chromium")
    with playwright.sync_playwright() as running:
        # Playwright starts it without chromium's own sandbox, which root in a container cannot have.
        launched = running.chromium.launch(executable_path=path, headless=True, args=list(FLAGS))
        try:
            yield launched
        finally:
            launched.close()


@contextlib.contextmanager
def page(running, *origins, expected=(), **options):
    """A new page in a context of its own, which may fetch only from URLs that begin with `origins`.

    `expected` are parts of complaints that are no misbehaviour in this test, each of which must come;
    `options` go to Playwright's new_context: viewport, color_scheme, reduced_motion and so on.
    Raises AssertionError at the end if the page misbehaved.
    """
    wrong = []

    def on_request(request):
        if not request.url.startswith(tuple(origins) + WITHIN_THE_PAGE):
            wrong.append("it asked for {}".format(request.url[:300]))

    def on_console(message):
        if message.type == "error":
            wrong.append("error on the console: {}".format(message.text[:1000]))

    context = running.new_context(**options)
    try:
        context.set_default_timeout(20000)
        context.on("request", on_request)
        context.on("console", on_console)
        context.on("weberror", lambda error: wrong.append("not caught: {}".format(error.error)))
        # A dialog can only be an injected alert(): none of our pages opens one.
        context.on("dialog", lambda dialog: (wrong.append("it opened a dialog: {}".format(
            dialog.message)), dialog.dismiss()))
        yield context.new_page()
        for part in expected:
            assert any(part in complaint for complaint in wrong), "never came: " + part
        wrong = [complaint for complaint in wrong if not any(part in complaint for part in expected)]
        assert not wrong, "\n".join(["the page misbehaved:"] + wrong)
    finally:
        context.close()
