"""A corpus being written: what is in it already, rows put to it, and the tidying up at the end.

In: rows. Out: shards of a set size. Killed at any moment, what stands in shards is sound and stays:
a shard is renamed into place whole, and one that replaces others is there before they are removed.
"""

import contextlib
import logging
import os
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set

import pyarrow as pa

from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.ground.corpus import shards
from jetson_cluster.ground.corpus.reading import Place, check_space
from jetson_cluster.ground.corpus.shards import FACTS, Row
from jetson_cluster.recipe import Model
from jetson_cluster.records import mtime_in
from jetson_cluster.walker import Arrival

log = logging.getLogger(__name__)

SHARDS_AT_HAND = 4  # copies of a folder's files come in the order of the files


class Stored(NamedTuple):
    """Where a file's row stands, and of which content it is."""

    place: Place
    bytes: int
    mtime_ns: int
    sha256: str


class Store:
    """The shards of a corpus, for the one who writes them."""

    def __init__(self, folder: str, model: Model, shard_images: int):
        """Take up what is there. Raises UserError if that is of another space or is no corpus."""
        self.folder, self._shard_images = folder, shard_images
        self._description = shards.Description(model.space, model.recipe.dimension, complete=False)
        self._clean_up()
        self._stored = {}  # type: Dict[str, Stored]
        self._contents = {}  # type: Dict[str, Place]  # by sha256
        self._pending = []  # type: List[Row]
        self._pending_contents = {}  # type: Dict[str, Row]
        self._at_hand = {}  # type: Dict[int, List[Row]]
        self._lengths = {}  # type: Dict[int, int]
        for number in shards.shard_numbers(folder):
            self._take_up(number)
        self._next = max(self._lengths, default=0) + 1

    def _clean_up(self) -> None:
        """Check that a corpus that is here is ours; remove what a kill left half done."""
        if os.path.lexists(os.path.join(self.folder, shards.DESCRIPTION)):
            check_space(self.folder, shards.read_description(self.folder), self._description.space)
        elif shards.shard_numbers(self.folder):
            raise UserError("corpus %s: it has shards but no %s; name another folder" % (
                self.folder, shards.DESCRIPTION))
        for name in os.listdir(self.folder):
            if name.startswith(".shard-") and name.endswith(".tmp"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.folder, name))

    def _take_up(self, number: int) -> None:
        try:
            table = shards.read_shard(self.folder, number, self._description)
        except UserError as error:
            path = shards.shard_path(self.folder, number)
            log.warning("ShardDamaged: %s; it is kept as %s.damaged", error, path)
            os.replace(path, path + ".damaged")
            return
        self._note(number, table.select(FACTS))

    def _note(self, number: int, table: pa.Table) -> None:
        self._lengths[number] = len(table)
        facts = zip(shards.paths_of(table), *(table.column(name).to_pylist() for name in (
            "bytes", "mtime_ns", "sha256")))
        for row, (path, size, mtime_ns, sha256) in enumerate(facts):
            place = Place(number, row)
            self._stored[path] = Stored(place, size, mtime_ns, sha256)
            self._contents[sha256] = place

    # ---- what is there -------------------------------------------------------------------------

    @property
    def sizes(self) -> Set[int]:
        """The sizes in bytes of all contents."""
        return {stored.bytes for stored in self._stored.values()}

    @property
    def stored(self) -> Mapping[str, Stored]:
        """What is in the shards, by path."""
        return self._stored

    def holds(self, arrival: Arrival) -> bool:
        """Whether the file has a row and has not changed since, by its size and time."""
        stored = self._stored.get(arrival.path)
        return stored is not None and (stored.bytes, stored.mtime_ns) == (
            arrival.bytes, mtime_in(arrival.mtime_ns))

    def content(self, sha256: str) -> Optional[Row]:
        """A row with this content, under whatever path; None if there is none."""
        if sha256 in self._pending_contents:
            return self._pending_contents[sha256]
        place = self._contents.get(sha256)
        return None if place is None else self._rows(place.shard)[place.row]

    def _rows(self, number: int) -> List[Row]:
        if number not in self._at_hand:
            while len(self._at_hand) >= SHARDS_AT_HAND:
                del self._at_hand[next(iter(self._at_hand))]
            table = shards.read_shard(self.folder, number, self._description)
            self._at_hand[number] = shards.rows_of(table, self._description.dimension)
        return self._at_hand[number]

    # ---- writing -------------------------------------------------------------------------------

    def put(self, row: Row) -> None:
        """Take in a row; on disk once there are enough for a shard."""
        self._pending.append(row)
        self._pending_contents[row.sha256] = row
        if len(self._pending) >= self._shard_images:
            self.flush()

    def flush(self) -> None:
        """Put to disk what is pending, be it less than a shard; raises WorldError if that fails."""
        if self._pending:
            self._write(shards.table_of(self._pending, self._description.dimension))
            self._pending, self._pending_contents = [], {}

    def _write(self, table: pa.Table) -> None:
        shards.write_shard(self.folder, self._next, table, self._description.space)
        self._note(self._next, table)
        self._next += 1

    def tidy(self, is_wanted: Callable[[str], bool]) -> None:
        """Remove the rows of files that are not wanted, and put small shards together.

        Afterwards all shards but one are more than half full; one that is, and has no such rows, is
        left as it is.
        """
        kept = {}  # type: Dict[int, List[int]]
        for path, stored in self._stored.items():
            if is_wanted(path):
                kept.setdefault(stored.place.shard, []).append(stored.place.row)
        whole = {number for number, length in self._lengths.items()
                 if len(kept.get(number, [])) == length}
        small = {number for number in whole if 2 * self._lengths[number] <= self._shard_images}
        if len(small) > 1 or len(whole) < len(self._lengths):  # what is written anew may be small
            whole -= small
        self._rewrite({number: sorted(kept.get(number, []))
                       for number in sorted(self._lengths) if number not in whole})

    def _rewrite(self, kept: Dict[int, List[int]]) -> None:
        """Write these rows of these shards, by number, into new ones, and remove the old."""
        tables, used_up = [], []  # type: List[pa.Table], List[int]
        for number, rows in kept.items():
            if rows:
                tables.append(shards.read_shard(self.folder, number, self._description).take(rows))
            used_up.append(number)
            while sum(map(len, tables)) >= self._shard_images:
                together = pa.concat_tables(tables)
                self._write(together.slice(0, self._shard_images))
                tables = [together.slice(self._shard_images)]
            if not sum(map(len, tables)):
                self._remove(used_up)
                used_up = []
        if sum(map(len, tables)):
            self._write(pa.concat_tables(tables))
        self._remove(used_up)

    def _remove(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            path = shards.shard_path(self.folder, number)
            try:
                os.unlink(path)
            except OSError as error:
                raise WorldError("corpus %s: %s cannot be removed: %s" % (
                    self.folder, os.path.basename(path), error.strerror or error))
            del self._lengths[number]
