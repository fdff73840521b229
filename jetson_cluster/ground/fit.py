"""`jetson-cluster fit`: from an archive of images, or its corpus, to a codebook.

In: images and a model, or a corpus that `embed` made of them. Out: `codebook.npz`, and beside it what
people should see: outliers, changes against an earlier codebook, or a sweep over many k. Images are
embedded into a corpus kept beside the codebook: an interrupted run continues where it stopped, and a
second fit with another k embeds nothing again.
"""

import argparse
import functools
import os
import sys
import tempfile
import time
from typing import List, Optional, Sequence, Tuple

import numpy as np

from jetson_cluster import codebook, policy, recipe
from jetson_cluster.codebook import NORMALISATIONS, Codebook
from jetson_cluster.config import EMBEDDERS
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.ground import (
    corpus,
    embed,
    matching,
    outliers,
    preparing,
    sampling,
    sweep,
    sweep_report,
)
from jetson_cluster.ground.clustering import Fitted, Prepare, check_finite, fit_codebook
from jetson_cluster.ground.corpus import Corpus, listing
from jetson_cluster.ground.matching import Change, Comparison
from jetson_cluster.ground.sampling import Placed, Sample

ENDING = ".npz"
MOST_BATCH = 1024  # as in the daemon's settings
MOST_SEED = 2 ** 31 - 1  # faiss keeps it in a C int
MOST_COMPONENTS = 65536
STEPS = 8
MOST_STEPS = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("archive", nargs="+", metavar="CORPUS_OR_FOLDER",
                        help="a corpus made by embed; or folders of images, lists of paths, images")
    parser.add_argument("--model", metavar="FILE.onnx", help="needed where there is no corpus yet")
    parser.add_argument("--recipe", metavar="FILE", help="default: the one beside the model")
    parser.add_argument("-k", type=int, help="how many clusters (default with --like: as many as "
                        "the old codebook has)")
    parser.add_argument("--sweep", metavar="16:512", help="fit no codebook, but try k from the "
                        "least to the largest and recommend one")
    parser.add_argument("--sweep-steps", type=int, default=STEPS, metavar="N",
                        help="how many k a sweep tries (default %(default)s)")
    parser.add_argument("--out", required=True, metavar="codebook.npz")
    parser.add_argument("--like", metavar="OLD.npz", help="go on from an earlier codebook: clusters "
                        "keep their numbers, and what changed is listed")
    parser.add_argument("--policy", metavar="policy.yaml",
                        help="whose labels the list of changes shows")
    parser.add_argument("--normalise", choices=NORMALISATIONS, help="what is done to an embedding "
                        "first (default: l2, or as in the old codebook)")
    parser.add_argument("--pca", type=int, metavar="D", help="cluster by so many principal "
                        "components, 0: by all numbers (default: 0, or as in the old codebook)")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--embedder", default="auto", choices=EMBEDDERS)
    parser.add_argument("--batch", type=int, default=0, metavar="N",
                        help="images a batch (default: as the recipe says)")


def run(args: argparse.Namespace) -> int:
    check_arguments(args)
    check_writable(args.out, args.archive)
    named = named_in(args.policy) if args.policy else policy.EMPTY
    ks = sweep.span(args.sweep, args.sweep_steps) if args.sweep else []
    old = codebook.load(args.like) if args.like else None
    opened = open_corpus(args, old, max(ks, default=args.k or 1))
    if old:
        codebook.check_fits(args.like, old, opened.space, opened.dimension)
    k = args.k or (old.k if old else max(ks))
    sample = sampling.choose(len(opened), k, args.seed)
    if sample.words:
        print("note: %s" % sample.words)
    prepare = preparation_of(args, old, len(sample.indices), opened.dimension)
    embeddings = opened.embeddings(sample.indices)
    check_finite(embeddings)
    if ks:
        return run_sweep(args, opened, sample, embeddings, prepare, ks)
    begun = time.monotonic()
    fitted = fit_codebook(embeddings, [opened.scenes[place] for place in sample.indices], k,
                          args.seed, opened.space, prepare, old)
    comparison = None  # type: Optional[Comparison]
    if old:
        comparison = Comparison(old, fitted.codebook.k)
        fitted = numbered_as(comparison, fitted, embeddings)
    book, placed = fitted.codebook, Placed(fitted.cluster, fitted.ratio)
    if sample.words:
        book, placed = sampling.place_all(
            len(opened), opened.embeddings, book, sample, fitted.ratio,
            comparison.count if comparison else sampling.nothing)
    elif comparison:
        comparison.count(embeddings, fitted.cluster)
    changes = comparison.changes(named.labels, named.weights) if comparison else None
    seconds = time.monotonic() - begun
    written = write(args.out, book, opened, placed, changes)
    for note in fitted.notes:
        print("note: %s" % note)
    for line in matching.describe(changes) if changes else []:
        print(line)
    print(describe(book, len(opened), seconds))
    print("wrote %s (%.1f MB), %s; embeddings are kept in %s" % (
        args.out, os.path.getsize(args.out) / 1e6, ", ".join(written), opened.folder))
    return 0


