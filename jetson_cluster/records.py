"""What the catalog takes in and gives out, and how it stands in the database.

Small immutable records, one an image, a refusal or a row of the queue, and the few conversions between
them and SQLite's columns.
"""

import os
from typing import NamedTuple, Optional, Tuple

import numpy as np

from jetson_cluster.codebook import NEIGHBOURS, Found
from jetson_cluster.inbox import Arrival
from jetson_cluster.preview import Preview
from jetson_cluster.quality import Measures

FLOAT16_MAX = 65504.0  # embeddings are kept as float16


class Image(NamedTuple):
    """One image as ingest learned it."""

    arrival: Arrival
    sha256: str
    width: int
    height: int
    captured_at: str  # ISO 8601, UTC
    embedding: Optional[np.ndarray]  # float32 [D], every |component| <= FLOAT16_MAX; None: not yet
    found: Optional[Found] = None  # its nearest centroids, where the GPU looked them up
    measures: Optional[Measures] = None  # of its pixels
    preview: Optional[Preview] = None


class Refusal(NamedTuple):
    """One file that is no usable image, and why."""

    path: str
    bytes: int
    mtime_ns: int
    code: str
    reason: str
    refused_at: str  # ISO 8601, UTC


class Row(NamedTuple):
    """What is known of one image. All from `cluster` to `soft_weight` is None while it has no place."""

    image: int
    sha256: str
    path: str
    bytes: int
    width: int
    height: int
    captured_at: str
    state: str
    cluster: Optional[int]
    distance: Optional[float]
    second_distance: Optional[float]
    ratio: Optional[float]
    far: Optional[bool]
    novelty: Optional[float]
    representative: Optional[float]
    interest: Optional[float]
    soft_index: Optional[np.ndarray]  # int32 [4]
    soft_weight: Optional[np.ndarray]  # float32 [4]
    sent_in: Optional[int]  # the last pass it was sent in
    preview_sent_in: Optional[int]
    pinned: Optional[int]  # order of pinning
    measures: Optional[Measures]
    quality: float
    signature: float
    twin: int  # id of the first of its near-duplicates, 0: it is none
    reach: float = 0.0  # the distance within which another image is near it, 0: not known


class Pass(NamedTuple):
    """One pass over a ground station: what was handed to the radio."""

    number: int
    made_at: str  # ISO 8601, UTC
    origin: str
    budget_bytes: int
    images: int
    bytes: int
    previews: int
    preview_bytes: int
    last_image: int  # the newest image then known


class Audited(NamedTuple):
    """One line of the account of what operations asked for."""

    number: int
    at: str  # ISO 8601, UTC
    origin: str
    order_id: Optional[str]
    action: str
    target: str
    result: str
    detail: str


def pack_soft(index: np.ndarray, weight: np.ndarray) -> bytes:
    """Soft membership int32 [4], float32 [4] as 16 bytes: four uint16, four float16."""
    return index.astype("<u2").tobytes() + weight.astype("<f2").tobytes()


def unpack_soft(packed: bytes) -> Tuple[np.ndarray, np.ndarray]:
    """The inverse of pack_soft."""
    return (np.frombuffer(packed, "<u2", NEIGHBOURS).astype(np.int32),
            np.frombuffer(packed, "<f2", NEIGHBOURS, 2 * NEIGHBOURS).astype(np.float32))


def path_in(path: str):
    """A path as SQLite keeps it: text, or bytes where the name is not UTF-8.

    Decided by the bytes on disk: Python 3.6 reads names as ASCII where systemd sets no locale, and
    the same file must be the same path in an operator's UTF-8 shell.
    """
    name = os.fsencode(path)
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name


def path_out(stored) -> str:
    """The inverse of path_in."""
    return os.fsdecode(stored.encode("utf-8") if isinstance(stored, str) else stored)


def mtime_in(mtime_ns: int) -> int:
    """An mtime as SQLite keeps it, in signed 64 bits: files dated after 2262 wrap around."""
    return (mtime_ns + 2 ** 63) % 2 ** 64 - 2 ** 63


def text_in(text: str) -> str:
    """Text as SQLite can keep it; what stands for bytes that are not UTF-8 becomes \\udcNN."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
