"""The network as a TensorRT engine on this machine's GPU, beside ONNX Runtime on its processor.

    python -m gpu.network build RESULT.json WORK MODEL.onnx
    python -m gpu.network use RESULT.json WORK MODEL.onnx [--pictures FOLDER]... [--quick]

`build` makes the engine in the folder WORK and leaves; `use` is the next start. Out: a JSON file.

Of `build`: build_s (TensorRT's part), open_s (all), plan_bytes, tactic_sources, runtime, wrong.
Of `use`, which leaves WORK/codebook.npz behind, of all pictures, for the daemons:

    runtime             what computes, in its own words
    load_s              opening the embedder with the engine kept
    gpu_bytes           what the GPU has less of while it is open
    process_bytes       the most that the process had
    images_per_s        [{batch, ms, ms_least, ms_most, runs, images_per_s}], from frames in memory
                        to answers in memory, with the lookup
    agreement           [{images: "probe" or a folder's name, count, cosine_least, cosine_median,
                        same_nearest}]: to ONNX Runtime's float32; same_nearest is a share
    lookup_differs      rows for which GPU and processor name other centroids of one embedding,
                        near-ties aside
    wrong               [text]: a cosine below 0.999, or a lookup that differs
"""

import argparse
import glob
import json
import os
import resource
import sys
import time

import numpy as np

from gpu import clusters, timing
from gpu.device import context
from jetson_cluster import codebook, frame
from jetson_cluster.embedder import engine, open_embedder, probe_frames
from jetson_cluster.embedder.base import Options
from jetson_cluster.errors import JetsonClusterError
from jetson_cluster.recipe import load_model

LEAST_COSINE = 0.999  # FP16 against FP32, as DESIGN has it
SAME_DISTANCE = 1e-5  # nearer than that to each other, two centroids may change places


def main(arguments) -> int:
    """The program described above."""
    parser = argparse.ArgumentParser(prog="gpu.network")
    parser.add_argument("step", choices=("build", "use"))
    parser.add_argument("result")
    parser.add_argument("work")
    parser.add_argument("model")
    parser.add_argument("--pictures", action="append", default=[])
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args(arguments)
    result = {"wrong": []}
    try:
        model = load_model(args.model)
        options = Options(plan=plan_in(args.work), progress=say)
        if args.step == "build":
            build(model, options, result)
        else:
            use(model, options, args, result)
    except JetsonClusterError as error:
        result["wrong"].append(str(error))
    with open(args.result, "w", encoding="utf-8") as stream:
        json.dump(result, stream)
    return 0


def plan_in(work: str) -> str:
    """Where the engine is kept."""
    return os.path.join(work, "model.plan")


def say(doing: str, _allow_s: float) -> None:
    """Progress, to whoever watches."""
    print(doing, file=sys.stderr, flush=True)


def build(model, options, result) -> None:
    """Have the embedder make its engine."""
    begun = time.perf_counter()
    with open_embedder("tensorrt", model, model.recipe.max_batch, options) as embedder:
        result.update(open_s=time.perf_counter() - begun, runtime=embedder.description)
    certificate = engine.read_certificate(options.plan)
    result.update(build_s=certificate.build_s, tactic_sources=certificate.tactic_sources,
                  plan_bytes=os.path.getsize(options.plan))


def use(model, options, args, result) -> None:
    """Everything that is asked of an engine that is there."""
    recipe = model.recipe
    sets = [("probe", probe_frames(recipe))] + [
        (os.path.basename(os.path.normpath(folder)), load(folder, recipe))
        for folder in args.pictures]
    with open_embedder("onnxruntime", model, recipe.max_batch) as reference:
        told = [reference.embed(frames) for _, frames in sets]
    book = clusters.codebook_of(np.concatenate(told), model.space)
    codebook.save(os.path.join(args.work, "codebook.npz"), book)

    free_before = free_bytes()
    begun = time.perf_counter()
    with open_embedder("tensorrt", model, recipe.max_batch, options) as embedder:
        result.update(load_s=time.perf_counter() - begun, runtime=embedder.description)
        embedder.use(book)
        found = [embedder.process(frames) for _, frames in sets]
        batches = [np.resize(sets[0][1], (batch,) + sets[0][1].shape[1:])
                   for batch in sorted({1, recipe.max_batch})]
        result["images_per_s"] = [speed(embedder, frames, args.quick) for frames in batches]
        result["gpu_bytes"] = free_before - free_bytes_here()
    result["process_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    judge(result, book, [name for name, _ in sets], told, found)


def judge(result, book, names, told, found) -> None:
    """Compare what the two runtimes gave."""
    result["agreement"] = [agreement(book, *one) for one in zip(names, told, found)]
    result["lookup_differs"] = sum(differs(book, one) for one in found)
    for one in result["agreement"]:
        if not one["cosine_least"] >= LEAST_COSINE:
            result["wrong"].append("%s: an embedding has a cosine of %.6f to ONNX Runtime's, at "
                                   "least %s is due" % (one["images"], one["cosine_least"],
                                                        LEAST_COSINE))
    if result["lookup_differs"]:
        result["wrong"].append("%d embeddings have other nearest centroids on the GPU than on the "
                               "processor" % result["lookup_differs"])


def agreement(book, name, told, found) -> dict:
    """How near the engine's embeddings of one set are to the reference's."""
    cosines = (codebook.normalise(told) * codebook.normalise(found.embeddings)).sum(axis=1)
    same = book.nearest(told).index[:, 0] == found.nearest.index[:, 0]
    return {"images": name, "count": len(told), "cosine_least": float(cosines.min()),
            "cosine_median": float(np.median(cosines)), "same_nearest": float(same.mean())}


def differs(book, found) -> int:
    """Rows whose centroids on the GPU are not those that the processor finds for the embedding."""
    mine = book.nearest(found.embeddings, found.nearest.index.shape[1])
    farther = np.abs(mine.distance - found.nearest.distance) > SAME_DISTANCE
    return int(farther.any(axis=1).sum())


def speed(embedder, frames, quick) -> dict:
    """Images a second of one size of batch, by the clock on the wall."""
    def times(runs):
        ends = [time.perf_counter()]
        for _ in range(runs):
            embedder.process(frames)
            ends.append(time.perf_counter())
        return [1000 * (end - start) for start, end in zip(ends, ends[1:])]
    figures = timing.measured(times, quick)
    return dict(figures, batch=len(frames), images_per_s=1000 * len(frames) / figures["ms"])


def load(folder, recipe) -> np.ndarray:
    """Every picture of a folder as the network takes it: uint8 [N, H, W, 3]."""
    paths = sorted(path for ending in ("jpg", "png")
                   for path in glob.glob(os.path.join(glob.escape(folder), "*." + ending)))
    return np.stack([frame.load(path, recipe.input_width, recipe.input_height, frame.Limits(),
                                recipe.resample).pixels for path in paths])


def free_bytes() -> int:
    """Of the GPU's memory, as long as nothing of ours is open."""
    with context() as driver:
        return driver.mem_get_info()[0]


def free_bytes_here() -> int:
    """Of the GPU's memory, asked in the context that is current."""
    import pycuda.driver as driver

    return driver.mem_get_info()[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
