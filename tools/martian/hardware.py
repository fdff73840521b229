"""The rover itself, seen from its mast: deck plates, boxes, bolts, cables, a colour target."""

import numpy as np
from PIL import Image, ImageDraw

from martian.fields import fractal
from martian.scene import SAND, N, Scene, Stance, blend, mottled, pick, scene

PLATES = ((176, 174, 170), (206, 202, 194), (120, 122, 126), (160, 150, 132))
BOXES = ((214, 210, 200), (60, 60, 64), (178, 138, 66), (140, 144, 150), (98, 100, 104))
CHIPS = ((188, 48, 42), (52, 122, 66), (48, 76, 160), (210, 184, 62))


class Drawing:
    """A height sheet (texels) and a colour sheet, drawn on together."""

    def __init__(self, colour):
        self.relief = Image.new("F", (N, N), 0.0)
        self.paint = Image.new("RGB", (N, N), colour)
        self._up, self._ink = ImageDraw.Draw(self.relief), ImageDraw.Draw(self.paint)

    def box(self, x0, y0, x1, y1, height, colour):
        self._up.rectangle((x0, y0, x1, y1), fill=float(height))
        self._ink.rectangle((x0, y0, x1, y1), fill=colour)

    def disc(self, x, y, radius, height, colour):
        around = (x - radius, y - radius, x + radius, y + radius)
        self._up.ellipse(around, fill=float(height))
        self._ink.ellipse(around, fill=colour)

    def line(self, points, width, height, colour):
        self._up.line(points, fill=float(height), width=int(width), joint="curve")
        self._ink.line(points, fill=colour, width=int(width), joint="curve")

    def sheets(self):
        """Height float32 [N, N] and linear colour float32 [N, N, 3]."""
        return np.array(self.relief), np.square(np.asarray(self.paint, np.float32) / 255.0)


def target(drawing: Drawing, rng, x: float, y: float, side: float, base: float) -> None:
    """A calibration target: grey rings, four colour chips and a post that casts a shadow."""
    half = side / 2.0
    drawing.box(x - half, y - half, x + half, y + half, base + 4, (46, 46, 48))
    for chip, (right, down) in zip(rng.permutation(4), ((-1, -1), (1, -1), (-1, 1), (1, 1))):
        drawing.disc(x + right * half * 0.72, y + down * half * 0.72, half * 0.2, base + 5,
                     CHIPS[chip])
    for ring, grey in ((0.66, 226), (0.48, 128), (0.3, 62)):
        drawing.disc(x, y, half * ring, base + 5, (grey, grey, grey - 4))
    drawing.disc(x, y, half * 0.09, base + side * 0.35, (200, 200, 196))


def deck(rng) -> Scene:
    """A dusty rover deck with fittings; no two scenes alike in layout."""
    plate = PLATES[rng.randint(len(PLATES))]
    drawing = Drawing(plate)
    step = int(rng.choice([64, 96, 128]))
    seam = tuple(int(0.45 * c) for c in plate)
    for place in range(0, N, step):
        drawing.line([(place, 0), (place, N)], 3, -2.0, seam)
        drawing.line([(0, place), (N, place)], 3, -2.0, seam)
    for place in range(0, N, step):
        for other in range(step // 4, N, step // 2):
            drawing.disc(place + 9, other, 3, 2.5, (90, 90, 92))
            drawing.disc(other, place + 9, 3, 2.5, (90, 90, 92))
    if rng.random_sample() < 0.4:
        left, cell = int(rng.randint(0, N // 2)), int(rng.randint(18, 30))
        for column in range(7):
            for row in range(int(N * 0.8) // cell):
                x, y = left + column * cell, row * cell
                drawing.box(x, y, x + cell - 3, y + cell - 3, 3.0, (34, 38, 66))
    for _ in range(rng.randint(6, 12)):
        x, y = rng.uniform(0, N * 0.85, 2)
        wide, deep = rng.uniform(24, 110, 2)
        tall = rng.uniform(6, 34)
        colour = BOXES[rng.randint(len(BOXES))]
        drawing.box(x, y, x + wide, y + deep, tall, colour)
        drawing.box(x + 4, y + 4, x + wide - 4, y + deep - 4, tall + 1.5, colour)
        for cx, cy in ((x + 8, y + 8), (x + wide - 8, y + 8), (x + 8, y + deep - 8),
                       (x + wide - 8, y + deep - 8)):
            drawing.disc(cx, cy, 2.5, tall + 3, (70, 70, 72))
    for _ in range(rng.randint(2, 6)):
        along = np.linspace(0, N, 40)
        wave = rng.uniform(0, N) + rng.uniform(8, 40) * np.sin(along / rng.uniform(30, 90))
        points = list(zip(along, wave)) if rng.randint(2) else list(zip(wave, along))
        grey = int(rng.randint(40, 190))
        drawing.line([tuple(map(float, p)) for p in points], rng.randint(4, 9), 5.0,
                     (grey, grey, grey))
    for number in range(4):
        x, y = rng.uniform(60, N - 60, 2)
        if number < 2:
            target(drawing, rng, x, y, rng.uniform(60, 120), 4.0)
        else:
            drawing.disc(x, y, rng.uniform(14, 34), rng.uniform(10, 40), (188, 186, 180))
            drawing.disc(x, y, rng.uniform(5, 12), 44.0, (84, 84, 88))
    relief, paint = drawing.sheets()
    dust = rng.uniform(0.1, 0.55) * (1.0 + 0.5 * fractal(rng, N, 3.0))
    albedo = blend(paint * 0.8, mottled(rng, pick(rng, SAND), 0.05), np.clip(dust, 0.05, 0.8))
    stance = Stance((0.9, 1.6), (0.6, 1.0), (-1.1, -0.45))
    return scene(rng, relief, albedo, 0.004, stance, None, 0.06, rough=0.06)
