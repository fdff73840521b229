"""What operations did with the images: acknowledgements, holds, pins, and what is remembered of them.

In: an action and the images it is for. Out: their new states, durably, and an account of it. Every
action can be repeated: a second time it changes nothing. recollection.py keeps it beyond the loss of
the database.
"""

import os
from typing import Dict, List, NamedTuple, Optional, Sequence, Set

from jetson_cluster.account import Account
from jetson_cluster.database import marks_for, parts_of
from jetson_cluster.journal import Entry
from jetson_cluster.recollection import Said
from jetson_cluster.records import path_in
from jetson_cluster.schema import (
    ACKED, DELETED, DROPPED, HELD, MISSING, NAME, QUEUED, SENT, STATES, WAITING)

LEAST_PREFIX = 6  # hex digits: among a million images an accidental match is one in sixteen
GROUND = (SENT, ACKED, DELETED)  # on the ground, or on the way there
# What the acknowledgement of a pass is about: what was nacked since did not arrive.
ON_ITS_WAY = GROUND + (DROPPED,)
# What each action makes of an image in each state; what is not named it refuses, see `refusal`.
# THERE stands for queued, waiting or missing, whichever is true of the image.
THERE = "there"
MOVES = {
    "ack": dict({state: ACKED for state in (QUEUED, WAITING, SENT, ACKED, HELD, MISSING)},
                **{DELETED: DELETED, DROPPED: DELETED}),
    "nack": dict({state: state for state in STATES if state not in (ACKED, DELETED)}, sent=THERE),
    "resend": dict({state: state for state in (QUEUED, WAITING, MISSING)}, sent=THERE, acked=THERE),
    "hold": {QUEUED: HELD, WAITING: HELD, MISSING: HELD, HELD: HELD},
    "release": dict({state: state for state in STATES}, held=THERE),
    "pin": {state: state for state in (QUEUED, WAITING, SENT, HELD, MISSING)},
    "unpin": {state: state for state in STATES},
}
REFUSALS = {
    SENT: "it was sent already; nack or resend it first",
    ACKED: "the ground has acknowledged it; resend it, if it is to be sent again",
    DELETED: "the ground has acknowledged it and its file was deleted",
    DROPPED: "its file was deleted to make room",
    HELD: "it is held; release it first",
}


class Moved(NamedTuple):
    """What an action did to one image."""

    before: str
    after: str
    preview_again: bool = False  # its preview had been sent, and will be once more


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
                    done[image] = Moved(state, self.state_of(image),
                                        action == "resend" and self._preview_again(image))
            self._tell_journal(entries)
        return done

    def _preview_again(self, image: int) -> bool:
        """Have the preview of an image that is still to be sent sent once more."""
        return bool(self._db.execute(
            "UPDATE images SET preview_pass = NULL WHERE id = ? AND preview_pass IS NOT NULL",
            (image,)).rowcount)

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
        """The same for all images of a pass; a nack has its previews sent again as well.

        An acknowledgement leaves out those that are queued again since.
        """
        with self._transaction():
            images = self.pass_images(number)
            if action == "ack":
                images = [image for image in images if self.state_of(image) in ON_ITS_WAY]
            moved = self.move(action, images)
            if action in ("nack", "resend"):
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
