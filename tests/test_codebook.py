"""What a codebook answers: the truly nearest centroids, honest numbers, no damaged file."""

import io
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetson_cluster import codebook
from jetson_cluster.codebook import QUANTILE_POINTS, Codebook
from jetson_cluster.errors import UserError

QUICK = settings(deadline=None, max_examples=60, database=None)


def squared_distances(points, centroids):
    """float64 [N, k], from the differences: what `nearest` is held to."""
    wide = points.astype(np.float64)
    return np.stack([((wide - centroid) ** 2).sum(axis=1)
                     for centroid in centroids.astype(np.float64)], axis=1)


def rows(seed, count, dimension, kind="normal"):
    """float32 [count, dimension] of one kind of data."""
    random = np.random.RandomState(seed)
    drawn = random.normal(size=(count, dimension))
    if kind == "positive":  # like a network's output after its last ReLU
        drawn = np.abs(drawn) ** 3
    if kind == "long":  # all of them long, and close together
        drawn = 100 + 1e-3 * drawn
    if kind == "sparse":
        drawn[random.uniform(size=drawn.shape) < 0.9] = 0
    return drawn.astype(np.float32)


def assert_nearest(points, centroids, neighbours):
    """`nearest` against brute force in float64."""
    found = codebook.nearest(
        points, centroids, codebook.half_squared_lengths(centroids), neighbours)
    squared = squared_distances(points, centroids)
    best = np.argsort(squared, axis=1, kind="stable")[:, :neighbours]
    shape = (len(points), min(neighbours, len(centroids)))
    assert found.index.shape == found.distance.shape == shape
    assert found.index.dtype == np.int32 and found.distance.dtype == np.float32
    assert np.isfinite(found.distance).all() and (found.distance >= 0).all()
    chosen = np.take_along_axis(squared, found.index.astype(np.int64), axis=1)
    # Centroids chosen differently differ by no more than the rounding of a difference.
    expected = np.take_along_axis(squared, best, axis=1)
    np.testing.assert_allclose(chosen, expected, rtol=4e-6, atol=1e-30)
    np.testing.assert_allclose(found.distance, np.sqrt(chosen), rtol=1e-3, atol=1e-12)
    each = np.sort(found.index, axis=1)
    assert (np.diff(each, axis=1) > 0).all(), "a centroid is named twice"
    return found, best


@QUICK
@given(seed=st.integers(0, 2 ** 31), count=st.sampled_from([0, 1, 2, 17, 60]),
       k=st.sampled_from([1, 2, 3, 5, 64]), dimension=st.sampled_from([1, 2, 7, 33, 255]),
       neighbours=st.integers(1, 5),
       kind=st.sampled_from(["normal", "positive", "long", "sparse"]), scaled=st.booleans())
def test_the_nearest_are_those_of_brute_force(
        seed, count, k, dimension, neighbours, kind, scaled):
    points, centroids = rows(seed, count, dimension, kind), rows(seed + 1, k, dimension, kind)
    if scaled:
        points, centroids = codebook.normalise(points), codebook.normalise(centroids)
    assert_nearest(points, centroids, neighbours)


@pytest.mark.parametrize("count, k, dimension", [(1, 512, 2048), (300, 512, 1281), (5000, 512, 33)])
def test_the_nearest_are_those_of_brute_force_at_full_size(count, k, dimension):
    points = codebook.normalise(rows(1, count, dimension, "positive"))
    assert_nearest(points, codebook.normalise(rows(2, k, dimension, "positive")), 4)


@pytest.mark.parametrize("spread", [1e-2, 1e-4, 1e-6])
def test_a_crowd_of_centroids_closer_than_the_products_rounding_is_told_apart(spread):
    middle = rows(1, 1, 1025, "positive") * 100
    centroids = (middle + spread * rows(2, 300, 1025)).astype(np.float32)
    points = (middle + spread * rows(3, 25, 1025)).astype(np.float32)
    assert_nearest(points, centroids, 4)
    assert_nearest(points[:1], centroids, 4)  # one image goes another way


@QUICK
@given(seed=st.integers(0, 2 ** 31), k=st.sampled_from([2, 3, 9, 77, 512]),
       dimension=st.sampled_from([3, 33, 127, 1281]), different=st.integers(1, 4))
