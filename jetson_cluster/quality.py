"""How well a frame was taken: exposed, in focus, of something, its pixels and lines all there.

In: a decoded image. Out: `Measures`, seven numbers that know nothing of policy and are kept with the
image. With the policy's `Thresholds` they become a `Verdict`: the factor by which its score is
multiplied, and why. Hot and dead pixels and dead lines are found first and taken out, so that they
count neither as sharpness nor as exposure.
"""

from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np
from PIL import Image

# Larger pictures are judged by evenly spread pixels of theirs, so many along the longer side.
# Taking single pixels, where averaging would hide them, keeps hot pixels hot.
SHEET = 640
# Focus and contrast are judged on averages, so many along the longer side: about what a network
# sees, and the same for a JPEG decoded at reduced size as for the whole picture.
REDUCED = 160
# A hot pixel is white or nearly, a dead one black. Measured: of real tiles, also brightened or with
# their contrast stretched to both ends, at most 0.9 % of the pixels pass for such; of 5 % planted
# ones 4.4 % are found, after JPEG at quality 75 4.0 %.
NEAR_END = 20  # levels from black or white
STANDS_OUT = 40  # levels beyond all neighbours but one, which may be hot too
LINE_NEAR_END = 40  # the same for dead lines, which JPEG smears more
LINE_SHARE = 0.95  # of a line's pixels so near one end make it a dead line
LINE_JUMP = 40  # levels, on average, between a dead line and the lines beside it
EMPTY, EMPTY_REST = 8, 0.25  # see _filled
DARK, WHITE = 32, 250  # at or below is nearly black, at or above is white
TAIL = 0.01  # of the pixels at either end do not count for contrast
FAR = 4  # pixels: focus compares steps over one pixel with steps over so many
ROUNDING = 0.25  # squared levels that rounding to whole levels adds to a squared step
PLAIN = 1.5  # squared levels over FAR up to which there is nothing to be in focus
AREAS = 12  # along the shorter side: static has no area that is brighter than another


class Measures(NamedTuple):
    """What a frame is like, each 0..1. What is transparent does not count."""

    dark: float  # share of its pixels that are nearly black: below 1/8 of white
    bright: float  # share that is white
    contrast: float  # from darkest to lightest, without 1 % at either end; 1: all levels
    sharpness: float  # steps over one pixel / steps over four; 0.25: a smooth ramp, 1: grains
    noise: float  # share of its pixels that are hot or dead
    dead_lines: float  # share of its lines, or columns if more, that are black or white throughout
    static: float = 0.0  # from pixel to pixel, of white, as far as areas differ by chance alone


LESS_IS_WORSE = ("contrast", "sharpness")


class Thresholds(NamedTuple):
    """The policy's `quality` section, in the units of Measures.

    Each pair: a frame is fine up to the one, useless from the other; between them the factor falls
    in proportion. A pair of equal numbers is a step; at the end of its range it is never reached.
    """

    dark_fine: float = 0.97  # share that is nearly black: a night sky leaves more than 3 % lit
    dark_useless: float = 0.99
    bright_fine: float = 0.5  # share that is white: a sky may be
    bright_useless: float = 0.9
    contrast_fine: float = 0.06  # share of all levels
    contrast_useless: float = 0.01
    sharpness_fine: float = 0.37  # ratio of steps; real tiles have 0.64 and more, blurred ones less
    sharpness_useless: float = 0.28
    noise_fine: float = 0.01  # share of the pixels
    noise_useless: float = 0.08
    dead_lines_fine: float = 0.02  # share of the lines
    dead_lines_useless: float = 0.3
    static_fine: float = 0.18  # of white; grit in the sun, contrast stretched, has 0.15 at most
    static_useless: float = 0.22  # pixels drawn by lot have 0.23 and more
    least: float = 0.1  # the factor of a useless frame; 1: quality does not matter


# What each number may be, for whoever reads a policy.
LIMITS: Dict[str, Tuple[float, float]] = {name: (0.0, 1.0) for name in Thresholds._fields}
LIMITS["least"] = (0.001, 1.0)  # scores are compared by their logarithms: never 0


