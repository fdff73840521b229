"""What a report tells of an archive: clusters as ranges of images, near-duplicates, a map."""

import os
import tracemalloc

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="a corpus needs pyarrow")
pytest.importorskip("sklearn", reason="the map needs scikit-learn")

import surveyed

from jetson_cluster import codebook
from jetson_cluster import policy as policies
from jetson_cluster import twins
from jetson_cluster.codebook import normalise
from jetson_cluster.errors import UserError
from jetson_cluster.ground import corpus as corpora
from jetson_cluster.ground.report import data, duplicates, layout

DARK = (0.999, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)


def silent(words):
    """Nobody listens."""


@pytest.fixture
def surveyed_archive(tmp_path):
    """(corpus, codebook, survey) of 40 pictures of 4 kinds; number 5 is dark, number 39 far away."""
    rows = [surveyed.row(str(tmp_path / "archive" / ("%03d.png" % number)), number % 4, number,
                         measures=DARK if number == 5 else surveyed.SOUND,
                         vector=np.eye(16)[15] + 0.1 * np.eye(16)[2] if number == 39 else None)
            for number in range(40)]
    corpus = corpora.read(surveyed.write_corpus(tmp_path / "corpus", rows, shard_images=7))
    book = surveyed.codebook_of(tmp_path / "book.npz")
    policy = policies.EMPTY._replace(labels={1: "rock"}, weights={2: 3.0})
    return corpus, book, data.survey(corpus, book, policy, "pca", 0, silent)


def test_every_image_is_there_once_and_a_cluster_is_a_range_from_typical_to_unusual(
        surveyed_archive):
    corpus, book, survey = surveyed_archive
    assert sorted(survey.row) == list(range(40))
    assessed = book.assess(corpus.embeddings())
    for cluster in survey.clusters:
        members = slice(cluster.start, cluster.start + cluster.size)
        assert set(survey.cluster[members]) == {cluster.number}
        assert sorted(survey.row[members]) == np.flatnonzero(
            assessed.cluster == cluster.number).tolist()
        assert np.all(np.diff(survey.distance[members]) >= 0)
        assert cluster.spread == pytest.approx(survey.distance[members].mean(), rel=1e-5)
    assert sum(cluster.size for cluster in survey.clusters) == 40
    assert np.allclose(survey.distance, assessed.distance[survey.row])


def test_labels_and_weights_are_the_policys(surveyed_archive):
    clusters = surveyed_archive[2].clusters
    assert [cluster.label for cluster in clusters] == ["", "rock", "", ""]
    assert [cluster.weight for cluster in clusters] == [1.0, 1.0, 3.0, 1.0]


def test_what_is_unlike_the_archive_is_far_and_has_the_greatest_novelty(surveyed_archive):
    corpus, book, survey = surveyed_archive
    place = int(np.flatnonzero(survey.row == 39)[0])
    assert survey.far[place] and survey.novelty[place] == 1 == survey.novelty.max()
    assert book.assess(corpus.embeddings([39])).novelty[0] < 0.1  # to ranking it is likely junk


def test_novelty_is_rankings_own_where_an_image_is_not_far(surveyed_archive):
    corpus, book, survey = surveyed_archive
    assessed, near = book.assess(corpus.embeddings()), ~survey.far
    assert near.sum() >= 30
    assert np.allclose(survey.novelty[near], assessed.novelty[survey.row][near], atol=1e-6)


def test_a_bad_frame_says_what_is_wrong_with_it_and_a_sound_one_nothing(surveyed_archive):
    survey = surveyed_archive[2]
    place = int(np.flatnonzero(survey.row == 5)[0])
    assert survey.factor[place] < 0.2 and "under-exposed" in survey.reasons[place]
    assert [at for at, reason in enumerate(survey.reasons) if reason] == [place]
    assert np.all(np.delete(survey.factor, place) == 1)


def test_measures_that_could_not_be_taken_make_no_bad_frame(tmp_path):
    rows = [surveyed.row(str(tmp_path / "a" / ("%d.png" % number)), 0, number,
                         measures=[np.nan] * 7) for number in range(3)]
    corpus = corpora.read(surveyed.write_corpus(tmp_path / "corpus", rows))
    survey = data.survey(corpus, surveyed.codebook_of(tmp_path / "b.npz"), policies.EMPTY, "pca", 0,
                         silent)
    assert survey.reasons == ["", "", ""] and np.all(survey.factor == 1)


