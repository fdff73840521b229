"""The pictures that `tools/bench yield` makes streams of, each of known content.

In: a folder to work in, a network, and for the real ones the tiles beside the checkout. Out: a Pool
of files with what each one shows, its size, its embedding and its quality, as the rover's own
code reads them. Files and embeddings stay in the folder, so that a repeat is quick.
"""

import csv
import glob
import hashlib
import os
import sys
from typing import Callable, List, NamedTuple, Sequence, Tuple

import machine
import numpy as np
from PIL import Image, ImageFilter

from jetson_cluster import frame, quality
from jetson_cluster.embedder import open_embedder
from jetson_cluster.recipe import Model

sys.path.insert(0, os.path.join(machine.ROOT, "tools"))

import synthetic_mars  # noqa: E402  (found through the line above)

TILES = os.path.join(machine.ROOT, "..", "shared", "mars", "cluster*.png")
DRAWN_SEED, DRAWN_PER_CLASS, DRAWN_ODD = 41, 96, 160
CROPS = 8  # of each tile; they stand for the shots of one scene
JUNK_OF_A_KIND = 16
BATCH = 8
JPEG_QUALITY = 90

TERRAIN, DISCOVERY, JUNK = "terrain", "discovery", "junk"


class Picture(NamedTuple):
    """One file and what it shows."""

    path: str
    kind: str  # the terrain, the discovery, or what is wrong with the frame
    role: str  # TERRAIN, DISCOVERY or JUNK
    scene: str  # pictures of one scene are never in both the archive and the stream
    copy_of: str  # path of the picture that this one nearly repeats; "" for most


class Pool(NamedTuple):
    """N pictures as the rover reads them."""

    pictures: List[Picture]
    sha256: np.ndarray  # text [N]
    bytes: np.ndarray  # int64 [N], of the files
    embeddings: np.ndarray  # float32 [N, D]
    measures: np.ndarray  # float32 [N, fields of quality.Measures]


def drawn(folder: str) -> List[Picture]:
    """Pictures drawn by tools/synthetic_mars.py, and spoilt frames and near-repeats of them."""
    scenes, truth = os.path.join(folder, "drawn"), os.path.join(folder, "drawn.csv")
    synthetic_mars.write_archive(
        scenes, DRAWN_PER_CLASS * len(synthetic_mars.CLASSES) + DRAWN_ODD, DRAWN_SEED,
        odd=DRAWN_ODD, truth=truth, force=True)
    with open(truth, newline="", encoding="utf-8") as stream:
        pictures = [Picture(os.path.join(scenes, row["name"]), row["class"], row["odd"] or TERRAIN,
                            row["scene"], "") for row in csv.DictReader(stream)]
    return _with_junk_and_copies(pictures, os.path.join(folder, "drawn-made"))


def tiles(folder: str) -> List[Picture]:
    """Crops of the real Mars tiles, each tile a scene, and spoilt frames and near-repeats of them.

    Empty where there are no tiles.
    """
    made, pictures = os.path.join(folder, "tiles-made"), []
    for path in sorted(glob.glob(TILES)):
        name = os.path.splitext(os.path.basename(path))[0]
        for number in range(CROPS):
            target = os.path.join(made, "%s-%d.jpg" % (name, number))
            _make(path, target, cropped)
            pictures.append(Picture(target, name[:9], TERRAIN, name, ""))
    return _with_junk_and_copies(pictures, made)


def _with_junk_and_copies(pictures: List[Picture], folder: str) -> List[Picture]:
    terrain = [picture for picture in pictures if picture.role == TERRAIN]
    copies = []
    for picture in terrain:
        name = os.path.splitext(os.path.basename(picture.path))[0]
        target = os.path.join(folder, name + "-again.jpg")
        _make(picture.path, target, nearly_repeated)
        copies.append(picture._replace(path=target, copy_of=picture.path))
    junk = []
    for kind, spoil in SPOILERS:
        for number, place in enumerate(np.linspace(0, len(terrain), JUNK_OF_A_KIND,
                                                   endpoint=False).astype(int) if terrain else ()):
            target = os.path.join(folder, "%s-%02d.jpg" % (kind.replace(" ", "-"), number))
            _make(terrain[place].path, target, spoil)
            junk.append(Picture(target, kind, JUNK, "junk " + os.path.basename(target), ""))
    return pictures + copies + junk


