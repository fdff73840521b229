"""One process at a time in a folder: the daemon in its state_dir, `fit` in its work folder.

In: the folder. Out: a lock that ends with the process however it ends, and whether one is held.
"""

import fcntl
import os
import time

from jetson_cluster.errors import UserError, WorldError

NAME = "lock"


def lock_folder(folder: str, instead: str = "give this one a state_dir of its own"):
    """Hold `folder` for this process until the returned file is closed; raises WorldError.

    `instead` is what the user may do, for the message, if another process holds it.
    """
    path = os.path.join(folder, NAME)
    try:
        stream = open(path, "a+")
    except OSError as error:
        raise WorldError("lock %s: cannot be opened: %s" % (path, error.strerror or error))
    try:
        _lock(stream)
    except OSError:
        stream.seek(0)
        owner = stream.read().strip()
        stream.close()
        raise WorldError("%s is in use by another jetson-cluster (process %s); stop it first, or "
                         "%s" % (folder, owner or "unknown", instead))
    stream.truncate(0)
    stream.write("%d\n" % os.getpid())
    stream.flush()
    return stream


def _lock(stream) -> None:
    """Take the lock; `jetson-cluster status` may hold it for an instant, so a second try is made."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        time.sleep(0.05)
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_held(folder: str) -> bool:
    """Whether a process lives that holds `folder`; raises UserError if that cannot be found out."""
    path = os.path.join(folder, NAME)
    try:
        with open(path) as stream:
            # Shared and given back at once: the daemon that holds it notices nothing.
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        raise UserError("lock %s: cannot be tried, so it is unknown whether the daemon runs: %s" % (
            path, error.strerror or error))
    return False
