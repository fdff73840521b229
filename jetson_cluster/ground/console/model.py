"""The console's own state: what is wanted, as a policy file and as orders, and how it is saved.

In: a catalog (a copy, which is only read here), the policy file, the order file written last, and
changes of the draft. Out: the two files as they would be written, and what each of them cannot say.
"""

import os
from typing import Callable, Dict, List, NamedTuple, Optional, Set, Tuple

from jetson_cluster.catalog import Catalog
from jetson_cluster.errors import UserError
from jetson_cluster.files import sha256_of
from jetson_cluster.ground.console import orders, paths, policy_file, standing
from jetson_cluster.ground.console.draft import HOLD, PIN, Draft, History
from jetson_cluster.ground.console.marks import Marked, Marks
from jetson_cluster.ground.console.orders import Asked, Last, OrderFile, Wanted
from jetson_cluster.ground.console.policy_file import Written
from jetson_cluster.ledger import GROUND, MOVES
from jetson_cluster.policy import Policy
from jetson_cluster.records import Row

# What a policy says that orders cannot amend.
BEYOND_ORDERS = ("explore", "signature", "diversity", "ageing", "quality", "previews", "pass_by")
MOST_DIGITS = 9  # of a cluster's number


class Plan(NamedTuple):
    """Everything that follows from one draft."""

    version: int
    policy: Written  # the policy file; its `policy` is what the preview goes by
    orders: OrderFile
    unsaid: Tuple[str, ...]  # what only the policy file can say
    marked: Dict[str, Marked]  # by SHA-256: all that is pinned, held, or was
    unpinned: Tuple[int, ...]  # images that orders pinned and that should not be so
    released: Tuple[int, ...]  # and that are held and should not be so
    stale: bool  # whether the files on disk say something else


