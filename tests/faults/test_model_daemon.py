"""Long random histories through the daemon itself, turn by turn, against a model of one page."""

import contextlib
import hashlib
import io
import os
import pathlib
import shutil
import sqlite3

import faults
import pytest
import scenarios
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from rover import picture

from jetson_cluster import inbox
from jetson_cluster.catalog import Catalog
from jetson_cluster.database import SIDE_FILES
from jetson_cluster.orders import MARKS


def bytes_of(colour, seed):
    stream = io.BytesIO()
    picture(colour, seed).save(stream, "PNG")
    return stream.getvalue()


CONTENTS = {number: bytes_of(*kind) for number, kind in enumerate(scenarios.IMAGES)}
CONTENTS[-1] = b"\x89PNG\r\n\x1a\n but no picture"
BAD = -1
LOST = ("", 0)  # stands for an order that only the journal knows of
SHA256 = {number: hashlib.sha256(content).hexdigest() for number, content in CONTENTS.items()}
NUMBERS = {name: number for number, name in SHA256.items()}
NAMES = st.sampled_from(["a.png", "b.png", "c d.png", "deep/e.png"])
PICTURES = st.sampled_from(sorted(set(CONTENTS) - {BAD}))
POLICIES = ["clusters: {}\n", "clusters: {1: {weight: 3}}\n",
            "explore: 0.1\npass_by: score_per_byte\n",
            "targets: [{name: it, like: %s}]\n" % SHA256[2][:12], "clusters: {1: {wieght: 3}}\n"]


class Held:
    """What the model knows of one content."""

    def __init__(self):
        self.state, self.pinned = "queued", False


