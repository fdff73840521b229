"""The flight verbs of the command line, one module each: add_arguments(parser), run(args)."""

import argparse
import contextlib
import grp
import logging
import os
import pwd
import shlex
import stat
import sys

from jetson_cluster import config
from jetson_cluster.errors import UserError
from jetson_cluster.logs import printable

__all__ = ["add_config_arguments", "as_owner", "config_of", "owner_of", "printable",
           "refuse_unreadable"]


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """What every flight verb takes."""
    parser.add_argument("--config", default=config.DEFAULT_PATH, metavar="FILE",
                        help="settings (default %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="override one setting, e.g. --set inbox.settle_s=0.2; repeatable")


def config_of(args: argparse.Namespace) -> config.Config:
    """The settings asked for; also sets the log level they name, unless --verbose did."""
    loaded = config.load(args.config, args.overrides)
    if not args.verbose:
        logging.getLogger().setLevel(loaded.log_level.upper())
    return loaded


def refuse_unreadable(path: str) -> None:
    """Raise UserError, with the way to mend it, if this user may not read a file that is there."""
    folder = os.path.dirname(path)
    for place, mode, group_bit in ((folder, os.X_OK, stat.S_IXGRP), (path, os.R_OK, stat.S_IRGRP)):
        if os.path.lexists(place) and not os.access(place, mode):
            raise UserError("%s belongs to user %s, and this one may not read %s; %srun: %s" % (
                place, owner_of(place), "there" if place == folder else "it",
                _joining(place, group_bit), as_owner(place)))


def _joining(place: str, group_bit: int) -> str:
    """The group that one could be in, for a place whose mode lets its group in."""
    held = os.stat(place)
    if not held.st_mode & group_bit:
        return ""
    name = str(held.st_gid)
    with contextlib.suppress(KeyError):
        name = grp.getgrgid(held.st_gid).gr_name
    return "be in the group %s, or " % name


def owner_of(path: str) -> str:
    """The name of the user whose file it is, their number where they have none."""
    owner = os.stat(path).st_uid
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(owner).pw_name
    return str(owner)


def as_owner(path: str) -> str:
    """This very command, run by the user whose file that is."""
    return "sudo -u %s %s" % (owner_of(path), " ".join(
        map(shlex.quote, ["jetson-cluster"] + sys.argv[1:])))
