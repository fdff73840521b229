"""The drop folder: complete order files are followed once and cleared away, whatever they hold."""

import logging
import os
import pathlib
import sqlite3
import tempfile

import pytest
from hypothesis import given, settings, strategies
from operated import AT, Operations

from jetson_cluster import drop_folder
from jetson_cluster.drop_folder import DropFolder, follower_of


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


class Dropped:
    """A drop folder over a catalog, turned by hand."""

    def __init__(self, rover, settle_s=1.0):
        self.rover, self.clock = rover, Clock()
        self.folder = rover.folder / "orders"
        self.folder.mkdir(exist_ok=True)
        self.settle_s = settle_s
        self.start()

    def start(self):
        """As after a restart of the daemon."""
        self.drop = DropFolder(str(self.folder), self.settle_s, follower_of(
            self.rover.catalog, self.rover.downlink, lambda: AT), self.clock)

    def put(self, name, content):
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    def turn(self, seconds=1.0):
        self.clock.now_s += seconds
        return self.drop.poll()

    def settle(self, turns=6):
        return sum(self.turn() for _ in range(turns))

    def left(self):
        return sorted(os.path.relpath(os.path.join(folder, name), str(self.folder))
                      for folder, _, names in os.walk(str(self.folder)) for name in names)

    def result(self, name):
        return (self.folder / "refused" / (name + ".result.txt")).read_text(encoding="utf-8")


@pytest.fixture
def dropped(tmp_path):
    with Operations(tmp_path) as rover:
        rover.add(100, 100, 100)
        yield Dropped(rover)


def test_a_file_of_orders_is_followed_and_deleted(dropped, caplog):
    caplog.set_level(logging.INFO)
    dropped.put("sol400.yaml", "- {id: 1, pin: sol0002.jpg}\n- {id: 2, hold: sol0000.jpg}\n")
    assert dropped.settle() == 2
    assert dropped.left() == [] and dropped.rover.states() == ["held", "queued", "queued"]
    assert dropped.rover.catalog.audited("1").origin == "order file sol400.yaml"
    assert "OrderFollowed: sol400.yaml: order 2: held sol0000.jpg" in caplog.text


def test_a_file_is_followed_only_when_it_was_still_for_two_looks(dropped):
    path = dropped.put("a.csv", "1,hold,sol0000.jpg\n")
    assert dropped.turn() == 0
    with path.open("ab") as stream:
        stream.write(b"2,hold,sol0001.jpg\n")
    assert dropped.turn() == 0
    assert dropped.turn(0.5) == 0  # not even looked at
    assert dropped.turn(0.5) == 2
    assert dropped.rover.states() == ["held", "held", "queued"]


def test_a_long_settling_time_is_kept(dropped):
    dropped.settle_s = 3.0
    dropped.start()
    dropped.put("a.csv", "1,hold,sol0000.jpg\n")
    assert [dropped.turn() for _ in range(5)] == [0, 0, 0, 1, 0]


def test_orders_wait_until_all_that_was_dropped_is_followed(dropped):
    assert dropped.drop.waiting  # nobody has looked yet
    dropped.turn()
    assert not dropped.drop.waiting
    dropped.put("a.csv", "1,hold,sol0000.jpg\n")
    dropped.turn()
    assert dropped.drop.waiting
    dropped.turn()
    dropped.drop.poll()
    assert not dropped.drop.waiting and dropped.left() == []


@pytest.mark.parametrize("name", [".a.csv", "a.csv.part", "a.yaml.tmp", "a.yaml.partial"])
def test_unfinished_names_are_left_alone(dropped, name):
    dropped.put(name, "1,hold,sol0000.jpg\n")
    assert dropped.settle() == 0 and dropped.left() == [name]


def test_only_regular_files_are_taken_for_orders(dropped):
    os.mkfifo(str(dropped.folder / "fifo.csv"))
    (dropped.folder / "folder.csv").mkdir()
    target = dropped.rover.folder / "elsewhere.csv"
    target.write_text("1,hold,sol0000.jpg\n")
    (dropped.folder / "link.csv").symlink_to(target)
    assert dropped.settle() == 0 and set(dropped.rover.states()) == {"queued"}


