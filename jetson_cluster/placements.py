"""Where the images belong and what they are worth, as the catalog keeps it: written, and redone.

In: a Placement of new images, or of the older ones, chunk by chunk, when the codebook or what the
policy values has changed. Out: embeddings and measures to place by, and how far that got. It is a
part of the catalog, in its file.
"""

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from jetson_cluster import quality, sketches
from jetson_cluster.codebook import Assessment
from jetson_cluster.database import Database, marks_for, parts_of
from jetson_cluster.provisional import Groups
from jetson_cluster.quality import Measures
from jetson_cluster.records import pack_soft

PLACED = ("cluster = ?, distance = ?, second_distance = ?, ratio = ?, far = ?, novelty = ?, "
          "representative = ?, interest = ?, soft = ?, quality = ?, signature = ?, reach = ?, "
          "sketch = ?")


class Worth(NamedTuple):
    """What N images are worth before their clusters' weights and what is ahead of them."""

    interest: np.ndarray  # float32 [N], what orders an image within its cluster
    quality: np.ndarray  # float32 [N] in 0..1, the factor that is in it
    signature: np.ndarray  # float32 [N], the likeness to a target that is in it


class Placement(NamedTuple):
    """Where N images belong, and what they are worth there."""

    assessment: Assessment
    worth: Worth
    sketches: Optional[np.ndarray] = None  # int16 [N, 32], see sketches.of; None: not known


class Known(NamedTuple):
    """What worth is made of, for N images that have a place."""

    images: List[int]
    novelty: np.ndarray  # float32 [N]
    representative: np.ndarray  # float32 [N]
    measures: List[Optional[Measures]]
    embeddings: Optional[np.ndarray]  # float32 [N, D], where they were asked for


