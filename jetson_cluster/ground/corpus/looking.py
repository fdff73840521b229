"""One file to what the corpus keeps of it and the network wants of it, in processes beside.

In: files as they were listed. Out: for each a `Look` (facts, thumbnail, pixels) or a `Failure`. The
pixels come from the very code that decodes on the rover. Processes and not threads: a decoder that
crashes takes its process with it, and that file alone is given up.
"""

import io
import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from multiprocessing import connection
from typing import Any, Callable, Iterable, Iterator, NamedTuple, Optional, Tuple, Union

import numpy as np
from PIL import Image, features

from jetson_cluster import frame, logs
from jetson_cluster.config import DEFAULTS
from jetson_cluster.errors import WorldError
from jetson_cluster.ground.corpus.shards import MEASURES, Failure
from jetson_cluster.preview import OPTIONS
from jetson_cluster.quality import measure
from jetson_cluster.walker import Arrival, look

THUMBNAIL_SIDE = 96  # pixels, the longer one
THUMBNAIL_QUALITY = 50  # WebP: 1 to 3 KB; a picture wall of a thousand is 2 MB
TRIES = 3  # of a file that is written to while it is read, and of one that ends the process
CRASHED = "It ends the process that decodes it."


class Geometry(NamedTuple):
    """What the network wants, and what a file may be."""

    width: int
    height: int
    resample: str
    limits: frame.Limits


class Look(NamedTuple):
    """What was found in one file."""

    arrival: Arrival  # the file as it was when it was read
    sha256: str
    width: int
    height: int
    captured_at: str
    measures: np.ndarray  # float16 [7]
    thumbnail: bytes
    pixels: np.ndarray  # uint8 [H, W, 3] as the network wants them


def geometry_of(recipe) -> Geometry:
    """The recipe's, with the limits that the rover has by default."""
    limits = DEFAULTS["inbox"]
    return Geometry(recipe.input_width, recipe.input_height, recipe.resample, frame.Limits(
        limits["max_file_bytes"], limits["max_pixels"], limits["sixteen_bit_white"]))


def look_at(arrival: Arrival, geometry: Geometry) -> Union[Look, Failure]:
    """Read and decode one file; one that changes meanwhile is read again."""
    for _ in range(TRIES):
        try:
            held = frame.load(arrival.path, geometry.width, geometry.height, geometry.limits,
                              geometry.resample, arrival, _measured)
        except frame.Refused as refused:
            failure = Failure(arrival.path, refused.code, refused.reason)
            if refused.code != "changed":
                return failure
            arrival = look(arrival.path) or arrival
            continue
        measures = held.examined
        if measures is None:
            measures = np.full(MEASURES, np.nan, np.float16)
        return Look(arrival, held.sha256, held.width, held.height, held.captured_at, measures,
                    thumbnail_of(held.pixels, held.width, held.height), held.pixels)
    return failure


def identify(arrival: Arrival, geometry: Geometry) -> Optional[frame.Identity]:
    """A file's content by its hash, undecoded; None for one that `look_at` has to decide on."""
    try:
        return frame.identify(arrival.path, geometry.limits, arrival)
    except frame.Refused:
        return None


def _measured(image: Image.Image) -> np.ndarray:
    return np.array(measure(image), np.float16)


def thumbnail_of(pixels: np.ndarray, width: int, height: int) -> bytes:
    """A small WebP file (JPEG where Pillow has no WebP) of a width x height picture.

    `pixels` are the network's, uint8 [H, W, 3], which are several times as many and cost less to
    shrink than the picture itself. The thumbnail has the picture's own proportions, its longer side
    96 pixels, and nothing is enlarged.
    """
    scale = min(1.0, THUMBNAIL_SIDE / max(width, height), pixels.shape[1] / width,
                pixels.shape[0] / height)
    picture, stream = Image.fromarray(pixels).resize(
        (max(1, round(width * scale)), max(1, round(height * scale))), Image.BICUBIC), io.BytesIO()
    image_format = "webp" if features.check("webp") else "jpeg"
    picture.save(stream, image_format, quality=THUMBNAIL_QUALITY, **OPTIONS[image_format])
    return stream.getvalue()


# ---- processes ---------------------------------------------------------------------------------


class Crew:
    """Whoever decodes: processes, or an executor of the caller's. A context manager."""

    def __init__(self, hire: Callable[[], Executor], ahead: int):
        """`hire` makes an executor, also again after one of its processes died; `ahead` is how many
        files may be in hand at once."""
        self._hire, self._ahead = hire, ahead
        self._executor = None  # type: Optional[Executor]

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_exception) -> None:
        self._dismiss()

    def each(self, work: Callable, files: Iterable[Arrival], geometry: Geometry
             ) -> Iterator[Tuple[Arrival, Any]]:
        """(file, work(file, geometry)), in the order of the files, several being worked on.

        Where a process died, it could have died of any file in hand: those are then tried one by
        one, and the one that does it again and again is a Failure. Raises WorldError where no
        process lives long enough to do anything.
        """
        files, in_hand, suspects = iter(files), deque(), False
        while True:
            while not suspects and len(in_hand) < self._ahead:
                arrival = next(files, None)
                if arrival is None:
                    break
                in_hand.append((arrival, self._submit(work, arrival, geometry)))
            if not in_hand:
                return
            arrival, future = in_hand.popleft()
            if future is not None:
                try:
                    result = future.result()
                except BrokenExecutor:
                    self._dismiss()
                    in_hand = deque((other, theirs if _is_sound(theirs) else None)
                                    for other, theirs in in_hand)
                    future = None
            if future is None:
                result = self._alone(work, arrival, geometry)
                suspects = any(theirs is None for _, theirs in in_hand)
            yield arrival, result

    def _alone(self, work: Callable, arrival: Arrival, geometry: Geometry) -> Any:
        for _ in range(TRIES):
            try:
                return self._hire_one().submit(work, arrival, geometry).result()
            except BrokenExecutor:
                self._dismiss()
        self._check_processes()
        return Failure(arrival.path, "crashed", CRASHED)

    def _check_processes(self) -> None:
        """No file is to blame where no process lives: raise WorldError."""
        try:
            self._hire_one().submit(os.getpid).result()
        except BrokenExecutor as error:
            self._dismiss()
            raise WorldError("the processes that decode images end as soon as they are started: "
                             "%s; a program that calls corpus.embed has to do so under \"if "
                             "__name__ == '__main__'\"" % error)

    def _hire_one(self) -> Executor:
        if self._executor is None:
            self._executor = self._hire()
        return self._executor

    def _submit(self, work: Callable, arrival: Arrival, geometry: Geometry):
        try:
            return self._hire_one().submit(work, arrival, geometry)
        except BrokenExecutor:  # a process died a moment ago: its futures tell
            return None

    def _dismiss(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None


def _is_sound(future) -> bool:
    return future is not None and future.done() and future.exception() is None


def processes(count: int) -> ProcessPoolExecutor:
    """Processes that end with this one, however it ends."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return ProcessPoolExecutor(count, context, _end_with_parent)


def _end_with_parent() -> None:
    """A killed run leaves no process behind that waits for work for ever."""
    logs.start(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all: the parent says what ends
    parent = multiprocessing.parent_process().sentinel
    threading.Thread(target=lambda: (connection.wait([parent]), os._exit(1)), daemon=True).start()