def test_a_file_with_a_refused_order_is_kept_with_its_result_and_the_others_hold(dropped, caplog):
    text = "1,hold,sol0000.jpg\n2,hld,sol0001.jpg\n3,pin,none.jpg\n4,hold,sol0002.jpg\n"
    dropped.put("sol401.csv", text)
    assert dropped.settle() == 4
    assert dropped.rover.states() == ["held", "queued", "held"]
    assert dropped.left() == ["refused/sol401.csv", "refused/sol401.csv.result.txt"]
    assert (dropped.folder / "refused" / "sol401.csv").read_text() == text
    assert dropped.result("sol401.csv").splitlines() == [
        "line 1: applied: order 1: held sol0000.jpg (was queued)",
        "line 2: refused: order 2: no action is called 'hld'; did you mean 'hold'?",
        "line 3: refused: order 3: no image is called none.jpg",
        "line 4: applied: order 4: held sol0002.jpg (was queued)"]
    assert "OrderRefused: sol401.csv line 2: order 2: no action" in caplog.text


def test_a_refused_file_put_in_again_does_what_is_possible_by_now(dropped):
    text = "1,hold,sol0000.jpg\n3,pin,sol0003.jpg\n"
    dropped.put("a.csv", text)
    dropped.settle()
    dropped.rover.add(100)
    dropped.rover.catalog.move("release", [1])
    (dropped.folder / "refused" / "a.csv").rename(dropped.folder / "a.csv")
    dropped.settle()
    assert dropped.rover.catalog.pinned() == [4]
    assert dropped.rover.states()[0] == "queued"  # its order was followed, and is not again
    assert dropped.left() == ["refused/a.csv.result.txt"]


def test_the_same_file_uplinked_twice_changes_nothing(dropped):
    text = "- {id: 1, hold: sol0000.jpg}\n- {id: 2, pass: 100}\n"
    dropped.put("a.yaml", text)
    dropped.settle()
    once = dropped.rover.everything()
    dropped.put("a.yaml", text)
    assert dropped.settle() == 2
    assert dropped.rover.everything() == once and dropped.left() == []


@pytest.mark.parametrize("name, content, why", [
    ("a.yaml", "- {id: 1, hold: [sol0000.jpg}\n", "line 1: refused: its YAML is broken"),
    ("a.csv", b"1,hold,\xff\n", "line 1: refused: it is no UTF-8 text"),
    ("a.csv", b"x" * 1000001, "refused: it is larger than 1000000 bytes")])
def test_a_file_that_is_none_is_refused_whole_and_says_why(dropped, name, content, why):
    dropped.put(name, content)
    dropped.settle()
    assert dropped.result(name).startswith(why) and name not in dropped.left()
    assert dropped.rover.catalog.audit_rows(1)[0].result == "refused"
    assert set(dropped.rover.states()) == {"queued"}


def test_files_that_are_no_orders_are_left_alone_and_that_is_said_once(dropped, caplog):
    for name in ("catalog.sqlite", "0001-7f3b51.jpg", "a.CSV"):
        dropped.put(name, "1,hold,sol0000.jpg\n")
    dropped.settle()
    assert dropped.left() == ["0001-7f3b51.jpg", "catalog.sqlite"]
    assert caplog.text.count("OrdersFolderHoldsOthers") == 1
    assert dropped.rover.states()[0] == "held" and not dropped.drop.waiting


def test_orders_are_found_among_thousands_of_files_that_are_none(dropped):
    for number in range(1200):
        dropped.put("n%d.txt" % number, "x")
    dropped.put("a.csv", "1,hold,sol0000.jpg\n")
    for number in range(1200, 2400):
        dropped.put("n%d.txt" % number, "x")
    assert dropped.settle() == 1 and dropped.drop.error == ""
    assert dropped.rover.states()[0] == "held" and len(dropped.left()) == 2400


