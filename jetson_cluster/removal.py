"""Takes one file out of a folder that others write into, if it holds what it is thought to hold.

In: a folder, a path below it, and the size, mtime and SHA-256 of a content. Out: the file is gone, or
stands where it stood. Between a look at a name and its removal a camera may put another picture
there. So the file is renamed aside first, to a name that the inbox passes over, and looked at and
read where nobody replaces it; what is something else is put back, never over another file. What a
kill leaves aside, put_back() puts back. Every step is taken from the folder before, so that a
folder that becomes a symlink leads nowhere else.
"""

import contextlib
import errno
import hashlib
import logging
import os
from typing import Iterator, Optional, Tuple

from jetson_cluster.downlink import printable_path
from jetson_cluster.link_folder import Look, look_of

log = logging.getLogger(__name__)

GONE, ABSENT, OTHER = "gone", "absent", "other"  # what became of a file

ASIDE = ".retention-"  # a dot name: neither walks nor events tell the inbox of it
LONGEST_NAME = 255  # bytes, on all file systems of Linux that a card may have
NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def remove(folder: str, relative: str, look: Look, sha256: str) -> str:
    """Delete the file at the path `relative` to `folder` if it is that content.

    GONE: it was, and is deleted. ABSENT: there is no such file. OTHER: it is something else, and
    stays. Raises OSError if it could not be told or done; it stays then as well, perhaps aside.
    """
    with _parent(folder, relative) as (here, name):
        aside = aside_of(name)
        if here is None:
            return ABSENT
        if _status(aside, here) is not None:
            _put_back(here, name, os.path.join(folder, relative))
        status = _status(name, here)
        if status is None:
            return ABSENT
        if look_of(status) != look:
            return OTHER
        try:
            os.rename(name, aside, src_dir_fd=here, dst_dir_fd=here)
        except FileNotFoundError:
            return ABSENT
        try:
            if _holds(aside, here, look, sha256):
                os.unlink(aside, dir_fd=here)
                return GONE
        except OSError:
            _put_back(here, name, os.path.join(folder, relative))
            raise
        _put_back(here, name, os.path.join(folder, relative))
        return OTHER


def put_back(folder: str, relative: str) -> bool:
    """Put back the file of that path if it stands aside; whether it did. Raises OSError.

    Where another file has its name by now it gets a new one beside it, for the inbox to find.
    """
    with _parent(folder, relative) as (here, name):
        if here is None or _status(aside_of(name), here) is None:
            return False
        _put_back(here, name, os.path.join(folder, relative))
        return True


def aside_of(name: str) -> str:
    """What a file of this name is called while it stands aside."""
    if len(os.fsencode(ASIDE + name)) <= LONGEST_NAME:
        return ASIDE + name
    return ASIDE + hashlib.sha256(os.fsencode(name)).hexdigest()


@contextlib.contextmanager
def _parent(folder: str, relative: str) -> Iterator[Tuple[Optional[int], str]]:
    """(the open folder that the file stands in, None if there is none; the file's name)."""
    parts = relative.split(os.sep)
    here = os.open(folder, FOLDER)  # the root may be a symlink, an operator's choice
    try:
        for part in parts[:-1]:
            try:
                inner = os.open(part, FOLDER | os.O_NOFOLLOW, dir_fd=here)
            except OSError as error:
                if error.errno not in NOT_THERE:
                    raise
                yield None, parts[-1]
                return
            os.close(here)
            here = inner
        yield here, parts[-1]
    finally:
        os.close(here)


def _status(name: str, here: int) -> Optional[os.stat_result]:
    try:
        return os.stat(name, dir_fd=here, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _holds(name: str, here: int, look: Look, sha256: str) -> bool:
    """Whether the file is that content, also once it was read."""
    if look_of(os.stat(name, dir_fd=here, follow_symlinks=False)) != look:
        return False
    digest = hashlib.sha256()
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
    with os.fdopen(descriptor, "rb") as stream:
        for piece in iter(lambda: stream.read(1 << 20), b""):
            digest.update(piece)
        return digest.hexdigest() == sha256 and look_of(os.fstat(stream.fileno())) == look


def _put_back(here: int, name: str, path: str) -> None:
    aside = aside_of(name)
    try:
        _give_name(here, aside, name)
    except FileExistsError:
        # A put-back that was ended before its last step leaves both names to one file.
        if not os.path.samestat(os.stat(aside, dir_fd=here, follow_symlinks=False),
                                os.stat(name, dir_fd=here, follow_symlinks=False)):
            end = os.path.splitext(name)[1]
            other = "put-back-" + os.urandom(4).hex() + (end if len(end) < 10 else "")
            _give_name(here, aside, other)
            log.warning("FileNameTaken: %s: another file has that name now; the one before it is "
                        "kept beside it as %s", printable_path(path), other)
    os.fsync(here)  # or a power cut might take the one name and not bring the other
    with contextlib.suppress(FileNotFoundError):
        os.unlink(aside, dir_fd=here)


def _give_name(here: int, aside: str, name: str) -> None:
    """Have the file stand under `name` as well, or instead; raises FileExistsError if it is taken."""
    try:
        os.link(aside, name, src_dir_fd=here, dst_dir_fd=here, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # no hard links there, or not to files of others
        if _status(name, here) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        os.rename(aside, name, src_dir_fd=here, dst_dir_fd=here)
