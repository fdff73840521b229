"""Operations beside a running daemon: orders, verbs, outbox and retention show in the queue."""

import itertools

import operated
import pytest
from rover import Rover, drop, until

from jetson_cluster import cli, config, daemon, operations, retention
from jetson_cluster.head import Head
from jetson_cluster.policy import EMPTY


@pytest.fixture
def rover(tmp_path, tiny):
    made = Rover(tmp_path, tiny)
    for seed in range(6):
        drop(made.inbox, "%d.png" % seed, ("red", "green", "blue")[seed % 3], seed)
    return made


@pytest.fixture
def running(rover):
    """The daemon runs, and all six images stand in the queue."""
    with rover.running():
        until(lambda: (rover.state / "queue.csv").exists() and len(rover.names()) == 6)
        yield rover


def order(rover, text):
    """Uplink a file of orders, as it should be done."""
    part = rover.orders / "orders.yaml.part"
    part.write_text(text)
    part.rename(rover.orders / "orders.yaml")
    until(lambda: not (rover.orders / "orders.yaml").exists())


def verb(rover, *words):
    assert cli.main([words[0], "--config", str(rover.config)] + list(words[1:])) == 0


def settles(rover, **counts):
    until(lambda: rover.images() == counts)


def test_an_order_to_pin_puts_an_image_first_and_one_to_unpin_back(running):
    last, before = running.names()[-1], running.names()
    order(running, "- {id: 1, pin: %s}\n" % last)
    until(lambda: running.names()[0] == last)
    assert "pinned by operations" in running.queue()[0]["reason"]
    order(running, "- {id: 2, unpin: %s}\n" % last)
    until(lambda: running.names() == before)


def test_orders_hold_release_and_send(running):
    first = running.names()[0]
    order(running, "- {id: 1, hold: %s}\n" % first)
    until(lambda: first not in running.names())
    order(running, "- {id: 2, release: %s}\n- {id: 3, pass: 1GB}\n" % first)
    until(lambda: running.names() == [])
    settles(running, sent=6)
    order(running, "- {id: 4, ack: %s}\n- {id: 5, nack: \"pass:1\"}\n" % first)
    settles(running, acked=1, queued=5)
    until(lambda: len(running.names()) == 5 and first not in running.names())


def test_a_pass_by_the_command_line_empties_the_queue_of_the_daemon(running):
    sent = running.names()[:2]
    verb(running, "pass", "--budget", str(sum(int(row["bytes"]) for row in running.queue()[:2])))
    until(lambda: len(running.names()) == 4 and not set(sent) & set(running.names()))
    verb(running, "ack", "pass:1")
    settles(running, acked=2, queued=4)
    verb(running, "resend", sent[0])
    until(lambda: sent[0] in running.names() and sent[1] not in running.names())


def test_orders_change_weights_until_a_new_policy_is_uplinked(rover):
    rover.make_codebook(["red", "green", "blue"])
    with rover.running():
        until(lambda: (rover.state / "queue.csv").exists() and len(rover.names()) == 6)
        for number, cluster in enumerate("210"):
            order(rover, "- {id: w%d, weight: {%s: %d}}\n" % (number, cluster, 5 ** (number + 1)))
            until(lambda: rover.queue()[0]["cluster"] == cluster)
        rover.policy.write_text("clusters: {2: {weight: 50}}")
        until(lambda: rover.queue()[0]["cluster"] == "2")
        until(lambda: rover.status()["policy"]["amendments"] == 0)
    assert "weight 50" in rover.queue()[0]["reason"]


def test_more_like_an_image_brings_those_like_it_forward(rover):
    rover.make_codebook(["red", "green", "blue"])
    with rover.running():
        until(lambda: (rover.state / "queue.csv").exists() and len(rover.names()) == 6)
        order(rover, "- {id: 1, more_like: {%s: 20}}\n" % [
            row["sha256"] for row in rover.queue() if row["path"].endswith("1.png")][0][:12])
        until(lambda: "100% like" in rover.queue()[0]["reason"])
    assert rover.names()[0] in ("1.png", "4.png")  # the green ones


def test_a_pass_is_refused_while_the_outbox_is_what_the_radio_sends(rover):
    outbox = rover.folder / "outbox"
    outbox.mkdir()
    with open(str(rover.config), "a") as stream:
        stream.write("outbox: {path: outbox}\n")
    with rover.running():
        until(lambda: len(list(outbox.iterdir())) == 6)
        order(rover, "- {id: 46, pass: 1GB}\n")
        result = rover.orders / "refused" / "orders.yaml.result.txt"
        until(result.exists)
        assert "order 46: outbox.path is set (%s)" % outbox in result.read_text()
        assert len(list(outbox.iterdir())) == 6 and rover.names()


