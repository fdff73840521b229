"""What is remembered of every content, in the catalog and in the journal beside it.

In: what operations did, as entries for the journal. Out: the same after the database was lost, or
commits of it were. What the ground acknowledged is in the journal before it is committed, for it
must never be sent again whatever is lost; all else follows the commit, so that the journal tells of
nothing that never was. The table `remembered` holds the same by content.

The journal is written under the database's write lock only, and of each content it tells what
is true then: its last word on a content is the newest, whichever process wrote it. Each transaction
notes how long the journal was, so what stands behind that is what the catalog may not know.
"""

import itertools
import logging
import os
import sqlite3
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

from jetson_cluster.database import Database
from jetson_cluster.journal import FILE_NAME, Entry, Journal
from jetson_cluster.schema import ACKED, DELETED, DROPPED, HELD, QUEUED, SENT

log = logging.getLogger(__name__)

# A journal of no more than this is read at every start, so that damage to it is found in time.
LOOKED_THROUGH_BYTES = 8000000
# A journal of up to twice what is worth keeping, and this, is left as it is.
ENTRY_BYTES, SPARE_BYTES = 100, 1000000
PIECE = 10000  # of its entries are held in memory at a time
JOURNAL_BYTES_PER_S = 500000.0  # read; a workstation does ten times as many
TOLD = (SENT, ACKED, HELD)
# Whether the journal lacks something of before it was noted how long it is.
COMPLETE, UNLESS_IT_GREW, LACKING = 0, 1, 2


class Said(NamedTuple):
    """The journal's last word on one content."""

    state: str  # SENT, ACKED, HELD, or QUEUED for none of these
    number: int  # of its last pass, 0 if none was named
    pinned: Optional[int]  # order of pinning


