"""Where the console's two files really lie, and how they are replaced.

In: paths as a person gave them. Out: paths that can be written to, or what is wrong with them,
before anybody has done any work; and files that are replaced whole, links and modes as they were.
"""

import os
import stat

from jetson_cluster.errors import UserError
from jetson_cluster.files import replace_atomically


def settled(path: str, what: str) -> str:
    """The path of the file itself, where a link stands for it. Raises UserError.

    The file may be new; its folder may not.
    """
    if os.path.islink(path):
        meant = os.path.realpath(path)
        if not os.path.exists(meant):
            raise UserError(f"{what} {path}: is a link to {meant}, which is not there; mend the "
                            "link, or remove it")
        path = meant
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise UserError(f"{what} {path}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{what} {path}: the folder {folder} may not be written to")
    return path


def replace(path: str, content: bytes, like: str) -> None:
    """Replace a file whole, with the mode that the file `like` has. Raises OSError."""
    mode = stat.S_IMODE(os.stat(like).st_mode) if os.path.exists(like) else None

    def write(stream) -> None:
        if mode is not None:
            os.fchmod(stream.fileno(), mode)
        stream.write(content)

    replace_atomically(path, write)
