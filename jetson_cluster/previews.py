"""The tiny pictures as files, for the radio and for people: those at the head of the queue, and sent.

In: images whose preview the catalog holds. Out: files named by content below `<state_dir>/previews`.
They can be made again from the catalog at any time, so none is forced to disk by itself, and one that
a power cut left short is known by its size.
"""

import logging
import os
from typing import Dict, List, Sequence

from jetson_cluster.catalog import Catalog
from jetson_cluster.preview import suffix

log = logging.getLogger(__name__)

SPARE = 1000  # files of images that left the head of the queue, or were in passes of late
TIDY_EVERY = 200  # files written


class Previews:
    """One folder of them. Only one process removes files from it: the daemon."""

    def __init__(self, folder: str, catalog: Catalog):
        self.folder, self._catalog = folder, catalog
        self._paths = {}  # type: Dict[int, str]  # those that are surely there
        self._written = TIDY_EVERY  # since the last tidying; earlier runs left some
        self._said = ""

    def ensure(self, images: Sequence[int]) -> Dict[int, str]:
        """Paths of the previews of these images, of those that have one; written where absent.

        What cannot be written is left out and said once.
        """
        new = [image for image in images if image not in self._paths]
        try:
            self._write(new)
            self._said = "" if new else self._said
        except OSError as error:
            if not self._said:
                log.error("PreviewNotWritten: %s: %s", self.folder, error)
            self._said = str(error)
        return {image: self._paths[image] for image in images if image in self._paths}

    def _write(self, images: Sequence[int]) -> None:
        known = self._catalog.preview_sizes(images)
        rows = self._catalog.rows(list(known))
        if known:
            os.makedirs(self.folder, exist_ok=True)
        for image, (kind, size, _) in known.items():
            path = os.path.join(self.folder, rows[image].sha256[:16] + suffix(kind))
            if not _is_whole(path, size):
                _, content = self._catalog.preview_of(image)
                temporary = "%s.%d.tmp" % (path, os.getpid())
                with open(temporary, "wb") as stream:
                    stream.write(content)
                os.rename(temporary, path)
                self._written += 1
            self._paths[image] = path

    def tidy(self, wanted: Sequence[int]) -> None:
        """Now and then remove the oldest files, but for those of `wanted` and the newest SPARE."""
        if self._written < TIDY_EVERY:
            return
        self._written = 0
        kept = {self._paths[image] for image in wanted if image in self._paths}
        try:
            others = [path for path in _files_in(self.folder) if path not in kept]
            for path in sorted(others, key=os.path.getmtime)[:-SPARE]:
                os.unlink(path)
            self._paths = {image: path for image, path in self._paths.items()
                           if os.path.exists(path)}
        except OSError as error:
            log.warning("PreviewsNotTidied: %s: %s", self.folder, error)


def _files_in(folder: str) -> List[str]:
    try:
        return [os.path.join(folder, name) for name in os.listdir(folder)]
    except FileNotFoundError:
        return []


def _is_whole(path: str, size: int) -> bool:
    try:
        return os.path.getsize(path) == size
    except OSError:
        return False
