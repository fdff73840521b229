"""Near-duplicates: a rover that stands still takes the same picture again and again.

In: the embeddings of new images. Out: in the catalog, for each image that is nearly the same as one
of the last few hundred, the group of such images it belongs to. Ranking discounts all of a group
but the first that is sent.
"""

from typing import List, Sequence, Tuple

import numpy as np

from jetson_cluster.codebook import normalise

# Measured on real Mars tiles: above it two embeddings show the same scene (see DESIGN, "Ranking").
LEAST_COSINE = 0.985
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

    def join(self, images: Sequence[int], embeddings: np.ndarray) -> None:
        """Find the near-duplicates of these new images, raw float32 [N, D], and note them.

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
        pairs = self._pairs(points, points_held, held)
        if pairs:
            self._catalog.join_twins(pairs)
        self._next = held[-RECENT:], points_held[-RECENT:]

    def keep(self) -> None:
        """What was joined last is in the catalog: compare with it from now on."""
        self._images, self._points = self._next

    def _pairs(self, points: np.ndarray, points_held: np.ndarray, held: List[int]
               ) -> List[Tuple[int, int]]:
        """(new image, the one before it that is most like it) where that is like enough."""
        cosines = points @ points_held.T
        before = len(held) - len(points)
        pairs = []
        for row in range(len(points)):
            seen = cosines[row, :before + row]
            if len(seen) and seen.max() >= LEAST_COSINE:
                pairs.append((held[before + row], held[int(seen.argmax())]))
        return pairs