def test_equal_centroids_go_by_the_lower_number(seed, k, dimension, different):
    random = np.random.RandomState(seed)
    centroids = rows(seed, different, dimension)[random.randint(0, different, k)]
    for count in (1, 20):
        found, best = assert_nearest(rows(seed + 1, count, dimension), centroids, 4)
        np.testing.assert_array_equal(found.index, best)


def test_a_point_on_a_centroid_is_at_distance_nothing():
    centroids = rows(1, 100, 257, "long")
    found, _ = assert_nearest(centroids, centroids, 1)
    np.testing.assert_array_equal(found.index[:, 0], np.arange(100))
    np.testing.assert_array_equal(found.distance, 0)


def test_a_row_of_zeros_has_a_nearest_centroid():
    points = np.zeros((3, 9), np.float32)
    centroids = np.concatenate([rows(1, 4, 9), np.zeros((1, 9), np.float32)])
    found, _ = assert_nearest(codebook.normalise(points), centroids, 2)
    assert (found.index[:, 0] == 4).all()


@QUICK
@given(seed=st.integers(0, 2 ** 31), exponent=st.integers(-42, 34))
def test_every_finite_embedding_is_brought_to_length_one(seed, exponent):
    embeddings = (rows(seed, 4, 50) * 10.0 ** exponent).astype(np.float32)
    lengths = np.linalg.norm(codebook.normalise(embeddings).astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, (embeddings != 0).any(axis=1), atol=1e-5)


# ---- preparation -------------------------------------------------------------------------------

def components_of(seed, count, dimension):
    """float32 [count, dimension]: orthonormal rows."""
    turned, _ = np.linalg.qr(np.random.RandomState(seed).normal(size=(dimension, dimension)))
    return turned[:count].astype(np.float32)


def prepared_slowly(embeddings, preparation):
    """float64, a row and a number at a time: what Preparation.apply is held to."""
    made = []
    for row in embeddings.astype(np.float64):
        if preparation.normalisation == "sqrt":
            row = np.array([np.copysign(abs(number) ** 0.5, number) for number in row])
        length = np.linalg.norm(row)
        if preparation.normalisation != "none" and length:
            row = row / length
        if len(preparation.components):
            row = row - preparation.mean
            row = np.array([row @ direction for direction in preparation.components])
        made.append(row)
    return np.array(made)


@QUICK
@given(seed=st.integers(0, 2 ** 31), normalisation=st.sampled_from(codebook.NORMALISATIONS),
       kept=st.sampled_from([0, 1, 5, 16]), count=st.sampled_from([1, 2, 30]),
       kind=st.sampled_from(["normal", "positive", "long", "sparse"]))
def test_an_embedding_is_prepared_as_it_is_defined(seed, normalisation, kept, count, kind):
    made = codebook.Preparation(normalisation)
    if kept:
        made = made._replace(mean=rows(seed, 1, 16)[0] / 10, components=components_of(seed, kept, 16))
    embeddings = rows(seed + 1, count, 16, kind)
    embeddings[0] = 0
    before = embeddings.copy()
    prepared = made.apply(embeddings)
    assert prepared.dtype == np.float32 and prepared.shape == (count, kept or 16)
    told = prepared_slowly(embeddings, made)
    np.testing.assert_allclose(prepared, told, rtol=1e-5, atol=1e-5 * max(1, np.abs(told).max()))
    assert (embeddings == before).all()


def test_the_root_keeps_the_sign_and_lets_small_numbers_count():
    prepared = codebook.Preparation("sqrt").apply(np.array([[16, -9, 0]], np.float32))
    np.testing.assert_allclose(prepared, [[0.8, -0.6, 0]], rtol=1e-6)


def test_only_scaling_to_length_one_is_plain():
    assert codebook.Preparation().is_plain
    assert not codebook.Preparation("sqrt").is_plain and not codebook.Preparation("none").is_plain
    turned = codebook.Preparation("l2", np.zeros(4, np.float32), components_of(0, 2, 4))
    assert not turned.is_plain and str(turned) == "l2, 2 components"


# ---- assess ------------------------------------------------------------------------------------

