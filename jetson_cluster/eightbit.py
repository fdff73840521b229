"""Any pixels that Pillow can read, made 8-bit grey, RGB or RGBA.

In: a freshly opened Pillow image. Out: a loaded one of mode L, RGB or RGBA, where white is 255.
"""

import re
import sys
from typing import Callable, Optional, Tuple

import numpy as np
from PIL import Image

# Planetary files mark missing float pixels with values near the end of float32 (ISIS: -3.4e38).
MISSING_FROM = 1e38
# Rows converted at a time, so that a large image needs no second copy of itself in float64.
ROWS = 64

# Pillow unpacks 16-bit colour by keeping the high byte. The same data read with the other byte
# order gives the low byte; N is the machine's own order.
_SWAPPED = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


class Unsupported(Exception):
    """Pillow can read these pixels, but not in a way that gives a true picture."""


def to_eight_bits(image: Image.Image, reopen: Callable[[], Image.Image],
                  sixteen_bit_white: int) -> Image.Image:
    """Load `image` and convert it. `reopen` opens the same file again, for a second reading.

    16-bit numbers from 0 to `sixteen_bit_white` become 0..255; beyond is white, below 0 is black.
    PNM files name their white themselves. Floats and 32-bit integers have none: lowest to highest
    becomes 0..255, missing pixels black. Raises Unsupported, and whatever Pillow raises.
    """
    codec, rawmode = _first_tile(image)
    if image.mode == "LAB":
        raise Unsupported("Lab colours")
    if image.format == "PPM" and codec == "raw":
        return _from_pnm(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _from_deep_grey(image, 65535 if image.format == "PPM" else sixteen_bit_white)
    if ";16" in rawmode and sixteen_bit_white != 65535:
        return _from_deep_colour(image, reopen, rawmode, sixteen_bit_white)
    image.load()
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        if image.mode in ("La", "RGBa"):
            image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
        return image.convert("RGBA")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _first_tile(image: Image.Image) -> Tuple[str, str]:
    """(codec, raw mode) of the data still to be read; empty for formats that say nothing of it."""
    if not getattr(image, "tile", None):
        return "", ""
    codec, arguments = image.tile[0][0], image.tile[0][3]
    rawmode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return codec, rawmode if isinstance(rawmode, str) else ""


def _from_deep_grey(image: Image.Image, white: int) -> Image.Image:
    tags = getattr(image, "tag_v2", {})
    image.load()
    values = np.asarray(image)
    if image.mode == "F" or max(tags.get(258, (16,))) > 16:
        if image.mode == "I" and tags.get(339, (1,))[0] == 1:
            values = values.view(np.uint32)
        return Image.fromarray(_stretched(values))
    # WhiteIsZero, which Pillow heeds for 8-bit files only.
    flip = tags.get(262) == 0
    return Image.fromarray(_scaled(values, white, flip))


def _scaled(values: np.ndarray, white: int, flip: bool = False) -> np.ndarray:
    """0..white to 0..255 uint8, for integers of any width."""
    table = np.minimum(np.rint(np.arange(65536) * (255.0 / white)), 255).astype(np.uint8)
    if flip:
        table = 255 - table
    result = np.empty(values.shape, np.uint8)
    for row in range(0, len(values), ROWS):
        result[row:row + ROWS] = table[np.clip(values[row:row + ROWS], 0, 65535)]
    return result


def _stretched(values: np.ndarray) -> np.ndarray:
    """Lowest to highest valid number to 0..255 uint8; missing and constant pixels are 0."""
    low, high = _valid_range(values)
    result = np.zeros(values.shape, np.uint8)
    if low is None or low == high:
        return result
    for row in range(0, len(values), ROWS):
        block = values[row:row + ROWS].astype(np.float64)
        valid = np.abs(block) < MISSING_FROM
        result[row:row + ROWS][valid] = np.rint((block[valid] - low) / (high - low) * 255)
    return result


def _valid_range(values: np.ndarray) -> Tuple[Optional[float], Optional[float]]:
    lows, highs = [], []
    for row in range(0, len(values), ROWS):
        block = values[row:row + ROWS].astype(np.float64)
        block = block[np.abs(block) < MISSING_FROM]
        if block.size:
            lows.append(block.min())
            highs.append(block.max())
    return (min(lows), max(highs)) if lows else (None, None)


def _from_deep_colour(image: Image.Image, reopen: Callable[[], Image.Image], rawmode: str,
                      white: int) -> Image.Image:
    """16-bit RGB or RGBA whose white is not 65535, where high bytes alone would be nearly black."""
    low = reopen()
    match = re.match(r"(RGBA?;16)([LBN])$", rawmode)
    if match is None or len(low.tile) != 1:
        raise Unsupported("16-bit {} with a white of {}".format(image.mode, white))
    tile = low.tile[0]
    swapped = match.group(1) + _SWAPPED[match.group(2)]
    arguments = (swapped,) + tile[3][1:] if isinstance(tile[3], tuple) else swapped
    # A plain tuple up to Pillow 10, a named one since.
    low.tile = [tile._replace(args=arguments) if hasattr(tile, "_replace")
                else tile[:3] + (arguments,)]
    low.load()
    low_bytes = np.asarray(low)
    del low  # a large image is 200 MB, and memory is shared with the GPU
    image.load()
    pixels = np.array(image)  # the high bytes, to be replaced
    for row in range(0, len(pixels), ROWS):
        colours = pixels[row:row + ROWS, :, :3]
        deep = np.left_shift(colours, 8, dtype=np.uint16) | low_bytes[row:row + ROWS, :, :3]
        colours[:] = _scaled(deep, white)
    del low_bytes
    return Image.fromarray(pixels)


def _from_pnm(image: Image.Image) -> Image.Image:
    """A PNM whose numbers Pillow hands over as they are; newer releases scale some themselves."""
    stream = image.fp
    stream.seek(0)
    header = re.sub(br"#[^\n]*", b"", stream.read(4096))
    white = re.match(br"P[56]\s+\d+\s+\d+\s+(\d+)\s", header)
    image.load()
    if image.mode == "1" or white is None:
        return image.convert("L")
    if image.mode == "RGB" and int(white.group(1)) == 255:
        return image
    return Image.fromarray(_scaled(np.asarray(image), int(white.group(1))))
