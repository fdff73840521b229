"""The inbox: every file offered once it is complete, whatever is done to the folder or the events.

Real folders and the real watchdog; only the clock is the tests' own, so that nothing waits for time
to pass and nothing depends on it. Where events are awaited, it is for as long as they take.
"""

import logging
import os
import resource
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jetson_cluster import inbox as inbox_module
from jetson_cluster.inbox import Arrival, Inbox, mount_point
from jetson_cluster.walker import is_gone, look
from jetson_cluster.watcher import CHANGED, RENAMED

PATIENCE_S = 60.0


class Clock:
    """A monotonic clock that moves only when told."""

    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s

    def advance(self, seconds):
        self.now_s += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "inbox"
    path.mkdir()
    return str(path)


@pytest.fixture
def elsewhere(tmp_path):
    path = tmp_path / "elsewhere"
    path.mkdir()
    return str(path)


@pytest.fixture
def make(folder, clock):
    """make(**options): an Inbox over `folder`; stopped at the end of the test."""
    made = []

    def make_inbox(**options):
        inbox = Inbox(folder, **dict({"monotonic": clock}, **options))
        made.append(inbox)
        return inbox

    yield make_inbox
    for inbox in made:
        inbox.stop()


def write(path, content=b"image"):
    with open(path, "wb") as stream:
        stream.write(content)
    return path


def names(arrivals):
    return [os.path.basename(arrival.path) for arrival in arrivals]


def take_settled(inbox, clock, limit=100000):
    """What is offered once everything there has settled."""
    found = inbox.take(limit)
    clock.advance(1.0)
    return found + inbox.take(limit)


def take_when(inbox, enough, limit=100):
    """Take until `enough(what was taken)`, for as long as events take to come."""
    taken, deadline = [], time.monotonic() + PATIENCE_S
    while not enough(taken):
        assert time.monotonic() < deadline, "only {} came".format(names(taken))
        taken += inbox.take(limit)
        time.sleep(0.001)
    return taken


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def take_everything(inbox, folder, count, limit=100):
    """Take until all `count` files were offered as they are in the end."""
    def complete(taken):
        # In this order, as looking at thousands of files each time takes long.
        return len(taken) >= count and len(os.listdir(folder)) == count and {
            look(os.path.join(folder, name)) for name in os.listdir(folder)} <= set(taken)

    taken = take_when(inbox, complete, limit)
    # A writer that the system holds up for longer than settle_s may be offered unfinished as well.
    assert len(set(taken)) == len(taken)
    return taken


def said(caplog, word):
    return [record for record in caplog.records if word in record.getMessage()]


# ---- ready or not ----------------------------------------------------------------------------


def test_a_still_file_is_ready_after_two_looks_settle_s_apart(make, folder, clock):
    path = write(os.path.join(folder, "a.jpg"), b"12345")
    inbox = make(settle_s=1.0)
    assert inbox.take(10) == []
    assert (inbox.settling, inbox.backlog) == (1, 0)
    clock.advance(0.999)
    assert inbox.take(10) == []
    clock.advance(0.001)
    status = os.stat(path)
    assert inbox.take(10) == [Arrival(path, 5, status.st_mtime_ns, status.st_ino)]
    assert inbox.drained


def test_a_slow_writer_is_waited_for(make, folder, clock):
    inbox = make(settle_s=1.0)
    for _ in range(5):
        with open(os.path.join(folder, "slow.jpg"), "ab") as stream:
            stream.write(b"some more")
        assert inbox.take(10) == []
        clock.advance(1.0)
    assert [arrival.bytes for arrival in inbox.take(10)] == [5 * 9]


def test_a_change_that_keeps_the_size_is_seen_by_mtime_and_inode(make, folder, clock):
    path = write(os.path.join(folder, "a.jpg"), b"12345")
    inbox = make()
    inbox.take(10)
    os.utime(path, ns=(1, 1))
    clock.advance(1.0)
    assert inbox.take(10) == []
    hidden = write(os.path.join(folder, ".new"), b"67890")
    os.utime(hidden, ns=(1, 1))
    os.rename(hidden, path)
    clock.advance(1.0)
    assert inbox.take(10) == []
    clock.advance(1.0)
    assert names(inbox.take(10)) == ["a.jpg"]


def test_an_empty_file_is_offered_once_it_has_settled(make, folder, clock):
    write(os.path.join(folder, "empty.jpg"), b"")
    assert names(take_settled(make(), clock)) == ["empty.jpg"]


