"""What the ground tests share: weights fetched once into a cache, networks exported once, images.

Weights are kept under $JETSON_CLUSTER_CACHE, by default `.cache` in the checkout, which git
ignores.
"""

import importlib.util
import os
import pathlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("JETSON_CLUSTER_CACHE", str(ROOT / ".cache"))
# Keras decides when it is imported what it computes with.
os.environ.setdefault("KERAS_BACKEND", "torch" if importlib.util.find_spec("torch") else "jax")


@pytest.fixture(scope="session")
def engines(root):
    """The folder of recipes."""
    return root / "engines"


def _weights(recipe_path, source):
    from jetson_cluster import recipe as recipes
    from jetson_cluster.errors import WorldError
    from jetson_cluster.ground import sources, weights
    try:
        with sources.local_weights(source, recipes.load(recipe_path)) as path:
            return weights.read(path)
    except WorldError as error:
        pytest.skip(f"the weights cannot be had: {error}")


@pytest.fixture(scope="session")
def nsfwjs_weights(engines):
    """InceptionV3's weights from the npm package."""
    return _weights(engines / "inception_v3.yaml", "nsfwjs")


@pytest.fixture(scope="session")
def lite0_weights(engines):
    """EfficientNet-Lite0's weights from the PyPI package."""
    return _weights(engines / "efficientnet_lite0.yaml", "imagenet")


@pytest.fixture(scope="session")
def exported(engines, tmp_path_factory):
    """(recipe's stem, source, layer, grid) -> Model, each exported once a session."""
    from jetson_cluster.errors import WorldError
    from jetson_cluster.ground import export
    folder = tmp_path_factory.mktemp("exported")
    models = {}

    def get(name, source, layer=None, grid=False):
        key = (name, str(source), layer, grid)
        if key not in models:
            out = folder / f"{len(models)}.onnx"
            try:
                models[key] = export.export(engines / f"{name}.yaml", str(source), out, layer, grid)
            except WorldError as error:
                pytest.skip(f"the weights cannot be had: {error}")
        return models[key]

    return get


@pytest.fixture(scope="session")
def run_onnx():
    """(model path, uint8 images [N, H, W, 3]) -> the network's output, by ONNX Runtime."""
    import onnxruntime

    def run(path, images):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"])
        frames = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32)
        return session.run(None, {"image": frames})[0]

    return run


@pytest.fixture(scope="session")
def pictures(root):
    """size -> uint8 [N, size, size, 3]: real Mars tiles where they are, and drawn extremes."""
    tiles = sorted((root.parent / "shared" / "mars").glob("cluster*_0.png"))[::3]

    def get(size):
        images = [Image.open(tile).convert("RGB").resize((size, size), Image.BICUBIC)
                  for tile in tiles]
        return np.stack([np.asarray(image) for image in images] + _drawn(size))

    return get


def _drawn(size):
    """A bright disc on black, a gradient with hard bars, and noise to the edge."""
    disc = Image.new("RGB", (size, size))
    ImageDraw.Draw(disc).ellipse([size // 5, size // 4, size - 9, size - 30], fill=(255, 200, 90))
    bars = Image.linear_gradient("L").resize((size, size)).convert("RGB")
    for x in range(0, size, 40):
        ImageDraw.Draw(bars).rectangle([x, 0, x + 11, size], fill=(x % 256, 30, 180))
    noise = np.random.default_rng(7).integers(0, 256, (size, size, 3), np.uint8)
    return [np.asarray(disc), np.asarray(bars), noise]
