"""What the operations team wants, as a small file it can uplink.

In: `policy.yaml`, and what orders amended of it since. Out: a checked `Policy`. The daemon reads the
file again when it changes; a bad one is reported and the last good one stays.
"""

import base64
import binascii
import os
import re
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

import numpy as np

from jetson_cluster import quality
from jetson_cluster.checking import Checker, shown
from jetson_cluster.errors import UserError
from jetson_cluster.quality import Thresholds

WEIGHT_MOST = 1000.0
PREVIEWS = ("none", "first")
PASS_BY = ("score", "score_per_byte")
PREFIX = re.compile(r"^[0-9a-f]{6,64}$")
AMENDABLE = ("weight", "label", "more_like")
LABEL_LENGTH = 80
NAMED = 12  # so many hex digits of a SHA-256 name an image to people


class Target(NamedTuple):
    """Something the scientists want more of."""

    name: str  # how reasons speak of it
    like: str  # SHA-256 of an image in the catalog, or how it begins; "" if `embedding` is given
    embedding: Optional[np.ndarray]  # float32 [D]
    weight: float


class Diversity(NamedTuple):
    """How much those of one kind stand in one another's way."""

    discount: float = 0.5  # what one image of just this kind ahead multiplies the score by
    half_life_passes: float = 5.0  # those sent count likewise, half as much after so many passes
    near_duplicate: float = 0.25  # for an image one of whose near-duplicates is ahead or was sent


class Ageing(NamedTuple):
    """How the oldest come to their turn although better ones keep coming."""

    after_passes: int = 10  # an image that was left behind so often is old
    one_place_in: int = 20  # the share of places that goes to the oldest; 0: none


class Policy(NamedTuple):
    """Labels and weights by cluster number; an absent cluster has no label and weight 1."""

    labels: Dict[int, str]
    weights: Dict[int, float]
    explore: float = 0.6  # novelty's share of the interest; representative has the rest
    signature: float = 1.0  # what full likeness to a target adds to the interest
    targets: Tuple[Target, ...] = ()
    diversity: Diversity = Diversity()
    ageing: Ageing = Ageing()
    quality: Thresholds = Thresholds()
    previews: str = "none"  # "first": a pass sends the previews of everything new first
    pass_by: str = "score"  # or "score_per_byte"
    pins: Tuple[str, ...] = ()  # SHA-256, or how they begin, of images that come first
    holds: Tuple[str, ...] = ()  # of images that are left out

    def weights_of(self, clusters: int) -> np.ndarray:
        """float64 [clusters]: the weight of each cluster."""
        return np.array([self.weights.get(cluster, 1.0) for cluster in range(clusters)])

    def unknown_clusters(self, clusters: int) -> list:
        """Numbers that the policy speaks of but a codebook of so many clusters does not have."""
        return sorted(number for number in set(self.labels) | set(self.weights)
                      if number >= clusters)

    def amended(self, amendments: Mapping[Tuple[str, str], Any]) -> "Policy":
        """This policy with what orders changed: {("weight", "7"): 3.0, ("label", "7"): "rock",
        ("more_like", "a1b2c3d4"): 1.0}."""
        labels, weights = dict(self.labels), dict(self.weights)
        targets = list(self.targets)
        for (kind, key), value in sorted(amendments.items()):
            if kind == "weight":
                weights[int(key)] = float(value)
            elif kind == "label":
                labels[int(key)] = str(value)
            else:  # instead of what is said of this image, by its whole SHA-256 or how it begins
                targets = [target for target in targets
                           if not (target.like and (target.like.startswith(key)
                                                    or key.startswith(target.like)))]
                if float(value) > 0:
                    targets.append(Target(key[:NAMED], key, None, float(value)))
        return self._replace(labels=labels, weights=weights, targets=tuple(targets))


EMPTY = Policy({}, {})
KEYS = ("clusters", "explore", "signature", "targets", "diversity", "ageing", "quality", "previews",
        "pass_by", "pins", "holds")


