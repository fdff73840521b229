"""What the catalog knows of the outbox's links: the table `outbox`, and which folder they are in.

In: links about to be made, made, about to be removed. Out: the same, also after a crash at any
moment. It is a part of the catalog, in its file; outbox.py does what is written down here.
"""

from typing import Dict, List, NamedTuple, Sequence, Tuple

from jetson_cluster.database import Database, marks_for, parts_of

# The column `made`. Only of a MADE one it is sure that it was sent when it is not there: one that
# is PLANNED may never have been made, one that is GOING may have been removed by us.
PLANNED, MADE, GOING = 0, 1, 2


class Link(NamedTuple):
    """One row of the table."""

    name: str
    image: int
    made: int  # PLANNED, MADE or GOING


class OutboxLinks(Database):
    """The outbox's part of the catalog; only one process at a time uses it, the daemon."""

    def outbox_links(self) -> List[Link]:
        """All links known, in the order of their names."""
        return [Link(*row) for row in self._db.execute(
            "SELECT name, image, made FROM outbox ORDER BY name")]

    def note_links(self, planned: Sequence[Tuple[str, int]] = (), made: Sequence[str] = (),
                   going: Sequence[str] = (), gone: Sequence[str] = ()) -> None:
        """Write down, all or nothing: new (name, image) that are PLANNED, names that are MADE or
        GOING now, and names to forget."""
        with self._transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO outbox VALUES (?, ?, %d)" % PLANNED, planned)
            for state, names in ((MADE, made), (GOING, going)):
                self._db.executemany("UPDATE outbox SET made = ?1 WHERE name = ?2 AND made <> ?1",
                                     [(state, name) for name in names])
            self._db.executemany("DELETE FROM outbox WHERE name = ?", [(name,) for name in gone])

    def states_of(self, images: Sequence[int]) -> Dict[int, str]:
        """The states of the given ids, of those that there are."""
        found = {}  # type: Dict[int, str]
        for part in parts_of(images):
            found.update(self._db.execute(
                "SELECT id, state FROM images WHERE id IN (%s)" % marks_for(part), part).fetchall())
        return found
