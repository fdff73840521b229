"""Near-duplicates: a rover that stands still takes the same picture again and again.

In: the embeddings of new images. Out: in the catalog, for each image that is nearly the same as one
of the last few hundred, the group of such images it belongs to. Ranking discounts all of a group
but the first that is sent.
"""

from typing import List, Sequence, Tuple

import numpy as np

from jetson_cluster.codebook import normalise

# Measured on real Mars tiles with EfficientNet-Lite0: above it two embeddings show the same scene
# (see DESIGN, "Ranking"). Of InceptionV3's mixed5 7.6 % of all pairs are above it, so that two must
# also be close for their cluster: within this share of the image's reach.
LEAST_COSINE = 0.985
REACH_SHARE = 0.5
ROUNDING = 1e-5  # the same picture twice has a cosine within this of 1
# Images of one stop come one after the other; 512 of 2,048 numbers are 4 MB and take half a
# millisecond to compare.
RECENT = 512


class Twins:
    """The newest images of the catalog, to compare the next ones with."""

    def __init__(self, catalog):
        self._catalog = catalog
        self._images, embeddings = catalog.newest_embeddings(RECENT)
        self._points = normalise(embeddings)
        self._next = self._images, self._points

    def join(self, images: Sequence[int], embeddings: np.ndarray, reach: np.ndarray) -> None:
        """Find the near-duplicates of these new images, raw float32 [N, D], and note them.

        `reach` float32 [N] is that of codebook.Assessment; where it is 0 only the cosine decides.
        To be called within the transaction that added them, and `keep` after it.
        """
        if not len(images):
            return
        # As the catalog gives them back, so that a restart finds what this process would have.
        points = normalise(embeddings.astype(np.float16).astype(np.float32))
        if len(self._images):
            points_held = np.concatenate([self._points, points])
        else:
            points_held = points
        held = self._images + list(images)
        pairs = self._pairs(points, points_held, held, least_cosines(reach))
        if pairs:
            self._catalog.join_twins(pairs)
        self._next = held[-RECENT:], points_held[-RECENT:]

    def keep(self) -> None:
        """What was joined last is in the catalog: compare with it from now on."""
        self._images, self._points = self._next

    def _pairs(self, points: np.ndarray, points_held: np.ndarray, held: List[int],
               least: np.ndarray) -> List[Tuple[int, int]]:
        """(new image, the one before it that is most like it) where that is like enough."""
        cosines = points @ points_held.T
        before = len(held) - len(points)
        pairs = []
        for row in range(len(points)):
            seen = cosines[row, :before + row]
            if len(seen) and seen.max() >= least[row]:
                pairs.append((held[before + row], held[int(seen.argmax())]))
        return pairs


def least_cosines(reach: np.ndarray) -> np.ndarray:
    """float32 or float64 [N], as `reach` is: how alike others must be to images of this reach.

    0 is an image's where no codebook says how far its kind reaches: there the cosine alone decides.
    """
    # Of two directions at a distance d the cosine is 1 - d^2 / 2.
    by_distance = 1 - (REACH_SHARE * reach) ** 2 / 2
    return np.where(reach > 0, np.clip(by_distance, LEAST_COSINE, 1 - ROUNDING), LEAST_COSINE)
