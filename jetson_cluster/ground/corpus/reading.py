"""A corpus as everything after `embed` sees it: every content once, in the order of the paths.

In: a corpus folder. Out: a `Corpus`, whose facts are in memory and whose embeddings and thumbnails
are read from their shards when asked for.
"""

import os
from typing import Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from jetson_cluster.errors import UserError
from jetson_cluster.ground.corpus import shards
from jetson_cluster.ground.corpus.shards import FACTS, Failure


class Place(NamedTuple):
    """Where a row stands."""

    shard: int
    row: int


class Corpus:
    """The images of an archive with their embeddings; index i means the same image throughout."""

    def __init__(self, folder: str, description: shards.Description, tables: Dict[int, object]):
        """`tables` holds the facts of each shard by its number."""
        self.folder, self._description = folder, description
        self.space = description.space  # as recipe.Model's
        self.dimension = description.dimension
        self.complete = description.complete  # False: the last `embed` was stopped midway
        self.failed: List[Failure] = shards.read_failed(folder)
        places = {}  # type: Dict[str, Place]
        columns = {}  # type: Dict[int, Dict[str, list]]
        for number, table in sorted(tables.items()):
            for row, path in enumerate(shards.paths_of(table)):
                places[path] = Place(number, row)  # a later shard's row takes an earlier's place
            columns[number] = {name: table.column(name).to_pylist() for name in (
                "sha256", "bytes", "mtime_ns", "width", "height", "captured_at")}
        # sha256 -> all paths with that content, in order; the first is the image's own
        self.copies: Dict[str, List[str]] = {}
        for path in sorted(places):
            place = places[path]
            self.copies.setdefault(columns[place.shard]["sha256"][place.row], []).append(path)
        self.paths: List[str] = [paths[0] for paths in self.copies.values()]
        self.sha256: List[str] = list(self.copies)
        self._places = [places[path] for path in self.paths]

        def fact(name):
            return [columns[place.shard][name][place.row] for place in self._places]

        self.bytes = np.array(fact("bytes"), np.int64)
        self.mtime_ns = np.array(fact("mtime_ns"), np.int64)
        self.widths = np.array(fact("width"), np.int32)  # pixels of the whole image, upright
        self.heights = np.array(fact("height"), np.int32)
        self.captured_at: List[str] = fact("captured_at")
        self.scenes: List[str] = [os.path.dirname(path) for path in self.paths]
        measures = {number: shards.matrix(table.column("measures"), shards.MEASURES)
                    for number, table in tables.items()}
        # float32 [N, 7], the columns as in quality.Measures; NaN where they could not be taken
        self.measures = np.array([measures[place.shard][place.row] for place in self._places],
                                 np.float32).reshape(-1, shards.MEASURES)

    def __len__(self) -> int:
        return len(self.paths)

    def embeddings(self, indices: Optional[Sequence[int]] = None) -> np.ndarray:
        """float32 [n, D], of all images or of those asked for, in the order asked.

        Raises UserError if a shard is damaged.
        """
        chosen = range(len(self)) if indices is None else indices
        found = np.empty((len(chosen), self.dimension), np.float32)
        for number, wanted, rows in self._by_shard(chosen):
            table = shards.read_shard(self.folder, number, self._description, ["embedding"])
            found[wanted] = shards.matrix(table.column("embedding"), self.dimension)[rows]
        return found

    def thumbnails(self, indices: Optional[Sequence[int]] = None) -> List[bytes]:
        """Whole WebP or JPEG files, longest side 96, of all images or of those asked for."""
        chosen = range(len(self)) if indices is None else indices
        found = [b""] * len(chosen)
        for number, wanted, rows in self._by_shard(chosen):
            table = shards.read_shard(self.folder, number, self._description, ["thumbnail"])
            column = table.column("thumbnail")
            for place, row in zip(wanted, rows):
                found[place] = column[row].as_py()
        return found

    def _by_shard(self, chosen: Sequence[int]):
        """(shard, which of `chosen` are in it, their rows there)."""
        asked = {}  # type: Dict[int, List[List[int]]]
        for position, index in enumerate(chosen):
            place = self._places[int(index)]
            wanted, rows = asked.setdefault(place.shard, [[], []])
            wanted.append(position)
            rows.append(place.row)
        return [(number, wanted, rows) for number, (wanted, rows) in sorted(asked.items())]


def read(folder: str, space: Optional[str] = None) -> Corpus:
    """The corpus in a folder; `space` is the embedding space it is to be of.

    Raises UserError if there is none, if it is damaged, or if it is of another space.
    """
    folder = os.fspath(folder)
    description = shards.read_description(folder)
    check_space(folder, description, space)
    return Corpus(folder, description, {
        number: shards.read_shard(folder, number, description, FACTS)
        for number in shards.shard_numbers(folder)})


def check_space(folder: str, description: shards.Description, space: Optional[str]) -> None:
    """Raise UserError if the corpus is not of this space; None: any will do."""
    if space is not None and description.space != space:
        raise UserError("corpus %s: its embeddings are of the space %s, not of %s: they come from "
                        "another network; name another folder, or the model it was made with" % (
                            folder, description.space, space))


def is_corpus(path: str) -> bool:
    """Whether there is a corpus at `path`, sound or not."""
    return os.path.isfile(os.path.join(path, shards.DESCRIPTION))
