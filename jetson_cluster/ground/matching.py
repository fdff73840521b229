"""Which cluster of a new codebook is which of an old one, so that numbers and labels stay.

In: where both put the same images. Out: the new clusters in the order of the old numbers, and the
list of what changed. Pairs are those with most images in common in all (the assignment problem,
solved by SciPy), so that two new clusters never claim one old number.
"""

import csv
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from jetson_cluster.codebook import Codebook
from jetson_cluster.downlink import spreadsheet_safe
from jetson_cluster.logs import printable

KEPT_SHARE = 0.75  # of the images of either that both have: the same cluster for people
PAIR_SHARE = 0.5  # of the images of one of them: else it is another cluster
KEPT, MOVED, NEW, GONE = "kept", "moved", "new", "gone"


class Change(NamedTuple):
    """What became of one cluster."""

    what: str  # KEPT, MOVED (part of its images are in others now), NEW or GONE
    number: Optional[int]  # in the new codebook; None: gone
    was: Optional[int]  # in the old one; None: new
    label: str  # what the policy calls the number it had, or, where it is new, has now
    weight: float  # and how it weighs that number
    images: int  # of the archive that are in it now; 0 if it is gone
    common: int  # of the `had`, those that are in the new one
    had: int  # images of the archive that were in the old one, and not far from it


def shared(old: np.ndarray, new: np.ndarray, old_k: int, new_k: int) -> np.ndarray:
    """int64 [old_k, new_k]: how many images are in both, by the cluster of each, int [N]."""
    return np.bincount(old.astype(np.int64) * new_k + new,
                       minlength=old_k * new_k).reshape(old_k, new_k)


def pairs(common: np.ndarray) -> List[Tuple[int, int]]:
    """(old, new) that are one cluster, by `shared` int64 [old_k, new_k].

    The sum of the shares of images that both have, of those that either has, is as large as can be.
    """
    either = common.sum(axis=1)[:, None] + common.sum(axis=0)[None] - common
    share = common / np.maximum(either, 1)
    old, new = linear_sum_assignment(share, maximize=True)
    smaller = np.minimum(common.sum(axis=1)[old], common.sum(axis=0)[new])
    same = common[old, new] >= np.maximum(PAIR_SHARE * smaller, 1)
    return [(int(one), int(other)) for one, other in zip(old[same], new[same])]


def order(paired: List[Tuple[int, int]], new_k: int) -> np.ndarray:
    """int [new_k]: which new cluster gets each number.

    Those of a pair get the old number where there is one so high; the others what is left.
    """
    made = np.full(new_k, -1)
    for old, new in paired:
        if old < new_k:
            made[old] = new
    made[made < 0] = np.setdiff1d(np.arange(new_k), made[made >= 0])
    return made


def numbered(book: Codebook, new_order: np.ndarray) -> Codebook:
    """The codebook with its clusters in this order."""
    held = {name: getattr(book, name)[new_order] for name in ("centroids", "counts", "scales")}
    if len(book.reaches):
        held["reaches"] = book.reaches[new_order]
    return Codebook(*book._replace(**held))


class Comparison:
    """An old codebook's clusters and new ones, by the images that both hold.

    What the old codebook calls far belonged to none of its clusters, and makes no new one like them.
    """

    def __init__(self, old: Codebook, new_k: int):
        self._old, self._new_k = old, new_k
        self._paired = []  # type: List[Tuple[int, int]]  # (old, new) numbers
        self._common = np.zeros((old.k, new_k), np.int64)
        self._sizes = np.zeros(new_k, np.int64)

    def pair(self, embeddings: np.ndarray, cluster: np.ndarray) -> np.ndarray:
        """int [new_k]: `order` of new clusters by raw embeddings float32 [N, D] that are in `cluster`.

        Whatever is counted afterwards is in the new numbers.
        """
        paired = pairs(self._shared(embeddings, cluster))
        made = order(paired, self._new_k)
        number_of = np.argsort(made)
        self._paired = [(old, int(number_of[new])) for old, new in paired]
        return made

    def count(self, embeddings: np.ndarray, cluster: np.ndarray) -> None:
        """Take in where so many images are, raw embeddings float32 [n, D] and numbers int [n]."""
        self._common += self._shared(embeddings, cluster)
        self._sizes += np.bincount(cluster, minlength=self._new_k)

    def _shared(self, embeddings: np.ndarray, cluster: np.ndarray) -> np.ndarray:
        before = self._old.assess(embeddings)
        return shared(before.cluster[~before.far], cluster[~before.far], self._old.k, self._new_k)

    def changes(self, labels: Dict[int, str], weights: Dict[int, float]) -> List[Change]:
        """What became of every cluster, by the images counted; the rest is a policy's."""
        return changes(self._common, self._sizes, self._paired, labels, weights)


def changes(common: np.ndarray, sizes: np.ndarray, paired: List[Tuple[int, int]],
            labels: Dict[int, str], weights: Dict[int, float]) -> List[Change]:
    """What became of every cluster, by old and final new numbers; new numbers first.

    `common` is `shared` of the images that the old codebook does not call far: terrain that it did not
    know belonged to none of its clusters. `sizes` int [new_k] are those of all images.
    """
    was = {new: old for old, new in paired}
    found = []
    for number, images in enumerate(sizes.tolist()):
        if number not in was:
            found.append(Change(NEW, number, None, labels.get(number, ""),
                                weights.get(number, 1.0), images, 0, 0))
            continue
        old = was[number]
        both, had = int(common[old, number]), int(common[old].sum())
        what = KEPT if both >= KEPT_SHARE * (images + had - both) else MOVED
        found.append(Change(what, number, old, labels.get(old, ""), weights.get(old, 1.0), images,
                            both, had))
    gone = sorted(set(range(len(common))) - set(was.values()))
    return found + [Change(GONE, None, old, labels.get(old, ""), weights.get(old, 1.0), 0, 0,
                           int(common[old].sum())) for old in gone]


def describe(found: List[Change]) -> List[str]:
    """What the operations team should know, a line each: how many, then each that is not as it was."""
    counts = {what: sum(change.what == what for change in found) for what in (
        KEPT, MOVED, NEW, GONE)}
    lines = ["clusters as in the old codebook: %d kept, %d moved, %d new, %d gone" % tuple(
        counts.values())]
    for change in found:
        name = " (%s)" % printable(change.label) if change.label else ""
        if change.what == NEW:
            said = ["calls it " + printable(change.label)] * bool(change.label)
            said += ["weighs it %g" % change.weight] * (change.weight != 1)
            lines.append("  %d is new, %d images%s" % (
                change.number, change.images,
                "; the policy %s: change that" % " and ".join(said) if said else ""))
        elif change.what == GONE:
            lines.append("  %d%s is gone: %s" % (
                change.was, name, "its %d images are in others now" % change.had if change.had
                else "none of these images are like it"))
        elif change.was != change.number:
            lines.append("  %d%s has the number %d now: change the policy" % (
                change.was, name, change.number))
        if change.what == MOVED:
            lines.append("  %d%s moved: %d of its %d images stayed, %d are new in it" % (
                change.number, name, change.common, change.had, change.images - change.common))
    return lines


def write(path: str, found: List[Change]) -> None:
    """All changes as CSV; raises OSError."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(Change._fields)
        for change in found:
            safe = change._replace(label=spreadsheet_safe(change.label))
            writer.writerow(["" if field is None else field for field in safe])
