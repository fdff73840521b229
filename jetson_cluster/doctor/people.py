"""Who the daemon runs as, and what that user may read, write and enter.

In: the machine, and a name. Out: a `Person` and answers about paths. For whoever looks the system
itself is asked; for another user the permission bits are read. The service's sandbox is unit.py's.
"""

import os
import stat
from typing import FrozenSet, List, NamedTuple, Optional

from jetson_cluster.doctor.machine import Machine

READ, WRITE, ENTER = os.R_OK, os.W_OK, os.X_OK


class Person(NamedTuple):
    """A user of the system."""

    name: str
    user: int
    groups: FrozenSet[int]
    looks: bool  # whether it is the one who runs this examination

    def may(self, path: str, wanted: int) -> bool:
        """Whether READ, WRITE, ENTER or several of them are allowed on `path`, symlinks followed.

        Raises OSError if that cannot be seen from here.
        """
        if self.looks:
            return os.access(path, wanted)
        return self.stopped_at(path) is None and self._bits_allow(path, wanted)

    def stopped_at(self, path: str) -> Optional[str]:
        """The first folder on the way to `path` (absolute) that may not be entered, or None."""
        folder, way = os.path.dirname(os.path.realpath(path)), []
        while folder != os.path.dirname(folder):
            way.append(folder)
            folder = os.path.dirname(folder)
        for folder in reversed(way):
            if not os.path.isdir(folder):
                return None  # what is not there, or no folder, is somebody else's complaint
            if not (os.access(folder, ENTER) if self.looks else self._bits_allow(folder, ENTER)):
                return folder
        return None

    def _bits_allow(self, path: str, wanted: int) -> bool:
        status = os.stat(path)
        if wanted & WRITE and os.statvfs(path).f_flag & os.ST_RDONLY:
            return False
        if self.user == 0:
            return True
        mode = stat.S_IMODE(status.st_mode)
        held = mode >> 6 if status.st_uid == self.user else \
            mode >> 3 if status.st_gid in self.groups else mode
        return held & wanted == wanted


def whoever_looks(machine: Machine) -> Person:
    """The user who runs the examination."""
    for row in _rows(machine, "/etc/passwd", 7):
        if row[2] == str(machine.user):
            return Person(row[0], machine.user, frozenset(os.getgroups() + [os.getegid()]), True)
    return Person("user %d" % machine.user, machine.user,
                  frozenset(os.getgroups() + [os.getegid()]), True)


def account(machine: Machine, name: str, more_groups: List[str]) -> Optional[Person]:
    """The user of that name, with its groups and `more_groups`; None if there is no such user."""
    found = [row for row in _rows(machine, "/etc/passwd", 7) if row[0] == name]
    if not found:
        return None
    groups = {int(found[0][3])}
    for row in _rows(machine, "/etc/group", 4):
        if row[0] in more_groups or name in row[3].split(","):
            groups.add(int(row[2]))
    number = int(found[0][2])
    return Person(name, number, frozenset(groups), number == machine.user)


def group_number(machine: Machine, name: str) -> Optional[int]:
    """The number of a group, None if there is no such group."""
    return next((int(row[2]) for row in _rows(machine, "/etc/group", 4) if row[0] == name), None)


def _rows(machine: Machine, path: str, columns: int) -> List[List[str]]:
    """The whole rows of a file like /etc/passwd."""
    rows = [line.split(":") for line in (machine.text(path) or "").splitlines()]
    return [row for row in rows if len(row) == columns and row[2].isdigit()]
