"""How good an order is to send a stream in: what so many bytes hold, and how early the odd come.

In: an order, the files' sizes and what the pictures show. Out: a Yield. Pure.

Precision at N and the mean rank are those of DORA (Kerner et al., "Domain-Agnostic Outlier Ranking
Algorithms", Frontiers in Astronomy and Space Sciences, 2022): N is the number of odd ones that
there are, and the measure is which share of the first N is odd; the mean rank is the mean place of
the odd ones, here as a share of the stream so that streams of several lengths can be averaged. The
odd ones are the images of terrain that the archive does not know, and discoveries; spoilt frames
are not.
"""

from typing import List, NamedTuple, Sequence

import numpy as np

BUDGETS = (0.05, 0.10, 0.25)  # of the stream's bytes


class Truth(NamedTuple):
    """What the m pictures of a stream show."""

    terrain: np.ndarray  # text [m]: the class of terrain, "" for what is none
    odd: np.ndarray  # text [m]: the held-out class or the discovery, "" for what is not odd
    junk: np.ndarray  # bool [m]


class Yield(NamedTuple):
    """What one order gives; the first four for each of BUDGETS."""

    classes: List[float]  # share of the stream's classes of terrain among those sent
    odd_kinds: List[float]  # share of the kinds of odd ones among those sent
    odd: List[float]  # share of the odd ones that were sent
    junk: List[float]  # share of junk among those sent
    precision: float  # at N
    mean_rank: float  # of the odd ones, 0..1


def sent(order: Sequence[int], sizes: np.ndarray, budget_bytes: float) -> List[int]:
    """Which are sent: in order, each that still fits; others are skipped, as a pass does."""
    taken, left, smallest = [], budget_bytes, sizes.min()
    for place in order:
        if sizes[place] <= left:
            taken.append(place)
            left -= sizes[place]
            if left < smallest:
                break
    return taken


def judge(order: np.ndarray, sizes: np.ndarray, truth: Truth) -> Yield:
    """What sending the stream in this order gives."""
    passes = [sent(order, sizes, share * sizes.sum()) for share in BUDGETS]
    is_odd = truth.odd != ""
    places = np.flatnonzero(is_odd[order]) + 1
    return Yield(
        classes=[_share_of_kinds(truth.terrain, places_sent) for places_sent in passes],
        odd_kinds=[_share_of_kinds(truth.odd, places_sent) for places_sent in passes],
        odd=[is_odd[places_sent].sum() / is_odd.sum() for places_sent in passes],
        junk=[truth.junk[places_sent].mean() if places_sent else 0.0 for places_sent in passes],
        precision=float((places <= len(places)).mean()),
        mean_rank=float(places.mean() / len(order)))


def _share_of_kinds(kinds: np.ndarray, places: List[int]) -> float:
    return len(set(kinds[places]) - {""}) / len(set(kinds) - {""})


def best_classes(sizes: np.ndarray, truth: Truth) -> np.ndarray:
    """The order that shows most classes of terrain in any budget: the smallest file of each."""
    by_size = np.argsort(sizes, kind="stable")
    _, first = np.unique(truth.terrain[by_size], return_index=True)
    first = [place for place in np.sort(first) if truth.terrain[by_size[place]]]
    return np.concatenate([by_size[first], np.delete(by_size, first)])


def flat(yielded: Yield) -> np.ndarray:
    """float64 [14]: all numbers of a Yield in the order of its fields."""
    return np.concatenate([np.ravel(field) for field in yielded])


def unflat(numbers: np.ndarray) -> Yield:
    """The inverse of `flat`."""
    count = len(BUDGETS)
    lists = [numbers[start:start + count] for start in range(0, 4 * count, count)]
    return Yield(*lists, precision=numbers[-2], mean_rank=numbers[-1])
