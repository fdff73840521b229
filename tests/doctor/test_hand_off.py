"""What the doctor says of the ways in and out: orders, outbox, deleting, journal, status.prom."""

import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

from jetson_cluster.doctor import hand_off
from jetson_cluster.journal import FILE_NAME, Entry, Journal

PROBES = dict(hand_off.PROBES)
SERVICE = "/etc/systemd/system/jetson-cluster.service"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")


def finding_of(name, computer, config, *overrides):
    return PROBES[name](computer.case(config, *overrides))


def service(computer, config, *lines, user="rover"):
    computer.file(SERVICE, "[Service]\nUser=%s\nExecStart=/x run --config %s\n%s\n" % (
        user, config, "\n".join(lines)))


def done(mend):
    """What is to be typed, done as it is written, as far as a test may."""
    subprocess.check_call(mend.split("   #")[0].replace("sudo ", ""), shell=True)


@pytest.fixture
def rover(config):
    """The folder of a rover with an outbox."""
    folder = config.parent
    (folder / "outbox").mkdir()
    (folder / "outbox").chmod(0o2770)
    config.write_text(config.read_text() + "outbox: {path: outbox}\n"
                      "retention: {free_bytes: 1000}\n")
    return folder


@pytest.fixture
def strangers(rover):
    """The same where everybody may enter; it belongs to others, the daemon is in their group."""
    place = pathlib.Path(tempfile.mkdtemp(prefix="doctor-"))
    folder = place / "rover"
    shutil.copytree(str(rover), str(folder))
    for open_to_all in (place, folder):
        open_to_all.chmod(0o755)
    for name in ("inbox", "outbox", "orders"):
        os.chown(str(folder / name), 77001, 77001)
    image = folder / "inbox" / "a.jpg"
    image.write_bytes(b"x")
    os.chown(str(image), 77002, 77001)
    image.chmod(0o664)
    yield folder
    shutil.rmtree(str(place))


def test_what_is_right_is_named(computer, config, rover):
    for name in ("orders", "outbox", "retention", "journal"):
        assert finding_of(name, computer, config).level == "ok", name
    assert finding_of("status.prom", computer, config).level == "skip"
    assert finding_of("outbox", computer, config).found == "%s, for 4.0 MB of images" % (
        rover / "outbox")


def test_what_is_not_wanted_is_not_missed(computer, config):
    for name in ("outbox", "retention"):
        assert finding_of(name, computer, config, "retention.free_bytes=0").level == "skip", name


@pytest.mark.parametrize("name", ["orders", "outbox"])
def test_a_folder_that_is_not_there_is_told_with_the_command_that_makes_it(
        computer, config, rover, name):
    (rover / name).rmdir()
    finding = finding_of(name, computer, config)
    assert finding.level == "warn" and "not there" in finding.found
    if os.geteuid() == 0:
        done(finding.mend)
        assert finding_of(name, computer, config).level == "ok"


@pytest.mark.parametrize("name", ["orders", "outbox"])
def test_a_file_in_a_folders_place_is_told(computer, config, rover, name):
    (rover / name).rmdir()
    (rover / name).write_text("")
    finding = finding_of(name, computer, config)
    assert finding.level == "warn" and "is no folder" in finding.found


@pytest.mark.parametrize("name, mode, told", [
    ("orders", 0o755, "only its owner may write"), ("outbox", 0o755, "only its owner may write"),
    ("outbox", 0o3770, "sticky")])
def test_a_folder_that_the_group_cannot_work_in_is_told(
        computer, config, rover, name, mode, told):
    (rover / name).chmod(mode)
    finding = finding_of(name, computer, config)
    assert finding.level == "warn" and told in finding.found
    done(finding.mend)
    assert finding_of(name, computer, config).level == "ok"


@as_root
@pytest.mark.parametrize("name", ["orders", "outbox"])
def test_a_folder_that_the_daemon_may_not_write_to_is_told(computer, strangers, name):
    service(computer, strangers / "config.yaml")
    assert finding_of(name, computer, strangers / "config.yaml").level == "ok"
    os.chown(str(strangers / name), 0, 0)
    finding = finding_of(name, computer, strangers / "config.yaml")
    assert finding.level == "warn" and "user rover may not" in finding.found