def test_a_file_renamed_in_from_elsewhere_is_ready_at_once(make, folder, elsewhere):
    inbox = make()
    inbox.start()
    assert inbox.take(10) == [] and inbox.watching
    os.rename(write(os.path.join(elsewhere, "x")), os.path.join(folder, "x.jpg"))
    # The clock stands still: nothing can settle, so it is the rename that made it ready.
    assert names(take_when(inbox, len)) == ["x.jpg"]


def test_a_file_renamed_from_its_unfinished_name_is_ready_at_once(make, folder):
    inbox = make()
    inbox.start()
    unfinished = write(os.path.join(folder, "x.jpg.part"))
    os.rename(unfinished, unfinished[:-len(".part")])
    assert names(take_when(inbox, len)) == ["x.jpg"]


def test_a_closed_file_and_a_hard_link_have_to_settle(make, folder, elsewhere, clock):
    inbox = make()
    inbox.start()
    inbox.take(10)
    write(os.path.join(folder, "written.jpg"))
    os.link(write(os.path.join(elsewhere, "other")), os.path.join(folder, "linked.jpg"))
    taken = []
    wait_until(lambda: taken.extend(inbox.take(10)) or inbox.settling == 2)
    assert taken == []
    clock.advance(1.0)
    assert sorted(names(inbox.take(10))) == ["linked.jpg", "written.jpg"]


def test_a_file_written_to_after_its_rename_has_to_settle(make, folder, elsewhere, clock):
    inbox = make()
    inbox.take(10)
    path = os.path.join(folder, "x.jpg")
    os.rename(write(os.path.join(elsewhere, "x")), path)
    inbox.notice(path, RENAMED)
    inbox.notice(path, CHANGED)
    assert inbox.take(10) == [] and inbox.settling == 1


def test_the_oldest_comes_first_and_a_limit_is_kept(make, folder, clock):
    for name, mtime_ns in (("c", 30), ("a", 20), ("b", 20), ("d", 10)):
        os.utime(write(os.path.join(folder, name)), ns=(0, mtime_ns))
    inbox = make()
    inbox.take(10)
    clock.advance(1.0)
    assert names(inbox.take(3)) == ["d", "a", "b"]
    assert inbox.backlog == 1
    assert names(inbox.take(3)) == ["c"]


def test_what_is_no_image_is_left_alone(make, folder, elsewhere, clock):
    for name in (".hidden.jpg", "a.part", "a.JPG.PART", "b.tmp", "c.partial", "d.crdownload"):
        write(os.path.join(folder, name))
    real = write(os.path.join(elsewhere, "real.jpg"))
    os.symlink(real, os.path.join(folder, "link.jpg"))
    os.symlink(elsewhere, os.path.join(folder, "linked-folder"))
    os.mkfifo(os.path.join(folder, "fifo.jpg"))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.join(folder, "socket.jpg"))
    for name in (".thumbnails", "sol12.part", "folder.jpg"):
        os.mkdir(os.path.join(folder, name))
    write(os.path.join(folder, ".thumbnails", "t.jpg"))
    write(os.path.join(folder, "sol12.part", "s.jpg"))
    write(os.path.join(folder, "whatever.suffix"))
    inbox = make()
    for name in os.listdir(folder):
        inbox.notice(os.path.join(folder, name), RENAMED)
    offered = take_settled(inbox, clock)
    assert "link.jpg" not in names(offered) and "fifo.jpg" not in names(offered)
    inbox = make()
    assert names(take_settled(inbox, clock)) == ["whatever.suffix"]


def test_the_watcher_gives_no_hint_of_what_is_no_image(make, folder, elsewhere):
    inbox = make()
    inbox.start()
    os.mkdir(os.path.join(folder, ".hidden"))
    for name in ("a.part", ".a", os.path.join(".hidden", "b.jpg")):
        os.rename(write(os.path.join(elsewhere, "x")), os.path.join(folder, name))
    os.rename(write(os.path.join(elsewhere, "x")), os.path.join(folder, "last.jpg"))
    assert names(take_when(inbox, len)) == ["last.jpg"]
    assert inbox.settling == 0