def test_a_link_that_the_radio_took_from_the_outbox_is_sent(rover):
    outbox = rover.folder / "outbox"
    outbox.mkdir()
    with open(str(rover.config), "a") as stream:
        stream.write("outbox: {path: outbox}\n")
    with rover.running():
        until(lambda: len(list(outbox.iterdir())) == 6)
        link = sorted(outbox.iterdir())[0]
        sent = rover.names()[0]
        assert link.stat().st_ino == (rover.inbox / sent).stat().st_ino
        link.unlink()
        settles(rover, sent=1, queued=5)
        until(lambda: sent not in rover.names())
        assert rover.status()["last_pass"]["number"] == 1
        assert len(list(outbox.iterdir())) == 5


def test_where_the_disk_is_too_full_what_is_acknowledged_goes_and_nothing_is_taken_in(rover):
    rover.once()
    first = rover.names()[0]
    verb(rover, "ack", first)
    with daemon.Daemon(rover.settings("retention.free_bytes=%d" % 2 ** 50),
                       environment={}) as opened:
        until(lambda: opened.step() and opened.held_up[0])
        assert not (rover.inbox / first).exists()
        drop(rover.inbox, "new.png", "red", 99)
        until(lambda: opened.step() and opened._inbox.backlog)
        for _ in range(5):
            opened.step()
        opened.drain()
    assert rover.images() == {"deleted": 1, "queued": 5}
    assert sorted(path.name for path in rover.inbox.iterdir()) == sorted(
        set(rover.names()) | {"new.png"})
    assert rover.status()["accepting"]["images"] is False
    rover.once()
    assert rover.images() == {"deleted": 1, "queued": 6}


@pytest.fixture
def idle(tmp_path):
    """(rover, its operations): five images, the first the best, on a disk that is as good as full."""
    with operated.Operations(tmp_path) as made:
        made.add(*[1000] * 5)
        path = made.config()
        path.write_text(path.read_text() + "retention: {free_bytes: %d, unacknowledged: %s}\n" % (
            2 ** 50, config.DELETE_UNRECEIVED))
        now_s = itertools.count(10.0, 10.0)
        yield made, operations.Operations(
            config.load(str(path)), made.catalog, Head(made.catalog, 50), lambda: made.policy,
            lambda: True, lambda: next(now_s), lambda: operated.AT)


@pytest.mark.parametrize("clustered", [True, False])
def test_what_makes_room_goes_by_the_weights_only_where_they_are_meant_for_these_clusters(
        idle, clustered, monkeypatch):
    rover, opened = idle
    monkeypatch.setattr(retention, "PIECE", 1)
    rover.catalog.begin_placing("other", "other", operated.CLUSTERS, clustered)
    rover.policy = EMPTY._replace(weights={4: 100.0, 0: 0.0})
    for _ in range(2):
        opened.look()
    assert [image for image, state in enumerate(rover.states()) if state == "dropped"] == (
        [0, 3] if clustered else [3, 4])


def test_what_the_policy_of_the_moment_holds_or_pins_is_not_dropped(idle):
    rover, opened = idle
    rover.policy = EMPTY._replace(pins=(rover.sha(5)[:8],), holds=(rover.sha(2)[:8],))
    for _ in range(3):
        opened.look()
    assert rover.states() == ["dropped", "queued", "dropped", "dropped", "queued"]
    rover.policy = rover.policy._replace(holds=())
    opened.look()
    assert rover.states() == ["dropped"] * 4 + ["queued"]


def test_a_folder_that_is_not_there_holds_up_nothing_else_and_is_used_when_it_is(rover):
    with open(str(rover.config), "a") as stream:
        stream.write("outbox: {path: outbox}\n")
    rover.orders.rmdir()
    with rover.running():
        until(lambda: (rover.state / "queue.csv").exists() and len(rover.names()) == 6)
        until(lambda: "OutboxMissing" in rover.status()["outbox"]["error"])
        (rover.folder / "outbox").mkdir()
        until(lambda: len(list((rover.folder / "outbox").iterdir())) == 6)
        rover.orders.mkdir()
        order(rover, "- {id: 1, hold: %s}\n" % rover.names()[0])
        until(lambda: len(rover.names()) == 5)
        until(lambda: len(list((rover.folder / "outbox").iterdir())) == 5)
        until(lambda: rover.status()["outbox"]["error"] == "")
