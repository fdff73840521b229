"""The head of the queue, from the catalog and the policy: the same in the daemon and in a verb.

In: the catalog and the policy in force; new images as they come. Out: images in the order to send
them. What it holds is only a copy of what the catalog knows, and may be forgotten at any time.
"""

import math
from typing import FrozenSet, List, Optional, Sequence, Tuple

import numpy as np

from jetson_cluster import provisional
from jetson_cluster.downlink import QueueRow
from jetson_cluster.ledger import GROUND
from jetson_cluster.policy import Policy
from jetson_cluster.pool import Pool
from jetson_cluster.ranking import Ranked, Terms

MOST_MEANT = 100  # images that one SHA-256's beginning in a policy may mean
PINNED = "pinned by operations"  # so ranking.reason begins for what is pinned


class Head:
    """Orders the queued images of one catalog."""

    def __init__(self, catalog, rows: int):
        """`rows` is how long the queue file is; more can be asked for, at the cost of reading."""
        self._catalog, self._rows = catalog, rows
        self._pool = None  # type: Optional[Pool]
        self._on_ground = np.empty(0)
        self._counted_for = None  # type: object  # what `_on_ground` was counted for
        self._ground_version = -1  # of the catalog, when the pool last asked what was sent

    def offer(self, candidates: np.ndarray) -> None:
        """Take note of CANDIDATE [n] newly queued."""
        if self._pool is not None:
            self._pool.offer(candidates)

    def forget(self, cluster: int) -> None:
        """Images of this cluster joined or left the queue other than as new."""
        if self._pool is not None:
            self._pool.forget(cluster)

    def forget_all(self) -> None:
        """Anything may have changed: places, worth, or states, by another process."""
        self._pool, self._counted_for = None, None

    def order(self, policy: Policy, rows: Optional[int] = None) -> List[Ranked]:
        """The first images to send, as many as the queue file has, or as `rows` asks for.

        None of them while images are placed anew: there is no order then.
        """
        done, total = self._catalog.unplaced
        if done < total:
            return []
        for cluster in self._catalog.take_disturbed():
            self.forget(cluster)
        if self._pool is None:
            self._pool = Pool(self._catalog.clusters, self._rows)
        if self._ground_version != self._catalog.ground_version:
            self._ground_version = self._catalog.ground_version
            self._pool.forget_sent()
        pool = self._pool
        if rows is not None and rows > self._rows:
            # Asked for now and then, for a pass: what it reads is too much to keep and to look
            # through every second.
            pool = Pool(self._catalog.clusters, rows)
        return pool.order(self._catalog, self.terms(policy))[:rows]

    def terms(self, policy: Policy) -> Terms:
        """What images compete on now; the sent near-duplicates are left to the pool to ask for."""
        diversity, ageing = policy.diversity, policy.ageing
        counts = self._catalog.counts
        return Terms(
            weights=self.weights(policy),
            on_ground=self._counted(diversity.half_life_passes),
            log_discount=math.log(diversity.discount if self._catalog.clustered else
                                  min(diversity.discount, provisional.DISCOUNT)),
            aged_until=self._catalog.aged_until(ageing.after_passes),
            aged_every=ageing.one_place_in, near_duplicate=diversity.near_duplicate,
            pins=self.pins(policy), held=self.held(policy),
            per_byte=policy.pass_by == "score_per_byte",
            places_before=sum(counts[state] for state in GROUND))

    def weights(self, policy: Policy) -> np.ndarray:
        """float64 [clusters]: the policy's; without a codebook its numbers mean no clusters."""
        clusters = self._catalog.clusters
        return policy.weights_of(clusters) if self._catalog.clustered else np.ones(clusters)

    def named_by(self, policy: Policy) -> FrozenSet[int]:
        """The images that the policy itself pins or holds."""
        return frozenset(self._meant(policy.pins + policy.holds))

    def pins(self, policy: Policy) -> Tuple[int, ...]:
        """What goes before all others, in this order: pinned by operators, then by the policy.

        Of the policy's some may not be queued.
        """
        return tuple(self._catalog.pinned()) + self._meant(policy.pins)

    def held(self, policy: Policy) -> FrozenSet[int]:
        """What the policy leaves out, whatever its state."""
        return frozenset(self._meant(policy.holds))

    def meanwhile(self, policy: Policy, published: Sequence[QueueRow]
                  ) -> List[Tuple[int, Optional[QueueRow]]]:
        """The order while images are placed anew: as last published, by the pins and holds of now.

        (image, its row; None for a pinned one that has none). Some may not be queued any more. What
        is pinned no longer goes last, for nobody knows its place.
        """
        rows = {image: row for row in published
                for image in self._catalog.ids_by_prefix(row.sha256, 1)}
        held = self.held(policy)
        before = [image for image, row in rows.items() if row.reason.startswith(PINNED)]
        others = [image for image in rows if image not in set(before)]
        return [(image, rows.get(image)) for image in dict.fromkeys(
            self.pins(policy) + tuple(others) + tuple(before)) if image not in held]

    def _counted(self, half_life_passes: float) -> np.ndarray:
        """What is on the ground of each cluster, counted again only if that may have changed."""
        catalog = self._catalog
        counted_for = (half_life_passes, catalog.ground_version, catalog.last_pass,
                       catalog.placed_by, catalog.unplaced)
        if counted_for != self._counted_for:
            self._on_ground = catalog.on_ground(half_life_passes, catalog.clusters)
            self._counted_for = counted_for
        return self._on_ground

    def _meant(self, prefixes: Tuple[str, ...]) -> Tuple[int, ...]:
        """The images whose SHA-256s begin so, in that order; all of them where several do."""
        return tuple(image for prefix in prefixes
                     for image in self._catalog.ids_by_prefix(prefix, MOST_MEANT))
