"""What the page is told, as one JSON text: columns of numbers in base64, text as text.

In: a corpus and its survey. Out: JSON that may stand inside an HTML page whatever files are called.
Columns are little-endian arrays; the page's data.js is the other side of this.
"""

import base64
import datetime
import json
import os
from typing import Any, Dict, List, Sequence

import numpy as np

from jetson_cluster import __version__
from jetson_cluster.ground.report import atlas
from jetson_cluster.ground.report.data import Survey
from jetson_cluster.policy import NAMED

FORMAT = 1


def describe(corpus, survey: Survey, sizes: np.ndarray, facts: Dict[str, Any]) -> Dict[str, Any]:
    """Everything the page shows but the pictures.

    `sizes` uint8 [N, 2] are those of the thumbnails; `facts` are of the report as a whole: title,
    made, map, sheets, sprites.
    """
    rows = survey.row.tolist()
    paths = [corpus.paths[row] for row in rows]
    folders = sorted({os.path.dirname(path) for path in paths})
    number_of = {folder: number for number, folder in enumerate(folders)}
    hashes = [corpus.sha256[row] for row in rows]
    return dict(
        facts, format=FORMAT, version=__version__, count=len(rows), space=corpus.space,
        cell=atlas.CELL, columns=atlas.COLUMNS, named=named_by(corpus.sha256),
        clusters=[cluster._asdict() for cluster in survey.clusters],
        folders=folders, folder=packed([number_of[os.path.dirname(path)] for path in paths], "<u4"),
        names=[os.path.basename(path) for path in paths],
        sha256=base64.b64encode(bytes.fromhex("".join(hashes))).decode("ascii"),
        bytes=packed(corpus.bytes[survey.row], "<f8"),
        pixels=packed(np.stack([corpus.widths[survey.row], corpus.heights[survey.row]], 1), "<i4"),
        captured=packed([epoch_ms(corpus.captured_at[row]) for row in rows], "<f8"),
        distance=packed(survey.distance, "<f4"), novelty=packed(survey.novelty, "<f4"),
        far=packed(survey.far, "u1"), factor=packed(survey.factor, "<f4"),
        group=packed(survey.group, "<i4"),
        reasons={at: reason for at, reason in enumerate(survey.reasons) if reason},
        place=packed(np.round(survey.place * 65535), "<u2"), thumbnails=packed(sizes, "u1"),
        copies={at: corpus.copies[sha256][1:] for at, sha256 in enumerate(hashes)
                if len(corpus.copies[sha256]) > 1},
        failed=[list(failure) for failure in corpus.failed])


def in_html(content: Dict[str, Any]) -> str:
    """JSON in ASCII that no HTML parser takes for the end of the script element it stands in."""
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")


def packed(column: Sequence, kind: str) -> str:
    """A column of numbers of this dtype, in base64."""
    return base64.b64encode(np.ascontiguousarray(column).astype(kind).tobytes()).decode("ascii")


def named_by(hashes: List[str]) -> int:
    """How many digits of a SHA-256 name each image of the corpus, and no other."""
    digits = NAMED
    while len({sha256[:digits] for sha256 in hashes}) < len(hashes):
        digits += 1
    return digits


def epoch_ms(captured_at: str) -> float:
    """Milliseconds since 1970 of an ISO time, UTC where it does not say; NaN if it is unknown."""
    try:
        time = datetime.datetime.fromisoformat(captured_at.replace("Z", "+00:00"))
    except ValueError:
        return float("nan")
    if time.tzinfo is None:
        time = time.replace(tzinfo=datetime.timezone.utc)
    return time.timestamp() * 1000
