"""The daemon with its network on a GPU (a strict stand-in), and what it does when that is lost."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading

import fake_jetson
import numpy as np
import pytest
from rover import Rover, drop, until

from jetson_cluster import codebook, daemon, loops
from jetson_cluster.clocks import boot_identity
from jetson_cluster.daemon import GPU_REST_S
from jetson_cluster.embedder import tensorrt
from jetson_cluster.embedder.base import Embedded
from jetson_cluster.errors import GpuLost, WorldError
from jetson_cluster.gpu_losses import TOO_MANY, WITHIN_S, GpuLosses

COLOURS = ["red", "green", "blue"]


class Clock:
    def __init__(self):
        self.s = 5000.0

    def __call__(self):
        return self.s


@pytest.fixture
def rover(tmp_path, tiny):
    made = Rover(tmp_path, tiny)
    with open(str(made.config), "a") as stream:
        stream.write("tensorrt: {plan: state/tiny.plan}\n")
    return made


@pytest.fixture
def on_the_gpu(rover):
    """Settings with the network on the GPU."""
    return rover.settings("embedder=tensorrt")


def turn(opened, clock=None):
    """One turn; a clock that is not the real one goes on by a second."""
    if clock is not None:
        clock.s += 1
    return opened.step()


def test_the_queue_is_the_same_whether_gpu_or_processor_finds_the_centroids(rover, tiny):
    for seed, colour in enumerate(COLOURS * 5):
        drop(rover.inbox, "%s%d.png" % (colour, seed), colour, seed)
    rover.make_codebook(COLOURS)
    with open(tiny.replace(".onnx", ".recipe.yaml")) as stream:
        (rover.folder / "recipe.yaml").write_text(stream.read() + "precision: fp32\n")
    recipe = "recipe=%s" % (rover.folder / "recipe.yaml")
    with fake_jetson.jetson() as machine:
        with daemon.Daemon(rover.settings("embedder=tensorrt", recipe), environment={}) as opened:
            loops.once(opened, threading.Event())
        lookups = [detail for name, detail in machine.calls
                   if name == "launch" and "nearest" in str(detail)]
        assert lookups
    ours = [(row["path"], row["cluster"], row["rank"]) for row in rover.queue()]
    for name in os.listdir(str(rover.state)):
        if name.startswith(("catalog", "queue")):
            (rover.state / name).unlink()
    rover.once("embedder=onnxruntime", recipe)
    assert [(row["path"], row["cluster"], row["rank"]) for row in rover.queue()] == ours


def test_a_codebook_that_comes_while_batches_are_in_flight_places_every_image_by_it(
        rover, on_the_gpu):
    """What the GPU found in the old codebook is not taken for the new one's."""
    rover.make_codebook(COLOURS)
    clock = Clock()
    with fake_jetson.jetson():
        with daemon.Daemon(on_the_gpu, environment={}, monotonic=clock) as opened:
            for seed, colour in enumerate(COLOURS * 8):
                drop(rover.inbox, "%s%d.png" % (colour, seed), colour, seed)
            until(lambda: turn(opened, clock).taken)  # one batch is done, others are on their way
            rover.make_codebook(["blue", "green", "red"], rover.folder / "next.npz")
            (rover.folder / "next.npz").rename(rover.codebook)
            until(lambda: turn(opened, clock).idle and opened.settled)
            opened.drain()
    places = {os.path.basename(row["path"])[0]: row["cluster"] for row in rover.queue()}
    assert len(rover.queue()) == 24 and places == {"r": "2", "g": "1", "b": "0"}


def test_a_lost_gpu_costs_no_image_and_blames_no_file(rover):
    """Four times: a file is given up after three ends of the program that it is blamed for."""
    settings = rover.settings("embedder=tensorrt", "tensorrt.cpu_fallback=false")
    rover.make_codebook(COLOURS)
    for seed, colour in enumerate(COLOURS * 8):
        drop(rover.inbox, "%s%d.png" % (colour, seed), colour, seed)
    for _ in range(4):
        with fake_jetson.jetson() as machine:
            with pytest.raises(GpuLost):
                with daemon.Daemon(settings, environment={}) as opened:
                    machine.fail_next("synchronize")
                    until(lambda: turn(opened) is None)
    with fake_jetson.jetson():
        rover.once("embedder=tensorrt")
    assert len(rover.queue()) == 24 and rover.status()["files_refused"] == 0


