"""A run of `jetson-cluster embed`: from what the user named to a corpus that holds just that.

In: sources, a folder, a model. Out: the corpus. What an earlier run embedded is not embedded again,
neither a file that is as it was nor a content that lies elsewhere now. A run that was killed is
continued by the next one.
"""

import contextlib
import datetime
import functools
import logging
import os
from typing import Callable, Iterator, List, NamedTuple, Optional, Sequence, Union

from jetson_cluster import frame
from jetson_cluster.embedder import open_embedder
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.ground.corpus import listing, many, shards
from jetson_cluster.ground.corpus.embedding import embed_files
from jetson_cluster.ground.corpus.looking import Crew, geometry_of, identify, processes
from jetson_cluster.ground.corpus.losses import Losses
from jetson_cluster.ground.corpus.reading import Corpus, read
from jetson_cluster.ground.corpus.shards import Failure, Row
from jetson_cluster.ground.corpus.storing import Store
from jetson_cluster.lock import lock_folder
from jetson_cluster.recipe import Model
from jetson_cluster.walker import Arrival

log = logging.getLogger(__name__)

SHARD_IMAGES = 1024  # 5 MB of InceptionV3's; a killed run loses less than this many
BATCHES_AHEAD = 2  # decoded while one is in the network
# Hashed before those of them that are new are embedded, which the system then has in memory still.
COMPARED_FILES = 256

Progress = Callable[[int, int, int], None]  # files done, files in all, done without the network
Result = Union[Row, Failure]


class Way(NamedTuple):
    """How the files get embedded; nothing of it shows in the corpus but rounding."""

    embedder: str  # one of config.EMBEDDERS
    batch: int
    workers: int  # processes that decode
    cluster: Optional[str]  # a Dask scheduler's address; None: on this machine


def embed(sources: Sequence[str], folder: str, model: Model, embedder: str = "auto", batch: int = 0,
          workers: Optional[int] = None, cluster: Optional[str] = None,
          shard_images: int = SHARD_IMAGES, drop: bool = False,
          progress: Progress = lambda done, total, known: None,
          tell: Callable[[str], None] = log.info) -> Corpus:
    """Make `folder` the corpus of just the images that `sources` mean, see listing.list_files.

    `batch` 0 is the recipe's, `workers` None one a core. Rows of files that are gone or changed
    drop out. Only with `drop` do those of files that are there but not meant by `sources`, and
    those of so many gone files that a disk may be missing (see losses.py). `tell` gets notes for
    people, a line each.

    Raises UserError for wrong sources, for a corpus of another space, where nothing is a readable
    image, and without `drop` where such images would be dropped; WorldError and GpuLost as the
    embedder, the disk or the cluster do: then what was done stays.
    """
    folder = os.path.abspath(folder)
    found = listing.list_files(sources, folder)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise WorldError("corpus %s: cannot be made: %s" % (folder, error.strerror or error))
    cores = len(os.sched_getaffinity(0))
    way = Way(embedder, batch or model.recipe.max_batch, workers or cores, cluster)
    with lock_folder(folder, "name another --out"):
        store = Store(folder, model, shard_images)
        is_wanted = _wanted(found)
        losses = Losses(folder, store, found.files, is_wanted)
        if not drop:
            losses.check_named()
            losses.check_gone(losses.surely_gone())  # before any work, and before any change
        shards.write_description(folder, model, complete=False)
        failures = found.failures + _bring_in(store, found.files, model, way, progress, tell)
        useless = {failure.path for failure in failures}
        gone = losses.gone(useless)
        if not drop:
            losses.check_gone(gone)
        if gone:
            tell("%d images are gone from the archive and dropped, first %s" % (len(gone), gone[0]))
        store.tidy(lambda path: is_wanted(path) and path not in useless)
        shards.write_failed(folder, sorted(failures))
        shards.write_description(folder, model, complete=True)
        corpus = read(folder)
    if not len(corpus):
        raise UserError("%s: not one of its %d files is a readable image; why stands in %s" % (
            ", ".join(sources), len(found.files), os.path.join(folder, shards.FAILED)))
    return corpus


