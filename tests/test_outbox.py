"""The outbox: names in rank order, what disappears was sent, and nothing else counts as sent."""

import errno
import logging
import os
import shutil
import sqlite3
import subprocess

import pytest
from outboxes import Radio

from jetson_cluster import outbox as module
from jetson_cluster.links import GOING, PLANNED, Link
from jetson_cluster.outbox import ON_ITS_WAY_S, RETRY_S

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")


@pytest.fixture
def radio(tmp_path):
    with Radio(tmp_path) as made:
        yield made


@pytest.fixture
def full(radio):
    """Five images of 2000 bytes, all linked."""
    radio.add(*[2000] * 5)
    radio.look()
    assert radio.linked() == radio.rank
    return radio


def refusing(number, of=None):
    """os.link as a file system has it that refuses, all or one file."""
    def link(source, target, **how):
        if of is None or source.endswith(of):
            raise OSError(number, os.strerror(number), source, None, target)
        return REAL_LINK(source, target, **how)
    return link


REAL_LINK = os.link


# ---- what is there
# ---------------------------------------------------------------------------------


def test_the_names_are_in_the_order_of_rank_and_hold_the_images(full):
    for name, image in zip(full.names(), full.rank):
        path = full.catalog.rows([image])[image].path
        assert os.path.samefile(str(full.outbox_path / name), path)
        assert name.endswith("-" + os.path.basename(path))


def test_what_does_not_fit_is_passed_over_and_smaller_ones_take_its_place(radio):
    first, large, small, tiny, late = radio.add(5000, 6000, 4000, 900, 200)
    radio.look()
    assert radio.linked() == [first, small, tiny] and radio.outbox.bytes == 9900
    assert radio.outbox.links == 3


def test_an_image_larger_than_the_whole_outbox_is_told_once(radio, caplog):
    radio.add(20000, 100)
    radio.look()
    radio.look()
    assert len([line for line in caplog.messages if line.startswith("OutboxTooSmall: ")]) == 1
    assert radio.linked() == radio.rank[1:]


def test_it_is_looked_at_once_a_second_at_most(full):
    full.send()
    full.outbox.sync(full.head())
    assert full.passes() == []
    full.look()
    assert full.passes() == [("outbox", full.rank[:1])]


def test_a_new_best_image_comes_first_and_nothing_is_renamed(full):
    names = full.names()
    best, = full.add(100)
    full.rank = [best] + full.rank[:-1]
    full.look()
    assert full.linked()[0] == best and set(names[:-1]) <= set(full.names())


def test_when_ranks_change_only_what_has_to_be_is_renamed(radio):
    radio.add(*[1000] * 8)
    radio.look()
    names = radio.names()
    radio.rank = radio.rank[:2] + radio.rank[4:5] + radio.rank[2:4] + radio.rank[5:]
    radio.look()
    assert radio.linked() == radio.rank
    assert len(set(names) - set(radio.names())) == 1


def test_the_first_is_neither_renamed_nor_removed_while_its_image_is_queued(full):
    first = full.names()[0]
    full.rank = full.rank[1:] + full.rank[:1]
    full.look()
    assert full.names()[0] == first
    full.rank = full.rank[:-1]  # out of the head altogether
    full.look()
    assert full.names()[0] == first
    assert len(full.names()) == 5


def test_nor_is_one_before_which_a_better_one_was_put_until_its_sending_must_be_over(full):
    first = full.link_of(full.rank[0])
    best, = full.add(100)
    left, full.rank = full.rank[0], [best] + full.rank[1:-1]  # the first is out of the head
    full.look()
    full.look()
    assert first.exists() and full.names()[0] == full.link_of(best).name
    assert full.sha(left)[:12] in full.names()[1]
    full.look(ON_ITS_WAY_S)
    assert not first.exists() and full.passes() == []


@pytest.mark.parametrize("action", ["hold", "ack"])
def test_a_held_or_acknowledged_image_leaves_the_outbox_even_if_it_is_the_first(full, action):
    full.catalog.move(action, full.rank[:1])
    full.look()
    assert full.linked() == full.rank[1:]
    assert full.passes() == []
    full.look()
    assert full.linked() == full.rank[1:]


