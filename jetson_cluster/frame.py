"""One file to pixels, or a refusal that says why.

In: a path and the network's input size. Out: a `Frame`: the pixels, and what the catalog keeps
about the file; or that alone, an `Identity`, for far less work. Whatever the file is, this gives
one or raises `Refused`, in bounded memory.
"""

import contextlib
import datetime
import errno
import hashlib
import io
import logging
import os
import re
import stat
import struct
from typing import Any, Callable, Dict, Iterator, Mapping, NamedTuple, Optional, Tuple

import numpy as np
from PIL import Image

from jetson_cluster.eightbit import Unsupported, to_eight_bits

log = logging.getLogger(__name__)

# Why a file is refused.
CODES = {
    "vanished": "it was gone before it could be read",
    "not_a_file": "it is a link, FIFO, socket, device or folder",
    "unreadable": "the system or the disk refuses it",
    "changed": "it was written to since the inbox saw it, or while it was read",
    "empty": "it has no content",
    "too_many_bytes": "it is larger than allowed",
    "too_many_pixels": "it has more pixels than allowed",
    "not_an_image": "it is none of the accepted formats",
    "unsupported": "its pixels cannot be turned into a true picture",
    "damaged": "the decoder gave up",
    "out_of_memory": "there was not enough memory to decode it",
}
# These say nothing about the content: the same file may be accepted later.
PASSING = frozenset(["vanished", "unreadable", "changed", "out_of_memory"])

# These depend on the Limits: with others the same file may be accepted.
DEPENDS_ON_LIMITS = ("too_many_bytes", "too_many_pixels", "unsupported")

