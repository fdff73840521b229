"""`jetson-cluster console`: name and weigh clusters in a browser, and see the next pass at once.

In: the catalog that came down, the codebook and the policy that the rover has. Out: policy.yaml and
the smallest order file that brings the rover there. `desk` is what the page sees of it all, `model`
the draft and the two files, `marks` what is pinned and held, `preview` the flight code that ranks,
`server` the web server, `page` what runs in the browser.
"""

import argparse
import contextlib
import html
import os
import pathlib
import signal
import socket
import sys
import threading
import webbrowser
from typing import Dict, Iterator

import waitress

from jetson_cluster import codebook
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.ground.console import paths
from jetson_cluster.ground.console.desk import Desk
from jetson_cluster.ground.console.server import application, is_loopback, own_names
from jetson_cluster.ground.console.standing import KEPT, SAVED
from jetson_cluster.orders import YAML_SUFFIXES

PORT = 8780
THREADS = 8  # a browser opens six connections at once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--catalog", required=True, metavar="FILE.sqlite",
                        help="the catalog that came down; it is never changed, but copied twice "
                             "into TMPDIR (else /tmp), until the console ends")
    parser.add_argument("--codebook", required=True, metavar="FILE.npz",
                        help="the codebook that is on the rover")
    parser.add_argument("--policy", required=True, metavar="FILE.yaml",
                        help="the team's policy: read, and written by Save; it may be new")
    parser.add_argument("--orders-out", default="order.yaml", metavar="FILE.yaml",
                        help="where Save writes the orders to uplink (default %(default)s)")
    parser.add_argument("--corpus", metavar="CORPUS",
                        help="a corpus whose thumbnails stand in for previews that are not there")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS",
                        help="the address to listen at (default %(default)s: this computer only)")
    parser.add_argument("--port", type=int, default=PORT, metavar="N",
                        help="the port to listen at, 0 for any that is free (default %(default)s)")
    parser.add_argument("--no-browser", action="store_true",
                        help="only print the address, do not open a browser")


def run(args: argparse.Namespace) -> int:
    if not args.orders_out.lower().endswith(YAML_SUFFIXES):
        raise UserError(f"--orders-out {args.orders_out}: orders are written as YAML; let the name "
                        "end in .yaml")
    policy = os.path.realpath(args.policy)
    if os.path.realpath(args.orders_out) in [policy + end for end in ("", KEPT, SAVED)]:
        raise UserError(f"--orders-out {args.orders_out}: is the policy itself, or a copy that is "
                        "kept of it; give another file")
    paths.settled(args.policy, "--policy")
    paths.settled(args.orders_out, "--orders-out")
    if not 0 <= args.port <= 65535:
        raise UserError(f"--port {args.port}: must be 0 to 65535")
    corpus = None
    if args.corpus is not None:
        # Only here, for it needs libraries that the rest does not.
        from jetson_cluster.ground import corpus as corpora
        corpus = corpora.read(args.corpus)
    signal.signal(signal.SIGTERM, _end)
    with Desk(args.catalog, codebook.load(args.codebook), args.policy, args.orders_out,
              corpus) as desk:
        _serve(desk, args.host, args.port, not args.no_browser)
    return 0


def _end(*_signal: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the copies are being removed
    raise SystemExit(128 + signal.SIGTERM)


def _serve(desk: Desk, host: str, port: int, browser: bool) -> None:
    """Answer until interrupted."""
    try:
        server, url = open_server(desk, host, port)
    except UnicodeError as error:
        raise UserError(f"--host {host[:80]}: is no name of a computer") from error
    except OSError as error:
        raise WorldError(f"--host {host} --port {port}: cannot be listened at "
                         f"({error.strerror or error}); choose another --port") from error
    print(f"console at {url}")
    print("Ctrl-C ends it; what was not saved is lost then", flush=True)
    if not is_loopback(host):
        print("jetson-cluster: whoever has that address can change the policy, and it crosses the "
              "network as plain text; a tunnel (ssh -L) to 127.0.0.1 is safer", file=sys.stderr)
    if browser and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        threading.Timer(0.3, webbrowser.open, [way_in(desk, url)]).start()
    server.run()  # until Ctrl-C
    server.close()


def way_in(desk: Desk, url: str) -> str:
    """The URL of a file that leads on to the console.

    What a browser is started with every user of this computer can read; the key is in the file.
    """
    path = os.path.join(desk.folder, "open.html")
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as stream:
        stream.write('<!DOCTYPE html><title>Console</title><meta http-equiv="refresh" '
                     f'content="0; url={html.escape(url)}">\n')
    return pathlib.Path(path).as_uri()


@contextlib.contextmanager
def serving(desk: Desk, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """A context in which the console answers, from a thread of its own; gives its URL.

    Raises OSError.
    """
    server, url = open_server(desk, host, port)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield url
    finally:
        told = threading.Event()

        def end() -> None:  # in the loop's own thread, which has nothing left to wait for then
            told.wait()  # it may be here before the trigger, which is closed as well, is let go
            server.asyncore.close_all(server.socket_map)

        server.trigger.pull_trigger(end)
        told.set()
        thread.join()
        server.task_dispatcher.shutdown()


def open_server(desk: Desk, host: str, port: int):
    """(waitress's server, not running yet; the URL with its key). Raises OSError."""
    # Of the addresses that a name may stand for, the first: the server is one socket.
    address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]
    sockets: Dict[int, object] = {}
    # The port is known only once it is bound, and the application has to know it.
    server = waitress.create_server(
        lambda *asked: app(*asked), host=address, port=port, map=sockets, threads=THREADS,
        ident=None, clear_untrusted_proxy_headers=True)
    server.socket_map = sockets
    port = int(server.effective_port)
    app = application(desk, host, port)
    # 0.0.0.0 and :: are no address to go to.
    shown = own_names()[0] if address in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return server, f"http://{shown}:{port}/?key={app.config['CONSOLE_KEY']}"
