"""Room on the disk: acknowledged images go first, worst first, and nothing goes that may not."""

import errno
import logging
import os
import sqlite3
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operated import AT, CLUSTERS, Operations

from jetson_cluster import retention as module
from jetson_cluster.config import DELETE_UNRECEIVED, KEEP, RetentionConfig
from jetson_cluster.head import Head
from jetson_cluster.policy import EMPTY
from jetson_cluster.retention import PIECE, REST_S, STATE_BYTES, Decision, Retention, decide
from jetson_cluster.walker import examine

MB = 1000 * 1000
MARK = 100 * MB
ENOUGH = MARK * 21 // 20
QUIET = Decision("", False, True)


class Disk:
    """A disk whose free bytes are set, and grow by what is deleted from the inbox."""

    def __init__(self, inbox, free_bytes):
        self.inbox, self.total = inbox, 0
        self.total = free_bytes + self.used()

    def used(self):
        return sum(path.stat().st_size for path in self.inbox.rglob("*") if path.is_file())

    def __call__(self, path):
        held = list(os.statvfs(str(path)))
        held[1], held[4] = 1, self.total - self.used()  # f_frsize, f_bavail
        return os.statvfs_result(held)


class Rover(Operations):
    """A catalog, an inbox and what keeps room there."""

    def keep(self, free_bytes, unacknowledged=KEEP, mark_bytes=MARK, statvfs=None):
        self.now_s = 50.0
        self.disk = statvfs or Disk(self.inbox, free_bytes)
        self.retention = Retention(
            RetentionConfig(mark_bytes, unacknowledged), str(self.inbox), str(self.state),
            self.catalog, lambda: self.now_s, lambda: AT, self.disk)
        return self.retention

    def look(self, after_s=2.0):
        self.now_s += after_s
        head = Head(self.catalog, 50)
        return self.retention.look(lambda: head.weights(self.policy),
                                   lambda: head.named_by(self.policy))

    def there(self):
        """The images whose files are in the inbox, by id."""
        return [image for image, in self.catalog._db.execute("SELECT id FROM images ORDER BY id")
                if os.path.exists(self.path_of(image))]

    def aside(self):
        return [path for path in self.inbox.rglob(".*") if path.is_file()]

    def replace(self, image, content=None):
        """Another picture of the same size and time takes the place of this one."""
        path = self.path_of(image)
        before, part = os.stat(path), path + ".part"
        with open(part, "wb") as stream:
            stream.write(content or b"#" * before.st_size)
        os.utime(part, ns=(before.st_atime_ns, before.st_mtime_ns))
        os.rename(part, path)

    def path_of(self, image):
        return self.catalog.rows([image])[image].path


@pytest.fixture
def rover(tmp_path):
    with Rover(tmp_path) as made:
        yield made


class Killed(BaseException):
    """The program ends here."""


def refusing(code, tries=None):
    """An operation on names that the system refuses; `tries` gets those it was asked for."""
    def refuse(name, *_more, **_how):
        if tries is not None:
            tries.append(name)
        raise OSError(code, os.strerror(code), name)
    return refuse


def audits(rover):
    return [(line.action, line.target, line.result) for line in rover.catalog.audit_rows(100)
            if line.origin == "retention"][::-1]


def events(caplog):
    return [record.message.split(":")[0] for record in caplog.records
            if record.levelno >= logging.WARNING]


# ---- the decision
# ------------------------------------------------------------------------------------

DECISIONS = st.builds(Decision, st.sampled_from(["", "acked", "queued"]), st.booleans(),
                      st.booleans())


@settings(database=None, max_examples=500)
@given(free=st.integers(0, 3000), mark=st.integers(0, 2000), before=DECISIONS,
       acked=st.booleans(), more=st.booleans())
def test_what_is_decided_is_always_reasonable(free, mark, before, acked, more):
    decision = decide(free, mark, before, acked, more)
    enough = mark + mark // 20
    if not mark or free >= enough:
        assert decision == QUIET
    if decision.delete:
        assert free < enough and decision.making_room and decision.accepting
        assert decision.delete == ("acked" if acked else "queued") and (acked or more)
    if free < mark and (acked or more):
        assert decision.delete
    if not decision.accepting:
        assert free < enough and not acked and not more
        assert free < mark or not before.accepting
    if free < mark and not (acked or more):
        assert not decision.accepting
    if mark <= free and before == QUIET:
        assert decision == QUIET