class Placements(Database):
    """The catalog's columns of places and worth, its embeddings and its provisional groups."""

    @property
    def placed_by(self) -> str:
        """What placed the images (a codebook's identity, or another name); "" at first."""
        return self.meta("placed_by") or ""

    @property
    def valued_by(self) -> str:
        """What in a policy gave the images their worth, see scoring.identity; "" at first."""
        return self.meta("valued_by") or ""

    @property
    def clusters(self) -> int:
        """How many clusters, or provisional groups, there can be."""
        return self.meta("clusters") or 0

    @property
    def clustered(self) -> bool:
        """Whether a codebook places the images."""
        return bool(self.meta("clustered"))

    @property
    def unplaced(self) -> Tuple[int, int]:
        """Images with from < id <= until still have to be done anew; (n, n) when none."""
        return self.meta("placed_to") or 0, self.meta("place_until") or 0

    @property
    def only_worth(self) -> bool:
        """Whether those have a place that holds, and only their worth is to be found anew."""
        return bool(self.meta("only_worth"))

    def begin_placing(self, placed_by: str, valued_by: str, clusters: int, clustered: bool) -> None:
        """From now on new images come placed and valued by these; all older ones are to be redone."""
        last = self._db.execute("SELECT COALESCE(MAX(id), 0) FROM images").fetchone()[0]
        start, until = self.unplaced
        underway = start < until and not self.only_worth
        with self._transaction():
            # Formats 1 and 2 named nothing that gave worth, and kept no sketches.
            self._set_meta("only_worth", int(
                placed_by == self.placed_by and bool(self.valued_by) and not underway))
            self._set_meta("placed_by", placed_by)
            self._set_meta("valued_by", valued_by)
            self._set_meta("clusters", clusters)
            self._set_meta("clustered", int(clustered))
            self._set_meta("placed_to", 0)
            self._set_meta("place_until", last)

    def next_unplaced(self, limit: int) -> Tuple[List[int], np.ndarray, List[Optional[Measures]]]:
        """The next images to place: their ids, embeddings float32 [n, D] and measures."""
        start, until = self.unplaced
        images, embeddings = self._embeddings(
            "image > ? AND image <= ? ORDER BY image LIMIT ?", (start, until, limit))
        measures = {}
        for part in parts_of(images):
            measures.update(self._db.execute("SELECT id, measures FROM images WHERE id IN (%s)"
                                             % marks_for(part), part))
        return images, embeddings, [unpacked(measures.get(image)) for image in images]

    def next_unvalued(self, limit: int, with_embeddings: bool) -> Known:
        """The next images whose worth is to be found anew."""
        start, until = self.unplaced
        rows = self._db.execute(
            "SELECT id, novelty, representative, measures FROM images WHERE id > ? AND id <= ? "
            "AND soft IS NOT NULL ORDER BY id LIMIT ?", (start, until, limit)).fetchall()
        images = [row[0] for row in rows]
        return Known(images, np.array([row[1] for row in rows], np.float32),
                     np.array([row[2] for row in rows], np.float32),
                     [unpacked(row[3]) for row in rows],
                     self.embeddings_of(images) if with_embeddings else None)

    def place(self, images: Sequence[int], placement: Placement) -> None:
        """Write where `images` (ids from next_unplaced) belong now, and how far that got."""
        with self._transaction():
            self._db.executemany("UPDATE images SET " + PLACED + " WHERE id = ?", [
                placement_columns(placement, row) + (image,) for row, image in enumerate(images)])
            self._set_meta("placed_to", images[-1])

    def value(self, images: Sequence[int], worth: Worth) -> None:
        """Write what `images` (ids from next_unvalued) are worth now, and how far that got."""
        with self._transaction():
            self._db.executemany(
                "UPDATE images SET interest = ?, quality = ?, signature = ? WHERE id = ?",
                [(float(worth.interest[row]), float(worth.quality[row]),
                  float(worth.signature[row]), image) for row, image in enumerate(images)])
            self._set_meta("placed_to", images[-1])

    def end_placing(self) -> None:
        """Everything is placed."""
        with self._transaction():
            self._set_meta("placed_to", self.unplaced[1])

    # ---- groups that stand in for clusters while there is no codebook --------------------------

    def groups(self) -> Groups:
        """The groups as last saved; none at first."""
        leaders = [np.frombuffer(row[0], np.float32) for row in self._db.execute(
            "SELECT leader FROM groups ORDER BY number")]
        return Groups(np.array(leaders, np.float32), self.meta("group_reach") or 0.0)

    def save_groups(self, groups: Groups, unchanged: int) -> None:
        """Keep `groups`, of which the first `unchanged` are as saved before."""
        with self._transaction():
            self._db.execute("DELETE FROM groups WHERE number >= ?", (unchanged,))
            self._db.executemany("INSERT INTO groups VALUES (?, ?)", [
                (number, groups.leaders[number].tobytes())
                for number in range(unchanged, len(groups.leaders))])
            self._set_meta("group_reach", groups.reach)

    # ---- embeddings ----------------------------------------------------------------------------

    def embeddings_of(self, images: Sequence[int]) -> np.ndarray:
        """Embeddings float32 [n, D] of the given ids, in their order."""
        found = {}  # type: Dict[int, np.ndarray]
        for part in parts_of(images):
            ids, vectors = self._embeddings("image IN (%s)" % marks_for(part), part)
            found.update(zip(ids, vectors))
        return np.array([found[image] for image in images], np.float32)

    def newest_embeddings(self, limit: int) -> Tuple[List[int], np.ndarray]:
        """The embeddings float32 [n, D] of the images that came last, oldest first, with their ids."""
        images, embeddings = self._embeddings("1 ORDER BY image DESC LIMIT ?", (limit,))
        return images[::-1], embeddings[::-1]

    def _embeddings(self, condition: str, values) -> Tuple[List[int], np.ndarray]:
        rows = self._db.execute(
            "SELECT image, vector FROM embeddings WHERE " + condition, values).fetchall()
        if not rows:
            return [], np.empty((0, 0), np.float32)
        vectors = np.frombuffer(b"".join(row[1] for row in rows), np.float16)
        return [row[0] for row in rows], vectors.reshape(len(rows), -1).astype(np.float32)


def placement_columns(placement: Placement, row: int) -> tuple:
    """What PLACED stands for, of one row."""
    found, worth, sketch = placement
    return (int(found.cluster[row]), float(found.distance[row]),
            # SQLite has no column type for infinity that reads back the same everywhere.
            float(min(found.second_distance[row], np.finfo(np.float32).max)),
            float(found.ratio[row]), int(found.far[row]), float(found.novelty[row]),
            float(found.representative[row]), float(worth.interest[row]),
            pack_soft(found.soft_index[row], found.soft_weight[row]),
            float(worth.quality[row]), float(worth.signature[row]), float(found.reach[row]),
            None if sketch is None else sketches.pack(sketch[row]))


def unpacked(measures: Optional[bytes]) -> Optional[Measures]:
    """The measures of an image as the catalog keeps them; None: it was never measured."""
    return None if measures is None else quality.unpack(measures)
