"""The loops around the turns: `once` ends when all is done, and waits for what may pass, a while."""

import logging
import threading

import pytest
from rover import Rover as Settings

from driven import BATCH, Clock, Rover, Running, some
from jetson_cluster import loops
from jetson_cluster.errors import WorldError


@pytest.fixture
def rover(tmp_path, tiny):
    return Rover(tmp_path, tiny)


# ---- heat ----------------------------------------------------------------------------------------

def test_once_waits_until_it_has_cooled(rover, caplog):
    rover.temperature(92)
    rover.drop(*some("a", 20))
    began = rover.now
    with rover.daemon() as opened:
        opened.wake = Clock(rover, lambda now: now > began + 300 and rover.temperature(40))
        loops.once(opened, threading.Event())
    assert rover.names() == some("a", 20)
    said = [record.getMessage() for record in caplog.records if "StillHeldUp" in record.getMessage()]
    assert 4 <= len(said) <= 5  # once a minute
    assert said[0] == "StillHeldUp: hot: 92.0 C in GPU-therm; embedding stopped, 20 images wait"


def test_once_says_of_a_second_heat_as_of_the_first_that_it_lasts(rover, caplog):
    rover.temperature(92)
    rover.drop(*some("a", 20 * BATCH))
    began = rover.now

    def weather(now):
        rover.temperature(92 if not 100 < now - began < 103 and now - began < 200 else 40)

    with rover.daemon() as opened:
        opened.wake = Running(rover, weather)
        loops.once(opened, threading.Event())
    said = [record.getMessage() for record in caplog.records
            if record.getMessage().startswith(("StillHeldUp", "HeatLevelChanged"))]
    assert [words.split(":")[0] for words in said] == [
        "HeatLevelChanged", "StillHeldUp", "HeatLevelChanged", "StillHeldUp"]
    assert rover.names() == some("a", 20 * BATCH)


def test_once_gives_up_after_ten_minutes_of_heat_and_loses_nothing(rover, caplog):
    rover.temperature(92)
    rover.drop(*some("a", 20))
    began = rover.now
    with rover.daemon() as opened:
        opened.wake = Clock(rover)
        with pytest.raises(WorldError) as error:
            loops.once(opened, threading.Event())
    assert "20 images wait; for 10 minutes now" in str(error.value)
    assert "run this again when it is cooler" in str(error.value)
    assert "\n" not in str(error.value) and 600 <= rover.now - began < 620
    assert rover.images() == {"waiting": 20}
    rover.temperature(30)
    with rover.daemon() as opened:
        opened.wake = Clock(rover)
        loops.once(opened, threading.Event())
    assert rover.names() == some("a", 20)


def test_once_that_is_stopped_in_the_heat_ends_at_once(rover):
    rover.temperature(92)
    rover.drop("a.png")
    stop = threading.Event()
    with rover.daemon() as opened:
        began = rover.now
        opened.wake = Clock(rover, lambda now: now > began + 5 and stop.set())
        with pytest.raises(WorldError, match="stopped before it was empty"):
            loops.once(opened, stop)
    assert rover.images() == {"waiting": 1} and not rover.begun


def test_once_does_not_wait_for_an_image_that_cannot_be_examined(rover):
    rover.temperature(92)
    (rover.inbox / "sol1").mkdir()
    rover.drop("sol1/a.png", "b.png")
    with rover.daemon():
        rover.until(lambda: rover.counts() == (0, 2, 0))
    rover.temperature(30)
    (rover.inbox / "sol1").rename(rover.inbox / ".away")
    (rover.inbox / "sol1").symlink_to("sol1")  # says ELOOP; a card that fails says EIO
    stop, began = threading.Event(), rover.now
    with rover.daemon() as opened:
        opened.wake = Clock(rover, lambda now: now > began + 300 and stop.set())
        loops.once(opened, stop)
        assert not stop.is_set() and rover.counts() == (1, 1, 0)


# ---- a full disk ---------------------------------------------------------------------------------

def fill_disk(opened):
    """Let the catalog not grow any more, as on a full disk; returns what makes room again."""
    db = opened._catalog._db  # the limit is the connection's own
    db.execute("PRAGMA max_page_count = %d" % db.execute("PRAGMA page_count").fetchone()[0])
    return lambda: db.execute("PRAGMA max_page_count = 1000000")


def writable(opened, yes):
    """Let nothing be written, as where the file system has become read-only, or let it again."""
    opened._catalog._db.execute("PRAGMA query_only = %d" % (not yes))


def said(caplog, event):
    return [record.getMessage() for record in caplog.records
            if record.getMessage().startswith(event + ":")]