def lose(settings, clock, times):
    """Start the daemon so many times on a GPU that fails at once; each ends with GpuLost."""
    for _ in range(times):
        with fake_jetson.jetson() as machine:
            machine.fail_next("synchronize")
            with pytest.raises(GpuLost):
                daemon.Daemon(settings, environment={}, monotonic=clock)
        clock.s += 40


def test_after_three_losses_in_ten_minutes_the_processor_takes_over_and_says_so(
        rover, on_the_gpu, caplog):
    clock = Clock()
    lose(on_the_gpu, clock, TOO_MANY)
    drop(rover.inbox, "red.png", "red", 0)
    with fake_jetson.jetson() as machine:
        with daemon.Daemon(on_the_gpu, environment={}, monotonic=clock) as opened:
            assert "GpuGivenUp" in caplog.text
            assert machine.count("make_context") == 0
            until(lambda: turn(opened, clock).added)
            opened.drain()
    assert rover.status()["gpu"] == {"given_up": True, "lost_of_late": TOO_MANY}
    assert rover.names() == ["red.png"]


def test_two_losses_or_three_far_apart_keep_the_gpu(rover, on_the_gpu):
    clock = Clock()
    lose(on_the_gpu, clock, TOO_MANY - 1)
    clock.s += WITHIN_S
    lose(on_the_gpu, clock, TOO_MANY - 1)
    with fake_jetson.jetson() as machine:
        with daemon.Daemon(on_the_gpu, environment={}, monotonic=clock):
            assert machine.count("make_context") == 1


def test_the_config_may_forbid_the_processor(rover):
    settings = rover.settings("embedder=tensorrt", "tensorrt.cpu_fallback=false")
    clock = Clock()
    lose(settings, clock, TOO_MANY + 2)
    with fake_jetson.jetson() as machine:
        with daemon.Daemon(settings, environment={}, monotonic=clock):
            assert machine.count("make_context") == 1


def test_after_six_hours_on_the_processor_the_gpu_is_tried_again(rover, on_the_gpu):
    clock = Clock()
    lose(on_the_gpu, clock, TOO_MANY)
    drop(rover.inbox, "red.png", "red", 0)
    with fake_jetson.jetson():
        with daemon.Daemon(on_the_gpu, environment={}, monotonic=clock) as opened:
            assert not opened.gpu_rested
            clock.s += GPU_REST_S
            opened.step()
            with pytest.raises(GpuLost, match="stood in"):
                loops.run(opened, threading.Event())
    with fake_jetson.jetson() as machine:
        with daemon.Daemon(on_the_gpu, environment={}, monotonic=clock) as opened:
            assert machine.count("make_context") == 1
            until(lambda: turn(opened, clock).added)


def test_systemd_is_told_to_wait_while_the_engine_is_built(rover, on_the_gpu, tmp_path):
    import socket
    address = str(tmp_path / "notify")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(address)
    listener.setblocking(False)
    with fake_jetson.jetson():
        with daemon.Daemon(on_the_gpu, environment={"NOTIFY_SOCKET": address}):
            pass
    messages = []
    while True:
        try:
            messages.append(listener.recv(4096).decode())
        except BlockingIOError:
            break
    building = [message for message in messages if "building the engine" in message]
    assert building and "EXTEND_TIMEOUT_USEC=1800000000" in building[0]
    assert messages.index(building[0]) < messages.index("READY=1")


WHOLE_PROCESS = """
import sys
sys.path[:0] = {paths!r}
import fake_jetson
from jetson_cluster import cli
sys.argv = ["jetson-cluster", "run", "--config", {config!r}, "--set", "embedder=tensorrt"]
with fake_jetson.jetson(strict=False) as machine:
    machine.fail_next("synchronize", skip=1)
    sys.exit(cli.main())
"""


def test_the_process_ends_with_exit_code_3_and_one_line(rover, root):
    drop(rover.inbox, "red.png", "red", 0)
    script = WHOLE_PROCESS.format(
        paths=[str(root), str(root / "tests" / "fakes")], config=str(rover.config))
    done = subprocess.run([sys.executable, "-c", script], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120,
                          universal_newlines=True)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("jetson-cluster: error: the GPU is lost (")


KILLED = """
import os, signal, sys
sys.path[:0] = {paths!r}
import fake_jetson
from jetson_cluster import cli
from jetson_cluster.embedder import engine
engine.build_plan = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
sys.argv = ["jetson-cluster", "run", "--config", {config!r}, "--set", "embedder=auto"]
with fake_jetson.jetson(strict=False):
    cli.main()
"""


