"""What the daemon says of itself is so: counted again from the rover it runs on."""

import json
import os

import pytest
from rover import Rover, drop, until

from jetson_cluster import cli, config, daemon, health, prom
from jetson_cluster.report import REFUSALS_SHOWN


@pytest.fixture
def rover(tmp_path, tiny):
    return Rover(tmp_path, tiny)


def reported(rover, *overrides):
    """The status after everything was taken in, as the file holds it."""
    rover.once(*overrides)
    return health.read_status(str(rover.state / "status.json"))


def verb(rover, *words):
    assert cli.main([words[0], "--config", str(rover.config)] + list(words[1:])) == 0


def test_an_empty_rover_has_nothing_and_says_so(rover):
    status = reported(rover)
    assert rover.images() == {} and set(status["bytes"].values()) == {0}
    assert status["oldest_queued"] == {"captured_at": "", "passes": 0}
    assert status["last_pass"] == {"number": 0, "made_at": "", "images": 0, "bytes": 0,
                                   "previews": 0, "preview_bytes": 0}
    assert status["previews"] == {"made": 0, "mean_bytes": None, "mean_psnr_db": None}
    assert (status["paused"], status["accepting"]) == ("", {"images": True, "why_not": ""})
    assert status["running"] is False and status["process"] == os.getpid()


def test_images_are_counted_and_weighed_by_state(rover):
    sizes = {}
    for seed in range(6):
        path = drop(rover.inbox, "%d.png" % seed, "red", seed)
        sizes[path.name] = path.stat().st_size
    (rover.inbox / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    rover.once()
    verb(rover, "pass", "--budget", str(sizes[rover.names()[0]] + sizes[rover.names()[1]]))
    verb(rover, "ack", rover.names()[0])
    verb(rover, "hold", rover.names()[3])
    first, second, _, held = rover.names()[:4]
    status = reported(rover)
    assert rover.images() == {"queued": 3, "sent": 1, "acked": 1, "held": 1}
    assert status["bytes"]["sent"] + status["bytes"]["acked"] == sizes[first] + sizes[second]
    assert status["bytes"]["held"] == sizes[held]
    assert sum(status["bytes"].values()) == sum(sizes.values())
    assert (status["files_refused"], status["files_quarantined"]) == (1, 0)
    last = status["last_pass"]
    assert (last["number"], last["images"], last["bytes"]) == (1, 2, sizes[first] + sizes[second])
    assert status["oldest_queued"]["passes"] == 1 and status["oldest_queued"]["captured_at"]


def test_what_orders_amended_and_what_is_not_here_yet_are_told(rover):
    drop(rover.inbox, "a.png", "red", 1)
    rover.policy.write_text("targets: [{name: veins, like: \"abcdef012345\"}]\n")
    rover.once()
    (rover.orders / "1.yaml").write_text("- {id: 1, weight: {3: 2}}\n- {id: 2, label: {3: rock}}\n")
    status = reported(rover)
    assert status["policy"]["amendments"] == 2
    unknown, = status["policy"]["unknown_targets"]
    assert unknown.startswith("veins: ") and "abcdef012345" in unknown


def test_the_newest_refusals_are_named_and_no_more_than_fit_on_a_screen(rover):
    for number in range(REFUSALS_SHOWN + 5):
        (rover.inbox / ("%02d.png" % number)).write_text("no image")
    status = reported(rover)
    assert status["files_refused"] == REFUSALS_SHOWN + 5 == len(list(rover.inbox.iterdir()))
    assert len(status["refusals"]) == REFUSALS_SHOWN
    assert all(refusal["reason"] for refusal in status["refusals"])


def test_previews_and_links_are_counted(rover):
    for seed in range(4):
        drop(rover.inbox, "%d.png" % seed, "red", seed)
    outbox = rover.folder / "outbox"
    outbox.mkdir()
    with open(str(rover.config), "a") as stream:
        stream.write("outbox: {path: outbox}\n")
    with rover.running():
        until(lambda: len(list(outbox.iterdir())) == 4)
    status = rover.status()
    assert status["previews"]["made"] == 4 and 100 < status["previews"]["mean_bytes"] <= 2048
    assert status["previews"]["mean_psnr_db"] > 10
    assert status["outbox"] == {"path": str(outbox), "links": 4, "error": ""}
    assert len(list(outbox.iterdir())) == 4
    assert all(os.path.isfile(row["preview"]) for row in rover.queue())


def test_disks_are_told_apart_and_an_inbox_that_is_gone_has_none(rover):
    with daemon.Daemon(rover.settings(), environment={}) as opened:
        until(lambda: opened.step() and opened.settled)
        rover.inbox.rmdir()
        until(lambda: opened.step() and not opened.inbox_available)
        opened.drain()
    status = health.read_status(str(rover.state / "status.json"))
    assert status["inbox_disk"] == {"free_bytes": None, "total_bytes": None}
    assert status["disk"]["total_bytes"] > 0 and status["inbox"]["available"] is False


def test_the_prometheus_file_says_the_same_where_the_config_wants_it(rover):
    drop(rover.inbox, "a.png", "red", 1)
    elsewhere = rover.folder / "collector" / "rover.prom"
    elsewhere.parent.mkdir()
    status = reported(rover, "status.prom=%s" % elsewhere)
    assert elsewhere.read_text() == prom.text(status)
    assert 'jetson_cluster_images{state="queued"} 1\n' in elsewhere.read_text()
    reported(rover)
    assert (rover.state / "status.prom").exists()


def test_everything_a_running_daemon_says_is_of_the_shape_that_is_read(rover, capsys):
    drop(rover.inbox, "a.png", "red", 1)
    rover.make_codebook(["red", "green"])
    with rover.running():
        until(lambda: (rover.state / "status.json").exists()
              and rover.status()["images"]["queued"] == 1)
        verb(rover, "status", "--json")
        told = json.loads(capsys.readouterr().out)
        verb(rover, "status")
        assert "1 queued" in capsys.readouterr().out
    assert told["running"] is True and told["codebook"]["clusters"] == 2
    assert told["heat"]["level"] in ("normal", "unknown", "warm", "hot")
    assert set(told["ms_per_image"]) == {"decode", "network", "catalog", "queue"}
    assert config.load(str(rover.config)).status.prom == str(rover.state / "status.prom")
