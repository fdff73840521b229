"""What actions do to a catalog: once, accounted for, each target for itself."""

import pathlib
import sqlite3
import tempfile

import pytest
from hypothesis import given, settings, strategies
from operated import AT, Operations

from jetson_cluster import applying, orders
from jetson_cluster.applying import APPLIED, PARTLY, REFUSED, REPEATED, UNCHANGED
from jetson_cluster.orders import Action
from jetson_cluster.passes import make_pass

ABSENT = "0" * 64


@pytest.fixture
def rover(tmp_path):
    with Operations(tmp_path) as made:
        yield made


def sender(rover):
    return lambda budget_bytes, origin, also: make_pass(
        rover.catalog, rover.downlink(), budget_bytes, origin, AT, also=also)


def do(rover, name, *targets, order_id="", value=None):
    return applying.apply(rover.catalog, Action(order_id, name, targets, value, 1, "test"),
                          "test", AT, sender(rover))


def follow(rover, text, name="o.yaml"):
    """All orders of a file, by the real parser."""
    parsed = orders.parse((text + "\n").encode("utf-8"), name)
    assert not parsed.refused, parsed.refused
    return [applying.apply(rover.catalog, action, "order file " + name, AT, sender(rover))
            for action in parsed.actions]


def send(rover, *images):
    return rover.catalog.begin_pass(images, [], 10 ** 6, "test", AT)


# ---- marks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, before, after, words", [
    ("ack", "sent", "acked", "acked sol0000.jpg (was sent in pass 1)"),
    ("ack", "queued", "acked", "acked sol0000.jpg (was queued)"),
    ("ack", "acked", "acked", "unchanged sol0000.jpg (is sent in pass 1 and acked)"),
    ("nack", "sent", "queued", "queued again sol0000.jpg (was sent in pass 1)"),
    ("nack", "queued", "queued", "unchanged sol0000.jpg (is queued)"),
    ("resend", "acked", "queued", "queued again sol0000.jpg (was sent in pass 1 and acked)"),
    ("resend", "sent", "queued", "queued again sol0000.jpg (was sent in pass 1)"),
    ("hold", "queued", "held", "held sol0000.jpg (was queued)"),
    ("hold", "held", "held", "unchanged sol0000.jpg (is held)"),
    ("release", "held", "queued", "released sol0000.jpg (was held)"),
    ("release", "queued", "queued", "unchanged sol0000.jpg (is queued)"),
    ("pin", "queued", "queued", "pinned sol0000.jpg (was queued)"),
    ("unpin", "queued", "queued", "unchanged sol0000.jpg (is queued)"),
])
def test_a_mark_says_what_it_did(rover, name, before, after, words):
    image, = rover.add(100)
    if before in ("sent", "acked"):
        send(rover, image)
    if before in ("acked", "held"):
        rover.catalog.move({"acked": "ack", "held": "hold"}[before], [image])
    result = do(rover, name, rover.sha(image)[:8])
    assert result.words == words and rover.state_of(image) == after
    assert result.result == (UNCHANGED if words.startswith("unchanged") else APPLIED)
    change, = result.outcomes[0].changes
    assert (change.before, change.after, change.sha256) == (before, after, rover.sha(image))
    assert do(rover, name, rover.sha(image)[:8]).result == UNCHANGED
    assert rover.state_of(image) == after


def test_a_pin_is_told_though_the_state_stays(rover):
    first, second = rover.add(100, 100)
    assert do(rover, "pin", rover.name(second)).words == "pinned sol0001.jpg (was queued)"
    assert do(rover, "pin", rover.name(second)).words == "unchanged sol0001.jpg (is queued, pinned)"
    assert rover.catalog.pinned() == [second]
    assert do(rover, "unpin", rover.name(second)).words == (
        "unpinned sol0001.jpg (was queued, pinned)")
    assert rover.catalog.pinned() == []


