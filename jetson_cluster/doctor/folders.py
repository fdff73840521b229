"""The folders the config names: may the daemon use them, is there room, what are they on.

In: a Case. Out: one finding a probe. Nothing is made and nothing is written.
"""

import os
import re
import shlex
from typing import Tuple

from jetson_cluster import lock
from jetson_cluster.doctor.case import Case, with_config
from jetson_cluster.doctor.catalog import remembered_mount
from jetson_cluster.doctor.findings import CONFIG, OK, WORLD, Finding, bad, ok, skip, warn
from jetson_cluster.doctor.people import ENTER, READ, WRITE
from jetson_cluster.errors import UserError

IMAGE_BYTES = 7500  # of the catalog, for one image with 2,048 numbers (README, "Formats")
LITTLE_BYTES = 100000 * IMAGE_BYTES
NOTHING_BYTES = 200 * IMAGE_BYTES
# SQLite's write-ahead log wants memory that all processes share, which these do not give.
NETWORK_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph")
MOST_NAMES = 200000  # looked at in the inbox when folders are counted


def state_dir(case: Case) -> Finding:
    folder = case.config.state_dir
    found = usable(case, "state_dir", folder)
    if found.level != OK:
        return found
    system = mount_of(case, folder)[1]
    if system in NETWORK_SYSTEMS:
        return warn("%s, on a network file system (%s)" % (folder, system),
                    "a disk of this computer: the catalog's write-ahead log does not work over a "
                    "network", "set state_dir to a folder on a local disk")
    return found._replace(found=found.found + (" (%s)" % system if system else ""))


def queue(case: Case) -> Finding:
    path = case.config.queue.path
    folder = os.path.dirname(path)
    if folder == case.config.state_dir:
        return skip("%s, in state_dir" % path)
    finding = usable(case, "queue.path", folder)
    return finding._replace(found=path) if finding.level == OK else finding


def usable(case: Case, key: str, folder: str) -> Finding:
    """Whether the daemon may write there, or make it; it does so at its start."""
    person = case.person
    if case.serves and folder in case.unit.state_folders and not os.path.lexists(folder):
        return ok("%s: systemd makes it at the first start" % folder)
    barred = case.unwritable(key, folder)
    if barred:
        return barred
    there = folder
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    needed = "a folder that user %s may write to" % person.name
    if not os.path.isdir(there):
        return bad(CONFIG, "%s: %s is no folder" % (folder, there), needed,
                   "set %s to another place" % key)
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        return bad(WORLD, "%s: mounted read-only" % folder, needed,
                   "sudo mount -o remount,rw %s   # dmesg says if the disk is failing" % (
                       shlex.quote(mount_of(case, there)[0])))
    closed = person.stopped_at(os.path.join(there, "x"))
    if closed:
        return bad(CONFIG, "%s: user %s may not enter %s" % (folder, person.name, closed), needed,
                   "set %s to another place" % key)
    if not person.may(there, WRITE | ENTER):
        return bad(CONFIG, "%s: user %s may not %s" % (
            folder, person.name, "write to it" if there == folder else "make it in %s" % there),
            needed, "sudo install -d -o %s %s   # or set %s to another place" % (
                shlex.quote(person.name), shlex.quote(folder), key))
    return ok(folder if there == folder else "%s: is made at the first start" % folder)