def _make(source: str, target: str, change: Callable) -> None:
    """Write `change` of the picture at `source` to `target`, if it is not there yet."""
    if os.path.exists(target):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    seed = int.from_bytes(hashlib.sha256(os.path.basename(target).encode()).digest()[:4], "little")
    with Image.open(source) as image:
        made = change(image.convert("RGB"), np.random.RandomState(seed))
    made.save(target + ".part", "JPEG", quality=JPEG_QUALITY)
    os.replace(target + ".part", target)


# ---- what is made of a picture: each takes an RGB image and a generator and returns another ------


def cropped(image: Image.Image, random: np.random.RandomState) -> Image.Image:
    """Another look at the same place: four fifths of it or more, at times mirrored, other light."""
    share = random.uniform(0.8, 0.95)
    return _window(image, share, random, random.randint(2) == 1, random.uniform(0.9, 1.1))


def nearly_repeated(image: Image.Image, random: np.random.RandomState) -> Image.Image:
    """The next frame of a burst: the camera moved by a hair, the light by a shade."""
    return _window(image, random.uniform(0.985, 0.998), random, False, random.uniform(0.98, 1.02))


def _window(image, share, random, mirrored, gain) -> Image.Image:
    width, height = (int(side * share) for side in image.size)
    left, top = random.randint(image.width - width + 1), random.randint(image.height - height + 1)
    part = image.crop((left, top, left + width, top + height)).resize(image.size, Image.BICUBIC)
    part = part.transpose(Image.FLIP_LEFT_RIGHT) if mirrored else part
    return part.point(lambda value: value * gain)


def over_exposed(image: Image.Image, random: np.random.RandomState) -> Image.Image:
    gain = random.uniform(3.5, 6)
    return image.point(lambda value: value * gain)


def blank(image: Image.Image, random: np.random.RandomState) -> Image.Image:
    """A cap before the lens, or a wall of sky: one tone and the sensor's noise."""
    tone = random.uniform(20, 230, 3)
    pixels = tone + random.normal(0, 1.5, (image.height, image.width, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def blurred(image: Image.Image, random: np.random.RandomState) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(image.width * random.uniform(0.02, 0.04)))


def noise(image: Image.Image, random: np.random.RandomState) -> Image.Image:
    """Static instead of the picture."""
    return Image.fromarray(random.randint(0, 256, (image.height, image.width, 3)).astype(np.uint8))


SPOILERS = (("over-exposed", over_exposed), ("blank", blank), ("blurred", blurred),
            ("noise", noise))  # type: Tuple[Tuple[str, Callable], ...]


# ---- what the rover makes of the files -----------------------------------------------------------


def read(pictures: Sequence[Picture], model: Model, cache: str) -> Pool:
    """Decode, measure and embed the files as the daemon does; once for each network.

    `cache` is a file; it is made anew where a picture, the network or the code that reads changed.
    """
    made_by = _made_by(pictures, model)
    held = _held(cache, made_by)
    if held is None:
        held = dict(_embed(pictures, model), made_by=np.array(made_by))
        os.makedirs(os.path.dirname(cache), exist_ok=True)
        with open(cache + ".part", "wb") as stream:
            np.savez(stream, **held)
        os.replace(cache + ".part", cache)
    return Pool(list(pictures), held["sha256"], held["bytes"], held["embeddings"],
                held["measures"])


def _made_by(pictures, model) -> str:
    digest = hashlib.sha256(model.space.encode())
    for module in (frame, quality):
        with open(module.__file__, "rb") as stream:
            digest.update(stream.read())
    for picture in pictures:
        with open(picture.path, "rb") as stream:
            digest.update(hashlib.sha256(stream.read()).digest())
    return digest.hexdigest()


def _held(cache, made_by):
    if not os.path.exists(cache):
        return None
    with np.load(cache) as held:
        return dict(held) if str(held["made_by"]) == made_by else None


def _embed(pictures, model):
    size, embeddings, frames = (model.recipe.input_width, model.recipe.input_height), [], []
    with open_embedder("onnxruntime", model, BATCH) as embedder:
        for start in range(0, len(pictures), BATCH):
            batch = [frame.load(picture.path, size[0], size[1], resample=model.recipe.resample,
                                examine=quality.measure)
                     for picture in pictures[start:start + BATCH]]
            embeddings.append(embedder.embed(np.stack([one.pixels for one in batch])))
            frames += [one._replace(pixels=None) for one in batch]
    return {"sha256": np.array([one.sha256 for one in frames]),
            "bytes": np.array([one.bytes for one in frames], np.int64),
            "embeddings": np.concatenate(embeddings),
            "measures": np.array([one.examined for one in frames], np.float32)}
