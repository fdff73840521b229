"""Why one image stands where it does, with the whole arithmetic: for `jetson-cluster explain`.

In: everything known of the image, the policy, the terms of the order and its place in it. Out:
lines for people and the same numbers for programs. The factors multiply to the score in the queue
file.

    facts = gather(catalog, image, policy, targets, clustered)
    explanation = explain(facts, policy, head.terms(policy), ranked, rank)
"""

import math
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from jetson_cluster import provisional, quality, scoring
from jetson_cluster.ledger import GROUND
from jetson_cluster.policy import Policy
from jetson_cluster.quality import Measures, Verdict
from jetson_cluster.ranking import AGED, FAR, FLOOR, NEAREST, PIN, Ranked, Terms, names_of
from jetson_cluster.records import Row
from jetson_cluster.schema import (
    ACKED, DELETED, DROPPED, HELD, MISSING, QUEUED, SENT, WAITING)
from jetson_cluster.scoring import Resemblance, Targets

IN_WORDS = {
    QUEUED: "queued", WAITING: "waits to be embedded", HELD: "held by operations, left out of the "
    "queue", MISSING: "missing: its file is gone", SENT: "sent in pass %d, not acknowledged yet",
    ACKED: "on the ground, acknowledged",
    DELETED: "on the ground, acknowledged; its file was deleted",
    DROPPED: "its file was deleted to make room, and the ground never acknowledged it"}
SLOTS = {"": "by its score", PIN: "pinned", FAR: "a place kept for images unlike the whole archive",
         AGED: "a place kept for the images that have waited longest"}
TWINS_SHOWN = 5
SHARE_SHOWN = 0.005


class Facts(NamedTuple):
    """What is known of one image, and of what its place depends on."""

    row: Row
    clustered: bool  # placed by a codebook; else by provisional groups
    verdict: Verdict  # on its pixels, by the policy
    resemblance: Optional[Resemblance]  # to the target it is most like
    unresolved: Tuple[str, ...]  # targets that count nothing, and why
    twins: Tuple[Row, ...]  # its near-duplicates


class Explanation(NamedTuple):
    """The same for people and for programs."""

    lines: List[str]
    numbers: Dict[str, Any]  # fit for JSON


def gather(catalog, image: int, policy: Policy, targets: Targets, clustered: bool) -> Facts:
    """Read what is known of an image in the catalog."""
    row = catalog.rows([image])[image]
    verdict, resemblance = Verdict(1.0, ""), None
    if row.measures is not None:
        verdict = quality.judge(row.measures, policy.quality)
    if row.cluster is not None and targets.names:
        resemblance = scoring.resemblances(catalog.embeddings_of([image]), targets)[0]
    twins = catalog.rows(catalog.twins_of(image))
    return Facts(row, clustered, verdict, resemblance, targets.unresolved,
                 tuple(twins[number] for number in sorted(twins)))