def test_an_image_sent_in_a_pass_of_another_kind_leaves_the_outbox(full):
    full.catalog.begin_pass(full.rank[1:3], [], 9999, "command", "")
    full.look()
    assert full.linked() == full.rank[:1] + full.rank[3:]
    assert len(full.passes()) == 1


def test_an_empty_head_while_images_are_queued_is_one_that_is_not_known_yet(full):
    full.restart()
    full.now_s += 1
    full.outbox.sync([])
    assert full.linked() == full.rank


def test_files_of_others_are_left_alone(full):
    for name in ("README", ".hidden", "0-x.png", "%015d-nohash-x.png" % 1):
        (full.outbox_path / name).write_text("theirs")
    (full.outbox_path / "sent").mkdir()
    before = full.names()
    full.restart()
    full.look()
    full.look()
    assert full.names() == before


# ---- what was sent
# ---------------------------------------------------------------------------------


def test_a_link_that_disappears_was_sent(full):
    full.send(2)
    full.look()
    assert full.states() == ["sent", "sent", "queued", "queued", "queued"]
    assert full.passes() == [("outbox", full.rank[:2])]
    assert full.linked() == full.rank[2:]
    assert full.catalog.pass_of(1).bytes == 4000


def test_one_moved_aside_was_sent_as_well(full):
    (full.outbox_path / "sent").mkdir()
    full.link_of(full.rank[1]).rename(full.outbox_path / "sent" / "x")
    full.look()
    assert full.states() == ["queued", "sent", "queued", "queued", "queued"]


def test_one_pass_lasts_while_links_disappear_and_a_quiet_while_ends_it(full):
    for _ in range(3):
        full.send()
        full.look(ON_ITS_WAY_S - 1)
    assert full.passes() == [("outbox", full.rank[:3])]
    full.look(ON_ITS_WAY_S)
    full.send()
    full.look()
    assert full.passes()[1:] == [("outbox", full.rank[3:4])]


def test_a_restart_and_a_pass_of_another_kind_end_it_too(full):
    full.send()
    full.look()
    full.restart()
    full.send()
    full.look()
    assert [images for _, images in full.passes()] == [full.rank[:1], full.rank[1:2]]
    full.catalog.begin_pass(full.rank[2:3], [], 9999, "command", "")
    full.look()
    full.send()
    full.look()
    assert [origin for origin, _ in full.passes()] == ["outbox", "outbox", "command", "outbox"]


def test_what_went_while_the_daemon_was_down_was_sent(full):
    full.send(3)
    full.restart()
    full.look()
    assert full.passes() == [("outbox", full.rank[:3])]


def test_an_image_acknowledged_before_its_link_was_seen_to_go_stays_so(full):
    full.send()
    full.catalog.move("ack", full.rank[:1])
    full.look()
    assert full.states()[0] == "acked" and full.passes() == []
    assert full.linked() == full.rank[1:]


def test_an_image_whose_pass_failed_is_linked_again(full):
    full.send()
    full.look()
    full.catalog.move_pass("nack", 1)
    full.look()
    assert full.linked() == full.rank


@pytest.mark.parametrize("rename", [
    "{}.sending", "{}.part", ".{}", ".{}.x7Yz", "{}.tmp.1"])
def test_one_that_is_renamed_in_its_place_while_it_is_sent_is_not_gone(full, rename):
    link = full.link_of(full.rank[0])
    sending = link.with_name(rename.format(link.name))
    link.rename(sending)
    full.rank = full.rank[::-1]
    for _ in range(3):
        full.look()
        assert full.passes() == [] and sending.exists()
        assert len(full.names()) == 5
    full.restart()
    full.look()
    assert full.passes() == [] and sending.exists()
    sending.unlink()
    full.look()
    assert full.passes() == [("outbox", full.rank[-1:])]


def test_a_link_renamed_in_the_moment_of_the_listing_is_not_gone(full, monkeypatch):
    link = full.link_of(full.rank[1])

    def hidden(path, listed=os.listdir):
        names = listed(path)
        monkeypatch.setattr(os, "listdir", listed)
        link.rename(link.with_name(link.name + ".sending"))
        return [name for name in names if name != link.name]
    monkeypatch.setattr(os, "listdir", hidden)
    full.look()
    assert full.passes() == []
    full.look()
    assert full.passes() == []


