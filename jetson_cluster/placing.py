"""Where images belong: by the codebook, or by provisional groups until there is one.

In: embeddings (of new images, or of old ones when the codebook changed). Out: a Placement for the
catalog, and candidates for the pool that the queue is made from. Old images are placed anew a
chunk a turn, so that ingest goes on and a restart continues where it stopped; until that is done the
queue on disk stays as it was, and is never a mix of two codebooks.
"""

import logging
from typing import List, NamedTuple, Optional

import numpy as np

from jetson_cluster import provisional, ranking
from jetson_cluster.catalog import Catalog
from jetson_cluster.codebook import Codebook, Nearest
from jetson_cluster.policy import Policy
from jetson_cluster.ranking import Placement, Pool, Ranked
from jetson_cluster.records import Image, Refusal

log = logging.getLogger(__name__)

CHUNK_IMAGES = 512  # bounds a turn: new images and the watchdog wait while a chunk is placed


class Progress(NamedTuple):
    """How far placing anew is; done == total when there is nothing to do."""

    done: int
    total: int


class Placing:
    """Keeps catalog and pool in step with the codebook."""

    def __init__(self, catalog: Catalog, queue_rows: int):
        self._catalog, self._queue_rows = catalog, queue_rows
        self._groups = catalog.groups()
        self._codebook = None  # type: Optional[Codebook]
        self._pool = None  # type: Optional[Pool]

    @property
    def clusters(self) -> int:
        """How many clusters, or provisional groups, there can be."""
        return self._codebook.k if self._codebook else provisional.MOST_GROUPS

    @property
    def clustered(self) -> bool:
        """Whether a codebook places the images."""
        return self._codebook is not None

    @property
    def progress(self) -> Progress:
        return Progress(*self._catalog.unplaced)

    def use(self, codebook: Optional[Codebook]) -> None:
        """Place by this codebook from now on (None: by groups); goes on where a restart stopped."""
        self._codebook, self._pool = codebook, None
        name = codebook.identity if codebook else self._groups_name()
        if self._catalog.placed_by != name:
            self._catalog.begin_placing(name)
        if self.progress.done < self.progress.total:
            log.info("PlacingAnew: %d images by %s", self.progress.total - self.progress.done,
                     "the codebook" if codebook else "provisional groups")

    def _groups_name(self) -> str:
        return "groups within %g" % self._groups.reach

    def record(self, images: List[Image], refusals: List[Refusal]) -> int:
        """Catalogue one batch; return how many of its images are new."""
        placement = None
        if images:
            embeddings = np.stack([image.embedding for image in images])
            if self._codebook is None:
                self._admit(embeddings)
            placement = self._place(embeddings, self._found(images))
        added = self._catalog.record(images, placement, refusals)
        if self._pool is not None and images:
            self._pool.offer(ranking.candidates_of(
                [image for image, _ in added], placement, [row for _, row in added]))
        return len(added)

    def _admit(self, embeddings: np.ndarray) -> bool:
        """Let the groups take note of embeddings; False if all images must now be placed anew."""
        before, groups = self._groups, provisional.admit(self._groups, embeddings)
        grown = groups.reach != before.reach
        if grown or len(groups.leaders) != len(before.leaders):
            self._catalog.save_groups(groups, unchanged=0 if grown else len(before.leaders))
        self._groups = groups
        if grown:
            self.use(None)
        return not grown

    def _found(self, images: List[Image]) -> Optional[Nearest]:
        """What a GPU found, if it looked in this codebook and not in the one before, and can be true."""
        found = [image.found for image in images]
        if self._codebook is None or any(
                one is None or one.codebook != self._codebook.identity for one in found):
            return None
        index = np.stack([one.index for one in found])
        distance = np.stack([one.distance for one in found])
        if not np.isfinite(distance).all() or index.min() < 0 or index.max() >= self._codebook.k:
            log.error("GpuLookupWrong: it gives cluster %d to %d of %d, distances to %g; the processor "
                      "looks these up", index.min(), index.max(), self._codebook.k, distance.max())
            return None
        return Nearest(index, distance)

    def _place(self, embeddings: np.ndarray, found: Optional[Nearest] = None) -> Placement:
        if self._codebook is None:
            return provisional.place(self._groups, embeddings)
        assessment = self._codebook.assess(embeddings, found)
        return Placement(assessment, ranking.interest(assessment))

    def place_some(self) -> int:
        """Place the next chunk of older images anew; return how many that were."""
        if self.progress.done >= self.progress.total:
            return 0
        images, embeddings = self._catalog.next_unplaced(CHUNK_IMAGES)
        if not images:
            self._catalog.end_placing()
            return 0
        if self._codebook is None and not self._admit(embeddings):
            return len(images)  # they come again, with all others
        self._catalog.place(images, self._place(embeddings))
        return len(images)

    def order(self, policy: Policy) -> Optional[List[Ranked]]:
        """The head of the queue, or None while images are being placed anew."""
        if self.progress.done < self.progress.total:
            return None
        if self._pool is None:
            self._pool = Pool(self.clusters, self._queue_rows)
        for cluster in self._catalog.take_disturbed():
            self._pool.forget(cluster)
        weights = policy.weights_of(self.clusters) if self.clustered else np.ones(self.clusters)
        return self._pool.order(self._catalog.candidates, self._catalog.far_candidates, weights)
