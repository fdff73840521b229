"""Recipes: how a network's file, pixels and embedding belong together.

In: a recipe (YAML, written by hand under engines/ or by `export` beside each ONNX file) and an ONNX
file. Out: a checked `Recipe`, and a `Model` that names the embedding space everything downstream
(codebook, catalog) is bound to. Nothing here reads the network itself, so the rover need not
import onnx to know what it runs.
"""

import hashlib
import json
import os
import re
from typing import Any, Dict, NamedTuple, Optional, Tuple

import yaml

from jetson_cluster.checking import Checker, nearest_name
from jetson_cluster.errors import UserError
from jetson_cluster.files import sha256_of

#: Names of Pillow's resampling filters, in lower case.
RESAMPLE_NAMES = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
PRECISIONS = ("fp16", "fp32")
#: Networks `export` builds by itself; `other` is any ONNX file made elsewhere.
NETWORKS = ("inception_v3", "efficientnet_lite0", "other")
OUTPUTS = ("embedding", "grid")
SIDECAR_SUFFIX = ".recipe.yaml"

_KEYS = ("name", "network", "input", "scaling", "layer", "layers", "dimension", "precision",
         "max_batch", "weights", "built")
_REQUIRED = ("name", "network", "input", "scaling", "layer", "dimension")
_INPUT_KEYS = ("width", "height", "resample")
_SCALING_KEYS = ("mean", "std")
_SOURCE_KEYS = ("url", "npm", "pip", "member", "md5", "sha256", "integrity", "note")
_BUILT_KEYS = ("onnx_sha256", "weights_source", "weights_sha256", "output")
_IN_GRAPH = "in_graph"
_NAME_PATTERN = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
_SHA256_PATTERN = re.compile(r"^[0-9a-f]{64}$")

Triple = Tuple[float, float, float]


class Built(NamedTuple):
    """What `export` made with a recipe; only the file beside an ONNX file carries it."""

    onnx_sha256: str
    weights_source: str
    weights_sha256: str
    output: str  # "embedding" [N, D] or "grid" [N, D, rows, columns]


class Recipe(NamedTuple):
    """One network, one layer, one way to turn an image into its input.

    `mean` and `std` are per channel R, G, B in units of 0..255 pixels: `export` folds
    (pixel - mean) / std into the first convolution, so flight code never applies them.
    A foreign network (`network: other`) does its own scaling: mean 0, std 1.
    """

    name: str
    path: str
    network: str
    input_width: int
    input_height: int
    resample: str
    mean: Triple
    std: Triple
    layer: str
    dimension: int
    max_batch: int
    precision: str
    weights: Dict[str, Dict[str, str]]
    layers: Tuple[str, ...]
    built: Optional[Built]


class Model(NamedTuple):
    """An ONNX file with the recipe it was made by; `space` names its embedding space."""

    onnx_path: str
    recipe: Recipe
    onnx_sha256: str
    space: str


def load(path: str) -> Recipe:
    """Read and check a recipe. Raises UserError that names every mistake in it at once."""
    path = os.fspath(path)
    checker = Checker("recipe", path)
    recipe = _check(checker.read(), path, checker)
    checker.finish()
    return recipe


def load_model(onnx_path: str, recipe_path: Optional[str] = None,
               output: str = "embedding") -> Model:
    """Pair an ONNX file with its recipe and hash it (one read of the file).

    Without `recipe_path` the recipe is `<stem>.recipe.yaml` beside the ONNX file, which `export`
    writes. A recipe that says which file it was built for must match it; one for a network made
    elsewhere says nothing, and the hash is simply taken. `output` is what the caller needs.
    Raises UserError.
    """
    onnx_path = os.fspath(onnx_path)
    if not os.path.isfile(onnx_path):
        raise UserError("model {}: there is no such file; make one with `jetson-cluster export`"
                        .format(onnx_path))
    if recipe_path is None:
        recipe_path = sidecar_path(onnx_path)
        if not os.path.isfile(recipe_path):
            raise UserError(
                "model {}: no recipe beside it ({}); export writes one, and for an ONNX file from "
                "elsewhere write one as engines/README.md shows".format(onnx_path, recipe_path))
    recipe = load(recipe_path)
    try:
        onnx_sha256 = sha256_of(onnx_path)
    except OSError as error:
        raise UserError("model {}: cannot be read: {}".format(
            onnx_path, error.strerror or error)) from error
    made = recipe.built.output if recipe.built else "embedding"
    if recipe.built and recipe.built.onnx_sha256 != onnx_sha256:
        raise UserError(
            "model {}: it is not the file that {} describes (sha256 {}.. there, {}.. here); export "
            "it again".format(onnx_path, recipe.path, recipe.built.onnx_sha256[:12],
                              onnx_sha256[:12]))
    if made != output:
        raise UserError("model {}: its output is '{}', '{}' is needed; export it {} --grid".format(
            onnx_path, made, output, "with" if output == "grid" else "without"))
    return Model(onnx_path, recipe, onnx_sha256, space_of(recipe, onnx_sha256))


