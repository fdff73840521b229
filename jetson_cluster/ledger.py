"""What operations did with the images: acknowledgements, holds, pins, and what is remembered of them.

In: an action and the images it is for. Out: their new states, durably, and an account of it. Every
action can be repeated: a second time it changes nothing. What the ground acknowledged also stands
in the journal, a file of its own, so that it survives the loss of the database; what the journal
says is kept in the table `remembered` as well, by content, and a remembered acknowledgement is
believed before anything else.
"""

import itertools
import logging
import os
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set

from jetson_cluster.account import Account
from jetson_cluster.database import marks_for, parts_of
from jetson_cluster.journal import Entry
from jetson_cluster.records import path_in
from jetson_cluster.schema import (
    ACKED, DELETED, DROPPED, HELD, MISSING, NAME, QUEUED, SENT, STATES, WAITING)

log = logging.getLogger(__name__)

LEAST_PREFIX = 6  # hex digits: among a million images an accidental match is one in sixteen
GROUND = (SENT, ACKED, DELETED)  # on the ground, or on the way there
# What each action makes of an image in each state; what is not named it refuses, see `refusal`.
# THERE stands for queued, waiting or missing, whichever is true of the image.
THERE = "there"
# A journal of no more than this is read at every start, so that damage to it is found in time.
LOOKED_THROUGH_BYTES = 8000000
# A journal of up to twice what is worth keeping, and this, is left as it is.
ENTRY_BYTES, SPARE_BYTES = 100, 1000000
PIECE = 10000  # of its entries are held in memory at a time
JOURNAL_BYTES_PER_S = 500000.0  # read; a workstation does ten times as many
MOVES = {
    "ack": dict({state: ACKED for state in (QUEUED, WAITING, SENT, ACKED, HELD, MISSING)},
                **{DELETED: DELETED, DROPPED: DELETED}),
    "nack": dict({state: state for state in STATES}, sent=THERE),
    "resend": dict({state: state for state in (QUEUED, WAITING, MISSING)}, sent=THERE, acked=THERE),
    "hold": {QUEUED: HELD, WAITING: HELD, MISSING: HELD, HELD: HELD},
    "release": dict({state: state for state in STATES}, held=THERE),
    "pin": {state: state for state in (QUEUED, WAITING, SENT, HELD, MISSING)},
    "unpin": {state: state for state in STATES},
}
REFUSALS = {
    SENT: "it was sent already; nack or resend it first",
    ACKED: "the ground has acknowledged it; resend it first",
    DELETED: "the ground has acknowledged it and its file was deleted",
    DROPPED: "its file was deleted to make room",
    HELD: "it is held; release it first",
}


class Moved(NamedTuple):
    """What an action did to one image."""

    before: str
    after: str


class Said(NamedTuple):
    """The journal's last word on one content."""

    state: str  # SENT, ACKED, HELD, or QUEUED for none of these
    number: int  # of its last pass, 0 if none was named
    pinned: Optional[int]  # order of pinning


def refusal(action: str, state: str) -> str:
    """Why `action` cannot be done to an image in `state`, in words; "" if it can."""
    return "" if state in MOVES[action] else REFUSALS[state]


