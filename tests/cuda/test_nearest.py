"""nearest.cu, unchanged, run on the CPU with bounds, alignment and arithmetic checked.

Speed and the hardware's memory system are not shown here; tools/gpu_check is for those.
"""

import numpy as np
import pytest
import questions
from cpu_kernels import KernelFault, Memory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from questions import NEAREST, assert_true, true_distances

from jetson_cluster import codebook
from jetson_cluster.cuda import grids

DIMENSIONS = [1, 3, 4, 5, 48, 768, 1280, 2048, 4096]


@pytest.fixture(scope="module")
def worker(workers):
    """nearest.cu under the sanitizers."""
    return workers(NEAREST, "checked")


@pytest.fixture
def generator():
    """Random numbers, the same in every run."""
    return np.random.RandomState(20)


def embeddings_and_centroids(generator, rows, k, dimension):
    """Rows of any length, as a network makes them, and centroids shorter than 1, as of k-means."""
    centroids = codebook.normalise(generator.randn(k, dimension).astype(np.float32))
    return (np.abs(generator.randn(rows, dimension)) * 3).astype(np.float32), centroids * 0.8


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("stored", ["float16", "float32"])
def test_every_shape_agrees_with_float64(worker, generator, dimension, stored):
    sizes = [(rows, k) for k in (1, 2, 3, 127) for rows in (1, 2, 7, 33)]
    # Half of the large ones for each type of storage: together all, in half the time.
    sizes += [(1, 512), (33, 512)] if (stored == "float16") == (dimension > 5) else [(17, 513)]
    for rows, k in sizes:
        embeddings, centroids = embeddings_and_centroids(generator, rows, k, dimension)
        multiprocessors = 1 + (rows + k) % 4
        answer = questions.nearest(worker, embeddings, centroids, stored=stored,
                                   multiprocessors=multiprocessors)
        assert_true(*answer, true_distances(embeddings, centroids, stored))


def test_it_answers_as_numpy_does(worker, generator):
    for rows in (3, 40):
        embeddings, centroids = embeddings_and_centroids(generator, rows, 130, 200)
        index, distance = questions.nearest(worker, embeddings, centroids, stored="float32")
        told = codebook.nearest(codebook.normalise(embeddings), centroids,
                                codebook.half_squared_lengths(centroids), 4)
        assert (index == told.index).all()
        np.testing.assert_allclose(distance, told.distance, rtol=1e-6)


@pytest.mark.parametrize("neighbours", [1, 2, 3, 4])
def test_fewer_neighbours_are_the_first_of_more(worker, generator, neighbours):
    for rows in (2, 20):
        embeddings, centroids = embeddings_and_centroids(generator, rows, 150, 33)
        all_four = questions.nearest(worker, embeddings, centroids, 4)
        asked = questions.nearest(worker, embeddings, centroids, neighbours)
        assert (asked[0] == all_four[0][:, :neighbours]).all()
        assert (asked[1] == all_four[1][:, :neighbours]).all()


def test_an_answer_depends_on_neither_company_nor_device_nor_alignment(worker, generator):
    embeddings, centroids = embeddings_and_centroids(generator, 70, 300, 36)
    index, distance = questions.nearest(worker, embeddings, centroids)
    for variant in (dict(multiprocessors=2), dict(multiprocessors=132), dict(offset=4),
                    dict(seed=9, offset=8, multiprocessors=3)):
        again = questions.nearest(worker, embeddings, centroids, **variant)
        assert (again[0] == index).all() and (again[1] == distance).all(), variant
    for row in (0, 63, 64, 69):
        alone = questions.nearest(worker, embeddings[row:row + 1], centroids, multiprocessors=3)
        assert (alone[0][0] == index[row]).all() and (alone[1][0] == distance[row]).all()


def test_half_and_float_storage_of_the_same_numbers_answer_alike(worker, generator):
    for rows in (5, 18):
        embeddings, centroids = embeddings_and_centroids(generator, rows, 70, 50)
        centroids = centroids.astype(np.float16).astype(np.float32)
        half = questions.nearest(worker, embeddings, centroids)
        whole = questions.nearest(worker, embeddings, centroids, stored="float32")
        assert (half[0] == whole[0]).all() and (half[1] == whole[1]).all()


@pytest.mark.parametrize("rows", [2, 20])
def test_of_equal_centroids_the_lowest_come_first(worker, generator, rows):
    embeddings, centroids = embeddings_and_centroids(generator, rows, 6, 40)
    repeated = centroids[np.arange(400) % 6]
    index, distance = questions.nearest(worker, embeddings, repeated, multiprocessors=4)
    nearest = true_distances(embeddings, centroids).argmin(axis=1)
    assert (index == nearest[:, None] + 6 * np.arange(4)).all()
    assert (distance == distance[:, :1]).all()


