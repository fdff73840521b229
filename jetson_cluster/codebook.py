"""The k centroids with what is known about them, and where an embedding falls among them.

In: `codebook.npz`, made by `jetson-cluster fit`, and embeddings float32 [N, D] from the network.
Out: `nearest` (which centroids, how far) and `assess` (what ranking needs: cluster, novelty,
how typical, and the soft membership that diversity counts). `Preparation` is what is done to an
embedding first, the same on the ground, where clusters are fitted, and here.
"""

import hashlib
import os
import zipfile
from typing import Dict, NamedTuple, Optional

import numpy as np

from jetson_cluster.errors import UserError
from jetson_cluster.files import replace_atomically
from jetson_cluster.lookup import Nearest, half_squared_lengths, nearest

FORMAT_VERSION = 2
READ_VERSIONS = (1, 2)  # version 1 has none of the fields that an empty array leaves out
NORMALISATIONS = ("l2", "sqrt", "none")
QUANTILE_POINTS = 65  # a table of 65 points is within 1/64 of any quantile: finer than ranks need
NEIGHBOURS = 4  # an image belongs to its four nearest centroids (measured; see DESIGN "Ranking")
SOFTNESS = 8.0  # membership falls with the eighth power of distance: close calls share, others not
FAR_NOVELTY = 0.05  # beyond r95 an image is as often junk as discovery; it has its own slot
REACH = 2 ** 0.5  # as far apart are two images that are as far from their centre as is usual
MOST_CLUSTERS = 65536  # the catalog keeps cluster numbers in two bytes
ARRAYS = (("centroids", "<f4"), ("counts", "<i8"), ("scales", "<f4"),
          ("novelty_quantiles", "<f4"), ("margin_quantiles", "<f4"))
OPTIONAL_ARRAYS = (("mean", "<f4"), ("components", "<f4"), ("reaches", "<f4"), ("middle", "<f4"))
NOTHING = np.empty(0, np.float32)
NO_COMPONENTS = np.empty((0, 0), np.float32)


class Preparation(NamedTuple):
    """What is done to an embedding before it is compared with centroids: scaled, then turned.

    "l2" scales it to length 1. "sqrt" first takes each number's root and keeps its sign, so that a
    few large ones do not drown the others (Arandjelovic and Zisserman, "Three things everyone should
    know to improve object retrieval", 2012: Euclidean distance is then Hellinger's). "none" leaves
    it as the network gave it.
    """

    normalisation: str = "l2"  # one of NORMALISATIONS
    mean: np.ndarray = NOTHING  # float32 [D], subtracted before components are taken
    components: np.ndarray = NO_COMPONENTS  # float32 [d, D], orthonormal rows; none: all numbers stay

    @property
    def is_plain(self) -> bool:
        """Whether it only scales to length 1: then prepared embeddings are those ranking compares."""
        return self.normalisation == "l2" and not len(self.components)

    def __str__(self) -> str:
        return self.normalisation + (
            ", %d components" % len(self.components) if len(self.components) else "")

    def apply(self, embeddings: np.ndarray) -> np.ndarray:
        """float32 [N, d] of raw embeddings float32 [N, D]; d is D where there are no components."""
        points = np.asarray(embeddings, np.float32)
        if self.normalisation == "sqrt":
            points = np.sign(points) * np.sqrt(np.abs(points))
        if self.normalisation != "none":
            points = normalise(points)
        if len(self.components):
            points = (points - self.mean) @ self.components.T
        return points


class Found(NamedTuple):
    """The nearest centroids of one embedding, and the codebook they were looked up in."""

    codebook: str  # its identity
    index: np.ndarray  # int32 [n]
    distance: np.ndarray  # float32 [n]


class Assessment(NamedTuple):
    """What ranking knows of N embeddings under one codebook."""

    cluster: np.ndarray  # int32 [N]
    distance: np.ndarray  # float32 [N], to the cluster's centroid
    second_distance: np.ndarray  # float32 [N]; infinite where k = 1
    ratio: np.ndarray  # float32 [N], r = distance / the cluster's scale
    far: np.ndarray  # bool [N], r beyond r95
    novelty: np.ndarray  # float32 [N] in 0..1
    representative: np.ndarray  # float32 [N] in 0..1
    soft_index: np.ndarray  # int32 [N, NEIGHBOURS]; unused places repeat the cluster
    soft_weight: np.ndarray  # float32 [N, NEIGHBOURS]; 0 in unused places
    reach: np.ndarray  # float32 [N], the distance within which another image is near; 0: unknown


