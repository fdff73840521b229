"""From files to rows: decoding ahead, the network in batches, and what cannot be kept.

In: files, a `Crew` that decodes and a function that embeds. Out: a `Row` or a `Failure` for each
file, in their order. Used alike on this machine and in a worker of a cluster.
"""

from typing import Callable, Iterable, Iterator, List, Optional, Union

import numpy as np

from jetson_cluster.ground.corpus.looking import Crew, Geometry, Look, look_at
from jetson_cluster.ground.corpus.shards import Failure, Row
from jetson_cluster.records import FLOAT16_MAX
from jetson_cluster.walker import Arrival

Embed = Callable[[np.ndarray], np.ndarray]  # uint8 [N, H, W, 3] -> float32 [N, D]
Known = Callable[[str], Optional[Row]]  # sha256 -> a row of that content, or None


def embed_files(files: Iterable[Arrival], geometry: Geometry, crew: Crew, embed: Embed, batch: int,
                known: Known = lambda sha256: None) -> Iterator[Union[Row, Failure]]:
    """Rows and failures, one a file, in the order of the files.

    What `known` gives is not embedded again. Raises what `embed` raises.
    """
    held = []  # type: List[Union[Look, Row, Failure]]
    new = 0
    for _, found in crew.each(look_at, files, geometry):
        if isinstance(found, Look):
            row = known(found.sha256)
            if row is None:
                new += 1
            else:
                found = row_of(found, row.embedding)
        held.append(found)
        if new == batch:
            yield from _embedded(held, embed)
            held, new = [], 0
    yield from _embedded(held, embed)


def _embedded(held: List[Union[Look, Row, Failure]], embed: Embed) -> Iterator[Union[Row, Failure]]:
    frames = [found.pixels for found in held if isinstance(found, Look)]
    embeddings = iter(embed(np.stack(frames)) if frames else ())
    for found in held:
        yield judged(found, next(embeddings)) if isinstance(found, Look) else found


def judged(found: Look, embedding: np.ndarray) -> Union[Row, Failure]:
    """The row of a file, or why what the network says of it cannot be kept: float32 [D]."""
    largest = float(np.abs(embedding).max())
    if not np.isfinite(largest):
        return Failure(found.arrival.path, "not_finite",
                       "The network gives numbers for it that are not finite.")
    if largest > FLOAT16_MAX:
        return Failure(found.arrival.path, "overflow", "The network's embedding reaches %g and the "
                       "corpus keeps numbers to %g; scale the model's output." % (
                           largest, FLOAT16_MAX))
    return row_of(found, embedding.astype(np.float16))


def row_of(found: Look, embedding: np.ndarray) -> Row:
    """What was found in a file, with its embedding float16 [D]."""
    return Row(found.arrival.path, found.sha256, found.arrival.bytes, found.arrival.mtime_ns,
               found.width, found.height, found.captured_at, found.measures, found.thumbnail,
               embedding)