@settings(database=None)
@given(mark=st.integers(20, 2000), start=st.integers(0, 2200), size=st.integers(1, 100),
       images=st.integers(0, 40))
def test_room_is_made_until_there_is_some_to_spare_and_then_no_further(mark, start, size, images):
    free, left, decision = start, images, QUIET
    for _ in range(images + 2):
        decision = decide(free, mark, decision, left > 0, False)
        if decision.delete:
            free, left = free + size, left - 1
    enough = mark + mark // 20
    if start >= mark:
        assert left == images
    elif left:
        assert enough <= free < enough + size
    assert decision.accepting == (free >= mark)


# ---- acknowledged images
# --------------------------------------------------------------------------


def test_acknowledged_images_go_worst_first_until_there_is_room_to_spare(rover):
    images = rover.add(*[MB] * 10)
    rover.catalog.move("ack", images[:8])
    rover.keep(MARK - 1)
    assert rover.look() is True and rover.retention.accepting
    # Five and a bit to spare: six, of which each is worth less than those before.
    assert rover.there() == images[:2] + images[8:]
    assert rover.states() == ["acked"] * 2 + ["deleted"] * 6 + ["queued"] * 2
    assert rover.look() is False
    assert rover.there() == images[:2] + images[8:]
    assert rover.catalog.rows(images[2:3])[images[2]].novelty is not None
    assert len(rover.catalog.embeddings_of(images)) == 10


def test_nothing_is_done_above_the_mark_and_it_is_looked_at_every_two_seconds(rover):
    rover.catalog.move("ack", rover.add(*[MB] * 4))
    rover.keep(MARK)
    rover.look()
    rover.disk.total -= 1
    rover.look(1.9)
    assert len(rover.there()) == 4
    rover.look(0.1)
    assert len(rover.there()) < 4


def test_a_mark_of_0_switches_it_off(rover):
    rover.catalog.move("ack", rover.add(MB))
    rover.keep(0, mark_bytes=0)
    rover.look()
    assert rover.retention.accepting and len(rover.there()) == 1


def test_one_look_deletes_a_piece(rover):
    rover.catalog.move("ack", rover.add(*[10] * (PIECE + 20)))
    rover.keep(0)
    rover.look()
    assert len(rover.there()) == 20
    rover.look()
    assert rover.there() == []


def test_all_the_files_of_an_image_go(rover):
    image, = rover.add(MB)
    rover.catalog.move("ack", [image])
    path = rover.path_of(image)
    (rover.inbox / "again").mkdir()
    copy = rover.inbox / "again" / "copy.jpg"
    os.link(path, str(copy))
    rover.catalog._db.execute("INSERT INTO files SELECT ?, bytes, mtime_ns, image FROM files",
                              [str(copy)])
    rover.keep(0)
    rover.look()
    assert list(rover.inbox.rglob("*.jpg")) == [] and rover.states() == ["deleted"]
    assert (rover.inbox / "again").is_dir()  # folders are the cameras'


def test_another_file_at_the_path_is_left_alone_and_read_anew(rover):
    image, = rover.add(100)
    rover.catalog.move("ack", [image])
    path = rover.path_of(image)
    with open(path, "wb") as stream:
        stream.write(b"new content, of other size")
    rover.keep(0)
    rover.look()
    assert os.path.exists(path) and rover.states() == ["deleted"]
    assert rover.catalog.paths_of(image) == []


def test_content_that_was_never_acknowledged_stays_though_size_and_time_agree(rover):
    images = rover.add(MB, MB)
    rover.catalog.move("ack", images)
    rover.replace(images[1])
    rover.keep(0)
    rover.look()
    with open(rover.path_of(images[1]), "rb") as stream:
        assert stream.read() == b"#" * MB
    assert rover.there() == images[1:] and rover.states() == ["deleted"] * 2
    # Nothing vouches for the path any more: what stands there is read as a new image.
    assert rover.catalog.paths_of(images[1]) == [] and rover.aside() == []


