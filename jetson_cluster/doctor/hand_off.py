"""What goes between the daemon and the people and radios around it: orders, outbox, deleting,
status.

In: a Case. Out: one finding a probe. The daemon starts whatever is wrong here, and says so in its
log; so nothing but the journal is BAD. Nothing is made and nothing is written.
"""

import os
import shlex
import stat
from typing import Iterator, Optional

from jetson_cluster.config import DELETE_UNRECEIVED
from jetson_cluster.doctor.case import Case, with_config
from jetson_cluster.doctor.findings import BAD, OK, WORLD, Finding, bad, ok, skip, warn
from jetson_cluster.doctor.folders import mount_of, usable
from jetson_cluster.doctor.people import ENTER, READ, WRITE
from jetson_cluster.journal import FILE_NAME, Journal
from jetson_cluster.walker import is_passed_over

WITHOUT_LINKS = ("vfat", "msdos", "exfat")  # file systems that have no hard links
MOST_LOOKED_AT = 500  # images of the inbox; the camera's umask is the same for all of them
MODES = {"orders.path": "3770", "outbox.path": "2770"}  # as in systemd/jetson-cluster.tmpfiles.conf


def orders(case: Case) -> Finding:
    folder = case.config.orders.path
    return _shared(case, "orders.path", folder) or ok(folder)


def outbox(case: Case) -> Finding:
    folder, inbox = case.config.outbox.path, case.config.inbox.path
    if not folder:
        return skip("none (outbox.path: null)")
    wrong = _shared(case, "outbox.path", folder)
    if wrong:
        return wrong
    if not os.path.isdir(inbox):
        return skip("%s; the inbox is not there to be compared with it" % folder)
    place, system = mount_of(case, folder)
    needed = "a folder from which hard links lead to the inbox"
    if system in WITHOUT_LINKS:
        return warn("%s, on %s, which has no hard links" % (folder, system), needed,
                    "format the inbox's card with ext4")
    if os.stat(folder).st_dev != os.stat(inbox).st_dev or place != mount_of(case, inbox)[0]:
        return warn("%s, on %s; the inbox is on %s, and no hard link leads from one file system, "
                    "or mount, to another" % (folder, place, mount_of(case, inbox)[0]), needed,
                    "set outbox.path to a folder beside the inbox")
    apart = case.unit.mounts_apart(folder, inbox) if case.serves else ""
    if apart:
        return warn("%s: for the service it is mounted apart from the inbox, because of %s in its "
                    "unit, and no hard link leads from one mount to another" % (folder, apart),
                    needed, "in the unit's drop-in, one ReadWritePaths= with the folder that both "
                    "are in")
    return _may_link(case, folder) or ok("%s, for %.1f MB of images" % (
        folder, case.config.outbox.bytes / 1e6))


def _shared(case: Case, key: str, folder: str) -> Optional[Finding]:
    """What is wrong with a folder that the daemon shares with the group, None if nothing is."""
    person = case.person
    make = "sudo install -d -m %s -o %s -g %s %s" % (
        MODES[key], shlex.quote(person.name), shlex.quote(person.name), shlex.quote(folder))
    if not os.path.lexists(folder):
        return warn("%s: not there; the daemon waits for it" % folder, "that folder", make)
    finding = _softened(usable(case, key, folder))
    if finding.level != OK:
        return finding
    mode = os.stat(folder).st_mode
    if not mode & stat.S_IWGRP:
        return warn("%s: only its owner may write to it" % folder,
                    "a folder that its group may write to, as the radio's software does",
                    "sudo chmod %s %s" % (MODES[key], shlex.quote(folder)))
    if key == "outbox.path" and mode & stat.S_ISVTX:
        return warn("%s: sticky, so that the radio's software may not remove links to the camera's "
                    "files" % folder, "a folder that is not sticky",
                    "sudo chmod -t %s" % shlex.quote(folder))
    return None


def _softened(finding: Finding) -> Finding:
    """The daemon runs without it."""
    if finding.level != BAD:
        return finding
    return warn(finding.found, finding.needed, finding.mend)


def _may_link(case: Case, folder: str) -> Optional[Finding]:
    """Whether the kernel lets the daemon link the camera's files."""
    person = case.person
    if person.user == 0 or case.machine.text("/proc/sys/fs/protected_hardlinks") != "1":
        return None
    looked, foreign = 0, ""
    for path in _images(case.config.inbox.path):
        looked += 1
        if os.lstat(path).st_uid != person.user and not person.may(path, READ | WRITE):
            foreign = path
        if foreign or looked == MOST_LOOKED_AT:
            break
    if not foreign:
        return None
    return warn("%s: the kernel allows no link to %s, which user %s does not own and may not write "
                "to (fs.protected_hardlinks)" % (folder, foreign, person.name),
                "images that the daemon's group may write to",
                "let the camera software run with umask 002; now: sudo chmod -R g+rwX %s" % (
                    shlex.quote(case.config.inbox.path)))


