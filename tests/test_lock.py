"""One process at a time in a folder, and no trace of it once it has ended."""

import subprocess
import sys

import pytest

from jetson_cluster.errors import UserError
from jetson_cluster.lock import is_held, lock_folder


def test_a_lock_is_held_until_its_process_has_ended_whatever_number_that_had(tmp_path):
    assert not is_held(str(tmp_path))
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; from jetson_cluster.lock import lock_folder\n"
         "held = lock_folder(sys.argv[1]); print('held', flush=True); input()", str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"held\n"
    assert is_held(str(tmp_path)) and is_held(str(tmp_path))
    child.communicate(b"\n")
    with open(str(tmp_path / "lock"), "w") as stream:
        stream.write("1\n")  # a process that lives
    assert not is_held(str(tmp_path))


def test_looking_at_the_lock_leaves_it_to_the_daemon(tmp_path):
    lock_folder(str(tmp_path)).close()
    assert not is_held(str(tmp_path))
    with lock_folder(str(tmp_path)):
        assert is_held(str(tmp_path))


def test_a_lock_that_cannot_be_tried_is_named(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(UserError, match="unknown whether the daemon runs"):
        is_held(str(tmp_path))
