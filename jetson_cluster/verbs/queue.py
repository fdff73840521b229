"""`jetson-cluster queue`: the head of the queue file as a table for people, or as JSON."""

import argparse
import datetime
import json
import os
import shutil
import sys
import time

from jetson_cluster.downlink import read_queue
from jetson_cluster.errors import UserError
from jetson_cluster.verbs import (
    add_config_arguments, config_of, printable, refuse_unreadable)
from jetson_cluster.wording import ago, in_units


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--rows", type=int, default=20, metavar="N",
                        help="how many rows (default %(default)s; 0: all of the file)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    if args.rows < 0:
        raise UserError("--rows %d: must be a whole number from 0 (0: all of the file)" % args.rows)
    config = config_of(args)
    refuse_unreadable(config.queue.path)
    rows = read_queue(config.queue.path)
    shown = rows[:args.rows] if args.rows > 0 else rows
    if args.json:
        print(json.dumps([row._asdict() for row in shown], indent=1))
        return 0
    width = shutil.get_terminal_size().columns if sys.stdout and sys.stdout.isatty() else None
    print("%4s  %-8s %-26s %9s %10s  %s" % (
        "rank", "score", "image", "size", "sum", "why"))
    for row in shown:
        line = "%4d  %-8s %-26s %9s %10s  %s" % (
            row.rank, row.score, _shortened(printable(os.path.basename(row.path)), 26),
            in_units(row.bytes), in_units(row.cumulative_bytes), row.reason)
        print(printable(line)[:width])
    print("%d of %d rows of %s, written %s" % (
        len(shown), len(rows), printable(config.queue.path),
        when(os.stat(config.queue.path).st_mtime, time.time())))
    return 0


def when(then_s: float, now_s: float) -> str:
    """A time of the past in words, both in seconds since 1970; only the time if it lies ahead."""
    moment = datetime.datetime.fromtimestamp(then_s, datetime.timezone.utc)
    at = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    age = ago(now_s - then_s)
    return "%s, at %s" % (age, at) if now_s >= then_s else "at %s, %s" % (at, age)


def _shortened(name: str, width: int) -> str:
    return name if len(name) <= width else name[:8] + "…" + name[-(width - 9):]
