"""Where images belong, by the codebook or by provisional groups, and what they are worth there.

In: embeddings (of new images, or of old ones when the codebook or what the policy values changed).
Out: a Placement for the catalog, and candidates for the head of the queue. Old images are done anew a
chunk a turn, so that ingest goes on and a restart continues where it stopped; until that is done the
queue on disk stays as it was, and is never a mix of two codebooks or two policies.
"""

import logging
import time
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from jetson_cluster import provisional, quality, scoring, sketches
from jetson_cluster.catalog import Catalog
from jetson_cluster.codebook import Codebook, Nearest
from jetson_cluster.placements import Placement, Worth
from jetson_cluster.policy import EMPTY, Policy
from jetson_cluster.quality import Measures
from jetson_cluster.records import Image, Refusal, Row
from jetson_cluster.scoring import Resemblance
from jetson_cluster.twins import Twins

log = logging.getLogger(__name__)

CHUNK_IMAGES = 512  # bounds a turn: new images and the watchdog wait while a chunk is placed


class Progress(NamedTuple):
    """How far placing anew is; done == total when there is nothing to do."""

    done: int
    total: int


class Placing:
    """Keeps the catalog in step with the codebook and the policy."""

    def __init__(self, catalog: Catalog, head, monotonic: Callable[[], float] = time.monotonic):
        """`head` is a head.Head, which is told of what changes."""
        self._catalog, self._head, self._monotonic = catalog, head, monotonic
        self._groups = catalog.groups()
        self._codebook, self._policy = None, EMPTY  # type: Optional[Codebook], Policy
        self._targets = scoring.Targets.resolve(EMPTY, catalog, None)
        self._twins = Twins(catalog)
        self._anew, self._anew_since = 0, 0.0  # images that are placed anew, and since when
        self._unnamed = ""  # what was said of clusters that the codebook does not have

    @property
    def clusters(self) -> int:
        """How many clusters, or provisional groups, there can be."""
        return _clusters(self._codebook)

    @property
    def clustered(self) -> bool:
        """Whether a codebook places the images."""
        return self._codebook is not None

    @property
    def progress(self) -> Progress:
        return Progress(*self._catalog.unplaced)

    @property
    def unresolved(self) -> Sequence[str]:
        """Targets of the policy that count nothing yet, and why."""
        return self._targets.unresolved

    def use(self, codebook: Optional[Codebook], policy: Policy) -> None:
        """Place by this codebook from now on (None: by groups), and value by this policy.

        Goes on where a restart stopped.
        """
        targets = scoring.Targets.resolve(policy, self._catalog, codebook)
        if targets.unresolved != self._targets.unresolved:
            for why in targets.unresolved:
                log.warning("TargetUnknown: %s; it counts nothing for now", why)
        placed_by = codebook.identity if codebook else "groups within %g" % self._groups.reach
        valued_by = scoring.identity(policy, targets)
        if (self._catalog.placed_by, self._catalog.valued_by) != (placed_by, valued_by):
            self._catalog.begin_placing(placed_by, valued_by, _clusters(codebook), bool(codebook))
        # Last: while the catalog cannot be written all goes on as it was.
        self._codebook, self._policy, self._targets = codebook, policy, targets
        self._anew = self.progress.total - self.progress.done
        if self._anew:
            self._anew_since = self._monotonic()
            log.info("PlacingAnew: %d images by %s%s", self._anew,
                     "the codebook" if codebook else "provisional groups",
                     ": only their worth changes" if self._catalog.only_worth else "")
        self._head.forget_all()
        self._warn_of_unknown_clusters()

    def _warn_of_unknown_clusters(self) -> None:
        """A policy that was written for another codebook weighs the wrong things, silently."""
        unknown = self._policy.unknown_clusters(self.clusters) if self.clustered else []
        before, self._unnamed = self._unnamed, ""
        if unknown:
            self._unnamed = "%s; the codebook has 0 to %d" % (unknown, self.clusters - 1)
        if self._unnamed not in ("", before):
            log.warning("PolicyNamesNoCluster: the policy, or an order, speaks of clusters %s",
                        self._unnamed)

    def resemblances(self, rows: Sequence[Row]) -> Dict[int, Resemblance]:
        """For those of these images that are like a target, which and how much."""
        alike = [row.image for row in rows if row.signature > 0] if self._targets.names else []
        found = scoring.resemblances(self._catalog.embeddings_of(alike), self._targets) \
            if alike else []
        return {image: one for image, one in zip(alike, found) if one is not None}

    def look_for_targets(self) -> None:
        """Ask again for the targets that were not here yet."""
        if self._targets.unresolved:
            targets = scoring.Targets.resolve(self._policy, self._catalog, self._codebook)
            if targets.unresolved != self._targets.unresolved:
                self.use(self._codebook, self._policy)

    def record(self, images: List[Image], refusals: List[Refusal]) -> int:
        """Catalogue one batch; return how many of its images are new."""
        placement = None
        if images:
            embeddings = np.stack([image.embedding for image in images])
            if self._codebook is None:
                self._admit(embeddings)
            placement = self._place(embeddings, [image.measures for image in images],
                                    self._found(images))
        with self._catalog.together():
            added = self._catalog.record(images, placement, refusals)
            new = [image for image, _ in added]
            if new:
                rows = [row for _, row in added]
                self._twins.join(new, embeddings[rows], placement.assessment.reach[rows])
        if new:
            self._twins.keep()
            self._head.offer(self._catalog.candidates_of(new))
        return len(added)

    def _admit(self, embeddings: np.ndarray) -> bool:
        """Let the groups take note of embeddings; False if all images must now be placed anew."""
        before, groups = self._groups, provisional.admit(self._groups, embeddings)
        grown = groups.reach != before.reach
        if not grown and len(groups.leaders) == len(before.leaders):
            return True
        self._groups = groups
        try:
            with self._catalog.together():
                self._catalog.save_groups(groups, unchanged=0 if grown else len(before.leaders))
                if grown:
                    self.use(None, self._policy)
        except BaseException:
            self._groups = before
            raise
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

    def _place(self, embeddings: np.ndarray, measures: Sequence[Optional[Measures]],
               found: Optional[Nearest] = None) -> Placement:
        assessment = (provisional.place(self._groups, embeddings) if self._codebook is None
                      else self._codebook.assess(embeddings, found))
        return Placement(assessment, self._value(
            assessment.novelty, assessment.representative, measures, embeddings),
            sketches.of(embeddings))

    def _value(self, novelty: np.ndarray, representative: np.ndarray,
               measures: Sequence[Optional[Measures]], embeddings: Optional[np.ndarray]) -> Worth:
        """What images are worth; `embeddings` may be None where there are no targets."""
        factors = np.ones(len(novelty), np.float32)
        measured = [row for row, held in enumerate(measures) if held is not None]
        if measured:
            factors[measured] = quality.factors(
                np.array([measures[row] for row in measured], np.float32), self._policy.quality)
        signature = np.zeros(len(novelty), np.float32)
        if embeddings is not None:
            signature = scoring.signatures(embeddings, self._targets)
        if self._codebook is None:
            interest = factors * (provisional.interest(novelty) + self._policy.signature * signature)
        else:
            interest = scoring.interest(novelty, representative, signature, factors, self._policy)
        return Worth(interest.astype(np.float32), factors, signature)

    def place_some(self) -> int:
        """Do the next chunk of older images anew; return how many that were."""
        if self.progress.done >= self.progress.total:
            return 0
        done = self._value_some() if self._catalog.only_worth else self._place_some()
        if not done:
            self._catalog.end_placing()
        if self.progress.done >= self.progress.total:
            self._head.forget_all()
            log.info("PlacedAnew: %d images in %.0f s", self._anew,
                     self._monotonic() - self._anew_since)
        return done

    def _place_some(self) -> int:
        images, embeddings, measures = self._catalog.next_unplaced(CHUNK_IMAGES)
        if not images:
            return 0
        if self._codebook is None and not self._admit(embeddings):
            return len(images)  # they come again, with all others
        self._catalog.place(images, self._place(embeddings, measures))
        return len(images)

    def _value_some(self) -> int:
        known = self._catalog.next_unvalued(CHUNK_IMAGES, bool(self._targets.names))
        if not known.images:
            return 0
        self._catalog.value(known.images, self._value(
            known.novelty, known.representative, known.measures, known.embeddings))
        return len(known.images)


def _clusters(codebook: Optional[Codebook]) -> int:
    return codebook.k if codebook else provisional.MOST_GROUPS