def test_a_look_reads_no_more_bytes_than_it_may(rover, monkeypatch):
    monkeypatch.setattr(module, "PIECE_BYTES", 3 * MB)
    rover.catalog.move("ack", rover.add(*[MB] * 5))
    rover.keep(0)
    rover.look()
    assert len(rover.there()) == 2
    rover.look()
    assert rover.there() == []


@pytest.mark.parametrize("place", ["the file", "its folder"])
def test_nothing_is_deleted_through_a_symlink(rover, tmp_path, place):
    image, = rover.add(100, names=["sub/a.jpg"])
    rover.catalog.move("ack", [image])
    path, elsewhere = rover.inbox / "sub" / "a.jpg", tmp_path / "elsewhere"
    elsewhere.mkdir()
    path.rename(elsewhere / "a.jpg")
    if place == "the file":
        path.symlink_to(elsewhere / "a.jpg")
    else:
        path.parent.rmdir()
        path.parent.symlink_to(elsewhere)
    rover.keep(0)
    rover.look()
    assert (elsewhere / "a.jpg").exists() and os.path.lexists(str(path))


def test_files_of_an_earlier_inbox_are_not_touched(rover):
    image, = rover.add(100)
    rover.catalog.move("ack", [image])
    rover.catalog._db.execute("UPDATE files SET path = replace(path, '/inbox/', '/before/')")
    before = rover.folder / "before"
    rover.inbox.rename(before)
    rover.inbox.mkdir()
    rover.keep(0)
    for _ in range(3):
        rover.look()
    assert len(list(before.iterdir())) == 1 and rover.states() == ["acked"]
    assert not rover.retention.accepting


@pytest.mark.parametrize("step", ["rename", "unlink", "retire"])
def test_a_kill_between_deleting_and_writing_it_down_changes_nothing(rover, monkeypatch, step):
    images = rover.add(*[MB] * 5)
    rover.catalog.move("ack", images)
    rover.keep(MARK - 1)

    def killed(*arguments, **more):
        if place is os:
            real(*arguments, **more)
        raise Killed
    place = rover.catalog if step == "retire" else os
    real = getattr(place, step)
    monkeypatch.setattr(place, step, killed)
    with pytest.raises(Killed):
        rover.look()
    monkeypatch.undo()
    gone = set(images) - set(rover.there())
    assert gone and rover.states() == ["acked"] * 5
    rover.keep(MARK - 1)
    rover.look()
    rover.look()
    assert {image for image in images if rover.state_of(image) == "deleted"} >= gone
    assert {image for image in images if rover.state_of(image) == "deleted"} == (
        set(images) - set(rover.there()))
    assert rover.aside() == []


def killed_with_a_file_aside(rover, monkeypatch):
    def killed(*arguments, **more):
        real(*arguments, **more)
        raise Killed
    real = os.rename
    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(Killed):
        rover.look()
    monkeypatch.undo()
    assert len(rover.aside()) == 1


@pytest.mark.parametrize("mark_bytes", [MARK, 0])
@pytest.mark.parametrize("name", ["sub/a.jpg", os.fsdecode(b"sub/\xff\xe4.jpg"), "\U0001f6f0.jpg"])
def test_what_a_kill_left_aside_is_put_back_at_the_next_start_room_or_not(
        rover, monkeypatch, name, mark_bytes):
    image, = rover.add(MB, names=[name])
    rover.catalog.move("ack", [image])
    rover.keep(MARK - 1)
    killed_with_a_file_aside(rover, monkeypatch)
    rover.catalog.move("resend", [image])
    rover.keep(ENOUGH, mark_bytes=mark_bytes)
    rover.look()
    assert rover.there() == [image] and rover.aside() == [] and rover.states() == ["queued"]