def make(k=5, dimension=9, seed=0, **changes):
    """A codebook with plausible tables."""
    random = np.random.RandomState(seed)
    ramp = np.linspace(0, 1, QUANTILE_POINTS).astype(np.float32)
    fields = dict(
        space="net/layer@0123456789abcdef", normalisation="l2",
        centroids=codebook.normalise(rows(seed, k, dimension)) * np.float32(0.9),
        counts=np.arange(10, 10 + k), scales=random.uniform(0.3, 0.6, k).astype(np.float32),
        novelty_quantiles=0.5 + ramp, margin_quantiles=ramp / 2, r50=1.0, r95=1.4)
    return Codebook(**dict(fields, **changes))


def prepared_book(k, dimension, seed, normalisation="l2", kept=0, **changes):
    """A plausible codebook of embeddings that are prepared so, with `kept` components."""
    if normalisation == "l2" and not kept:
        return make(k, dimension, seed, **changes)
    fields = dict(normalisation=normalisation, middle=rows(seed, 1, dimension)[0] / 10,
                  reaches=np.random.RandomState(seed).uniform(0.2, 0.5, k).astype(np.float32))
    if kept:
        fields.update(mean=rows(seed + 1, 1, dimension)[0] / 10,
                      components=components_of(seed, kept, dimension))
    return make(k, kept or dimension, seed, **dict(fields, **changes))


@QUICK
@given(seed=st.integers(0, 2 ** 31), k=st.sampled_from([1, 2, 3, 4, 5, 40]),
       count=st.sampled_from([0, 1, 30]), size=st.sampled_from([1e-3, 1.0, 500.0]),
       normalisation=st.sampled_from(codebook.NORMALISATIONS), kept=st.sampled_from([0, 1, 7]))
def test_an_assessment_keeps_its_word(seed, k, count, size, normalisation, kept):
    book = prepared_book(k, 16, seed, normalisation, kept)
    assert book.dimension == 16
    embeddings = (rows(seed + 1, count, 16) * size).astype(np.float32)
    if count > 3:  # nowhere at all, and where it can be on a centroid
        embeddings[1] = 0
        if not kept:
            embeddings[0] = book.centroids[0]
    found = book.assess(embeddings)
    for name, values in found._asdict().items():
        assert len(values) == count and not np.isnan(values).any(), name
        assert values.dtype in (np.float32, np.int32, np.bool_), name
    known = min(k, codebook.NEIGHBOURS)
    assert ((found.cluster >= 0) & (found.cluster < k)).all()
    assert (found.distance <= found.second_distance).all()
    assert np.isinf(found.second_distance).all() == (k == 1 or count == 0)
    np.testing.assert_allclose(found.ratio, found.distance / book.scales[found.cluster], rtol=1e-6)
    np.testing.assert_array_equal(found.far, found.ratio > book.r95)
    for share in (found.novelty, found.representative):
        assert ((share >= 0) & (share <= 1)).all()
    assert (found.novelty[found.far] == np.float32(codebook.FAR_NOVELTY)).all()
    np.testing.assert_array_equal(found.soft_index[:, 0], found.cluster)
    assert (found.soft_weight >= 0).all() and (found.soft_weight[:, known:] == 0).all()
    assert (np.diff(found.soft_weight, axis=1) <= 0).all()
    np.testing.assert_allclose(
        np.linalg.norm(found.soft_weight, axis=1),
        np.minimum(1, book.r50 / np.maximum(found.ratio, 1e-9)), rtol=1e-5)


@QUICK
@given(seed=st.integers(0, 2 ** 31), k=st.sampled_from([1, 3, 40]), count=st.sampled_from([1, 2, 30]),
       normalisation=st.sampled_from(codebook.NORMALISATIONS), kept=st.sampled_from([0, 1, 7]))
def test_a_codebook_read_from_its_file_assesses_as_the_one_that_was_written(
        tmp_path_factory, seed, k, count, normalisation, kept):
    path = str(tmp_path_factory.mktemp("round") / "codebook.npz")
    made = prepared_book(k, 16, seed, normalisation, kept)
    codebook.save(path, made)
    back = codebook.load(path, made.space, 16)
    assert back.identity == made.identity and str(back.preparation) == str(made.preparation)
    embeddings = rows(seed + 2, count, 16, "positive")
    for ours, theirs in zip(made.assess(embeddings), back.assess(embeddings)):
        assert ours.dtype == theirs.dtype and ours.tobytes() == theirs.tobytes()


