"""What goes on between the daemon and the people and radios around it: orders, outbox, retention.

In: the catalog, the head of the queue and the policy in force. Out: orders from the drop folder
carried out, links to what to send next, and room on the disk. Each part is on its own; one that
fails says so and holds up no other.
"""

from typing import Callable, Optional, Sequence, Tuple

from jetson_cluster.catalog import Catalog
from jetson_cluster.config import Config
from jetson_cluster.drop_folder import DropFolder, follower_of
from jetson_cluster.head import Head
from jetson_cluster.outbox import Outbox
from jetson_cluster.passes import Downlink
from jetson_cluster.policy import Policy
from jetson_cluster.records import Row
from jetson_cluster.retention import Retention


class Operations:
    """The daemon's side of operations; every call returns soon."""

    def __init__(self, config: Config, catalog: Catalog, head: Head,
                 policy: Callable[[], Policy], inbox_available: Callable[[], bool],
                 monotonic: Callable[[], float], now: Callable[[], str]):
        self._config, self._catalog, self._head = config, catalog, head
        self._policy, self._inbox_available = policy, inbox_available
        self._monotonic = monotonic
        self.orders = DropFolder(config.orders.path, config.inbox.settle_s,
                                 follower_of(catalog, self._downlink, now), monotonic)
        self.outbox = None  # type: Optional[Outbox]
        if config.outbox.path:
            self.outbox = Outbox(config.outbox.path, config.outbox.bytes, catalog, monotonic, now)
        self.retention = Retention(config.retention, config.inbox.path, config.state_dir, catalog,
                                   monotonic)
        self.not_accepting_since = monotonic()

    def _downlink(self) -> Downlink:
        return Downlink(self._head, self._policy(), self._config.queue.path,
                        self._inbox_available, self._config.outbox.path or "")

    def look(self) -> int:
        """Carry out a few orders, make room if need be; how many orders that were."""
        before = self.accepting
        if self._inbox_available():
            self.retention.look(lambda: self._head.weights(self._policy()),
                                lambda: self._head.named_by(self._policy()))
        if before and not self.accepting:
            self.not_accepting_since = self._monotonic()
        return self.orders.poll()

    def publish(self, head: Sequence[Row], at_once: bool = False) -> None:
        """Bring the outbox in line with the head of the queue, if it is due or `at_once`."""
        if self.outbox and self._inbox_available():
            self.outbox.sync(head, at_once)

    @property
    def accepting(self) -> bool:
        """Whether there is room for new images."""
        return self.retention.accepting

    @property
    def errors(self) -> Tuple[str, ...]:
        """What is wrong at the moment with each part, "" where nothing is."""
        return (self.orders.error, self.outbox.error if self.outbox else "", self.retention.error)

    @property
    def settled(self) -> bool:
        """Whether no order waits to be carried out."""
        return not self.orders.waiting

    def next_due_s(self) -> float:
        """Seconds until there may be something to do."""
        return self.orders.next_due_s()
