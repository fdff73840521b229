"""Long random histories of images and operations, against a model that fits on a page.

Twice: on catalog, ledger and head of the queue as the verbs use them, and through the daemon.
"""

import itertools
import os
import shutil
import tempfile

import faults
import numpy as np
from catalogued import SPACE, image, sha256_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from jetson_cluster import applying, codebook
from jetson_cluster.catalog import open_or_rebuild
from jetson_cluster.database import set_aside
from jetson_cluster.head import Head
from jetson_cluster.inbox import Arrival
from jetson_cluster.orders import MARKS as ALL_MARKS
from jetson_cluster.orders import Action
from jetson_cluster.passes import Downlink, make_pass
from jetson_cluster.placing import Placing
from jetson_cluster.policy import EMPTY, Target
from jetson_cluster.schema import STATES
from jetson_cluster.walker import examine

AT = "2026-01-02T00:00:00Z"
NAMES = st.sampled_from(["a.png", "b.png", "c d.png", "\u00fc.png"])
CONTENTS = st.integers(1, 6)
MARKS = st.sampled_from(ALL_MARKS)
LOST = ("", "")  # stands for an order that only the journal knows of


class Held:
    """What the model knows of one content."""

    def __init__(self):
        self.state, self.embedded, self.pinned, self.sent_in = "", False, 0, 0


class Model:
    """What the catalog should know, without a file, a database or a clock."""

    def __init__(self):
        self.known = {}  # content: Held
        self.seen = {}  # name: content, as last catalogued
        self.lost = {}  # content: Held, of contents known before the catalog was lost
        self.used = {}  # id of an order: (name, content) that used it up
        self.last_pass = 0
        self.pins = itertools.count(1)

    def there(self, content):
        """Queued, waiting or missing."""
        if content not in self.seen.values():
            return "missing"
        return "queued" if self.known[content].embedded else "waiting"

    def of(self, state):
        """The contents in that state."""
        return sorted(content for content, held in self.known.items() if held.state == state)

    def names_of(self, content):
        return [name for name, seen in self.seen.items() if seen == content]

    def leaves(self, name, content):
        """What was under that name is there no more: now it is `content`."""
        before = self.seen.get(name)
        if before is None or before == content:
            return
        del self.seen[name]
        if self.known[before].state in ("queued", "waiting"):
            self.known[before].state = self.there(before)

    def comes(self, name, content, embedded):
        self.leaves(name, content)
        self.seen[name] = content
        if content not in self.known:
            held = self.known[content] = self.lost.pop(content, None) or Held()
            held.embedded = False
        held = self.known[content]
        held.embedded |= embedded
        if held.state in ("", "queued", "waiting", "missing"):
            held.state = self.there(content)

    def mark(self, action, content):
        """Do it; whether it was allowed."""
        held = self.known[content]
        if action == "ack":
            held.state, held.pinned = "acked", 0
        elif action in ("nack", "resend"):
            if held.state == ("held" if action == "resend" else "acked"):
                return False
            if held.state == "sent" or (held.state == "acked" and action == "resend"):
                held.state = self.there(content)
        elif action == "hold":
            if held.state in ("sent", "acked"):
                return False
            held.state = "held"
        elif action == "release":
            held.state = self.there(content) if held.state == "held" else held.state
        elif action == "pin":
            if held.state == "acked":
                return False
            held.pinned = held.pinned or next(self.pins)
        elif action == "unpin":
            held.pinned = 0
        return True

    def send(self, contents):
        self.last_pass += 1
        for content in contents:
            self.known[content].state, self.known[content].sent_in = "sent", self.last_pass

    def sent_in(self, number):
        return [content for content, held in self.known.items() if held.sent_in == number]

    def lose_catalog(self):
        """What is left is what the journal says."""
        for content, held in self.known.items():
            if held.state in ("sent", "acked", "held") or held.pinned:
                if held.state not in ("sent", "acked", "held"):
                    held.state = ""
                self.lost[content] = held
        self.known, self.seen = {}, {}
        self.used = {order_id: LOST for order_id in self.used}


# ---- on the catalog ----------------------------------------------------------------------------

def size_of(content):
    return 100 + 50 * content


def content_of(name):
    """The content whose SHA-256 that is."""
    return next(content for content in range(10) if sha256_of(content) == name)


def a_codebook(seed, clusters):
    """A codebook of 8 numbers; which one does not matter here, only that it is another."""
    random = np.random.RandomState(seed)
    ramp = np.linspace(0, 1, codebook.QUANTILE_POINTS).astype(np.float32)
    return codebook.Codebook(
        space=SPACE, normalisation="l2",
        centroids=codebook.normalise(random.normal(size=(clusters, 8)).astype(np.float32)),
        counts=np.full(clusters, 10), scales=np.full(clusters, 0.5, np.float32),
        novelty_quantiles=2 * ramp, margin_quantiles=ramp, r50=1.0, r95=1.9)


