"""`tools/bench daemon`: what the daemon adds to the network it runs.

Throughput: the daemon empties an inbox of N different images; the same embedder alone embeds as many
frames that lie ready in memory, in the same batches; the two take turns. On a rover the network runs
on the GPU and leaves the processor to the daemon; a stand-in that waits for as long as a Nano is
expected to take, and computes nothing, shows that case. Latency: one image at a time
is renamed into the inbox of a running daemon; from the rename to its row in queue.csv on disk, less
the time the network took for it.
"""

import argparse
import csv
import os
import shutil
import statistics
import tempfile
import threading
import time

import machine
import numpy as np
from PIL import Image

from jetson_cluster import config, daemon, loops, recipe
from jetson_cluster.embedder import open_embedder
from jetson_cluster.embedder.base import Options
from jetson_cluster.embedder.base import Embedder

# 24 images/s: what NVIDIA's figures for its neighbours lead one to expect of InceptionV3 on a Nano.
ELSEWHERE_S = 1 / 24
ELSEWHERE = -1  # stands for a number of threads
SIZES = ((299, 299), (1024, 768), (1600, 1200))


def main():
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="tools/bench daemon")
    parser.add_argument("--model", metavar="FILE.onnx")
    parser.add_argument("--embedder", default="onnxruntime", choices=config.EMBEDDERS[1:])
    parser.add_argument("--images", type=int, default=400, help="an inbox (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arrivals", type=int, default=100, help="for the latency")
    args = parser.parse_args()
    model = args.model or machine.models()[-1]
    print("%s; %s, %s\n" % (machine.kind(), os.path.basename(model), args.embedder))
    rows = [throughput(args, model, size, threads)
            for threads in (ELSEWHERE, 1, os.cpu_count()) for size in SIZES]
    print(machine.table(["image", "network on", "daemon, images/s",
                         "bare embedder, images/s", "ratio"], rows))
    print("\n" + machine.table(["latency, less the network", "p50", "p99", "most", "the first"],
                               [latency(args, model)]))


class Elsewhere(Embedder):
    """A device that takes its time and none of the processor's."""

    name = "elsewhere"

    def _activate(self):
        pass

    def _embed(self, frames):
        time.sleep(ELSEWHERE_S * len(frames))
        return frames.reshape(len(frames), -1)[:, :self.model.recipe.dimension].astype(np.float32)

    def _close(self):
        pass


def open_network(name, model, batch, threads):
    """The real embedder, or the stand-in."""
    if threads != ELSEWHERE:
        return open_embedder(name, model, batch, Options(threads=threads))
    embedder = Elsewhere(model, batch)
    embedder.activate()
    return embedder


def settings(folder, model, embedder, threads):
    """A Config over a fresh folder."""
    path = os.path.join(folder, "config.yaml")
    with open(path, "w") as stream:
        stream.write("state_dir: state\nmodel: %s\ncodebook: codebook.npz\npolicy: policy.yaml\n"
                     "embedder: %s\nthreads: %d\nlog_level: warning\n"
                     "inbox: {path: inbox, settle_s: 0.01}\n" % (
                         os.path.abspath(model), embedder, max(threads, 0)))
    return config.load(path)


def draw(size, seed):
    """A soft random picture: a JPEG of it has a camera's size."""
    random = np.random.RandomState(seed)
    coarse = random.randint(0, 256, (24, 32, 3)).astype(np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize(size, Image.BICUBIC)).astype(int)
    picture += random.randint(-8, 9, picture.shape)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def throughput(args, model_path, size, threads):
    """One row: daemon and bare embedder in turns over the same number of images."""
    model = recipe.load_model(model_path)
    with tempfile.TemporaryDirectory() as source:
        for seed in range(args.images):
            draw(size, seed).save(os.path.join(source, "%05d.jpg" % seed), quality=90)
        ours, bare = [], []
        for _ in range(args.rounds):
            ours.append(run_daemon(args, model_path, source, threads))
            bare.append(run_bare(args, model, threads))
    ratios = [one / other for one, other in zip(ours, bare)]
    where = "a device elsewhere (stand-in)" if threads == ELSEWHERE else "%d core%s" % (
        threads, "s" if threads > 1 else "")
    return ["%d×%d JPEG" % size, where, "%.1f" % statistics.median(ours),
            "%.1f" % statistics.median(bare), machine.median_and_spread(ratios)]


def run_daemon(args, model_path, source, threads):
    """Images a second from the first turn to the last commit, network loaded before."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(source, os.path.join(folder, "inbox"))
        daemon.open_embedder = lambda *arguments: open_network(*arguments[:3], threads)
        with daemon.Daemon(settings(folder, model_path, args.embedder, threads),
                           environment={}) as opened:
            opened.step()  # the files are seen and begin to settle
            time.sleep(0.05)
            begun, added = time.perf_counter(), 0
            while added < args.images:
                added += opened.step().added
            return args.images / (time.perf_counter() - begun)


def run_bare(args, model, threads):
    """Images a second of the embedder alone."""
    batch, shape = model.recipe.max_batch, (model.recipe.input_height, model.recipe.input_width, 3)
    frames = np.random.RandomState(0).randint(0, 256, (batch,) + shape).astype(np.uint8)
    with open_network(args.embedder, model, batch, threads) as embedder:
        embedder.embed(frames)
        begun = time.perf_counter()
        for start in range(0, args.images, batch):
            embedder.embed(frames[:min(batch, args.images - start)])
        return args.images / (time.perf_counter() - begun)


def latency(args, model_path):
    """One row: milliseconds from rename to row, less the network's own."""
    daemon.open_embedder = open_embedder
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(os.path.join(folder, "inbox"))
        stop, waits = threading.Event(), []
        with daemon.Daemon(settings(folder, model_path, args.embedder, 0),
                           environment={}) as opened:
            arrivals = threading.Thread(target=drop_and_time, args=(
                folder, opened, args.arrivals, waits, stop))
            arrivals.start()
            loops.run(opened, stop)
            arrivals.join()
    first, later = waits[0], sorted(waits[1:])  # the first finds decoders not loaded yet
    return ["rename to row, %d images 1.2 s apart" % len(waits)] + [
        "%.0f ms" % wait for wait in [later[min(len(later) - 1, int(len(later) * share))]
                                      for share in (0.5, 0.99, 1)] + [first]]


def drop_and_time(folder, opened, count, waits, stop):
    """Rename images into the inbox and watch the queue file for their rows."""
    queue = os.path.join(folder, "state", "queue.csv")
    for seed in range(count):
        part = os.path.join(folder, "inbox", "%05d.jpg.part" % seed)
        draw((1024, 768), 10000 + seed).save(part, "JPEG", quality=90)
        time.sleep(1.2)
        before = opened.network_s
        begun = time.perf_counter()
        os.rename(part, part[:-5])
        while not named_in(queue, part[:-5]):
            time.sleep(0.001)
        waits.append(1000 * (time.perf_counter() - begun - (opened.network_s - before)))
    stop.set()
    opened.wake.set()


def named_in(queue, path):
    """Whether the queue file has a row of this path."""
    try:
        with open(queue, newline="", encoding="utf-8") as stream:
            return any(row["path"] == path for row in csv.DictReader(stream))
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    main()
