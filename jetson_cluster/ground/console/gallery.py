"""What is in the catalog, to look at: the clusters with their members, and a picture of each image.

In: a copy of the catalog, which is only read, and perhaps a corpus that holds thumbnails. Out:
numbers and ids by cluster, and pictures: the preview that the rover made, else the corpus's
thumbnail, else the file itself if it is here and is the very content that the catalog names.
"""

import contextlib
import io
import os
import sqlite3
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np
from PIL import Image

from jetson_cluster import frame
from jetson_cluster.catalog import Catalog
from jetson_cluster.errors import UserError
from jetson_cluster.ledger import GROUND
from jetson_cluster.records import path_out
from jetson_cluster.schema import HELD, QUEUED, STATES

ORDERS = ("typical", "unusual", "best", "newest")
LARGE, SMALL = 1024, 256  # pixels of the longer side, of a picture made from the file itself
_MIME = {"webp": "image/webp", "palette": "image/png", "jpeg": "image/jpeg"}
_MEMBER = np.dtype([("image", "<i8"), ("cluster", "<i4"), ("ratio", "<f4"), ("interest", "<f4"),
                    ("bytes", "<i8"), ("state", "<i1")])


class Cluster(NamedTuple):
    """One cluster as it stands in the catalog."""

    number: int
    images: int
    queued: int
    queued_bytes: int
    on_ground: int  # sent, acknowledged or deleted since
    held: int


def marked_in(path: str) -> Tuple[List[int], List[int]]:
    """(ids that operations pinned, in that order; ids that they hold) in a catalog."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        return ([row[0] for row in database.execute(
                    "SELECT id FROM images WHERE pinned IS NOT NULL ORDER BY pinned")],
                [row[0] for row in database.execute(
                    "SELECT id FROM images WHERE state = ? ORDER BY id", (HELD,))])


class Wall:
    """Which images are in which cluster; all of it in memory, 29 bytes an image."""

    def __init__(self, path: str, clusters: int):
        """`path` is a catalog that this program has opened before, so that its format is known."""
        with contextlib.closing(sqlite3.connect(path)) as database:
            self._all = np.array(database.execute(
                "SELECT id, cluster, ratio, interest, bytes, CASE state %s END FROM images "
                "WHERE cluster IS NOT NULL AND cluster < ? ORDER BY cluster, ratio, id" % " ".join(
                    f"WHEN '{state}' THEN {code}" for code, state in enumerate(STATES)),
                (clusters,)).fetchall(), _MEMBER)
        self._path = path
        bounds = np.searchsorted(self._all["cluster"], np.arange(clusters + 1))
        self._members = [self._all[low:high] for low, high in zip(bounds[:-1], bounds[1:])]

    def clusters(self) -> List[Cluster]:
        """All of them, by number."""
        return [self._cluster(number) for number in range(len(self._members))]

    def _cluster(self, number: int) -> Cluster:
        members = self._members[number]
        queued = members["state"] == STATES.index(QUEUED)
        ground = np.isin(members["state"], [STATES.index(state) for state in GROUND])
        return Cluster(number, len(members), int(queued.sum()), int(members["bytes"][queued].sum()),
                       int(ground.sum()), int((members["state"] == STATES.index(HELD)).sum()))

    def members(self, number: int, order: str, start: int, most: int, queued_only: bool
                ) -> Tuple[List[int], int]:
        """(ids of some members in one of ORDERS, how many there are). Raises UserError."""
        if not 0 <= number < len(self._members) or order not in ORDERS:
            raise UserError(f"cluster {number} by {order!r}: there are 0 to "
                            f"{len(self._members) - 1}, by {', '.join(ORDERS)}")
        members = self._members[number]  # the most typical first
        if queued_only:
            members = members[members["state"] == STATES.index(QUEUED)]
        if order == "unusual":
            members = members[::-1]
        elif order == "best":
            members = members[np.lexsort((members["image"], -members["interest"]))]
        elif order == "newest":
            members = members[np.argsort(-members["image"])]
        return members["image"][start:start + most].tolist(), len(members)

    def search(self, words: str, start: int, most: int) -> Tuple[List[int], int]:
        """(some of the images whose path holds these words, in capitals or not, or whose SHA-256
        begins so, the newest first; how many there are)."""
        asked = words.casefold()
        digits = asked if set(asked) <= set("0123456789abcdef") else ""
        with contextlib.closing(sqlite3.connect(self._path)) as database:
            database.create_function("holds", 1, lambda path: asked in path_out(path).casefold())
            found = [row[0] for row in database.execute(
                "SELECT id FROM images WHERE holds(path) "
                "OR (length(?1) >= 6 AND substr(lower(hex(sha256)), 1, length(?1)) = ?1) "
                "ORDER BY id DESC", (digits,))]
        return found[start:start + most], len(found)


class Picture(NamedTuple):
    """A picture as a browser takes it."""

    mime: str
    content: bytes


class Pictures:
    """A picture of each image; use it from one thread."""

    def __init__(self, catalog: Catalog, corpus: Optional[object] = None):
        """`corpus` is a corpus.Corpus."""
        self.catalog, self._corpus = catalog, corpus
        self._places: Dict[str, int] = {} if corpus is None else {
            sha256: place for place, sha256 in enumerate(corpus.sha256)}

    def of(self, image: int, large: bool) -> Optional[Picture]:
        """The best there is, quickly for a small one; None if there is none at all."""
        ways = [self._preview, self._thumbnail, lambda image: self._from_file(image, SMALL)]
        if large:
            ways = [lambda image: self._from_file(image, LARGE)] + ways[:2]
        return next(filter(None, (way(image) for way in ways)), None)

    def _preview(self, image: int) -> Optional[Picture]:
        found = self.catalog.preview_of(image)
        return Picture(_MIME[found[0]], found[1]) if found and found[0] in _MIME else None

    def _thumbnail(self, image: int) -> Optional[Picture]:
        row = self.catalog.rows([image]).get(image)
        place = self._places.get(row.sha256) if row else None
        if place is None:
            return None
        content = self._corpus.thumbnails([place])[0]
        return Picture("image/webp" if content[8:12] == b"WEBP" else "image/jpeg", content)

    def _from_file(self, image: int, side: int) -> Optional[Picture]:
        """From the file that the catalog names, by the rover's own careful reader."""
        row = self.catalog.rows([image]).get(image)
        if row is None or not os.path.isfile(row.path) or os.path.getsize(row.path) != row.bytes:
            return None
        scale = min(1.0, side / max(row.width, row.height, 1))
        try:
            read = frame.load(row.path, max(1, round(row.width * scale)),
                              max(1, round(row.height * scale)))
        except frame.Refused:
            return None
        if read.sha256 != row.sha256:  # the path may mean another file here than on the rover
            return None
        stream = io.BytesIO()
        Image.fromarray(read.pixels).save(stream, "WEBP", quality=80, method=2)
        return Picture("image/webp", stream.getvalue())