@pytest.mark.parametrize("name, how, why", [
    ("hold", "ack", "cannot hold it: the ground has acknowledged it; resend it, if it is to"),
    ("nack", "ack", "cannot nack it: the ground has acknowledged it; resend it, if it is to"),
    ("resend", "hold", "cannot resend it: it is held; release it first"),
    ("pin", "ack", "cannot pin it: the ground has acknowledged it"),
])
def test_what_a_state_does_not_allow_is_refused_with_the_reason(rover, name, how, why):
    image, = rover.add(100)
    rover.catalog.move(how, [image])
    before = rover.everything()
    result = do(rover, name, rover.sha(image))
    assert result.result == REFUSED and why in result.words and "sol0000.jpg" in result.words
    assert rover.everything() == before


def test_an_image_is_found_by_hash_path_and_name(rover):
    image, = rover.add(100)
    for target in (rover.sha(image), rover.sha(image)[:6], rover.sha(image)[:9].upper(),
                   str(rover.inbox / "sol0000.jpg"), "sol0000.jpg"):
        assert do(rover, "pin", target).outcomes[0].changes, target
        do(rover, "unpin", target)


def test_an_ambiguous_name_is_refused_alone_with_the_images_it_may_mean(rover):
    rover.add(10, 11, 12, names=["left/a.jpg", "right/a.jpg", "left/b.jpg"])
    result = do(rover, "pin", "a.jpg", "b.jpg")
    assert result.result == PARTLY
    ambiguous, done = result.outcomes
    assert ambiguous.result == REFUSED and not ambiguous.unknown
    assert len(ambiguous.candidates) == 2
    assert all(name in ambiguous.words for name in ("left/a.jpg", "right/a.jpg", rover.sha(1)[:16]))
    assert done.result == APPLIED and len(rover.catalog.pinned()) == 1


def test_of_many_candidates_five_are_named(rover):
    rover.add(*range(10, 18), names=["%d/a.jpg" % number for number in range(8)])
    refused = do(rover, "hold", "a.jpg").outcomes[0]
    assert len(refused.candidates) == 5 and "and 3 more" in refused.words


@pytest.mark.parametrize("target, why", [
    ("none.jpg", "no image is called none.jpg"), (ABSENT, "no image is called 000"),
    ("a1b2", "a hash needs at least 6 digits"), ("/inbox/none.jpg", "no image is called /inbox"),
    ("pass:7", "there is no pass 7; the last one is 0")])
def test_what_nothing_is_called_is_refused_by_name(rover, target, why):
    rover.add(100)
    result = do(rover, "ack", target)
    assert result.result == REFUSED and why in result.words and result.outcomes[0].unknown


def test_names_that_are_not_utf8_can_be_marked_and_are_accounted_for(rover):
    name = "caf\udce9.jpg"
    image, = rover.add(100, names=[name])
    assert do(rover, "hold", name).result == APPLIED
    assert rover.state_of(image) == "held"
    assert "caf" in rover.catalog.audit_rows(1)[0].target


def test_a_pass_is_marked_whole(rover):
    images = rover.add(10, 10, 10)
    number = send(rover, *images)
    assert do(rover, "ack", rover.sha(images[0])).result == APPLIED
    result = do(rover, "nack", "pass:%d" % number)
    assert result.words == "queued again 2 of the 3 images of pass 1 (1 acked)"
    assert rover.states() == ["acked", "queued", "queued"]
    assert do(rover, "nack", "pass:1").result == UNCHANGED


def test_what_was_nacked_is_not_acknowledged_with_its_pass(rover):
    images = rover.add(10, 10, 10)
    send(rover, *images)
    assert do(rover, "nack", rover.name(images[1])).result == APPLIED
    assert do(rover, "ack", "pass:1").words == "acked 2 of the 3 images of pass 1 (1 queued)"
    assert rover.states() == ["acked", "queued", "acked"]
    assert do(rover, "nack", "pass:1").words == (
        "queued again 0 of the 3 images of pass 1 (2 acked, 1 queued)")


def test_a_pass_of_which_all_was_nacked_has_nothing_to_acknowledge(rover):
    send(rover, *rover.add(10, 10))
    do(rover, "nack", "pass:1")
    result = do(rover, "ack", "pass:1")
    assert result.result == REFUSED and rover.states() == ["queued", "queued"]
    assert result.words == "pass 1: cannot ack its images: all are queued again since"