class Verdict(NamedTuple):
    """What a score is multiplied by, and why that is less than 1."""

    factor: float  # least..1
    reason: str  # "" if it is 1


def disorder(thresholds: Thresholds) -> List[str]:
    """What is wrong with the order of the pairs, in words; empty if nothing is."""
    wrong = []
    for name in Measures._fields:
        fine, useless = _pair(name, thresholds)
        if fine != useless and (fine < useless) == (name in LESS_IS_WORSE):
            wrong.append("{0}_fine is {1:g}: it must not be {3} than {0}_useless, {2:g}".format(
                name, fine, useless, "less" if name in LESS_IS_WORSE else "greater"))
    return wrong


# ---- measuring ---------------------------------------------------------------------------------


def measure(image: Image.Image) -> Measures:
    """Judge an 8-bit L, RGB or RGBA image of any size, whichever way up it is.

    Whole black lines at the edges are left out, as nothing was taken there. The black corners of a
    mosaic that lies askew are not: they count as dark, and their edge as sharp. Needs memory for a
    few times 640 x 640 pixels.
    """
    pixels, opaque = _sheet(image)
    noise = _mend(pixels)
    filled = _filled(pixels)
    pixels, opaque = pixels[filled], None if opaque is None else opaque[filled]
    rows, columns = _dead_lines(pixels), _dead_lines(pixels.T)
    dead_lines = max(rows.mean(), columns.mean())
    if dead_lines:
        kept = np.ix_(~rows, ~columns)
        pixels, opaque = pixels[kept], None if opaque is None else opaque[kept]
    sheet, known = _image(pixels), None if opaque is None else _image(opaque)
    levels = np.cumsum(sheet.histogram(known))
    if not levels[-1]:  # transparent throughout: blank, and nothing else
        return Measures(0.0, 0.0, 0.0, 1.0, 0.0, 0.0)
    reduced, known = _reduced(sheet), None if known is None else _reduced(known)
    return Measures(dark=float(levels[DARK] / levels[-1]),
                    bright=float(1 - levels[WHITE - 1] / levels[-1]),
                    contrast=_contrast(reduced, known),
                    sharpness=_sharpness(reduced, known),
                    noise=noise,
                    dead_lines=float(dead_lines),
                    static=_static(sheet))


def _sheet(image: Image.Image) -> Tuple[np.ndarray, Optional[np.ndarray]]:
    """Greys of bounded size, uint8, and 255 where they are opaque; None without transparency."""
    if max(image.size) > SHEET:
        image = image.resize(_fitting(image.size, SHEET), Image.NEAREST)
    if image.mode != "RGBA":
        return np.array(image.convert("L")), None
    opaque = image.getchannel("A").point([0] * 128 + [255] * 128)
    grey = Image.new("L", image.size, 128)  # no end of the range: never noise, never a dead line
    grey.paste(image.convert("RGB").convert("L"), mask=opaque)
    return np.array(grey), np.array(opaque)


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels))


def _fitting(size: Tuple[int, int], longest: int) -> Tuple[int, int]:
    return tuple(max(1, int(round(side * longest / max(size)))) for side in size)


def _reduced(image: Image.Image) -> Image.Image:
    if max(image.size) <= REDUCED:
        return image
    return image.resize(_fitting(image.size, REDUCED), Image.BOX)


