"""The rare pictures of a drawn archive: things worth a second look, and frames worth nothing.

Each takes a generator and returns a `Scene` and a function (linear light, generator) -> linear
light that adds what belongs to the picture rather than to the ground.
"""

import numpy as np
from PIL import Image, ImageFilter

from martian import hardware, terrain
from martian.fields import cells, fractal, grid, slopes
from martian.scene import SAND, N, Scene, Stance, blend, mottled, pick, rgb, scene, sunlight


def _axes(light: np.ndarray):
    """Column and row of every pixel, 0 to 1 of the picture's width and height."""
    rows, width = light.shape[:2]
    return (np.arange(width, dtype=np.float32) / width)[None, :], (
        np.arange(rows, dtype=np.float32) / rows)[:, None]


def _as_it_is(light, rng):
    return light


def _pale(colour: np.ndarray) -> np.ndarray:
    return 0.55 * colour + 0.45 * rgb(222, 200, 172)


def _near(middle: float, stance: Stance) -> Stance:
    """Face `middle` of the tile (of one repeat in x and y) from a few metres."""
    return stance._replace(x=(middle - 0.05, middle + 0.05), heading=(1.35, 1.8))


def meteorite(rng):
    """Discovery: a lump of pitted, gleaming iron on sand."""
    x, y = grid(N)
    dx = (x - 0.5) / rng.uniform(0.10, 0.15)
    dy = (y - 0.5) / rng.uniform(0.09, 0.13)
    lump = 1.0 + 0.13 * fractal(rng, N, 4.0, 4)
    body = np.sqrt(np.maximum(lump - dx * dx - dy * dy, 0.0)) * N * rng.uniform(0.07, 0.11)
    pits = cells(rng, N, 34, None, 0.9)
    body = np.where(body > 0, body - 3.0 * np.exp(-6.0 * np.square(pits.nearest)), 0.0)
    ground = 3.0 * fractal(rng, N, 4.0)
    label = np.zeros((N, N), np.float32)
    terrain.scatter(rng, ground, label, 60, (2, 7), (0.4, 0.8))
    relief = np.where(body > 0, ground + body, ground).astype(np.float32)
    iron = body > 0
    sun = sunlight(rng, 0.5, 0.9)
    across, down = slopes(relief)
    half = np.array([np.cos(sun[0]) * np.cos(sun[1]), np.sin(sun[0]) * np.cos(sun[1]),
                     np.sin(sun[1]) + 0.9])
    half /= np.linalg.norm(half)
    facing = (half[2] - half[0] * across - half[1] * down) / np.sqrt(
        1 + across * across + down * down)
    gleam = iron * (1.5 * np.maximum(facing, 0) ** 30 + 0.12 * np.maximum(facing, 0) ** 3)
    sand = terrain.dusted(rng, relief, label * ~iron, mottled(rng, pick(rng, SAND), 0.06),
                          rgb(110, 106, 98), 0.4)
    albedo = np.where(iron[:, :, None], rgb(74, 78, 86) * 0.8, sand)
    stance = _near(0.5, Stance((1.4, 1.7), (0.5, 0.75), (-1.0, -0.8), y=(0.04, 0.10)))
    made = scene(rng, relief, albedo, 0.009, stance, sun, 0.15, 200.0, shine=gleam)
    return made, _as_it_is


def silica(rng):
    """Discovery: brilliant white soil churned up under the dust."""
    x, y = grid(N)
    middle = 0.5 + 0.03 * np.sin(2 * np.pi * y) + 0.012 * fractal(rng, N, 3.0, 4)
    churn = terrain.smooth(0.055, 0.02, np.abs(x - middle))
    churn = churn * terrain.smooth(-0.4, 0.4, fractal(rng, N, 3.2, 3) + 0.7)
    relief = 2.0 * fractal(rng, N, 4.0) - 5.0 * churn + 1.6 * churn * fractal(rng, N, 2.8, 10)
    sand = mottled(rng, pick(rng, SAND) * 0.85, 0.07)
    albedo = blend(sand, mottled(rng, rgb(246, 244, 240), 0.05), 1.2 * churn)
    stance = _near(0.5, Stance((1.4, 2.0), (0.5, 0.8), (-0.5, -0.1)))
    return scene(rng, relief.astype(np.float32), albedo, 0.008, stance, None, 0.15), _as_it_is


