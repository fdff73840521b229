"""The rover makes of a file what the workstation made of it: a codebook fitted there holds here.

tools/test draws pictures and embeds them in its main environment (tools/lib/embed_pictures.py);
these tests do the same wherever they run, with the rover's old libraries above all.
"""

import pathlib

import numpy as np
import pytest

from jetson_cluster import frame, recipe
from jetson_cluster.embedder import open_embedder


@pytest.fixture(scope="module")
def model(lite0):
    """EfficientNet-Lite0."""
    pytest.importorskip("onnxruntime")
    return recipe.load_model(lite0)


@pytest.fixture(scope="module")
def pictures(lite0):
    """The folder of drawn pictures."""
    folder = pathlib.Path(lite0).parent / "pictures"
    if not folder.is_dir():
        pytest.skip("no pictures to compare; tools/test draws them in " + str(folder))
    return folder


@pytest.fixture(scope="module")
def workstation(pictures):
    """What the workstation made of the pictures: names, frames, embeddings."""
    with np.load(str(pictures) + ".npz") as made:
        return {name: made[name] for name in made.files}


def least_cosine(ours, theirs):
    """The smallest cosine between embeddings of the same picture."""
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return ((ours * theirs).sum(axis=1) / lengths).min()


def embed(model, frames):
    """Embeddings by ONNX Runtime, which every environment has."""
    with open_embedder("onnxruntime", model, 8) as embedder:
        return embedder.embed(frames)


def test_equal_pixels_give_equal_embeddings_on_every_python(model, workstation):
    ours = embed(model, workstation["frames"])
    assert least_cosine(ours, workstation["embeddings"]) > 0.99999


def test_a_camera_file_lands_in_the_same_place_of_the_embedding_space(
        model, pictures, workstation):
    size = (model.recipe.input_width, model.recipe.input_height)
    frames = np.stack(
        [frame.load(str(pictures / name), *size).pixels for name in workstation["names"]]
    )
    cosine = least_cosine(embed(model, frames), workstation["embeddings"])
    print("least cosine between here and the workstation, decoders and all: {:.6f}".format(cosine))
    # The decoders differ: Pillow 8.4.0's wheels carry libjpeg 9, later ones libjpeg-turbo. That
    # moves pixels by 0.2 on average and 4 at most, and the worst of these embeddings to 0.99909;
    # the runtimes hardly matter (above). Where both sides decode alike it is 1.
    assert cosine >= 0.998


def test_different_pictures_lie_further_apart_than_that(workstation):
    embeddings = workstation["embeddings"]
    assert least_cosine(embeddings[:-1], embeddings[1:]) < 0.9
