"""The queue file: true to the catalog, written as seldom as may be, never a mix of two orders."""

import hashlib
import os
import zlib

import numpy as np
import pytest

from jetson_cluster import codebook, config
from jetson_cluster.catalog import Catalog
from jetson_cluster.codebook import QUANTILE_POINTS, Codebook
from jetson_cluster.downlink import read_queue
from jetson_cluster.head import Head
from jetson_cluster.pass_lists import note_due
from jetson_cluster.placing import Placing
from jetson_cluster.policy import EMPTY, Policy, Target
from jetson_cluster.preview import Preview
from jetson_cluster.publisher import Publisher
from jetson_cluster.quality import Measures
from jetson_cluster.records import Image
from jetson_cluster.walker import examine

SPACE, AT, DIMENSION = "net/layer@0", "2026-01-01T00:00:00Z", 24
SCENES = np.random.RandomState(0).normal(size=(8, DIMENSION))
BLURRED = Measures(0.0, 0.0, 0.5, 0.3, 0.0, 0.0)


def book(scenes):
    """A codebook with one cluster a scene."""
    k, ramp = len(scenes), np.linspace(0, 1, QUANTILE_POINTS).astype(np.float32)
    return Codebook(SPACE, "l2", codebook.normalise(SCENES[scenes].astype(np.float32)),
                    np.full(k, 10), np.full(k, 0.3, np.float32), ramp, ramp, 0.5, 3.0)


def sha256_of(name):
    return hashlib.sha256(name.encode()).hexdigest()


class Rover:
    """Files whose content is their name, and what they show; a clock that runs when it is told to."""

    def __init__(self, folder):
        self.folder, self.inbox, self.now_s = folder, folder / "inbox", 5000.0
        self.inbox.mkdir()
        (folder / "config.yaml").write_text(
            "state_dir: state\ninbox: {path: inbox, rescan_s: 30}\n"
            "queue: {rows: 20, interval_s: 2}\n")
        (folder / "state").mkdir()
        self.config = config.load(str(folder / "config.yaml"))
        self.path, self.catalog = folder / "state" / "queue.csv", None
        self.start()

    def start(self, held=None, policy=EMPTY):
        if self.catalog:
            self.catalog.close()
        self.catalog = Catalog(self.config.catalog_path, SPACE)
        self.head = Head(self.catalog, self.config.queue.rows)
        self.placing = Placing(self.catalog, self.head)
        self.placing.use(held, policy)
        self.publisher = Publisher(self.config, self.catalog, self.placing, self.head,
                                   lambda: self.now_s)

    def arrive(self, *names, **more):
        """Files named SCENE-anything, in one batch."""
        images = []
        for name in names:
            path = self.inbox / name
            path.write_text(name)
            noise = np.random.RandomState(zlib.crc32(name.encode())).normal(size=DIMENSION)
            images.append(Image(
                examine(str(path)), sha256_of(name), 64, 48, AT,
                (SCENES[int(name[0])] + 0.1 * noise).astype(np.float32))._replace(**more))
        self.placing.record(images, [])
        self.publisher.stale = True

    def publish(self, policy=EMPTY, after_s=2.0, **more):
        """After some time: whether the file was written."""
        self.now_s += after_s
        return self.publisher.publish_if_due(policy, more.pop("inbox_available", True), **more)

    def rows(self):
        return read_queue(str(self.path))

    def names(self):
        return [os.path.basename(row.path) for row in self.rows()]

    def image(self, name):
        return self.catalog.ids_by_prefix(sha256_of(name), 1)[0]


@pytest.fixture
def rover(tmp_path):
    made = Rover(tmp_path)
    yield made
    made.catalog.close()


FOUR = ("0-a", "1-a", "2-a", "3-a")


