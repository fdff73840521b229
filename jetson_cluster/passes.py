"""What goes down in one pass over a ground station: as much of the head of the queue as fits.

In: the catalog, the head of the queue, the policy and a budget in bytes. Out: a PassReport, and
what is in it marked as sent under the number of the pass. Images go in the order of the queue; one
that does not fit is passed over and smaller ones behind it take its place. Where the policy says
`previews: first`, the previews of everything queued go first, if they were not sent before.

Sent is not received: until the ground acknowledges it, a `nack` puts an image back.
"""

import logging
import os
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from jetson_cluster.catalog import Catalog
from jetson_cluster.downlink import printable_path, read_queue
from jetson_cluster.errors import UserError
from jetson_cluster.head import Head
from jetson_cluster.passbook import Stale
from jetson_cluster.policy import Policy
from jetson_cluster.ranking import PIN
from jetson_cluster.records import Row
from jetson_cluster.schema import QUEUED
from jetson_cluster.walker import examine
from jetson_cluster.wording import counted, in_units

log = logging.getLogger(__name__)

IMAGE, PREVIEW = "image", "preview"
# Of the queue so many rows are looked at first, and ever more while what is left of the budget would
# hold the smallest of them. What only smaller files far behind could fill is left unfilled.
ROWS_FIRST, ROWS_MORE, ROWS_MOST = 256, 4, 8192
LEAST_PREVIEW_BYTES = 64  # no smaller picture is a whole file


class Item(NamedTuple):
    """What may be sent."""

    image: int
    bytes: int


class Parcel(NamedTuple):
    """One file that goes down."""

    kind: str  # IMAGE or PREVIEW
    image: int
    bytes: int
    sha256: str  # of the image, also for its preview
    path: str  # of the image; of a preview when it has been written, see previews.py


class PassReport(NamedTuple):
    """One pass, in the order to send it."""

    number: int  # 0: none was made
    made_at: str  # ISO 8601, UTC
    budget_bytes: int
    parcels: Tuple[Parcel, ...]
    notes: Tuple[str, ...]  # what the operator should know of it
    repeated: bool = False  # it was made before

    @property
    def bytes(self) -> int:
        return sum(parcel.bytes for parcel in self.parcels)

    def of(self, kind: str) -> List[Parcel]:
        return [parcel for parcel in self.parcels if parcel.kind == kind]

    @property
    def budgeted(self) -> bool:
        """Whether it had a budget: links of the outbox had none."""
        return self.budget_bytes > 0 or not self.number

    @property
    def words(self) -> str:
        """The pass in one line."""
        if not self.parcels and not self.number:
            return "; ".join(("no pass",) + self.notes)
        previews = len(self.of(PREVIEW))
        said = "%s: %s%s, %s%s" % (
            "pass %d" % self.number if self.number else "a pass",
            counted(len(self.of(IMAGE)), "image"),
            " and " + counted(previews, "preview") if previews else "", in_units(self.bytes),
            " of " + in_units(self.budget_bytes) if self.budgeted else "")
        return "; ".join((said,) + self.notes)


class Downlink(NamedTuple):
    """What a pass is made from, besides the catalog."""

    head: Head
    policy: Policy
    queue_path: str  # the queue file, for the time in which images are placed anew
    # Whether the inbox is there: if not, its images are not missing, they only cannot be sent.
    inbox_available: Callable[[], bool]
    outbox_path: str = ""  # where the radio takes what it sends by itself; "" if it does not
    files_here: bool = True  # False for a copy of the catalog on the ground: they are believed in


def choose(items: Sequence[Item], budget_bytes: int) -> List[Item]:
    """As many as fit, in their order; one that does not fit is passed over."""
    chosen, left = [], budget_bytes
    for item in items:
        if item.bytes <= left:
            chosen.append(item)
            left -= item.bytes
    return chosen


