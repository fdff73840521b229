"""A file goes only if it holds what was meant; whatever else is found there stays, by its name."""

import errno
import hashlib
import os

import pytest
from rover import until

from jetson_cluster import removal as module
from jetson_cluster.link_folder import look_at
from jetson_cluster.removal import ABSENT, GONE, OTHER, aside_of, put_back, remove
from jetson_cluster.walker import is_passed_over
from jetson_cluster.watcher import Watcher

OLD, OTHERS, NEW = b"acknowledged", b"never seen..", b"a new picture"
NAMES = ["a.jpg", "name without end", "x" * 251 + ".jpg", os.fsdecode(b"\xff\xfe.jpg"),
         os.fsdecode(b"\xff" * 255)]


class Inbox:
    """A folder with one file below it that is to be removed."""

    def __init__(self, folder, name="a.jpg", content=OLD):
        self.folder, self.below = str(folder), os.path.join("sol", name)
        self.path = os.path.join(self.folder, self.below)
        os.makedirs(os.path.dirname(self.path))
        self.write(OLD)
        self.look = look_at(self.path)
        if content != OLD:
            self.write(content)
            os.utime(self.path, ns=(self.look[1], self.look[1]))

    def write(self, content):
        """As a camera does: under another name, then into place."""
        part = os.path.join(self.folder, "a.part")
        with open(part, "wb") as stream:
            stream.write(content)
        os.replace(part, self.path)

    def remove(self):
        return remove(self.folder, self.below, self.look, hashlib.sha256(OLD).hexdigest())

    def put_back(self):
        return put_back(self.folder, self.below)

    def files(self):
        """Name to content, of the file's folder."""
        found = {}
        for entry in os.scandir(os.path.dirname(self.path)):
            with open(entry.path, "rb") as stream:
                found[entry.name] = stream.read()
        return found

    @property
    def name(self):
        return os.path.basename(self.path)


class Killed(BaseException):
    """The program ends here."""


@pytest.fixture
def inbox(tmp_path):
    return Inbox(tmp_path)


def before(monkeypatch, call, act, times=1):
    """Have `act` happen just before the next `times` calls of os.CALL."""
    real, left = getattr(os, call), [times]

    def first(*arguments, **more):
        if left[0]:
            left[0] -= 1
            act()
        return real(*arguments, **more)
    monkeypatch.setattr(os, call, first)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_meant_goes_and_nothing_beside_it(tmp_path, name):
    inbox = Inbox(tmp_path, name)
    os.link(inbox.path, os.path.join(inbox.folder, "sol", "other.jpg"))
    assert inbox.remove() == GONE
    assert inbox.files() == {"other.jpg": OLD}


@pytest.mark.parametrize("name", NAMES)
def test_other_content_of_the_same_size_and_time_stays_the_file_it_was(tmp_path, name):
    inbox = Inbox(tmp_path, name, OTHERS)
    before = os.stat(inbox.path)
    assert look_at(inbox.path) == inbox.look and inbox.remove() == OTHER
    after = os.stat(inbox.path)
    assert inbox.files() == {inbox.name: OTHERS}
    assert (after.st_ino, after.st_mtime_ns, after.st_nlink) == (
        before.st_ino, before.st_mtime_ns, 1)


@pytest.mark.parametrize("change", ["size", "time"])
def test_a_file_that_looks_otherwise_is_not_even_renamed(inbox, monkeypatch, change):
    if change == "size":
        inbox.write(NEW)
    else:
        os.utime(inbox.path, (1, 1))
    monkeypatch.setattr(os, "rename", None)
    assert inbox.remove() == OTHER and len(inbox.files()) == 1


@pytest.mark.parametrize("there", ["nothing", "no folder", "a file for a folder", "a link",
                                   "a link for a folder", "a FIFO", "a folder"])
def test_what_is_no_file_is_left_alone(inbox, tmp_path, there):
    elsewhere = tmp_path / "elsewhere"
    os.rename(os.path.dirname(inbox.path), str(elsewhere))
    if there == "a file for a folder":
        (tmp_path / "sol").write_bytes(b"x")
    elif there == "a link for a folder":
        (tmp_path / "sol").symlink_to(elsewhere)
    elif there != "no folder":
        (tmp_path / "sol").mkdir()
        {"nothing": lambda: None, "a FIFO": lambda: os.mkfifo(inbox.path),
         "a folder": lambda: os.mkdir(inbox.path),
         "a link": lambda: os.symlink(str(elsewhere / "a.jpg"), inbox.path)}[there]()
    still = os.path.lexists(inbox.path)
    assert inbox.remove() == (OTHER if there in ("a link", "a FIFO", "a folder") else ABSENT)
    assert inbox.put_back() is False
    assert os.path.lexists(inbox.path) == still and (elsewhere / "a.jpg").read_bytes() == OLD


def test_a_root_that_is_not_there_is_told(inbox, tmp_path):
    for call in (inbox.remove, inbox.put_back):
        inbox.folder = str(tmp_path / "gone")
        with pytest.raises(FileNotFoundError):
            call()


# ---- cameras beside it -------------------------------------------------------------------------


def test_a_picture_that_comes_between_look_and_removal_stays(inbox, monkeypatch):
    before(monkeypatch, "rename", lambda: inbox.write(NEW))
    assert inbox.remove() == OTHER
    assert inbox.files() == {"a.jpg": NEW}


