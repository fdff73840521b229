"""The arithmetic that is shown is the arithmetic that was done."""

import hashlib
import json
import re

import numpy as np
import pytest
from ranking_cases import terms_for

from jetson_cluster import codebook, explaining, quality, scoring
from jetson_cluster.catalog import Catalog
from jetson_cluster.codebook import QUANTILE_POINTS, Codebook
from jetson_cluster.head import Head
from jetson_cluster.inbox import Arrival
from jetson_cluster.placing import Placing
from jetson_cluster.policy import EMPTY, Ageing, Target
from jetson_cluster.quality import Measures
from jetson_cluster.ranking import AGED, PIN, Ranked
from jetson_cluster.records import Image

DIMENSION = 24
SCENES = np.random.RandomState(0).normal(size=(8, DIMENSION))
AT = "2026-01-01T00:00:00Z"
GOOD = Measures(dark=0.1, bright=0.1, contrast=0.8, sharpness=0.8, noise=0, dead_lines=0)
WHITE = GOOD._replace(bright=0.6)


def digest(number):
    return hashlib.sha256(b"%d" % number).hexdigest()


def image(number):
    """Two of every three well taken; every fifth and the one after it nearly the same."""
    seed = number - number % 5 // 4
    embedding = SCENES[seed % 8] + 0.2 * np.random.RandomState(seed).normal(size=DIMENSION)
    embedding += 0.001 * np.random.RandomState(10 ** 6 + number).normal(size=DIMENSION)
    return Image(Arrival("/inbox/%d.png" % number, 900 + number, 1, 1), digest(number), 64, 48, AT,
                 embedding.astype(np.float32), measures=GOOD if number % 3 else WHITE)


def book():
    ramp = np.linspace(0, 1, QUANTILE_POINTS).astype(np.float32)
    return Codebook("net", "l2", codebook.normalise(SCENES.astype(np.float32)), np.full(8, 10),
                    np.full(8, 0.3, np.float32), ramp, ramp, 0.5, 3.0)


POLICY = EMPTY._replace(
    labels={2: "dunes"}, weights={2: 3.0, 4: 0.0, 5: 0.7}, pins=(digest(30),), holds=(digest(31),),
    targets=(Target("blueberries", digest(7)[:8], None, 0.8), Target("gone", "0" * 8, None, 1.0)),
    ageing=Ageing(after_passes=1, one_place_in=7))


@pytest.fixture(params=["clusters", "clusters, per byte", "groups"])
def told(request, tmp_path):
    """A function that explains an image, over a catalog of 64, of which 6 were sent; its head."""
    held = None if request.param == "groups" else book()
    policy = POLICY
    if request.param == "clusters, per byte":
        policy = POLICY._replace(pass_by="score_per_byte")
    with Catalog(str(tmp_path / "catalog.sqlite"), "net") as catalog:
        head = Head(catalog, 100)
        placing = Placing(catalog, head)
        placing.use(held, policy)
        placing.record([image(number) for number in range(1, 65)], [])
        placing.look_for_targets()
        while placing.place_some():
            pass
        catalog.begin_pass([place.image for place in head.order(policy)[2:8]], [], 10 ** 6, "test",
                           AT)
        targets = scoring.Targets.resolve(policy, catalog, held)

        def told(number):
            ranked = head.order(policy)
            rank = next((rank for rank, place in enumerate(ranked, 1) if place.image == number),
                        None)
            facts = explaining.gather(catalog, number, policy, targets, catalog.clustered)
            return explaining.explain(facts, policy, head.terms(policy),
                                      ranked[rank - 1] if rank else None, rank)

        told.order, told.catalog, told.policy = lambda: head.order(policy), catalog, policy
        yield told


def printed(explanation):
    """The factors as they stand in the lines, by name."""
    return {found.group(1): float(found.group(2)) for found in (
        re.match(r"  ([a-z-]+) +([0-9.e+-]+)( |$)", line) for line in explanation.lines) if found}


def test_the_factors_multiply_to_the_score_of_the_queue_file(told):
    ranked = told.order()
    assert len(ranked) == 64 - 6 - 1
    for rank, place in enumerate(ranked, 1):
        explanation = told(place.image)
        score = "%.4g" % place.score
        numbers = explanation.numbers
        assert (numbers["rank"], numbers["score"]) == (rank, place.score)
        assert numbers["slot"] == place.slot
        assert "%.4g" % np.prod(list(numbers["factors"].values())) == score
        assert np.prod(list(printed(explanation).values())) == pytest.approx(
            place.score, rel=1e-4)
        assert any(line.startswith("score %s, " % score) for line in explanation.lines)
    factors = set().union(*(told(place.image).numbers["factors"] for place in ranked))
    assert {"near_duplicate", "diversity", "interest", "weight"} <= factors
    assert ("nearness" in factors) is told.catalog.clustered
    assert {PIN, AGED, ""} <= {place.slot for place in ranked}


def test_of_nearness_and_a_near_duplicate_only_what_counts_is_told(told):
    terms = terms_for(64, near_duplicate=0.25)
    facts = explaining.gather(told.catalog, 14, told.policy, scoring.Targets.resolve(
        told.policy, told.catalog, None), told.catalog.clustered)
    facts = facts._replace(row=facts.row._replace(reach=0.5))
    for near, duplicate, names, words in (
            (1.0, False, set(), ""), (1.0, True, {"near_duplicate"}, "near-duplicates is ahead"),
            (0.36, False, {"nearness"}, "image ahead is 0.3 away; those of its kind often are 0.5"),
            (0.36, True, {"near_duplicate"}, "near-duplicates is ahead"),
            (0.04, True, {"nearness"}, "the nearest image ahead is 0.1 away or less;")):
        ranked = Ranked(14, 0.5, 0, 0, "", duplicate, nearness=near)
        explanation = explaining.explain(facts, told.policy, terms, ranked, 1)
        found = explanation.numbers["factors"]
        assert set(found) & {"nearness", "near_duplicate"} == names
        assert min(near, 0.25 if duplicate else 1) == np.prod([found[name] for name in names])
        assert words in "\n".join(explanation.lines)


