"""The catalog under a full disk, kills, failing statements and long random histories."""

import os
import shutil
import signal
import sqlite3
import tempfile

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from catalog_checks import NOT_UTF8, all_rows, assert_counts_hold, counted, python
from catalogued import SPACE, arrival, image, record, refusal, sha256_of
from jetson_cluster.catalog import Catalog, open_or_rebuild
from jetson_cluster.inbox import Arrival
from jetson_cluster.ledger import Moved
from jetson_cluster.schema import ACKED, DELETED, DROPPED, HELD, MISSING, QUEUED, SENT, WAITING


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "catalog.sqlite")


@pytest.fixture
def catalog(path):
    with Catalog(path, SPACE) as opened:
        yield opened


# ---- all or nothing ------------------------------------------------------------------------------

def fill_disk(catalog):
    """Let the database not grow any more, as on a full disk; returns what makes room again."""
    db = catalog._db  # the limit is the connection's own
    limit = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute("PRAGMA max_page_count = %d" % limit)
    return lambda: db.execute("PRAGMA max_page_count = 1000000")


def test_a_full_disk_changes_nothing_and_the_catalog_works_on_afterwards(catalog):
    record(catalog, [image("/inbox/%d.png" % number, number) for number in range(5)],
           [refusal("/inbox/bad.png")])
    before, counts = all_rows(catalog.path), (catalog.counts, catalog.sizes)
    make_room = fill_disk(catalog)
    big = [image("/inbox/%d.png" % number, 10 + number, dimension=4096) for number in range(20)]
    for _ in range(3):
        with pytest.raises(sqlite3.OperationalError, match="full"):
            record(catalog, big, [refusal("/inbox/9.png")])
        assert all_rows(catalog.path) == before
        assert (catalog.counts, catalog.sizes) == counts
    make_room()
    assert len(record(catalog, big)) == 20
    assert_counts_hold(catalog)


@pytest.mark.parametrize("table, event", [
    ("images", "INSERT"), ("images", "UPDATE"), ("embeddings", "INSERT"), ("files", "INSERT"),
    ("files", "DELETE"), ("refusals", "INSERT"), ("refusals", "DELETE"), ("attempts", "DELETE")])
def test_a_batch_that_fails_at_any_statement_changes_nothing(catalog, table, event):
    record(catalog, [image("/inbox/a.png", 1), image("/inbox/b.png", 2)],
           [refusal("/inbox/bad.png")])
    catalog.begin_attempts([arrival("/inbox/c.png")])
    before, counts = all_rows(catalog.path), (catalog.counts, catalog.sizes)
    catalog._db.execute("CREATE TEMP TRIGGER fails AFTER %s ON main.%s "
                        "BEGIN SELECT RAISE(ABORT, 'as asked'); END" % (event, table))
    batch = [image("/inbox/a.png", 3), image("/inbox/bad.png", 4), image("/inbox/c.png", 5)]
    with pytest.raises(sqlite3.Error, match="as asked"):
        record(catalog, batch, [refusal("/inbox/b.png")])
    assert all_rows(catalog.path) == before
    assert (catalog.counts, catalog.sizes) == counts
    catalog._db.execute("DROP TRIGGER fails")
    assert len(record(catalog, batch, [refusal("/inbox/b.png")])) == 3
    assert counted(catalog) == {QUEUED: 3, MISSING: 2, "refused": 1}
    assert_counts_hold(catalog)


def test_marking_missing_and_coming_back_count_right_when_they_fail(catalog):
    (number, _), = record(catalog, [image("/inbox/a.png", 1)])
    trigger = ("CREATE TEMP TRIGGER fails AFTER UPDATE ON main.images "
               "BEGIN SELECT RAISE(ABORT, 'as asked'); END")
    for attempt in (lambda: catalog.mark_missing([number], exists=lambda path: False),
                    lambda: catalog.known([arrival("/inbox/a.png")])):
        catalog._db.execute(trigger)
        with pytest.raises(sqlite3.Error, match="as asked"):
            attempt()
        assert_counts_hold(catalog)
        catalog._db.execute("DROP TRIGGER fails")
        attempt()
        assert_counts_hold(catalog)
    assert catalog.rows([number])[number].state == QUEUED


WRITER = """
import sys
from catalogued import SPACE, image, record
from jetson_cluster.catalog import Catalog
with Catalog(sys.argv[1], SPACE) as catalog:
    for batch in range(100000):
        images = [image("/inbox/%d-%d.png" % (batch, n), 20 * batch + n) for n in range(20)]
        catalog.begin_attempts([held.arrival for held in images])
        print("begun", flush=True)
        record(catalog, images)
        print(batch, flush=True)
"""


