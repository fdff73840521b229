"""Everything that the page shows and does, as plain values: between the server and the rest.

In: a catalog, a codebook, a policy file, perhaps a corpus; then questions and changes from any
thread. Out: values fit for JSON. All work on the catalog's copies is done in one thread, one piece
after the other; pictures come by a thread and a connection of their own.
"""

import logging
import os
import secrets
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from jetson_cluster import bytesize
from jetson_cluster.catalog import Catalog
from jetson_cluster.codebook import Codebook
from jetson_cluster.errors import UserError
from jetson_cluster.ground.console.copying import copy_catalog, space_of
from jetson_cluster.ground.console.gallery import Picture, Pictures, Wall, marked_in
from jetson_cluster.ground.console.model import Model
from jetson_cluster.ground.console.preview import NextPass, Side
from jetson_cluster.logs import printable
from jetson_cluster.passes import PREVIEW
from jetson_cluster.policy import Policy
from jetson_cluster.ranking import names_of
from jetson_cluster.records import Row

log = logging.getLogger(__name__)

BUDGET_BYTES = 4 * 10 ** 6  # where no pass was made yet
SAMPLE, PAGE_MOST = 8, 240  # members shown of each cluster on the wall, and at once within one

Values = Dict[str, Any]


class Desk:
    """One console's work; a context manager."""

    def __init__(self, catalog_path: str, codebook: Codebook, policy_path: str, orders_path: str,
                 corpus: Optional[object] = None, now_s: Callable[[], float] = time.time):
        """`corpus` is a corpus.Corpus. Raises UserError and WorldError."""
        self.run = secrets.token_hex(4)  # names its pictures, which a browser keeps for a while
        self._folder = tempfile.TemporaryDirectory(prefix="jetson-cluster-console-")
        self._work, self._looking = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._sides: List[Side] = []
        self._pictures: Optional[Pictures] = None
        self._shown: Dict[tuple, NextPass] = {}
        self._catalog_path, self._codebook = catalog_path, codebook
        try:
            self._do(self._open, policy_path, orders_path, now_s)
            self._looking.submit(self._open_pictures, corpus).result()
        except BaseException:
            self.close()
            raise

    @property
    def folder(self) -> str:
        """A folder that nobody else may read, removed in the end."""
        return self._folder.name

    def __enter__(self) -> "Desk":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the copies, and remove them."""
        self._do(lambda: [side.catalog.close() for side in self._sides])
        self._looking.submit(
            lambda: self._pictures and self._pictures.catalog.close()).result()
        self._work.shutdown()
        self._looking.shutdown()
        self._folder.cleanup()

    def _do(self, work: Callable, *values: Any) -> Any:
        return self._work.submit(work, *values).result()

    def _open(self, policy_path: str, orders_path: str, now_s: Callable[[], float]) -> None:
        now_path, draft_path = (self._new_place(name) for name in ("now", "draft"))
        copy_catalog(self._catalog_path, now_path)
        space = space_of(now_path, self._catalog_path)
        if space != self._codebook.space:
            raise UserError(f"catalog {self._catalog_path}: holds embeddings of {space}, but the "
                            f"codebook was made for {self._codebook.space}; give the codebook that "
                            "is on the rover")
        self._now = self._opened(now_path, space)
        self._foreign = self._placed_otherwise()
        pinned, held = marked_in(now_path)
        self._model = Model(self._now.catalog, policy_path, orders_path, self._codebook.k,
                            self._folder.name, pinned + held, now_s)
        self._now.use(self._model.now)
        if not self._now.catalog.only_worth:
            # By another codebook the numbers mean other clusters: nothing can be shown before.
            while self._now.step() < 1:
                log.info("PlacingAnew: %.0f %%", 100 * self._now.step())
        copy_catalog(now_path, draft_path)
        self._wall = Wall(now_path, self._codebook.k)
        self._draft = self._opened(draft_path, space, pinned)
        self._use_draft()

    def _placed_otherwise(self) -> str:
        """By what else than this codebook the rover placed its images, in words; "" if by it."""
        catalog = self._now.catalog
        if catalog.placed_by == self._codebook.identity:
            return ""
        if not catalog.clustered:
            return ("the rover has no codebook yet: it groups images as they come, and weights and "
                    "labels count nothing there. Both passes here, also \"now\", are what it would "
                    "send once it has the codebook that was given")
        return ("the rover placed its images by another codebook; here they are placed by the one "
                "that was given, also those of \"now\"")

    def _new_place(self, name: str) -> str:
        # Each in a folder of its own, for a catalog keeps a journal beside it.
        os.mkdir(os.path.join(self._folder.name, name))
        return os.path.join(self._folder.name, name, "catalog.sqlite")

    def _opened(self, path: str, space: str, pins: Sequence[int] = ()) -> Side:
        self._sides.append(Side(path, space, self._codebook, pins))
        return self._sides[-1]

    def _open_pictures(self, corpus: Optional[object]) -> None:
        self._pictures = Pictures(Catalog(self._now.catalog.path, None), corpus)

    def _use_draft(self) -> None:
        plan = self._model.plan()
        self._draft.use(plan.policy.policy, plan.unpinned, plan.released)

    # ---- questions ---------------------------------------------------------------------------

    def clusters(self) -> List[Values]:
        """What stays as it is while the console runs: counts and a few members of each cluster."""
        return self._do(self._clusters)

    def state(self) -> Values:
        """What changes with the draft."""
        return self._do(self._state)

    def next_passes(self, budget: str) -> Values:
        """The next pass by the policy in force and by the draft, or how far valuing is."""
        return self._do(self._next_passes, bytesize.parse(budget, "the pass"))

    def members(self, cluster: int, order: str, start: int, queued_only: bool) -> Values:
        """Some of the members of a cluster. Raises UserError."""
        images, count = self._wall.members(cluster, order, start, PAGE_MOST, queued_only)
        return {"images": self._do(self._facts_of, images), "total": count}

    def search(self, words: str, start: int = 0) -> Values:
        """Some of the images of that name or SHA-256, and how many there are."""
        images, count = self._wall.search(words, start, PAGE_MOST) if words else ([], 0)
        return {"images": self._do(self._facts_of, images), "total": count}

    def image(self, image: int) -> Values:
        """Everything that is known of one image. Raises UserError."""
        return self._do(self._image, image)

    def picture(self, image: int, large: bool) -> Optional[Picture]:
        """A picture of it, if there is one."""
        return self._looking.submit(self._pictures.of, image, large).result()

    # ---- changes -----------------------------------------------------------------------------

    def change(self, kind: str, target: str, value: object) -> Values:
        """Take one change; the state after it. Raises UserError."""
        return self._changed(lambda: self._model.change(kind, target, value))

    def undo(self) -> Values:
        """Take the last change back."""
        return self._changed(self._model.history.undo)

    def redo(self) -> Values:
        """Take the last undone change again."""
        return self._changed(self._model.history.redo)

    def save(self) -> Values:
        """Write policy and orders, or read them anew if another program changed them.

        Raises UserError and OSError.
        """
        return self._changed(self._save)

    def _save(self) -> None:
        self._model.save()
        if self._model.changed_outside:
            self._now.use(self._model.now)
            self._shown.clear()

    def _changed(self, work: Callable[[], None]) -> Values:
        def change() -> Values:
            work()
            self._use_draft()
            return self._state()

        return self._do(change)

    # ---- answers, in the one thread ----------------------------------------------------------

    def _clusters(self) -> List[Values]:
        return [dict(cluster._asdict(), sample=self._wall.members(
            cluster.number, "typical", 0, SAMPLE, False)[0]) for cluster in self._wall.clusters()]

    def _state(self) -> Values:
        plan, now, catalog = self._model.plan(), self._model.now, self._now.catalog
        said, history = plan.policy.policy, self._model.history
        last = catalog.passes(1)
        return {
            "version": plan.version, "run": self.run,
            "catalog": os.path.basename(self._catalog_path),
            "counts": catalog.counts, "passes": catalog.last_pass,
            "budget": last[0].budget_bytes if last and last[0].budget_bytes else BUDGET_BYTES,
            "notes": [printable(note) for note in self._notes()],
            "changedOutside": printable(self._model.changed_outside),
            "labels": _by_number(said.labels), "weights": _by_number(said.weights),
            "labelsNow": _by_number(now.labels), "weightsNow": _by_number(now.weights),
            "targets": [dict(_facts(self._model.row(sha256)), weight=weight)
                        for sha256, weight in self._model.weights_of_targets().items()],
            "marks": [dict(_facts(one.row), mark=one.mark, was=one.was)
                      for one in plan.marked.values()],
            "canUndo": history.can_undo, "canRedo": history.can_redo, "stale": plan.stale,
            "orders": {"path": self._model.orders_path, "text": plan.orders.text,
                       "bytes": plan.orders.bytes, "difference": self._model.difference(),
                       "last": self._model.last_bytes},
            "policy": {"path": self._model.policy_path, "text": plan.policy.text,
                       "bytes": len(plan.policy.text.encode("utf-8")),
                       "difference": self._model.policy_difference(),
                       "lost": plan.policy.lost_comments},
            "unsaid": [printable(words) for words in plan.unsaid]}

    def _notes(self) -> List[str]:
        outside = self._model.changed_outside
        notes = ([outside] if outside else []) + list(self._model.standing.notes)
        if self._foreign:
            notes.append(self._foreign)
        unknown = self._model.now.unknown_clusters(self._codebook.k)
        if unknown:
            notes.append(f"the policy speaks of clusters {unknown}; the codebook has 0 to "
                         f"{self._codebook.k - 1}")
        return notes

    def _next_passes(self, budget_bytes: int) -> Values:
        done = min(side.step() for side in self._sides)
        if done < 1:
            return {"done": done}
        version = self._model.plan().version
        now = self._pass(self._now, ("now", budget_bytes), budget_bytes)
        draft = self._pass(self._draft, (version, budget_bytes), budget_bytes)
        return {"done": 1, "version": version, "budget": budget_bytes,
                "now": _pass_in_values(now, draft), "draft": _pass_in_values(draft, now),
                "classes": _classes(now, draft, self._model.plan().policy.policy)}

    def _pass(self, side: Side, key: tuple, budget_bytes: int) -> NextPass:
        if key not in self._shown:
            if len(self._shown) > 100:
                self._shown.clear()
            self._shown[key] = side.next_pass(budget_bytes)
        return self._shown[key]

    def _facts_of(self, images: List[int]) -> List[Values]:
        rows = self._now.catalog.rows(images)
        return [_facts(rows[image]) for image in images]

    def _image(self, image: int) -> Values:
        row = self._now.catalog.rows([image]).get(image)
        if row is None:
            raise UserError(f"there is no image {image}")
        ready = all(side.step() == 1 for side in self._sides)
        explained = {name: [printable(line) for line in side.explained(image)] if ready else
                     ["images are still being valued"]
                     for name, side in (("now", self._now), ("draft", self._draft))}
        return dict(_facts(row), explained=explained)


def _by_number(said: Dict[int, Any]) -> Dict[str, Any]:
    return {str(number): value for number, value in said.items()}


def _facts(row: Row) -> Values:
    """What is shown of an image wherever it stands, in text that cannot turn itself around."""
    return {"image": row.image, "sha256": row.sha256, "name": printable(os.path.basename(row.path)),
            "path": printable(row.path), "bytes": row.bytes, "width": row.width,
            "height": row.height, "captured": row.captured_at, "state": row.state,
            "cluster": row.cluster, "far": bool(row.far),
            "novelty": row.novelty, "quality": row.quality}


def _pass_in_values(shown: NextPass, other: NextPass) -> Values:
    """One pass, each image with its place in the other pass, None where it is not in it."""
    there = {place.row.image: number for number, place in enumerate(other.places, 1)}
    report = shown.report
    return {"bytes": report.bytes, "notes": [printable(note) for note in report.notes],
            "previews": len(report.of(PREVIEW)),
            "previewBytes": sum(parcel.bytes for parcel in report.of(PREVIEW)),
            "images": [dict(_facts(place.row), rank=place.rank, score=place.score,
                            reason=printable(place.reason), place=number,
                            other=there.get(place.row.image))
                       for number, place in enumerate(shown.places, 1)]}


def _classes(now: NextPass, draft: NextPass, said: Policy) -> List[Values]:
    """Images and bytes of each class, which is a label or a cluster without one, most first."""
    counts: Dict[str, Values] = {}
    for side, shown in (("now", now), ("draft", draft)):
        for place in shown.places:
            name = names_of(said.labels, place.row.cluster)[1]
            entry = counts.setdefault(name, {"name": name, "clusters": [], "now": [0, 0],
                                             "draft": [0, 0]})
            if place.row.cluster not in entry["clusters"]:
                entry["clusters"].append(place.row.cluster)
            entry[side] = [entry[side][0] + 1, entry[side][1] + place.row.bytes]
    return sorted(counts.values(), key=_most_first)


def _most_first(entry: Values) -> Tuple[int, str]:
    return -max(entry["now"][0], entry["draft"][0]), entry["name"]

