"""Near-duplicates: those of one stop stand in one group, whatever batches they came in."""

import numpy as np
import pytest

from catalogued import SPACE, image, placement
from jetson_cluster import twins
from jetson_cluster.catalog import Catalog
from jetson_cluster.twins import LEAST_COSINE, Twins

DIMENSION = 32
SCENES = np.random.RandomState(0).normal(size=(3000, DIMENSION))


@pytest.fixture
def catalog(tmp_path):
    with Catalog(str(tmp_path / "catalog.sqlite"), SPACE) as opened:
        yield opened


class Stream:
    """Images of scenes, in batches, as placing takes them in."""

    def __init__(self, catalog):
        self.catalog, self.twins, self.made = catalog, Twins(catalog), 0
        self.reach = 0.0  # as without a codebook

    def restart(self):
        self.twins = Twins(self.catalog)

    def take(self, *scenes, spread=0.01):
        """One batch; its ids."""
        images, embeddings = [], []
        for scene in scenes:
            noise = np.random.RandomState(10 ** 6 + self.made).normal(size=DIMENSION)
            vector = ((SCENES[scene] + spread * noise) * (1 + self.made % 7)).astype(np.float32)
            embeddings.append(vector)
            images.append(image("/inbox/%d.png" % self.made, self.made)._replace(embedding=vector))
            self.made += 1
        with self.catalog.together():
            added = self.catalog.record(images, placement(images), [])
            numbers = [number for number, _ in added]
            self.twins.join(numbers, np.stack(embeddings),
                            np.full(len(numbers), self.reach, np.float32))
        self.twins.keep()
        return numbers

    def groups(self):
        rows = self.catalog.rows(range(1, self.made + 1))
        return [rows[number].twin for number in range(1, self.made + 1)]


@pytest.fixture
def stream(catalog):
    return Stream(catalog)


def test_near_duplicates_are_one_group_named_by_the_first_of_them(stream):
    stream.take(0, 1, 0, 0, 2)
    stream.take(1, 0)
    assert stream.groups() == [1, 2, 1, 1, 0, 2, 1]


def test_groups_do_not_depend_on_how_the_stream_was_cut_into_batches(stream, tmp_path):
    scenes = np.random.RandomState(1).randint(0, 12, 60).tolist()
    stream.take(*scenes)
    with Catalog(str(tmp_path / "other.sqlite"), SPACE) as catalog:
        other = Stream(catalog)
        for scene in scenes:
            other.take(scene)
        assert other.groups() == stream.groups()


def test_a_restart_finds_what_the_process_before_would_have(stream, tmp_path):
    scenes = np.random.RandomState(2).randint(0, 12, 60).tolist()
    stream.take(*scenes)
    with Catalog(str(tmp_path / "other.sqlite"), SPACE) as catalog:
        other = Stream(catalog)
        for start in range(0, 60, 7):
            other.restart()
            other.take(*scenes[start:start + 7])
        assert other.groups() == stream.groups()


def test_likeness_is_by_direction_and_has_its_measured_bound(stream):
    one = np.eye(DIMENSION)[0]
    for cosine, group in ((LEAST_COSINE + 0.002, 1), (LEAST_COSINE - 0.002, 0)):
        SCENES[:2] = one, cosine * one + (1 - cosine ** 2) ** 0.5 * np.eye(DIMENSION)[1]
        first, second = stream.take(0, 1, spread=0.0)
        assert stream.catalog.rows([second])[second].twin == (first if group else 0)
        stream.restart()
        stream.catalog._db.execute("DELETE FROM embeddings")
        stream.restart()


def test_in_a_tight_cluster_only_what_is_close_for_it_is_a_near_duplicate(stream):
    """Some networks give all images of a place nearly the same direction."""
    one, other = np.eye(DIMENSION)[:2]
    stream.reach = 0.2
    for distance, group in ((0.49 * stream.reach, 1), (0.51 * stream.reach, 0)):
        angle = 2 * np.arcsin(distance / 2)
        SCENES[2990:2992] = one, np.cos(angle) * one + np.sin(angle) * other
        assert np.cos(angle) > LEAST_COSINE
        first, second = stream.take(2990, 2991, spread=0.0)
        assert stream.catalog.rows([second])[second].twin == (first if group else 0)
        stream.catalog._db.execute("DELETE FROM embeddings")
        stream.restart()


def test_in_a_wide_cluster_the_cosine_decides_and_the_same_twice_is_one_group_anywhere(stream):
    for stream.reach in (2.0, 1e-6):
        SCENES[2990:2992] = np.eye(DIMENSION)[0], [0.98, 0.199] + [0] * (DIMENSION - 2)
        numbers = stream.take(2990, 2991, 2990, spread=0.0)
        assert [stream.catalog.rows([number])[number].twin for number in numbers] == [
            numbers[0], 0, numbers[0]]
        stream.catalog._db.execute("DELETE FROM embeddings")
        stream.restart()


def test_only_the_newest_images_are_compared(stream, monkeypatch):
    monkeypatch.setattr(twins, "RECENT", 8)
    stream.take(0)
    stream.take(*range(1, 9))
    stream.take(0)  # the first one is nine images ago
    assert stream.groups() == [0] * 10
    stream.take(3)
    assert stream.groups()[-1] == 4
    stream.restart()
    stream.take(3)
    assert stream.groups()[-1] == 4


def test_a_batch_larger_than_what_is_compared_is_compared_within_itself(stream, monkeypatch):
    monkeypatch.setattr(twins, "RECENT", 4)
    stream.take(*(list(range(10)) + [0]))
    assert stream.groups() == [1] + [0] * 9 + [1]


def test_what_was_rolled_back_is_compared_with_no_more(stream):
    with pytest.raises(KeyError):
        with stream.catalog.together():
            held = [image("/inbox/x.png", 9999)._replace(
                embedding=SCENES[0].astype(np.float32))]
            added = stream.catalog.record(held, placement(held), [])
            stream.twins.join([added[0][0]], SCENES[:1].astype(np.float32), np.zeros(1))
            raise KeyError  # the disk is full
    stream.take(5)  # it has the id that the other had
    stream.take(0)
    assert stream.groups() == [0, 0]


def test_a_batch_with_nothing_new_changes_nothing(stream):
    stream.take(0)
    stream.twins.join([], np.empty((0, 0), np.float32), np.zeros(0))
    stream.twins.keep()
    stream.take(0)
    assert stream.groups() == [1, 1]


def test_images_without_any_direction_are_no_near_duplicates(stream):
    stream.take(0)
    SCENES[2999] = 0
    stream.take(2999, 2999, spread=0.0)
    assert stream.groups() == [0, 0, 0]


def test_how_alike_a_near_duplicate_must_be_follows_the_reach_of_its_kind():
    reach = np.array([0, 1e-6, 0.2, 3])
    # By the cosine alone; but for rounding the same; half the reach away; never less than that.
    assert twins.least_cosines(reach) == pytest.approx([0.985, 1 - 1e-5, 0.995, 0.985], abs=1e-9)
