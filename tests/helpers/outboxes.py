"""An outbox over a catalog with real files, a clock that is set, and downlink software."""

import os

from operated import AT, Operations

from jetson_cluster.outbox import Outbox
from jetson_cluster.schema import QUEUED


class Radio(Operations):
    """Inbox, catalog and outbox of one rover; `rank` is the order of the queue, best first."""

    def __init__(self, folder, max_bytes=10000):
        super().__init__(folder)
        self.outbox_path = folder / "outbox"
        self.outbox_path.mkdir(exist_ok=True)
        self.max_bytes, self.now_s, self.rank = max_bytes, 1000.0, []
        self.restart()

    def restart(self):
        """The daemon ends, however, and starts again."""
        self.outbox = Outbox(str(self.outbox_path), self.max_bytes, self.catalog,
                             lambda: self.now_s, lambda: AT)

    def add(self, *sizes, **more):
        added = super().add(*sizes, **more)
        self.rank += added
        return added

    def head(self):
        """The head of the queue as the daemon would give it."""
        rows = self.catalog.rows(self.rank)
        return [rows[image] for image in self.rank if rows[image].state == QUEUED]

    def look(self, after_s=1.0):
        self.now_s += after_s
        self.outbox.sync(self.head())

    def names(self):
        return sorted(os.listdir(str(self.outbox_path)))

    def linked(self):
        """The images linked, in the order in which they would be sent."""
        by_hash = {self.sha(image)[:12]: image for image in self.rank}
        return [by_hash[name.split("-")[1]] for name in self.names()]

    def link_of(self, image):
        """The path of an image's link."""
        return next(self.outbox_path / name for name in self.names()
                    if self.sha(image)[:12] in name)

    def send(self, count=1):
        """What downlink software does: send the first, by name, and remove it."""
        for name in self.names()[:count]:
            (self.outbox_path / name).unlink()

    def passes(self):
        """(origin, images) of all passes, the oldest first."""
        return [(made.origin, self.catalog.pass_images(made.number))
                for made in self.catalog.passes(100)[::-1]]
