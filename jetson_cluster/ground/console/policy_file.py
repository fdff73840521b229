"""The team's policy.yaml, changed as little as can be: their comments, order and style stay.

In: the text of the file and the policy it should say. Out: the new text, which was read again by
the flight code's own reader and says just that, and the comments that could not be kept, if any.
"""

import io
import os
import re
from collections import Counter
from typing import Any, Callable, Dict, List, NamedTuple, Sequence

import yaml
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from jetson_cluster import policy as policies
from jetson_cluster.errors import UserError
from jetson_cluster.files import sha256_of
from jetson_cluster.ground.console.comments import remove
from jetson_cluster.ground.console.draft import Edits
from jetson_cluster.policy import NAMED, Policy, Target

LONGEST_LINE = 4096  # lines that people wrote long stay so


class Source(NamedTuple):
    """A policy file as it was read."""

    text: str  # "" where there is none
    digest: str  # SHA-256 of the file, hex; "" where there is none
    policy: Policy


class Written(NamedTuple):
    """A policy file as it would be written."""

    text: str
    lost_comments: List[str]
    policy: Policy  # as read again from `text`


def read(path: str) -> Source:
    """Read and check a policy file; one that is not there is empty. Raises UserError."""
    said = policies.load(path)
    if not os.path.lexists(path):
        return Source("", "", said)
    with open(path, encoding="utf-8-sig", newline="") as stream:
        return Source(stream.read(), sha256_of(path), said)


def over(said: Policy, edits: Edits) -> Policy:
    """`said` with the edits over it, as Policy.amended makes it.

    But that an image's wish keeps the name and the prefix the file has for it, and that the label
    "" takes a label away.
    """
    labels, weights, targets = dict(said.labels), dict(said.weights), list(said.targets)
    for (kind, key), value in edits.items():
        if kind == "weight":
            weights[int(key)] = float(value)
        elif kind == "label":
            labels[int(key)] = str(value)
        else:
            meant = [target for target in targets if means(target.like, key)]
            first = meant[0] if meant else Target(key[:NAMED], key[:NAMED], None, 1.0)
            # Another order of targets is another order of reasons: what stays, stays in its place.
            kept = [first._replace(weight=float(value)) if target is first else target
                    for target in (targets if meant else targets + [first])
                    if target is first or target not in meant]
            targets = kept if value else [target for target in kept if target.like != first.like]
    return said._replace(labels=labels, weights=weights, targets=tuple(targets))


def means(like: str, key: str) -> bool:
    """Whether two beginnings of a SHA-256 may be of one image, as Policy.amended has it."""
    return bool(like) and (like.startswith(key) or key.startswith(like))


def meaning(said: Policy) -> Policy:
    """The same in a form in which two policies that say the same are equal."""
    return said._replace(
        labels={cluster: label for cluster, label in said.labels.items() if label},
        weights={cluster: weight for cluster, weight in said.weights.items() if weight != 1},
        targets=tuple((target.like, target.weight, None if target.embedding is None
                       else target.embedding.tobytes()) for target in said.targets))


def write(source: Source, wanted: Policy, scratch: str) -> Written:
    """The text of `source` made to say `wanted`; `scratch` is a file that may be overwritten.

    `wanted` may differ from it in labels, weights, targets, pins and holds. Raises UserError if it
    cannot be said in a policy file at all.
    """
    if meaning(wanted) == meaning(source.policy):
        return Written(source.text, [], source.policy)
    why, ends = "", _line_ends(source.text)
    plain = source._replace(text=source.text.replace("\r\n", "\n"))
    for edit in (_with_comments, _plainly):
        try:
            text = edit(plain, wanted).replace("\n", ends)
            _put(scratch, text)
            found = policies.load(scratch)
        except (YAMLError, yaml.YAMLError, UserError, LookupError, ValueError) as error:
            # What people wrote in YAML is richer than what can be edited in place; the plain way
            # knows no comments, and what it made is checked as well.
            why = " ".join(str(error).split())
            continue
        if meaning(found) == meaning(wanted):
            lost = Counter(comments(source.text)) - Counter(comments(text))
            return Written(text, list(lost.elements()), found)
        why = "read again, it says something else"
    raise UserError(f"the policy cannot be written: {why}")


def _line_ends(text: str) -> str:
    """What most lines end in."""
    return "\r\n" if 2 * text.count("\r\n") > text.count("\n") else "\n"


def comments(text: str) -> List[str]:
    """The comments of YAML text, in their order."""
    spans = [(token.start_mark.index, token.end_mark.index) for token in yaml.scan(text)
             if isinstance(token, yaml.ScalarToken)]
    found, start = [], 0
    for place in (match.start() for match in re.finditer(r"(?:(?<=\s)|^)#", text, re.MULTILINE)):
        if place >= start and not any(low <= place < high for low, high in spans):
            end = text.find("\n", place)
            start = len(text) if end < 0 else end
            found.append(text[place:start].strip())
    return found


