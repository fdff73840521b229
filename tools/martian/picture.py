"""From a kind of place and a few numbers to pixels; the same numbers give the same pixels."""

import zlib
from functools import lru_cache
from typing import Tuple

import numpy as np

from martian import hardware, oddities, terrain
from martian.camera import Camera, Eye, Sensor, develop

PLACES = {
    "basalt": terrain.basalt,
    "boulders": terrain.boulders,
    "craters": terrain.craters,
    "deck": hardware.deck,
    "dunes": terrain.dunes,
    "gravel": terrain.gravel,
    "horizon": terrain.horizon,
    "plain": terrain.plain,
    "slabs": terrain.slabs,
    "strata": terrain.strata,
    "tracks": terrain.tracks,
    "veins": terrain.veins,
}
ODD_PLACES = {
    "meteorite": (oddities.meteorite, "discovery"),
    "dusty_lens": (oddities.dusty_lens, "junk"),
    "dust_devil": (oddities.dust_devil, "discovery"),
    "black_frame": (oddities.black_frame, "junk"),
    "silica": (oddities.silica, "discovery"),
    "dead_lines": (oddities.dead_lines, "junk"),
    "sunset": (oddities.sunset, "discovery"),
    "heat_shield": (oddities.heat_shield, "discovery"),
}
TRIES = 6  # camera positions looked at before the most open of them is taken
OPEN = -0.25  # a sight line falling at least this steeply everywhere nearby is open enough


def generator(seed: int, name: str, *numbers: int) -> np.random.RandomState:
    """numpy's frozen generator, so a seed means the same in every release."""
    return np.random.RandomState([seed & 0xFFFFFFFF, zlib.crc32(name.encode())] + list(numbers))


@lru_cache(maxsize=2)
def _place(name: str, seed: int, scene: int):
    rng = generator(seed, name, scene)
    if name in ODD_PLACES:
        made, finish = ODD_PLACES[name][0](rng)
    else:
        made, finish = PLACES[name](rng), None
    eye = Eye(made.world)
    cast = np.array([rng.uniform(0.94, 1.08), 1.0, rng.uniform(0.86, 1.12)], np.float32)
    sensor = Sensor(rng.uniform(0.85, 1.15), cast, rng.uniform(1.5, 4.5), rng.uniform(0.05, 0.3),
                    rng.uniform(0.92, 1.2))
    stance = made.stance
    middles = [(rng.uniform(*stance.x), rng.uniform(*stance.y), rng.uniform(*stance.heading))
               for _ in range(TRIES)]
    fixed = (rng.uniform(*stance.height_m), rng.uniform(*stance.field),
             rng.uniform(*stance.horizon), rng.uniform(-0.06, 0.06))
    return eye, finish, sensor, stance, middles, fixed


def draw(name: str, seed: int, scene: int, shot: int, size: Tuple[int, int]) -> np.ndarray:
    """One picture, uint8 [height, width, 3]: shot number `shot` of scene number `scene`.

    Shots of one scene show the same ground under the same sun from nearby. `name` is one of
    PLACES or ODD_PLACES; `size` is (width, height) in pixels.
    """
    eye, finish, sensor, stance, middles, fixed = _place(name, seed, scene)
    rng = generator(seed, name, scene, shot + 1)
    extent = eye.world.texel_m * len(eye.world.height)
    height_m, field, horizon, roll = fixed

    def around(middle, limits, reach):
        return float(np.clip(middle + rng.uniform(-reach, reach), *limits))

    field = around(field, stance.field, 0.12)
    horizon = around(horizon, stance.horizon, 0.12)
    roll = roll + rng.uniform(-0.02, 0.02)
    cameras = [
        Camera(around(x, stance.x, 0.12) * extent, around(y, stance.y, 0.12) * extent, height_m,
               around(heading, stance.heading, 0.4), field, horizon, roll)
        for x, y, heading in middles
    ]
    open_view = [camera for camera in cameras if eye.blocked(camera) < OPEN]
    light = eye.look(open_view[0] if open_view else min(cameras, key=eye.blocked), size)
    if finish is not None:
        light = finish(light, rng)
    exposed = sensor._replace(exposure=sensor.exposure * rng.uniform(0.93, 1.07))
    return develop(light, exposed, rng)