def test_a_nano_killed_for_want_of_memory_at_every_build_goes_on_with_the_processor(rover, root):
    script = KILLED.format(paths=[str(root), str(root / "tests" / "fakes")],
                           config=str(rover.config))
    for _ in range(TOO_MANY):
        done = subprocess.run([sys.executable, "-c", script], stdin=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, timeout=120, universal_newlines=True)
        assert done.returncode == -9, done.stderr
    drop(rover.inbox, "red.png", "red", 0)
    with fake_jetson.jetson() as machine:
        rover.once("embedder=auto")
        assert machine.count("make_context") == 0
    assert rover.names() == ["red.png"] and rover.status()["gpu"]["given_up"]


def test_a_codebook_of_another_length_is_refused_and_the_last_good_one_stays(rover, on_the_gpu):
    rover.make_codebook(COLOURS)
    drop(rover.inbox, "red.png", "red", 0)
    clock = Clock()
    with fake_jetson.jetson():
        with daemon.Daemon(on_the_gpu, environment={}, monotonic=clock) as opened:
            book = codebook.load(str(rover.codebook))
            longer = np.zeros((3, 64), np.float32)
            codebook.save(str(rover.codebook), codebook.Codebook(
                *book._replace(centroids=longer)))
            until(lambda: turn(opened, clock).added)
            opened.drain()
    assert "have 64 numbers" in rover.status()["codebook"]["error"]
    assert rover.queue()[0]["cluster"] == "0"


def test_what_the_gpu_finds_is_not_believed_if_it_cannot_be_true(
        rover, on_the_gpu, monkeypatch, caplog):
    rover.make_codebook(COLOURS)
    for seed, colour in enumerate(COLOURS):
        drop(rover.inbox, colour + ".png", colour, seed)
    clock = Clock()
    with fake_jetson.jetson():
        with daemon.Daemon(on_the_gpu, environment={}, monotonic=clock) as opened:
            run = tensorrt.TensorRTEmbedder._run

            def spoil(self, pictures):
                embeddings, found = run(self, pictures)
                return Embedded(embeddings, found._replace(distance=found.distance * np.nan))

            monkeypatch.setattr(tensorrt.TensorRTEmbedder, "_run", spoil)
            until(lambda: turn(opened, clock).added)
            opened.drain()
    assert "GpuLookupWrong" in caplog.text
    assert {os.path.basename(row["path"]): row["cluster"] for row in rover.queue()} == {
        "red.png": "0", "green.png": "1", "blue.png": "2"}


STOPPED = """
import os, signal, sys
sys.path[:0] = {paths!r}
import fake_jetson
from jetson_cluster import cli
from jetson_cluster.embedder import engine
def stopped(*_, **__):
    os.kill(os.getpid(), {number})
    signal.pause()
engine.build_plan = stopped
sys.argv = ["jetson-cluster", "run", "--config", {config!r}, "--set", "embedder=auto"]
with fake_jetson.jetson(strict=False):
    cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_to_stop_it_while_it_builds_is_at_once_and_no_loss_of_the_gpu(rover, root, number):
    script = STOPPED.format(paths=[str(root), str(root / "tests" / "fakes")],
                            config=str(rover.config), number=int(number))
    done = subprocess.run([sys.executable, "-c", script], stdin=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, timeout=120, universal_newlines=True)
    assert done.returncode == -number, done.stderr
    assert json.loads((rover.state / "gpu-losses.json").read_text())["in_use"] is False


def test_a_computer_without_a_gpu_never_gives_one_up(rover):
    clock, settings = Clock(), rover.settings("embedder=auto")
    for _ in range(TOO_MANY + 1):
        losses = GpuLosses(str(rover.state / "gpu-losses.json"), boot_identity(), clock)
        rover.state.mkdir(exist_ok=True)
        losses.note()
    with fake_jetson.jetson(gpu=None):
        with daemon.Daemon(settings, environment={}, monotonic=clock) as opened:
            opened.step()
            opened.drain()
    assert rover.status()["gpu"]["given_up"] is False


def test_a_catalog_that_fails_at_the_end_keeps_neither_the_gpu_nor_the_reason(
        rover, on_the_gpu, monkeypatch, caplog):
    def fails(self):
        raise sqlite3.OperationalError("disk I/O error")
    with fake_jetson.jetson() as machine:
        with pytest.raises(WorldError, match="the reason"):
            with daemon.Daemon(on_the_gpu, environment={}) as opened:
                close = opened._catalog.close
                monkeypatch.setattr(type(opened._catalog), "close", fails)
                raise WorldError("the reason")
        assert machine.live_bytes() == 0
    assert "CloseFailed: disk I/O error" in caplog.text
    close()
