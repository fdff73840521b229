"""From a survey to a page: a folder that opens without a server, or one file.

In: a corpus, its survey, where to put it. Out: FOLDER/index.html with sprites/ and sheets/ beside it, or
a single .html. What was there before stays whole until the new one is (see folder.py). Style, program
and data stand inside the page, and it forbids every other program by their hashes: no name of a file
can become one.
"""

import base64
import hashlib
import importlib.resources
import os
import re
from typing import Any, Callable, Dict, List, NamedTuple

import numpy as np

from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.files import write_atomically
from jetson_cluster.ground.report import atlas, content, folder, sheets
from jetson_cluster.ground.report.data import Survey

# In this order: each uses only what stands before it.
SCRIPTS = ("page.js", "data.js", "colours.js", "atlas.js", "choices.js", "exports.js", "viewer.js",
           "rows.js", "ranges.js", "filters.js", "places.js", "dots.js", "map.js", "gestures.js",
           "clusters.js", "galleries.js", "panel.js", "app.js")


class Written(NamedTuple):
    """What came out."""

    page: str  # the path to open
    bytes: int  # of all files
    unreadable: int  # thumbnails that could not be decoded


def check_out(out: str, single_file: bool) -> None:
    """Raise UserError if no report could be put at `out`, or something else stands there."""
    parent = os.path.dirname(os.path.abspath(out))
    if not os.path.isdir(parent):
        raise UserError("--out %s: there is no folder %s; make it first" % (out, parent))
    if single_file:
        if os.path.isdir(out) or not out.endswith((".html", ".htm")):
            raise UserError("--out %s: with --single-file name a file that ends in .html" % out)
        return
    folder.check(out)


def write_folder(out: str, corpus, survey: Survey, facts: Dict[str, Any],
                 tell: Callable[[str], None]) -> Written:
    """Make the report and put it at `out`, see folder.py; raises WorldError."""
    try:
        written = folder.replace(out, lambda fresh: _fill(fresh, corpus, survey, facts, tell))
    except OSError as error:
        raise WorldError("report %s: cannot be written: %s" % (out, error.strerror or error))
    return written._replace(page=os.path.join(out, "index.html"))


def _fill(path: str, corpus, survey: Survey, facts: Dict[str, Any],
          tell: Callable[[str], None]) -> Written:
    for made in ("", *folder.MADE):
        os.mkdir(os.path.join(path, made))
    open(os.path.join(path, folder.MARKER), "wb").close()
    total = 0

    def put(name: str, data: bytes) -> None:
        nonlocal total
        total += len(data)
        with open(os.path.join(path, name), "wb") as stream:
            stream.write(data)

    thumbnails = _thumbnails(corpus, survey)
    tell("laying %d thumbnails on sprites" % len(thumbnails))
    names, sizes, unreadable = [], [], 0  # type: List[str], List[np.ndarray], int
    for number, sprite in enumerate(atlas.sprites(thumbnails), 1):
        names.append("sprites/%05d.webp" % number)
        put(names[-1], sprite.content)
        sizes.append(sprite.sizes)
        unreadable += sprite.unreadable
    filled = [cluster for cluster in survey.clusters if cluster.size]
    tell("drawing %d contact sheets" % len(filled))
    for cluster in filled:
        put(sheet_name(cluster.number), sheets.sheet(cluster, [
            thumbnails[cluster.start + at] for at in sheets.chosen(cluster.size)]))
    data = content.describe(corpus, survey, np.concatenate(sizes), dict(
        facts, sprites=names, sheets=True))
    put("index.html", page(data, []))
    return Written(path, total, unreadable)


def write_single(out: str, corpus, survey: Survey, facts: Dict[str, Any],
                 tell: Callable[[str], None]) -> Written:
    """Make the report in one file, pictures included, without contact sheets; raises WorldError."""
    thumbnails = _thumbnails(corpus, survey)
    tell("laying %d thumbnails on sprites" % len(thumbnails))
    sprites = list(atlas.sprites(thumbnails))
    data = content.describe(corpus, survey, np.concatenate([sprite.sizes for sprite in sprites]),
                            dict(facts, sprites=len(sprites), sheets=False))
    whole = page(data, [sprite.content for sprite in sprites])
    try:
        write_atomically(out, whole)
    except OSError as error:
        raise WorldError("report %s: cannot be written: %s" % (out, error.strerror or error))
    return Written(out, len(whole), sum(sprite.unreadable for sprite in sprites))


def _thumbnails(corpus, survey: Survey) -> List[bytes]:
    """In the order of the page. All at once, 1 to 2 KB each: shards have another order."""
    return corpus.thumbnails(survey.row)


def sheet_name(cluster: int) -> str:
    """Where in the folder a cluster's contact sheet lies; the page's clusters.js says the same."""
    return "sheets/cluster-%05d.png" % cluster


def page(data: Dict[str, Any], sprites: List[bytes]) -> bytes:
    """The whole page; sprites in base64 stand where it looks for them."""
    style, program = _part("style.css"), program_text()
    parts = {
        "style": style, "program": program, "data": content.in_html(data),
        "policy": policy(style, program),
        "sprites": "\n".join('<script type="text/plain" class="sprite">%s</script>'
                             % base64.b64encode(sprite).decode("ascii") for sprite in sprites)}
    # In one go: a text put in may hold what looks like a place for another.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match.group(1)],
                  _part("index.html")).encode("utf-8")


def policy(style: str, program: str) -> str:
    """The page's content security policy: this style, this program, pictures, and nothing else.

    Pictures may be files, for the large view shows the images themselves where they are at hand.
    """
    return ("default-src 'none'; script-src %s; style-src %s; img-src 'self' file: data: blob:; "
            "base-uri 'none'; form-action 'none'" % (_hash(program), _hash(style)))


def program_text() -> str:
    """All scripts as one, none of whose names can be seen from outside."""
    return '"use strict";\n(() => {\n%s\n})();\n' % "\n".join(map(_part, SCRIPTS))


def _part(name: str) -> str:
    return (importlib.resources.files(__package__) / "page" / name).read_text("utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return "'sha256-%s'" % base64.b64encode(digest).decode("ascii")