def test_a_reach_that_was_measured_is_taken_and_else_it_follows_from_the_scale():
    embeddings = rows(3, 20, 9)
    plain = make(r50=0.8).assess(embeddings)
    np.testing.assert_allclose(plain.reach, 2 ** 0.5 * 0.8 * make().scales[plain.cluster], rtol=1e-6)
    told = np.arange(1, 6).astype(np.float32)
    found = make(reaches=told).assess(embeddings)
    assert (found.reach == told[found.cluster]).all() and (found.cluster == plain.cluster).all()


def test_the_archives_mean_is_that_of_the_centroids_by_size_where_none_was_measured():
    made = make(2, 2, centroids=np.eye(2, dtype=np.float32), counts=np.array([3, 1]))
    assert made.archive_mean.tolist() == [0.75, 0.25]
    assert make(middle=rows(1, 1, 9)[0]).archive_mean.tolist() == rows(1, 1, 9)[0].tolist()


# ---- the measured forms, in numbers worked out by hand -----------------------------------------

def corners(**changes):
    """Six centroids on the axes of six dimensions, all of scale 0.5; novelty is r / 2."""
    ramp = np.linspace(0, 1, 65).astype(np.float32)
    return make(**dict(dict(centroids=np.eye(6, dtype=np.float32), counts=np.full(6, 9),
                            scales=np.full(6, 0.5, np.float32), novelty_quantiles=2 * ramp,
                            margin_quantiles=ramp, r50=0.5, r95=1.5), **changes))


def test_membership_falls_with_the_eighth_power_of_the_distance():
    found = codebook.soft_membership(np.array([[1, 2, 4, 8]], np.float32))[0]
    assert (found[1:] / found[0]).tolist() == pytest.approx([2.0 ** -8, 2.0 ** -16, 2.0 ** -24])
    assert np.linalg.norm(found) == pytest.approx(1)


def test_an_image_belongs_to_its_four_nearest_centroids_less_the_farther_off_it_is():
    # Equally far, sqrt(2 - 2 / sqrt(6)) = 1.08789, from all six: r = 2.17578, r50 / r = 0.22980.
    found = corners().assess(np.ones((1, 6), np.float32))
    assert len(set(found.soft_index[0])) == 4
    assert found.ratio[0] == pytest.approx(2.17578, abs=1e-4)
    assert found.soft_weight[0].tolist() == pytest.approx([0.5 * 0.22980] * 4, abs=1e-4)


def test_a_far_image_has_a_novelty_of_a_twentieth_and_the_others_their_quantile():
    embeddings = np.array([[1, 1, 1, 1, 1, 1], [1, 0.5, 0, 0, 0, 0]], np.float32)
    found = corners().assess(embeddings)
    assert found.far.tolist() == [True, False]
    # cos = 1 / sqrt(1.25): d = sqrt(2 - 1.78885) = 0.45951, r = 0.91902, of a table up to 2.
    assert found.novelty.tolist() == pytest.approx([0.05, 0.45951], abs=1e-4)


def test_a_table_of_65_points_is_a_codebooks_and_no_other(path):
    codebook.save(path, corners())
    assert len(codebook.load(path).novelty_quantiles) == 65
    for points in (64, 66):
        codebook.save(path, corners(novelty_quantiles=np.linspace(0, 1, points, dtype=np.float32)))
        assert "novelty_quantiles" in refusal(path)


def test_the_stranger_of_two_images_of_a_cluster_has_the_higher_novelty():
    book = make(3, 9)
    near, off = book.centroids[:1] + 0.02 * rows(5, 1, 9), book.centroids[:1] + 0.2 * rows(5, 1, 9)
    found = book.assess(np.concatenate([near, off]))
    assert found.cluster.tolist() == [0, 0] and not found.far.any()
    assert found.novelty[1] > found.novelty[0]
    assert found.representative[0] > found.representative[1]


def test_an_image_is_assessed_alike_alone_and_in_a_batch():
    book, embeddings = make(40, 33), rows(7, 64, 33, "positive")
    together = book.assess(embeddings)
    for row in (0, 31, 63):
        alone = book.assess(embeddings[row:row + 1])
        assert alone.cluster[0] == together.cluster[row]
        np.testing.assert_allclose(alone.ratio[0], together.ratio[row], rtol=1e-5)
        np.testing.assert_allclose(alone.soft_weight[0], together.soft_weight[row], atol=1e-4)


# ---- the file ----------------------------------------------------------------------------------

@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "codebook.npz")


