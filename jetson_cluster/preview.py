"""A tiny picture of an image, small enough to be sent before the image itself.

In: a decoded image and how many bytes its preview may have. Out: a `Preview`, which never has more,
whatever the image shows: the quality gives way first, then the size.
"""

import functools
import io
import logging
import math
from typing import Callable, NamedTuple, Optional, Tuple

import numpy as np
from PIL import Image, features

from jetson_cluster.config import PREVIEW_FORMATS, PREVIEW_LEAST_BYTES
from jetson_cluster.frame import on_black
from jetson_cluster.quality import Measures, measure

log = logging.getLogger(__name__)

FORMATS, LEAST_BYTES = PREVIEW_FORMATS, PREVIEW_LEAST_BYTES  # what may be asked for
BOX = (128, 96)  # pixels; upright pictures get it turned
FIRST_QUALITY, BEST_QUALITY = 50, 95  # beyond, bytes grow several times as fast as what they buy
# Of drawn and real pictures some sixty steps of quality multiply the bytes by e. The search aims a
# little below what is allowed, and ends when it is near enough, or tired.
STEPS_PER_E, AIM, NEAR_ENOUGH, TRIES = 60, 0.95, 0.9, 4
# Of noisy pictures a few steps may multiply the bytes by ten, and aiming misses: where less than this
# share is used after TRIES, the rest of the steps is halved until it is, or none is left.
FAIR, MOST_TRIES = 0.5, 11
OPTIONS = {"webp": {"method": 1}, "jpeg": {}}  # 4, Pillow's choice, takes twice as long for 0.5 dB
SIXTEEN_FROM = 0.75  # of the bytes, for eight colours: with more, sixteen have no room
# k-means stops when fewer pixels than this change their colour in a round: 0.3 dB below running it
# to its end, in less than half the time.
SETTLED_PIXELS = 400
LOSSLESS_DB = 99.0


class Preview(NamedTuple):
    """One tiny picture."""

    content: bytes  # a whole file
    format: str  # "webp", "palette" (a PNG) or "jpeg"
    width: int
    height: int
    psnr_db: float  # against the picture at this size; at most 99


def examine(image: Image.Image, image_format: str, max_bytes: int
            ) -> Tuple[Measures, Optional[Preview]]:
    """What is looked at while an image is decoded: how well it was taken, and its preview."""
    return measure(image), (None if image_format == "none" else
                            make(image, image_format, max_bytes))


def make(image: Image.Image, image_format: str, max_bytes: int) -> Preview:
    """The preview of an upright 8-bit L, RGB or RGBA image; it is never enlarged.

    `image_format` is one of FORMATS but "none". Where Pillow has no WebP it becomes a JPEG. What is
    transparent becomes black. Raises ValueError if `max_bytes` is below LEAST_BYTES.
    """
    if max_bytes < LEAST_BYTES:
        raise ValueError("a preview needs %d bytes, not %d" % (LEAST_BYTES, max_bytes))
    chosen = _lossy() if image_format == "webp" else image_format
    squeeze = _as_palette if chosen == "palette" else functools.partial(_as_lossy, chosen)
    whole = picture = _reduced(image)
    content = squeeze(picture, max_bytes)
    while len(content) > max_bytes:
        shrink = min(0.9, math.sqrt(0.95 * max_bytes / len(content)))
        picture = whole.resize([max(1, int(side * shrink)) for side in picture.size], Image.BICUBIC)
        content = squeeze(picture, max_bytes)
    return Preview(content, chosen, picture.width, picture.height, _psnr_db(picture, content))


def suffix(image_format: str) -> str:
    """What a file of a Preview's format is named."""
    return {"webp": ".webp", "palette": ".png", "jpeg": ".jpg"}[image_format]


@functools.lru_cache(maxsize=None)  # said once
def _lossy() -> str:
    if features.check("webp"):
        return "webp"
    log.warning("NoWebP: this Pillow was built without WebP; previews are JPEG files")
    return "jpeg"


def _reduced(image: Image.Image) -> Image.Image:
    """A copy of the picture, RGB, in the box."""
    width, height = image.size
    across, down = BOX if width >= height else BOX[::-1]
    scale = min(1.0, across / width, down / height)
    if scale < 1:
        size = max(1, int(round(width * scale))), max(1, int(round(height * scale)))
        image = image.resize(size, Image.BICUBIC, reducing_gap=2.0)
    picture = on_black(image)
    picture.info = {}  # Pillow would write colour profiles and comments of any length into the file
    return picture


def _as_lossy(image_format: str, picture: Image.Image, max_bytes: int) -> bytes:
    """The best quality found that fits; else the lowest quality, which does not."""
    best, fits, exceeds, quality = b"", None, None, FIRST_QUALITY
    for tried in range(1, MOST_TRIES + 1):
        content = _file(picture, image_format, quality=quality, **OPTIONS[image_format])
        excess = math.log(len(content) / (AIM * max_bytes))
        if len(content) > max_bytes:
            exceeds = quality, excess
        else:
            best, fits = content, (quality, excess)
            if len(content) >= NEAR_ENOUGH * max_bytes:
                break
        if tried >= TRIES and len(best) >= FAIR * max_bytes:
            break
        if fits and exceeds and tried >= TRIES:
            quality = (fits[0] + exceeds[0]) // 2
        elif fits and exceeds:  # the logarithm of the bytes taken as a straight line between the two
            quality = fits[0] + (exceeds[0] - fits[0]) * fits[1] / (fits[1] - exceeds[1])
        else:
            quality -= excess * STEPS_PER_E
        least = fits[0] + 1 if fits else 0
        most = exceeds[0] - 1 if exceeds else BEST_QUALITY
        if least > most:
            break
        quality = int(min(most, max(least, quality)))
    return best or _file(picture, image_format, quality=0, **OPTIONS[image_format])


def _as_palette(picture: Image.Image, max_bytes: int) -> bytes:
    """In sixteen colours where that fits, else in eight, which may not.

    At equal bytes, eight colours in a smaller picture came out nearer to the whole one than sixteen
    in a yet smaller or four in a larger: 31.8, 31.5 and 31.0 dB after enlarging.
    """
    few = _in_colours(picture, 8)
    if len(few) > SIXTEEN_FROM * max_bytes:
        return few
    more = _in_colours(picture, 16)
    return more if len(more) <= max_bytes else few


def _in_colours(picture: Image.Image, colours: int) -> bytes:
    drawn = picture.quantize(colours, kmeans=SETTLED_PIXELS, dither=0)
    return _file(drawn, "png", optimize=True, bits=4)


def _file(picture: Image.Image, image_format: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, image_format, **options)
    return stream.getvalue()


def _psnr_db(picture: Image.Image, content: bytes) -> float:
    shown = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(np.float32)
    error = float(np.square(shown - np.asarray(picture)).mean())
    return min(LOSSLESS_DB, 10 * math.log10(255 ** 2 / error)) if error else LOSSLESS_DB
