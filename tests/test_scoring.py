"""What an image is worth by itself, and what the scientists asked for more of."""

import hashlib

import numpy as np
import pytest

from jetson_cluster import codebook, policy, scoring
from jetson_cluster.catalog import Catalog
from jetson_cluster.codebook import QUANTILE_POINTS, Codebook
from jetson_cluster.head import Head
from jetson_cluster.inbox import Arrival
from jetson_cluster.placing import Placing
from jetson_cluster.policy import EMPTY, Target
from jetson_cluster.quality import Thresholds
from jetson_cluster.records import Image
from jetson_cluster.scoring import Resemblance, Targets

DIMENSION = 16
POINTS = np.random.RandomState(0).normal(size=(8, DIMENSION)).astype(np.float32)


def digest(number):
    return hashlib.sha256(b"%d" % number).hexdigest()


def image(number, embedding):
    return Image(Arrival("/inbox/%d.png" % number, 100, 1, 1), digest(number), 64, 48,
                 "2026-01-01T00:00:00Z", None if embedding is None else embedding)


def book(counts=None):
    ramp = np.linspace(0, 1, QUANTILE_POINTS).astype(np.float32)
    return Codebook("net", "l2", codebook.normalise(POINTS), np.array(counts or [10] * 8),
                    np.full(8, 0.3, np.float32), ramp, ramp, 0.5, 3.0)


@pytest.fixture
def catalog(tmp_path):
    """Eight images, and one that waits to be embedded."""
    with Catalog(str(tmp_path / "catalog.sqlite"), "net") as opened:
        placing = Placing(opened, Head(opened, 10))
        placing.use(book(), EMPTY)
        placing.record([image(number, point) for number, point in enumerate(POINTS)], [])
        opened.record([image(99, None)], None, [])
        yield opened


def wanting(*targets):
    return EMPTY._replace(targets=tuple(targets))


def like(number, weight=1.0, name="blueberries"):
    return Target(name, digest(number)[:8], None, weight)


def given(embedding, weight=1.0, name="drawn"):
    return Target(name, "", np.asarray(embedding, np.float32), weight)


# ---- interest ------------------------------------------------------------------------------------

def columns(*values):
    return [np.array(column, np.float32) for column in values]


def test_interest_is_six_tenths_novelty_and_four_tenths_representative_unless_told_otherwise():
    parts = columns([0, 1, 1, 0.5], [1, 0, 1, 0.25], [0] * 4, [1] * 4)
    found = scoring.interest(*parts, policy=EMPTY)
    assert found.dtype == np.float32 and found.tolist() == pytest.approx([0.4, 0.6, 1.0, 0.4])
    exploring = scoring.interest(*parts, policy=EMPTY._replace(explore=1.0))
    assert exploring.tolist() == pytest.approx([0, 1, 1, 0.5])


def test_signature_adds_by_its_share_and_quality_multiplies_everything():
    parts = columns([0.5, 0.5], [0.5, 0.5], [0.8, 0.8], [1, 0.5])
    assert scoring.interest(*parts, policy=EMPTY).tolist() == pytest.approx([1.3, 0.65])
    quarter = scoring.interest(*parts, policy=EMPTY._replace(signature=0.25))
    assert quarter.tolist() == pytest.approx([0.7, 0.35])


# ---- targets -------------------------------------------------------------------------------------

def test_the_target_itself_is_wholly_like_it_and_its_opposite_not_at_all():
    targets = Targets(("a",), codebook.normalise(POINTS[:1]), np.ones(1, np.float32),
                      np.zeros(1, np.float32), ())
    found = scoring.signatures(np.stack([7 * POINTS[0], -POINTS[0], np.zeros(DIMENSION)]), targets)
    assert found.dtype == np.float32 and found.tolist() == pytest.approx([1, 0, 0])


def test_likeness_is_counted_from_what_the_archive_has_on_average():
    cosine = 0.7
    embedding = np.zeros((1, DIMENSION), np.float32)
    embedding[0, :2] = cosine, (1 - cosine ** 2) ** 0.5
    target = np.eye(1, DIMENSION, dtype=np.float32)
    for typical, wanted in ((0.0, 0.7), (0.4, 0.5), (0.7, 0.0), (0.9, 0.0), (1.0, 0.0)):
        targets = Targets(("a",), target, np.ones(1, np.float32),
                          np.array([typical], np.float32), ())
        assert scoring.signatures(embedding, targets) == pytest.approx([wanted], abs=1e-6)


def test_of_several_targets_the_highest_by_weight_counts_and_gives_its_name(catalog):
    targets = Targets.resolve(wanting(like(0, 0.5, "a"), like(1, 2.0, "b"), like(2, 0, "c")),
                              catalog, None)
    embeddings = POINTS[[0, 1, 2]]
    found = scoring.signatures(embeddings, targets)
    assert found[:2] == pytest.approx([0.5, 2.0], abs=0.5)
    assert found[1] == pytest.approx(2.0, abs=1e-3)
    named = scoring.resemblances(embeddings, targets)
    assert named[1] == Resemblance("b", pytest.approx(1.0, abs=1e-3))
    assert "c" not in [one.name for one in named if one]


