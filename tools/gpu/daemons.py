"""The daemon itself, once with TensorRT and once with ONNX Runtime, over the same pictures.

    python -m gpu.daemons RESULT.json WORK MODEL.onnx PICTURES

WORK holds codebook.npz and the engine, which `network` left there. Out: a JSON file:

    images              that came
    seconds             {"tensorrt": s, "onnxruntime": s}: of `jetson-cluster once`, start and all
    at_another_rank     rows of queue.csv that are not in the same place in both
    furthest            by how many places, at most
    other_cluster       images that fell into another cluster
    wrong               [text]: a daemon that failed, images that are missing; no order is wrong by
                        itself, for where scores are close, rounding decides
"""

import csv
import json
import os
import subprocess
import sys
import time

from gpu.network import plan_in

EMBEDDERS = ("tensorrt", "onnxruntime")
CONFIG = """state_dir: %s
model: %s
codebook: %s
policy: policy.yaml
embedder: %s
log_level: warning
inbox: {path: %s, settle_s: 0.01}
queue: {rows: 100000}
tensorrt: {plan: %s}
"""


def main(arguments) -> int:
    """The program described above."""
    result_path, work, model, pictures = arguments
    result = {"images": len(os.listdir(pictures)), "seconds": {}, "wrong": []}
    queues = [run(embedder, work, model, pictures, result) for embedder in EMBEDDERS]
    if not result["wrong"]:
        compare(queues[0], queues[1], result)
    with open(result_path, "w", encoding="utf-8") as stream:
        json.dump(result, stream)
    return 0


def run(embedder, work, model, pictures, result) -> list:
    """Rows of queue.csv as that embedder makes it."""
    folder = os.path.join(work, embedder)
    os.makedirs(folder)
    config = os.path.join(folder, "config.yaml")
    paths = [os.path.abspath(path) for path in (
        folder, model, os.path.join(work, "codebook.npz"), pictures, plan_in(work))]
    state, model, codebook, inbox, plan = map(json.dumps, paths)  # JSON's text is YAML's as well
    with open(config, "w", encoding="utf-8") as stream:
        stream.write(CONFIG % (state, model, codebook, embedder, inbox, plan))
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "jetson_cluster", "once", "--config", config],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, universal_newlines=True)
    result["seconds"][embedder] = time.perf_counter() - begun
    if done.returncode != 0:
        lines = done.stdout.strip().splitlines() or ["it said nothing"]
        result["wrong"].append("the daemon with embedder: %s ended with status %d: %s" % (
            embedder, done.returncode, lines[-1]))
        return []
    with open(os.path.join(folder, "queue.csv"), newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def compare(ours, theirs, result) -> None:
    """Fill in in what the two queues differ."""
    ranks = [{row["path"]: place for place, row in enumerate(rows)} for rows in (ours, theirs)]
    clusters = [{row["path"]: row["cluster"] for row in rows} for rows in (ours, theirs)]
    if set(ranks[0]) != set(ranks[1]) or len(ours) != result["images"]:
        result["wrong"].append("of %d images %d are in the queue with tensorrt and %d with "
                               "onnxruntime" % (result["images"], len(ours), len(theirs)))
        return
    moved = [abs(ranks[0][path] - ranks[1][path]) for path in ranks[0]]
    result.update(at_another_rank=sum(1 for places in moved if places), furthest=max(moved),
                  other_cluster=sum(clusters[0][path] != clusters[1][path] for path in clusters[0]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
