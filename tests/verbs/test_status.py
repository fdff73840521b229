"""What a tired operator reads of a status: what matters, in words, and nothing of what is well."""

import pytest

from statuses import AT_WORK, status
from jetson_cluster.verbs.status import describe


TEN = 1714557600  # 2024-05-01T10:00:00Z


def lines(**changes):
    """{first word of the line: all of them that begin so}."""
    found = {}
    for line in describe(dict(AT_WORK, **changes), TEN).splitlines():
        found.setdefault(line[:12].strip(), []).append(line[12:].strip())
    return found


def test_states_are_told_in_words_and_those_that_matter_least_only_where_there_are_any():
    text, = lines()["images"]
    assert text == ("1 queued (10 B), 2 waiting to be embedded, 3 sent (30 B), 4 acknowledged, "
                    "5 held, 6 missing, 7 acknowledged and deleted, 8 DELETED UNACKNOWLEDGED")
    none = dict.fromkeys(AT_WORK["images"], 0)
    assert lines(images=none)["images"] == ["0 queued (10 B), 0 sent (30 B)"]


def test_the_oldest_image_and_the_last_pass_are_told():
    assert lines()["oldest"] == ["queued image is of 2024-04-01T10:00:00Z; 12 passes left it behind"]
    assert lines()["passes"] == ["last one: number 9 at 2024-05-01T09:00:00Z, 3 images, 30 B and 2 previews, 40 B"]
    assert lines(oldest_queued={"captured_at": "", "passes": 0})["oldest"] == ["nothing is queued"]
    assert lines(last_pass={"number": 0, "made_at": "", "images": 0, "bytes": 0,
                            "previews": 0, "preview_bytes": 0})["passes"] == [
        "none yet"]


def test_after_a_rebuild_the_last_pass_is_known_by_its_number_alone():
    text, = lines(last_pass={"number": 9, "made_at": "", "images": 0, "bytes": 0,
                            "previews": 0, "preview_bytes": 0})["passes"]
    assert text == "last one: number 9, 0 images, 0 B"


@pytest.mark.parametrize("change, head, words", [
    ({"paused": "CatalogNotWritten: /c: disk full"}, "PAUSED", "CatalogNotWritten: /c: disk full"),
    ({"accepting": {"images": False, "why_not": "NotAccepting: x"}}, "NO ROOM", "NotAccepting: x"),
    ({"outbox": {"path": "/x", "links": 4, "error": "OutboxNotLinked: y"}}, "outbox",
     "OutboxNotLinked: y"),
    ({"queue": {"path": "/q", "error": "QueueNotWritten: z"}}, "queue", "QueueNotWritten: z"),
    ({"orders": {"path": "/o", "error": "OrdersFolderMissing: /o"}}, "orders",
     "OrdersFolderMissing: /o"),
    ({"policy": dict(AT_WORK["policy"], error="policy /p: bad")}, "policy",
     "REFUSED: policy /p: bad"),
    ({"codebook": dict(AT_WORK["codebook"], error="codebook /c: bad")}, "codebook",
     "REFUSED: codebook /c: bad"),
    ({"codebook": dict(AT_WORK["codebook"], error="CodebookAbsent: /c: gone")}, "codebook",
     "CodebookAbsent: /c: gone")])
def test_what_is_wrong_has_a_line_of_its_own(change, head, words):
    assert words in lines(**change)[head]


@pytest.mark.parametrize("now, age", [
    (TEN, "0 s ago"), (TEN + 41, "41 s ago"), (TEN + 7200, "2 h ago"),
    (TEN - 1, "by a clock ahead of this one")])
def test_how_old_it_is_is_told(now, age):
    assert describe(AT_WORK, now).splitlines()[0] == (
        "daemon      running, process 7, as of 2024-05-01T10:00:00Z, %s (version 1)" % age)


def test_a_time_that_is_none_has_no_age():
    assert "as of yesterday (version 1)" in describe(dict(AT_WORK, written_at="yesterday"), TEN)


def test_what_is_well_or_not_used_has_none():
    plain = describe(status(written_at="2024-05-01T10:00:00Z"), TEN)
    for head in ("PAUSED", "outbox", "orders", "policy", "previews", "placing", "last error"):
        assert "\n" + head not in plain


def test_targets_that_are_not_here_and_amendments_are_told():
    assert lines()["policy"] == ["with 2 amendments by orders", "target not here yet: veins: not here"]


def test_previews_and_links_are_told():
    assert lines()["previews"] == ["1800 bytes at 31.2 dB on average"]
    assert lines()["outbox"] == ["4 links in /x"]


def test_what_images_are_placed_anew_for_is_told_while_it_lasts():
    assert lines()["placing"] == ["anew: 1 of 5 images; the queue waits for it"]
    assert "placing" not in lines(placing_anew={"done": 5, "total": 5})
