"""Weights of every kind read into one form, and each unusable file refused in one line that names
it."""

import json

import h5py
import numpy as np
import pytest
import safetensors.numpy

from jetson_cluster.errors import UserError
from jetson_cluster.files import sha256_of
from jetson_cluster.ground import weights as weights_files
from jetson_cluster.ground.weights import Weights


def refusal(path):
    with pytest.raises(UserError) as caught:
        weights_files.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def write_h5(path, layers, prefix=""):
    """Keras's legacy layout: {layer: {weight: array}}."""
    with h5py.File(path, "w") as file:
        root = file.create_group(prefix) if prefix else file
        root.attrs["layer_names"] = [name.encode() for name in layers]
        for layer, tensors in layers.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{short}:0".encode() for short in tensors]
            for short, array in tensors.items():
                group[f"{layer}/{short}:0"] = array
    return path


LAYERS = {"z_conv": {"kernel": np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)},
          "activation": {}, "a_norm": {"beta": np.ones(4), "moving_mean": np.zeros(4),
                                       "moving_variance": np.full(4, 2.0)}}


@pytest.mark.parametrize("prefix", ["", "model_weights"], ids=["weights", "whole model"])
def test_a_keras_file_keeps_the_order_of_its_layers(tmp_path, prefix):
    found = weights_files.read(write_h5(tmp_path / "w.h5", LAYERS, prefix))
    assert (found.style, found.sha256) == ("keras", sha256_of(str(tmp_path / "w.h5")))
    assert list(found.tensors) == ["z_conv/kernel", "a_norm/beta", "a_norm/moving_mean",
                                   "a_norm/moving_variance"]
    source = found.keras_convolution("z_conv", "a_norm")
    assert source.kernel.shape == (4, 3, 1, 2) and source.gamma is None
    assert source.kernel[3, 2, 0, 1] == 23  # [out, in, row, column] of [row, column, in, out]


def test_layer_names_that_keras_split_over_attributes_are_joined(tmp_path):
    path = write_h5(tmp_path / "w.h5", LAYERS)
    with h5py.File(path, "a") as file:
        names = list(file.attrs["layer_names"])
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:2], names[2:]
    assert list(weights_files.read(path).tensors)[0] == "z_conv/kernel"
    assert len(weights_files.read(path).tensors) == 4


def test_safetensors_are_read(tmp_path):
    path = tmp_path / "w.safetensors"
    arrays = {"a.weight": np.ones((2, 3), np.float16), "b": np.arange(3.0)}
    safetensors.numpy.save_file(arrays, path)
    found = weights_files.read(path)
    assert found.style == "torch"
    assert found.get("a.weight").dtype == np.float32 and found.get("b")[2] == 2


@pytest.fixture
def folder(tmp_path):
    """A TensorFlow.js layers model of one weight in one shard."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps({
        "modelTopology": {"model_config": {"config": {"layers": [{"config": {"name": "l"}}]}}},
        "weightsManifest": [{"paths": ["shard.bin"], "weights": [
            {"name": "l/w", "shape": [2], "dtype": "float32"}]}]}))
    (folder / "shard.bin").write_bytes(np.array([1, 2], "<f4").tobytes())
    return folder


def test_a_model_json_stands_for_its_folder(folder):
    whole, pointed = weights_files.read(folder), weights_files.read(folder / "model.json")
    assert whole.sha256 == pointed.sha256 and whole.style == "keras"
    np.testing.assert_array_equal(pointed.get("l/w"), [1, 2])


def test_a_folders_hash_covers_every_file_of_the_model_and_no_other(folder):
    before = weights_files.read(folder).sha256
    (folder / "README.txt").write_text("notes")
    assert weights_files.read(folder).sha256 == before
    (folder / "shard.bin").write_bytes(np.array([1, 3], "<f4").tobytes())
    changed = weights_files.read(folder).sha256
    assert changed != before
    (folder / "model.json").write_text((folder / "model.json").read_text() + " ")
    assert weights_files.read(folder).sha256 not in (before, changed)


def test_a_suffix_that_says_nothing_is_refused_with_what_is_known(tmp_path):
    path = tmp_path / "weights.ckpt"
    path.write_bytes(b"x")
    assert "a Keras .h5, a torch .pth" in refusal(path)


@pytest.mark.parametrize("suffix", [".h5", ".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><p>404</p>", b"\x00" * 4000])
def test_a_file_of_another_kind_than_its_name_says_is_refused(tmp_path, suffix, content):
    path = tmp_path / ("weights" + suffix)
    path.write_bytes(content)
    refusal(path)


@pytest.mark.parametrize("suffix", [".h5", ".pth", ".safetensors"])
def test_a_missing_file_is_refused(tmp_path, suffix):
    assert "cannot be read: No such file" in refusal(tmp_path / ("absent" + suffix))


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_a_truncated_keras_file_is_refused(tmp_path, keep):
    path = write_h5(tmp_path / "w.h5", LAYERS)
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size * keep)])
    assert "damaged HDF5" in refusal(path)


@pytest.mark.parametrize("keep", [0.1, 0.6, 0.95])
def test_a_truncated_safetensors_file_is_refused(tmp_path, keep):
    path = tmp_path / "w.safetensors"
    safetensors.numpy.save_file({"a": np.ones(100)}, path)
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size * keep)])
    assert "not a whole safetensors file" in refusal(path)


def test_hdf5_that_is_not_kerass_layout_is_told_apart(tmp_path):
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = np.ones(3)
    assert "layer_names" in refusal(path)


def test_a_layer_that_the_keras_file_names_but_lacks_is_refused(tmp_path):
    path = write_h5(tmp_path / "w.h5", LAYERS)
    with h5py.File(path, "a") as file:
        del file["a_norm"]
    assert "damaged HDF5" in refusal(path)


def torch_weights(**changes):
    tensors = {"c.weight": np.ones((4, 3, 1, 1)), "n.weight": np.ones(4), "n.bias": np.zeros(4),
               "n.running_mean": np.zeros(4), "n.running_var": np.ones(4)}
    tensors.update(changes)
    kept = {name: array for name, array in tensors.items() if array is not None}
    return Weights("somewhere.pth", "torch", "", kept)


def test_a_convolution_is_gathered_with_its_batch_norm():
    source = torch_weights().torch_convolution("c", "n")
    assert source.kernel.dtype == np.float32 and source.gamma.shape == (4,)


@pytest.mark.parametrize("changes, part", [
    ({"n.weight": None}, "no tensor 'n.weight'"),
    ({"c.weight": None}, "no tensor 'c.weight'"),
    ({"n.running_var": np.ones(5)}, "'n.running_var' has shape 5, 4 is needed"),
    ({"n.bias": np.zeros((4, 1))}, "'n.bias' has shape 4x1, 4 is needed"),
    ({"n.bias": np.array(["a"] * 4)}, "'n.bias' is <U1, not numbers"),
    ({"c.bias": np.zeros(4)}, "'c.bias' should not be there"),
])
def test_a_wrong_tensor_is_named(changes, part):
    with pytest.raises(UserError, match="somewhere.pth") as caught:
        torch_weights(**changes).torch_convolution("c", "n")
    assert part in str(caught.value)
