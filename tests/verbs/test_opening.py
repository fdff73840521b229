"""What the verbs of operations tell those who may not write to the catalog."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest
from operated import Operations

from jetson_cluster import cli

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_disk_that_is_read_only_is_named_as_such_also_to_root(tmp_path, capsys):
    (tmp_path / "state").mkdir()
    if subprocess.call(["mount", "-t", "tmpfs", "disk", str(tmp_path / "state")]):
        pytest.skip("this root may not mount")
    try:
        with Operations(tmp_path) as rover:
            rover.add(100)
            rover.catalog.close()
            subprocess.check_call(["mount", "-o", "remount,ro", str(tmp_path / "state")])
            assert cli.main(["hold", "--config", str(rover.config()), "sol0000.jpg"]) == 1
        err = capsys.readouterr().err
        assert "mounted read-only" in err and "sudo" not in err and len(err.splitlines()) == 1
    finally:
        subprocess.check_call(["umount", str(tmp_path / "state")])


@AS_ROOT
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv here")
def test_root_that_may_not_become_the_owner_is_told_whom_to_run_it_as():
    with tempfile.TemporaryDirectory() as folder, Operations(pathlib.Path(folder)) as rover:
        os.chown(str(rover.state), 65534, 65534)
        done = subprocess.Popen(
            ["setpriv", "--bounding-set", "-setuid,-setgid", sys.executable, "-m",
             "jetson_cluster", "hold", "--config", str(rover.config()), "sol0000.jpg"],
            stderr=subprocess.PIPE)
        err = done.communicate(timeout=60)[1].decode()
        assert done.returncode == 2 and len(err.splitlines()) == 1
        assert "may not become another user; run it as user 65534" in err


@AS_ROOT
@pytest.mark.parametrize("verb", ["status", "queue"])
@pytest.mark.parametrize("place, mode, told", [
    ("state", 0o750, "may not read there; be in the group root, or run: sudo -u root"),
    ("state", 0o700, "may not read there; run: sudo -u root"),
    ("file", 0o640, "may not read it; be in the group root, or run: sudo -u root")])
def test_who_may_not_read_is_told_how_to(verb, place, mode, told):
    with tempfile.TemporaryDirectory() as folder, Operations(pathlib.Path(folder)) as rover:
        os.chmod(folder, 0o755)
        os.chmod(str(rover.state), 0o755)
        for name in ("queue.csv", "status.json", "lock"):
            (rover.state / name).write_text("")
            if place == "file":
                os.chmod(str(rover.state / name), mode)
        if place == "state":
            os.chmod(str(rover.state), mode)
        become = ("import os, sys; from jetson_cluster import cli; "
                  "from jetson_cluster.verbs import marks, queue, status; "
                  "os.setgroups([]); os.setgid(65534); os.setuid(65534); "
                  "sys.exit(cli.main(sys.argv[1:]))")
        words = [verb, "--config", str(rover.config())]
        done = subprocess.run([sys.executable, "-c", become] + words, stderr=subprocess.PIPE,
                              timeout=60)
        err = done.stderr.decode()
        assert done.returncode == 2 and len(err.splitlines()) == 1, err
        assert " belongs to user root, and this one %s jetson-cluster %s" % (
            told, " ".join(words)) in err


@AS_ROOT
def test_the_command_that_is_proposed_can_be_pasted_into_a_shell():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        with Operations(pathlib.Path(folder)) as rover:
            become = ("import os, sys; from jetson_cluster import cli; "
                      "from jetson_cluster.verbs import marks; os.setgid(65534); "
                      "os.setuid(65534); sys.exit(cli.main(sys.argv[1:]))")
            done = subprocess.Popen(
                [sys.executable, "-c", become, "hold", "--config", str(rover.config()),
                 "sol 0; rm.jpg"], stderr=subprocess.PIPE)
            err = done.communicate(timeout=60)[1].decode()
            assert done.returncode == 2 and err.rstrip().endswith(" 'sol 0; rm.jpg'")
