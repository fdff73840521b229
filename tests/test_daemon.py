"""What the rover gets from the daemon: every image once, the queue always true, nothing stops it."""

import contextlib
import os
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
from rover import Rover, drop, picture, until

from jetson_cluster import codebook, daemon, loops
from jetson_cluster.errors import UserError, WorldError


@pytest.fixture
def rover(tmp_path, tiny):
    return Rover(tmp_path, tiny)


def test_every_image_is_in_the_queue_with_its_place_and_its_reason(rover):
    for seed, colour in enumerate(["red", "green", "blue"] * 2):
        drop(rover.inbox, "%s%d.png" % (colour, seed), colour, seed)
    rover.make_codebook(["red", "green", "blue"])
    rover.policy.write_text("clusters: {1: {label: meadow, weight: 2}}")
    rover.once()
    rows = rover.queue()
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert rows[0]["label"] == "meadow" and "weight 2" in rows[0]["reason"]
    assert {row["cluster"] for row in rows} == {"0", "1", "2"}
    assert all(row["state"] == "queued" and row["reason"] for row in rows)
    assert int(rows[-1]["cumulative_bytes"]) == sum(int(row["bytes"]) for row in rows)
    assert all(os.path.isfile(row["path"]) for row in rows)


def test_without_a_codebook_different_images_come_first(rover):
    for seed in range(20):
        drop(rover.inbox, "red%02d.png" % seed, "red", seed)
    for colour in ("green", "blue", "grey"):
        drop(rover.inbox, colour + ".png", colour, 0)
    rover.once()
    assert {name.rstrip("0123456789.png") for name in rover.names()[:4]} == {
        "red", "green", "blue", "grey"} or {row["sha256"] for row in rover.queue()[:4]} >= {
        row["sha256"] for row in rover.queue()
        if not os.path.basename(row["path"]).startswith("red")}
    assert len(rover.queue()) == 23
    assert all(row["cluster"] == "" and row["novelty"] == "" for row in rover.queue())


def test_a_codebook_that_arrives_clusters_everything_without_a_restart(rover):
    for seed, colour in enumerate(["red", "green", "blue"] * 4):
        drop(rover.inbox, "%s%d.png" % (colour, seed), colour, seed)
    with rover.running():
        until(lambda: (rover.state / "queue.csv").exists() and len(rover.queue()) == 12)
        rover.make_codebook(["red", "green", "blue"])
        until(lambda: all(row["cluster"] for row in rover.queue()))
        by_colour = {os.path.basename(row["path"])[0]: row["cluster"] for row in rover.queue()}
        assert by_colour == {"r": "0", "g": "1", "b": "2"}
        # Another one, swapped in while it runs: clusters in reverse.
        rover.make_codebook(["blue", "green", "red"], rover.folder / "next.npz")
        (rover.folder / "next.npz").rename(rover.codebook)
        until(lambda: {os.path.basename(row["path"])[0]: row["cluster"]
                       for row in rover.queue()} == {"r": "2", "g": "1", "b": "0"})


def test_a_codebook_of_another_space_is_refused_by_name_and_the_last_good_one_stays(rover):
    drop(rover.inbox, "red.png", "red", 1)
    rover.make_codebook(["red", "green"])
    with rover.running():
        until(lambda: (rover.state / "queue.csv").exists() and rover.names())
        good = codebook.load(str(rover.codebook))
        codebook.save(str(rover.codebook),
                      codebook.Codebook(*good._replace(space="other/layer@0123456789abcdef")))
        until(lambda: "other/layer" in rover.status()["codebook"]["error"])
        drop(rover.inbox, "green.png", "green", 1)
        until(lambda: "green.png" in rover.names())
    assert {row["cluster"] for row in rover.queue()} == {"0", "1"}
    rover.once()  # a restart keeps to the last good one as well
    assert {row["cluster"] for row in rover.queue()} == {"0", "1"}


def test_a_first_codebook_that_is_damaged_ends_the_start_with_one_clear_line(rover):
    rover.codebook.write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(UserError) as error:
        rover.once()
    assert str(rover.codebook) in str(error.value) and "jetson-cluster fit" in str(error.value)


