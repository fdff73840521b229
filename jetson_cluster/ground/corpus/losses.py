"""What a run would drop from a corpus, and whether that may be a mistake.

In: what is stored, and the files that were found this time. Out: the images that would be lost, or
a UserError where the user has to say that this is meant: images that are there but were not named,
and so many gone at once that a disk may not be mounted. A file that has moved is no loss.
"""

import os
from collections import Counter
from typing import Callable, Container, List, Sequence, Set

from jetson_cluster.errors import UserError
from jetson_cluster.ground.corpus.storing import Store
from jetson_cluster.walker import Arrival, is_gone


class Losses:
    """What of a corpus, as it is when this is made, is not among the files of this run."""

    def __init__(self, folder: str, store: Store, files: Sequence[Arrival],
                 is_wanted: Callable[[str], bool]):
        self._folder, self._store, self._is_wanted = folder, store, is_wanted
        self._files = files
        self._before = list(store.stored)
        self._unwanted = sorted(path for path in self._before if not is_wanted(path))
        self._gone = [path for path in self._unwanted if is_gone(path)]

    def check_named(self) -> None:
        """Raise UserError for images that were not named though they are there."""
        gone = set(self._gone)
        there = [path for path in self._unwanted if path not in gone]
        if there:
            raise UserError(
                "corpus %s: %d of its images were not named this time though they are there, first "
                "%s; name all of the archive, or give --drop to drop them" % (
                    self._folder, len(there), there[0]))

    def surely_gone(self) -> List[str]:
        """The gone files that lie nowhere else, as can be told without reading a file."""
        lost = self.gone(())
        sizes = {file.bytes for file in self._files if lost and not self._store.holds(file)}
        return [path for path in lost if self._store.stored[path].bytes not in sizes]

    def gone(self, useless: Container[str]) -> List[str]:
        """The gone files whose content lies nowhere else; known once all files are embedded.

        `useless` are the files that are no images, whatever they were.
        """
        if not self._gone:
            return []
        stored = self._store.stored
        kept = {one.sha256 for path, one in stored.items()
                if self._is_wanted(path) and path not in useless}
        return [path for path in self._gone if stored[path].sha256 not in kept]

    def check_gone(self, lost: List[str]) -> None:
        """Raise UserError if `lost` are all of a folder that is gone, or most of the corpus."""
        if not lost:
            return
        known, missing = (Counter(map(os.path.dirname, paths)) for paths in (self._before, lost))
        alive = _folders_of(arrival.path for arrival in self._files)
        for folder in sorted(missing):
            if missing[folder] == known[folder] and folder not in alive:
                while os.path.dirname(folder) not in alive:
                    folder = os.path.dirname(folder)
                self._refuse(lost, "the folder %s is gone or empty" % folder)
        if 2 * len(lost) > len(self._before):
            self._refuse(lost, "they are gone from %s" % os.path.commonpath(
                [os.path.dirname(path) for path in lost]))

    def _refuse(self, lost: List[str], reason: str) -> None:
        raise UserError(
            "corpus %s: %d of its %d images would be dropped: %s; is a disk not mounted? Nothing "
            "was dropped; give --drop to drop them" % (
                self._folder, len(lost), len(self._before), reason))


def _folders_of(paths) -> Set[str]:
    """Every folder that one of these files lies in or below."""
    found = set()  # type: Set[str]
    for path in paths:
        folder = os.path.dirname(path)
        while folder not in found:
            found.add(folder)
            folder = os.path.dirname(folder)
    return found
