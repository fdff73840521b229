"""Everything the rover knows about every image, in one SQLite file.

In: what ingest learned (an image with or without its embedding, or a refusal) and where ranking
placed it. Out: which files are dealt with already, the best candidates of each cluster, rows for
the queue. An image is its content (SHA-256); a path with size and mtime_ns is only the fast way to
skip it. What a call that returned wrote survives a power cut; database.py holds the file together,
ledger.py what operations did with the images.
"""

import logging
import os
import sqlite3
from typing import Callable, Dict, List, Optional, Sequence, Set, Tuple

import numpy as np

from jetson_cluster import quality, soundness
from jetson_cluster.attempts import Attempts
from jetson_cluster.candidates import Candidates
from jetson_cluster.database import Damaged, is_damage, marks_for, parts_of, set_aside
from jetson_cluster.frame import PASSING
from jetson_cluster.inbox import Arrival
from jetson_cluster.links import OutboxLinks
from jetson_cluster.passbook import PassBook
from jetson_cluster.placements import PLACED, Placement, Placements, placement_columns
from jetson_cluster.records import Image, Refusal, mtime_in, path_in, path_out, text_in
from jetson_cluster.schema import (
    ACKED, DELETED, DROPPED, MISSING, QUEUED, WAITING)

log = logging.getLogger(__name__)

# What reading a damaged catalog ends in: SQLite notices much of it, and our own code the rest.
UNREADABLE = (Damaged, sqlite3.DatabaseError, ValueError, TypeError, OverflowError)
CHECKING_S = 3600.0  # for a million images on a slow card