def test_once_waits_for_room_on_the_disk_and_then_takes_all_in(rover, caplog):
    rover.drop(*some("a", 3 * BATCH))
    began = rover.now
    with rover.daemon() as opened:
        make_room = fill_disk(opened)
        opened.wake = Clock(rover, lambda now: now > began + 300 and make_room())
        loops.once(opened, threading.Event())
        assert opened._catalog.attempts(rover.seen(*some("a", 3 * BATCH))) == {}
    assert rover.names() == some("a", 3 * BATCH) and rover.status()["files_refused"] == 0
    assert len(said(caplog, "CatalogNotWritten")) == len(said(caplog, "CatalogWrittenAgain")) == 1
    held_up = said(caplog, "StillHeldUp")
    assert 4 <= len(held_up) <= 5 and "database or disk is full" in held_up[0]
    assert rover.status()["paused"] == ""
    assert sorted(rover.embedded()) == some("a", 3 * BATCH)  # each of them once


def test_once_gives_up_after_ten_minutes_without_room_and_loses_nothing(rover):
    rover.drop(*some("a", 3 * BATCH))
    began = rover.now
    with rover.daemon() as opened:
        fill_disk(opened)
        opened.wake = Clock(rover)
        with pytest.raises(WorldError) as error:
            loops.once(opened, threading.Event())
    message = str(error.value)
    assert "CatalogNotWritten: %s" % (rover.state / "catalog.sqlite") in message
    assert "for 10 minutes now" in message and "when the disk can be written again" in message
    assert "\n" not in message and 600 <= rover.now - began < 620
    assert "CatalogNotWritten" in rover.status()["paused"]
    assert "CatalogNotWritten" in rover.status()["last_error"]["what"]
    with rover.daemon() as opened:
        opened.wake = Clock(rover)
        loops.once(opened, threading.Event())
    assert rover.names() == some("a", 3 * BATCH) and rover.status()["files_refused"] == 0


def test_a_paused_daemon_tries_every_two_seconds_and_does_not_spin(rover):
    with rover.daemon() as opened:
        rover.until(lambda: opened.settled)
        rover.drop(*some("a", BATCH))
        writable(opened, False)
        rover.until(lambda: opened._pause.why)
        assert 0 < opened.next_due_s() <= 1 and opened.held_up[0] == opened._pause.why
        tried, step = [], opened._step

        def noting():
            tried.append(rover.now)
            return step()

        opened._step = noting
        rover.turn(100)
        assert 4 <= len(tried) <= 5
        writable(opened, True)
        rover.until(lambda: rover.counts() == (BATCH, 0, 0))
        assert not opened._pause.why and opened.held_up == ("", 0.0, "")


def test_a_codebook_and_a_policy_that_come_while_nothing_can_be_written_are_used_afterwards(
        rover, tmp_path, tiny):
    """They are looked at once: what could not be done with them then must be done later."""
    (tmp_path / "other").mkdir()
    other = Settings(tmp_path / "other", tiny)
    rover.drop(*some("a", BATCH))
    with rover.daemon() as opened:
        rover.until(lambda: opened.settled)
        writable(opened, False)
        other.make_codebook(["red", "green"], rover.folder / "codebook.npz")
        rover.until(lambda: opened._pause.why)
        (rover.folder / "policy.yaml").write_text("explore: 0.1")
        rover.turn(50)
        assert not opened._placing.clustered
        writable(opened, True)
        rover.until(lambda: not opened._pause.why and opened.settled)
        assert opened._placing.clustered and opened._catalog.clusters == 2
        assert opened._wishes.policy.explore == 0.1
        writable(opened, False)
        (rover.folder / "policy.yaml").write_text("explore: 0.25  # now")
        rover.turn(50)
        assert opened._pause.why
        writable(opened, True)
        rover.until(lambda: not opened._pause.why and opened.settled)
        rows = opened._catalog.rows(range(1, BATCH + 1)).values()
        assert all(row.interest == pytest.approx(
            (0.25 * row.novelty + 0.75 * row.representative) * row.quality, rel=1e-3)
            for row in rows)


# ---- no room for new images ----------------------------------------------------------------------

def test_once_gives_up_where_the_disk_is_too_full_for_new_images_and_leaves_them(rover, caplog):
    rover.drop(*some("a", BATCH))
    began = rover.now
    with rover.daemon("retention.free_bytes=%d" % 2 ** 50) as opened:
        opened.wake = Clock(rover)
        with pytest.raises(WorldError) as error:
            loops.once(opened, threading.Event())
    assert "new images stay in the inbox unread" in str(error.value)
    assert "when there is room" in str(error.value) and 600 <= rover.now - began < 620
    status = rover.status()
    assert status["accepting"]["images"] is False and rover.images() == {}
    assert status["accepting"]["why_not"].startswith("NotAccepting: ")
    assert status["inbox"]["ready"] == BATCH and said(caplog, "StillHeldUp")
    with rover.daemon() as opened:
        opened.wake = Clock(rover)
        loops.once(opened, threading.Event())
    assert rover.names() == some("a", BATCH)


