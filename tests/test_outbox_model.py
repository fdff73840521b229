"""Random days of an outbox, against a small model: what was sent, what was not, and nothing twice.

Images come, change rank, are held, acknowledged and sent again; links are sent, by removing, by
moving aside, after a while under another name; the daemon ends at any change of a file or of the
catalog and starts again; the folder is replaced. The model knows which links were taken away by the
radio.
"""

import os
import pathlib
import shutil
import tempfile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine, initialize, invariant, precondition, rule)
from outboxes import Radio

from jetson_cluster.links import MADE
from jetson_cluster.outbox import ON_ITS_WAY_S

PLACES = st.integers(0, 30)
MAX_BYTES = 4000


class Ended(BaseException):
    """The daemon was killed."""


class Killer:
    """Ends the daemon at the n-th thing it does to a file or to the catalog's rows."""

    def __init__(self, radio):
        self.real = {name: getattr(os, name) for name in ("link", "unlink", "rename", "fsync")}
        self.left, self.after = 0, False
        self.notes = radio.catalog.note_links

    def __enter__(self):
        for name, work in self.real.items():
            setattr(os, name, self.killing(work))
        return self

    def __exit__(self, *_exception):
        for name, work in self.real.items():
            setattr(os, name, work)

    def killing(self, work):
        def wrapped(*arguments, **more):
            self.left -= 1
            if self.left == 0 and not self.after:
                raise Ended
            done = work(*arguments, **more)
            if self.left == 0:
                raise Ended
            return done
        return wrapped