def _wanted(found: listing.Listing) -> Callable[[str], bool]:
    """Whether a path belongs into the corpus: listed, or in a folder that cannot be read now."""
    meant = {arrival.path for arrival in found.files}
    unread = tuple(os.path.join(folder, "") for folder in found.unread)
    return lambda path: path in meant or path.startswith(unread)


def _bring_in(store: Store, files: List[Arrival], model: Model, way: Way, progress: Progress,
              tell: Callable[[str], None]) -> List[Failure]:
    """Put a row into the store for every file that has none; the files that are no images.

    However this ends, what was embedded until then is on disk.
    """
    left = [arrival for arrival in files if not store.holds(arrival)]
    if len(left) < len(files):
        tell("%d of %d files are embedded already" % (len(files) - len(left), len(files)))
    failures = []  # type: List[Failure]
    known = 0
    try:
        for done, result in enumerate(_results(store, left, model, way, progress, tell), 1):
            if isinstance(result, Row):
                known += store.content(result.sha256) is not None
                store.put(result)
            else:
                failures.append(result)
            progress(done, len(left), known)
    finally:
        store.flush()
    if known:
        tell("%d files are of a content that is embedded already" % known)
    return failures


def _results(store: Store, left: List[Arrival], model: Model, way: Way, progress: Progress,
             tell: Callable[[str], None]) -> Iterator[Result]:
    """A row or a failure for each file; what may be of known content, by its size, comes first."""
    geometry, sizes = geometry_of(model.recipe), store.sizes
    maybe_known = [arrival for arrival in left if arrival.bytes in sizes]
    others = [arrival for arrival in left if arrival.bytes not in sizes]
    ahead = BATCHES_AHEAD * way.batch + 2 * way.workers
    with contextlib.ExitStack() as stack:
        crew = stack.enter_context(Crew(lambda: processes(way.workers), ahead))

        @functools.lru_cache(maxsize=None)  # a run that finds no new image needs no network
        def network():
            opened = stack.enter_context(open_embedder(way.embedder, model, way.batch))
            tell("embedding with %s" % opened.description)
            return opened

        def known(files: List[Arrival], unknown: List[Arrival], looked=lambda done: None):
            for done, (arrival, identity) in enumerate(crew.each(identify, files, geometry), 1):
                row = None
                if isinstance(identity, frame.Identity):
                    row = store.content(identity.sha256)
                if row is None:
                    unknown.append(arrival)
                else:
                    yield moved(row, arrival, identity.captured_at)
                looked(done)

        def embedded(files: List[Arrival]) -> Iterator[Result]:
            return embed_files(files, geometry, crew, lambda frames: network().embed(frames),
                               way.batch, store.content)

        if way.cluster:  # which is not to wait for this machine again and again
            if maybe_known:
                tell("comparing %d files with what is embedded" % len(maybe_known))
            yield from known(maybe_known, others, lambda done: progress(
                done, len(maybe_known), done))
            if others:
                yield from many.embed_on_cluster(way.cluster, sorted(others), geometry, model,
                                                 way.embedder, way.batch, tell)
            return
        for start in range(0, len(maybe_known), COMPARED_FILES):
            unknown = []  # type: List[Arrival]
            yield from known(maybe_known[start:start + COMPARED_FILES], unknown)
            yield from embedded(unknown)
        yield from embedded(others)


def moved(row: Row, arrival: Arrival, captured_at: str) -> Row:
    """The row of a file with a content that is known from another, or from its earlier self.

    `captured_at` is what the file's header and time say; what follows a PNG's pixels is not in it.
    """
    if row.captured_at != file_time(row.mtime_ns):
        captured_at = row.captured_at  # the content itself tells it
    return row._replace(path=arrival.path, bytes=arrival.bytes, mtime_ns=arrival.mtime_ns,
                        captured_at=captured_at)


def file_time(mtime_ns: int) -> str:
    """A file's time as `frame` gives it where an image does not say when it was taken."""
    epoch = datetime.datetime(1970, 1, 1)
    return (epoch + datetime.timedelta(seconds=mtime_ns // 10 ** 9)).isoformat() + "Z"
