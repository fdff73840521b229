"""What the heat allows: levels that do not flicker, never work above the hot mark, honest words."""

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetson_cluster import heat
from jetson_cluster.heat import NORMAL, UNKNOWN, Heat, next_level

TABLE = heat.levels()
WARM, HOT = TABLE[1], TABLE[2]
DEGREES = st.floats(-90, 130) | st.sampled_from([
    mark + shift for row in TABLE[1:] for mark in (row.enter_c, row.leave_c)
    for shift in (-0.5, 0.0, 0.5)])
MARKS = st.tuples(st.floats(20, 119), st.floats(0.01, 60)).map(
    lambda drawn: heat.levels(drawn[0], drawn[0] + drawn[1]))


def follow(table, temperatures, level=NORMAL):
    """(temperature, level before, level after) all the way."""
    for hottest_c in temperatures:
        before, level = level, next_level(table, level, hottest_c)
        yield hottest_c, before, level


def names(temperatures):
    return [after.name for _, _, after in follow(TABLE, temperatures)]


def test_the_marks_stand_in_order_and_every_level_is_left_below_where_it_is_entered():
    assert [row.name for row in TABLE] == ["normal", "warm", "hot"]
    assert [row.enter_c for row in TABLE] == [float("-inf"), 80.0, 90.0]
    assert all(row.leave_c < row.enter_c for row in TABLE[1:])
    assert HOT.enter_c < 97  # where a Nano slows down by itself


def test_warm_means_less_at_a_time_with_rests_and_hot_means_none_at_all():
    assert 0 < WARM.share < 1 and WARM.pause_s > 0 and WARM.embeds
    assert not HOT.embeds
    assert (NORMAL.share, NORMAL.pause_s, NORMAL.embeds) == (1.0, 0.0, True)


def test_a_rover_that_heats_and_cools_goes_through_the_levels_once():
    assert names([20, 79.9, 80, 89.9, 90, 97]) == ["normal"] * 2 + ["warm"] * 2 + ["hot"] * 2
    assert names([97, 89, 82, 81.9, 76, 75, 74.9, 20]) == (
        ["hot"] * 3 + ["warm"] * 3 + ["normal"] * 2)
    assert names([20, 95, 20]) == ["normal", "hot", "normal"]


def test_a_temperature_that_trembles_at_a_mark_changes_the_level_once():
    assert names([79.5, 80.5] * 50).count("normal") == 1
    assert names([90.5, 89.5] * 50) == ["hot"] * 100


@settings(deadline=None, max_examples=300, database=None)
@given(table=MARKS, temperatures=st.lists(DEGREES, min_size=1, max_size=40))
def test_a_level_changes_only_where_a_mark_is_crossed(table, temperatures):
    for hottest_c, before, after in follow(table, temperatures):
        rank, was = table.index(after), table.index(before)
        if rank > was:
            assert hottest_c >= after.enter_c
        elif rank < was:
            assert hottest_c < table[rank + 1].leave_c
        else:
            assert hottest_c >= after.leave_c
            assert all(hottest_c < row.enter_c for row in table[rank + 1:])


@settings(deadline=None, max_examples=300, database=None)
@given(table=MARKS, temperatures=st.lists(DEGREES | st.none(), min_size=1, max_size=40))
def test_nothing_is_ever_embedded_at_or_above_the_hot_mark(table, temperatures):
    for hottest_c, _, after in follow(table, temperatures):
        if hottest_c is not None and hottest_c >= table[-1].enter_c:
            assert not after.embeds
        if not after.embeds:
            assert hottest_c is not None and hottest_c >= table[-1].leave_c


@settings(deadline=None, max_examples=200, database=None)
@given(table=MARKS, start=st.integers(0, 2), hottest_c=DEGREES)
def test_a_temperature_that_stays_changes_the_level_at_most_once(table, start, hottest_c):
    settled = next_level(table, table[start], hottest_c)
    assert next_level(table, settled, hottest_c) == settled