# What is accepted, by how it begins. Pillow knows many more formats; some of their decoders start
# other programs (EPS) or are seldom looked at, so nothing else ever reaches it. The file's suffix
# does not matter.
_BEGINNINGS = (
    (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"),
    (b"GIF87a", "GIF"), (b"GIF89a", "GIF"), (b"BM", "BMP"),
    (b"P4", "PPM"), (b"P5", "PPM"), (b"P6", "PPM"),
)
ACCEPTED = "JPEG, PNG, TIFF, WebP, BMP, GIF or PNM"

_EXIF_ORIENTATION, _EXIF_FOLDER = 0x0112, 0x8769
_EXIF_TAKEN, _EXIF_TAKEN_OFFSET, _EXIF_OFFSET = 0x9003, 0x9011, 0x9010
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257

_TURNS: Dict[int, int] = {
    2: Image.FLIP_LEFT_RIGHT, 3: Image.ROTATE_180, 4: Image.FLIP_TOP_BOTTOM, 5: Image.TRANSPOSE,
    6: Image.ROTATE_270, 7: Image.TRANSVERSE, 8: Image.ROTATE_90}

RESAMPLES: Dict[str, int] = {
    "nearest": Image.NEAREST, "box": Image.BOX, "bilinear": Image.BILINEAR,
    "hamming": Image.HAMMING, "bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS}

# JPEGs are decoded at 1/2, 1/4 or 1/8 where that leaves at least this many times the wanted size.
# Measured on drawn and real images, cosine between embeddings: a margin of 2 costs at most 0.0006,
# one of 1 up to 0.009. Pillow's reducing_gap does not pay: 2 costs up to 0.0012, 3 saves nothing.
DRAFT_MARGIN = 2
# Of larger images evenly spread pixels are examined, so that turning one upright first takes little
# memory.
EXAMINED_PIXELS = 4 * 1000 * 1000

Examine = Callable[[Image.Image], Any]


class Limits(NamedTuple):
    """What a file may be. `sixteen_bit_white` is the number that is white in 16-bit images: 4095
    for a camera that writes 12-bit numbers into 16."""

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 25 * 1000 * 1000
    sixteen_bit_white: int = 65535


class Frame(NamedTuple):
    """A file that was read."""

    sha256: str  # of the file's bytes, hex
    bytes: int
    width: int  # of the whole image, turned as its EXIF says
    height: int
    captured_at: str  # ISO 8601, UTC
    pixels: np.ndarray  # uint8 [height, width, 3] as wanted, RGB, C-contiguous
    examined: Any = None  # what `examine` made of the image


class Identity(NamedTuple):
    """A file of which only the header was read."""

    sha256: str  # of the file's bytes, hex
    bytes: int
    width: int  # of the whole image, turned as its EXIF says, if that stands before the pixels
    height: int
    captured_at: str  # ISO 8601, UTC; by EXIF only if that stands before the pixels


class Refused(Exception):
    """The file is no use. `code` is one of CODES, `reason` one sentence for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


def load(path: str, width: int, height: int, limits: Limits = Limits(), resample: str = "bicubic",
         expected=None, examine: Optional[Examine] = None,
         ready: Callable[["Frame"], None] = lambda frame: None) -> Frame:
    """Read, check, decode, turn upright, and squeeze to width × height without keeping the aspect.

    Of several pages or pictures in one file the first counts. What is transparent becomes black.
    `resample` is a key of RESAMPLES. With `expected` (an inbox.Arrival) the file must still be the
    one that was seen. `examine` is shown the image as it was before: upright, 8-bit L, RGB or RGBA,
    of at most EXAMINED_PIXELS pixels, a JPEG perhaps at reduced size; what it gives goes with the
    frame. It cannot spoil one: if it fails, that is logged and it gave None. `ready` gets the frame
    before that. Raises Refused; safe to call from several threads.
    """
    resampling = RESAMPLES[resample]
    content, status = _read(path, limits.max_bytes, expected)
    image_format = _sniff(content)
    with _decoders_errors(image_format):
        image, size, taken, whole, turn = _decode(
            content, image_format, (width, height), limits, resampling)
        pixels = np.array(image)
    held = Frame(hashlib.sha256(content).hexdigest(), len(content), size[0], size[1],
                 taken or _utc(status.st_mtime), pixels)
    ready(held)
    return held._replace(examined=_examined(examine, path, whole, turn))


def identify(path: str, limits: Limits = Limits(), expected=None) -> Identity:
    """Read and hash a file and look at its header, which costs no decoding.

    That the pixels are sound only `load` can tell. Raises Refused; `expected` as there.
    """
    content, status = _read(path, limits.max_bytes, expected)
    image_format = _sniff(content)
    with _decoders_errors(image_format):
        image, exif, _ = _open(content, image_format, limits)
        size = image.size
        if image_format == "TIFF":
            # Whether Pillow has turned these yet depends on its version.
            size = image.tag_v2[_TIFF_WIDTH], image.tag_v2[_TIFF_HEIGHT]
        size = size[::-1] if _turn(exif) > 4 else size
    return Identity(hashlib.sha256(content).hexdigest(), len(content), size[0], size[1],
                    _taken(exif) or _utc(status.st_mtime))


# ---- the file ----------------------------------------------------------------------------------


def _read(path: str, max_bytes: int, expected) -> Tuple[bytes, os.stat_result]:
    try:
        # Not through a link, and not waiting for the writer of a FIFO put in the file's place.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _read_open(descriptor, max_bytes, expected)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise Refused("vanished", "It was gone before it could be read.") from error
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise Refused("not_a_file", "It is not a regular file.") from error
        raise Refused("unreadable", "It cannot be read: {}.".format(error.strerror)) from error
    except MemoryError as error:
        raise Refused("out_of_memory", "There is not enough memory to read it.") from error


def _read_open(descriptor: int, max_bytes: int, expected) -> Tuple[bytes, os.stat_result]:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise Refused("not_a_file", "It is not a regular file.")
    if expected is not None and _signature(status) != (
            expected.bytes, expected.mtime_ns, expected.inode):
        raise Refused("changed", "It was written to after the inbox saw it.")
    if status.st_size == 0:
        raise Refused("empty", "It is empty.")
    if status.st_size > max_bytes:
        raise Refused("too_many_bytes", "It has {} bytes; at most {} are allowed.".format(
            status.st_size, max_bytes))
    content = _read_all(descriptor, status.st_size)
    if _signature(os.fstat(descriptor)) != _signature(status) or len(content) != status.st_size:
        raise Refused("changed", "It was written to while it was read.")
    return content, status


def _read_all(descriptor: int, size: int) -> bytes:
    """Up to one byte more than `size`, which shows that the file has grown."""
    pieces, left = [], size + 1
    while left:
        piece = os.read(descriptor, left)
        if not piece:
            break
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _signature(status: os.stat_result) -> Tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino


# ---- the image ---------------------------------------------------------------------------------


def _sniff(content: bytes) -> str:
    """Pillow's name of the format; raises Refused."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    for beginning, image_format in _BEGINNINGS:
        if content.startswith(beginning):
            return image_format
    raise Refused("not_an_image", "It is not {}: it begins with {}.".format(
        ACCEPTED, content[:8].hex()))


@contextlib.contextmanager
def _decoders_errors(image_format: str) -> Iterator[None]:
    """Decoders fail in every way there is (struct.error, KeyError, RecursionError, ...); the file
    is the cause each time, so all of it is a refusal."""
    try:
        yield
    except Refused:
        raise
    except Unsupported as error:
        raise Refused("unsupported", "Its pixels cannot be used: {}.".format(error)) from error
    except MemoryError as error:
        raise Refused("out_of_memory", "There is not enough memory to decode it.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Refused("too_many_pixels", _one_line(error)) from error
    except Image.UnidentifiedImageError as error:
        raise Refused("damaged", "Its {} header is damaged, or of a kind that is not read.".format(
            image_format)) from error
    except Exception as error:
        raise Refused("damaged", "The {} decoder says: {}.".format(
            image_format, _one_line(error))) from error


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:200].rstrip(".")


def _decode(content: bytes, image_format: str, wanted: Tuple[int, int], limits: Limits,
            resample: int) -> Tuple[Image.Image, Tuple[int, int], Optional[str], Image.Image, int]:
    """(RGB image of the wanted size, (width, height) of the whole, EXIF time, the whole, its turn)."""
    image, exif, reopen = _open(content, image_format, limits)
    size, box = image.size, None
    if image_format == "JPEG":
        box = _draft(image, wanted[::-1] if _turn(exif) > 4 else wanted)
    pixels = to_eight_bits(image, reopen, limits.sixteen_bit_white)
    if image_format == "PNG":
        exif = _exif(image)
    turn = _turn(exif)
    if image_format == "TIFF":
        turn, size = 1, image.size  # these alone Pillow turns itself, while it loads them
    squeezed = pixels.resize(wanted[::-1] if turn > 4 else wanted, resample, box)
    if turn in _TURNS:
        squeezed = squeezed.transpose(_TURNS[turn])
    return on_black(squeezed), size[::-1] if turn > 4 else size, _taken(exif), pixels, turn


def _examined(examine: Optional[Examine], path: str, image: Image.Image, turn: int) -> Any:
    """What `examine` makes of an image still to be turned; None if it fails."""
    if examine is None:
        return None
    try:
        pixels = image.width * image.height
        if pixels > EXAMINED_PIXELS:
            scale = (EXAMINED_PIXELS / pixels) ** 0.5
            image = image.resize([max(1, int(side * scale)) for side in image.size], Image.NEAREST)
        return examine(image.transpose(_TURNS[turn]) if turn in _TURNS else image)
    except Exception as error:  # any: whatever is wrong with it, the image itself is good
        log.warning("ExamineFailed: %s: neither its quality nor a preview: %s: %s", path,
                    type(error).__name__, _one_line(error))
        return None


def _open(content: bytes, image_format: str, limits: Limits
          ) -> Tuple[Image.Image, Mapping, Callable[[], Image.Image]]:
    """(The image, not decoded yet; the EXIF before its pixels; what opens it once more)."""
    if image_format == "WEBP":
        # Pillow makes the whole canvas before it tells the size.
        _check_pixels(_webp_size(content), limits.max_pixels)
    # Pillow's own limit is meant for programs without one; it must not undercut the operator's.
    if Image.MAX_IMAGE_PIXELS is not None and Image.MAX_IMAGE_PIXELS < limits.max_pixels:
        Image.MAX_IMAGE_PIXELS = limits.max_pixels

    def reopen() -> Image.Image:
        return Image.open(io.BytesIO(content), formats=[image_format])

    image = reopen()
    _check_pixels(image.size, limits.max_pixels)
    # A PNG's EXIF may come after the pixels: to ask for it would decode them.
    return image, {} if image_format == "PNG" else _exif(image), reopen


def _check_pixels(size: Tuple[int, int], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise Refused("too_many_pixels", "It has {} x {} pixels; at most {} are allowed.".format(
            size[0], size[1], max_pixels))
    if size[0] <= 0 or size[1] <= 0:
        raise Refused("damaged", "Its header says {} x {} pixels.".format(*size))


def _webp_size(content: bytes) -> Tuple[int, int]:
    """(width, height) from the first chunk of a WebP file (RFC 9649)."""
    chunk, data = content[12:16], content[20:30]
    if chunk == b"VP8X" and len(data) == 10:
        return 1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little")
    if chunk == b"VP8L" and len(data) >= 5:
        bits, = struct.unpack("<I", data[1:5])
        return 1 + (bits & 0x3fff), 1 + (bits >> 14 & 0x3fff)
    if chunk == b"VP8 " and len(data) == 10:
        width, height = struct.unpack("<HH", data[6:10])
        return width & 0x3fff, height & 0x3fff
    raise Refused("damaged", "Its WEBP header is damaged.")


def _draft(image: Image.Image, wanted: Tuple[int, int]):
    """Let the JPEG decoder shrink while it decodes; returns the box of the result that counts."""
    drafted = image.draft(None, (DRAFT_MARGIN * wanted[0], DRAFT_MARGIN * wanted[1]))
    return drafted[1] if drafted else None


def on_black(image: Image.Image) -> Image.Image:
    """RGB, what is transparent black."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    background = Image.new("RGB", image.size)
    background.paste(image, mask=image.getchannel("A"))
    return background


# ---- what the file says about itself -----------------------------------------------------------


def _exif(image: Image.Image) -> Mapping:
    """The EXIF tags. What is broken in them counts as absent."""
    try:
        exif = image.getexif()
        exif.get(_EXIF_ORIENTATION)
        exif.get_ifd(_EXIF_FOLDER)
        return exif
    except Exception:  # any, as in _decoders_errors; but the pixels may well be sound
        log.debug("EXIF is not readable", exc_info=True)
        return {}


def _turn(exif: Mapping) -> int:
    """EXIF's orientation; 1, upright, if it is none of 1..8."""
    turn = exif.get(_EXIF_ORIENTATION)
    return turn if isinstance(turn, int) and turn in _TURNS else 1


def _taken(exif: Mapping) -> Optional[str]:
    """EXIF's "2026:11:22 06:40:00" and "+02:00" as ISO 8601 UTC; without an offset it is UTC."""
    details = exif.get_ifd(_EXIF_FOLDER) if exif else {}
    text = details.get(_EXIF_TAKEN)
    offset = details.get(_EXIF_TAKEN_OFFSET) or details.get(_EXIF_OFFSET)
    try:
        moment = datetime.datetime.strptime(str(text).strip(" \0"), "%Y:%m:%d %H:%M:%S")
        match = re.match(r"([+-])(\d\d):(\d\d)$", str(offset).strip(" \0"))
        if match:
            ahead = datetime.timedelta(hours=int(match.group(2)), minutes=int(match.group(3)))
            moment += ahead if match.group(1) == "-" else -ahead
    except (ValueError, OverflowError):
        return None
    return moment.isoformat() + "Z"


def _utc(seconds: float) -> str:
    """A file time as ISO 8601 UTC, to the second; times no calendar has become its ends."""
    earliest, latest = datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59)
    epoch = datetime.datetime(1970, 1, 1)
    whole = int(seconds // 1)
    within = (earliest - epoch).total_seconds() <= whole <= (latest - epoch).total_seconds()
    moment = epoch + datetime.timedelta(seconds=whole) if within else (
        earliest if whole < 0 else latest)
    return moment.isoformat() + "Z"
