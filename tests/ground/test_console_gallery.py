"""What the console shows of a catalog: members of clusters, what a search finds, and pictures."""

import sqlite3

import pytest
from PIL import Image

pytest.importorskip("flask", reason="no Flask here: pip install '.[ground]'")
pytest.importorskip("waitress", reason="no waitress here: pip install '.[ground]'")
pytest.importorskip("ruamel.yaml", reason="no ruamel.yaml here: pip install '.[ground]'")

import consoled
from consoled import desk, down, opened  # noqa: F401: fixtures among them

from jetson_cluster.files import sha256_of
from jetson_cluster.ground.console.gallery import Pictures


def test_members_come_in_the_order_that_is_asked_for(desk, down):
    typical = desk.members(2, "typical", 0, False)
    assert typical["total"] == 20
    with sqlite3.connect(str(down.catalog)) as database:
        expected = [row[0] for row in database.execute(
            "SELECT id FROM images WHERE cluster = 2 ORDER BY ratio, id")]
    assert [image["image"] for image in typical["images"]] == expected
    unusual = desk.members(2, "unusual", 0, False)["images"]
    assert [image["image"] for image in unusual] == expected[::-1]
    newest = [image["image"] for image in desk.members(2, "newest", 5, False)["images"]]
    assert newest == sorted(expected, reverse=True)[5:]


def test_only_queued_members_are_shown_if_that_is_asked(down):
    with down.opened() as catalog:
        catalog.begin_pass([3, 9], [], 100, "test", consoled.AT)
    with opened(down) as desk:
        assert desk.clusters()[2]["on_ground"] == 2 and desk.clusters()[2]["queued"] == 18
        assert desk.members(2, "best", 0, True)["total"] == 18


def test_an_image_is_found_by_a_part_of_its_name_and_by_its_hash(desk, down):
    assert [one["image"] for one in desk.search("0_0041.jpg")["images"]] == [42]
    assert [one["image"] for one in desk.search(down.sha(7)[:10].upper())["images"]] == [7]
    assert desk.search("")["total"] == desk.search("%")["total"] == 0


def test_a_search_asks_for_no_capitals_and_counts_all_that_it_found(tmp_path):
    down = consoled.Down(tmp_path / "down", each=50, names=["\u00dcBER_a.jpg", "\u00fcber_b.jpg"])
    with opened(down) as desk:
        assert [one["image"] for one in desk.search("\u00dcber_")["images"]] == [2, 1]
        first, rest = desk.search("SOL"), desk.search("SOL", 240)
        assert first["total"] == rest["total"] == 298
        assert [one["image"] for one in first["images"] + rest["images"]] == list(
            range(300, 2, -1))


def test_a_name_that_is_no_utf_8_is_shown_and_found(tmp_path):
    down = consoled.Down(tmp_path / "down", names=["a\udcff\n\u202e.jpg"])
    with opened(down) as desk:
        image, = desk.search("a\udcff")["images"]
        assert image["name"] == "a\\xff\\x0a\\u202e.jpg"


def test_a_picture_is_the_preview_or_the_thumbnail_or_the_very_file(down, tmp_path):
    class Corpus:
        sha256 = [down.sha(2)]

        def thumbnails(self, places):
            return [b"RIFF....WEBPof place %d" % place for place in places]

    real = tmp_path / "real.png"
    Image.new("RGB", (600, 300), (9, 200, 9)).save(str(real))
    with sqlite3.connect(str(down.catalog)) as database:
        database.execute("DELETE FROM previews WHERE image > 1")
        database.execute("UPDATE images SET path = ?, sha256 = ?, bytes = ?, width = 600, "
                         "height = 300 WHERE id IN (3)",
                         (str(real), bytes.fromhex(sha256_of(str(real))), real.stat().st_size))
        database.execute("UPDATE images SET path = ?, bytes = ? WHERE id = 4",
                         (str(real), real.stat().st_size))  # another content by that name
    with down.opened() as catalog:
        pictures = Pictures(catalog, Corpus())
        assert pictures.of(1, False).content.startswith(b"\xff\xd8")
        assert pictures.of(2, False) == ("image/webp", b"RIFF....WEBPof place 0")
        assert pictures.of(3, False).mime == "image/webp"
        assert pictures.of(3, True).content != pictures.of(3, False).content
        assert pictures.of(4, False) is None and pictures.of(10 ** 12, True) is None
