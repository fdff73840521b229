"""Embedding on a Dask cluster: files in chunks to whatever workers there are.

In: files, a model, a scheduler's address. Out: rows and failures, chunk by chunk as they are done.
Every worker has to see the files and the model under the same paths, as on a shared file system,
and to have this package. A worker may die: its chunks go to others, and a file that kills one worker
after another is given up.
"""

import contextlib
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Iterator, List, NamedTuple, Sequence, Union

import numpy as np

from jetson_cluster import recipe
from jetson_cluster.embedder import open_embedder
from jetson_cluster.embedder.base import Options
from jetson_cluster.errors import JetsonClusterError, UserError, WorldError
from jetson_cluster.ground.corpus.embedding import embed_files
from jetson_cluster.ground.corpus.looking import CRASHED, Crew, Geometry
from jetson_cluster.ground.corpus.shards import Failure, Row
from jetson_cluster.recipe import Model
from jetson_cluster.walker import Arrival

# What a worker that dies loses, and what the answers take of the scheduler's time: 128 files are
# some seconds of a worker's, and 0.7 MB of rows.
CHUNK_FILES = 128
CHUNKS_PER_THREAD = 3  # one being done, the next at hand, one on its way back
CONNECT_S = 30
POLL_S = 0.1
# Without any worker: a batch system that starts others in place of dead ones takes some seconds.
WORKERS_WAIT_S = 60


# ---- on this machine ---------------------------------------------------------------------------


def embed_on_cluster(address: str, files: Sequence[Arrival], geometry: Geometry, model: Model,
                     embedder: str, batch: int, tell: Callable[[str], None]
                     ) -> Iterator[Union[Row, Failure]]:
    """Rows and failures, one a file, in no order.

    Raises UserError for an address that is none or a model the workers do not have, WorldError if
    the scheduler is lost, if it has no worker for WORKERS_WAIT_S or one that does not see the files
    that are seen here, and what opening the embedder raised on a worker.
    """
    try:
        import distributed
    except ImportError as error:
        raise WorldError("--cluster needs Dask (%s); install it with \"pip install "
                         "'jetson-cluster[ground]'\"" % error)
    with _quiet_dask():
        try:
            client = distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise UserError("--cluster %s: no Dask scheduler answers there: %s" % (
                address, " ".join(str(error).split())))
        with client:
            try:
                threads = client.nthreads()
                tell("embedding %d files on %d workers with %d threads at %s" % (
                    len(files), len(threads), sum(threads.values()), address))
                yield from _chunks_done(distributed, client, files, (
                    geometry, model.onnx_path, model.recipe.path, model.space, embedder, batch),
                    lambda doing: _wait_for_one(client, doing, address, tell))
            except (distributed.CancelledError, OSError) as error:
                raise WorldError("--cluster %s: the scheduler was lost (%s); what is embedded is "
                                 "kept, the same command goes on from there" % (
                                     address, " ".join(str(error).split())))