def heat_shield(rng):
    """Discovery: wreckage of the landing, a broken dish with torn foil around it."""
    x, y = grid(N)
    away = np.hypot(x - 0.5, y - 0.5) * N
    bearing = np.arctan2(y - 0.5, x - 0.5)
    rim = 88.0 + 5.0 * np.sin(3 * bearing + rng.uniform(0, 6)) + 3.0 * fractal(rng, N, 2.6, 6)
    dish = away < rim
    lean = 0.22 * N * ((x - 0.5) * rng.uniform(-1, 1) + (y - 0.5) * 0.9)
    bowl = 5.0 + 22.0 * np.square(away / 88.0) + lean
    ribs = np.abs(np.sin(6 * bearing)) < 0.10
    rings = np.abs(np.mod(away, 29.0) - 14.0) < 1.6
    ground = 3.0 * fractal(rng, N, 4.0)
    relief = np.where(dish, np.maximum(bowl + 3.0 * (ribs | rings), ground), ground)
    label = np.zeros((N, N), np.float32)
    relief = relief.astype(np.float32)
    terrain.scatter(rng, relief, label, 70, (2, 10), (0.15, 0.5))
    sand = mottled(rng, pick(rng, SAND), 0.05)
    foil = np.where((label % 3 < 1)[:, :, None], rgb(226, 190, 96), rgb(232, 232, 234))
    albedo = blend(sand, foil, (label > 0) * ~dish)
    shell = np.where((ribs | rings)[:, :, None], rgb(206, 204, 198), rgb(92, 70, 52))
    albedo = np.where(dish[:, :, None], shell, albedo)
    albedo = np.where((dish & (away > rim - 3))[:, :, None], rgb(236, 234, 228), albedo)
    stance = _near(0.5, Stance((2.1, 2.5), (0.75, 0.95), (-0.55, -0.4), y=(0.04, 0.10)))
    return scene(rng, relief, albedo, 0.016, stance, None, 0.15, 200.0, 1, 0.06), _as_it_is


def sunset(rng):
    """Discovery: a small white sun going down in a blue-grey sky."""
    plain = terrain.horizon(rng)
    dusk = (rgb(126, 134, 146), rgb(74, 72, 78))
    hills = [(angle, rgb(58, 50, 50) * (1.0 + 0.3 * k)) for k, (angle, _) in
             enumerate(plain.world.hills)]
    world = plain.world._replace(colour=plain.world.colour * rgb(96, 80, 76), sky=dusk,
                                 hills=hills, haze_m=400.0)
    sun_x, sun_y = rng.uniform(0.3, 0.7), rng.uniform(0.35, 0.5)

    def finish(light, rng):
        x, y = _axes(light)
        away = np.hypot(x - sun_x, 0.75 * (y - sun_y))
        glow = 0.55 * np.exp(-away * 9.0) + 0.25 * np.exp(-away * 3.0) + 3.0 * (away < 0.014)
        above = terrain.smooth(0.74, 0.62, y)
        return light + (glow * above)[:, :, None] * np.array([0.82, 0.94, 1.1], np.float32)

    return Scene(world, plain.stance._replace(horizon=(0.68, 0.76))), finish


