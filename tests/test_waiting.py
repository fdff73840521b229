"""Where ingest takes its files from when some of them wait: in turns, oldest first, none lost."""

import hashlib
import os

import pytest

from catalog_checks import counted
from jetson_cluster import waiting
from jetson_cluster.catalog import Catalog
from jetson_cluster.inbox import Inbox
from jetson_cluster.records import Image, Refusal
from jetson_cluster.schema import MISSING, WAITING
from jetson_cluster.waiting import Turns
from jetson_cluster.walker import look


class Files:
    """A real inbox and a real catalog; files that wait, and files that are new."""

    def __init__(self, folder):
        self.folder, self.now = folder / "inbox", 0.0
        self.folder.mkdir()
        self.catalog = Catalog(str(folder / "catalog.sqlite"), "net/layer@0")
        self.inbox = Inbox(str(self.folder), 0.1, 1.0, self.catalog.known, lambda: self.now)
        self.turns = Turns(self.inbox, self.catalog)

    def put(self, name, content=None):
        path = self.folder / name
        path.write_bytes((content or name).encode())
        return look(str(path))

    def waits(self, *names, **more):
        """Files that were identified and not embedded."""
        for name in names:
            arrival = self.put(name, **more)
            digest = hashlib.sha256((self.folder / name).read_bytes()).hexdigest()
            self.catalog.record([Image(arrival, digest, 1, 1, "2026-01-01T00:00:00Z", None)],
                                None, [])

    def settle(self):
        """Let the inbox find everything and believe that it is still."""
        for _ in range(4):
            self.now += 2.0
            assert self.inbox.take(0) == []

    def take(self, limit):
        return [os.path.basename(arrival.path) for arrival in self.turns.take(limit)]


@pytest.fixture
def files(tmp_path):
    made = Files(tmp_path)
    yield made
    made.catalog.close()


def test_new_and_waiting_files_come_in_turns_and_those_that_wait_oldest_first(files):
    files.waits("w3", "w1", "w2", "w5", "w4")
    for name in ("n1", "n2", "n3"):
        os.utime(files.put(name).path, (0, int(name[1])))
    files.settle()
    assert [files.take(2) for _ in range(6)] == [
        ["n1", "n2"], ["w3", "w1"], ["n3"], ["w2", "w5"], ["w4"], []]


def test_a_new_file_waits_for_one_batch_at_most_however_many_wait(files):
    files.waits(*["w%02d" % number for number in range(40)])
    files.settle()
    for turn in range(4):
        files.take(3)
        files.put("n%d" % turn)
        files.settle()
        assert "n%d" % turn in files.take(3) + files.take(3)


def test_in_the_heat_only_new_files_are_taken(files):
    files.waits("w")
    files.put("n")
    files.settle()
    assert [os.path.basename(held.path) for held in files.turns.take_new(9)] == ["n"]
    assert files.turns.take_new(9) == []


def test_a_file_that_is_taken_is_not_given_again_until_it_is_given_back(files):
    files.waits("a", "b")
    files.settle()
    first = files.turns.take(9)
    assert len(first) == 2 and files.take(9) == files.take(9) == []
    files.turns.give_back(first[0])
    assert files.take(9) == []  # while the other is in work
    files.turns.done(first[1])
    files.catalog.record([Image(first[1], hashlib.sha256(b"b").hexdigest(), 1, 1, "", None)],
                         None, [])
    assert set(files.take(9)) == {"a", "b"}


def test_files_of_the_inbox_are_handed_back_to_the_inbox(files):
    arrival = files.put("n")
    files.settle()
    assert files.turns.take(1) == [arrival]
    files.turns.give_back(arrival)
    assert files.inbox.backlog == 1
    assert files.turns.take(1) + files.turns.take(1) == [arrival]
    files.turns.done(arrival)
    assert files.inbox.backlog == 0


def test_what_is_gone_or_rewritten_becomes_missing_and_the_next_ones_come(files, caplog):
    files.waits("gone", "rewritten", "stays")
    (files.folder / "gone").unlink()
    files.put("rewritten", "something longer")
    files.settle()
    files.inbox.take(9)  # the rewritten one, which is new content
    assert files.take(1) == ["stays"]
    assert files.catalog.counts[MISSING] == 2 and files.catalog.counts[WAITING] == 1
    assert "ImagesMissing: 2 that waited " in caplog.text


def test_a_waiting_image_is_read_from_any_of_its_paths(files):
    files.waits("a", "b", "c", content="the same")
    (files.folder / "a").unlink()
    files.put("b", "another content")
    files.settle()
    files.inbox.take(9)
    assert files.take(9) == ["c"]


def test_an_inbox_that_is_not_there_makes_no_image_missing(files):
    files.waits("a", "b")
    files.settle()
    files.folder.rename(files.folder.parent / "away")
    for _ in range(3):
        assert files.take(9) == []
    assert files.catalog.counts[WAITING] == 2
    (files.folder.parent / "away").rename(files.folder)
    files.settle()
    assert set(files.take(9) + files.take(9)) == {"a", "b"}


