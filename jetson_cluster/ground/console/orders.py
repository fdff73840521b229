"""The smallest order file that brings the rover from what it goes by to what the team wants.

In: what the rover goes by, what is wanted, and the order file written last. Out: YAML in the form
of jetson_cluster/orders.py, parsed by that before anybody sees it; and what orders cannot say.

An order's id is used up on board, and nobody here knows whether the last file was uplinked since
the catalog came down. So whatever that file spoke of is said again, also where it is taken back; an
order that stays the same keeps its id, and any other gets one that was never used. Orders that the
console knows nothing of, as an acknowledgement or the pin of an image that is not here, are carried
along as they are.
"""

import difflib
import json
import re
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from jetson_cluster import orders as flight
from jetson_cluster.errors import UserError
from jetson_cluster.orders import DEFAULT, PASS, Action
from jetson_cluster.policy import AMENDABLE

LEAST_DIGITS = 8  # of a SHA-256: of a million images one in 4,000 shares them with another
# In this order they are carried out: what is let go must be free before it is asked for again.
NAMES = ("weight", "label", "more_like", "unpin", "release", "pin", "hold")
MOST_BYTES = flight.MOST_YAML_BYTES  # that the rover reads in one file
_BARE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]*")  # targets and ids without quotes
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9 _/-]{0,79}(?<! )")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Wanted(NamedTuple):
    """What orders have to bring about."""

    amendments: Mapping[Tuple[str, str], object]  # (kind, key) -> value; None: as the file says
    marks: Mapping[str, Sequence[str]]  # "pin", "unpin", "hold", "release" -> SHA-256s


class Asked(NamedTuple):
    """What orders ask of one image; None: they do not speak of it."""

    pinned: Optional[bool] = None
    held: Optional[bool] = None


_ASKS = {"pin": {"pinned": True}, "unpin": {"pinned": False},
         "hold": {"held": True}, "release": {"held": False}}


class OrderFile(NamedTuple):
    """An order file as it would be written."""

    text: str
    actions: List[Action]
    too_many_bytes: int = 0  # of what would have to be said, where that is more than a file holds

    @property
    def bytes(self) -> int:
        return len(self.text.encode("utf-8"))


class Last(NamedTuple):
    """What the order file written last speaks of, as far as the catalog does not know of it."""

    text: str  # the whole of it
    digest: str  # SHA-256 of the file, hex; "" where there is none
    pending: List[Action]  # its orders that were not carried out when the catalog came down
    done: int  # how many were


def read_last(text: str, digest: str, source: str, used: Callable[[str], bool]) -> Last:
    """The order file written before; `used(id)` says whether the catalog knows of an order.

    Raises UserError if there are orders in it that cannot be read.
    """
    parsed = flight.parse(text.encode("utf-8"), source)
    if parsed.refused:
        first = parsed.refused[0]
        raise UserError(f"orders {source}: line {first.line}: {first.why}; mend the file, or move "
                        "it aside if it was never uplinked")
    pending = [action for action in parsed.actions if not used(action.order_id)]
    return Last(text, digest, pending, len(parsed.actions) - len(pending))


class _Carried(NamedTuple):
    """What the last file orders and the console knows nothing of."""

    before: List[Action]  # whole orders, before the first that the console makes
    after: List[Action]
    rest: Dict[str, List[tuple]]  # (target, value) that go into the console's own, by its name


def compose(wanted: Wanted, last: Last, stamp: str, short: Callable[[str], str],
            find: Callable[[str], str], source: str) -> OrderFile:
    """The order file for what is wanted; an empty one if that is more than a file may hold.

    `stamp` is what new ids begin with, see stamp_of; `short(sha256)` the digits that name an image,
    `find(target)` the SHA-256 that a target of an order means, "" if it means no image here.
    """
    known = {(action.name, action.content): action.order_id for action in last.pending}
    carried, own = _carried(last, find), []  # type: _Carried, List[Action]
    for name in NAMES:
        pairs = _targets(name, wanted, short) + carried.rest.get(name, [])
        if pairs:
            targets, values = zip(*pairs)
            action = Action("", name, targets, values if name in AMENDABLE else None, 0, source)
            own.append(action._replace(order_id=known.get(
                (name, action.content), stamp + _DIGITS[len(own)])))
    meant = carried.before + own + carried.after
    if _content(meant) == _content(last.pending) and not last.done:
        return OrderFile(last.text, last.pending)  # as somebody may have written it by hand
    text = "".join(map(_line, meant))
    if len(text.encode("utf-8")) > MOST_BYTES:
        return OrderFile("", [], len(text.encode("utf-8")))
    parsed = flight.parse(text.encode("utf-8"), source)
    if parsed.refused or _content(parsed.actions) != _content(meant):
        why = parsed.refused[0].why if parsed.refused else "read again, it says something else"
        raise UserError(f"the order file cannot be written: {why}")
    return OrderFile(text, parsed.actions)


