"""Which codebook an image is placed by: one for all, the newest; a restart goes on where it was."""

import hashlib
import logging
import sqlite3

import numpy as np
import pytest

from jetson_cluster import codebook, placing, provisional
from jetson_cluster.catalog import Catalog
from jetson_cluster.codebook import QUANTILE_POINTS, Codebook
from jetson_cluster.head import Head
from jetson_cluster.inbox import Arrival
from jetson_cluster.placing import CHUNK_IMAGES, Placing
from jetson_cluster.policy import EMPTY, Policy, Target
from jetson_cluster.quality import Measures, Thresholds
from jetson_cluster.records import Image, Refusal
from jetson_cluster.schema import QUEUED

DIMENSION = 24
SCENES = np.random.RandomState(0).normal(size=(100, DIMENSION))


def image(number, scene, spread=0.002):
    embedding = SCENES[scene] + spread * np.random.RandomState(number).normal(size=DIMENSION)
    return Image(Arrival("/inbox/%d-scene%d.png" % (number, scene), 100, 1, 1),
                 hashlib.sha256(b"%d" % number).hexdigest(), 64, 48, "2026-01-01T00:00:00Z",
                 embedding.astype(np.float32))


def book(scenes):
    """A codebook with one cluster a scene."""
    k, ramp = len(scenes), np.linspace(0, 1, QUANTILE_POINTS).astype(np.float32)
    return Codebook("net", "l2", codebook.normalise(SCENES[scenes].astype(np.float32)),
                    np.full(k, 10), np.full(k, 0.3, np.float32), ramp, ramp, 0.5, 3.0)


class Rover:
    """A catalog file, opened and opened again."""

    def __init__(self, path):
        self.path, self.catalog, self.now_s = path, None, 1000.0
        self.restart()

    def restart(self, held=None, policy=EMPTY):
        if self.catalog:
            self.catalog.close()
        self.catalog = Catalog(self.path, "net")
        self.head = Head(self.catalog, 50)
        self.placing = Placing(self.catalog, self.head, lambda: self.now_s)
        self.placing.use(held, policy)

    def scenes(self, policy=EMPTY):
        """The scenes at the head of the queue."""
        ranked = self.head.order(policy)
        rows = self.catalog.rows([place.image for place in ranked])
        return [int(rows[place.image].path[:-4].split("scene")[1]) for place in ranked]

    def row(self, number):
        return self.catalog.rows([number])[number]

    def clusters(self):
        ids = range(1, self.catalog.counts[QUEUED] + 1)
        return [self.row(number).cluster for number in ids]

    def place_all(self):
        turns = 0
        while self.placing.progress.done < self.placing.progress.total:
            self.placing.place_some()
            turns += 1
        assert self.placing.place_some() == 0
        return turns


@pytest.fixture
def rover(tmp_path):
    made = Rover(str(tmp_path / "catalog.sqlite"))
    yield made
    made.catalog.close()


def test_twenty_of_one_scene_and_five_others_without_a_codebook(rover):
    """The first six of the queue are the six different scenes."""
    rover.placing.record([image(number, 0) for number in range(20)], [])
    for scene in (1, 2, 3, 4, 5):
        rover.placing.record([image(100 + scene, scene)], [])
    assert sorted(rover.scenes()[:6]) == [0, 1, 2, 3, 4, 5]
    rover.restart()
    assert sorted(rover.scenes()[:6]) == [0, 1, 2, 3, 4, 5]


def test_more_scenes_than_groups_are_still_all_told_apart_as_far_as_groups_go(rover):
    for scene in range(100):
        rover.placing.record([image(scene, scene)], [])
        rover.placing.place_some()
    rover.place_all()
    assert len(rover.catalog.groups().leaders) <= provisional.MOST_GROUPS
    present = len(set(rover.clusters()))
    head = rover.scenes()[:min(50, present)]
    by_number = rover.clusters()
    assert len({by_number[scene] for scene in head}) == len(head)