@as_root
@pytest.mark.parametrize("mode, protected, level", [
    (0o664, "1", "ok"), (0o644, "1", "warn"), (0o644, "0", "ok")])
def test_images_that_the_kernel_allows_no_links_to_are_told(
        computer, strangers, mode, protected, level):
    service(computer, strangers / "config.yaml")
    computer.file("/proc/sys/fs/protected_hardlinks", protected + "\n")
    (strangers / "inbox" / "a.jpg").chmod(mode)
    (strangers / "inbox" / ".hidden.jpg").write_bytes(b"never looked at")
    finding = finding_of("outbox", computer, strangers / "config.yaml")
    assert finding.level == level
    if level == "warn":
        assert "protected_hardlinks" in finding.found and "umask 002" in finding.mend
        done(finding.mend.split("now: ")[1])
        assert finding_of("outbox", computer, strangers / "config.yaml").level == "ok"


@as_root
def test_the_kernel_is_as_strict_as_the_doctor_says(strangers):
    if open("/proc/sys/fs/protected_hardlinks").read().strip() != "1":
        pytest.skip("this kernel allows all links")
    image = str(strangers / "inbox" / "a.jpg")

    def link(mode):
        os.chmod(image, mode)
        return subprocess.call(["setpriv", "--reuid=77001", "--regid=77001", "--clear-groups", "ln",
                                image, str(strangers / "outbox" / oct(mode))],
                               stderr=subprocess.DEVNULL)
    assert (link(0o644), link(0o664)) == (1, 0)


def test_an_outbox_on_another_file_system_is_told(computer, config, rover):
    finding = finding_of("outbox", computer, config, "outbox.path=/dev/shm")
    assert finding.level == "warn"
    if os.stat("/dev/shm").st_dev == os.stat(str(rover)).st_dev or \
            not os.access("/dev/shm", os.W_OK):
        pytest.skip("no other file system to write to here")
    (rover / "inbox").chmod(0o3770)
    computer.file("/proc/self/mounts", "/dev/root / ext4 rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n")
    probe = hand_off._shared
    try:
        hand_off._shared = lambda *_arguments: None  # /dev/shm is sticky, which is told first
        finding = finding_of("outbox", computer, config, "outbox.path=/dev/shm")
    finally:
        hand_off._shared = probe
    assert "on /dev/shm; the inbox is on /" in finding.found


def test_a_mount_of_its_own_is_told_though_it_is_the_same_file_system(computer, config, rover):
    computer.file("/proc/self/mounts", "/dev/root / ext4 rw 0 0\n/dev/root %s ext4 rw 0 0\n" % (
        rover / "outbox"))
    finding = finding_of("outbox", computer, config)
    assert finding.level == "warn" and "no hard link leads" in finding.found


def test_a_file_system_without_links_is_told(computer, config, rover):
    computer.file("/proc/self/mounts",
                  "/dev/root / ext4 rw 0 0\n/dev/sda1 %s vfat rw 0 0\n" % rover)
    finding = finding_of("outbox", computer, config)
    assert finding.level == "warn" and "vfat, which has no hard links" in finding.found


def test_a_sandbox_that_mounts_inbox_and_outbox_apart_is_told(computer, config, rover):
    user = "root"
    apart = ["ProtectSystem=strict", "ReadWritePaths=%s %s" % (rover / "inbox", rover / "outbox")]
    service(computer, config, *apart, user=user)
    finding = finding_of("outbox", computer, config)
    assert finding.level == "warn" and "mounted apart" in finding.found
    assert "ReadWritePaths=" in finding.found
    service(computer, config, "ProtectSystem=strict", "ReadWritePaths=%s" % rover, user=user)
    assert finding_of("outbox", computer, config).level == "ok"


@pytest.mark.parametrize("name", ["orders", "outbox", "status.prom"])
def test_a_sandbox_that_keeps_from_writing_is_told(computer, config, rover, name):
    service(computer, config, "ProtectSystem=strict", user="root")
    (rover / "metrics").mkdir()
    finding = finding_of(name, computer, config, "status.prom=%s" % (rover / "metrics" / "x.prom"))
    assert finding.level == "warn" and "because of ProtectSystem=strict" in finding.found