@pytest.mark.parametrize("rows", [1, 20])
def test_a_row_that_is_a_centroid_is_at_distance_zero_from_it(worker, generator, rows):
    # Powers of two in equal numbers make lengths, and so the division by them, exact.
    centroids = np.zeros((200, 64), np.float32)
    for number in range(200):
        centroids[number, generator.permutation(64)[:16]] = 0.25
    index, distance = questions.nearest(worker, centroids[:rows] * 8, centroids, 1)
    assert (index[:, 0] == np.arange(rows)).all()
    assert (distance == 0).all()


@pytest.mark.parametrize("rows", [3, 20])
def test_tiny_gaps_between_long_vectors_keep_their_digits(worker, generator, rows):
    # 160 centroids about 1000 long, 60 of them within 0.05 of each other: |c|^2 is a million, of
    # which float32 keeps steps of 0.06.
    embeddings = generator.randn(rows, 300).astype(np.float32)
    middle = codebook.normalise(generator.randn(1, 300).astype(np.float32))
    lengths = np.concatenate([1000 + 0.05 * generator.rand(60), 1500 + 1000 * generator.rand(100)])
    centroids = (middle * generator.permutation(lengths)[:, None]).astype(np.float32)
    answer = questions.nearest(worker, embeddings, centroids, stored="float32", multiprocessors=2)
    assert_true(*answer, true_distances(embeddings, centroids, "float32"))


@pytest.mark.parametrize("rows", [3, 40])
def test_more_near_ties_than_candidates_are_still_told_apart(worker, generator, rows):
    # All centroids lie within 0.002 of the rows, in steps of 0.00001: squared, those are steps of
    # 2e-8, which a product of about 1 cannot see. Rows are one direction in many lengths.
    direction = generator.randn(1, 100)
    embeddings = (direction * 2.0 ** np.arange(-20, rows - 20)[:, None]).astype(np.float32)
    offsets = codebook.normalise(generator.randn(100, 100).astype(np.float32))
    radii = generator.permutation(0.001 + 0.00001 * np.arange(100))[:, None]
    centroids = (direction / np.linalg.norm(direction) + offsets * radii).astype(np.float32)
    truth = true_distances(embeddings, centroids, "float32")
    index, distance = questions.nearest(worker, embeddings, centroids, stored="float32")
    assert_true(index, distance, truth)
    assert (index == truth.argsort(axis=1)[:, :4]).all()
    if rows > grids.FEW_ROWS:
        # With no allowance for rounding, the product's candidates are not enough: the bound is what
        # made the difference, not luck.
        hasty, _ = questions.nearest(worker, embeddings, centroids, stored="float32", doubt=-1)
        assert (hasty != index).any()


def test_the_bound_on_the_products_rounding_holds(generator):
    # The worst case is a running sum in float32; numpy's cumulative sum is one.
    for dimension in (5, 300, 4096):
        point = codebook.normalise(np.abs(generator.randn(1, dimension)).astype(np.float32))[0]
        centroid = np.abs(generator.randn(dimension)).astype(np.float32)
        half_norms, doubt = grids.half_norms_and_doubt(centroid[None], dimension)
        running = np.cumsum(point * centroid, dtype=np.float32)[-1]
        exact = (point.astype(np.float64) * centroid).sum()
        exact_half = (centroid.astype(np.float64) ** 2).sum() / 2
        assert abs((half_norms[0] - running) - (exact_half - exact)) < doubt


@pytest.mark.parametrize("rows", [2, 20])
def test_a_zero_row_is_as_far_from_a_centroid_as_that_is_long(worker, generator, rows):
    _, centroids = embeddings_and_centroids(generator, 1, 90, 70)
    centroids *= np.linspace(2, 0.5, 90, dtype=np.float32)[:, None]
    index, distance = questions.nearest(worker, np.zeros((rows, 70), np.float32), centroids)
    assert (index == [89, 88, 87, 86]).all()
    lengths = np.sqrt((centroids.astype(np.float16).astype(np.float64) ** 2).sum(axis=1))
    np.testing.assert_allclose(distance[0], lengths[[89, 88, 87, 86]], rtol=1e-6)


@pytest.mark.parametrize("rows", [6, 30])
def test_rows_of_any_magnitude_are_scaled_without_overflow(worker, generator, rows):
    embeddings, centroids = embeddings_and_centroids(generator, rows, 90, 70)
    plain = questions.nearest(worker, embeddings, centroids)
    for power in (20, 37, -24, -36):
        scaled = (embeddings * np.float64(10) ** power).astype(np.float32)
        index, distance = questions.nearest(worker, scaled, centroids)
        assert (index == plain[0]).all()
        np.testing.assert_allclose(distance, plain[1], atol=1e-6)


