"""Everything the rover knows about every image, in one SQLite file.

In: what ingest learned (an image with or without its embedding, or a refusal) and where ranking
placed it. Out: which files are dealt with already, the best candidates of each cluster, rows for
the queue. An image is its content (SHA-256); a path with size and mtime_ns is only the fast way to
skip it. What a call that returned wrote survives a power cut; database.py holds the file together.
"""

import contextlib
import os
from typing import Callable, Dict, List, Optional, Sequence, Set, Tuple

import numpy as np

from jetson_cluster.attempts import Attempts
from jetson_cluster.database import marks_for, parts_of
from jetson_cluster.frame import PASSING
from jetson_cluster.inbox import Arrival
from jetson_cluster.provisional import Groups
from jetson_cluster.ranking import CANDIDATE, Placement
from jetson_cluster.records import (
    MISSING, QUEUED, WAITING, Image, Refusal, Row, mtime_in, pack_soft, path_in, path_out, text_in,
    unpack_soft)

PLACED = ("cluster = ?, distance = ?, second_distance = ?, ratio = ?, far = ?, novelty = ?, "
          "representative = ?, interest = ?, soft = ?")


class Catalog(Attempts):
    """One open catalog file; use it from one thread. A context manager."""

    def __init__(self, path: str, space: str,
                 progress: Callable[[str, float], None] = lambda doing, allow_s: None):
        """Open or create the catalog of the embedding space `space`: see Database."""
        self._disturbed = set()  # type: Set[int]
        self._counts, self._refused, self._queued_bytes = {}, 0, 0  # type: Dict[str, int], int, int
        super().__init__(path, space, progress)

    def _opened(self) -> None:
        self._counts = dict(self._db.execute("SELECT state, COUNT(*) FROM images GROUP BY state"))
        self._refused = self._db.execute("SELECT COUNT(*) FROM refusals").fetchone()[0]
        self._queued_bytes = self._db.execute(
            "SELECT COALESCE(SUM(bytes), 0) FROM images WHERE state = ?", (QUEUED,)).fetchone()[0]

    @contextlib.contextmanager
    def _transaction(self):
        """All that is done within, counts included, or nothing of it."""
        before = dict(self._counts), self._refused, self._queued_bytes
        try:
            with super()._transaction():
                yield
        except BaseException:
            self._counts, self._refused, self._queued_bytes = before
            raise

    # ---- small facts -------------------------------------------------------------------------

    @property
    def counts(self) -> Dict[str, int]:
        """Images by state, and files refused; kept up to date without counting again."""
        return dict({state: self._counts.get(state, 0) for state in (QUEUED, WAITING, MISSING)},
                    refused=self._refused)

    @property
    def queued_bytes(self) -> int:
        """Bytes of all queued images."""
        return self._queued_bytes

    def refusals(self, limit: int) -> List[Refusal]:
        """The newest refusals, newest first."""
        rows = self._db.execute("SELECT path, bytes, mtime_ns, code, reason, refused_at "
                                "FROM refusals ORDER BY id DESC LIMIT ?", (limit,))
        return [Refusal(path_out(row[0]), *row[1:]) for row in rows]

    # ---- files -------------------------------------------------------------------------------

    def known(self, arrivals: Sequence[Arrival]) -> Set[str]:
        """Paths that were catalogued, or refused for good, with this very size and mtime.

        An image that was missing and is back at its path is queued, or waits, again.
        """
        found = set()
        for part in parts_of(arrivals):
            paths = {arrival.path: arrival for arrival in part}
            marks = marks_for(paths)
            stored = [path_in(path) for path in paths]
            rows = self._db.execute(
                "SELECT path, bytes, mtime_ns, image FROM files WHERE path IN (%s) UNION ALL "
                "SELECT path, bytes, mtime_ns, NULL FROM refusals WHERE path IN (%s) "
                "AND code NOT IN (%s)" % (marks, marks, marks_for(PASSING)),
                stored * 2 + sorted(PASSING)).fetchall()
            images = {}
            for stored_path, size, mtime_ns, image in rows:
                path = path_out(stored_path)
                if (paths[path].bytes, mtime_in(paths[path].mtime_ns)) == (size, mtime_ns):
                    found.add(path)
                    if image is not None:
                        images[image] = path
            self._revive(images)
        return found

    def _revive(self, images: Dict[int, str]) -> None:
        if not self._counts.get(MISSING) or not images:
            return
        missing = [row[0] for row in self._db.execute(
            "SELECT id FROM images WHERE state = ? AND id IN (%s)" % marks_for(images),
            [MISSING] + list(images))]
        if missing:
            with self._transaction():
                for image in missing:
                    self._set_there(image, True, images[image])

    def images_at(self, paths: Sequence[str]) -> Dict[str, int]:
        """The ids of the images at those of `paths` that hold one."""
        found = {}
        for part in parts_of(paths):
            found.update((path_out(row[0]), row[1]) for row in self._db.execute(
                "SELECT path, image FROM files WHERE path IN (%s)" % marks_for(part),
                [path_in(path) for path in part]))
        return found

    def forget_refusals(self, limits: str, codes: Sequence[str]) -> int:
        """Refuse anew by `limits`: if they were others before, forget refusals for `codes`.

        Returns how many; those files are read again.
        """
        if self.meta("limits") == limits:
            return 0
        with self._transaction():
            forgotten = self._db.execute(
                "DELETE FROM refusals WHERE code IN (%s)" % marks_for(codes), list(codes)).rowcount
            self._refused -= forgotten
            self._set_meta("limits", limits)
        return forgotten

    # ---- recording ---------------------------------------------------------------------------

    def record(self, images: Sequence[Image], placement: Optional[Placement],
               refusals: Sequence[Refusal]) -> List[Tuple[int, int]]:
        """Take in one batch, all or nothing; return (id, row) of the images that are new.

        `placement` has one row for each of `images`; without it they are not embedded and wait.
        Content known already only gains a path; content that waited is new when it is embedded.
        """
        added = []
        with self._transaction():
            for row, image in enumerate(images):
                new = self._record_image(image, placement, row)
                if new is not None:
                    added.append((new, row))
            for refusal in refusals:
                self._record_refusal(refusal)
            self._end_attempts([image.arrival.path for image in images]
                               + [refusal.path for refusal in refusals])
        return added

    def _record_image(self, image: Image, placement: Optional[Placement], row: int
                      ) -> Optional[int]:
        """Insert one image, embed one that waits, or add a path; the id if that made it new."""
        path, arrival = path_in(image.arrival.path), image.arrival
        digest = bytes.fromhex(image.sha256)
        number, state, embedded = self._db.execute(
            "SELECT id, state, soft IS NOT NULL FROM images WHERE sha256 = ?", (digest,)
        ).fetchone() or (None, "", False)
        self._leave_path(path, number)
        new = number is None or bool(placement and not embedded)
        if number is None:
            number = self._db.execute(
                "INSERT INTO images (sha256, path, bytes, width, height, captured_at, state) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)", (
                    digest, path, arrival.bytes, image.width, image.height, image.captured_at,
                    WAITING)).lastrowid
            state = WAITING
            self._count(WAITING, 1, arrival.bytes)
        if placement and not embedded:
            self._db.execute("UPDATE images SET path = ?, width = ?, height = ?, captured_at = ?, "
                             "state = ?, " + PLACED + " WHERE id = ?", (
                                 path, image.width, image.height, image.captured_at, QUEUED)
                             + _placement_columns(placement, row) + (number,))
            self._db.execute("INSERT INTO embeddings VALUES (?, ?)", (
                number, image.embedding.astype(np.float16).tobytes()))
            self._count(state, -1, arrival.bytes)
            self._count(QUEUED, 1, arrival.bytes)
        elif state == MISSING:
            self._set_there(number, True, arrival.path)
        self._db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", (
            path, arrival.bytes, mtime_in(arrival.mtime_ns), number))
        return number if new else None

    def _record_refusal(self, refusal: Refusal) -> None:
        path, mtime_ns = path_in(refusal.path), mtime_in(refusal.mtime_ns)
        judged = self._db.execute(
            "SELECT image FROM files WHERE path = ? AND bytes = ? AND mtime_ns = ?",
            (path, refusal.bytes, mtime_ns)).fetchone()
        self._leave_path(path, None)
        if judged and refusal.code not in PASSING:
            # It was thought to be an image, and waited: its content is none, which is not missing.
            self._count(MISSING, -self._db.execute(
                "DELETE FROM images WHERE id = ? AND soft IS NULL AND NOT EXISTS "
                "(SELECT 1 FROM files WHERE image = id)", judged).rowcount, 0)
        self._db.execute("INSERT INTO refusals VALUES (NULL, ?, ?, ?, ?, ?, ?)", (
            path, refusal.bytes, mtime_ns, refusal.code,
            text_in(refusal.reason), refusal.refused_at))
        self._refused += 1

    def _leave_path(self, path, image: Optional[int]) -> None:
        """Content at `path` is now `image` (None: unusable): undo what was known of the path."""
        self._refused -= self._db.execute(
            "DELETE FROM refusals WHERE path = ?", (path,)).rowcount
        row = self._db.execute("SELECT image FROM files WHERE path = ?", (path,)).fetchone()
        if row is None or row[0] == image:
            return
        self._db.execute("DELETE FROM files WHERE path = ?", (path,))
        held = self._db.execute(
            "SELECT path, state FROM images WHERE id = ?", (row[0],)).fetchone()
        if held in ((path, QUEUED), (path, WAITING)):
            # The path must never send other content than the queue promised.
            other = self._db.execute(
                "SELECT path FROM files WHERE image = ? ORDER BY path", (row[0],)).fetchone()
            self._set_there(row[0], other is not None, path_out((other or [path])[0]))

    def mark_missing(self, images: Sequence[int], exists=os.path.exists) -> List[int]:
        """The files of these images are gone: take another of their paths, or mark them.

        Returns those that are missing now.
        """
        missing = []
        with self._transaction():
            for image in images:
                paths = [path_out(row[0]) for row in self._db.execute(
                    "SELECT path FROM files WHERE image = ? ORDER BY path", (image,))]
                there = next((path for path in paths if exists(path)), None)
                self._set_there(image, there is not None, there)
                if there is None:
                    missing.append(image)
        return missing

    def _set_there(self, image: int, there: bool, path: Optional[str]) -> None:
        """A file of the image is there (at `path`), so that it is queued or waits; or none is."""
        before, size, cluster = self._db.execute(
            "SELECT state, bytes, cluster FROM images WHERE id = ?", (image,)).fetchone()
        state = MISSING if not there else WAITING if cluster is None else QUEUED
        self._db.execute("UPDATE images SET state = ?, path = COALESCE(?, path) WHERE id = ?",
                         (state, path if path is None else path_in(path), image))
        self._count(before, -1, size)
        self._count(state, 1, size)
        if state != before and cluster is not None:
            self._disturbed.add(cluster)

    def waiting(self, after: int, limit: int) -> List[Tuple[int, List[Tuple[str, int, int]]]]:
        """The first images with an id above `after` that wait: (id, its (path, bytes, mtime_ns)).

        In order of arrival; mtime_ns as mtime_in makes it.
        """
        ids = [row[0] for row in self._db.execute(
            "SELECT id FROM images INDEXED BY images_waiting "
            "WHERE state = 'waiting' AND id > ? ORDER BY id LIMIT ?", (after, limit))]
        held = {image: [] for image in ids}  # type: Dict[int, List[Tuple[str, int, int]]]
        for part in parts_of(ids):
            for image, path, size, mtime_ns in self._db.execute(
                    "SELECT image, path, bytes, mtime_ns FROM files WHERE image IN (%s)"
                    % marks_for(part), part):
                held[image].append((path_out(path), size, mtime_ns))
        return [(image, sorted(held[image])) for image in ids]

    @property
    def disturbed(self) -> bool:
        """Whether images joined or left the queue other than as new."""
        return bool(self._disturbed)

    def take_disturbed(self) -> Set[int]:
        """The clusters where that happened since last asked."""
        disturbed, self._disturbed = self._disturbed, set()
        return disturbed

    def _count(self, state: str, change: int, size: int) -> None:
        self._counts[state] = self._counts.get(state, 0) + change
        if state == QUEUED:
            self._queued_bytes += change * size

    # ---- placing anew when the codebook changes ----------------------------------------------

    @property
    def placed_by(self) -> str:
        """What placed the images (a codebook's identity, or another name); "" at first."""
        return self.meta("placed_by") or ""

    @property
    def unplaced(self) -> Tuple[int, int]:
        """Images with from < id <= until still have to be placed; (n, n) when none."""
        return self.meta("placed_to") or 0, self.meta("place_until") or 0

    def begin_placing(self, placed_by: str) -> None:
        """From now on new images come placed by `placed_by`; all older ones are to be placed."""
        last = self._db.execute("SELECT COALESCE(MAX(id), 0) FROM images").fetchone()[0]
        with self._transaction():
            self._set_meta("placed_by", placed_by)
            self._set_meta("placed_to", 0)
            self._set_meta("place_until", last)

    def next_unplaced(self, limit: int) -> Tuple[List[int], np.ndarray]:
        """The next images to place: their ids and embeddings float32 [n, D]."""
        start, until = self.unplaced
        return self._embeddings("image > ? AND image <= ? ORDER BY image LIMIT ?",
                                (start, until, limit))

    def place(self, images: Sequence[int], placement: Placement) -> None:
        """Write where `images` (ids from next_unplaced) belong now, and how far that got."""
        with self._transaction():
            self._db.executemany(
                "UPDATE images SET " + PLACED + " WHERE id = ?",
                [_placement_columns(placement, row) + (image,)
                 for row, image in enumerate(images)])
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

    def embeddings_of(self, images: Sequence[int]) -> np.ndarray:
        """Embeddings float32 [n, D] of the given ids, in their order."""
        found = {}
        for part in parts_of(images):
            ids, vectors = self._embeddings("image IN (%s)" % marks_for(part), part)
            found.update(zip(ids, vectors))
        return np.array([found[image] for image in images], np.float32)

    def _embeddings(self, condition: str, values) -> Tuple[List[int], np.ndarray]:
        rows = self._db.execute(
            "SELECT image, vector FROM embeddings WHERE " + condition, values).fetchall()
        if not rows:
            return [], np.empty((0, 0), np.float32)
        vectors = np.frombuffer(b"".join(row[1] for row in rows), np.float16)
        return [row[0] for row in rows], vectors.reshape(len(rows), -1).astype(np.float32)

    # ---- what ranking and the queue file read ------------------------------------------------

    def candidates(self, cluster: int, limit: int) -> np.ndarray:
        """The queued images of `cluster` with the highest interest, best first: CANDIDATE [n]."""
        return self._candidates(
            "WHERE state = ? AND cluster = ? ORDER BY interest DESC, id LIMIT ?",
            (QUEUED, cluster, limit))

    def far_candidates(self, limit: int) -> np.ndarray:
        """The queued images beyond r95, nearest first: CANDIDATE [n]."""
        # By itself SQLite takes the other index and sorts everything that is queued.
        return self._candidates(
            "INDEXED BY images_far WHERE far = 1 AND state = 'queued' ORDER BY ratio, id LIMIT ?",
            (limit,))

    def _candidates(self, which: str, values) -> np.ndarray:
        rows = self._db.execute(
            "SELECT id, cluster, interest, ratio, far, soft FROM images " + which, values)
        return np.array([row[:5] + unpack_soft(row[5]) for row in rows], CANDIDATE)

    def rows(self, images: Sequence[int]) -> Dict[int, Row]:
        """The queue's rows of the given ids."""
        found = {}
        for part in parts_of(images):
            for row in self._db.execute(
                    "SELECT id, sha256, path, bytes, captured_at, state, cluster, novelty, "
                    "representative, far FROM images WHERE id IN (%s)" % marks_for(part), part):
                found[row[0]] = Row(row[0], row[1].hex(), path_out(row[2]), *row[3:9] + (
                    bool(row[9]),))
        return found


def _placement_columns(placement: Placement, row: int) -> tuple:
    found = placement.assessment
    return (int(found.cluster[row]), float(found.distance[row]),
            # SQLite has no column type for infinity that reads back the same everywhere.
            float(min(found.second_distance[row], np.finfo(np.float32).max)),
            float(found.ratio[row]), int(found.far[row]), float(found.novelty[row]),
            float(found.representative[row]), float(placement.interest[row]),
            pack_soft(found.soft_index[row], found.soft_weight[row]))