def test_what_was_left_aside_in_an_earlier_inbox_is_put_back_once_that_is_there(
        rover, monkeypatch, caplog):
    image, = rover.add(MB)
    rover.catalog.move("ack", [image])
    rover.keep(MARK - 1)
    killed_with_a_file_aside(rover, monkeypatch)
    earlier, away = rover.inbox, rover.folder / "away"
    earlier.rename(away)
    rover.inbox = rover.folder / "later"
    rover.inbox.mkdir()
    rover.keep(ENOUGH)
    rover.look()
    assert events(caplog) == []
    away.rename(earlier)
    rover.look()
    assert rover.there() == [image] and not list(earlier.glob(".*"))


def test_what_cannot_be_put_back_is_told_once_and_tried_until_it_can(rover, monkeypatch, caplog):
    image, = rover.add(MB)
    rover.catalog.move("ack", [image])
    rover.keep(MARK - 1)
    killed_with_a_file_aside(rover, monkeypatch)
    for call in ("link", "rename"):
        monkeypatch.setattr(os, call, refusing(errno.EROFS))
    rover.keep(ENOUGH)
    rover.look()
    rover.look()
    assert events(caplog) == ["FileNotPutBack"]
    assert ".retention-sol0000.jpg" in caplog.text and len(rover.aside()) == 1
    monkeypatch.undo()
    rover.look()
    assert rover.there() == [image] and rover.aside() == []


def test_a_disk_without_room_for_a_note_of_it_loses_one_acknowledged_image_a_look(
        rover, monkeypatch):
    images = rover.add(*[MB] * 4)
    rover.catalog.move("ack", images)
    rover.keep(MARK - 2 * MB)

    def full(*_arguments):
        raise sqlite3.OperationalError("database or disk is full")
    monkeypatch.setattr(rover.catalog, "remember", full)
    rover.look()
    assert rover.there() == images[:3] and rover.states() == ["acked"] * 3 + ["deleted"]
    killed_with_a_file_aside(rover, monkeypatch)
    rover.keep(MARK - 2 * MB)
    rover.look()
    assert rover.there() == [] and rover.aside() == [] and rover.states() == ["deleted"] * 4


def test_an_image_that_the_ground_asks_for_again_just_then_is_not_deleted(rover):
    images = rover.add(*[MB] * 3)
    rover.catalog.move("ack", images)
    rover.keep(MARK - 1)
    worst = rover.catalog.worst

    def resent_since(*arguments):
        found = worst(*arguments)
        rover.catalog.move("resend", images[2:])
        return found
    rover.catalog.worst = resent_since
    rover.look()
    del rover.catalog.worst
    assert rover.there() == images[2:] and rover.states() == ["deleted", "deleted", "queued"]


def test_acknowledged_images_without_any_file_stand_in_the_way_of_none(rover):
    images = rover.add(*[MB] * 3)
    rover.catalog.move("ack", images)
    rover.catalog._db.execute("DELETE FROM files WHERE image > 1")  # written over by others
    rover.keep(MARK - 1)
    rover.look()
    rover.look()
    assert rover.states() == ["deleted"] * 3 and images[0] not in rover.there()


# ---- when there is nothing to delete
# -----------------------------------------------------------------


def test_without_anything_to_delete_no_images_are_taken_in_and_that_is_said_once(rover, caplog):
    images = rover.add(*[MB] * 4)
    rover.catalog.begin_pass(images[:2], [], 9 * MB, "command", AT)
    rover.keep(MARK - MB)
    for _ in range(3):
        rover.look()
    assert not rover.retention.accepting and len(rover.there()) == 4
    assert rover.retention.error.startswith("NotAccepting: 99.0 MB free of the 100.0 MB to be kept")
    assert "2 images sent, 2.0 MB, may be once acknowledged" in rover.retention.error
    assert events(caplog) == ["NotAccepting"]
    rover.disk.total += MB  # just the mark: not yet
    rover.look()
    assert not rover.retention.accepting
    rover.disk.total += ENOUGH - MARK
    rover.look()
    assert rover.retention.accepting and rover.retention.error == ""
    assert events(caplog) == ["NotAccepting", "AcceptingAgain"]


def test_an_acknowledgement_makes_room_and_then_images_are_taken_in_again(rover):
    images = rover.add(*[3 * MB] * 4)
    rover.keep(MARK - 1)
    rover.look()
    assert not rover.retention.accepting
    rover.catalog.move("ack", images)
    rover.look()
    rover.look()
    assert rover.retention.accepting and rover.there() == images[:2]