def test_a_changed_policy_reorders_the_queue_and_a_bad_one_changes_nothing(rover):
    for seed, colour in enumerate(["red", "green"] * 2):
        drop(rover.inbox, "%s%d.png" % (colour, seed), colour, seed)
    rover.make_codebook(["red", "green"])
    with rover.running():
        rover.policy.write_text("clusters: {0: {weight: 50}}")
        until(lambda: (rover.state / "queue.csv").exists() and len(rover.names()) == 4
              and rover.names()[0].startswith("red"))
        rover.policy.write_text("clusters: {1: {weight: 50}}")
        until(lambda: rover.names()[0].startswith("green"))
        rover.policy.write_text("clusters: {0: {wieght: 500}}")
        until(lambda: "did you mean 'weight'" in rover.status()["policy"]["error"])
        assert rover.names()[0].startswith("green")


def test_bad_files_are_refused_with_a_reason_and_delay_nothing(rover):
    good = drop(rover.inbox, "good.png", "red", 1)
    content = good.read_bytes()
    (rover.inbox / "empty.png").write_bytes(b"")
    (rover.inbox / "cut.png").write_bytes(content[:len(content) // 2])
    (rover.inbox / "text.jpg").write_text("this is no picture")
    rover.once()
    assert rover.names() == ["good.png"]
    refused = {os.path.basename(refusal["path"]): refusal for refusal in rover.status()["refusals"]}
    assert set(refused) == {"empty.png", "cut.png", "text.jpg"}
    assert all(refusal["reason"] for refusal in refused.values())
    (rover.inbox / "cut.png").write_bytes(content[:-1] + b"!" + b"trailing")
    rover.once()
    assert rover.status()["files_refused"] in (2, 3)


def test_a_file_that_was_bad_and_is_written_again_is_taken(rover):
    path = rover.inbox / "later.png"
    path.write_bytes(b"half")
    rover.once()
    assert rover.status()["files_refused"] == 1
    picture("blue", 3).save(str(path))
    rover.once()
    assert rover.names() == ["later.png"] and rover.status()["files_refused"] == 0


def test_one_content_is_one_image_however_many_files_hold_it(rover):
    first = drop(rover.inbox, "a.png", "red", 1)
    (rover.inbox / "b.png").write_bytes(first.read_bytes())
    os.link(str(first), str(rover.inbox / "c.png"))
    rover.once()
    assert len(rover.queue()) == 1
    first.unlink()
    rover.once()
    assert rover.names() in (["b.png"], ["c.png"])


def test_an_image_that_is_gone_leaves_the_queue_and_returns_with_its_file(rover):
    path = drop(rover.inbox, "a.png", "red", 1)
    drop(rover.inbox, "b.png", "green", 1)
    rover.once()
    path.rename(rover.folder / "aside.png")
    rover.once()
    assert rover.names() == ["b.png"]
    assert rover.images() == {"queued": 1, "missing": 1}
    (rover.folder / "aside.png").rename(path)
    rover.once()
    assert sorted(rover.names()) == ["a.png", "b.png"]


def test_an_image_that_returns_is_queued_again_while_the_daemon_runs(rover):
    path = drop(rover.inbox, "a.png", "red", 1)
    drop(rover.inbox, "b.png", "green", 1)
    with rover.running():
        until(lambda: (rover.state / "queue.csv").exists() and len(rover.names()) == 2)
        path.rename(rover.folder / "aside.png")
        until(lambda: rover.names() == ["b.png"])
        (rover.folder / "aside.png").rename(path)
        until(lambda: len(rover.names()) == 2)


def test_a_rewritten_file_is_another_image_and_the_old_one_is_not_promised(rover):
    path = drop(rover.inbox, "a.png", "red", 1)
    rover.once()
    before = rover.queue()[0]["sha256"]
    picture("blue", 2).save(str(path))
    rover.once()
    assert len(rover.queue()) == 1 and rover.queue()[0]["sha256"] != before


def test_nothing_is_embedded_twice_over_restarts(rover):
    for seed in range(10):
        drop(rover.inbox, "%d.png" % seed, "red", seed)
    rover.once()
    first = rover.queue()
    with daemon.Daemon(rover.settings(), environment={}) as opened:
        steps = []
        while not opened.settled:
            steps.append(opened.step())
            opened.wake.wait(0.02)
        opened.drain()
    assert sum(step.taken for step in steps) == 0
    assert rover.queue() == first


def test_the_same_images_in_another_order_of_arrival_give_the_same_queue(rover, tmp_path, tiny):
    other = Rover(tmp_path / "other", tiny) if (tmp_path / "other").mkdir() is None else None
    names = ["%s%d.png" % (colour, seed) for seed in range(6) for colour in ("red", "green", "blue")]
    for place, one in ((rover, names), (other, names[::-1])):
        place.make_codebook(["red", "green", "blue"])
        for name in one:
            drop(place.inbox, name, name[:-5], int(name[-5]))
            place.once("inbox.settle_s=0.01") if name == one[4] else None
        place.once()
    assert rover.names() == other.names()


def test_a_file_that_ends_the_program_is_given_up_after_three_tries(rover):
    drop(rover.inbox, "killer.png", "red", 1)
    drop(rover.inbox, "innocent.png", "green", 1)
    script = (
        "import os, sys, threading\n"
        "from jetson_cluster import config, daemon, frame, loops\n"
        "load = frame.load\n"
        "def deadly(path, *rest):\n"
        "    if 'killer' in path: os._exit(139)\n"
        "    return load(path, *rest)\n"
        "frame.load = deadly\n"
        "with daemon.Daemon(config.load(sys.argv[1]), environment={}) as opened:\n"
        "    loops.once(opened, threading.Event())\n")
    codes = [subprocess.call([sys.executable, "-c", script, str(rover.config)]) for _ in range(4)]
    assert codes == [139, 139, 139, 0]
    assert rover.names() == ["innocent.png"]
    assert [refusal["code"] for refusal in rover.status()["refusals"]] == ["quarantined"]


def test_a_network_that_fails_blames_no_file(rover):
    drop(rover.inbox, "a.png", "red", 1)

    def broken(frames):
        raise WorldError("the GPU is gone")

    for _ in range(4):
        with daemon.Daemon(rover.settings(), environment={}) as opened:
            opened._pipeline.embedder._embed = broken
            with pytest.raises(WorldError):
                loops.once(opened, threading.Event())
    rover.once()
    assert rover.names() == ["a.png"]


def test_killing_the_daemon_while_it_reads_blames_no_file_for_long(rover):
    """Kills that come at any moment hit other files each time: none is given up."""
    for seed in range(24):
        drop(rover.inbox, "%02d.png" % seed, "red", seed)
    script = (
        "import os, sys, threading\n"
        "from jetson_cluster import config, daemon, frame, loops\n"
        "load = frame.load\n"
        "def killed(*arguments):\n"
        "    os._exit(137)\n"
        "frame.load = killed\n"
        "with daemon.Daemon(config.load(sys.argv[1]), environment={}) as opened:\n"
        "    loops.once(opened, threading.Event())\n")
    for _ in range(3):
        assert subprocess.call([sys.executable, "-c", script, str(rover.config)]) == 137
    rover.once()
    assert len(rover.queue()) == 24 and rover.status()["files_refused"] == 0


def test_an_image_whose_embedding_is_no_number_is_refused_alone(rover):
    for seed in range(3):
        drop(rover.inbox, "%d.png" % seed, "red", seed)
    with daemon.Daemon(rover.settings(), environment={}) as opened:
        inner = opened._pipeline.embedder._embed
        opened._pipeline.embedder._embed = lambda frames: np.where(
            np.arange(len(frames))[:, None] == 1, np.nan, inner(frames)).astype(np.float32)
        loops.once(opened, threading.Event())
    assert len(rover.queue()) == 2
    assert [refusal["code"] for refusal in rover.status()["refusals"]] == ["not_finite"]


def test_an_inbox_that_is_not_there_is_waited_for_and_not_made(rover):
    rover.inbox.rmdir()
    with rover.running():
        until(lambda: (rover.state / "status.json").exists()
              and not rover.status()["inbox"]["available"])
        assert not rover.inbox.exists()
        rover.inbox.mkdir()
        drop(rover.inbox, "a.png", "red", 1)
        until(lambda: (rover.state / "queue.csv").exists() and rover.names() == ["a.png"])
    rover.inbox.rename(rover.folder / "away")
    with pytest.raises(WorldError, match="not there"):
        rover.once()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_card_that_is_not_mounted_at_the_start_loses_no_image(rover):
    if subprocess.call(["mount", "-t", "tmpfs", "card", str(rover.inbox)]):
        pytest.skip("this root may not mount")
    try:
        card = rover.folder / "card"
        drop(rover.inbox, "a.png", "red", 1)
        rover.once()
        card.mkdir()
        (card / "a.png").write_bytes((rover.inbox / "a.png").read_bytes())
        os.utime(str(card / "a.png"), ns=(0, (rover.inbox / "a.png").stat().st_mtime_ns))
    finally:
        subprocess.check_call(["umount", str(rover.inbox)])
    with pytest.raises(WorldError):
        rover.once()
    assert rover.names() == ["a.png"]
    assert rover.images() == {"queued": 1}


def test_thousands_of_deleted_images_leave_the_queue_without_a_long_turn(rover):
    for seed in range(150):
        drop(rover.inbox, "%03d.png" % seed, "red", seed)
    rover.once()
    for path in rover.inbox.iterdir():
        path.unlink()
    with daemon.Daemon(rover.settings("queue.rows=10"), environment={}) as opened:
        turns = 0
        while opened._catalog.counts["queued"]:
            before = opened._catalog.counts["queued"]
            opened.step()
            assert before - opened._catalog.counts["queued"] <= 10
            turns += 1
        assert turns >= 15


def test_once_ends_with_a_true_queue_however_many_files_are_gone(rover):
    for seed in range(60):
        drop(rover.inbox, "%02d.png" % seed, "red", seed)
    rover.once("queue.rows=4")
    for path in sorted(rover.inbox.iterdir())[:-1]:
        path.unlink()
    # Nothing settles and nothing is new: the turns that look for gone files are all there is to wait for.
    rover.once("queue.rows=4", "queue.interval_s=5")
    assert rover.names() == ["59.png"]
    assert rover.images() == {"queued": 1, "missing": 59}


def test_what_a_limit_refused_is_read_again_under_another_limit(rover):
    drop(rover.inbox, "a.png", "red", 1)
    rover.once("inbox.max_pixels=100")
    assert [refusal["code"] for refusal in rover.status()["refusals"]] == ["too_many_pixels"]
    rover.once()
    assert rover.names() == ["a.png"] and rover.status()["files_refused"] == 0


def test_codebook_and_policy_that_are_gone_at_a_restart_still_hold(rover):
    drop(rover.inbox, "a.png", "red", 1)
    rover.make_codebook(["red", "green"])
    rover.policy.write_text("clusters: {0: {label: meadow}}")
    rover.once()
    rover.codebook.unlink()
    rover.policy.unlink()
    rover.once()
    assert rover.queue()[0]["label"] == "meadow"


def test_two_daemons_do_not_share_a_folder(rover):
    with daemon.Daemon(rover.settings(), environment={}):
        with pytest.raises(WorldError) as error:
            daemon.Daemon(rover.settings(), environment={})
    assert str(os.getpid()) in str(error.value)


def test_systemd_hears_ready_then_watchdog_then_stopping(rover, tmp_path):
    drop(rover.inbox, "a.png", "red", 1)
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(address)
        ear.settimeout(5)
        with daemon.Daemon(rover.settings(), environment={"NOTIFY_SOCKET": address}) as opened:
            loops.once(opened, threading.Event())
        heard = b""
        with contextlib.suppress(socket.timeout):
            while b"STOPPING" not in heard:
                heard += ear.recv(4096) + b"\n"
    places = [heard.index(word) for word in (b"EXTEND_TIMEOUT_USEC", b"READY=1", b"WATCHDOG=1",
                                            b"STOPPING=1")]
    assert places == sorted(places) and b"1 queued" in heard


def test_a_queue_that_cannot_be_written_is_told_and_written_when_it_can_be(rover):
    drop(rover.inbox, "a.png", "red", 1)
    blocked = rover.state / "out"
    with daemon.Daemon(rover.settings("queue.path=%s/queue.csv" % blocked), environment={}) as opened:
        blocked.rmdir()
        blocked.write_text("a file where the folder was")
        until(lambda: opened.step() and opened.settled)
        until(lambda: opened.step() and "QueueNotWritten" in rover.status()["last_error"]["what"])
        blocked.unlink()
        blocked.mkdir()
        until(lambda: opened.step() and (blocked / "queue.csv").exists())