@QUICK
@given(seed=st.integers(0, 2 ** 31), k=st.integers(1, 9), dimension=st.integers(1, 40),
       r50=st.floats(0.1, 1.0), more=st.floats(0, 3))
def test_a_codebook_comes_back_bit_for_bit(tmp_path_factory, seed, k, dimension, r50, more):
    path = str(tmp_path_factory.mktemp("round") / "codebook.npz")
    made = make(k, dimension, seed, r50=np.float64(r50), r95=np.float64(r50 + more))
    codebook.save(path, made)
    back = codebook.load(path, made.space)
    for name, _ in codebook.ARRAYS + codebook.OPTIONAL_ARRAYS:
        assert getattr(back, name).tobytes() == getattr(made, name).tobytes(), name
    assert (back.r50, back.r95, back.space) == (made.r50, made.r95, made.space)
    assert back.identity == made.identity


def test_whatever_differs_makes_another_identity():
    made = prepared_book(5, 9, 0, "sqrt", 4)
    identities = {made.identity}
    arrays = codebook.ARRAYS + codebook.OPTIONAL_ARRAYS
    for name, _ in arrays:
        changed = getattr(made, name).copy()
        changed.flat[0] += 1
        identities.add(Codebook(*made._replace(**{name: changed})).identity)
    identities.update(Codebook(*made._replace(**change)).identity for change in (
        {"space": "net/other@0123456789abcdef"}, {"r50": 0.99}, {"r95": 1.41},
        {"normalisation": "l2"}))
    assert len(identities) == 1 + len(arrays) + 4


# What version 1 said of `corners()`; a rover that has it must not place all images anew.
IDENTITY_IN_VERSION_1 = "335f047d6bafca968f12831aeae5449aabcc750cc011bd1314b0ba858f809345"


def test_a_plain_codebook_has_the_identity_that_it_had_in_version_1():
    assert corners().identity == IDENTITY_IN_VERSION_1


def refusal(path, space=None):
    """What `load` says of a bad file: one line that names it and tells what to do."""
    with pytest.raises(UserError) as caught:
        codebook.load(path, space)
    message = str(caught.value)
    assert message.startswith("codebook %s: " % path) and "\n" not in message
    assert "fit" in message
    return message


def test_a_codebook_cut_short_anywhere_is_refused(path):
    codebook.save(path, make(3, 5))
    with open(path, "rb") as stream:
        content = stream.read()
    for length in range(0, len(content), 3):
        with open(path, "wb") as stream:
            stream.write(content[:length])
        refusal(path)


def test_a_flipped_bit_is_refused_or_changes_nothing(path):
    made = make(3, 5)
    codebook.save(path, made)
    with open(path, "rb") as stream:
        content = bytearray(stream.read())
    refused = 0
    for place in range(0, len(content), 5):
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place % 8)
        with open(path, "wb") as stream:
            stream.write(flipped)
        try:
            assert codebook.load(path).identity == made.identity, place
        except UserError as error:
            assert path in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > len(content) / 5 / 3


def write_arrays(path, **arrays):
    """A codebook file of these arrays over good ones; None leaves one out."""
    held = dict(make()._asdict(), format_version=np.int32(codebook.FORMAT_VERSION))
    held.update(arrays)
    with open(path, "wb") as stream:
        np.savez(stream, **{name: value for name, value in held.items() if value is not None})


@pytest.mark.parametrize("name", Codebook._fields)
def test_a_missing_field_is_named(path, name):
    write_arrays(path, **{name: None})
    assert name in refusal(path)


NAN = np.float32("nan")


@pytest.mark.parametrize("name, value", [
    ("centroids", np.zeros((5, 0), np.float32)), ("centroids", np.zeros(5, np.float32)),
    ("centroids", np.zeros((5, 3, 3), np.float32)), ("centroids", np.full((5, 9), NAN)),
    ("centroids", np.full((5, 9), "x")), ("centroids", np.full((5, 9), 1e300)),
    ("centroids", np.zeros((65537, 1), np.float32)), ("centroids", np.full((5, 9), 1j)),
    ("counts", np.arange(4)), ("counts", np.full(5, -1)), ("counts", np.full(5, 0.5)),
    ("scales", np.ones((5, 1), np.float32)), ("scales", np.zeros(5, np.float32)),
    ("scales", np.full(5, NAN)), ("scales", np.full(5, "x")),
    ("novelty_quantiles", np.linspace(1, 0, QUANTILE_POINTS)),
    ("novelty_quantiles", np.linspace(0, 1, 64)), ("margin_quantiles", np.full(65, np.inf)),
    ("r50", NAN), ("r50", np.ones(2)), ("r50", "1.0"), ("r50", -1.0), ("r95", 0.5), ("r95", np.inf),
    ("space", 5), ("space", np.array(["a", "b"])), ("normalisation", "l1"),
])
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_field_with_wrong_content_is_refused(path, name, value):
    write_arrays(path, **{name: value})
    assert name in refusal(path)