def explain(facts: Facts, policy: Policy, terms: Terms, ranked: Optional[Ranked],
            rank: Optional[int] = None) -> Explanation:
    """The arithmetic of an image's place, `rank` counted from 1; both None where it has none."""
    row = facts.row
    lines = ["%s  %s" % (row.path, row.sha256), _standing(facts, terms, ranked, rank)]
    numbers = {
        "image": row.image, "sha256": row.sha256, "path": row.path, "bytes": row.bytes,
        "state": row.state, "pass": row.sent_in, "preview_pass": row.preview_sent_in,
        "pinned": row.pinned is not None or row.image in terms.pins,
        "held": row.state == HELD or row.image in terms.held,
        "rank": rank, "slot": ranked.slot if ranked else None,
        "score": ranked.score if ranked else None}  # type: Dict[str, Any]
    # While images are placed anew it may still have a place in a larger codebook than there is.
    if row.cluster is None or row.soft_index.max() >= len(terms.weights):
        lines.append("it has no place among the clusters yet, so there is nothing to score it by")
        return Explanation(lines, numbers)
    factors = _factors(facts, policy, terms, ranked)
    numbers["factors"] = {factor.name: factor.value for factor in factors}
    numbers["interest"] = _interest(facts, policy)
    numbers["kin"] = _kin(facts, policy, terms, ranked)
    numbers["quality"] = dict(
        (row.measures or Measures(*[None] * len(Measures._fields)))._asdict(),
        factor=row.quality, reason=facts.verdict.reason)
    numbers["near_duplicates"] = [
        {"image": twin.image, "sha256": twin.sha256, "path": twin.path, "state": twin.state}
        for twin in facts.twins]
    product = "score %.4g" % ranked.score if ranked else "%.4g before diversity" % _product(factors)
    lines.append("%s, the product of" % product)
    for factor in factors:
        lines.append(("  %-15s %-12s %s" % (factor.name.replace("_", "-"), "%.6g" % factor.value,
                                           factor.words)).rstrip())
        if factor.name == "interest":
            lines += _interest_in_lines(facts, policy, numbers["interest"])
    lines += _kin_in_lines(numbers["kin"], ranked)
    if facts.twins:
        lines.append("near-duplicates: %s" % ", ".join(
            "%s (%s)" % (twin.path, twin.state) for twin in facts.twins[:TWINS_SHOWN])
            + (" and %d more" % (len(facts.twins) - TWINS_SHOWN)
               if len(facts.twins) > TWINS_SHOWN else ""))
    lines += ["target that counts nothing: " + why for why in facts.unresolved]
    return Explanation(lines, numbers)


def _standing(facts: Facts, terms: Terms, ranked: Optional[Ranked], rank: Optional[int]) -> str:
    row = facts.row
    words = IN_WORDS[row.state]
    if row.state == SENT:
        words %= row.sent_in
    if row.state == QUEUED and ranked:
        words = "rank %d of the queue, %s" % (rank, SLOTS[ranked.slot])
    elif row.state == QUEUED and row.image in terms.held:
        words = "held by the policy, left out of the queue"
    elif row.state == QUEUED:
        words = "queued, further back than was looked"
    return words


# ---- the factors ---------------------------------------------------------------------------------


class _Factor(NamedTuple):
    name: str
    value: float
    words: str


def _factors(facts: Facts, policy: Policy, terms: Terms, ranked: Optional[Ranked]
             ) -> List[_Factor]:
    """What multiplies to the score; without a place, what does not depend on one."""
    row, weight = facts.row, float(terms.weights[facts.row.cluster])
    _, spoken = names_of(policy.labels if facts.clustered else {}, row.cluster)
    where = ("the policy's, of %s" % spoken if facts.clustered and row.cluster in policy.weights
             else "of %s, for the policy says nothing of it" % spoken if facts.clustered
             else "there are no clusters yet, only groups")
    # As the catalog hands it to ranking.
    interest = max(float(np.float32(row.interest)), FLOOR)
    factors = [_Factor("weight", weight, where), _Factor("interest", interest, "")]
    if ranked:
        count = ranked.kin + ranked.kin_on_ground - ranked.common
        factors.append(_Factor("diversity", math.exp(terms.log_discount * count),
                               "%.4g ^ %.4f" % (math.exp(terms.log_discount), count)))
    near = ranked.nearness if ranked else 1.0
    sent = any(twin.state in GROUND for twin in facts.twins)
    duplicate = ranked.duplicate if ranked else sent
    # Of the two only the smaller counts.
    if near < (terms.near_duplicate if duplicate else 1.0):
        factors.append(_Factor("nearness", near, _near_in_words(near, row.reach)))
    elif duplicate:
        factors.append(_Factor("near_duplicate", terms.near_duplicate,
                               "one of its near-duplicates %s" % (
                                   "was sent" if sent else "is ahead of it")))
    if terms.per_byte:
        factors.append(_Factor("per_byte", 1.0 / max(row.bytes, 1), "1 / %d bytes" % row.bytes))
    return factors


def _near_in_words(near: float, reach: float) -> str:
    """`near` is (distance / reach)^2, and never below NEAREST."""
    least = " or less" if near <= NEAREST * (1 + 1e-6) else ""
    return "the nearest image ahead is %.3g away%s; those of its kind often are %.3g" % (
        math.sqrt(near) * reach, least, reach)


