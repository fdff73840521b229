"""The head of the queue out of a real catalog, in the daemon's process and in another one."""

import hashlib

import numpy as np
import pytest

from jetson_cluster import codebook, ranking
from jetson_cluster.catalog import Catalog
from jetson_cluster.codebook import QUANTILE_POINTS, Codebook
from jetson_cluster.head import Head
from jetson_cluster.inbox import Arrival
from jetson_cluster.placing import Placing
from jetson_cluster.policy import EMPTY, Ageing, Diversity
from jetson_cluster.ranking import AGED, PIN
from jetson_cluster.records import Image

DIMENSION = 24
SCENES = np.random.RandomState(0).normal(size=(12, DIMENSION))
ROWS = 20
AT = "2026-01-01T00:00:00Z"


def digest(number):
    return hashlib.sha256(b"%d" % number).hexdigest()


def image(number, scene, spread=0.2):
    embedding = SCENES[scene] + spread * np.random.RandomState(number).normal(size=DIMENSION)
    return Image(Arrival("/inbox/%d.png" % number, 1000 + 7 * number % 500, 1, 1), digest(number),
                 64, 48, AT, embedding.astype(np.float32))


def book():
    k, ramp = len(SCENES), np.linspace(0, 1, QUANTILE_POINTS).astype(np.float32)
    return Codebook("net", "l2", codebook.normalise(SCENES.astype(np.float32)),
                    np.full(k, 10), np.full(k, 0.3, np.float32), ramp, ramp, 0.5, 3.0)


class Rover:
    """A catalog with the daemon's head, and the heads that other processes have."""

    def __init__(self, path):
        self.path = path
        self.catalog = Catalog(path, "net")
        self.head = Head(self.catalog, ROWS)
        self.placing = Placing(self.catalog, self.head)
        self.placing.use(book(), EMPTY)
        self.newest = 0

    def take(self, count, scenes=range(12), spread=0.2):
        """New images, of these scenes in turn; the number of each is its id."""
        numbers = range(self.newest + 1, self.newest + count + 1)
        self.placing.record([image(number, scenes[number % len(scenes)], spread)
                             for number in numbers], [])
        self.newest += count

    def ids(self, policy=EMPTY, rows=None):
        return [place.image for place in self.head.order(policy, rows)]

    def elsewhere(self, policy=EMPTY, rows=None):
        """The order as a verb's process finds it."""
        with Catalog(self.path, None) as other:
            return Head(other, ROWS).order(policy, rows)

    def send(self, images):
        return self.catalog.begin_pass(images, [], 10 ** 9, "test", AT)


@pytest.fixture
def rover(tmp_path):
    made = Rover(str(tmp_path / "catalog.sqlite"))
    yield made
    made.catalog.close()


def everything(rover, policy=EMPTY):
    """The order of all candidates, no pool between."""
    terms = rover.head.terms(policy)
    ids = range(1, rover.newest + 1)
    terms = terms._replace(sent_twins=frozenset(rover.catalog.sent_twins(ids)))
    return ranking.order(rover.catalog.candidates_of(ids), terms, ROWS)


def test_the_head_of_an_empty_catalog_is_empty(rover):
    assert rover.ids() == [] and rover.elsewhere() == []


def test_daemon_and_verb_find_the_order_of_everything(rover):
    policy = EMPTY._replace(weights={0: 0.0, 3: 2.5}, pins=(digest(17)[:8],), holds=(digest(5),))
    for _ in range(6):
        rover.take(40)
        ranked = rover.head.order(policy)
        assert len(ranked) == ROWS
        assert ranked == rover.elsewhere(policy) == everything(rover, policy)


def test_what_operations_did_shows_at_once_and_as_in_another_process(rover):
    rover.take(100)
    first = rover.ids()
    rover.catalog.move("hold", first[:2])
    rover.catalog.move("pin", [first[9], first[6]])
    rover.send(first[2:5])
    ranked = rover.head.order(EMPTY)
    now = [place.image for place in ranked]
    assert not set(first[:5]) & set(now) and now[:2] == [first[9], first[6]]
    assert [place.slot for place in ranked[:3]] == [PIN, PIN, ""]
    assert ranked == rover.elsewhere()
    rover.catalog.move("nack", first[2:5])
    rover.catalog.move("release", first[:2])
    rover.catalog.move("unpin", [first[9], first[6]])
    assert rover.ids() == first == [place.image for place in rover.elsewhere()]


