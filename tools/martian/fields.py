"""Seamless square fields that terrain is made of: fractal noise, cells, stones, shading, shadow.

In: a `numpy.random.RandomState` and sizes in texels. Out: float32 arrays [n, n] (row, column) that
join at their edges, so a ground made of them has no end.
"""

import math
from typing import NamedTuple, Tuple

import numpy as np
from PIL import Image

Rng = np.random.RandomState


def enlarge(field: np.ndarray, n: int) -> np.ndarray:
    """A seamless field resampled smoothly to [n, n]."""
    small, pad = len(field), 4
    wide = Image.fromarray(np.pad(field, pad, mode="wrap"))
    box = (pad, pad, pad + small, pad + small)
    return np.array(wide.resize((n, n), Image.BICUBIC, box))


def fractal(rng: Rng, n: int, slope: float, lowest: float = 1.0) -> np.ndarray:
    """Noise with power falling as frequency ** -slope, zero mean and unit deviation.

    Spectral synthesis (Saupe, in "The Science of Fractal Images", 1988): white noise shaped in
    the frequency domain. Nothing below `lowest` cycles per side. Slope 2 is rough, 4 is rolling.
    """
    # A steep slope leaves little to see in the upper frequencies.
    side = n // 4 if slope >= 3.0 and lowest < n / 32 else n // 2 if slope >= 1.7 else n
    rows = np.fft.fftfreq(side, 1.0 / side).astype(np.float32)[:, None]
    columns = np.arange(side // 2 + 1, dtype=np.float32)[None, :]
    power = rows * rows + columns * columns
    power[0, 0] = np.inf
    gain = power ** np.float32(-0.25 * slope)
    gain[power < lowest * lowest] = 0.0
    white = rng.random_sample((2,) + gain.shape) - 0.5
    field = np.fft.irfft2((white[0] + 1j * white[1]) * gain, (side, side)).astype(np.float32)
    field = (field - field.mean()) / field.std()
    return field if side == n else enlarge(field, n)


def grid(n: int) -> Tuple[np.ndarray, np.ndarray]:
    """Column and row position of every texel, 0 <= x < 1."""
    ramp = (np.arange(n, dtype=np.float32) + 0.5) / n
    return np.broadcast_to(ramp[None, :], (n, n)), np.broadcast_to(ramp[:, None], (n, n))


class Cells(NamedTuple):
    """Worley's cells; distances in cell widths."""

    nearest: np.ndarray
    second: np.ndarray
    index: np.ndarray  # int32, which cell a texel belongs to, 0 <= index < across ** 2
    towards: Tuple[np.ndarray, np.ndarray]  # x and y from the nearest cell's centre


def cells(rng: Rng, n: int, across: int, warp=None, jitter: float = 0.9) -> Cells:
    """Cellular texture (Worley 1996) of `across` x `across` cells; `warp` bends their borders."""
    x, y = grid(n)
    x, y = x * across, y * across
    if warp is not None:
        x, y = x + warp[0], y + warp[1]
    column, row = np.floor(x), np.floor(y)
    fx, fy = x - column, y - row
    # A border of repeated cells saves wrapping the index nine times.
    wide = across + 2
    home = (row % across + 1).astype(np.int32) * wide + (column % across + 1).astype(np.int32)
    centre = (0.5 + jitter * (rng.random_sample((2, across, across)) - 0.5)).astype(np.float32)
    centre_x, centre_y = (np.pad(c, 1, mode="wrap").ravel() for c in centre)
    names = np.pad(np.arange(across * across, dtype=np.int32).reshape(across, across), 1, "wrap")
    nearest = np.full((n, n), np.inf, np.float32)
    second = nearest.copy()
    index = np.zeros((n, n), np.int32)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            which = home + (down * wide + right)
            dx = fx - centre_x.take(which)
            dy = fy - centre_y.take(which)
            dx -= right
            dy -= down
            distance = dx * dx + dy * dy
            np.minimum(second, np.maximum(distance, nearest), out=second)
            np.copyto(index, which, where=distance < nearest)
            np.minimum(nearest, distance, out=nearest)
    towards = (_wrapped(fx + column - centre_x.take(index) - (index % wide - 1), across),
               _wrapped(fy + row - centre_y.take(index) - (index // wide - 1), across))
    return Cells(np.sqrt(nearest), np.sqrt(second), names.ravel().take(index), towards)


def borders(rng: Rng, n: int, across: int, warp=None) -> np.ndarray:
    """How far each texel is from the border of its cell, in texels, 0 on the border."""
    half = n // 2  # distances vary slowly: half the resolution is enough
    if warp is not None:
        warp = [part[::2, ::2] for part in warp]
    found = cells(rng, half, across, warp, 1.0)
    return enlarge((found.second - found.nearest) * np.float32(0.5 * n / across), n)


def _wrapped(distance: np.ndarray, period: int) -> np.ndarray:
    return distance - period * np.round(distance / period)


def pebbles(rng: Rng, n: int, across: int, cover: float, warp=None) -> Tuple[np.ndarray, Cells]:
    """Rounded stones, one a cell with chance `cover`: height in cell widths, and the cells."""
    found = cells(rng, n, across, warp)
    count = across * across
    radius = rng.uniform(0.18, 0.52, count) * (rng.random_sample(count) < cover)
    radius = radius.astype(np.float32).take(found.index)
    inside = np.minimum(radius, 0.5 * (found.nearest + found.second) - 0.02)
    height = np.sqrt(np.maximum(inside * inside - found.nearest * found.nearest, 0.0))
    return height.astype(np.float32) * 0.65, found


def grit(rng: Rng, n: int, across: int, cover: float) -> np.ndarray:
    """Small stones everywhere, height in texels; the pattern comes twice a side."""
    height, _ = pebbles(rng, n // 2, across // 2, cover)
    return np.tile(height * np.float32(n / across), (2, 2))


def stone(rng: Rng, radius: float, flat: float = 1.0, facets: int = 11) -> np.ndarray:
    """One broken rock: height in texels over a square patch, 0 outside.

    A convex body cut by planes, taller for `flat` near 1, a slab for `flat` near 0.3.
    """
    side = int(radius * 2.6) + 3
    axis = np.arange(side, dtype=np.float32) - side / 2.0 + 0.5
    sides = facets * 2 // 3
    turn = np.arange(facets) * (2 * np.pi / sides) + rng.uniform(0, 1.1, facets)
    turn[sides:] *= rng.uniform(1, 7)
    lean = rng.uniform(0.85, 1.3, facets)
    lean[sides:] = rng.uniform(0.05, 0.6, facets - sides)
    reach = radius * rng.uniform(0.6, 0.95, facets)
    reach[sides:] *= 0.75
    across, up = np.sin(lean), np.cos(lean) + 0.02
    body = (
        reach[:, None, None]
        - (across * np.cos(turn))[:, None, None] * axis[None, None, :]
        - (across * np.sin(turn))[:, None, None] * axis[None, :, None]
    ) / up[:, None, None]
    return (np.maximum(body.min(axis=0), 0.0) * flat).astype(np.float32)


def place(height: np.ndarray, label: np.ndarray, patch: np.ndarray, at, mark: float) -> None:
    """Set a stone into the ground at (x, y) texels; `label` gets `mark` where it shows."""
    n = len(height)
    rows = (np.arange(patch.shape[0]) + int(at[1])) % n
    columns = (np.arange(patch.shape[1]) + int(at[0])) % n
    window = np.ix_(rows, columns)
    ground = height[window]
    base = float(np.median(ground))
    raised = np.where(patch > 0, base + patch, -np.inf)
    shows = raised > ground
    height[window] = np.where(shows, raised, ground)
    label[window] = np.where(shows, mark, label[window])


def soften(field: np.ndarray, texels: int) -> np.ndarray:
    """A cheap blur: mean over blocks (`texels` divides the side), smoothly enlarged again."""
    n = len(field)
    blocks = field.reshape(n // texels, texels, n // texels, texels).mean(axis=(1, 3))
    return enlarge(blocks, n)


def slopes(height: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Rise per texel to the right and downwards, edges joined."""
    across = 0.5 * (np.roll(height, -1, 1) - np.roll(height, 1, 1))
    down = 0.5 * (np.roll(height, -1, 0) - np.roll(height, 1, 0))
    return across, down


def shadow(height: np.ndarray, sun, reach: int) -> np.ndarray:
    """How much of the sun each texel sees, 0 to 1, stepping at most `reach` texels towards it."""
    azimuth, elevation = sun
    dx, dy, rise = math.cos(azimuth), math.sin(azimuth), math.tan(elevation)
    highest = np.full_like(height, -np.inf)
    step = 1.0
    while step <= reach:
        moved = np.roll(height, (-int(round(dy * step)), -int(round(dx * step))), (0, 1))
        np.maximum(highest, moved - np.float32(step * rise), out=highest)
        step = max(step + 1.0, step * 1.12)
    return np.clip(1.0 - (highest - height) * 0.8, 0.0, 1.0)


def lit(height: np.ndarray, sun, ambient: float, reach: int = 48) -> np.ndarray:
    """Lambert's shading with cast shadow and sky light, about 1 on level ground.

    `height` in texels; `sun` is (azimuth, elevation) in radians, azimuth 0 towards +x.
    """
    azimuth, elevation = sun
    across, down = slopes(height)
    level = math.sin(elevation)
    east, south = math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth)
    facing = level - east * across - south * down
    facing /= np.sqrt(1.0 + across * across + down * down)
    direct = np.maximum(facing, 0.0) * shadow(height, sun, reach) / level
    hollow = height - soften(height, 8)
    open_sky = np.clip(1.0 + 0.12 * hollow, 0.45, 1.25)
    return ((1.0 - ambient) * np.minimum(direct, 2.6) + ambient * open_sky).astype(np.float32)