# ---- what was asked ----------------------------------------------------------------------------


def check_arguments(args: argparse.Namespace) -> None:
    """Raise UserError for what no archive could be fitted with."""
    if args.sweep and (args.k is not None or args.like):
        raise UserError("--sweep tries many k and fits none: leave out %s" % (
            "-k" if args.k is not None else "--like"))
    if args.k is None and not args.sweep and not args.like:
        raise UserError("-k: say how many clusters, or try --sweep 16:512 to see how many there are")
    if args.policy and not args.like:
        raise UserError("--policy: its labels are for the changes against --like OLD.npz")
    if args.k is not None and args.k < 1:
        raise UserError("-k %d: a codebook has at least one cluster" % args.k)
    if args.k is not None and args.k > codebook.MOST_CLUSTERS:
        raise UserError("-k %d: a codebook has at most %d clusters" % (
            args.k, codebook.MOST_CLUSTERS))
    for name, value, most in (("--seed", args.seed, MOST_SEED), ("--batch", args.batch, MOST_BATCH),
                              ("--pca", args.pca or 0, MOST_COMPONENTS),
                              ("--sweep-steps", args.sweep_steps, MOST_STEPS)):
        if not 0 <= value <= most:
            raise UserError("%s %d: must be a whole number from 0 to %d" % (name, value, most))


def check_writable(path: str, archive: Sequence[str]) -> None:
    """Raise UserError if no file could be put at `path`: told now, not after hours of embedding.

    Nor may it be put into a folder of the archive: the plot of a sweep would be one of its images.
    """
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path):
        raise UserError("--out %s: is a folder; name a file in it" % path)
    if not path.endswith(ENDING):
        raise UserError("--out %s: a codebook's name must end in .npz" % path)
    for source in archive:
        if os.path.isdir(source) and not corpus.is_corpus(source) and (
                os.path.join(os.path.realpath(folder), "").startswith(
                    os.path.join(os.path.realpath(source), ""))):
            raise UserError("--out %s: lies in the archive %s, whose images are looked for there; name "
                            "another folder" % (path, source))
    if not os.path.isdir(folder):
        raise UserError("--out %s: there is no folder %s; make it first" % (path, folder))
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError("--out %s: nothing can be written in %s: %s" % (
            path, folder, error.strerror or error))


def named_in(path: str) -> policy.Policy:
    """The policy that says what clusters are called, which must be there."""
    if not os.path.exists(path):
        raise UserError("--policy %s: no such file" % path)
    return policy.load(path)


def open_corpus(args: argparse.Namespace, old: Optional[Codebook], k: int) -> Corpus:
    """The corpus that was named, or one made of the images that were.

    Raises UserError if that is not possible, or if there are too few files for what was asked.
    """
    model = recipe.load_model(args.model, args.recipe) if args.model else None
    corpora = [source for source in args.archive if corpus.is_corpus(source)]
    if corpora:
        if len(args.archive) > 1:
            raise UserError("%s: is a corpus, and is fitted by itself; embed all images into one" % (
                corpora[0]))
        opened = corpus.read(corpora[0], model.space if model else None)
        if not opened.complete:
            print("note: %s is not complete: the run of embed that made it was stopped" % corpora[0])
        if not len(opened):
            raise UserError("%s: the corpus holds no image" % corpora[0])
        return opened
    if model is None:
        raise UserError("%s: is no corpus; to fit a codebook to images name their network with "
                        "--model FILE.onnx" % args.archive[0])
    work = args.out + ".work"
    files = len(listing.list_files(args.archive, work).files)
    if k > files or (args.sweep and k == files):
        raise UserError("%s %d: more clusters than the %d files of %s%s" % (
            "--sweep to" if args.sweep else "-k", k, files, ", ".join(args.archive),
            " can be tried for" if args.sweep else ""))
    if old:
        codebook.check_fits(args.like, old, model.space, model.recipe.dimension)
    preparing.check(asked_preparation(args, old)[1], files, model.recipe.dimension)
    # The corpus is this codebook's own: another archive takes the place of the one before.
    opened = corpus.embed(args.archive, work, model, args.embedder, args.batch, drop=True,
                          progress=embed.Progress(sys.stderr, time.monotonic),
                          tell=functools.partial(print, flush=True))
    print(embed.describe(opened))
    return opened