class Catalog(PassBook, Placements, Candidates, OutboxLinks, Attempts):
    """One open catalog file, see Database; use it from one thread. A context manager."""

    # ---- small facts -------------------------------------------------------------------------

    @property
    def counts(self) -> Dict[str, int]:
        """Images by state, and files refused."""
        return dict(self._db.execute("SELECT state, images FROM tallies"))

    @property
    def sizes(self) -> Dict[str, int]:
        """Bytes of the images by state, and of the files refused."""
        return dict(self._db.execute("SELECT state, bytes FROM tallies"))

    def count_of(self, state: str) -> int:
        """How many images are in this state."""
        return self._db.execute(
            "SELECT images FROM tallies WHERE state = ?", (state,)).fetchone()[0]

    def quarantined(self) -> int:
        """Files given up because they ended the program."""
        return self._db.execute(
            "SELECT COUNT(*) FROM refusals WHERE code = 'quarantined'").fetchone()[0]

    def oldest_queued(self) -> Optional[Tuple[int, str]]:
        """(id, captured_at) of the queued image that has been in the catalog longest."""
        # By itself SQLite takes the other index and sorts everything that is queued.
        return self._db.execute(
            "SELECT id, captured_at FROM images INDEXED BY images_queued WHERE state = 'queued' "
            "ORDER BY id LIMIT 1").fetchone()

    def refusals(self, limit: int) -> List[Refusal]:
        """The newest refusals, newest first."""
        return self._newest_refusals("1", (), limit)

    def refusal_of(self, name: str) -> Optional[Refusal]:
        """The newest refusal of a file of that path or file name."""
        stored, end = path_in(name), path_in("/" + os.path.basename(name))
        return next(iter(self._newest_refusals(
            "path = ? OR (? AND substr(path, ?) = ?)",
            (stored, not os.path.isabs(name), -len(end), end), 1)), None)

    def _newest_refusals(self, which: str, values: tuple, limit: int) -> List[Refusal]:
        rows = self._db.execute(
            "SELECT path, bytes, mtime_ns, code, reason, refused_at FROM refusals "
            "WHERE %s ORDER BY id DESC LIMIT ?" % which, values + (limit,))
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
        if not images or not self.count_of(MISSING):
            return
        missing = [row[0] for row in self._db.execute(  # + as in candidates_of
            "SELECT id FROM images WHERE +state = ? AND id IN (%s)" % marks_for(images),
            [MISSING] + list(images))]
        if missing:
            with self._transaction():
                for image in missing:
                    self._set_there(image, images[image])

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
                    self._record_looks(new, image)
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
            state = self._as_remembered(number, digest)
        if placement and not embedded:
            self._db.execute("UPDATE images SET path = ?, width = ?, height = ?, captured_at = ?, "
                             + PLACED + " WHERE id = ?", (
                                 path, image.width, image.height, image.captured_at)
                             + placement_columns(placement, row) + (number,))
            self._db.execute("INSERT OR REPLACE INTO embeddings VALUES (?, ?)", (
                number, image.embedding.astype(np.float16).tobytes()))
        self._db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", (
            path, arrival.bytes, mtime_in(arrival.mtime_ns), number))
        if state == DROPPED:
            state = self._as_remembered(number, digest)  # it may have been sent before
        if state in (WAITING, MISSING):
            self._set_there(number, image.arrival.path, new)
        elif state == DELETED:
            self._set_state(number, ACKED)  # the ground has it all the same
        return number if new else None

    def _as_remembered(self, number: int, digest: bytes) -> str:
        """Give content that was not here the state that is remembered of it; that state."""
        said = self._remembered(digest)
        self._db.execute("UPDATE images SET pass = ?, pinned = ? WHERE id = ?", (
            said.number or None, said.pinned, number))
        if said.state == QUEUED:  # neither sent nor held: where it stands, its file decides
            return WAITING
        self._set_state(number, said.state)
        return said.state

    def _record_looks(self, number: int, image: Image) -> None:
        """What was learned of its pixels."""
        if image.measures is not None:
            self._db.execute("UPDATE images SET measures = ? WHERE id = ?", (
                quality.pack(image.measures), number))
        if image.preview is not None:
            self._db.execute("INSERT OR REPLACE INTO previews VALUES (?, ?, ?, ?)", (
                number, image.preview.format, image.preview.psnr_db, image.preview.content))

    def join_twins(self, pairs: Sequence[Tuple[int, int]]) -> None:
        """The first of each pair is a near-duplicate of the second, which came before it."""
        with self._transaction():
            for image, other in pairs:
                group = self._db.execute(
                    "SELECT twin FROM images WHERE id = ?", (other,)).fetchone()[0] or other
                self._db.execute("UPDATE images SET twin = ? WHERE id IN (?, ?)", (
                    group, other, image))

    def _record_refusal(self, refusal: Refusal) -> None:
        path, mtime_ns = path_in(refusal.path), mtime_in(refusal.mtime_ns)
        judged = self._db.execute(
            "SELECT image FROM files WHERE path = ? AND bytes = ? AND mtime_ns = ?",
            (path, refusal.bytes, mtime_ns)).fetchone()
        self._leave_path(path, None)
        if judged and refusal.code not in PASSING:
            # It was thought to be an image, and waited: its content is none, which is not missing.
            self._db.execute(
                "DELETE FROM images WHERE id = ? AND soft IS NULL AND state IN (?, ?) AND NOT EXISTS "
                "(SELECT 1 FROM files WHERE image = id)", judged + (MISSING, WAITING))
        self._db.execute("INSERT INTO refusals VALUES (NULL, ?, ?, ?, ?, ?, ?)", (
            path, refusal.bytes, mtime_ns, refusal.code,
            text_in(refusal.reason), refusal.refused_at))

    def _leave_path(self, path, image: Optional[int]) -> None:
        """Content at `path` is now `image` (None: unusable): undo what was known of the path."""
        self._db.execute("DELETE FROM refusals WHERE path = ?", (path,))
        row = self._db.execute("SELECT image FROM files WHERE path = ?", (path,)).fetchone()
        if row is None or row[0] == image:
            return
        self._db.execute("DELETE FROM files WHERE path = ?", (path,))
        held = self._db.execute(
            "SELECT path, state FROM images WHERE id = ?", (row[0],)).fetchone()
        if held in ((path, QUEUED), (path, WAITING)):
            # The path must never send other content than the queue promised.
            self._set_there(row[0])

    def forget_file(self, path: str) -> None:
        """At `path` is other content than was thought: an image there is missing, the file unknown."""
        with self._transaction():
            self._leave_path(path_in(path), None)

    def mark_missing(self, images: Sequence[int], exists=os.path.exists) -> List[int]:
        """The files of these images are gone: take another of their paths, or mark them.

        Returns those that are missing now.
        """
        missing = []
        with self._transaction():
            for image in images:
                if self.state_of(image) not in (QUEUED, WAITING):
                    continue  # another process has moved it since
                paths = [path_out(row[0]) for row in self._db.execute(
                    "SELECT path FROM files WHERE image = ? ORDER BY path", (image,))]
                there = next((path for path in paths if exists(path)), None)
                if there is None:
                    self._set_state(image, MISSING)
                    missing.append(image)
                else:
                    self._db.execute("UPDATE images SET path = ? WHERE id = ?",
                                     (path_in(there), image))
        return missing

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


def open_or_rebuild(path: str, space: str, progress: Callable[[str, float], None]) -> Catalog:
    """The daemon's catalog; a damaged one is set aside for a new one.

    The journal tells a new one what operations did, and any other what it may have missed.
    """
    if soundness.is_marked(path):
        progress("checking the catalog", CHECKING_S)
        why = soundness.unsound(path)
        if why:
            _rebuild(path, "catalog %s: is damaged (%s)" % (path, why))
        soundness.unmark(path)
    try:
        return _opened(path, space, progress)
    except UNREADABLE as error:
        if isinstance(error, sqlite3.Error) and not is_damage(error):
            raise
        _rebuild(path, str(error) if isinstance(error, Damaged) else
                 "catalog %s: is damaged (%s: %s)" % (path, type(error).__name__, error))
        return _opened(path, space, progress)


def _opened(path: str, space: str, progress: Callable[[str, float], None]) -> Catalog:
    catalog = Catalog(path, space, progress)
    try:
        recalled = catalog.recall(progress)
    except BaseException:
        catalog.close()
        raise
    if recalled:
        log.warning("JournalRecalled: %s: of %d images more is known now", catalog.journal.path,
                    recalled)
    return catalog


def _rebuild(path: str, why: str) -> None:
    log.error("CatalogDamaged: %s; it is now %s, and the images are catalogued anew", why,
              set_aside(path))