def test_a_cluster_nobody_is_in_is_told_as_empty(tmp_path):
    rows = [surveyed.row(str(tmp_path / "a" / "0.png"), 1, 0)]
    corpus = corpora.read(surveyed.write_corpus(tmp_path / "corpus", rows))
    survey = data.survey(corpus, surveyed.codebook_of(tmp_path / "b.npz"), policies.EMPTY, "pca", 0,
                         silent)
    assert [cluster.size for cluster in survey.clusters] == [0, 1, 0, 0]
    assert survey.clusters[0].spread == 0 and survey.place.shape == (1, 2)


def test_a_corpus_without_images_is_refused(tmp_path):
    corpus = corpora.read(surveyed.write_corpus(tmp_path / "corpus", []))
    with pytest.raises(UserError, match="it holds no images"):
        data.survey(corpus, surveyed.codebook_of(tmp_path / "b.npz"), policies.EMPTY, "pca", 0,
                    silent)


def test_embeddings_that_are_no_numbers_are_refused(tmp_path):
    rows = [surveyed.row(str(tmp_path / "a" / "0.png"), 1, 0, vector=[np.nan] * 16)]
    corpus = corpora.read(surveyed.write_corpus(tmp_path / "corpus", rows))
    with pytest.raises(UserError, match="not finite"):
        data.survey(corpus, surveyed.codebook_of(tmp_path / "b.npz"), policies.EMPTY, "pca", 0,
                    silent)


class Numbers:
    """A corpus as far as placing its images asks for one: embeddings of any rows."""

    folder = "made up"

    def __init__(self, embeddings):
        self.kept = embeddings

    def __len__(self):
        return len(self.kept)

    def embeddings(self, rows):
        return self.kept[rows].astype(np.float32)


def test_placing_images_holds_their_embeddings_twice_and_not_more(monkeypatch):
    monkeypatch.setattr(data, "CHUNK_ROWS", 64)
    corpus = Numbers(np.random.default_rng(2).standard_normal((6000, 512)).astype(np.float16))
    ramp = np.linspace(0, 1, codebook.QUANTILE_POINTS).astype(np.float32)
    book = codebook.Codebook(
        space="", normalisation="l2", centroids=0.95 * np.eye(4, 512).astype(np.float32),
        counts=np.full(4, 10), scales=np.full(4, 0.3, np.float32), novelty_quantiles=2 * ramp,
        margin_quantiles=ramp, r50=1.0, r95=1.9)
    tracemalloc.start()
    try:
        assessed = data._assess(corpus, book)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    raw = corpus.embeddings(slice(None))
    assert np.array_equal(assessed.directions, normalise(raw).astype(np.float16))
    assert np.array_equal(assessed.cluster, book.assess(raw).cluster)
    assert most < 2.3 * corpus.kept.nbytes


# ---- near-duplicates ---------------------------------------------------------------------------


def shots(scenes=300, dimension=192, seed=3):
    """(directions of 1 to 4 shots of each scene in any order, which scene each is of)."""
    rng = np.random.default_rng(seed)
    scene = rng.permutation(np.repeat(np.arange(scenes), rng.integers(1, 5, scenes)))
    views = rng.standard_normal((scenes, dimension))[scene]
    views += 0.06 * rng.standard_normal(views.shape)  # a cosine of 0.996
    return normalise(views).astype(np.float16), scene


def test_shots_of_one_scene_are_one_group_and_the_others_in_none():
    directions, scene = shots()
    group = duplicates.group(directions, np.zeros(len(scene), np.float32), 0)
    sizes = np.bincount(scene)
    assert np.all((group == -1) == (sizes[scene] == 1))
    for number in np.flatnonzero(sizes > 1):
        assert set(group[scene == number]) == {np.flatnonzero(scene == number)[0]}


def test_the_one_most_alike_is_found_as_if_all_pairs_were_compared():
    directions, scene = shots(scenes=120, dimension=256, seed=8)
    cosines = normalise(directions) @ normalise(directions).T
    cosines[np.triu_indices(len(scene))] = -1
    expected = np.where(cosines.max(axis=1) >= twins.LEAST_COSINE, cosines.argmax(axis=1), -1)
    found = duplicates.most_alike_before(directions, np.zeros(len(scene), np.float32), 0)
    assert (expected >= 0).sum() > 100 and np.array_equal(found, expected)