@pytest.mark.parametrize("rows", [4, 20])
def test_a_row_that_is_not_finite_spoils_no_other(worker, generator, rows):
    embeddings, centroids = embeddings_and_centroids(generator, rows, 90, 70)
    plain = questions.nearest(worker, embeddings, centroids, multiprocessors=3)
    broken = embeddings.copy()
    broken[1, 5], broken[2, 0], broken[3, 69] = np.nan, np.inf, -np.inf
    index, distance = questions.nearest(worker, broken, centroids, multiprocessors=3)
    whole = [row for row in range(rows) if row not in (1, 2, 3)]
    assert (index[whole] == plain[0][whole]).all() and (distance[whole] == plain[1][whole]).all()
    assert (index[1:4] == [0, 1, 2, 3]).all() and np.isnan(distance[1:4]).all()


@st.composite
def small_problems(draw):
    """Few values, so that ties, duplicates, zero rows and zero centroids are common."""
    rows, k = draw(st.integers(1, 70)), draw(st.integers(1, 150))
    dimension = draw(st.integers(1, 40))
    values = draw(st.sampled_from([[0, 1], [-1, 0, 1], [0, 0, 0, 0, 0, 3], [-2, -1, 0.5, 1, 60]]))
    generator = np.random.RandomState(draw(st.integers(0, 2 ** 32 - 1)))
    embeddings = generator.choice(values, (rows, dimension)) * draw(st.sampled_from([1, 1e-4, 1e9]))
    centroids = generator.choice(values, (k, dimension)) * draw(st.sampled_from([1, 0.125, 100]))
    return embeddings.astype(np.float32), centroids.astype(np.float32)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(small_problems(), st.integers(1, 4), st.sampled_from(["float16", "float32"]),
       st.integers(1, 9), st.integers(0, 1000), st.sampled_from([0, 4, 12]))
def test_small_problems_full_of_ties_agree_with_float64(
        worker, problem, neighbours, stored, multiprocessors, seed, offset):
    embeddings, centroids = problem
    index, distance = questions.nearest(worker, embeddings, centroids, neighbours, stored,
                                        multiprocessors, seed, offset)
    assert_true(index, distance, true_distances(embeddings, centroids, stored))
    for number in np.unique(index):  # of equal centroids, a later one never without the earlier
        same = np.flatnonzero((centroids[:number] == centroids[number]).all(axis=1))
        for row in index[(index == number).any(axis=1)]:
            assert set(same) <= set(row[:list(row).index(number)])


PLANTED_OUTSIDE = [
    ("in a shared array", "shared.halves[own_centroid] =", "shared.halves[own_centroid + 1] =",
     "index 128 out of bounds"),
    ("in the answer", "if (lane < work.neighbours) {", "if (lane <= work.neighbours) {",
     "heap-buffer-overflow"),
    ("in what blocks leave", "work.partial[partial_of(row, blockIdx.y) + lane] =",
     "work.partial[partial_of(row, blockIdx.y) + lane + 3072] =", "heap-buffer-overflow"),
    ("of alignment", "return dimension % 4 == 0 &&", "return true ||", "misaligned address"),
]


@pytest.mark.parametrize("what, old, new, word", PLANTED_OUTSIDE,
                         ids=[planted[0] for planted in PLANTED_OUTSIDE])
def test_a_planted_access_outside_is_caught(workers, tmp_path, generator, what, old, new, word):
    text = NEAREST.read_text()
    assert text.count(old) == 1
    source = tmp_path / (what.replace(" ", "_") + ".cu")
    source.write_text(text.replace(old, new))
    embeddings, centroids = embeddings_and_centroids(generator, 65, 300, 33)
    with pytest.raises(KernelFault, match=word):
        questions.nearest(workers(source, "checked"), embeddings, centroids, multiprocessors=3)


def test_a_thread_that_leaves_ahead_of_a_barrier_is_caught(workers, tmp_path, generator):
    text = NEAREST.read_text()
    old = "    const int lane = thread % WARP;\n"
    assert text.count(old) == 1
    source = tmp_path / "left_early.cu"
    source.write_text(text.replace(old, "    if (thread >= 224) {\n        return;\n    }\n" + old))
    embeddings, centroids = embeddings_and_centroids(generator, 20, 30, 33)
    with pytest.raises(KernelFault, match="__syncthreads was not reached by all threads"):
        questions.nearest(workers(source, "checked"), embeddings, centroids)


def test_a_kernel_of_another_name_or_number_of_parameters_is_refused(worker):
    with pytest.raises(KernelFault, match="no kernel of that name"):
        worker.launch("nearest", (1, 1), [])
    with pytest.raises(KernelFault, match="wrong number of parameters"):
        worker.launch("nearest_few_half", (1, 1), [Memory(np.zeros(3, np.float32))])