def _content(actions: Sequence[Action]) -> List[Tuple[str, str, str]]:
    return [(action.order_id, action.name, action.content) for action in actions]


def _carried(last: Last, find: Callable[[str], str]) -> _Carried:
    carried, ours = _Carried([], [], {}), False
    for action in last.pending:
        unknown = [place for place, target in enumerate(action.targets)
                   if action.name not in ("weight", "label") and not find(target)]
        if action.name not in NAMES or len(unknown) == len(action.targets):
            (carried.after if ours else carried.before).append(action)
            continue
        ours = True
        carried.rest.setdefault(action.name, []).extend(
            (action.targets[place], action.value[place] if action.value else None)
            for place in unknown)
    return carried


def _targets(name: str, wanted: Wanted, short: Callable[[str], str]) -> List[tuple]:
    """[(target, value)] as they stand in the file; the value is None for marks."""
    if name not in AMENDABLE:
        return [(short(sha256), None) for sha256 in wanted.marks.get(name, ())]
    chosen = sorted(((key, value) for (kind, key), value in wanted.amendments.items()
                     if kind == name), key=lambda pair: (len(pair[0]), pair[0]))
    return [(short(key) if name == "more_like" else key, value) for key, value in chosen]


def _line(action: Action) -> str:
    targets = [_bare(target) for target in action.targets]
    if action.name == PASS:
        given = str(action.value)
    elif action.name in AMENDABLE:
        given = "{%s}" % ", ".join(map(": ".join, zip(targets, map(_in_yaml, action.value))))
    else:
        given = targets[0] if len(targets) == 1 else "[%s]" % ", ".join(targets)
    return "- {id: %s, %s: %s}\n" % (_bare(action.order_id), action.name, given)


def _bare(text: str) -> str:
    return text if _BARE.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    # Bytes of a name that are no UTF-8 stand for themselves only as escapes.
    return re.sub("[\ud800-\udfff]", lambda found: "\\u%04x" % ord(found.group()),
                  json.dumps(text, ensure_ascii=False))


def _in_yaml(value: object) -> str:
    if value is None:
        return DEFAULT
    if isinstance(value, float):
        return "%.9g" % value
    text = str(value)
    return text if _PLAIN.fullmatch(text) else _quoted(text)


def sayable(kind: str, value: object) -> bool:
    """Whether an order can carry this amendment; "default" as a label would be the word."""
    return kind != "label" or value not in ("", DEFAULT)


def difference(before: str, after: str) -> List[Tuple[str, str]]:
    """("+", "-" or " ", line) for each line of both texts."""
    return [(line[0], line[2:].rstrip("\n")) for line in difflib.ndiff(
        before.splitlines(True), after.splitlines(True)) if line[0] in "+- "]


def stamp_of(seconds: float, used: Callable[[str], bool], kept: Set[str]) -> str:
    """What new ids begin with: the time in base 36, one more where it was used before.

    `used` asks the catalog, `kept` are the ids that stand in the last file.
    """
    number = int(seconds)
    while any(used(_base_36(number) + digit) or _base_36(number) + digit in kept
              for digit in _DIGITS[:len(NAMES)]):
        number += 1
    return _base_36(number)


def _base_36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"


def spoken_of(last: Last, find: Callable[[str], str]) -> Tuple[Dict[Tuple[str, str], object],
                                                              Dict[str, Asked]]:
    """(amendments, what is asked of images) by pending orders; `find(target)`: SHA-256 or ""."""
    amendments: Dict[Tuple[str, str], object] = {}
    asked: Dict[str, Asked] = {}
    for action in last.pending:
        for place, target in enumerate(action.targets):
            key = target if action.name in ("weight", "label") else find(target)
            if not key:
                continue  # of an image that this catalog does not have
            if action.name in AMENDABLE:
                amendments[action.name, key] = action.value[place]
            elif action.name in NAMES:
                asked[key] = asked.get(key, Asked())._replace(**_ASKS[action.name])
    return amendments, asked
