"""`jetson-cluster doctor`: is everything there that the daemon needs, and how to get the rest."""

import argparse
import json
import shutil
import sys

from jetson_cluster import doctor
from jetson_cluster.doctor import report
from jetson_cluster.doctor.case import Case
from jetson_cluster.doctor.machine import this_machine
from jetson_cluster.verbs import add_config_arguments, printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--json", action="store_true",
                        help="print JSON, in the shape that jetson_cluster/doctor/__init__.py says")


def run(args: argparse.Namespace) -> int:
    """0: the daemon could run as configured; 1: the world lacks something; 2: input is wrong."""
    found = doctor.examine(Case(this_machine(), args.config, args.overrides))
    if args.json:
        print(json.dumps(report.to_mapping(found, args.config), indent=1))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout and sys.stdout.isatty() else None
        print("\n".join(map(printable, report.to_lines(found, width))))
    return found.exit_code
