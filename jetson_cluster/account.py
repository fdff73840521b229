"""The account of what operations asked for, and what their orders changed of the policy.

In: one line for every action, whoever asked for it. Out: the newest lines, whether an order was
carried out already, and the amendments in force. It is a part of the catalog, in its file.
"""

from typing import Dict, List, Optional, Tuple

from jetson_cluster.journal import Entry
from jetson_cluster.recollection import Recollection
from jetson_cluster.records import Audited


class Account(Recollection):
    """The audit table and the amendments."""

    def audit(self, at: str, origin: str, order_id: Optional[str], action: str, target: str,
              result: str, detail: str) -> None:
        """Write one line; an order's id can stand in it once."""
        with self._transaction():
            self._db.execute("INSERT INTO audit VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", (
                at, origin, order_id, action, target, result, detail))
            if order_id is not None:
                self._tell_journal([Entry("order", "", 0, order_id)])

    def audited(self, order_id: str) -> Optional[Audited]:
        """The line of the order with this id, if there was one."""
        row = self._db.execute("SELECT * FROM audit WHERE order_id = ?", (order_id,)).fetchone()
        return Audited(*row) if row else None

    def audit_rows(self, limit: int, target: Optional[str] = None) -> List[Audited]:
        """The newest lines, newest first; with `target` those whose target holds that text."""
        return [Audited(*row) for row in self._db.execute(
            "SELECT * FROM audit WHERE ?1 IS NULL OR instr(target, ?1) > 0 "
            "ORDER BY number DESC LIMIT ?2", (target, limit))]

    def amendments(self) -> Dict[Tuple[str, str], object]:
        """What orders changed of the policy: (kind, key) -> value."""
        return {(kind, key): value for kind, key, value in self._db.execute(
            "SELECT kind, key, value FROM amendments")}

    def amend(self, kind: str, key: str, value) -> None:
        """Change one thing of the policy ("weight", "label" or "more_like"); None takes it back."""
        with self._transaction():
            if value is None:
                self._db.execute("DELETE FROM amendments WHERE kind = ? AND key = ?", (kind, key))
            else:
                self._db.execute("INSERT OR REPLACE INTO amendments VALUES (?, ?, ?)",
                                 (kind, key, value))

    def drop_amendments(self) -> int:
        """Forget all of them; how many there were."""
        with self._transaction():
            return self._db.execute("DELETE FROM amendments").rowcount
