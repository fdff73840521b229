"""Room on the inbox's disk: what is deleted when it fills up, and whether new images are taken in.

In: free bytes, and the catalog. Out: below the mark, files of acknowledged images are deleted,
worst rank first; when none is left, new images stay in the inbox unread, and that is said. Images
that the ground never received are deleted only where the config says so in as many words, and none
that operations or the policy hold or pin. Embedding and record of an image stay. Only files below
the inbox are deleted, never folders, nothing through a symlink, and nothing of other content than
the image's, see removal.py.
"""

import errno
import json
import logging
import os
import sqlite3
from typing import Callable, Collection, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from jetson_cluster.catalog import Catalog
from jetson_cluster.clocks import utc_now
from jetson_cluster.config import DELETE_UNRECEIVED, RetentionConfig
from jetson_cluster.downlink import printable_path
from jetson_cluster.files import sync_folder
from jetson_cluster.link_folder import Look, look_at
from jetson_cluster.records import Row
from jetson_cluster.removal import ABSENT, GONE, OTHER, aside_of, put_back, remove
from jetson_cluster.schema import ACKED, DROPPED, QUEUED, SENT
from jetson_cluster.wording import counted, in_units

log = logging.getLogger(__name__)

LOOK_S = 2.0
# A look's images, and their bytes, for they are read: a turn of the loop stays short, and 25 images
# or 32 MB a second outpace any camera.
PIECE, PIECE_BYTES = 50, 64 * 1000 * 1000
# Room is made to so much above the mark, a twentieth, so that not every new image starts it anew.
SPARE_SHARE = 20
# The catalog's own disk, if it is another one: enough for 10,000 more records, its write-ahead log
# and the journal, in which acknowledgements must find room whatever happens.
STATE_BYTES = 64 * 1000 * 1000
# A file that could not be deleted is left out so long; with this many of them it is the disk or its
# permissions, and trying more would change nothing.
REST_S, MOST_REFUSING = 600.0, 1000
MEND = {
    errno.EACCES: "let the daemon's user write to that folder: the camera software needs umask 002",
    errno.EPERM: "let the daemon's user delete there: the folder is sticky, or the file immutable",
    errno.EROFS: "mount its file system for writing",
    errno.ENOSPC: "its folder has no room for one more name; once others made some it is tried again"}
REFUSED = "refused"  # what became of a file, beside what remove() says
ORIGIN = "retention"  # in the account
# In the catalog: JSON [[inbox, path below it], ...] of files that a kill may have left aside.
NOTE = "files being deleted"


class Decision(NamedTuple):
    """What is to be done about the room on a disk."""

    delete: str  # ACKED, QUEUED for what the ground never received, or "" for nothing
    making_room: bool  # until there is some to spare
    accepting: bool  # new images


def decide(free_bytes: int, mark_bytes: int, before: Decision, acked_left: bool, more_left: bool
           ) -> Decision:
    """The next step, after `before`; `more_left` says whether there is anything unacknowledged that
    may be deleted. A mark of 0: there is none.

    Below the mark room is made, to a twentieth above it. While something may be deleted new images
    are taken in; else they are not, from below the mark until there is room to spare.
    """
    enough = free_bytes >= mark_bytes + mark_bytes // SPARE_SHARE
    if not mark_bytes or enough or (free_bytes >= mark_bytes and not before.making_room
                                    and before.accepting):
        return Decision("", False, True)
    if acked_left or more_left:
        return Decision(ACKED if acked_left else QUEUED, True, True)
    accepting = before.accepting and free_bytes >= mark_bytes
    return Decision("", not accepting, accepting)