class CodebookFields(NamedTuple):
    """What a codebook file holds."""

    space: str  # identity of the embedding space, see recipe.Model
    normalisation: str  # see Preparation
    centroids: np.ndarray  # float32 [k, d], means of prepared embeddings (not of unit length)
    counts: np.ndarray  # int64 [k], training images of each
    scales: np.ndarray  # float32 [k], s[c] = sqrt(mu[c] * mu), see DESIGN "Ranking"
    novelty_quantiles: np.ndarray  # float32 [65], of r = d1/s[c] over held-out images
    margin_quantiles: np.ndarray  # float32 [65], of 1 - d1/d2 over held-out images
    r50: float
    r95: float
    mean: np.ndarray = NOTHING  # float32 [D], see Preparation
    components: np.ndarray = NO_COMPONENTS  # float32 [d, D], see Preparation
    # What ranking compares are embeddings of length 1, however they are prepared for clustering.
    reaches: np.ndarray = NOTHING  # float32 [k], see Assessment.reach; none: follow from the scales
    middle: np.ndarray = NOTHING  # float32 [D], the archive's mean; none: that of the centroids


class Codebook(CodebookFields):
    """k centroids of one embedding space, with what is derived from them worked out once."""

    @property
    def k(self) -> int:
        return int(self.centroids.shape[0])

    @property
    def dimension(self) -> int:
        """How many numbers a raw embedding has."""
        return int((self.components if len(self.components) else self.centroids).shape[1])

    @property
    def preparation(self) -> Preparation:
        return self._once("preparation", lambda: Preparation(
            self.normalisation, self.mean, self.components))

    @property
    def archive_mean(self) -> np.ndarray:
        """float [D], the mean of the archive's embeddings when each has length 1."""
        if len(self.middle):
            return self.middle
        return self._once("archive_mean", lambda: np.average(
            self.centroids.astype(np.float64), axis=0, weights=self.counts))

    @property
    def identity(self) -> str:
        """SHA-256 (hex) of the content: two codebooks with one identity assess alike."""
        return self._once("identity", self._hash)

    @property
    def half_norms(self) -> np.ndarray:
        """float32 [k], half the squared length of each centroid."""
        return self._once("half_norms", lambda: half_squared_lengths(self.centroids))

    def _once(self, name, work):
        if name not in self.__dict__:
            self.__dict__[name] = work()
        return self.__dict__[name]

    def _hash(self) -> str:
        digest = hashlib.sha256(("%s %s %r %r" % (
            self.space, self.normalisation, float(self.r50), float(self.r95))).encode("utf-8"))
        for name, dtype in ARRAYS:
            digest.update(np.ascontiguousarray(getattr(self, name), dtype).tobytes())
        for name, dtype in OPTIONAL_ARRAYS:
            array = np.ascontiguousarray(getattr(self, name), dtype)
            if array.size:  # else the identity is that of the same codebook in version 1
                digest.update(("%s %s" % (name, array.shape)).encode("ascii") + array.tobytes())
        return digest.hexdigest()

    def prepare(self, embeddings: np.ndarray) -> np.ndarray:
        """float32 [N, d] of raw embeddings float32 [N, D]: as the centroids are."""
        return self.preparation.apply(embeddings)

    def nearest(self, embeddings: np.ndarray, neighbours: int = 2) -> Nearest:
        """The nearest centroids of raw embeddings float32 [N, D]; at most k of them."""
        return nearest(self.prepare(embeddings), self.centroids, self.half_norms, neighbours)

    def assess(self, embeddings: np.ndarray, found: Optional[Nearest] = None) -> Assessment:
        """Place raw embeddings float32 [N, D] among the centroids, in the measured forms of DESIGN.

        `found` are their nearest centroids, NEIGHBOURS or k of them, where the GPU found them already.
        """
        if found is None:
            found = self.nearest(embeddings, NEIGHBOURS)
        cluster, first = found.index[:, 0], found.distance[:, 0]
        rows, known = found.index.shape
        second = found.distance[:, 1] if known > 1 else np.full(rows, np.inf, np.float32)
        ratio = first / self.scales[cluster]
        far = ratio > self.r95
        ramp = np.linspace(0, 1, QUANTILE_POINTS, dtype=np.float32)
        novelty = np.where(far, FAR_NOVELTY, np.interp(ratio, self.novelty_quantiles, ramp))
        margin = 1 - first / np.maximum(second, np.finfo(np.float32).tiny)
        soft_index = np.repeat(cluster[:, None], NEIGHBOURS, axis=1)
        soft_index[:, :known] = found.index
        soft_weight = np.zeros((rows, NEIGHBOURS), np.float32)
        soft_weight[:, :known] = soft_membership(found.distance)
        soft_weight *= np.minimum(1, self.r50 / np.maximum(ratio, 1e-6))[:, None]
        reaches = self.reaches if len(self.reaches) else REACH * self.r50 * self.scales
        return Assessment(cluster, first, second, ratio, far, novelty.astype(np.float32),
                          np.interp(margin, self.margin_quantiles, ramp).astype(np.float32),
                          soft_index, soft_weight, reaches[cluster].astype(np.float32))