def test_one_that_vanishes_between_look_and_removal_is_absent(inbox, monkeypatch):
    before(monkeypatch, "rename", lambda: os.unlink(inbox.path))
    assert inbox.remove() == ABSENT and inbox.files() == {}


def test_a_picture_that_comes_while_the_old_one_is_aside_stays(inbox, monkeypatch):
    before(monkeypatch, "unlink", lambda: inbox.write(NEW))
    assert inbox.remove() == GONE
    assert inbox.files() == {"a.jpg": NEW}


@pytest.mark.parametrize("name, end", [("a.jpg", ".jpg"), ("a." + "x" * 200, ""), ("plain", "")])
@pytest.mark.parametrize("links", [True, False])
def test_two_new_pictures_at_once_are_both_kept(tmp_path, monkeypatch, caplog, name, end, links):
    inbox = Inbox(tmp_path, name, OTHERS)
    if not links:
        monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    before(monkeypatch, "fdopen", lambda: inbox.write(NEW))
    assert inbox.remove() == OTHER
    files = inbox.files()
    assert files.pop(inbox.name) == NEW
    (other, content), = files.items()
    assert content == OTHERS and other.startswith("put-back-") and other.endswith(end)
    assert not is_passed_over(other)
    assert [message.split(":")[0] for message in caplog.messages] == ["FileNameTaken"]
    assert other in caplog.text


def test_what_is_written_to_while_it_is_read_stays(inbox, monkeypatch):
    with open(inbox.path, "ab", buffering=0) as camera:
        before(monkeypatch, "fdopen", lambda: camera.write(b" and more"))
        assert inbox.remove() == OTHER
    assert inbox.files() == {"a.jpg": OLD + b" and more"}


def refusing(code):
    def refuse(*_arguments, **_more):
        raise OSError(code, os.strerror(code))
    return refuse


def test_without_hard_links_it_is_renamed_back(tmp_path, monkeypatch):
    inbox = Inbox(tmp_path, content=OTHERS)
    monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    assert inbox.remove() == OTHER and inbox.files() == {"a.jpg": OTHERS}


@pytest.mark.parametrize("call, code", [("rename", errno.EROFS), ("fdopen", errno.EIO),
                                        ("unlink", errno.EACCES)])
def test_what_cannot_be_read_or_deleted_stays_and_that_is_told(inbox, monkeypatch, call, code):
    before(monkeypatch, call, refusing(code))
    with pytest.raises(OSError) as told:
        inbox.remove()
    assert told.value.errno == code and inbox.files() == {"a.jpg": OLD}


def test_what_can_be_put_back_only_later_is_put_back_then(inbox, monkeypatch):
    monkeypatch.setattr(os, "unlink", refusing(errno.EIO))
    for _ in range(2):
        with pytest.raises(OSError):
            inbox.remove()
    assert inbox.files() == {"a.jpg": OLD, aside_of("a.jpg"): OLD}
    monkeypatch.undo()
    assert inbox.remove() == GONE and inbox.files() == {}


# ---- the end of the program --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jpg", NAMES[-1]])
@pytest.mark.parametrize("content", [OLD, OTHERS])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", ["rename", "link", "fsync", "unlink"])
@pytest.mark.parametrize("again", ["put_back", "remove"])
def test_a_kill_at_any_step_loses_nothing_and_leaves_nothing_aside(
        tmp_path, monkeypatch, name, content, after, step, again):
    inbox, real, reached = Inbox(tmp_path, name, content), getattr(os, step), []

    def end(*arguments, **more):
        if after:
            real(*arguments, **more)
        reached.append(step)
        raise Killed
    monkeypatch.setattr(os, step, end)
    if content == OLD and step in ("link", "fsync"):
        assert inbox.remove() == GONE and not reached  # nothing is put back
        return
    with pytest.raises(Killed):
        inbox.remove()
    monkeypatch.undo()
    if content == OLD and step == "unlink" and after:
        assert inbox.files() == {}
        return
    if again == "put_back":
        stood_aside = aside_of(inbox.name) in inbox.files()
        assert inbox.put_back() is stood_aside and inbox.put_back() is False
        assert inbox.files() == {inbox.name: content}
    else:
        assert inbox.remove() == (GONE if content == OLD else OTHER)
        assert inbox.files() == ({} if content == OLD else {inbox.name: content})


def test_a_new_picture_keeps_its_name_when_the_old_one_is_put_back(inbox, monkeypatch):
    before(monkeypatch, "fdopen", refusing(errno.EIO))
    monkeypatch.setattr(module, "_put_back", refusing(errno.EIO))
    with pytest.raises(OSError):
        inbox.remove()
    monkeypatch.undo()
    inbox.write(NEW)
    assert inbox.put_back() is True
    files = inbox.files()
    assert files.pop("a.jpg") == NEW and list(files.values()) == [OLD]


# ---- the inbox beside it -----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_walks_pass_over_what_stands_aside(name):
    assert is_passed_over(aside_of(name)) and len(os.fsencode(aside_of(name))) <= 255


def test_events_tell_of_what_is_put_back_and_of_nothing_that_is_aside(tmp_path):
    inbox, hints = Inbox(tmp_path, content=OTHERS), []
    watcher = Watcher(inbox.folder, lambda path, hint: hints.append(path))
    watcher.start()
    try:
        assert inbox.remove() == OTHER
        end = os.path.join(inbox.folder, "end.jpg")
        os.link(inbox.path, end)
        until(lambda: end in hints)
    finally:
        watcher.stop()
    assert set(hints) == {inbox.path, end}
