"""Which codebook an image is placed by: one for all, the newest; a restart goes on where it was."""

import hashlib

import numpy as np
import pytest

from jetson_cluster import codebook, placing, provisional
from jetson_cluster.catalog import Catalog
from jetson_cluster.codebook import QUANTILE_POINTS, Codebook
from jetson_cluster.inbox import Arrival
from jetson_cluster.placing import CHUNK_IMAGES, Placing
from jetson_cluster.policy import EMPTY, Policy
from jetson_cluster.records import QUEUED, Image, Refusal

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
        self.path, self.catalog = path, None
        self.restart()

    def restart(self, held=None):
        if self.catalog:
            self.catalog.close()
        self.catalog = Catalog(self.path, "net")
        self.placing = Placing(self.catalog, 50)
        self.placing.use(held)

    def scenes(self, policy=EMPTY):
        """The scenes at the head of the queue; None while it is withheld."""
        ranked = self.placing.order(policy)
        if ranked is None:
            return None
        rows = self.catalog.rows([place.image for place in ranked])
        return [int(rows[place.image].path[:-4].split("scene")[1]) for place in ranked]

    def clusters(self):
        ids = range(1, self.catalog.counts[QUEUED] + 1)
        return [self.catalog.rows([number])[number].cluster for number in ids]

    def place_all(self):
        turns = 0
        while self.placing.progress.done < self.placing.progress.total:
            assert self.scenes() is None
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


def test_a_codebook_that_comes_withholds_the_queue_until_every_image_is_placed_by_it(rover):
    count = 2 * CHUNK_IMAGES + 10
    rover.placing.record([image(number, number % 4) for number in range(count)], [])
    assert len(rover.scenes()) == 50
    rover.placing.use(book([3, 2, 1, 0]))
    assert rover.placing.clustered and rover.scenes() is None
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
    rover.placing.use(new)
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
    rover.placing.use(book([3, 2, 1, 0]))
    rover.placing.place_some()
    if restarted:
        rover.restart(book([0, 1, 2, 3]))
    else:
        rover.placing.use(book([0, 1, 2, 3]))
    assert rover.placing.progress.done == 0
    rover.place_all()
    assert rover.clusters() == [number % 4 for number in range(count)]


def test_a_codebook_swapped_back_places_everything_again(rover):
    rover.placing.record([image(number, number % 4) for number in range(8)], [])
    for scenes in ([0, 1, 2, 3], [3, 2, 1, 0], [0, 1, 2, 3]):
        rover.placing.use(book(scenes))
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
    placed = provisional.place(groups, embeddings).assessment.cluster
    assert rover.clusters() == placed.tolist()


def test_an_image_that_goes_missing_and_comes_back_leaves_and_joins_the_queue(rover):
    rover.placing.record([image(number, number) for number in range(3)], [])
    gone = rover.placing.order(EMPTY)[0].image
    rover.catalog.mark_missing([gone], exists=lambda path: False)
    assert gone not in [place.image for place in rover.placing.order(EMPTY)]
    rover.catalog.known([image(gone - 1, gone - 1).arrival])
    assert gone in [place.image for place in rover.placing.order(EMPTY)]


def test_new_images_join_the_queue_as_they_would_after_a_restart(rover):
    rover.restart(book([0, 1, 2, 3]))
    for start in range(0, 120, 15):
        rover.placing.record([image(start + number, number % 4, spread=0.15)
                              for number in range(15)], [])
        before = rover.placing.order(EMPTY)
    rover.restart(book([0, 1, 2, 3]))
    assert rover.placing.order(EMPTY) == before


def test_a_batch_of_refusals_alone_is_recorded(rover):
    refusal = Refusal("/inbox/bad.png", 1, 1, "damaged", "cut short", "2026-01-01T00:00:00Z")
    assert rover.placing.record([], [refusal]) == 0
    assert rover.catalog.counts["refused"] == 1 and rover.scenes() == []