def preparation_of(args: argparse.Namespace, old: Optional[Codebook], images: int,
                   dimension: int) -> Prepare:
    """What gives the Preparation of embeddings: the old codebook's, unless another was asked for."""
    if old and args.normalise is None and args.pca is None:
        return lambda embeddings: old.preparation
    normalisation, components = asked_preparation(args, old)
    preparing.check(components, images, dimension)
    return functools.partial(preparing.learn, normalisation=normalisation, components=components)


def asked_preparation(args: argparse.Namespace, old: Optional[Codebook]) -> Tuple[str, int]:
    """(normalisation, components): each as asked for, else as in the old codebook."""
    normalisation, components = (old.normalisation, len(old.components)) if old else ("l2", 0)
    return (normalisation if args.normalise is None else args.normalise,
            components if args.pca is None else args.pca)


# ---- what comes out ----------------------------------------------------------------------------


def numbered_as(comparison: Comparison, fitted: Fitted, embeddings: np.ndarray) -> Fitted:
    """What was fitted, with the old codebook's cluster numbers where a cluster is an old one."""
    order = comparison.pair(embeddings, fitted.cluster)
    return fitted._replace(codebook=matching.numbered(fitted.codebook, order),
                           cluster=np.argsort(order).astype(np.int32)[fitted.cluster])


def run_sweep(args: argparse.Namespace, opened: Corpus, sample: Sample, embeddings: np.ndarray,
              prepare: Prepare, ks: List[int]) -> int:
    """Try all `ks`; write and print what came of it."""
    preparation = prepare(embeddings)
    print(sweep_report.heading())
    found = sweep.sweep(embeddings, preparation, ks, args.seed,
                        lambda trial: print(sweep_report.line(trial), flush=True))
    facts = {"images": len(opened), "clustered": len(sample.indices), "space": opened.space,
             "preparation": str(preparation), "seeds": sweep.SEEDS}
    try:
        written = sweep_report.write(args.out[:-len(ENDING)] + ".sweep", found, facts)
    except OSError as error:
        raise WorldError("--out %s: the sweep cannot be written: %s" % (
            args.out, error.strerror or error))
    print("recommended: %s" % found.reason)
    print("wrote %s; embeddings are kept in %s" % (", ".join(written), opened.folder))
    return 0


def write(out: str, book: Codebook, opened: Corpus, placed: Placed,
          changes: Optional[List[Change]]) -> List[str]:
    """Write the codebook to `out`; the paths of the lists beside it. Raises WorldError."""
    paths = [out[:-len(ENDING)] + ".outliers.csv"]
    try:
        codebook.save(out, book)
        outliers.write(paths[0], outliers.far(placed.ratio, book), opened.paths, opened.sha256,
                       placed.cluster, placed.ratio)
        if changes is not None:
            paths.append(out[:-len(ENDING)] + ".changes.csv")
            matching.write(paths[1], changes)
    except OSError as error:
        raise WorldError("codebook %s: cannot be written: %s" % (out, error.strerror or error))
    return paths


def describe(fitted: Codebook, images: int, seconds: float) -> str:
    """What came out, in a few lines."""
    counts = sorted(fitted.counts.tolist(), reverse=True)
    return ("%d clusters of %d images in %.1f s; sizes %d (largest), %d (middle), %d (smallest)\n"
            "embeddings are prepared by: %s\n"
            "an image is unusual beyond r = %.2f and unlike the archive beyond r = %.2f" % (
                fitted.k, images, seconds, counts[0], counts[len(counts) // 2], counts[-1],
                fitted.preparation, fitted.r50, fitted.r95))
