"""`jetson-cluster pass`: choose what goes down in the next pass, mark it sent, and print it.

In: a budget in bytes. Out: the files in the order to send them, for people, or as paths, CSV or
JSON for the radio's software. The same number given twice makes one pass.
"""

import argparse
import json
import os
import sys
from typing import Callable, List, Optional

from jetson_cluster import bytesize
from jetson_cluster.applying import apply
from jetson_cluster.clocks import utc_now
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.orders import PASS, Action
from jetson_cluster.pass_lists import COLUMNS, csv_of, rows_of, with_previews
from jetson_cluster.passes import IMAGE, PREVIEW, PassReport, make_pass, recall_pass
from jetson_cluster.previews import Previews
from jetson_cluster.verbs import add_config_arguments, config_of, printable
from jetson_cluster.verbs.opening import COMMAND_LINE, downlink_of, open_catalog
from jetson_cluster.wording import counted, in_units


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--budget", metavar="BYTES",
                       help="what may go down: 4MB, 1.5MiB, 500kB, 4000000")
    asked.add_argument("--show", type=int, metavar="N",
                       help="print pass N again; nothing changes")
    parser.add_argument("--number", type=int, metavar="N",
                        help="the number of the pass; if it was made before, print it again and "
                             "change nothing (default: the next)")
    parser.add_argument("--dry-run", action="store_true",
                        help="only print what the pass would be")
    parser.add_argument("-0", "--null", action="store_true",
                        help="print paths, each with a zero byte behind it")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--paths", action="store_true", help="print one path a line")
    form.add_argument("--csv", action="store_true", help="print CSV: " + ",".join(COLUMNS))
    form.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    budget_bytes = None if args.budget is None else bytesize.parse(args.budget, "--budget")
    for option, number in (("--show", args.show), ("--number", args.number)):
        if number is not None and not 1 <= number < 10 ** 9:
            raise UserError("%s %d: passes are numbered from 1" % (option, number))
    if args.show is not None and (args.dry_run or args.number is not None):
        raise UserError("--show prints a pass that was made; it takes no --number, no --dry-run")
    if args.null and (args.csv or args.json):
        raise UserError("-0 prints paths; it takes no --csv, no --json")
    if sys.stdout is None:
        raise UserError("standard output is closed: the pass could not be printed, and "
                        "nothing was changed")
    config = config_of(args)
    with open_catalog(config) as catalog:
        if budget_bytes is None:
            report = recall_pass(catalog, args.show)
        elif args.dry_run:
            report = make_pass(catalog, downlink_of(config, catalog), budget_bytes, COMMAND_LINE,
                               utc_now(), dry_run=True, number=args.number)
        elif args.number is not None and args.number <= catalog.last_pass:
            report = recall_pass(catalog, args.number)
        else:
            report = _make(catalog, downlink_of(config, catalog), budget_bytes, args.number)
        unwritten = 0
        if report.number:
            report, unwritten = with_previews(report, Previews(config.previews_path, catalog))
    _print(_in_form(report, args), report)
    for note in (report.notes if report.parcels or report.number else (report.words,)):
        print("jetson-cluster: %s" % printable(note), file=sys.stderr)
    if unwritten:
        raise WorldError("pass %d: %d of its previews could not be written and are not listed; "
                         "once there is space: jetson-cluster pass --show %d" % (
                             report.number, unwritten, report.number))
    return 0


def _make(catalog, downlink, budget_bytes: int, number: Optional[int]) -> PassReport:
    at = utc_now()

    def send(budget_bytes: int, origin: str, also: Callable[[PassReport], None]) -> PassReport:
        return make_pass(catalog, downlink, budget_bytes, origin, at, number=number, also=also)

    action = Action("", PASS, (), budget_bytes, 0, COMMAND_LINE)
    return apply(catalog, action, COMMAND_LINE, at, send).report


# ---- printing ----------------------------------------------------------------------------------


def _in_form(report: PassReport, args: argparse.Namespace) -> bytes:
    if args.paths or args.null:
        end = b"\0" if args.null else b"\n"
        paths = [os.fsencode(parcel.path) for parcel in report.parcels if parcel.path]
        if args.paths and any(b"\n" in path for path in paths):
            print("jetson-cluster: a path holds a line break; take -0 instead of --paths",
                  file=sys.stderr)
        return b"".join(path + end for path in paths)
    if args.csv:
        return csv_of(report)
    rows = rows_of(report)
    if args.json:
        return (json.dumps({
            "pass": report.number or None, "made_at": report.made_at if report.number else None,
            "made_before": report.repeated,
            "budget_bytes": report.budget_bytes if report.budgeted else None,
            "bytes": report.bytes,
            "left_bytes": report.budget_bytes - report.bytes if report.budgeted else None,
            "notes": list(report.notes),
            "files": [dict(zip(COLUMNS, row)) for row in rows],
        }, indent=1) + "\n").encode("ascii")
    return _table(report, rows).encode("utf-8", "backslashreplace")


def _table(report: PassReport, rows: List[tuple]) -> str:
    if not rows:
        return ""
    lines = ["%4s  %-7s %9s %10s  %s" % ("", "kind", "size", "sum", "path")]
    lines += [printable("%4d  %-7s %9s %10s  %s" % (
        place, kind, in_units(size), in_units(cumulative), path or "(%s...)" % sha256[:16]))
        for place, (_, kind, size, cumulative, sha256, path) in enumerate(rows, 1)]
    lines.append("%s: %s, %s, %s%s" % (
        "pass %d" % report.number if report.number else "not made: a pass",
        counted(len(report.of(IMAGE)), "image"), counted(len(report.of(PREVIEW)), "preview"),
        in_units(report.bytes),
        " of %s; %s left over" % (in_units(report.budget_bytes), in_units(
            report.budget_bytes - report.bytes)) if report.budgeted else ""))
    return "\n".join(lines) + "\n"


def _print(content: bytes, report: PassReport) -> None:
    """Write all of it, or say how to see it again: what is not printed is not sent."""
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except (OSError, ValueError) as error:
        # What is left in its buffer must not end the program once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        again = "see it again: jetson-cluster pass --show %d" % report.number if (
            report.number) else "nothing was changed"
        raise WorldError("the pass could not be printed: %s; %s" % (
            getattr(error, "strerror", None) or error, again))
