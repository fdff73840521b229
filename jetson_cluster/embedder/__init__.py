"""Which runtime computes the embeddings.

In: the config's `embedder` and a model. Out: an activated embedder. `auto` takes TensorRT where it is
installed and works, else what `cpu` takes: the fastest of the processor's runtimes whose embeddings
agree with ONNX Runtime's float32 on probe frames.
"""

import importlib
import importlib.util
import logging
import time
from typing import List, NamedTuple

import numpy as np

from jetson_cluster.embedder import trt
from jetson_cluster.embedder.base import Embedder, Options
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.recipe import Model, Recipe

log = logging.getLogger(__name__)

AUTO, CPU, TENSORRT = "auto", "cpu", "tensorrt"
# The processor's, in the order of trust: the first one present is the reference for those after it.
RUNTIMES = {
    "onnxruntime": ("jetson_cluster.embedder.onnxruntime", "OnnxRuntimeEmbedder"),
    "openvino": ("jetson_cluster.embedder.openvino", "OpenVinoEmbedder"),
    "openvino-float32": ("jetson_cluster.embedder.openvino", "OpenVinoFloat32Embedder"),
}
LEAST_COSINE = 0.9999  # what rounding may change; DESIGN holds FP16 to 0.999 and CPUs do better
LEAST_COSINE_FP16 = 0.999
PROBE_FRAMES = 4
PROBE_RUNS = 2


class Probed(NamedTuple):
    """One runtime tried on the probe frames."""

    embedder: Embedder
    embeddings: np.ndarray  # float32 [PROBE_FRAMES, D]
    seconds: float  # the fastest of PROBE_RUNS


def open_embedder(name: str, model: Model, max_batch: int,
                  options: Options = Options()) -> Embedder:
    """An activated embedder: of that name, or the best one for "auto" and "cpu".

    Raises UserError if the model is wrong, WorldError if the runtime (or, for auto and cpu, every
    one) is not to be had, GpuLost if there is a GPU and it fails.
    """
    if name == AUTO:
        return _best(model, max_batch, options)
    if name == CPU:
        return _fastest_that_agrees(model, max_batch, options)
    embedder = _make(name, model, max_batch, options)
    embedder.activate()
    try:
        _try(embedder)
        if name == TENSORRT:
            _compare_once(embedder)
    except BaseException:
        embedder.close()
        raise
    return embedder


def _best(model: Model, max_batch: int, options: Options) -> Embedder:
    """TensorRT's, for which the rover has its GPU; the processor's where that cannot be."""
    try:
        trt.find()
    except WorldError as error:
        log.debug("RuntimeAbsent: %s", error)  # a workstation: nothing to be warned of
        return _fastest_that_agrees(model, max_batch, options)
    try:
        return open_embedder(TENSORRT, model, max_batch, options)
    except (WorldError, UserError) as error:  # if the model is wrong, a processor's runtime says it too
        log.warning("RuntimeNotUsed: %s", error)
    return _fastest_that_agrees(model, max_batch, options)


def _try(embedder: Embedder) -> None:
    """Whether it gives numbers at all is better known at the start than at the first image."""
    if not np.isfinite(embedder.embed(probe_frames(embedder.model.recipe)[:1])).all():
        raise WorldError("%s gives embeddings that are not finite numbers; the model %s is damaged "
                         "or overflows in this precision" % (
                             embedder.name, embedder.model.onnx_path))


