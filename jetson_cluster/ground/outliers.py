"""The images of an archive that are least like the rest of it, as a list for people.

In: how far each image is from clusters that were made without it. Out: a CSV file, most unusual first:
odd terrain, and frames that should not be in the archive at all.
"""

import csv
from typing import List, Sequence

import numpy as np

from jetson_cluster.codebook import Codebook
from jetson_cluster.downlink import printable_path

COLUMNS = ("path", "sha256", "cluster", "ratio")


def far(ratio: np.ndarray, book: Codebook) -> np.ndarray:
    """int [m]: which of float32 [N] the rover would call far (beyond r95), the farthest first."""
    beyond = np.flatnonzero(ratio > book.r95)
    return beyond[np.argsort(-ratio[beyond], kind="stable")]


def write(path: str, listed: np.ndarray, paths: Sequence[str], sha256: Sequence[str],
          cluster: np.ndarray, ratio: np.ndarray) -> None:
    """The images `listed`, int [m], of N with these facts, as CSV; raises OSError."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows(_row(place, paths, sha256, cluster, ratio) for place in listed)


def _row(place: int, paths, sha256, cluster, ratio) -> List[str]:
    return [printable_path(paths[place]), sha256[place], "%d" % cluster[place],
            "%.3f" % ratio[place]]
