"""Lists of passes: what orders sent is handed to the radio's software in a file, once and whole."""

import csv
import io
import os

import pytest
from operated import AT, Operations
from rover import Rover, drop, until

from jetson_cluster import applying, pass_lists
from jetson_cluster.drop_folder import follower_of
from jetson_cluster.orders import parse
from jetson_cluster.pass_lists import COLUMNS, PassLists, csv_of
from jetson_cluster.passes import recall_pass
from jetson_cluster.previews import Previews


class Listed(Operations):
    """A rover with its folder of lists; `order` follows orders as the drop folder does."""

    def __init__(self, folder):
        super().__init__(folder)
        self.folder_of_lists = self.state / "passes"
        self.restart()

    def restart(self):
        self.lists = PassLists(str(self.state), self.catalog,
                               Previews(str(self.state / "previews"), self.catalog))

    def order(self, order_id, budget):
        action, = parse(("%s,pass,%s\n" % (order_id, budget)).encode(), "a.csv").actions
        return follower_of(self.catalog, self.downlink, lambda: AT).apply(action, "test").result

    def names(self):
        return sorted(os.listdir(str(self.folder_of_lists)), key=lambda name: int(name[:-4]))

    def read(self, number):
        with open(str(self.folder_of_lists / ("%d.csv" % number)), "rb") as stream:
            return stream.read()


@pytest.fixture
def rover(tmp_path):
    with Listed(tmp_path) as made:
        yield made


def test_an_ordered_pass_leaves_the_list_that_the_verb_prints(rover, capsysbinary):
    rover.add(100, 100, 100, previews=10, names=["a.jpg", "b,\"x\".jpg", "caf\udce9.jpg"])
    rover.policy = rover.policy._replace(previews="first")
    assert rover.order("46", "330") == applying.APPLIED
    rover.lists.write_due()
    assert rover.names() == ["1.csv"] and rover.lists.error == ""
    rows = list(csv.DictReader(io.StringIO(rover.read(1).decode("utf-8"), newline="")))
    assert tuple(rows[0]) == COLUMNS and [row["kind"] for row in rows] == ["preview"] * 3 + [
        "image"] * 3
    assert all(os.path.getsize(row["path"]) == int(row["bytes"]) for row in rows[:5])
    rover.command("pass", "--show", "1", "--csv")
    assert capsysbinary.readouterr().out == rover.read(1)


def test_a_list_is_written_once_for_it_may_be_taken_away_when_done(rover):
    rover.add(100, 100, 100)
    rover.order("46", "100")
    rover.lists.write_due()
    os.unlink(str(rover.folder_of_lists / "1.csv"))
    assert rover.order("46", "100") == applying.REPEATED
    rover.lists.write_due()
    assert rover.names() == []
    rover.order("47", "100")
    rover.restart()
    rover.lists.write_due()
    assert rover.names() == ["2.csv"]


def test_a_pass_of_the_command_line_and_an_empty_one_leave_no_list(rover, capsys):
    assert rover.order("46", "100") == applying.REFUSED
    rover.add(100)
    assert rover.command("pass", "--budget", "100") == 0
    rover.restart()
    rover.lists.write_due()
    assert not rover.folder_of_lists.exists()


def test_a_list_is_due_with_its_pass_or_not_at_all(rover, monkeypatch):
    rover.add(100)

    def ends(*_given):
        raise KeyboardInterrupt

    monkeypatch.setattr("jetson_cluster.drop_folder.note_due", ends)
    with pytest.raises(KeyboardInterrupt):
        rover.order("46", "100")
    assert rover.catalog.last_pass == 0 and rover.states() == ["queued"]


def test_after_a_kill_before_it_was_written_the_list_is_written_at_the_next_start(tmp_path):
    with Listed(tmp_path) as rover:
        rover.add(100, 100)
        rover.order("46", "100")
        rover.order("47", "100")
    with Listed(tmp_path) as rover:
        rover.lists.write_due()
        assert rover.names() == ["1.csv", "2.csv"]
        assert rover.read(2) == csv_of(recall_pass(rover.catalog, 2))


def test_a_disk_that_refuses_is_told_once_and_the_list_written_when_there_is_room(rover, caplog):
    rover.add(100)
    rover.order("46", "100")
    rover.folder_of_lists.write_text("in its place")
    for _ in range(3):
        rover.lists.write_due()
    assert caplog.text.count("PassListNotWritten: %s" % rover.folder_of_lists) == 1
    assert rover.lists.error.startswith("PassListNotWritten: ")
    rover.folder_of_lists.unlink()
    rover.lists.write_due()
    assert rover.names() == ["1.csv"] and rover.lists.error == ""


def test_a_list_waits_for_previews_that_cannot_be_written(rover):
    rover.add(100, previews=10)
    rover.policy = rover.policy._replace(previews="first")
    (rover.state / "previews").write_text("in its place")
    rover.order("46", "1kB")
    rover.lists.write_due()
    assert "1 preview of pass 1 could not be written" in rover.lists.error
    assert not rover.folder_of_lists.exists()
    (rover.state / "previews").unlink()
    rover.lists.write_due()
    assert rover.read(1).count(b"\r\n") == 3


def test_only_the_newest_lists_are_kept_and_files_of_others_are_left_alone(rover, monkeypatch):
    monkeypatch.setattr(pass_lists, "KEPT", 3)
    rover.folder_of_lists.mkdir()
    (rover.folder_of_lists / "0.txt").write_text("theirs")
    rover.add(*[100] * 11)
    for number in range(11):
        rover.order(str(number), "100")
        rover.lists.write_due()
    assert rover.names() == ["0.txt", "9.csv", "10.csv", "11.csv"]


# ---- the daemon ----------------------------------------------------------------------------------


def test_the_daemon_writes_the_list_of_a_pass_that_the_ground_ordered(tmp_path, tiny):
    rover = Rover(tmp_path, tiny)
    sizes = [drop(rover.inbox, "%d.png" % seed, "red", seed).stat().st_size for seed in range(3)]
    listed = rover.state / "passes" / "1.csv"
    with rover.running():
        until(lambda: (rover.state / "queue.csv").exists() and len(rover.names()) == 3)
        (rover.orders / "a.yaml").write_text("- {id: 46, pass: 1MB}\n")
        until(listed.exists)
    with listed.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert sorted(int(row["bytes"]) for row in rows) == sorted(sizes)
    assert all(os.path.isfile(row["path"]) for row in rows) and rover.names() == []


def test_a_list_that_cannot_be_written_is_told_in_the_status(tmp_path, tiny):
    rover = Rover(tmp_path, tiny)
    drop(rover.inbox, "0.png", "red", 0)
    rover.once()
    (rover.state / "passes").write_text("in its place")
    (rover.orders / "a.yaml").write_text("- {id: 46, pass: 1MB}\n")
    rover.once()
    assert rover.status()["queue"]["error"].startswith("PassListNotWritten: ")
    prom = (rover.state / "status.prom").read_text()
    assert 'jetson_cluster_error{part="queue"} 1\n' in prom
