"""One file of orders, uplinked by the ground or given by hand: text in, actions and refusals out.

YAML (`*.yaml`, `*.yml`) is a list with one order an entry; CSV (`*.csv`) has one a line, with the
columns id,action,target,value, for which a header may stand or not:

    - {id: 41, ack: "pass:12"}                         41,ack,pass:12
    - {id: 42, pin: [a1b2c3d4, sol0343_1395.jpg]}      42,pin,a1b2c3d4      (one target a line)
    - {id: 43, weight: {7: 3, 8: default}}             43,weight,7,3
    - {id: 44, label: {7: layered rock}}               44,label,7,layered rock
    - {id: 45, more_like: {a1b2c3d4: 1.0}}             45,more_like,a1b2c3d4,1.0
    - {id: 46, pass: 4MB}                              46,pass,4MB

A target is a hash prefix of 6 or more digits, a path, a file's name, or pass:12. `default` takes an
amendment back: what the policy file says holds again. An id is any text of up to 64 printable
characters without spaces; 42 and 042 are two. Every order stands for itself: a bad one is refused
with its line, the others hold. So is the last one where no line break ends the file, for an uplink
may have been cut off in the middle of it. Only YAML whose syntax is broken is refused whole, for nobody can
tell what was meant. Nothing here touches a disk.
"""

import csv
import re
import shlex
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import yaml

from jetson_cluster import bytesize
from jetson_cluster.checking import NOT_YAML, nearest_name, one_line, shown
from jetson_cluster.errors import UserError
from jetson_cluster.policy import AMENDABLE, LABEL_LENGTH, WEIGHT_MOST

MARKS = ("ack", "nack", "resend", "hold", "release", "pin", "unpin")
PASS = "pass"
ACTIONS = MARKS + AMENDABLE + (PASS,)
DEFAULT = "default"
COLUMNS = ("id", "action", "target", "value")
YAML_SUFFIXES, CSV_SUFFIXES = (".yaml", ".yml"), (".csv",)
SUFFIXES = YAML_SUFFIXES + CSV_SUFFIXES

MOST_BYTES = 1000000
# 64 kB of YAML take 0.4 s on a workstation with Python 3.6, 2 s where it is all brackets.
MOST_YAML_BYTES = 64000
MOST_ORDERS = 10000
MOST_TARGET = 4096  # the longest path there is
MOST_CLUSTER = 65535
_ID = re.compile(r"[^\s]{1,64}")
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{0,9})?(?:[eE][-+]?[0-9]{1,2})?", re.ASCII)
_CUT_OFF = "the file ends in the middle of it: its last line lacks a line break"
_PASS_TARGET = re.compile(r"pass:[0-9]{1,9}", re.ASCII)


class Action(NamedTuple):
    """One thing to be done. The line and source are where it was written, for messages."""

    order_id: str  # "": by hand, without one
    name: str  # one of ACTIONS
    targets: Tuple[str, ...]  # marks: images; amendments: clusters, or images; a pass: none
    # Amendments: for each target a number or a label, None for "default". A pass: its bytes.
    value: Any
    line: int
    source: str

    @property
    def content(self) -> str:
        """All that is ordered but the id and the name, in one unambiguous text."""
        if self.name == PASS:
            return str(self.value)
        if self.name in AMENDABLE:
            return " ".join(shlex.quote("%s=%s" % (target, DEFAULT if value is None
                                                   else "%.9g" % value
                                                   if isinstance(value, float) else value))
                            for target, value in zip(self.targets, self.value))
        return " ".join(map(shlex.quote, self.targets))


class Refused(NamedTuple):
    """One order that cannot be followed, or the file if the line is 0."""

    line: int
    order_id: str  # "" where none could be read
    why: str


class Parsed(NamedTuple):
    """What one file holds, in its order."""

    actions: List[Action]
    refused: List[Refused]


class _Wrong(Exception):
    """Why one order is refused."""


def parse(content: bytes, source: str) -> Parsed:
    """The orders in a file of that name; raises nothing, whatever the content."""
    name = source.lower()
    if len(content) > MOST_BYTES:
        return _whole("it is larger than %d bytes" % MOST_BYTES)
    if name.endswith(CSV_SUFFIXES):
        return _parse_csv(content, source)
    if not name.endswith(YAML_SUFFIXES):
        return _whole("its name must end in .yaml or .csv, to tell what it holds")
    if len(content) > MOST_YAML_BYTES:
        return _whole("as YAML it is too large (%d bytes, at most %d); split it, or write it as CSV"
                      % (len(content), MOST_YAML_BYTES))
    return _parse_yaml(content, source)


def _whole(why: str, line: int = 0) -> Parsed:
    return Parsed([], [Refused(line, "", why)])