def load(path: str) -> Policy:
    """Read and check a policy; a file that is not there is an empty policy. Raises UserError."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return EMPTY
    except OSError as error:
        raise UserError("policy %s: cannot be read: %s" % (path, error.strerror or error))
    checker = Checker("policy", path)
    content = checker.read()
    top = checker.mapping({} if content is None else content, "", KEYS)
    labels, weights = _clusters(checker, top.get("clusters"))
    policy = Policy(
        labels, weights,
        explore=_number(checker, top, "explore", "", EMPTY.explore, 0, 1),
        signature=_number(checker, top, "signature", "", EMPTY.signature, 0, WEIGHT_MOST),
        targets=_targets(checker, top.get("targets")),
        diversity=_diversity(checker, _section(checker, top, "diversity", Diversity._fields)),
        ageing=_ageing(checker, _section(checker, top, "ageing", Ageing._fields)),
        quality=_quality(checker, _section(checker, top, "quality", Thresholds._fields)),
        previews=checker.text(top.get("previews"), "previews", PREVIEWS) or EMPTY.previews,
        pass_by=checker.text(top.get("pass_by"), "pass_by", PASS_BY) or EMPTY.pass_by,
        pins=_prefixes(checker, top.get("pins"), "pins"),
        holds=_prefixes(checker, top.get("holds"), "holds"))
    checker.finish()
    return policy


def _section(checker: Checker, top: dict, name: str, keys) -> dict:
    return {} if top.get(name) is None else checker.mapping(top[name], name, tuple(keys))


def _number(checker: Checker, held: dict, key: str, section: str, default: float,
            low: float, high: float) -> float:
    value = default if held.get(key) is None else held[key]
    return checker.number(value, section + "." + key if section else key, low, high)


def _clusters(checker: Checker, clusters: Any) -> Tuple[Dict[int, str], Dict[int, float]]:
    labels, weights = {}, {}
    if clusters is not None and not isinstance(clusters, dict):
        checker.wrong("'clusters' must map cluster numbers to {label, weight}")
        clusters = None
    for number, entry in (clusters or {}).items():
        where = "clusters.%s" % number
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            checker.wrong("'%s': a cluster is a whole number from 0" % where)
            continue
        entry = checker.mapping(entry, where, ("label", "weight"))
        if entry.get("label") is not None:
            labels[number] = label(checker, entry["label"], where + ".label")
        if entry.get("weight") is not None:
            weights[number] = checker.number(entry["weight"], where + ".weight", 0, WEIGHT_MOST)
    return labels, weights


def label(checker: Checker, value: Any, where: str) -> str:
    """A cluster's or a target's name as people read it."""
    text = checker.text(value, where)
    if len(text) > LABEL_LENGTH or not text.isprintable():
        checker.wrong("'%s' must be at most %d printable characters" % (where, LABEL_LENGTH))
    return text


def _diversity(checker: Checker, held: dict) -> Diversity:
    default = Diversity()
    return Diversity(
        # A discount of 0 would leave no order among those of which one is ahead.
        _number(checker, held, "discount", "diversity", default.discount, 0.01, 1),
        _number(checker, held, "half_life_passes", "diversity", default.half_life_passes, 0.1, 1000),
        _number(checker, held, "near_duplicate", "diversity", default.near_duplicate, 0.01, 1))


def _ageing(checker: Checker, held: dict) -> Ageing:
    def whole(key: str, default: int, low: int) -> int:
        value = default if held.get(key) is None else held[key]
        return checker.whole(value, "ageing." + key, low, 1000000)

    default = Ageing()
    ageing = Ageing(whole("after_passes", default.after_passes, 1),
                    whole("one_place_in", default.one_place_in, 0))
    if ageing.one_place_in == 1:
        checker.wrong("'ageing.one_place_in' is 1, which leaves no place to any but the oldest; "
                      "use 0 for none or at least 2")
    return ageing


def _quality(checker: Checker, held: dict) -> Thresholds:
    default = Thresholds()
    thresholds = Thresholds(*(
        _number(checker, held, name, "quality", getattr(default, name), *quality.LIMITS[name])
        for name in Thresholds._fields))
    if not checker.mistakes:
        for mistake in quality.disorder(thresholds):
            checker.wrong("'quality': " + mistake)
    return thresholds


def _targets(checker: Checker, entries: Any) -> Tuple[Target, ...]:
    if entries is not None and not isinstance(entries, list):
        checker.wrong("'targets' must be a list of {name, like or embedding, weight}")
        entries = None
    targets = []
    for place, entry in enumerate(entries or []):
        where = "targets[%d]" % place
        known = checker.mapping(entry, where, ("name", "like", "embedding", "weight"))
        if known is not entry:
            continue  # it was no mapping, and that was said
        like, coded = entry.get("like"), entry.get("embedding")
        if (like is None) == (coded is None):
            checker.wrong("'%s' must have either 'like', the SHA-256 of an image or how it begins, or "
                          "'embedding'" % where)
            continue
        prefix = _prefix(checker, like, where + ".like") if like is not None else ""
        name = label(checker, entry["name"], where + ".name") if entry.get("name") is not None \
            else prefix or "target %d" % (place + 1)
        targets.append(Target(
            name, prefix, None if coded is None else _embedding(checker, coded, where),
            1.0 if entry.get("weight") is None
            else checker.number(entry["weight"], where + ".weight", 0, WEIGHT_MOST)))
    return tuple(targets)


def _embedding(checker: Checker, coded: Any, where: str) -> Optional[np.ndarray]:
    """Numbers in base64, "int8:..." or "float16:..."; int8 takes half the bytes and is enough."""
    kind, colon, text = str(coded).partition(":")
    try:
        raw = base64.b64decode("".join(text.split()).encode("ascii"), validate=True)
        vector = np.frombuffer(raw, {"int8": "i1", "float16": "<f2"}[kind]).astype(np.float32)
        if not len(vector) or not np.isfinite(vector).all() or not vector.any():
            raise ValueError
        return vector
    except (KeyError, ValueError, binascii.Error, UnicodeEncodeError):
        checker.wrong("'%s.embedding' must be 'int8:' or 'float16:' and the numbers in base64, not all "
                      "of them 0; it is %s" % (where, shown(coded)))
        return None


def _prefixes(checker: Checker, entries: Any, where: str) -> Tuple[str, ...]:
    if entries is not None and not isinstance(entries, list):
        checker.wrong("'%s' must be a list of SHA-256s, or how they begin" % where)
        entries = None
    return tuple(_prefix(checker, entry, "%s[%d]" % (where, place))
                 for place, entry in enumerate(entries or []))


def _prefix(checker: Checker, value: Any, where: str) -> str:
    # YAML takes 123456 for a number, and 0123456 for another one.
    text = value.lower() if isinstance(value, str) else ""
    if not PREFIX.match(text):
        checker.wrong("'%s' must be 6 to 64 hex digits of a SHA-256, in quotes where they look like "
                      "a number; it is %s" % (where, shown(value)))
        return ""
    return text