def test_a_row_says_what_the_catalog_and_the_policy_know(rover):
    policy = Policy({1: "veins"}, {1: 3.0}, targets=(
        Target("the first", sha256_of("0-a")[:8], None, 1.0),))
    rover.start(book([0, 1, 2, 3]), policy)
    rover.arrive(*FOUR)
    rover.arrive("2-b", measures=BLURRED, preview=Preview(b"tiny", "webp", 8, 6, 30.0))
    rover.placing.look_for_targets()
    while rover.placing.place_some():
        pass
    assert rover.publish(policy)
    rows = {os.path.basename(row.path): row for row in rover.rows()}
    assert [row.rank for row in rover.rows()] == [1, 2, 3, 4, 5]
    veins = rows["1-a"]
    assert (veins.cluster, veins.label, veins.state) == ("1", "veins", "queued")
    assert "veins" in veins.reason and "weight 3" in veins.reason
    assert veins.sha256 == sha256_of("1-a") and veins.bytes == 3 and veins.captured_at == AT
    assert "like the first" in rows["0-a"].reason and 0 <= float(rows["0-a"].novelty) <= 1
    assert "blurred" in rows["2-b"].reason
    assert rows["0-a"].preview == "" and os.path.basename(rows["2-b"].preview) == (
        sha256_of("2-b")[:16] + ".webp")
    with open(rows["2-b"].preview, "rb") as stream:
        assert stream.read() == b"tiny"
    assert [row.cumulative_bytes for row in rover.rows()] == [3, 6, 9, 12, 15]
    assert [row.image for row in rover.publisher.head] == [
        rover.image(name) for name in rover.names()]


def test_without_a_codebook_clusters_and_novelty_are_empty(rover):
    rover.arrive(*FOUR)
    rover.publish(Policy({0: "dunes"}, {0: 5.0}))
    assert all((row.cluster, row.label, row.novelty) == ("", "", "") for row in rover.rows())


def test_no_more_rows_than_asked_for_are_written(rover):
    rover.arrive(*["0-%d" % number for number in range(30)])
    rover.publish()
    assert len(rover.rows()) == 20


def test_it_is_written_no_more_often_than_the_config_says_and_only_if_it_differs(rover):
    rover.arrive("0-a")
    assert rover.publish(after_s=0)
    rover.arrive("1-a")
    assert not rover.publish(after_s=1.0) and rover.publisher.stale
    assert 0 < rover.publisher.next_due_s() <= 1.0
    assert rover.publish(after_s=1.0) and len(rover.rows()) == 2
    before = os.stat(str(rover.path)).st_mtime_ns
    for _ in range(3):
        rover.publisher.stale = True
        assert not rover.publish() and not rover.publisher.stale
    assert os.stat(str(rover.path)).st_mtime_ns == before


def test_at_the_end_it_is_written_whatever_the_clock_says(rover):
    rover.arrive("0-a")
    rover.publish()
    rover.arrive("1-a")
    assert rover.publish(after_s=0.0, at_once=True) and len(rover.rows()) == 2


def test_a_file_that_somebody_removed_is_written_again(rover):
    rover.arrive("0-a")
    rover.publish()
    rover.path.unlink()
    assert rover.publish(after_s=30.0) and rover.names() == ["0-a"]


def test_now_and_then_it_is_looked_through_for_images_that_are_gone(rover):
    rover.arrive("0-a", "1-a")
    rover.publish()
    (rover.inbox / "0-a").unlink()
    assert not rover.publish(after_s=20) and len(rover.names()) == 2
    assert rover.publisher.next_due_s() == 10
    assert not rover.publish(after_s=10) and rover.publisher.looking
    assert rover.publish(after_s=0) and rover.names() == ["1-a"] and not rover.publisher.looking
    assert rover.catalog.state_of(rover.image("0-a")) == "missing"


def test_an_inbox_that_is_not_there_makes_no_image_missing(rover):
    rover.arrive("0-a", "1-a")
    (rover.inbox / "0-a").unlink()
    assert rover.publish(inbox_available=False) and len(rover.names()) == 2
    assert rover.catalog.counts["missing"] == 0


def test_an_image_gone_from_one_path_stands_with_its_other(rover):
    rover.arrive("0-a")
    copy = rover.inbox / "copy"
    copy.write_text("0-a")
    rover.placing.record([Image(examine(str(copy)), sha256_of("0-a"), 64, 48, AT,
                                SCENES[0].astype(np.float32))], [])
    (rover.inbox / "0-a").unlink()
    rover.publish()
    rover.publish(after_s=0)
    assert rover.names() == ["copy"]