class Model:
    """One team's draft over one catalog; use it from one thread."""

    def __init__(self, catalog: Catalog, policy_path: str, orders_path: str, clusters: int,
                 folder: str, marked: List[int], now_s: Callable[[], float]):
        """`folder` is for scratch files, `marked` is what orders pinned and held in the catalog.

        Raises UserError.
        """
        self.policy_path = paths.settled(policy_path, "--policy")
        self.orders_path = paths.settled(orders_path, "--orders-out")
        self._catalog, self._now_s = catalog, now_s
        self._scratch = os.path.join(folder, "policy.yaml")
        self._clusters, self._marked_aboard = clusters, marked
        self.history = History(Draft())
        self._saved = Draft()  # the draft that both files say
        self._plan: Optional[Plan] = None
        self.changed_outside = ""  # what another program made of the files meanwhile
        self._read()

    def _read(self) -> None:
        source, last = policy_file.read(self.policy_path), self._read_last()
        self.standing = standing.stand(self._catalog, self.policy_path, source, last)
        self._source, self._last = source, last
        self._marks = Marks(self._catalog, self.standing, self._source.policy, self._marked_aboard)
        self._stamp, self._plan = self._new_stamp(), None

    # ---- changes -----------------------------------------------------------------------------

    def change(self, kind: str, target: str, value: object) -> None:
        """Take one change into the draft. Raises UserError."""
        draft = self.history.draft
        if kind in ("weight", "label"):
            cluster = int(target) if target.isascii() and target.isdigit() and (
                len(target) < MOST_DIGITS) else -1
            if not 0 <= cluster < self._clusters:
                raise UserError(f"cluster {target[:MOST_DIGITS]}: there are 0 to "
                                f"{self._clusters - 1}")
            changed = (draft.weighed if kind == "weight" else draft.labelled)(cluster, value)
        elif kind in ("more_like", "mark"):
            row = self.row(target)
            if kind == "mark" and value in (PIN, HOLD) and (row.state in GROUND
                                                            or row.state not in MOVES[value]):
                raise UserError(f"{os.path.basename(row.path)}: it is {row.state}, and cannot be "
                                f"asked to {value}")
            changed = (draft.liking(row.sha256, value) if kind == "more_like"
                       else draft.marked(row.sha256, str(value)))
        else:
            raise UserError(f"{kind!r} is nothing that can be changed")
        made = self._made(changed)  # only what can be written to both files is taken
        self.history.take(changed)
        self._plan = made._replace(version=self.history.version)

    def row(self, sha256: str) -> Row:
        """The image of that SHA-256. Raises UserError if there is none."""
        images = self._catalog.ids_by_prefix(sha256, 2)
        if len(images) != 1:
            raise UserError(f"no image has the SHA-256 {sha256[:64]!r}")
        return self._catalog.rows(images)[images[0]]

    # ---- what follows ------------------------------------------------------------------------

    @property
    def now(self) -> Policy:
        """The policy in force on the rover."""
        return self.standing.now

    def plan(self) -> Plan:
        """What the draft comes to. Raises UserError if it cannot be written."""
        if self._plan is None or self._plan.version != self.history.version:
            self._plan = self._made(self.history.draft)
        return self._plan

    def _made(self, draft: Draft) -> Plan:
        unsaid, of_marks = [], []  # type: List[str], List[str]
        spoken, asked = self._spoken()
        marked = self._marks.of(draft, asked)
        of_images = self._marks.orders(marked, asked, of_marks)
        wanted = policy_file.over(self.standing.begin, draft.edits)
        wanted = wanted._replace(
            pins=self._marks.listed("pins", marked, of_images.get("pin", ()), of_marks),
            holds=self._marks.listed("holds", marked, of_images.get("hold", ()), of_marks))
        written = policy_file.write(self._source, wanted, self._scratch)
        order_file = orders.compose(
            Wanted(self._amendments(wanted, spoken, unsaid), of_images), self._last, self._stamp,
            self.short, self._find, self.orders_path)
        unsaid += of_marks
        unsaid += [f"{name}, which the file aboard has otherwise" for name in BEYOND_ORDERS
                   if getattr(wanted, name) != getattr(self.now, name)]
        if order_file.too_many_bytes:
            unsaid.append(f"all of this, for it would take {order_file.too_many_bytes:,} bytes, "
                          f"and one file of orders holds at most {orders.MOST_BYTES:,}")
        rows = list(marked.values())
        return Plan(
            self.history.version, written, order_file, tuple(unsaid), marked,
            tuple(one.row.image for one in rows if one.pin.by_order and not one.pin.wanted),
            tuple(one.row.image for one in rows if one.hold.by_order and not one.hold.wanted),
            written.text != self._source.text or (
                bool(order_file.text) and order_file.text != self._last.text))

    def _amendments(self, wanted: Policy, spoken: dict, unsaid: List[str]
                    ) -> Dict[Tuple[str, str], object]:
        """What orders have to amend."""
        found: Dict[Tuple[str, str], object] = {}
        for number in sorted(set(wanted.weights) | set(self.now.weights)
                             | {int(key) for kind, key in spoken if kind == "weight"}):
            weight = wanted.weights.get(number, 1.0)
            if weight != self.now.weights.get(number, 1.0) or ("weight", str(number)) in spoken:
                found["weight", str(number)] = weight
        for number in sorted(set(wanted.labels) | set(self.now.labels)
                             | {int(key) for kind, key in spoken if kind == "label"}):
            label = wanted.labels.get(number, "")
            if label == self.now.labels.get(number, "") and ("label", str(number)) not in spoken:
                continue
            if orders.sayable("label", label):
                found["label", str(number)] = label
            elif label == self.standing.aboard.labels.get(number, ""):
                found["label", str(number)] = None
            else:
                unsaid.append(f"the label {label!r} of cluster {number}" if label
                              else f"that cluster {number} has no label")
        self._amend_targets(wanted, {key for kind, key in spoken if kind == "more_like"}, found,
                            unsaid)
        return found

    def _amend_targets(self, wanted: Policy, spoken: Set[str],
                       found: Dict[Tuple[str, str], object], unsaid: List[str]) -> None:
        wishes, now = (self._weights_by_image(said) for said in (wanted, self.now))
        for key in sorted(set(wishes) | set(now) | spoken):
            weight = wishes.get(key, 0.0)
            if weight == now.get(key, 0.0) and key not in spoken:
                continue
            if len(key) == 64:
                found["more_like", key] = weight
            else:
                unsaid.append(f"the target {key}, of which no image is here")
        given = [[(target.embedding.tobytes(), target.weight) for target in said.targets
                  if target.embedding is not None] for said in (wanted, self.now)]
        if given[0] != given[1]:
            unsaid.append("targets given by their embedding")

    def _weights_by_image(self, said: Policy) -> Dict[str, float]:
        return {self._find(target.like) or target.like: target.weight
                for target in said.targets if target.like}

    def _find(self, target: str) -> str:
        return standing.find(self._catalog, target)

    def _spoken(self) -> Tuple[dict, Dict[str, Asked]]:
        """What the order file written last speaks of."""
        return orders.spoken_of(self._last, self._find)

    def short(self, sha256: str) -> str:
        """So many digits of it that no other image here is meant."""
        digits = orders.LEAST_DIGITS
        while digits < 64 and len(self._catalog.ids_by_prefix(sha256[:digits], 2)) > 1:
            digits += 2
        return sha256[:digits]

    def weights_of_targets(self) -> Dict[str, float]:
        """SHA-256 -> weight of the images that more is wanted of, by the draft."""
        return {key: weight for key, weight in self._weights_by_image(
            self.plan().policy.policy).items() if len(key) == 64}

    # ---- files -------------------------------------------------------------------------------

    def difference(self) -> List[Tuple[str, str]]:
        """How the order file differs from the one written last, line by line."""
        return orders.difference(self._last.text, self.plan().orders.text)

    @property
    def last_bytes(self) -> int:
        """Bytes of the order file written last."""
        return len(self._last.text.encode("utf-8"))

    def policy_difference(self) -> List[Tuple[str, str]]:
        """How the policy file differs from the one on disk, line by line."""
        return orders.difference(self._source.text, self.plan().policy.text)

    def save(self) -> None:
        """Write both files, each whole or not at all. Raises UserError and OSError.

        Where another program changed one of them meanwhile, nothing is written: they are read anew,
        the draft stands over them, and `changed_outside` says so.
        """
        self.changed_outside = ""
        if any((sha256_of(path) if os.path.lexists(path) else "") != before for path, before in (
                (self.policy_path, self._source.digest), (self.orders_path, self._last.digest))):
            self._read_anew()
            return
        plan = self.plan()
        if plan.policy.text != self._source.text:
            standing.keep(self._catalog, self.policy_path)
            paths.replace(self.policy_path, plan.policy.text.encode("utf-8"), self.policy_path)
            self._source = policy_file.read(self.policy_path)
        standing.remember(self.policy_path, self._source.text)
        if plan.orders.text and plan.orders.text != self._last.text:
            paths.replace(self.orders_path, plan.orders.text.encode("utf-8"), self.orders_path)
            self._last = self._read_last()
        self._saved = self.history.draft
        self._stamp, self._plan = self._new_stamp(), None

    def _read_anew(self) -> None:
        """Take in what another program made of the files. Raises UserError if it is no policy."""
        rest, before = self._unsaved(), self._source.policy
        orders_before = self._last.text
        self._read()
        told = [f"{self.policy_path}: {standing.changes(before, self._source.policy)}"]
        if self._last.text != orders_before:
            told.append(f"{self.orders_path} holds other orders")
        self.changed_outside = ("another program changed the files, so nothing was saved; they "
                                "were read anew, and what was not saved stands over them. "
                                + "; ".join(told) + ". Save again if that is right")
        self._saved = Draft()
        self.history.take_anew(rest)

    def _unsaved(self) -> Draft:
        """What the draft says otherwise than what was saved last, also where it was taken back."""
        draft, saved, begin = self.history.draft, self._saved, self.standing.begin
        edits = {key: value for key, value in draft.edits.items()
                 if saved.edits.get(key) != value}
        edits.update({key: standing.said(begin, key) for key in saved.edits
                      if key not in draft.edits})
        marks = {sha256: mark for sha256, mark in draft.marks.items()
                 if saved.marks.get(sha256) != mark}
        marked = self.plan().marked
        marks.update({sha256: marked[sha256].mark for sha256 in saved.marks
                      if sha256 not in draft.marks and sha256 in marked})
        return Draft(edits, marks)

    def _used(self, order_id: str) -> bool:
        return self._catalog.audited(order_id) is not None

    def _read_last(self) -> Last:
        text = digest = ""
        if os.path.lexists(self.orders_path):
            try:
                with open(self.orders_path, encoding="utf-8", newline="") as stream:
                    text = stream.read()
                digest = sha256_of(self.orders_path)
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"orders {self.orders_path}: cannot be read ({error}); move it "
                                "aside if it was never uplinked") from error
        return orders.read_last(text, digest, self.orders_path, self._used)

    def _new_stamp(self) -> str:
        return orders.stamp_of(self._now_s(), self._used,
                               {action.order_id for action in self._last.pending})