@pytest.mark.parametrize("batches", [1, 4, 9])
def test_a_kill_loses_no_batch_that_was_recorded_and_leaves_no_part_of_one(path, batches):
    writer = python(WRITER, path)
    recorded = -1
    while recorded < batches:
        line = writer.stdout.readline()
        recorded = recorded if line == b"begun\n" else int(line)
    writer.stdout.readline()  # the next one is begun
    os.kill(writer.pid, signal.SIGKILL)
    rest = [int(line) for line in writer.stdout.read().split() if line != b"begun"]
    writer.wait()
    writer.stdout.close()
    recorded = max([recorded] + rest)
    with Catalog(path, SPACE) as catalog:
        whole, part = divmod(catalog.counts[QUEUED], 20)
        assert part == 0 and whole in (recorded + 1, recorded + 2)
        assert_counts_hold(catalog)
        next_batch = [arrival("/inbox/%d-%d.png" % (whole, n), 20 * whole + n) for n in range(20)]
        assert set(catalog.attempts(next_batch).values()) in ({3}, set())
        record(catalog, [image("/inbox/after.png", 10 ** 6)])
        assert_counts_hold(catalog)


def test_an_attempt_that_ends_the_program_is_remembered(path):
    for times in (1, 2, 3):
        done = python(
            "import os, sys\n"
            "from jetson_cluster.catalog import Catalog\n"
            "from jetson_cluster.inbox import Arrival\n"
            "catalog = Catalog(sys.argv[1], %r)\n"
            "catalog.begin_attempts([Arrival('/inbox/killer.png', 5, 6, 7)])\n"
            "os.kill(os.getpid(), 9)\n" % SPACE, path)
        done.communicate()
        assert done.returncode == -signal.SIGKILL
        with Catalog(path, SPACE) as catalog:
            killer = Arrival("/inbox/killer.png", 5, 6, 7)
            assert catalog.attempts([killer]) == {"/inbox/killer.png": 3 * times}
            assert catalog.attempts([killer._replace(mtime_ns=7)]) == {}


# ---- long histories, against a dict --------------------------------------------------------------

PATHS = ["/inbox/a.png", "/inbox/b.png", "/inbox/c d.png", "/inbox/\u00fc.png", NOT_UTF8]
SLOTS = st.sampled_from(PATHS)
CONTENTS = st.integers(1, 6)
BAD, AT = 99, "2026-01-02T00:00:00Z"


ACTIONS = ("ack", "nack", "resend", "hold", "release")


