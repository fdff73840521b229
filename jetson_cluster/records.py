"""What the catalog takes in and gives out, and how it stands in the database.

Small immutable records, one an image, a refusal or a row of the queue, and the few conversions between
them and SQLite's columns.
"""

import os
from typing import NamedTuple, Optional, Tuple

import numpy as np

from jetson_cluster.codebook import NEIGHBOURS, Found
from jetson_cluster.inbox import Arrival

QUEUED = "queued"
WAITING = "waiting"  # seen and identified; it was too hot to embed it
MISSING = "missing"  # its file is gone from the inbox; queued again should it come back
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


class Refusal(NamedTuple):
    """One file that is no usable image, and why."""

    path: str
    bytes: int
    mtime_ns: int
    code: str
    reason: str
    refused_at: str  # ISO 8601, UTC


class Row(NamedTuple):
    """What the queue file tells of one image."""

    image: int
    sha256: str
    path: str
    bytes: int
    captured_at: str
    state: str
    cluster: int
    novelty: float
    representative: float
    far: bool


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
