"""What operations did, one line each, in a text file beside the catalog that outlives the catalog.

In: entries (an image was sent, acknowledged, held ...; an order was applied). Out: the same entries,
in order, also if the catalog had to be made anew. A line is a JSON array and the CRC-32 of it: a
damaged line is told by that and costs only itself. What `append` returned from survives a power cut.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import time
import zlib
from typing import Callable, Iterable, Iterator, List, NamedTuple, Optional

from jetson_cluster.files import replace_atomically

log = logging.getLogger(__name__)

FILE_NAME = "journal"  # in state_dir
MODE = 0o640
# Others hold the lock for one write and fsync; SQLite waits as long for its own.
PATIENCE_S, RETRY_S = 30.0, 0.02
TORN = b" torn"  # ends a line that was begun and never confirmed
TAIL_BYTES = 65536


class Entry(NamedTuple):
    """One thing that was done."""

    what: str  # sent, acked, queued, held, pinned, unpinned, order, preview, ...
    sha256: str  # of the image, hex; "" for an order
    number: int  # of the pass; 0: of none
    text: str  # id of the order, or ""


class Read(NamedTuple):
    """What stands in the file."""

    entries: List[Entry]
    damaged: int  # lines that cannot be trusted; a last one that was never confirmed is none


class Journal:
    """One file; any number of processes may append to it."""

    def __init__(self, path: str, patience_s: float = PATIENCE_S):
        """Nothing is opened or made yet. `patience_s` is how long another process is waited for."""
        self.path, self._patience_s = path, patience_s
        self._folder = os.path.dirname(os.path.abspath(path))

    def append(self, entries: Iterable[Entry]) -> None:
        """Add the entries durably, all with one write.

        Raises OSError if that cannot be done; the file is then as before, as far as the disk lets
        it. After a kill the first of the entries may stand in it and the others not.
        """
        content = b"".join(_line(entry) for entry in entries)
        if not content:
            return
        with self._locked() as folder:
            descriptor = os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
            try:
                size = os.fstat(descriptor).st_size
                if size == 0:
                    # Before anything is in it: so a file with something in it surely has its name.
                    os.fsync(folder)
                try:
                    _write(descriptor, _ending_of(descriptor, size) + content)
                except BaseException:
                    self._cut(descriptor, size)
                    raise
            finally:
                os.close(descriptor)

    def entries(self, start: int = 0) -> Iterator[Optional[Entry]]:
        """All entries, or those from byte `start` on, oldest first; None for each damaged line.

        None at all if there is no file. Raises OSError.
        """
        try:
            stream = open(self.path, "rb")
        except FileNotFoundError:
            return
        with stream:
            stream.seek(start)
            for line in stream:
                entry = _entry(line.rstrip(b"\n"))
                # A last line that was never confirmed is no damage.
                if entry is not None or (line.endswith(b"\n")
                                         and not line.endswith(TORN + b"\n")):
                    yield entry

    def read(self) -> Read:
        """The whole of it at once; raises OSError."""
        found = list(self.entries())
        known = [entry for entry in found if entry is not None]
        return Read(known, len(found) - len(known))

    def rewrite(self, make: Callable[[], Iterable[Entry]]) -> None:
        """Replace the file, atomically, by the entries that `make` gives.

        A function and not a list, for nothing may be appended between making and replacing. Raises
        OSError and leaves the old file.
        """
        def write(stream):
            os.fchmod(stream.fileno(), MODE)
            for entry in make():
                stream.write(_line(entry))

        with self._locked():
            replace_atomically(self.path, write)

    @contextlib.contextmanager
    def _locked(self):
        """Hold the journal against other processes; gives a descriptor of its folder.

        The folder is locked and not the file, which `rewrite` replaces by another one.
        """
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            deadline = time.monotonic() + self._patience_s
            while True:
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise TimeoutError(errno.ETIMEDOUT, "another process has held it for %g s"
                                           % self._patience_s, self.path)
                time.sleep(RETRY_S)
            yield folder
        finally:
            os.close(folder)

    def _cut(self, descriptor: int, size: int) -> None:
        """Take back what was not written whole; if not even that can be done, it reads as torn."""
        try:
            os.ftruncate(descriptor, size)
        except OSError as error:
            log.error("JournalNotCut: %s: %s", self.path, error)


def _write(descriptor: int, content: bytes) -> None:
    """Write all of it at once and force it to disk, or raise OSError."""
    written = os.write(descriptor, content)
    if written != len(content):
        raise OSError(errno.ENOSPC, "only %d of %d bytes were written" % (written, len(content)))
    os.fsync(descriptor)


def _ending_of(descriptor: int, size: int) -> bytes:
    """What ends the last line of the file, so that a torn one spoils nothing that is appended."""
    tail = os.pread(descriptor, TAIL_BYTES, max(0, size - TAIL_BYTES))
    if not tail or tail.endswith(b"\n"):
        return b""
    return b"\n" if _entry(tail[tail.rfind(b"\n") + 1:]) else TORN + b"\n"


def _line(entry: Entry) -> bytes:
    # ASCII without control characters whatever a name holds: one line stays one line.
    content = json.dumps(entry, separators=(",", ":")).encode("ascii")
    return content + b" %08x\n" % zlib.crc32(content)


def _entry(line: bytes) -> Optional[Entry]:
    """The entry on the line, without its newline; None if it is not exactly as it was written."""
    content, _, checksum = line.rpartition(b" ")
    if checksum != b"%08x" % zlib.crc32(content):
        return None
    try:
        what, sha256, number, text = json.loads(content.decode("ascii"))
    except (ValueError, TypeError, RecursionError):
        return None  # a sound checksum over something else: not written here
    entry = Entry(what, sha256, number, text)
    return entry if all(map(isinstance, entry, (str, str, int, str))) else None
