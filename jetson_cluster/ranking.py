"""Which image to send next: pure functions from what is known of the images to an order.

In: candidates (from the catalog, through the pool) and the terms they compete on (from the policy
and from what is on the ground). Out: images in the order to send them, each with its score and what
stood ahead of it, and the words that say why.

score = weight x interest x discount^(u.more) x min(nearness, near_duplicate) [/ bytes]

u is the image's soft membership of clusters. `more` counts for each cluster the memberships of
everything ahead in this queue and of what earlier passes sent, less the lowest such count of the
kinds that are still to be had, and never below 0. Without taking that off, the counts of all kinds
rise together, and soon only the sum of u decides: on synthetic terrain of 16 kinds 29 % of the
first 200 images were of the best tenth by interest; with it 90 % are, as evenly spread over the
kinds. It changes nothing before every kind was seen, nor where images belong to one cluster alone.

nearness = clip((d / reach)^2, 0.04, 1) with d, the distance to the nearest image ahead in this queue
(sketches.py), and the reach of the image (codebook.Assessment): it tells two kinds apart that share
a cluster, of which diversity alone would send one. near_duplicate counts where one was sent, or
is ahead.

The next best is found by looking again only at those that could still be it: lazy greedy (Minoux
1978), a block of candidates at a time.
"""

import math
from bisect import bisect_right
from collections import deque
from typing import Dict, FrozenSet, List, NamedTuple, Tuple

import numpy as np

from jetson_cluster import sketches
from jetson_cluster.codebook import NEIGHBOURS

FLOOR = 1e-9  # interest may be 0; its logarithm must still be a number
FAR_EVERY = 5  # one place in five belongs to images beyond r95: discoveries seen, junk no flood
FAR_QUALITY = 0.5  # of images far from everything, only those that the camera got right
NEAREST = 0.04  # nearness of what is within a fifth of its reach to one ahead
MUCH_LIKE = 0.5  # a nearness that is worth telling
LIKE = 0.25  # a likeness to a target that is worth telling
BLOCK = 256  # candidates looked at together: fewer cost more calls, more cost more looks in vain
SHARES = 16  # steps of membership by which blocks are made: close bounds are found with few looks
ROUNDING = 1e-6  # of a log score; with 100,000 images ahead sums are good to 1e-10
PIN, FAR, AGED = "pin", "far", "aged"  # why an image has its place, if not by its score

CANDIDATE = np.dtype([
    ("image", np.int64), ("cluster", np.int32), ("interest", np.float32), ("ratio", np.float32),
    ("far", np.bool_), ("soft_index", np.int32, (NEIGHBOURS,)),
    ("soft_weight", np.float32, (NEIGHBOURS,)), ("bytes", np.int64), ("twin", np.int64),
    ("quality", np.float32),
    # Without a sketch reach is 0, and the image near no other.
    ("reach", np.float32), ("sketch", np.int16, (sketches.NUMBERS,))])


class Terms(NamedTuple):
    """What candidates compete on, besides what is known of each."""

    weights: np.ndarray  # float64 [k]
    on_ground: np.ndarray  # float64 [k], memberships of what was sent, less with every pass
    log_discount: float  # what one image of just this kind takes off the log of the score, <= 0
    aged_until: int = 0  # images with an id up to this are old; 0: none is
    aged_every: int = 0  # that share of the places goes to the oldest of them; 0: none
    near_duplicate: float = 1.0  # factor, above 0 and at most 1
    sent_twins: FrozenSet[int] = frozenset()  # groups of near-duplicates of which one was sent
    pins: Tuple[int, ...] = ()  # first, in this order
    held: FrozenSet[int] = frozenset()  # left out
    per_byte: bool = False  # whether a score is divided by the bytes it costs
    # Images handed over before. Places are counted on from there, or passes of three images would
    # never come to the fifth place, and the oldest images would wait for ever.
    places_before: int = 0


class Ranked(NamedTuple):
    """One image in its place."""

    image: int
    score: float
    kin: float  # u.ahead: how many of its kind are ahead of it in this queue
    kin_on_ground: float  # u.ground: how many of its kind earlier passes sent
    slot: str  # "" by its score; PIN, FAR, AGED
    duplicate: bool  # discounted, for a near-duplicate is ahead of it or was sent
    common: float = 0.0  # how many of all its kin count nothing, for every kind has as many
    nearness: float = 1.0  # factor; less, the nearer the nearest image ahead of it is


def group_of(candidates: np.ndarray) -> np.ndarray:
    """int64 [N]: which near-duplicates belong together; an image without any is a group alone."""
    return np.where(candidates["twin"] > 0, candidates["twin"], candidates["image"])


def is_far_place(place: int) -> bool:
    """Whether this place (from 0) is kept for a far image."""
    return place % FAR_EVERY == FAR_EVERY - 1


