"""What of the operations is remembered, whichever of the catalog and its journal failed, and when."""

import errno
import os
import random
import sqlite3
import tempfile

import pytest

from catalogued import SPACE, image, record
from jetson_cluster import recollection
from jetson_cluster.catalog import Catalog, open_or_rebuild
from jetson_cluster.database import set_aside
from jetson_cluster.schema import ACKED, HELD, QUEUED, SENT

AT = "2026-01-02T00:00:00Z"


class Rover:
    """A catalog of four images with a journal that can be full; restarts and rebuilds on demand."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "catalog.sqlite")
        self.catalog = open_or_rebuild(self.path, SPACE, lambda doing, allow_s: None)
        self.images = self.fill()

    def fill(self):
        return [number for number, _ in record(
            self.catalog, [image("/inbox/%d.png" % content, content) for content in range(4)])]

    def states(self):
        return [self.catalog.state_of(number) for number in self.images]

    def send(self, *images):
        self.catalog.begin_pass(images, [], 10 ** 6, "test", AT)

    def journal_fails(self, times):
        append, left = self.catalog.journal.append, [times]

        def append_or_not(entries):
            entries = list(entries)
            if entries and left[0]:
                left[0] -= 1
                raise OSError(errno.ENOSPC, "No space left on device")
            append(entries)

        self.catalog.journal.append = append_or_not

    def restart(self):
        self.catalog.close()
        self.catalog = open_or_rebuild(self.path, SPACE, lambda doing, allow_s: None)

    def rebuild(self):
        self.catalog.close()
        set_aside(self.path)
        self.catalog = open_or_rebuild(self.path, SPACE, lambda doing, allow_s: None)
        self.images = self.fill()


@pytest.fixture
def rover(tmp_path):
    made = Rover(str(tmp_path))
    yield made
    made.catalog.close()


@pytest.mark.parametrize("again", [Rover.restart, Rover.rebuild])
def test_an_entry_that_came_late_does_not_undo_an_acknowledgement(rover, again):
    first, other = rover.images[:2]
    rover.send(first)
    rover.restart()
    rover.send(other)
    rover.journal_fails(1)
    with pytest.raises(sqlite3.OperationalError):
        rover.catalog.move("ack", [other])  # nothing without the journal
    rover.catalog.move("nack", [first])
    rover.journal_fails(1)
    rover.catalog.move("nack", [other])  # late
    rover.catalog.move("ack", [first, other])
    rover.catalog.move("hold", rover.images[2:3])  # whatever is late comes with it
    again(rover)
    assert rover.states() == [ACKED, ACKED, HELD, QUEUED]


@pytest.mark.parametrize("again", [Rover.restart, Rover.rebuild])
def test_two_processes_tell_the_journal_in_the_order_of_their_commits(rover, again):
    first = rover.images[0]
    rover.send(first)
    with Catalog(rover.path, None) as verb:
        rover.journal_fails(1)
        rover.catalog.move("nack", [first])
        verb.begin_pass([first], [], 1000, "verb", AT)
        verb.move("ack", [first])
    rover.catalog.move("pin", rover.images[1:2])
    again(rover)
    assert rover.states() == [ACKED, QUEUED, QUEUED, QUEUED]


@pytest.mark.parametrize("before, after, wanted", [
    ("ack", "resend", QUEUED), ("hold", "release", QUEUED)])
def test_what_was_committed_last_holds_though_the_journal_was_not_told(
        rover, before, after, wanted):
    """As after a power cut between the commit and the journal."""
    rover.catalog.move(before, rover.images[:1])
    rover.journal_fails(1)
    rover.catalog.move(after, rover.images[:1])
    rover.restart()
    assert rover.states()[0] == wanted
    rover.rebuild()
    assert rover.states()[0] == wanted


def test_a_long_journal_is_completed_as_well(rover, monkeypatch):
    monkeypatch.setattr(recollection, "LOOKED_THROUGH_BYTES", 0)
    rover.catalog.move("ack", rover.images[:1])
    rover.journal_fails(1)
    rover.catalog.move("resend", rover.images[:1])
    rover.restart()
    rover.rebuild()
    assert rover.states()[0] == QUEUED


def test_an_acknowledgement_whose_commit_failed_is_believed_with_the_next_action(rover):
    rover.send(*rover.images[:2])

    def fails():
        raise KeyboardInterrupt

    note, rover.catalog._note_journal = rover.catalog._note_journal, lambda lacking: fails()
    with pytest.raises(KeyboardInterrupt):
        rover.catalog.move("ack", rover.images[:1])
    rover.catalog._note_journal = note
    assert rover.states()[0] == SENT
    rover.catalog.move("hold", rover.images[3:])
    assert rover.states() == [ACKED, SENT, QUEUED, HELD]


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_journal_refuses_a_restart_and_a_rebuild_know_what_was_done(seed):
    """Two processes, a journal that is full now and then, random actions."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        rover = Rover(folder)
        for _ in range(25):
            other = Catalog(rover.path, None)
            for catalog in (rover.catalog, other):
                if chance.random() < 0.3:
                    kept, rover.catalog = rover.catalog, catalog
                    rover.journal_fails(chance.choice([1, 1, 2]))
                    rover.catalog = kept
                action = chance.choice(["ack", "nack", "resend", "hold", "release", "send", "pin"])
                chosen = chance.sample(rover.images, 2)
                try:
                    if action == "send":
                        catalog.begin_pass([number for number in chosen if
                                            catalog.state_of(number) == QUEUED], [], 9, "test", AT)
                    else:
                        catalog.move(action, chosen)
                except sqlite3.OperationalError as error:
                    assert "journal" in str(error)
            other.close()
            again = chance.choice([Rover.restart, Rover.rebuild, lambda rover: None])
            if again is Rover.rebuild:
                rover.restart()  # completes the journal, as far as it lacks anything
                known = rover.states(), sorted(rover.catalog.pinned())
                rover.rebuild()
                assert (rover.states(), sorted(rover.catalog.pinned())) == known
            elif again is Rover.restart:
                before = rover.states()
                rover.restart()
                assert all(now == was or now == ACKED for now, was in zip(rover.states(), before))
        rover.catalog.close()
