"""What the fault tests share: work that is ended at any operation, and disks that lose power.

A Workbench runs real work in children of one warm process, with tests/faults/interpose.c between
the work and its files. A child can be killed at its n-th operation that changes the disk, or find
no room from the n-th on, or leave a trace of all of them; from a trace a Disk tells what a disk may
hold if the power is cut at any place in it.
"""

import contextlib
import ctypes
import json
import logging
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import traceback
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Union

import pytest

import jetson_cluster

FAULTS = pathlib.Path(__file__).resolve().parents[1] / "faults"
SOURCE = FAULTS / "interpose.c"
SOAK = os.environ.get("JETSON_CLUSTER_SOAK") == "1"
MINOR = sys.version_info[1]  # Pythons take turns: what one leaves out for time another does
BEFORE, AFTER, TORN = 1, 2, 3  # where the n-th operation ends the work; TORN: half a write is done
CHILD_S = 120  # a child that takes longer hangs
SECTOR = 512
FOLDER = -1  # stands for the content of a folder


class Scenario(NamedTuple):
    """Work that is killed, and loses power, at its operations."""

    work: str  # a function of scenarios.py
    before: str  # what is there when it begins, see Stage.save
    everything: bool = False  # operations on the inbox count as well

    def __str__(self) -> str:
        return self.work


SCENARIOS = [
    Scenario("arrival", "new"), Scenario("restart", "done"), Scenario("codebook_swap", "done"),
    Scenario("operations", "done"), Scenario("busy_life", "busy"), Scenario("outbox", "linking"),
    Scenario("retention", "short", everything=True), Scenario("rebuild", "damaged")]


class Link(NamedTuple):
    """A name for a file that lies outside of the folder."""

    target: str


class Kept(NamedTuple):
    """A file as a disk may hold it."""

    content: bytes
    mtime_ns: int  # 0: of no concern


Held = Dict[str, Union[None, Kept, Link]]  # what a folder holds, by path; None for a folder


# ---- work that is ended ------------------------------------------------------------------------

class Outcome(NamedTuple):
    """What became of one piece of work."""

    died: bool  # killed at the operation that was asked for
    operations: int  # how many there were; 0 if it died
    returned: Any
    told: List[list]  # what it told the outside, in order; log lines are ["log", level, message]

    @property
    def log(self) -> List[str]:
        """The warnings and errors it logged."""
        return [line[2] for line in self.told
                if line[0] == "log" and line[1] in ("WARNING", "ERROR", "CRITICAL")]


def interposer(folder: str) -> str:
    """Compile tests/faults/interpose.c into `folder`; skips the test where that cannot be done."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here: files under kills, power cuts and a full disk were NOT tested "
                    "(apt-get install gcc)")
    library = os.path.join(folder, "interpose.so")
    subprocess.check_call(["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror",
                           str(SOURCE), "-o", library, "-ldl", "-lpthread"])
    return library


def quick_folder() -> str:
    """A new folder, in memory where that is possible: a kill leaves the same there as on a disk."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
    return tempfile.mkdtemp(prefix="faults-", dir=place)


