"""The k centroids with what is known about them, and where an embedding falls among them.

In: `codebook.npz`, made by `jetson-cluster fit`, and embeddings float32 [N, D] from the network.
Out: `nearest` (which centroids, how far) and `assess` (what ranking needs: cluster, novelty,
how typical, and the soft membership that diversity counts).
"""

import hashlib
import os
import zipfile
from typing import Dict, NamedTuple, Optional

import numpy as np

from jetson_cluster.errors import UserError
from jetson_cluster.files import replace_atomically

FORMAT_VERSION = 1
NORMALISATIONS = ("l2",)
QUANTILE_POINTS = 65  # a table of 65 points is within 1/64 of any quantile: finer than ranks need
NEIGHBOURS = 4  # an image belongs to its four nearest centroids (measured; see DESIGN "Ranking")
SOFTNESS = 8.0  # membership falls with the eighth power of distance: close calls share, others not
FAR_NOVELTY = 0.05  # beyond r95 an image is as often junk as discovery; it has its own slot
REACH = 2 ** 0.5  # as far apart are two images that are as far from their centre as is usual
# The matrix product's rounding changes a gap between squared distances by up to 2.8e-6 of
# |x|^2 + |c|^2 (measured, D to 4095).
ROUNDING = 4e-6
CHUNK_ROWS = 2048  # bounds the [chunk, k] score matrix: 4 MB at k = 512
MOST_CLUSTERS = 65536  # the catalog keeps cluster numbers in two bytes
ARRAYS = (("centroids", "<f4"), ("counts", "<i8"), ("scales", "<f4"),
          ("novelty_quantiles", "<f4"), ("margin_quantiles", "<f4"))


class Nearest(NamedTuple):
    """For N embeddings, their n nearest centroids, nearest first; ties to the lower index."""

    index: np.ndarray  # int32 [N, n]
    distance: np.ndarray  # float32 [N, n], Euclidean, after normalisation


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
    normalisation: str  # "l2": every embedding is scaled to length 1 first
    centroids: np.ndarray  # float32 [k, D], of normalised embeddings (their means, not unit length)
    counts: np.ndarray  # int64 [k], training images of each
    scales: np.ndarray  # float32 [k], s[c] = sqrt(mu[c] * mu), see DESIGN "Ranking"
    novelty_quantiles: np.ndarray  # float32 [65], of r = d1/s[c] over held-out images
    margin_quantiles: np.ndarray  # float32 [65], of 1 - d1/d2 over held-out images
    r50: float
    r95: float


class Codebook(CodebookFields):
    """k centroids of one embedding space, with what is derived from them worked out once."""

    @property
    def k(self) -> int:
        return int(self.centroids.shape[0])

    @property
    def dimension(self) -> int:
        return int(self.centroids.shape[1])

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
        return digest.hexdigest()

    def nearest(self, embeddings: np.ndarray, neighbours: int = 2) -> Nearest:
        """The nearest centroids of raw embeddings float32 [N, D]; at most k of them."""
        return nearest(normalise(embeddings), self.centroids, self.half_norms, neighbours)

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
        return Assessment(cluster, first, second, ratio, far, novelty.astype(np.float32),
                          np.interp(margin, self.margin_quantiles, ramp).astype(np.float32),
                          soft_index, soft_weight,
                          (REACH * self.r50 * self.scales[cluster]).astype(np.float32))


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


def half_squared_lengths(centroids: np.ndarray) -> np.ndarray:
    """float32 [k] of centroids float32 [k, D], as `nearest` needs them."""
    return 0.5 * np.einsum("kd,kd->k", centroids, centroids)


