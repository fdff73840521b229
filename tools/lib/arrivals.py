"""What the demo drops into the inbox, and when all of it is dealt with.

In: a folder of somebody's own, and the daemon's status. Out: images to send, a name of its own for
each, and whether to go on waiting. Needs nothing but Python itself.
"""

import hashlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from jetson_cluster.walker import is_passed_over  # noqa: E402  (found through the line above)

# Longer than the daemon leaves between two looks at its inbox, 30 s, and two idle statuses, 60 s.
QUIET_S = 75


def images_below(folder):
    """Sorted paths of the files that the daemon would look at: no links, no unfinished names.

    Names that do not fit on a line of a list are left out too.
    """
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_passed_over(name)]
        paths = [os.path.join(parent, name) for name in names if not is_passed_over(name)]
        found += [path for path in paths if os.path.isfile(path) and not os.path.islink(path)
                  and path.isprintable() and path == path.strip()]
    return sorted(found)


def one_of_each(paths):
    """The paths without those whose content an earlier one has: the daemon counts contents."""
    first = {}
    for path in paths:
        with open(path, "rb") as stream:
            first.setdefault(hashlib.sha256(stream.read()).digest(), path)
    return list(first.values())


def names_for(paths):
    """A file name for each path, its own where no earlier one has it: all of them different."""
    names = []
    taken = set()
    for path in paths:
        name = os.path.basename(path)
        stem, ending = os.path.splitext(name)
        number = 1
        while name in taken:
            number += 1
            name = "%s-%d%s" % (stem, number, ending)
        taken.add(name)
        names.append(name)
    return names


def handled(status):
    """How many contents and refused files the daemon's status accounts for."""
    return sum(status["images"].values()) + status["files_refused"]


class Patience:
    """Whether to wait for `sent` files any longer."""

    def __init__(self, sent):
        self._sent, self._seen, self._since_s = sent, None, None

    def is_over(self, status, now_s):
        """True once all are accounted for, or nothing waits and nothing was added for long."""
        if handled(status) != self._seen:
            self._seen, self._since_s = handled(status), now_s
        if self._seen >= self._sent:
            return True
        waiting = status["inbox"]["ready"] + status["inbox"]["settling"]
        return not waiting and now_s - self._since_s >= QUIET_S