def test_what_another_process_did_shows_once_the_head_forgets(rover):
    rover.take(60)
    first = rover.ids()
    with Catalog(rover.path, None) as other:
        other.begin_pass(first[:3], [], 10 ** 9, "test", AT)
    assert rover.catalog.changed_elsewhere()
    rover.head.forget_all()
    assert rover.head.order(EMPTY) == rover.elsewhere()
    assert not set(first[:3]) & set(rover.ids())


def test_pins_of_operations_come_before_those_of_the_policy(rover):
    rover.take(30)
    rover.catalog.move("pin", [21])
    rover.catalog.move("pin", [4])
    pinned = EMPTY._replace(pins=(digest(9)[:6], "0" * 6, digest(21)))
    assert rover.ids(pinned)[:3] == [21, 4, 9]
    # A held image is left out although it is pinned.
    assert rover.ids(pinned._replace(holds=(digest(4)[:10],)))[:2] == [21, 9]


def test_kinds_that_were_sent_stand_back_and_return_pass_by_pass(rover):
    rover.take(240)
    policy = EMPTY._replace(diversity=Diversity(half_life_passes=2.0))
    sent = [number for number in range(1, 241) if number % 12 in (0, 1)][:20]
    rover.send(sent)
    counts = rover.head.terms(policy).on_ground
    assert counts[[0, 1]].min() > 3 and counts[2:].max() < counts[[0, 1]].min() / 2
    scenes = [image % 12 for image in rover.ids(policy)]
    assert not set(scenes[:10]) & {0, 1}
    for _ in range(2):
        rover.catalog.begin_pass([], [], 10 ** 9, "test", AT)
        rover.send([rover.ids(policy)[0]])
    later = rover.head.terms(policy).on_ground
    assert later[0] < 0.75 * counts[0]
    assert rover.head.order(policy) == rover.elsewhere(policy)


def test_an_acknowledged_image_counts_against_its_kind_and_one_given_back_does_not(rover):
    rover.take(60)
    rover.send([12, 24])
    sent = rover.head.terms(EMPTY).on_ground
    rover.catalog.move("ack", [12])
    assert rover.head.terms(EMPTY).on_ground.tolist() == sent.tolist()
    rover.catalog.move("nack", [24])
    assert 0 < rover.head.terms(EMPTY).on_ground[0] < sent[0]
    rover.catalog.move("resend", [12])
    assert not rover.head.terms(EMPTY).on_ground.any()


def test_near_duplicates_of_a_sent_image_are_discounted_until_it_is_given_back(rover):
    rover.take(24)
    rover.take(4, scenes=[5], spread=0.001)
    twins = [25, 26, 27, 28]

    def discounted():
        return [place.image for place in rover.head.order(EMPTY, 28)
                if place.duplicate and place.image in twins]

    first = [place.image for place in rover.head.order(EMPTY, 28) if place.image in twins][0]
    assert set(discounted()) == set(twins) - {first}
    rover.send([first])
    assert set(discounted()) == set(twins) - {first}
    assert rover.head.order(EMPTY) == rover.elsewhere() == everything(rover)
    rover.catalog.move("nack", [first])
    assert set(discounted()) == set(twins) - {first}


def test_images_that_passes_left_behind_have_their_places(rover):
    policy = EMPTY._replace(ageing=Ageing(after_passes=3, one_place_in=5), weights={7: 0.0})
    rover.take(30)
    for _ in range(3):
        assert rover.head.terms(policy).aged_until == 0
        rover.send([rover.ids(policy)[0]])
        rover.take(30)
    ranked = rover.head.order(policy)
    aged = [place.image for place in ranked if place.slot == AGED]
    assert len(aged) >= 3 and aged == sorted(aged) and aged[-1] <= 30
    left = sorted(set(range(1, 31)) - {7, 19} - set(rover.catalog.pass_images(1))
                  - set(rover.catalog.pass_images(2)) - set(rover.catalog.pass_images(3)))
    before = [place.image for place in ranked[:ranked.index(
        [place for place in ranked if place.slot == AGED][-1])]]
    assert set(left[:left.index(aged[-1])]) <= set(before)
    assert ranked == rover.elsewhere(policy) == everything(rover, policy)


def test_kept_places_are_counted_on_over_passes(rover):
    rover.take(100)
    rover.send(rover.ids()[:7])
    terms = rover.head.terms(EMPTY)
    assert terms.places_before == 7
    rover.catalog.move("ack", rover.catalog.pass_images(1)[:3])
    assert rover.head.terms(EMPTY).places_before == 7
    rover.catalog.move("nack", rover.catalog.pass_images(1))
    assert rover.head.terms(EMPTY).places_before == 3