# ---- what only looks like it
# -----------------------------------------------------------------------


@pytest.fixture
def away(full, caplog):
    """The outbox is not there."""
    full.aside = full.folder / "aside"
    full.outbox_path.rename(full.aside)
    full.look()
    assert full.outbox.error.startswith("OutboxMissing: ") and full.outbox.links == 0
    full.told = [(record.levelno, record.message.split(":")[0]) for record in caplog.records]
    return full


def test_a_folder_that_is_gone_has_sent_nothing_and_is_told_once(away, caplog):
    away.look()
    away.look()
    assert away.passes() == [] and not away.outbox_path.exists()
    away.aside.rename(away.outbox_path)
    away.look()
    assert away.linked() == away.rank and away.passes() == [] and away.outbox.error == ""
    assert away.told + [(record.levelno, record.message.split(":")[0])
                        for record in caplog.records] == [
        (logging.ERROR, "OutboxMissing"), (logging.WARNING, "OutboxFound")]


def test_what_is_gone_from_it_when_it_comes_back_was_not_proved_sent(away):
    for path in away.aside.iterdir():
        path.unlink()
    away.aside.rename(away.outbox_path)
    away.restart()
    away.look()
    assert away.passes() == [] and away.linked() == away.rank


def test_a_file_in_its_place_is_no_folder(away):
    away.outbox_path.write_text("")
    away.look()
    assert "Not a directory" in away.outbox.error and away.passes() == []


@pytest.mark.parametrize("restarts", [False, True])
def test_another_folder_in_its_place_has_sent_nothing(full, caplog, restarts):
    shutil.rmtree(str(full.outbox_path))
    full.outbox_path.mkdir()  # with the same inode number, on many file systems
    if restarts:
        full.restart()
    full.look()
    assert full.passes() == [] and full.linked() == full.rank
    assert [line.split(":")[0] for line in caplog.messages] == ["OutboxReplaced"]


def test_a_twin_of_the_card_with_nothing_on_it_has_sent_nothing(full, caplog, monkeypatch):
    monkeypatch.setattr("jetson_cluster.link_folder._identity", lambda folder: full.catalog.meta(
        module.IDENTITY))
    shutil.rmtree(str(full.outbox_path))
    full.outbox_path.mkdir()
    for path in full.inbox.iterdir():
        path.unlink()
    full.look()
    assert full.passes() == [] and "OutboxEmptied" in caplog.text


@needs_root
def test_a_card_that_is_unmounted_has_sent_nothing(tmp_path):
    card = tmp_path / "card"
    card.mkdir()
    (card / "outbox").mkdir()
    if subprocess.call(["mount", "-t", "tmpfs", "card", str(card)]):
        pytest.skip("this root may not mount")
    try:
        with Radio(card) as radio:
            radio.add(*[100] * 3)
            # The catalog is elsewhere, as on a rover.
            radio.look()
            names = radio.names()
            radio.state.rename(card / "gone")
            os.symlink(str(card / "gone"), str(tmp_path / "state"))
            subprocess.check_call(["umount", "-l", str(card)])
            assert radio.names() == []  # the folder the card was mounted over
            radio.look()
            assert radio.passes() == [] and radio.outbox.links == 0
            assert len(names) == 3
    finally:
        subprocess.call(["umount", "-l", str(card)])


def test_a_link_that_may_never_have_been_made_was_not_sent(full):
    full.catalog.note_links(planned=[("%015d-0123456789ab-x.png" % 7, full.rank[0])])
    full.catalog.note_links(going=[full.names()[1]])
    assert {link.made for link in full.catalog.outbox_links()} == {PLANNED, 1, GOING}
    (full.outbox_path / full.names()[1]).unlink()
    full.restart()
    full.look()
    assert full.passes() == [] and full.linked() == full.rank


def test_a_link_of_ours_that_nobody_knows_is_removed_at_the_start(full):
    stray = full.outbox_path / ("%015d-0123456789ab-x.png" % 7)
    os.link(str(full.link_of(full.rank[0])), str(stray))
    last = full.outbox_path / ("%015d-0123456789ac-x.png" % 7)
    last.write_text("the only name of this file")
    full.look()
    assert stray.exists()
    full.restart()
    full.look()
    assert not stray.exists() and last.exists() and full.passes() == []
    last.unlink()
    assert full.linked() == full.rank


