"""`jetson-cluster queue`: the head of the queue file as a table for people, or as JSON."""

import argparse
import json
import os
import shutil
import sys

from jetson_cluster.downlink import read_queue
from jetson_cluster.verbs import add_config_arguments, config_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--rows", type=int, default=20, metavar="N",
                        help="how many rows (default %(default)s; 0: all of the file)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    config = config_of(args)
    rows = read_queue(config.queue.path)
    shown = rows[:args.rows] if args.rows > 0 else rows
    if args.json:
        print(json.dumps([row._asdict() for row in shown], indent=1))
        return 0
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print("%4s  %-8s %-26s %9s %10s  %s" % (
        "rank", "score", "image", "size", "sum", "why"))
    for row in shown:
        line = "%4d  %-8s %-26s %9s %10s  %s" % (
            row.rank, row.score, _shortened(os.path.basename(row.path), 26), in_units(row.bytes),
            in_units(row.cumulative_bytes), row.reason)
        print(line[:width])
    print("%d of %d rows of %s" % (len(shown), len(rows), config.queue.path))
    return 0


def _shortened(name: str, width: int) -> str:
    return name if len(name) <= width else name[:8] + "…" + name[-(width - 9):]


def in_units(count: int) -> str:
    """A number of bytes for people: 1500 is "1.5 kB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return "%.1f %s" % (count / size, unit)
    return "%d B" % count