def _mend(pixels: np.ndarray) -> float:
    """Replace hot and dead pixels by what is around them, in place; their share.

    One is near an end of the range and stands out from all its four neighbours but at most one, by
    more than those three differ among themselves: grit in the sun does not.
    """
    height, width = pixels.shape
    # One long row, on which numpy is several times faster than on many short ones; at the picture's
    # edge a pixel stands for the neighbour it lacks.
    framed = np.pad(pixels, 1, "edge").ravel()
    step = width + 2
    inner = framed[step:-step]
    around = (framed[step - 1:-step - 1], framed[step + 1:1 - step], framed[:-2 * step],
              framed[2 * step:])
    lower, higher = inner - STANDS_OUT, inner + STANDS_OUT  # wrapped where the other test fails
    suspect = (inner >= 255 - NEAR_END) & _three_of_four([beside < lower for beside in around])
    suspect |= (inner <= NEAR_END) & _three_of_four([beside > higher for beside in around])
    suspect.reshape(height, step)[:, ::width + 1] = False  # the frame itself
    places = np.flatnonzero(suspect)
    if not len(places):
        return 0.0
    four = np.sort([beside[places] for beside in around], axis=0).astype(np.int16)
    value, hot = inner[places], inner[places] > 127
    beyond = np.where(hot, value - four[2], four[1] - value)
    noisy = beyond > STANDS_OUT + np.where(hot, four[2] - four[0], four[3] - four[1])
    inner[places[noisy]] = (four[1] + four[2])[noisy] // 2
    pixels[:] = inner.reshape(height, step)[:, 1:-1]
    return float(np.count_nonzero(noisy) / pixels.size)


def _three_of_four(true: List[np.ndarray]) -> np.ndarray:
    one, two, three, four = true
    return one & two & (three | four) | three & four & (one | two)


def _filled(pixels: np.ndarray) -> Tuple[slice, slice]:
    """The rows and columns between black edges; all, if a quarter of the picture would not remain.

    What remains of a black frame would be a speck of noise.
    """
    lit = pixels > EMPTY
    rows, columns = _between_edges(lit), _between_edges(lit.T)
    rest = (rows.stop - rows.start) * (columns.stop - columns.start)
    if rest < EMPTY_REST * pixels.size:
        return slice(0, pixels.shape[0]), slice(0, pixels.shape[1])
    return rows, columns


def _between_edges(lit: np.ndarray) -> slice:
    found = np.flatnonzero(np.count_nonzero(lit, axis=1) > (1 - LINE_SHARE) * lit.shape[1])
    return slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, 0)


def _dead_lines(pixels: np.ndarray) -> np.ndarray:
    """Which rows are black or white throughout, in bands that begin and end abruptly: bool [rows].

    A band at an edge may be sky or night, and is none; nor is what fills most of the picture.
    """
    dead = np.zeros(len(pixels), bool)
    for at_end in (pixels <= LINE_NEAR_END, pixels >= 255 - LINE_NEAR_END):
        rows = np.count_nonzero(at_end, axis=1) >= LINE_SHARE * pixels.shape[1]
        if np.count_nonzero(rows) > len(rows) / 2:
            continue
        ends = np.flatnonzero(rows[1:] != rows[:-1]) + 1  # where a band begins or ends
        for start, stop in zip(ends[:-1], ends[1:]):
            if rows[start] and min(_jump(pixels, start), _jump(pixels, stop)) >= LINE_JUMP:
                dead[start:stop] = True
    return dead


def _jump(pixels: np.ndarray, row: int) -> float:
    """How much this row differs from the one before, in levels, on average."""
    return float(np.abs(pixels[row].astype(np.int16) - pixels[row - 1]).mean())


def _contrast(image: Image.Image, known: Optional[Image.Image]) -> float:
    levels = np.cumsum(image.histogram(known))
    low, high = np.searchsorted(levels, [TAIL * levels[-1], (1 - TAIL) * levels[-1]], "right")
    return float(min(high, 255) - min(low, 255)) / 255


def _sharpness(image: Image.Image, known: Optional[Image.Image]) -> float:
    """A structure function's ratio at two lags, so that exposure and contrast do not matter.

    Squares, for with them a clean edge between two plain areas (0.5) differs from a ramp (0.25).
    """
    pixels = np.asarray(image).astype(np.float32)
    opaque = None if known is None else np.asarray(known) == 255
    near, far = _squared_step(pixels, opaque, 1), _squared_step(pixels, opaque, FAR)
    return min(1.0, (near / far) ** 0.5) if far > PLAIN else 1.0


