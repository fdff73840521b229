"""The list of images least like the rest: those the rover would call far, the farthest first."""

import csv

import numpy as np
from embedded import terrain

from jetson_cluster.ground import outliers
from jetson_cluster.ground.clustering import fit_codebook


def test_terrain_that_the_archive_hardly_has_stands_first(tmp_path):
    embeddings, scenes, kind = terrain(scenes=120)
    alone = np.flatnonzero(kind == 2)[:1]
    kept = np.concatenate([np.flatnonzero(kind != 2), alone])
    fitted = fit_codebook(embeddings[kept], [scenes[place] for place in kept], 5, 0, "s")
    listed = outliers.far(fitted.ratio, fitted.codebook)
    assert listed[0] == len(kept) - 1
    assert (np.diff(fitted.ratio[listed]) <= 0).all()
    assert 0.02 < len(listed) / len(kept) < 0.07  # r95 is the 95th of a hundred
    assert (fitted.ratio[listed] > fitted.codebook.r95).all()


def test_the_list_names_files_whatever_they_are_called(tmp_path):
    path = str(tmp_path / "outliers.csv")
    names = ["/a/=1.png", "/a/b,\"c\".png", "/a/" + b"\xff\xfe.png".decode("utf-8", "surrogateescape")]
    outliers.write(path, np.array([2, 0, 1]), names, ["aa", "bb", "cc"], np.array([7, 8, 9]),
                   np.array([1.25, 2.5, 3.75], np.float32))
    with open(path, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["path"] for row in rows] == ["/a/\\xff\\xfe.png", "/a/=1.png", "/a/b,\"c\".png"]
    assert [row["sha256"] for row in rows] == ["cc", "aa", "bb"]
    assert [(row["cluster"], row["ratio"]) for row in rows] == [
        ("9", "3.750"), ("7", "1.250"), ("8", "2.500")]