def is_aged_place(place: int, every: int) -> bool:
    """Whether this place (from 0) is kept for an old image: one in `every`, never a far one's.

    Where both would fall on one place, the old image has the next.
    """
    def meant(number):
        return number % every == min(every, FAR_EVERY) // 2

    if every < 1 or is_far_place(place):
        return False
    return meant(place) or (is_far_place(place - 1) and meant(place - 1))


def may_be_far(candidates: np.ndarray, terms: Terms) -> np.ndarray:
    """bool [N]: which candidates may take a place kept for far images."""
    return (candidates["far"] & (candidates["quality"] >= FAR_QUALITY)
            & (terms.weights[candidates["cluster"]] > 0))


def may_be_aged(candidates: np.ndarray, terms: Terms) -> np.ndarray:
    """bool [N]: which candidates may take a place kept for old images."""
    return ((candidates["image"] <= terms.aged_until)
            & (terms.weights[candidates["cluster"]] > 0))


def order(candidates: np.ndarray, terms: Terms, rows: int) -> List[Ranked]:
    """The first `rows` of CANDIDATE [N] in the order to send them.

    Pins come first, held images not at all. Each further place goes to the highest score given
    everything ahead of it, on a tie to the image that came first; but for the places kept for far
    images (nearest first) and for old ones (oldest first). Images of clusters of weight 0 come
    after all others, however many of another kind are ahead of those. The same candidates in any
    order give the same answer.
    """
    pool = candidates[np.unique(candidates["image"], return_index=True)[1]]
    if terms.held:
        pool = pool[~np.isin(pool["image"], sorted(terms.held))]
    choice = _Choice(pool, terms, rows)
    chosen = []
    for image in dict.fromkeys(terms.pins):
        if image in choice.waiting and len(chosen) < rows:
            chosen.append(choice.take(image, PIN))
    by_slot = {FAR: _images_by("ratio", pool[may_be_far(pool, terms)]),
               AGED: _images_by("image", pool[may_be_aged(pool, terms)])}
    number = terms.places_before
    while len(chosen) < min(rows, len(pool)):
        slot = (FAR if is_far_place(number) else
                AGED if is_aged_place(number, terms.aged_every) else "")
        queue = by_slot.get(slot)
        while queue and queue[0] not in choice.waiting:
            queue.popleft()
        chosen.append(choice.take(queue[0], slot) if queue else choice.take(choice.best(), ""))
        number += 1
    return chosen


def _images_by(key: str, candidates: np.ndarray) -> deque:
    return deque(candidates["image"][np.lexsort((candidates["image"], candidates[key]))].tolist())