@contextlib.contextmanager
def _quiet_dask() -> Iterator[None]:
    """Dask logs tracebacks when a connection breaks; what that means is said in our words."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def _wait_for_one(client, doing, address: str, tell: Callable[[str], None]) -> None:
    """Return once something of `doing` is done; raise WorldError where there is nobody to do it."""
    alive_s, told = time.monotonic(), False
    while not doing.has_ready():
        now_s = time.monotonic()
        if client.nthreads():
            alive_s, told = now_s, False
        elif now_s - alive_s > WORKERS_WAIT_S:
            raise WorldError("--cluster %s: no worker there for %d s; what is embedded is kept, "
                             "the same command goes on from there once there are workers" % (
                                 address, WORKERS_WAIT_S))
        elif not told:
            tell("waiting for workers: there are none at %s" % address)
            told = True
        time.sleep(POLL_S)


def _chunks_done(distributed, client, files: Sequence[Arrival], how: tuple,
                 wait: Callable[[object], None]) -> Iterator[Union[Row, Failure]]:
    chunks = [files[start:start + CHUNK_FILES] for start in range(0, len(files), CHUNK_FILES)]
    chunks.reverse()
    # Dask blames all that a dead worker had before it, also what it had not begun. So whatever is
    # blamed is tried again when nothing else is being done, and halved until one file is left.
    blamed = []  # type: List[Sequence[Arrival]]
    # With results: what a worker did is done again if that dies before the result is here.
    doing, chunk_of = distributed.as_completed(
        loop=client.loop, with_results=True, raise_errors=False), {}

    def room() -> int:
        return CHUNKS_PER_THREAD * max(1, sum(client.nthreads().values())) - len(chunk_of)

    def submit(chunk: Sequence[Arrival]) -> None:
        future = client.submit(embed_chunk, chunk, *how, pure=False)
        chunk_of[future.key] = chunk
        doing.add(future)

    while chunks or blamed or chunk_of:
        alone = not chunks and not chunk_of
        if alone:
            submit(blamed.pop())
        while chunks and room() > 0:
            submit(chunks.pop())
        wait(doing)
        future, found = next(doing)
        chunk = chunk_of.pop(future.key)
        if isinstance(found, Done):
            for result in found.results:
                check_seen(found.worker, result)
                yield result
        elif isinstance(found, BaseException):  # it was cancelled
            raise found
        elif not isinstance(found[1], distributed.KilledWorker):
            raise _understood(found[1])
        elif not alone:
            blamed.append(chunk)
        elif len(chunk) == 1:
            yield Failure(chunk[0].path, "crashed", CRASHED)
        else:
            blamed += [chunk[len(chunk) // 2:], chunk[:len(chunk) // 2]]
        future.release()


def _understood(error: Exception) -> Exception:
    """What a task raised, for the user: what a worker lacks or runs out of comes back as itself."""
    if isinstance(error, JetsonClusterError):
        return error
    return WorldError("a worker of the cluster failed: %s: %s" % (
        type(error).__name__, " ".join(str(error).split())))


def check_seen(worker: str, result: Union[Row, Failure]) -> None:
    """Raise WorldError for a file that only this worker cannot read: it lacks what is mounted here.

    To list such files as bad would empty the corpus.
    """
    if isinstance(result, Failure) and result.code in ("vanished", "unreadable"):
        with contextlib.suppress(OSError):
            with open(result.path, "rb"):
                raise WorldError(
                    "worker %s cannot read %s (%s), which is there: every worker has to see the "
                    "files under the same paths; what is embedded is kept, the same command goes "
                    "on from there" % (worker, result.path, result.reason.rstrip(".")))


# ---- on a worker -------------------------------------------------------------------------------


class Done(NamedTuple):
    """What a task gives back."""

    worker: str  # its address
    results: List[Union[Row, Failure]]  # one a file, in order


def embed_chunk(files: List[Arrival], geometry: Geometry, onnx_path: str, recipe_path: str,
                space: str, embedder: str, batch: int) -> Done:
    """What a task on a worker is."""
    from distributed import get_worker
    station = _station(onnx_path, recipe_path, space, embedder, batch)
    # A worker is a daemon process, which may have no processes of its own: threads decode.
    with Crew(lambda: ThreadPoolExecutor(station.threads), 2 * batch + station.threads) as crew:
        return Done(get_worker().address, list(
            embed_files(files, geometry, crew, station.embed, batch)))


class Station:
    """The network in this process, opened once, and used by one thread only."""

    def __init__(self, model: Model, embedder: str, batch: int, threads: int):
        self.threads = threads
        self._network = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._opened = self._network.submit(
            open_embedder, embedder, model, batch, Options(threads=threads)).result()

    def embed(self, frames: np.ndarray) -> np.ndarray:
        """Embeddings float32 [N, D] of frames uint8 [N, H, W, 3], from any thread."""
        return self._network.submit(self._opened.embed, frames).result()


_stations = {}
_opening = threading.Lock()


def _station(onnx_path: str, recipe_path: str, space: str, embedder: str, batch: int) -> Station:
    import distributed
    worker = distributed.get_worker()
    asked = onnx_path, space, embedder, batch
    with _opening:
        if asked not in _stations:
            try:
                model = recipe.load_model(onnx_path, recipe_path)
            except JetsonClusterError as error:
                raise UserError("worker %s: %s; it has to see the model under the same path" % (
                    worker.address, error))
            if model.space != space:
                raise UserError("worker %s: model %s is another one there (%s)" % (
                    worker.address, os.path.basename(onnx_path), model.space))
            _stations[asked] = Station(model, embedder, batch, worker.state.nthreads)
        return _stations[asked]
