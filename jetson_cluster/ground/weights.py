"""Weights files of any supported kind, read into one form.

In: a path to a Keras .h5 file, a torch state dict (.pth, .pt or .safetensors) or a TensorFlow.js
layers-model folder. Out: `Weights`, named numpy arrays in the file's own order. No file is ever
executed: pickles are read with an allow-list, JavaScript is parsed as data.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import h5py
import numpy as np
import safetensors
import safetensors.numpy

from jetson_cluster.errors import UserError
from jetson_cluster.files import sha256_of
from jetson_cluster.ground import tfjs, torch_file
from jetson_cluster.ground.graph import Convolution

TORCH_SUFFIXES = (".pth", ".pt")
KERAS_SUFFIXES = (".h5", ".hdf5")
KINDS = "a Keras .h5, a torch .pth or .safetensors file, or a TensorFlow.js model folder"


@dataclass(frozen=True)
class Weights:
    """Named arrays. `style` says whose names and layouts they have.

    "keras": "layer/weight" in the order of the model's layers, kernels [rows, columns, in, out];
    "torch": state dict names, kernels [out, in, rows, columns].
    """

    path: str
    style: str
    sha256: str
    tensors: Dict[str, np.ndarray] = field(repr=False)

    def get(self, name: str) -> np.ndarray:
        """One array as float32. Raises UserError when it is missing or not made of numbers."""
        if name not in self.tensors:
            raise UserError(f"weights {self.path}: there is no tensor '{name}'; "
                            "is it another network's file?")
        array = self.tensors[name]
        if array.dtype.kind not in "fiu":
            raise UserError(f"weights {self.path}: '{name}' is {array.dtype}, not numbers")
        return array.astype(np.float32)

    def keras_layers_with(self, weight: str, ndim: int) -> List[str]:
        """Names of the layers that hold `weight` with that many axes, in the file's order."""
        suffix = "/" + weight
        return [name[:-len(suffix)] for name, array in self.tensors.items()
                if name.endswith(suffix) and array.ndim == ndim]

    def keras_convolution(self, conv: str, norm: str) -> Convolution:
        """A Conv2D layer without bias and its BatchNormalization layer."""
        self._no_bias(f"{conv}/bias")
        kernel = self.get(f"{conv}/kernel").transpose(3, 2, 0, 1)
        return self._convolution(conv, kernel, norm, f"{norm}/gamma", f"{norm}/beta",
                                 f"{norm}/moving_mean", f"{norm}/moving_variance")

    def torch_convolution(self, conv: str, norm: str) -> Convolution:
        """A Conv2d without bias and its BatchNorm2d."""
        self._no_bias(f"{conv}.bias")
        kernel = self.get(f"{conv}.weight")
        return self._convolution(conv, kernel, norm, f"{norm}.weight", f"{norm}.bias",
                                 f"{norm}.running_mean", f"{norm}.running_var")

    def expect_shape(self, name: str, array: np.ndarray, shape: Tuple[int, ...]) -> None:
        """Raise UserError unless the array has that shape."""
        if array.shape != tuple(shape):
            raise UserError(f"weights {self.path}: '{name}' has shape {_by(array.shape)}, "
                            f"{_by(shape)} is needed")

    def _convolution(self, conv: str, kernel: np.ndarray, norm: str, gamma: str, beta: str,
                     mean: str, variance: str) -> Convolution:
        channels = kernel.shape[:1]
        vectors: Dict[str, Optional[np.ndarray]] = {}
        # Keras's own InceptionV3 trains its batch normalisation without a scale.
        optional = self.style == "keras"
        for key, name in (("gamma", gamma), ("beta", beta), ("mean", mean), ("variance", variance)):
            if key == "gamma" and optional and name not in self.tensors:
                vectors[key] = None
                continue
            vectors[key] = self.get(name)
            self.expect_shape(name, vectors[key], channels)
        return Convolution(conv, kernel, **vectors)

    def _no_bias(self, name: str) -> None:
        if name in self.tensors:
            raise UserError(f"weights {self.path}: '{name}' should not be there: this network's "
                            "convolutions have no bias; is it another network's file?")


def read(path: Path) -> Weights:
    """Read a weights file or folder; its kind is told by its name. Raises UserError."""
    path = Path(path)
    if path.name == "model.json":
        path = path.parent
    if path.is_dir():
        return Weights(str(path), "keras", _folder_sha256(path), tfjs.read_folder(path))
    suffix = path.suffix.lower()
    readers = {**{s: ("keras", _read_keras) for s in KERAS_SUFFIXES},
               **{s: ("torch", torch_file.read) for s in TORCH_SUFFIXES},
               ".safetensors": ("torch", _read_safetensors)}
    if suffix not in readers:
        raise UserError(f"weights {path}: cannot tell what it is; known: {KINDS}")
    style, reader = readers[suffix]
    try:
        return Weights(str(path), style, sha256_of(path), reader(path))
    except OSError as error:
        raise UserError(f"weights {path}: cannot be read: {error.strerror or error}") from error


def _read_keras(path: Path) -> Dict[str, np.ndarray]:
    """Keras's legacy HDF5 layout: attribute `layer_names`, and `weight_names` of each layer.

    A whole model saved to .h5 has the same below `model_weights`.
    """
    if not h5py.is_hdf5(path):
        with open(path, "rb"):  # a file that cannot be opened is not "of another kind"
            pass
        raise UserError(f"weights {path}: not an HDF5 file")
    tensors: Dict[str, np.ndarray] = {}
    try:
        with h5py.File(path, "r") as file:
            root = file["model_weights"] if "model_weights" in file else file
            layers = _attribute(root, "layer_names")
            if not layers:
                raise UserError(f"weights {path}: HDF5, but not Keras's layout of weights (no "
                                "attribute 'layer_names'); Keras 3 writes it with model.save"
                                "('model.h5')")
            for layer in map(_text, layers):
                for name in map(_text, _attribute(root[layer], "weight_names")):
                    short = name.rsplit("/", 1)[-1].split(":")[0]
                    tensors[f"{layer}/{short}"] = root[layer][name][()]
    except (OSError, KeyError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"weights {path}: damaged HDF5 file: {_one_line(error)}") from error
    return tensors


def _attribute(group: "h5py.Group", name: str) -> List[object]:
    """Keras splits a list that is too long for one attribute into name0, name1, ..."""
    if name in group.attrs:
        return list(group.attrs[name])
    values: List[object] = []
    while f"{name}{len(values)}" in group.attrs:
        values.append(group.attrs[f"{name}{len(values)}"])
    return [item for chunk in values for item in chunk]


def _read_safetensors(path: Path) -> Dict[str, np.ndarray]:
    try:
        return dict(safetensors.numpy.load_file(path))
    except safetensors.SafetensorError as error:
        raise UserError(f"weights {path}: not a whole safetensors file: {_one_line(error)}"
                        ) from error


def _folder_sha256(folder: Path) -> str:
    """One hash for the files a model folder is made of, whatever else lies in it."""
    digest = hashlib.sha256()
    for path in tfjs.model_files(folder):
        digest.update(f"{sha256_of(path)}  {path.name}\n".encode())
    return digest.hexdigest()


def _text(value: object) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _by(shape: Tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