class _Choice:
    """The images not yet taken, and the best of them.

    Candidates stand in blocks of one kind, that is one nearest centroid. What the best of a block
    scored when it was last looked at bounds what it can score now: since then it fell by no less
    than those taken of the kind weigh on its least member, and rose by no more than the common
    count grew. Only blocks that may hold the best by their bounds are looked at. Scores only fall by
    nearness, so that of a block is worked out when the block is looked at. Each score is one
    sum in one order: it does not depend on which other candidates of its kind there are.
    """

    def __init__(self, pool: np.ndarray, terms: Terms, rows: int):
        wanted = terms.weights[pool["cluster"]] > 0
        base, duplicate = _base(pool, terms, wanted)
        places = np.lexsort((pool["image"], -base, np.floor(pool["soft_weight"][:, 0] * SHARES),
                             pool["soft_index"][:, 0], ~wanted))
        pool, self._wanted = pool[places], wanted[places]
        self._base, self._duplicate = base[places], duplicate[places]  # base: -inf once taken
        self._log_duplicate = math.log(terms.near_duplicate)
        self._twin = np.where(self._duplicate, self._log_duplicate, 0.0)  # log of the factor
        # Nearness to the first `_seen` of those ahead, and its log.
        self._nearness, self._near = np.ones(len(pool)), np.zeros(len(pool))
        self._squared_reach = _squared_reach(pool)
        self._side, self._other_side = sketches.sides(pool["sketch"], pool["reach"] > 0)
        self._taken = np.empty((min(rows, len(pool)), self._side.shape[1]), np.float32)
        self._count_taken = 0  # of those that have a sketch
        self._images, self._index = pool["image"].copy(), pool["soft_index"].copy()
        self._share = pool["soft_weight"].astype(np.float64)
        self.waiting = {image: place for place, image in enumerate(self._images.tolist())}
        self._group = group_of(pool)
        self._near_duplicates = _places_of_groups(self._group)
        self._log_discount = terms.log_discount

        kind = self._index[:, 0]
        starts = _starts(kind, self._wanted)
        self._edges, self._kind = starts.tolist() + [len(pool)], kind[starts]
        self._seen = [0] * len(starts)
        self._fall = terms.log_discount * _of_parts(np.minimum, self._share[:, 0], starts)
        self._rise = -terms.log_discount * _of_parts(np.maximum, self._share.sum(axis=1), starts)
        self._bound = np.full(len(starts), np.inf)  # nothing was looked at yet
        self._counts_then, self._least_then = np.zeros(len(starts)), np.zeros(len(starts))
        # Those not wanted only come when no other is left.
        tiers = [np.flatnonzero(self._wanted), np.flatnonzero(~self._wanted)]
        self._left = [np.bincount(kind[tier], minlength=len(terms.weights)) for tier in tiers]
        self._wanted_blocks = int(np.searchsorted(starts, len(tiers[0])))
        self._ground, self._ahead = terms.on_ground, np.zeros(len(terms.weights))
        self._count()

    def _count(self) -> None:
        """Find the least count of the kinds still to be had, and what others have more than it."""
        self._tier = 0 if self._left[0].any() else 1
        self._counts, there = self._ground + self._ahead, self._left[self._tier] > 0
        self._least = self._counts[there].min() if there.any() else 0.0
        # Kinds that are not to be had may have less: that is no reason to want what is partly so.
        self._more = np.maximum(self._counts - self._least, 0)

    def best(self) -> int:
        """The image with the highest score; there must be one left."""
        first, last = 0, self._wanted_blocks
        if self._tier:
            first, last = last, len(self._kind)
        part = slice(first, last)
        bounds = (self._bound[part]
                  + self._fall[part] * (self._counts[self._kind[part]] - self._counts_then[part])
                  + self._rise[part] * (self._least - self._least_then[part]))
        found = -np.inf, 0
        while True:
            block = int(bounds.argmax())
            # Rounding must not hide the best: bounds are sums of other numbers than scores are.
            if bounds[block] == -np.inf or bounds[block] + ROUNDING < found[0]:
                return -found[1]
            bounds[block] = -np.inf
            found = max(found, self._look(first + block))

    def _look(self, block: int) -> Tuple[float, int]:
        """The highest score in the block, and the image it is of, negative."""
        part = self._see(block)
        scores = (self._base[part] + np.minimum(self._near[part], self._twin[part])
                  + self._log_discount * _kin(self._more, self._index[part], self._share[part]))
        highest = float(scores.max())
        self._bound[block], self._least_then[block] = highest, self._least
        self._counts_then[block] = self._counts[self._kind[block]]
        return highest, -int(self._images[part][scores == highest].min())

    def _see(self, block: int) -> slice:
        """Bring the nearness of a block up to date; where it is."""
        part = slice(self._edges[block], self._edges[block + 1])
        new = self._taken[self._seen[block]:self._count_taken]
        if len(new):
            before = self._nearness[part]
            now = _nearest(self._side[part], new) / self._squared_reach[part]
            if (now < before).any():
                self._nearness[part] = np.maximum(np.minimum(before, now), NEAREST)
                self._near[part] = np.log(self._nearness[part])
            self._seen[block] = self._count_taken
        return part

    def take(self, image: int, slot: str) -> Ranked:
        """Give the image the next place of the queue."""
        place = self.waiting.pop(image)
        self._see(bisect_right(self._edges, place) - 1)
        index, share = self._index[place], self._share[place]
        ahead, ground, more = (float(_kin(counts, index, share))
                               for counts in (self._ahead, self._ground, self._more))
        wanted = bool(self._wanted[place])
        like = min(float(self._near[place]), float(self._twin[place]))
        score = math.exp(self._base[place] + like + self._log_discount * more) if wanted else 0.0
        ranked = Ranked(image, score, ahead, ground, slot, bool(self._duplicate[place]),
                        ahead + ground - more, float(self._nearness[place]))
        if not ranked.duplicate:
            others = self._near_duplicates.get(int(self._group[place]), [])
            self._twin[others] = self._log_duplicate
            self._duplicate[others] = True
        if self._other_side[place, -1] < sketches.ENDLESS:
            self._taken[self._count_taken] = self._other_side[place]
            self._count_taken += 1
        self._base[place] = -np.inf
        self._left[not wanted][index[0]] -= 1
        np.add.at(self._ahead, index, share)
        self._count()
        return ranked


def _places_of_groups(groups: np.ndarray) -> Dict[int, np.ndarray]:
    """Where the members of each group of more than one are."""
    places = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[places], prepend=-1))
    sizes = np.diff(starts, append=len(groups))
    return {int(groups[places[start]]): places[start:start + size]
            for start, size in zip(starts[sizes > 1], sizes[sizes > 1])}