def test_a_held_or_pinned_image_is_never_deleted(rover):
    images = rover.add(*[MB] * 4)
    rover.catalog.move("hold", images[:1])
    rover.catalog.move("pin", images[1:2])
    rover.keep(0, DELETE_UNRECEIVED)
    for _ in range(3):
        rover.look()
    assert rover.there() == images[:2] and not rover.retention.accepting


def test_an_image_that_the_policy_holds_or_pins_is_never_dropped_whether_queued_or_sent(rover):
    images = rover.add(*[MB] * 6)
    rover.catalog.begin_pass(images[3:], [], 9 * MB, "command", AT)
    rover.policy = EMPTY._replace(pins=(rover.sha(images[2])[:8], rover.sha(images[5])),
                                  holds=(rover.sha(images[1])[:6], rover.sha(images[4])[:10]))
    rover.keep(0, DELETE_UNRECEIVED)
    for _ in range(4):
        rover.look()
    assert rover.there() == [images[1], images[2], images[4], images[5]]
    assert rover.states() == ["dropped", "queued", "queued", "dropped", "sent", "sent"]
    assert not rover.retention.accepting
    rover.policy = EMPTY
    for _ in range(4):
        rover.look()
    assert rover.there() == []


def test_of_acknowledged_images_the_policy_holds_and_pins_none(rover):
    images = rover.add(*[MB] * 2)
    rover.catalog.move("ack", images)
    rover.policy = EMPTY._replace(pins=(rover.sha(images[0]),), holds=(rover.sha(images[1]),))
    rover.keep(0)
    rover.look()
    assert rover.states() == ["deleted"] * 2


def test_an_image_that_is_pinned_just_then_is_not_dropped(rover):
    images = rover.add(*[MB] * 2)
    rover.keep(0, DELETE_UNRECEIVED)
    worst = rover.catalog.worst

    def pinned_since(*arguments):
        found = worst(*arguments)
        rover.catalog.move("pin", images[1:])
        return found
    rover.catalog.worst = pinned_since
    rover.look()
    assert rover.there() == images[1:] and rover.states() == ["dropped", "queued"]


# ---- images the ground never received
# ----------------------------------------------------------------


def test_those_the_ground_never_received_go_only_where_the_config_says_so(rover, caplog):
    images = rover.add(*[MB] * 10)
    rover.catalog.move("ack", images[:3])
    rover.keep(MARK - 1, DELETE_UNRECEIVED)
    rover.look()
    assert rover.there() == images[3:] and audits(rover) == []
    rover.look()
    # Acknowledged ones first; then the worst of the queue, and no more than have to.
    assert rover.there() == images[3:7] and rover.retention.accepting
    assert rover.states() == ["deleted"] * 3 + ["queued"] * 4 + ["dropped"] * 3
    assert audits(rover) == [("delete", rover.sha(image), "dropped") for image in images[:6:-1]]
    told = [line for line in caplog.messages if line.startswith("ImageDropped: ")]
    assert len(told) == 3
    assert rover.sha(images[9]) in told[0] and rover.path_of(images[9]) in told[0]


def test_of_those_the_queued_go_before_the_sent(rover):
    images = rover.add(*[MB] * 3)
    rover.catalog.begin_pass(images[2:], [], 9 * MB, "command", AT)
    rover.keep(MARK - 1, DELETE_UNRECEIVED)
    rover.look()
    rover.look()
    assert rover.states() == ["dropped", "dropped", "dropped"]
    assert [target for _, target, _ in audits(rover)][:2] == [
        rover.sha(images[1]), rover.sha(images[0])]


def test_a_file_that_others_removed_was_not_dropped(rover):
    images = rover.add(*[MB] * 2)
    os.unlink(rover.path_of(images[1]))
    rover.keep(MARK - 1, DELETE_UNRECEIVED)
    rover.look()
    assert rover.states() == ["dropped", "missing"]
    assert audits(rover) == [("delete", rover.sha(images[0]), "dropped")]