def test_the_parts_of_the_interest_and_of_the_kin_add_up(told):
    clustered = told.catalog.clustered
    for place in told.order():
        numbers = told(place.image).numbers
        parts, kin = numbers["interest"], numbers["kin"]
        base = (parts["explore"] * parts["novelty"]
                + (1 - parts["explore"]) * parts["representative"]
                if clustered else 0.5 + 0.5 * parts["novelty"])
        interest = (base + parts["signature_share"] * parts["signature"]) * parts["quality"]
        assert numbers["factors"]["interest"] == pytest.approx(interest, rel=1e-5)
        assert parts["now"] == pytest.approx(interest, rel=1e-5)
        assert kin["on_ground"] == pytest.approx(place.kin_on_ground, abs=1e-9)
        count = kin["ahead"] + kin["on_ground"] - kin["common"]
        assert numbers["factors"]["diversity"] == pytest.approx(kin["discount"] ** count)
        if parts["likeness"]:
            assert parts["signature"] == pytest.approx(0.8 * parts["likeness"], rel=1e-3)


def test_it_is_json_and_every_line_is_one_line(told):
    for number in range(1, 65):
        explanation = told(number)
        assert json.loads(json.dumps(explanation.numbers, allow_nan=False)) == explanation.numbers
        assert not any("\n" in line or not line.strip() for line in explanation.lines)


def test_what_is_told_of_a_pinned_a_held_and_a_sent_image(told):
    assert "rank 1 of the queue, pinned" in told(30).lines
    held = told(31)
    assert "held by the policy, left out of the queue" in held.lines
    assert held.numbers["held"] and held.numbers["rank"] is None
    assert not any("score " in line for line in held.lines)
    assert any("before diversity" in line for line in held.lines)
    sent = told.catalog.pass_images(1)[0]
    assert "sent in pass 1, not acknowledged yet" in told(sent).lines
    told.catalog.move("ack", [sent])
    assert "on the ground, acknowledged" in told(sent).lines
    assert told(sent).numbers["state"] == "acked" and told(sent).numbers["pass"] == 1


@pytest.mark.parametrize("action, words", [("hold", "held by operations, left out of the queue")])
def test_what_operations_did_is_told(told, action, words):
    told.catalog.move(action, [12])
    assert words in told(12).lines


def test_an_image_without_a_place_is_told_to_have_none(told):
    told.catalog.record([image(200)._replace(embedding=None, measures=None)], None, [])
    explanation = told(65)
    assert "waits to be embedded" in explanation.lines
    assert "factors" not in explanation.numbers and explanation.numbers["state"] == "waiting"


def test_a_place_in_a_codebook_that_is_gone_is_no_place(told):
    """As when a smaller codebook came and the image was not yet placed by it."""
    catalog, policy = told.catalog, told.policy
    facts = explaining.gather(catalog, 8, policy, scoring.Targets.resolve(policy, catalog, None),
                              catalog.clustered)
    cluster = int(facts.row.soft_index.max())
    smaller = terms_for(cluster)
    assert "factors" not in explaining.explain(facts, policy, smaller, None).numbers
    assert "factors" in explaining.explain(facts, policy, terms_for(cluster + 1), None).numbers


def test_an_image_far_from_everything_belongs_to_no_kind(told):
    catalog, policy = told.catalog, told.policy
    facts = explaining.gather(catalog, 8, policy, scoring.Targets.resolve(policy, catalog, None),
                              catalog.clustered)
    far = facts._replace(row=facts.row._replace(far=True, soft_weight=np.zeros(4, np.float32)))
    explanation = explaining.explain(far, policy, terms_for(64), None)
    assert "it belongs to no kind that is known" in explanation.lines
    assert json.loads(json.dumps(explanation.numbers, allow_nan=False)) == explanation.numbers


def test_the_words_name_cluster_target_quality_and_near_duplicates(told):
    words = {number: "\n".join(told(number).lines) for number in range(1, 65)}
    assert all("target that counts nothing: gone: no image here" in text for text in words.values())
    assert "blueberries" in words[7]
    assert "over-exposed: 60 % of it is white" in words[33] and "well taken" in words[34]
    assert "near-duplicates: /inbox/14.png" in words[13]
    if told.catalog.clustered:
        dunes = told.catalog.candidates(2, 1)["image"][0]
        assert "the policy's, of dunes" in words[dunes] and "dunes (" in words[dunes]
    else:
        assert "there are no clusters yet, only groups" in words[1]


def test_a_worth_that_is_not_yet_by_the_policy_in_force_is_told(told):
    catalog, policy = told.catalog, told.policy._replace(signature=0.25)
    facts = explaining.gather(catalog, 7, policy, scoring.Targets.resolve(policy, catalog, None),
                              catalog.clustered)
    explanation = explaining.explain(facts, policy, Head(catalog, 5).terms(policy), None)
    assert any("by the policy in force" in line for line in explanation.lines)
    assert not any("by the policy in force" in line for line in told(7).lines)


def test_the_verdict_is_that_of_quality(told):
    for number in (3, 4):
        row = told.catalog.rows([number])[number]
        numbers = told(number).numbers["quality"]
        verdict = quality.judge(row.measures, told.policy.quality)
        assert (numbers["factor"], numbers["reason"]) == (
            pytest.approx(verdict.factor), verdict.reason)