def test_a_name_that_is_not_utf_8_is_offered(make, folder, elsewhere, clock):
    raw = os.path.join(os.fsencode(folder), b"caf\xe9.jpg")
    inbox = make()
    inbox.start()
    inbox.take(10)
    write(os.path.join(elsewhere, "x"))
    os.rename(os.path.join(elsewhere, "x"), raw)
    assert [os.fsencode(arrival.path) for arrival in take_when(inbox, len)] == [raw]
    again = make()
    assert [os.fsencode(arrival.path) for arrival in take_settled(again, clock)] == [raw]


# ---- once, and again -------------------------------------------------------------------------


def test_a_file_is_offered_once_and_again_when_rewritten(make, folder, clock):
    path = write(os.path.join(folder, "a.jpg"), b"first")
    inbox = make()
    assert len(take_settled(inbox, clock)) == 1
    inbox.notice(path, CHANGED)
    inbox.notice(path, RENAMED)
    assert take_settled(inbox, clock) == []
    write(path, b"the second")
    inbox.notice(path, CHANGED)
    assert [arrival.bytes for arrival in take_settled(inbox, clock)] == [10]


def test_a_file_given_back_is_offered_again(make, folder, clock):
    write(os.path.join(folder, "a.jpg"))
    inbox = make()
    taken = take_settled(inbox, clock)
    inbox.give_back(taken[0])
    assert inbox.backlog == 1 and inbox.next_due_s() == 0.0
    assert inbox.take(10) == taken
    assert inbox.take(10) == []


def test_a_file_given_back_after_it_was_rewritten_settles_first(make, folder, clock):
    path = write(os.path.join(folder, "a.jpg"))
    inbox = make()
    taken = take_settled(inbox, clock)
    write(path, b"more than before")
    inbox.give_back(taken[0])
    assert inbox.take(10) == [] and inbox.take(10) == []
    assert inbox.settling == 1
    clock.advance(1.0)
    rewritten = inbox.take(10)
    assert [arrival.bytes for arrival in rewritten] == [16]
    inbox.give_back(taken[0])  # late, and about a file that is no more
    assert inbox.take(10) == []
    assert take_settled(inbox, clock) == []


def test_what_is_known_is_not_offered_until_it_changes(make, folder, clock):
    path = write(os.path.join(folder, "a.jpg"))
    write(os.path.join(folder, "b.jpg"))
    known = {(path, 5, os.stat(path).st_mtime_ns)}
    inbox = make(known=lambda arrivals: {a.path for a in arrivals
                                         if (a.path, a.bytes, a.mtime_ns) in known})
    assert names(take_settled(inbox, clock)) == ["b.jpg"]
    write(path, b"something else")
    inbox.notice(path, CHANGED)
    assert names(take_settled(inbox, clock)) == ["a.jpg"]


def test_a_file_that_is_done_is_known_or_offered_again(make, folder, clock):
    for number in range(1200):
        write(os.path.join(folder, str(number)))
    catalogued, asked = set(), []

    def known(arrivals):
        asked.append(len(arrivals))
        return {arrival.path for arrival in arrivals} & catalogued

    inbox = make(known=known)
    while not inbox.drained:
        for arrival in inbox.take(100):
            catalogued.add(arrival.path)
            inbox.done(arrival)
        clock.advance(1.0)
    assert len(catalogued) == 1200 and max(asked) <= 500
    path = os.path.join(folder, "7")
    inbox.notice(path, CHANGED)
    assert take_settled(inbox, clock) == []
    catalogued.remove(path)  # the catalog wants it once more
    inbox.notice(path, CHANGED)
    assert names(take_settled(inbox, clock)) == ["7"]


def test_a_file_that_changes_or_vanishes_while_it_waits_is_not_offered(make, folder, clock):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        os.utime(write(os.path.join(folder, name)), ns=(0, 0))
    inbox = make()
    inbox.take(0)
    clock.advance(1.0)
    inbox.take(0)
    assert inbox.backlog == 3
    write(os.path.join(folder, "a.jpg"), b"rewritten")
    os.unlink(os.path.join(folder, "b.jpg"))
    assert names(inbox.take(10)) == ["c.jpg"]
    assert inbox.take(10) == [] and inbox.settling == 1
    clock.advance(1.0)
    assert [arrival.bytes for arrival in inbox.take(10)] == [9]


