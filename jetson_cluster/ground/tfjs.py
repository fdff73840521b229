"""Reads a TensorFlow.js layers model: topology and weights, as data.

In: a folder with `model.json` and binary shards, or, as some npm packages ship it, `model.min.js`
and base64 shards in `.min.js` files. Out: "layer/weight" -> numpy array, in the order of the
model's layers, 8-bit and 16-bit weights expanded. JavaScript is never run: the one object literal
in it is rewritten to JSON by a tokenizer, and a shard is the one long string in its file.
"""

import base64
import binascii
import json
import math
import re
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np

from jetson_cluster.errors import UserError

_DTYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4", "uint8": "<u1", "uint16": "<u2",
           "bool": "|b1"}
_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)
      | (?P<boolean>![01])
      | (?P<word>[A-Za-z_$][\w$]*)
      | (?P<mark>[{}\[\]:,])""", re.VERBOSE | re.DOTALL)
_COLON = re.compile(r"\s*:")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0", "\n": ""}
_WORDS = {"true": "true", "false": "false", "null": "null"}
_LITERAL_START = re.compile(r"\.exports\s*=\s*(?=[{\[])")
_BASE64_STRING = re.compile(r"[\"']([A-Za-z0-9+/]+={0,2})[\"']")


def read_folder(folder: Path) -> Dict[str, np.ndarray]:
    """All weights of the model in `folder`, layers in the model's own order. Raises UserError."""
    model_path = _model_path(folder)
    description = _description(model_path)
    order = _layer_names(description, model_path)
    tensors: Dict[str, np.ndarray] = {}
    for group in _manifest(description, model_path):
        shards = [_shard(folder, name) for name in group["paths"]]
        tensors.update(_decode(group["weights"], b"".join(map(_shard_bytes, shards)), model_path))
    # Weights files list tensors alphabetically; what matters is where a layer stands in the model.
    position = {name: index for index, name in enumerate(order)}
    unknown = [name for name in tensors if name.rsplit("/", 1)[0] not in position]
    if unknown:
        raise UserError(f"weights {model_path}: '{unknown[0]}' belongs to no layer of the model")
    return dict(sorted(tensors.items(), key=lambda item: position[item[0].rsplit("/", 1)[0]]))


def model_files(folder: Path) -> List[Path]:
    """The model's description and its shards in the order they are read. Raises UserError."""
    model_path = _model_path(folder)
    groups = _manifest(_description(model_path), model_path)
    return [model_path] + [_shard(folder, name) for group in groups for name in group["paths"]]


def literal_to_json(source: str) -> str:
    """The JavaScript object or array literal at the start of `source`, rewritten as JSON text.

    Knows what minifiers write: bare keys, `!0` and `!1`, numbers without a leading zero, quotes of
    either kind. Anything that would have to be run (names, calls, operators) is refused with
    ValueError. What follows the literal is ignored.
    """
    pieces: List[str] = []
    depth, position = 0, 0
    while position < len(source):
        match = _TOKEN.match(source, position)
        if match is None:
            raise ValueError(f"not plain data at character {position}: {source[position]!r}")
        position = match.end()
        kind, text = match.lastgroup, match.group()
        if kind == "mark":
            depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(text, 0)
            pieces.append(text)
            if depth == 0:
                return "".join(pieces)
        elif kind == "word" and _COLON.match(source, position):
            pieces.append(json.dumps(text))
        elif kind == "word":
            if text not in _WORDS:
                raise ValueError(f"not plain data: the name '{text}'")
            pieces.append(_WORDS[text])
        elif kind != "space":
            pieces.append(_JSON_FORMS[kind](text))
        if depth == 0 and kind != "space":
            raise ValueError("it does not start with '{' or '['")
    raise ValueError("the literal does not end")


def _json_number(text: str) -> str:
    return str(int(text)) if text.lstrip("-").isdigit() else repr(float(text))


def _json_string(text: str) -> str:
    def unescape(match: "re.Match[str]") -> str:
        escaped = match.group(1)
        if len(escaped) > 1:
            return chr(int(escaped[1:], 16))
        return _ESCAPES.get(escaped, escaped)

    return json.dumps(_ESCAPE.sub(unescape, text[1:-1]))


_JSON_FORMS = {
    "number": _json_number, "string": _json_string,
    "boolean": {"!0": "true", "!1": "false"}.__getitem__,
}


