"""A camera over a height field: perspective, haze, sky, and what a sensor adds.

In: a `World` (made once per scene) and a `Camera` (one per picture). Out: linear light
float32 [height, width, 3], then uint8 pixels by `develop`.
"""

import math
from typing import List, NamedTuple, Tuple

import numpy as np

STEPS_PER_ROW = 1.25  # depth samples per picture row; fewer tears steep faces
NEAR_STEPS = 50  # nearer than level ground, for what stands up there
FAR_STEPS = 90  # beyond the last row of level ground, for what stands up from it


class World(NamedTuple):
    """Ground that repeats every n texels, already lit, and the sky over it."""

    height: np.ndarray  # float32 [n, n], metres
    colour: np.ndarray  # float32 [n, n, 3], linear light
    texel_m: float
    grain: np.ndarray  # float32 [m, m], about 1: small texture repeated over near ground
    haze_m: float  # distance at which air hides 63 % of the ground
    sky: Tuple[np.ndarray, np.ndarray]  # colour at the horizon and overhead
    hills: List[Tuple[np.ndarray, np.ndarray]]  # far to near: (angle above horizon, colour)


class Camera(NamedTuple):
    """Where a picture is taken from. Pitch shifts the lens, so verticals stay vertical."""

    x_m: float
    y_m: float
    height_m: float  # above the ground there
    heading: float  # radians
    field: float  # picture width / focal length
    horizon: float  # row of the horizon / picture height; negative lies above the picture
    roll: float  # slope of the horizon


class Mip(NamedTuple):
    """Halved copies of a field end to end, each half the side of the one before."""

    texels: np.ndarray  # float32 [c, all of them]; whole planes keep numpy's inner loops long
    offset: np.ndarray  # int32, where each level starts
    side: np.ndarray  # int32, a power of two


def pyramid(planes: np.ndarray, levels: int = 6) -> Mip:
    """Halve [c, n, n] again and again."""
    flat, offset, side, start = [], [], [], 0
    for _ in range(levels):
        n = planes.shape[1]
        flat.append(planes.reshape(len(planes), n * n))
        offset.append(start)
        side.append(n)
        start += n * n
        rows = planes[:, ::2] + planes[:, 1::2]
        planes = 0.25 * (rows[:, :, ::2] + rows[:, :, 1::2])
    return Mip(np.concatenate(flat, axis=1), np.array(offset, np.int32), np.array(side, np.int32))


def nearest(mip: Mip, x: np.ndarray, y: np.ndarray, level: np.ndarray) -> np.ndarray:
    """The texel at x, y (1 = one repeat) of the given level: [c, ...]."""
    n = mip.side.take(level)
    scale = n.astype(np.float32)
    column = ((x - np.floor(x)) * scale).astype(np.int32) & (n - 1)
    row = ((y - np.floor(y)) * scale).astype(np.int32) & (n - 1)
    return mip.texels.take(row * n + column + mip.offset.take(level), 1)


def sample(mip: Mip, x: np.ndarray, y: np.ndarray, level: np.ndarray) -> np.ndarray:
    """As `nearest`, blended between the four texels around."""
    n = mip.side.take(level)
    start = mip.offset.take(level)
    scale = n.astype(np.float32)
    u = (x - np.floor(x)) * scale - np.float32(0.5)
    v = (y - np.floor(y)) * scale - np.float32(0.5)
    left, top = np.floor(u), np.floor(v)
    a, b = u - left, v - top
    left, top = left.astype(np.int32), top.astype(np.int32)
    mask = n - 1
    right, bottom = (left + 1) & mask, ((top + 1) & mask) * n + start
    left, top = left & mask, (top & mask) * n + start
    upper = mip.texels.take(top + left, 1)
    upper += (mip.texels.take(top + right, 1) - upper) * a
    lower = mip.texels.take(bottom + left, 1)
    lower += (mip.texels.take(bottom + right, 1) - lower) * a
    lower -= upper
    lower *= b
    lower += upper
    return lower


