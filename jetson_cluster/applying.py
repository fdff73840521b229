"""One action of operations, whoever asked for it, done to the catalog and written into its account.

In: an Action of orders.py, from the command line, an order file or the outbox. Out: a Result that
says for each target what happened, in words. What is done and its line in the audit table are one
transaction: a kill leaves both or neither. What goes into a pass is chosen before that transaction,
for it may take seconds, in which others want to write.

An order's id is used up once anything of the order was done, or was so already: then the same order
changes nothing, and another order with that id is refused. An order that hits nothing, because no
image is known by that name yet, leaves its id free, so that the same file can be sent again later.
Of several targets in one order those that are known are dealt with; the others need a new id.
"""

import os
import re
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

from jetson_cluster.catalog import Catalog
from jetson_cluster.ledger import LEAST_PREFIX, refusal
from jetson_cluster.orders import PASS, Action, Refused
from jetson_cluster.passes import PassReport
from jetson_cluster.policy import AMENDABLE
from jetson_cluster.records import Row, text_in
from jetson_cluster.schema import ACKED, HELD, QUEUED, SENT
from jetson_cluster.wording import counted

APPLIED = "applied"
UNCHANGED = "unchanged"  # it was so already
REPEATED = "repeated"  # an order whose id was used up by this very order before
REFUSED = "refused"
PARTLY = "partly applied"  # some of its targets were refused

CANDIDATES_NAMED = 5  # of the images that an ambiguous target may mean
DETAIL_MOST = 2000  # characters of the account's detail
JOURNAL = "journal"  # the origin of orders known only from the journal, without their content
# What each mark makes of an image, if nothing is odd, and how that is told.
DONE = {"ack": (ACKED, "acked"), "nack": (QUEUED, "queued again"),
        "resend": (QUEUED, "queued again"), "hold": (HELD, "held"),
        "release": (QUEUED, "released"), "pin": (None, "pinned"), "unpin": (None, "unpinned")}
_HASH = re.compile("[0-9a-fA-F]{1,64}")

# What makes a pass of so many bytes for an origin: make_pass with all but these given. The third is
# called with the pass within its transaction.
Send = Callable[[int, str, Callable[[PassReport], None]], PassReport]


class Change(NamedTuple):
    """What became of one image."""

    sha256: str
    path: str
    before: str  # its state
    after: str


class Outcome(NamedTuple):
    """What became of one target."""

    target: str
    result: str  # APPLIED, UNCHANGED or REFUSED
    words: str
    changes: Tuple[Change, ...] = ()
    candidates: Tuple[str, ...] = ()  # images that an ambiguous target may mean
    unknown: bool = False  # refused because nothing is called so


class Result(NamedTuple):
    """What became of one action."""

    action: Action
    result: str  # APPLIED, UNCHANGED, REPEATED, REFUSED or PARTLY
    outcomes: Tuple[Outcome, ...]
    report: Optional[PassReport] = None  # if it was a pass

    @property
    def words(self) -> str:
        return "; ".join(outcome.words for outcome in self.outcomes)


def apply(catalog: Catalog, action: Action, origin: str, at: str, send: Send) -> Result:
    """Do it, once. `at` is the time for the account, ISO 8601 in UTC.

    Raises sqlite3.Error and OSError; then nothing was done.
    """
    with catalog.together():
        result = _repeated(catalog, action)
        if result is None and action.name != PASS:
            result = (_amend if action.name in AMENDABLE else _mark)(catalog, action)
        if result is not None:
            if result.result != REPEATED:
                _account(catalog, result, origin, at)
            return result
    return _send(catalog, action, origin, at, send)


def note_refused(catalog: Catalog, refused: Refused, source: str, origin: str, at: str) -> str:
    """Account for an order that could not even be read; how it is told, without its place."""
    place = "%s line %d" % (source, refused.line) if refused.line else source
    words = "order %s: %s" % (refused.order_id, refused.why) if refused.order_id else refused.why
    catalog.audit(at, text_in(origin), None, "order", text_in(place), REFUSED,
                  text_in(words[:DETAIL_MOST]))
    return words