def test_an_inbox_unmounted_since_it_was_last_looked_at_makes_no_image_missing(files, caplog):
    files.waits(*["%d" % number for number in range(9)])
    files.settle()
    first = files.turns.take(2)
    files.folder.rename(files.folder.parent / "away")
    assert files.inbox.available  # so it was at the last look
    assert files.take(4) == [] and not files.inbox.available
    assert files.catalog.counts[WAITING] == 9 and "ImagesMissing" not in caplog.text
    (files.folder.parent / "away").rename(files.folder)
    assert [arrival.path[-1] for arrival in first] + files.take(9) == list("012345678")


def test_an_inbox_unmounted_while_its_files_are_looked_at_makes_no_image_missing(
        files, monkeypatch):
    files.waits("a", "b", "c", "d")
    files.settle()
    assert files.take(1) == ["a"]
    examine, looked_at = waiting.examine, []

    def and_then_unmounted(path):
        looked_at.append(examine(path))
        if len(looked_at) == 1:
            files.folder.rename(files.folder.parent / "away")
        return looked_at[-1]

    monkeypatch.setattr(waiting, "examine", and_then_unmounted)
    assert files.take(9) == [] and [held is None for held in looked_at] == [False, True, True]
    assert files.catalog.counts[WAITING] == 4
    (files.folder.parent / "away").rename(files.folder)
    assert files.take(9) == ["b", "c", "d"]  # as if nothing had happened


def test_the_bare_folder_that_a_card_was_mounted_over_gives_no_waiting_file(files):
    files.waits("a")
    inbox = Inbox(str(files.folder), 0.1, 1.0, mount=str(files.folder))
    assert Turns(inbox, files.catalog).take(9) == [] and files.catalog.counts[WAITING] == 1


def test_an_image_that_cannot_be_examined_goes_on_waiting_and_holds_up_no_other(files, caplog):
    """A folder that is a link to itself stands for a card that fails: neither says ENOENT."""
    (files.folder / "sol1").mkdir()
    files.waits("sol1/a", "sol1/b", "c")
    files.settle()
    (files.folder / "sol1").rename(files.folder / ".away")
    (files.folder / "sol1").symlink_to("sol1")
    taken = files.turns.take(9)
    assert [os.path.basename(arrival.path) for arrival in taken] == ["c"]
    assert files.turns.in_vain == 0
    files.catalog.record([], None, [Refusal(*taken[0][:3] + ("damaged", "why", "then"))])
    files.turns.done(taken[0])
    for _ in range(5):
        assert files.take(9) == []
    assert counted(files.catalog) == {WAITING: 2, "refused": 1}
    assert files.turns.in_vain == 2  # all that wait
    assert caplog.text.count("ImagesInDoubt: 2 that wait ") == 2  # c came in between
    assert caplog.text.count("ImagesInDoubt") == 2
    (files.folder / "sol1").unlink()
    (files.folder / ".away").rename(files.folder / "sol1")
    assert set(files.take(9) + files.take(9)) == {"a", "b"}
    assert files.turns.in_vain == 0


def test_in_the_heat_waiting_is_not_in_vain(files):
    (files.folder / "sol1").mkdir()
    files.waits("sol1/a")
    files.settle()
    (files.folder / "sol1").rename(files.folder / ".away")
    (files.folder / "sol1").symlink_to("sol1")
    assert files.take(9) == [] and files.turns.in_vain == 1
    files.turns.take_new(9)
    assert files.turns.in_vain == 0


def test_an_image_with_a_path_in_doubt_is_read_from_one_that_is_there(files):
    (files.folder / "a").mkdir()
    files.waits("a/a", "b", content="the same")
    files.settle()
    (files.folder / "a").rename(files.folder / ".away")
    (files.folder / "a").symlink_to("a")
    assert files.take(9) == ["b"]


def test_all_that_is_found_gone_in_a_turn_is_written_in_one_transaction(files):
    files.waits(*["%02d" % number for number in range(40)])
    for path in files.folder.iterdir():
        path.unlink()
    files.settle()
    statements = []
    # Python 3.6 takes only what can be hashed, which a list's own method cannot.
    files.catalog._db.set_trace_callback(lambda statement: statements.append(statement))
    assert files.take(4) == []
    files.catalog._db.set_trace_callback(None)
    assert files.catalog.counts[MISSING] == 40 and statements.count("COMMIT") == 1


def test_thousands_that_are_gone_do_not_hold_up_a_turn(files, monkeypatch):
    monkeypatch.setattr(waiting, "PIECE", 10)
    files.waits(*["%03d" % number for number in range(60)])
    for path in sorted(files.folder.iterdir())[:-1]:
        path.unlink()
    files.settle()
    found, turns = [], 0
    while not found:
        before = files.catalog.counts[MISSING]
        found = files.take(4)
        assert files.catalog.counts[MISSING] - before <= 12
        turns += 1
    assert found == ["059"] and turns >= 5


def test_those_that_come_back_are_offered_although_later_ones_were(files):
    files.waits("a", "b")
    away = files.folder.parent / "a"
    (files.folder / "a").rename(away)
    files.settle()
    taken = files.turns.take(9)
    assert [os.path.basename(arrival.path) for arrival in taken] == ["b"]
    files.catalog.record([], None, [Refusal(*taken[0][:3] + ("damaged", "why", "then"))])
    files.turns.done(taken[0])
    away.rename(files.folder / "a")
    files.settle()  # the walk finds it, and the catalog knows it
    assert files.catalog.counts[WAITING] == 1
    assert files.take(9) == ["a"]
