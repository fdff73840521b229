"""How the daemon says that it lives: over a real socket, and in a file that reads back."""

import json
import logging
import os
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetson_cluster import health
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


STATUS = {
    "written_at": "2024-05-01T10:00:00Z", "running": True, "process": 7, "version": "1",
    "embedder": "onnxruntime", "space": "tiny/pooled@0",
    "gpu": {"given_up": False, "lost_of_late": 0},
    "codebook": {"path": "/c", "error": "", "clusters": 3}, "policy": {"path": "/p", "error": ""},
    "images": {"queued": 1, "waiting": 2, "missing": 0}, "queued_bytes": 5, "files_refused": 1,
    "heat": {"level": "warm", "hottest_c": 82.5, "zones": {"CPU-therm": 82.5}},
    "power_mw": {"POM_5V_IN": 5120}, "gpu_load": 0.5,
    "inbox": {"path": "/i", "available": True, "watched": True, "ready": 0, "settling": 0},
    "placing_anew": {"done": 0, "total": 0}, "images_per_s": 0, "ms_per_image": {"decode": 1.5},
    "disk": {"free_bytes": 1, "total_bytes": 2}, "last_error": {"at": "", "what": ""},
    "refusals": [{"path": "/i/x", "code": "c", "reason": "r", "refused_at": "t"}]}


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


@pytest.mark.parametrize("change, told", [
    (None, "the whole"), ([], "the whole"), ({"images": None}, "'images'"),
    ({"images": {"queued": 1, "missing": 0}}, "'images.waiting'"),
    ({"heat": {"level": "hot", "hottest_c": "91", "zones": {}}}, "'heat.hottest_c'"),
    ({"gpu_load": []}, "'gpu_load'"), ({"codebook": "none"}, "'codebook'"),
    ({"queued_bytes": "5"}, "'queued_bytes'"), ({"ms_per_image": {"x": "1"}}, "'ms_per_image.x'"),
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