def test_a_catalog_made_anew_makes_the_links_anew(full):
    full.catalog._db.execute("DELETE FROM outbox")
    full.catalog.remember(module.IDENTITY, "")
    full.restart()
    full.look()
    assert full.linked() == full.rank and full.passes() == []


# ---- images that change
# ----------------------------------------------------------------------------


def test_an_image_rewritten_in_its_place_is_not_sent_under_its_old_name(full):
    path = full.catalog.rows(full.rank)[full.rank[0]].path
    with open(path, "r+b") as stream:
        stream.write(b"other")
    os.utime(path, (1, 1))
    full.look()
    assert full.linked() == full.rank[1:] and full.passes() == []
    full.look()
    assert full.linked() == full.rank[1:]


def test_nor_is_one_that_is_replaced_in_the_moment_of_linking(radio, monkeypatch):
    image, = radio.add(100)

    def link(source, target, **how):
        with open(source + ".new", "wb") as stream:
            stream.write(b"x" * 100)
        os.rename(source + ".new", source)
        REAL_LINK(source, target, **how)
    monkeypatch.setattr(os, "link", link)
    radio.look()
    assert radio.names() == [] and radio.passes() == []


def test_a_symlink_in_an_images_place_is_not_followed(radio, monkeypatch):
    image, = radio.add(100)
    path = radio.catalog.rows([image])[image].path
    os.rename(path, path + ".real")
    os.symlink(path + ".real", path)
    radio.look()
    assert radio.names() == []


def test_an_image_is_linked_from_any_of_its_paths(radio):
    image, = radio.add(100)
    row = radio.catalog.rows([image])[image]
    shutil.copy2(row.path, row.path + ".copy.jpg")
    radio.catalog._db.execute(
        "INSERT INTO files SELECT path || '.copy.jpg', bytes, mtime_ns, image FROM files")
    os.unlink(row.path)
    radio.look()
    assert radio.linked() == [image]


def test_the_last_copy_of_an_image_stays_until_it_is_sent(full):
    for image in full.rank[:2]:
        os.unlink(full.catalog.rows([image])[image].path)
    full.catalog.mark_missing(full.rank[:1])
    full.look()
    assert len(full.names()) == 5
    full.restart()
    rank, full.rank = full.rank, full.rank[:1] + full.rank[2:]  # the second left the head
    full.look()
    full.look()
    assert len(full.names()) == 5
    full.rank = rank
    full.send()
    full.look()
    assert full.states()[:2] == ["sent", "queued"]
    full.catalog.move("ack", full.rank[:2])
    full.look()
    assert full.linked() == full.rank[2:]


# ---- what cannot be linked
# -------------------------------------------------------------------------


@pytest.mark.parametrize("number, told", [
    (errno.EXDEV, "put outbox.path beside the inbox"), (errno.EPERM, "umask 002"),
    (errno.EMLINK, "as many links"), (errno.EACCES, "write to the outbox"),
    (errno.ENOSPC, "make room"), (errno.EROFS, "for writing"), (errno.EIO, "disk is well")])
def test_what_cannot_be_linked_is_told_once_with_what_to_do_and_tried_again_later(
        radio, monkeypatch, caplog, number, told):
    radio.add(*[100] * 3)
    tries = []

    def link(*arguments, **how):
        tries.append(arguments)
        refusing(number)(*arguments, **how)
    monkeypatch.setattr(os, "link", link)
    for _ in range(5):
        radio.look()
    assert len(tries) == (1 if number in module.OF_ALL else 3)
    assert [line.split(":")[0] for line in caplog.messages] == ["OutboxNotLinked"]
    assert told in caplog.text and told in radio.outbox.error
    assert radio.passes() == [] and radio.catalog.outbox_links() == []
    radio.look(RETRY_S)
    assert len(tries) > 3 or number in module.OF_ALL
    monkeypatch.setattr(os, "link", REAL_LINK)
    radio.look(RETRY_S)
    radio.look(RETRY_S)
    assert radio.linked() == radio.rank and radio.outbox.error == ""