@settings(deadline=None, max_examples=200, database=None)
@given(table=MARKS, span=st.floats(0, heat.WARM_SPAN_C - 0.1), lows=DEGREES,
       shares=st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_a_temperature_within_a_span_changes_the_level_at_most_twice(table, span, lows, shares):
    """However it trembles: up once for each mark it can cross, and never down again."""
    changes = [after for _, before, after in follow(
        table, [lows] + [lows + share * span for share in shares],
        next_level(table, NORMAL, lows)) if after != before]
    assert len(changes) <= 2 and changes == sorted(changes, key=table.index)


@pytest.mark.parametrize("level", TABLE + (UNKNOWN,))
def test_without_a_sensor_work_goes_on_and_with_one_the_marks_hold_again(level):
    assert next_level(TABLE, level, None) == UNKNOWN and UNKNOWN.embeds
    assert next_level(TABLE, UNKNOWN, 89.9) == WARM
    assert next_level(TABLE, UNKNOWN, 79.9) == NORMAL  # not kept warm by what was before


# ---- over real files, with a clock that is passed in ---------------------------------------------

class Jetson:
    """A pretended /sys with two zones and a clock."""

    def __init__(self, folder):
        self.root, self.now = folder, 1000.0
        self.say(40, 40)

    def say(self, cpu_c, gpu_c):
        for number, (kind, degrees) in enumerate([("CPU-therm", cpu_c), ("GPU-therm", gpu_c)]):
            zone = self.root / "class" / "thermal" / ("thermal_zone%d" % number)
            zone.mkdir(parents=True, exist_ok=True)
            (zone / "type").write_text(kind + "\n")
            (zone / "temp").write_text("%d\n" % (degrees * 1000) if degrees is not None else "")

    def watched(self):
        return Heat(TABLE, lambda: self.now, str(self.root))

    def later(self, kept, seconds=heat.LOOK_S):
        self.now += seconds
        return kept.look()


@pytest.fixture
def jetson(tmp_path):
    return Jetson(tmp_path)


def test_the_hottest_zone_decides(jetson):
    jetson.say(70, 91)
    kept = jetson.watched()
    assert kept.look() and kept.level == HOT
    assert kept.hottest == ("GPU-therm", 91.0)
    assert kept.zones == {"CPU-therm": 70.0, "GPU-therm": 91.0}


def test_the_sensors_are_read_at_most_every_two_seconds(jetson):
    kept = jetson.watched()
    assert not kept.look()
    jetson.say(95, 95)
    assert not jetson.later(kept, 1.9) and kept.level == NORMAL
    assert jetson.later(kept, 0.1) and kept.level == HOT


def test_a_bus_that_fails_for_a_moment_does_not_start_work_in_the_heat(jetson, caplog):
    jetson.say(95, 95)
    kept = jetson.watched()
    kept.look()
    jetson.say(None, 0)
    for _ in range(29):
        assert not jetson.later(kept) and kept.level == HOT
    assert kept.hottest == ("GPU-therm", 95.0)  # what was read last
    assert jetson.later(kept) and kept.level == UNKNOWN and kept.zones == {}
    jetson.say(95, None)
    assert jetson.later(kept) and kept.level == HOT


def test_a_hot_zone_that_fails_every_second_time_keeps_the_rover_hot(jetson):
    kept = jetson.watched()
    changes = 0
    for look in range(60):
        jetson.say(75, None if look % 2 else 91)
        changes += jetson.later(kept)
        assert kept.level == HOT and kept.hottest == ("GPU-therm", 91.0)
    assert changes == 1


def test_a_zone_that_fails_for_good_counts_for_a_minute_and_no_longer(jetson):
    jetson.say(75, 91)
    kept = jetson.watched()
    kept.look()
    jetson.say(60, None)
    for _ in range(29):
        assert not jetson.later(kept) and kept.zones == {"CPU-therm": 60.0, "GPU-therm": 91.0}
    assert jetson.later(kept) and kept.level == NORMAL and kept.zones == {"CPU-therm": 60.0}


def test_a_zone_that_speaks_again_is_believed_at_once(jetson):
    jetson.say(75, 91)
    kept = jetson.watched()
    kept.look()
    jetson.say(75, None)
    jetson.later(kept)
    jetson.say(60, 60)
    assert jetson.later(kept) and kept.level == NORMAL


def test_a_level_counts_from_the_look_that_found_it(jetson):
    kept = jetson.watched()
    kept.look()
    jetson.say(40, 95)
    jetson.later(kept, 100.0)
    assert (kept.level, kept.since) == (HOT, 1100.0)
    jetson.later(kept, 30.0)
    assert kept.since == 1100.0  # still the same heat
    jetson.say(40, 40)
    jetson.later(kept, 30.0)
    assert (kept.level, kept.since) == (NORMAL, 1160.0)


def test_a_computer_without_sensors_works_from_the_start_and_says_so_once(tmp_path, caplog):
    clock = [0.0]
    kept = Heat(TABLE, lambda: clock[0], str(tmp_path))
    with caplog.at_level(logging.INFO):
        for _ in range(100):
            kept.look()
            clock[0] += heat.LOOK_S
    assert kept.level == UNKNOWN and kept.hottest is None
    assert [record.getMessage() for record in caplog.records] == [
        "HeatLevelChanged: normal to unknown: no temperature sensor can be read; "
        "working as if it were cool"]


def test_a_change_of_level_is_told_with_the_sensor_that_caused_it(jetson, caplog):
    kept = jetson.watched()
    with caplog.at_level(logging.INFO):
        for degrees in (50, 82, 84, 93, 84, 60):
            jetson.say(45, degrees)
            jetson.later(kept)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "HeatLevelChanged: normal to warm: 82.0 C in GPU-therm; "
         "smaller batches, pauses between them"),
        ("WARNING", "HeatLevelChanged: warm to hot: 93.0 C in GPU-therm; embedding stopped"),
        ("INFO", "HeatLevelChanged: hot to normal: 60.0 C in GPU-therm")]


@pytest.mark.parametrize("level, zones, waiting, words", [
    ("normal", {"CPU-therm": 41.25}, 0, "41.2 C in CPU-therm"),
    ("normal", {"CPU-therm": 41.0}, 1, "41.0 C in CPU-therm; 1 image waits"),
    ("hot", {"CPU-therm": 80.0, "GPU-therm": 88.0}, 12,
     "88.0 C in GPU-therm; embedding stopped, 12 images wait"),
    ("unknown", {}, 0, "no temperature sensor can be read; working as if it were cool")])
def test_the_words_for_operators(level, zones, waiting, words):
    assert heat.describe(level, zones, waiting) == words