@pytest.mark.parametrize("version", [0, 3, "one", np.ones(2, np.int32), 1.5])
def test_another_format_is_refused_by_its_version(path, version):
    write_arrays(path, format_version=version)
    assert "format version" in refusal(path) and "reads versions 1 to 2" in refusal(path)


def test_a_codebook_of_version_1_is_read_and_is_the_same(path):
    write_arrays(path, format_version=np.int32(1),
                 **{name: None for name, _ in codebook.OPTIONAL_ARRAYS})
    assert codebook.load(path, dimension=9).identity == make().identity


def as_fields(book):
    """A codebook's fields, for write_arrays."""
    return dict(book._asdict())


@pytest.mark.parametrize("kept", [0, 4])
@pytest.mark.parametrize("name", ["reaches", "middle"])
def test_what_ranking_needs_of_prepared_embeddings_must_be_there(path, name, kept):
    write_arrays(path, **dict(as_fields(prepared_book(5, 9, 0, "sqrt", kept)),
                              **{name: codebook.NOTHING}))
    assert name in refusal(path)


@pytest.mark.parametrize("name, value", [
    ("mean", np.zeros(8, np.float32)), ("mean", codebook.NOTHING), ("mean", np.full(9, "x")),
    ("mean", np.full(9, np.nan, np.float32)), ("components", np.zeros((3, 9), np.float32)),
    ("components", np.zeros((4, 8), np.float32)), ("components", np.zeros(36, np.float32)),
    ("components", np.float32(1)), ("components", np.zeros((4, 0), np.float32)),
    ("components", np.full((4, 9), np.inf, np.float32)), ("reaches", np.ones(4, np.float32)),
    ("reaches", np.zeros(5, np.float32)), ("reaches", np.full(5, np.nan, np.float32)),
    ("middle", np.zeros(4, np.float32)), ("middle", np.full(9, np.inf, np.float32))])
def test_a_wrong_preparation_is_refused(path, name, value):
    write_arrays(path, **dict(as_fields(prepared_book(5, 9, 0, "l2", 4)), **{name: value}))
    assert name in refusal(path) or "mean" in refusal(path)


def test_embeddings_of_another_length_are_refused_whatever_is_made_of_them(path):
    codebook.save(path, prepared_book(5, 9, 0, "sqrt", 4))
    assert codebook.load(path, dimension=9).k == 5
    with pytest.raises(UserError, match="have 9 numbers, but the model's have 4"):
        codebook.load(path, dimension=4)


def npz_of_objects():
    stream = io.BytesIO()
    np.savez(stream, space=np.array({"a": 1}, dtype=object))
    return stream.getvalue()


def npy():
    stream = io.BytesIO()
    np.save(stream, np.zeros((4, 4)))
    return stream.getvalue()


def zip_of_text():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("readme.txt", "not arrays")
    return stream.getvalue()


@pytest.mark.parametrize("content", [
    b"", b"P", b"PK", b"clusters: {}\n", bytes(range(256)), pickle.dumps({"centroids": 1}),
    npz_of_objects(), npy(), zip_of_text()],
    ids=["empty", "p", "pk", "text", "noise", "pickle", "objects", "npy", "zip"])
def test_a_file_of_another_kind_is_refused(path, content):
    with open(path, "wb") as stream:
        stream.write(content)
    refusal(path)


def test_a_codebook_that_is_not_there_or_a_folder_is_refused(tmp_path):
    assert "no such file" in refusal(str(tmp_path / "absent.npz"))
    refusal(str(tmp_path))


def test_a_codebook_of_another_space_is_refused_by_both_names(path):
    codebook.save(path, make())
    message = refusal(path, "other/layer@ffff")
    assert "net/layer@0123456789abcdef" in message and "other/layer@ffff" in message