def test_a_pass_of_previews_alone_has_nothing_to_acknowledge_and_its_previews_can_come_again(rover):
    images = rover.add(10, 10, previews=100)
    rover.catalog.begin_pass([], images, 1000, "test", AT)
    result = do(rover, "ack", "pass:1")
    assert (result.result, result.words) == (
        UNCHANGED, "pass 1 was of previews; there is no image to ack")
    assert do(rover, "resend", "pass:1").words == "the previews of pass 1 are sent again"
    assert rover.catalog.unsent_previews(10) == images


def test_the_preview_of_one_image_is_sent_again_when_it_is_resent(rover):
    images = rover.add(10, 10, previews=100)
    rover.catalog.begin_pass([], images, 1000, "test", AT)
    result = do(rover, "resend", rover.name(images[0]))
    assert (result.result, result.words) == (
        APPLIED, "the preview of sol0000.jpg is sent again (it is queued)")
    assert rover.catalog.unsent_previews(10) == images[:1]
    assert do(rover, "resend", rover.name(images[0])).result == UNCHANGED


def test_a_nack_of_a_pass_lets_its_previews_be_sent_again(rover):
    images = rover.add(10, 10, previews=100)
    rover.catalog.begin_pass([images[0]], images, 1000, "test", AT)
    result = do(rover, "nack", "pass:1")
    assert result.words == "queued again 1 of the 1 image of pass 1 and the previews of 2"
    assert rover.catalog.unsent_previews(10) == images


# ---- amendments --------------------------------------------------------------------------------


def test_amendments_change_the_policy_in_force_and_can_be_taken_back(rover):
    image, = rover.add(100)
    follow(rover, "- {id: 1, weight: {7: 3, 8: 0}}\n- {id: 2, label: {7: layered rock}}\n"
                  "- {id: 3, more_like: {sol0000.jpg: 2}}")
    policy = rover.policy.amended(rover.catalog.amendments())
    assert policy.weights == {7: 3.0, 8: 0.0} and policy.labels == {7: "layered rock"}
    target, = policy.targets
    assert (target.like, target.weight) == (rover.sha(image), 2.0)
    again = follow(rover, "- {id: 4, weight: {7: 3}}\n- {id: 5, label: {7: default}}\n"
                          "- {id: 6, more_like: {sol0000.jpg: default}}")
    assert [result.result for result in again] == [UNCHANGED, APPLIED, APPLIED]
    assert again[1].words == "label 7: as the policy file says"
    assert rover.policy.amended(rover.catalog.amendments()) == rover.policy._replace(
        weights={7: 3.0, 8: 0.0})


def test_more_like_an_image_that_is_not_here_is_refused(rover):
    result, = follow(rover, "- {id: 1, more_like: {a1b2c3d4: 1}}")
    assert result.result == REFUSED and "no image is called a1b2c3d4" in result.words
    assert rover.catalog.amendments() == {}


# ---- orders ------------------------------------------------------------------------------------


def test_an_order_followed_twice_changes_nothing_the_second_time(rover):
    first, second = rover.add(100, 100)
    send(rover, first, second)
    text = "- {id: 42, nack: [%s, %s]}" % (rover.sha(first), rover.sha(second))
    assert follow(rover, text)[0].result == APPLIED
    # What the first did may have been overtaken since: following it again would undo that.
    send(rover, first)
    before = rover.everything()
    result, = follow(rover, text)
    assert result.result == REPEATED and "id 42 was followed before: queued again" in result.words
    assert rover.everything() == before


def test_an_id_used_for_something_else_is_refused_and_says_for_what(rover):
    rover.add(100, 100)
    follow(rover, "- {id: 42, pin: sol0000.jpg}")
    for other in ("pin: sol0001.jpg", "hold: sol0000.jpg", "pin: [sol0000.jpg, sol0001.jpg]",
                  "pass: 4MB"):
        result, = follow(rover, "- {id: 42, %s}" % other)
        assert result.result == REFUSED and result.words == "id 42 was used for: pin sol0000.jpg"
    assert len(rover.catalog.pinned()) == 1 and rover.catalog.last_pass == 0