def test_other_content_at_its_path_is_not_dropped_though_size_and_time_agree(rover):
    images = rover.add(*[MB] * 2)
    rover.replace(images[1])
    rover.keep(MARK - 1, DELETE_UNRECEIVED)
    rover.look()
    assert rover.states() == ["dropped", "missing"] and rover.there() == images[1:]
    assert audits(rover)[-1] == ("delete", rover.sha(images[1]), "refused")
    # What is there was never seen: the inbox is to read it, though size and time are known.
    there = examine(rover.path_of(images[1]))
    assert rover.catalog.known([there]) == set()


def test_a_kill_in_the_midst_of_it_leaves_no_image_gone_without_a_trace(rover, monkeypatch):
    images = rover.add(*[MB] * 2)
    rover.keep(MARK - 1, DELETE_UNRECEIVED)

    def killed(*arguments, **more):
        real(*arguments, **more)
        raise Killed
    real = os.unlink
    monkeypatch.setattr(os, "unlink", killed)
    with pytest.raises(Killed):
        rover.look()
    monkeypatch.undo()
    assert rover.there() == images[:1] and rover.states() == ["queued"] * 2
    rover.keep(MARK - 1, DELETE_UNRECEIVED)
    rover.look()
    assert rover.state_of(images[1]) == "dropped"
    assert ("delete", rover.sha(images[1]), "dropped") in audits(rover)


def test_a_disk_full_to_the_last_byte_gets_room_for_the_account_first(rover, monkeypatch, caplog):
    images = rover.add(*[MB] * 4)
    rover.keep(MARK - 3 * MB, DELETE_UNRECEIVED)
    audit = rover.catalog.audit

    def full(*arguments):
        if len(rover.there()) == 4:
            raise sqlite3.OperationalError("database or disk is full")
        audit(*arguments)
    monkeypatch.setattr(rover.catalog, "audit", full)
    rover.look()
    assert rover.there() == images[:3] and len(audits(rover)) == 1
    assert events(caplog) == ["DropNotAccounted", "ImageDropped"]
    rover.look()
    assert rover.there() == [] and len(audits(rover)) == 4


def test_one_that_was_dropped_is_queued_again_if_its_file_comes_back(rover):
    images = rover.add(MB)
    rover.keep(MARK - 1, DELETE_UNRECEIVED)
    rover.look()
    assert rover.states() == ["dropped"]
    rover.made = 0
    rover.add(MB)
    assert rover.states() == ["queued"] and rover.there() == images


# ---- a disk that does not let go
# ---------------------------------------------------------------------


def test_what_cannot_be_deleted_is_told_once_and_left_out_for_a_while(rover, monkeypatch, caplog):
    images = rover.add(*[MB] * 3)
    rover.catalog.move("ack", images)
    rover.keep(MARK - 1)
    tries = []
    monkeypatch.setattr(os, "rename", refusing(errno.EROFS, tries))
    for _ in range(5):
        rover.look()
    assert len(tries) == 3 and rover.states() == ["acked"] * 3
    assert not rover.retention.accepting and events(caplog) == ["NotDeleted", "NotAccepting"]
    assert "mount its file system for writing" in rover.retention.error
    rover.look(REST_S)
    assert len(tries) == 6
    monkeypatch.undo()
    rover.look(REST_S)
    assert rover.there() == []


def test_an_image_of_the_unreceived_that_cannot_be_deleted_is_accounted_for(rover, monkeypatch):
    image, = rover.add(MB)
    rover.keep(MARK - 1, DELETE_UNRECEIVED)
    monkeypatch.setattr(os, "rename", refusing(errno.EACCES))
    rover.look()
    assert rover.states() == ["queued"]
    assert [result for _, _, result in audits(rover)] == ["dropped", "refused"]


def test_with_many_that_cannot_be_deleted_no_more_are_tried(rover, monkeypatch):
    monkeypatch.setattr(module, "MOST_REFUSING", 60)
    rover.catalog.move("ack", rover.add(*[10] * 150))
    rover.keep(0)
    tries = []
    monkeypatch.setattr(os, "rename", refusing(errno.EIO, tries))
    for _ in range(6):
        rover.look()
    assert len(tries) == len(set(tries)) == 2 * PIECE


