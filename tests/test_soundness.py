"""What cannot be true in a catalog is found, though SQLite finds nothing wrong with the file."""

import os
import sqlite3

import pytest

from catalogued import SPACE, image, record, refusal
from jetson_cluster import soundness
from jetson_cluster.catalog import Catalog, open_or_rebuild

AT = "2026-01-02T00:00:00Z"
IMPOSSIBLE = {
    "a state there is not": "UPDATE images SET state = 'queuec' WHERE id = 1",
    "a size that is a text": "UPDATE images SET bytes = 'x' WHERE id = 1",
    "a short checksum": "UPDATE images SET sha256 = x'00' WHERE id = 1",
    "half a place": "UPDATE images SET novelty = NULL WHERE id = 1",
    "a membership cut short": "UPDATE images SET soft = x'0000' WHERE id = 1",
    "a cluster beyond the last": "UPDATE images SET soft = x'ffff' || substr(soft, 3) WHERE id = 1",
    "a weight that is no number": "UPDATE images SET soft = substr(soft, 1, 8) || x'007e' || "
                                  "substr(soft, 11) WHERE id = 1",
    "no number of clusters": "UPDATE meta SET value = 'three' WHERE key = 'clusters'",
    "an embedding cut short": "UPDATE embeddings SET vector = x'00' WHERE image = 2",
    "an embedding lost": "DELETE FROM embeddings WHERE image = 2",
    "a kind of preview there is not": "INSERT INTO previews VALUES (1, 'wejp', 30.0, x'00')",
    "a count that is another": "UPDATE tallies SET images = 9 WHERE state = 'queued'",
    "a file of no image": "UPDATE files SET image = 99 WHERE path = '/inbox/1.png'",
    "a pass without a time": "UPDATE passes SET made_at = x'00'",
    "text that is not UTF-8": "UPDATE refusals SET reason = CAST(x'ff' AS TEXT)",
}


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "catalog.sqlite")


@pytest.fixture
def filled(path):
    with Catalog(path, SPACE) as catalog:
        catalog.begin_placing("codebook", "policy", 3, True)
        images = [number for number, _ in record(
            catalog, [image("/inbox/%d.png" % content, content) for content in range(4)],
            [refusal("/inbox/broken.png")])]
        catalog.begin_pass(images[:1], [], 1000, "test", AT)
        catalog.record([image("/inbox/hot.png", 9)], None, [])
    return path


def test_nothing_is_wrong_with_a_sound_catalog(filled):
    assert soundness.unsound(filled) == ""


@pytest.mark.parametrize("statement", IMPOSSIBLE.values(), ids=list(IMPOSSIBLE))
def test_what_cannot_be_true_is_found(filled, statement):
    database = sqlite3.connect(filled)
    assert database.execute(statement).rowcount == 1
    database.commit()
    assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    database.close()
    assert soundness.unsound(filled)


def test_a_file_that_is_no_database_is_found(path):
    with open(path, "w") as stream:
        stream.write("no database" * 1000)
    assert soundness.unsound(path)


@pytest.mark.parametrize("statement, kept", [(None, True), (IMPOSSIBLE["half a place"], False)])
def test_a_marked_catalog_is_looked_at_once_and_kept_if_it_is_sound(filled, statement, kept):
    if statement:
        database = sqlite3.connect(filled)
        database.execute(statement)
        database.commit()
        database.close()
    soundness.mark(filled)
    with open_or_rebuild(filled, SPACE, lambda doing, allow_s: None) as catalog:
        assert bool(catalog.images_at(["/inbox/1.png"])) == kept
    assert not soundness.is_marked(filled)
    assert os.path.exists(filled + ".damaged-1") == (not kept)