class Recollection(Database):
    """The journal, the table `remembered`, and how each makes up for what the other lost."""

    def __init__(self, path: str, space: Optional[str], *progress):
        # Of the transaction under way: what the journal is told before the commit, and after it.
        self._before, self._after = [], []  # type: List[Entry], List[Entry]
        self._late = []  # type: List[Entry]  # committed, and the journal could not be written
        self.journal = Journal(os.path.join(os.path.dirname(os.path.abspath(path)), FILE_NAME))
        super().__init__(path, space, *progress)

    def _believe(self, image: int, state: str, said: Said) -> None:
        """Bring a catalogued image in line with the journal's last word on it."""
        raise NotImplementedError

    # ---- telling the journal -----------------------------------------------------------------

    def _tell_journal(self, entries: Sequence[Entry]) -> None:
        """Have the journal told of these with the transaction under way."""
        self._before += [entry for entry in entries if entry.what == ACKED]
        self._after += [entry for entry in entries if entry.what != ACKED]

    def _committing(self) -> None:
        if not self._before and not self._after:
            return
        entries, self._before = self._before, []
        try:
            size, noted = self._journal_bytes(), self.meta("journal_bytes")
            if noted is not None and size > noted:
                self._take_acknowledgements(noted, entries + self._after)
            lacking = self._journal_is_lacking(noted, size)
            self.journal.append(entries)
            if noted is not None:  # else all of it is news: see recall
                self._note_journal(LACKING if lacking else
                                   UNLESS_IT_GREW if self._after else COMPLETE)
        except OSError as error:
            raise sqlite3.OperationalError("journal %s: cannot be written: %s" % (
                self.journal.path, error.strerror or error))

    def _take_acknowledgements(self, start: int, entries: Sequence[Entry]) -> None:
        """Those from byte `start` on: a commit to them failed, or another process died before it.

        Of what this transaction is about, its own `entries` count.
        """
        own = {entry.sha256 for entry in entries}
        for entry in self.journal.entries(start):
            if entry is not None and entry.what == ACKED and entry.sha256 not in own:
                digest = bytes.fromhex(entry.sha256)
                self._take_in(digest, Said(
                    ACKED, entry.number or self._remembered(digest).number, None))

    def _note_journal(self, lacking: int) -> None:
        self._set_meta("journal_bytes", self._journal_bytes())
        self._set_meta("journal_lacking", lacking)

    def _journal_is_lacking(self, noted: Optional[int], size: int) -> bool:
        """Whether it lost lines, or was never told what followed a commit."""
        lacking = self.meta("journal_lacking")
        return noted is not None and (size < noted or lacking == LACKING or (
            lacking == UNLESS_IT_GREW and size == noted))

    def _ended(self, committed: bool) -> None:
        entries, self._before, self._after = self._after, [], []
        if not entries or not committed:
            return
        entries, self._late = self._late + entries, []
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self.journal.append(self._as_it_is(entries))
            finally:
                self._db.execute("ROLLBACK")
        except (OSError, sqlite3.Error) as error:
            # Only a rebuild would miss them; they come with the next, or the next start tells them.
            log.error("JournalNotWritten: %s: %s; %d entries of it stand in the catalog alone",
                      self.journal.path, getattr(error, "strerror", None) or error, len(entries))
            self._late = entries

    def _as_it_is(self, entries: Sequence[Entry]) -> Iterator[Entry]:
        """What is true now of what the entries tell of: another process may have changed it since."""
        for entry in entries:
            if not entry.sha256:
                yield entry
                continue
            said = self._remembered(bytes.fromhex(entry.sha256))
            if entry.what in ("pinned", "unpinned"):
                yield entry._replace(what="unpinned" if said.pinned is None else "pinned")
            else:
                # Queued with the number it had, so that no later pass gets it.
                yield entry._replace(what=said.state, number=said.number or entry.number)

    # ---- what survives the database ----------------------------------------------------------

    def _remember(self, digest: bytes, state: str, pass_number: int, pinned: Optional[int]) -> None:
        if state == DROPPED:  # what it was before still holds, should its file come back
            row = self._db.execute(
                "SELECT state FROM remembered WHERE sha256 = ?", (digest,)).fetchone()
            state = row[0] if row else DROPPED
        state = ACKED if state == DELETED else state
        if state in TOLD or pinned is not None:
            self._db.execute("INSERT OR REPLACE INTO remembered VALUES (?, ?, ?, ?)",
                             (digest, state, pass_number, pinned))
        else:
            self._db.execute("DELETE FROM remembered WHERE sha256 = ?", (digest,))

    def recall(self, progress: Callable[[str, float], None] = lambda doing, allow_s: None) -> int:
        """Take in what the journal says and the catalog does not know; of how many images that was.

        Asked at every start. For a catalog made anew all of the journal counts; else what was
        appended since the catalog last noted its size, for the commit to it may be lost. A journal
        that lost lines has no news. It is written again where it lacks something, or is too long.
        Raises OSError and sqlite3.Error.
        """
        noted, size = self.meta("journal_bytes"), self._journal_bytes()
        lacking = self._journal_is_lacking(noted, size)
        if size > LOOKED_THROUGH_BYTES:
            if noted == size and not lacking:
                return 0
            progress("reading the journal", 60 + size / JOURNAL_BYTES_PER_S)
        changed = 0 if noted is not None and size < noted else self._take_news(noted or 0)
        if noted is None or lacking or size > self._journal_limit() or (
                size <= LOOKED_THROUGH_BYTES and self._journal_lacks()):
            self._write_journal_again(noted is not None and size <= self._journal_limit())
        else:
            with self._transaction():
                self._note_journal(COMPLETE)
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
        return Said(row[0] if row[0] in TOLD else QUEUED, *row[1:]) if row \
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

    def _write_journal_again(self, lost: bool) -> None:
        """Replace the journal by what the catalog remembers; raises OSError."""
        with self._transaction():
            self.journal.rewrite(self._worth_telling)
            self._note_journal(COMPLETE)
        if lost:
            log.warning("JournalCompleted: %s: it had lost something; the catalog told it again",
                        self.journal.path)

    def _worth_telling(self) -> Iterator[Entry]:
        for digest, state, number, pinned in self._db.execute(
                "SELECT sha256, state, pass, pinned FROM remembered ORDER BY pinned"):
            yield Entry(state if state in TOLD else QUEUED, digest.hex(), number, "")
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