def space_of(recipe: Recipe, onnx_sha256: str) -> str:
    """The name of an embedding space: `name/layer@16 hex digits`.

    Two spaces are the same when the network file is the same and images reach it the same way.
    Precision and batch are left out: they change embeddings by rounding only.
    """
    pixels = json.dumps(
        {"height": recipe.input_height, "resample": recipe.resample, "width": recipe.input_width},
        sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256((onnx_sha256 + pixels).encode("ascii")).hexdigest()
    return "{}/{}@{}".format(recipe.name, recipe.layer, digest[:16])


def sidecar_path(onnx_path: str) -> str:
    """Where the recipe of an ONNX file stands: `a/b.onnx` -> `a/b.recipe.yaml`."""
    return os.path.splitext(os.fspath(onnx_path))[0] + SIDECAR_SUFFIX


def to_yaml(recipe: Recipe) -> str:
    """The text that `load` reads back as the same recipe (but for its path)."""
    scaling = _IN_GRAPH if recipe.network == "other" else {
        "mean": list(recipe.mean), "std": list(recipe.std)}
    content = {
        "name": recipe.name, "network": recipe.network,
        "input": {"width": recipe.input_width, "height": recipe.input_height,
                  "resample": recipe.resample},
        "scaling": scaling, "layer": recipe.layer, "layers": list(recipe.layers),
        "dimension": recipe.dimension, "precision": recipe.precision,
        "max_batch": recipe.max_batch, "weights": recipe.weights,
    }  # type: Dict[str, Any]
    if recipe.built:
        content["built"] = dict(recipe.built._asdict())
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _check(content: Any, path: str, checker: Checker) -> Recipe:
    top = checker.mapping(content, "", _KEYS, _REQUIRED)
    network = checker.text(top.get("network"), "network", NETWORKS)
    geometry = {}  # type: Dict[str, Any]
    if top.get("input") is not None:
        geometry = checker.mapping(top["input"], "input", _INPUT_KEYS, ("width", "height"))
    mean, std = _check_scaling(top.get("scaling"), network, checker)
    layer = checker.identifier(top.get("layer"), "layer")
    layers = _check_layers(top.get("layers"), layer, checker)
    return Recipe(
        name=checker.identifier(top.get("name"), "name"),
        path=path,
        network=network,
        input_width=checker.whole(geometry.get("width"), "input.width", 16, 4096),
        input_height=checker.whole(geometry.get("height"), "input.height", 16, 4096),
        resample=checker.text(geometry.get("resample"), "input.resample", RESAMPLE_NAMES)
        or "bicubic",
        mean=mean, std=std, layer=layer, layers=layers,
        dimension=checker.whole(top.get("dimension"), "dimension", 1, 65536),
        max_batch=checker.whole(top.get("max_batch", 8), "max_batch", 1, 1024),
        precision=checker.text(top.get("precision"), "precision", PRECISIONS) or "fp16",
        weights=_check_weights(top.get("weights"), checker),
        built=_check_built(top.get("built"), checker),
    )


def _check_scaling(value: Any, network: str, checker: Checker) -> Tuple[Triple, Triple]:
    untouched = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    if value is None:
        return untouched
    if network == "other":
        if value != _IN_GRAPH:
            checker.wrong("'scaling' of a network of kind 'other' must be '{}': its ONNX file "
                          "takes raw 0..255 pixels".format(_IN_GRAPH))
        return untouched
    if value == _IN_GRAPH:
        checker.wrong("'scaling: {}' is for 'network: other'; give mean and std".format(_IN_GRAPH))
        return untouched
    scaling = checker.mapping(value, "scaling", _SCALING_KEYS, _SCALING_KEYS)
    return (checker.triple(scaling.get("mean"), "scaling.mean", positive=False),
            checker.triple(scaling.get("std"), "scaling.std", positive=True))


def _check_layers(value: Any, layer: str, checker: Checker) -> Tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        checker.wrong("'layers' must be a list of layer names")
        return ()
    layers = tuple(checker.identifier(item, "layers") for item in value)
    if layers and layer and layer not in layers:
        checker.wrong("'layer' is '{}', which is not in 'layers'{}".format(
            layer, nearest_name(layer, layers)))
    return layers


def _check_weights(value: Any, checker: Checker) -> Dict[str, Dict[str, str]]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        checker.wrong("'weights' must be a mapping from a source's name to where it comes from")
        return {}
    sources = {}
    for name, source in value.items():
        where = "weights.{}".format(name)
        checker.identifier(name, where)
        source = checker.mapping(source, where, _SOURCE_KEYS)
        sources[str(name)] = {
            key: checker.text(text, "{}.{}".format(where, key)) for key, text in source.items()}
    return sources


def _check_built(value: Any, checker: Checker) -> Optional[Built]:
    if value is None:
        return None
    built = checker.mapping(value, "built", _BUILT_KEYS, _BUILT_KEYS)
    for key in ("onnx_sha256", "weights_sha256"):
        if built.get(key) is not None and not _SHA256_PATTERN.match(str(built[key])):
            checker.wrong("'built.{}' must be 64 hexadecimal digits".format(key))
    return Built(str(built.get("onnx_sha256")), str(built.get("weights_source")),
                 str(built.get("weights_sha256")),
                 checker.text(built.get("output"), "built.output", OUTPUTS))
