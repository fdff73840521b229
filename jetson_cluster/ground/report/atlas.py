"""All thumbnails of an archive on a few large pictures, for a browser cannot hold 30,000 small ones.

In: thumbnails as bytes, in the order of the page. Out: sprites, WebP pictures of 12 x 12 cells, and how
large each thumbnail is in its cell (it stands at the cell's upper left corner).
"""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Iterator, NamedTuple, Sequence, Tuple

import numpy as np
from PIL import Image

CELL = 96  # pixels: the longest side of a corpus's thumbnails
COLUMNS = 12  # 144 cells are 0.2 MB of WebP and 5 MB decoded: what a screenful of a cluster needs
CELLS = COLUMNS * COLUMNS
QUALITY = 75  # thumbnails are coarse already: not to be seen beside them
MISSING = (58, 58, 64)  # where a thumbnail cannot be read


class Sprite(NamedTuple):
    """One of the large pictures."""

    content: bytes  # WebP
    sizes: np.ndarray  # uint8 [n, 2], width and height of each of its thumbnails
    unreadable: int  # thumbnails that could not be decoded; their cells are grey


def sprites(thumbnails: Sequence[bytes]) -> Iterator[Sprite]:
    """The sprites of all thumbnails, in order."""
    starts = range(0, len(thumbnails), CELLS)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow codes outside Python's lock
        yield from pool.map(lambda start: sprite(thumbnails[start:start + CELLS]), starts)


def sprite(thumbnails: Sequence[bytes]) -> Sprite:
    """At most 144 thumbnails on one picture, row by row."""
    rows = -(-len(thumbnails) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * CELL, rows * CELL))
    sizes, unreadable = np.empty((len(thumbnails), 2), np.uint8), 0
    for place, content in enumerate(thumbnails):
        picture, readable = opened(content)
        unreadable += not readable
        sizes[place] = picture.size
        sheet.paste(picture, (place % COLUMNS * CELL, place // COLUMNS * CELL))
    stream = io.BytesIO()
    sheet.save(stream, "WEBP", quality=QUALITY, method=4)
    return Sprite(stream.getvalue(), sizes, unreadable)


def opened(content: bytes) -> Tuple[Image.Image, bool]:
    """(a thumbnail, at most CELL pixels long, whether it could be read); if not, a grey square."""
    try:
        picture = Image.open(io.BytesIO(content), formats=("WEBP", "JPEG", "PNG")).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return Image.new("RGB", (CELL, CELL), MISSING), False
    if max(picture.size) > CELL:
        picture.thumbnail((CELL, CELL))
    return picture, True