def test_a_folder_with_too_many_names_is_told_once_while_it_lasts(dropped, monkeypatch, caplog):
    monkeypatch.setattr(drop_folder, "NAMES_LOOKED_AT", 3)
    for name in ("a.txt", "b.txt", "c.txt", "d.csv.part"):
        dropped.put(name, "x")
    dropped.settle()
    assert dropped.drop.error.startswith("OrdersFolderCrowded: %s: only the first 3" % dropped.folder)
    assert caplog.text.count("OrdersFolderCrowded") == 1
    for name in ("a.txt", "b.txt"):
        (dropped.folder / name).unlink()
    dropped.put("a.csv", "1,hold,sol0000.jpg\n")
    assert dropped.settle() == 1 and dropped.drop.error == ""


def test_orders_that_are_found_in_a_crowded_folder_are_followed(dropped, monkeypatch):
    monkeypatch.setattr(drop_folder, "NAMES_LOOKED_AT", 2)
    for number in range(3):
        dropped.put("%d.csv" % number, "%d,hold,sol000%d.jpg\n" % (number, number))
    dropped.turn()
    assert "OrdersFolderCrowded" in dropped.drop.error and dropped.drop.waiting
    assert dropped.settle(8) == 3  # the third once the others are gone
    assert dropped.drop.error == "" and dropped.rover.states() == ["held"] * 3


def test_files_that_cannot_be_cleared_away_hide_no_others(dropped, monkeypatch):
    monkeypatch.setattr(drop_folder, "FILES_AT_ONCE", 2)
    (dropped.folder / "refused").symlink_to("nowhere")
    for name in "abc":
        dropped.put(name + ".csv", "1,hld,sol0000.jpg\n")
    dropped.settle(8)
    dropped.put("d.csv", "1,hold,sol0000.jpg\n")
    assert dropped.settle() == 1 and dropped.rover.states()[0] == "held"


def test_an_order_that_was_cut_off_is_refused_and_those_before_it_hold(dropped):
    dropped.put("a.csv", "1,hold,sol0000.jpg\n2,weight,7,3")
    dropped.settle()
    assert dropped.rover.states()[0] == "held" and not dropped.rover.catalog.amendments()
    assert dropped.result("a.csv").splitlines()[1].startswith(
        "line 2: refused: order 2: the file ends in the middle of it")


def test_a_second_refused_file_of_one_name_gets_a_number(dropped):
    for text in ("1,hld,sol0000.jpg\n", "2,hld,sol0000.jpg\n", "3,hld,sol0000.jpg\n"):
        dropped.put("a.csv", text)
        dropped.settle()
    assert dropped.left() == sorted("refused/a%s.csv%s" % (number, more)
                                    for number in ("", "-2", "-3") for more in ("", ".result.txt"))
    assert "order 1:" in dropped.result("a.csv") and "order 3:" in dropped.result("a-3.csv")


def test_an_empty_file_is_deleted(dropped):
    dropped.put("a.csv", "")
    assert dropped.settle() == 0 and dropped.left() == []


def test_files_are_followed_in_the_order_of_their_names(dropped):
    for name, order in (("b.csv", "2,release,sol0000.jpg"), ("a.csv", "1,hold,sol0000.jpg"),
                        ("c.csv", "3,pin,sol0000.jpg")):
        dropped.put(name, order + "\n")
    dropped.settle()
    accounted = [row.order_id for row in reversed(dropped.rover.catalog.audit_rows(10))]
    assert accounted == ["1", "2", "3"] and dropped.rover.states()[0] == "queued"


def test_many_files_do_not_wait_a_look_each(dropped):
    for number in range(10):
        dropped.put("%d.csv" % number, "%d,hold,sol0000.jpg\n" % number)
    dropped.turn()
    dropped.clock.now_s += 1
    assert [dropped.drop.poll() for _ in range(11)] == [1] * 10 + [0]


