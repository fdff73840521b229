"""What the unit's sandbox leaves of the file system: units and drop-ins as people write them."""

import os
import shlex
import subprocess

import pytest

from jetson_cluster import config as settings
from jetson_cluster.doctor import contents, folders
from jetson_cluster.doctor import unit as units

PATH = "/etc/systemd/system/jetson-cluster.service"
PROBES = dict(folders.PROBES + contents.PROBES, config=contents.config)


@pytest.fixture
def shipped(computer, root):
    """A computer with the project's own unit."""
    computer.file(PATH, (root / "systemd" / "jetson-cluster.service").read_text())
    return computer


def service(computer, config, *lines):
    """Install a unit of these lines that runs with the config, as who looks."""
    computer.file(PATH, "[Service]\nUser=root\nExecStart=/x run --config %s\n%s\n" % (
        config, "\n".join(lines)))


def drop_in(computer, text, name="x.conf", folder="/etc/systemd/system"):
    computer.file("%s/jetson-cluster.service.d/%s" % (folder, name), text)


def unit_of(computer, *lines):
    computer.file(PATH, "[Service]\n" + "\n".join(lines))
    return units.installed(computer.machine)


def test_the_projects_unit_is_read_whole(shipped):
    found = units.installed(shipped.machine)
    assert found[:5] == (PATH, "jetson-cluster", ["video"], settings.DEFAULT_PATH,
                         ["/var/lib/jetson-cluster"])


@pytest.mark.parametrize("path, hidden, unwritable", [
    ("/var/lib/jetson-cluster/model.plan", "", ""), ("/opt/x", "", "ProtectSystem=strict"),
    ("/var/lib/jetson-clusters", "", "ProtectSystem=strict"), ("/dev/shm", "", ""),
    ("/home/rover/inbox", "ProtectHome=yes", ""), ("/root", "ProtectHome=yes", ""),
    ("/run/user/1000/x", "ProtectHome=yes", ""), ("/tmp/x", "PrivateTmp=yes", ""),
    ("/var/tmp/x", "PrivateTmp=yes", "")])
def test_the_projects_sandbox_is_what_systemd_makes_of_it(shipped, path, hidden, unwritable):
    found = units.installed(shipped.machine)
    assert found.hides(path) == hidden
    assert found.keeps_from_writing(path) == unwritable


@pytest.mark.parametrize("lines, path, hidden, unwritable", [
    ([], "/home/x", "", ""), (["ProtectSystem=no"], "/usr/x", "", ""),
    (["ProtectSystem=true"], "/usr/x", "", "ProtectSystem=true"),
    (["ProtectSystem=true"], "/etc/x", "", ""), (["ProtectSystem=full"], "/srv", "", ""),
    (["ProtectSystem=full"], "/etc/x", "", "ProtectSystem=full"),
    (["ProtectSystem=strict", "ProtectHome=no"], "/home/x", "", ""),
    (["ProtectHome=read-only"], "/home/x", "", "ProtectHome=read-only"),
    (["ProtectHome=tmpfs", "BindPaths=/home/x/in"], "/home/x/in/1", "", ""),
    (["ProtectHome=tmpfs", "BindPaths=/home/x/in"], "/home/x/out", "ProtectHome=tmpfs", ""),
    (["ProtectHome=yes", "BindPaths=/home/x/in"], "/home/x/in", "ProtectHome=yes", ""),
    (["BindReadOnlyPaths=-/srv/a:/data"], "/data/x", "", "BindReadOnlyPaths=-/srv/a:/data"),
    (["PrivateTmp=yes", "BindPaths=/tmp/in:/tmp/in"], "/tmp/in", "", ""),
    (["ProtectSystem=strict", "ReadWritePaths=-/usr -/nowhere"], "/usr/x", "", ""),
    (["ProtectSystem=strict", "ReadWritePaths=-/usr -/nowhere"], "/nowhere", "",
     "ProtectSystem=strict"),
    (["ProtectSystem=strict", "ReadWritePaths=/usr", "ReadOnlyPaths=/usr/lib"], "/usr/lib/x", "",
     "ReadOnlyPaths=/usr/lib"),
    (["ProtectSystem=strict", "ReadWritePaths=/usr", "ReadWritePaths="], "/usr/x", "",
     "ProtectSystem=strict"),
    (["InaccessiblePaths=-/mnt"], "/mnt/card", "InaccessiblePaths=-/mnt", ""),
    (["TemporaryFileSystem=/mnt:ro"], "/mnt/card", "TemporaryFileSystem=/mnt:ro", ""),
    (["ProtectSystem=strict", "CacheDirectory=a b"], "/var/cache/b/x", "", "")])