class Days(RuleBasedStateMachine):
    """After every step the daemon turns until it has settled; then it must be as the model says."""

    model_path = ""  # of the network

    def __init__(self):
        super().__init__()
        self.folder = faults.quick_folder()
        self.root = os.path.join(self.folder, "rover")
        os.mkdir(self.root)
        scenarios.make_rover(None, self.root, self.model_path)
        self.watcher, inbox.Watcher = inbox.Watcher, scenarios.NoWatches
        for path in pathlib.Path(self.root, "inbox").iterdir():
            path.unlink()
        self.disk, self.known, self.used = {}, {}, {}  # name: content; content: Held; id: order
        self.forgotten = {}  # content: Held, of those that went with the catalog
        self.last_pass, self.files = 0, 0
        self.clock = scenarios.Clock()
        # A bad one is refused, and the last good one holds: there has to be one.
        pathlib.Path(self.root, "policy.yaml").write_text(POLICIES[0])
        self.start()

    def teardown(self):
        self.rover.close()
        inbox.Watcher = self.watcher
        shutil.rmtree(self.folder)

    def start(self):
        self.rover = scenarios.opened(self.root, self.clock)
        self.settle()

    def settle(self):
        scenarios.settle(self.rover, self.clock)
        for content in set(self.disk.values()) - {BAD}:
            held = self.known.setdefault(content, self.forgotten.pop(content, None) or Held())
            held.state = "queued" if held.state == "missing" else held.state
        for content, held in self.known.items():
            if held.state == "queued" and content not in self.disk.values():
                held.state = "missing"

    # ---- cameras -----------------------------------------------------------------------------

    @rule(name=NAMES, content=st.sampled_from(sorted(CONTENTS)))
    def a_file_is_written(self, name, content):
        path = pathlib.Path(self.root, "inbox", name)
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(CONTENTS[content])
        part.rename(path)
        self.disk[name] = content
        self.settle()

    @precondition(lambda self: self.disk)
    @rule(data=st.data())
    def a_file_vanishes(self, data):
        name = data.draw(st.sampled_from(sorted(self.disk)))
        os.unlink(os.path.join(self.root, "inbox", name))
        del self.disk[name]
        self.settle()

    # ---- operators ---------------------------------------------------------------------------

    def mark(self, action, content):
        """What the model makes of it; whether it is allowed."""
        held = self.known.get(content)
        refused = {"resend": ("held",), "hold": ("sent", "acked"), "pin": ("acked",)}
        if held is None or held.state in refused.get(action, ()):
            return False
        if action == "ack":
            held.state, held.pinned = "acked", False
        elif (action, held.state) in (("nack", "sent"), ("resend", "sent"), ("resend", "acked"),
                                      ("release", "held")):
            held.state = "queued"  # or missing, which the next turn finds
        elif action == "hold":
            held.state = "held"
        elif action in ("pin", "unpin"):
            held.pinned = action == "pin"
        return True

    @rule(action=st.sampled_from(MARKS), content=PICTURES)
    def an_operator_marks_an_image(self, action, content):
        try:
            scenarios.do(self.root, action, SHA256[content][:12])
            done = True
        except AssertionError:
            done = False
        assert done == self.mark(action, content)
        self.settle()

    @rule(lines=st.lists(st.tuples(st.sampled_from("ABCDE"), st.sampled_from(MARKS), PICTURES),
                         min_size=1, max_size=4), bad=st.booleans())
    def orders_come(self, lines, bad):
        self.files += 1
        path = pathlib.Path(self.root, "own", "orders", "%04d.csv" % self.files)
        text = "".join("%s,%s,%s\n" % (order, action, SHA256[content][:12])
                       for order, action, content in lines)
        path.write_text("Z,explode,everything\n" * bad + text)
        refused = bad
        for order, action, content in lines:
            if order in self.used:
                refused |= self.used[order] not in ((action, content), LOST)
            elif self.mark(action, content):
                self.used[order] = (action, content)
            else:
                refused = True
        self.settle()
        assert not path.exists()
        assert (path.parent / "refused" / path.name).exists() == refused

    @rule(budget_bytes=st.integers(1, 40000))
    def a_pass_is_ordered(self, budget_bytes):
        self.files += 1
        before = {content for content, held in self.known.items() if held.state == "queued"}
        path = pathlib.Path(self.root, "own", "orders", "%04d.csv" % self.files)
        path.write_text("pass%d,pass,,%d\n" % (self.files, budget_bytes))
        self.settle()
        with Catalog(self.catalog_path, None) as catalog:
            last = catalog.last_pass
            sent = {NUMBERS[row.sha256] for row in catalog.rows(catalog.pass_images(last)).values()}
        if last == self.last_pass:
            assert all(len(CONTENTS[content]) > budget_bytes for content in before)
            return
        assert last == self.last_pass + 1 and sent <= before
        used = sum(len(CONTENTS[content]) for content in sent)
        assert used <= budget_bytes
        assert all(len(CONTENTS[content]) > budget_bytes - used for content in before - sent)
        self.last_pass = last
        for content in sent:
            self.known[content].state = "sent"

    # ---- the ground's files ------------------------------------------------------------------

    @rule(policy=st.sampled_from(POLICIES))
    def another_policy_comes(self, policy):
        pathlib.Path(self.root, "policy.yaml").write_text(policy)
        self.settle()

    @rule(name=st.sampled_from(["first.npz", "second.npz"]))
    def another_codebook_comes(self, name):
        shutil.copy(os.path.join(self.root, name), os.path.join(self.root, "next.npz"))
        os.rename(os.path.join(self.root, "next.npz"), os.path.join(self.root, "codebook.npz"))
        self.settle()
        scenarios.check_places(self.root)

    # ---- ends, and clocks --------------------------------------------------------------------

    @rule(years=st.integers(-40, 40))
    def the_wall_clock_jumps(self, years):
        self.clock.wall_s = max(0.0, self.clock.wall_s + years * 3e7)

    @rule()
    def the_daemon_starts_again(self):
        self.rover.drain()
        self.rover.close()
        self.start()

    @rule()
    def the_daemon_is_killed(self):
        state = os.path.join(self.root, "own", "state")
        shutil.copytree(state, state + ".copied")
        self.rover.close()
        shutil.rmtree(state)
        os.rename(state + ".copied", state)
        self.start()

    @rule()
    def the_catalog_is_lost(self):
        self.rover.close()
        for side in SIDE_FILES:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.catalog_path + side)
        self.forgotten.update(self.known)
        self.known, self.used = {}, {order: LOST for order in self.used}
        self.start()

    # ---- what must be so ---------------------------------------------------------------------

    @property
    def catalog_path(self):
        return os.path.join(self.root, "own", "state", "catalog.sqlite")

    @invariant()
    def the_catalog_is_as_the_model_says(self):
        with contextlib.closing(sqlite3.connect(self.catalog_path)) as database:
            states = {NUMBERS[digest.hex()]: state for digest, state in database.execute(
                "SELECT sha256, state FROM images")}
            pinned = {NUMBERS[digest.hex()] for digest, in database.execute(
                "SELECT sha256 FROM images WHERE pinned IS NOT NULL")}
            refused = database.execute("SELECT COUNT(*) FROM refusals").fetchone()[0]
        assert states == {content: held.state for content, held in self.known.items()}
        assert pinned == {content for content, held in self.known.items() if held.pinned}
        assert refused >= list(self.disk.values()).count(BAD)

    @invariant()
    def the_queue_is_as_the_model_says(self):
        scenarios.check_files(self.root)
        rows = scenarios.queue_rows(self.root)
        queued = {content for content, held in self.known.items() if held.state == "queued"}
        assert sorted(NUMBERS[row["sha256"]] for row in rows) == sorted(queued)
        pins = {content for content in queued if self.known[content].pinned}
        assert {NUMBERS[row["sha256"]] for row in rows[:len(pins)]} == pins
        for row in rows:
            with open(row["path"], "rb") as stream:
                assert hashlib.sha256(stream.read()).hexdigest() == row["sha256"]


@pytest.fixture(autouse=True)
def network(tiny):
    Days.model_path = tiny


TestDays = Days.TestCase
TestDays.settings = settings(
    deadline=None, max_examples=300 if faults.SOAK else 10, stateful_step_count=20, database=None,
    suppress_health_check=[HealthCheck.too_slow])