def test_a_turn_does_only_a_few_orders_and_goes_on_at_once(dropped, monkeypatch):
    monkeypatch.setattr(drop_folder, "ORDERS_A_TURN", 3)
    dropped.put("a.csv", "".join("%d,pin,sol0000.jpg\n" % number for number in range(7)))
    assert dropped.turn() == 0 and 0 < dropped.drop.next_due_s() <= 1
    assert dropped.turn() == 3
    assert dropped.drop.busy and dropped.drop.next_due_s() == 0
    assert [dropped.drop.poll() for _ in range(3)] == [3, 1, 0]
    assert not dropped.drop.busy and dropped.left() == []


def test_a_turn_ends_early_where_orders_take_long(dropped):
    def apply(action, origin):
        dropped.clock.now_s += 2
        return follower.apply(action, origin)

    follower = dropped.drop._follower
    dropped.drop._follower = follower._replace(apply=apply)
    dropped.put("a.csv", "".join("%d,pin,sol0000.jpg\n" % number for number in range(7)))
    dropped.turn()
    assert [dropped.turn(), dropped.drop.poll(), dropped.drop.poll()] == [3, 3, 1]
    assert dropped.left() == []


def test_a_pass_is_refused_while_an_outbox_hands_images_to_the_radio(dropped):
    downlink = dropped.rover.downlink
    dropped.rover.downlink = lambda: downlink()._replace(outbox_path="/spool/outbox")
    dropped.start()
    dropped.put("a.csv", "46,pass,4MB\n47,hold,sol0000.jpg\n")
    assert dropped.settle() == 2
    assert dropped.rover.catalog.last_pass == 0
    assert dropped.rover.states() == ["held", "queued", "queued"]
    first, second = dropped.result("a.csv").splitlines()
    assert first.startswith("line 1: refused: order 46: outbox.path is set (/spool/outbox): ")
    assert second.startswith("line 2: applied: ")
    row, = [row for row in dropped.rover.catalog.audit_rows(9) if row.result == "refused"]
    assert "order 46: outbox.path is set" in row.detail and row.order_id is None
    dropped.rover.downlink = downlink  # the id is free still
    dropped.start()
    dropped.put("b.csv", "46,pass,4MB\n")
    dropped.settle()
    assert dropped.rover.states() == ["held", "sent", "sent"]


def test_after_a_kill_in_the_middle_of_a_file_the_rest_is_done_and_nothing_twice(dropped,
                                                                                monkeypatch):
    monkeypatch.setattr(drop_folder, "ORDERS_A_TURN", 1)
    dropped.put("a.csv", "1,pass,100\n2,pass,100\n3,hold,sol0002.jpg\n")
    dropped.turn()
    assert dropped.turn() == 1
    dropped.start()
    dropped.settle()
    assert dropped.rover.catalog.last_pass == 2
    assert dropped.rover.states() == ["sent", "sent", "held"] and dropped.left() == []


def test_a_file_replaced_while_it_is_followed_is_followed_as_well(dropped, monkeypatch):
    monkeypatch.setattr(drop_folder, "ORDERS_A_TURN", 1)
    dropped.put("a.csv", "1,hold,sol0000.jpg\n2,hold,sol0001.jpg\n")
    dropped.turn()
    dropped.turn()
    new = dropped.rover.folder / "new"
    new.write_text("3,hold,sol0002.jpg\n")
    new.rename(dropped.folder / "a.csv")
    dropped.settle()
    assert dropped.rover.states() == ["held"] * 3 and dropped.left() == []


def test_while_the_journal_cannot_be_written_orders_wait_and_are_followed_then(dropped):
    # Something that is no file stands where the journal belongs: acknowledgements cannot be kept.
    journal = dropped.rover.state / "journal"
    journal.mkdir()
    dropped.put("a.csv", "1,ack,sol0000.jpg\n")
    dropped.turn()
    for _ in range(3):
        with pytest.raises(sqlite3.OperationalError, match="journal"):
            dropped.turn()
    assert dropped.rover.states()[0] == "queued" and dropped.left() == ["a.csv"]
    journal.rmdir()
    assert dropped.settle() == 1 and dropped.drop.error == ""
    assert dropped.rover.states()[0] == "acked" and dropped.left() == []


