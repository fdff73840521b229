"""Which files were being decoded when the program ended: the account that crashes are judged by.

In: the files about to be decoded, and those that were. Out: points against the files whose reading
was begun and never ended, over restarts. It is a part of the catalog, in its file.
"""

from typing import Dict, Iterable, Sequence

from jetson_cluster.database import Database, marks_for, parts_of
from jetson_cluster.inbox import Arrival
from jetson_cluster.records import mtime_in, path_in, path_out

ATTEMPT_POINTS = 3  # an attempt that a power cut ended counts 1: see begin_boot


class Attempts(Database):
    """The catalog's account of attempts."""

    def attempts(self, arrivals: Sequence[Arrival]) -> Dict[str, int]:
        """Points against each file whose reading began and never ended: ATTEMPT_POINTS a time."""
        found = {}
        for part in parts_of(arrivals):
            paths = {arrival.path: arrival for arrival in part}
            for path, size, mtime_ns, points in self._db.execute(
                    "SELECT * FROM attempts WHERE path IN (%s)" % marks_for(paths),
                    [path_in(path) for path in paths]):
                arrival = paths[path_out(path)]
                if (arrival.bytes, mtime_in(arrival.mtime_ns)) == (size, mtime_ns):
                    found[arrival.path] = points
        return found

    def begin_attempts(self, arrivals: Sequence[Arrival]) -> None:
        """Note, durably, that these files are about to be decoded."""
        before = self.attempts(arrivals)
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?)", [
                (path_in(arrival.path), arrival.bytes, mtime_in(arrival.mtime_ns),
                 before.get(arrival.path, 0) + ATTEMPT_POINTS) for arrival in arrivals])

    def begin_boot(self, boot: str) -> None:
        """The system's boot is `boot`: attempts that an earlier boot ended count a third.

        A power cut is the rover's everyday fault and says little against the file being read.
        """
        if self.meta("boot") != boot:
            with self._transaction():
                self._db.execute("UPDATE attempts SET points = MAX(1, points - ?)",
                                 (ATTEMPT_POINTS - 1,))
                self._set_meta("boot", boot)

    def cancel_attempts(self, arrivals: Sequence[Arrival]) -> None:
        """Forget the attempts on files whose reading ended without a verdict on them."""
        with self._transaction():
            self._end_attempts(arrival.path for arrival in arrivals)

    def _end_attempts(self, paths: Iterable[str]) -> None:
        self._db.executemany("DELETE FROM attempts WHERE path = ?",
                             [(path_in(path),) for path in paths])
