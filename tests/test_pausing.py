"""What is waited for, and how long: a full disk and a busy one, but no damage and no mistake."""

import sqlite3

import pytest

from jetson_cluster.pausing import RETRY_S, Pause, may_pass


class Clock:
    def __init__(self):
        self.now_s = 500.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pause(clock):
    return Pause("/state/catalog.sqlite", clock)


FULL = sqlite3.OperationalError("database or disk is full")


@pytest.mark.parametrize("error, passes", [
    (FULL, True), (sqlite3.OperationalError("disk I/O error"), True),
    (sqlite3.OperationalError("database is locked"), True),
    (sqlite3.OperationalError("attempt to write a readonly database"), True),
    (sqlite3.DatabaseError("database disk image is malformed"), False),
    (sqlite3.OperationalError("malformed database schema (images)"), False),
    (sqlite3.DatabaseError("file is not a database"), False),
    (sqlite3.IntegrityError("CHECK constraint failed"), False),
    (sqlite3.ProgrammingError("Cannot operate on a closed database."), False)])
def test_the_disk_and_the_moment_pass_and_the_file_and_the_program_do_not(error, passes):
    assert may_pass(error) is passes


def test_a_real_full_disk_passes(tmp_path):
    db = sqlite3.connect(str(tmp_path / "file"), isolation_level=None)
    db.execute("CREATE TABLE a (b)")
    db.execute("PRAGMA max_page_count = 3")
    with pytest.raises(sqlite3.Error) as caught:
        db.execute("INSERT INTO a VALUES (zeroblob(100000))")
    db.close()
    assert may_pass(caught.value)


def test_at_first_nothing_is_waited_for(pause):
    assert (pause.why, pause.left_s) == ("", 0)


def test_it_rests_between_two_tries_and_says_what_for(pause, clock):
    pause.begin(FULL)
    assert pause.left_s == RETRY_S
    assert pause.why == "CatalogNotWritten: /state/catalog.sqlite: database or disk is full"
    clock.now_s += RETRY_S / 2
    assert pause.left_s == RETRY_S / 2
    clock.now_s += RETRY_S
    assert pause.left_s == 0 and pause.why  # time to try; it is not over yet
    pause.begin(FULL)
    assert pause.left_s == RETRY_S


def test_one_line_says_that_it_began_and_one_that_it_is_over(pause, clock, caplog):
    for turn in range(5):
        pause.begin(FULL)
        clock.now_s += RETRY_S
    pause.over()
    pause.over()
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "CatalogNotWritten", "CatalogWrittenAgain"]
    assert (pause.why, pause.left_s) == ("", 0)
    pause.begin(FULL)
    assert caplog.text.count("CatalogNotWritten") == 2


def test_it_is_known_how_long_it_lasts(pause, clock):
    clock.now_s += 100
    for _ in range(3):
        pause.begin(FULL)
        clock.now_s += 10
    assert pause.since == 600
    pause.over()
    clock.now_s += 100
    pause.begin(sqlite3.OperationalError("disk I/O error"))
    assert pause.since == 730 and "disk I/O error" in pause.why