# ---- CSV -------------------------------------------------------------------------------------


def _parse_csv(content: bytes, source: str) -> Parsed:
    parsed, first = Parsed([], []), True
    if content.startswith(b"\xef\xbb\xbf"):
        content = content[3:]
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        if len(parsed.actions) + len(parsed.refused) >= MOST_ORDERS:
            parsed.refused.append(Refused(number, "", "from here on nothing is read: a file holds "
                                                      "at most %d orders" % MOST_ORDERS))
            break
        cells = []  # type: List[str]
        try:
            cells = _cells(line)
            if number == len(lines):
                raise _Wrong(_CUT_OFF)
            if not first or tuple(map(str.lower, cells[:2])) != COLUMNS[:2]:
                parsed.actions.append(_from_cells(cells, number, source))
        except _Wrong as wrong:
            parsed.refused.append(Refused(number, _id_or_none(cells[0] if len(cells) > 1 else ""),
                                          str(wrong)))
        first = False
    return parsed


def _cells(line: bytes) -> List[str]:
    """The columns of one line, at most four that hold anything."""
    try:
        # Line by line: a quote that is not closed must not swallow the orders below it.
        cells = [cell.strip() for cell in next(csv.reader(
            [line.decode("utf-8")], strict=True, skipinitialspace=True))]
    except UnicodeDecodeError:
        raise _Wrong("it is no UTF-8 text")
    except csv.Error as error:
        raise _Wrong("its quotes or commas are wrong: %s" % error)
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _from_cells(cells: List[str], line: int, source: str) -> Action:
    if len(cells) < 3:
        raise _Wrong("it needs an id, an action and a target, separated by commas")
    if len(cells) > 4:
        raise _Wrong("it has more than the columns %s; text with a comma in it stands in quotes"
                     % ",".join(COLUMNS))
    order_id, name, target, value = cells + [""] * (4 - len(cells))
    _check_name(name)
    if name == PASS:
        if target and value:
            raise _Wrong("a pass takes one amount of bytes, and no target")
        return _action(order_id, name, [], target or value, line, source)
    if name in AMENDABLE:
        return _action(order_id, name, [target], [value], line, source)
    if value:
        raise _Wrong("%s takes no value, and here is %s" % (name, shown(value)))
    return _action(order_id, name, [target], None, line, source)


# ---- YAML ------------------------------------------------------------------------------------


class _Loader(yaml.BaseLoader):
    """YAML in which everything is text: to YAML itself 00112233 is a number, and no hash.

    Without aliases, of which a few lines can make more than any memory holds.
    """

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, "orders cannot refer to each other with '*'",
                self.peek_event().start_mark)
        return super().compose_node(parent, index)


def _parse_yaml(content: bytes, source: str) -> Parsed:
    try:
        top = yaml.compose(content.decode("utf-8-sig"), Loader=_Loader)
    except UnicodeDecodeError as error:
        return _whole("it is no UTF-8 text", content[:error.start].count(b"\n") + 1)
    except RecursionError:
        return _whole("its brackets are nested too deeply")
    except NOT_YAML as error:
        mark = getattr(error, "problem_mark", None)
        return _whole("its YAML is broken: %s" % one_line(getattr(error, "problem", None) or error),
                      mark.line + 1 if mark else 0)
    if top is None:
        return Parsed([], [])
    if not isinstance(top, yaml.SequenceNode):
        return _whole("it must be a list of orders, each of which begins with '- ', like "
                      "- {id: 42, pin: a1b2c3d4}", top.start_mark.line + 1)
    parsed = Parsed([], [])
    for place, node in enumerate(top.value, 1):
        line = node.start_mark.line + 1
        try:
            if place == len(top.value) and not content.endswith((b"\n", b"\r")):
                raise _Wrong(_CUT_OFF)
            parsed.actions.append(_from_node(node, line, source))
        except _Wrong as wrong:
            parsed.refused.append(Refused(line, _id_in(node), str(wrong)))
    return parsed


def _from_node(node: yaml.Node, line: int, source: str) -> Action:
    if not isinstance(node, yaml.MappingNode):
        raise _Wrong("it must be like {id: 42, pin: a1b2c3d4}")
    entries = _entries(node, "the order")
    names = [name for name in entries if name != "id"]
    for name in names:
        _check_name(name)
    if len(names) != 1 or "id" not in entries:
        raise _Wrong("it needs an id and one action, like {id: 42, pin: a1b2c3d4}; it has %s" % (
            shown(", ".join(entries)) if entries else "nothing"))
    order_id, name, given = _text(entries["id"], "id"), names[0], entries[names[0]]
    if name == PASS:
        return _action(order_id, name, [], _text(given, name), line, source)
    if name in AMENDABLE:
        if not isinstance(given, yaml.MappingNode):
            raise _Wrong("%s must be like %s" % (name, "{a1b2c3d4: 1.0}" if name == "more_like"
                                                 else "{7: 3}" if name == "weight"
                                                 else "{7: layered rock}"))
        held = _entries(given, name)
        return _action(order_id, name, list(held), [
            _text(value, "%s %s" % (name, shown(key))) for key, value in held.items()],
            line, source)
    targets = given.value if isinstance(given, yaml.SequenceNode) else [given]
    return _action(order_id, name, [_text(target, name) for target in targets], None, line, source)


