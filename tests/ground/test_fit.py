"""`jetson-cluster fit` on real files: complete, repeatable, and what it says of what it found."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from rover import Rover

from jetson_cluster import cli, codebook, frame, recipe
from jetson_cluster.embedder import open_embedder
from jetson_cluster.ground import corpus, sampling

COLOURS = [(200, 40, 30), (40, 190, 60), (30, 60, 200)]


@pytest.fixture
def archive(tmp_path):
    """60 pictures of three colours in three folders."""
    folder = tmp_path / "archive"
    random = np.random.RandomState(0)
    for number in range(60):
        sol = folder / ("sol%d" % (number // 20))
        sol.mkdir(parents=True, exist_ok=True)
        pixels = np.array(COLOURS[number % 3]) + random.randint(-25, 26, (48, 64, 3))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(str(sol / ("%02d.png" % number)))
    return folder


def fit(archive, tiny, out, *more):
    return cli.main(["fit", str(archive), "--model", tiny, "--out", str(out), "--embedder",
                     "onnxruntime", *more])


def skipped_of(out):
    """{name: reason} of what the fit to `out` left aside."""
    return {os.path.basename(failure.path): failure.reason
            for failure in corpus.read(str(out) + ".work").failed}


def rows_of(path):
    """The rows of a CSV file."""
    with open(str(path), newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_clusters_of_an_archive_are_its_kinds(archive, tiny, tmp_path, capsys):
    out = tmp_path / "codebook.npz"
    assert fit(archive, tiny, out, "-k", "3") == 0
    fitted = codebook.load(str(out))
    assert sorted(fitted.counts) == [20, 20, 20]
    assert fitted.space.startswith("tiny/pooled@")
    assert "3 clusters of 60 images" in capsys.readouterr().out


def test_the_same_archive_and_seed_give_the_same_codebook(archive, tiny, tmp_path):
    for name in ("a", "b"):
        fit(archive, tiny, tmp_path / (name + ".npz"), "-k", "5", "--seed", "7")
    assert (codebook.load(str(tmp_path / "a.npz")).identity
            == codebook.load(str(tmp_path / "b.npz")).identity)


def test_no_image_is_dropped_when_the_last_batch_is_not_full(archive, tiny, tmp_path):
    out = tmp_path / "codebook.npz"
    assert fit(archive, tiny, out, "-k", "2", "--batch", "7") == 0  # 60 = 8 x 7 + 4
    assert codebook.load(str(out)).counts.sum() == 60


def test_unreadable_files_are_skipped_and_listed(archive, tiny, tmp_path, capsys):
    (archive / "empty.jpg").write_bytes(b"")
    (archive / "notes.txt").write_text("no image")
    out = tmp_path / "codebook.npz"
    assert fit(archive, tiny, out, "-k", "3") == 0
    assert codebook.load(str(out)).counts.sum() == 60
    skipped = skipped_of(out)
    assert set(skipped) == {"empty.jpg", "notes.txt"} and all(skipped.values())
    assert "2 files are no usable images" in capsys.readouterr().out


def test_a_list_of_paths_serves_as_an_archive(archive, tiny, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join("archive/sol0/%02d.png" % number for number in range(20))
                      + "\narchive/sol0/gone.png\n")
    out = tmp_path / "codebook.npz"
    assert fit(listed, tiny, out, "-k", "3") == 0
    assert codebook.load(str(out)).counts.sum() == 20
    assert skipped_of(out) == {"gone.png": "There is no such file."}


def test_a_list_that_names_no_file_at_all_is_one_clear_line(tiny, tmp_path, capsys):
    listed = tmp_path / "list.txt"
    listed.write_text("gone.png\nlost.png\n")
    assert fit(listed, tiny, tmp_path / "codebook.npz", "-k", "1") == 2
    assert "no files there, the first it names is %s" % (tmp_path / "gone.png") in (
        capsys.readouterr().err)


def test_a_copy_counts_once(archive, tiny, tmp_path):
    (archive / "copy.png").write_bytes((archive / "sol0" / "00.png").read_bytes())
    out = tmp_path / "codebook.npz"
    fit(archive, tiny, out, "-k", "3")
    assert codebook.load(str(out)).counts.sum() == 60


def test_another_k_embeds_nothing_again(archive, tiny, tmp_path, capsys):
    out = tmp_path / "codebook.npz"
    fit(archive, tiny, out, "-k", "3")
    capsys.readouterr()
    assert fit(archive, tiny, out, "-k", "4") == 0
    told = capsys.readouterr().out
    assert "60 of 60 files are embedded already" in told and "embedding 60 files" not in told


def test_another_archive_takes_the_place_of_the_one_before(archive, tiny, tmp_path):
    out = tmp_path / "codebook.npz"
    fit(archive, tiny, out, "-k", "3")
    assert fit(archive / "sol0", tiny, out, "-k", "3") == 0
    assert codebook.load(str(out)).counts.sum() == len(corpus.read(str(out) + ".work")) == 20


@pytest.mark.parametrize("numbers, told", [
    (["-k", "0"], "at least one"), (["-k", "61"], "the 60 files"),
    (["-k", "65537"], "at most 65536"),
    (["-k", "3", "--batch", "-1"], "--batch -1: must be a whole number from 0 to 1024"),
    (["-k", "3", "--seed", "99999999999"], "--seed 99999999999: must be"),
    (["-k", "3", "--seed", "-1"], "--seed -1: must be"),
    ([], "say how many clusters, or try --sweep"),
    (["-k", "3", "--sweep", "2:9"], "--sweep tries many k and fits none: leave out -k"),
    (["--sweep", "2:9", "--like", "old.npz"], "leave out --like"),
    (["--sweep", "9"], "as in 16:512"), (["--sweep", "2:61"], "the 60 files"),
    (["--sweep", "2:9", "--sweep-steps", "65"], "--sweep-steps 65: must be"),
    (["-k", "3", "--pca", "-1"], "--pca -1: must be"),
    (["-k", "3", "--policy", "policy.yaml"], "--policy: its labels are for the changes")])
def test_an_impossible_number_is_one_clear_line_before_anything_is_embedded(
        archive, tiny, tmp_path, capsys, numbers, told):
    assert fit(archive, tiny, tmp_path / "codebook.npz", *numbers) == 2
    said = capsys.readouterr()
    assert told in said.err and "embedding" not in said.out and "Traceback" not in said.err
    assert not (tmp_path / "codebook.npz.work").exists()


def test_the_largest_seed_is_a_seed(archive, tiny, tmp_path):
    assert fit(archive, tiny, tmp_path / "c.npz", "-k", "3", "--seed", str(2 ** 31 - 1)) == 0


def test_more_clusters_than_different_images_is_one_clear_line(archive, tiny, tmp_path, capsys):
    (archive / "copy.png").write_bytes((archive / "sol0" / "00.png").read_bytes())
    assert fit(archive, tiny, tmp_path / "codebook.npz", "-k", "61") == 2
    assert "60 different images" in capsys.readouterr().err


def test_an_archive_that_is_not_there_is_one_clear_line(tiny, tmp_path, capsys):
    assert fit(tmp_path / "nowhere", tiny, tmp_path / "codebook.npz", "-k", "2") == 2
    assert "%s: no such file or folder" % (tmp_path / "nowhere") in capsys.readouterr().err


@pytest.mark.parametrize("out, told", [
    ("z.txt", "z.txt: a codebook's name must end in .npz"),
    ("file/codebook.npz", "there is no folder"), ("absent/codebook.npz", "make it first"),
    ("archive", "is a folder"), ("/proc/codebook.npz", "nothing can be written in /proc")])
def test_a_place_that_cannot_be_written_is_told_before_hours_of_embedding(
        archive, tiny, tmp_path, capsys, out, told):
    (tmp_path / "file").write_text("")
    path = os.path.join(str(tmp_path), out)
    assert fit(archive, tiny, path, "-k", "3") == 2
    said = capsys.readouterr()
    assert told in said.err and "embedding" not in said.out and not os.path.exists(path + ".work")


def test_a_work_folder_that_cannot_be_made_is_one_clear_line(archive, tiny, tmp_path, capsys):
    (tmp_path / "codebook.npz.work").write_text("")
    assert fit(archive, tiny, tmp_path / "codebook.npz", "-k", "3") == 1
    assert "cannot be made" in capsys.readouterr().err


# ---- from a corpus -----------------------------------------------------------------------------


@pytest.fixture
def held(archive, tiny, tmp_path):
    """A corpus of the archive."""
    folder = tmp_path / "corpus"
    assert cli.main(["embed", str(archive), "--model", tiny, "--out", str(folder), "--embedder",
                     "onnxruntime"]) == 0
    return folder


def fit_corpus(held, out, *more):
    return cli.main(["fit", str(held), "--out", str(out), *more])


def test_a_corpus_gives_the_codebook_that_its_folder_gives_without_a_network(
        archive, held, tiny, tmp_path, capsys):
    fit(archive, tiny, tmp_path / "a.npz", "-k", "3")
    shutil.rmtree(str(archive))
    assert fit_corpus(held, tmp_path / "b.npz", "-k", "3") == 0
    one, other = (codebook.load(str(tmp_path / name)) for name in ("a.npz", "b.npz"))
    assert one.identity == other.identity
    assert not (tmp_path / "b.npz.work").exists()
    assert "embeddings are kept in %s" % held in capsys.readouterr().out


def test_a_corpus_of_another_network_is_refused(held, lite0, tmp_path, capsys):
    assert fit_corpus(held, tmp_path / "c.npz", "-k", "3", "--model", lite0) == 2
    assert "tiny/pooled@" in capsys.readouterr().err


def test_a_folder_without_a_network_is_one_clear_line(archive, tmp_path, capsys):
    assert fit_corpus(archive, tmp_path / "c.npz", "-k", "3") == 2
    assert "name their network with --model" in capsys.readouterr().err


def test_a_corpus_among_other_things_is_one_clear_line(archive, held, tmp_path, capsys):
    assert cli.main(["fit", str(archive), str(held), "-k", "3", "--out",
                     str(tmp_path / "c.npz")]) == 2
    assert "%s: is a corpus, and is fitted by itself" % held in capsys.readouterr().err


def test_more_clusters_than_the_corpus_has_images_is_one_clear_line(held, tmp_path, capsys):
    assert fit_corpus(held, tmp_path / "c.npz", "-k", "61") == 2
    assert "60 different images" in capsys.readouterr().err


def test_a_large_archive_is_sampled_and_all_of_it_is_counted(held, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sampling, "IMAGES_PER_CENTROID", 10)
    assert fit_corpus(held, tmp_path / "c.npz", "-k", "3") == 0
    told = capsys.readouterr().out
    assert "30 of 60 images are clustered, 10 for each of 3 centroids" in told
    assert "3 clusters of 60 images" in told
    assert sorted(codebook.load(str(tmp_path / "c.npz")).counts) == [20, 20, 20]


def test_the_images_least_like_the_rest_are_listed(archive, tiny, tmp_path):
    odd = archive / "sol1" / "odd.png"
    Image.fromarray((np.indices((48, 64)).sum(axis=0)[..., None] * [2, 2, 0] % 255).astype(
        np.uint8)).save(str(odd))
    out = tmp_path / "codebook.npz"
    assert fit(archive, tiny, out, "-k", "3") == 0
    listed = rows_of(tmp_path / "codebook.outliers.csv")
    assert listed[0]["path"] == str(odd) and len(listed) <= 5
    ratios = [float(row["ratio"]) for row in listed]
    assert ratios == sorted(ratios, reverse=True) and ratios[-1] > codebook.load(str(out)).r95 - 1e-3


# ---- preparation -------------------------------------------------------------------------------


PREPARED = [["--normalise", "sqrt"], ["--normalise", "none"], ["--pca", "8"],
            ["--normalise", "sqrt", "--pca", "5"]]


@pytest.mark.parametrize("asked", PREPARED)
def test_the_rover_puts_images_where_the_ground_put_them(archive, tiny, tmp_path, asked):
    rover = Rover(tmp_path, tiny)
    assert fit(archive, tiny, rover.codebook, "-k", "3", *asked) == 0
    held, book = corpus.read(str(rover.codebook) + ".work"), codebook.load(str(rover.codebook))
    assert str(book.preparation) in (
        "sqrt", "none", "l2, 8 components", "sqrt, 5 components") and not book.preparation.is_plain
    # A corpus keeps float16; images that come are placed by what the network gave.
    frames = np.stack([frame.load(path, 32, 32, frame.Limits(), "bilinear").pixels
                       for path in held.paths])
    with open_embedder("onnxruntime", recipe.load_model(tiny), 8) as embedder:
        told = book.assess(embedder.embed(frames))
    for path in held.paths:
        shutil.copy(path, str(rover.inbox / path.replace("/", "_")))
    rover.once("queue.rows=100")
    found = {row["sha256"]: row for row in rover.queue()}
    assert len(found) == 60
    for place, sha256 in enumerate(held.sha256):
        assert int(found[sha256]["cluster"]) == told.cluster[place]
        assert float(found[sha256]["novelty"]) == pytest.approx(told.novelty[place], abs=0.0051)


def test_more_components_than_there_can_be_is_one_clear_line(held, tmp_path, capsys):
    assert fit_corpus(held, tmp_path / "c.npz", "-k", "3", "--pca", "49") == 2
    assert "at most 48 components" in capsys.readouterr().err


# ---- a sweep -----------------------------------------------------------------------------------


def test_a_sweep_recommends_how_many_kinds_there_are_and_fits_nothing(held, tmp_path, capsys):
    out = tmp_path / "codebook.npz"
    assert fit_corpus(held, out, "--sweep", "2:5") == 0
    told = capsys.readouterr().out
    assert "recommended: k = 3 does best" in told and not out.exists()
    assert [row["k"] for row in rows_of(tmp_path / "codebook.sweep.csv")] == ["2", "3", "4", "5"]
    with open(str(tmp_path / "codebook.sweep.json")) as stream:
        found = json.load(stream)
    assert (found["recommended"], found["images"], found["clustered"]) == (3, 60, 60)
    assert found["reason"] in told and found["preparation"] == "l2"
    with Image.open(str(tmp_path / "codebook.sweep.png")) as image:
        assert image.format == "PNG"


# ---- going on from an earlier codebook ------------------------------------------------------------


def test_clusters_keep_their_numbers_and_what_is_new_is_said(archive, held, tiny, tmp_path, capsys):
    old, new = tmp_path / "old.npz", tmp_path / "new.npz"
    assert fit_corpus(held, old, "-k", "3") == 0
    # Turned round: another run of k-means could have given these numbers as well.
    before = codebook.load(str(old))
    turned = codebook.Codebook(*before._replace(centroids=before.centroids[::-1].copy()))
    codebook.save(str(old), turned)
    for number in range(20):
        Image.new("RGB", (64, 48), (240 - number, 240, 240 - number)).save(
            str(archive / "sol0" / ("bright%02d.png" % number)))
    policy = tmp_path / "policy.yaml"
    policy.write_text("clusters: {0: {label: dunes}, 1: {label: rock}, 2: {label: sky}}\n")
    capsys.readouterr()
    assert fit(archive, tiny, new, "-k", "4", "--like", str(old), "--policy", str(policy)) == 0
    told = capsys.readouterr().out
    assert "3 kept, 0 moved, 1 new, 0 gone" in told and "  3 is new, 20 images" in told
    embeddings = corpus.read(str(held)).embeddings()
    np.testing.assert_array_equal(codebook.load(str(new)).nearest(embeddings, 1).index,
                                  turned.nearest(embeddings, 1).index)
    listed = rows_of(tmp_path / "new.changes.csv")
    assert [(row["what"], row["number"], row["was"], row["label"]) for row in listed] == [
        ("kept", "0", "0", "dunes"), ("kept", "1", "1", "rock"), ("kept", "2", "2", "sky"),
        ("new", "3", "", "")]


def test_as_many_clusters_and_the_same_preparation_as_before_where_nothing_else_is_said(
        held, tmp_path):
    old, new = tmp_path / "old.npz", tmp_path / "new.npz"
    fit_corpus(held, old, "-k", "3", "--normalise", "sqrt", "--pca", "6")
    assert fit_corpus(held, new, "--like", str(old)) == 0
    before, after = codebook.load(str(old)), codebook.load(str(new))
    assert after.k == 3 and after.components.tobytes() == before.components.tobytes()
    np.testing.assert_allclose(after.centroids, before.centroids, atol=1e-5)
    for words, expected in ((("--pca", "4"), ("sqrt", 4)), (("--normalise", "l2"), ("l2", 6))):
        assert fit_corpus(held, new, "--like", str(old), *words) == 0
        after = codebook.load(str(new))
        assert (after.normalisation, len(after.components)) == expected
    assert fit_corpus(held, new, "--like", str(old), "--normalise", "l2", "--pca", "0") == 0
    assert codebook.load(str(new)).preparation.is_plain
    embeddings = corpus.read(str(held)).embeddings()
    np.testing.assert_array_equal(codebook.load(str(new)).nearest(embeddings, 1).index,
                                  before.nearest(embeddings, 1).index)


def test_changes_are_counted_over_the_whole_archive_though_some_of_it_is_clustered(
        held, tmp_path, monkeypatch):
    old, new = tmp_path / "old.npz", tmp_path / "new.npz"
    assert fit_corpus(held, old, "-k", "3") == 0
    monkeypatch.setattr(sampling, "IMAGES_PER_CENTROID", 10)
    assert fit_corpus(held, new, "--like", str(old)) == 0
    listed = rows_of(tmp_path / "new.changes.csv")
    assert [int(row["images"]) for row in listed] == codebook.load(str(new)).counts.tolist()
    assert sum(int(row["images"]) for row in listed) == 60


@pytest.mark.parametrize("words, told", [
    (["-k", "3", "--like", "nowhere.npz"], "nowhere.npz: no such file"),
    (["--sweep", "2:60"], "--sweep to 60: more clusters than the 60 files"),
    (["-k", "3", "--pca", "99"], "--pca 99: 60 images with")])
def test_what_cannot_be_is_told_before_anything_is_embedded(
        archive, tiny, tmp_path, capsys, words, told):
    assert fit(archive, tiny, tmp_path / "c.npz", *words) == 2
    err = capsys.readouterr().err
    assert told in err and len(err.splitlines()) == 1
    assert not list(tmp_path.glob("c.npz.work/shard*"))


def test_nothing_is_written_into_the_archive_where_it_would_be_an_image_of_it(
        archive, tiny, capsys):
    assert fit(archive, tiny, archive / "sol0" / "c.npz", "-k", "3") == 2
    assert "lies in the archive" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["like", "policy"])
def test_an_old_codebook_or_policy_that_is_not_there_is_one_clear_line(held, tmp_path, capsys, what):
    fit_corpus(held, tmp_path / "old.npz", "-k", "3")
    named = {"like": str(tmp_path / "old.npz"), "policy": str(tmp_path / "policy.yaml")}
    (tmp_path / "policy.yaml").write_text("")
    named[what] = str(tmp_path / "absent")
    assert fit_corpus(held, tmp_path / "c.npz", "--like", named["like"], "--policy",
                      named["policy"]) == 2
    assert "absent: no such file" in capsys.readouterr().err


def test_an_old_codebook_of_another_network_is_refused(held, tmp_path, capsys):
    fit_corpus(held, tmp_path / "old.npz", "-k", "3")
    old = codebook.load(str(tmp_path / "old.npz"))
    codebook.save(str(tmp_path / "old.npz"), codebook.Codebook(*old._replace(space="other/x@0")))
    assert fit_corpus(held, tmp_path / "c.npz", "--like", str(tmp_path / "old.npz")) == 2
    assert "other/x@0" in capsys.readouterr().err
