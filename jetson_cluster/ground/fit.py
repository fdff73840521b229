"""`jetson-cluster fit`: from a folder of images to a codebook.

In: a folder or a list of images and a model. Out: `codebook.npz`. The images go through the very ingest
that runs on the rover, into a catalog kept beside the codebook: an interrupted run continues where it
stopped, and a second fit with another k embeds nothing again.
"""

import argparse
import csv
import logging
import os
import sys
import tempfile
import time
from collections import deque
from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from jetson_cluster import codebook, frame, recipe
from jetson_cluster.catalog import Catalog
from jetson_cluster.clocks import utc_now
from jetson_cluster.codebook import Assessment
from jetson_cluster.config import DEFAULTS, EMBEDDERS
from jetson_cluster.embedder import open_embedder
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.ground.clustering import fit_codebook
from jetson_cluster.inbox import Arrival
from jetson_cluster.ingest import Ingest
from jetson_cluster.lock import lock_folder
from jetson_cluster.pipeline import Pipeline
from jetson_cluster.placements import Placement, Worth
from jetson_cluster.records import Refusal
from jetson_cluster.walker import Walker, look

log = logging.getLogger(__name__)

SKIPPED_SHOWN = 10
MOST_BATCH = 1024  # as in the daemon's settings
MOST_SEED = 2 ** 31 - 1  # faiss keeps it in a C int


class Archive(NamedTuple):
    """The images of an archive that could be read, in the order of their paths."""

    paths: List[str]
    images: List[int]  # ids in the work catalog; one content under two paths has one id


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("archive", metavar="FOLDER_OR_LIST",
                        help="a folder of images (with subfolders), or a text file of paths")
    parser.add_argument("--model", required=True, metavar="FILE.onnx")
    parser.add_argument("--recipe", metavar="FILE", help="default: the one beside the model")
    parser.add_argument("-k", type=int, required=True, help="how many clusters")
    parser.add_argument("--out", required=True, metavar="codebook.npz")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--embedder", default="auto", choices=EMBEDDERS)
    parser.add_argument("--batch", type=int, default=0, metavar="N",
                        help="images a batch (default: as the recipe says)")
    parser.add_argument("--work", metavar="FOLDER",
                        help="where embeddings are kept between runs (default: OUT.work)")


def run(args: argparse.Namespace) -> int:
    check_numbers(args.k, args.seed, args.batch)
    check_writable(args.out)
    model = recipe.load_model(args.model, args.recipe)
    arrivals, absent = list_archive(args.archive)
    if args.k > len(arrivals):
        raise UserError("-k %d: more clusters than the %d files of %s" % (
            args.k, len(arrivals), args.archive))
    paths = [arrival.path for arrival in arrivals]
    work = args.work or args.out + ".work"
    try:
        os.makedirs(work, exist_ok=True)
    except OSError as error:
        raise WorldError("work folder %s: cannot be made: %s" % (work, error.strerror or error))
    with lock_folder(work), Catalog(os.path.join(work, "catalog.sqlite"), model.space) as catalog:
        embed_archive(catalog, model, arrivals, args.embedder, args.batch)
        archive = catalogued(catalog, paths)
        report_skipped(catalog, paths, absent, os.path.join(work, "skipped.csv"))
        if not archive.images:
            raise UserError("%s: not one of its %d files is a readable image" % (
                args.archive, len(paths)))
        begun = time.monotonic()
        fitted = fit_codebook(catalog.embeddings_of(archive.images),
                              [os.path.dirname(path) for path in archive.paths],
                              args.k, args.seed, model.space)
    try:
        codebook.save(args.out, fitted.codebook)
    except OSError as error:
        raise WorldError("codebook %s: cannot be written: %s" % (
            args.out, error.strerror or error))
    for note in fitted.notes:
        print("note: %s" % note)
    print(describe(fitted.codebook, len(archive.images), time.monotonic() - begun))
    print("wrote %s (%.1f MB); embeddings are kept in %s" % (
        args.out, os.path.getsize(args.out) / 1e6, work))
    return 0


def check_numbers(k: int, seed: int, batch: int) -> None:
    """Raise UserError for what no archive could be fitted with."""
    if k < 1:
        raise UserError("-k %d: a codebook has at least one cluster" % k)
    if k > codebook.MOST_CLUSTERS:
        raise UserError("-k %d: a codebook has at most %d clusters" % (k, codebook.MOST_CLUSTERS))
    for name, value, most in (("--seed", seed, MOST_SEED), ("--batch", batch, MOST_BATCH)):
        if not 0 <= value <= most:
            raise UserError("%s %d: must be a whole number from 0 to %d" % (name, value, most))


def check_writable(path: str) -> None:
    """Raise UserError if no file could be put at `path`: told now, not after hours of embedding."""
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path):
        raise UserError("--out %s: is a folder; name a file in it" % path)
    if not path.endswith(".npz"):
        raise UserError("--out %s: a codebook's name must end in .npz" % path)
    if not os.path.isdir(folder):
        raise UserError("--out %s: there is no folder %s; make it first" % (path, folder))
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError("--out %s: nothing can be written in %s: %s" % (
            path, folder, error.strerror or error))


