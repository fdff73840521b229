"""What the next pass would carry under a policy, by the flight code on a copy of the catalog.

In: a copy that may be written to, the codebook, a policy and the bytes of the pass. Out: the pass,
with the reason of every image in it. Placing, valuing, ordering and choosing are the rover's own
modules; the one difference is that files are not looked at, for they are on the rover.
"""

import time
from typing import Callable, List, NamedTuple, Optional, Sequence, Set, Tuple

from jetson_cluster import explaining, scoring
from jetson_cluster.catalog import Catalog
from jetson_cluster.codebook import Codebook
from jetson_cluster.head import Head
from jetson_cluster.passes import IMAGE, ROWS_FIRST, Downlink, PassReport, make_pass
from jetson_cluster.placing import Placing
from jetson_cluster.policy import Policy
from jetson_cluster.publisher import said_of
from jetson_cluster.ranking import Ranked
from jetson_cluster.records import Row
from jetson_cluster.schema import QUEUED

TURN_S = 0.25  # images are valued anew for so long, then whoever waits is answered
EXPLAINED_ROWS = 1000  # of the queue that are looked through for the place of an image


class Place(NamedTuple):
    """One image of a pass."""

    row: Row
    rank: int  # in the queue, from 1
    score: float
    reason: str


class NextPass(NamedTuple):
    """A pass that was not made."""

    report: PassReport
    places: Tuple[Place, ...]  # its images, in the order to send them


class _Head(Head):
    """The head of the queue, which remembers the order it gave last."""

    def __init__(self, catalog: Catalog, rows: int):
        super().__init__(catalog, rows)
        self.given: List[Ranked] = []

    def order(self, policy: Policy, rows: Optional[int] = None) -> List[Ranked]:
        self.given = super().order(policy, rows)
        return self.given


class Side:
    """One copy of the catalog under one policy; use it from one thread. A context manager."""

    def __init__(self, path: str, space: str, codebook: Codebook, pins: Sequence[int] = (),
                 monotonic: Callable[[], float] = time.monotonic):
        """`path` is a copy of this side's own, `pins` what is pinned in it, in that order.

        Raises UserError and WorldError.
        """
        self.catalog = Catalog(path, space)
        self._head = _Head(self.catalog, ROWS_FIRST)
        self._placing = Placing(self.catalog, self._head)
        self._codebook, self._monotonic = codebook, monotonic
        self.policy: Optional[Policy] = None
        self._pins, self._unpinned, self._released = list(pins), set(), set()

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.catalog.close()

    def use(self, policy: Policy, unpinned: Sequence[int] = (), released: Sequence[int] = ()
            ) -> None:
        """Go by this policy, with these images let go although orders pinned or held them."""
        self._lift_pins(set(unpinned))
        self._lift_holds(set(released))
        if policy is not self.policy:
            self._placing.use(self._codebook, policy)
            self.policy = policy

    def _lift_pins(self, unpinned: Set[int]) -> None:
        if self._unpinned - unpinned:  # pinning says the order too, so all are pinned anew
            self.catalog.move("unpin", self._pins)
            for image in self._pins:
                self.catalog.move("pin", [image])
            self._unpinned = set()
        self.catalog.move("unpin", sorted(unpinned - self._unpinned))
        self._unpinned = unpinned

    def _lift_holds(self, released: Set[int]) -> None:
        for image in sorted(self._released - released):
            self.catalog.move("hold", [image])
        for image in sorted(released - self._released):
            self.catalog.move("release", [image])
        self._released = released

    def step(self) -> float:
        """Value images anew for a moment; the share that is done, 1.0 when all are."""
        until = self._monotonic() + TURN_S
        with self.catalog.together():
            while self._monotonic() < until:
                if not self._placing.place_some():
                    break
        done, total = self._placing.progress
        return 1.0 if done >= total else done / total

    def next_pass(self, budget_bytes: int) -> NextPass:
        """What a pass of so many bytes would carry now."""
        report = make_pass(self.catalog, Downlink(self._head, self.policy, "", lambda: True,
                                                  files_here=False),
                           budget_bytes, "console", "", dry_run=True)
        ranked = {place.image: (rank, place) for rank, place in enumerate(self._head.given, 1)}
        images = [parcel.image for parcel in report.of(IMAGE)]
        rows = self.catalog.rows(images)
        alike = self._placing.resemblances(list(rows.values()))
        return NextPass(report, tuple(
            Place(rows[image], ranked[image][0], ranked[image][1].score,
                  said_of(rows[image], ranked[image][1], self.policy, True, alike.get(image))[1])
            for image in images))

    def explained(self, image: int) -> List[str]:
        """Why an image stands where it does, as `jetson-cluster explain` says it."""
        targets = scoring.Targets.resolve(self.policy, self.catalog, self._codebook)
        facts = explaining.gather(self.catalog, image, self.policy, targets, True)
        rank, ranked = None, None
        for rows in (ROWS_FIRST, EXPLAINED_ROWS) if facts.row.state == QUEUED else ():
            rank, ranked = next(((rank, place) for rank, place in enumerate(
                self._head.order(self.policy, rows), 1) if place.image == image), (None, None))
            if ranked:
                break
        return explaining.explain(facts, self.policy, self._head.terms(self.policy), ranked,
                                  rank).lines
