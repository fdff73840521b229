"""Pieces of real work for the fault tests, and the check that nothing was lost whatever ended them.

Each function runs in a child of the Workbench (tests/helpers/faults.py) and gets `tell` first. What
it tells is known on the outside, and `recover` holds the rover to it:
  ["expect", {sha256: [states]}]   from now on each is in one of these
  ["pass", number, [sha256]]       this pass was handed to the radio
  ["pinned", sha256, [yes or no]]
  ["order", id]                    an order file that holds it lies in the drop folder
  ["taken", sha256, name]          the radio took this link from the outbox, and sent it
  ["passes", number]               so many passes are made in all
  ["file", sha256]                 this content stands in the inbox, and nobody may take it out
"""

import contextlib
import csv
import datetime
import errno
import glob
import hashlib
import importlib
import itertools
import json
import os
import pathlib
import re
import resource
import shutil
import sqlite3
import sys
import tempfile
import threading

import faults
import numpy as np
from rover import Rover, drop, picture

from jetson_cluster import applying, codebook, config, daemon, inbox, recipe
from jetson_cluster.catalog import Catalog
from jetson_cluster.clocks import boot_identity
from jetson_cluster.embedder import open_embedder
from jetson_cluster.embedder.base import Options
from jetson_cluster.errors import WorldError
from jetson_cluster.files import sync_folder
from jetson_cluster.gpu_losses import GpuLosses
from jetson_cluster.health import Notifier
from jetson_cluster.journal import Journal
from jetson_cluster.orders import Action
from jetson_cluster.schema import STATES
from jetson_cluster.starting import Starting

TURNS = 100  # more than any work here needs
STARTS = 3  # that a damaged catalog may take to be mended
IMAGES = [("red", 0), ("green", 1), ("blue", 2), ("grey", 3), ("red", 4), ("green", 5)]


def warm_up(model: str) -> None:
    """Do and import once what each child would have to do otherwise; no thread is left of it."""
    inbox.Watcher = NoWatches
    with open_embedder("onnxruntime", recipe.load_model(model), 8, Options(threads=1)) as embedder:
        embedder.embed(np.stack([np.array(picture("red", 0).resize((32, 32)))]))
    ear, mouth = os.pipe()
    child = os.fork()
    if child == 0:
        with tempfile.TemporaryDirectory() as folder:
            make_rover(None, folder, model)
            run_until_settled(folder)
        os.write(mouth, "\n".join(sys.modules).encode("ascii"))
        os._exit(0)
    os.close(mouth)
    with os.fdopen(ear, "rb") as told:
        names = told.read().decode("ascii").split()
    assert os.waitpid(child, 0)[1] == 0
    for name in names:
        if name not in sys.modules:
            importlib.import_module(name)
    assert threading.active_count() == 1


class Clock:
    """A clock that runs when it is told to; `wall_s` is what people would read."""

    def __init__(self):
        self.seconds, self.wall_s = 1000.0, 1.6e9

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> str:
        moment = datetime.datetime.utcfromtimestamp(self.wall_s)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
        self.wall_s += seconds


# ---- a rover to work on ------------------------------------------------------------------------

