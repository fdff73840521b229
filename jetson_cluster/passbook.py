"""The passes: what was handed to the radio, and when, counted in passes.

In: the images chosen for a pass. Out: its number, and they are sent. Numbers only go up. Age is
counted in passes as well: clocks on a rover jump. It is a part of the catalog, in its file.
"""

from typing import List, Optional, Sequence, Tuple

from jetson_cluster.database import marks_for, parts_of
from jetson_cluster.errors import JetsonClusterError
from jetson_cluster.journal import Entry
from jetson_cluster.ledger import GROUND, Ledger
from jetson_cluster.records import Pass
from jetson_cluster.schema import ACKED, QUEUED, SENT


class Stale(JetsonClusterError):
    """Some of the chosen images are not queued any more: choose again."""


class PassBook(Ledger):
    """The catalog's account of passes."""

    def begin_pass(self, images: Sequence[int], previews: Sequence[int], budget_bytes: int,
                   origin: str, made_at: str) -> int:
        """Mark these sent in a new pass, all or nothing; its number.

        Raises Stale if one of `images` is not queued, or is acknowledged by what is remembered.
        """
        with self._transaction():
            number = self.last_pass + 1
            sizes, digests = self._still_queued(images)
            preview_bytes = sum(self._db.execute(
                "SELECT COALESCE(SUM(LENGTH(content)), 0) FROM previews WHERE image IN (%s)"
                % marks_for(part), part).fetchone()[0] for part in parts_of(previews))
            newest = self._db.execute("SELECT COALESCE(MAX(id), 0) FROM images").fetchone()[0]
            self._db.execute("INSERT INTO passes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (
                number, made_at, origin, budget_bytes, len(images), sum(sizes), len(previews),
                preview_bytes, newest))
            self._put_into_pass(number, images)
            for part in parts_of(previews):
                self._db.execute("UPDATE images SET preview_pass = ? WHERE id IN (%s)"
                                 % marks_for(part), [number] + list(part))
            self._tell_journal([Entry(SENT, digest.hex(), number, "") for digest in digests])
        return number

    def add_to_pass(self, number: int, images: Sequence[int]) -> None:
        """These went out as well in the pass `number`, as links of the outbox do one by one.

        Whatever their states were: they are sent. Those acknowledged stay so.
        """
        with self._transaction():
            images = [image for image in images if self.state_of(image) not in GROUND]
            size, digests = 0, []
            for image in images:
                digest, held = self._db.execute(
                    "SELECT sha256, bytes FROM images WHERE id = ?", (image,)).fetchone()
                size += held
                digests.append(digest)
            self._put_into_pass(number, images)
            self._db.execute("UPDATE passes SET images = images + ?, bytes = bytes + ?, last_image = "
                             "(SELECT COALESCE(MAX(id), 0) FROM images) WHERE number = ?",
                             (len(images), size, number))
            self._tell_journal([Entry(SENT, digest.hex(), number, "") for digest in digests])

    def _still_queued(self, images: Sequence[int]) -> Tuple[List[int], List[bytes]]:
        """(sizes, digests) of images that are all queued; else Stale."""
        sizes, digests = [], []
        for image in images:
            row = self._db.execute(
                "SELECT images.state, bytes, images.sha256, remembered.state FROM images "
                "LEFT JOIN remembered ON remembered.sha256 = images.sha256 WHERE id = ?",
                (image,)).fetchone()
            if row is None or row[0] != QUEUED:
                raise Stale("image %d is not queued any more" % image)
            if row[3] == ACKED:
                raise Stale("image %d: the ground has acknowledged its content" % image)
            sizes.append(row[1])
            digests.append(row[2])
        return sizes, digests

    def _put_into_pass(self, number: int, images: Sequence[int]) -> None:
        before = self._db.execute("SELECT COALESCE(MAX(pass_place), 0) FROM images WHERE pass = ?",
                                  (number,)).fetchone()[0]
        for place, image in enumerate(images, before + 1):
            self._db.execute("UPDATE images SET pass = ?, pass_place = ? WHERE id = ?", (
                number, place, image))
            self._set_state(image, SENT)
            digest, pinned = self._db.execute(
                "SELECT sha256, pinned FROM images WHERE id = ?", (image,)).fetchone()
            self._remember(digest, SENT, number, pinned)

    @property
    def last_pass(self) -> int:
        """Number of the newest pass, 0 before the first."""
        return max(self._db.execute("SELECT COALESCE(MAX(number), 0) FROM passes").fetchone()[0],
                   self.meta("passes_before") or 0)

    def pass_of(self, number: int) -> Optional[Pass]:
        row = self._db.execute("SELECT * FROM passes WHERE number = ?", (number,)).fetchone()
        return Pass(*row) if row else None

    def passes(self, limit: int) -> List[Pass]:
        """The newest passes, newest first."""
        return [Pass(*row) for row in self._db.execute(
            "SELECT * FROM passes ORDER BY number DESC LIMIT ?", (limit,))]

    def pass_previews(self, number: int) -> List[int]:
        """The images whose preview was last sent in that pass, in order of arrival."""
        return [row[0] for row in self._db.execute(
            "SELECT id FROM images WHERE preview_pass = ? ORDER BY id", (number,))]

    def passes_since(self, image: int) -> int:
        """How many passes there were since this image came."""
        return self._db.execute(
            "SELECT COUNT(*) FROM passes WHERE last_image >= ?", (image,)).fetchone()[0]

    def aged_until(self, after_passes: int) -> int:
        """Images with an id up to this were left behind by that many passes; 0: none was."""
        row = self._db.execute("SELECT last_image FROM passes WHERE number = ?",
                               (self.last_pass - after_passes + 1,)).fetchone()
        return row[0] if row and after_passes > 0 else 0