# ---- room
# --------------------------------------------------------------------------------------------


def test_too_little_room_is_told(computer, config, rover, monkeypatch):
    held = os.statvfs(str(rover))

    def said(_folder):
        fields = list(held[:10])
        fields[1], fields[2], fields[4] = 1, 10 ** 10, 9 * 10 ** 8
        return os.statvfs_result(fields)
    monkeypatch.setattr(hand_off.os, "statvfs", said)
    finding = finding_of("retention", computer, config, "retention.free_bytes=1000000000")
    assert finding.level == "warn" and "0.9 GB free of 10.0 GB, 1.0 GB to be kept" in finding.found
    finding = finding_of("retention", computer, config, "retention.free_bytes=10000000000")
    assert finding.level == "warn" and "no larger than that" in finding.found
    assert "2000000000 or less" in finding.mend
    assert finding_of("retention", computer, config, "retention.free_bytes=800000000").level == "ok"


def test_that_unreceived_images_may_be_deleted_is_said(computer, config, rover):
    found = finding_of("retention", computer, config).found
    assert "never received" not in found
    found = finding_of("retention", computer, config,
                       "retention.unacknowledged=delete-images-the-ground-never-received").found
    assert "also images that the ground never received are deleted" in found


@as_root
@pytest.mark.parametrize("owner, mode, told", [
    (0, 0o755, "may not write to it"), (77002, 0o3770, "sticky and another user's")])
def test_an_inbox_from_which_nothing_can_be_deleted_is_told(
        computer, strangers, owner, mode, told):
    service(computer, strangers / "config.yaml")
    assert finding_of("retention", computer, strangers / "config.yaml").level == "ok"
    os.chown(str(strangers / "inbox"), owner, 77001)
    (strangers / "inbox").chmod(mode)
    finding = finding_of("retention", computer, strangers / "config.yaml")
    assert finding.level == "warn" and told in finding.found


def test_an_inbox_that_the_service_may_only_read_is_told(computer, config, rover):
    service(computer, config, "ProtectSystem=strict", user="root")
    finding = finding_of("retention", computer, config)
    assert finding.level == "warn" and "because of ProtectSystem=strict" in finding.found


def test_without_an_inbox_there_is_nothing_to_measure(computer, config, rover):
    (rover / "inbox").rmdir()
    assert finding_of("retention", computer, config).level == "skip"
    assert finding_of("outbox", computer, config).level == "skip"


# ---- journal and status
# ------------------------------------------------------------------------------


@pytest.fixture
def journal(rover):
    (rover / "state").mkdir()
    path = rover / "state" / FILE_NAME
    Journal(str(path)).append([Entry("sent", "ab", 1, ""), Entry("acked", "ab", 1, "")])
    return path


def test_a_journal_is_counted_and_its_damage_told(computer, config, journal):
    assert finding_of("journal", computer, config).found == "%s, 2 entries" % journal
    journal.write_bytes(journal.read_bytes().replace(b"acked", b"Acked"))
    finding = finding_of("journal", computer, config)
    assert finding.level == "warn" and "1 entries, and 1 lines that cannot be read" in finding.found


@as_root
def test_a_journal_that_the_daemon_may_not_write_is_bad(computer, journal, strangers):
    service(computer, strangers / "config.yaml")
    journal = strangers / "state" / FILE_NAME
    finding = finding_of("journal", computer, strangers / "config.yaml")
    assert finding.level == "bad" and finding.fault == "world"
    assert finding.mend == "sudo chown rover %s" % journal


def test_a_folder_for_the_status_that_is_not_there_is_told(computer, config, rover):
    place = rover / "metrics" / "cluster.prom"
    finding = finding_of("status.prom", computer, config, "status.prom=%s" % place)
    assert finding.level == "warn" and "the folder is not there" in finding.found
    place.parent.mkdir()
    assert finding_of("status.prom", computer, config, "status.prom=%s" % place) == (
        "ok", str(place), "", "", "", "")
