"""What ranking, the queue file, passes and retention read from the catalog.

In: clusters, ids, limits. Out: the best candidates of each cluster, what is on the ground already,
whole rows, previews. Nothing here writes. It is a part of the catalog, in its file.
"""

import itertools
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Set, Tuple

import numpy as np

from jetson_cluster import sketches
from jetson_cluster.codebook import NEIGHBOURS
from jetson_cluster.database import Database, marks_for, parts_of
from jetson_cluster.ledger import GROUND
from jetson_cluster.placements import unpacked
from jetson_cluster.ranking import CANDIDATE
from jetson_cluster.records import Row, path_out, unpack_soft
from jetson_cluster.schema import QUEUED

# A pass as many half-lives ago as this counts a hundredth, and is left out.
HALF_LIVES_COUNTED = 6.6
NO_SKETCH = bytes(2 * sketches.NUMBERS)
ON_GROUND = "state IN (%s)" % ", ".join("'%s'" % state for state in GROUND)


class Candidates(Database):
    """The catalog's questions of ranking."""

    def candidates(self, cluster: int, limit: int, per_byte: bool = False) -> np.ndarray:
        """The queued images of `cluster` with the highest interest, best first: CANDIDATE [n].

        With `per_byte` those with the highest interest for each of their bytes.
        """
        return self._candidates(
            "WHERE state = ? AND cluster = ? ORDER BY %s DESC, id LIMIT ?" % (
                "interest / bytes" if per_byte else "interest"), (QUEUED, cluster, limit))

    def far_candidates(self, limit: int, without: Sequence[int] = ()) -> np.ndarray:
        """The queued images beyond r95 of all clusters but some, nearest first: CANDIDATE [n]."""
        # By itself SQLite takes the other index and sorts everything that is queued.
        return self._candidates(
            "INDEXED BY images_far WHERE far = 1 AND state = 'queued'%s ORDER BY ratio, id LIMIT ?"
            % _but(without), (limit,))

    def oldest_candidates(self, until: int, limit: int, without: Sequence[int] = ()) -> np.ndarray:
        """The queued images with the lowest ids, none above `until`, of all clusters but some.

        CANDIDATE [n].
        """
        return self._candidates(
            "INDEXED BY images_queued WHERE state = 'queued' AND id <= ?%s ORDER BY id LIMIT ?"
            % _but(without), (until, limit))

    def candidates_of(self, images: Sequence[int]) -> np.ndarray:
        """Those of the given ids that are queued: CANDIDATE [n]."""
        # The + keeps SQLite from an index of states, by which it would go through all that is queued.
        found = [self._candidates("WHERE +state = 'queued' AND id IN (%s)" % marks_for(part), part)
                 for part in parts_of(images)]
        return np.concatenate(found) if found else np.empty(0, CANDIDATE)

    def _candidates(self, which: str, values) -> np.ndarray:
        rows = self._db.execute(
            "SELECT id, cluster, interest, ratio, far, bytes, twin, quality, "
            "CASE WHEN sketch IS NULL THEN 0 ELSE reach END, soft, COALESCE(sketch, ?) FROM images "
            + which, (NO_SKETCH,) + tuple(values)).fetchall()
        made = np.empty(len(rows), CANDIDATE)
        if not rows:
            return made
        for place, name in enumerate(("image", "cluster", "interest", "ratio", "far", "bytes", "twin",
                                      "quality", "reach")):
            made[name] = [row[place] for row in rows]
        made["soft_index"], made["soft_weight"] = _unpack_many([row[9] for row in rows])
        made["sketch"] = sketches.unpack(b"".join(row[10] for row in rows))
        return made

    def pinned(self) -> List[int]:
        """The pinned images that are queued, in the order of pinning."""
        return [row[0] for row in self._db.execute(
            "SELECT id FROM images INDEXED BY images_pinned WHERE pinned IS NOT NULL AND state = ? "
            "ORDER BY pinned", (QUEUED,))]

    def on_ground(self, half_life_passes: float, clusters: int) -> np.ndarray:
        """float64 [clusters]: the soft memberships of what was sent, summed over the images.

        Those of the newest pass count whole, those `half_life_passes` before it half, and so on.
        """
        counts = np.zeros(clusters)
        last = self._db.execute(
            "SELECT MAX(pass) FROM images WHERE pass IS NOT NULL").fetchone()[0]
        if last is None:
            return counts
        rows = self._db.execute(
            # By itself SQLite takes the index of states, and reads all that was ever sent.
            "SELECT pass, soft FROM images INDEXED BY images_by_pass "
            "WHERE pass IS NOT NULL AND pass > ? AND soft IS NOT NULL AND " + ON_GROUND,
            (last - HALF_LIVES_COUNTED * half_life_passes,)).fetchall()
        if rows:
            index, weight = _unpack_many([row[1] for row in rows])
            ago = last - np.array([row[0] for row in rows], np.float64)
            known = index < clusters  # while images are placed anew some have their old clusters
            np.add.at(counts, index[known],
                      (weight * 0.5 ** (ago / half_life_passes)[:, None])[known])
        return counts

    def sent_twins(self, groups: Iterable[int]) -> Set[int]:
        """Those of these groups of near-duplicates of which one is on the ground, or on its way."""
        found = set()  # type: Set[int]
        for part in parts_of(sorted(groups)):
            found.update(row[0] for row in self._db.execute(
                "SELECT DISTINCT twin FROM images INDEXED BY images_by_twin WHERE twin > 0 AND "
                "twin IN (%s) AND %s" % (marks_for(part), ON_GROUND), part))
        return found

    def twins_of(self, image: int) -> List[int]:
        """The near-duplicates of an image, without itself."""
        return [row[0] for row in self._db.execute(
            "SELECT id FROM images INDEXED BY images_by_twin WHERE twin > 0 AND twin = "
            "(SELECT twin FROM images WHERE id = ?1) AND id <> ?1 ORDER BY id", (image,))]

    def worst(self, state: str, weights: Sequence[float], limit: int,
              without: Set[int] = frozenset()) -> List[int]:
        """At most `limit` images in `state`, those worth least first; pinned ones are left out.

        So are those in `without`. Worth is interest times the weight of the cluster; what was never
        embedded is worth nothing.
        """
        found = [(0.0, -row[0]) for row in self._first(
            limit, without, "SELECT id FROM images WHERE state = ? AND cluster IS NULL "
            "AND pinned IS NULL ORDER BY id DESC LIMIT ?", (state,))]
        for cluster, weight in enumerate(weights):
            found += [(interest * weight, -image) for image, interest in self._first(
                limit, without, "SELECT id, interest FROM images WHERE state = ? AND cluster = ? "
                "AND pinned IS NULL ORDER BY interest, id DESC LIMIT ?", (state, cluster))]
        return [-image for _, image in sorted(found)[:limit]]

    def _first(self, limit: int, without: Set[int], query: str, values) -> Iterator[tuple]:
        """The first `limit` rows whose ids are not in `without`; no more are read than it takes."""
        rows = self._db.execute(query, values + (limit + len(without),))
        return itertools.islice((row for row in rows if row[0] not in without), limit)

    def rows(self, images: Sequence[int]) -> Dict[int, Row]:
        """All that is known of the given ids."""
        found = {}
        for part in parts_of(images):
            for row in self._db.execute(
                    "SELECT id, sha256, path, bytes, width, height, captured_at, state, cluster, "
                    "distance, second_distance, ratio, far, novelty, representative, interest, soft, "
                    "pass, preview_pass, pinned, measures, quality, signature, twin, reach "
                    "FROM images WHERE id IN (%s)" % marks_for(part), part):
                soft = unpack_soft(row[16]) if row[16] is not None else (None, None)
                found[row[0]] = Row(
                    row[0], row[1].hex(), path_out(row[2]), *row[3:12] + (
                        None if row[12] is None else bool(row[12]),) + row[13:16] + soft
                    + row[17:20] + (unpacked(row[20]),) + row[21:])
        return found

    def paths_of(self, image: int) -> List[Tuple[str, int, int]]:
        """The (path, bytes, mtime_ns as mtime_in makes it) at which its content was seen."""
        return [(path_out(row[0]), row[1], row[2]) for row in self._db.execute(
            "SELECT path, bytes, mtime_ns FROM files WHERE image = ? ORDER BY path", (image,))]

    # ---- previews ------------------------------------------------------------------------------

    def preview_of(self, image: int) -> Optional[Tuple[str, bytes]]:
        """(format, content) of the small picture of an image, if there is one."""
        return self._db.execute(
            "SELECT format, content FROM previews WHERE image = ?", (image,)).fetchone()

    def preview_sizes(self, images: Sequence[int]) -> Dict[int, Tuple[str, int, float]]:
        """(format, bytes, PSNR in dB) of the previews of the given ids, of those that have one."""
        found = {}
        for part in parts_of(images):
            for image, name, size, psnr_db in self._db.execute(
                    "SELECT image, format, LENGTH(content), psnr_db FROM previews "
                    "WHERE image IN (%s)" % marks_for(part), part):
                found[image] = name, size, psnr_db
        return found

    def unsent_previews(self, limit: int) -> List[int]:
        """Queued images whose preview was never sent, in order of arrival."""
        return [row[0] for row in self._db.execute(
            "SELECT id FROM images INDEXED BY images_unpreviewed WHERE state = 'queued' "
            "AND preview_pass IS NULL AND EXISTS (SELECT 1 FROM previews WHERE image = images.id) "
            "ORDER BY id LIMIT ?", (limit,))]


def _but(clusters: Sequence[int]) -> str:
    # Written out: there may be more of them than SQLite takes variables.
    return " AND cluster NOT IN (%s)" % ", ".join(map(str, clusters)) if clusters else ""


def _unpack_many(packed: List[bytes]) -> Tuple[np.ndarray, np.ndarray]:
    """(int32 [n, 4], float32 [n, 4]) of n soft memberships as records.pack_soft makes them."""
    raw = np.frombuffer(b"".join(packed), np.uint8).reshape(len(packed), 4 * NEIGHBOURS)
    return (raw[:, :2 * NEIGHBOURS].copy().view("<u2").astype(np.int32),
            raw[:, 2 * NEIGHBOURS:].copy().view("<f2").astype(np.float32))
