"""`jetson-cluster once`: take everything that is in the inbox, write the queue, exit."""

import argparse

from jetson_cluster import loops
from jetson_cluster.verbs import add_config_arguments
from jetson_cluster.verbs.run import run_until_stopped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    return run_until_stopped(args, loops.once)