CODEBOOKS = [None, a_codebook(1, 3), a_codebook(2, 5)]
POLICIES = [
    EMPTY, EMPTY._replace(weights={0: 5.0, 1: 0.0}), EMPTY._replace(explore=0.0),
    EMPTY._replace(holds=(sha256_of(1)[:12],), pins=(sha256_of(2)[:12],)),
    EMPTY._replace(pass_by="score_per_byte"),
    EMPTY._replace(targets=(Target("like 3", sha256_of(3)[:12], None, 1.0),))]


class Operations(RuleBasedStateMachine):
    """Files come and go, operators act by hand and by orders, the program ends in every way."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.mkdtemp()
        self.inbox = os.path.join(self.folder, "inbox")
        os.mkdir(self.inbox)
        self.state = os.path.join(self.folder, "state")
        os.mkdir(self.state)
        self.model, self.disk = Model(), {}
        self.codebook, self.policy = None, EMPTY
        self.open()

    def open(self):
        self.catalog = open_or_rebuild(os.path.join(self.state, "catalog.sqlite"), SPACE,
                                       lambda doing, allow_s: None)
        self.head = Head(self.catalog, 50)
        self.placing = Placing(self.catalog, self.head)
        self.placing.use(self.codebook, self.policy)

    def teardown(self):
        self.catalog.close()
        shutil.rmtree(self.folder)

    def path(self, name):
        return os.path.join(self.inbox, name)

    # ---- the inbox ---------------------------------------------------------------------------

    @rule(name=NAMES, content=CONTENTS)
    def a_file_is_written(self, name, content):
        with open(self.path(name), "wb") as stream:
            stream.write(bytes(size_of(content)))
        os.utime(self.path(name), ns=(content, content))
        self.disk[name] = content

    @precondition(lambda self: self.disk)
    @rule(data=st.data())
    def a_file_vanishes(self, data):
        name = data.draw(st.sampled_from(sorted(self.disk)))
        os.unlink(self.path(name))
        del self.disk[name]

    @rule(hot=st.sampled_from([False, False, False, True]))
    def the_inbox_is_looked_through(self, hot):
        arrivals = {name: examine(self.path(name)) for name in sorted(self.disk)}
        known = self.catalog.known(list(arrivals.values()))
        assert known == {self.path(name) for name in self.disk
                         if self.model.seen.get(name) == self.disk[name]}
        images = [image(arrival.path, self.disk[name])._replace(arrival=arrival)
                  for name, arrival in arrivals.items() if arrival.path not in known]
        if hot:
            self.catalog.record([held._replace(embedding=None) for held in images], None, [])
        elif images:
            self.placing.record(images, [])
        for name in sorted(self.disk):
            self.model.comes(name, self.disk[name], not hot and arrivals[name].path not in known)

    @precondition(lambda self: self.model.of("waiting"))
    @rule()
    def what_waited_is_embedded(self):
        waiting = self.catalog.waiting(0, 10)
        assert sorted(content_of(row.sha256) for row in self.catalog.rows(
            [number for number, _ in waiting]).values()) == self.model.of("waiting")
        for number, held in waiting:
            path, size, mtime_ns = held[0]
            content = (size - 100) // 50
            self.placing.record([image(path, content)._replace(
                arrival=Arrival(path, size, mtime_ns, 1))], [])
            self.model.comes(os.path.basename(path), content, True)

    @rule()
    def files_that_are_gone_are_noticed(self):
        queued = {content_of(row.sha256): row.image for row in self.rows().values()
                  if row.state == "queued"}
        gone = [content for content in queued
                if not any(name in self.disk for name in self.model.names_of(content))]
        missing = self.catalog.mark_missing([queued[content] for content in sorted(queued)])
        assert sorted(missing) == sorted(queued[content] for content in gone)
        for content in gone:
            self.model.known[content].state = "missing"

    # ---- operators ---------------------------------------------------------------------------

    def follow(self, order_id, name, targets, value=None):
        action = Action(order_id, name, tuple(targets), value, 1, "file")
        return applying.apply(self.catalog, action, "test", AT, self.send).result

    def send(self, budget_bytes, origin, also=lambda report: None):
        return make_pass(self.catalog, Downlink(self.head, self.policy,
                                                os.path.join(self.state, "queue.csv"),
                                                lambda: True), budget_bytes, origin, AT, also=also)

    @rule(action=MARKS, content=CONTENTS)
    def an_image_is_marked(self, action, content):
        self.mark("", action, content)

    @rule(order_id=st.sampled_from("ABC"), action=MARKS, content=CONTENTS)
    def an_order_comes_by_file(self, order_id, action, content):
        self.mark(order_id, action, content)

    def mark(self, order_id, action, content):
        target = sha256_of(content)[:12]
        result = self.follow(order_id, action, [target])
        used = self.model.used.get(order_id) if order_id else None
        if used is not None:
            same = used in ((action, target), LOST)
            assert result == (applying.REPEATED if same else applying.REFUSED)
        elif content in self.model.known and self.model.mark(action, content):
            assert result in (applying.APPLIED, applying.UNCHANGED)
            if order_id:
                self.model.used[order_id] = (action, target)
        else:
            assert result == applying.REFUSED

    @precondition(lambda self: self.placed)
    @rule(budget_bytes=st.integers(0, 1200))
    def a_pass_is_made(self, budget_bytes):
        before = self.model.of("queued")
        last, rows = self.catalog.last_pass, self.rows()
        report = self.send(budget_bytes, "test")
        sent = [content_of(parcel.sha256) for parcel in report.parcels]
        assert len(set(sent)) == len(sent) and set(sent) <= set(before)
        assert sum(map(size_of, sent)) <= budget_bytes
        held = {content for content in before
                if self.policy.holds and sha256_of(content).startswith(self.policy.holds)}
        assert not held & set(sent)
        for content in set(before) - set(sent):
            names = self.model.names_of(content)
            now = self.catalog.state_of(rows[content].image)
            if now == "missing":
                assert not any(name in self.disk for name in names)
                self.model.known[content].state = "missing"
            elif all(self.disk.get(name) == content for name in names) and content not in held:
                assert size_of(content) > budget_bytes - sum(map(size_of, sent))
        assert report.number == (last + 1 if sent else 0)
        if sent:
            self.model.send(sent)
        for content in sent:
            # What goes down under a name is what was promised.
            name = os.path.basename(next(parcel.path for parcel in report.parcels
                                         if parcel.sha256 == sha256_of(content)))
            assert self.disk[name] == content

    @precondition(lambda self: self.model.last_pass)
    @rule(action=st.sampled_from(["ack", "nack", "resend"]), data=st.data())
    def a_pass_is_marked(self, action, data):
        number = data.draw(st.integers(1, self.model.last_pass))
        contents = [content for content in self.model.sent_in(number) if action != "ack"
                    or self.model.known[content].state in ("sent", "acked")]
        result = self.follow("", action, ["pass:%d" % number])
        done = [self.model.mark(action, content) for content in contents]
        if self.model.sent_in(number):
            assert (result == applying.REFUSED) == (not any(done))

    # ---- what changes the order --------------------------------------------------------------

    @rule(policy=st.sampled_from(POLICIES))
    def another_policy_comes(self, policy):
        self.policy = policy
        self.placing.use(self.codebook, policy)

    @rule(number=st.integers(0, len(CODEBOOKS) - 1))
    def another_codebook_comes(self, number):
        self.codebook = CODEBOOKS[number]
        self.placing.use(self.codebook, self.policy)

    @property
    def placed(self):
        return self.placing.progress.done >= self.placing.progress.total

    @rule(turns=st.integers(1, 3))
    def some_are_placed_anew(self, turns):
        for _ in range(turns):
            self.placing.place_some()

    # ---- ends --------------------------------------------------------------------------------

    @rule()
    def the_program_starts_again(self):
        self.catalog.close()
        self.open()

    @rule()
    def the_program_is_killed(self):
        copied = self.state + ".copied"
        shutil.copytree(self.state, copied)
        self.catalog.close()
        shutil.rmtree(self.state)
        os.rename(copied, self.state)
        self.open()

    @rule()
    def the_catalog_is_lost(self):
        self.catalog.close()
        set_aside(self.catalog.path)
        self.open()
        self.model.lose_catalog()

    # ---- what must be so ---------------------------------------------------------------------

    def rows(self):
        """content: Row."""
        found = {}
        for content in range(1, 10):
            for number in self.catalog.ids_by_prefix(sha256_of(content), 2):
                assert content not in found
                found[content] = self.catalog.rows([number])[number]
        return found

    @invariant()
    def it_knows_what_the_model_knows(self):
        rows, model = self.rows(), self.model
        assert {content: row.state for content, row in rows.items()} == {
            content: held.state for content, held in model.known.items()}
        counts = self.catalog.counts
        for state in STATES:
            assert counts[state] == len(model.of(state))
        assert {content: row.sent_in for content, row in rows.items()} == {
            content: held.sent_in or None for content, held in model.known.items()}
        pinned = [content_of(self.catalog.rows([number])[number].sha256)
                  for number in self.catalog.pinned()]
        assert pinned == [content for _, content in sorted(
            (held.pinned, content) for content, held in model.known.items()
            if held.pinned and held.state == "queued")]
        assert self.catalog.last_pass == model.last_pass
        for content, row in rows.items():
            if row.state in ("queued", "waiting"):
                assert model.seen[os.path.basename(row.path)] == content

    @invariant()
    def the_queue_is_what_is_queued_pins_first(self):
        if not self.placed:
            return
        queue = [content_of(row.sha256) for row in map(
            lambda place: self.catalog.rows([place.image])[place.image],
            self.head.order(self.policy))]
        held = {content for content in self.model.known
                if self.policy.holds and sha256_of(content).startswith(self.policy.holds)}
        assert sorted(queue) == sorted(set(self.model.of("queued")) - held)
        pinned = [content for _, content in sorted(
            (one.pinned, content) for content, one in self.model.known.items()
            if one.pinned and one.state == "queued" and content not in held)]
        assert queue[:len(pinned)] == pinned


TestOperations = Operations.TestCase
TestOperations.settings = settings(
    deadline=None, max_examples=1000 if faults.SOAK else 25, stateful_step_count=40, database=None,
    suppress_health_check=[HealthCheck.too_slow])