def _put(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", newline="") as stream:
        stream.write(text)


# ---- two ways to write -------------------------------------------------------------------------


def _with_comments(source: Source, wanted: Policy) -> str:
    editor = YAML()
    editor.preserve_quotes, editor.width = True, LONGEST_LINE
    offset = _deeper(source.text, "-")
    editor.indent(mapping=_deeper(source.text, "[^ #-]") or 2, sequence=offset + 2, offset=offset)
    top = editor.load(source.text)
    before = ""
    if top is None:  # nothing but comments, which belong to nothing
        top, before = CommentedMap(), source.text
        before += "\n" if before and not before.endswith("\n") else ""
    _edit(top, source.policy, wanted, _flow_map, CommentedSeq, DoubleQuotedScalarString)
    stream = io.StringIO()
    editor.dump(top, stream)
    return before + stream.getvalue()


def _deeper(text: str, first: str) -> int:
    """By how much the first line below a key that begins so stands further in than the key."""
    found = re.search(r"^( *)[^\s#-][^\n#]*:[ \t]*(?:#[^\n]*)?\n(?:[ \t]*(?:#[^\n]*)?\n)*( *)"
                      + first, text, re.MULTILINE)
    return max(0, len(found.group(2)) - len(found.group(1))) if found else 0


def _plainly(source: Source, wanted: Policy) -> str:
    top = _unshared(yaml.safe_load(source.text) or {})
    _edit(top, source.policy, wanted, dict, list, str)
    return yaml.safe_dump(top, sort_keys=False, allow_unicode=True, width=LONGEST_LINE,
                          default_flow_style=None)


def _unshared(value: Any) -> Any:
    """The same without anything that stands in two places, as aliases make it."""
    if isinstance(value, dict):
        return {key: _unshared(held) for key, held in value.items()}
    return [_unshared(held) for held in value] if isinstance(value, list) else value


def _flow_map() -> CommentedMap:
    made = CommentedMap()
    made.fa.set_flow_style()
    return made


def _edit(top: Dict[str, Any], before: Policy, wanted: Policy, mapping: Callable[[], Any],
          sequence: Callable[[], Any], text: Callable[[str], Any]) -> None:
    """Change the file's own mappings and lists to say what is wanted."""
    _edit_clusters(top, before, wanted, mapping, text)
    _edit_targets(top, before, wanted, mapping, sequence, text)
    for name in ("pins", "holds"):
        if getattr(before, name) != getattr(wanted, name):
            _edit_list(_section(top, name, sequence), getattr(wanted, name), text)


def _section(top: Dict[str, Any], name: str, make: Callable[[], Any]) -> Any:
    """The list or mapping under a key; made where there is none, opened up where it is empty."""
    if top.get(name) is None:
        top[name] = make()
    if not top[name] and hasattr(top[name], "fa"):
        top[name].fa.set_block_style()
    return top[name]


def _edit_clusters(top, before: Policy, wanted: Policy, mapping, text) -> None:
    numbers = set(before.labels) | set(before.weights) | set(wanted.labels) | set(wanted.weights)
    for number in sorted(numbers):
        label, weight = wanted.labels.get(number, ""), wanted.weights.get(number, 1.0)
        other_label = label != before.labels.get(number, "")
        other_weight = weight != before.weights.get(number, 1.0)
        if not other_label and not other_weight:
            continue
        clusters = _section(top, "clusters", mapping)
        if clusters.get(number) is None:
            clusters[number] = mapping()
        entry = clusters[number]
        if other_label and label:
            entry["label"] = text(label)
        if other_weight:
            entry["weight"] = _number(weight)
        if other_label and not label:
            remove(*((entry, "label") if len(entry) > 1 else (clusters, number)))


def _edit_targets(top, before: Policy, wanted: Policy, mapping, sequence, text) -> None:
    if meaning(before).targets == meaning(wanted).targets:
        return
    entries = _section(top, "targets", sequence)
    # Place by place, for two may begin alike: what is wanted begins with those that stay.
    left, gone = list(wanted.targets), []
    for place, target in enumerate(before.targets):
        if left and _is_same(left[0], target):
            weight = left.pop(0).weight
            if weight != target.weight:
                entries[place]["weight"] = _number(weight)
        else:
            gone.append(place)
    for place in reversed(gone):
        remove(entries, place)
    for target in left:
        entry = mapping()
        entry["like"], entry["weight"] = text(target.like), _number(target.weight)
        entries.append(entry)


def _is_same(one: Target, other: Target) -> bool:
    return (one.name, one.like) == (other.name, other.like) and (
        one.embedding is other.embedding or one.embedding is not None
        and other.embedding is not None and one.embedding.tobytes() == other.embedding.tobytes())


def _edit_list(entries: Any, wanted: Sequence[str], text) -> None:
    for place in reversed(range(len(entries))):
        if str(entries[place]).lower() not in wanted:
            remove(entries, place)
    there = [str(entry).lower() for entry in entries]
    for place, prefix in enumerate(wanted):
        if prefix not in there:
            entries.insert(place, text(prefix))
    if [str(entry).lower() for entry in entries] != list(wanted):  # another order
        entries[:] = [text(prefix) for prefix in wanted]


def _number(value: float) -> Any:
    return int(value) if value == int(value) else value
