"""Reads YAML that people wrote and gathers every mistake in it instead of stopping at the first.

In: a file and what kind of file it is. Out: checked values, or one UserError that names file, keys,
what is wrong and what would be right. Used by recipe, config and policy.
"""

import difflib
import re
import reprlib
from typing import Any, Dict, List, Sequence, Tuple

import yaml

from jetson_cluster.errors import UserError

_NAME_PATTERN = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
# A number to everybody, but text to YAML 1.1, which wants 1.0e+3.
_EXPONENT_PATTERN = re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
_WITH_UNIT_PATTERN = re.compile(r"^[0-9.]+ ?[A-Za-z]+$")
_MERGE_TAG = "tag:yaml.org,2002:merge"
# What safe_load raises: besides its own errors those of int(), date() and the like for a scalar
# that looks like a number or a date and is none (2024-13-45).
NOT_YAML = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError)


class _Loader(yaml.SafeLoader):
    """YAML's safe subset; a key that stands twice is a mistake, of which YAML would drop one."""

    def construct_mapping(self, node, deep=False):
        written = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                # As they are read, so that 1 and 0x1 are one; "<<" is read as nothing by itself.
                meant = _MERGE_TAG if key.tag == _MERGE_TAG else self.construct_object(key)
                if meant in written:
                    raise yaml.constructor.ConstructorError(
                        None, None, "the key '%s' stands there twice%s" % (
                            key.value, "" if written[meant] == key.value
                            else ", first as '%s'" % written[meant]), key.start_mark)
                written[meant] = key.value
        return super().construct_mapping(node, deep)


KEYS_SHOWN = 3  # of a file of which none is known
_SHORTENED = reprlib.Repr()
_SHORTENED.maxstring = _SHORTENED.maxother = 80


