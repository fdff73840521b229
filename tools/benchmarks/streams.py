"""Random days of a rover: an archive that the clusters are fitted to, and the stream after it.

In: what each picture of a pool shows, a Plan and a seed. Out: which pictures make the archive and
which arrive, in what order. Pure; the same seed gives the same day.
"""

from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from pictures import DISCOVERY, JUNK, TERRAIN, Picture

HELD_OUT = (1, 3)  # classes of terrain that the archive does not know, the second excluded


class Plan(NamedTuple):
    """How large an archive and a stream are; pairs are (least, most) of one draw."""

    archive: Tuple[int, int]  # images of each class that is not held out
    dominating: int  # different images of the commonest class
    ordinary: Tuple[int, int]  # of every other class
    held_out: Tuple[int, int]  # of each held-out class
    shots: int  # most of one scene; of the dominating class all
    discoveries: Tuple[int, int]  # single images of kinds that no archive has
    junk_share: float  # of the whole stream
    copies_of_dominating: float  # chance that an image is followed by its near-repeat
    copies_of_others: float


class Stream(NamedTuple):
    """One day, as places in the pool."""

    archive: np.ndarray  # int [n]
    arrivals: np.ndarray  # int [m], in the order of arrival
    held_out: Tuple[str, ...]
    dominating: str


def draw(pictures: Sequence[Picture], plan: Plan, seed: int) -> Stream:
    """One random day.

    One or two classes of terrain are held out of the archive and one of the others dominates the
    stream. No scene is in both archive and stream. Images of a scene arrive together, near-repeats
    right after what they repeat, discoveries and spoilt frames anywhere.
    """
    random = np.random.RandomState(seed)
    originals, copies, junk, discoveries = _sorted_out(pictures)
    classes = [str(name) for name in random.permutation(sorted(originals))]
    held_out = tuple(classes[:random.randint(*HELD_OUT)])
    dominating = classes[len(held_out)]
    archive, blocks = [], []
    for name in classes:
        scenes = originals[name]
        before, after = _halves(random, scenes)
        if name not in held_out:
            archive += _some(random, [place for scene in before for place in scenes[scene]],
                             random.randint(plan.archive[0], plan.archive[1] + 1))
        wanted = (plan.dominating if name == dominating else random.randint(
            *_closed(plan.held_out if name in held_out else plan.ordinary)))
        chance = plan.copies_of_dominating if name == dominating else plan.copies_of_others
        shots = len(pictures) if name == dominating else plan.shots
        for scene in after:
            taken = scenes[scene][:min(shots, wanted)]
            wanted -= len(taken)
            blocks.append([place for shot in taken
                           for place in [shot] + _with_chance(random, chance, copies.get(shot))])
    kinds = random.permutation(sorted(discoveries))[:random.randint(*_closed(plan.discoveries))]
    blocks += [[random.choice(discoveries[kind])] for kind in kinds]
    ordinary = sum(map(len, blocks))
    spoilt = int(round(ordinary * plan.junk_share / (1 - plan.junk_share)))
    blocks += [[place] for place in _some(random, junk, spoilt)]
    order = random.permutation(len(blocks))
    arrivals = [place for block in order for place in blocks[block]]
    return Stream(np.array(archive), np.array(arrivals), held_out, dominating)


def _sorted_out(pictures):
    """Places by class and scene, of near-repeats, of junk, and of discoveries by kind."""
    originals, copies, junk, discoveries = {}, {}, [], {}
    place_of = {picture.path: place for place, picture in enumerate(pictures)}
    for place, picture in enumerate(pictures):
        if picture.copy_of:
            copies[place_of[picture.copy_of]] = place
        elif picture.role == TERRAIN:
            originals.setdefault(picture.kind, {}).setdefault(picture.scene, []).append(place)
        elif picture.role == DISCOVERY:
            discoveries.setdefault(picture.kind, []).append(place)
        elif picture.role == JUNK:
            junk.append(place)
    return originals, copies, junk, discoveries


def _halves(random, scenes: Dict[str, List[int]]):
    """The names of the scenes in two halves at random: for the archive, for the stream."""
    names = random.permutation(sorted(scenes))
    return names[:len(names) // 2], names[len(names) // 2:]


def _closed(pair: Tuple[int, int]) -> Tuple[int, int]:
    return pair[0], pair[1] + 1


def _some(random, places: Sequence[int], count: int) -> List[int]:
    return [int(place) for place in random.permutation(places)[:count]]


def _with_chance(random, chance, place) -> List[int]:
    return [place] if place is not None and random.random_sample() < chance else []
