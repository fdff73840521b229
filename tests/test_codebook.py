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


@QUICK
@given(seed=st.integers(0, 2 ** 31), k=st.sampled_from([1, 2, 3, 4, 5, 40]),
       count=st.sampled_from([0, 1, 30]), size=st.sampled_from([1e-3, 1.0, 500.0]))
def test_an_assessment_keeps_its_word(seed, k, count, size):
    book = make(k, 16, seed)
    embeddings = (rows(seed + 1, count, 16) * size).astype(np.float32)
    if count > 3:  # on a centroid, and nowhere at all
        embeddings[0], embeddings[1] = book.centroids[0], 0
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
    for name, _ in codebook.ARRAYS:
        assert getattr(back, name).tobytes() == getattr(made, name).tobytes(), name
    assert (back.r50, back.r95, back.space) == (made.r50, made.r95, made.space)
    assert back.identity == made.identity


def test_whatever_differs_makes_another_identity():
    made = make()
    identities = {made.identity}
    for name, _ in codebook.ARRAYS:
        changed = getattr(made, name).copy()
        changed.flat[0] += 1
        identities.add(make(**{name: changed}).identity)
    identities.update(make(**change).identity for change in (
        {"space": "net/other@0123456789abcdef"}, {"r50": 0.99}, {"r95": 1.41}))
    assert len(identities) == 1 + len(codebook.ARRAYS) + 3


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


@pytest.mark.parametrize("version", [2, "one", np.ones(2, np.int32), 1.5])
def test_another_format_is_refused_by_its_version(path, version):
    write_arrays(path, format_version=version)
    assert "format version" in refusal(path) and "reads version 1" in refusal(path)


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
