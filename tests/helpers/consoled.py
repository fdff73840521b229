"""A catalog that came down from a rover, with its codebook: for the tests of the console.

The images are not here, as on the ground; the catalog holds their drawn previews. Placed and valued
by the flight code, in clusters of one colour each. Fixtures, to be imported: `down`, and `desk` over it.
"""

import hashlib
import io
import shutil

import numpy as np
import pytest
from PIL import Image as Pictures
from PIL import ImageDraw

from jetson_cluster import codebook, orders, passes
from jetson_cluster.applying import apply
from jetson_cluster.catalog import Catalog
from jetson_cluster.ground.console.desk import Desk
from jetson_cluster.head import Head
from jetson_cluster.passes import Downlink, make_pass
from jetson_cluster.placing import Placing
from jetson_cluster.policy import EMPTY
from jetson_cluster.preview import Preview
from jetson_cluster.quality import Measures
from jetson_cluster.records import Image
from jetson_cluster.walker import Arrival

SPACE, DIMENSION, AT = "net/layer@0123456789abcdef", 16, "2026-01-02T03:04:05Z"
COLOURS = ((176, 110, 70), (120, 84, 66), (198, 160, 120), (90, 90, 100), (150, 70, 50),
           (210, 190, 160))


def codebook_of(clusters, path):
    """One centroid along each axis; saved to `path`."""
    ramp = np.linspace(0, 1, codebook.QUANTILE_POINTS).astype(np.float32)
    made = codebook.Codebook(
        space=SPACE, normalisation="l2", centroids=0.9 * np.eye(clusters, DIMENSION).astype("f4"),
        counts=np.full(clusters, 10), scales=np.full(clusters, 0.5, np.float32),
        novelty_quantiles=2 * ramp, margin_quantiles=ramp, r50=1.0, r95=1.9)
    codebook.save(str(path), made)
    return made


def drawn(cluster, number):
    """A small picture of its kind."""
    random = np.random.RandomState(number)
    picture = Pictures.new("RGB", (128, 96), COLOURS[cluster % len(COLOURS)])
    pen = ImageDraw.Draw(picture)
    for _ in range(14):
        x, y, size = random.randint(0, 128), random.randint(30, 96), random.randint(3, 16)
        shade = tuple(int(c * random.uniform(0.5, 1.2)) % 256 for c in COLOURS[cluster % 6])
        pen.ellipse([x, y, x + size, y + size * 0.7], fill=shade)
    return picture


def preview(picture):
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=60)
    return Preview(stream.getvalue(), "jpeg", picture.width, picture.height, 30.0)


class Down:
    """What came down: `catalog`, `codebook`, and where the policy and the orders go."""

    def __init__(self, folder, clusters=6, each=20, names=None, pictures=drawn):
        """`names` are given to the first images; the rest are called sol0000_0000.jpg and so on."""
        folder.mkdir(exist_ok=True)
        self.folder, self.clusters = folder, clusters
        self.catalog, self.codebook = folder / "catalog.sqlite", folder / "codebook.npz"
        self.policy, self.orders = folder / "policy.yaml", folder / "order.yaml"
        self.book = codebook_of(clusters, self.codebook)
        random = np.random.RandomState(7)
        names = list(names or [])
        images = []
        for number in range(clusters * each):
            cluster = number % clusters
            name = names[number] if number < len(names) else "sol%04d_%04d.jpg" % (
                number // 50, number)
            embedding = np.eye(DIMENSION)[cluster] + random.normal(0, 0.12, DIMENSION)
            images.append(Image(
                Arrival("/rover/inbox/" + name, int(random.randint(40000, 400000)), 1, 1),
                hashlib.sha256(b"%d" % number).hexdigest(), 640, 480, AT,
                embedding.astype(np.float32),
                measures=Measures(0.1, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0),
                preview=preview(pictures(cluster, number))))
        with self.opened(SPACE) as catalog:
            placing = Placing(catalog, Head(catalog, 50))
            placing.use(self.book, EMPTY)
            placing.record(images, [])

    def opened(self, space=None):
        return Catalog(str(self.catalog), space)

    def sha(self, image):
        with self.opened() as catalog:
            return catalog.rows([image])[image].sha256


def opened(down, now_s=1.8e9, **more):
    return Desk(str(down.catalog), down.book, str(down.policy), str(down.orders),
                now_s=lambda: now_s, **more)


@pytest.fixture
def down(tmp_path):
    return Down(tmp_path / "down")


@pytest.fixture
def desk(down):
    with opened(down) as made:
        yield made


def passes_of(desk, budget="2MB"):
    """The next passes, however many turns valuing takes."""
    while True:
        found = desk.next_passes(budget)
        if found["done"] == 1:
            return found


def shas(shown):
    return [image["sha256"] for image in shown["images"]]


class Aboard:
    """A second copy of the catalog, on which the rover's own code does what was uplinked."""

    def __init__(self, down, name="aboard"):
        folder = down.folder / name
        folder.mkdir()
        shutil.copy(str(down.catalog), str(folder / "catalog.sqlite"))
        self.catalog = Catalog(str(folder / "catalog.sqlite"), None)
        self._head = Head(self.catalog, passes.ROWS_FIRST)
        self._placing = Placing(self.catalog, self._head)
        self._book = down.book

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.catalog.close()

    def follow(self, text):
        """Carry out an order file; the results."""
        parsed = orders.parse(text.encode(), "order.yaml")
        assert not parsed.refused
        return [apply(self.catalog, action, "radio", AT, None).result
                for action in parsed.actions]

    def ranking(self, said, rows=200):
        """[(SHA-256, score)] of the head of the queue under a policy."""
        self._placing.use(self._book, said)
        while self._placing.place_some():
            pass
        ranked = self._head.order(said, rows)
        known = self.catalog.rows([place.image for place in ranked])
        return [(known[place.image].sha256, pytest.approx(place.score)) for place in ranked]

    def next_pass(self, said, budget_bytes, monkeypatch):
        """The SHA-256s of the next pass, by make_pass itself, with the files as catalogued."""
        self.ranking(said)
        monkeypatch.setattr(passes._Choice, "_look_at",
                            lambda choice, images: choice._looked_at.update(images))
        report = make_pass(self.catalog, Downlink(self._head, said, "", lambda: True), budget_bytes,
                           "test", AT, dry_run=True)
        return [parcel.sha256 for parcel in report.parcels]
