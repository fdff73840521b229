"""The console's server over a real socket: whom it answers, from whom it takes changes."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from urllib.parse import quote, urlsplit

import pytest

pytest.importorskip("flask", reason="no Flask here: pip install '.[ground]'")
pytest.importorskip("waitress", reason="no waitress here: pip install '.[ground]'")
pytest.importorskip("ruamel.yaml", reason="no ruamel.yaml here: pip install '.[ground]'")

import consoled

from jetson_cluster import policy
from jetson_cluster.ground import console
from jetson_cluster.ground.console.desk import Desk
from jetson_cluster.ground.console.server import is_loopback, is_own_host, own_names


class Served:
    """A console that runs, and a client that may lie."""

    def __init__(self, url):
        parts = urlsplit(url)
        self.url, self.port = url, parts.port
        self.host, self.key = "127.0.0.1:%d" % parts.port, parts.query[len("key="):]
        self.cookie = "jetson-cluster-console-%d=%s" % (parts.port, self.key)

    def ask(self, path, body=None, method=None, **headers):
        """(status, headers, content); headers given as None are left out."""
        sent = {"Host": self.host, "Cookie": self.cookie}
        if body is not None:
            sent.update({"Origin": "http://" + self.host, "Content-Type": "application/json"})
        sent.update({name.replace("_", "-"): value for name, value in headers.items()})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method or ("GET" if body is None else "POST"), path, skip_host=True)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        if body is not None:
            sent["Content-Length"] = str(len(content))
        for name, value in sent.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(content if body is not None else None)
        answer = connection.getresponse()
        found = answer.status, answer.headers, answer.read()
        connection.close()
        return found

    def change(self, **headers):
        return self.ask("/api/change", {"kind": "weight", "target": "1", "value": 4}, **headers)

    def picture(self, image):
        run = json.loads(self.ask("/api/state")[2])["run"]
        return "/picture/%s/%s" % (run, image)

    def weights(self):
        return json.loads(self.ask("/api/state")[2])["weights"]


@pytest.fixture(scope="module")
def down(tmp_path_factory):
    return consoled.Down(tmp_path_factory.mktemp("server") / "down", each=4,
                         names=["<script>alert(1)</script>.jpg"])


@pytest.fixture
def served(down):
    with Desk(str(down.catalog), down.book, str(down.policy), str(down.orders)) as desk:
        with console.serving(desk) as url:
            yield Served(url)


# ---- who is answered -----------------------------------------------------------------------------


def test_the_printed_address_gives_the_key_to_the_browser_and_out_of_the_address_bar(served):
    status, headers, _ = served.ask("/?key=" + served.key, Cookie=None)
    assert status == 302 and headers["Location"] == "/"
    assert "HttpOnly" in headers["Set-Cookie"] and "SameSite=Lax" in headers["Set-Cookie"]
    assert served.ask("/", Cookie=headers["Set-Cookie"].split(";")[0])[0] == 200


@pytest.mark.parametrize("path", ["/", "/page/app.js", "/api/state", "/picture/1", "/nowhere"])
@pytest.mark.parametrize("cookie", [None, "", "jetson-cluster-console-1=x", "\u00e9=\u00e9"])
def test_without_the_key_nothing_is_shown(served, path, cookie):
    status, _, content = served.ask(path, Cookie=cookie and cookie.encode("utf-8"))
    assert status == 403 and b"open the address that the command printed" in content


def test_a_wrong_key_is_refused(served):
    assert served.ask("/?key=wrong", Cookie=None)[0] == 403
    assert served.ask("/?key=", Cookie=None)[0] == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1",
                                  "127.0.0.1.evil.example:{port}", "localhost:{port}@evil:{port}",
                                  "192.0.2.1:{port}", "[::1", "", "\u00e9:{port}"])
def test_another_host_name_is_refused_whatever_it_resolves_to(served, host):
    for path in ("/api/state", "/?key=" + served.key):
        status, headers, _ = served.ask(path, Host=host.format(port=served.port).encode("utf-8"))
        assert status in (400, 403) and "Set-Cookie" not in headers


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}",
                                  "[::1]:{port}"])
def test_its_own_names_are_answered(served, host):
    assert served.ask("/api/state", Host=host.format(port=served.port))[0] == 200


def test_beyond_loopback_an_address_is_its_own_and_a_name_is_not():
    assert is_own_host("192.0.2.7:8780", "0.0.0.0", 8780)
    assert is_own_host("[2001:db8::1]:8780", "::", 8780)
    assert not is_own_host("evil.example:8780", "0.0.0.0", 8780)
    assert is_own_host("ground.example:8780", "ground.example", 8780)
    short = socket.gethostname()
    assert is_own_host(short.upper() + ":8780", "0.0.0.0", 8780)
    assert all(is_own_host(name + ":8780", "::", 8780) for name in own_names())
    assert not is_own_host(short + ".evil.example:8780", "0.0.0.0", 8780)
    assert not is_own_host(short + ":8780", "127.0.0.1", 8780)
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("evil.example")


# ---- from whom changes are taken -----------------------------------------------------------------


def test_a_change_from_its_own_page_is_taken(served):
    status, _, content = served.change()
    assert status == 200 and json.loads(content)["weights"] == served.weights() == {"1": 4}


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example", "http://127.0.0.1",
                                    "https://{host}", "http://{host}.evil.example"])
def test_a_change_from_another_origin_is_refused(served, origin):
    for path in ("/api/change", "/api/save", "/api/undo"):
        status, _, content = served.ask(path, {"kind": "weight", "target": "1", "value": 4},
                                        Origin=origin and origin.format(host=served.host))
        assert status == 403 and b"own page only" in content
    assert served.weights() == {}


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded",
                                  "multipart/form-data; boundary=x", None])
def test_a_form_cannot_make_a_change(served, kind):
    assert served.change(Content_Type=kind)[0] == 403
    assert served.weights() == {}


def test_a_get_changes_nothing(served):
    for path in ("/api/change", "/api/save", "/api/undo", "/api/redo"):
        assert served.ask(path)[0] == 405


@pytest.mark.parametrize("body, status", [
    (b"{", 400), (b"[]", 400), (b"3", 400), (b"{}", 200), (b'{"kind": {}}', 200),
    (b'{"kind": "weight", "target": "1", "value": NaN}', 200),
    (b'{"kind": "weight", "target": "1", "value": 1e999}', 200),
    (b'{"kind": "mark", "target": "x", "value": "eat"}', 200),
    (b'{"kind": "label", "target": "1", "value": "\\ud800"}', 200), (b"x" * 30000, 413)])
def test_a_body_that_is_no_change_is_refused_with_a_reason(served, body, status):
    found, _, content = served.ask("/api/change", body)
    assert found == status and json.loads(content)["error"]
    assert served.weights() == {}


@pytest.mark.parametrize("path", ["/api/pass?budget=4M", "/api/pass?budget=", "/api/pass?budget=-1",
                                  "/api/cluster/99", "/api/cluster/1?order=evil", "/api/image/999"])
def test_a_question_that_means_nothing_is_answered_in_one_line(served, path):
    status, _, content = served.ask(path)
    assert status == 200 and "\n" not in json.loads(content)["error"]


@pytest.mark.parametrize("number", ["1" + "0" * 30, "9" * 5000, "\u0663", "-1", "x"])
def test_a_number_that_is_none_is_refused_in_one_line(served, number):
    for path in ("/api/image/", "/api/cluster/", served.picture(""), "/api/cluster/1?start=",
                 "/api/search?words=sol&start="):
        status, _, content = served.ask(path + quote(number))
        assert status == 400 and "at most 18 digits" in json.loads(content)["error"]
    for body in ({"kind": "weight", "target": number, "value": 4},
                 {"kind": "mark", "target": number, "value": "pin"}):
        status, _, content = served.ask("/api/change", body)
        assert status == 200 and "\n" not in json.loads(content)["error"]


@pytest.mark.parametrize("path", ["/page/../server.py", "/page/%2e%2e/server.py",
                                  "/page/..%2fserver.py", "/page//etc/passwd", "/page/"])
def test_no_file_but_those_of_the_page_is_served(served, path):
    assert served.ask(path)[0] in (400, 404)


# ---- what is sent --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/page/app.js", "/api/state", "/picture/1", "/picture/999",
                                  "/nowhere"])
def test_every_answer_forbids_what_the_page_does_not_need(served, path):
    _, headers, _ = served.ask(path if "picture" not in path else served.picture(path[9:]))
    said = headers["Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in said.split(";"))
    assert rules["default-src"] == "'none'" and rules["frame-ancestors"] == "'none'"
    assert {rules[kind] for kind in ("script-src", "style-src", "img-src", "connect-src")} == {
        "'self'"}
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_what_pictures_and_scripts_are_is_told(served):
    assert served.ask(served.picture(1))[1]["Content-Type"] == "image/jpeg"
    assert served.ask("/page/app.js")[1]["Content-Type"].startswith("text/javascript")
    assert served.ask(served.picture(999))[1]["Content-Type"].startswith("image/svg+xml")


def test_a_picture_that_the_browser_kept_is_never_shown_for_another_console(served, down):
    path = served.picture(1)
    assert "max-age" in served.ask(path)[1]["Cache-Control"]
    with Desk(str(down.catalog), down.book, str(down.policy), str(down.orders)) as desk:
        with console.serving(desk) as url:
            other = Served(url)
            assert other.picture(1) != path
            status, headers, _ = other.ask(path)
            assert status == 404 and headers["Cache-Control"] == "no-store"


def test_a_policy_is_saved_over_http(served, down):
    served.change()
    status, _, content = served.ask("/api/save", {})
    assert status == 200 and not json.loads(content)["stale"]
    assert policy.load(str(down.policy)).weights == {1: 4.0}
    for path in down.folder.glob("*.yaml*"):
        path.unlink()


# ---- the command ---------------------------------------------------------------------------------


COMMAND = ("import argparse\nfrom jetson_cluster.ground import console\n"
           "parser = argparse.ArgumentParser()\nconsole.add_arguments(parser)\n"
           "raise SystemExit(console.run(parser.parse_args()))\n")


@contextlib.contextmanager
def commanded(down, *more, **environment):
    """The command, running; (its process, the address that it printed)."""
    running = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "--catalog", str(down.catalog), "--codebook",
         str(down.codebook), "--policy", str(down.policy), "--orders-out", str(down.orders),
         "--port", "0", *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=dict(os.environ, **environment),
        # Whoever started the tests in the background had it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    try:
        line = running.stdout.readline()
        assert line.startswith("console at http://"), running.stderr.read()
        yield running, line.split()[-1]
    finally:
        running.kill()
        running.wait()


def test_the_command_prints_its_address_and_ends_on_an_interrupt(down):
    with commanded(down, "--no-browser") as (running, url):
        assert url.startswith("http://127.0.0.1:")
        assert Served(url).ask("/api/state")[0] == 200
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=30)
    assert running.returncode == 0 and said == ""


def test_nothing_is_left_of_the_copies_after_a_sigterm(down, tmp_path):
    with commanded(down, "--no-browser", TMPDIR=str(tmp_path)) as (running, url):
        assert Served(url).ask("/api/state")[0] == 200 and list(tmp_path.iterdir())
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=30)
    assert list(tmp_path.iterdir()) == [] and said == ""


def test_the_key_is_in_no_command_line_of_the_browser(down, tmp_path):
    seen, browser = tmp_path / "seen", tmp_path / "browser"
    browser.write_text("#!/bin/sh\necho \"$@\" > %s.new\nmv %s.new %s\n" % (seen, seen, seen))
    browser.chmod(0o755)
    with commanded(down, BROWSER=str(browser), DISPLAY=":9") as (_, url):
        key = Served(url).key
        for _ in range(200):
            if seen.exists():
                break
            Served(url).ask("/api/state")
            time.sleep(0.05)
        given = seen.read_text().strip()
        assert given.startswith("file:///") and key not in given
        way_in = given[len("file://"):]
        assert os.stat(way_in).st_mode & 0o077 == 0
        with open(way_in) as stream:
            assert re.search('content="0; url=([^"]+)"', stream.read()).group(1) == url


def test_where_it_listens_everywhere_the_printed_address_can_be_opened(down):
    with commanded(down, "--no-browser", "--host", "0.0.0.0") as (_, url):
        name = urlsplit(url).hostname
        assert name in own_names() and not url.startswith("http://0.0.0.0")
        served = Served(url)
        assert served.ask("/api/state", Host="%s:%d" % (name, served.port))[0] == 200
