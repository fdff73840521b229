"""Images as the catalog takes them in, without cameras, networks or codebooks."""

import hashlib

import numpy as np

from jetson_cluster.codebook import NEIGHBOURS, Assessment
from jetson_cluster.inbox import Arrival
from jetson_cluster.placements import Placement, Worth
from jetson_cluster.records import Image, Refusal

SPACE = "net/layer@0123456789abcdef"


def arrival(path, content=1, mtime_ns=1):
    return Arrival(path, 100 + content, mtime_ns, 1)


def sha256_of(content):
    return hashlib.sha256(b"%d" % content).hexdigest()


def image(path, content, dimension=8, **more):
    """Content number `content` at a path."""
    random = np.random.RandomState(content)
    return Image(arrival(path, content, **more), sha256_of(content), 64, 48,
                 "2026-01-01T00:00:00Z", random.normal(size=dimension).astype(np.float32))


def placement(images, clusters=3, seed=0):
    """Some placement of a batch; what ranking makes of it is not the catalog's business."""
    random = np.random.RandomState(seed)
    count = len(images)
    cluster = random.randint(0, clusters, count).astype(np.int32)
    numbers = random.uniform(size=(6, count)).astype(np.float32)
    soft_weight = np.sort(random.uniform(size=(count, NEIGHBOURS)).astype(np.float32))[:, ::-1]
    ones = np.ones(count, np.float32)
    return Placement(
        Assessment(cluster, numbers[0], numbers[1], numbers[2], numbers[2] > 0.8, numbers[3],
                   numbers[4], np.repeat(cluster[:, None], NEIGHBOURS, axis=1), soft_weight,
                   ones),
        Worth(numbers[5], ones, 0 * ones))


def record(catalog, images, refusals=(), **more):
    return catalog.record(images, placement(images, **more), list(refusals))


def refusal(path, reason="cut short"):
    return Refusal(path, 7, 1, "damaged", reason, "2026-01-01T00:00:00Z")