def disk(case: Case) -> Finding:
    there = case.config.state_dir
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    status = os.statvfs(there)
    free, total = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    found = "%.1f GB free of %.1f GB, room for the records of about %s images, and only for them"
    found %= (free / 1e9, total / 1e9, _roughly(free // IMAGE_BYTES))
    needed = "%.2f GB, the records of 100,000 images" % (LITTLE_BYTES / 1e9)
    mend = "sudo du -xh %s | sort -h | tail" % shlex.quote(mount_of(case, there)[0])
    if free < NOTHING_BYTES:
        return bad(WORLD, found, needed, mend)
    return warn(found, needed, mend) if free < LITTLE_BYTES else ok(found)


def _roughly(count: int) -> str:
    """7215153 as "7.2 million", 72151 as "72,000"."""
    if count >= 10 ** 6:
        return "%.1f million" % (count / 1e6)
    return "{:,}".format(count // 1000 * 1000 if count >= 1000 else count)


def daemon(case: Case) -> Finding:
    """Whether a daemon holds the state_dir: this is to be known, and no fault either way."""
    folder = case.config.state_dir
    try:
        held = lock.is_held(folder)
    except UserError as error:
        return warn(str(error), "a lock that user %s may read" % case.person.name, case.as_root)
    if not held:
        return ok("none runs on %s" % folder)
    with open(os.path.join(folder, lock.NAME)) as stream:
        return ok("runs on %s, process %s" % (folder, stream.read().strip() or "unknown"))


def inbox(case: Case) -> Finding:
    """It is the cameras', and only read: the daemon starts without it, and waits for it.

    For one that its sandbox hides it would wait for ever.
    """
    path, person = case.config.inbox.path, case.person
    needed = "the folder that the cameras write to, readable for user %s" % person.name
    unseen = case.unseen("inbox.path", path)
    if unseen:
        return unseen
    hidden = case.hidden(path)
    if hidden:
        return warn("%s: %s may not be entered by who looks" % (path, hidden), needed, case.as_root)
    if not os.path.isdir(path):
        return warn("%s: not there; the daemon waits for it" % path, needed,
                    "mount its card, or: sudo install -d %s" % shlex.quote(path))
    place, system = mount_of(case, path)
    found = "%s, on %s%s" % (path, place, " (%s)" % system if system else "")
    if person.stopped_at(path) or not person.may(path, READ | ENTER):
        return warn("%s: user %s may not read it; the daemon waits until it may" % (
            found, person.name), needed, "ls -ld %s   # then let that user or its group in" % (
                shlex.quote(path)))
    before = remembered_mount(case)
    if before and "error" not in case.facts("watchdog"):
        from jetson_cluster.inbox import mount_point  # it imports watchdog

        here = mount_point(os.path.realpath(path))
        if before != here and before.startswith(os.path.join(here, "")):
            return warn("%s; nothing is mounted at %s, where it was before: the daemon waits for "
                        "that" % (found, before), "the card that was there",
                        "sudo mount " + shlex.quote(before))
    return ok(found)


def watches(case: Case) -> Finding:
    """Whether the system lets so many folders be watched."""
    limit = case.machine.text("/proc/sys/fs/inotify/max_user_watches")
    if limit is None or not limit.isdigit():
        return warn("unknown: /proc/sys/fs/inotify/max_user_watches does not say it",
                    "a Linux with inotify", "none: new files are found every %g s instead" % (
                        case.config.inbox.rescan_s))
    if not os.path.isdir(case.config.inbox.path):
        return skip("%s allowed; the inbox is not there to be counted" % limit)
    folders, names = 1, 0
    for _, below, files in os.walk(case.config.inbox.path):
        folders, names = folders + len(below), names + len(below) + len(files)
        if names > MOST_NAMES:
            break
    found = "%s%d of %s allowed" % ("at least " if names > MOST_NAMES else "", folders, limit)
    if folders >= int(limit):
        return warn(found, "one for each folder of the inbox; without, new files are found every "
                           "%g s" % case.config.inbox.rescan_s,
                    "sudo sysctl -w fs.inotify.max_user_watches=%d" % (4 * folders))
    return ok(found)


def mount_of(case: Case, path: str) -> Tuple[str, str]:
    """(mount point, kind of file system) that holds `path`; the kind "" where it is unknown."""
    path, best = os.path.realpath(path), ("/", "")
    for line in (case.machine.text("/proc/self/mounts") or "").splitlines():
        words = line.split(" ")
        if len(words) < 3:
            continue
        # A blank is written "\\040".
        place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal.group(1), 8)), words[1])
        # Of two mounts at one place the later one is seen.
        inside = os.path.join(path, "").startswith(os.path.join(place, ""))
        if inside and len(place) >= len(best[0]):
            best = (place, words[2])
    return best


PROBES = tuple((name, with_config(probe)) for name, probe in (
    ("state_dir", state_dir), ("disk", disk), ("lock", daemon), ("queue", queue), ("inbox", inbox),
    ("inotify", watches)))
