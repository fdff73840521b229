"""A file is the old one or the new one, never a part, whatever happens while it is replaced."""

import hashlib
import os
import signal
import subprocess
import sys

import pytest

from jetson_cluster import files


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "queue.csv")


def read(path):
    with open(path, "rb") as stream:
        return stream.read()


def test_a_file_is_made_and_replaced_and_nothing_else_is_left(path, tmp_path):
    for content in (b"old", b"", b"new" * 10 ** 6):
        files.write_atomically(path, content)
        assert read(path) == content
    assert os.listdir(str(tmp_path)) == ["queue.csv"]


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_the_umask_decides_who_may_read_it(path, umask, mode):
    before = os.umask(umask)
    try:
        files.write_atomically(path, b"x")
    finally:
        os.umask(before)
    assert os.stat(path).st_mode & 0o777 == mode


def test_what_a_power_cut_left_behind_is_removed_not_gathered(path, tmp_path):
    (tmp_path / ".queue.csv.tmp").write_bytes(b"half of it")
    files.write_atomically(path, b"x")
    assert os.listdir(str(tmp_path)) == ["queue.csv"] and read(path) == b"x"


def test_a_leftover_that_may_not_be_written_to_blocks_nothing(path, tmp_path):
    """Another user's file, or a link to one: removing needs only the folder, and leads nowhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"not ours")
    for leave in (lambda left: left.symlink_to(elsewhere),
                  lambda left: os.link(str(elsewhere), str(left))):
        leave(tmp_path / ".queue.csv.tmp")
        files.write_atomically(path, b"x")
        assert read(path) == b"x" and elsewhere.read_bytes() == b"not ours"
        assert sorted(os.listdir(str(tmp_path))) == ["elsewhere", "queue.csv"]


def test_of_two_writers_at_once_the_first_fails_and_the_bytes_are_never_mixed(path, tmp_path):
    def write(stream):
        stream.write(b"first " * 10000)
        files.write_atomically(path, b"second")
        stream.write(b"first " * 10000)

    with pytest.raises(OSError, match="another program writes the same file"):
        files.replace_atomically(path, write)
    assert read(path) == b"second" and os.listdir(str(tmp_path)) == ["queue.csv"]


def test_a_file_that_appears_at_the_last_moment_is_not_written_into(path, tmp_path, monkeypatch):
    (tmp_path / ".queue.csv.tmp").write_bytes(b"the other's")
    monkeypatch.setattr(os, "unlink", lambda _: None)  # as if it appeared after that
    with pytest.raises(FileExistsError):
        files.write_atomically(path, b"x")
    assert (tmp_path / ".queue.csv.tmp").read_bytes() == b"the other's"


def test_a_writer_that_is_overtaken_leaves_the_others_unfinished_file_alone(path, tmp_path):
    def write(stream):
        os.unlink(str(tmp_path / ".queue.csv.tmp"))
        (tmp_path / ".queue.csv.tmp").write_bytes(b"half of the other's")

    files.write_atomically(path, b"old")
    with pytest.raises(OSError):
        files.replace_atomically(path, write)
    assert read(path) == b"old"
    assert (tmp_path / ".queue.csv.tmp").read_bytes() == b"half of the other's"


def test_the_file_is_on_disk_before_it_is_renamed_and_its_folder_after(path, tmp_path, monkeypatch):
    """The one thing no test can see without cutting the power: what is asked of the disk, and when."""
    asked = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(descriptor):
        found = os.fstat(descriptor)
        folder = os.path.samestat(found, os.stat(str(tmp_path)))
        asked.append("sync folder" if folder else "sync %d bytes" % found.st_size)
        fsync(descriptor)

    def note_rename(source, target):
        asked.append("rename to " + os.path.basename(target))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    files.write_atomically(path, b"x" * 1234)
    assert asked == ["sync 1234 bytes", "rename to queue.csv", "sync folder"]


def test_a_name_that_is_not_utf8_can_be_written_to(tmp_path):
    path = os.path.join(str(tmp_path), os.fsdecode(b"caf\xe9.csv"))
    files.write_atomically(path, b"x")
    assert read(path) == b"x"


@pytest.mark.parametrize(
    "error", [ValueError("half way"), OSError("half way"), KeyboardInterrupt()])
def test_a_writer_that_fails_half_way_leaves_the_old_file_alone(path, tmp_path, error):
    files.write_atomically(path, b"old")

    def write(stream):
        stream.write(b"half")
        raise error

    with pytest.raises(type(error)):
        files.replace_atomically(path, write)
    assert read(path) == b"old" and os.listdir(str(tmp_path)) == ["queue.csv"]


def test_a_place_that_cannot_be_written_to_is_an_error_and_stays_as_it_was(path, tmp_path):
    with pytest.raises(FileNotFoundError):
        files.write_atomically(str(tmp_path / "absent" / "queue.csv"), b"x")
    os.mkdir(path)
    with pytest.raises(OSError):
        files.write_atomically(path, b"x")
    assert os.path.isdir(path) and os.listdir(str(tmp_path)) == ["queue.csv"]


def run(code, *arguments):
    """Start a Python of its own with this checkout's modules."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(files.__file__)))
    return subprocess.Popen([sys.executable, "-c", code] + list(arguments),
                            stdout=subprocess.PIPE, env=dict(os.environ, PYTHONPATH=root))


def test_a_disk_that_takes_no_more_leaves_the_old_file_whole(path, tmp_path):
    """The system's limit on file sizes fails a write as a full disk does, after a part."""
    files.write_atomically(path, b"old")
    limited = run(
        "import resource, sys\n"
        "from jetson_cluster import files\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))\n"
        "try:\n"
        "    files.write_atomically(sys.argv[1], b'new' * 10 ** 6)\n"
        "except OSError as error:\n"
        "    print(error.strerror)\n", path)
    said, _ = limited.communicate()
    assert said == b"File too large\n"
    assert read(path) == b"old" and os.listdir(str(tmp_path)) == ["queue.csv"]


def test_a_kill_while_it_is_replaced_leaves_one_whole_version(path):
    """Killed at 20 different moments; each version says how long it is and is of one letter."""
    writer_code = (
        "import sys\n"
        "from jetson_cluster import files\n"
        "for version in range(10 ** 9):\n"
        "    letter = b'%d' % (version % 10)\n"
        "    files.replace_atomically(sys.argv[1], lambda stream: [\n"
        "        stream.write(letter * 50000) for _ in range(4)])\n"
        "    print(version, flush=True)\n")
    for turn in range(20):
        writer = run(writer_code, path)
        for _ in range(1 + turn % 3):
            writer.stdout.readline()
        for _ in range(turn * 300):  # not always right after a version
            os.stat(path)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        content = read(path)
        assert len(content) == 200000 and len(set(content)) == 1


def test_the_digest_is_that_of_the_content(tmp_path):
    path = tmp_path / "model.onnx"
    for content in (b"", b"x" * (1 << 20), os.urandom((1 << 20) + 7)):
        path.write_bytes(content)
        assert files.sha256_of(str(path)) == hashlib.sha256(content).hexdigest()
    with pytest.raises(OSError):
        files.sha256_of(str(tmp_path))