def _images(folder: str) -> Iterator[str]:
    for place, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not is_passed_over(name))
        for name in sorted(names):
            path = os.path.join(place, name)
            if not is_passed_over(name) and os.path.isfile(path) and not os.path.islink(path):
                yield path


def retention(case: Case) -> Finding:
    """Whether there is the room that is to be kept free, and whether the daemon could make it."""
    mark, inbox, person = case.config.retention.free_bytes, case.config.inbox.path, case.person
    if not mark:
        return skip("nothing is deleted (retention.free_bytes: 0)")
    if not os.path.isdir(inbox):
        return skip("the inbox is not there")
    status = os.statvfs(inbox)
    free, total = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    more = "; also images that the ground never received are deleted" if (
        case.config.retention.unacknowledged == DELETE_UNRECEIVED) else ""
    found = "%.1f GB free of %.1f GB, %.1f GB to be kept free%s" % (
        free / 1e9, total / 1e9, mark / 1e9, more)
    if total <= mark * 1.05:
        return warn("%s: the disk is no larger than that: no image would be taken in" % found,
                    "a mark well below the size of the inbox's disk",
                    "set retention.free_bytes to %d or less" % (total // 5))
    closed = _cannot_delete(case)
    if closed:
        return warn("%s; user %s may not delete there, because %s" % (found, person.name, closed),
                    "an inbox from which acknowledged images can be deleted",
                    "sudo chown %s:%s %s && sudo chmod 3770 %s   # or retention.free_bytes: 0" % (
                        (shlex.quote(person.name),) * 2 + (shlex.quote(inbox),) * 2))
    if free < mark:
        return warn("%s; acknowledged images are deleted, and without any no new ones are taken in"
                    % found, "more room than is to be kept free", "sudo du -xh %s | sort -h | tail"
                    % shlex.quote(mount_of(case, inbox)[0]))
    return ok(found)


def _cannot_delete(case: Case) -> str:
    """Why the daemon may not delete in the inbox, in words; "" if it may."""
    inbox, person = case.config.inbox.path, case.person
    why = case.unit.keeps_from_writing(inbox) if case.serves else ""
    if why:
        return "of %s in its unit" % why
    if os.statvfs(inbox).f_flag & os.ST_RDONLY:
        return "it is mounted read-only"
    if person.stopped_at(inbox) or not person.may(inbox, WRITE | ENTER):
        return "it may not write to it"
    status = os.stat(inbox)
    if status.st_mode & stat.S_ISVTX and person.user not in (0, status.st_uid):
        return "it is sticky and another user's"
    return ""


def journal(case: Case) -> Finding:
    """The account of acknowledgements that outlives the catalog: without it nothing is started."""
    path = os.path.join(case.config.state_dir, FILE_NAME)
    hidden = case.hidden(path)
    if hidden:
        return warn("%s: %s may not be entered by who looks" % (path, hidden),
                    "a look by one who may", case.as_root)
    if not os.path.lexists(path):
        return ok("%s: none yet, it begins with the first pass" % path)
    if not case.person.may(path, READ | WRITE):
        return bad(WORLD, "%s: user %s may not read and write it" % (path, case.person.name),
                   "a journal that the daemon may write to", "sudo chown %s %s" % (
                       shlex.quote(case.person.name), shlex.quote(path)))
    read = Journal(path).read()
    found = "%s, %d entries" % (path, len(read.entries))
    if read.damaged:
        return warn("%s, and %d lines that cannot be read" % (found, read.damaged), "whole lines",
                    "none: they are left out; acknowledge anew what they may have said, and look "
                    "for the disk in dmesg")
    return ok(found)


def prom(case: Case) -> Finding:
    path = case.config.status.prom
    folder = os.path.dirname(path)
    if folder == case.config.state_dir:
        return skip("%s, in state_dir" % path)
    if not os.path.isdir(folder):
        return warn("%s: the folder is not there" % path, "a folder to write it to",
                    "sudo install -d -o %s %s" % (shlex.quote(case.person.name),
                                                  shlex.quote(folder)))
    finding = _softened(usable(case, "status.prom", folder))
    return ok(path) if finding.level == OK else finding


PROBES = tuple((name, with_config(probe)) for name, probe in (
    ("orders", orders), ("outbox", outbox), ("retention", retention), ("journal", journal),
    ("status.prom", prom)))