def test_a_folder_that_cannot_be_read_is_said_once_and_orders_are_followed_when_it_can(dropped,
                                                                                       caplog):
    aside = dropped.rover.folder / "aside"
    dropped.folder.rename(aside)
    dropped.folder.symlink_to(dropped.folder)
    dropped.settle()
    assert dropped.drop.error.startswith("OrdersNotFollowed: ") and not dropped.drop.busy
    assert caplog.text.count("OrdersNotFollowed") == 1
    dropped.folder.unlink()
    aside.rename(dropped.folder)
    dropped.put("a.csv", "1,hold,sol0000.jpg\n")
    assert dropped.settle() == 1 and dropped.drop.error == ""
    assert dropped.rover.states()[0] == "held" and dropped.left() == []


def test_a_file_that_cannot_be_cleared_away_is_not_followed_again_and_again(dropped, caplog):
    (dropped.folder / "refused").symlink_to("nowhere")
    dropped.put("a.csv", "1,hold,sol0000.jpg\n2,hld,sol0000.jpg\n")
    assert dropped.settle() == 2
    assert caplog.text.count("OrderFileNotCleared") == 1
    assert len(dropped.rover.catalog.audit_rows(10)) == 2
    os.utime(str(dropped.folder / "a.csv"), (1, 1))  # another file, for all one can see
    assert dropped.settle() == 2


def test_a_folder_that_is_not_there_is_said_once_and_its_return_too(dropped, caplog):
    dropped.folder.rmdir()
    dropped.settle()
    assert caplog.text.count("OrdersFolderMissing") == 1 and dropped.drop.error == ""
    dropped.folder.mkdir()
    dropped.put("a.csv", "1,hold,sol0000.jpg\n")
    dropped.settle()
    assert "OrdersFolderFound" in caplog.text and dropped.rover.states()[0] == "held"


def test_a_file_that_may_not_be_read_is_refused(dropped):
    # Somewhere that everybody may enter, for root becomes nobody here, who may not read the file.
    with tempfile.TemporaryDirectory() as folder:
        dropped.folder = pathlib.Path(folder)
        dropped.folder.chmod(0o777)
        dropped.start()
        dropped.put("a.csv", "1,hold,sol0000.jpg\n").chmod(0)
        own = os.geteuid()
        try:
            if own == 0:
                os.seteuid(65534)
            dropped.settle()
        finally:
            os.seteuid(own)
        assert "it cannot be read: Permission denied" in dropped.result("a.csv")
        assert dropped.left() == ["refused/a.csv", "refused/a.csv.result.txt"]


def test_names_that_are_not_utf8_or_try_to_break_the_log_do_no_harm(dropped, caplog):
    for name in (b"caf\xe9.csv", b"two\nlines.csv"):
        with open(os.path.join(os.fsencode(str(dropped.folder)), name), "wb") as stream:
            stream.write(b"%d,hld,sol0000.jpg\n" % len(name))
    dropped.settle()
    assert len(dropped.left()) == 4 and all(name.startswith("refused/") for name in dropped.left())
    assert len(dropped.rover.catalog.audit_rows(10)) == 2


@settings(deadline=None, max_examples=25)
@given(strategies.lists(strategies.binary(max_size=60), max_size=4), strategies.data())
def test_whatever_is_dropped_the_folder_is_empty_in_the_end(tmp_path_factory, contents, data):
    with Operations(tmp_path_factory.mktemp("rover")) as rover:
        rover.add(100)
        dropped = Dropped(rover)
        for number, content in enumerate(contents):
            dropped.put("%d%s" % (number, data.draw(strategies.sampled_from([".csv", ".yaml"]))),
                        content)
        dropped.settle(12)
        assert all(name.startswith("refused/") for name in dropped.left())
        assert dropped.drop.error == ""