def test_a_disk_that_refuses_is_said_once_and_tried_again(rover, caplog):
    rover.arrive("0-a")
    rover.path.mkdir()
    for _ in range(3):
        assert not rover.publish() and rover.publisher.stale
    assert caplog.text.count("QueueNotWritten: %s" % rover.path) == 1
    assert rover.publisher.error.startswith("QueueNotWritten: ")
    rover.path.rmdir()
    assert rover.publish() and rover.publisher.error == "" and rover.names() == ["0-a"]


def test_a_list_of_a_pass_that_could_not_be_written_is_tried_again_when_the_queue_is_due(rover):
    rover.arrive("0-a", "1-a")
    with rover.catalog.together():
        note_due(rover.catalog, rover.catalog.begin_pass([1], [], 100, "order 46", AT))
    passes = rover.folder / "state" / "passes"
    passes.write_text("in its place")
    assert rover.publish() and rover.publisher.stale and rover.names() == ["1-a"]
    assert rover.publisher.error.startswith("PassListNotWritten: ")
    passes.unlink()
    assert not rover.publish(after_s=1.0) and not passes.exists()
    rover.publish(after_s=1.0)
    assert (passes / "1.csv").exists() and rover.publisher.error == "" and not rover.publisher.stale


# ---- while images are placed anew ----------------------------------------------------------------

@pytest.fixture
def anew(rover):
    """Six images in a queue, and a codebook that just came; nothing is placed by it yet."""
    rover.arrive("0-a", "1-a", "2-a", "3-a", "0-b", "1-b")
    rover.publish()
    rover.before = rover.rows()
    rover.placing.use(book([0, 1, 2, 3]), EMPTY)
    rover.publisher.stale = True
    assert rover.placing.progress == (0, 6)
    return rover


def place_all(rover):
    while rover.placing.place_some():
        pass
    rover.publisher.stale = True


def test_the_order_stays_as_it_was_until_all_are_placed(anew):
    before = os.stat(str(anew.path)).st_mtime_ns
    anew.arrive("2-new")
    assert not anew.publish() and os.stat(str(anew.path)).st_mtime_ns == before
    place_all(anew)
    assert anew.publish() and len(anew.rows()) == 7
    assert all(row.cluster for row in anew.rows())


def test_what_leaves_the_queue_leaves_the_file_and_the_sums_stay_true(anew):
    sent, held, gone = (anew.catalog.ids_by_prefix(row.sha256, 1)[0] for row in anew.before[:3])
    anew.catalog.begin_pass([sent], [], 1000, "test", AT)
    anew.catalog.move("hold", [held])
    anew.catalog.mark_missing([gone], exists=lambda path: False)
    anew.publisher.stale = True
    assert anew.publish()
    assert anew.rows() == [
        row._replace(rank=place, cumulative_bytes=3 * place)
        for place, row in enumerate(anew.before[3:], 1)]
    assert [row.sha256 for row in anew.publisher.head] == [row.sha256 for row in anew.rows()]
    assert all(row.state == "queued" for row in anew.publisher.head)
    anew.catalog.move("nack", [sent])
    anew.publisher.stale = True
    anew.publish()
    assert len(anew.rows()) == 3  # it comes back when there is an order again
    place_all(anew)
    assert anew.publish() and len(anew.rows()) == 4


def test_what_the_policy_holds_meanwhile_leaves_the_file_and_the_head(anew):
    assert anew.publish(EMPTY._replace(holds=(sha256_of("1-b")[:12],)))
    assert len(anew.rows()) == 5 and "1-b" not in anew.names()
    assert len(anew.publisher.head) == 5


