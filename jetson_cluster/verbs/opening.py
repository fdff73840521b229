"""What the verbs of operations share: the daemon's catalog opened beside it, as the daemon's user.

In: the settings. Out: an open catalog, and what a pass is made from. The daemon
may run meanwhile; it takes note of what changed.
"""

import contextlib
import os
import pwd
import sqlite3
import sys
from typing import Iterator

from jetson_cluster.catalog import Catalog
from jetson_cluster.config import Config, refuse_read_only
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.head import Head
from jetson_cluster.inbox import Inbox, mount_key
from jetson_cluster.passes import Downlink
from jetson_cluster.verbs import as_owner, owner_of, printable
from jetson_cluster.wishes import policy_of

COMMAND_LINE = "command line"  # the origin in the account


@contextlib.contextmanager
def open_catalog(config: Config) -> Iterator[Catalog]:
    """The catalog that the daemon made; never makes one. Raises UserError and WorldError."""
    if not os.path.exists(config.catalog_path):
        # A folder that may not be entered looks the same as one without a catalog.
        _check_access(config)
        raise UserError("catalog %s: is not there; has the daemon run with %s?" % (
            config.catalog_path, config.path))
    become_owner(config.state_dir)
    _check_access(config)
    try:
        with Catalog(config.catalog_path, None) as catalog:
            yield catalog
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
        raise WorldError("catalog %s: another process has been writing to it for 30 s; try again, "
                         "which does nothing twice" % config.catalog_path)
    except OSError as error:
        raise WorldError("catalog %s: %s; mend that and try again, which does nothing twice" % (
            config.catalog_path, error))


def become_owner(folder: str) -> None:
    """As root, become the user whose folder it is, for good.

    What root makes there the daemon could not write to. Raises UserError where root may not.
    """
    if os.geteuid() != 0:
        return
    owner = os.stat(folder)
    if owner.st_uid == 0:
        return
    try:
        try:
            os.initgroups(pwd.getpwuid(owner.st_uid).pw_name, owner.st_gid)
        except KeyError:  # an owner without an account, as in a container
            os.setgroups([owner.st_gid])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
    except PermissionError:
        raise UserError("%s belongs to user %d, and this root may not become another user; run it as "
                        "user %d" % (folder, owner.st_uid, owner.st_uid))


def _check_access(config: Config) -> None:
    folder = config.state_dir
    if not os.path.lexists(folder):
        return
    refuse_read_only(config, "state_dir", folder)
    needed = [(folder, os.R_OK | os.W_OK | os.X_OK)]
    if os.path.exists(config.catalog_path):
        needed.append((config.catalog_path, os.R_OK | os.W_OK))
    for path, mode in needed:
        if not os.access(path, mode):
            raise UserError("%s belongs to user %s, and this one may not write there; run: %s" % (
                path, owner_of(path), as_owner(path)))


def downlink_of(config: Config, catalog: Catalog) -> Downlink:
    """What a pass is made from, as the daemon has it."""
    inbox = Inbox(config.inbox.path,
                  mount=catalog.meta(mount_key(config.inbox.path)))
    return Downlink(Head(catalog, config.queue.rows),
                    policy_of(config, catalog), config.queue.path, inbox.look_again,
                    config.outbox.path or "")


def from_here(target: str) -> str:
    """A path seen from here as the catalog knows it; what is no path from here stays as it is."""
    return os.path.abspath(target) if os.sep in target and os.path.lexists(target) else target


def complain(words: str) -> None:
    """One line on standard error, as a failure of the command would be told."""
    print("jetson-cluster: error: %s" % printable(words), file=sys.stderr)