def _product(factors: List[_Factor]) -> float:
    return float(np.prod([factor.value for factor in factors]))


def _interest(facts: Facts, policy: Policy) -> Dict[str, Any]:
    """The parts of the interest; `now` is what the policy in force makes of them."""
    row = facts.row
    like = facts.resemblance
    parts = {
        "novelty": row.novelty, "representative": row.representative, "signature": row.signature,
        "explore": policy.explore, "signature_share": policy.signature, "quality": row.quality,
        "target": like.name if like else None, "likeness": like.likeness if like else None,
        "far": row.far, "ratio": row.ratio, "distance": row.distance}
    if facts.clustered:
        parts["now"] = float(scoring.interest(
            np.float32(row.novelty), np.float32(row.representative), np.float32(row.signature),
            np.float32(row.quality), policy))
    else:
        parts["now"] = float(row.quality * (
            provisional.interest(row.novelty) + policy.signature * row.signature))
    return parts


def _interest_in_lines(facts: Facts, policy: Policy, parts: Dict[str, Any]) -> List[str]:
    row = facts.row
    like = "no target is like it"
    if facts.resemblance:
        like = "%.0f%% like %s" % (100 * facts.resemblance.likeness, facts.resemblance.name)
    novelty = ("%s from its centre, %.3g times what is usual for it%s" % (
        "%.4g" % row.distance, row.ratio,
        "; beyond what is known, so it counts little here but has places kept" if row.far else ""))
    if facts.clustered:
        lines = ["    explore x novelty %.4g x %.4g   %s" % (policy.explore, row.novelty, novelty),
                 "    + (1 - explore) x representative %.4g x %.4g   how clearly it belongs here"
                 % (1 - policy.explore, row.representative)]
    else:
        lines = ["    0.5 + 0.5 x novelty %.4g   %s" % (row.novelty, novelty)]
    lines.append("    + signature %.4g x %.4g   %s" % (policy.signature, row.signature, like))
    lines.append("    x quality %.4g   %s" % (row.quality, facts.verdict.reason or "well taken"))
    if not math.isclose(parts["now"], row.interest, rel_tol=1e-4, abs_tol=1e-6):
        lines.append("    which is %.4g by the policy in force; the images are being valued anew"
                     % parts["now"])
    return lines


def _kin(facts: Facts, policy: Policy, terms: Terms, ranked: Optional[Ranked]) -> Dict[str, Any]:
    """Which kinds it belongs to, and how many of those were sent or are ahead."""
    row = facts.row
    members = [(int(cluster), float(share))
               for cluster, share in zip(row.soft_index, row.soft_weight) if share > 0]
    labels = policy.labels if facts.clustered else {}
    return {
        "discount": math.exp(terms.log_discount),
        "ahead": ranked.kin if ranked else None, "common": ranked.common if ranked else None,
        "on_ground": float(sum(share * terms.on_ground[cluster] for cluster, share in members)),
        "memberships": [{"cluster": cluster, "label": labels.get(cluster, ""), "share": share,
                         "on_ground": float(terms.on_ground[cluster])}
                        for cluster, share in members]}


def _kin_in_lines(kin: Dict[str, Any], ranked: Optional[Ranked]) -> List[str]:
    lines = []
    if ranked:
        lines.append("of its kind %.4f ahead + %.4f on the ground - %.4f that every kind has = %.4f"
                     % (ranked.kin, ranked.kin_on_ground, ranked.common,
                        ranked.kin + ranked.kin_on_ground - ranked.common))
    else:
        lines.append("of its kind %.4f on the ground" % kin["on_ground"])
    kinds = ["%s (%.2f)" % (names_of({member["cluster"]: member["label"]}, member["cluster"])[1],
                            member["share"])
             for member in kin["memberships"] if member["share"] >= SHARE_SHOWN]
    lines.append("it belongs to %s" % (", ".join(kinds) or "no kind that is known"))
    return lines