def _account(catalog: Catalog, result: Result, origin: str, at: str) -> None:
    action, order_id = result.action, result.action.order_id or None
    detail = result.words
    if result.result == REFUSED and order_id is not None:
        detail, order_id = "order %s: %s" % (order_id, detail), None
    if len(detail) > DETAIL_MOST:
        detail = detail[:DETAIL_MOST] + " ..."
    catalog.audit(at, text_in(origin), order_id, action.name, text_in(action.content),
                  result.result, text_in(detail))


def _repeated(catalog: Catalog, action: Action) -> Optional[Result]:
    """What an order comes to whose id is used up; None if it is not."""
    before = catalog.audited(action.order_id) if action.order_id else None
    if before is None:
        return None
    same = (before.action, before.target) == (action.name, text_in(action.content))
    if same or before.origin == JOURNAL:
        return Result(action, REPEATED, (Outcome("", REPEATED, "id %s was followed before: %s" % (
            action.order_id, before.detail)),))
    return Result(action, REFUSED, (Outcome("", REFUSED, "id %s was used for: %s %s" % (
        action.order_id, before.action, before.target)),))


# ---- passes and amendments ---------------------------------------------------------------------


class _Overtaken(Exception):
    """Another process used up the order's id while the pass was chosen."""


def _send(catalog: Catalog, action: Action, origin: str, at: str, send: Send) -> Result:
    def account(report: PassReport) -> None:
        if _repeated(catalog, action) is not None:
            raise _Overtaken
        _account(catalog, _sent(action, report), origin, at)

    try:
        report = send(action.value, "order " + action.order_id if action.order_id
                      else "command line", account)
        if report.repeated or not report.number:  # there was no transaction
            with catalog.together():
                account(report)
    except _Overtaken:
        return apply(catalog, action, origin, at, send)
    return _sent(action, report)


def _sent(action: Action, report: PassReport) -> Result:
    made = UNCHANGED if report.repeated else APPLIED if report.number else REFUSED
    return Result(action, made, (Outcome("", made, report.words),), report)


def _amend(catalog: Catalog, action: Action) -> Result:
    return _result(action, [_amend_one(catalog, action.name, target, value)
                            for target, value in zip(action.targets, action.value)])


def _amend_one(catalog: Catalog, kind: str, target: str, value) -> Outcome:
    key = target
    if kind == "more_like":
        images = catalog.find(target)
        if len(images) != 1:
            return not_one(catalog, target, images)
        row = catalog.rows(images)[images[0]]
        key, target = row.sha256, name_of(row)
    said = "%s %s: %s" % (kind, target, "as the policy file says" if value is None
                          else "%g" % value if isinstance(value, float) else value)
    if catalog.amendments().get((kind, key)) == value:
        return Outcome(target, UNCHANGED, said + " (as before)")
    catalog.amend(kind, key, value)
    return Outcome(target, APPLIED, said)


# ---- marks -------------------------------------------------------------------------------------


def _mark(catalog: Catalog, action: Action) -> Result:
    return _result(action, [_mark_one(catalog, action.name, target) for target in action.targets])


def _result(action: Action, outcomes: Sequence[Outcome]) -> Result:
    kinds = {outcome.result for outcome in outcomes}
    if REFUSED in kinds:
        result = PARTLY if len(kinds) > 1 else REFUSED
    else:
        result = APPLIED if APPLIED in kinds else UNCHANGED
    return Result(action, result, tuple(outcomes))