class Eye:
    """Looks at one world; keeps its halved copies between pictures.

    Pictures come as [height, width, 3] views of three whole planes.
    """

    def __init__(self, world: World):
        self.world = world
        self._relief = pyramid(world.height[None])
        self._paint = pyramid(np.ascontiguousarray(np.moveaxis(world.colour, 2, 0)))
        self._grain = pyramid(world.grain[None], 4)

    def look(self, camera: Camera, size: Tuple[int, int]) -> np.ndarray:
        """One picture, linear light float32 [height, width, 3]."""
        world = self.world
        width, rows = size
        focal = width / camera.field
        across = ((np.arange(width) + 0.5 - width / 2.0) / focal).astype(np.float32)
        horizon = rows * (1.0 - camera.horizon) + camera.roll * across * focal  # counted upwards
        extent = world.texel_m * len(world.height)
        ground = self._stands(camera.x_m, camera.y_m)
        eye_m = ground + camera.height_m

        depth = self._depths(camera, rows, focal, float(horizon.min()), float(horizon.max()))
        ahead = np.array([np.cos(camera.heading), np.sin(camera.heading)], np.float32)
        aside = np.array([-ahead[1], ahead[0]], np.float32)
        x = (camera.x_m + depth[:, None] * (ahead[0] + aside[0] * across[None, :])) / extent
        y = (camera.y_m + depth[:, None] * (ahead[1] + aside[1] * across[None, :])) / extent
        step = np.maximum(np.gradient(depth), depth / focal)
        level = np.clip(np.log2(step / world.texel_m), 0, 5).astype(np.int32)
        relief = sample(self._relief, x, y, level[:, None])[0]
        raised = horizon[None, :] + focal * (relief - eye_m) / depth[:, None]
        return self._paint_rows(camera, size, focal, across, horizon, depth, raised, extent)

    def _stands(self, x_m, y_m):
        """Height of the ground there, metres, with small stones ironed out."""
        extent = self.world.texel_m * len(self.world.height)
        x, y = np.atleast_1d(x_m) / extent, np.atleast_1d(y_m) / extent
        return sample(self._relief, x, y, np.full(x.shape, 3))[0]

    def blocked(self, camera: Camera) -> float:
        """Steepest sight line from the camera to the ground just ahead: high when walled in."""
        turn, away = np.meshgrid([-0.6, -0.3, 0.0, 0.3, 0.6], np.linspace(0.3, 2.5, 12))
        away_m = away.ravel() * camera.height_m
        bearing = camera.heading + turn.ravel() * camera.field
        there = self._stands(camera.x_m + away_m * np.cos(bearing),
                             camera.y_m + away_m * np.sin(bearing))
        eye_m = self._stands(camera.x_m, camera.y_m) + camera.height_m
        return float(((there - eye_m) / away_m).max())

    def _depths(self, camera, rows, focal, lowest, highest) -> np.ndarray:
        """Distances to sample, metres: even in picture rows of level ground, then geometric."""
        reach = focal * camera.height_m
        first = highest + 0.12 * rows
        last = max(lowest - rows, 1.5)
        count = int((first - last) * STEPS_PER_ROW) + 2
        near = reach / np.linspace(first, last, count)
        before = near[0] * np.geomspace(0.15, 1.0, NEAR_STEPS)[:-1]
        far = near[-1] * np.geomspace(1.0, 30.0, FAR_STEPS)[1:]
        return np.concatenate([before, near, far]).astype(np.float32)

    def _paint_rows(self, camera, size, focal, across, horizon, depth, raised, extent):
        width, rows = size
        steps = len(depth)
        seen = np.maximum.accumulate(raised, axis=0)
        # The first sample at or above a row is the number of samples whose running top is below.
        row_of = np.clip(np.floor(seen + 0.5), 0, rows).astype(np.int32)
        tally = np.bincount(
            (row_of * width + np.arange(width)).ravel(), minlength=(rows + 1) * width
        ).reshape(rows + 1, width)
        index = np.cumsum(tally, axis=0)[:rows]
        sky = index >= steps
        index = np.clip(index, 1, steps - 1)
        columns = np.broadcast_to(np.arange(width), index.shape)
        before, after = raised[index - 1, columns], raised[index, columns]
        middle = np.arange(rows, dtype=np.float32)[:, None] + 0.5
        part = np.clip((middle - before) / np.maximum(after - before, 1e-6), 0.0, 1.0)
        distance = depth[index - 1] + part * (depth[index] - depth[index - 1])

        cosine, sine = math.cos(camera.heading), math.sin(camera.heading)
        x = (camera.x_m + distance * (cosine - sine * across)) / extent
        y = (camera.y_m + distance * (sine + cosine * across)) / extent
        # Ground seen at a slant covers more texels in depth than across: take the mean of both.
        footprint = distance / focal * np.sqrt(np.maximum(distance / camera.height_m, 1.0))
        level = np.log2(np.maximum(footprint / self.world.texel_m, 1e-3))
        colour = sample(self._paint, x, y, np.clip(level + 0.4, 0, 5).astype(np.int32))
        repeats = 7.0
        fine = np.clip(level + 3.2, 0, 3).astype(np.int32)
        grain = nearest(self._grain, x * repeats, y * repeats, fine)[0]
        strength = np.clip(1.3 - 0.35 * (level + 2.0), 0.0, 1.0)
        colour *= 1.0 + strength * (grain - 1.0)
        clear = np.exp(distance * (-1.0 / self.world.haze_m))
        colour *= clear
        colour += (0.93 * self.world.sky[0])[:, None, None] * (1.0 - clear)
        picture = np.moveaxis(colour, 0, 2)
        above = sky.any(axis=1)
        if above.any():
            first = int(np.argmax(above))
            part = sky[first:]
            picture[first:][part] = self._sky(camera, first, rows, focal, across, horizon)[part]
        return picture[::-1]

    def _sky(self, camera, first, rows, focal, across, horizon) -> np.ndarray:
        angle = (np.arange(first, rows, dtype=np.float32)[:, None] + 0.5 - horizon[None, :]) / focal
        blend = np.clip(angle / 0.6, 0.0, 1.0)
        low, high = (colour[:, None, None] for colour in self.world.sky)
        picture = low + (high - low) * blend
        bearing = (camera.heading + np.arctan(across)) / (2 * np.pi)
        for profile, colour in self.world.hills:
            place = (bearing - np.floor(bearing)) * len(profile)
            around = np.append(profile, profile[0])
            crest = np.interp(place, np.arange(len(around)), around).astype(np.float32)
            streak = np.interp(place * 3 % len(profile), np.arange(len(around)), around)
            shade = (1.0 + 2.2 * (streak - profile.mean())).astype(np.float32)
            # A hill's foot stands in thicker air than its crest.
            foot = np.clip(1.0 - angle / np.maximum(crest, 1e-4), 0.0, 1.0)
            body = (colour[:, None, None] * shade) * (1.0 - 0.6 * foot) + low * 0.56 * foot
            np.copyto(picture, body, where=angle < crest)
        return np.moveaxis(picture, 0, 2)


class Sensor(NamedTuple):
    """What stands between light and file."""

    exposure: float
    cast: np.ndarray  # float32 [3]
    noise: float  # deviation in 8-bit steps at mid grey
    vignette: float
    contrast: float


def develop(light: np.ndarray, sensor: Sensor, rng: np.random.RandomState) -> np.ndarray:
    """Linear light to 8-bit pixels: cast, falloff to the corners, tone curve, noise."""
    rows, width = light.shape[:2]
    y = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    falloff = 1.0 - sensor.vignette * 0.5 * (x * x + y * y)
    scaled = light * (sensor.cast * np.float32(sensor.exposure)) * falloff[:, :, None]
    tone = np.sqrt(np.clip(scaled, 0.0, 1.4) / (1.0 + 0.12 * scaled))
    tone = (tone - 0.5) * sensor.contrast + 0.5
    grain = rng.standard_normal((rows, width)).astype(np.float32)[:, :, None] * sensor.noise
    return np.ascontiguousarray(np.clip(tone * 255.0 + grain, 0.0, 255.0).astype(np.uint8))
