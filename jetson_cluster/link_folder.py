"""The outbox's folder as it is at one moment: which files are in it, and whether it is still the
same.

In: its path, names of links. Out: a `Listing`, and under which name a link stands in it. Nothing
here changes anything.
"""

import fcntl
import os
import stat
import struct
from typing import Dict, NamedTuple, Optional, Tuple

from jetson_cluster.link_names import HEAD, key_of
from jetson_cluster.records import mtime_in

FS_IOC_GETVERSION = 0x80087601  # of linux/fs.h, for a long of 64 bits

Look = Tuple[int, int]  # bytes and mtime of a file, as the catalog keeps them


class Listing(NamedTuple):
    """The regular files of the folder."""

    identity: str
    files: Dict[str, os.stat_result]
    renamed: Dict[str, str]  # by how a link's name begins: what may be that link by another name

    def form_of(self, name: str) -> Optional[str]:
        """What the link is called now; None: it is gone.

        That is NAME, or NAME.anything or .NAME... as downlink software may call it while it sends.
        """
        if name in self.files:
            return name
        form = self.renamed.get(name[:HEAD], "")
        return form if form.startswith((name + ".", "." + name)) else None

    def look_of(self, name: str) -> Look:
        """Size and mtime of the link, which must be there."""
        status = self.files[self.form_of(name)]
        return status.st_size, mtime_in(status.st_mtime_ns)


def list_folder(path: str) -> Listing:
    """What is in the folder now; raises OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        files, renamed = {}, {}
        for name in os.listdir(folder):
            try:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                files[name] = status
                plain = name[1:] if name.startswith(".") else name
                if key_of(plain) is not None:
                    renamed[plain[:HEAD]] = name
        return Listing(_identity(folder), files, renamed)
    finally:
        os.close(folder)


def sync_and_identify(path: str) -> str:
    """Force the folder's entries to disk; its identity. Raises OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
        return _identity(folder)
    finally:
        os.close(folder)


def look_at(path: str) -> Optional[Look]:
    """Size and mtime of the regular file at `path`; None if there is none."""
    try:
        return look_of(os.lstat(path))
    except OSError:
        return None


def look_of(status: os.stat_result) -> Optional[Look]:
    """Size and mtime of a regular file; None if it is none."""
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_size, mtime_in(status.st_mtime_ns)


def _identity(folder: int) -> str:
    """What tells the open folder from others, also from a later one with the same inode number."""
    status = os.fstat(folder)
    try:
        version = struct.unpack("l", fcntl.ioctl(folder, FS_IOC_GETVERSION, bytes(8)))[0]
    except OSError:
        version = 0  # file systems without it, such as tmpfs, do not soon use a number again
    return "%d:%d:%d" % (status.st_dev, status.st_ino, version)
