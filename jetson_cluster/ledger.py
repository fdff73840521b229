"""What operations did with the images: acknowledgements, holds, pins, and what is remembered of them.

In: an action and the images it is for. Out: their new states, durably, and an account of it. Every
action can be repeated: a second time it changes nothing. What the ground acknowledged also stands
in the journal, a file of its own, so that it survives the loss of the database; what the journal
says is kept in the table `remembered` as well, by content, and a remembered acknowledgement is
believed before anything else.
"""

import logging
import os
from typing import Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from jetson_cluster.account import Account
from jetson_cluster.database import marks_for, parts_of
from jetson_cluster.journal import Entry
from jetson_cluster.records import path_in
from jetson_cluster.schema import (
    ACKED, DELETED, DROPPED, HELD, MISSING, QUEUED, SENT, STATES, WAITING)

log = logging.getLogger(__name__)

LEAST_PREFIX = 6  # hex digits: among a million images an accidental match is one in sixteen
GROUND = (SENT, ACKED, DELETED)  # on the ground, or on the way there
# What each action makes of an image in each state; what is not named it refuses, see `refusal`.
# THERE stands for queued, waiting or missing, whichever is true of the image.
THERE = "there"
# A journal of no more than this is read at every start, so that damage to it is found in time.
LOOKED_THROUGH_BYTES = 8000000
SPARE_LINES = 10000  # a journal of up to twice what is worth keeping, and this, is left as it is
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
            stored = path_in(target)
            return [row[0] for row in self._db.execute(
                "SELECT image FROM files WHERE path = ?1 UNION SELECT id FROM images WHERE path = ?1",
                (stored,))]
        found = self.ids_by_prefix(target, 10)
        if found:
            return found
        # From the end of the path: LIKE would take % and _ in the name for something else.
        stored = path_in("/" + target)
        return [row[0] for row in self._db.execute(
            "SELECT id FROM images WHERE substr(path, ?2) = ?1 UNION "
            "SELECT image FROM files WHERE substr(path, ?2) = ?1", (stored, -len(stored)))]

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
            acknowledged = [entry for entry in entries if entry.what == "acked"]
            # Before the commit: what the ground has must never be sent again, whatever is lost.
            if acknowledged:
                self.journal.append(acknowledged)
            self._tell_journal([entry for entry in entries if entry.what != "acked"])
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

    def recall(self) -> int:
        """Take in what the journal says and the catalog does not know; of how many images that was.

        Asked at every start. For a catalog made anew all of the journal counts; else what was
        appended since the catalog last noted its size, for the commit to it may be lost. A journal
        that lost lines has no news, and is told again what the catalog remembers.
        """
        noted, size = self.meta("journal_bytes"), self._journal_bytes()
        if noted == size > LOOKED_THROUGH_BYTES:
            return 0
        whole = self.journal.read()
        if whole.damaged:
            log.error("JournalDamaged: %s: %d of its lines cannot be read and are left out",
                      self.journal.path, whole.damaged)
        news = whole if noted is None else self.journal.read(noted)
        known = last_words(whole.entries)
        with self._transaction():
            # What the news leave unsaid of an image, such as that a pinned one is held, stands before.
            changed = sum(self._take_in(digest, known[digest])
                          for digest in last_words(news.entries))
            self._set_meta("passes_before", max([entry.number for entry in whole.entries] or [0]))
            self._db.executemany(
                "INSERT OR IGNORE INTO audit VALUES (NULL, '', 'journal', ?, '', '', 'done', "
                "'as the journal says; the catalog was lost')",
                [(entry.text,) for entry in news.entries if entry.what == "order"])
        if noted is not None:
            self._tell_again(known)
        if len(whole.entries) > 2 * len(known) + SPARE_LINES:
            self.journal.compact(newest_of_each)
        self.note_journal()
        return changed

    def _tell_again(self, known: Dict[bytes, "Said"]) -> None:
        """Append to the journal what is remembered and does not stand in it."""
        entries, remembered = [], set()
        for digest, state, number, pinned in self._db.execute(
                "SELECT sha256, state, pass, pinned FROM remembered ORDER BY pinned"):
            remembered.add(digest)
            told = known.get(digest, Said(QUEUED, 0, None))
            if state != told.state and state in (SENT, ACKED, HELD):
                entries.append(Entry(state, digest.hex(), number, ""))
            if pinned is not None and told.pinned is None:
                entries.append(Entry("pinned", digest.hex(), 0, ""))
        entries += [Entry(QUEUED, digest.hex(), told.number, "") for digest, told in known.items()
                    if told.state != QUEUED and digest not in remembered]
        if entries:
            log.warning("JournalCompleted: %s: it lacked %d entries", self.journal.path,
                        len(entries))
            self.journal.append(entries)

    def note_journal(self) -> None:
        """All of the journal, as it is now, is known to the catalog."""
        self.remember("journal_bytes", self._journal_bytes())

    def _journal_bytes(self) -> int:
        try:
            return os.path.getsize(self.journal.path)
        except FileNotFoundError:
            return 0

    def _take_in(self, digest: bytes, said: "Said") -> bool:
        """Believe the journal's last word on one content; whether that was news."""
        held = self._db.execute("SELECT state, pass, pinned FROM remembered WHERE sha256 = ?",
                                (digest,)).fetchone()
        row = self._db.execute(
            "SELECT id, state, pass FROM images WHERE sha256 = ?", (digest,)).fetchone()
        if held is None and row is None and said.state == QUEUED and said.pinned is None:
            return False
        self._remember(digest, said.state, said.number, said.pinned)
        if row is not None:
            self._believe(row[0], row[1], said)
        return self._db.execute("SELECT state, pass, pinned FROM remembered WHERE sha256 = ?",
                                (digest,)).fetchone() != held

    def _believe(self, image: int, state: str, said: "Said") -> None:
        """Bring an image that is catalogued in line with what the journal said last of it."""
        self._db.execute("UPDATE images SET pinned = ?, pass = COALESCE(?, pass) WHERE id = ?", (
            said.pinned, said.number or None, image))
        if said.state == ACKED:
            self._set_state(image, MOVES["ack"][state])
        elif said.state in (SENT, HELD) and state in (QUEUED, WAITING, MISSING, SENT, HELD):
            self._set_state(image, said.state)
        elif said.state == QUEUED and state in (SENT, HELD, ACKED):
            self._set_there(image)


