"""Files in, embeddings out, with decoding, the network and the caller's own work overlapping.

In: batches of arrivals. Out: the same batches in the same order, each file an `Image` with its
embedding (and its nearest centroids, where a GPU found them) or a `Refusal`. Decoding runs in a few
threads; the network runs in one thread of its own, which also opened it, because a CUDA context
belongs to one thread. Nothing is written here.
"""

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from jetson_cluster import frame
from jetson_cluster.codebook import Codebook, Found
from jetson_cluster.embedder.base import Embedder
from jetson_cluster.errors import GpuLost
from jetson_cluster.frame import Examine
from jetson_cluster.inbox import Arrival
from jetson_cluster.records import FLOAT16_MAX, Image, Refusal

DECODERS = 2  # a Nano's four cores also serve the GPU thread and the writer
# PyCUDA aborts the process when a thread ends that holds a context, and a lost one cannot be let go
# of: such threads are kept until the process ends by itself.
_KEPT = []


class Outcome(NamedTuple):
    """What became of one batch."""

    arrivals: List[Arrival]
    images: List[Image]
    refusals: List[Refusal]
    changed: List[Arrival]  # written to while they were read: to be offered again
    decode_s: float  # summed over the batch's files
    embed_s: float


class Pipeline:
    """Owns the embedder from opening to closing. A context manager."""

    def __init__(self, open_embedder: Callable[[], Embedder], limits: frame.Limits,
                 now: Callable[[], str], examine: Optional[Examine] = None):
        """`now` gives the time as ISO 8601 UTC, for refusals. `examine` is shown every decoded
        image, in the decoding threads, and gives (Measures, Preview or None), as preview.examine
        does. Raises what `open_embedder` raises.
        """
        self._limits, self._now, self._examine = limits, now, examine
        self._network = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="decoder")
        self._in_flight = deque()
        self._codebook = ""  # identity of the one the embedder looks up in; the network's thread's own
        self._lost = False
        opening = self._in_network(open_embedder)
        try:
            self.embedder = opening.result()
        except BaseException:
            # Ctrl-C while it was being opened: what that thread opens it also has to close.
            self._in_network(lambda: opening.exception() or opening.result().close())
            self._end()
            raise

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, *_exception) -> None:
        self.close()

    def close(self) -> None:
        """Wait for what is in flight, drop its results and free the network."""
        try:
            self._in_network(self.embedder.close).result()
        finally:
            self._end()
            self._in_flight.clear()

    def _end(self) -> None:
        if self._lost:
            _KEPT.append(self._network)
        else:
            self._network.shutdown()
        self._decoders.shutdown()

    def _in_network(self, work: Callable, *arguments) -> Future:
        """Have it done in the network's thread."""
        return self._network.submit(self._watched, work, *arguments)

    def _watched(self, work: Callable, *arguments):
        try:
            return work(*arguments)
        except GpuLost:
            self._lost = True
            raise

    def use(self, codebook: Optional[Codebook]) -> None:
        """Have embeddings looked up in this codebook, after the batches in flight; None: in none.

        Raises what the embedder raises.
        """
        self._in_network(self._use, codebook).result()

    def _use(self, codebook: Optional[Codebook]) -> None:
        self.embedder.use(codebook)
        self._codebook = codebook.identity if codebook else ""

    def __len__(self) -> int:
        """Batches in flight."""
        return len(self._in_flight)

    @property
    def arrivals(self) -> List[Arrival]:
        """Everything in flight."""
        return [arrival for arrivals, _, _ in self._in_flight for arrival in arrivals]

    def submit(self, arrivals: Sequence[Arrival]) -> None:
        """Start on a batch."""
        # What an image is like, and its preview, are made while the network has its frame already.
        frames = [Future() for _ in arrivals]
        decoding = [self._decoders.submit(self._decode, arrival, held)
                    for arrival, held in zip(arrivals, frames)]
        self._in_flight.append((list(arrivals), decoding, self._in_network(
            self._embed, list(arrivals), frames, decoding)))

    def wait_decoded(self) -> List[Arrival]:
        """Wait until the oldest batch is decoded; its arrivals."""
        arrivals, decoding, _ = self._in_flight[0]
        wait(decoding)
        return arrivals

    def collect(self) -> Outcome:
        """Wait for the oldest batch; raises what the embedder raised, and the batch is gone."""
        _, _, future = self._in_flight.popleft()
        return future.result()

    def identify(self, arrivals: Sequence[Arrival]) -> Outcome:
        """The same without decoding and embedding, which heat, at once in the caller's thread.

        The images have no embedding, and are not examined.
        """
        images, refused, begun = [], [], time.perf_counter()
        for arrival in arrivals:
            try:
                held = frame.identify(arrival.path, self._limits, arrival)
                images.append(Image(arrival, held.sha256, held.width, held.height,
                                    held.captured_at, None))
            except frame.Refused as why:
                refused.append((arrival, why))
        refusals, changed = self._told_apart(refused)
        return Outcome(list(arrivals), images, refusals, changed,
                       time.perf_counter() - begun, 0.0)

    def _decode(self, arrival: Arrival, held: Future):
        """(Frame or Refused, seconds); `held` becomes the Frame as soon as there is one, or None."""
        recipe, begun = self.embedder.model.recipe, time.perf_counter()
        try:
            result = frame.load(arrival.path, recipe.input_width, recipe.input_height,
                                self._limits, recipe.resample, arrival, self._examine,
                                held.set_result)
        except frame.Refused as refused:
            result = refused
        finally:
            if not held.done():
                held.set_result(None)
        return result, time.perf_counter() - begun

    def _embed(self, arrivals, shown, decoding) -> Outcome:
        pixels = [held.pixels for held in (future.result() for future in shown) if held]
        begun = time.perf_counter()
        embeddings, nearest = self.embedder.process(np.stack(pixels)) if pixels else ([], None)
        embed_s = time.perf_counter() - begun
        decoded = [future.result() for future in decoding]
        frames = [(arrival, result) for arrival, (result, _) in zip(arrivals, decoded)
                  if isinstance(result, frame.Frame)]
        refused = [(arrival, result) for arrival, (result, _) in zip(arrivals, decoded)
                   if isinstance(result, frame.Refused)]
        found = [None] * len(frames)
        if nearest is not None:
            found = [Found(self._codebook, *place) for place in zip(*nearest)]
        images, refusals = [], []
        for (arrival, held), embedding, place in zip(frames, embeddings, found):
            largest = float(np.abs(embedding).max())
            if not np.isfinite(largest):
                refusals.append(self._refusal(
                    arrival, "not_finite", "the network gives numbers for it that are not finite"))
            elif largest > FLOAT16_MAX:
                refusals.append(self._refusal(
                    arrival, "overflow", "the network's embedding reaches %g and the catalog "
                    "keeps numbers to %g; scale the model's output" % (largest, FLOAT16_MAX)))
            else:
                images.append(Image(arrival, held.sha256, held.width, held.height,
                                    held.captured_at, embedding, place,
                                    *(held.examined or (None, None))))
        unread, changed = self._told_apart(refused)
        return Outcome(arrivals, images, refusals + unread, changed,
                       sum(seconds for _, seconds in decoded), embed_s)

    def _told_apart(self, refused) -> Tuple[List[Refusal], List[Arrival]]:
        """(refusals, files that were written to) of (Arrival, frame.Refused)."""
        return ([self._refusal(arrival, why.code, why.reason)
                 for arrival, why in refused if why.code != "changed"],
                [arrival for arrival, why in refused if why.code == "changed"])

    def _refusal(self, arrival: Arrival, code: str, reason: str) -> Refusal:
        return Refusal(arrival.path, arrival.bytes, arrival.mtime_ns, code, reason, self._now())