def test_an_order_that_hits_nothing_leaves_its_id_for_later(rover):
    text = "- {id: 42, pin: sol0000.jpg}"
    assert follow(rover, text)[0].result == REFUSED
    assert rover.catalog.audited("42") is None
    assert "order 42: no image is called sol0000.jpg" in rover.catalog.audit_rows(1)[0].detail
    rover.add(100)
    assert follow(rover, text)[0].result == APPLIED
    assert follow(rover, text)[0].result == REPEATED


def test_of_several_targets_the_known_ones_are_dealt_with_and_the_id_is_used(rover):
    rover.add(100)
    result, = follow(rover, "- {id: 42, pin: [sol0000.jpg, sol0009.jpg]}")
    assert result.result == PARTLY and len(rover.catalog.pinned()) == 1
    assert result.words == "pinned sol0000.jpg (was queued); no image is called sol0009.jpg"
    assert rover.catalog.audited("42").result == PARTLY


def test_an_order_that_was_so_already_uses_its_id(rover):
    rover.add(100)
    assert follow(rover, "- {id: 42, unpin: sol0000.jpg}")[0].result == UNCHANGED
    assert rover.catalog.audited("42") is not None


def test_ids_survive_the_loss_of_the_catalog_through_the_journal(rover, tmp_path):
    rover.add(100)
    follow(rover, "- {id: 42, hold: sol0000.jpg}")
    rover.catalog.close()
    for path in rover.state.glob("catalog.sqlite*"):
        path.unlink()
    with Operations(tmp_path) as anew:
        anew.catalog.recall()
        image, = anew.add(100)
        assert anew.state_of(image) == "held"
        result, = follow(anew, "- {id: 42, hold: sol0000.jpg}")
        assert result.result == REPEATED


def test_every_action_is_accounted_for_with_its_origin_and_result(rover):
    rover.add(100)
    do(rover, "hold", "sol0000.jpg")
    follow(rover, "- {id: 42, release: sol0000.jpg}\n- {id: 43, pin: none.jpg}", "ops.yaml")
    applying.note_refused(rover.catalog, orders.Refused(3, "44", "no action is called 'x'"),
                          "ops.yaml", "order file ops.yaml", AT)
    rows = [row[1:] for row in reversed(rover.catalog.audit_rows(10))]
    assert rows == [
        (AT, "test", None, "hold", "sol0000.jpg", APPLIED, "held sol0000.jpg (was queued)"),
        (AT, "order file ops.yaml", "42", "release", "sol0000.jpg", APPLIED,
         "released sol0000.jpg (was held)"),
        (AT, "order file ops.yaml", None, "pin", "none.jpg", REFUSED,
         "order 43: no image is called none.jpg"),
        (AT, "order file ops.yaml", None, "order", "ops.yaml line 3", REFUSED,
         "order 44: no action is called 'x'")]


def test_an_action_and_its_line_in_the_account_are_one(rover, monkeypatch):
    image, = rover.add(100)
    before = rover.everything()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rover.catalog, "audit", fail)
    with pytest.raises(OSError):
        do(rover, "hold", "sol0000.jpg", order_id="42")
    assert rover.everything() == before and rover.state_of(image) == "queued"


def test_an_acknowledgement_the_journal_cannot_take_is_not_given(rover):
    image, = rover.add(100)
    (rover.state / "journal").mkdir()
    with pytest.raises(sqlite3.OperationalError, match="journal"):
        do(rover, "ack", "sol0000.jpg")
    assert rover.state_of(image) == "queued" and not rover.catalog.audit_rows(1)


# ---- passes by order -----------------------------------------------------------------------------


def test_a_pass_by_order_is_made_once(rover):
    rover.add(100, 100, 100)
    result, = follow(rover, "- {id: 46, pass: 200}")
    assert result.result == APPLIED and result.report.number == 1
    assert result.words == "pass 1: 2 images, 200 B of 200 B"
    assert rover.catalog.pass_of(1).origin == "order 46"
    assert follow(rover, "- {id: 46, pass: 0.2kB}")[0].result == REPEATED
    assert rover.states() == ["sent", "sent", "queued"]