def test_copies_are_near_duplicates_however_small_the_reach_of_their_cluster():
    directions = np.repeat(normalise(np.random.default_rng(0).standard_normal((5, 32))), 2, axis=0)
    group = duplicates.group(directions.astype(np.float16), np.full(10, 1e-6, np.float32), 0)
    assert group.tolist() == [0, 0, 2, 2, 4, 4, 6, 6, 8, 8]


def test_close_images_of_a_tight_cluster_are_no_duplicates():
    directions, scene = shots()
    group = duplicates.group(directions, np.full(len(scene), 0.05, np.float32), 0)
    assert np.all(group == -1)


# ---- the map -----------------------------------------------------------------------------------


def kinds_of_points(count=200, dimension=80):
    rng = np.random.default_rng(4)
    kind = rng.integers(0, 3, count)
    return (6 * np.eye(dimension)[kind] + 0.3 * rng.standard_normal((count, dimension))).astype(
        np.float32), kind


@pytest.mark.parametrize("map_kind", layout.KINDS)
def test_the_map_fills_its_square_keeps_kinds_apart_and_is_the_same_again(map_kind):
    if map_kind == "umap":
        pytest.importorskip("umap", reason="no umap-learn here")
    points, kind = kinds_of_points()
    places = layout.place(points, map_kind, 7)
    assert places.shape == (200, 2) and places.dtype == np.float32
    size = places.max(axis=0) - places.min(axis=0)
    assert places.min() >= 0 and places.max() <= 1 and size.max() == pytest.approx(1, abs=1e-5)
    centres = np.array([places[kind == one].mean(axis=0) for one in range(3)])
    nearest = np.linalg.norm(places[:, None] - centres, axis=2).argmin(axis=1)
    assert np.array_equal(nearest, kind)
    assert np.array_equal(places, layout.place(points, map_kind, 7))


@pytest.mark.parametrize("map_kind", layout.KINDS)
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_few_images_have_a_map_too(map_kind, count):
    places = layout.place(kinds_of_points(count)[0], map_kind, 0)
    assert places.shape == (count, 2) and np.isfinite(places).all()


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("map_kind", layout.KINDS)
def test_images_all_alike_lie_in_the_middle(map_kind):
    assert np.allclose(layout.place(np.ones((30, 5), np.float32), map_kind, 0), 0.5)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("map_kind", layout.KINDS)
@pytest.mark.parametrize("direction", [[1.0], [0.6, -0.3, 0.7]])
def test_points_on_a_line_lie_on_a_line_in_their_order(map_kind, direction):
    # As `fit --pca 1` has them; and, to within float16, where all images differ in one way only.
    along = np.random.default_rng(6).permutation(40)
    places = layout.place((along[:, None] * np.array(direction)).astype(np.float16), map_kind, 0)
    assert np.allclose(places[:, 1], 0.5, atol=1e-3)
    assert np.ptp(places[:, 0]) == pytest.approx(1, abs=1e-5)
    steps = np.diff(places[np.argsort(along), 0])
    assert (steps > 0).all() or (steps < 0).all()


def test_points_are_never_farther_apart_along_the_principal_axes_than_they_were():
    points = np.random.default_rng(2).standard_normal((500, 120)).astype(np.float32)
    flat = layout.principal(points, 16, 0)
    assert flat.shape == (500, 16)
    pairs = np.random.default_rng(3).integers(0, 500, (2, 2000))
    before = np.linalg.norm(points[pairs[0]] - points[pairs[1]], axis=1)
    after = np.linalg.norm(flat[pairs[0]] - flat[pairs[1]], axis=1)
    assert np.all(after <= before * (1 + 1e-4))


def test_a_map_by_a_library_that_is_absent_is_refused_at_once(monkeypatch):
    # What Python itself does for a module that cannot be had.
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="umap-learn is not installed.*--map pca"):
        layout.check_available("umap")
    layout.check_available("pca")


def test_folders_of_the_archive_do_not_matter_to_where_images_lie(tmp_path):
    def survey_of(name):
        rows = [surveyed.row(os.path.join(str(tmp_path), name, "%02d.png" % number), number % 3,
                             number) for number in range(12)]
        corpus = corpora.read(surveyed.write_corpus(tmp_path / (name + ".corpus"), rows))
        return data.survey(corpus, surveyed.codebook_of(tmp_path / "b.npz"), policies.EMPTY, "pca",
                           0, silent)
    assert np.array_equal(survey_of("one").place, survey_of("other").place)