def test_one_image_that_cannot_be_linked_holds_up_no_other(radio, monkeypatch):
    radio.add(*[4000] * 3)
    monkeypatch.setattr(os, "link", refusing(errno.EPERM, of="sol0000.jpg"))
    radio.look()
    assert radio.linked() == radio.rank[1:2]
    radio.look()
    assert radio.linked() == radio.rank[1:]  # its place is taken


@needs_root
def test_a_real_other_file_system_is_told(radio):
    radio.add(100)
    if subprocess.call(["mount", "-t", "tmpfs", "other", str(radio.outbox_path)]):
        pytest.skip("this root may not mount")
    try:
        radio.look()
        assert "OutboxNotLinked: " in radio.outbox.error
        assert "beside the inbox" in radio.outbox.error
    finally:
        subprocess.check_call(["umount", str(radio.outbox_path)])


@pytest.mark.parametrize("failing", ["unlink", "rename"])
def test_a_link_that_cannot_be_removed_or_renamed_is_kept_and_told(full, monkeypatch, failing):
    def refuse(path, *_more, **_how):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    monkeypatch.setattr(os, failing, refuse)
    held = full.rank[1]
    if failing == "unlink":
        full.catalog.move("hold", [held])
    else:
        full.rank = [full.rank[0], full.rank[2], held] + full.rank[3:]
    for _ in range(3):
        full.look()
    assert "OutboxNotLinked: " in full.outbox.error and len(full.names()) == 5
    monkeypatch.undo()
    full.look(RETRY_S)
    full.look()
    assert full.outbox.error == "" and full.passes() == []
    assert full.linked() == [image for image in full.rank
                             if image != held or failing == "rename"]


def test_a_link_that_is_sent_while_it_is_being_removed_or_renamed_was_sent(full, monkeypatch):
    def sent_before(work):
        def late(path, *more, **how):
            os.remove(path)  # not os.unlink, which is replaced
            return work(path, *more, **how)
        return late
    monkeypatch.setattr(os, "unlink", sent_before(os.unlink))
    full.catalog.move("hold", full.rank[1:2])
    full.look()
    monkeypatch.undo()
    assert full.states()[1] == "sent"
    monkeypatch.setattr(os, "rename", sent_before(os.rename))
    full.rank = full.rank[:1] + full.rank[:1:-1]
    full.look()
    monkeypatch.undo()
    full.look()
    moved = full.catalog.pass_images(full.catalog.last_pass)
    assert len(moved) in (2, 3) and full.linked() == [
        image for image in full.rank if full.state_of(image) == "queued"]


def test_a_folder_that_goes_while_links_are_removed_has_sent_nothing(full, monkeypatch):
    def gone(path, *_more, **_how):
        shutil.rmtree(str(full.outbox_path), ignore_errors=True)
        full.outbox_path.mkdir()
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    monkeypatch.setattr("jetson_cluster.outbox.os.unlink", gone_once(gone, monkeypatch))
    full.catalog.move("hold", full.rank[1:2])
    full.look()
    full.look()
    assert full.passes() == [] and full.state_of(full.rank[1]) == "held"
    assert full.linked() == [image for image in full.rank if image != full.rank[1]]


def gone_once(work, monkeypatch):
    def once(*arguments, **how):
        monkeypatch.undo()
        return work(*arguments, **how)
    return once


def test_a_catalog_that_cannot_be_written_costs_nothing(full, monkeypatch):
    best, = full.add(100)
    full.rank = [best] + full.rank[:-1]
    full.catalog.move("hold", full.rank[2:3])

    def refuse(*_arguments, **_more):
        raise sqlite3.OperationalError("database or disk is full")
    for allowed in (0, 1, 2):
        calls = []

        def note(*arguments, real=full.catalog.note_links, **more):
            calls.append(more)
            return (refuse if len(calls) > allowed else real)(*arguments, **more)
        monkeypatch.setattr(full.catalog, "note_links", note)
        with pytest.raises(sqlite3.Error):
            full.look()
        monkeypatch.undo()
    full.look()
    assert full.passes() == []
    assert full.linked() == full.rank[:2] + full.rank[3:]
    assert all(link == Link(link.name, link.image, 1) for link in full.catalog.outbox_links())