class Outboxes(RuleBasedStateMachine):
    """One rover with its outbox, and what must be true of it."""

    @initialize()
    def begin(self):
        self.folder = tempfile.mkdtemp(prefix="outbox-")
        self.radio = Radio(pathlib.Path(self.folder), MAX_BYTES)
        self.expected = {}  # state of each image
        self.taken = set()  # whose links the radio took away, which may not have been noticed yet
        self.maybe = set()  # sent while the daemon was down, through a link it was not sure of
        self.sendings = 0
        self.down = False

    def teardown(self):
        if hasattr(self, "radio"):
            self.radio.catalog.close()
            shutil.rmtree(self.folder)

    # ---- what people, cameras and the radio do ---------------------------------------------------

    @rule(size=st.integers(100, 2500), place=PLACES)
    def an_image_comes(self, size, place):
        image, = self.radio.add(size)
        self.radio.rank.remove(image)
        self.radio.rank.insert(place % (len(self.radio.rank) + 1), image)
        self.expected[image] = "queued"

    @precondition(lambda self: len(self.radio.rank) > 1)
    @rule(place=PLACES, to=PLACES)
    def a_rank_changes(self, place, to):
        rank = self.radio.rank
        rank.insert(to % len(rank), rank.pop(place % len(rank)))

    @precondition(lambda self: self.radio.rank)
    @rule(place=PLACES, action=st.sampled_from(["ack", "hold", "release", "resend", "nack"]))
    def operations_act(self, place, action):
        image = self.radio.rank[place % len(self.radio.rank)]
        for moved in self.radio.catalog.move(action, [image]).values():
            # Its link may just have been taken away: that is noticed later, and then it was sent.
            if moved.before in ("sent", "acked") or moved.after == "acked":
                self.taken.discard(image)
            if image not in self.taken:
                self.expected[image] = moved.after

    @rule(place=PLACES, how=st.sampled_from(["remove", "remove first", "aside", "rename"]))
    def the_radio_sends(self, place, how):
        mine = [name for name in self.radio.names() if name[0] != "." and name != "sent"]
        if not mine:
            return
        name = mine[0 if how == "remove first" else place % len(mine)]
        path = self.radio.outbox_path / name
        if how == "rename" and not name.endswith(".sending"):
            path.rename(path.with_name(name + ".sending"))
            return
        made = {link.name: link for link in self.radio.catalog.outbox_links()}.get(
            name.replace(".sending", ""))
        if how == "aside":
            (self.radio.outbox_path / "sent").mkdir(exist_ok=True)
            path.rename(self.radio.outbox_path / "sent" / ("%d" % self.sendings))
        else:
            path.unlink()
        self.sendings += 1
        if made is None or made.made != MADE:
            assert self.down  # only a daemon that ended has links that it is not sure of
            self.maybe.update([made.image] if made else [])
        elif self.expected[made.image] != "acked":
            self.expected[made.image] = "sent"
            self.taken.add(made.image)

    @rule()
    def time_passes(self):
        self.radio.now_s += ON_ITS_WAY_S

    @rule()
    def the_daemon_starts_again(self):
        self.radio.restart()

    @rule(left=st.integers(1, 30), after=st.booleans())
    def the_daemon_is_killed(self, left, after):
        killer = Killer(self.radio)
        killer.left, killer.after = left, after
        note = killer.killing(self.radio.catalog.note_links)
        self.radio.catalog.note_links = note
        seen = self.radio.passes()
        try:
            with killer:
                self.radio.look()
        except Ended:
            pass
        finally:
            del self.radio.catalog.note_links
        assert len(self.radio.passes()) >= len(seen)
        self.radio.restart()
        self.down = True

    @rule()
    def the_folder_is_replaced(self):
        """All that was in it counts as not sent, also what the radio took just before."""
        for image in self.taken:
            self.expected[image] = self.radio.state_of(image)
        self.taken.clear()
        shutil.rmtree(str(self.radio.outbox_path))
        self.radio.outbox_path.mkdir()

    # ---- what must be true
    # ---------------------------------------------------------------------------

    @rule()
    def the_daemon_looks(self):
        radio = self.radio
        here = [name for name in radio.names() if name[0] != "." and name != "sent"]
        known = {link.name for link in radio.catalog.outbox_links()}
        first = min((name.replace(".sending", "") for name in here
                     if name.replace(".sending", "") in known), default=None)
        radio.look()
        if radio.outbox.error:
            raise AssertionError(radio.outbox.error)
        self.down = False
        for image in list(self.maybe):
            state = radio.state_of(image)
            assert state in ("sent", self.expected[image])
            self.expected[image] = state
        self.maybe.clear()
        self.taken.clear()
        assert {image: radio.state_of(image) for image in self.expected} == self.expected
        self.links_are_right(first)

    def links_are_right(self, first):
        radio = self.radio
        rows = radio.catalog.rows(radio.rank)
        by_hash = {row.sha256[:12]: row for row in rows.values()}
        here = [name for name in radio.names() if name != "sent"]
        plain = [name for name in here if not name.endswith(".sending")]
        assert len({name.split("-")[1] for name in here}) == len(here)  # each image once
        held = 0
        for name in here:
            row = by_hash[name.split("-")[1]]
            assert os.path.samefile(str(radio.outbox_path / name), row.path)
            assert row.state == "queued" or name not in plain
            held += row.bytes
        assert held <= MAX_BYTES
        if first is not None and by_hash[first.split("-")[1]].state == "queued":
            assert first in {name.replace(".sending", "") for name in here}
        assert {link.name for link in radio.catalog.outbox_links()} == {
            name.replace(".sending", "") for name in here}
        loose = [radio.rank.index(by_hash[name.split("-")[1]].image) for name in plain
                 if name not in radio.outbox._first_at]
        assert loose == sorted(loose)
        self.nothing_better_is_left_out(rows, here)

    def nothing_better_is_left_out(self, rows, here):
        """Whatever is queued and not linked does not fit beside what is linked before it."""
        linked = {name.split("-")[1] for name in here}
        free = MAX_BYTES - sum(row.bytes for row in rows.values() if row.sha256[:12] in linked)
        for image in self.radio.rank:
            row = rows[image]
            if row.state == "queued" and row.sha256[:12] not in linked:
                assert row.bytes > free

    @invariant()
    def every_sending_is_in_one_pass(self):
        if hasattr(self, "radio"):
            made = self.radio.catalog.passes(1000)
            assert all(one.origin == "outbox" for one in made)
            assert sum(one.images for one in made) <= self.sendings


class TestOutboxes(Outboxes.TestCase):
    settings = settings(max_examples=80, stateful_step_count=40, deadline=None, database=None)
