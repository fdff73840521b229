"""What the rover goes by, as far as the ground can know, and what the team's policy file adds.

In: the catalog that came down, the policy file, the order file written last. Out: a `Standing`: the
policy in force on board, and where the team's draft begins. The catalog names the policy file that
the rover has by its SHA-256; the console keeps a copy of the last one that it knew to be that file,
and one of what it saved last: where the team's file says something else, somebody edited it, and
the file has the last word.
"""

import os
from typing import Dict, List, NamedTuple, Tuple

from jetson_cluster.catalog import Catalog
from jetson_cluster.files import sha256_of
from jetson_cluster.ground.console import orders, paths, policy_file
from jetson_cluster.ground.console.orders import Asked, Last
from jetson_cluster.ground.console.policy_file import Source
from jetson_cluster.policy import EMPTY, NAMED, Policy

KEPT, SAVED = ".rover", ".saved"  # what the copies' names end in
TOLD_MOST = 5  # differences that a note names

Key = Tuple[str, str]  # as the catalog's amendments: ("weight", "7")


class Standing(NamedTuple):
    """Where the rover stands, and the team."""

    aboard: Policy  # the policy file that the rover has
    now: Policy  # the same with what orders amended of it: what is in force there
    begin: Policy  # the team's own file with those amendments and the pending orders over it
    # Where the file says what this one says, orders fill in; elsewhere the file was edited since.
    base: Policy
    asked: Dict[str, Asked]  # what pending orders ask of images
    notes: Tuple[str, ...]  # what the team should know of it


def stand(catalog: Catalog, path: str, source: Source, last: Last) -> Standing:
    """Work it out. Raises UserError if a kept copy is no policy."""
    notes: List[str] = []
    amended = catalog.amendments()
    aboard, base = _aboard(catalog, path, source, notes)
    if os.path.isfile(path + SAVED):
        base = policy_file.read(path + SAVED).policy
    pending, asked = orders.spoken_of(last, lambda target: find(catalog, target))
    if last.pending:
        notes.append(f"{len(last.pending)} orders of the order file written last are not in this "
                     "catalog's account yet; the draft begins with them")
    plain = {key: said(aboard, key) if value is None else value for key, value in pending.items()}
    # The amendments to a file are later than the file; another one would take their place.
    later = catalog.meta("amended_policy") == source.digest
    ordered = {**(amended if later else _unedited(amended, source.policy, base)),
               **_unedited(plain, source.policy, base)}
    begin = policy_file.over(source.policy, ordered)
    both = {**amended, **plain}
    notes += _told("orders say otherwise than the policy file, and the draft begins with",
                   begin, source.policy, ordered)
    notes += _told("the policy file was edited since the orders, and the draft begins with its",
                   begin, policy_file.over(begin, both), [key for key in both
                                                          if key not in ordered])
    return Standing(aboard, aboard.amended(amended), begin, base, asked, tuple(notes))


def said(policy: Policy, key: Key) -> object:
    """What a policy says of a cluster or of likeness to an image."""
    kind, name = key
    if kind == "label":
        return policy.labels.get(int(name), "")
    if kind == "weight":
        return policy.weights.get(int(name), 1.0)
    return next((target.weight for target in policy.targets
                 if policy_file.means(target.like, name)), 0.0)


def _unedited(values: Dict[Key, object], file: Policy, base: Policy) -> Dict[Key, object]:
    return {key: value for key, value in values.items() if said(file, key) == said(base, key)}


def _told(words: str, draft: Policy, other: Policy, keys) -> List[str]:
    found = [f"{kind} {name[:NAMED]}: {_shown(draft, (kind, name))} (not "
             f"{_shown(other, (kind, name))})" for kind, name in sorted(keys)
             if said(draft, (kind, name)) != said(other, (kind, name))]
    more = [f"{len(found) - TOLD_MOST} more"] if len(found) > TOLD_MOST else []
    return [f"{words} {', '.join(found[:TOLD_MOST] + more)}"] if found else []


def _shown(policy: Policy, key: Key) -> str:
    value = said(policy, key)
    return "%g" % value if isinstance(value, float) else str(value) or "none"


def changes(before: Policy, after: Policy) -> str:
    """In a few words what another policy file says otherwise."""
    keys = {("weight", str(number)) for one in (before, after) for number in one.weights}
    keys |= {("label", str(number)) for one in (before, after) for number in one.labels}
    keys |= {("more_like", target.like) for one in (before, after) for target in one.targets
             if target.like}
    plain = [name for name in Policy._fields if name not in ("labels", "weights", "targets")
             and getattr(before, name) != getattr(after, name)]
    return "; ".join(_told("it says now", after, before, keys)
                     + [f"other {name}" for name in plain]) or "it says the same as before"


def _aboard(catalog: Catalog, path: str, source: Source, notes: List[str]) -> Tuple[Policy, Policy]:
    """(the policy file aboard, the one to compare the team's own with)."""
    digest = catalog.meta("amended_policy")
    if digest == source.digest and digest:
        return source.policy, source.policy
    if digest == "":
        notes.append("the rover has no policy file; all that this one says is new to it")
        return EMPTY, EMPTY
    kept = path + KEPT
    if digest and os.path.isfile(kept) and sha256_of(kept) == digest:
        notes.append(f"the rover still goes by the policy file kept as {kept}")
        aboard = policy_file.read(kept).policy
        return aboard, aboard
    if digest is not None:
        notes.append(f"the rover goes by another policy file, of SHA-256 {digest[:12]}, which is "
                     "not here: \"now\" shows this one as if the rover had it")
    return source.policy, EMPTY


def keep(catalog: Catalog, path: str) -> None:
    """Before the policy file is replaced: keep it if it is the one that the rover has."""
    if os.path.isfile(path) and sha256_of(path) == catalog.meta("amended_policy"):
        with open(path, "rb") as stream:
            paths.replace(path + KEPT, stream.read(), path)


def remember(path: str, text: str) -> None:
    """Keep what was saved, so that what is edited by hand later can be told from it."""
    paths.replace(path + SAVED, text.encode("utf-8"), path)


def find(catalog: Catalog, target: str) -> str:
    """The SHA-256 of the one image that `target` means, "" if it means none or several."""
    images = catalog.find(target)
    return catalog.rows(images)[images[0]].sha256 if len(images) == 1 else ""
