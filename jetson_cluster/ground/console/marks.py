"""Which images are pinned and held: by the rover, the team's file, pending orders and the draft.

In: the catalog, the Standing, the team's file and the draft. Out: what is asked of each image, the
orders and the policy's `pins` and `holds` that bring it about. The rover puts first what orders
pinned, in the order of pinning, then what its policy file pins, in the order of the file. `pins` is
so ordered that its images rank the same by the orders, by the file and by both.
"""

import os
from typing import Dict, List, NamedTuple, Sequence, Tuple

from jetson_cluster.catalog import Catalog
from jetson_cluster.ground.console.draft import FREE, HOLD, PIN, Draft, pinned_in
from jetson_cluster.ground.console.orders import Asked
from jetson_cluster.ground.console.standing import Standing
from jetson_cluster.head import MOST_MEANT
from jetson_cluster.ledger import GROUND
from jetson_cluster.policy import NAMED, Policy
from jetson_cluster.records import Row
from jetson_cluster.schema import HELD


class Wish(NamedTuple):
    """Whether an image is to be pinned (or held), and what makes it so aboard."""

    wanted: bool
    by_order: bool
    by_file: bool  # the policy file aboard

    @property
    def was(self) -> bool:
        return self.by_order or self.by_file


class Marked(NamedTuple):
    """What is asked of one image, and what the rover does with it."""

    row: Row
    pin: Wish
    hold: Wish

    @property
    def mark(self) -> str:
        """As the draft names it; what is held is left out, pinned or not."""
        return HOLD if self.hold.wanted else PIN if self.pin.wanted else FREE

    @property
    def was(self) -> str:
        return HOLD if self.hold.was else PIN if self.pin.was else FREE


class Marks:
    """The pins and holds over one catalog and one policy file."""

    def __init__(self, catalog: Catalog, standing: Standing, file: Policy, aboard: List[int]):
        """`aboard` is what orders pinned, in that order, and hold."""
        self._catalog, self._standing, self._file, self._aboard = catalog, standing, file, aboard

    def of(self, draft: Draft, spoken: Dict[str, Asked]) -> Dict[str, Marked]:
        """By SHA-256 all that anybody pinned, held or let go, in the order of asking.

        `spoken` is what the order file written last asks.
        """
        standing = self._standing
        file, base, now = ({name: set(self._meant(getattr(said, name)))
                            for name in ("pins", "holds")}
                           for said in (self._file, standing.base, standing.now))
        named = sorted(set(draft.marks) | set(standing.asked) | set(spoken)) + [
            prefix for said in (self._file, standing.base, standing.now)
            for prefix in said.pins + said.holds]
        rows = self._catalog.rows(sorted(set(self._aboard) | set(self._meant(named))))

        def wish(image: int, name: str, by_order: bool, asked, mark, meant) -> Wish:
            said = image in file[name]
            # Where the file was edited by hand since, it wins over orders.
            wanted = (said if said != (image in base[name]) else
                      by_order or said if asked is None else asked)
            return Wish(wanted if mark is None else mark == meant, by_order, image in now[name])

        found = {}
        for image, row in rows.items():
            asked, mark = standing.asked.get(row.sha256, Asked()), draft.marks.get(row.sha256)
            found[row.sha256] = Marked(
                row, wish(image, "pins", row.pinned is not None, asked.pinned, mark, PIN),
                wish(image, "holds", row.state == HELD, asked.held, mark, HOLD))
        return {sha256: found[sha256] for sha256 in self._in_order(rows, found, draft)}

    def _in_order(self, rows: Dict[int, Row], found: Dict[str, Marked], draft: Draft) -> List[str]:
        """As the file has them, then as they were asked for, those pinned in the draft last."""
        late = pinned_in(draft.marks)
        order = [rows[image].sha256 for image in self._meant(self._file.pins)]
        order += [sha256 for sha256 in self._standing.asked if sha256 in found]
        order += found
        return list(dict.fromkeys([sha256 for sha256 in order if sha256 not in late] + late))

    def _meant(self, prefixes: Sequence[str]) -> List[int]:
        return [image for prefix in prefixes
                for image in self._catalog.ids_by_prefix(prefix, MOST_MEANT)]

    def orders(self, marked: Dict[str, Marked], spoken: Dict[str, Asked], unsaid: List[str]
               ) -> Dict[str, List[str]]:
        """What orders have to ask, SHA-256s by the order's name; adds to `unsaid` what they cannot.

        What the last file spoke of is said again, for it may have been uplinked.
        """
        found: Dict[str, List[str]] = {}
        for sha256, one in marked.items():
            said = spoken.get(sha256, Asked())
            for on, off, wish, before in (("pin", "unpin", one.pin, said.pinned),
                                          ("hold", "release", one.hold, said.held)):
                if wish.wanted == wish.was and before is None:
                    continue
                if wish.by_file and not wish.wanted:
                    unsaid.append(f"to {off} {os.path.basename(one.row.path)}, which the file "
                                  f"aboard {on}s")
                    if not wish.by_order and before is None:
                        continue
                if one.row.state not in GROUND:
                    found.setdefault(on if wish.wanted else off, []).append(sha256)
        return found

    def listed(self, name: str, marked: Dict[str, Marked], ordered: Sequence[str],
               unsaid: List[str]) -> Tuple[str, ...]:
        """The policy's own `pins` or `holds`; `ordered` are those that orders pin or hold anew."""
        wishes = {one.row.image: one.pin if name == "pins" else one.hold
                  for one in marked.values()}
        shas = {one.row.image: sha256 for sha256, one in marked.items()}
        prefixes = getattr(self._file, name)
        there = list(dict.fromkeys(self._meant(prefixes)))
        first = [marked[sha256].row.image for sha256 in ordered]
        rest = [image for image in there + list(wishes) if image not in first]
        # What orders pinned before ranks by that, wherever it stands here; what nothing but orders
        # pins does not stand here at all.
        order = [image for image in dict.fromkeys(first + rest)
                 if wishes[image].wanted and not wishes[image].by_order]
        both = [image for image in self._aboard if image in there and wishes[image].wanted
                and wishes[image].by_order]
        if name == "pins":
            self._check_order([image for image in order if image not in first], unsaid)
        if set(there) == set(order + both) and order == [image for image in there
                                                         if image not in both]:
            return prefixes
        return self._named(prefixes, list(dict.fromkeys(both + order)), shas)

    def _check_order(self, images: List[int], unsaid: List[str]) -> None:
        aboard = list(dict.fromkeys(self._meant(self._standing.now.pins)))
        if [image for image in images if image in aboard] != [
                image for image in aboard if image in images]:
            unsaid.append("the order of the pins, of which the file aboard has another")

    def _named(self, prefixes: Sequence[str], order: List[int], shas: Dict[int, str]
               ) -> Tuple[str, ...]:
        """Prefixes for these images in this order, the file's own ones where they fit."""
        own = {}
        for prefix in prefixes:
            meant = self._meant([prefix])
            if meant and meant[0] not in own and meant == _run(order, meant[0], len(meant)):
                own[meant[0]] = prefix, len(meant)
        names, place = [], 0
        while place < len(order):
            name, count = own.get(order[place], (shas[order[place]][:NAMED], 1))
            names.append(name)
            place += count
        unknown = [prefix for prefix in prefixes if not self._meant([prefix])]
        return tuple(names + unknown)


def _run(order: List[int], first: int, count: int) -> List[int]:
    place = order.index(first) if first in order else len(order)
    return order[place:place + count]
