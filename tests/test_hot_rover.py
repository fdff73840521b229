"""A rover that gets warm and hot: it works less, then not at all, knows every image, loses none.

The daemon is driven turn by turn, with a clock that is passed in and a folder that stands for /sys.
"""

import os
import random
import socket
import subprocess
import sys

import pytest
from PIL import Image

from driven import BATCH, Rover, some
from jetson_cluster import frame, heat
from jetson_cluster.verbs.status import describe


@pytest.fixture
def rover(tmp_path, tiny):
    return Rover(tmp_path, tiny)


def test_images_that_come_in_the_heat_are_known_and_counted_and_not_decoded(rover, monkeypatch):
    def decoded(*_arguments):
        raise AssertionError("decoded in the heat")

    monkeypatch.setattr(frame, "load", decoded)
    rover.temperature(92)
    rover.drop(*some("a", 20))
    with rover.daemon():
        rover.until(lambda: rover.counts() == (0, 20, 0))
        rover.until(lambda: (rover.state / "status.json").exists()
                    and rover.status()["images"]["waiting"] == 20)
        assert rover.opened._inbox.drained and rover.opened.network_s == 0 and not rover.begun
    status = rover.status()
    assert status["heat"] == {"level": "hot", "hottest_c": 92.0, "zones": {"GPU-therm": 92.0}}
    assert rover.images() == {"waiting": 20}
    assert rover.names() == []


def test_when_it_has_cooled_all_that_waited_is_embedded_once(rover):
    rover.temperature(92)
    rover.drop(*some("a", 20))
    with rover.daemon():
        rover.until(lambda: rover.counts() == (0, 20, 0))
        rover.temperature(84)  # cooler, but not cool enough
        rover.turn(100)
        assert not rover.begun
        rover.temperature(40)
        rover.until(lambda: rover.counts() == (20, 0, 0))
        rover.until(lambda: rover.opened.settled)
    assert sorted(rover.embedded()) == rover.names() == some("a", 20)


def test_what_waits_survives_a_restart_in_the_heat_and_one_after_it(rover):
    rover.temperature(92)
    rover.drop(*some("a", 20))
    with rover.daemon():
        rover.until(lambda: rover.counts() == (0, 20, 0))
    with rover.daemon():
        rover.drop("late.png")
        rover.until(lambda: rover.counts() == (0, 21, 0))
        assert not rover.begun
    rover.temperature(30)
    with rover.daemon():
        rover.until(lambda: rover.opened.settled)
    assert rover.names() == some("a", 20) + ["late.png"]
    assert len(rover.embedded()) == 21


def test_after_the_heat_those_that_waited_longest_come_first_and_new_ones_in_turns(rover):
    rover.temperature(92)
    rover.drop(*some("a", 60))
    with rover.daemon():
        rover.until(lambda: rover.counts() == (0, 60, 0))
        rover.temperature(30)
        rover.until(lambda: rover.begun)
        rover.drop(*some("n", 12))
        rover.until(lambda: rover.counts() == (72, 0, 0))
    batches = [names for _, _, names in rover.begun]
    waited = [name for name in rover.embedded() if name.startswith("a")]
    new_at = [number for number, names in enumerate(batches) if names[0].startswith("n")]
    assert all(len({name[0] for name in names}) == 1 for names in batches)
    # Within what was identified in one batch the order is that of the files' times.
    assert [name[:3] for name in waited[::BATCH]] == sorted(name[:3] for name in waited[::BATCH])
    assert new_at and new_at[-1] <= 8, "the new ones had to wait for all that waited: %s" % batches


def test_a_waiting_file_that_vanishes_is_missing_and_waits_again_when_it_is_back(rover):
    rover.temperature(92)
    rover.drop("a.png", "b.png")
    with rover.daemon():
        rover.until(lambda: rover.counts() == (0, 2, 0))
        (rover.inbox / "a.png").rename(rover.folder / "a.png")
        rover.temperature(30)
        rover.until(lambda: rover.counts() == (1, 0, 1))
        (rover.folder / "a.png").rename(rover.inbox / "a.png")
        rover.until(lambda: rover.counts() == (2, 0, 0))
    assert rover.names() == ["a.png", "b.png"]


def test_a_waiting_file_that_is_rewritten_is_taken_for_what_it_is_now(rover):
    rover.temperature(92)
    rover.drop("a.png")
    with rover.daemon():
        rover.until(lambda: rover.counts() == (0, 1, 0))
        Image.new("RGB", (9, 9)).save(str(rover.inbox / "a.png"))
        rover.until(lambda: rover.counts() == (0, 1, 1))
        rover.temperature(30)
        rover.until(lambda: rover.counts() == (1, 0, 1))


