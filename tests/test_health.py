"""How the daemon says that it lives: over a real socket, and in a file that reads back."""

import json
import logging
import os
import socket
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statuses import AT_WORK as STATUS
from jetson_cluster import health, prom
from jetson_cluster.errors import UserError


@pytest.fixture(params=["path", "abstract"])
def listener(request, tmp_path):
    """(what NOTIFY_SOCKET says, the socket systemd would listen on)."""
    if request.param == "path":
        address = told = str(tmp_path / "notify")
    else:
        told = "@jetson-cluster-test-%d-%s" % (os.getpid(), tmp_path.name)
        address = "\0" + told[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(address)
        channel.settimeout(10)
        yield told, channel


def test_systemd_hears_each_message_as_its_protocol_has_it(listener):
    told, channel = listener
    notifier = health.Notifier({"NOTIFY_SOCKET": told})
    said = []
    for say in (lambda: notifier.starting("loading the network", 600), notifier.ready,
                lambda: notifier.alive("5 queued, naïve"), notifier.stopping):
        say()
        said.append(channel.recv(4096).decode("utf-8"))
    assert said == [
        "STATUS=loading the network\nEXTEND_TIMEOUT_USEC=600000000", "READY=1",
        "WATCHDOG=1\nSTATUS=5 queued, naïve", "STOPPING=1\nSTATUS=finishing the current batch"]


def test_a_line_break_in_what_it_says_is_no_message_of_its_own(listener):
    told, channel = listener
    notifier = health.Notifier({"NOTIFY_SOCKET": told})
    for say in (notifier.alive, lambda words: notifier.starting(words, 1)):
        say("orders p\nSTOPPING=1")
        assert "STATUS=orders p\\x0aSTOPPING=1" in channel.recv(4096).decode().split("\n")


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}])
def test_without_systemd_nothing_is_said_and_nothing_fails(environment, caplog):
    health.Notifier(environment).ready()
    assert not caplog.records


@pytest.mark.parametrize("address", [
    "/nowhere/notify", "@nobody-listens-here", "/" + "x" * 300, "relative", "/tmp"])