class History(RuleBasedStateMachine):
    """Files come, change, go and come back, operations act; the catalog knows what a dict knows."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.mkdtemp()
        self.catalog = self._open()
        self.disk = {}  # path: content, as the inbox is now
        self.seen = {}  # path: content, as last catalogued
        self.states = {}  # content: state
        self.dropped = {}  # content: what it is again once its file is back, None: as if new
        self.embedded = set()  # of the contents
        self.refused = set()
        self.passes = 0

    def _open(self):
        return open_or_rebuild(os.path.join(self.folder, "catalog.sqlite"), SPACE,
                               lambda doing, allow_s: None)

    def teardown(self):
        self.catalog.close()
        shutil.rmtree(self.folder)

    def _leaves(self, path, content):
        """What was catalogued at `path` is there no more."""
        self.refused.discard(path)
        before = self.seen.pop(path, None)
        if before not in (None, content) and self.states[before] in (QUEUED, WAITING):
            # It stays as it is by any other path that holds it.
            self.states[before] = self._there(before)

    def _comes(self, path, content, embedded=True):
        self._leaves(path, content)
        self.disk[path] = self.seen[path] = content
        if embedded:
            self.embedded.add(content)
        state = self.states.get(content)
        if state == DELETED:
            self.states[content] = ACKED
        elif state == DROPPED and self.dropped[content]:
            self.states[content] = self.dropped[content]
        elif state in (None, QUEUED, WAITING, MISSING, DROPPED):
            self.states[content] = self._there(content)

    def _there(self, content):
        if content not in self.seen.values():
            return MISSING
        return QUEUED if content in self.embedded else WAITING

    def _numbers(self, contents):
        return [self.catalog.ids_by_prefix(sha256_of(content), 1)[0] for content in contents]

    @rule(batch=st.dictionaries(SLOTS, CONTENTS, min_size=1, max_size=4))
    def images_arrive(self, batch):
        images = [image(path, content) for path, content in batch.items()]
        new = sorted(set(batch.values()) - self.embedded)
        added = record(self.catalog, images)
        assert sorted(batch[images[row].arrival.path] for _, row in added) == new
        for path, content in batch.items():
            self._comes(path, content)

    @rule(batch=st.dictionaries(SLOTS, CONTENTS, min_size=1, max_size=4))
    def images_arrive_in_the_heat(self, batch):
        images = [image(path, content) for path, content in batch.items()]
        self.catalog.record([held._replace(embedding=None) for held in images], None, [])
        for path, content in batch.items():
            self._comes(path, content, embedded=False)

    @rule(path=SLOTS)
    def a_bad_file_arrives(self, path):
        record(self.catalog, [], [refusal(path)])
        self._leaves(path, None)
        self.disk[path] = BAD
        self.refused.add(path)

    @rule(good=SLOTS, bad=SLOTS, content=CONTENTS)
    def a_batch_fails_in_the_middle(self, good, bad, content):
        self.catalog._db.execute("CREATE TEMP TRIGGER fails AFTER INSERT ON main.refusals "
                                 "BEGIN SELECT RAISE(ABORT, 'as asked'); END")
        with pytest.raises(sqlite3.Error, match="as asked"):
            record(self.catalog, [image(good, content)], [refusal(bad)])
        self.catalog._db.execute("DROP TRIGGER fails")

    @rule(path=SLOTS)
    def a_file_vanishes_unseen(self, path):
        self.disk.pop(path, None)

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def its_absence_is_noticed(self, data):
        content = self.seen[data.draw(st.sampled_from(sorted(self.seen)))]
        there = any(path in self.disk for path, held in self.seen.items() if held == content)
        leaves = self.states[content] in (QUEUED, WAITING) and not there
        numbers = self._numbers([content])
        missing = self.catalog.mark_missing(numbers, exists=lambda path: path in self.disk)
        assert missing == (numbers if leaves else [])
        if leaves:
            self.states[content] = MISSING

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def a_file_comes_back_unchanged(self, data):
        path = data.draw(st.sampled_from(sorted(self.seen)))
        content = self.seen[path]
        assert self.catalog.known([arrival(path, content)]) == {path}
        self.disk[path] = content
        if self.states[content] == MISSING:
            self.states[content] = self._there(content)

    @rule(path=SLOTS, content=st.integers(7, 9))
    def other_content_is_not_known(self, path, content):
        assert not self.catalog.known([arrival(path, content)])

    @precondition(lambda self: QUEUED in self.states.values())
    @rule(data=st.data())
    def a_pass_is_sent(self, data):
        queued = sorted(content for content, state in self.states.items() if state == QUEUED)
        sent = data.draw(st.lists(st.sampled_from(queued), unique=True))
        self.passes += 1
        assert self.catalog.begin_pass(self._numbers(sent), [], 1000, "test", AT) == self.passes
        self.states.update(dict.fromkeys(sent, SENT))

    @precondition(lambda self: self.states)
    @rule(data=st.data(), action=st.sampled_from(ACTIONS))
    def operations_act(self, data, action):
        content = data.draw(st.sampled_from(sorted(self.states)))
        number, = self._numbers([content])
        before = self.states[content]
        after = {
            "ack": DELETED if before in (DELETED, DROPPED) else ACKED,
            "nack": (self._there(content) if before == SENT else
                     None if before in (ACKED, DELETED) else before),
            "resend": (self._there(content) if before in (SENT, ACKED) else
                       before if before in (QUEUED, WAITING, MISSING) else None),
            "hold": HELD if before in (QUEUED, WAITING, MISSING, HELD) else None,
            "release": self._there(content) if before == HELD else before}[action]
        moved = self.catalog.move(action, [number])
        assert moved == ({} if after is None else {number: Moved(before, after)})
        self.states[content] = after or before

    @precondition(lambda self: self.states)
    @rule(data=st.data())
    def a_file_is_removed_to_make_room(self, data):
        content = data.draw(st.sampled_from(sorted(self.states)))
        self.catalog.retire(self._numbers([content]))
        for path in [path for path, held in self.seen.items() if held == content]:
            del self.seen[path]
            self.disk.pop(path, None)
        state = self.states[content]
        if state != DROPPED:
            self.dropped[content] = state if state in (SENT, HELD) else None
        self.states[content] = DELETED if state in (ACKED, DELETED) else DROPPED

    @rule()
    def the_program_starts_again(self):
        self.catalog.close()
        self.catalog = self._open()

    @invariant()
    def it_knows_what_the_dict_knows(self):
        assert_counts_hold(self.catalog)
        states = list(self.states.values())
        refused = {"refused": len(self.refused)} if self.refused else {}
        assert counted(self.catalog) == dict(
            {state: states.count(state) for state in states}, **refused)
        assert len(self.catalog.waiting(0, 100)) == states.count(WAITING)
        numbers = dict(zip(self.states, self._numbers(self.states)))
        rows = self.catalog.rows(list(numbers.values()))
        assert {content: rows[number].state for content, number in numbers.items()} == self.states
        assert self.catalog.images_at(PATHS) == {
            path: numbers[content] for path, content in self.seen.items()}
        for row in rows.values():
            if row.state in (QUEUED, WAITING):
                # Whoever sends this file now must send what the queue promised, or find it gone.
                held = self.disk.get(row.path)
                assert held is None or sha256_of(held) == row.sha256


TestHistory = History.TestCase
TestHistory.settings = settings(
    deadline=None, max_examples=40, stateful_step_count=30, database=None)