class Ledger(Account):
    """The states of the images, as far as operations decide them."""

    def __init__(self, path: str, space: Optional[str], *progress):
        self.ground_version = 0  # another one whenever other images are on the ground
        self._disturbed = set()  # type: Set[int]
        super().__init__(path, space, *progress)

    # ---- which images ------------------------------------------------------------------------

    def pass_images(self, number: int) -> List[int]:
        """The images last sent in that pass, in the order to send them, whatever became of them."""
        return [row[0] for row in self._db.execute(
            "SELECT id FROM images WHERE pass = ? ORDER BY pass_place, id", (number,))]

    def find(self, target: str) -> List[int]:
        """The images that "pass:12", a SHA-256 or its beginning, a path or a file name may mean."""
        if target.startswith("pass:"):
            return self.pass_images(int(target[5:])) if target[5:].isdigit() else []
        if os.path.isabs(target):
            paths = path_in(target), os.path.basename(target)
            return [row[0] for row in self._db.execute(
                "SELECT image FROM files WHERE path = ?1 UNION "
                "SELECT id FROM images WHERE path = ?1 AND %s" % (
                    "%s = ?2" % NAME if isinstance(paths[0], str) else "typeof(path) = 'blob'"),
                paths[:2 if isinstance(paths[0], str) else 1])]
        return self.ids_by_prefix(target, 10) or self._by_name("/" + target)

    def _by_name(self, end: str) -> List[int]:
        """Images whose path ends so; what is not UTF-8 is looked for one by one."""
        stored = path_in(end)
        indexed = "" if isinstance(stored, bytes) else "%s = ?3 AND " % NAME
        # substr and not LIKE, which would take % and _ in the name for something else.
        return [row[0] for row in self._db.execute(
            "SELECT id FROM images WHERE %ssubstr(path, ?2) = ?1 ORDER BY id" % indexed,
            (stored, -len(stored), os.path.basename(end))[:3 if indexed else 2])]

    def ids_by_prefix(self, prefix: str, limit: int) -> List[int]:
        """Images whose SHA-256 begins so (hex, at least LEAST_PREFIX digits); at most `limit`."""
        prefix = prefix.lower()
        if not LEAST_PREFIX <= len(prefix) <= 64 or set(prefix) - set("0123456789abcdef"):
            return []
        low = bytes.fromhex(prefix.ljust(64, "0"))
        high = bytes.fromhex(prefix.ljust(64, "f"))
        return [row[0] for row in self._db.execute(
            "SELECT id FROM images WHERE sha256 BETWEEN ? AND ? ORDER BY id LIMIT ?",
            (low, high, limit))]

    # ---- actions -----------------------------------------------------------------------------

    def move(self, action: str, images: Sequence[int]) -> Dict[int, Moved]:
        """Do one of MOVES to these images, all or nothing; those that refuse it are left out."""
        done, entries = {}, []
        with self._transaction():
            for part in parts_of(images):
                rows = self._db.execute(
                    "SELECT id, sha256, state, pass, pinned FROM images WHERE id IN (%s)"
                    % marks_for(part), part).fetchall()
                for image, digest, state, pass_number, pinned in rows:
                    after = MOVES[action].get(state)
                    if after is None:
                        continue
                    entries += self._move_one(
                        action, image, digest, state, after, pass_number or 0, pinned)
                    done[image] = Moved(state, self.state_of(image))
            self._tell_journal(entries)
        return done

    def _move_one(self, action: str, image: int, digest: bytes, state: str, after: str,
                  pass_number: int, pinned: Optional[int]) -> List[Entry]:
        """Do it within the transaction; what the journal should say of it."""
        name, entries = digest.hex(), []
        if action in ("pin", "unpin"):
            if (action == "pin") == (pinned is not None):
                return []
            place = None if action == "unpin" else self._db.execute(
                "SELECT COALESCE(MAX(pinned), 0) + 1 FROM images WHERE pinned IS NOT NULL"
            ).fetchone()[0]
            self._db.execute("UPDATE images SET pinned = ? WHERE id = ?", (place, image))
            entries.append(Entry(action + "ned", name, 0, ""))
            pinned = place
        elif after == state and action != "ack":
            return []
        if after == THERE:
            self._set_there(image)
            # With the number, so that no later pass gets it, though this is all the journal keeps.
            entries.append(Entry(QUEUED, name, pass_number, ""))
        elif after != state:
            self._set_state(image, after)
            if after == HELD:
                entries.append(Entry(HELD, name, 0, ""))
        if action == "ack" and state not in (ACKED, DELETED):
            self._db.execute("UPDATE images SET pinned = NULL WHERE id = ?", (image,))
            entries.append(Entry(ACKED, name, pass_number, ""))
            pinned = None
        self._remember(digest, self.state_of(image), pass_number, pinned)
        return entries

    def move_pass(self, action: str, number: int) -> Dict[int, Moved]:
        """The same for all images of a pass; a nack has its previews sent again as well."""
        moved = self.move(action, self.pass_images(number))
        if action in ("nack", "resend"):
            with self._transaction():
                self._db.execute(
                    "UPDATE images SET preview_pass = NULL WHERE preview_pass = ?", (number,))
        return moved

    def retire(self, images: Sequence[int]) -> None:
        """The files of these images were deleted: acknowledged ones are `deleted`, others `dropped`."""
        with self._transaction():
            for image in images:
                state = DELETED if self.state_of(image) in (ACKED, DELETED) else DROPPED
                self._db.execute("DELETE FROM files WHERE image = ?", (image,))
                self._set_state(image, state)

    def state_of(self, image: int) -> str:
        return self._db.execute("SELECT state FROM images WHERE id = ?", (image,)).fetchone()[0]

    def _set_there(self, image: int, seen_at: Optional[str] = None, new: bool = False) -> None:
        """Queued, waiting or missing: by the files known, and whether it is embedded."""
        path, embedded = self._db.execute(
            "SELECT (SELECT path FROM files WHERE image = images.id ORDER BY path LIMIT 1), "
            "soft IS NOT NULL FROM images WHERE id = ?", (image,)).fetchone()
        if path is not None:
            self._db.execute("UPDATE images SET path = ? WHERE id = ?", (
                path if seen_at is None else path_in(seen_at), image))
        self._set_state(image, MISSING if path is None else QUEUED if embedded else WAITING, new)

    def _set_state(self, image: int, state: str, new: bool = False) -> None:
        before, cluster = self._db.execute(
            "SELECT state, cluster FROM images WHERE id = ?", (image,)).fetchone()
        if state == before:
            return
        self._db.execute("UPDATE images SET state = ? WHERE id = ?", (state, image))
        if cluster is not None and QUEUED in (state, before) and not new:
            self._disturbed.add(cluster)
        if (state in GROUND) != (before in GROUND):
            self.ground_version += 1

    # ---- what survives the database ----------------------------------------------------------

    def _remember(self, digest: bytes, state: str, pass_number: int, pinned: Optional[int]) -> None:
        if state == DROPPED:  # what it was before still holds, should its file come back
            row = self._db.execute(
                "SELECT state FROM remembered WHERE sha256 = ?", (digest,)).fetchone()
            state = row[0] if row else DROPPED
        state = ACKED if state == DELETED else state
        if state in (SENT, ACKED, HELD) or pinned is not None:
            self._db.execute("INSERT OR REPLACE INTO remembered VALUES (?, ?, ?, ?)",
                             (digest, state, pass_number, pinned))
        else:
            self._db.execute("DELETE FROM remembered WHERE sha256 = ?", (digest,))

    def recall(self, progress: Callable[[str, float], None] = lambda doing, allow_s: None) -> int:
        """Take in what the journal says and the catalog does not know; of how many images that was.

        Asked at every start. For a catalog made anew all of the journal counts; else what was
        appended since the catalog last noted its size, for the commit to it may be lost. A journal
        that lost lines has no news. It is written again where it lacks something, or is too long.
        """
        noted, size = self.meta("journal_bytes"), self._journal_bytes()
        if size > LOOKED_THROUGH_BYTES:
            if noted == size:
                return 0
            progress("reading the journal", 60 + size / JOURNAL_BYTES_PER_S)
        changed = 0 if noted is not None and size < noted else self._take_news(noted or 0)
        if noted is None or size < noted or size > self._journal_limit() or (
                size <= LOOKED_THROUGH_BYTES and self._journal_lacks()):
            lost = noted is not None and size <= self._journal_limit()
            size = self._write_journal_again(lost)
        self.remember("journal_bytes", size)
        return changed

    def _take_news(self, start: int) -> int:
        """Believe the journal from byte `start` on, many entries at a time."""
        changed, newest, entries = 0, 0, self.journal.entries(start)
        with self._transaction():
            while True:
                lines = list(itertools.islice(entries, PIECE))
                if not lines:
                    break
                piece = [entry for entry in lines if entry is not None]
                for digest, said in self._last_words(piece).items():
                    changed += self._take_in(digest, said)
                newest = max([newest] + [entry.number for entry in piece])
                self._db.executemany(
                    "INSERT OR IGNORE INTO audit VALUES (NULL, '', 'journal', ?, '', '', 'done', "
                    "'as the journal says; the catalog was lost')",
                    [(entry.text,) for entry in piece if entry.what == "order"])
            self._set_meta("passes_before", max(newest, self.meta("passes_before") or 0))
        return changed

    def _last_words(self, entries: List[Entry]) -> Dict[bytes, Said]:
        """What entries come to, by SHA-256, on top of what is remembered."""
        said = {}  # type: Dict[bytes, Said]
        pins = self._db.execute("SELECT COALESCE(MAX(pinned), 0) FROM remembered").fetchone()[0]
        for entry in entries:
            if not entry.sha256:
                continue
            digest = bytes.fromhex(entry.sha256)
            before = said[digest] if digest in said else self._remembered(digest)
            if entry.what == "pinned":
                pins += 1
                before = before._replace(pinned=pins)
            elif entry.what == "unpinned":
                before = before._replace(pinned=None)
            elif entry.what in (SENT, ACKED, QUEUED, HELD):
                before = Said(entry.what, entry.number or before.number,
                              None if entry.what == ACKED else before.pinned)
            said[digest] = before
        return said

    def _remembered(self, digest: bytes) -> Said:
        row = self._db.execute("SELECT state, pass, pinned FROM remembered WHERE sha256 = ?",
                               (digest,)).fetchone()
        return Said(row[0] if row[0] in (SENT, ACKED, HELD) else QUEUED, *row[1:]) if row \
            else Said(QUEUED, 0, None)

    def _journal_limit(self) -> int:
        """Bytes beyond which the journal says much that is not so any more."""
        return SPARE_BYTES + 2 * ENTRY_BYTES * self._db.execute(
            "SELECT COUNT(*) FROM remembered").fetchone()[0]

    def _journal_lacks(self) -> bool:
        """Whether a line of the journal is damaged, or something remembered does not stand in it."""
        told, damaged = {}, 0
        for entry in self.journal.entries():
            if entry is None:
                damaged += 1
            elif entry.what in (SENT, ACKED, QUEUED, HELD):
                told[entry.sha256] = entry.what
        if damaged:
            log.error("JournalDamaged: %s: %d of its lines cannot be read and are left out",
                      self.journal.path, damaged)
        held = {digest.hex(): state for digest, state in self._db.execute(
            "SELECT sha256, state FROM remembered WHERE state IN ('sent', 'acked', 'held')")}
        said = {name: state for name, state in told.items() if state != QUEUED}
        return bool(damaged) or held != said

    def _write_journal_again(self, lost: bool) -> int:
        """Replace the journal by what the catalog remembers; its bytes then.

        Within a transaction, for other processes append acknowledgements within theirs.
        """
        with self._transaction():
            self.journal.rewrite(self._worth_telling)
            size = self._journal_bytes()
        if lost:
            log.warning("JournalCompleted: %s: it had lost something; the catalog told it again",
                        self.journal.path)
        return size

    def _worth_telling(self) -> Iterator[Entry]:
        for digest, state, number, pinned in self._db.execute(
                "SELECT sha256, state, pass, pinned FROM remembered ORDER BY pinned"):
            yield Entry(state if state in (SENT, ACKED, HELD) else QUEUED, digest.hex(), number, "")
            if pinned is not None:
                yield Entry("pinned", digest.hex(), 0, "")
        for order, in self._db.execute("SELECT order_id FROM audit WHERE order_id IS NOT NULL"):
            yield Entry("order", "", 0, order)
        # Of passes whose images are all queued again nothing is remembered, but for their number.
        yield Entry("pass", "", self.last_pass, "")

    def _journal_bytes(self) -> int:
        try:
            return os.path.getsize(self.journal.path)
        except FileNotFoundError:
            return 0

    def _take_in(self, digest: bytes, said: Said) -> bool:
        """Believe the journal's last word on one content; whether that was news."""
        before = self._remembered(digest)
        row = self._db.execute(
            "SELECT id, state FROM images WHERE sha256 = ?", (digest,)).fetchone()
        self._remember(digest, said.state, said.number, said.pinned)
        if row is not None:
            self._believe(row[0], row[1], said)
        return self._remembered(digest) != before

    def _believe(self, image: int, state: str, said: Said) -> None:
        """Bring an image that is catalogued in line with what the journal said last of it."""
        self._db.execute("UPDATE images SET pinned = ?, pass = COALESCE(?, pass) WHERE id = ?", (
            said.pinned, said.number or None, image))
        if said.state == ACKED:
            self._set_state(image, MOVES["ack"][state])
        elif said.state in (SENT, HELD) and state in (QUEUED, WAITING, MISSING, SENT, HELD):
            self._set_state(image, said.state)
        elif said.state == QUEUED and state in (SENT, HELD, ACKED):
            self._set_there(image)
