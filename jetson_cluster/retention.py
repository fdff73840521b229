"""Room on the inbox's disk: what may be deleted when it fills up, and whether new images are taken in.

In: free bytes, and the catalog. Out: below the mark, files of acknowledged images are deleted, worst
rank first; when none is left, new images stay in the inbox unread, and that is said. Images that the
ground never received are deleted only where the config says so in as many words. Embedding and record
of an image stay. Only files below the inbox are deleted, never folders, nothing through a symlink, and
nothing whose size and mtime are others than those of the image.
"""

import errno
import logging
import os
from typing import Callable, Dict, List, NamedTuple, Sequence, Tuple

from jetson_cluster.catalog import Catalog
from jetson_cluster.clocks import utc_now
from jetson_cluster.config import DELETE_UNRECEIVED, RetentionConfig
from jetson_cluster.downlink import printable_path
from jetson_cluster.link_folder import Look, look_at, look_of
from jetson_cluster.records import Row
from jetson_cluster.schema import ACKED, DROPPED, QUEUED, SENT

log = logging.getLogger(__name__)

LOOK_S = 2.0
PIECE = 50  # images a look: a turn of the loop stays short, and 25 a second outpace any camera
# Room is made to so much above the mark, a twentieth, so that not every new image starts it anew.
SPARE_SHARE = 20
# The catalog's own disk, if it is another one: enough for 10,000 more records, its write-ahead log and
# the journal, in which acknowledgements must find room whatever happens.
STATE_BYTES = 64 * 1000 * 1000
# A file that could not be deleted is left out so long; with this many of them it is the disk or its
# permissions, and trying more would change nothing.
REST_S, MOST_RESTING = 600.0, 1000
NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
MEND = {
    errno.EACCES: "let the daemon's user write to that folder: the camera software needs umask 002",
    errno.EPERM: "let the daemon's user delete there: the folder is sticky, or the file immutable",
    errno.EROFS: "mount its file system for writing"}
GONE_BY_US, ELSE, REFUSED = "gone", "else", "refused"
ORIGIN = "retention"  # in the account


class Decision(NamedTuple):
    """What is to be done about the room on a disk."""

    delete: str  # ACKED, QUEUED for what the ground never received, or "" for nothing
    making_room: bool  # until there is some to spare
    accepting: bool  # new images


def decide(free_bytes: int, mark_bytes: int, before: Decision, acked_left: bool, more_left: bool
           ) -> Decision:
    """The next step, after `before`; `more_left` says whether there is anything unacknowledged that may be
    deleted. A mark of 0: there is none.

    Below the mark room is made, to a twentieth above it. While something may be deleted new images are
    taken in; else they are not, from below the mark until there is room to spare.
    """
    enough = free_bytes >= mark_bytes + mark_bytes // SPARE_SHARE
    if not mark_bytes or enough or (free_bytes >= mark_bytes and not before.making_room
                                    and before.accepting):
        return Decision("", False, True)
    if acked_left or more_left:
        return Decision(ACKED if acked_left else QUEUED, True, True)
    accepting = before.accepting and free_bytes >= mark_bytes
    return Decision("", not accepting, accepting)


