"""Reads a torch state dict (.pth) without torch and without running what the file says.

In: a file written by `torch.save`, in the zip form (torch 1.6 and newer) or the older one. Out:
name -> numpy array. A pickle is a program; the reader here knows only the handful of names that a
state dict is made of and refuses any other before it is called.
"""

import collections
import io
import math
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, Callable, Dict, List, NamedTuple, Tuple

import numpy as np

from jetson_cluster.errors import UserError

# torch/serialization.py: what the older form begins with.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_DTYPES = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "BFloat16Storage": "<u2",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "<i1",
    "ByteStorage": "<u1", "BoolStorage": "|b1",
}


class _StorageType(NamedTuple):
    """Stands for torch.FloatStorage and its like; never called."""

    name: str


class _Storage(NamedTuple):
    """A block of numbers in the file, by key; its bytes come later in the older form."""

    type_name: str
    key: str
    count: int


class _Tensor(NamedTuple):
    """A view of a storage, in elements."""

    storage: _Storage
    offset: int
    shape: Tuple[int, ...]
    strides: Tuple[int, ...]


def read(path: Path) -> Dict[str, np.ndarray]:
    """The state dict in `path`, or the one under its key "state_dict".

    Raises UserError for a file that is none, OSError for one that cannot be read.
    """
    # Into memory first: an OSError is then the disk's, not that of a damaged file's wild seek.
    data = Path(path).read_bytes()
    reader = _read_zip if data.startswith(b"PK\x03\x04") else _read_legacy
    try:
        content, storages = reader(io.BytesIO(data), path)
        return {name: _array(name, tensor, storages)
                for name, tensor in _state_dict(content, path).items()}
    except (pickle.UnpicklingError, EOFError, zipfile.BadZipFile, KeyError, IndexError, TypeError,
            ValueError, AttributeError, ImportError, struct.error, OverflowError,
            NotImplementedError, RuntimeError, MemoryError, zlib.error) as error:
        # What a damaged pickle or zip raises is not one class; each means the file is unusable.
        detail = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"weights {path}: not a whole torch state dict: {detail}") from error


class _Unpickler(pickle._Unpickler):
    """Unpickles the names a state dict needs and no others.

    The Python form of the standard library's unpickler: the C form sets aside as much memory as a
    damaged or hostile file asks for (its memo is an array that grows to any index).
    """

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        super().__init__(stream, encoding="utf-8")
        self._path = path
        self.types: Dict[str, str] = {}  # of every storage met: its key and type

    def find_class(self, module: str, name: str) -> object:
        if module == "torch" and name in _DTYPES:
            return _StorageType(name)
        allowed: Dict[Tuple[str, str], Callable[..., object]] = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): lambda data, *rest: data,
        }
        if (module, name) not in allowed:
            raise UserError(f"weights {self._path}: refused: its pickle asks for "
                            f"'{module}.{name}', which no state dict needs")
        return allowed[(module, name)]

    def persistent_load(self, pid: object) -> _Storage:
        kind, storage_type, key, _location, count = tuple(pid)[:5]
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise ValueError("an unknown kind of stored object")
        self.types[str(key)] = storage_type.name
        return _Storage(storage_type.name, str(key), int(count))


def _rebuild_tensor(storage: _Storage, offset: int, shape: Tuple[int, ...],
                    strides: Tuple[int, ...], *_rest: object) -> _Tensor:
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _read_zip(stream: BinaryIO, path: Path) -> Tuple[object, Dict[str, bytes]]:
    with zipfile.ZipFile(stream) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise UserError(f"weights {path}: a zip file, but not one that torch.save wrote "
                            "(no data.pkl)")
        folder = pickles[0][:-len("data.pkl")]
        if f"{folder}byteorder" in archive.namelist():
            if archive.read(f"{folder}byteorder") != b"little":
                raise UserError(f"weights {path}: written on a big-endian machine")
        content = _Unpickler(io.BytesIO(archive.read(pickles[0])), path).load()
        prefix = f"{folder}data/"
        storages = {name[len(prefix):]: archive.read(name)
                    for name in archive.namelist() if name.startswith(prefix)}
    return content, storages


def _read_legacy(stream: BinaryIO, path: Path) -> Tuple[object, Dict[str, bytes]]:
    """magic, protocol, machine facts, the object, the storages' keys, then each storage's count
    (int64) and numbers."""
    header = [_Unpickler(stream, path).load() for _ in range(3)]
    if header[0] != _LEGACY_MAGIC or header[1] != _LEGACY_PROTOCOL:
        raise ValueError("it does not begin like one")
    if not header[2].get("little_endian", False):
        raise UserError(f"weights {path}: written on a big-endian machine")
    unpickler = _Unpickler(stream, path)
    content = unpickler.load()
    keys: List[str] = _Unpickler(stream, path).load()
    storages = {}
    for key in keys:
        (count,) = struct.unpack("<q", stream.read(8))
        size = count * np.dtype(_DTYPES[unpickler.types[key]]).itemsize
        storages[key] = stream.read(max(size, 0))
        if len(storages[key]) != size:
            raise ValueError(f"storage {key} is cut short")
    return content, storages


def _state_dict(content: object, path: Path) -> Dict[str, _Tensor]:
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise UserError(f"weights {path}: holds {type(content).__name__}, not a state dict; save "
                        "model.state_dict()")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, _Tensor)}
    if not tensors:
        raise UserError(f"weights {path}: a mapping without tensors, not a state dict")
    return tensors


def _array(name: str, tensor: _Tensor, storages: Dict[str, bytes]) -> np.ndarray:
    storage = tensor.storage
    flat = np.frombuffer(storages[storage.key], _DTYPES[storage.type_name])
    if len(tensor.shape) != len(tensor.strides) or min(
            (tensor.offset,) + tensor.shape + tensor.strides) < 0:
        raise ValueError(f"'{name}' has an impossible shape")
    if math.prod(tensor.shape) == 0:
        return np.zeros(tensor.shape, flat.dtype)
    # as_strided does not look where it reads: what the file claims must lie inside its storage.
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides))
    if last >= flat.size:
        raise ValueError(f"'{name}' reaches beyond its storage")
    array = np.lib.stride_tricks.as_strided(
        flat[tensor.offset:], tensor.shape, [s * flat.itemsize for s in tensor.strides]).copy()
    if storage.type_name == "BFloat16Storage":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array
