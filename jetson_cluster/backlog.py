"""The files that wait to be read: first until they are still, then for their turn.

In: `Arrival`s that somebody saw. Out: those that are ready, oldest first, each once. Only stats of
the files decide; time is the monotonic clock, so setting the rover's clock changes nothing.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from typing import Callable, Dict, List, Optional, Set, Tuple

from jetson_cluster.walker import Arrival, look

# `known` is asked about at most this many files at a time.
KNOWN_CHUNK = 500
# Settling files looked at again in one go; each costs one look at the disk, and the loop waits.
SETTLE_PIECE = 1000

Known = Callable[[List[Arrival]], Set[str]]


class Backlog:
    """At most about `limit` files, settling or ready.

    `known` returns the paths of those arrivals, 500 at most, that were dealt with before.
    """

    def __init__(self, settle_s: float, known: Known, monotonic: Callable[[], float],
                 limit: int) -> None:
        self._settle_s = settle_s
        self._known = known
        self._monotonic = monotonic
        self._limit = limit
        # path: (how it looked, when it was first seen so); the one due first stands first.
        self._settling: "OrderedDict[str, Tuple[Arrival, float]]" = OrderedDict()
        self._ready: Dict[str, Arrival] = {}
        self._order: List[Tuple[int, str]] = []  # of _ready: (mtime_ns, path), ascending
        self._taken: Dict[str, Arrival] = {}  # handed out, neither done nor given back

    @property
    def ready(self) -> int:
        """Files waiting for their turn."""
        return len(self._ready)

    @property
    def settling(self) -> int:
        """Files that may still be growing."""
        return len(self._settling)

    @property
    def room(self) -> int:
        """How many more may come in."""
        return max(0, self._limit - len(self._ready) - len(self._settling))

    @property
    def next_due_s(self) -> Optional[float]:
        """When, by the monotonic clock, to look at the next settling file; None without any."""
        if not self._settling:
            return None
        return next(iter(self._settling.values()))[1] + self._settle_s

    def admit(self, candidates: List[Tuple[Arrival, bool]]) -> None:
        """Let in the new ones among (arrival, is it complete); the incomplete have to settle first.

        Raises what `known` raises; some candidates have not come in then.
        """
        fresh = [(arrival, complete) for arrival, complete in candidates
                 if arrival not in (self._taken.get(arrival.path), self._ready.get(arrival.path))]
        for start in range(0, len(fresh), KNOWN_CHUNK):
            chunk = fresh[start:start + KNOWN_CHUNK]
            dealt_with = self._known([arrival for arrival, _ in chunk])
            for arrival, complete in chunk:
                if arrival.path in dealt_with:
                    self.drop(arrival.path)
                elif complete:
                    self._make_ready(arrival)
                else:
                    self._let_settle(arrival)

    def settle(self) -> None:
        """Look again at the files whose time has come. Raises what `known` raises."""
        now_s = self._monotonic()
        changed = []
        for _ in range(min(len(self._settling), SETTLE_PIECE)):
            path, (arrival, since_s) = next(iter(self._settling.items()))
            if now_s - since_s < self._settle_s:
                break
            self.drop(path)
            current = look(path)
            if current == arrival:
                self._make_ready(arrival)
            elif current is not None:
                changed.append((current, False))
        self.admit(changed)

    def take(self, limit: int) -> Tuple[List[Arrival], List[str]]:
        """(At most `limit` ready files, oldest first; paths of those that changed meanwhile)."""
        taken, changed = [], []
        while self._order and len(taken) < limit:
            arrival = self._ready[self._order[0][1]]
            self.drop(arrival.path)
            current = look(arrival.path)
            if current == arrival:
                self._taken[arrival.path] = arrival
                taken.append(arrival)
            elif current is not None:
                changed.append(arrival.path)
        return taken, changed

    def give_back(self, arrival: Arrival) -> None:
        """A taken file was not processed: it is ready again, unless it was seen rewritten since."""
        path = arrival.path
        newer = path in self._ready or path in self._settling
        if not newer and self._taken.get(path, arrival) == arrival:
            self._taken.pop(path, None)
            self._make_ready(arrival)

    def drop(self, path: str) -> None:
        """This file waits no longer, if it did."""
        self._settling.pop(path, None)
        arrival = self._ready.pop(path, None)
        if arrival is not None:
            del self._order[bisect_left(self._order, (arrival.mtime_ns, path))]

    def clear(self) -> None:
        """No file waits any longer; what was taken stays taken."""
        self._settling.clear()
        self._ready.clear()
        del self._order[:]

    def done(self, arrival: Arrival) -> None:
        """A taken file was dealt with: from now on `known` speaks for it."""
        if self._taken.get(arrival.path) == arrival:
            del self._taken[arrival.path]

    def _make_ready(self, arrival: Arrival) -> None:
        self.drop(arrival.path)
        self._ready[arrival.path] = arrival
        insort(self._order, (arrival.mtime_ns, arrival.path))

    def _let_settle(self, arrival: Arrival) -> None:
        before = self._settling.get(arrival.path)
        if before is None or before[0] != arrival:
            self.drop(arrival.path)
            # The clock is read after the look, so that the next one is surely settle_s later.
            self._settling[arrival.path] = (arrival, self._monotonic())