def normalise(embeddings: np.ndarray) -> np.ndarray:
    """Scale rows of float32 [N, D] to length 1; a zero row stays zero."""
    embeddings = np.asarray(embeddings, np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings))
    # float32 squares overflow from 1e19 and vanish below 1e-22: such rows are scaled first.
    extreme = ~((lengths > 1e-15) & (lengths < 1e15))
    if extreme.any():
        largest = np.abs(embeddings[extreme]).max(axis=1, keepdims=True)
        rows = embeddings[extreme] / np.maximum(largest, np.finfo(np.float32).tiny)
        embeddings = embeddings.copy()
        embeddings[extreme], lengths[extreme] = rows, np.sqrt(np.einsum("nd,nd->n", rows, rows))
    return embeddings / np.maximum(lengths, np.finfo(np.float32).tiny)[:, None]


def soft_membership(distances: np.ndarray) -> np.ndarray:
    """Weights of float32 [N, n] distances, nearest first: (d1/dj)^8, each row of length 1."""
    first = distances[:, :1]
    weight = np.where(distances > 0, first / np.maximum(distances, 1e-12), 1.0) ** SOFTNESS
    return (weight / np.sqrt((weight ** 2).sum(axis=1, keepdims=True))).astype(np.float32)


def save(path: str, codebook: Codebook) -> None:
    """Write `codebook` to `path` (.npz), whole or not at all; raises OSError."""
    fields = codebook._asdict()
    replace_atomically(path, lambda stream: np.savez(
        stream, format_version=np.int32(FORMAT_VERSION), **fields))


def load(path: str, space: Optional[str] = None, dimension: Optional[int] = None) -> Codebook:
    """Read a codebook.

    Raises UserError if it is none, is damaged, is not of `space` or has not `dimension` numbers.
    """
    if not os.path.isfile(path):
        raise UserError("codebook %s: no such file; make one with 'jetson-cluster fit'" % path)
    held = _read_arrays(path)
    version = held.get("format_version", np.int32(-1))
    if version.shape or version.dtype.kind != "i" or version not in READ_VERSIONS:
        raise UserError("codebook %s: %s, and this program reads versions %d to %d; make it anew "
                        "with 'jetson-cluster fit'" % (
                            path, "format version %s" % _in_a_line(version)
                            if "format_version" in held else "not a codebook",
                            READ_VERSIONS[0], READ_VERSIONS[-1]))
    if version == 1:
        held = dict(held, mean=NOTHING, components=NO_COMPONENTS, reaches=NOTHING, middle=NOTHING)
    problem = _wrong_kind(held)
    if problem:
        raise UserError("codebook %s: %s; make it anew with 'jetson-cluster fit'" % (path, problem))
    codebook = Codebook(
        space=str(held["space"]), normalisation=str(held["normalisation"]),
        r50=float(held["r50"]), r95=float(held["r95"]),
        **{name: np.ascontiguousarray(held[name], dtype)
           for name, dtype in ARRAYS + OPTIONAL_ARRAYS})
    problem = _problem(codebook)
    if problem:
        raise UserError("codebook %s: %s; make it anew with 'jetson-cluster fit'" % (path, problem))
    check_fits(path, codebook, space, dimension)
    return codebook


