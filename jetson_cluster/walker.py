"""Finds the files in a folder tree, piece by piece, passing over what cannot have changed.

In: a root folder. Out: `Arrival`s, what each candidate file looks like at the moment. Symlinks,
FIFOs, sockets, devices, dot names and names of unfinished files are left out. Nothing here decides
whether a file is ready; that is backlog.py.
"""

import errno
import logging
import os
import stat
from typing import Callable, Dict, List, NamedTuple, Optional, Set, Tuple

log = logging.getLogger(__name__)

# What browsers, rsync wrappers and camera software call a file they have not finished.
UNFINISHED_SUFFIXES = (".part", ".tmp", ".partial", ".crdownload")

# FAT keeps times to 2 s, the coarsest of the file systems a camera card may bring: two changes
# closer together than that can leave a folder with the same mtime.
MTIME_GRAIN_S = 2.0

GONE = (errno.ENOENT, errno.ENOTDIR)


class Arrival(NamedTuple):
    """One file as it looked: absolute path, size, mtime, inode. Two equal ones: unchanged."""

    path: str
    bytes: int
    mtime_ns: int
    inode: int


class FolderState(NamedTuple):
    """What is remembered of a listed folder; times are of the monotonic clock."""

    mtime_ns: int
    since_s: float  # when this mtime was first seen
    listed_s: float  # when the last complete listing began
    subfolders: Tuple[str, ...]


class Listing:
    """A folder being listed."""

    def __init__(self, folder: str, mtime_ns: int, since_s: float, began_s: float) -> None:
        self.folder = folder
        self.mtime_ns = mtime_ns
        self.since_s = since_s
        self.began_s = began_s
        self.entries = os.scandir(folder)
        self.subfolders: List[str] = []
        self.complete = True  # False once something in the folder could not be examined


def is_passed_over(name: str) -> bool:
    """Whether a file or folder of this name (no slashes) is hidden or not finished."""
    return name.startswith(".") or name.lower().endswith(UNFINISHED_SUFFIXES)


def look(path: str) -> Optional[Arrival]:
    """The file at `path` as it is now; None if there is no regular file that can be examined."""
    try:
        return examine(path)
    except OSError as error:
        log.warning("FileNotExamined: %r: %s", path, error.strerror)
        return None


def examine(path: str) -> Optional[Arrival]:
    """The file at `path` as it is now; None if there is no regular file.

    Raises OSError if that cannot be told, as from a card that fails.
    """
    status = _status(path)
    return None if status is None else _arrival(path, status)


def is_gone(path: str) -> bool:
    """Whether there is nothing of that name; what a failing card does not tell of may be there."""
    try:
        return _status(path) is None
    except OSError:
        return False


def _status(path: str) -> Optional[os.stat_result]:
    """What lstat says; None if there surely is nothing, OSError if that cannot be told."""
    try:
        return os.lstat(path)
    except OSError as error:
        if error.errno in GONE:
            return None
        raise


def _arrival(path: str, status: os.stat_result) -> Optional[Arrival]:
    if not stat.S_ISREG(status.st_mode):
        return None
    return Arrival(path, status.st_size, status.st_mtime_ns, status.st_ino)


class Walker:
    """An interruptible walk over one tree, repeated for as long as the owner lives.

    A folder is passed over in a later walk while its mtime stays what it was, once a listing began
    at least MTIME_GRAIN_S after that mtime was first seen: any later change then shows in it. That
    needs no clock but the monotonic one, so a rover's clock being set changes nothing. Files
    rewritten in place do not change their folder; a thorough walk finds those.
    """

    def __init__(self, root: str, monotonic: Callable[[], float]) -> None:
        self.root = root
        self._monotonic = monotonic
        self._known: Dict[str, FolderState] = {}
        self._unreadable: Set[str] = set()
        self._stack: List[str] = []
        self._listing: Optional[Listing] = None
        self._visited: Optional[Set[str]] = None  # None: no walk over the whole tree is under way
        self._thorough = False

    @property
    def active(self) -> bool:
        """Whether there is anything left to list."""
        return bool(self._stack) or self._listing is not None

    @property
    def whole(self) -> bool:
        """Whether a walk over the whole tree is under way."""
        return self._visited is not None

    def begin(self, thorough: bool) -> None:
        """Start over with the whole tree; `thorough` lists every folder, changed or not."""
        self._close_listing()
        self._stack = [self.root]
        self._visited = set()
        self._thorough = thorough

    def add(self, folder: str) -> None:
        """List this folder, and what is below it, as well."""
        self._known.pop(folder, None)
        self._stack.append(folder)

    def forget(self) -> None:
        """Drop the walk and all memory of the tree: it is another one now."""
        self._close_listing()
        self._stack = []
        self._visited = None
        self._known.clear()
        self._unreadable.clear()

    def step(self, limit: int) -> List[Arrival]:
        """Look at no more than `limit` names; the candidate files among them, in no order."""
        found = []
        for _ in range(limit):
            if self._listing is not None:
                arrival = self._next(self._listing)
                if arrival is not None:
                    found.append(arrival)
            elif self._stack:
                self._enter(self._stack.pop())
            else:
                break
        if not self.active:
            self._finish()
        return found

    def _enter(self, folder: str) -> None:
        now_s = self._monotonic()
        try:
            # The root may be a symlink, an operator's choice; nothing below it may.
            status = os.stat(folder) if folder == self.root else os.lstat(folder)
            if not stat.S_ISDIR(status.st_mode):
                return
            before = self._known.get(folder)
            same = before is not None and before.mtime_ns == status.st_mtime_ns
            if self._visited is not None:
                self._visited.add(folder)
            if same and not self._thorough and before.listed_s - before.since_s >= MTIME_GRAIN_S:
                self._stack.extend(before.subfolders)
                return
            since_s = before.since_s if same else now_s
            self._listing = Listing(folder, status.st_mtime_ns, since_s, now_s)
        except OSError as error:
            self._cannot_read(folder, error)

    def _next(self, listing: Listing) -> Optional[Arrival]:
        try:
            entry = next(listing.entries, None)
        except OSError as error:
            self._cannot_read(listing.folder, error)
            listing.complete = False
            entry = None
        if entry is None:
            self._leave(listing)
            return None
        if is_passed_over(entry.name):
            return None
        try:
            if entry.is_dir(follow_symlinks=False):
                listing.subfolders.append(entry.path)
                return None
            return _arrival(entry.path, entry.stat(follow_symlinks=False))
        except OSError as error:
            if error.errno not in GONE:
                self._cannot_read(listing.folder, error)
                listing.complete = False
            return None

    def _leave(self, listing: Listing) -> None:
        self._close_listing()
        self._stack.extend(listing.subfolders)
        if listing.complete:
            self._unreadable.discard(listing.folder)
            self._known[listing.folder] = FolderState(
                listing.mtime_ns, listing.since_s, listing.began_s, tuple(listing.subfolders))
        else:
            self._known.pop(listing.folder, None)

    def _finish(self) -> None:
        if self._visited is not None:
            self._known = {f: s for f, s in self._known.items() if f in self._visited}
            self._unreadable &= self._visited
            self._visited = None
        self._thorough = False

    def _close_listing(self) -> None:
        if self._listing is not None:
            self._listing.entries.close()
            self._listing = None

    def _cannot_read(self, folder: str, error: OSError) -> None:
        self._known.pop(folder, None)
        if error.errno not in GONE and folder not in self._unreadable:
            self._unreadable.add(folder)
            log.warning("FolderUnreadable: %r: %s; its images wait until it can be read",
                        folder, error.strerror)
