"""How much work the heat allows: a table of levels, and what keeps account of the level now.

In: temperatures (sensors.py) and the marks of the config. Out: a `Level`, which says how large the
batches are, how long the rest between them, and whether the network runs at all. A level is left
only well below where it was entered, so that it does not flicker.
"""

import logging
from typing import Callable, Dict, NamedTuple, Optional, Sequence, Tuple

from jetson_cluster import sensors

log = logging.getLogger(__name__)

# A Nano's kernel slows CPU and GPU down from 97 C on, driving and navigation with them, and
# switches off at 103 C. We are the guest: to be done with the network 7 C below leaves room for the
# two batches that are under way and for the time between two looks.
HOT_C = 90.0
# Ten degrees earlier, so that slowing down has time to make stopping unnecessary.
WARM_C = 80.0
# How far below its mark a level is left. A die loses some degrees at once when the GPU pauses,
# while what it stands on is still hot: leaving hot asks for more than that. Chosen, not measured.
WARM_SPAN_C = 5.0
HOT_SPAN_C = 8.0
# At the 20 to 25 images a second expected of a Nano half of a batch of 8 takes about 0.2 s: with this
# rest the GPU works less than a third of the time.
WARM_SHARE = 0.5
WARM_PAUSE_S = 0.5

LOOK_S = 2.0  # a look reads some ten small files
# Sensors share a bus and fail now and then: for this long what a zone said last counts as its
# temperature. Without any that spoke since, the heat is unknown.
HOLD_S = 60.0


class Level(NamedTuple):
    """One row of the table."""

    name: str
    enter_c: float  # entered at this and above
    leave_c: float  # left below this
    share: float  # of the usual batch
    pause_s: float  # between the end of a batch and the start of the next
    embeds: bool


NORMAL = Level("normal", float("-inf"), float("-inf"), 1.0, 0.0, True)
# No sensor speaks: work must go on, as it does on a computer without any.
UNKNOWN = NORMAL._replace(name="unknown")


def levels(warm_c: float = WARM_C, hot_c: float = HOT_C) -> Tuple[Level, ...]:
    """The table, from cool to hot; warm_c < hot_c."""
    return (NORMAL,
            Level("warm", warm_c, warm_c - WARM_SPAN_C, WARM_SHARE, WARM_PAUSE_S, True),
            Level("hot", hot_c, hot_c - HOT_SPAN_C, 0.0, 0.0, False))


def next_level(table: Sequence[Level], level: Level, hottest_c: Optional[float]) -> Level:
    """The level after `level` when the hottest sensor says `hottest_c` (None: no sensor speaks)."""
    if hottest_c is None:
        return UNKNOWN
    entered = max(row for row, held in enumerate(table) if hottest_c >= held.enter_c)
    here = table.index(level) if level in table else 0
    kept = max(row for row, held in enumerate(table[:here + 1]) if hottest_c >= held.leave_c)
    return table[max(entered, kept)]


class Heat:
    """The level now. Call `look` every turn; it reads the sensors when that is due."""

    def __init__(self, table: Sequence[Level], monotonic: Callable[[], float],
                 root: str = sensors.ROOT):
        self._table, self._monotonic, self._root = table, monotonic, root
        self._looked_at = None  # type: Optional[float]
        self._heard = {}  # type: Dict[str, Tuple[float, float]]  # by zone: (when, degrees C)
        self.level, self.since = NORMAL, monotonic()  # since when, by the clock

    @property
    def zones(self) -> Dict[str, float]:
        """Degrees C by zone, as each said last, at most HOLD_S before the last look."""
        return {zone: degrees for zone, (_, degrees) in self._heard.items()}

    @property
    def hottest(self) -> Optional[Tuple[str, float]]:
        """(type of the zone, degrees C) of the hottest one; None if no sensor speaks."""
        return hottest_of(self.zones)

    def look(self) -> bool:
        """Read the sensors if that is due; True if the level is another one now."""
        now = self._monotonic()
        if self._looked_at is not None and now - self._looked_at < LOOK_S:
            return False
        self._looked_at = now
        self._heard.update((zone, (now, degrees))
                           for zone, degrees in sensors.temperatures(self._root).items())
        self._heard = {zone: said for zone, said in self._heard.items() if now - said[0] < HOLD_S}
        before, hottest = self.level, self.hottest
        self.level = next_level(self._table, before, hottest[1] if hottest else None)
        if self.level == before:
            return False
        self.since = now
        log.log(logging.INFO if self.level.embeds else logging.WARNING,
                "HeatLevelChanged: %s to %s: %s", before.name, self.level.name,
                describe(self.level.name, self.zones))
        return True


def hottest_of(zones: Dict[str, float]) -> Optional[Tuple[str, float]]:
    """(type of the zone, degrees C) of the hottest of `zones`; None if there are none."""
    return max(zones.items(), key=lambda zone: (zone[1], zone[0])) if zones else None


def describe(level: str, zones: Dict[str, float], waiting: int = 0) -> str:
    """The heat in words; `waiting` images are catalogued and not embedded."""
    hottest = hottest_of(zones)
    parts = ["%.1f C in %s" % (hottest[1], hottest[0]) if hottest else
             "no temperature sensor can be read"]
    if level == "warm":
        parts.append("smaller batches, pauses between them")
    elif level == "hot":
        parts.append("embedding stopped")
    elif level == "unknown":
        parts.append("working as if it were cool")
    if waiting:
        parts.append("%d image%s" % (waiting, " waits" if waiting == 1 else "s wait"))
    return "; ".join(parts[:1] + [", ".join(parts[1:])]) if parts[1:] else parts[0]