def test_an_inbox_that_is_taken_away_loses_nothing_that_waits(rover):
    rover.temperature(92)
    rover.drop(*some("a", 5))
    with rover.daemon():
        rover.until(lambda: rover.counts() == (0, 5, 0))
        rover.inbox.rename(rover.folder / "away")
        rover.temperature(30)
        rover.turn(100)
        assert rover.counts() == (0, 5, 0) and not rover.begun
        (rover.folder / "away").rename(rover.inbox)
        rover.until(lambda: rover.counts() == (5, 0, 0))


def test_one_content_in_two_files_waits_once_and_is_embedded_once(rover):
    rover.temperature(92)
    rover.drop("a.png")
    (rover.inbox / "b.png").write_bytes((rover.inbox / "a.png").read_bytes())
    with rover.daemon():
        rover.until(lambda: rover.opened._inbox.drained)
        assert rover.counts() == (0, 1, 0)
        rover.temperature(30)
        rover.until(lambda: rover.opened.settled)
    assert len(rover.names()) == len(rover.embedded()) == 1


def test_bad_files_are_refused_in_the_heat_as_far_as_their_header_shows(rover):
    rover.temperature(92)
    rover.drop("good.png")
    content = (rover.inbox / "good.png").read_bytes()
    (rover.inbox / "cut.png").write_bytes(content[:-30])
    (rover.inbox / "empty.png").write_bytes(b"")
    (rover.inbox / "text.png").write_text("no picture")
    with rover.daemon():
        rover.until(lambda: rover.counts()[1] == 2 and rover.opened._inbox.drained)
        codes = {refusal.code for refusal in rover.opened._catalog.refusals(9)}
        assert codes == {"empty", "not_an_image"}
        rover.temperature(30)
        rover.until(lambda: rover.opened.settled)
        codes = {refusal.code for refusal in rover.opened._catalog.refusals(9)}
        assert codes == {"empty", "not_an_image", "damaged"}
        assert rover.counts() == (1, 0, 0)


KILLER = """
import os, sys
from jetson_cluster import config, daemon, frame, loops
load = frame.load
def deadly(path, *rest):
    if "killer" in path: os._exit(139)
    return load(path, *rest)
frame.load = deadly
with daemon.Daemon(config.load(sys.argv[1]), environment={}, sysfs=sys.argv[2]) as opened:
    while not opened.settled:
        opened.step()
        opened.wake.wait(0.02)
    opened.drain()
"""


def test_a_waiting_file_that_crashes_the_decoder_is_given_up_after_three_times(rover):
    rover.temperature(92)
    rover.drop("killer.png", "innocent.png")
    with rover.daemon():
        rover.until(lambda: rover.counts() == (0, 2, 0))
    rover.temperature(30)
    codes = [subprocess.call([sys.executable, "-c", KILLER, str(rover.folder / "config.yaml"),
                              str(rover.sys)]) for _ in range(4)]
    assert codes == [139, 139, 139, 0]
    assert rover.names() == ["innocent.png"]
    assert rover.images() == {"queued": 1}
    assert [refusal["code"] for refusal in rover.status()["refusals"]] == ["quarantined"]


def test_a_suspect_stays_for_cooler_times_and_is_not_read_in_the_heat(rover):
    rover.drop("killer.png")
    command = [sys.executable, "-c", KILLER, str(rover.folder / "config.yaml"), str(rover.sys)]
    assert subprocess.call(command) == 139
    rover.temperature(92)
    rover.drop("a.png")
    with rover.daemon():
        rover.until(lambda: rover.counts() == (0, 1, 0))
        rover.turn(50)
        assert rover.counts() == (0, 1, 0) and not rover.begun
        rover.temperature(30)
        rover.until(lambda: rover.opened.settled)
    assert rover.embedded() == ["a.png", "killer.png"]  # here it reads; alone, after the others


def test_a_header_that_ends_the_program_in_the_heat_does_so_once(rover):
    script = KILLER.replace("frame.load", "frame.identify").replace("not opened.settled", "True")
    rover.temperature(92)
    rover.drop("killer.png")
    assert subprocess.call([sys.executable, "-c", script, str(rover.folder / "config.yaml"),
                            str(rover.sys)]) == 139
    rover.drop("a.png")
    with rover.daemon() as opened:
        killer = opened._catalog.attempts(rover.seen("killer.png"))
        assert list(killer.values()) == [3]  # noted before it was looked at
        rover.until(lambda: rover.counts() == (0, 1, 0))
        rover.turn(20)
        assert rover.counts() == (0, 1, 0)