class _Chosen(NamedTuple):
    """An image that is to go, with its files; () where these are gone."""

    row: Row
    files: Sequence[Tuple[str, Look]]


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
        self._refusing = {}  # type: Dict[int, float]  # those that cannot be deleted: until when
        self._elsewhere = set()  # type: Set[int]  # those with no file that could be deleted here
        self._refused = ""  # what could not be deleted, and why
        self._aside = None  # type: Optional[List[List[str]]]  # as NOTE; None: not looked up yet
        self._aside_told = False
        self._said = ""

    @property
    def accepting(self) -> bool:
        """Whether new images may be taken in."""
        return self._room.accepting and self._state_room.accepting

    def look(self, weights: Callable[[], Sequence[float]],
             spared: Callable[[], Collection[int]]) -> bool:
        """Make a little room if there is too little; whether there is more now.

        `weights` gives the clusters', by which images are ranked; `spared` gives the images that
        are not to be lost, those the policy names. To be called every turn while the inbox is
        there; it does something every 2 s. Raises sqlite3.Error; nothing is lost by it.
        """
        if self._monotonic() < self._look_at:
            return False
        self._look_at = self._monotonic() + LOOK_S
        self._put_back()
        if not self._mark_bytes:
            return False
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
        state, images = "", []  # type: str, List[int]
        if decide(free, mark, self._room, True, True).delete:
            for state in (ACKED, QUEUED, SENT) if self._may_drop else (ACKED,):
                images = self._worst(state, weights(), () if state == ACKED else spared())
                if images:
                    break
        self._room = decide(free, mark, self._room, state == ACKED and bool(images), bool(images))
        freed = 0
        if self._room.delete:
            freed = self._make_room(state, images, mark + mark // SPARE_SHARE - free)
        self._tell(free, mark, state_free)
        return freed > 0

    def _free(self, folder: str) -> Tuple[int, int]:
        """(bytes free for this user, device); raises OSError."""
        status = self._statvfs(folder)
        return status.f_bavail * status.f_frsize, os.stat(folder).st_dev

    def _rest(self) -> None:
        now_s = self._monotonic()
        self._refusing = {image: until for image, until in self._refusing.items() if until > now_s}
        if not self._refusing:
            self._refused = ""

    def _worst(self, state: str, weights: Sequence[float], spared: Collection[int]) -> List[int]:
        """At most PIECE images in `state` that may be deleted, those worth least first."""
        if len(self._refusing) >= MOST_REFUSING:
            return []
        return self._catalog.worst(state, weights, PIECE,
                                   self._elsewhere.union(self._refusing, spared))

    # ---- deleting ----------------------------------------------------------------------------

    def _make_room(self, state: str, images: List[int], wanted_bytes: int) -> int:
        """Delete files of these images, in their order, until so much is free; the bytes freed."""
        chosen, planned, dropping = [], 0, state != ACKED  # type: List[_Chosen], int, bool
        rows = self._catalog.rows(images)
        for image in images:
            if planned >= min(wanted_bytes, PIECE_BYTES):
                break
            files = self._files_of(image)
            if files is None or (dropping and not files):
                self._elsewhere.add(image)
            else:
                chosen.append(_Chosen(rows[image], files))
                planned += rows[image].bytes * len(files)
        accounted = True
        try:
            with self._catalog.together():
                self._note(chosen)
                if dropping:
                    self._account(chosen)
        except sqlite3.Error as error:
            # Full to the last byte: the first one has to make room for what is written of it.
            chosen, accounted = chosen[:1], False
            if dropping:
                log.error("DropNotAccounted: %s; first one image goes: %s", error, " ".join(
                    "%s: %s" % (row.sha256, printable_path(row.path)) for row, _ in chosen))
        with self._catalog.together():  # nobody else moves one of them to another state meanwhile
            freed, done = self._delete_all(chosen, state)
            if dropping and not accounted:
                self._account([_Chosen(row, ()) for row in done])
        self._sync(chosen)
        if done and not dropping:
            log.info("ImagesDeleted: %s, acknowledged before, %s",
                     counted(len(done), "image"), in_units(freed))
        for row in done if dropping else ():
            log.warning("ImageDropped: %s: %s: deleted to make room; the ground never acknowledged it",
                        row.sha256, printable_path(row.path))
        return freed

    def _delete_all(self, chosen: Sequence[_Chosen], state: str) -> Tuple[int, List[Row]]:
        """(bytes freed, images without a file now) within a transaction.

        Deleted before it is committed: if the program ends before that, the next look finds the
        files gone and goes on from there; and a full disk has room again to write it down.
        """
        freed, done, missing = 0, [], []  # type: int, List[Row], List[int]
        rows = self._catalog.rows([row.image for row, _ in chosen])
        for row, files in chosen:
            now = rows.get(row.image)
            if now is None or now.state != state or (state != ACKED and now.pinned is not None):
                continue
            results = [self._delete(path, look, row.sha256) for path, look in files]
            for path in (path for (path, _), what in zip(files, results) if what == OTHER):
                self._catalog.forget_file(path)  # for the inbox to read what is there now
            freed += row.bytes * results.count(GONE)
            if REFUSED in results:
                self._refusing[row.image] = self._monotonic() + REST_S
                if state != ACKED:
                    self._audit(row, "refused", self._refused)
            elif state == ACKED or GONE in results or (
                    OTHER not in results and self._was_dropped(row)):
                done.append(row)
            else:  # others removed it, or wrote something else: that is not dropped
                if OTHER in results:
                    self._audit(row, "refused", "another file has its name; that one stays")
                missing.append(row.image)
                self._elsewhere.add(row.image)
        self._catalog.retire([row.image for row in done])
        self._catalog.mark_missing(missing)
        return freed, done

    def _files_of(self, image: int) -> Optional[List[Tuple[str, Look]]]:
        """Its files; None if one is not below the inbox, for then the image would not be gone."""
        files = [(path, (size, mtime_ns)) for path, size, mtime_ns in self._catalog.paths_of(image)]
        below = os.path.join(self._inbox, "")
        return files if all(path.startswith(below) for path, _ in files) else None

    # ---- what the ground never received --------------------------------------------------------

    def _account(self, chosen: Sequence[_Chosen]) -> None:
        """Write down what is about to go, before it goes: none may be lost without a trace."""
        with self._catalog.together():
            for row, files in chosen:
                if not files or any(look_at(path) == look for path, look in files):
                    self._audit(row, DROPPED, "never received; deleted to make room, %d bytes, "
                                "from %s" % (row.bytes, printable_path(row.path)))

    def _audit(self, row: Row, result: str, detail: str) -> None:
        self._catalog.audit(self._now(), ORIGIN, None, "delete", row.sha256, result, detail)

    def _was_dropped(self, row: Row) -> bool:
        """Whether the account says so of a file that is gone: the program ended just then."""
        return any((line.origin, line.action, line.result) == (ORIGIN, "delete", DROPPED)
                   for line in self._catalog.audit_rows(1, row.sha256))

    # ---- files ---------------------------------------------------------------------------------

    def _delete(self, path: str, look: Look, sha256: str) -> str:
        """What became of the file: GONE, ABSENT, OTHER or REFUSED."""
        below = os.path.relpath(path, self._inbox)
        try:
            return remove(self._inbox, below, look, sha256)
        except OSError as error:
            self._aside.append([self._inbox, below])
            refused = "%s: %s; %s" % (printable_path(path), error.strerror, MEND.get(
                error.errno, "see that its disk is well"))
            if not self._refused:
                log.error("NotDeleted: %s", refused)
            self._refused = refused
            return REFUSED

    def _note(self, chosen: Sequence[_Chosen]) -> None:
        """Write down which files may stand aside if the program ends now."""
        self._catalog.remember(NOTE, json.dumps(self._aside + [
            [self._inbox, os.path.relpath(path, self._inbox)]
            for _, files in chosen for path, _ in files]))

    def _sync(self, chosen: Sequence[_Chosen]) -> None:
        """Force to disk what became of them, before the next note takes the place of theirs."""
        for folder in {os.path.dirname(path) for _, files in chosen for path, _ in files}:
            try:
                sync_folder(folder)
            except OSError as error:
                log.debug("%s: not synced: %s", folder, error)  # gone, or its disk is told of

    def _put_back(self) -> None:
        """Put back what an end of the program, or a disk that failed, left aside."""
        if self._aside is None:
            self._aside = json.loads(self._catalog.meta(NOTE) or "[]")
        left = []
        for inbox, below in self._aside:
            try:
                if put_back(inbox, below):
                    log.info("FilePutBack: %s", printable_path(os.path.join(inbox, below)))
            except FileNotFoundError:
                left.append([inbox, below])  # an earlier inbox, which may come back
            except OSError as error:
                left.append([inbox, below])
                if not self._aside_told:
                    log.error("FileNotPutBack: %s: stands there as %s, and cannot be renamed: %s",
                              printable_path(os.path.join(inbox, below)),
                              printable_path(aside_of(os.path.basename(below))), error.strerror)
                self._aside_told = True
        self._aside, self._aside_told = left, self._aside_told and bool(left)

    # ---- what is said --------------------------------------------------------------------------

    def _tell(self, free_bytes: int, mark_bytes: int, state_free_bytes: int) -> None:
        if self.accepting:
            if self._said:
                log.warning("AcceptingAgain: %s free at %s; new images are read again",
                            in_units(free_bytes), self._inbox)
            self.error = self._said = ""
            return
        if not self._state_room.accepting:
            kind = "state"
            why = "%s free of the %s to be kept at %s" % (
                in_units(state_free_bytes), in_units(STATE_BYTES), self._state_dir)
        else:
            kind = "refused" if self._refused else "nothing left"
            sent = self._catalog.counts[SENT]
            why = "%s free of the %s to be kept at %s; %s%s" % (
                in_units(free_bytes), in_units(mark_bytes), self._inbox,
                "what may be deleted cannot be, such as " + self._refused if self._refused
                else "nothing more may be deleted now",
                "; %s sent, %s, may be once acknowledged" % (
                    counted(sent, "image"), in_units(self._catalog.sizes[SENT])) if sent else "")
        why += "; new images stay in the inbox unread"
        if kind != self._said:
            log.error("NotAccepting: %s", why)
        self.error, self._said = "NotAccepting: " + why, kind
