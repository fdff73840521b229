"""Which files of the inbox folder are ready to be read.

In: a folder tree that cameras write into. Out: `take()` gives the ready files, oldest first, each
once.

A file is ready when it was renamed into place, or when its size, mtime and inode were the same at
two looks at least `settle_s` apart. A file being closed is not enough: cameras open, append and
close over and over. Events (watcher.py) only say where to look, a stat decides, and walks
(walker.py) find what no event told: losing events costs time, never an image. What is waiting
stands in backlog.py.

Only the watcher's thread calls `notice`; everything else runs in the thread that calls `take()`.
"""

import logging
import os
import threading
import time
from collections import OrderedDict
from typing import Callable, List, NamedTuple, Optional

from jetson_cluster.backlog import KNOWN_CHUNK, Backlog, Known
from jetson_cluster.walker import Arrival, Walker, look
from jetson_cluster.watcher import CHANGED, FOLDER, FOLDER_RENAMED, RENAMED, Watcher

__all__ = ["Arrival", "Inbox"]

log = logging.getLogger(__name__)

# At most this many files wait in memory, ready or settling; the others wait in the folder.
BACKLOG_LIMIT = 10000
# With more unread hints than this a thorough walk is cheaper than remembering them.
HINT_LIMIT = 20000
# Names and hints looked at in one take(): a walk must not hold up a fresh image for long.
PIECE = 1000
# Every so many walks one that trusts no folder's mtime: files rewritten in place do not change it.
THOROUGH_EVERY = 20
# Between two walks lies at least this many times what the last one took: with a million files in
# the inbox that is long, and walking may not take more than a twentieth of a processor.
REST_PER_WALK = 19.0
# How often a missing inbox is looked for; nothing tells of its return.
RETURN_POLL_S = 1.0
# watchdog 2.3.1 leaks a descriptor each time the watch limit stops it: try again ever more rarely.
WATCH_RETRY_LIMIT_S = 3600.0


class Place(NamedTuple):
    """What tells one folder at the inbox's path from another."""

    device: int
    inode: int