def test_more_rows_than_the_queue_file_has_begin_as_it_does(rover):
    rover.take(300)
    assert rover.ids(rows=200)[:ROWS] == rover.ids() and len(set(rover.ids(rows=200))) == 200
    assert rover.ids(rows=5) == rover.ids()[:5]
    assert sorted(rover.ids(rows=10 ** 4)) == list(range(1, 301))
    assert rover.head.order(EMPTY, 200) == rover.elsewhere(EMPTY, 200)


def test_per_byte_the_smaller_of_equals_come_first(rover):
    rover.take(120)
    per_byte = EMPTY._replace(pass_by="score_per_byte")
    ranked = rover.head.order(per_byte)
    assert ranked == rover.elsewhere(per_byte) == everything(rover, per_byte)
    assert ranked[0].score < 0.001 and rover.head.order(EMPTY) == rover.elsewhere()
    sizes = [np.mean([row.bytes for row in rover.catalog.rows(rover.ids(policy)).values()])
             for policy in (EMPTY, per_byte)]
    assert sizes[1] < sizes[0]


def test_without_a_codebook_groups_have_no_weights_and_the_order_holds_all_the_same(tmp_path):
    policy = EMPTY._replace(weights={0: 0.0, 1: 0.0, 2: 0.0})
    with Catalog(str(tmp_path / "catalog.sqlite"), "net") as catalog:
        head = Head(catalog, ROWS)
        placing = Placing(catalog, head)
        placing.use(None, policy)
        placing.record([image(number, number % 6, spread=0.002) for number in range(60)], [])
        assert head.terms(policy).weights.tolist() == [1.0] * catalog.clusters
        first = [place.image for place in head.order(policy)]
        assert {(number - 1) % 6 for number in first[:6]} == set(range(6))
        catalog.begin_pass(first[:3], [], 10 ** 9, "test", AT)
        again = [place.image for place in head.order(policy)][:3]
        assert {(number - 1) % 6 for number in first[:3] + again} == set(range(6))


def test_two_kinds_that_share_a_cluster_are_told_apart(rover):
    """Twenty of one scene of a cluster, and one of another scene that no cluster is for."""
    rover.take(20, scenes=[3], spread=0.05)
    other = SCENES[3] + 0.35 * np.random.RandomState(77).normal(size=DIMENSION)
    rover.placing.record([image(21, 3)._replace(embedding=other.astype(np.float32))], [])
    rover.newest = 21
    rows = rover.catalog.rows(range(1, 22))
    assert {row.cluster for row in rows.values()} == {3} and not any(
        row.far for row in rows.values())
    ranked = rover.head.order(EMPTY)
    assert 21 in [place.image for place in ranked[:2]]
    assert max(place.nearness for place in ranked[2:]) < 0.5 and ranked[1].nearness == 1
    assert ranked == rover.elsewhere() == everything(rover)


def test_no_group_is_heard_twice_before_every_other_whatever_the_policys_discount(tmp_path):
    policy = EMPTY._replace(diversity=Diversity(discount=0.9))
    with Catalog(str(tmp_path / "catalog.sqlite"), "net") as catalog:
        head = Head(catalog, ROWS)
        placing = Placing(catalog, head)
        placing.use(None, policy)
        placing.record([image(number, number % 7, spread=0.002) for number in range(60)], [])
        first = [place.image for place in head.order(policy)]
        assert {(number - 1) % 7 for number in first[:7]} == set(range(7))
        assert all(place.nearness == 1 for place in head.order(policy))


def test_while_images_are_placed_anew_there_is_no_order(rover):
    rover.take(30)
    before = rover.ids()
    fewer = Codebook("net", "l2", *[values[:3] for values in book()[2:5]], *book()[5:])
    rover.placing.use(fewer, EMPTY)
    assert rover.ids() == [] and rover.elsewhere() == []
    while rover.placing.place_some():
        pass
    assert len(rover.ids()) == len(before) and len(rover.head.terms(EMPTY).weights) == 3


def test_a_codebook_that_comes_gives_the_head_its_clusters(rover):
    rover.take(60)
    before = rover.ids()
    rover.placing.use(None, EMPTY)
    while rover.placing.place_some():
        pass
    assert len(rover.head.terms(EMPTY).weights) == 64 and rover.ids() != before
    rover.placing.use(book(), EMPTY)
    while rover.placing.place_some():
        pass
    assert len(rover.head.terms(EMPTY).weights) == 12
    assert rover.ids() == before == [place.image for place in rover.elsewhere()]
