"""`jetson-cluster report`: from a corpus and a codebook to a page that shows what the clusters are.

In: a corpus (`embed`), a codebook (`fit`), and the team's policy if there is one. Out: a static folder,
or one file, that opens in a browser without a server. `data` works out what there is to say, with
`layout` and `duplicates`; `atlas`, `sheets` and `content` turn it into pictures and text; `build`
writes it, by way of `folder` into the place of an older one; page/ is the page itself.
"""

import argparse
import datetime
import os
import sys
import time
from typing import Sequence

from jetson_cluster import codebook
from jetson_cluster import policy as policies
from jetson_cluster.errors import UserError
from jetson_cluster.ground import corpus as corpora
from jetson_cluster.ground.report import build, data, layout

MOST_SEED = 2 ** 32 - 1  # numpy's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", metavar="CORPUS", help="a folder made by 'jetson-cluster embed'")
    parser.add_argument("--codebook", required=True, metavar="FILE.npz")
    parser.add_argument("--out", required=True, metavar="FOLDER",
                        help="where to put the report; with --single-file a name ending in .html")
    parser.add_argument("--policy", metavar="policy.yaml",
                        help="for the clusters' labels and weights, and what counts as a bad frame")
    parser.add_argument("--single-file", action="store_true",
                        help="one .html with everything in it but the contact sheets")
    parser.add_argument("--map", default="umap", choices=layout.KINDS, dest="map_kind",
                        help="how the map is drawn (default: %(default)s; pca takes seconds)")
    parser.add_argument("--seed", type=int, default=0, help="of the map; default %(default)s")


def run(args: argparse.Namespace) -> int:
    if not 0 <= args.seed <= MOST_SEED:
        raise UserError("--seed %d: must be a whole number from 0 to %d" % (args.seed, MOST_SEED))
    build.check_out(args.out, args.single_file)
    layout.check_available(args.map_kind)
    if args.policy is not None and not os.path.exists(args.policy):
        raise UserError("--policy %s: no such file" % args.policy)
    policy = policies.EMPTY if args.policy is None else policies.load(args.policy)
    corpus = corpora.read(args.corpus)
    book = codebook.load(args.codebook, space=corpus.space)
    begun = time.monotonic()

    def tell(words: str) -> None:
        print("%5.1f s  %s" % (time.monotonic() - begun, words), file=sys.stderr, flush=True)

    unknown = policy.unknown_clusters(book.k)
    if unknown:
        print("note: policy %s names cluster %s, but the codebook has only 0 to %d" % (
            args.policy, ", ".join(map(str, unknown)), book.k - 1))
    if not corpus.complete:
        print("note: corpus %s is not complete, its last 'embed' was stopped" % args.corpus)
    survey = data.survey(corpus, book, policy, args.map_kind, args.seed, tell)
    facts = {"title": title_of(corpus.paths, args.corpus),
             "made": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
             "map": args.map_kind}
    write = build.write_single if args.single_file else build.write_folder
    written = write(args.out, corpus, survey, facts, tell)
    if written.unreadable:
        print("note: %d thumbnails of the corpus cannot be decoded and are grey in the report"
              % written.unreadable)
    print("wrote %s: %d images in %d clusters, %.1f MB; open it in a browser" % (
        written.page, len(corpus), book.k, written.bytes / 1e6))
    return 0


def title_of(paths: Sequence[str], folder: str) -> str:
    """What a report is called: the folder all images lie in; the corpus's, if that is the root."""
    shared = os.path.commonpath([os.path.dirname(path) for path in paths])
    return os.path.basename(shared) or os.path.basename(os.path.abspath(folder))
