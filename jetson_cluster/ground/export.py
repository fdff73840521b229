"""The verb `export`: a recipe and a weights file become an ONNX file the rover can run.

In: a recipe under engines/ and a source of weights. Out: FILE.onnx, written whole or not at all,
and FILE.recipe.yaml beside it, which says what was built and from what.
"""

import argparse
import os
from pathlib import Path
from types import ModuleType
from typing import Dict, Optional

from jetson_cluster import files
from jetson_cluster import recipe as recipes
from jetson_cluster.checking import nearest_name
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.ground import sources
from jetson_cluster.ground import weights as weights_files
from jetson_cluster.ground.graph import Scaling
from jetson_cluster.ground.networks import efficientnet_lite0, inception_v3

NETWORKS: Dict[str, ModuleType] = {
    "inception_v3": inception_v3, "efficientnet_lite0": efficientnet_lite0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="recipe of the network, e.g. engines/inception_v3.yaml")
    parser.add_argument("--weights", required=True, metavar="SOURCE",
                        help=f"a source the recipe names (e.g. imagenet), or {weights_files.KINDS}")
    parser.add_argument("--out", required=True, metavar="FILE.onnx",
                        help="where to write the model; FILE.recipe.yaml is written beside it")
    parser.add_argument("--layer", help="take the embedding from this layer instead of the "
                                        "recipe's; its map is averaged")
    parser.add_argument("--grid", action="store_true",
                        help="write the layer's map itself [N, channels, rows, columns]")


def run(args: argparse.Namespace) -> int:
    model = export(args.recipe, args.weights, args.out, args.layer, args.grid)
    recipe = model.recipe
    shape = f"{recipe.dimension} numbers" if not args.grid else f"{recipe.dimension} channels, grid"
    print(f"network    {recipe.name} ({recipe.network}), "
          f"{recipe.input_width}x{recipe.input_height} RGB 0..255")
    note = recipe.weights.get(args.weights, {}).get("note")
    print(f"weights    {recipe.built.weights_source}" + (f": {note}" if note else ""))
    print(f"           sha256 {recipe.built.weights_sha256}")
    print(f"layer      {recipe.layer}: {shape}")
    print(f"space      {model.space}")
    print(f"written    {model.onnx_path}, {os.path.getsize(model.onnx_path) / 1e6:.1f} MB")
    print(f"           sha256 {model.onnx_sha256}")
    print(f"           {recipe.path}")
    return 0


def export(recipe_path: str, source: str, onnx_path: str, layer: Optional[str] = None,
           grid: bool = False) -> recipes.Model:
    """Build the ONNX file and its recipe. Raises UserError or WorldError; leaves no half file."""
    recipe = recipes.load(recipe_path)
    onnx_path = os.fspath(onnx_path)
    _check_target(onnx_path, recipe.path)
    network = NETWORKS.get(recipe.network)
    if network is None:
        raise UserError(f"recipe {recipe.path}: network '{recipe.network}' is made elsewhere, "
                        f"there is nothing to export; known: {', '.join(NETWORKS)}")
    layer = layer or recipe.layer
    if layer not in network.LAYERS:
        raise UserError(f"layer '{layer}': {recipe.network} has {', '.join(network.LAYERS)}"
                        f"{nearest_name(layer, network.LAYERS)}")
    with sources.local_weights(source, recipe) as path:
        weights = weights_files.read(path)
    graph = network.build(weights, layer, grid, recipe.input_height, recipe.input_width,
                          Scaling(recipe.mean, recipe.std))
    dimension = graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    if layer == recipe.layer and dimension != recipe.dimension:
        raise UserError(f"recipe {recipe.path}: 'dimension' is {recipe.dimension}, layer '{layer}' "
                        f"has {dimension}")
    _write(onnx_path, graph.SerializeToString())
    built = recipes.Built(
        onnx_sha256=files.sha256_of(onnx_path), weights_source=_label(source, recipe),
        weights_sha256=weights.sha256, output="grid" if grid else "embedding")
    resolved = recipe._replace(layer=layer, dimension=dimension, built=built)
    _write(recipes.sidecar_path(onnx_path), recipes.to_yaml(resolved).encode("utf-8"))
    return recipes.load_model(onnx_path, output=built.output)


def _label(source: str, recipe: recipes.Recipe) -> str:
    """What the sidecar says about the weights: a package or an address, or a file's bare name."""
    entry = recipe.weights.get(source)
    if entry is None:
        return Path(source).resolve().name
    return f"{source} ({entry.get('npm') or entry.get('pip') or entry.get('url')})"


def _check_target(onnx_path: str, recipe_path: str) -> None:
    if not onnx_path.endswith(".onnx"):
        raise UserError(f"--out {onnx_path}: the name must end in .onnx")
    folder = os.path.dirname(os.path.abspath(onnx_path))
    if not os.path.isdir(folder):
        raise UserError(f"--out {onnx_path}: there is no folder {folder}")
    if os.path.isdir(onnx_path):
        raise UserError(f"--out {onnx_path}: is a folder")
    if os.path.abspath(recipe_path) == os.path.abspath(recipes.sidecar_path(onnx_path)):
        raise UserError(f"--out {onnx_path}: would overwrite the recipe {recipe_path}")


def _write(path: str, content: bytes) -> None:
    try:
        files.write_atomically(path, content)
    except OSError as error:
        raise WorldError(f"{path}: cannot be written: {error.strerror or error}") from error