def make_pass(catalog: Catalog, downlink: Downlink, budget_bytes: int, origin: str, at: str,
              dry_run: bool = False, number: Optional[int] = None,
              also: Callable[[PassReport], None] = lambda report: None) -> PassReport:
    """Choose what to send and mark it sent, all or nothing.

    A pass of that `number` that was made before is given again, and nothing changes; else it must
    be the next one (UserError). With nothing to send, and with `dry_run`, nothing is recorded.
    `also` is called with what is recorded, in the same transaction. With an outbox none is made
    (UserError): it would mark images as sent that nobody sends.
    """
    def choose_and_begin() -> PassReport:
        if number is not None and number <= catalog.last_pass:
            return recall_pass(catalog, number)
        if number is not None and number != catalog.last_pass + 1:
            raise UserError("pass %d: numbers go up by one; the next pass is %d" % (
                number, catalog.last_pass + 1))
        if downlink.outbox_path and not dry_run:
            raise UserError("outbox.path is set (%s): the radio sends what is linked there, and "
                            "nobody would send what a pass marks as sent; raise outbox.bytes to "
                            "send more, or set outbox.path to null" % downlink.outbox_path)
        chosen = _Choice(catalog, downlink, budget_bytes, dry_run)
        report = PassReport(0, at, budget_bytes, chosen.parcels(), tuple(chosen.notes))
        if dry_run or not report.parcels:
            return report
        with catalog.together():
            if number is not None and number != catalog.last_pass + 1:
                raise Stale("pass %d was made meanwhile" % number)
            report = report._replace(number=catalog.begin_pass(
                [item.image for item in chosen.images], chosen.previews, budget_bytes, origin, at))
            also(report)
            return report

    try:
        return choose_and_begin()
    except Stale as error:
        # Another process was faster. To choose while it waits for us is sure, if slower for it.
        log.info("PassChosenAgain: %s", error)
        downlink.head.forget_all()
        with catalog.together():
            return choose_and_begin()


def recall_pass(catalog: Catalog, number: int) -> PassReport:
    """A pass that was made before. Raises UserError if there was none of that number."""
    made = catalog.pass_of(number)
    images, previews = catalog.pass_images(number), catalog.pass_previews(number)
    if made is None and images:
        return PassReport(number, "", 0, _parcels(catalog, previews, images),
                          ("known from the journal alone",), repeated=True)
    if made is None:
        raise UserError("pass %d: there was none; the last one is %d" % (
            number, catalog.last_pass))
    notes = ["made before, at " + made.made_at]
    for kind, count, held in ((IMAGE, made.images, images), (PREVIEW, made.previews, previews)):
        if len(held) < count:
            notes.append("%d of its %d %ss were sent again since, and are not listed" % (
                count - len(held), count, kind))
    return PassReport(number, made.made_at, made.budget_bytes,
                      _parcels(catalog, previews, images), tuple(notes), repeated=True)


def _parcels(catalog: Catalog, previews: Sequence[int], images: Sequence[int]
             ) -> Tuple[Parcel, ...]:
    rows = catalog.rows(list(set(previews) | set(images)))
    sizes = catalog.preview_sizes(previews)
    small = [Parcel(PREVIEW, image, sizes[image][1], rows[image].sha256, "") for image in previews
             if image in sizes]
    return tuple(small) + tuple(
        Parcel(IMAGE, image, rows[image].bytes, rows[image].sha256, rows[image].path)
        for image in images)