def test_nothing_is_lost_when_known_fails(make, folder, elsewhere, clock):
    failing = [False]

    def known(arrivals):
        if failing[0]:
            raise RuntimeError("the catalog is locked")
        return set()

    inbox = make(known=known, rescan_s=30.0)
    inbox.take(10)
    for name, told in (("hinted.jpg", True), ("walked.jpg", False)):
        path = write(os.path.join(folder, name))
        if told:
            inbox.notice(path, RENAMED)
        else:
            clock.advance(30.0)
        failing[0] = True
        with pytest.raises(RuntimeError):
            inbox.take(10)
        failing[0] = False
        assert names(take_settled(inbox, clock)) == [name]


# ---- walks, when events are lost -------------------------------------------------------------


def test_without_any_events_a_rescan_finds_new_files(make, folder, clock):
    inbox = make(rescan_s=30.0)
    inbox.take(10)
    write(os.path.join(folder, "a.jpg"))
    assert inbox.next_due_s() == 30.0
    clock.advance(29.0)
    assert take_settled(inbox, clock) == []
    assert inbox.settling == 1 and inbox.next_due_s() == 1.0
    clock.advance(1.0)
    assert names(inbox.take(10)) == ["a.jpg"]


def test_sols_in_folders_are_walked_at_any_depth(make, folder, clock):
    os.makedirs(os.path.join(folder, "sol1", "left"))
    write(os.path.join(folder, "sol1", "a.jpg"))
    write(os.path.join(folder, "sol1", "left", "b.jpg"))
    inbox = make(rescan_s=30.0)
    assert sorted(names(take_settled(inbox, clock))) == ["a.jpg", "b.jpg"]
    for _ in range(3):  # until all three folders are trusted
        clock.advance(30.0)
        inbox.take(10)
    write(os.path.join(folder, "sol1", "left", "c.jpg"))
    clock.advance(30.0)
    assert names(take_settled(inbox, clock)) == ["c.jpg"]


