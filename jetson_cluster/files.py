"""Files that are always whole: written beside their place, forced to disk, then renamed over it.

In: a path and bytes (or a function that writes them). Out: the old content or the new, never a part,
also after a power cut (temp file, fsync, rename, fsync of the folder).
"""

import contextlib
import errno
import hashlib
import os
from typing import BinaryIO, Callable


def write_atomically(path: str, content: bytes) -> None:
    """Replace the file at `path` by `content`; raises OSError and leaves the old file if it cannot."""
    replace_atomically(path, lambda stream: stream.write(content))


def replace_atomically(path: str, write: Callable[[BinaryIO], object]) -> None:
    """Replace the file at `path` by what `write(stream)` writes; raises OSError, old file kept.

    Each of our files has one writer at a time. Where there are two after all, the one that began
    first fails, and neither's bytes get into the other's file.
    """
    folder, name = os.path.split(os.path.abspath(path))
    # Always the same name: what a power cut leaves behind is removed here, not gathered. Removed and
    # not written over, for it may be another user's, or another writer's who still writes to it.
    temporary = os.path.join(folder, "." + name + ".tmp")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as stream:
        try:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
            if not _is_at(stream, temporary):
                raise OSError(errno.EBUSY, "another program writes the same file", path)
            os.rename(temporary, path)
        except BaseException:
            if _is_at(stream, temporary):
                os.unlink(temporary)
            raise
    sync_folder(folder)


def _is_at(stream: BinaryIO, path: str) -> bool:
    """Whether the open file is the one that `path` names now."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.lstat(path))
    except FileNotFoundError:
        return False


def sync_folder(folder: str) -> None:
    """Force the folder's entries to disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: str) -> str:
    """Hex SHA-256 of the file's content, read in pieces; raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for piece in iter(lambda: stream.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()