def test_a_pass_with_nothing_to_send_leaves_its_id(rover):
    result, = follow(rover, "- {id: 46, pass: 4MB}")
    assert result.result == REFUSED and result.words == "no pass; no image is queued"
    rover.add(100)
    assert follow(rover, "- {id: 46, pass: 4MB}")[0].result == APPLIED


def test_while_a_pass_is_chosen_others_may_write(rover, tmp_path):
    images = rover.add(100, 100)

    def send(budget_bytes, origin, also):
        with Operations(tmp_path) as other:
            other.catalog.move("hold", [images[0]])
        return sender(rover)(budget_bytes, origin, also)

    result = applying.apply(rover.catalog, Action("46", "pass", (), 1000, 1, "test"), "test", AT, send)
    assert result.words == "pass 1: 1 image, 100 B of 1.0 kB"
    assert rover.states() == ["held", "sent"]


@pytest.mark.parametrize("sizes", [(100, 100), ()])
def test_an_order_followed_by_another_process_while_its_pass_is_chosen_makes_no_second_one(
        rover, tmp_path, sizes):
    if sizes:
        rover.add(*sizes)
    action = Action("46", "pass", (), 100, 1, "test")

    def send(budget_bytes, origin, also):
        with Operations(tmp_path) as other:
            if not sizes:
                other.add(100)
            assert applying.apply(
                other.catalog, action, "other", AT, sender(other)).result == APPLIED
            if not sizes:
                other.catalog.move("hold", [1])
        return sender(rover)(budget_bytes, origin, also)

    assert applying.apply(rover.catalog, action, "test", AT, send).result == REPEATED
    assert rover.catalog.last_pass == 1 and len(rover.catalog.audit_rows(9)) == 1


def test_a_pass_that_cannot_be_accounted_for_is_not_made(rover, monkeypatch):
    rover.add(100)
    before = rover.everything()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rover.catalog, "audit", fail)
    with pytest.raises(OSError):
        do(rover, "pass", order_id="46", value=1000)
    assert rover.everything() == before


# ---- whatever the orders -------------------------------------------------------------------------

NAMES = ["sol%04d.jpg" % number for number in range(5)] + ["none.jpg", "pass:1", "pass:2"]
ACTIONS = strategies.one_of(
    strategies.tuples(strategies.sampled_from(orders.MARKS),
                      strategies.lists(strategies.sampled_from(NAMES), min_size=1, max_size=3)).map(
        lambda made: "%s: [%s]" % (made[0], ", ".join(repr(name) for name in made[1]))),
    strategies.sampled_from(["weight: {3: 2}", "weight: {3: default}", "label: {3: rock}",
                             "more_like: {sol0001.jpg: 1}", "pass: 250", "pass: 0", "pass: 1kB"]))


@settings(deadline=None, max_examples=60)
@given(strategies.lists(ACTIONS, max_size=8))
def test_any_mix_of_orders_followed_twice_is_as_followed_once(actions):
    text = "".join("- {id: %d, %s}\n" % (number, action) for number, action in enumerate(actions))
    with tempfile.TemporaryDirectory() as folder, Operations(pathlib.Path(folder)) as rover:
        rover.add(100, 100, 200, 300, 50)
        first = follow(rover, text)
        refused = {number for number, result in enumerate(first) if result.result == REFUSED}
        once = rover.everything()
        second = follow(rover, text)
        # A refused one may find by now what it lacked; each of the others changes nothing.
        assert all(result.result == REPEATED for number, result in enumerate(second)
                   if number not in refused)
        if not any(second[number].result != REFUSED for number in refused):
            assert rover.everything() == once


@settings(deadline=None, max_examples=40)
@given(strategies.lists(ACTIONS, max_size=8), strategies.integers(0, 8))
def test_a_file_split_in_two_does_the_same(actions, place):
    lines = ["- {id: %d, %s}\n" % pair for pair in enumerate(actions)]
    done = []
    for parts in ([lines], [lines[:place], lines[place:]]):
        with tempfile.TemporaryDirectory() as folder, Operations(pathlib.Path(folder)) as rover:
            rover.add(100, 100, 200, 300, 50)
            for part in parts:
                follow(rover, "".join(part))
            done.append(rover.everything())
    assert done[0] == done[1]