def _base(pool: np.ndarray, terms: Terms, wanted: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """(log score but for kin, whether a near-duplicate was sent); weights of 0 are left out."""
    base = (np.log(terms.weights[pool["cluster"]], out=np.zeros(len(pool)), where=wanted)
            + np.log(np.maximum(pool["interest"].astype(np.float64), FLOOR)))
    if terms.per_byte:
        base -= np.log(np.maximum(pool["bytes"], 1).astype(np.float64))
    return base, np.isin(group_of(pool), sorted(terms.sent_twins))


def _squared_reach(candidates: np.ndarray) -> np.ndarray:
    """float64 [N], in steps; 1 without a reach."""
    reach = candidates["reach"].astype(np.float64)
    return np.where(reach > 0, (sketches.STEPS * reach) ** 2, 1)


def _nearest(side: np.ndarray, other_side: np.ndarray) -> np.ndarray:
    """float32 [N]: the least of the distances squared to each, from the two of sketches.sides."""
    return (other_side @ side.T).min(axis=0)


def nearness(candidates: np.ndarray, ahead: np.ndarray) -> np.ndarray:
    """float64 [N]: the factor of CANDIDATE [N] with CANDIDATE [M] ahead of them."""
    side, _ = sketches.sides(candidates["sketch"], candidates["reach"] > 0)
    _, other_side = sketches.sides(ahead["sketch"], ahead["reach"] > 0)
    found, limits = np.ones(len(candidates)), _squared_reach(candidates)
    for start in range(0, len(candidates) if len(ahead) else 0, BLOCK):
        part = slice(start, start + BLOCK)
        found[part] = np.clip(_nearest(side[part], other_side) / limits[part], NEAREST, 1)
    return found


def _kin(counts: np.ndarray, index: np.ndarray, share: np.ndarray) -> np.ndarray:
    """float64 [...]: u.counts of soft memberships [..., 4]."""
    products = counts[index] * share
    return products[..., 0] + products[..., 1] + products[..., 2] + products[..., 3]


def _starts(kind: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where the blocks start: with every other kind, at the unwanted, and after BLOCK images."""
    if not len(kind):
        return np.empty(0, np.int64)
    new = np.concatenate([[True], (kind[1:] != kind[:-1]) | (wanted[1:] != wanted[:-1])])
    since = np.arange(len(kind)) - np.flatnonzero(new)[np.cumsum(new) - 1]
    return np.flatnonzero(since % BLOCK == 0)


def _of_parts(function, values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return function.reduceat(values, starts) if len(starts) else np.empty(0)


def reason(row, label: str, weight: float, ranked: Ranked, clustered: bool,
           verdict_reason: str = "", resemblance=None) -> str:
    """Why an image stands in its place, in words for the operator, what matters most first.

    `row` is a records.Row, `verdict_reason` what is wrong with its quality, `resemblance` the
    scoring.Resemblance to the target that it is most like, None for none.
    """
    parts = []
    if ranked.slot == PIN:
        parts.append("pinned by operations")
    elif ranked.slot == AGED:
        parts.append("has waited longest (some places are kept for the oldest)")
    if resemblance and resemblance.likeness >= LIKE:
        parts.append("%d%% like %s" % (round(100 * resemblance.likeness), resemblance.name))
    parts.append(_kind_in_words(row, label, ranked, clustered))
    if row.quality < 1:
        parts.append("%s (counts %.2g)" % (verdict_reason or "poor quality", row.quality))
    if ranked.duplicate:
        parts.append("near-duplicate of one ahead or sent")
    elif ranked.nearness < MUCH_LIKE:
        parts.append("much like one ahead")
    if clustered and weight != 1:
        parts.append("weight %g" % weight)
    parts.append(_kin_in_words(ranked.kin))
    if ranked.kin_on_ground >= 0.75:
        parts.append("%d like it already on the ground" % round(ranked.kin_on_ground))
    return "; ".join(parts)


def _kind_in_words(row, label: str, ranked: Ranked, clustered: bool) -> str:
    if not clustered:
        return "no clusters yet, sorted by difference"
    if ranked.slot == FAR:
        return ("unlike the whole archive: discovery or junk (1 place in %d is kept for these)"
                % FAR_EVERY)
    if row.far:
        return "unlike the whole archive"
    if row.novelty >= 0.7:
        return "unusual for %s (stranger than %d%% of the archive)" % (
            label, min(99, int(100 * row.novelty)))
    if row.representative >= 0.7:
        return "typical %s (clearer than %d%% of the archive)" % (
            label, min(99, int(100 * row.representative)))
    return "ordinary %s" % label


def _kin_in_words(kin: float) -> str:
    if kin < 0.25:
        return "nothing like it ahead"
    if kin < 1.5:
        return "one like it ahead" if kin >= 0.75 else "little like it ahead"
    return "%d like it ahead" % round(kin)


def names_of(labels: Dict[int, str], cluster: int) -> Tuple[str, str]:
    """The label of a cluster ("" if it has none) and how to speak of it in a sentence."""
    label = labels.get(cluster, "")
    return label, label or "cluster %d" % cluster