def nearest(points: np.ndarray, centroids: np.ndarray, half_norms: np.ndarray,
            neighbours: int) -> Nearest:
    """The `neighbours` (at most k) nearest of centroids float32 [k, D] to points float32 [N, D].

    Squared distances come from one matrix product, |x|^2 - 2xc + |c|^2. That loses digits where the
    distance, or the gap between two, is small against |x|^2, so such rows are measured again
    from the differences themselves.
    """
    neighbours = min(neighbours, len(centroids))
    if len(points) == 1:
        found, squared = _nearest_to_one(points[0], centroids, half_norms, neighbours)
        return Nearest(found[None].astype(np.int32), np.sqrt(squared)[None])
    index = np.empty((len(points), neighbours), np.int32)
    distance = np.empty((len(points), neighbours), np.float32)
    for start in range(0, len(points), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        index[part], distance[part] = _nearest_chunk(
            points[part], centroids, half_norms, neighbours)
    return Nearest(index, distance)


def _nearest_to_one(point, centroids, half_norms, neighbours):
    """(indices, squared distances) for one point: few calls, for they cost more than the numbers."""
    closeness = np.dot(centroids, point)  # a fifth faster than @ for one vector
    closeness -= half_norms
    last = len(closeness) - neighbours
    edge = np.partition(closeness, last)[last]
    doubt = ROUNDING * (0.5 * np.dot(point, point) + half_norms.max())
    return _measured(point, centroids, np.flatnonzero(closeness >= edge - doubt), neighbours)


def _nearest_chunk(points, centroids, half_norms, neighbours):
    closeness = points @ centroids.T
    closeness -= half_norms  # largest where the distance is smallest
    # One more than asked for, where there is one: a near-tie at the edge must be seen as one.
    candidates = min(neighbours + 1, len(centroids))
    rows = np.arange(len(points))
    index = np.empty((len(points), candidates), np.int32)
    best = np.empty((len(points), candidates), np.float32)
    for place in range(candidates):  # argmax gives the lower index on a tie
        index[:, place] = closeness.argmax(axis=1)
        best[:, place] = closeness[rows, index[:, place]]
        closeness[rows, index[:, place]] = -np.inf
    norms = np.einsum("nd,nd->n", points, points)[:, None]
    squared = norms - 2 * best
    doubt = ROUNDING * (norms + 2 * half_norms[index])
    unsure = (squared < 1000 * doubt).any(axis=1)
    close = np.diff(squared, axis=1) < doubt[:, 1:]
    unsure |= close.any(axis=1)
    _measure_again(points, centroids, index, squared, np.flatnonzero(unsure))
    if candidates > neighbours:
        edge = best[:, neighbours - 1] - doubt[:, neighbours - 1] / 2
        for row in np.flatnonzero(close[:, -1]):
            # A tie at the edge may go on beyond the candidates, whose closeness is -inf by now.
            others = np.flatnonzero(closeness[row] >= edge[row])
            if len(others):
                index[row], squared[row] = _measured(
                    points[row], centroids, np.concatenate([index[row], others]), candidates)
    return index[:, :neighbours], np.sqrt(np.maximum(squared[:, :neighbours], 0))


def _measure_again(points, centroids, index, squared, rows):
    """Put the candidates of `rows` in order by their differences, in place."""
    exact = np.empty((len(rows), index.shape[1]), np.float32)
    for place in range(index.shape[1]):
        difference = points[rows] - centroids[index[rows, place]]
        exact[:, place] = np.einsum("nd,nd->n", difference, difference)
    order = np.lexsort((index[rows], exact), axis=1)
    index[rows] = np.take_along_axis(index[rows], order, axis=1)
    squared[rows] = np.take_along_axis(exact, order, axis=1)


def _measured(point, centroids, candidates, most):
    """The nearest `most` of `candidates` to one point, by differences: (indices, squared)."""
    difference = point - centroids[candidates]
    exact = np.einsum("nd,nd->n", difference, difference)
    order = np.lexsort((candidates, exact))[:most]
    return candidates[order], exact[order]


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
    if version.shape or version.dtype.kind != "i" or version != FORMAT_VERSION:
        raise UserError("codebook %s: %s, and this program reads version %d; make it anew with "
                        "'jetson-cluster fit'" % (
                            path, "format version %s" % _in_a_line(version)
                            if "format_version" in held else "not a codebook", FORMAT_VERSION))
    problem = _wrong_kind(held)
    if problem:
        raise UserError("codebook %s: %s; make it anew with 'jetson-cluster fit'" % (path, problem))
    codebook = Codebook(
        space=str(held["space"]), normalisation=str(held["normalisation"]),
        r50=float(held["r50"]), r95=float(held["r95"]),
        **{name: np.ascontiguousarray(held[name], dtype) for name, dtype in ARRAYS})
    problem = _problem(codebook)
    if problem:
        raise UserError("codebook %s: %s; make it anew with 'jetson-cluster fit'" % (path, problem))
    if space is not None and codebook.space != space:
        raise UserError("codebook %s: made for the embedding space %s, but the model here gives %s; "
                        "fit a codebook with this model" % (path, codebook.space, space))
    if dimension is not None and codebook.dimension != dimension:
        raise UserError("codebook %s: its centroids have %d numbers, but the model's embeddings have "
                        "%d; fit a codebook with this model" % (
                            path, codebook.dimension, dimension))
    return codebook


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
    kinds = [(name, "iu" if name == "counts" else "iuf", "numbers") for name, _ in ARRAYS]
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
        return "centroids have shape %s, expected [k, D]" % (codebook.centroids.shape,)
    if codebook.k > MOST_CLUSTERS:
        return "there are %d centroids, at most %d are possible" % (codebook.k, MOST_CLUSTERS)
    shapes = (("counts", (codebook.k,)), ("scales", (codebook.k,)),
              ("novelty_quantiles", (QUANTILE_POINTS,)), ("margin_quantiles", (QUANTILE_POINTS,)))
    for name, shape in shapes:
        array = getattr(codebook, name)
        if array.shape != shape:
            return "%s has shape %s, expected %s" % (name, array.shape, shape)
    for name in ("centroids", "scales", "novelty_quantiles", "margin_quantiles", "r50", "r95"):
        if not np.isfinite(getattr(codebook, name)).all():
            return "%s holds numbers that are not finite" % name
    if (codebook.counts < 0).any():
        return "counts must not be negative"
    if (codebook.scales <= 0).any() or codebook.r50 <= 0 or codebook.r95 < codebook.r50:
        return "scales, r50 and r95 must be positive and r95 no less than r50"
    for name in ("novelty_quantiles", "margin_quantiles"):
        if (np.diff(getattr(codebook, name)) < 0).any():
            return "%s must not fall" % name
    return ""
