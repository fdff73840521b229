"""A rover's catalog of any size, without camera and network: what `tools/bench scale` measures on.

In: a folder and how many images. Out: the rover's own catalog, placing, head of the queue and
publisher, open on files in that folder, and as many random images as wanted: embeddings of 2,048
numbers around 128 centres, one of which dominates, a preview each, and files only where asked for.
"""

import contextlib
import hashlib
import os
from typing import Iterator, List, NamedTuple, Sequence

import numpy as np

from jetson_cluster import codebook, config, files
from jetson_cluster.catalog import Catalog
from jetson_cluster.codebook import Codebook, normalise
from jetson_cluster.head import Head
from jetson_cluster.inbox import Arrival
from jetson_cluster.placing import Placing
from jetson_cluster.policy import EMPTY, Policy
from jetson_cluster.preview import Preview
from jetson_cluster.publisher import Publisher
from jetson_cluster.quality import Measures
from jetson_cluster.records import Image

DIMENSION, CENTRES = 2048, 128
SPREAD = 0.8  # length of what is added to a centre, which has length 1
ARCHIVE = 4096  # images that the codebook is fitted to
FILL_BATCH = 1024
PREVIEW_BYTES = 1700  # what a WebP preview of 128 x 96 has, on average
SPACE = "random/numbers@0123456789abcdef"
CONTENT_S = 1  # mtime; any will do


class Rover(NamedTuple):
    """Everything that touches the catalog in the daemon's turn."""

    config: config.Config
    catalog: Catalog
    head: Head
    placing: Placing
    publisher: Publisher

    def record(self, images: List[Image]) -> None:
        """As ingest does with a batch that the network has embedded."""
        self.placing.record(images, [])

    def publish(self, policy: Policy) -> bool:
        """Write the queue file now. The images' files are not looked for: most are not there."""
        self.publisher.stale = True
        return self.publisher.publish_if_due(policy, inbox_available=False, at_once=True)


def settings(folder: str) -> config.Config:
    """The defaults, in this folder."""
    path = os.path.join(folder, "config.yaml")
    files.write_atomically(path, b"state_dir: state\nmodel: none.onnx\npolicy: policy.yaml\n"
                                 b"codebook: codebook.npz\ninbox: {path: inbox}\n")
    loaded = config.load(path)
    config.make_folders(loaded)
    os.makedirs(loaded.inbox.path, exist_ok=True)
    return loaded


@contextlib.contextmanager
def rover(folder: str, policy: Policy = EMPTY, clusters: str = "codebook.npz") -> Iterator[Rover]:
    """Open what the daemon opens but camera and network; `clusters` is a file in the folder."""
    opened = settings(folder)
    with Catalog(opened.catalog_path, SPACE) as catalog:
        head = Head(catalog, opened.queue.rows)
        placing = Placing(catalog, head)
        placing.use(codebook.load(os.path.join(folder, clusters)), policy)
        yield Rover(opened, catalog, head, placing,
                    Publisher(opened, catalog, placing, head, lambda: 0.0))


def embeddings(numbers: Sequence[int]) -> np.ndarray:
    """float32 [N, 2048] of these images, the same whenever they are asked for."""
    centres = normalise(np.random.RandomState(0).normal(size=(CENTRES, DIMENSION)))
    shares = 1 / np.arange(1, CENTRES + 1)
    random = np.random.Generator(np.random.SFC64([int(numbers[0]), len(numbers)]))
    chosen = random.choice(CENTRES, len(numbers), p=shares / shares.sum())
    # Some are odd: half as far again from every centre.
    reach = np.where(random.random(len(numbers)) < 0.03, 1.5 * SPREAD, SPREAD) / DIMENSION ** 0.5
    added = random.standard_normal((len(numbers), DIMENSION), np.float32)
    return centres[chosen] + added * reach[:, None].astype(np.float32)


def images(folder: str, start: int, count: int) -> List[Image]:
    """Images number `start` and on, as the pipeline would hand them over."""
    random, vectors = np.random.RandomState(start), embeddings(range(start, start + count))
    sizes = np.minimum(random.lognormal(12.5, 0.5, count), 4e6).astype(int)
    sharpness = random.uniform(0.3, 0.9, count)
    made = []
    for place, number in enumerate(range(start, start + count)):
        digest = hashlib.sha256(b"%d" % number)
        made.append(Image(
            Arrival(os.path.join(folder, "inbox", "sol%07d.jpg" % number), int(sizes[place]),
                    CONTENT_S * 10 ** 9, number),
            digest.hexdigest(), 1600, 1200, "2031-04-09T05:17:00Z", vectors[place], None,
            Measures(0.01, 0.01, 0.6, float(sharpness[place]), 0.0, 0.0),
            Preview(digest.digest() * (PREVIEW_BYTES // 32), "webp", 128, 96, 30.0)))
    return made


def fill(folder: str, start: int, until: int) -> None:
    """Catalogue images `start` to `until` in large batches; all that there are get their places."""
    with rover(folder) as filled:
        while filled.placing.progress.done < filled.placing.progress.total:
            filled.placing.place_some()
        for first in range(start, until, FILL_BATCH):
            filled.record(images(folder, first, min(FILL_BATCH, until - first)))


def put_files(filled: Rover, rows: int) -> None:
    """Give the first `rows` images of the queue a file each, of the right size, empty on disk."""
    ranked = filled.head.order(EMPTY, rows)
    for row in filled.catalog.rows([place.image for place in ranked]).values():
        with open(row.path, "wb") as stream:
            stream.truncate(row.bytes)
        os.utime(row.path, (CONTENT_S, CONTENT_S))


def fit(folder: str, name: str, clusters: int, seed: int) -> Codebook:
    """Write a codebook fitted to an archive of such images."""
    from jetson_cluster.ground.clustering import fit_codebook  # heavy, and no part of the rover
    archive = embeddings(range(10 ** 9, 10 ** 9 + ARCHIVE))
    scenes = [str(number) for number in range(ARCHIVE)]
    fitted = fit_codebook(archive, scenes, clusters, seed, SPACE)
    codebook.save(os.path.join(folder, name), fitted.codebook)
    return fitted.codebook
