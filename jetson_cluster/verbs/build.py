"""`jetson-cluster build`: build a model's TensorRT engine for this GPU beforehand, and try it.

In: an ONNX file with its recipe, or the daemon's config. Out: the plan and its certificate, and how
the engine does: images a second, and agreement with ONNX Runtime where that is installed.
"""

import argparse
import importlib.util
import os
import time
from typing import NamedTuple

import numpy as np

from jetson_cluster import config as settings
from jetson_cluster import recipe as recipes
from jetson_cluster.embedder import engine, least_cosine, open_embedder, probe_frames, trt
from jetson_cluster.embedder.base import Options
from jetson_cluster.embedder.gpu import Gpu
from jetson_cluster.embedder.tensorrt import missing
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.verbs import config_of

LEAST_COSINE = 0.999  # what float16 may change
TIMED_RUNS = 5
LEAST_WORKSPACE_BYTES = 2 ** 20


class Asked(NamedTuple):
    """What is to be built."""

    model: recipes.Model
    batch: int
    options: Options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", metavar="RECIPE",
                        help="the model's recipe (default: the one that stands beside it)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--model", metavar="FILE.onnx", help="what to build the engine of")
    source.add_argument("--config", default=settings.DEFAULT_PATH, metavar="FILE",
                        help="or the daemon's settings, which name model, recipe, batch and plan "
                             "(default %(default)s)")
    parser.add_argument("--out", metavar="PLAN",
                        help="where to keep the engine (default: beside the model, FILE.plan)")
    different = "; the daemon builds again what differs from its own settings"
    parser.add_argument("--batch", type=int, metavar="N",
                        help="images a batch at most (default: the recipe's)" + different)
    parser.add_argument("--precision", choices=recipes.PRECISIONS,
                        help="(default: the recipe's)" + different)
    parser.add_argument("--workspace-bytes", type=int, metavar="N",
                        help="what TensorRT may use while it computes (default %d)%s" % (
                            Options().workspace_bytes, different))
    parser.add_argument("--force", action="store_true",
                        help="build also where an engine that fits is there")
    parser.set_defaults(overrides=[])  # of the config's keys, which other verbs take


def run(args: argparse.Namespace) -> int:
    asked = _asked(args)
    lacking = missing()
    if lacking:
        raise WorldError("no engine can be built here: %s" % "; ".join(lacking))
    _build(asked, args.force)
    _try(asked)
    return 0


def _asked(args: argparse.Namespace) -> Asked:
    """What the arguments ask for, where they name no model on top of the config's.

    Raises UserError.
    """
    if (args.recipe or "").endswith(".onnx"):
        raise UserError("%s: is a network, no recipe; name it with --model %s" % (
            args.recipe, args.recipe))
    if args.model is None and not os.path.lexists(args.config):
        raise UserError("config %s: is not there; name one with --config, or a network with "
                        "--model FILE.onnx" % args.config)
    if args.model is not None:
        model, batch = recipes.load_model(args.model, args.recipe), 0
        plan, workspace_bytes = None, Options().workspace_bytes
    else:
        config = config_of(args)
        model = recipes.load_model(config.model, args.recipe or config.recipe)
        batch, plan = config.batch, config.tensorrt.plan
        workspace_bytes = config.tensorrt.workspace_bytes
    batch = _at_least("--batch", args.batch, 1) or batch or model.recipe.max_batch
    if args.precision is not None:
        model = model._replace(recipe=model.recipe._replace(precision=args.precision))
    return Asked(model, batch, Options(
        plan=args.out or plan, progress=_say, workspace_bytes=_at_least(
            "--workspace-bytes", args.workspace_bytes, LEAST_WORKSPACE_BYTES) or workspace_bytes))


def _at_least(option: str, value, least: int):
    if value is not None and value < least:
        raise UserError("%s %d: must be a whole number from %d" % (option, value, least))
    return value


def _say(doing: str, _allow_s: float) -> None:
    print(doing, flush=True)


def _build(asked: Asked, force: bool) -> None:
    """See to it that the engine is there and fits, and say what it is."""
    model, batch, options = asked
    module = trt.find()
    path = engine.plan_path(model, options.plan)
    with Gpu() as gpu, gpu.guarded():
        sought = engine.wanted(module, model, batch, gpu.device, options.workspace_bytes)
        found = engine.look(path, sought)
        fits = found.state == engine.FITS and not force
        if not fits:
            engine.build(module, trt.make_logger(module), model, batch, gpu.device, options, found)
    certificate = engine.read_certificate(path)
    print("network    %s, %s, up to %d images a batch" % (
        model.space, certificate.precision, certificate.max_batch))
    print("built for  %s (%s), %s" % (
        certificate.gpu, certificate.compute_capability, certificate.tensorrt))
    print("engine     %s, %.1f MB, %s %s, in %.0f s" % (
        path, os.path.getsize(path) / 1e6,
        "up to date, built at" if fits else "built at", certificate.built_at, certificate.build_s))


def _try(asked: Asked) -> None:
    """Run the engine as the daemon will, and compare it with ONNX Runtime's float32."""
    frames = probe_frames(asked.model.recipe)
    with open_embedder("tensorrt", asked.model, asked.batch, asked.options) as embedder:
        embeddings = embedder.embed(frames)
        together = np.resize(frames, (asked.batch,) + frames.shape[1:])
        print("speed      %.1f images/s in batches of %d, %.1f one at a time" % (
            _images_per_s(embedder, together), asked.batch, _images_per_s(embedder, frames[:1])))
    if importlib.util.find_spec("onnxruntime") is None:
        print("agreement  not measured: ONNX Runtime is not installed")
        return
    with open_embedder("onnxruntime", asked.model, asked.batch) as reference:
        cosine = least_cosine(reference.embed(frames), embeddings)
        print("agreement  cosine at least %.6f to %s" % (cosine, reference.description))
    if cosine < LEAST_COSINE:
        raise WorldError("engine %s: its embeddings are not the network's: cosine %.6f to ONNX "
                         "Runtime's, at least %g is needed; try --precision fp32" % (
                             engine.plan_path(asked.model, asked.options.plan), cosine,
                             LEAST_COSINE))


def _images_per_s(embedder, frames: np.ndarray) -> float:
    """The best of a few runs; what came before has warmed it up."""
    embedder.embed(frames)
    seconds = []
    for _ in range(TIMED_RUNS):
        begun = time.perf_counter()
        embedder.embed(frames)
        seconds.append(time.perf_counter() - begun)
    return len(frames) / min(seconds)