class _Choice:
    """What goes into one pass, chosen at one moment."""

    def __init__(self, catalog: Catalog, downlink: Downlink, budget_bytes: int, dry_run: bool):
        self.notes = []  # type: List[str]
        self.images = []  # type: List[Item]
        self.previews = []  # type: List[int]
        self._catalog, self._downlink, self._dry_run = catalog, downlink, dry_run
        self._budget_bytes = self._left = budget_bytes
        self._rows = {}  # type: Dict[int, Row]
        self._looked_at, self._unfit = set(), set()  # type: Set[int], Set[int]
        self._gone = self._changed = 0
        done, total = catalog.unplaced
        if done < total:
            self._take_published()
        else:
            self._take_ranked()
        self._note_what_is_left()

    def parcels(self) -> Tuple[Parcel, ...]:
        return _parcels(self._catalog, self.previews, [item.image for item in self.images])

    def _take_ranked(self) -> None:
        rows = ROWS_FIRST
        while True:
            ranked = self._downlink.head.order(self._downlink.policy, rows)
            all_seen = len(ranked) < rows or rows >= ROWS_MOST
            self._take([place.image for place in ranked])
            if all_seen or not self._could_fit_more():
                self._note_pins([place.image for place in ranked if place.slot == PIN])
                return
            rows = min(rows * ROWS_MORE, ROWS_MOST)

    def _could_fit_more(self) -> bool:
        return any(row.bytes <= self._left for row in self._rows.values())

    def _take_published(self) -> None:
        """Choose from the queue file as it was last written: the order while there is no newer."""
        head, policy = self._downlink.head, self._downlink.policy
        try:
            published = read_queue(self._downlink.queue_path)
            self.notes.append("images are being placed anew; chosen from the %d of the queue file "
                              "last published" % len(published))
        except UserError as error:
            published = []
            self.notes.append("images are being placed anew, and there is no queue file to choose "
                              "from meanwhile (%s)" % error)
        ranked = [image for image, _ in head.meanwhile(policy, published)]
        self._take(ranked)
        pins = set(head.pins(policy))
        self._note_pins([image for image in ranked
                         if image in pins and self._rows[image].state == QUEUED])

    def _take(self, ranked: List[int]) -> None:
        """Choose anew among these, best first; files that cannot be sent drop out."""
        self._rows.update(self._catalog.rows(
            [image for image in ranked if image not in self._rows]))
        while True:
            there = [image for image in ranked if image not in self._unfit
                     and image in self._rows and self._rows[image].state == QUEUED]
            left = self._budget_bytes - self._choose_previews(there)
            self.images = choose([Item(image, self._rows[image].bytes) for image in there], left)
            self._left = left - sum(item.bytes for item in self.images)
            fresh = [item.image for item in self.images if item.image not in self._looked_at]
            if not fresh:
                break
            self._look_at(fresh)

    def _note_pins(self, pins: List[int]) -> None:
        chosen = {item.image for item in self.images}
        for image in pins:
            if image not in chosen | self._unfit:
                self.notes.append("pinned %s (%s) does not fit" % (
                    printable_path(os.path.basename(self._rows[image].path)),
                    in_units(self._rows[image].bytes)))

    def _choose_previews(self, ranked: List[int]) -> int:
        """The previews that go first, in rank order and then the oldest; their bytes."""
        if self._downlink.policy.previews != "first":
            return 0
        held = self._downlink.head.held(self._downlink.policy)
        most = self._budget_bytes // LEAST_PREVIEW_BYTES + 1 + len(held)
        unsent = [image for image in self._catalog.unsent_previews(most) if image not in held]
        ahead = [image for image in ranked if self._rows[image].preview_sent_in is None]
        known = set(ahead)
        order = ahead + [image for image in unsent if image not in known]
        sizes = self._catalog.preview_sizes(order)
        chosen = choose([Item(image, sizes[image][1]) for image in order if image in sizes],
                        self._budget_bytes)
        self.previews = [item.image for item in chosen]
        return sum(item.bytes for item in chosen)

    def _look_at(self, images: List[int]) -> None:
        """See whether their files are there, as they were catalogued; the others are unfit."""
        if not self._downlink.files_here:
            self._looked_at.update(images)
            return
        available = self._downlink.inbox_available()
        gone, there = [], {}
        for image in images:
            self._looked_at.add(image)
            try:
                arrival = examine(self._rows[image].path)
            except OSError:
                self._unfit.add(image)  # its card fails; whether it is gone nobody knows
                self._changed += 1
                continue
            if arrival is None:
                self._unfit.add(image)
                gone.append(image)
            else:
                there[image] = arrival
        known = self._catalog.known(list(there.values()))
        for image, arrival in there.items():
            if arrival.path not in known:
                # Other content than the queue promised; the daemon will look at it.
                self._unfit.add(image)
                self._changed += 1
        self._gone += len(gone)
        if gone and available and not self._dry_run:
            missing = set(self._catalog.mark_missing(gone))
            # The others stand at another of their paths, and can be sent from there.
            elsewhere = [image for image in gone if image not in missing]
            self._rows.update(self._catalog.rows(elsewhere))
            self._unfit.difference_update(elsewhere)
            self._looked_at.difference_update(elsewhere)
            self._gone -= len(elsewhere)

    def _note_what_is_left(self) -> None:
        if self._gone:
            self.notes.append("the files of %s are gone%s" % (
                counted(self._gone, "image"), "" if self._downlink.inbox_available()
                else ", for the inbox is not there (unmounted?)"))
        if self._changed:
            self.notes.append("%s cannot be read or not what was catalogued; the daemon will "
                              "look" % counted(self._changed, "file"))
        if self.images or self.previews:
            return
        sizes = [row.bytes for image, row in self._rows.items()
                 if row.state == QUEUED and image not in self._unfit]
        if not self._catalog.count_of(QUEUED):
            self.notes.append("no image is queued")
        elif sizes:
            self.notes.append("nothing fits into %s: the smallest of %s looked at has %s" % (
                in_units(self._budget_bytes), counted(len(sizes), "image"), in_units(min(sizes))))
        states = self._catalog.states_of(sorted(self._downlink.head.held(self._downlink.policy)))
        held = list(states.values()).count(QUEUED)
        if held:
            self.notes.append("the policy holds %d of the %d queued images" % (
                held, self._catalog.count_of(QUEUED)))