def test_warm_means_smaller_batches_and_rests_between_them(rover):
    rover.temperature(82)
    rover.drop(*some("a", 20))
    with rover.daemon():
        rover.until(lambda: rover.counts() == (20, 0, 0))
        until_next = rover.opened.next_due_s()
    sizes = [len(names) for _, _, names in rover.begun]
    starts = [at for at, _, _ in rover.begun]
    assert sizes == [4] * 5
    assert all(later - earlier >= 0.5 for earlier, later in zip(starts, starts[1:]))
    assert until_next > 0


def test_a_rest_is_waited_for_and_not_spun_through(rover):
    rover.temperature(82)
    rover.drop(*some("a", 20))
    with rover.daemon() as opened:
        rover.until(lambda: rover.begun)
        while not opened.step().idle:
            pass
        assert opened._inbox.backlog and 0 < opened._ingest.rest_s <= 0.5
        rover.now += 0.35  # the queue file has no more to do by now
        opened.step()
        assert 0 < opened.next_due_s() <= opened._ingest.rest_s


def test_those_that_wait_are_taken_when_a_rest_ends_although_the_inbox_is_empty(rover):
    rover.temperature(92)
    rover.drop(*some("a", 20))
    with rover.daemon() as opened:
        rover.until(lambda: rover.counts() == (0, 20, 0) and opened._inbox.drained)
        rover.temperature(81)
        rover.until(lambda: rover.begun)
        while not opened.step().idle:
            pass
        rover.now += 0.2
        opened.step()  # the queue file has no more to do by now
        # Neither does it or the inbox look for what has changed, as with a long inbox.rescan_s.
        opened._inbox._next_walk_s = opened._publisher._verified_at = rover.now + 100
        assert min(opened._inbox.next_due_s(), opened._publisher.next_due_s()) > 1
        assert 0 < opened.next_due_s() == opened._ingest.rest_s < 0.5


def test_an_inbox_that_is_taken_away_while_images_wait_is_not_asked_for_all_the_time(rover):
    rover.temperature(92)
    rover.drop(*some("a", 5))
    with rover.daemon() as opened:
        rover.until(lambda: rover.counts() == (0, 5, 0))
        rover.inbox.rename(rover.folder / "away")
        rover.temperature(30)
        rover.turn(30)
        opened._publisher._verified_at = rover.now
        while not opened.step().idle:
            pass
        assert opened.next_due_s() > 0.2


def test_getting_hot_ends_what_is_begun_and_begins_nothing(rover):
    rover.drop(*some("a", 60))
    with rover.daemon():
        rover.until(lambda: len(rover.begun) >= 3)
        rover.temperature(95)
        rover.now += 2.0
        rover.turn()
        begun = len(rover.begun)
        rover.until(lambda: rover.opened._inbox.drained)
        assert len(rover.begun) == begun and len(rover.opened._pipeline) == 0
        assert rover.counts() == (len(rover.embedded()), 60 - len(rover.embedded()), 0)


class Given:
    """A source of new files that gives what it is told to, and notes what comes back."""

    def __init__(self, arrivals):
        self.arrivals, self.returned = list(arrivals), []

    def take(self, limit):
        taken, self.arrivals = self.arrivals[:limit], self.arrivals[limit:]
        return taken

    take_new = take

    def give_back(self, arrival):
        self.returned.append(arrival)

    def done(self, _arrival):
        """Nothing is to be kept of it."""


def test_a_file_renamed_over_one_in_flight_as_it_gets_hot_is_recorded_last(rover):
    rover.drop(*some("a", 2 * BATCH))
    with rover.daemon() as opened:
        opened._ingest._source = source = Given(rover.seen(*some("a", 2 * BATCH)))
        opened._ingest.step()
        first, old = opened._pipeline.wait_decoded()[0].path, "a%03d.png" % BATCH
        assert os.path.basename(first) == old
        rover.drop("new.png")
        (rover.inbox / "new.png").rename(rover.inbox / old)
        new, = source.arrivals = rover.seen(old)
        for _ in range(3):
            opened._ingest.step(heat.levels()[-1])
        assert opened._catalog.known([new]) == {first}
        assert rover.counts() == (2 * BATCH - 1, 1, 1)  # the old content is missing
        opened._publish(at_once=True)
    assert rover.names() == [name for name in some("a", 2 * BATCH) if name != old]


def test_a_file_written_to_while_its_header_is_read_is_given_back_and_not_suspected(rover):
    rover.drop("a.png", "b.png")
    before, other = rover.seen("a.png", "b.png")
    with rover.daemon() as opened:
        opened._ingest._source = source = Given([before, other])
        with open(before.path, "ab") as stream:
            stream.write(b"more")
        opened._ingest.step(heat.levels()[-1])
        assert source.returned == [before] and rover.counts() == (0, 1, 0)
        assert opened._catalog.attempts([before]) == {}


