"""The console's web server: one page, its data, and few changes; for one team on one computer.

In: a Desk, and the address that it is bound to. Out: a WSGI application. It answers only whoever
has its key, under its own name, and takes changes only from its own page.

Three doors are shut. A site elsewhere that had its name resolve to this computer (DNS rebinding) is
refused for its Host header; one that posts here by a form or a script, for its Origin; other users
of this computer, who may reach the port, for want of the key, which is in the address that is
printed and then in a cookie that no script can read.
"""

import functools
import hmac
import ipaddress
import secrets
import socket
from typing import Any, Callable, Dict, Optional, Tuple
from urllib.parse import urlsplit

from flask import Flask, Response, abort, jsonify, redirect, request, send_from_directory
from werkzeug.exceptions import HTTPException

from jetson_cluster.errors import JetsonClusterError, UserError
from jetson_cluster.ground.console.desk import Desk

MOST_REQUEST_BYTES = 20000
HEADERS = {
    # Nothing from elsewhere, no script or style that stands in the page, no frame around it.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
                               "img-src 'self'; connect-src 'self'; base-uri 'none'; "
                               "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
PICTURE_KEPT_S = 3600  # by the browser; under the name of this run a picture never changes
MOST_DIGITS = 18  # of a number in an address: what SQLite holds


def application(desk: Desk, host: str, port: int, key: Optional[str] = None) -> Flask:
    """The server over `desk`, for that address; its key is in `config["CONSOLE_KEY"]`."""
    app = Flask(__name__, static_folder=None)
    key = key or secrets.token_urlsafe(24)
    app.config.update(CONSOLE_KEY=key, MAX_CONTENT_LENGTH=MOST_REQUEST_BYTES)
    cookie = f"jetson-cluster-console-{port}"
    page = app.root_path + "/page"

    @app.before_request
    def only_its_own() -> Optional[Response]:
        if not is_own_host(request.host, host, port):
            abort(403, "this console is not called so; open the address that the command printed")
        if request.path == "/" and "key" in request.args:
            if not _same(request.args["key"], key):
                abort(403, "wrong key; open the address that the command printed")
            answer = redirect("/")
            answer.set_cookie(cookie, key, httponly=True, samesite="Lax")
            return answer
        if not _same(request.cookies.get(cookie, ""), key):
            abort(403, "no key; open the address that the command printed")
        if request.method == "POST":
            origin = request.headers.get("Origin", "")
            if origin != f"http://{request.host}" or not request.is_json:
                abort(403, "changes are taken from the console's own page only")
        return None

    @app.after_request
    def guarded(answer: Response) -> Response:
        for name, value in HEADERS.items():
            answer.headers[name] = value
        answer.headers.setdefault("Cache-Control", "no-store")
        return answer

    @app.errorhandler(JetsonClusterError)
    def refused(error: JetsonClusterError):
        # A person's mistake is an answer: browsers note every other status as an error of the page.
        return jsonify(error=str(error)), 200 if isinstance(error, UserError) else 500

    @app.errorhandler(OSError)
    def failed(error: OSError):
        return jsonify(error=f"it could not be written: {error}"), 500

    @app.errorhandler(HTTPException)
    def answered(error: HTTPException):
        return jsonify(error=error.description), error.code

    @app.get("/")
    def index():
        return send_from_directory(page, "index.html")

    @app.get("/page/<name>")
    def part(name: str):
        return send_from_directory(page, name)

    @app.get("/api/clusters")
    def clusters():
        return jsonify(desk.clusters())

    @app.get("/api/state")
    def state():
        return jsonify(desk.state())

    @app.get("/api/pass")
    def next_passes():
        return jsonify(desk.next_passes(request.args.get("budget", "")))

    @app.get("/api/cluster/<number>")
    def members(number: str):
        return jsonify(desk.members(_number(number), request.args.get("order", "typical"),
                                    _number(request.args.get("start", "0")),
                                    request.args.get("queued") == "1"))

    @app.get("/api/search")
    def search():
        return jsonify(desk.search(request.args.get("words", ""),
                                   _number(request.args.get("start", "0"))))

    @app.get("/api/image/<image>")
    def image_of(image: str):
        return jsonify(desk.image(_number(image)))

    @app.get("/picture/<run>/<image>")
    def picture(run: str, image: str):
        if run != desk.run:  # of a page that another console left in the browser
            abort(404, "this is another console's picture; load the page again")
        found = desk.picture(_number(image), request.args.get("large") == "1")
        if found is None:
            return send_from_directory(page, "none.svg")
        answer = Response(found.content, mimetype=found.mime)
        answer.headers["Cache-Control"] = f"private, max-age={PICTURE_KEPT_S}"
        return answer

    @app.post("/api/change")
    def change():
        asked = _asked()
        return jsonify(desk.change(str(asked.get("kind")), str(asked.get("target")),
                                   asked.get("value")))

    for name in ("undo", "redo", "save"):
        app.add_url_rule(f"/api/{name}", name, _answering(getattr(desk, name)), methods=["POST"])
    return app


def _answering(work: Callable[[], Dict[str, Any]]) -> Callable[[], Response]:
    return lambda: jsonify(work())


def _asked() -> Dict[str, Any]:
    asked = request.get_json()
    if not isinstance(asked, dict):
        abort(400, "a change is an object with kind, target and value")
    return asked


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS):
        abort(400, f"a number of at most {MOST_DIGITS} digits stands here, not {text[:40]!r}")
    return int(text)


def _same(given: str, key: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), key.encode("ascii"))


def is_own_host(header: str, host: str, port: int) -> bool:
    """Whether a Host header names this server.

    A numeric address cannot be rebound, so any is its own where it is bound to more than loopback.
    """
    try:
        parts = urlsplit("//" + header)
        name, said_port = (parts.hostname or "").lower(), parts.port or 80
    except ValueError:
        return False
    if said_port != port or parts.username is not None:
        return False
    if name == "localhost" or name == host.lower():
        return True
    if is_loopback(host):
        return is_loopback(name)
    return _address(name) is not None or name in own_names()


@functools.lru_cache(None)
def own_names() -> Tuple[str, ...]:
    """What this computer calls itself, in lower case, the longest first.

    A full name counts only if it is the short one with a domain: who answers for the network's
    addresses could give any name, and one of their own would be let in.
    """
    short = socket.gethostname().lower()
    full = socket.getfqdn().lower()
    return (full, short) if full.startswith(short + ".") else (short,)


def is_loopback(host: str) -> bool:
    """Whether only this computer can reach it."""
    address = _address(host)
    return host.lower() == "localhost" or (address is not None and address.is_loopback)


def _address(host: str):
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
