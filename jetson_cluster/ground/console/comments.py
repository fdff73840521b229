"""Taking an entry out of a YAML file without the comments that stand below it.

In: a mapping or a list as ruamel.yaml read it, and a key or a place in it. Out: the same without
that entry; its own comment goes with it, at the end of its line, and those in the lines below stay,
for they speak of what follows. ruamel.yaml keeps both as one text with the last value before them.
"""

from typing import Any, List, Optional, Tuple

from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark
from ruamel.yaml.tokens import CommentToken


def remove(held: Any, key: Any) -> None:
    """Delete held[key]."""
    below = _below(held, key)
    keys = list(held) if isinstance(held, dict) else list(range(len(held)))
    place = keys.index(key)
    if below and place:
        _add_below(held, keys[place - 1], below)
    elif below and len(keys) > 1:
        _add_above(held, keys[1], below)
    if isinstance(held, CommentedMap):  # a list does so itself
        held.ca.items.pop(key, None)
    del held[key]


def _last(held: Any, key: Any) -> Tuple[Any, Any]:
    """Where ruamel.yaml keeps what stands below held[key]: the last entry within it."""
    value = held[key]
    if not isinstance(value, (CommentedMap, CommentedSeq)) or value.fa.flow_style() or not value:
        return held, key
    return _last(value, list(value)[-1] if isinstance(value, dict) else len(value) - 1)


def _token_place(held: Any) -> int:
    return 2 if isinstance(held, dict) else 0


def _token(held: Any, key: Any) -> Optional[CommentToken]:
    tokens = held.ca.items.get(key)
    return tokens[_token_place(held)] if tokens else None


def _below(held: Any, key: Any) -> str:
    """The lines of comments below an entry; "" if there are none."""
    if not isinstance(held, (CommentedMap, CommentedSeq)):
        return ""
    token = _token(*_last(held, key))
    _, _, below = token.value.partition("\n") if token else ("", "", "")
    return below if below.strip() else ""


def _add_below(held: Any, key: Any, lines: str) -> None:
    held, key = _last(held, key)
    token = _token(held, key)
    if token is None:
        tokens: List[Any] = held.ca.items.setdefault(key, [None] * 4)
        tokens[_token_place(held)] = CommentToken("\n" + lines, CommentMark(0), None)
    else:
        token.value = token.value.rstrip("\n") + "\n" + lines


def _add_above(held: Any, key: Any, lines: str) -> None:
    tokens: List[Any] = held.ca.items.setdefault(key, [None] * 4)
    indent = len(lines) - len(lines.lstrip(" "))
    tokens[1] = [CommentToken(line.strip() + "\n", CommentMark(indent), None)
                 for line in lines.splitlines() if line.strip()] + (tokens[1] or [])