class Retention:
    """Keeps room on the inbox's disk; use it from one thread."""

    def __init__(self, config: RetentionConfig, inbox_path: str, state_dir: str, catalog: Catalog,
                 monotonic: Callable[[], float], now: Callable[[], str] = utc_now,
                 statvfs=os.statvfs):
        """`statvfs` gets a path, as os.statvfs."""
        self._mark_bytes = config.free_bytes
        self._may_drop = config.unacknowledged == DELETE_UNRECEIVED
        self._inbox, self._state_dir = os.path.abspath(inbox_path), state_dir
        self._catalog, self._monotonic, self._now, self._statvfs = catalog, monotonic, now, statvfs
        self.error = ""  # why new images are not taken in, "" if they are
        self._room = self._state_room = Decision("", False, True)
        self._look_at = monotonic()
        self._resting = {}  # type: Dict[int, float]  # images that could not be deleted: until when
        self._refused = ""  # what could not be deleted, and why
        self._said = ""

    @property
    def accepting(self) -> bool:
        """Whether new images may be taken in."""
        return self._room.accepting and self._state_room.accepting

    def look(self, weights: Sequence[float]) -> bool:
        """Make a little room if there is too little; whether there is more now.

        `weights` are the clusters', by which images are ranked. To be called every turn while the
        inbox is there; it does something every 2 s. Raises sqlite3.Error, and nothing is lost by it.
        """
        if not self._mark_bytes or self._monotonic() < self._look_at:
            return False
        self._look_at = self._monotonic() + LOOK_S
        try:
            free, device = self._free(self._inbox)
            state_free, state_device = self._free(self._state_dir)
        except OSError as error:
            log.debug("free space unknown: %s", error)  # of a folder not there, its owner tells
            return False
        mark = self._mark_bytes
        if device == state_device:
            mark, self._state_room = max(mark, STATE_BYTES), Decision("", False, True)
        else:
            self._state_room = decide(state_free, STATE_BYTES, self._state_room, False, False)
        self._rest()
        acked, more = [], []  # type: List[int], List[int]
        if decide(free, mark, self._room, True, True).delete:
            acked = self._worst((ACKED,), weights)
            more = self._worst((QUEUED, SENT), weights) if self._may_drop and not acked else []
        self._room = decide(free, mark, self._room, bool(acked), bool(more))
        freed = 0
        if self._room.delete:
            freed = self._make_room(acked or more, mark + mark // SPARE_SHARE - free, not acked)
        self._tell(free, mark, state_free)
        return freed > 0

    def _free(self, folder: str) -> Tuple[int, int]:
        """(bytes free for this user, device); raises OSError."""
        status = self._statvfs(folder)
        return status.f_bavail * status.f_frsize, os.stat(folder).st_dev

    def _rest(self) -> None:
        now_s = self._monotonic()
        self._resting = {image: until for image, until in self._resting.items() if until > now_s}
        if not self._resting:
            self._refused = ""

    def _worst(self, states: Sequence[str], weights: Sequence[float]) -> List[int]:
        """At most PIECE images that may be deleted, those worth least first."""
        if len(self._resting) >= MOST_RESTING:
            return []
        for state in states:
            found = self._catalog.worst(state, weights, PIECE + len(self._resting))
            left = [image for image in found if image not in self._resting]
            if left:
                return left[:PIECE]
        return []

    # ---- deleting ----------------------------------------------------------------------------

    def _make_room(self, images: List[int], wanted_bytes: int, dropping: bool) -> int:
        """Delete files of these images, in their order, until so much is free; the bytes freed."""
        rows, chosen, planned = self._catalog.rows(images), [], 0
        for image in images:
            if planned >= wanted_bytes:
                break
            files = self._files_of(image)
            if files:
                chosen.append((rows[image], files))
                planned += rows[image].bytes * len(files)
            else:
                self._leave_out(image)
        if dropping:
            self._account(chosen)
        freed, done, missing = 0, [], []  # type: int, List[Row], List[int]
        for row, files in chosen:
            results = [self._delete(path, look) for path, look in files]
            freed += row.bytes * results.count(GONE_BY_US)
            if REFUSED in results:
                self._leave_out(row.image)
                if dropping:
                    self._audit(row, "refused", self._refused)
            elif not dropping or GONE_BY_US in results or self._was_dropped(row):
                done.append(row)
            else:
                missing.append(row.image)
                self._leave_out(row.image)
        # Afterwards: if the program ends before, the next look finds the files gone and goes on here.
        with self._catalog.together():
            self._catalog.retire([row.image for row in done])
            self._catalog.mark_missing(missing)
        if done and not dropping:
            log.info("ImagesDeleted: %d acknowledged ones, %s", len(done), _size(freed))
        for row in done if dropping else ():
            log.warning("ImageDropped: %s: %s: deleted to make room, and the ground never received it",
                        row.sha256, printable_path(row.path))
        return freed

    def _files_of(self, image: int) -> List[Tuple[str, Look]]:
        """Its files; none if one is not below the inbox, for then the image would not be gone."""
        files = [(path, (size, mtime_ns)) for path, size, mtime_ns in self._catalog.paths_of(image)]
        below = os.path.join(self._inbox, "")
        return files if all(path.startswith(below) for path, _ in files) else []

    def _leave_out(self, image: int) -> None:
        self._resting[image] = self._monotonic() + REST_S

    # ---- what the ground never received --------------------------------------------------------

    def _account(self, chosen: List[Tuple[Row, List[Tuple[str, Look]]]]) -> None:
        """Write down what is about to go, before it goes: none of it may be lost without a trace."""
        with self._catalog.together():
            for row, files in chosen:
                if any(look_at(path) == look for path, look in files):
                    self._audit(row, DROPPED, "never received; deleted to make room, %d bytes, from %s"
                                % (row.bytes, printable_path(row.path)))

    def _audit(self, row: Row, result: str, detail: str) -> None:
        self._catalog.audit(self._now(), ORIGIN, None, "delete", row.sha256, result, detail)

    def _was_dropped(self, row: Row) -> bool:
        """Whether the account says so of a file that is gone: the program ended before the catalog did."""
        return any((line.origin, line.action, line.result) == (ORIGIN, "delete", DROPPED)
                   for line in self._catalog.audit_rows(1, row.sha256))

    # ---- files ---------------------------------------------------------------------------------

    def _delete(self, path: str, look: Look) -> str:
        """What became of the file: GONE_BY_US, ELSE (gone, or of other content) or REFUSED."""
        try:
            return _delete_below(self._inbox, os.path.relpath(path, self._inbox), look)
        except OSError as error:
            refused = "%s: %s; %s" % (printable_path(path), error.strerror, MEND.get(
                error.errno, "see that its disk is well"))
            if not self._refused:
                log.error("NotDeleted: %s", refused)
            self._refused = refused
            return REFUSED

    # ---- what is said --------------------------------------------------------------------------

    def _tell(self, free_bytes: int, mark_bytes: int, state_free_bytes: int) -> None:
        if self.accepting:
            if self._said:
                log.warning("AcceptingAgain: %s free at %s; new images are read again",
                            _size(free_bytes), self._inbox)
            self.error = self._said = ""
            return
        if not self._state_room.accepting:
            kind = "state"
            why = "%s free of the %s to be kept at %s" % (
                _size(state_free_bytes), _size(STATE_BYTES), self._state_dir)
        else:
            kind = "refused" if self._refused else "nothing left"
            sent = self._catalog.counts[SENT]
            why = "%s free of the %s to be kept at %s; %s%s" % (
                _size(free_bytes), _size(mark_bytes), self._inbox,
                "what may be deleted cannot be, such as " + self._refused if self._refused
                else "nothing more may be deleted",
                ", but once they are acknowledged %d images that were sent, %s" % (
                    sent, _size(self._catalog.sizes[SENT])) if sent else "")
        why += "; new images stay in the inbox unread"
        if kind != self._said:
            log.error("NotAccepting: %s", why)
        self.error, self._said = "NotAccepting: " + why, kind


def _delete_below(folder: str, relative: str, look: Look) -> str:
    """Delete the file at that path below `folder` if it looks so; raises OSError if it stays.

    Every step is taken from the folder before: a folder that becomes a symlink leads nowhere else.
    """
    parts = relative.split(os.sep)
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
                            dir_fd=here)
            os.close(here)
            here = inner
        if look_of(os.stat(parts[-1], dir_fd=here, follow_symlinks=False)) != look:
            return ELSE
        os.unlink(parts[-1], dir_fd=here)
        return GONE_BY_US
    except OSError as error:
        if error.errno in NOT_THERE:
            return ELSE
        raise
    finally:
        os.close(here)


def _size(count: float) -> str:
    return "%.1f GB" % (count / 1e9) if count >= 1e8 else "%.1f MB" % (count / 1e6)
