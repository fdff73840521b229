"""How the outbox's links are called, so that the order of their names is the order of rank.

In: images in rank order, and the keys that some of their links have already. Out: a key for each,
rising, with as few links as possible called otherwise than before. Pure functions.

A name is KEY-HASH-NAME: 15 digits, the beginning of the SHA-256, the file's own name. Keys always
have the same number of digits, so that every program that sorts names, by bytes, by numbers or by
the rules of a language, sorts them alike.
"""

import os
import re
from bisect import bisect_left
from typing import Dict, List, Optional, Sequence, Set

from jetson_cluster.walker import is_passed_over

DIGITS = 15
MOST = 10 ** DIGITS - 1
# Between neighbours at first: 26 times an image can be put next to the one put there before, and
# five million times one after the last, before links have to be called otherwise.
STEP = 10 ** 8
HASH_DIGITS = 12
HEAD = DIGITS + HASH_DIGITS + 2  # characters before the file's own name
NAME_BYTES = 100  # what the oldest file protocols and archives still take
LONGEST_SUFFIX = 12
_NAME = re.compile(r"([0-9]{%d})-[0-9a-f]{%d}-" % (DIGITS, HASH_DIGITS))
_NOT_PLAIN = re.compile(b"[^A-Za-z0-9._-]")


def name_of(key: int, sha256: str, path: str) -> str:
    """The name of the link to the image with that hash at `path`; at most NAME_BYTES, ASCII."""
    plain = _NOT_PLAIN.sub(b"_", os.fsencode(os.path.basename(path))).decode("ascii")
    stem, suffix = os.path.splitext(plain)
    if len(suffix) > LONGEST_SUFFIX:
        stem, suffix = plain, ""
    head = "%0*d-%s-" % (DIGITS, key, sha256[:HASH_DIGITS])
    name = head + stem[:NAME_BYTES - len(head) - len(suffix)] + suffix
    # What was cut may leave the name of a file that is not finished, which nobody would send.
    return name[:NAME_BYTES - 1] + "_" if is_passed_over(name) else name


def key_of(name: str) -> Optional[int]:
    """The key in a link's name; None if no link of ours is called so."""
    found = _NAME.match(name)
    return int(found.group(1)) if found else None


def keys_for(present: Sequence[Optional[int]], fixed: Sequence[bool], most: int = MOST,
             step: int = STEP) -> List[int]:
    """Keys 0..most for links in the order wanted: rising, and as many as possible as they are.

    `present` has the keys of links that are there, None for new ones. Those `fixed` keep theirs,
    also where they stand in the way of the order. Where there is no room left between two, all but
    the fixed get other keys, then all but the first of these, at last all.
    """
    there = [place for place, key in enumerate(present) if key is not None]
    held = [place for place in there if fixed[place]]
    first = sorted(held, key=lambda place: present[place])[:1]
    for kept, stay in ((held, _rising(present, there)), (held, _rising(present, held)),
                       (first, first), ([], [])):
        keys = _filled(present, set(kept) | set(stay), stay, most, step)
        if keys is not None:
            return keys
    raise ValueError("%d links do not fit into %d keys" % (len(present), most + 1))


def _rising(present: Sequence[Optional[int]], places: Sequence[int]) -> List[int]:
    """Most of `places`, such that their keys rise (patience sorting)."""
    ends = []  # type: List[int]  # the lowest key that ends a chain of each length ...
    at, before = [], {}  # type: List[int], Dict[int, Optional[int]]  # ... where, and after which
    for place in places:
        length = bisect_left(ends, present[place])
        if length == len(ends):
            ends.append(present[place])
            at.append(place)
        else:
            ends[length], at[length] = present[place], place
        before[place] = at[length - 1] if length else None
    chain, last = [], at[-1] if at else None  # type: List[int], Optional[int]
    while last is not None:
        chain.append(last)
        last = before[last]
    return chain[::-1]


def _filled(present: Sequence[Optional[int]], kept: Set[int], stay: Sequence[int], most: int,
            step: int) -> Optional[List[int]]:
    """All keys, with those of `kept` as they are and the others between those of `stay`."""
    keys = [present[place] if place in kept else None for place in range(len(present))]
    lowest = min((present[place] for place in kept), default=None)
    ends = [-1] + list(stay) + [len(present)]
    for start, end in zip(ends, ends[1:]):
        low = present[start] if start >= 0 else None
        high = present[end] if end < len(present) else None
        if low is None:
            high = lowest  # the very best come before all, also before those out of order
        empty = [place for place in range(start + 1, end) if place not in kept]
        spread = _spread(len(empty), low, high, most, step)
        if spread is None:
            return None
        for place, key in zip(empty, spread):
            keys[place] = key
    return keys


def _spread(count: int, low: Optional[int], high: Optional[int], most: int, step: int
            ) -> Optional[List[int]]:
    """`count` keys above `low` and below `high`; None if there is no room."""
    if not count:
        return []
    if low is None and high is None:
        low = most // 2
    if high is None:
        step = min(step, (most + 1 - low) // (count + 1))
    elif low is None:
        step = min(step, (high + 1) // (count + 1))
        low = high - step * (count + 1)
    else:
        step = (high - low) // (count + 1)
    return [low + step * place for place in range(1, count + 1)] if step else None
