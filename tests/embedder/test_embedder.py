"""One interface whatever computes: the same embeddings, the same refusals, the fastest taken."""

import importlib.util
from typing import NamedTuple

import numpy as np
import pytest

from jetson_cluster import embedder as embedders
from jetson_cluster import recipe
from jetson_cluster.embedder import (
    LEAST_COSINE, RUNTIMES, choose, least_cosine, open_embedder, probe_frames)
from jetson_cluster.embedder.base import Embedder
from jetson_cluster.errors import UserError, WorldError

PRESENT = [name for name in RUNTIMES
           if importlib.util.find_spec(name.split("-")[0]) is not None]


@pytest.fixture(params=PRESENT)
def runtime(request):
    return request.param


@pytest.fixture
def model(tiny):
    return recipe.load_model(tiny)


def frames(count, size=32, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (count, size, size, 3)).astype(np.uint8)


def test_the_embedding_is_what_the_network_computes(runtime, model):
    """The tiny network is the mean colour of each cell of a 4 x 4 grid, known without a runtime."""
    pictures = frames(3)
    cells = pictures.reshape(3, 4, 8, 4, 8, 3).mean(axis=(2, 4))
    with open_embedder(runtime, model, 8) as embedder:
        embeddings = embedder.embed(pictures)
    assert embeddings.dtype == np.float32 and embeddings.flags.c_contiguous
    assert np.allclose(embeddings, cells.transpose(0, 3, 1, 2).reshape(3, 48), rtol=0.01)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 17])
def test_any_number_of_frames_gives_as_many_embeddings_in_order(runtime, model, count):
    pictures = frames(count)
    with open_embedder(runtime, model, 8) as embedder:
        together = embedder.embed(pictures)
        alone = [embedder.embed(pictures[place:place + 1])[0] for place in range(count)]
    assert together.shape == (count, 48)
    assert np.allclose(together, np.array(alone).reshape(count, 48), rtol=1e-3)


@pytest.mark.parametrize("wrong", [
    np.zeros((1, 32, 32, 3), np.float32), np.zeros((32, 32, 3), np.uint8),
    np.zeros((1, 31, 32, 3), np.uint8), np.zeros((1, 3, 32, 32), np.uint8)])
def test_frames_of_another_shape_or_type_are_named_in_the_error(runtime, model, wrong):
    with open_embedder(runtime, model, 8) as embedder:
        with pytest.raises(ValueError, match=r"expected uint8 \(N, 32, 32, 3\)"):
            embedder.embed(wrong)


def test_two_embeddings_of_nothing_agree_and_one_agrees_with_no_other():
    nothing, something = np.zeros((2, 4), np.float32), np.ones((2, 4), np.float32)
    assert least_cosine(nothing, nothing) == 1
    assert least_cosine(nothing, something) == 0


def test_closing_twice_is_fine_and_embedding_afterwards_is_not(runtime, model):
    embedder = open_embedder(runtime, model, 8)
    embedder.close()
    embedder.close()
    with pytest.raises(ValueError):
        embedder.embed(frames(1))


def test_a_recipe_that_names_another_dimension_is_told_what_to_set(runtime, model):
    wrong = model._replace(recipe=model.recipe._replace(dimension=47))
    with pytest.raises(UserError, match="dimension: 48"):
        open_embedder(runtime, wrong, 8)


def test_a_file_that_is_no_network_is_the_users_error_and_named(runtime, model, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(UserError, match="broken.onnx"):
        open_embedder(runtime, model._replace(onnx_path=str(broken)), 8)


class Claimed(Embedder):
    """An embedder whose output and speed are given."""

    def __init__(self, name, model, output):
        super().__init__(model, 8)
        self.name, self._output = name, output

    def _activate(self):
        pass

    def _embed(self, pictures):
        return np.repeat(self._output[None], len(pictures), axis=0)

    def _close(self):
        pass


class Tried(NamedTuple):
    """What `choose` is given."""

    embedder: Embedder
    embeddings: np.ndarray
    seconds: float


def tried(name, model, seconds, error=0.0):
    output = np.ones(48, np.float32)
    output[0] += error
    return Tried(Claimed(name, model, output), np.repeat(output[None], 4, axis=0), seconds)


def test_the_fastest_runtime_that_agrees_is_taken(model):
    slow, fast = tried("slow", model, 2.0), tried("fast", model, 1.0)
    assert choose([slow, fast]) is fast.embedder
    assert choose([fast, slow]) is fast.embedder


def test_a_fast_runtime_whose_embeddings_differ_is_not_taken(model):
    reference, wrong = tried("reference", model, 2.0), tried("wrong", model, 0.1, error=3.0)
    assert least_cosine(reference.embeddings, wrong.embeddings) < LEAST_COSINE
    assert choose([reference, wrong]) is reference.embedder


def test_a_network_that_gives_no_numbers_is_found_at_the_start(monkeypatch, model):
    broken = Claimed("broken", model, np.full(48, np.nan, np.float32))
    monkeypatch.setattr(embedders, "_make", lambda *arguments: broken)
    with pytest.raises(WorldError, match="not finite"):
        open_embedder("broken", model, 8)


def test_auto_does_without_a_runtime_that_cannot_load_the_model(monkeypatch, model):
    def make(name, *arguments):
        if name != "onnxruntime":
            raise UserError("an operator that %s does not know" % name)
        return Claimed(name, model, np.ones(48, np.float32))

    monkeypatch.setattr(embedders, "_make", make)
    with open_embedder("auto", model, 8) as embedder:
        assert embedder.name == "onnxruntime"


def test_probe_frames_are_the_same_every_time_and_differ_from_one_another(model):
    probes = probe_frames(model.recipe)
    assert probes.dtype == np.uint8 and (probes == probe_frames(model.recipe)).all()
    assert len(np.unique(probes.reshape(len(probes), -1), axis=0)) == len(probes)


def test_auto_opens_one_of_the_runtimes_present(model):
    with open_embedder("auto", model, 8) as embedder:
        assert embedder.name in PRESENT


def test_a_real_network_gives_the_same_embeddings_in_every_runtime(lite0):
    network = recipe.load_model(lite0)
    pictures = probe_frames(network.recipe)
    found = {}
    for name in PRESENT:
        with open_embedder(name, network, 8) as embedder:
            found[name] = embedder.embed(pictures)
    for name, embeddings in found.items():
        # bfloat16 may differ by more than `auto` accepts; it must still be the same network.
        assert least_cosine(found["onnxruntime"], embeddings) > (
            0.998 if name == "openvino" else 0.99999)