def _compare_once(embedder: Embedder) -> None:
    """Hold a new engine's embeddings to ONNX Runtime's, where that is installed; kept with it."""
    if embedder.cosine or importlib.util.find_spec("onnxruntime") is None:
        return
    frames = probe_frames(embedder.model.recipe)
    try:
        options = Options(threads=embedder.options.threads)
        with _make("onnxruntime", embedder.model, embedder.max_batch, options) as reference:
            expected = reference.embed(frames)
    except (UserError, WorldError) as error:  # no fault of the engine's
        log.warning("EngineNotCompared: %s", error)
        return
    cosine = least_cosine(expected, embedder.embed(frames))
    log.info("EngineCompared: cosine to ONNX Runtime at least %.6f", cosine)
    if not cosine >= LEAST_COSINE_FP16:
        raise WorldError("the TensorRT engine of %s gives other embeddings than the network (cosine "
                         "%.4f to ONNX Runtime's, at least %g is needed); set 'precision: fp32' in "
                         "the recipe, or embedder: cpu" % (
                             embedder.model.onnx_path, cosine, LEAST_COSINE_FP16))
    embedder.note_cosine(cosine)


def _make(name: str, model: Model, max_batch: int, options: Options) -> Embedder:
    module, cls = RUNTIMES[name] if name in RUNTIMES else (
        "jetson_cluster.embedder.tensorrt", "TensorRTEmbedder")
    return getattr(importlib.import_module(module), cls)(model, max_batch, options)


def _fastest_that_agrees(model: Model, max_batch: int, options: Options) -> Embedder:
    embedders, absent = [], []
    for name in RUNTIMES:
        try:
            embedders.append(open_embedder(name, model, max_batch, options))
        except WorldError as error:
            absent.append(str(error))
        except UserError as error:
            if not embedders:
                raise  # the first one present cannot load it: the model is wrong
            log.warning("RuntimeNotUsed: %s", error)
    if not embedders:
        raise WorldError("no runtime for the network: " + "; ".join(absent))
    if len(embedders) == 1:
        return embedders[0]
    frames = probe_frames(model.recipe)
    chosen = choose([_probe(embedder, frames) for embedder in embedders])
    for embedder in embedders:
        if embedder is not chosen:
            embedder.close()
    return chosen


def _probe(embedder: Embedder, frames: np.ndarray) -> Probed:
    embeddings, seconds = embedder.embed(frames), []
    for _ in range(PROBE_RUNS):
        begun = time.perf_counter()
        embedder.embed(frames)
        seconds.append(time.perf_counter() - begun)
    return Probed(embedder, embeddings, min(seconds))


def choose(probed: List[Probed]) -> Embedder:
    """The fastest of those whose embeddings agree with the first one's."""
    reference = probed[0]
    agreeing = [reference]
    for other in probed[1:]:
        agreement = least_cosine(reference.embeddings, other.embeddings)
        log.info("%s: %.1f images/s on the probe, cosine to %s %.6f%s",
                 other.embedder.description, PROBE_FRAMES / other.seconds,
                 reference.embedder.name, agreement,
                 "" if agreement >= LEAST_COSINE else ": not used, it does not agree")
        if agreement >= LEAST_COSINE:
            agreeing.append(other)
    return min(agreeing, key=lambda candidate: candidate.seconds).embedder


def least_cosine(one: np.ndarray, other: np.ndarray) -> float:
    """The least cosine between corresponding rows of two float32 [N, D]; two zero rows agree."""
    lengths = np.sqrt((one ** 2).sum(axis=1) * (other ** 2).sum(axis=1))
    cosines = (one * other).sum(axis=1) / np.maximum(lengths, 1e-30)
    return float(np.where(one.any(axis=1) | other.any(axis=1), cosines, 1.0).min())


def probe_frames(recipe: Recipe) -> np.ndarray:
    """uint8 [PROBE_FRAMES, H, W, 3]: soft blotches at several scales, the same every time."""
    random = np.random.RandomState(0)
    height, width = recipe.input_height, recipe.input_width
    frames = np.zeros((PROBE_FRAMES, height, width, 3))
    for cells in (4, 16, 64):
        rows = np.arange(height) * cells // height
        columns = np.arange(width) * cells // width
        blotches = random.uniform(0, 85, (PROBE_FRAMES, cells, cells, 3))
        frames += blotches[:, rows][:, :, columns]
    return frames.astype(np.uint8)