@pytest.mark.parametrize("scenes", [30, 100])  # as they are, and after reach has doubled
def test_groups_after_a_restart_are_those_of_before(rover, scenes):
    images = [image(scene, scene) for scene in range(scenes)]
    for held in images[:-5]:
        rover.placing.record([held], [])
    rover.restart()
    rover.placing.record(images[-5:], [])
    uncut = provisional.admit(provisional.Groups(np.empty(0, np.float32), 0.0),
                              np.stack([held.embedding for held in images]))
    np.testing.assert_array_equal(rover.catalog.groups().leaders, uncut.leaders)
    assert rover.catalog.groups().reach == uncut.reach
    rover.place_all()
    assert rover.scenes()


def test_a_codebook_that_comes_places_every_image_anew_and_new_ones_at_once(rover):
    count = 2 * CHUNK_IMAGES + 10
    rover.placing.record([image(number, number % 4) for number in range(count)], [])
    assert len(rover.scenes()) == 50
    rover.placing.use(book([3, 2, 1, 0]), EMPTY)
    assert rover.placing.clustered and rover.placing.progress == (0, count)
    assert not rover.catalog.only_worth
    # What arrives meanwhile is placed by the new one at once.
    rover.placing.record([image(10 ** 6, 2)], [])
    assert rover.place_all() == 3
    assert rover.clusters() == [3 - number % 4 for number in range(count)] + [1]
    assert rover.scenes(Policy({}, {3: 1000.0}))[0] == 0


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_a_restart_midway_goes_on_where_it_was(rover, turns):
    count = 2 * CHUNK_IMAGES + 10
    rover.placing.record([image(number, number % 4) for number in range(count)], [])
    new = book([3, 2, 1, 0])
    rover.placing.use(new, EMPTY)
    for _ in range(turns):
        rover.placing.place_some()
    rover.restart(book([3, 2, 1, 0]))
    assert rover.placing.progress.done == turns * CHUNK_IMAGES
    assert rover.place_all() == 3 - turns
    assert rover.clusters() == [3 - number % 4 for number in range(count)]
    rover.restart(new)
    assert rover.placing.progress.done == rover.placing.progress.total and rover.scenes()


@pytest.mark.parametrize("restarted", [False, True])
def test_a_second_codebook_midway_starts_over(rover, restarted):
    count = CHUNK_IMAGES + 10
    rover.placing.record([image(number, number % 4) for number in range(count)], [])
    rover.placing.use(book([3, 2, 1, 0]), EMPTY)
    rover.placing.place_some()
    if restarted:
        rover.restart(book([0, 1, 2, 3]))
    else:
        rover.placing.use(book([0, 1, 2, 3]), EMPTY)
    assert rover.placing.progress.done == 0
    rover.place_all()
    assert rover.clusters() == [number % 4 for number in range(count)]


def test_a_codebook_swapped_back_places_everything_again(rover):
    rover.placing.record([image(number, number % 4) for number in range(8)], [])
    for scenes in ([0, 1, 2, 3], [3, 2, 1, 0], [0, 1, 2, 3]):
        rover.placing.use(book(scenes), EMPTY)
        rover.place_all()
        assert rover.clusters() == [scenes.index(number % 4) for number in range(8)]