def test_once_with_nothing_to_take_in_ends_at_once_however_full_the_disk(rover):
    with rover.daemon() as opened:
        opened.wake = Clock(rover)
        loops.once(opened, threading.Event())
    began = rover.now
    with rover.daemon("retention.free_bytes=%d" % 2 ** 50) as opened:
        opened.wake = Clock(rover)
        loops.once(opened, threading.Event())
    assert rover.now - began < 60


# ---- how they end --------------------------------------------------------------------------------

def test_once_that_is_stopped_while_a_file_waits_does_not_say_that_the_inbox_is_empty(
        rover, caplog):
    caplog.set_level(logging.INFO)
    rover.drop(*some("a", 3))
    stop, began = threading.Event(), rover.now
    with rover.daemon("retention.free_bytes=%d" % 2 ** 50) as opened:
        opened.wake = Clock(rover, lambda now: now > began + 8 and stop.set())
        with pytest.raises(WorldError) as error:
            loops.once(opened, stop)
    assert str(error.value) == ("inbox %s: stopped before it was empty (files known to wait: 3); "
                                "nothing is lost, run this again" % rover.inbox)
    assert not said(caplog, "Emptied")


def test_once_that_is_stopped_when_all_is_done_says_so(rover, caplog):
    caplog.set_level(logging.INFO)
    rover.drop(*some("a", 3))
    with rover.daemon() as opened:
        rover.until(lambda: opened.settled)
        stop = threading.Event()
        stop.set()
        loops.once(opened, stop)
    assert len(said(caplog, "Emptied")) == 1



def test_once_follows_the_orders_that_lie_there_before_it_ends(rover):
    rover.drop(*some("a", 3))
    with rover.daemon() as opened:
        opened.wake = Clock(rover)
        loops.once(opened, threading.Event())
    (rover.folder / "orders" / "1.yaml").write_text("- {id: 1, hold: a001.png}\n")
    with rover.daemon() as opened:
        opened.wake = Clock(rover)
        loops.once(opened, threading.Event())
    assert rover.names() == ["a000.png", "a002.png"] and rover.images() == {"queued": 2, "held": 1}


def test_what_those_orders_amend_of_the_policy_shows_in_the_queue_it_leaves(rover, tiny, tmp_path):
    (tmp_path / "other").mkdir()
    Settings(tmp_path / "other", tiny).make_codebook(["red", "green"], rover.folder / "codebook.npz")
    rover.drop(*some("a", 3))
    (rover.folder / "orders" / "1.yaml").write_text(
        "- {id: 1, label: {0: veins}}\n- {id: 2, label: {1: veins}}\n")
    with rover.daemon() as opened:
        opened.wake = Clock(rover)
        loops.once(opened, threading.Event())
    with open(str(rover.state / "queue.csv"), encoding="utf-8") as stream:
        assert stream.read().count(",veins,") == 3


def test_run_ends_when_it_is_told_to_and_finishes_what_is_begun(rover):
    rover.drop(*some("a", 3 * BATCH))
    stop = threading.Event()
    with rover.daemon() as opened:
        rover.until(lambda: rover.begun)
        stop.set()
        loops.run(opened, stop)
        assert len(opened._pipeline) == 0
    assert rover.names() == sorted(rover.embedded()) and rover.status()["running"] is False


def test_a_journal_that_cannot_be_completed_at_the_end_is_told_and_the_last_status_written(
        rover, caplog):
    rover.drop(*some("a", 3))
    stop = threading.Event()
    stop.set()
    with rover.daemon() as opened:
        rover.until(lambda: opened.settled)
        journal = rover.state / "journal"
        if journal.exists():
            journal.unlink()
        journal.symlink_to("journal")  # says ELOOP; a card that fails says EIO
        loops.run(opened, stop)
    told, = said(caplog, "JournalNotWritten")
    assert told.startswith("JournalNotWritten: %s: Too many levels" % journal)
    assert rover.status()["running"] is False and rover.names() == some("a", 3)


def test_an_inbox_that_is_not_there_ends_once(rover):
    rover.inbox.rmdir()
    with rover.daemon() as opened:
        opened.wake = Clock(rover)
        with pytest.raises(WorldError, match="inbox .* is not there"):
            loops.once(opened, threading.Event())