class Inbox:
    """The inbox folder; a symlink is followed here, and nowhere below.

    `known` gets at most 500 arrivals and returns the paths of those already dealt with. `wake` is
    called from another thread when `take()` may have something new. Without `start()` there are no
    events and walks find everything.
    """

    def __init__(self, folder: str, settle_s: float = 1.0, rescan_s: float = 30.0,
                 known: Known = lambda arrivals: set(),
                 monotonic: Callable[[], float] = time.monotonic,
                 wake: Callable[[], None] = lambda: None,
                 backlog_limit: int = BACKLOG_LIMIT, mount: Optional[str] = None) -> None:
        self.folder = os.path.abspath(folder)
        self._rescan_s = rescan_s
        self._monotonic = monotonic
        self._wake = wake
        self._backlog = Backlog(settle_s, known, monotonic, backlog_limit)

        self._place: Optional[Place] = None  # None: the folder is not there
        self._mount = mount  # the mount point it was on when last seen, also in an earlier run
        self._said_missing = False

        self._lock = threading.Lock()  # guards the next two
        self._hints: "OrderedDict[str, str]" = OrderedDict()
        self._hints_lost = False

        self._walker = Walker(self.folder, monotonic)
        self._walk_piece = min(KNOWN_CHUNK, max(1, backlog_limit // 2))
        self._walks = 0
        self._walk_cost_s = 0.0
        self._next_walk_s = monotonic()
        self._thorough_wanted = True  # something may have been missed: the next walk trusts nothing

        self._started = False
        self._watcher: Optional[Watcher] = None
        self._watch_trouble = ""
        self._watch_retry_s = rescan_s
        self._next_watch_s = monotonic()

    # ---- what the status shows ---------------------------------------------------------------

    @property
    def available(self) -> bool:
        """Whether the folder was there at the last look."""
        return self._place is not None

    @property
    def mount(self) -> Optional[str]:
        """The mount point the folder is on, to be given to the next run; None if never seen."""
        return self._mount

    @property
    def backlog(self) -> int:
        """Files ready and waiting."""
        return self._backlog.ready

    @property
    def settling(self) -> int:
        """Files seen that may still be growing."""
        return self._backlog.settling

    @property
    def watching(self) -> bool:
        """Whether events come in; without them walks find new files, every `rescan_s`."""
        return self._watcher is not None and self._watcher.alive

    @property
    def drained(self) -> bool:
        """Whether the whole folder was looked through and nothing waits to be taken."""
        return (self.available and not self._thorough_wanted and not self._walker.active
                and not self._hints and not self.settling and not self.backlog)

    # ---- what the daemon does ----------------------------------------------------------------

    def start(self) -> None:
        """Watch the folder. A folder or a system that does not play along is no error: the log says
        so once, and walks do the work."""
        self._started = True
        if self._find_folder():
            self._mind_watcher()

    def stop(self) -> None:
        """Stop watching and let go of the folder; `start()` begins again."""
        self._started = False
        self._stop_watcher()
        self._walker.forget()
        self._want_thorough_walk()

    def take(self, limit: int) -> List[Arrival]:
        """At most `limit` ready files, oldest first (by mtime, then path).

        Each is to be answered by done() or give_back(); until then it is not given again. Raises
        only what `known` raises; nothing is lost then, a thorough walk follows.
        """
        if not self._find_folder():
            return []
        if self._started:
            self._mind_watcher()
        try:
            self._follow_hints()
            self._backlog.settle()
            self._walk()
        except Exception:
            # `known` failed with files in hand that nothing else remembers.
            self._want_thorough_walk()
            raise
        taken, changed = self._backlog.take(limit)
        with self._lock:
            for path in changed:
                self._hints[path] = CHANGED
        return taken

    def look_again(self) -> bool:
        """Whether the folder is there now, mounted as before; `available` is what it was then."""
        return self._find_folder()

    def give_back(self, arrival: Arrival) -> None:
        """This taken file was not processed: offer it again."""
        self._backlog.give_back(arrival)

    def done(self, arrival: Arrival) -> None:
        """This taken file was dealt with: `known` vouches for it until it changes."""
        self._backlog.done(arrival)

    def next_due_s(self) -> float:
        """Seconds until `take()` could find something new without an event."""
        if not self.available:
            return RETURN_POLL_S
        if self.backlog or self._can_walk() or (self._hints and self._backlog.room):
            return 0.0
        # A walk that waits for room goes on when a settled file is taken.
        dues = [] if self._walker.whole else [self._next_walk_s]
        if self._backlog.next_due_s is not None:
            dues.append(self._backlog.next_due_s)
        return max(0.0, min(dues) - self._monotonic())

    # ---- the folder itself -------------------------------------------------------------------

    def _find_folder(self) -> bool:
        """Whether the folder is there; starts afresh if it is another one than before."""
        try:
            # With a separator at the end a file of that name is an error as well.
            status = os.stat(os.path.join(self.folder, ""))
            place = Place(status.st_dev, status.st_ino)
            if place == self._place:
                return True
            mount = mount_point(os.path.realpath(self.folder))
        except OSError as error:
            self._folder_lost(error.strerror)
            return False
        if self._mount is not None and _is_above(mount, self._mount):
            # A card was taken out: this is the bare folder that it was mounted over.
            self._folder_lost("nothing is mounted at {}, where it was before; if no card belongs "
                              "there any more, set inbox.path to another folder".format(self._mount))
            return False
        if self._said_missing:
            log.warning("InboxFound: %s is there now", self.folder)
            self._said_missing = False
        elif self._place is not None:
            log.warning("InboxReplaced: %s is another folder than before", self.folder)
        self._place, self._mount = place, mount
        self._start_afresh()
        return True

    def _folder_lost(self, why: str) -> None:
        if not self._said_missing:
            log.error("InboxMissing: %s: %s; waiting for it", self.folder, why)
            self._said_missing = True
        if self._place is not None:
            self._place = None
            self._start_afresh()

    def _start_afresh(self) -> None:
        """Drop all that is seen but not taken: a walk finds it again, if it is there."""
        self._stop_watcher()
        self._next_watch_s = self._monotonic()
        with self._lock:
            self._hints.clear()
            self._hints_lost = False
        self._backlog.clear()
        self._walker.forget()
        self._want_thorough_walk()

    # ---- events ------------------------------------------------------------------------------

    def notice(self, path: str, hint: str) -> None:
        """Something happened to this path (hints of watcher.py); called by the watcher's thread."""
        with self._lock:
            if path in self._hints or len(self._hints) < HINT_LIMIT:
                # The last event counts: a file written to after its rename is not ready.
                self._hints[path] = hint
            else:
                self._hints_lost = True
        self._wake()

    def _mind_watcher(self) -> None:
        """Start a watcher if there is none, replace it if it died."""
        if self.watching:
            return
        if self._watcher is not None:
            self._stop_watcher()
            self._say_unwatched("its observer died")
        now_s = self._monotonic()
        if now_s < self._next_watch_s:
            return
        if self._start_watcher():
            # Nobody told what happened until now.
            self._want_thorough_walk()
            self._watch_retry_s = self._rescan_s
        else:
            self._watch_retry_s = min(2 * self._watch_retry_s, WATCH_RETRY_LIMIT_S)
        self._next_watch_s = now_s + self._watch_retry_s

    def _start_watcher(self) -> bool:
        """Put a new watcher in the place of the old one, without a gap between them."""
        watcher = Watcher(self.folder, self.notice)
        try:
            watcher.start()
        except (OSError, RuntimeError) as error:
            self._say_unwatched(getattr(error, "strerror", None) or str(error))
            return False
        self._stop_watcher()
        self._watcher = watcher
        if self._watch_trouble:
            log.warning("InboxWatched: %s is watched again", self.folder)
            self._watch_trouble = ""
        return True

    def _stop_watcher(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher = None

    def _say_unwatched(self, why: str) -> None:
        if self._watch_trouble != why:
            log.warning("InboxUnwatched: %s: %s; new files are found every %g s instead",
                        self.folder, why, self._rescan_s)
            self._watch_trouble = why

    def _follow_hints(self) -> None:
        with self._lock:
            count = min(len(self._hints), self._backlog.room, PIECE)
            hints = [self._hints.popitem(last=False) for _ in range(count)]
            lost, self._hints_lost = self._hints_lost, False
        if lost:
            log.warning("EventsLost: more than can be remembered; walking through %s", self.folder)
            self._want_thorough_walk()
        candidates = []
        for path, hint in hints:
            if hint in (FOLDER, FOLDER_RENAMED):
                self._walker.add(path)
                continue
            arrival = look(path)
            if arrival is None:
                self._backlog.drop(path)
            else:
                candidates.append((arrival, hint == RENAMED))
        self._backlog.admit(candidates)
        came_whole = any(hint == FOLDER_RENAMED for _, hint in hints)
        if came_whole and self._started and not self._start_watcher():
            self._stop_watcher()

    # ---- walks -------------------------------------------------------------------------------

    def _want_thorough_walk(self) -> None:
        """After the one under way, or at once. Not in its stead: under a flood none would end."""
        self._thorough_wanted = True
        self._next_walk_s = self._monotonic()

    def _can_walk(self) -> bool:
        # Only in whole pieces: one call of `known` for each freed place would be slow.
        return self._walker.active and self._backlog.room >= self._walk_piece

    def _walk(self) -> None:
        began_s = self._monotonic()
        if not self._walker.whole and began_s >= self._next_walk_s:
            self._walker.begin(self._thorough_wanted or self._walks % THOROUGH_EVERY == 0)
            self._thorough_wanted = False
        whole = self._walker.whole
        for _ in range(PIECE // self._walk_piece):
            if self._can_walk():
                found = self._walker.step(self._walk_piece)
                self._backlog.admit([(arrival, False) for arrival in found])
        if not whole:
            return
        now_s = self._monotonic()
        self._walk_cost_s += now_s - began_s
        if not self._walker.active:
            self._walks += 1
            self._next_walk_s = now_s
            if not self._thorough_wanted:
                self._next_walk_s += max(self._rescan_s, REST_PER_WALK * self._walk_cost_s)
            self._walk_cost_s = 0.0


def mount_key(folder: str) -> str:
    """Under which the catalog keeps the mount point of an inbox."""
    return "mount of " + os.fsencode(folder).decode("utf-8", "backslashreplace")


def mount_point(path: str) -> str:
    """The folder at which the file system that holds `path` (absolute, no symlinks) is mounted."""
    device = os.stat(path).st_dev
    while path != os.path.dirname(path) and os.stat(os.path.dirname(path)).st_dev == device:
        path = os.path.dirname(path)
    return path


def _is_above(folder: str, other: str) -> bool:
    return other != folder and other.startswith(os.path.join(folder, ""))