def test_without_its_codebook_a_catalog_is_grouped_by_difference(rover):
    rover.restart(book([0, 1, 2, 3]))
    rover.placing.record([image(number, number // 20) for number in range(40)], [])
    rover.placing.record([image(100 + scene, scene) for scene in range(2, 8)], [])
    rover.restart(None)
    assert not rover.placing.clustered
    rover.place_all()
    assert sorted(rover.scenes()[:8]) == list(range(8))


def test_images_that_came_under_a_codebook_may_outnumber_the_groups(rover, monkeypatch):
    """Reach doubles while old images are placed; all must end up placed by the last groups."""
    monkeypatch.setattr(placing, "CHUNK_IMAGES", 16)
    rover.restart(book([0, 1, 2, 3]))
    rover.placing.record([image(scene, scene) for scene in range(100)], [])
    rover.restart(None)
    rover.place_all()
    groups = rover.catalog.groups()
    assert 1 < len(groups.leaders) <= provisional.MOST_GROUPS
    embeddings = rover.catalog.embeddings_of(range(1, 101))
    placed = provisional.place(groups, embeddings).cluster
    assert rover.clusters() == placed.tolist()


def test_an_image_that_goes_missing_and_comes_back_leaves_and_joins_the_queue(rover):
    rover.placing.record([image(number, number) for number in range(3)], [])
    gone = rover.head.order(EMPTY)[0].image
    rover.catalog.mark_missing([gone], exists=lambda path: False)
    assert gone not in [place.image for place in rover.head.order(EMPTY)]
    rover.catalog.known([image(gone - 1, gone - 1).arrival])
    assert gone in [place.image for place in rover.head.order(EMPTY)]


def test_new_images_join_the_queue_as_they_would_after_a_restart(rover):
    rover.restart(book([0, 1, 2, 3]))
    for start in range(0, 120, 15):
        rover.placing.record([image(start + number, number % 4, spread=0.15)
                              for number in range(15)], [])
        before = rover.head.order(EMPTY)
    rover.restart(book([0, 1, 2, 3]))
    assert rover.head.order(EMPTY) == before


def test_a_batch_of_refusals_alone_is_recorded(rover):
    refusal = Refusal("/inbox/bad.png", 1, 1, "damaged", "cut short", "2026-01-01T00:00:00Z")
    assert rover.placing.record([], [refusal]) == 0
    assert rover.catalog.counts["refused"] == 1 and rover.scenes() == []


# ---- what images are worth -----------------------------------------------------------------------

BLURRED = Measures(0.0, 0.0, 0.5, 0.3, 0.0, 0.0)
FINE = Measures(0.0, 0.0, 0.5, 0.6, 0.0, 0.0)


def like(scene, name="wanted", weight=1.0):
    """A target by the SHA-256 of an image."""
    return Target(name, hashlib.sha256(b"%d" % scene).hexdigest()[:10], None, weight)


def worths(rover):
    """(interest, quality, signature) of every image."""
    return [(row.interest, row.quality, row.signature)
            for row in map(rover.row, range(1, rover.catalog.counts[QUEUED] + 1))]


def test_a_badly_taken_image_is_worth_less_by_its_quality(rover):
    for held in (None, book([0, 1])):
        rover.restart(held)
        start = 10 if held else 0
        rover.placing.record([
            image(start + number, 0)._replace(measures=measures)
            for number, measures in enumerate([FINE, BLURRED, None])], [])
        rover.place_all()
    (fine, blurred, unknown), (fine_2, blurred_2, unknown_2) = worths(rover)[:3], worths(rover)[3:]
    for good, bad, none in ((fine, blurred, unknown), (fine_2, blurred_2, unknown_2)):
        assert good[1] == none[1] == 1 and 0.1 < bad[1] < 0.5


def test_what_is_like_a_target_is_worth_more_with_and_without_a_codebook(rover):
    policy = Policy({}, {}, targets=(like(0, weight=2.0),))
    for held in (None, book([0, 1, 2, 3])):
        rover.restart(held, policy)
        rover.place_all()
        if not held:
            rover.placing.record([image(number, number) for number in range(4)], [])
            rover.placing.look_for_targets()
            rover.place_all()
        signatures = [signature for _, _, signature in worths(rover)]
        assert signatures[0] == pytest.approx(2, abs=1e-3) and max(signatures[1:]) < 1.5
        assert rover.scenes(policy)[0] == 0
    row = rover.row(1)
    assert row.interest == pytest.approx(
        policy.signature * row.signature + policy.explore * row.novelty
        + (1 - policy.explore) * row.representative, rel=1e-3)
    alike = rover.placing.resemblances([rover.row(number) for number in range(1, 5)])
    assert alike[1].name == "wanted" and alike[1].likeness == pytest.approx(1, abs=1e-3)


def test_a_target_that_is_not_here_yet_counts_from_when_it_comes(rover, caplog):
    policy = Policy({}, {}, targets=(like(7),))
    rover.restart(book([0, 1, 2, 7]), policy)
    rover.placing.record([image(number, number) for number in range(3)], [])
    assert len(rover.placing.unresolved) == 1 and caplog.text.count("TargetUnknown: wanted: ") == 1
    before = worths(rover)
    for _ in range(3):
        rover.placing.look_for_targets()
    assert caplog.text.count("TargetUnknown") == 1 and worths(rover) == before
    rover.placing.record([image(7, 7)], [])
    rover.placing.look_for_targets()
    assert rover.placing.unresolved == () and rover.catalog.only_worth
    rover.place_all()
    assert rover.row(4).signature == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("change", [
    {"explore": 0.1}, {"signature": 3.0}, {"targets": (like(1),)},
    {"quality": Thresholds(sharpness_fine=0.9, sharpness_useless=0.5)}], ids=lambda held: list(held)[0])
def test_a_policy_that_values_otherwise_has_only_the_worth_found_anew(rover, change):
    """And what it finds is what a catalog would hold that never knew another policy."""
    images = [image(number, number % 4, spread=0.1)._replace(
        measures=FINE if number % 2 else BLURRED) for number in range(30)]
    rover.restart(book([0, 1, 2, 3]))
    rover.placing.record(images, [])
    rover.place_all()
    before, clusters = worths(rover), rover.clusters()
    policy = EMPTY._replace(**change)
    rover.placing.use(book([0, 1, 2, 3]), policy)
    assert rover.catalog.only_worth and rover.placing.progress == (0, 30)
    rover.placing.record([image(500, 2)], [])
    assert rover.place_all() == 1
    after = worths(rover)
    assert after[:30] != before and rover.clusters()[:30] == clusters
    rover.placing.use(book([0, 1, 2, 3]), EMPTY)
    rover.placing.use(book([0, 1, 2, 3]), policy)
    assert rover.placing.progress == (0, 31)
    rover.placing.place_some()
    assert worths(rover) == after
    rover.placing.use(book([3, 2, 1, 0]), EMPTY)  # placed anew, by another codebook and back
    rover.place_all()
    rover.placing.use(book([0, 1, 2, 3]), policy)
    rover.place_all()
    np.testing.assert_allclose(worths(rover), after, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("change", [
    {"labels": {1: "rock"}}, {"weights": {1: 5.0}}, {"previews": "first"}, {"pins": ("abcdef",)}],
    ids=lambda held: list(held)[0])
def test_a_policy_that_values_alike_has_nothing_found_anew(rover, change):
    rover.restart(book([0, 1]))
    rover.placing.record([image(number, number % 2) for number in range(6)], [])
    rover.place_all()
    rover.placing.use(book([0, 1]), EMPTY._replace(**change))
    assert rover.placing.progress.done == rover.placing.progress.total


def test_a_policy_that_comes_while_images_are_placed_anew_leaves_none_in_its_old_place(rover):
    count = CHUNK_IMAGES + 10
    rover.placing.record([image(number, number % 4) for number in range(count)], [])
    rover.placing.use(book([3, 2, 1, 0]), EMPTY)
    rover.placing.place_some()
    rover.placing.use(book([3, 2, 1, 0]), EMPTY._replace(explore=0.1))
    assert rover.placing.progress == (0, count) and not rover.catalog.only_worth
    rover.place_all()
    assert rover.clusters() == [3 - number % 4 for number in range(count)]


def test_a_restart_while_worth_is_found_anew_goes_on_where_it_was(rover):
    count, policy = CHUNK_IMAGES + 10, EMPTY._replace(explore=0.1)
    rover.restart(book([0, 1, 2, 3]))
    rover.placing.record([image(number, number % 4) for number in range(count)], [])
    rover.place_all()
    rover.placing.use(book([0, 1, 2, 3]), policy)
    rover.placing.place_some()
    rover.restart(book([0, 1, 2, 3]), policy)
    assert rover.placing.progress == (CHUNK_IMAGES, count)
    assert rover.place_all() == 1


# ---- what is said of it --------------------------------------------------------------------------

def told(caplog, *events):
    return [record.getMessage() for record in caplog.records
            if record.getMessage().startswith(events)]


def test_that_images_are_placed_anew_is_said_when_it_begins_and_when_it_is_done(rover, caplog):
    caplog.set_level(logging.INFO)
    count = CHUNK_IMAGES + 10
    rover.placing.record([image(number, number % 4) for number in range(count)], [])
    rover.place_all()
    caplog.clear()
    rover.placing.use(book([0, 1, 2, 3]), EMPTY)
    rover.placing.place_some()
    assert told(caplog, "Plac") == ["PlacingAnew: %d images by the codebook" % count]
    rover.now_s += 3
    rover.place_all()
    assert told(caplog, "PlacedAnew") == ["PlacedAnew: %d images in 3 s" % count]
    rover.placing.use(book([0, 1, 2, 3]), EMPTY._replace(explore=0.1))
    rover.place_all()
    assert told(caplog, "Plac")[2:] == [
        "PlacingAnew: %d images by the codebook: only their worth changes" % count,
        "PlacedAnew: %d images in 0 s" % count]


def test_clusters_that_the_codebook_does_not_have_are_said_once_until_they_are_others(
        rover, caplog):
    def use(scenes, *numbers):
        rover.placing.use(scenes and book(scenes),
                          EMPTY._replace(weights=dict.fromkeys(numbers, 2.0)))
        return len(told(caplog, "PolicyNamesNoCluster: the policy, or an order, speaks of "))

    assert use(None, 7) == 0  # there is no codebook to have them
    assert use([0, 1], 7) == use([0, 1], 7) == use([0, 1], 7, 1) == 1
    assert told(caplog, "PolicyNamesNoCluster")[0].endswith("[7]; the codebook has 0 to 1")
    assert use([0, 1, 2], 7) == 2
    assert use([0, 1, 2], 1) == 2
    assert use([0, 1, 2], 7) == 3


# ---- near-duplicates, and batches that fail ------------------------------------------------------

def test_near_duplicates_are_noted_as_they_come_and_over_a_restart(rover):
    rover.placing.record([image(0, 0), image(1, 1), image(2, 0)], [])
    rover.restart()
    rover.placing.record([image(3, 1)], [])
    assert [rover.row(number).twin for number in range(1, 5)] == [1, 2, 1, 2]


def test_a_batch_that_cannot_be_recorded_leaves_nothing_of_it_and_can_be_recorded_later(rover):
    rover.placing.record([image(0, 0)], [])
    rover.catalog._db.execute("CREATE TEMP TRIGGER fails AFTER UPDATE OF twin ON main.images "
                              "BEGIN SELECT RAISE(ABORT, 'as asked'); END")
    batch = [image(1, 1), image(2, 0)]
    for _ in range(2):
        with pytest.raises(sqlite3.Error, match="as asked"):
            rover.placing.record(batch, [])
    assert rover.catalog.counts[QUEUED] == 1 and rover.scenes() == [0]
    rover.catalog._db.execute("DROP TRIGGER fails")
    assert rover.placing.record(batch, []) == 2
    assert sorted(rover.scenes()) == [0, 0, 1]
    assert [rover.row(number).twin for number in (1, 2, 3)] == [1, 0, 1]


def failing(rover, event):
    """From now on the catalog refuses this, as a full disk would; returns what makes room again."""
    rover.catalog._db.execute("CREATE TEMP TRIGGER fails AFTER %s "
                              "BEGIN SELECT RAISE(ABORT, 'as asked'); END" % event)
    return lambda: rover.catalog._db.execute("DROP TRIGGER fails")


def test_while_the_catalog_cannot_be_written_a_new_codebook_places_nothing(rover):
    rover.restart(book([0, 1, 2, 3]))
    rover.placing.record([image(number, number % 4) for number in range(8)], [])
    make_room = failing(rover, "INSERT ON main.meta")
    with pytest.raises(sqlite3.Error, match="as asked"):
        rover.placing.use(book([3, 2, 1, 0]), EMPTY)
    rover.placing.record([image(100, 3)], [])
    assert rover.clusters() == [0, 1, 2, 3, 0, 1, 2, 3, 3]
    make_room()
    rover.placing.use(book([3, 2, 1, 0]), EMPTY)
    rover.place_all()
    assert rover.clusters() == [3, 2, 1, 0, 3, 2, 1, 0, 0]


@pytest.mark.parametrize("event", ["INSERT ON main.groups", "DELETE ON main.groups",
                                   "INSERT ON main.meta"])
def test_groups_that_could_not_be_saved_are_found_again(rover, event):
    """Also where their reach grows, and all images are to be placed anew."""
    for scene in range(100):
        batch = [image(scene, scene)]
        grown = rover.catalog.groups().reach
        make_room = failing(rover, event)
        try:
            rover.placing.record(batch, [])
        except sqlite3.Error:
            assert rover.catalog.groups().reach == grown
            make_room()
            rover.placing.record(batch, [])
        else:
            make_room()
    rover.place_all()
    assert rover.catalog.groups().reach > provisional.LEAST_REACH
    embeddings = rover.catalog.embeddings_of(range(1, 101))
    assert rover.clusters() == provisional.place(
        rover.catalog.groups(), embeddings).cluster.tolist()