def check_fits(path: str, codebook: Codebook, space: Optional[str],
               dimension: Optional[int]) -> None:
    """Raise UserError if the codebook at `path` is of another embedding space; None: any will do."""
    if space is not None and codebook.space != space:
        raise UserError("codebook %s: made for the embedding space %s, but the model here gives %s; "
                        "fit a codebook with this model" % (path, codebook.space, space))
    if dimension is not None and codebook.dimension != dimension:
        raise UserError("codebook %s: it is of embeddings that have %d numbers, but the model's have "
                        "%d; fit a codebook with this model" % (
                            path, codebook.dimension, dimension))


def _read_arrays(path: str) -> Dict[str, np.ndarray]:
    try:
        held = {}
        # np.load of numpy 1.19 prints a traceback of its own over a damaged archive.
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    array = np.lib.format.read_array(member, allow_pickle=False)
                    if member.read():  # also makes zipfile compare the checksum
                        raise ValueError("%s is longer than it says" % name)
                held[os.path.splitext(name)[0]] = array
        return held
    except Exception as error:
        # zipfile and numpy have a dozen ways to fail on a damaged file; all mean the same here.
        raise UserError("codebook %s: cannot be read (%s: %s); copy it again or make it anew with "
                        "'jetson-cluster fit'" % (path, type(error).__name__, _in_a_line(error)))


def _in_a_line(thing) -> str:
    return " ".join(str(thing).split())[:200]


def _wrong_kind(held: Dict[str, np.ndarray]) -> str:
    """Which fields are missing or no numbers or no text, or an empty string."""
    missing = [name for name in Codebook._fields if name not in held]
    if missing:
        return "%s missing" % ", ".join(missing)
    kinds = [(name, "iu" if name == "counts" else "iuf", "numbers")
             for name, _ in ARRAYS + OPTIONAL_ARRAYS]
    kinds += [("r50", "iuf", "a number"), ("r95", "iuf", "a number"),
              ("space", "U", "text"), ("normalisation", "U", "text")]
    for name, kind, words in kinds:
        if held[name].dtype.kind not in kind or (words != "numbers" and held[name].shape):
            return "%s must be %s" % (name, words)
    return ""


def _problem(codebook: Codebook) -> str:
    """What makes the codebook unusable, or an empty string."""
    if codebook.normalisation not in NORMALISATIONS:
        return "normalisation is %r, known are %s" % (
            codebook.normalisation, ", ".join(NORMALISATIONS))
    if codebook.centroids.ndim != 2 or 0 in codebook.centroids.shape:
        return "centroids have shape %s, expected [k, d]" % (codebook.centroids.shape,)
    if codebook.k > MOST_CLUSTERS:
        return "there are %d centroids, at most %d are possible" % (codebook.k, MOST_CLUSTERS)
    shapes = (("counts", (codebook.k,)), ("scales", (codebook.k,)),
              ("novelty_quantiles", (QUANTILE_POINTS,)), ("margin_quantiles", (QUANTILE_POINTS,)))
    shapes += _optional_shapes(codebook)
    for name, shape in shapes:
        array = getattr(codebook, name)
        if array.shape != shape:
            return "%s has shape %s, expected %s" % (name, array.shape, shape)
    for name in ("centroids", "scales", "novelty_quantiles", "margin_quantiles", "r50", "r95",
                 "mean", "components", "reaches", "middle"):
        if not np.isfinite(getattr(codebook, name)).all():
            return "%s holds numbers that are not finite" % name
    if (codebook.counts < 0).any():
        return "counts must not be negative"
    if (codebook.scales <= 0).any() or codebook.r50 <= 0 or codebook.r95 < codebook.r50:
        return "scales, r50 and r95 must be positive and r95 no less than r50"
    if (codebook.reaches <= 0).any():
        return "reaches must be positive"
    for name in ("novelty_quantiles", "margin_quantiles"):
        if (np.diff(getattr(codebook, name)) < 0).any():
            return "%s must not fall" % name
    return ""


def _optional_shapes(codebook: Codebook) -> tuple:
    """(name, the shape it must have) of what may be left out; with another preparation it may not."""
    if not codebook.components.size:
        expected = (("mean", (0,)), ("components", (0, 0)))
    else:
        columns = codebook.components.shape[-1]
        expected = (("components", (codebook.centroids.shape[1], columns)), ("mean", (columns,)))
    dimension = codebook.components.shape[-1] or codebook.centroids.shape[1]
    needed = codebook.normalisation != "l2" or codebook.components.size
    for name, length in (("reaches", codebook.k), ("middle", dimension)):
        if needed or getattr(codebook, name).size:
            expected += ((name, (length,)),)
    return expected
