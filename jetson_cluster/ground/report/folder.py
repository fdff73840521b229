"""A report in the place of an older one: all of it or nothing, and no file of anyone else is lost.

In: the folder's path, and who fills a new one. Out: the new report there, with what people have put
into the old one. Beside it, while that is done, are .NAME.new and .NAME.old; a run that was killed
leaves them, and the next one tidies up.
"""

import os
import re
import shutil
from typing import Callable, List, Tuple, TypeVar

from jetson_cluster.errors import UserError

MARKER = ".jetson-cluster-report"  # in a folder that a report made, and may make anew
MADE = ("sprites", "sheets")
OWN = re.compile(r"%s|index\.html|sprites(/\d+\.webp)?|sheets(/cluster-\d+\.png)?"
                 % re.escape(MARKER))

Result = TypeVar("Result")


def check(out: str) -> None:
    """Raise UserError if no report could be put at `out`, or something else stands there."""
    if os.path.islink(out) or os.path.exists(out) and not os.path.isdir(out):
        raise UserError("--out %s: is no folder; name a new one, or add --single-file" % out)
    if os.path.isdir(out) and os.listdir(out) and not _marked(out):
        raise UserError("--out %s: holds files that are no report; name a new folder" % out)
    fresh, old = _beside(out)
    for left, ours in ((fresh, lambda: not strangers(fresh)),
                       (old, lambda: _marked(old) or not strangers(old))):
        if os.path.lexists(left) and not (
                os.path.isdir(left) and not os.path.islink(left) and ours()):
            raise UserError("--out %s: %s is in the way and is no report; move it, or name a new "
                            "folder" % (out, left))


def replace(out: str, fill: Callable[[str], Result]) -> Result:
    """Have `fill(folder)` make that folder, with names of its own only, then put it at `out`.

    What was there before stays whole until then. Returns what `fill` does; raises OSError.
    """
    fresh, old = _beside(out)
    _settle(out, old)
    if os.path.isdir(fresh):
        shutil.rmtree(fresh)
    try:
        made = fill(fresh)
        if os.path.isdir(out):
            os.rename(out, old)
        os.rename(fresh, out)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        if not os.path.isdir(out):
            _settle(out, old)
        raise
    _settle(out, old)
    return made


def strangers(folder: str) -> List[str]:
    """What lies in a report's folder and is not of its making, as paths in it."""
    names = os.listdir(folder)
    for made in MADE:
        if os.path.isdir(os.path.join(folder, made)):
            names += [os.path.join(made, name) for name in os.listdir(os.path.join(folder, made))]
    return [name for name in names if not OWN.fullmatch(name)]


def _settle(out: str, old: str) -> None:
    """Finish from wherever a run came to an end: nothing but `out` is there afterwards."""
    if not os.path.isdir(old):
        return
    if not os.path.isdir(out):
        os.rename(old, out)
        return
    for name in strangers(old):
        target = os.path.join(out, name)
        while os.path.lexists(target):  # put there after a run was killed
            target += ".old"
        os.rename(os.path.join(old, name), target)
    shutil.rmtree(old)


def _beside(out: str) -> Tuple[str, str]:
    parent, name = os.path.split(os.path.abspath(out))
    return tuple(os.path.join(parent, ".%s.%s" % (name, state)) for state in ("new", "old"))


def _marked(path: str) -> bool:
    return os.path.exists(os.path.join(path, MARKER))