def test_each_directive_means_what_the_manual_says(computer, lines, path, hidden, unwritable):
    found = unit_of(computer, *lines)
    assert (found.hides(path), found.keeps_from_writing(path)) == (hidden, unwritable)


def test_drop_ins_add_and_replace_in_the_order_of_their_names(computer):
    drop_in(computer, "[Service]\nUser=second\nProtectHome=\n", "20-b.conf", "/run/systemd/system")
    drop_in(computer, "[Service]\n# User=none\nUser=first\nSupplementaryGroups=i2c\nExecStart=\n"
            "ExecStart=/x run \\\n  --config /elsewhere.yaml\n", "10-a.conf")
    drop_in(computer, "[Service]\nUser=hidden\n", "10-a.conf", "/lib/systemd/system")
    drop_in(computer, "[Service]\nUser=no drop-in\n", "30-c.txt")
    found = unit_of(computer, "User=unit", "SupplementaryGroups=video", "ProtectHome=yes",
                    "ExecStart=/x run --config /unit.yaml", "[Install]", "User=another section")
    assert (found.user, found.more_groups, found.config) == (
        "second", ["video", "i2c"], "/elsewhere.yaml")
    assert found.hides("/home/x") == ""


def test_a_symlink_is_followed_to_where_it_leads(computer, tmp_path):
    (tmp_path / "link").symlink_to("/root")
    assert unit_of(computer, "ProtectHome=yes").hides(str(tmp_path / "link" / "x"))


@pytest.mark.parametrize("name, override", [
    ("state_dir", "state_dir={}"), ("queue", "queue.path={}/queue.csv")])
def test_a_folder_outside_what_the_service_may_write_to_is_bad_with_the_drop_in(
        computer, config, tmp_path, name, override):
    place = tmp_path / "a place"
    service(computer, config, "ProtectSystem=strict")
    case = computer.case(config, override.format(place))
    finding = PROBES[name](case)
    assert (finding.level, finding.fault) == ("bad", "config")
    assert "cannot write to it, because of ProtectSystem=strict" in finding.found
    # The mend, done as it is to be typed, but into the folder of this computer.
    words = finding.mend.replace("sudo systemctl", "true").replace("sudo ", "").replace(
        units.DROP_INS, shlex.quote(str(computer.root) + units.DROP_INS))
    subprocess.check_call(words, shell=True, stdout=subprocess.DEVNULL)
    assert PROBES[name](computer.case(config, override.format(place))).level == "ok"


@pytest.mark.parametrize("name, key, level", [
    ("state_dir", "state_dir", "bad"), ("queue", "queue.path", "bad"),
    ("inbox", "inbox.path", "bad"), ("model", "model", "bad"), ("codebook", "codebook", "warn"),
    ("policy", "policy", "warn")])
def test_what_the_service_does_not_see_is_told_with_another_place(
        computer, config, tmp_path, name, key, level):
    place = tmp_path / "hidden"
    place.mkdir()
    service(computer, config, "InaccessiblePaths=%s" % place)
    finding = PROBES[name](computer.case(config, "%s=%s/x/y" % (key, place)))
    assert finding.level == level and "InaccessiblePaths" in finding.found
    assert finding.mend.startswith("put it elsewhere, such as at /") and key in finding.mend


def test_a_config_that_the_service_does_not_see_is_told(computer, config):
    service(computer, config, "InaccessiblePaths=%s" % config.parent)
    finding = PROBES["config"](computer.case(config))
    assert finding.fault == "config" and "does not see it, because of Inacc" in finding.found


def test_an_inbox_that_is_only_read_need_not_be_writable(computer, config):
    service(computer, config, "ProtectSystem=strict")
    assert PROBES["inbox"](computer.case(config)).level == "ok"


def test_the_sandbox_is_of_no_concern_for_another_config(computer, config, tmp_path):
    service(computer, tmp_path / "another.yaml", "ProtectSystem=strict",
            "InaccessiblePaths=%s" % config.parent)
    case = computer.case(config)
    assert PROBES["state_dir"](case).level == PROBES["inbox"](case).level == "ok"
    assert os.path.isdir(str(config.parent / "inbox"))