def test_without_targets_nothing_is_like_any():
    targets = Targets((), np.empty((0, 0), np.float32), *[np.empty(0, np.float32)] * 2 + [()])
    assert scoring.signatures(POINTS, targets).tolist() == [0] * 8
    assert scoring.resemblances(POINTS, targets) == [None] * 8


def test_a_target_is_found_by_the_beginning_of_its_images_hash(catalog):
    targets = Targets.resolve(wanting(like(3)), catalog, book())
    assert targets.names == ("blueberries",) and targets.unresolved == ()
    np.testing.assert_allclose(targets.vectors, codebook.normalise(POINTS[3:4]), atol=1e-3)
    assert targets.vectors.dtype == targets.weights.dtype == targets.typical.dtype == np.float32


def test_a_target_may_be_an_embedding(catalog):
    targets = Targets.resolve(wanting(given(5 * POINTS[3], 0.5)), catalog, book())
    np.testing.assert_allclose(targets.vectors, codebook.normalise(POINTS[3:4]), rtol=1e-6)
    assert targets.weights == [0.5] and targets.unresolved == ()


@pytest.mark.parametrize("counts", [None, [1, 2, 3, 4, 5, 6, 7, 80]])
def test_what_is_typical_is_the_mean_cosine_of_the_archive(catalog, counts):
    held = book(counts)
    targets = Targets.resolve(wanting(given(POINTS[0]), given(POINTS[7])), catalog, held)
    every = np.repeat(held.centroids, held.counts, axis=0)
    np.testing.assert_allclose(targets.typical, targets.vectors @ every.mean(axis=0), atol=1e-6)
    assert Targets.resolve(wanting(given(POINTS[0])), catalog, None).typical == [0]


def test_what_is_typical_is_of_the_embeddings_however_they_are_prepared_for_clusters(catalog):
    middle = codebook.normalise(POINTS).mean(axis=0)
    other = Codebook(*book()._replace(normalisation="sqrt", middle=middle,
                                      reaches=np.ones(8, np.float32)))
    wanted = wanting(given(POINTS[0]), given(POINTS[7]))
    np.testing.assert_allclose(Targets.resolve(wanted, catalog, other).typical,
                               Targets.resolve(wanted, catalog, book()).typical, atol=1e-6)


@pytest.mark.parametrize("target, why", [
    (Target("x", "0" * 8, None, 1.0), "x: no image here has a SHA-256 that begins with 00000000"),
    (Target("x", "1234", None, 1.0), "no image here has a SHA-256 that begins with 1234"),
    (Target("x", digest(99)[:8], None, 1.0),
     "x: the image %s is not embedded yet" % digest(99)[:8]),
    (given(np.ones(12)), "drawn: its embedding has 12 numbers, the images here have 16"),
])
def test_a_target_that_cannot_be_known_counts_nothing_and_says_why(catalog, target, why):
    targets = Targets.resolve(wanting(target, like(2)), catalog, book())
    assert targets.names == ("blueberries",)
    assert len(targets.unresolved) == 1 and why in targets.unresolved[0]


def test_a_beginning_that_several_images_share_is_refused(catalog):
    prefix = digest(2)[:6]
    other = image(200, POINTS[2])._replace(sha256=prefix + digest(200)[6:])
    placing = Placing(catalog, Head(catalog, 10))
    placing.use(book(), EMPTY)
    placing.record([other._replace(arrival=Arrival("/inbox/200.png", 100, 1, 1))], [])
    targets = Targets.resolve(wanting(Target("x", prefix, None, 1.0)), catalog, book())
    assert "several images have a SHA-256 that begins with %s" % prefix in targets.unresolved[0]
    assert Targets.resolve(wanting(like(2)), catalog, book()).names


def test_an_embedding_waits_while_nothing_here_is_embedded(tmp_path):
    with Catalog(str(tmp_path / "empty.sqlite"), "net") as empty:
        targets = Targets.resolve(wanting(given(POINTS[0])), empty, None)
        assert targets.names == () and "no image is embedded here yet" in targets.unresolved[0]
        # A codebook says how many numbers there must be.
        assert Targets.resolve(wanting(given(POINTS[0])), empty, book()).names == ("drawn",)


# ---- when the whole catalog must be valued anew --------------------------------------------------

def test_the_identity_tells_policies_apart_that_value_images_otherwise(catalog):
    def identity(changed, held=None):
        return scoring.identity(changed, Targets.resolve(changed, catalog, held))

    base = identity(EMPTY)
    assert base == identity(policy.Policy({3: "dunes"}, {3: 0.5}, pins=("abcdef",)))
    others = [identity(changed) for changed in (
        EMPTY._replace(explore=0.5), EMPTY._replace(signature=0.5),
        EMPTY._replace(quality=Thresholds(least=0.5)), wanting(like(1)), wanting(like(2)),
        wanting(like(2, 0.5)), wanting(like(1), like(2)))]
    others.append(identity(wanting(like(1)), book()))
    assert len({base, *others}) == 1 + len(others)
    # By what a target is, not by what it is called; one that is unknown values nothing otherwise.
    assert identity(wanting(like(1, name="x"))) == identity(wanting(like(1, name="y")))
    assert identity(wanting(Target("x", "0" * 8, None, 1.0))) == base