def _entries(node: yaml.MappingNode, where: str) -> Dict[str, yaml.Node]:
    entries = {}  # type: Dict[str, yaml.Node]
    for key_node, value in node.value:
        key = _text(key_node, "a key of " + where)
        if key in entries:
            raise _Wrong("in %s %s stands twice" % (where, shown(key)))
        entries[key] = value
    return entries


def _text(node: yaml.Node, where: str) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise _Wrong("%s must be plain text, no list and no mapping" % where)
    return node.value


def _id_in(node: yaml.Node) -> str:
    """The id of an order that is refused, if it has a proper one."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value == "id" and isinstance(value, yaml.ScalarNode):
            return _id_or_none(value.value)
    return ""


# ---- what both have --------------------------------------------------------------------------


def _action(order_id: str, name: str, targets: List[str], value: Any, line: int, source: str
            ) -> Action:
    if _id_or_none(order_id) != order_id or not order_id:
        raise _Wrong("an id is 1 to 64 printable characters without spaces, not %s"
                     % shown(order_id))
    if name == PASS:
        try:
            return Action(order_id, name, (), bytesize.parse(value, PASS), line, source)
        except UserError as error:
            raise _Wrong(str(error))
    check, read = _RULES[name]
    if not targets:
        raise _Wrong("%s names nothing" % name)
    found = tuple(check(name, target) for target in targets)
    if value is not None:
        value = tuple(None if text == DEFAULT else read(name, text) for text in value)
    return Action(order_id, name, found, value, line, source)


def _check_name(name: str) -> None:
    if name not in ACTIONS:
        raise _Wrong("no action is called %s%s" % (
            shown(name), nearest_name(name, ACTIONS) or "; there are " + ", ".join(ACTIONS)))


def _id_or_none(text: str) -> str:
    return text if _ID.fullmatch(text) and text.isprintable() else ""


def _image(name: str, text: str) -> str:
    why = target_trouble(text)
    if why:
        raise _Wrong("%s: %s" % (name, why))
    return text


def target_trouble(text: str) -> str:
    """Why `text` can name no image, "" if it can."""
    if not text:
        return "a target is empty"
    if len(text) > MOST_TARGET:
        return "a target has more than %d characters" % MOST_TARGET
    # Bytes that are not UTF-8 come from a command line as such characters.
    if not all(letter.isprintable() or "\udc80" <= letter <= "\udcff" for letter in text):
        return "%s holds a control character; name the image by its hash" % ascii(text[:80])
    if text.startswith("pass:") and not _PASS_TARGET.fullmatch(text):
        return "a pass is named like pass:12, not %s" % shown(text)
    return ""


def _one_image(name: str, text: str) -> str:
    if text.startswith("pass:"):
        raise _Wrong("%s needs an image, not a pass" % name)
    return _image(name, text)


def _cluster(name: str, text: str) -> str:
    if not re.fullmatch("[0-9]{1,5}", text, re.ASCII) or int(text) > MOST_CLUSTER:
        raise _Wrong("%s: a cluster is a whole number from 0 to %d, not %s" % (
            name, MOST_CLUSTER, shown(text)))
    return str(int(text))


def _weight(name: str, text: str) -> float:
    if not _NUMBER.fullmatch(text) or float(text) > WEIGHT_MOST:
        raise _Wrong("%s must be a number from 0 to %g, or %s, not %s" % (
            name, WEIGHT_MOST, DEFAULT, shown(text)))
    return float(text)


def _label(name: str, text: str) -> str:
    if not text or len(text) > LABEL_LENGTH or not text.isprintable():
        raise _Wrong("%s must be 1 to %d printable characters, or %s, not %s" % (
            name, LABEL_LENGTH, DEFAULT, shown(text)))
    return text


# For each action what its targets and its values must be.
_RULES = dict(
    {name: (_image, None) for name in MARKS},
    weight=(_cluster, _weight), label=(_cluster, _label), more_like=(_one_image, _weight),
)  # type: Dict[str, Tuple[Callable[[str, str], str], Optional[Callable[[str, str], Any]]]]
