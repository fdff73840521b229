"""Everything that goes wrong is told under a name of its own, which systemd/README.md explains."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FLIGHT = [path for path in sorted((ROOT / "jetson_cluster").rglob("*.py"))
          if "ground" not in path.relative_to(ROOT).parts]
BY_LEVEL = {"HeatLevelChanged"}  # a warning or not, as it gets hot or cool
LEVELS = ("warning", "error", "critical")
# Messages that begin with what another place made, and the events that it makes.
ELSEWHERE = {
    ("uplinked.py", "%sRefused: going on with the last good one, %s"):
        ("CodebookRefused", "PolicyRefused"),
    ("uplinked.py", "%s"): ("CodebookAbsent", "PolicyAbsent"),
    ("uplinked.py", "%sRefused: %s"): ("CodebookRefused", "PolicyRefused"),
    ("uplinked.py", "%sUnreadable: %s: %s"): ("CodebookUnreadable", "PolicyUnreadable"),
    ("health.py", "%s"): ("StatusNotWritten",),
    ("drop_folder.py", "%s; trying again"): ("OrdersNotFollowed",),
}


def warnings_of(path):
    """(line, format) of every warning and error a module logs."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) \
                and isinstance(node.func.value, ast.Name) and node.func.value.id == "log" \
                and node.func.attr in LEVELS:
            message = node.args[0]
            while isinstance(message, ast.BinOp):
                message = message.left
            yield node.lineno, ast.literal_eval(message)


def events_of(path, message):
    named = re.match(r"([A-Z][a-z]+(?:[A-Z][A-Za-z]+)+): ", message)
    return (named.group(1),) if named else ELSEWHERE.get((path.name, message), ())


@pytest.mark.parametrize("path", FLIGHT, ids=lambda path: path.name)
def test_every_warning_begins_with_an_event_named_by_fact(path):
    nameless = [(line, message) for line, message in warnings_of(path)
                if not events_of(path, message)]
    assert not nameless


def test_every_event_is_explained_and_no_other():
    page = (ROOT / "systemd" / "README.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`([A-Z][a-z]+[A-Z][A-Za-z]+)`", page))
    events = {event for path in FLIGHT for _, message in warnings_of(path)
              for event in events_of(path, message)} | BY_LEVEL
    assert len(events) > 50
    assert (events - told, told - events) == (set(), set())
