"""`jetson-cluster ack`, `nack`, `resend`, `hold`, `release`, `pin`, `unpin`: one image or many.

In: images, by the beginning of their SHA-256, by path, by file name, or all of a pass. Out: a line
for each that says what happened. One that cannot be done is named and the others are done.
"""

import argparse
import json
import os
import sys
from typing import Iterable, Iterator, List

from jetson_cluster.applying import REFUSED, Outcome, apply
from jetson_cluster.clocks import utc_now
from jetson_cluster.config import Config
from jetson_cluster.errors import UserError
from jetson_cluster.head import Head
from jetson_cluster.orders import Action, target_trouble
from jetson_cluster.verbs import add_config_arguments, config_of, printable
from jetson_cluster.verbs.opening import COMMAND_LINE, complain, from_here, open_catalog
from jetson_cluster.wishes import policy_of

TOGETHER = 100  # targets in one transaction: one by one a card takes minutes for thousands


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("targets", nargs="*", metavar="TARGET",
                        help="the beginning of an image's SHA-256 (6 digits or more), a path, a "
                             "file name, pass:N, or - for a list on standard input, one a line")
    parser.add_argument("--pass", type=int, action="append", default=[], metavar="N",
                        dest="passes", help="all images of pass N, like pass:N; repeatable")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """0: all were done, or were so already; 2: one or more could not be."""
    targets = list(_targets(args.targets)) + ["pass:%d" % number for number in args.passes]
    if not targets:
        raise UserError("%s: name images: by hash, path, file name, --pass N, or - for a list on "
                        "standard input" % args.verb)
    outcomes = []  # type: List[Outcome]
    # All is done before anything is printed: whoever reads it may stop reading.
    config = config_of(args)
    with open_catalog(config) as catalog:
        for start in range(0, len(targets), TOGETHER):
            outcomes += _done(catalog, args.verb, targets[start:start + TOGETHER])
        overruled = list(_overruled(catalog, config, args.verb, outcomes))
    if args.json:
        print(json.dumps([_as_mapping(outcome) for outcome in outcomes], indent=1))
    else:
        for outcome in outcomes:
            if outcome.result == REFUSED:
                complain(outcome.words)
            else:
                print(printable(outcome.words))
    for words in overruled:
        complain(words)
    return 2 if any(outcome.result == REFUSED for outcome in outcomes) else 0


def _targets(given: Iterable[str]) -> Iterator[str]:
    for target in given:
        if target != "-":
            yield from_here(target)
        elif sys.stdin is None:
            raise UserError("-: standard input is closed")
        else:
            for line in sys.stdin.buffer:
                text = os.fsdecode(line.strip())
                if text and not text.startswith("#"):
                    yield from_here(text)


def _done(catalog, name: str, targets: List[str]) -> Iterator[Outcome]:
    trouble = {target: target_trouble(target) for target in targets}
    proper = [target for target in targets if not trouble[target]]
    found = iter(())  # type: Iterator[Outcome]
    if proper:
        action = Action("", name, tuple(proper), None, 0, COMMAND_LINE)
        found = iter(apply(catalog, action, COMMAND_LINE, utc_now(), send=None).outcomes)
    for target in targets:
        yield Outcome(target, REFUSED, trouble[target]) if trouble[target] else next(found)


def _overruled(catalog, config: Config, name: str, outcomes: List[Outcome]) -> Iterator[str]:
    """A line for each image of which the policy says the opposite."""
    if name not in ("release", "pin", "unpin"):
        return
    policy = policy_of(config, catalog)
    kind, named = ("pins", policy.pins) if name == "unpin" else ("holds", policy.holds)
    if not named:
        return
    head = Head(catalog, config.queue.rows)
    meant = set(head.pins(policy) if name == "unpin" else head.held(policy))
    for change in (change for outcome in outcomes for change in outcome.changes):
        if meant.intersection(catalog.find(change.sha256)):
            yield "%s: the policy %s it all the same ('%s' in %s)" % (
                os.path.basename(change.path), kind, kind, config.policy)


def _as_mapping(outcome: Outcome) -> dict:
    return {"target": outcome.target, "result": outcome.result, "words": outcome.words,
            "images": [change._asdict() for change in outcome.changes],
            "candidates": list(outcome.candidates)}
