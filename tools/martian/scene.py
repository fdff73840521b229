"""What a kind of terrain hands to the camera: a lit world and how the rover stands in it."""

from typing import List, NamedTuple, Optional, Tuple

import numpy as np

from martian import fields
from martian.camera import World

N = 512  # texels along a side; a power of two
GRAIN_N = 128

Range = Tuple[float, float]


class Stance(NamedTuple):
    """Ranges from which each picture of a scene draws its camera."""

    height_m: Range
    field: Range  # picture width / focal length
    horizon: Range  # row of the horizon / picture height
    heading: Range = (-3.2, 3.2)
    x: Range = (0.0, 1.0)  # of one repeat
    y: Range = (0.0, 1.0)


class Scene(NamedTuple):
    world: World
    stance: Stance


def rgb(red: int, green: int, blue: int) -> np.ndarray:
    """Linear light of an 8-bit colour, as `camera.develop` will show it."""
    return np.square(np.array([red, green, blue], np.float32) / 255.0)


SAND = (rgb(190, 145, 100), rgb(184, 134, 92), rgb(176, 144, 108), rgb(200, 160, 118))
ROCK = (rgb(122, 112, 98), rgb(108, 108, 102), rgb(142, 116, 88), rgb(126, 98, 76))
BASALT = (rgb(84, 78, 74), rgb(70, 70, 72), rgb(98, 86, 78))
BEDROCK = (rgb(206, 168, 122), rgb(190, 152, 112), rgb(200, 176, 142), rgb(182, 136, 98))


def pick(rng, colours) -> np.ndarray:
    return colours[rng.randint(len(colours))] * rng.uniform(0.85, 1.12)


def sunlight(rng, low: float = 0.35, high: float = 1.0) -> Tuple[float, float]:
    """Azimuth and elevation, radians."""
    return rng.uniform(0, 2 * np.pi), rng.uniform(low, high)


def mottled(rng, colour: np.ndarray, strength: float = 0.1, slope: float = 1.8) -> np.ndarray:
    """A colour [N, N, 3] that varies a little, redder where darker as dusty ground is."""
    patch = fields.fractal(rng, N, slope)
    tint = np.float32(strength) * np.array([0.8, 1.0, 1.25], np.float32)
    paint = tint[:, None, None] * patch
    paint += 1.0
    np.maximum(paint, 0.2, out=paint)
    paint *= colour[:, None, None]
    return np.moveaxis(paint, 0, 2)


def toned(colour: np.ndarray, tone: np.ndarray) -> np.ndarray:
    """One colour, brighter and darker: [N, N, 3], three whole planes in memory."""
    return np.moveaxis(colour[:, None, None] * tone, 0, 2)


def blend(under: np.ndarray, over: np.ndarray, amount: np.ndarray) -> np.ndarray:
    mixed = over - under
    mixed *= np.clip(amount, 0.0, 1.0)[:, :, None]
    mixed += under
    return mixed


def grain(rng, across: int = 24, strength: float = 0.2) -> np.ndarray:
    """Shaded grit about 1, for ground nearer than its texels."""
    stones, _ = fields.pebbles(rng, GRAIN_N, across, 0.6)
    shaded = fields.lit(stones * GRAIN_N / across, (0.8, 0.7), 0.5, 6)
    rough = fields.fractal(rng, GRAIN_N, 1.0)
    return (1.0 + strength * ((shaded - shaded.mean()) + 0.5 * rough)).astype(np.float32)


def skies(rng) -> Tuple[np.ndarray, np.ndarray]:
    tan = (rgb(212, 186, 150), rgb(204, 192, 170), rgb(198, 196, 182), rgb(220, 182, 138))
    low = pick(rng, tan)
    return low, low * np.array([0.8, 0.82, 0.84], np.float32) * rng.uniform(0.8, 1.0)


def hills(rng, sky, ground: np.ndarray, layers: int, tallest: float) -> List:
    """Far ridges, hazier with distance: (angle above the horizon per bearing, colour)."""
    ridges = []
    for layer in range(layers):
        part = (layer + 1.0) / layers
        ramp = np.arange(1, 400)
        wave = np.zeros(2048)
        power = rng.standard_normal((2, 399)) * ramp ** -rng.uniform(1.1, 1.5)
        power[:, : rng.randint(2, 9)] = 0
        spectrum = np.zeros(1025, complex)
        spectrum[1:400] = power[0] + 1j * power[1]
        wave = np.fft.irfft(spectrum, 2048)
        wave = (wave - wave.min()) / (wave.max() - wave.min())
        angle = (wave ** rng.uniform(0.8, 1.8)) * tallest * (1.15 - 0.75 * part) + 0.004
        far = 0.75 - 0.5 * part
        ridges.append((angle.astype(np.float32), ground * 0.6 * (1 - far) + sky[0] * 0.8 * far))
    return ridges


def scene(
    rng,
    relief: np.ndarray,
    albedo: np.ndarray,
    texel_m: float,
    stance: Stance,
    sun: Optional[Tuple[float, float]] = None,
    grit: float = 0.2,
    haze_m: float = 400.0,
    ridges: int = 0,
    tallest: float = 0.1,
    shine: Optional[np.ndarray] = None,
    rough: float = 0.2,
) -> Scene:
    """Light a ground (`relief` in texels, `albedo` [N, N, 3]) and put a sky over it."""
    sun = sun or sunlight(rng)
    fine = fields.fractal(rng, N // 2, 1.0, 5)
    relief = relief + np.float32(rough) * np.tile(fine, (2, 2))
    light = fields.lit(relief, sun, rng.uniform(0.22, 0.42))
    colour = albedo * light[:, :, None]
    if shine is not None:
        colour = colour + shine[:, :, None]
    above = skies(rng)
    far = hills(rng, above, albedo.mean(axis=(0, 1)), ridges, tallest) if ridges else []
    world = World(
        (relief * texel_m).astype(np.float32),
        np.maximum(colour, 0.0).astype(np.float32),
        texel_m,
        grain(rng, rng.randint(16, 40), grit),
        haze_m,
        above,
        far,
    )
    return Scene(world, stance)
