"""`jetson-cluster embed`: an archive of images into a corpus of embeddings.

In: folders, lists and globs of images, and a model. Out: a corpus, which `fit`, `report` and
`console` read. Run again it takes in what is new; killed it goes on where it stopped.
"""

import argparse
import functools
import os
import sys
import time
from collections import Counter
from typing import Callable, List

from jetson_cluster import recipe
from jetson_cluster.config import EMBEDDERS
from jetson_cluster.errors import UserError
from jetson_cluster.ground import corpus
from jetson_cluster.ground.corpus.making import SHARD_IMAGES
from jetson_cluster.ground.corpus.shards import FAILED, Failure
from jetson_cluster.logs import printable

FAILED_SHOWN = 10
MOST = {"batch": 1024, "workers": 512, "shard_images": 1000000}
TERMINAL_S, LOG_S = 0.5, 10.0  # between two lines of progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", metavar="FOLDER_OR_LIST_OR_GLOB",
                        help="a folder of images (with subfolders), a text file of paths, an "
                        "image, or a quoted pattern such as 'sol*/*.jpg'")
    parser.add_argument("--model", required=True, metavar="FILE.onnx")
    parser.add_argument("--recipe", metavar="FILE", help="default: the one beside the model")
    parser.add_argument("--out", required=True, metavar="CORPUS", help="the corpus, a folder")
    parser.add_argument("--embedder", default="auto", choices=EMBEDDERS)
    parser.add_argument("--batch", type=int, default=0, metavar="N",
                        help="images a batch (default: as the recipe says)")
    parser.add_argument("--workers", type=int, default=0, metavar="N",
                        help="processes that decode (default: one a core)")
    parser.add_argument("--shard-images", type=int, default=SHARD_IMAGES, metavar="N",
                        help="images a Parquet file (default %(default)s)")
    parser.add_argument("--cluster", metavar="tcp://HOST:PORT",
                        help="have a Dask cluster do it, whose workers see the same files")
    parser.add_argument("--drop", action="store_true",
                        help="drop images of the corpus that are there but not named this time, "
                        "and those of whole folders that are gone")


def run(args: argparse.Namespace) -> int:
    check_numbers(args)
    model = recipe.load_model(args.model, args.recipe)
    made = corpus.embed(
        args.sources, args.out, model, args.embedder, args.batch, args.workers or None,
        args.cluster, args.shard_images, args.drop, Progress(sys.stderr, time.monotonic),
        functools.partial(print, flush=True))  # into a log as well, when it is said
    print(describe(made))
    return 0


def check_numbers(args: argparse.Namespace) -> None:
    """Raise UserError for numbers nothing could be embedded with."""
    for name, least in (("batch", 0), ("workers", 0), ("shard_images", 1)):
        value = getattr(args, name)
        if not least <= value <= MOST[name]:
            raise UserError("--%s %d: must be a whole number from %d to %d" % (
                name.replace("_", "-"), value, least, MOST[name]))


def describe(made: corpus.Corpus) -> str:
    """What came out, in a few lines."""
    lines = []
    copies = sum(len(paths) - 1 for paths in made.copies.values())
    if copies:
        lines.append("%d files are copies of others and count once" % copies)
    if made.failed:
        lines.append("%d files are no usable images (%s), listed in %s:" % (
            len(made.failed), by_code(made.failed), os.path.join(made.folder, FAILED)))
        lines += ["  %s: %s" % (printable(failure.path), failure.reason)
                  for failure in made.failed[:FAILED_SHOWN]]
    lines.append("%s: %d images, %d numbers each, of the space %s" % (
        made.folder, len(made), made.dimension, made.space))
    return "\n".join(lines)


def by_code(failures: List[Failure]) -> str:
    """How many there are of each kind, the most frequent first."""
    counts = Counter(failure.code for failure in sorted(failures, key=lambda one: one.code))
    return ", ".join("%d %s" % (count, code) for code, count in counts.most_common())


class Progress:
    """One line: how many, how fast, how long still; on a terminal it is written over."""

    def __init__(self, stream, monotonic: Callable[[], float]):
        self._stream, self._monotonic = stream, monotonic
        self._on_terminal = stream.isatty()
        self._begun_s = self._shown_s = monotonic()
        self._running = False

    def __call__(self, done: int, total: int, known: int) -> None:
        """`known` of the files done are of known content: they say nothing of the others' pace."""
        now_s, embedded = self._monotonic(), done - known
        if not embedded:
            self._running = False
        elif not self._running:  # what came before was loading the network
            self._begun_s, self._begun_at, self._running = now_s, embedded, True
        if done < total and now_s - self._shown_s < (TERMINAL_S if self._on_terminal else LOG_S):
            return
        self._shown_s = now_s
        pace = " (%d of known content)" % known if known else ""
        if self._running and embedded > self._begun_at:
            rate = (embedded - self._begun_at) / max(now_s - self._begun_s, 1e-9)
            pace += ", %.1f a second, %s left" % (rate, duration((total - done) / rate))
        self._stream.write("%s%d of %d files%s%s" % (
            "\r" if self._on_terminal else "", done, total, pace,
            "   " if self._on_terminal and done < total else "\n"))
        self._stream.flush()


def duration(seconds: float) -> str:
    """"40 s", "12 min" or "3.5 h"."""
    if seconds < 90:
        return "%.0f s" % seconds
    return "%.0f min" % (seconds / 60) if seconds < 5400 else "%.1f h" % (seconds / 3600)
