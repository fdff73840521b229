"""The disk is really full, at any write: the daemon pauses, says so once, and goes on with room.

Three ways to be full: every operation that needs room fails from the n-th on (interpose.c, with the
errors a disk gives); no file may grow beyond a size (RLIMIT_FSIZE); and a file system that is full,
where the test may mount one.
"""

import collections
import os
import shutil
import subprocess

import faults
import pytest


def check_log(log):
    """Each trouble is told once when it begins, and its end once."""
    told = collections.Counter(line.split(":")[0] for line in log)
    assert max(told.values(), default=0) <= 1, log


def test_a_disk_that_is_full_at_any_write_costs_time_and_nothing_else(stage):
    stage.restore("busy")
    needed = stage.run("count_operations", trace=stage.trace).returned
    paused, every = 0, 1 if faults.SOAK else 4
    for skip in range(faults.MINOR % every, needed, every):
        told = stage.restore("busy")
        worked = stage.run("work_without_room", skip, below=stage.own)
        check_log(worked.log)
        paused += worked.returned
        stage.run("recover", told)
    print("full from any of %d operations on; it waited for room %d times" % (
        -(-needed // every), paused))
    assert paused > 0, "it never had to wait for room"


def test_files_that_may_not_grow_cost_time_and_nothing_else(stage):
    for most_bytes in range(0, 200000, 1000 if faults.SOAK else 20000):
        told = stage.restore("busy")
        worked = stage.run("work_within_a_size", most_bytes)
        check_log(worked.log)
        stage.run("recover", told)


@pytest.fixture
def small_disk(stage):
    """A file system of 2 MB in place of the daemon's folder; skips where none may be mounted."""
    stage.told = stage.restore("busy")
    aside = stage.own + ".aside"
    os.rename(stage.own, aside)
    os.mkdir(stage.own)
    mounted = subprocess.call(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", stage.own],
                              stderr=subprocess.DEVNULL) if shutil.which("mount") else 1
    if mounted != 0:
        os.rmdir(stage.own)
        os.rename(aside, stage.own)
        pytest.skip("no file system may be mounted here: a disk that is really full was NOT tested "
                    "(needs root; interpose.c stood in for it)")
    for name in os.listdir(aside):
        shutil.move(os.path.join(aside, name), stage.own)
    yield stage
    subprocess.check_call(["umount", stage.own])
    shutil.rmtree(aside)


def test_a_file_system_that_is_full_costs_time_and_nothing_else(small_disk):
    worked = small_disk.run("work_on_a_full_file_system")
    check_log(worked.log)
    assert worked.returned
    small_disk.run("recover", small_disk.told)
