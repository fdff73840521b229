"""Files that are always whole: written beside their place, forced to disk, then renamed over it.

In: a path and bytes (or a function that writes them). Out: the old content or the new, never a part,
also after a power cut (temp file, fsync, rename, fsync of the folder).
"""

import hashlib
import os
import tempfile
from typing import BinaryIO, Callable


def write_atomically(path: str, content: bytes) -> None:
    """Replace the file at `path` by `content`; raises OSError and leaves the old file if it cannot."""
    replace_atomically(path, lambda stream: stream.write(content))


def replace_atomically(path: str, write: Callable[[BinaryIO], object]) -> None:
    """Replace the file at `path` by what `write(stream)` writes; raises OSError, old file kept."""
    folder = os.path.dirname(os.path.abspath(path))
    descriptor, temporary = tempfile.mkstemp(
        dir=folder, prefix="." + os.path.basename(path) + ".", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes the file private; the queue is read by other users' software.
        os.chmod(temporary, 0o644)
        os.rename(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    sync_folder(folder)


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