class Said(NamedTuple):
    """The journal's last word on one content."""

    state: str  # SENT, ACKED, HELD, or QUEUED for none of these
    number: int  # of its last pass, 0 if none was named
    pinned: Optional[int]  # order of pinning


def last_words(entries: List[Entry]) -> Dict[bytes, Said]:
    """What a journal's entries come to, by SHA-256."""
    said, pins = {}, 0
    for entry in entries:
        if entry.what == "order":
            continue
        digest = bytes.fromhex(entry.sha256)
        before = said.get(digest, Said(QUEUED, 0, None))
        if entry.what == "pinned":
            pins += 1
            said[digest] = before._replace(pinned=pins)
        elif entry.what == "unpinned":
            said[digest] = before._replace(pinned=None)
        elif entry.what in (SENT, ACKED, QUEUED, HELD):
            said[digest] = Said(entry.what, entry.number or before.number,
                                None if entry.what == ACKED else before.pinned)
    return said


def newest_of_each(entries: List[Entry]) -> List[Entry]:
    """What is worth keeping of a journal: the last word on each content, and every order."""
    last = {}
    for place, entry in enumerate(entries):
        pinning = entry.what in ("pinned", "unpinned")
        last[(entry.sha256, entry.text, pinning)] = place
    return [entries[place] for place in sorted(last.values())]