def _static(sheet: Image.Image) -> float:
    """The root mean square step from pixel to pixel, of white, times how little areas differ.

    The averages of areas of n x n pixels that have nothing to do with each other spread by 1/n of
    what the pixels do; those of sand nearly so as well, but its steps are smaller than those of
    random bytes. What is transparent was made an area of its own.
    """
    side = min(sheet.size) // AREAS
    if side < 2:
        return 0.0
    step = _squared_step(np.asarray(sheet).astype(np.float32), None, 1) ** 0.5
    areas = sheet.convert("F").resize(tuple(length // side for length in sheet.size), Image.BOX)
    expected = step * (areas.width * areas.height / (2 * sheet.width * sheet.height)) ** 0.5
    spread = float(np.asarray(areas).std())
    return min(1.0, step / 255 * (min(1.0, expected / spread) if spread else 1.0))


def _squared_step(pixels: np.ndarray, opaque: Optional[np.ndarray], lag: int) -> float:
    """The mean squared difference of pixels so far apart."""
    total, count = 0.0, 0
    for before, after in ((np.s_[:, :-lag], np.s_[:, lag:]), (np.s_[:-lag], np.s_[lag:])):
        steps = pixels[after] - pixels[before]
        if opaque is not None:
            steps = steps[opaque[after] & opaque[before]]
        total, count = total + float(np.square(steps).sum()), count + steps.size
    return max(0.0, total / count - ROUNDING) if count else 0.0


# ---- judging -----------------------------------------------------------------------------------


def judge(measures: Measures, thresholds: Thresholds) -> Verdict:
    """The worst fault of a frame decides alone.

    One mishap shows as several faults (a black frame is dark and blank): a product would count it
    more than once, and no reason could name it.
    """
    worst, place = max((min(1.0, max(0.0, float(_badness(value, name, thresholds)))), -place)
                       for place, (name, value) in enumerate(zip(Measures._fields, measures)))
    factor = float(np.float32(1 - (1 - thresholds.least) * worst))
    return Verdict(factor, _reason(Measures._fields[-place], measures, worst) if factor < 1 else "")


def factors(measures: np.ndarray, thresholds: Thresholds) -> np.ndarray:
    """`judge`'s factors of N frames: float32 [N, 7] in, the columns as in Measures; float32 [N]."""
    worst = np.zeros(len(measures))
    for values, name in zip(measures.T.astype(np.float64), Measures._fields):
        worst = np.fmax(worst, np.fmin(1.0, _badness(values, name, thresholds)))
    return (1 - (1 - thresholds.least) * worst).astype(np.float32)


def _pair(name: str, thresholds: Thresholds) -> Tuple[float, float]:
    """(fine, useless) of a measure."""
    return getattr(thresholds, name + "_fine"), getattr(thresholds, name + "_useless")


def _badness(value, name: str, thresholds: Thresholds):
    """0 or less: fine; 1 or more: useless. Of a number, or of each of an array."""
    fine, useless = _pair(name, thresholds)
    if fine == useless:
        return value < fine if name in LESS_IS_WORSE else value > fine
    return (value - fine) / (useless - fine)


def _reason(name: str, measures: Measures, badness: float) -> str:
    value = getattr(measures, name)
    if name == "contrast":
        return "{}: its greys span {:.0f} of 255 levels".format(
            "blank" if badness == 1 else "little contrast", 255 * value)
    return {"dark": "under-exposed: {1} of it is black",
            "bright": "over-exposed: {1} of it is white",
            "sharpness": "blurred: its sharpness is {0:.2f}",
            "noise": "hot pixels: {1} of it",
            "static": "static: its pixels differ as if drawn by lot",
            "dead_lines": "{1} of its lines are missing"}[name].format(value, _percent(value))


def _percent(share: float) -> str:
    return "{:.{}f} %".format(100 * share, 0 if share >= 0.0995 else 1)


# ---- in the catalog ----------------------------------------------------------------------------


def pack(measures: Measures) -> bytes:
    """Fourteen bytes: seven float16, to 0.0005 at worst."""
    return np.array(measures, "<f2").tobytes()


def unpack(packed: bytes) -> Measures:
    """The inverse of pack; what earlier versions did not measure is as if sound."""
    return Measures(*np.frombuffer(packed, "<f2").astype(float).tolist())