def list_archive(source: str) -> Tuple[List[Arrival], List[str]]:
    """(the files below a folder or of the lines of a text file, the lines that name no file).

    Both in the order of their paths. Raises UserError if there is not one file.
    """
    absent = []
    if not os.path.exists(source):
        raise UserError("%s: no such file or folder" % source)
    if os.path.isdir(source):
        walker = Walker(os.path.abspath(source), time.monotonic)
        walker.begin(thorough=True)
        arrivals = []
        while walker.active:
            arrivals += walker.step(1000)
    else:
        try:
            with open(source, encoding="utf-8") as stream:
                lines = {line.strip() for line in stream}
        except (OSError, UnicodeDecodeError) as error:
            raise UserError("%s: neither a folder nor a readable list of paths: %s" % (
                source, error))
        folder = os.path.dirname(os.path.abspath(source))
        paths = {os.path.join(folder, line) for line in lines if line}
        absent = sorted(path for path in paths if not os.path.lexists(path))
        arrivals = [seen(path) for path in paths.difference(absent)]
    if not arrivals:
        raise UserError("%s: no files there%s" % (
            source, ", the first it names is %s" % absent[0] if absent else ""))
    return sorted(arrivals), absent


def seen(path: str) -> Arrival:
    """The file as it looks now; one that is not there has no size: reading it says what is wrong."""
    return look(path) or Arrival(path, 0, 0, 0)


def embed_archive(catalog: Catalog, model: recipe.Model, arrivals: Sequence[Arrival], embedder: str,
                  batch: int) -> None:
    """Bring every file into the catalog that is not in it yet, with progress on standard error."""
    known = catalog.known(arrivals)
    left = [arrival for arrival in arrivals if arrival.path not in known]
    if known:
        print("%d of %d files are embedded already" % (len(known), len(arrivals)))
    if not left:
        return
    limits = DEFAULTS["inbox"]
    with Pipeline(lambda: open_embedder(embedder, model, batch or model.recipe.max_batch),
                  frame.Limits(limits["max_file_bytes"], limits["max_pixels"],
                               limits["sixteen_bit_white"]), utc_now) as pipeline:
        print("embedding %d files with %s" % (len(left), pipeline.embedder.description))
        files = Files(left)
        ingest = Ingest(pipeline, catalog, lambda images, refusals: len(catalog.record(
            images, nowhere(len(images)), refusals)), files, batch or model.recipe.max_batch,
            utc_now)
        progress = Progress(len(left))
        while files.left or ingest.busy:
            progress.add(ingest.step().files)


class Files:
    """A list of files as ingest takes them."""

    def __init__(self, arrivals: Sequence[Arrival]):
        self.left = deque(arrivals)

    def take(self, limit: int) -> List[Arrival]:
        return [self.left.popleft() for _ in range(min(limit, len(self.left)))]

    def give_back(self, arrival: Arrival) -> None:
        self.left.append(seen(arrival.path))

    def done(self, arrival: Arrival) -> None:
        """The catalog keeps account; nothing to do here."""


def nowhere(count: int) -> Placement:
    """The placement of images of which only the embedding is wanted."""
    zeros = np.zeros(count, np.float32)
    return Placement(Assessment(
        cluster=np.zeros(count, np.int32), distance=zeros, second_distance=zeros, ratio=zeros,
        far=np.zeros(count, bool), novelty=zeros, representative=zeros,
        soft_index=np.zeros((count, codebook.NEIGHBOURS), np.int32),
        soft_weight=np.zeros((count, codebook.NEIGHBOURS), np.float32), reach=zeros),
        Worth(zeros, zeros, zeros))


class Progress:
    """One line on standard error: how many, how fast, how long still."""

    def __init__(self, total: int):
        self._total, self._done, self._begun = total, 0, time.monotonic()
        self._on_terminal = sys.stderr.isatty()
        self._shown_at = self._begun

    def add(self, files: int) -> None:
        self._done += files
        now = time.monotonic()
        if self._done < self._total and now - self._shown_at < (0.5 if self._on_terminal else 10):
            return
        self._shown_at = now
        rate = self._done / max(now - self._begun, 1e-9)
        sys.stderr.write("%s%d of %d files, %.1f a second, %d s left%s" % (
            "\r" if self._on_terminal else "", self._done, self._total, rate,
            (self._total - self._done) / max(rate, 1e-9),
            "  " if self._on_terminal and self._done < self._total else "\n"))
        sys.stderr.flush()


def catalogued(catalog: Catalog, paths: Sequence[str]) -> Archive:
    """Which of `paths` are images, each content once, at the first of its paths."""
    numbers = catalog.images_at(paths)
    first = {}  # type: Dict[int, str]
    for path in paths:
        if path in numbers:
            first.setdefault(numbers[path], path)
    copies = len(numbers) - len(first)
    if copies:
        print("%d files are copies of others and count once" % copies)
    return Archive(list(first.values()), list(first))


def report_skipped(catalog: Catalog, paths: Sequence[str], absent: Sequence[str],
                   list_path: str) -> None:
    """Say which files were no usable images or not there; all of them go to a CSV file."""
    wanted = set(paths)
    # All it holds: those of this archive may be older than any number of another archive's.
    refusals = catalog.refusals(catalog.counts["refused"])
    skipped = sorted([refusal for refusal in refusals if refusal.path in wanted] + [
        Refusal(path, 0, 0, "absent", "no such file", utc_now()) for path in absent])
    with open(list_path, "w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "code", "reason"])
        writer.writerows((refusal.path, refusal.code, refusal.reason) for refusal in skipped)
    if skipped:
        print("skipped %d files, listed in %s:" % (len(skipped), list_path))
    for refusal in skipped[:SKIPPED_SHOWN]:
        print("  %s: %s" % (refusal.path, refusal.reason))


def describe(fitted: codebook.Codebook, images: int, seconds: float) -> str:
    """What came out, in a few lines."""
    counts = sorted(fitted.counts.tolist(), reverse=True)
    return ("%d clusters of %d images in %.1f s; sizes %d (largest), %d (middle), %d (smallest)\n"
            "an image is unusual beyond r = %.2f and unlike the archive beyond r = %.2f" % (
                fitted.k, images, seconds, counts[0], counts[len(counts) // 2], counts[-1],
                fitted.r50, fitted.r95))
