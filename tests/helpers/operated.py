"""A catalog over an inbox of real files of chosen sizes, for the tests of what operations do.

The files hold no pictures: what is sent, acknowledged or held is decided by names, sizes and
states. Embeddings and worth are chosen, so that the order of the queue is known: the first is the best, and
none is like another.
"""

import hashlib
import os

import numpy as np

from jetson_cluster import cli
from jetson_cluster.catalog import Catalog
from jetson_cluster.codebook import NEIGHBOURS, Assessment
from jetson_cluster.head import Head
from jetson_cluster.passes import Downlink
from jetson_cluster.placements import Placement, Worth
from jetson_cluster.policy import EMPTY
from jetson_cluster.preview import Preview
from jetson_cluster.records import Image
from jetson_cluster.walker import examine

SPACE = "net/layer@0123456789abcdef"
CLUSTERS = 64
AT = "2026-01-02T03:04:05Z"


class Operations:
    """Inbox, state folder and catalog; a context manager."""

    def __init__(self, folder):
        self.folder, self.inbox, self.state = folder, folder / "inbox", folder / "state"
        self.inbox.mkdir(exist_ok=True)
        self.state.mkdir(exist_ok=True)
        self.path = str(self.state / "catalog.sqlite")
        self.catalog = Catalog(self.path, SPACE)
        if not self.catalog.clusters:
            self.catalog.begin_placing("test", "test", CLUSTERS, True)
        self.inbox_there = True
        self.policy = EMPTY
        self.made = 0

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.catalog.close()

    def add(self, *sizes, names=None, previews=0, embedded=True):
        """Catalogue new files of so many bytes, each worth less than those before; their ids."""
        images = []
        for place, size in enumerate(sizes):
            number = self.made + place
            path = self.inbox / (names[place] if names else "sol%04d.jpg" % number)
            path.parent.mkdir(exist_ok=True)
            content = (b"%08d" % number).ljust(size, b".")[:size]
            path.write_bytes(content)
            images.append(Image(
                examine(str(path)), hashlib.sha256(content).hexdigest(), 64, 48, AT,
                np.random.RandomState(number).normal(size=8).astype(np.float32)
                if embedded else None,
                preview=Preview(b"p" * previews, "webp", 16, 12, 30.0) if previews else None))
        added = self.catalog.record(
            images, self._placement(len(sizes)) if embedded else None, [])
        self.made += len(sizes)
        return [image for image, _ in added]

    def _placement(self, count):
        """Each in a cluster of its own, and all of it only there."""
        worth = (1.0 / (2 + self.made + np.arange(count))).astype(np.float32)
        cluster = ((np.arange(count) + self.made) % CLUSTERS).astype(np.int32)
        ones, zeros = np.ones(count, np.float32), np.zeros(count, np.float32)
        return Placement(
            Assessment(cluster, ones, 2 * ones, ones, zeros > 0, worth, worth,
                       np.repeat(cluster[:, None], NEIGHBOURS, axis=1),
                       np.zeros((count, NEIGHBOURS), np.float32), zeros),
            Worth(worth, ones, zeros))

    def downlink(self):
        return Downlink(Head(self.catalog, 50), self.policy, str(self.state / "queue.csv"),
                        lambda: self.inbox_there)

    def state_of(self, image):
        return self.catalog.state_of(image)

    def states(self):
        return [row[0] for row in self.catalog._db.execute("SELECT state FROM images ORDER BY id")]

    def sha(self, image):
        return self.catalog.rows([image])[image].sha256

    def name(self, image):
        return os.path.basename(self.catalog.rows([image])[image].path)

    def everything(self):
        """All that operations can change, to be compared."""
        db = self.catalog._db
        return [db.execute(sql).fetchall() for sql in (
            "SELECT id, state, pass, preview_pass, pinned FROM images ORDER BY id",
            "SELECT * FROM passes ORDER BY number",
            "SELECT * FROM amendments ORDER BY kind, key",
            "SELECT order_id FROM audit WHERE order_id IS NOT NULL ORDER BY order_id")]

    def command(self, *words):
        """Run a verb of `jetson-cluster` here in this process, with the config of this rover.

        The catalog is closed meanwhile and opened anew: the verb has it as beside an idle daemon.
        """
        self.catalog.close()
        try:
            return cli.main([str(words[0]), "--config", str(self.config())]
                            + [str(word) for word in words[1:]])
        finally:
            self.catalog = Catalog(self.path, SPACE)

    def config(self):
        path = self.folder / "config.yaml"
        path.write_text("state_dir: state\npolicy: policy.yaml\ninbox: {path: inbox}\n"
                        "orders: {path: orders}\nlog_level: warning\n")
        return path
