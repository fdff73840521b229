"""What the team has changed in the console and not taken back: a small value, with undo.

In: one change after the other, checked as the policy's reader and the orders' reader check them.
Out: a `Draft` that can be put over any policy. A draft knows no catalog and no file.
"""

from typing import List, Mapping, NamedTuple, Tuple

from jetson_cluster.errors import UserError
from jetson_cluster.policy import LABEL_LENGTH, WEIGHT_MOST

PIN, HOLD, FREE = "pin", "hold", "free"  # what may be asked of an image
MARKS = (PIN, HOLD, FREE)
UNDO_MOST = 500

Edits = Mapping[Tuple[str, str], object]


class Draft(NamedTuple):
    """Every change that stands."""

    # As the catalog's amendments: ("weight", "7") -> 3.0, ("label", "7") -> "rock" ("": none),
    # ("more_like", SHA-256) -> 1.0 (0.0: not any more).
    edits: Edits = {}
    marks: Mapping[str, str] = {}  # SHA-256 -> PIN, HOLD or FREE, in the order of asking

    def weighed(self, cluster: int, weight: object) -> "Draft":
        """With another weight of a cluster. Raises UserError."""
        return self._with("weight", str(cluster), _weight(weight))

    def labelled(self, cluster: int, label: object) -> "Draft":
        """With another name of a cluster, "" for none. Raises UserError."""
        return self._with("label", str(cluster), _label(label))

    def liking(self, sha256: str, weight: object) -> "Draft":
        """With a wish for more like this image, or with 0 without one. Raises UserError."""
        return self._with("more_like", sha256, _weight(weight))

    def marked(self, sha256: str, mark: str) -> "Draft":
        """With this image pinned, held, or neither. Raises UserError."""
        if mark not in MARKS:
            raise UserError(f"mark {mark!r}: must be one of {', '.join(MARKS)}")
        marks = {image: said for image, said in self.marks.items() if image != sha256}
        return self._replace(marks=dict(marks, **{sha256: mark}))

    def _with(self, kind: str, key: str, value: object) -> "Draft":
        return self._replace(edits={**self.edits, (kind, key): value})


class History:
    """The draft, those before it, and those that were undone."""

    def __init__(self, first: Draft):
        self._drafts: List[Draft] = [first]
        self._place = 0
        self.version = 0  # another one with every change

    @property
    def draft(self) -> Draft:
        return self._drafts[self._place]

    @property
    def can_undo(self) -> bool:
        return self._place > 0

    @property
    def can_redo(self) -> bool:
        return self._place + 1 < len(self._drafts)

    def take(self, draft: Draft) -> None:
        """Go on with another draft; one that says the same is none."""
        if draft == self.draft:
            return
        self._drafts = (self._drafts[:self._place + 1] + [draft])[-UNDO_MOST:]
        self._place = len(self._drafts) - 1
        self.version += 1

    def take_anew(self, draft: Draft) -> None:
        """Go on with a draft over other files; those before it were over the old ones."""
        self._drafts, self._place = [draft], 0
        self.version += 1

    def undo(self) -> None:
        """Back to the draft before, if there is one."""
        self._move(-1 if self.can_undo else 0)

    def redo(self) -> None:
        """Forward to what was undone, if anything was."""
        self._move(1 if self.can_redo else 0)

    def _move(self, steps: int) -> None:
        self._place += steps
        self.version += bool(steps)


def _weight(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (
            0 <= value <= WEIGHT_MOST):
        raise UserError(f"a weight must be a number from 0 to {WEIGHT_MOST:g}, not {value!r}")
    # As many digits as an order carries, so that the file and the order say the same number.
    return float(f"{value:.6f}")


def _label(value: object) -> str:
    text = value.strip() if isinstance(value, str) else None
    if text is None or len(text) > LABEL_LENGTH or not text.isprintable():
        raise UserError(f"a label must be at most {LABEL_LENGTH} printable characters, not "
                        f"{value!r}")
    return text


def pinned_in(marks: Mapping[str, str]) -> List[str]:
    """The images asked to be pinned, in that order."""
    return [image for image, mark in marks.items() if mark == PIN]