def test_a_socket_that_cannot_be_reached_is_said_once_and_stops_nothing(address, caplog):
    notifier = health.Notifier({"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.alive("still here")
    notifier.stopping()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and said[0].startswith("NotifySocketUnreachable: %s: " % address)
    assert "\0" not in said[0]


def test_a_listener_that_no_longer_listens_does_not_stop_the_loop(listener, caplog, monkeypatch):
    told, channel = listener
    monkeypatch.setattr(health, "SEND_S", 0.05)
    notifier = health.Notifier({"NOTIFY_SOCKET": told})
    while not caplog.records:  # until its queue is full
        notifier.alive("turn")
    assert "NotifySocketUnreachable" in caplog.text
    with caplog.at_level(logging.WARNING):
        channel.recv(4096)
        notifier.ready()
    channel.setblocking(False)
    heard = []
    while "READY=1" not in heard:
        heard.append(channel.recv(4096).decode("utf-8"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2 ** 60, 2 ** 60) | st.text(max_size=9)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10)


@settings(deadline=None, max_examples=50, database=None)
@given(more=st.dictionaries(st.text(max_size=5).filter(lambda key: key not in STATUS), JSON,
                            max_size=5))
def test_a_status_reads_back_as_it_was_written(tmp_path_factory, more):
    status = dict(STATUS, **more)
    path = str(tmp_path_factory.mktemp("status") / "status.json")
    health.write_status(path, status)
    assert health.read_status(path) == status
    with open(path, encoding="ascii") as stream:
        assert json.load(stream) == status


def test_a_status_may_name_a_file_whose_name_is_not_utf8(tmp_path):
    path, name = str(tmp_path / "status.json"), os.fsdecode(b"caf\xe9.png")
    health.write_status(path, dict(STATUS, refusals=[dict(STATUS["refusals"][0], path=name)]))
    assert health.read_status(path)["refusals"][0]["path"] == name


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe\xff", b"not json"])
def test_a_status_that_is_not_there_or_damaged_is_named(tmp_path, content):
    path = tmp_path / "status.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        health.read_status(str(path))
    assert str(caught.value).startswith("status file %s: " % path)
    assert "has it run yet" in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).count(str(path)) == 1


@pytest.mark.parametrize("change, told", [
    (None, "the whole"), ([], "the whole"), ({"images": None}, "'images'"),
    ({"images": dict(STATUS["images"], held="5")}, "'images.held'"),
    ({"bytes": {}}, "'bytes.queued'"),
    ({"heat": {"level": "hot", "hottest_c": "91", "zones": {}}}, "'heat.hottest_c'"),
    ({"gpu_load": []}, "'gpu_load'"), ({"codebook": "none"}, "'codebook'"),
    ({"paused": True}, "'paused'"), ({"previews": {"made": 0}}, "'previews.mean_bytes'"),
    ({"policy": dict(STATUS["policy"], unknown_targets=[1])}, "'policy.unknown_targets.0'"),
    ({"inbox_disk": {"free_bytes": "", "total_bytes": None}}, "'inbox_disk.free_bytes'"),
    ({"ms_per_image": {"x": "1"}}, "'ms_per_image.x'"),
    ({"last_error": "text"}, "'last_error'"), ({"refusals": {}}, "'refusals'"),
    ({"refusals": [{"path": "/x"}]}, "'refusals.0.code'"), ({"inbox": [1]}, "'inbox'")])
def test_a_status_of_another_shape_is_refused_in_one_line(tmp_path, change, told):
    path = str(tmp_path / "status.json")
    health.write_status(path, dict(STATUS, **change) if isinstance(change, dict) else change)
    with pytest.raises(UserError, match="of another version or damaged") as caught:
        health.read_status(path)
    assert path in str(caught.value) and told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_status_nested_without_end_is_refused(tmp_path):
    path = tmp_path / "status.json"
    path.write_text("[" * 100000)
    with pytest.raises(UserError, match="cannot be read"):
        health.read_status(str(path))


def test_a_status_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = str(tmp_path / "status.json")
    health.write_status(path, STATUS)
    with pytest.raises(TypeError):
        health.write_status(path, {"running": object()})
    assert health.read_status(path) == STATUS
    with pytest.raises(OSError):
        health.write_status(str(tmp_path / "absent" / "status.json"), {})


def test_the_disk_has_room_and_a_size(tmp_path):
    disk = health.disk_of(str(tmp_path))
    assert 0 <= disk["free_bytes"] <= disk["total_bytes"] and disk["total_bytes"] > 0


def test_a_disk_that_is_not_there_has_neither(tmp_path):
    assert health.disk_of(str(tmp_path / "absent")) == {"free_bytes": None, "total_bytes": None}


# ---- when it is told -----------------------------------------------------------------------------

class Rover:
    """A reporter over a folder, with a clock, and what it was asked for."""

    def __init__(self, folder):
        self.folder, self.now_s, self.asked = folder, 1000.0, 0
        self.reporter = self.start()

    def start(self):
        return health.Reporter(str(self.folder / "status.json"), str(self.folder / "status.prom"),
                               health.Notifier({}), lambda: self.now_s, lambda: "at %g" % self.now_s)

    def tell(self, **more):
        """Whether the files were written in this turn."""
        before = self.asked

        def status():
            self.asked += 1
            return dict(STATUS, process=self.asked)

        self.reporter.tell("all is well", status, **more)
        return self.asked > before


@pytest.fixture
def rover(tmp_path):
    return Rover(tmp_path)


def test_both_files_are_written_together_and_say_the_same(rover):
    assert rover.tell()
    status = health.read_status(str(rover.folder / "status.json"))
    assert status["process"] == 1
    assert (rover.folder / "status.prom").read_text() == prom.text(status)


def test_an_idle_daemon_writes_once_a_minute_and_a_busy_one_every_few_seconds(rover):
    assert rover.tell() and not rover.tell()
    written = []
    for second in range(180):
        rover.now_s += 1
        rover.reporter.changed = second >= 120 or rover.reporter.changed
        written += [second] if rover.tell() else []
    assert written[:2] == [59, 119] and written[2:] == list(range(124, 180, 5))
    assert rover.tell(at_once=True)


def test_a_status_that_cannot_be_written_is_said_once_and_tried_again(rover, caplog):
    (rover.folder / "status.prom").mkdir()
    for _ in range(3):
        rover.now_s += 60
        assert rover.tell()
    assert caplog.text.count("StatusNotWritten: ") == 1
    assert rover.reporter.last_error["what"].startswith("StatusNotWritten: ")
    assert rover.reporter.last_error["at"] == "at 1060"
    (rover.folder / "status.prom").rmdir()
    rover.now_s += 60
    assert rover.tell() and (rover.folder / "status.prom").exists()
    (rover.folder / "status.prom").unlink()
    (rover.folder / "status.prom").mkdir()
    rover.now_s += 60
    rover.tell()
    assert caplog.text.count("StatusNotWritten: ") == 2


def test_a_catalog_that_cannot_be_asked_stops_nothing(rover, caplog):
    def status():
        raise sqlite3.OperationalError("disk I/O error")

    rover.reporter.tell("all is well", status)
    assert "StatusNotWritten: " in caplog.text and "disk I/O error" in caplog.text


def test_an_error_keeps_the_time_it_was_first_seen(rover):
    rover.reporter.note(["A: b"])
    rover.now_s += 50
    rover.reporter.note(["A: b"])
    assert rover.reporter.last_error == {"at": "at 1000", "what": "A: b"}
    rover.reporter.note(["A: b", "C: d"])
    assert rover.reporter.last_error == {"at": "at 1050", "what": "C: d"}
    rover.now_s += 50
    rover.reporter.note(["A: b", "C: d"])
    assert rover.reporter.last_error == {"at": "at 1050", "what": "C: d"}
    rover.reporter.note([])
    rover.reporter.note(["A: b"])
    assert rover.reporter.last_error == {"at": "at 1100", "what": "A: b"}


def test_a_new_error_is_in_the_file_within_seconds_and_old_ones_cost_no_flash(rover):
    assert rover.tell()
    rover.now_s += 6
    rover.reporter.note(["A: b", "C: d"])
    assert rover.tell()
    for _ in range(5):
        rover.now_s += 6
        rover.reporter.note(["A: b", "C: d"])
        assert not rover.tell()


def test_the_rate_is_that_of_the_last_minute_or_since_the_start(rover):
    rover.now_s += 10
    rover.reporter.count(20)
    assert rover.reporter.images_per_s == 2
    rover.now_s += 100
    rover.reporter.count(30)
    assert rover.reporter.images_per_s == 0.5
    rover.now_s += 61
    assert rover.reporter.images_per_s == 0