def test_stopping_while_headers_are_read_puts_no_blame_on_the_files(rover, monkeypatch):
    def stopped(*_arguments):
        raise KeyboardInterrupt

    rover.drop("a.png", "b.png")
    arrivals = rover.seen("a.png", "b.png")
    with rover.daemon() as opened:
        opened._ingest._source = Given(arrivals)
        monkeypatch.setattr(frame, "identify", stopped)
        with pytest.raises(KeyboardInterrupt):
            opened._ingest.step(heat.levels()[-1])
        assert opened._catalog.attempts(arrivals) == {}


def test_without_sensors_work_goes_on_and_the_status_says_so(rover):
    (rover.sys / "class/thermal/thermal_zone1/temp").write_text("0\n")
    rover.drop("a.png")
    with rover.daemon():
        rover.until(lambda: rover.opened.settled)
        rover.opened.drain()
    assert rover.status()["heat"] == {"level": "unknown", "hottest_c": None, "zones": {}}
    assert rover.status()["power_mw"] == {} and rover.status()["gpu_load"] is None
    assert "unknown: no temperature sensor can be read" in describe(rover.status(), 0)
    assert rover.names() == ["a.png"]


def test_power_and_load_stand_in_the_status(rover):
    rails = rover.sys / "bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    rails.mkdir(parents=True)
    (rails / "rail_name_0").write_text("POM_5V_IN\n")
    (rails / "in_power0_input").write_text("5120\n")
    (rover.sys / "devices/gpu.0").mkdir(parents=True)
    (rover.sys / "devices/gpu.0/load").write_text("437\n")
    with rover.daemon():
        rover.turn()
        rover.opened.drain()
    assert rover.status()["power_mw"] == {"POM_5V_IN": 5120}
    assert rover.status()["gpu_load"] == 0.437
    assert "5.12 W POM_5V_IN; GPU busy 44 % of the time" in describe(rover.status(), 0)


def test_the_operator_reads_how_hot_it_is_and_how_many_wait(rover):
    rover.temperature(92)
    rover.drop(*some("a", 3))
    with rover.daemon():
        rover.until(lambda: rover.counts() == (0, 3, 0))
        rover.temperature(88)
        rover.now += 5
        rover.turn(60)
        rover.opened.drain()
    text = describe(rover.status(), 0)
    assert "hot: 88.0 C in GPU-therm; embedding stopped, 3 images wait" in text
    assert "0 queued (0 B), 3 waiting to be embedded, 0 sent (0 B)" in text


@pytest.mark.parametrize("degrees, words", [
    (30, b" refused, 0 waiting in the inbox\x00"),
    (82, b"inbox; warm: 82.0 C in GPU-therm; smaller batches, pauses between them\x00"),
    (92, b"inbox; hot: 92.0 C in GPU-therm; embedding stopped\x00")])
def test_systemd_hears_of_the_heat(rover, degrees, words):
    address = str(rover.folder / "notify")
    rover.temperature(degrees)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(address)
        ear.settimeout(5)
        with rover.daemon(NOTIFY_SOCKET=address):
            rover.turn(2)
            heard = b""
            while b"WATCHDOG" not in heard:
                heard += ear.recv(4096) + b"\0"
    assert words in heard


# ---- all of it together --------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(4))
def test_whatever_the_weather_no_batch_begins_in_the_heat_and_no_image_is_lost(rover, seed):
    chance = random.Random(seed)
    dropped, restarts, opened = [], 0, rover.daemon()
    try:
        for _ in range(60):
            event = chance.choice(["drop", "drop", "heat", "heat", "time", "time", "restart"])
            if event == "drop":
                names = ["%c%03d.png" % (97 + seed, len(dropped) + number)
                         for number in range(chance.randint(1, 12))]
                rover.drop(*names)
                dropped += names
            elif event == "heat":
                rover.temperature(chance.choice([-60, 30, 76, 79, 82, 85, 91, 96]))
                rover.now += 2.0
            elif event == "restart":
                opened.close()
                restarts, opened = restarts + 1, rover.daemon()
            rover.turn(chance.randint(1, 12))
            assert sum(rover.counts()) <= len(dropped)
        rover.temperature(20)
        rover.until(lambda: rover.counts() == (len(dropped), 0, 0) and rover.opened.settled)
    finally:
        opened.close()
    assert rover.names() == sorted(dropped)
    assert all(degrees < 90 for _, degrees, _ in rover.begun)
    again = len(rover.embedded()) - len(dropped)
    assert 0 <= again <= 2 * BATCH * restarts  # what a restart dropped from the pipeline, no more