def test_what_is_pinned_meanwhile_goes_first_and_what_is_so_no_longer_last(anew):
    """Among them one that came after the file was written."""
    before = anew.names()
    anew.arrive("2-new", preview=Preview(b"tiny", "webp", 8, 6, 30.0))
    policy = EMPTY._replace(pins=(sha256_of(before[3])[:12],))
    anew.catalog.move("pin", [anew.image("2-new")])
    assert anew.publish(policy)
    assert anew.names() == ["2-new", before[3]] + before[:3] + before[4:]
    new, moved = anew.rows()[:2]
    assert (new.rank, new.score, new.reason) == (1, "", "pinned by operations")
    assert (new.bytes, new.sha256, new.captured_at) == (5, sha256_of("2-new"), AT)
    assert os.path.isfile(new.preview)
    assert moved.reason == "pinned by operations; " + anew.before[3].reason
    assert [row.cumulative_bytes for row in anew.rows()] == [5, 8, 11, 14, 17, 20, 23]
    assert [os.path.basename(row.path) for row in anew.publisher.head] == anew.names()
    anew.catalog.move("unpin", [anew.image("2-new")])
    anew.publisher.stale = True
    assert anew.publish(EMPTY)
    assert anew.names() == before[:3] + before[4:] + ["2-new", before[3]]
    assert anew.rows()[-1].reason == anew.before[3].reason and anew.rows()[-2].reason == ""


def test_what_was_pinned_in_the_last_order_and_is_so_no_longer_goes_last(rover):
    rover.arrive("0-a", "1-a", "2-a")
    pinned = rover.image("2-a")
    rover.catalog.move("pin", [pinned])
    rover.publish()
    assert rover.names()[0] == "2-a" and rover.rows()[0].reason.startswith("pinned by operations; ")
    others = rover.names()[1:]
    rover.placing.use(book([0, 1, 2, 3]), EMPTY)
    rover.catalog.move("unpin", [pinned])
    rover.publisher.stale = True
    assert rover.publish() and rover.names() == others + ["2-a"]
    assert not rover.rows()[-1].reason.startswith("pinned")


def test_pins_make_the_file_no_longer_than_asked_for(rover):
    rover.arrive(*["0-%d" % number for number in range(30)])
    rover.publish()
    last = [number for number in range(1, 31) if rover.catalog.rows([number])[number].sha256
            not in {row.sha256 for row in rover.rows()}]
    rover.placing.use(book([0, 1, 2, 3]), EMPTY)
    rover.catalog.move("pin", last)
    rover.publisher.stale = True
    assert rover.publish() and len(rover.rows()) == 20
    assert [row.image for row in rover.publisher.head[:10]] == last


def test_a_restart_meanwhile_goes_on_from_the_file(anew):
    anew.start(book([0, 1, 2, 3]))
    anew.catalog.move("hold", [anew.image("0-a")])
    assert anew.publish()
    assert anew.names() == [os.path.basename(row.path) for row in anew.before
                            if row.sha256 != sha256_of("0-a")]


def test_a_file_overwritten_meanwhile_is_not_promised_by_its_path(anew):
    """The path must never send other content than the queue names."""
    copy = anew.inbox / "copy"
    copy.write_text("0-a")
    anew.placing.record([Image(examine(str(copy)), sha256_of("0-a"), 64, 48, AT,
                               SCENES[0].astype(np.float32))], [])
    anew.arrive("0-a", sha256=sha256_of("other content"))
    anew.publish()
    paths = {row.sha256: os.path.basename(row.path) for row in anew.rows()}
    assert paths[sha256_of("0-a")] == "copy"
    anew.arrive("1-a", sha256=sha256_of("more of it"))
    anew.publish()
    assert sha256_of("1-a") not in {row.sha256 for row in anew.rows()}


@pytest.mark.parametrize("content", [None, b"", b"rank,score\r\n1", b"\xff\xfe"])
def test_a_file_that_is_gone_or_damaged_at_a_restart_is_empty_until_there_is_an_order(
        anew, content, caplog):
    anew.path.unlink()
    if content is not None:
        anew.path.write_bytes(content)
    anew.start(book([0, 1, 2, 3]))
    assert anew.publish() and anew.rows() == []
    assert ("QueueUnreadable: " in caplog.text) == (content is not None)
    place_all(anew)
    assert anew.publish() and len(anew.rows()) == 6