def _mark_one(catalog: Catalog, name: str, target: str) -> Outcome:
    if target.startswith("pass:"):
        return _mark_pass(catalog, name, int(target[len("pass:"):]))
    images = catalog.find(target)
    if len(images) != 1:
        return not_one(catalog, target, images)
    row = catalog.rows(images)[images[0]]
    moved = catalog.move(name, images).get(images[0])
    if moved is None:
        return Outcome(target, REFUSED, "%s: cannot %s it: %s" % (
            name_of(row), name, refusal(name, row.state)))
    change = Change(row.sha256, row.path, moved.before, moved.after)
    if moved.preview_again and moved.before == moved.after:
        return Outcome(target, APPLIED, "the preview of %s is sent again (it is %s)" % (
            name_of(row), _is(row)), (change,))
    if not _changed(name, row, moved):
        return Outcome(target, UNCHANGED, "unchanged %s (is %s)" % (name_of(row), _is(row)),
                       (change,))
    expected, verb = DONE[name]
    odd = expected is not None and moved.after != expected
    return Outcome(target, APPLIED, "%s %s (was %s%s)" % (
        verb, name_of(row), _is(row), ", is %s now" % moved.after if odd else ""), (change,))


def _changed(name: str, row: Row, moved) -> bool:
    if name in ("pin", "unpin"):
        return (row.pinned is None) == (name == "pin")
    return moved.before != moved.after


def _mark_pass(catalog: Catalog, name: str, number: int) -> Outcome:
    target = "pass:%d" % number
    made, images = catalog.pass_of(number), catalog.pass_images(number)
    if made is None and not images:
        return Outcome(target, REFUSED, "there is no pass %d; the last one is %d" % (
            number, catalog.last_pass), unknown=True)
    rows = catalog.rows(images)
    previews = len(catalog.pass_previews(number)) if name in ("nack", "resend") else 0
    moved = catalog.move_pass(name, number)
    changed = [image for image in images
               if image in moved and _changed(name, rows[image], moved[image])]
    said = ["%s %d of the %s of pass %d" % (
        DONE[name][1], len(changed), counted(len(images), "image"), number)]
    if previews:
        said.append("and the previews of %d" % previews)
    if len(changed) < len(images):
        said.append("(%s)" % ", ".join(
            "%d %s" % (count, state) for state, count in sorted(_tally(
                rows[image].state for image in images if image not in changed).items())))
    changes = tuple(Change(rows[image].sha256, rows[image].path, moved[image].before,
                           moved[image].after) for image in images if image in moved)
    if not images:
        return Outcome(target, APPLIED if previews else UNCHANGED, (
            "the previews of pass %d are sent again" if previews else
            "pass %d was of previews; there is no image to " + name) % number)
    if not moved:
        state = rows[images[0]].state
        return Outcome(target, REFUSED, "pass %d: cannot %s its images: %s" % (
            number, name, refusal(name, state) or "all are %s again since" % state))
    return Outcome(target, APPLIED if changed or previews else UNCHANGED, " ".join(said), changes)


def _tally(states) -> dict:
    counts = {}  # type: dict
    for state in states:
        counts[state] = counts.get(state, 0) + 1
    return counts


def not_one(catalog: Catalog, target: str, images: List[int]) -> Outcome:
    """The refusal of a target that means none of the images, or several."""
    if images:
        rows = catalog.rows(images[:CANDIDATES_NAMED])
        named = tuple("%s %s" % (row.sha256[:16], row.path) for _, row in sorted(rows.items()))
        more = len(images) - len(named)
        return Outcome(target, REFUSED, "%s may mean any of several images: %s%s" % (
            target, ", ".join(named), " and %d more" % more if more > 0 else ""),
            candidates=named)
    refused = catalog.refusal_of(target)
    if refused is not None:
        return Outcome(target, REFUSED, "%s is no usable image: %s" % (target, refused.reason),
                       unknown=True)
    why = "; a hash needs at least %d digits" % LEAST_PREFIX if (
        _HASH.fullmatch(target) and len(target) < LEAST_PREFIX) else ""
    return Outcome(target, REFUSED, "no image is called %s%s" % (target, why), unknown=True)


def name_of(row: Row) -> str:
    """How an image is spoken of: the name of its file."""
    return os.path.basename(row.path)


def _is(row: Row) -> str:
    """The state of an image in words."""
    where = " in pass %d" % row.sent_in if row.state in (SENT, ACKED) and row.sent_in else ""
    state = "sent%s and acked" % where if row.state == ACKED and where else row.state + where
    return state + (", pinned" if row.pinned is not None else "")
