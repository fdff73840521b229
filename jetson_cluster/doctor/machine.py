"""The computer as the doctor sees it: its /proc, /sys, /etc and /dev, commands and environment.

In: paths and commands. Out: their text. A test puts another folder in the place of / and other
programs in PATH, and everything that looks at the computer looks there.
"""

import contextlib
import glob
import json
import os
import platform
import shutil
import site
import subprocess
import sys
import tempfile
import time
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

from jetson_cluster.checking import one_line
from jetson_cluster.errors import WorldError

# Much longer than any import takes, also from a slow SD card: a driver that hangs takes for ever.
LIMIT_S = 120.0
PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Our package goes last, so that nothing beside it hides a module of Python's own.
CHILD = ("import sys; sys.path.append(sys.argv[1]); from jetson_cluster.doctor import child; "
         "child.main(*sys.argv[2:])")


# Where programs put what is a user's, if not into HOME.
XDG = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")


class NotStarted(WorldError):
    """A program is there, and the system does not start it."""


class Ran(NamedTuple):
    """How a command ended."""

    code: int  # negative: the signal that ended it
    out: str
    err: str


class Machine(NamedTuple):
    """One computer. `root` stands for /; paths given to its methods are absolute."""

    root: str
    environment: Mapping[str, str]
    architecture: str  # "aarch64"
    user: int  # who looks
    now_s: float  # the wall clock's, seconds since 1970
    since_boot_s: float

    def place(self, path: str) -> str:
        """Where `path` is to be found."""
        return os.path.join(self.root, path.lstrip("/"))

    def text(self, path: str) -> Optional[str]:
        """What the file says, None if it is not there; raises OSError if it cannot be read."""
        try:
            with open(self.place(path), encoding="utf-8", errors="replace") as stream:
                return stream.read().strip("\0 \n")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def paths(self, pattern: str) -> List[str]:
        """The paths that fit the pattern, as this computer itself would name them."""
        found = glob.glob(os.path.join(glob.escape(self.root), pattern.lstrip("/")))
        return sorted("/" + os.path.relpath(path, self.root) for path in found)

    def which(self, command: str) -> Optional[str]:
        """Where a command is found in PATH, or None."""
        return shutil.which(command, path=self.environment.get("PATH", os.defpath))

    def run(self, command: Sequence[str]) -> Optional[Ran]:
        """Run a command of this computer; None if there is no such. WorldError if it hangs."""
        program = self.which(command[0])
        if program is None:
            return None
        # The commands' words are read, so they must be the untranslated ones.
        return self._start([program] + list(command[1:]), dict(self.environment, LC_ALL="C"))

    def ask_child(self, what: str, *words: str) -> Dict[str, object]:
        """What child.py says of `what`, found out in a process of its own.

        There a library that crashes takes nothing with it, and no CUDA is left behind here. What
        libraries make in a user's folders when they are imported goes when the process has ended.
        Raises WorldError that says how the process ended if it did not answer.
        """
        with _throwaway_home() as home:
            # The user's own libraries are still to be found.
            base = self.environment.get("PYTHONUSERBASE") or site.getuserbase()
            ran = self._start(
                [sys.executable, "-c", CHILD, PACKAGE_PARENT, what] + list(words),
                dict(self.environment, HOME=home, PYTHONUSERBASE=base, PYTHONDONTWRITEBYTECODE="1",
                     **{name: home for name in XDG}))
        lines = ran.out.splitlines()
        if ran.code == 0 and lines:
            return json.loads(lines[-1])
        if ran.code < 0:
            raise WorldError("Python dies of signal %d%s on it" % (
                -ran.code, " (Illegal instruction)" if ran.code == -4 else ""))
        said = [line for line in ran.err.splitlines() if line.strip()]
        raise WorldError("Python ends with code %d on it: %s" % (
            ran.code, one_line(said[-1]) if said else "it says nothing"))

    @staticmethod
    def _start(command: List[str], environment: Mapping[str, str]) -> Ran:
        try:
            done = subprocess.run(command, env=dict(environment), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            raise WorldError("'%s' gave no answer within %g s" % (
                os.path.basename(command[0]), LIMIT_S))
        except OSError as error:
            raise NotStarted("'%s' cannot be started: %s" % (command[0], error.strerror or error))
        return Ran(done.returncode, done.stdout.decode("utf-8", "replace"),
                   done.stderr.decode("utf-8", "replace"))


@contextlib.contextmanager
def _throwaway_home() -> Iterator[str]:
    """A folder that is gone afterwards; where none can be made, a path at which nothing can be."""
    try:
        home = tempfile.mkdtemp(prefix="jetson-cluster-")
    except OSError:
        yield os.devnull
        return
    try:
        yield home
    finally:
        # What a library left running may still be writing there: then it stays, in /tmp.
        shutil.rmtree(home, ignore_errors=True)


def this_machine() -> Machine:
    """The computer this program runs on."""
    return Machine("/", os.environ, platform.machine(), os.geteuid(), time.time(), time.monotonic())
