"""The rover's own order of a stream, for `tools/bench yield`.

In: a Case and a policy. Out: int [m], the places of the stream in the order to send them. The
stream goes through a real catalog in batches as it arrived: placing, near-duplicates, quality, and
the head of the queue as the daemon makes it, asked for all of it.
"""

import os
import tempfile

import numpy as np
from peers import Case

from jetson_cluster import quality
from jetson_cluster.catalog import Catalog
from jetson_cluster.head import Head
from jetson_cluster.inbox import Arrival
from jetson_cluster.placing import Placing
from jetson_cluster.policy import EMPTY, Policy
from jetson_cluster.quality import Measures
from jetson_cluster.ranking import FAR_QUALITY
from jetson_cluster.records import Image

DEFAULT = EMPTY
BATCH = 8  # the networks' own


def order(case: Case, policy: Policy) -> np.ndarray:
    """What the queue file would say with all of the stream in it and nothing sent before."""
    images = [_image(case, place) for place in range(len(case.embeddings))]
    with tempfile.TemporaryDirectory() as folder, \
            Catalog(os.path.join(folder, "catalog.sqlite"), case.codebook.space) as catalog:
        head = Head(catalog, len(images))
        placing = Placing(catalog, head)
        placing.use(case.codebook, policy)
        for start in range(0, len(images), BATCH):
            placing.record(images[start:start + BATCH], [])
        ranked = [place.image for place in head.order(policy)]
        place_of = {row.sha256: place for place, row in enumerate(images)}
        rows = catalog.rows(ranked)
        return np.array([place_of[rows[image].sha256] for image in ranked])


def _image(case: Case, place: int) -> Image:
    measures = None if np.isnan(case.measures[place, 0]) else Measures(
        *case.measures[place].tolist())
    return Image(Arrival("/inbox/%06d.jpg" % place, int(case.bytes[place]), place, place),
                 str(case.sha256[place]), 400, 300, "2031-04-09T05:17:00Z",
                 case.embeddings[place], None, measures)


def unmeasured(case: Case) -> Case:
    """The same stream, its quality never looked at."""
    return case._replace(measures=np.full_like(case.measures, np.nan))


def gated(case: Case, order_of_peer: np.ndarray) -> np.ndarray:
    """Another rule's order with our quality gate before it: what fails it comes last."""
    fails = quality.factors(case.measures, DEFAULT.quality)[order_of_peer] < FAR_QUALITY
    return np.concatenate([order_of_peer[~fails], order_of_peer[fails]])
