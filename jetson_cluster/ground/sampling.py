"""Which images of a large archive are clustered, and what comes of those that are not.

In: how many images there are and how many clusters are wanted. Out: a Sample. All images are placed in
the clusters afterwards, a part at a time, so an archive need not fit into memory.
"""

from typing import Callable, Iterator, NamedTuple, Sequence, Tuple

import numpy as np

from jetson_cluster.codebook import Codebook

# A mean of n images is off by 1/n of their variance, so clusters of 512 images are within 0.2 % of
# the least inertia: less than one start of k-means differs from the next.
IMAGES_PER_CENTROID = 512
AT_ONCE = 8192  # images placed at a time: 64 MB at 2,048 numbers


class Sample(NamedTuple):
    """The images that are clustered."""

    indices: np.ndarray  # int64 [n], ascending
    words: str  # how many they are and why; "" where they are all of them


class Placed(NamedTuple):
    """Where all images of an archive fall among clusters that some of them were made into."""

    cluster: np.ndarray  # int32 [N]
    ratio: np.ndarray  # float32 [N], how far each is, by its cluster's scale


def choose(images: int, k: int, seed: int) -> Sample:
    """Which of so many images to make k clusters of: all, or evenly drawn ones."""
    most = IMAGES_PER_CENTROID * k
    if images <= most:
        return Sample(np.arange(images), "")
    return Sample(drawn(images, most, seed), "%d of %d images are clustered, %d for each of %d centroids: more "
                  "would lower the inertia by less than %.1f %%; all are placed in the clusters" % (
                      most, images, IMAGES_PER_CENTROID, k, 100 / IMAGES_PER_CENTROID))


def drawn(images: int, count: int, seed: int) -> np.ndarray:
    """int64 [count], ascending: so many of so many images, evenly drawn."""
    return np.sort(np.random.default_rng(seed).choice(images, count, replace=False))


def parts(images: int) -> Iterator[Sequence[int]]:
    """The indices of so many images, as many at a time as are placed at once."""
    for start in range(0, images, AT_ONCE):
        yield range(start, min(images, start + AT_ONCE))


def nothing(embeddings: np.ndarray, cluster: np.ndarray) -> None:
    """For whom nobody wants to see where images are."""


def place_all(images: int, embeddings: Callable[[Sequence[int]], np.ndarray], book: Codebook,
              sample: Sample, ratio: np.ndarray,
              seen: Callable[[np.ndarray, np.ndarray], None] = nothing) -> Tuple[Codebook, Placed]:
    """The codebook with the counts of all images, and where they are.

    `embeddings` gives the raw ones float32 [n, D] of some. `ratio` float32 is that of the sample, from
    clusters made without each; the others had no part in any. `seen` gets the raw embeddings of each
    part, and the clusters int32 [n] they are in.
    """
    placed = Placed(np.empty(images, np.int32), np.empty(images, np.float32))
    for part in parts(images):
        raw = embeddings(part)
        found = book.nearest(raw, 1)
        seen(raw, found.index[:, 0])
        rows = slice(part[0], part[-1] + 1)
        placed.cluster[rows] = found.index[:, 0]
        placed.ratio[rows] = found.distance[:, 0] / book.scales[found.index[:, 0]]
    placed.ratio[sample.indices] = ratio
    counts = np.bincount(placed.cluster, minlength=book.k)
    return Codebook(*book._replace(counts=counts)), placed