class Workbench:
    """A process that has everything imported and forks a child for each piece of work."""

    def __init__(self, folder: str, model: str):
        """`folder` is for the library and what the children tell."""
        self.model = model
        self._told = os.path.join(folder, "told")
        library = interposer(folder)
        package = os.path.dirname(os.path.dirname(os.path.abspath(jetson_cluster.__file__)))
        paths = [package, str(FAULTS), str(FAULTS.parent / "helpers")]
        self._process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), model], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, universal_newlines=True,
            env=dict(os.environ, LD_PRELOAD=library, PYTHONPATH=os.pathsep.join(paths),
                     OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1"))

    def close(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def run(self, work: str, *arguments, below: Optional[str] = None, die_at: int = 0,
            how: int = BEFORE, trace: str = "") -> Outcome:
        """Call the function `work` of scenarios.py with (tell, *arguments) in a child.

        Operations below the folder `below` are counted, and end the child at the `die_at`-th.
        Raises AssertionError if it ended in any other way than by returning or by that.
        """
        request = {"work": work, "arguments": arguments, "below": below and os.path.realpath(below),
                   "die_at": die_at, "how": how, "trace": trace, "told": self._told}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        with open(self._told, encoding="utf-8") as stream:
            told = [json.loads(line) for line in stream]
        ended = told.pop() if told and told[-1][0] in ("returned", "raised") else [None, None, 0]
        if ended[0] is None and die_at and os.WIFSIGNALED(status) and (
                os.WTERMSIG(status) == signal.SIGKILL):
            return Outcome(True, 0, None, told)
        assert ended[0] == "returned" and status == 0, "%s ended with status %d\n%s\n%s" % (
            work, status, "\n".join(map(str, told[-20:])), ended[1])
        return Outcome(False, ended[2], ended[1], told)


def serve(model: str) -> None:
    """The Workbench's process: one child for each request, one line for how it ended."""
    import scenarios

    scenarios.warm_up(model)
    for line in sys.stdin:
        request = json.loads(line)
        ear, mouth = os.pipe()  # not a file, which a limit on the size of files would reach
        child = os.fork()
        if child == 0:
            _work(scenarios, request, mouth)
        os.close(mouth)
        with os.fdopen(ear, "rb") as told, open(request["told"], "wb") as kept:
            shutil.copyfileobj(told, kept)
        print(os.waitpid(child, 0)[1], flush=True)


def _work(scenarios, request, told: int) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # standard output is the Workbench's
    signal.alarm(CHILD_S)
    tell = Teller(told)
    logging.basicConfig(level=logging.INFO, handlers=[LogTeller(tell)])
    interpose = ctypes.CDLL(None)
    trace = -1
    if request["trace"]:
        trace = os.open(request["trace"],
                        os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    try:
        if request["below"]:
            interpose.faults_arm(os.fsencode(request["below"]), ctypes.c_long(request["die_at"]),
                                 request["how"], trace)
        returned = getattr(scenarios, request["work"])(tell, *request["arguments"])
        tell("returned", returned, operations_so_far())
    except BaseException:
        tell("raised", traceback.format_exc(), 0)
    os._exit(0)


class Teller:
    """Tells the outside: what is told is known there, whatever happens to the teller."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    def __call__(self, *what) -> None:
        line = json.dumps(what).encode("ascii")
        os.write(self._descriptor, line + b"\n")
        ctypes.CDLL(None).faults_tell(line)


class LogTeller(logging.Handler):
    """What is logged is told as well."""

    def __init__(self, tell: Teller):
        super().__init__()
        self._tell = tell

    def emit(self, record) -> None:
        self._tell("log", record.levelname, record.getMessage())


def operations_so_far() -> int:
    """In a child: how many operations were counted."""
    interpose = ctypes.CDLL(None)
    interpose.faults_count.restype = ctypes.c_long
    return interpose.faults_count()


@contextlib.contextmanager
def no_room(skip: int = 0):
    """In a child: from the operation after the next `skip` on there is no room, until the end."""
    interpose = ctypes.CDLL(None)
    interpose.faults_full(ctypes.c_long(operations_so_far() + skip + 1))
    try:
        yield
    finally:
        interpose.faults_full(ctypes.c_long(0))


class Stage:
    """One rover's folder, `root`, that can be put back to how it was at any time it was saved.

    Always at the same path, because a catalog holds the paths of its images.
    """

    def __init__(self, workbench: Workbench):
        self.workbench, self._folder = workbench, quick_folder()
        self.root = os.path.join(self._folder, "rover")
        self.own = os.path.join(self.root, "own")  # where the daemon writes
        self.trace = os.path.join(self._folder, "trace")
        self._told = {}  # type: Dict[str, List[list]]
        os.mkdir(self.root)
        self.run("make_rover", workbench.model)
        self.save("new")

    def close(self) -> None:
        shutil.rmtree(self._folder)

    def save(self, name: str, told: Sequence[list] = ()) -> None:
        """Keep the folder as it is, and what the outside was told by now."""
        shutil.copytree(self.root, os.path.join(self._folder, "saved-" + name))
        self._told[name] = list(told)

    def restore(self, name: str) -> List[list]:
        """Put the folder back; what the outside had been told then."""
        shutil.rmtree(self.root)
        shutil.copytree(os.path.join(self._folder, "saved-" + name), self.root)
        return self._told[name]

    def run(self, work: str, *arguments, **how) -> Outcome:
        """Run `work` on this rover; with `die_at` or `trace`, the daemon's operations count."""
        if how:
            how.setdefault("below", self.own)
        return self.workbench.run(work, self.root, *arguments, **how)

    def below(self, scenario: Scenario) -> str:
        """The folder in which its operations count."""
        return self.root if scenario.everything else self.own


# ---- power cuts --------------------------------------------------------------------------------

class Operation(NamedTuple):
    """One line of a trace; `kind` is a letter of interpose.c."""

    kind: str
    number: int  # of all that were counted, failed ones included; the first is 1
    inode: int
    offset: int  # of a write; the new size for "t"
    path: str
    other: str  # where "r" and "l" put it
    data: bytes  # of a write; what was told for "!"


HEAD = struct.Struct("<cQQQIII")


def read_trace(path: str) -> List[Operation]:
    """All operations of a trace that interpose.c wrote, in order."""
    with open(path, "rb") as stream:
        content = stream.read()
    operations, place = [], 0
    while place < len(content):
        kind, number, inode, offset, one, two, size = HEAD.unpack_from(content, place)
        place += HEAD.size
        parts = []
        for length in (one, two, size):
            parts.append(content[place:place + length])
            place += length
        operations.append(Operation(kind.decode(), number, inode, offset, os.fsdecode(parts[0]),
                                    os.fsdecode(parts[1]), parts[2]))
    return operations


class File:
    """One file's content: what is on the disk for sure, and what was done to it since."""

    def __init__(self, content: bytes = b"", mtime_ns: int = 0):
        self.synced, self.pending, self._mtime_ns = content, [], mtime_ns

    def sync(self) -> None:
        content = bytearray(self.synced)
        for operation in self.pending:
            _apply(content, operation.kind, operation.offset, operation.data)
            self._mtime_ns = 0
        self.synced, self.pending = bytes(content), []

    def after_cut(self, random, share: float) -> Kept:
        """What the disk may hold: each pending change with that probability, or in part."""
        content = bytearray(self.synced)
        for operation in self.pending:
            if random.random() < share:
                _apply(content, operation.kind, operation.offset, operation.data)
            elif operation.kind == "w" and random.random() < 0.5:
                for start in range(0, len(operation.data), SECTOR):
                    if random.random() < 0.5:
                        _apply(content, "w", operation.offset + start,
                               operation.data[start:start + SECTOR])
            elif operation.kind == "w" and random.random() < 0.5:
                # The size got to the disk before the data did: zeros where there was nothing.
                end = operation.offset + len(operation.data)
                content.extend(bytes(max(0, end - len(content))))
        return Kept(bytes(content), 0 if self.pending else self._mtime_ns)


def _apply(content: bytearray, kind: str, offset: int, data: bytes) -> None:
    if kind == "t":
        del content[offset:]
        content.extend(bytes(offset - len(content)))
    else:
        content.extend(bytes(max(0, offset - len(content))))
        content[offset:offset + len(data)] = data


class Naming(NamedTuple):
    """One change of names, and the folders whose syncing makes it sure."""

    kind: str
    path: str
    other: str
    file: int
    folders: set


class Disk:
    """A folder on a disk that promises no more than it must.

    Contents are sure once the file was synced, names once their folder was; everything else may
    be there, or not, or in part, in any order. (In half of the cases names keep their order, as
    they do on file systems with a journal.)
    """

    def __init__(self, folder: str):
        """Start from the folder as it stands, all of it synced."""
        self.folder = os.path.realpath(folder)
        self._files = {}  # type: Dict[int, File]
        self._outside = {}  # type: Dict[int, str]  # number of the file: where else it is
        self._numbers = {}  # type: Dict[int, int]  # inode now: number of the file
        self._names = {}  # type: Dict[str, int]  # path: number of the file, or FOLDER
        self._folders = {os.stat(self.folder).st_ino: self.folder}
        self._namings = []  # type: List[Naming]
        self._synced = []  # type: List[bool]  # of self._namings
        for place, folders, names in os.walk(self.folder):
            for name in folders:
                path = os.path.join(place, name)
                self._names[path] = FOLDER
                self._folders[os.stat(path).st_ino] = path
            for name in names:
                path = os.path.join(place, name)
                status = os.stat(path)
                if status.st_ino not in self._numbers:
                    with open(path, "rb") as stream:
                        self._new_file(status.st_ino, stream.read(), status.st_mtime_ns)
                self._names[path] = self._numbers[status.st_ino]

    def _new_file(self, inode: int, content: bytes = b"", mtime_ns: int = 0) -> int:
        # Inodes are used again, and a file that was deleted may come back: numbers are not.
        self._numbers[inode] = len(self._files)
        self._files[self._numbers[inode]] = File(content, mtime_ns)
        return self._numbers[inode]

    def do(self, operation: Operation) -> None:
        """The next operation of the trace was done."""
        kind, inode, path, other = (operation.kind, operation.inode, operation.path,
                                    operation.other)
        if kind in "wt":
            self._files[self._numbers[inode]].pending.append(operation)
        elif kind == "s" and inode in self._folders:
            folder = self._folders[inode]
            self._synced = [synced or folder in naming.folders
                            for synced, naming in zip(self._synced, self._namings)]
        elif kind == "s":
            self._files[self._numbers[inode]].sync()
        elif kind in "cmrlu":
            if kind == "m":
                self._folders[inode] = path
            if kind == "l" and inode not in self._numbers:
                self._outside[self._new_file(inode)] = path
            number = (self._new_file(inode) if kind == "c" else
                      self._numbers.get(inode, FOLDER) if kind in "rlu" else FOLDER)
            touched = {os.path.dirname(place) for place in (path, other) if place}
            self._namings.append(Naming(kind, path, other, number, touched))
            self._synced.append(False)

    def after_cut(self, random) -> Held:
        """What the disk may hold if the power fails now."""
        share = random.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        if random.random() < 0.5:
            sure = max([place for place, synced in enumerate(self._synced) if synced] or [-1]) + 1
            end = random.randint(sure, len(self._namings))
            kept = [place < end for place in range(len(self._namings))]
        else:
            kept = [synced or random.random() < share for synced in self._synced]
        names = dict(self._names)
        for naming, keep in zip(self._namings, kept):
            if keep:
                _rename(names, naming)
        contents = {number: file.after_cut(random, share) for number, file in self._files.items()
                    }  # type: Dict[int, Union[Kept, Link]]
        contents.update((number, Link(target)) for number, target in self._outside.items())
        held = {}
        for path in sorted(names):  # folders before what is in them
            parent = os.path.dirname(path)
            if parent == self.folder or parent in held:
                held[path] = None if names[path] == FOLDER else contents[names[path]]
        return held


def _rename(names: Dict[str, int], naming: Naming) -> None:
    if naming.kind in "ru" and names.get(naming.path) == naming.file:
        del names[naming.path]
    if naming.kind in "cm":
        names[naming.path] = naming.file
    elif naming.kind in "rl":
        names[naming.other] = naming.file


def restore(folder: str, held: Held) -> None:
    """Make the folder hold just that. Folders in it stay the same ones, by inode."""
    for place, folders, names in os.walk(folder, topdown=False):
        for name in names:
            os.unlink(os.path.join(place, name))
        for path in (os.path.join(place, name) for name in folders):
            if path not in held:
                os.rmdir(path)
    for path, content in sorted(held.items()):
        if content is None:
            os.makedirs(path, exist_ok=True)
        elif isinstance(content, Link):
            with contextlib.suppress(FileNotFoundError):
                os.link(content.target, path)
        else:
            with open(path, "wb") as stream:
                stream.write(content.content)
            if content.mtime_ns:
                os.utime(path, ns=(content.mtime_ns, content.mtime_ns))


if __name__ == "__main__":
    sys.modules["faults"] = sys.modules["__main__"]
    serve(sys.argv[1])