class Checker:
    """One reading of one file. Each method returns a usable value even after a mistake."""

    def __init__(self, kind: str, path: str):
        self.kind = kind  # "recipe", "config", "policy": how messages begin
        self.path = path
        self.mistakes = []  # type: List[str]

    def read(self) -> Any:
        """The file's YAML; raises UserError if it cannot be read or is none."""
        try:
            with open(self.path, encoding="utf-8") as stream:
                return yaml.load(stream, _Loader)
        except OSError as error:
            raise UserError("%s %s: cannot be read: %s" % (
                self.kind, self.path, error.strerror or error))
        except NOT_YAML as error:
            raise UserError("%s %s: not valid YAML: %s" % (
                self.kind, self.path, one_line(error)))

    def finish(self) -> None:
        """Raise UserError if anything was wrong."""
        if self.mistakes:
            count = len(self.mistakes)
            raise UserError("%s %s: %s%s" % (
                self.kind, self.path, "%d mistakes: " % count if count > 1 else "",
                one_line("; ".join(self.mistakes))))

    def wrong(self, message: str) -> None:
        self.mistakes.append(message)

    def mapping(self, value: Any, where: str, known: Sequence[str],
                required: Sequence[str] = ()) -> Dict[str, Any]:
        """A mapping at the dotted key `where` ("" is the whole file)."""
        if not isinstance(value, dict):
            self.wrong("%s must be a mapping with the keys %s" % (
                "'%s'" % where if where else "the " + self.kind, ", ".join(known)))
            return {}
        prefix = where + "." if where else ""
        unknown = [(key, nearest_name(str(key), known)) for key in value if key not in known]
        unlike = [key for key, meant in unknown if not meant]
        all_known = "; known: " + ", ".join(known)
        if not where and len(unknown) == len(value) > 1 and 2 * len(unlike) > len(unknown):
            self.wrong("none of its %d keys is known (%s%s); is this another file?%s" % (
                len(unknown), ", ".join("'%s'" % key for key, _ in unknown[:KEYS_SHOWN]),
                ", ..." * (len(unknown) > KEYS_SHOWN), all_known[1:]))
            return {}
        for key, meant in unknown:  # those that are known are named once
            self.wrong("unknown key '%s%s'%s" % (
                prefix, key, meant or (all_known if key == unlike[-1] else "")))
        for key in required:
            if value.get(key) is None:
                self.wrong("key '%s%s' is missing" % (prefix, key))
        return value

    def text(self, value: Any, where: str, choices: Sequence[str] = ()) -> str:
        """Text that is not empty, one of `choices` if there are any; "" for None."""
        if value is None:
            return ""
        if not isinstance(value, str) or not value:
            self.wrong("'%s' must be text, not %s" % (where, shown(value)))
            return ""
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            self.wrong("'%s' holds a character that no text has: %s" % (where, ascii(value)))
            return ""
        if choices and value not in choices:
            self.wrong("'%s' must be one of %s, not '%s'%s" % (
                where, ", ".join(choices), value, nearest_name(value, choices)))
        return value

    def identifier(self, value: Any, where: str) -> str:
        """Text that can stand in a file name."""
        text = self.text(value, where)
        if text and not _NAME_PATTERN.match(text):
            self.wrong("'%s' must be letters, digits, '_', '.' or '-', not '%s'" % (where, text))
        return text

    def yes_or_no(self, value: Any, where: str) -> bool:
        """true or false; False for None."""
        if value is not None and not isinstance(value, bool):
            self.wrong("'%s' must be true or false, not %s" % (where, shown(value)))
        return value is True

    def whole(self, value: Any, where: str, low: int, high: int) -> int:
        """A whole number; `low` for None."""
        if value is None:
            return low
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.wrong("'%s' must be a whole number from %d to %d, not %s" % (
                where, low, high, shown(value)))
            return low
        return value

    def count_of_bytes(self, value: Any, where: str, low: int, high: int) -> int:
        """A whole number of bytes; `low` for None."""
        if isinstance(value, str) and _WITH_UNIT_PATTERN.match(value):
            self.wrong("'%s' must be a whole number of bytes, without a unit (60000 for 60kB), not "
                       "%s" % (where, shown(value)))
            return low
        return self.whole(value, where, low, high)

    def number(self, value: Any, where: str, low: float, high: float) -> float:
        """A number, also one like 1e3; `low` for None."""
        if value is None:
            return low
        value = _from_exponent(value)
        # NaN fails every comparison, and so the range.
        if (isinstance(value, bool) or not isinstance(value, (int, float))
                or not low <= value <= high):
            self.wrong("'%s' must be a number from %g to %g, not %s" % (
                where, low, high, shown(value)))
            return low
        return float(value)

    def triple(self, value: Any, where: str, positive: bool) -> Tuple[float, float, float]:
        """Three numbers in 0..255 pixel units, one a channel; ones for None."""
        if value is None:
            return (1.0, 1.0, 1.0)
        value = [_from_exponent(v) for v in value] if isinstance(value, list) else value
        fine = isinstance(value, list) and len(value) == 3 and all(
            isinstance(v, (int, float)) and not isinstance(v, bool)
            and abs(v) <= 1e6 and (v > 0 or not positive) for v in value)
        if not fine:
            self.wrong("'%s' must be three %snumbers [R, G, B] in 0..255 pixel units, not %s" % (
                where, "positive " if positive else "", shown(value)))
            return (1.0, 1.0, 1.0)
        return (float(value[0]), float(value[1]), float(value[2]))


def _from_exponent(value: Any) -> Any:
    """The number where `value` is text like "1e3", else `value`."""
    if isinstance(value, str) and _EXPONENT_PATTERN.match(value):
        return float(value)
    return value


def one_line(thing: Any) -> str:
    """What `thing` says, on one line."""
    return " ".join(str(thing).split())


def shown(value: Any) -> str:
    """A value as a message shows it, cut short where it is long."""
    return _SHORTENED.repr(value)


def nearest_name(name: str, known: Sequence[str]) -> str:
    """"; did you mean 'x'?" for the known name nearest to `name`, or ""."""
    near = difflib.get_close_matches(name, known, n=1)
    return "; did you mean '%s'?" % near[0] if near else ""
