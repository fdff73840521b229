"""The candidates for the head of the queue: of a million images the few thousand that may be in it.

In: what the catalog gives as the best of each cluster, the nearest far images, the oldest and the
pinned; new images as they come. Out: the head of the queue. The catalog is read only where
candidates are not known yet, or where those that were read are used up.
"""

from typing import Dict, List, Set, Tuple, Union

import numpy as np

from jetson_cluster.ranking import (
    AGED, CANDIDATE, FAR, Ranked, Terms, group_of, may_be_aged, may_be_far, nearness, order)

TARGET = 8192  # candidates held over all clusters: 200 rows are ordered in tens of milliseconds
LEAST = 16  # of a cluster, and of the far and the old images
A_ROW = 4  # candidates for each row, where very many rows are asked for
MOST = 16384  # with so many candidates (2.5 MB), no more are read only to replace those like others
AS_GOOD = 0.5  # that share of what one not read may be worth must be left of its cluster

Line = Union[int, str]  # the candidates of a cluster; FAR, those beyond r95; AGED, the oldest


class Pool:
    """The best candidates of every cluster, kept up as images come; ranking looks at no others.

    Where every image belongs to one cluster only and none is near another, the order is that of all
    images. Where they belong to several in part, one beyond the candidates could at times stand a
    little higher: the sum of the scores is then up to 1 % less over 200 rows, and up to 4 % over
    2,000 (measured on 30,000 images, 4 to 512 clusters). One that is less like what is ahead could
    as well, and is read where all that is left of its cluster is worth less than half of it: up to
    3 % over 200 rows (20,000 images, 4 to 64 clusters).
    """

    def __init__(self, clusters: int, rows: int):
        self._clusters, self._rows = clusters, rows
        self._first_depth = max(LEAST, max(TARGET, A_ROW * rows) // max(1, clusters))
        self._most = max(MOST, 2 * A_ROW * rows)
        self._depth = {}  # type: Dict[Line, int]
        self._held = {}  # type: Dict[Line, np.ndarray]
        self._asked = np.empty(0, np.int64)  # groups of near-duplicates, in order
        self._sent = set()  # type: Set[int]
        # Clusters of no weight, the newest of the old images, whether by what a byte brings.
        self._read_for = (), 0, False  # type: Tuple[Tuple[int, ...], int, bool]

    # ---- what changes ------------------------------------------------------------------------

    def offer(self, candidates: np.ndarray) -> None:
        """Take CANDIDATE [n] of images newly queued; those that are too poor fall out."""
        firsts = np.unique(candidates["twin"][candidates["twin"] > 0])
        for held in self._held.values() if len(firsts) else ():
            first = np.isin(held["image"], firsts)  # what had no near-duplicate may have one now
            held["twin"][first] = held["image"][first]
        for cluster in np.unique(candidates["cluster"]).tolist():
            self._join(cluster, candidates[candidates["cluster"] == cluster])
        unwanted, aged_until, _ = self._read_for
        wanted = candidates[~np.isin(candidates["cluster"], unwanted)]
        self._join(FAR, wanted[wanted["far"]])
        # The newest image is never old, but one that waited for its embedding may be.
        self._join(AGED, wanted[wanted["image"] <= aged_until])

    def _join(self, line: Line, candidates: np.ndarray) -> None:
        if line in self._held and len(candidates):
            joined = np.concatenate([self._held[line], candidates])
            self._held[line] = joined[self._best_first(joined, line)][:self._depth[line]]

    def _best_first(self, candidates: np.ndarray, line: Line) -> np.ndarray:
        """Indices in the order in which the catalog gives them."""
        if line == FAR:
            key = candidates["ratio"]
        elif line == AGED:
            key = candidates["image"]
        else:
            key = -self._worth(candidates)
        return np.lexsort((candidates["image"], key))

    def _worth(self, candidates: np.ndarray) -> np.ndarray:
        """float64 [N]: what orders candidates within their cluster."""
        worth = candidates["interest"].astype(np.float64)
        return worth / candidates["bytes"] if self._read_for[2] else worth

    def forget(self, cluster: int) -> None:
        """The queued images of `cluster` changed: read them again before the next order."""
        for line in (cluster, FAR, AGED):
            self._held.pop(line, None)

    def forget_sent(self) -> None:
        """Other images are on the ground than before."""
        self._asked, self._sent = self._asked[:0], set()

    # ---- the order ---------------------------------------------------------------------------

    def order(self, reads, terms: Terms) -> List[Ranked]:
        """The head of the queue, as many rows as the pool is for.

        `reads` is a Catalog, or what has its `candidates`, `far_candidates`, `oldest_candidates`,
        `candidates_of` and `sent_twins`; of `terms` the sent near-duplicates are filled in here.
        """
        pinned = reads.candidates_of(terms.pins) if terms.pins else np.empty(0, CANDIDATE)
        self._drop_what_was_read_for_others(terms)
        while True:
            self._read(reads, terms)
            pool = np.concatenate(list(self._held.values()) + [pinned])
            terms = terms._replace(sent_twins=self._sent_among(reads, pool))
            ranked = order(pool, terms, self._rows)
            spent = self._spent(pool, ranked, terms)
            if not spent:
                return ranked
            for line in spent:
                self._depth[line] *= 2
                del self._held[line]

    def _drop_what_was_read_for_others(self, terms: Terms) -> None:
        before = self._read_for
        unwanted = tuple(np.flatnonzero(terms.weights <= 0).tolist())
        self._read_for = unwanted, terms.aged_until, terms.per_byte
        if before[2] != terms.per_byte:
            self._held.clear()
        if before != self._read_for:
            self._held.pop(FAR, None)
            self._held.pop(AGED, None)

    def _read(self, reads, terms: Terms) -> None:
        unwanted, aged_until, per_byte = self._read_for
        for cluster in range(self._clusters):
            if cluster not in self._held:
                depth = self._depth.setdefault(cluster, self._first_depth)
                self._held[cluster] = reads.candidates(cluster, depth, per_byte)
        kept = max(LEAST, self._rows // 4)
        if FAR not in self._held:
            self._held[FAR] = reads.far_candidates(
                self._depth.setdefault(FAR, kept), unwanted)
        if AGED not in self._held and terms.aged_every and aged_until:
            self._held[AGED] = reads.oldest_candidates(
                aged_until, self._depth.setdefault(AGED, kept), unwanted)

    def _sent_among(self, reads, pool: np.ndarray) -> frozenset:
        groups = np.unique(pool["twin"][pool["twin"] > 0])
        new = np.setdiff1d(groups, self._asked, assume_unique=True)
        if len(new):
            self._sent = (self._sent | set(reads.sent_twins(new.tolist()))) & set(groups.tolist())
        self._asked = groups
        return frozenset(self._sent)

    def _spent(self, pool: np.ndarray, ranked: List[Ranked], terms: Terms) -> List[Line]:
        """The lines of which all that is known is used up: the catalog may have better ones.

        One that is left of its cluster, and like none ahead or sent, is as good as any that was
        not read.
        """
        lines, sizes = list(self._held), [len(held) for held in self._held.values()]
        known = pool[:sum(sizes)]  # without the pinned
        chosen = [place.image for place in ranked]
        left = ~np.isin(known["image"], chosen + sorted(terms.held))
        worth = self._worth(known)
        now = worth
        # A rover that stood still leaves many images like the first, all discounted.
        if len(known) <= self._most:
            ahead = pool[np.isin(pool["image"], chosen)]
            groups = group_of(ahead).tolist() + sorted(terms.sent_twins)
            now = np.where(np.isin(group_of(known), groups), -1, worth * nearness(known, ahead))
        spent, start = [], 0
        for line, size in zip(lines, sizes):
            part = slice(start, start + size)
            start += size
            if size < self._depth[line]:
                continue
            fit = (may_be_far(known[part], terms) if line == FAR else
                   may_be_aged(known[part], terms) if line == AGED else
                   now[part] >= AS_GOOD * worth[part].min())
            if not (left[part] & fit).any():
                spent.append(line)
        return spent
