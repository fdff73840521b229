"""How much an image is worth by itself, before the weight of its cluster and before diversity.

In: what the codebook says of an image (novelty, how typical), what the camera got right (quality),
and what the scientists asked for (targets: "more like this one"). Out: its interest. Pure
functions; only the targets are looked up in the catalog, once for each policy and codebook.

interest = quality x (explore x novelty + (1 - explore) x representative + share x signature)

The three rankers are those of NASA's OASIS (Castano et al. 2007: key target signature, novelty,
representative sampling).
"""

import hashlib
import json
from typing import List, NamedTuple, Optional, Tuple

import numpy as np

from jetson_cluster.codebook import Codebook, normalise

MARGIN_LEAST = 1e-6  # between a target and the whole archive, where all images look the same


class Resemblance(NamedTuple):
    """The target that an image is most like, by its weight, and how much, 0..1."""

    name: str
    likeness: float


class Targets(NamedTuple):
    """What the scientists want more of, as far as it is known here."""

    names: Tuple[str, ...]
    vectors: np.ndarray  # float32 [T, D], of length 1
    weights: np.ndarray  # float32 [T]
    typical: np.ndarray  # float32 [T], the mean cosine of the archive to each; 0 without a codebook
    unresolved: Tuple[str, ...]  # of the others, what they are called and why they count nothing

    @classmethod
    def resolve(cls, policy, catalog, codebook: Optional[Codebook]) -> "Targets":
        """The targets of `policy`; those given by a catalogued image are looked up."""
        known, unresolved = [], []
        dimension = _dimension(catalog, codebook)
        for target in policy.targets:
            embedding, why = target.embedding, ""
            if embedding is None:
                embedding, why = _embedding_of(catalog, target.like)
            elif not dimension:
                why = "no image is embedded here yet"
            elif len(embedding) != dimension:
                why = "its embedding has %d numbers, the images here have %d" % (
                    len(embedding), dimension)
            if why:
                unresolved.append("%s: %s" % (target.name, why))
            else:
                known.append((target.name, embedding, target.weight))
        if not known:
            nothing = np.empty(0, np.float32)
            return cls((), np.empty((0, dimension), np.float32), nothing, nothing,
                       tuple(unresolved))
        vectors = normalise(np.stack([embedding for _, embedding, _ in known]))
        return cls(tuple(name for name, _, _ in known), vectors,
                   np.array([weight for _, _, weight in known], np.float32),
                   _typical(vectors, codebook), tuple(unresolved))


def _dimension(catalog, codebook: Optional[Codebook]) -> int:
    """How many numbers an embedding has here; 0 while that is not known."""
    if codebook is not None:
        return codebook.dimension
    return catalog.newest_embeddings(1)[1].shape[1]


def _embedding_of(catalog, like: str) -> Tuple[Optional[np.ndarray], str]:
    """The embedding of the image whose SHA-256 begins so; or why there is none."""
    images = catalog.ids_by_prefix(like, 2)
    if not images:
        return None, "no image here has a SHA-256 that begins with %s" % like
    if len(images) > 1:
        return None, "several images have a SHA-256 that begins with %s; give more of it" % like
    try:
        return catalog.embeddings_of(images)[0], ""
    except KeyError:
        return None, "the image %s is not embedded yet" % like


def _typical(vectors: np.ndarray, codebook: Optional[Codebook]) -> np.ndarray:
    if codebook is None:
        return np.zeros(len(vectors), np.float32)
    # The product of a target and the mean of unit vectors is their mean cosine to it.
    return (vectors @ codebook.archive_mean).astype(np.float32)


def likenesses(embeddings: np.ndarray, targets: Targets) -> np.ndarray:
    """float32 [N, T] in 0..1 of raw embeddings float32 [N, D].

    0: no more like the target than the archive is on average; 1: the same direction.
    """
    cosines = normalise(embeddings) @ targets.vectors.T
    return np.clip((cosines - targets.typical)
                   / np.maximum(1 - targets.typical, MARGIN_LEAST), 0, 1).astype(np.float32)


def signatures(embeddings: np.ndarray, targets: Targets) -> np.ndarray:
    """float32 [N]: the highest of weight x likeness over the targets, 0 without any."""
    if not targets.names:
        return np.zeros(len(embeddings), np.float32)
    return (likenesses(embeddings, targets) * targets.weights).max(axis=1)


def resemblances(embeddings: np.ndarray, targets: Targets) -> List[Optional[Resemblance]]:
    """For each of float32 [N, D] the target that gives it its signature; None if that is 0."""
    if not targets.names:
        return [None] * len(embeddings)
    found = likenesses(embeddings, targets)
    weighted = found * targets.weights
    return [Resemblance(targets.names[best], float(found[row, best]))
            if weighted[row, best] > 0 else None
            for row, best in enumerate(weighted.argmax(axis=1))]


def interest(novelty: np.ndarray, representative: np.ndarray, signature: np.ndarray,
             quality: np.ndarray, policy) -> np.ndarray:
    """float32 [N] of four times float32 [N]: what orders images within their cluster."""
    base = (policy.signature * signature + policy.explore * novelty
            + (1 - policy.explore) * representative)
    return (base * quality).astype(np.float32)


def identity(policy, targets: Targets) -> str:
    """SHA-256 (hex) of all that interest depends on besides where the codebook places an image."""
    digest = hashlib.sha256(json.dumps(
        [policy.explore, policy.signature, list(policy.quality)]).encode("ascii"))
    for array in (targets.vectors, targets.weights, targets.typical):
        digest.update(np.ascontiguousarray(array, "<f4").tobytes())
    return digest.hexdigest()