def dust_devil(rng):
    """Discovery: a whirling column of dust over the plain."""
    plain = terrain.horizon(rng)
    foot, lean = rng.uniform(0.25, 0.75), rng.uniform(-0.12, 0.12)
    thick, tall = rng.uniform(0.025, 0.05), rng.uniform(0.4, 0.58)
    dust = _pale(pick(rng, SAND))

    def finish(light, rng):
        x, y = _axes(light)
        rows, width = light.shape[:2]
        rough = np.asarray(Image.fromarray(fractal(rng, 256, 3.0, 3)).resize((width, rows)))
        up = np.clip((0.60 - y) / tall, 0.0, 1.0)
        centre = foot + lean * up * up + 0.012 * np.sin(9.0 * up) + 0.008 * rough
        half = thick * (0.5 + 2.4 * up ** 1.5) * (1.0 + 0.2 * rough)
        body = np.exp(-np.square((x - centre) / half) * 1.6)
        body = body * terrain.smooth(0.0, 0.03, up) * terrain.smooth(1.0, 0.6, up)
        skirt = np.exp(-np.square((x - foot) / 0.09) - np.square((y - 0.605) / 0.022))
        cover = np.clip(0.95 * body * (1.0 + 0.25 * rough) + 0.6 * skirt, 0.0, 0.92)
        side = 1.0 + 0.28 * np.clip((x - centre) / half, -1, 1)
        return light + (dust * side[:, :, None] - light) * cover[:, :, None]

    return Scene(plain.world, plain.stance._replace(horizon=(0.54, 0.58))), finish


def dusty_lens(rng):
    """Junk: dust on the window; a pale veil, no focus, dark specks."""
    behind = (terrain.plain, terrain.gravel, terrain.horizon)[rng.randint(3)](rng)
    veil = pick(rng, SAND) * 1.25

    def finish(light, rng):
        rows, width = light.shape[:2]
        shown = Image.fromarray((np.clip(light, 0, 1) * 255).astype(np.uint8))
        shown = shown.filter(ImageFilter.GaussianBlur(width / 45.0))
        soft = np.asarray(shown, np.float32) / 255.0
        cloud = np.asarray(Image.fromarray(fractal(rng, 256, 3.4)).resize((width, rows)))
        soft = soft + (veil - soft) * np.clip(0.62 + 0.2 * cloud, 0, 0.95)[:, :, None]
        x, y = _axes(light)
        for _ in range(rng.randint(25, 60)):
            size = rng.uniform(0.006, 0.035)
            away = np.hypot(x - rng.random_sample(), 0.75 * (y - rng.random_sample())) / size
            soft *= 1.0 - (rng.uniform(0.1, 0.4) * terrain.smooth(1.4, 0.4, away))[:, :, None]
        return soft

    return behind, finish


def black_frame(rng):
    """Junk: the shutter never opened; read-out noise and hot pixels."""

    def finish(light, rng):
        rows, width = light.shape[:2]
        dark = np.abs(rng.standard_normal((rows, width, 1))) * 0.0006
        hot = rng.random_sample((rows, width, 1)) < 0.0004
        banding = 0.0006 * np.abs(rng.standard_normal((rows, 1, 1)))
        return np.broadcast_to(dark + banding + 0.4 * hot, light.shape).astype(np.float32)

    return terrain.plain(rng), finish


def dead_lines(rng):
    """Junk: packets lost on the way from the camera; bands missing, shifted or stuck."""
    behind = (terrain.gravel, terrain.slabs, hardware.deck)[rng.randint(3)](rng)

    def finish(light, rng):
        torn = light.copy()
        rows, width = light.shape[:2]
        row = 0
        while row < rows:
            end = row + int(rng.randint(2, max(3, rows // 9)))
            fault = rng.randint(5)
            if fault == 0:
                torn[row:end] = 0.0
            elif fault == 1:
                torn[row:end] = np.roll(torn[row:end], rng.randint(width), axis=1)
            elif fault == 2:
                torn[row:end] = torn[row]
            elif fault == 3:
                torn[row:end, :, rng.randint(3)] = 1.0
            row = end
        return torn

    return behind, finish
