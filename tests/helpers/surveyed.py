"""Small corpora of drawn pictures whose clusters are known, for the tests of the report.

A corpus is written as `embed` writes it, but its embeddings are made up: one axis for each kind of
picture and a little noise, so that the codebook's clusters are the kinds.
"""

import hashlib
import io
import os

import numpy as np
from PIL import Image, ImageDraw

from jetson_cluster import codebook, recipe
from jetson_cluster.ground.corpus import shards
from jetson_cluster.ground.corpus.shards import Row

SPACE, DIMENSION, KINDS = "net/layer@0123456789abcdef", 16, 4
COLOURS = ((186, 120, 74), (120, 96, 84), (204, 168, 120), (98, 98, 112))
SOUND = (0.0, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0)  # quality.Measures of a frame with nothing wrong


def codebook_of(path, kinds=KINDS, r95=1.9):
    """One centroid along each axis; saved to `path`, a str."""
    ramp = np.linspace(0, 1, codebook.QUANTILE_POINTS).astype(np.float32)
    made = codebook.Codebook(
        space=SPACE, normalisation="l2", centroids=0.95 * np.eye(kinds, DIMENSION).astype("f4"),
        counts=np.full(kinds, 10), scales=np.full(kinds, 0.3, np.float32),
        novelty_quantiles=2 * ramp, margin_quantiles=ramp, r50=1.0, r95=r95)
    codebook.save(str(path), made)
    return made


def picture(kind, seed, size=(120, 80)):
    """A drawn picture of its kind."""
    random = np.random.RandomState(seed)
    image = Image.new("RGB", size, COLOURS[kind % len(COLOURS)])
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, reach = random.randint(0, size[0]), random.randint(0, size[1]), random.randint(2, 15)
        pen.ellipse([x, y, x + reach, y + 0.7 * reach], fill=tuple(
            int(level * random.uniform(0.5, 1.2)) for level in COLOURS[kind % len(COLOURS)]))
    return image


def embedding(kind, seed, noise=0.08):
    """float16 [16] near the axis of its kind."""
    random = np.random.RandomState(seed)
    return (7 * (np.eye(DIMENSION)[kind] + noise * random.standard_normal(DIMENSION))).astype("f2")


def coded(image, format="WEBP"):
    """The bytes of a picture's file."""
    stream = io.BytesIO()
    image.save(stream, format)
    return stream.getvalue()


def thumbnail(image):
    """As a corpus has them."""
    small = image.copy()
    small.thumbnail((96, 96))
    return coded(small)


def row(path, kind, seed, captured_at="", measures=SOUND, vector=None):
    """The row of a picture that is drawn to `path`, any file name the system allows."""
    image = picture(kind, seed)
    content = coded(image, "PNG")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(os.fsencode(path), "wb") as stream:
        stream.write(content)
    return Row(path, hashlib.sha256(content).hexdigest(), len(content), 1, image.width, image.height,
               captured_at, np.array(measures, np.float16), thumbnail(image),
               embedding(kind, seed) if vector is None else np.asarray(vector, np.float16))


def write_corpus(folder, rows, failed=(), complete=True, shard_images=1024):
    """A corpus of these rows at `folder`; returns the folder's path, a str."""
    folder = str(folder)
    os.makedirs(folder)
    for number, start in enumerate(range(0, len(rows), shard_images), 1):
        shards.write_shard(folder, number, shards.table_of(rows[start:start + shard_images],
                                                           DIMENSION), SPACE)
    made_by = recipe.Recipe(
        name="net", path="", network="other", input_width=8, input_height=8, resample="bilinear",
        mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), layer="layer", dimension=DIMENSION, max_batch=1,
        precision="fp32", weights={}, layers=(), built=None)
    shards.write_failed(folder, failed)
    shards.write_description(folder, recipe.Model("", made_by, "0" * 64, SPACE), complete)
    return folder