def test_an_unchanged_folder_is_not_listed_again_until_a_thorough_walk(
        make, folder, clock, monkeypatch):
    path = write(os.path.join(folder, "a.jpg"))
    listed, scandir = [], os.scandir

    def count(place):
        listed.append(place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", count)
    inbox = make(rescan_s=30.0)
    take_settled(inbox, clock)
    clock.advance(30.0)
    inbox.take(10)
    # Once more, as the first listing may have been in the same tick as a later change.
    assert len(listed) == 2
    with open(path, "r+b") as stream:
        stream.write(b"rewritten in place, which leaves no trace in the folder")
    offered = []
    for _ in range(inbox_module.THOROUGH_EVERY - 2):
        clock.advance(30.0)
        offered += inbox.take(10)
    assert len(listed) == 2 and offered == []
    clock.advance(30.0)
    assert names(take_settled(inbox, clock)) == ["a.jpg"]
    assert len(listed) == 3


def test_a_file_that_leaves_the_folders_mtime_as_it_was_is_found(make, folder, clock):
    """As it is when a file comes in the same tick of a coarse clock as the listing."""
    inbox = make(rescan_s=30.0)
    inbox.take(10)
    before = os.stat(folder)
    write(os.path.join(folder, "a.jpg"))
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
    clock.advance(30.0)
    assert names(take_settled(inbox, clock)) == ["a.jpg"]


def test_more_files_than_may_wait_come_in_turns(make, folder, clock):
    for number in range(1000):
        write(os.path.join(folder, "{:04}.jpg".format(number)))
    inbox = make(backlog_limit=60)
    offered = []
    while not inbox.drained:
        taken = inbox.take(7)
        assert inbox.backlog + inbox.settling <= 60
        offered += names(taken)
        if not taken:
            assert inbox.next_due_s() <= 1.0
            clock.advance(inbox.next_due_s())
    assert sorted(offered) == sorted(os.listdir(folder))


def test_with_a_backlog_of_one_everything_still_comes(make, folder, clock):
    for number in range(5):
        write(os.path.join(folder, str(number)))
    inbox = make(backlog_limit=1)
    offered = []
    while not inbox.drained:
        offered += inbox.take(1)
        clock.advance(inbox.next_due_s())
    assert sorted(names(offered)) == ["0", "1", "2", "3", "4"]


def test_more_events_than_can_be_remembered_are_made_up_for(
        make, folder, clock, monkeypatch, caplog):
    monkeypatch.setattr(inbox_module, "HINT_LIMIT", 10)
    path = write(os.path.join(folder, "old.jpg"))
    inbox = make(rescan_s=30.0)
    take_settled(inbox, clock)
    for _ in range(3):  # the folder is trusted from now on
        clock.advance(30.0)
        inbox.take(10)
    with open(path, "r+b") as stream:
        stream.write(b"rewritten in place")
    for number in range(10):
        inbox.notice(write(os.path.join(folder, str(number))), CHANGED)
    inbox.notice(path, CHANGED)
    assert sorted(names(take_settled(inbox, clock))) == sorted(os.listdir(folder))
    assert len(said(caplog, "EventsLost")) == 1


def test_a_folder_that_cannot_be_listed_is_named_once_and_the_rest_goes_on(
        make, folder, clock, monkeypatch, caplog):
    closed = os.path.join(folder, "closed")
    os.mkdir(closed)
    write(os.path.join(closed, "in.jpg"))
    write(os.path.join(folder, "out.jpg"))
    scandir, refuses = os.scandir, [True]

    def refuse(place):  # root is refused nothing, and tests run as root
        if place == closed and refuses[0]:
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    inbox = make(rescan_s=30.0)
    offered = take_settled(inbox, clock)
    for _ in range(3):
        clock.advance(30.0)
        offered += inbox.take(10)
    assert names(offered) == ["out.jpg"]
    assert len(said(caplog, closed)) == 1
    refuses[0] = False
    clock.advance(30.0)
    assert names(take_settled(inbox, clock)) == ["in.jpg"]


def test_walking_takes_no_more_than_a_twentieth_of_the_time(make, folder, clock):
    def slow(arrivals):
        clock.advance(10.0)
        return {arrival.path for arrival in arrivals}

    write(os.path.join(folder, "a.jpg"))
    inbox = make(rescan_s=30.0, known=slow)
    inbox.take(10)
    assert inbox.next_due_s() == 190.0


def test_the_wall_clock_does_not_matter(make, folder, clock, monkeypatch):
    inbox = make()
    inbox.take(10)
    path = write(os.path.join(folder, "a.jpg"))
    os.utime(path, ns=(0, int(4e18)))  # written in the future
    monkeypatch.setattr(time, "time", lambda: -1.0)
    inbox.notice(path, CHANGED)
    assert names(take_settled(inbox, clock)) == ["a.jpg"]


# ---- starting --------------------------------------------------------------------------------


def test_files_from_before_the_start_and_during_it_each_come_once(make, folder, elsewhere):
    for number in range(50):
        write(os.path.join(folder, "before{}".format(number)))
    started = threading.Event()

    def camera():
        for number in range(200):
            target = os.path.join(folder, "during{}".format(number))
            if number % 2:
                write(target)
            else:
                os.rename(write(os.path.join(elsewhere, "x")), target)
            if number == 20:
                started.set()

    writer = threading.Thread(target=camera)
    writer.start()
    started.wait(PATIENCE_S)
    inbox = make(settle_s=0.02, rescan_s=0.05, monotonic=time.monotonic)
    inbox.start()
    take_everything(inbox, folder, 250)
    writer.join()
    late = []
    wait_until(lambda: late.extend(inbox.take(10)) or inbox.drained)
    assert late == []


CAMERA = """
import os, sys
folder, elsewhere, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
for number in range(count):
    target = os.path.join(folder, "%d.jpg" % number)
    how = number % 4
    place = target if how == 0 else target + ".part" if how == 1 else os.path.join(elsewhere, "x")
    with open(place, "wb") as stream:
        stream.write(b"image %d" % number)
    if how == 3:
        os.link(place, target)
        os.unlink(place)
    elif how:
        os.rename(place, target)
"""


def test_a_burst_of_5000_in_every_way_is_offered_each_exactly_once(make, folder, elsewhere):
    woken = threading.Event()
    inbox = make(settle_s=0.05, rescan_s=0.5, monotonic=time.monotonic, wake=woken.set)
    inbox.start()
    inbox.take(10)
    camera = subprocess.Popen([sys.executable, "-c", CAMERA, folder, elsewhere, "5000"])
    take_everything(inbox, folder, 5000, limit=64)
    assert camera.wait() == 0 and woken.is_set()
    late = []
    wait_until(lambda: late.extend(inbox.take(10)) or inbox.drained)
    assert late == []


def test_new_folders_are_watched_whether_made_or_renamed_in(make, folder, elsewhere, clock):
    inbox = make()
    inbox.start()
    inbox.take(10)
    os.makedirs(os.path.join(folder, "made", "deep"))
    os.makedirs(os.path.join(elsewhere, "sol", "deep"))
    write(os.path.join(elsewhere, "sol", "deep", "came-along.jpg"))
    os.rename(os.path.join(elsewhere, "sol"), os.path.join(folder, "came"))
    taken = []
    wait_until(lambda: taken.extend(inbox.take(10)) or inbox.settling == 1)
    clock.advance(1.0)
    taken += inbox.take(10)
    for place in ("made", "came"):
        target = os.path.join(folder, place, "deep", place + ".jpg")
        os.rename(write(os.path.join(elsewhere, "x")), target)
        taken += take_when(inbox, len)  # at once: the clock stands still
    assert names(taken) == ["came-along.jpg", "made.jpg", "came.jpg"]


def test_an_inbox_that_is_a_symlink_is_watched_and_named_by_the_link(
        tmp_path, folder, elsewhere, clock):
    link = str(tmp_path / "link")
    os.symlink(folder, link)
    inbox = Inbox(link, monotonic=clock)
    inbox.start()
    try:
        write(os.path.join(folder, "old.jpg"))
        assert [a.path for a in take_settled(inbox, clock)] == [os.path.join(link, "old.jpg")]
        os.rename(write(os.path.join(elsewhere, "x")), os.path.join(folder, "new.jpg"))
        assert [a.path for a in take_when(inbox, len)] == [os.path.join(link, "new.jpg")]
    finally:
        inbox.stop()


def test_without_inotify_walks_do_the_work_and_it_is_said_once(
        make, folder, clock, elsewhere, caplog):
    inbox = make(rescan_s=30.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The next descriptor is one too many, so inotify refuses.
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), hard))
    try:
        held = []
        try:
            while True:
                held.append(os.dup(0))
        except OSError:
            inbox.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)
    assert not inbox.watching and len(said(caplog, "InboxUnwatched")) == 1
    write(os.path.join(folder, "a.jpg"))
    assert names(take_settled(inbox, clock)) == ["a.jpg"]
    clock.advance(60.0)
    inbox.take(10)
    assert inbox.watching and len(said(caplog, "InboxWatched")) == 1
    os.rename(write(os.path.join(elsewhere, "x")), os.path.join(folder, "b.jpg"))
    assert names(take_when(inbox, len)) == ["b.jpg"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_observer_that_died_is_noticed_said_once_and_replaced(
        make, folder, elsewhere, clock, caplog):
    fatal = []

    def wake():
        if fatal:
            fatal.pop()
            raise RuntimeError("this ends watchdog's thread")

    inbox = make(rescan_s=30.0, wake=wake)
    inbox.start()
    inbox.take(10)
    clock.advance(30.0)
    inbox.take(10)
    fatal.append(True)
    write(os.path.join(folder, "fatal.jpg"))
    wait_until(lambda: not inbox.watching)
    write(os.path.join(folder, "missed.jpg"))
    assert sorted(names(take_settled(inbox, clock))) == ["fatal.jpg", "missed.jpg"]
    assert inbox.watching
    assert len(said(caplog, "observer died")) == 1 and len(said(caplog, "InboxWatched")) == 1
    os.rename(write(os.path.join(elsewhere, "x")), os.path.join(folder, "next.jpg"))
    assert names(take_when(inbox, len)) == ["next.jpg"]


def test_a_stopped_inbox_can_be_started_again(make, folder, elsewhere, clock):
    inbox = make()
    inbox.start()
    inbox.take(10)
    inbox.stop()
    assert not inbox.watching
    write(os.path.join(folder, "meanwhile.jpg"))
    inbox.start()
    assert names(take_settled(inbox, clock)) == ["meanwhile.jpg"]
    clock.advance(30.0)
    inbox.take(10)
    assert inbox.watching


# ---- the folder itself -----------------------------------------------------------------------


def test_an_inbox_that_vanishes_is_waited_for(make, folder, elsewhere, clock, caplog):
    write(os.path.join(folder, "taken.jpg"))
    inbox = make()
    inbox.start()
    assert inbox.available and names(take_settled(inbox, clock)) == ["taken.jpg"]
    write(os.path.join(folder, "waiting.jpg"))
    away = os.path.join(elsewhere, "away")
    os.rename(folder, away)
    for _ in range(3):
        assert inbox.take(10) == []
        clock.advance(inbox.next_due_s())
    assert not inbox.available and not inbox.drained and not inbox.watching
    assert len(said(caplog, "InboxMissing")) == 1
    os.rename(away, folder)
    assert names(take_settled(inbox, clock)) == ["waiting.jpg"]
    assert inbox.available and len(said(caplog, "InboxFound")) == 1
    os.rename(write(os.path.join(elsewhere, "x")), os.path.join(folder, "new.jpg"))
    assert names(take_when(inbox, len)) == ["new.jpg"]


def test_an_inbox_that_is_not_there_at_the_start_is_waited_for(make, folder, clock, caplog):
    os.rmdir(folder)
    inbox = make()
    inbox.start()
    assert inbox.take(10) == [] and not inbox.available
    write(folder)  # a file is no inbox either
    assert inbox.take(10) == [] and not inbox.available
    os.unlink(folder)
    os.mkdir(folder)
    write(os.path.join(folder, "a.jpg"))
    assert names(take_settled(inbox, clock)) == ["a.jpg"]
    assert inbox.available and inbox.watching
    assert len(said(caplog, "InboxMissing")) == 1 and len(said(caplog, "InboxFound")) == 1


def test_another_folder_in_its_place_is_watched_instead(make, folder, elsewhere, clock, caplog):
    inbox = make()
    inbox.start()
    inbox.take(10)
    os.rename(folder, os.path.join(elsewhere, "old"))
    os.mkdir(folder)
    inbox.take(10)
    assert len(said(caplog, "InboxReplaced")) == 1
    os.rename(write(os.path.join(elsewhere, "x")), os.path.join(folder, "new.jpg"))
    assert names(take_when(inbox, len)) == ["new.jpg"]


def test_a_card_taken_out_is_not_mistaken_for_an_empty_inbox(tmp_path, folder, clock, caplog):
    """A file system mounted and unmounted needs root; a link that changes sides looks the same."""
    memory = "/dev/shm"
    if not os.path.isdir(memory) or mount_point(memory) != memory:
        pytest.skip("no second file system at /dev/shm")
    if mount_point(folder) != "/":
        pytest.skip("the temporary folder is not on the root file system")
    card = os.path.join(memory, "jetson-cluster-test-{}".format(os.getpid()))
    os.mkdir(card)
    link = str(tmp_path / "link")
    try:
        os.symlink(folder, link)
        inbox = Inbox(link, monotonic=clock)
        inbox.take(10)
        assert inbox.available
        # The mount came after the daemon: that is the inbox now.
        os.unlink(link)
        os.symlink(card, link)
        write(os.path.join(card, "on-card.jpg"))
        assert names(take_settled(inbox, clock)) == ["on-card.jpg"]
        # And it goes: what lies beneath is not the inbox.
        os.unlink(link)
        os.symlink(folder, link)
        write(os.path.join(folder, "beneath.jpg"))
        assert take_settled(inbox, clock) == [] and not inbox.available
        assert len(said(caplog, "nothing is mounted at " + memory)) == 1
        os.unlink(link)
        os.symlink(card, link)
        write(os.path.join(card, "later.jpg"))
        assert names(take_settled(inbox, clock)) == ["later.jpg"] and inbox.available
    finally:
        shutil.rmtree(card)


def test_nothing_to_do_is_due_at_the_next_rescan(make, clock):
    inbox = make(rescan_s=30.0)
    assert not inbox.drained
    inbox.take(10)
    assert inbox.drained
    clock.advance(12.0)
    assert inbox.next_due_s() == 18.0


# ---- everything at once ----------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order, with events told or lost: nothing unfinished is offered,
    nothing twice, and in the end everything that lies there has been offered."""

    SETTLE_S, RESCAN_S = 1.0, 30.0
    PATHS = ["a.jpg", "b.png", os.path.join("sol", "c.jpg"), os.path.join("sol", "d.tif")]

    @initialize()
    def begin(self):
        self.base = tempfile.mkdtemp()
        self.folder = os.path.join(self.base, "inbox")
        os.makedirs(os.path.join(self.folder, "sol"))
        self.clock = Clock()
        self.catalogued, self.offered, self.in_flight = set(), set(), []
        self.written_at, self.renamed = {}, set()
        self.size = 0
        self.inbox = Inbox(self.folder, self.SETTLE_S, self.RESCAN_S, self.known, self.clock,
                           backlog_limit=3)

    def known(self, arrivals):
        return {a.path for a in arrivals if a[:3] in self.catalogued}

    def content(self):
        self.size += 1  # no two contents have the same size
        return b"x" * self.size

    def full(self, path):
        return os.path.join(self.folder, path)

    @rule(path=st.sampled_from(PATHS), mode=st.sampled_from(["wb", "ab"]), told=st.booleans())
    def write_in_place(self, path, mode, told):
        before = os.path.getsize(self.full(path)) if os.path.exists(self.full(path)) else 0
        with open(self.full(path), mode) as stream:
            stream.write(self.content())
        if mode == "ab":
            self.size += before  # as appending made a size that is yet to come
        self.written_at[path] = self.clock()
        if told:
            self.inbox.notice(self.full(path), CHANGED)
        # While an unread hint says "renamed", and no later one was told, nobody can know better.
        if self.inbox._hints.get(self.full(path)) != RENAMED:
            self.renamed.discard(path)

    @rule(path=st.sampled_from(PATHS), told=st.booleans())
    def rename_in(self, path, told):
        outside = os.path.join(self.base, "x")
        with open(outside, "wb") as stream:
            stream.write(self.content())
        os.rename(outside, self.full(path))
        self.renamed.add(path)
        if told:
            self.inbox.notice(self.full(path), RENAMED)

    @rule(path=st.sampled_from(PATHS), onto=st.sampled_from(PATHS), told=st.booleans())
    def rename_within(self, path, onto, told):
        if path != onto and os.path.exists(self.full(path)):
            os.rename(self.full(path), self.full(onto))
            self.renamed.add(onto)
            if told:
                self.inbox.notice(self.full(onto), RENAMED)

    @rule(path=st.sampled_from(PATHS), told=st.booleans())
    def delete(self, path, told):
        if os.path.exists(self.full(path)):
            os.unlink(self.full(path))
            if told:
                self.inbox.notice(self.full(path), CHANGED)

    @rule(seconds=st.sampled_from([0.4, 0.6, 1.0, 30.0]))
    def time_passes(self, seconds):
        self.clock.advance(seconds)

    @rule(limit=st.integers(0, 3))
    def take(self, limit):
        for arrival in self.inbox.take(limit):
            path = os.path.relpath(arrival.path, self.folder)
            status = os.stat(arrival.path)
            assert arrival[1:] == (status.st_size, status.st_mtime_ns, status.st_ino)
            still_s = self.clock() - self.written_at.get(path, -1e9)
            assert path in self.renamed or still_s >= self.SETTLE_S
            assert arrival not in self.offered
            self.offered.add(arrival)
            self.in_flight.append(arrival)

    @precondition(lambda self: self.in_flight)
    @rule(processed=st.booleans())
    def finish_one(self, processed):
        arrival = self.in_flight.pop(0)
        if processed:
            self.catalogued.add(arrival[:3])
            self.inbox.done(arrival)
        else:
            self.offered.discard(arrival)
            self.inbox.give_back(arrival)

    @rule()
    def vanish_and_return(self):
        os.rename(self.folder, self.folder + "-away")
        assert self.inbox.take(3) == [] and not self.inbox.available
        os.rename(self.folder + "-away", self.folder)

    @invariant()
    def never_more_than_its_limit(self):
        # A file given back has its place already.
        assert self.inbox.backlog + self.inbox.settling <= 3 + len(self.PATHS)

    def teardown(self):
        for _ in range(2 * inbox_module.THOROUGH_EVERY):
            self.take(3)
            self.time_passes(self.SETTLE_S)
            self.take(3)
            self.take(3)
            self.time_passes(self.RESCAN_S)
        seen = {arrival[:3] for arrival in self.offered} | self.catalogued
        for path in self.PATHS:
            if os.path.exists(self.full(path)):
                status = os.stat(self.full(path))
                assert stat.S_ISREG(status.st_mode)
                assert (self.full(path), status.st_size, status.st_mtime_ns) in seen
        shutil.rmtree(self.base)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=15, stateful_step_count=40, deadline=None,
                                 suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def _log_level(caplog):
    caplog.set_level(logging.INFO)


def test_only_what_is_known_to_be_gone_is_gone(tmp_path):
    (tmp_path / "there").write_bytes(b"x")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert not is_gone(str(tmp_path / "there"))
    assert is_gone(str(tmp_path / "absent"))
    assert is_gone(str(tmp_path / "there" / "below a file"))
    assert not is_gone(str(tmp_path / "circle" / "cannot be told"))
