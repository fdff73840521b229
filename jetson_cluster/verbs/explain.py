"""`jetson-cluster explain IMAGE`: why it stands where it does, or why it is not in the queue.

In: one image, by hash, path or file name. Out: the arithmetic of its score, its state and how it
came to that, its near-duplicates, and what operations did with it; for people, or as JSON.
"""

import argparse
import json
import os
import shlex
from typing import Any, Dict, List, Tuple

from jetson_cluster import codebook, explaining, scoring
from jetson_cluster.applying import APPLIED, PARTLY, not_one
from jetson_cluster.catalog import Catalog
from jetson_cluster.config import Config
from jetson_cluster.downlink import printable_path
from jetson_cluster.errors import UserError
from jetson_cluster.head import Head
from jetson_cluster.ledger import LEAST_PREFIX
from jetson_cluster.orders import target_trouble
from jetson_cluster.records import Audited, Row, text_in
from jetson_cluster.schema import HELD, QUEUED
from jetson_cluster.uplinked import in_force
from jetson_cluster.verbs import add_config_arguments, config_of, printable
from jetson_cluster.verbs.opening import from_here, open_catalog
from jetson_cluster.walker import is_passed_over
from jetson_cluster.wishes import policy_of

ROWS_LOOKED_AT = 2000  # of the queue, for the place of the image
AUDIT_LOOKED_AT, AUDIT_SHOWN = 1000, 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("image", metavar="IMAGE",
                        help="the beginning of its SHA-256 (6 digits or more), a path or a name")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    config, target = config_of(args), from_here(args.image)
    trouble = target_trouble(target) or (
        "%s: explain takes one image" % target if target.startswith("pass:") else "")
    if trouble:
        raise UserError(printable(trouble))
    with open_catalog(config) as catalog:
        images = catalog.find(target)
        if not images:
            raise UserError(printable(_unknown(config, catalog, target)))
        if len(images) > 1:
            raise UserError(printable(not_one(catalog, target, images).words))
        lines, numbers = _explained(config, catalog, images[0])
        more_lines, more_numbers = _operated(catalog, catalog.rows(images)[images[0]])
    if args.json:
        print(json.dumps(dict(numbers, **more_numbers), indent=1))
    else:
        print("\n".join(map(printable, lines + more_lines)))
    return 0


def _explained(config: Config, catalog: Catalog, image: int) -> Tuple[List[str], Dict[str, Any]]:
    """The arithmetic of its place, or what is known of it without one."""
    policy, head = policy_of(config, catalog), Head(catalog, config.queue.rows)
    placed_by = None
    if policy.targets and catalog.clustered:
        placed_by = in_force(config.codebook, os.path.join(config.kept_path, "codebook.npz"),
                             codebook.load)
    targets = scoring.Targets.resolve(policy, catalog, placed_by)
    facts = explaining.gather(catalog, image, policy, targets, catalog.clustered)
    rank, ranked = None, None
    if facts.row.state == QUEUED:
        # As the queue file has it, if it does: looking deeper may change a score a little.
        for rows in (config.queue.rows, max(ROWS_LOOKED_AT, config.queue.rows)):
            rank, ranked = next(((rank, place) for rank, place in enumerate(
                head.order(policy, rows), 1) if place.image == image), (None, None))
            if ranked:
                break
    found = explaining.explain(facts, policy, head.terms(policy), ranked, rank)
    lines, (done, total) = list(found.lines), catalog.unplaced
    if done < total:
        lines.append("images are being placed anew (%d of %d): the queue file stays as it was "
                     "until that is done" % (done, total))
    return lines, dict(found.numbers, path=printable_path(facts.row.path))


# ---- what operations did with it -----------------------------------------------------------------


def _operated(catalog: Catalog, row: Row) -> Tuple[List[str], Dict[str, Any]]:
    lines, numbers = [], {}  # type: List[str], Dict[str, Any]
    for key, what, number in (("sent", "sent", row.sent_in),
                              ("preview_sent", "its preview was sent", row.preview_sent_in)):
        made = catalog.pass_of(number) if number else None
        numbers[key] = made and {"pass": number, "at": made.made_at, "origin": made.origin}
        if made:
            lines.append("%s in pass %d, made at %s (%s)" % (
                what, number, made.made_at, made.origin))
    account = account_of(catalog, row)
    holding = next((one for one in account
                    if one.action == "hold" and one.result in (APPLIED, PARTLY)), None)
    if row.state == HELD and holding:
        lines.append("held since %s, by %s" % (holding.at, _by(holding)))
    if account:
        lines.append("asked of it%s:" % (
            ", the newest %d of %d" % (AUDIT_SHOWN, len(account)) if len(account) > AUDIT_SHOWN
            else ""))
    lines += ["  %s %s: %s, %s" % (one.at, _by(one), one.action, one.result)
              for one in account[:AUDIT_SHOWN]]
    numbers["account"] = [dict(one._asdict()) for one in account]
    return lines, numbers


def _by(one: Audited) -> str:
    return "order %s (%s)" % (one.order_id, one.origin) if one.order_id else one.origin


def account_of(catalog: Catalog, row: Row) -> List[Audited]:
    """The lines of the account that speak of this image, the newest first."""
    name = text_in(os.path.basename(row.path))
    start = row.sha256[:LEAST_PREFIX]
    needles = {start, start.upper(), name}
    needles.update("pass:%d" % number for number in (row.sent_in, row.preview_sent_in) if number)
    found = {one.number: one for needle in needles
             for one in catalog.audit_rows(AUDIT_LOOKED_AT, needle)}
    return [one for _, one in sorted(found.items(), reverse=True) if _speaks_of(one, row)]


def _speaks_of(one: Audited, row: Row) -> bool:
    """Whether one of the targets is this image, however it was named."""
    try:
        targets = shlex.split(one.target)
    except ValueError:  # not written by orders.py
        targets = [one.target]
    path, passes = text_in(row.path), (row.sent_in, row.preview_sent_in)
    if one.action == "ack":  # of a pass its images are acknowledged, and no previews
        passes = (row.sent_in, None)
    for target in targets:
        image = target.rpartition("=")[0] if one.action == "more_like" else target
        if image == path or path.endswith("/" + image):
            return True
        if len(image) >= LEAST_PREFIX and row.sha256.startswith(image.lower()):
            return True
        if any(image == "pass:%d" % number for number in passes if number):
            return True
    return False


# ---- what is no image here ---------------------------------------------------------------------


def _unknown(config: Config, catalog: Catalog, target: str) -> str:
    """Why there is no image of that name."""
    refusal = catalog.refusal_of(target)
    if refusal is not None:
        return "%s is no usable image: %s (%s, at %s)" % (
            refusal.path, refusal.reason, refusal.code, refusal.refused_at)
    path = os.path.join(config.inbox.path, target)
    if os.path.isabs(target) and os.path.relpath(target, config.inbox.path).startswith(".."):
        return "%s is not below the inbox, %s" % (target, config.inbox.path)
    if not os.path.lexists(path):
        return ("no image is called %s, no file of that name was refused, and none is in the inbox "
                "%s" % (target, config.inbox.path))
    if is_passed_over(os.path.basename(path)):
        return "%s is passed over: by its name it is hidden or not finished" % path
    if os.path.islink(path) or not os.path.isfile(path):
        return "%s is passed over: it is no regular file" % path
    return "%s is not catalogued yet; does the daemon run? (jetson-cluster status)" % path
