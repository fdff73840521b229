"""Which files are meant: folders, lists, globs and single images to files as they look now.

In: what the user named. Out: a `Listing`, every file once, in the order of the paths. Dot files,
links and names of unfinished files in folders are left out, as in the rover's inbox, and so are
folders that hold a corpus; a file that is named itself is taken as it is.
"""

import glob
import os
from typing import Dict, List, NamedTuple, Sequence

from jetson_cluster import frame
from jetson_cluster.errors import UserError
from jetson_cluster.ground.corpus.shards import Failure, holds_corpus
from jetson_cluster.walker import Arrival, examine, is_passed_over

LIST_SUFFIX = ".txt"
BEGINNING = 65536  # bytes that tell a list from something else


class Listing(NamedTuple):
    """What was found."""

    files: List[Arrival]
    failures: List[Failure]  # names that lead to no file, and folders that cannot be read
    unread: List[str]  # those folders: what is in them may well be there still


def list_files(sources: Sequence[str], apart: str) -> Listing:
    """Every file that `sources` mean; none in the folder `apart`, where the corpus itself is kept.

    A source is a folder (with its subfolders), a text file of paths (relative ones start where it
    stands), an image, or a glob (`**` for any folders). Raises UserError for one that does not
    exist or says nothing, and if there is not one file.
    """
    found, failures, unread = {}, [], []  # type: Dict[str, Arrival], List[Failure], List[str]
    for source in sources:
        for path in _expanded(source):
            if os.path.isdir(path):
                _walk(path, found, failures, unread)
            elif path == source and _is_list(path):
                for line in _lines(path):
                    _take(line, found, failures)
            else:
                _take(path, found, failures)
    apart = os.path.join(os.path.abspath(apart), "")
    files = sorted(arrival for path, arrival in found.items() if not path.startswith(apart))
    if not files:
        raise UserError("%s: no files there%s" % (", ".join(sources), "".join(
            ", the first it names is %s" % failure.path for failure in failures[:1])))
    return Listing(files, sorted(set(failures)), unread)


def _expanded(source: str) -> List[str]:
    """The paths a source stands for: itself if there is such a file, else as a glob."""
    if os.path.lexists(source):
        return [source]
    if not glob.has_magic(source):
        raise UserError("%s: no such file or folder" % source)
    paths = glob.glob(source, recursive=True)
    if not paths:
        raise UserError("%s: no file has such a name" % source)
    return paths


def _is_list(path: str) -> bool:
    """Whether a file holds paths, not an image: by its name, else by its content."""
    if path.endswith(LIST_SUFFIX):
        return True
    try:
        frame.identify(path)
    except frame.Refused as refused:
        if refused.code not in ("not_an_image", "too_many_bytes"):
            return False
    else:
        return False
    with open(path, "rb") as stream:
        return b"\0" not in stream.read(BEGINNING)


def _lines(path: str) -> List[str]:
    """The paths in a list; bytes that are not UTF-8 are a file's name like any other."""
    try:
        with open(path, "rb") as stream:
            lines = stream.read().splitlines()
    except OSError as error:
        raise UserError("%s: the list cannot be read: %s" % (path, error.strerror or error))
    if any(b"\0" in line for line in lines):
        raise UserError("%s: neither an image nor a list of paths" % path)
    folder = os.path.dirname(os.path.abspath(path))
    return [os.path.join(folder, os.fsdecode(line.strip())) for line in lines if line.strip()]


def _take(path: str, found: Dict[str, Arrival], failures: List[Failure]) -> None:
    path = os.path.abspath(path)
    try:
        # What is no regular file has no size: reading it says what it is.
        found[path] = examine(path) or Arrival(path, 0, 0, 0)
        if not os.path.lexists(path):
            del found[path]
            failures.append(Failure(path, "absent", "There is no such file."))
    except OSError as error:
        failures.append(Failure(path, "unreadable", "It cannot be read: %s." % error.strerror))


def _walk(root: str, found: Dict[str, Arrival], failures: List[Failure],
          unread: List[str]) -> None:
    folders = [os.path.abspath(root)]
    while folders:
        folder = folders.pop()
        try:
            if holds_corpus(folder):
                continue
            with os.scandir(folder) as entries:
                for entry in entries:
                    if is_passed_over(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                        continue
                    arrival = examine(entry.path)
                    if arrival is not None:
                        found[entry.path] = arrival
        except OSError as error:
            failures.append(Failure(folder, "unreadable", "The folder cannot be read: %s." % (
                error.strerror or error)))
            unread.append(folder)