def _model_path(folder: Path) -> Path:
    for name in ("model.json", "model.min.js", "model.js"):
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"weights {folder}: a folder without model.json or model.min.js, so not a "
                    "TensorFlow.js model")


def _description(path: Path) -> Dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".js":
            start = _LITERAL_START.search(text)
            if start is None:
                raise ValueError("no object is assigned to module.exports")
            text = literal_to_json(text[start.end():])
        content = json.loads(text)
    except OSError as error:
        raise UserError(f"weights {path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"weights {path}: not a TensorFlow.js model: {error}") from error
    if not isinstance(content, dict) or "weightsManifest" not in content:
        raise UserError(f"weights {path}: not a TensorFlow.js model (no weightsManifest)")
    return content


def _layer_names(description: Dict[str, Any], path: Path) -> List[str]:
    try:
        config = description["modelTopology"]["model_config"]["config"]
        layers = config if isinstance(config, list) else config["layers"]
        return [layer["config"]["name"] for layer in layers]
    except (KeyError, TypeError) as error:
        raise UserError(f"weights {path}: not a Keras layers model; a TensorFlow.js graph model "
                        "cannot be used") from error


def _manifest(description: Dict[str, Any], path: Path) -> List[Dict[str, Any]]:
    manifest = description["weightsManifest"]
    fine = isinstance(manifest, list) and all(
        isinstance(group, dict) and isinstance(group.get("weights"), list)
        and isinstance(group.get("paths"), list)
        # A shard is a file of this folder: a path that leads out of it is not followed.
        and all(isinstance(name, str) and Path(name).name == name for name in group["paths"])
        for group in manifest)
    if not fine:
        raise UserError(f"weights {path}: its weightsManifest is not a list of groups with 'paths' "
                        "(file names) and 'weights'")
    return manifest


def _shard(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.min.js", folder / f"{name}.js"):
        if candidate.is_file():
            return candidate
    raise UserError(f"weights {folder}: the shard {name} is missing")


def _shard_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"weights {path}: cannot be read: {error.strerror or error}") from error
    if path.suffix != ".js":
        return content
    strings = _BASE64_STRING.findall(content.decode("utf-8", "replace"))
    try:
        return base64.b64decode(max(strings, key=len, default=""), validate=True)
    except binascii.Error as error:
        raise UserError(f"weights {path}: its base64 text is damaged: {error}") from error


def _decode(entries: List[Dict[str, Any]], data: bytes, path: Path) -> Dict[str, np.ndarray]:
    tensors, offset = {}, 0
    for entry in entries:
        try:
            name, shape, stored, quantization = _entry(entry)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"weights {path}: cannot read the entry {str(entry)[:80]!r}: {error}"
                            ) from error
        dtype = np.dtype(_DTYPES[stored])
        count = math.prod(shape)
        end = offset + count * dtype.itemsize
        if end > len(data):
            raise UserError(f"weights {path}: the shards hold {len(data)} bytes, '{name}' ends at "
                            f"{end}; a shard is cut short")
        array = np.frombuffer(data, dtype, count, offset).reshape(shape)
        if "scale" in quantization:
            array = array.astype(np.float64) * quantization["scale"] + quantization["min"]
        tensors[name] = array.astype(np.float32)
        offset = end
    if offset != len(data):
        raise UserError(f"weights {path}: the shards hold {len(data)} bytes, the model needs "
                        f"{offset}; are they of another model?")
    return tensors


def _entry(entry: Dict[str, Any]) -> Tuple[str, Tuple[int, ...], str, Dict[str, float]]:
    """(name, shape, dtype as stored, quantization); raises KeyError, TypeError, ValueError."""
    name, shape = entry["name"], tuple(entry["shape"])
    if not isinstance(name, str) or "/" not in name:
        raise ValueError("the name is not 'layer/weight'")
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError("the shape is not made of whole numbers")
    quantization = dict(entry.get("quantization", {}))
    stored = quantization.get("dtype", entry["dtype"])
    if stored not in _DTYPES:
        raise ValueError(f"unknown type '{stored}'")
    # float16 is only a narrower type; uint8 and uint16 map linearly onto [min, min + scale * max].
    if quantization and stored in ("uint8", "uint16"):
        quantization = {key: float(quantization[key]) for key in ("scale", "min")}
    else:
        quantization = {}
    return name, shape, stored, quantization
