"""The twelve kinds of place in a drawn archive. Each takes a generator and returns a `Scene`."""

import numpy as np

from martian.fields import (
    borders,
    cells,
    fractal,
    grid,
    grit,
    pebbles,
    place,
    slopes,
    soften,
    stone,
)
from martian.scene import (
    BASALT,
    BEDROCK,
    ROCK,
    SAND,
    N,
    Scene,
    Stance,
    blend,
    mottled,
    pick,
    rgb,
    scene,
    sunlight,
    toned,
)


def smooth(edge0: float, edge1: float, value: np.ndarray) -> np.ndarray:
    """0 before one edge, 1 after the other (in either order), without corners between."""
    t = np.clip((value - edge0) / (edge1 - edge0), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def ripples(rng, across: int, bend: float, steep: float) -> np.ndarray:
    """Wind ripples `across` to a side: a gentle rise and a slip face, height 0 to 1."""
    x, y = grid(N)
    turn = rng.uniform(0, 2 * np.pi)
    kx, ky = int(round(across * np.cos(turn))), int(round(across * np.sin(turn)))
    wander = bend * fractal(rng, N, 4.4, 1.5) + 0.02 * fractal(rng, N, 3.4, across / 3.0)
    phase = kx * x + ky * y + wander
    phase = phase - np.floor(phase)
    rise = smooth(0.0, steep, phase)
    return rise * (1.0 - smooth(steep, 1.0, phase))


def scatter(rng, relief, label, count: int, radius, flat=(0.5, 1.0), size_slope: float = 2.0):
    """Set `count` broken stones with radii (texels) from a power law between the two ends."""
    low, high = radius
    power = 1.0 - size_slope
    for number in range(count):
        u = rng.random_sample()
        size = (low ** power + u * (high ** power - low ** power)) ** (1.0 / power)
        at = rng.uniform(0, N, 2)
        place(relief, label, stone(rng, size, rng.uniform(*flat)), at, number + 1.0)


def dusted(rng, relief, label, sand, rock, dust: float):
    """Stones in `rock` colour, each a little different, with `dust` settled where they lie flat."""
    tone = rng.uniform(0.75, 1.25, int(label.max()) + 1).astype(np.float32)
    tone = tone.take(label.astype(np.int32))
    stones = toned(rock, tone) if rock.ndim == 1 else rock * tone[:, :, None]
    across, down = slopes(relief)
    flat = 1.0 / (1.0 + 2.0 * (across * across + down * down))
    return blend(sand, blend(stones, sand, dust * flat), label > 0)


def dunes(rng) -> Scene:
    """Wind-blown sand: big ripples with slip faces, sometimes with finer ones across them."""
    across = rng.randint(7, 16)
    wave = N / across
    relief = ripples(rng, across, rng.uniform(0.2, 0.5), rng.uniform(0.62, 0.8)) * wave * 0.14
    relief = relief + ripples(rng, across * rng.randint(4, 7), 0.9, 0.6) * wave * 0.009
    relief = relief + fractal(rng, N, 5.0) * rng.uniform(4, 12)
    albedo = mottled(rng, pick(rng, SAND), 0.05)
    stance = Stance((1.2, 2.6), (0.5, 1.0), (-0.35, 0.08))
    return scene(rng, relief, albedo, rng.uniform(0.02, 0.05), stance, sunlight(rng, 0.22, 0.6),
                 0.12, 200.0, 1, 0.06)


def craters(rng) -> Scene:
    """Pitted ground from a height, as a descent camera or a crater's rim shows it."""
    relief = fractal(rng, N, 4.0) * rng.uniform(2, 5)
    fresh = np.zeros((N, N), np.float32)
    sizes = np.sort(np.minimum(4.0 * rng.random_sample(rng.randint(60, 200)) ** -0.6, 80.0))[::-1]
    for radius in sizes:
        reach = np.arange(-int(2.4 * radius), int(2.4 * radius) + 1)
        away = np.hypot(reach[None, :], reach[:, None]).astype(np.float32) / radius
        at = rng.randint(0, N, 2)
        window = np.ix_((at[0] + reach) % N, (at[1] + reach) % N)
        age = rng.uniform(0.45, 1.0)
        rim = 0.13 * np.exp(-3.0 * np.abs(away - 1.0)) * smooth(2.4, 1.6, away)
        bowl = np.where(away < 1, 0.34 * (away * away - 1.0), 0.0) + rim
        level = float(relief[window][away < 1.0].mean())
        inside = 1.0 - smooth(0.8, 1.3, away)
        relief[window] += (level - relief[window]) * 0.7 * inside + bowl * radius * age
        if age > 0.8:
            fresh[window] = np.maximum(fresh[window], np.exp(-3.0 * np.abs(away - 1.1)))
    sand = mottled(rng, pick(rng, SAND) * 0.85, 0.12)
    albedo = blend(sand, sand * 1.35, 0.7 * fresh)
    stance = Stance((45.0, 90.0), (0.7, 1.1), (-0.75, -0.2))
    return scene(rng, relief, albedo, 0.5, stance, sunlight(rng, 0.3, 0.7), 0.1, 600.0)


def strata(rng) -> Scene:
    """A slope of flat-lying beds that weather into ledges."""
    x, y = grid(N)
    hill = smooth(0.06, 0.5, 0.5 - np.abs(y - 0.5))
    warp = [0.25 * fractal(rng, N, 3.0, 6) for _ in range(2)]
    joints = cells(rng, N, rng.randint(14, 30), warp, 0.95)
    broken = rng.normal(0, 1.6, int(joints.index.max()) + 1).astype(np.float32).take(joints.index)
    dip = rng.uniform(-14, 14) * np.sin(2 * np.pi * x)
    ramp = hill * rng.uniform(90, 190) + fractal(rng, N, 4.0, 2) * rng.uniform(8, 16) + dip + broken
    thickness = rng.gamma(1.4, rng.uniform(2.5, 6.5), 400) + 1.5
    beds = np.cumsum(thickness) - 120.0
    bed = np.searchsorted(beds, ramp.ravel()).reshape(N, N).clip(1, len(beds) - 1)
    floor, ceiling = beds[bed - 1], beds[bed]
    part = (ramp - floor) / (ceiling - floor)
    hard = rng.uniform(0.75, 1.0, len(beds))[bed]
    riser = smooth(0.72, 1.0, part)
    stepped = floor + (ceiling - floor) * (part * (1 - hard) + hard * riser)
    relief = stepped.astype(np.float32) + 0.3 * fractal(rng, N, 2.2, 8)
    leaves = rng.uniform(0.78, 1.15, 4096).astype(np.float32)
    leaf = leaves[(stepped * 1.7).astype(np.int32) & 4095]
    tone = rng.uniform(0.65, 1.15, len(beds)).astype(np.float32)[bed] * leaf
    rock = mottled(rng, pick(rng, BEDROCK + ROCK[2:]) * 0.85, 0.12) * tone[:, :, None]
    sand = mottled(rng, pick(rng, SAND + BASALT[2:]) * 0.8, 0.06)
    drift = soften(relief, 16) + 1.6 * fractal(rng, N, 4.0, 3) - rng.uniform(1.5, 4.0)
    cover = np.maximum(smooth(-0.5, 0.5, drift - relief), 0.45 * smooth(0.6, 0.1, part))
    relief = np.maximum(relief, drift).astype(np.float32)
    albedo = blend(rock, sand, cover)
    label = np.zeros((N, N), np.float32)
    scatter(rng, relief, label, 120, (2, 9), (0.3, 0.8))
    albedo = blend(albedo, rock * 0.85, label > 0)
    stance = Stance((1.5, 2.2), (0.55, 0.95), (0.0, 0.4), (1.1, 2.0), y=(-0.18, 0.02))
    return scene(rng, relief, albedo, rng.uniform(0.012, 0.02), stance,
                 (rng.uniform(3.6, 5.8), rng.uniform(0.45, 0.9)), 0.25, 250.0, 1, 0.05)


def gravel(rng) -> Scene:
    """Ground covered by small rounded stones."""
    across = rng.randint(30, 64)
    warp = (0.3 * fractal(rng, N, 3.0, 6), 0.3 * fractal(rng, N, 3.0, 6))
    coarse, found = pebbles(rng, N, across, rng.uniform(0.45, 0.95), warp)
    coarse = coarse * np.float32(N / across)
    relief = np.maximum(coarse, 0.8 * grit(rng, N, across * 2 + 10, 0.8))
    relief = relief + 3.0 * fractal(rng, N, 4.0)
    label = np.zeros((N, N), np.float32)
    scatter(rng, relief, label, rng.randint(6, 40), (6, 24), (0.5, 0.9), 2.6)
    sand = mottled(rng, pick(rng, SAND) * 0.85, 0.1)
    tone = rng.uniform(0.55, 1.35, across * across).astype(np.float32).take(found.index)
    rock = pick(rng, ROCK + SAND[1:2])
    albedo = blend(sand * 0.9, toned(rock, tone), 0.85 * (coarse > 0.2))
    albedo = dusted(rng, relief, label, albedo, rock, 0.2)
    stance = Stance((1.0, 1.9), (0.45, 0.85), (-1.3, -0.35))
    return scene(rng, relief, albedo, rng.uniform(0.006, 0.012), stance, None, 0.2)


def slabs(rng) -> Scene:
    """Pale bedrock broken into polygons, with dark sand in the cracks."""
    across = rng.randint(5, 10)
    bend = rng.uniform(0.02, 0.10)
    warp = [bend * fractal(rng, N, 3.0, 3) for _ in range(2)]
    block = cells(rng, N, across, warp, 0.95)
    crack = borders(rng, N, across * 3, [w * 2 for w in warp])
    gap = (block.second - block.nearest) * N / across
    count = across * across
    lift = rng.normal(0, rng.uniform(0.6, 2.2), count).astype(np.float32).take(block.index)
    tilt = [rng.normal(0, 3.0, count).astype(np.float32).take(block.index) for _ in range(2)]
    width = rng.uniform(2.0, 7.0)
    top = lift + tilt[0] * block.towards[0] + tilt[1] * block.towards[1]
    edge = smooth(width, width + 5.0, gap + 1.0 * fractal(rng, N, 3.0, 12))
    stoneface = top + rng.uniform(5, 9) * (edge - 1.0) + 0.6 * fractal(rng, N, 3.0, 4)
    stoneface = stoneface - 1.4 * (1 - smooth(0.6, 2.6, crack)) * (fractal(rng, N, 4.0) > 0)
    sandy = -4.5 + 1.2 * fractal(rng, N, 4.0, 2) + rng.uniform(-1.5, 1.5)
    relief = np.maximum(stoneface, sandy).astype(np.float32)
    tone = rng.uniform(0.85, 1.12, count).astype(np.float32).take(block.index)
    rock = mottled(rng, pick(rng, BEDROCK), 0.08) * tone[:, :, None]
    sand = mottled(rng, pick(rng, BASALT[2:] + SAND[:2] + ROCK[3:]) * 0.7, 0.08)
    albedo = blend(rock, sand, smooth(-0.4, 0.8, sandy - stoneface))
    label = np.zeros((N, N), np.float32)
    scatter(rng, relief, label, rng.randint(10, 60), (2, 7), (0.4, 0.8))
    albedo = dusted(rng, relief, label, albedo, pick(rng, ROCK), 0.5)
    stance = Stance((1.3, 2.2), (0.5, 0.9), (-1.1, -0.3))
    return scene(rng, relief, albedo, rng.uniform(0.007, 0.013), stance, None, 0.15)


def horizon(rng) -> Scene:
    """A wide plain under the sky with ridges far away."""
    relief = fractal(rng, N, 4.0) * rng.uniform(3, 9)
    relief = relief + 0.75 * grit(rng, N, 128, rng.uniform(0.1, 0.5))
    label = np.zeros((N, N), np.float32)
    scatter(rng, relief, label, rng.randint(120, 420), (1.2, 7), (0.4, 0.9), 2.8)
    sand = mottled(rng, pick(rng, SAND) * 0.92, 0.16, 1.6)
    albedo = dusted(rng, relief, label, sand, pick(rng, ROCK), 0.3)
    stance = Stance((1.8, 2.4), (0.6, 1.2), (0.28, 0.62))
    return scene(rng, relief, albedo, rng.uniform(0.05, 0.1), stance, None, 0.35,
                 rng.uniform(150, 500), rng.randint(1, 4), rng.uniform(0.06, 0.18))


def boulders(rng) -> Scene:
    """Large broken rocks and their shadows on sand."""
    relief = fractal(rng, N, 4.0) * 5.0
    relief = relief + ripples(rng, 45, 1.0, 0.6) * rng.uniform(0, 1.2)
    label = np.zeros((N, N), np.float32)
    scatter(rng, relief, label, rng.randint(12, 24), (20, 60), (0.8, 1.35), 1.7)
    scatter(rng, relief, label, rng.randint(25, 90), (2, 9), (0.5, 1.0), 2.4)
    bumps = 1.1 * fractal(rng, N, 2.6, 10)
    relief = np.where(label > 0, relief + bumps, relief).astype(np.float32)
    sand = mottled(rng, pick(rng, SAND), 0.06)
    albedo = dusted(rng, relief, label, sand, mottled(rng, pick(rng, ROCK), 0.18), 0.35)
    stance = Stance((1.5, 2.3), (0.6, 1.0), (-0.45, 0.02))
    return scene(rng, relief, albedo, rng.uniform(0.013, 0.022), stance,
                 sunlight(rng, 0.35, 0.75), 0.2, 200.0, 1, 0.06)


def plain(rng) -> Scene:
    """Flat dusty ground with few stones."""
    relief = fractal(rng, N, 4.0) * rng.uniform(1.0, 4.0)
    relief = relief + 0.6 * grit(rng, N, 128, rng.uniform(0.02, 0.3))
    label = np.zeros((N, N), np.float32)
    scatter(rng, relief, label, rng.randint(15, 90), (1.5, 8), (0.3, 0.7), 2.6)
    sand = mottled(rng, pick(rng, SAND) * 1.04, 0.07, 1.5)
    albedo = dusted(rng, relief, label, sand, pick(rng, ROCK), 0.45)
    stance = Stance((1.6, 2.3), (0.5, 0.9), (-0.8, -0.1))
    return scene(rng, relief, albedo, rng.uniform(0.011, 0.02), stance, sunlight(rng, 0.6, 1.2),
                 0.22, 120.0)


def veins(rng) -> Scene:
    """Dark mudstone cut by raised white mineral veins."""
    across = rng.randint(3, 6)
    warp = [rng.uniform(0.01, 0.05) * fractal(rng, N, 3.4, 3) for _ in range(2)]
    relief = 2.5 * fractal(rng, N, 3.2, 2)
    white = np.zeros((N, N), np.float32)
    for scale in (1, 2):
        gap = borders(rng, N, across * scale, warp)
        width = rng.uniform(0.7, 2.0) / scale
        present = smooth(-0.6, -0.1, fractal(rng, N, 4.0) + (0.6 if scale == 1 else -0.4))
        ragged = gap + 0.6 * fractal(rng, N, 2.4, 16)
        white = np.maximum(white, (1 - smooth(width, width + 1.6, ragged)) * present)
    relief = relief + 1.2 * white
    relief = relief - 0.8 * (borders(rng, N, 26) < 1.0)
    mud = mottled(rng, pick(rng, (rgb(136, 104, 80), rgb(150, 112, 82), rgb(118, 102, 90))), 0.12)
    calcium = mottled(rng, rgb(228, 219, 205), 0.06)
    albedo = blend(mud, calcium, white)
    label = np.zeros((N, N), np.float32)
    scatter(rng, relief, label, rng.randint(10, 50), (2, 8), (0.3, 0.7))
    albedo = dusted(rng, relief, label, albedo, pick(rng, ROCK), 0.4)
    stance = Stance((1.1, 1.9), (0.45, 0.85), (-1.3, -0.4))
    return scene(rng, relief.astype(np.float32), albedo, rng.uniform(0.006, 0.01), stance, None,
                 0.18)


def tracks(rng) -> Scene:
    """Two wheel tracks with cleat marks across soft ground."""
    x, y = grid(N)
    relief = fractal(rng, N, 3.6) * 2.0
    label = np.zeros((N, N), np.float32)
    scatter(rng, relief, label, rng.randint(10, 90), (1.5, 6), (0.4, 0.8))
    half = rng.uniform(0.020, 0.028)
    apart = rng.uniform(0.10, 0.13)
    curve = 0.5 + rng.uniform(-0.06, 0.06) * np.sin(2 * np.pi * (y + rng.random_sample()))
    cleats = rng.randint(70, 110)
    press = np.zeros((N, N), np.float32)
    berm, tread = press.copy(), press.copy()
    for side in (-1, 1):
        from_middle = (x - curve - side * apart) / half
        away = np.abs(from_middle)
        press = np.maximum(press, 1 - smooth(0.8, 1.1, away))
        berm = np.maximum(berm, np.exp(-10 * np.square(away - 1.3)))
        chevron = np.cos(2 * np.pi * (cleats * y + 0.55 * away))
        tread = np.where(away < 0.95, chevron, tread)
    relief = relief * (1 - 0.8 * press) - 4.5 * press
    relief = relief + berm * (1.3 + 0.6 * fractal(rng, N, 2.2, 12)) + 1.1 * tread * press
    sand = mottled(rng, pick(rng, SAND), 0.06)
    albedo = dusted(rng, relief, label * (press < 0.3), sand, pick(rng, ROCK), 0.4)
    albedo = albedo * (1.0 - rng.uniform(0.1, 0.35) * press)[:, :, None]
    backwards = rng.choice([1.0, -1.0]) * np.pi / 2
    stance = Stance((1.7, 2.4), (0.6, 1.0), (-0.4, 0.2), (backwards - 0.35, backwards + 0.35),
                    x=(0.38, 0.62))
    return scene(rng, relief.astype(np.float32), albedo, rng.uniform(0.016, 0.022), stance,
                 sunlight(rng, 0.35, 0.7), 0.12, 150.0, 1, 0.08)


def basalt(rng) -> Scene:
    """Dark grey volcanic sand, finely rippled."""
    across = rng.randint(22, 46)
    wave = N / across
    relief = ripples(rng, across, rng.uniform(0.8, 2.0), rng.uniform(0.55, 0.7)) * wave * 0.13
    relief = relief + fractal(rng, N, 4.0) * 6.0
    label = np.zeros((N, N), np.float32)
    scatter(rng, relief, label, rng.randint(0, 25), (2, 12), (0.5, 0.9))
    sand = mottled(rng, pick(rng, BASALT), 0.07)
    troughs = 0.35 * smooth(0.2, -0.8, relief - soften(relief, 16))
    sand = blend(sand, pick(rng, SAND) * 0.55, troughs)
    albedo = dusted(rng, relief, label, sand, pick(rng, ROCK), 0.2)
    stance = Stance((1.2, 2.2), (0.5, 0.9), (-0.9, -0.1))
    return scene(rng, relief, albedo, rng.uniform(0.008, 0.014), stance, sunlight(rng, 0.35, 0.8),
                 0.3, 150.0)