def test_an_inbox_that_is_not_there_is_left_to_others(rover):
    rover.catalog.move("ack", rover.add(MB))
    rover.keep(0)
    rover.inbox.rename(rover.folder / "away")
    assert rover.look() is False
    assert rover.retention.accepting and rover.states() == ["acked"]


# ---- the catalog's own disk
# --------------------------------------------------------------------------


@pytest.fixture
def two_disks(rover, monkeypatch):
    """The inbox on one disk, the catalog on another; free bytes by folder."""
    free = {str(rover.inbox): 10 * MARK, str(rover.state): 10 * MARK}
    real = os.stat

    def stat(path, *more, **how):
        found = real(path, *more, **how)
        if path == str(rover.inbox):
            found = os.stat_result(found[:2] + (found.st_dev + 1,) + found[3:])
        return found

    def statvfs(path):
        held = list(os.statvfs(path))
        held[1], held[4] = 1, free[path]
        return os.statvfs_result(held)
    rover.keep(0, statvfs=statvfs)
    monkeypatch.setattr(module.os, "stat", stat)
    rover.free = free
    return rover


def test_a_full_disk_of_the_catalog_stops_new_images_and_deletes_none(two_disks, caplog):
    two_disks.catalog.move("ack", two_disks.add(MB))
    two_disks.free[str(two_disks.state)] = STATE_BYTES - 1
    two_disks.look()
    two_disks.look()
    assert not two_disks.retention.accepting and len(two_disks.there()) == 1
    assert str(two_disks.state) in two_disks.retention.error and events(caplog) == ["NotAccepting"]
    two_disks.free[str(two_disks.state)] = 2 * STATE_BYTES
    two_disks.look()
    assert two_disks.retention.accepting


def test_a_full_disk_of_the_inbox_is_another_matter_and_told_as_such(two_disks, caplog):
    two_disks.free.update({str(two_disks.state): 0, str(two_disks.inbox): 0})
    two_disks.look()
    two_disks.free[str(two_disks.state)] = 10 * MARK
    two_disks.look()
    assert events(caplog) == ["NotAccepting", "NotAccepting"]
    assert str(two_disks.inbox) in two_disks.retention.error


def test_on_one_disk_there_is_always_room_for_the_catalog(rover):
    rover.keep(STATE_BYTES - 1, mark_bytes=1000)
    rover.look()
    assert not rover.retention.accepting


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_disk_that_is_really_full_gets_room(rover, monkeypatch):
    if subprocess.call(["mount", "-t", "tmpfs", "-o", "size=4m", "small", str(rover.inbox)]):
        pytest.skip("this root may not mount")
    try:
        rover.catalog.move("ack", rover.add(*[300 * 1024] * 9))
        rover.keep(0, mark_bytes=2 * 1024 * 1024, statvfs=os.statvfs)
        with open(str(rover.inbox / "fill"), "wb") as stream:
            with pytest.raises(OSError):
                while True:
                    os.write(stream.fileno(), b"x" * 65536)
        assert os.statvfs(str(rover.inbox)).f_bavail == 0
        while rover.look():
            pass
        free = os.statvfs(str(rover.inbox)).f_bavail * os.statvfs(str(rover.inbox)).f_frsize
        assert 2 * 1024 * 1024 * 1.05 <= free < 2.5 * 1024 * 1024
        assert rover.retention.accepting and 0 < len(rover.there()) < 9
        # Read-only: it says so and leaves it.
        os.unlink(str(rover.inbox / "fill"))
        assert rover.states().count("deleted") == 9 - len(rover.there())
        subprocess.check_call(["mount", "-o", "remount,ro", str(rover.inbox)])
        left = rover.there()
        rover.keep(0, mark_bytes=100 * 1024 * 1024, statvfs=os.statvfs)
        rover.look()
        rover.look()
        assert rover.there() == left and not rover.retention.accepting
        assert "for writing" in rover.retention.error
    finally:
        subprocess.check_call(["umount", str(rover.inbox)])