def make_rover(tell, root: str, model: str) -> None:
    """A rover's folders: cameras and the ground write into `root`, the daemon into root/own."""
    root = pathlib.Path(root)
    rover = Rover(root, model)
    rover.config.write_text(
        "state_dir: own/state\nmodel: {}\ncodebook: codebook.npz\npolicy: policy.yaml\n"
        "embedder: onnxruntime\nthreads: 1\n"
        "inbox: {{path: inbox, settle_s: 0.05, rescan_s: 0.3}}\n"
        "queue: {{rows: 50, interval_s: 0.1}}\n"
        "orders: {{path: own/orders}}\n"
        "retention: {{free_bytes: 0}}\n".format(model))
    for name in ("state", "orders", "outbox"):
        (root / "own" / name).mkdir(parents=True)
    for number, (colour, seed) in enumerate(IMAGES):
        drop(rover.inbox, "%d.png" % number, colour, seed)
    (rover.inbox / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing else")
    rover.make_codebook(["red", "green", "blue"], root / "first.npz")
    rover.make_codebook(["blue", "green", "red"], root / "second.npz")


def settings(root: str):
    return config.load(os.path.join(root, "config.yaml"))


def inbox_files(root: str) -> dict:
    """sha256 -> paths, of everything in the inbox."""
    found = {}
    for path in sorted(glob.glob(os.path.join(root, "inbox", "*"))):
        with open(path, "rb") as stream:
            found.setdefault(hashlib.sha256(stream.read()).hexdigest(), []).append(path)
    return found


def image_of(root: str, name: str) -> str:
    """The sha256 of the inbox file NAME.png."""
    with open(os.path.join(root, "inbox", name + ".png"), "rb") as stream:
        return hashlib.sha256(stream.read()).hexdigest()


class NoWatches:
    """What a Watcher is where the system's inotify watches are used up.

    Walks find everything then, and what happens in a life depends on nobody's timing.
    """

    def __init__(self, *_arguments):
        """Nothing yet: it fails when it is started."""

    def start(self) -> None:
        raise OSError(errno.ENOSPC, "inotify watch limit reached")


def opened(root: str, clock: Clock) -> daemon.Daemon:
    return daemon.Daemon(settings(root), environment={}, monotonic=clock, now=clock.now)


def turn(rover: daemon.Daemon, clock: Clock) -> daemon.Step:
    """One turn, after as much time as every due thing needs to be due."""
    clock.advance(1.1)
    return rover.step()


def settle(rover: daemon.Daemon, clock: Clock) -> None:
    """Turn until there is nothing left to do."""
    idle = 0
    for _ in range(TURNS):
        step = turn(rover, clock)
        idle = idle + 1 if step.idle and rover.settled else 0
        if idle == 2:
            return
    raise AssertionError("not settled after %d turns" % TURNS)


def run_until_settled(root: str) -> None:
    """A whole life of the daemon: start, take everything, end."""
    clock = Clock()
    with opened(root, clock) as rover:
        settle(rover, clock)
        rover.drain()


# ---- what is ended at every operation ----------------------------------------------------------

def arrival(tell, root: str) -> None:
    """The first life of a daemon: everything is made, all images are taken."""
    run_until_settled(root)


def restart(tell, root: str) -> None:
    """A daemon that finds everything done; and one file vanished, one rewritten."""
    os.unlink(os.path.join(root, "inbox", "0.png"))
    shutil.copy(os.path.join(root, "inbox", "1.png"), os.path.join(root, "inbox", "2.png"))
    run_until_settled(root)


def codebook_swap(tell, root: str) -> None:
    """Codebook and policy come while the daemon runs; then another codebook."""
    clock = Clock()
    with opened(root, clock) as rover:
        settle(rover, clock)
        for kind in ("first", "second"):
            shutil.copy(os.path.join(root, kind + ".npz"), os.path.join(root, "codebook.npz"))
            with open(os.path.join(root, "policy.yaml"), "w") as stream:
                stream.write("clusters: {1: {label: %s, weight: 2}}\n" % kind)
            settle(rover, clock)


@contextlib.contextmanager
def expecting(tell, changes: dict, pinned: dict = None):
    """Tell what is about to change, sha256: (before, after), and once it returned, that it did."""
    tell("expect", {name: list(states) for name, states in changes.items()})
    for name, after in (pinned or {}).items():
        tell("pinned", name, [True, False])
    yield
    tell("expect", {name: [states[1]] for name, states in changes.items()})
    for name, after in (pinned or {}).items():
        tell("pinned", name, [after])


def do(root: str, action: str, *targets: str) -> None:
    """What `jetson-cluster ACTION TARGETS` does."""
    with Catalog(settings(root).catalog_path, None) as catalog:
        done = applying.apply(catalog, Action("", action, targets, None, 0, ""), "command line",
                              "2026-01-01T00:00:00Z", None)
    assert done.result in (applying.APPLIED, applying.UNCHANGED), done


def operations(tell, root: str) -> None:
    """What an operator does from the command line, one after the other, each in its own process."""
    image = [image_of(root, str(number)) for number in range(len(IMAGES))]

    def send(names):
        with Catalog(settings(root).catalog_path, None) as catalog:
            ids = [catalog.find(name)[0] for name in names]
            return catalog.begin_pass(ids, [], 10 ** 6, "command line", "2026-01-01T00:00:00Z")

    with expecting(tell, {image[0]: ("queued", "acked")}):
        do(root, "ack", image[0])
    with expecting(tell, {}, {image[1]: True, image[2]: True}):
        do(root, "pin", image[1], image[2])
    with expecting(tell, {image[3]: ("queued", "held")}):
        do(root, "hold", image[3])
    with expecting(tell, {image[1]: ("queued", "sent"), image[4]: ("queued", "sent")}):
        number = send([image[1], image[4]])
    tell("pass", number, [image[1], image[4]])
    with expecting(tell, {image[1]: ("sent", "acked"), image[4]: ("sent", "acked")},
                   {image[1]: False}):
        do(root, "ack", "pass:%d" % number)
    with expecting(tell, {image[2]: ("queued", "sent"), image[5]: ("queued", "sent")}):
        second = send([image[2], image[5]])
    assert second > number
    tell("pass", second, [image[2], image[5]])
    with expecting(tell, {image[2]: ("sent", "queued"), image[5]: ("sent", "queued")}):
        do(root, "nack", "pass:%d" % second)
    with expecting(tell, {image[4]: ("acked", "queued")}):
        do(root, "resend", image[4])
    with expecting(tell, {image[3]: ("held", "queued")}):
        do(root, "release", image[3])
    with expecting(tell, {}, {image[2]: False}):
        do(root, "unpin", image[2])
    with expecting(tell, {image[5]: ("queued", "acked")}):
        do(root, "ack", image[5])


def busy_life(tell, root: str) -> None:
    """A life with new images, a codebook, a policy and orders, see `new_work`."""
    run_until_settled(root)


def have_an_outbox(tell, root: str) -> None:
    """From now on there is an outbox."""
    with open(os.path.join(root, "config.yaml"), "a") as stream:
        stream.write("outbox: {path: own/outbox, bytes: 30000}\n")


def outbox(tell, root: str) -> None:
    """A radio takes what lies in the outbox, one after the other in the order of the names."""
    clock, folder = Clock(), os.path.join(root, "own", "outbox")
    tell("expect", {image: ["queued"] for image in states_in(root)})
    with opened(root, clock) as rover:
        settle(rover, clock)
        for _ in range(3):
            name = min(name for name in os.listdir(folder) if not name.startswith("."))
            with open(os.path.join(folder, name), "rb") as stream:
                image = hashlib.sha256(stream.read()).hexdigest()
            tell("expect", {image: ["queued", "sent"]})
            os.unlink(os.path.join(folder, name))
            tell("taken", image, name)
            for _ in range(5):
                turn(rover, clock)
            tell("expect", {image: ["sent"]})
            assert states_in(root)[image] == "sent"


def have_no_room(tell, root: str) -> None:
    """Three images are acknowledged; from now on the disk is as good as full.

    In the place of one stands a picture that nobody has seen, of the same size and time.
    """
    image = [image_of(root, str(number)) for number in range(len(IMAGES))]
    do(root, "ack", image[0], image[1], image[2])
    tell("expect", {name: ["acked", "deleted"] for name in image[:3]})
    tell("expect", {name: ["queued"] for name in image[3:]})
    path = os.path.join(root, "inbox", "2.png")
    before = os.stat(path)
    picture("grey", 30).resize((32, 24)).save(path, "PNG")
    with open(path, "r+b") as stream:  # decoders do not mind what follows the picture
        assert stream.seek(0, os.SEEK_END) <= before.st_size
        stream.truncate(before.st_size)
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert image_of(root, "2") not in image
    tell("file", image_of(root, "2"))
    keep_free(root, 10 ** 15)


def keep_free(root: str, free_bytes: int) -> None:
    """Have so many bytes kept free from now on."""
    path = os.path.join(root, "config.yaml")
    with open(path) as stream:
        content = stream.read()
    with open(path, "w") as stream:
        stream.write(re.sub("free_bytes: [0-9]*", "free_bytes: %d" % free_bytes, content))


def retention(tell, root: str) -> None:
    """What the ground has makes room, and nothing else does."""
    clock = Clock()
    with opened(root, clock) as rover:
        for _ in range(6):
            turn(rover, clock)
        rover.drain()
    # Not told as sure: a power cut may bring a file back, and then it is one the ground has.
    # The picture in the place of one of them was taken in while something could still be deleted.
    assert sorted(states_in(root).values()) == ["deleted"] * 3 + ["queued"] * (len(IMAGES) - 2)


def states_in(root: str) -> dict:
    """sha256 -> state, of every image."""
    with contextlib.closing(sqlite3.connect(settings(root).catalog_path)) as database:
        return {digest.hex(): state for digest, state in database.execute(
            "SELECT sha256, state FROM images")}


def rebuild(tell, root: str) -> None:
    """The database is no database any more: it is set aside, and made anew."""
    run_until_settled(root)


# ---- clocks ------------------------------------------------------------------------------------

def history(tell, root: str, jumps: list) -> dict:
    """Images, orders, passes, a codebook, a restart, deletions; before each the wall clock jumps.

    Images come one a turn: of several in one turn the oldest by date is the first, rightly or not.
    Returns what was decided, without the times at which it was.
    """
    clock, orders = Clock(), []
    turns = itertools.cycle(jumps)

    def jump(*paths) -> None:
        clock.wall_s += next(turns)
        for path in paths:
            os.utime(str(path), (clock.wall_s, clock.wall_s))

    def order(line: str) -> None:
        path = pathlib.Path(root, "own", "orders", "%d.csv" % len(orders))
        path.write_text("%d,%s\n" % (len(orders), line))
        orders.append(line)
        jump(path)
        settle(rover, clock)

    def images(colours: str, seed: int) -> None:
        for number, colour in enumerate(colours.split(), seed):
            jump(drop(pathlib.Path(root, "inbox"), "h%d.png" % number, colour, number))
            settle(rover, clock)

    with open(os.path.join(root, "policy.yaml"), "w") as stream:
        stream.write("ageing: {after_passes: 2, one_place_in: 4}\n")
    with opened(root, clock) as rover:
        settle(rover, clock)
        images("red green red", 100)
        order("pass,,20kB")
        order("ack,pass:1")
        images("blue grey", 110)
        order("pass,,20kB")
        shutil.copy(os.path.join(root, "first.npz"), os.path.join(root, "codebook.npz"))
        jump(os.path.join(root, "codebook.npz"))
        settle(rover, clock)
        order("pin,%s" % image_of(root, "4"))
        images("red red", 120)
    jump()
    with opened(root, clock) as rover:
        settle(rover, clock)
        order("pass,,10kB")
        order("hold,h121.png")
        order("ack,pass:3")
        images("green grey", 130)
    keep_free(root, 10 ** 15)
    with opened(root, clock) as rover:
        for _ in range(6):
            jump()
            turn(rover, clock)
        rover.drain()
    with Catalog(settings(root).catalog_path, None) as catalog:
        passes = [sorted(catalog.rows(catalog.pass_images(number))[image].sha256
                         for image in catalog.pass_images(number))
                  for number in range(1, catalog.last_pass + 1)]
    return {"queue": [{key: value for key, value in row.items() if key != "captured_at"}
                      for row in queue_rows(root)], "passes": passes, "states": states_in(root)}


# ---- no room on the disk -----------------------------------------------------------------------

def new_work(tell, root: str) -> None:
    """New images, a codebook, a policy and orders come while the daemon is not running."""
    for seed, colour in enumerate(("red", "green", "blue"), 20):
        drop(pathlib.Path(root, "inbox"), "new%d.png" % seed, colour, seed)
    shutil.copy(os.path.join(root, "first.npz"), os.path.join(root, "codebook.npz"))
    with open(os.path.join(root, "policy.yaml"), "w") as stream:
        stream.write("clusters: {1: {label: meadow, weight: 2}}\n")
    with open(os.path.join(root, "own", "orders", "1.csv"), "w") as stream:
        stream.write("".join(orders_for(root)))
    expect_orders(tell, root)


def orders_for(root: str) -> list:
    """Lines of an order file; see `expect_orders` for what they bring about."""
    image = [image_of(root, str(number)) for number in range(len(IMAGES))]
    return ["1,ack,%s\n" % image[0], "2,hold,%s\n" % image[1], "3,pin,%s\n" % image[2],
            "4,weight,1,3\n", "5,pass,1MB\n"]


def expect_orders(tell, root: str) -> None:
    """What those orders bring about, once there was a turn for them."""
    image = [image_of(root, str(number)) for number in range(len(IMAGES))]
    tell("expect", {image[0]: ["acked"], image[1]: ["held"]})
    for number in "12345":
        tell("order", number)
    tell("passes", 1)


def work_without_room(tell, root: str, skip: int) -> bool:
    """A life in which from the operation after the next `skip` on there is no room for a while.

    Returns whether something had to wait for it; -1: there is room all the time.
    """
    clock = Clock()
    with opened(root, clock) as rover:
        short = False
        if skip >= 0:
            with faults.no_room(skip):
                for _ in range(8):
                    turn(rover, clock)
                short = not rover.settled
        settle(rover, clock)
        rover.drain()
    return short


def count_operations(tell, root: str) -> int:
    """How many operations there are in the turns of a life without trouble."""
    clock = Clock()
    with opened(root, clock) as rover:
        before = faults.operations_so_far()
        settle(rover, clock)
        return faults.operations_so_far() - before


def work_within_a_size(tell, root: str, most_bytes: int) -> None:
    """A life in which for a while no file can be written beyond that size."""
    clock = Clock()
    with opened(root, clock) as rover:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
        for _ in range(8):
            turn(rover, clock)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        settle(rover, clock)
        rover.drain()


def work_on_a_full_file_system(tell, root: str) -> bool:
    """A life on a disk that somebody else fills to the last byte, and clears again."""
    clock, filler = Clock(), os.path.join(root, "own", "filler")
    with opened(root, clock) as rover:
        with open(filler, "wb", buffering=0) as stream:
            with contextlib.suppress(OSError):
                while True:
                    stream.write(bytes(4096))
        for _ in range(8):
            turn(rover, clock)
        short = not rover.settled
        os.unlink(filler)
        settle(rover, clock)
        rover.drain()
    return short


def write_and_rename(tell, root: str, path: str, steps: list, content: str) -> None:
    """The steps of replacing a file, more or less carefully."""
    streams = {}

    def write(at: str) -> None:
        streams["last"] = os.open(at, os.O_WRONLY | os.O_CREAT, 0o600)
        assert os.write(streams["last"], content.encode("ascii")) == len(content)

    do = {"write": lambda: write(path), "temp": lambda: write(path + ".tmp"),
          "sync": lambda: os.fsync(streams["last"]),
          "rename": lambda: os.rename(path + ".tmp", path),
          "remove": lambda: os.unlink(path),
          "sync-folder": lambda: sync_folder(os.path.dirname(path))}
    for step in steps:
        do[step]()


def end_without_a_word(tell, root: str) -> None:
    """Operations beside a daemon that never closes: SQLite's log holds them, as after a kill."""
    clock = Clock()
    rover = opened(root, clock)
    settle(rover, clock)
    operations(tell, root)
    settle(rover, clock)


# ---- what must be true afterwards --------------------------------------------------------------

class Told:
    """What the outside was told, as it stood at the end."""

    def __init__(self, told):
        self.states, self.pinned, self.passes, self.orders = {}, {}, {}, set()
        self.passes_made, self.taken, self.files = None, {}, set()
        for line in told:
            if line[0] == "expect":
                self.states.update(line[1])
            elif line[0] == "pinned":
                self.pinned[line[1]] = line[2]
            elif line[0] == "pass":
                self.passes[line[1]] = line[2]
            elif line[0] == "passes":
                self.passes_made = line[1]
            elif line[0] == "taken":
                self.taken[line[1]] = line[2]
            elif line[0] == "file":
                self.files.add(line[1])
            elif line[0] == "order":
                self.orders.add(line[1])


def check_files(root: str) -> None:
    """Every file that others read is whole at any moment, or not there yet."""
    state = os.path.join(root, "own", "state")
    queue = os.path.join(state, "queue.csv")
    if os.path.exists(queue):
        with open(queue, "rb") as stream:
            content = stream.read()
        assert content.endswith(b"\r\n")
        rows = list(csv.reader(content.decode("utf-8").splitlines()))
        assert rows[0][0] == "rank" and {len(row) for row in rows} == {len(rows[0])}
        assert [row[0] for row in rows[1:]] == [str(rank) for rank in range(1, len(rows))]
    if os.path.exists(os.path.join(state, "status.json")):
        with open(os.path.join(state, "status.json"), encoding="utf-8") as stream:
            json.load(stream)


def queue_rows(root: str) -> list:
    with open(os.path.join(root, "own", "state", "queue.csv"), encoding="utf-8",
              newline="") as stream:
        return list(csv.DictReader(stream))


def recover(tell, root: str, lines: list) -> dict:
    """Start again after whatever happened; then nothing may be lost of what was told."""
    told = Told(lines)
    for image, name in told.taken.items():
        if not os.path.lexists(os.path.join(root, "own", "outbox", name)):
            told.states[image] = ["sent"]  # a power cut may have put the link back
    keep_free(root, 0)
    check_files(root)
    for kept in glob.glob(os.path.join(root, "own", "state", "last-good", "*")):
        assert os.path.getsize(kept) > 0
    run_until_settled(root)
    return check(root, told)


def check(root: str, told: Told, journal_whole: bool = True) -> dict:
    """Every promise, against a rover whose daemon has settled and ended; each image's state."""
    check_files(root)
    path = settings(root).catalog_path
    database = sqlite3.connect(path)
    try:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        counted = dict(database.execute("SELECT state, COUNT(*) FROM images GROUP BY state"))
        sizes = dict(database.execute("SELECT state, SUM(bytes) FROM images GROUP BY state"))
        for state, images, size in database.execute(
                "SELECT state, images, bytes FROM tallies WHERE state <> 'refused'"):
            assert (images, size) == (counted.get(state, 0), sizes.get(state, 0)), state
        states = {digest.hex(): state for digest, state in database.execute(
            "SELECT sha256, state FROM images")}
        pinned = {digest.hex() for digest, in database.execute(
            "SELECT sha256 FROM images WHERE pinned IS NOT NULL")}
        passes = {}
        for digest, number in database.execute("SELECT sha256, pass FROM images"):
            passes.setdefault(number, set()).add(digest.hex())
        audited = [row[0] for row in database.execute(
            "SELECT order_id FROM audit WHERE order_id IS NOT NULL")]
        attempts = database.execute("SELECT COUNT(*) FROM attempts").fetchone()[0]
        made = database.execute("SELECT COUNT(*) FROM passes").fetchone()[0]
    finally:
        database.close()
    bad = image_of(root, "bad")
    assert not glob.glob(os.path.join(root, "inbox", ".*")), "left aside"
    assert told.files <= set(inbox_files(root)), "a file is lost"
    for name, paths in inbox_files(root).items():
        # Until retention looks into it a file of the same size and time passes for the one before.
        unread = name == bad or (name in told.files and name not in states)
        assert unread or name in states, "%s is lost" % paths
        assert unread or states[name] != "missing", "%s is there" % paths
    assert bad not in states and attempts == 0 and told.passes_made in (None, made)
    for name, allowed in told.states.items():
        assert states[name] in allowed, "%s is %s, and %s was told" % (name, states[name], allowed)
    for name, allowed in told.pinned.items():
        assert (name in pinned) in allowed, "pinned: %s, and %s was told" % (
            name in pinned, allowed)
    for number, names in told.passes.items():
        # Images that were sent once more since are in the newer pass.
        assert passes.get(number, set()) <= set(names)
        newer = {name for other, held in passes.items() if other and other > number
                 for name in held}
        back = {name for name in names if states[name] == "queued"}
        assert set(names) <= passes.get(number, set()) | newer | back
    assert set(audited) >= told.orders and len(audited) == len(set(audited))
    queued = [row["sha256"] for row in queue_rows(root)]
    assert sorted(queued) == sorted(name for name in states if states[name] == "queued")
    journal = Journal(os.path.join(root, "own", "state", "journal")).read()
    acked = {entry.sha256 for entry in journal.entries if entry.what == "acked"}
    assert acked >= {name for name in states if states[name] == "acked"} or not journal_whole
    check_places(root)
    return states


def check_many(root: str, told: list) -> None:
    """The same, for so many images in folders that the queue file holds but its head."""
    with contextlib.closing(sqlite3.connect(settings(root).catalog_path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        states = dict(database.execute("SELECT path, state FROM images"))
        rows = database.execute("SELECT COUNT(*), COUNT(DISTINCT sha256) FROM images").fetchone()
        audited = {row[0] for row in database.execute("SELECT order_id FROM audit")}
        passes = database.execute("SELECT COUNT(*), SUM(images) FROM passes").fetchone()
    found = {str(path) for path in pathlib.Path(root, "inbox").rglob("*.p[ng]*")}
    assert set(states) == found - {os.path.join(root, "inbox", "bad.png")}
    assert rows == (len(states), len(states))
    assert set(states.values()) == {"queued", "sent", "acked"}
    told = Told(told)
    assert audited >= told.orders and passes[0] == told.passes_made
    assert passes[1] == sum(state != "queued" for state in states.values())
    queued = [row["path"] for row in queue_rows(root)]
    assert len(set(queued)) == len(queued) == 50
    assert {states[path] for path in queued} == {"queued"}


def check_places(root: str) -> None:
    """Every image has the place that the codebook in force gives it, and no other one's."""
    path = settings(root).codebook
    with Catalog(settings(root).catalog_path, None) as catalog:
        assert catalog.unplaced[0] >= catalog.unplaced[1]
        assert catalog.clustered or not os.path.exists(path)
        if not os.path.exists(path):
            return
        wanted = codebook.load(path)
        assert catalog.placed_by == wanted.identity
        numbers = [row[0] for row in catalog._db.execute("SELECT image FROM embeddings")]
        rows = catalog.rows(numbers)
        found = wanted.assess(catalog.embeddings_of(numbers)).cluster if numbers else []
        assert [rows[number].cluster for number in numbers] == list(found)


# ---- damage ------------------------------------------------------------------------------------

def leave_start_files(tell, root: str) -> None:
    """What a start that was killed on a rover with a GPU leaves behind."""
    state = settings(root).state_dir
    Starting(state, Notifier({}), lambda: 5.0)("building the engine", 600)
    GpuLosses.of(state, boot_identity(), lambda: 5.0).note()


def run_until_mended(root: str) -> bool:
    """Start after damage; whether the catalog had to be made anew.

    Where the damage shows only in a turn, the daemon ends with one clear line and a later start
    mends it, as under systemd: the first that fails marks it, the next checks it.
    """
    for _ in range(STARTS):
        try:
            run_until_settled(root)
            return bool(glob.glob(settings(root).catalog_path + ".damaged-1"))
        except WorldError as error:
            assert "damaged" in str(error), error
    raise AssertionError("not mended by %d starts" % STARTS)


def recover_from_damage(tell, root: str, lines: list) -> bool:
    """After damage that shows: everything holds that was told."""
    anew = run_until_mended(root)
    check(root, Told(lines))
    return anew


def recover_with_its_catalog(tell, root: str, lines: list) -> None:
    """After damage to other files, the journal among them: likewise."""
    assert not run_until_mended(root)
    check(root, Told(lines), journal_whole=False)


def recover_from_lost_writes(tell, root: str, lines: list) -> bool:
    """After SQLite's log was cut: the database may be an older one; what the ground has holds."""
    anew = run_until_mended(root)
    told = Told(lines)
    last = max(told.passes)
    told.states = {name: states for name, states in told.states.items() if states == ["acked"]}
    told.pinned, told.passes = {}, {}
    check(root, told)
    with Catalog(settings(root).catalog_path, None) as catalog:
        assert catalog.last_pass >= last, "pass %d would be another one" % last
    return anew


def recover_from_unseen_damage(tell, root: str, lines: list) -> bool:
    """After one flipped bit in the database, which has no checksums: nothing is sent again.

    It may have made one image's name or number wrong, and no more than one image's.
    """
    anew = run_until_mended(root)
    check_files(root)
    with contextlib.closing(sqlite3.connect(settings(root).catalog_path)) as database:
        database.text_factory = bytes  # for the flipped bit may be in a state
        known = {digest.hex() for digest, state in database.execute(
            "SELECT sha256, state FROM images") if state in map(str.encode, STATES)}
    queued = [row["sha256"] for row in queue_rows(root)]
    assert len(queued) == len(set(queued))
    told = Told(lines)
    for name, allowed in told.states.items():
        assert "acked" not in allowed or name not in queued, "%s is sent again" % name
    assert len(set(inbox_files(root)) - known - {image_of(root, "bad")}) <= 1
    return anew
