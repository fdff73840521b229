"""Contact sheets: one PNG for each cluster, 10 x 10 of its images, to print, to mail, to pin up.

In: thumbnails of images of one cluster. Out: a picture, captioned. Images are taken evenly from the most
typical to the most unusual, row by row, so that a sheet shows the whole range of its cluster.
"""

import io
from typing import List, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jetson_cluster.ground.report.atlas import CELL, opened
from jetson_cluster.ground.report.data import Cluster

COLUMNS = 10
MOST = COLUMNS * COLUMNS
GAP = 4
MARGIN = 16
CAPTION = 44
BACKGROUND, TEXT, FAINT = (20, 22, 26), (236, 232, 225), (160, 156, 150)
COLOURS = 256  # of a palette: on grey and reddish terrain not to be seen, at a third of the bytes


def chosen(size: int) -> np.ndarray:
    """Which of so many images, ordered from typical to unusual, a sheet shows: int [at most 100]."""
    return np.unique(np.linspace(0, size - 1, min(size, MOST)).round().astype(int))


def sheet(cluster: Cluster, thumbnails: Sequence[bytes]) -> bytes:
    """A PNG of at most 100 thumbnails of a cluster, in this order."""
    rows = -(-len(thumbnails) // COLUMNS)
    step = CELL + GAP
    picture = Image.new("RGB", (2 * MARGIN + COLUMNS * step - GAP,
                                CAPTION + MARGIN + rows * step - GAP), BACKGROUND)
    _caption(picture, cluster, len(thumbnails))
    for place, content in enumerate(thumbnails):
        tile = opened(content)[0]
        picture.paste(tile, (MARGIN + place % COLUMNS * step + (CELL - tile.width) // 2,
                             CAPTION + place // COLUMNS * step + (CELL - tile.height) // 2))
    stream = io.BytesIO()
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def caption(cluster: Cluster, shown: int) -> List[str]:
    """What stands above a sheet: its name, and what it shows."""
    name = "Cluster %d" % cluster.number + (": %s" % cluster.label if cluster.label else "")
    if shown == cluster.size:
        what = "all %d images" % shown if shown > 1 else "its only image"
    else:
        what = "%d of %d images" % (shown, cluster.size)
    return [name, what + ("" if shown == 1 else ", from the most typical to the most unusual")]


def _caption(picture: Image.Image, cluster: Cluster, shown: int) -> None:
    draw = ImageDraw.Draw(picture)
    name, what = caption(cluster, shown)
    large, small = ImageFont.load_default(18), ImageFont.load_default(13)
    draw.text((picture.width - MARGIN, CAPTION / 2), what, FAINT, small, "rm")
    room = picture.width - 3 * MARGIN - draw.textlength(what, small)
    while draw.textlength(name, large) > room:
        name = name[:-2] + "\N{HORIZONTAL ELLIPSIS}"
    draw.text((MARGIN, CAPTION / 2), name, TEXT, large, "lm")
