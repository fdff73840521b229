"""The console between the team's file, the rover's file, orders of before and hand edits."""

import os
import pathlib
import random
import stat

import pytest

pytest.importorskip("flask", reason="no Flask here: pip install '.[ground]'")
pytest.importorskip("waitress", reason="no waitress here: pip install '.[ground]'")
pytest.importorskip("ruamel.yaml", reason="no ruamel.yaml here: pip install '.[ground]'")

import consoled
from consoled import Aboard, down, opened, passes_of, shas  # noqa: F401: fixtures among them

from jetson_cluster import orders, policy
from jetson_cluster.applying import apply
from jetson_cluster.errors import UserError
from jetson_cluster.files import sha256_of

BUDGET = 2000000


def is_aboard(down):
    """The policy file as it stands is the one that the rover has."""
    digest = sha256_of(str(down.policy)) if down.policy.exists() else ""
    with down.opened() as catalog:
        if catalog.meta("amended_policy") != digest:
            catalog.drop_amendments()
        catalog.remember("amended_policy", digest)


def carry_out(down):
    with down.opened() as catalog:
        for action in orders.parse(down.orders.read_bytes(), "order.yaml").actions:
            apply(catalog, action, "radio", consoled.AT, None)


# ---- what was edited by hand ---------------------------------------------------------------------


@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize("aboard", [None, "none", "before", "saved", "edited"])
def test_what_was_edited_by_hand_after_saving_stays_so(down, aboard, carried_out):
    down.policy.write_text("clusters: {1: {weight: 3}}\n")
    if aboard == "none":
        with down.opened() as catalog:
            catalog.remember("amended_policy", "")
    elif aboard == "before":
        is_aboard(down)
    with opened(down) as desk:
        desk.change("weight", "2", 5)
        desk.change("mark", down.sha(30), "pin")
        desk.save()
    if aboard == "saved":
        is_aboard(down)
    if carried_out:
        carry_out(down)
    edited = "clusters: {1: {weight: 3}, 2: {weight: 8}}\npins: []\n"
    down.policy.write_text(edited)
    if aboard == "edited":
        is_aboard(down)
    with opened(down) as desk:
        state = desk.state()
        assert state["weights"] == {"1": 3, "2": 8}
        assert {one["mark"] for one in state["marks"]} <= {"free"}
        assert not state["policy"]["difference"] or all(
            sign == " " for sign, _ in state["policy"]["difference"])
        text = state["orders"]["text"]
        if not (aboard == "edited" and carried_out):  # that file dropped the amendment
            assert "2: 8}" in text
        assert "unpin: " + down.sha(30)[:8] in text
        desk.save()
    assert down.policy.read_text() == edited


def test_a_new_file_wins_over_amendments_as_it_would_aboard(down):
    with down.opened() as catalog:
        catalog.remember("amended_policy", "ab" * 32)
        catalog.amend("weight", "2", 5.0)
    down.policy.write_text("clusters: {2: {weight: 9}}\n")
    with opened(down) as desk:
        state = desk.state()
        assert (state["weightsNow"]["2"], state["weights"]["2"]) == (5, 9)
        assert "weight: {2: 9}" in state["orders"]["text"]
        assert any("edited since the orders" in note and "weight 2: 9" in note
                   for note in state["notes"])


def test_an_amendment_to_the_file_aboard_is_later_than_it(down):
    down.policy.write_text("clusters: {2: {weight: 9}}\n")
    is_aboard(down)
    with down.opened() as catalog:
        catalog.amend("weight", "2", 5.0)
    with opened(down) as desk:
        state = desk.state()
        assert state["weights"]["2"] == 5 and state["orders"]["text"] == ""
        assert any("orders say otherwise" in note and "weight 2: 5 (not 9)" in note
                   for note in state["notes"])


@pytest.mark.parametrize("name", ["policy", "orders"])
def test_a_file_that_another_program_changed_is_read_anew_under_the_draft(down, name):
    with opened(down) as desk:
        desk.change("weight", "1", 3)
        desk.change("label", "4", "sand")
        desk.save()
        desk.change("label", "1", "dunes")
        path = getattr(down, name)
        by_hand = ("clusters: {1: {weight: 7}}  # by hand\n" if name == "policy"
                   else "- {id: mine, weight: {1: 7}}\n")
        path.write_text(by_hand)
        state = desk.save()
        assert path.read_text() == by_hand  # not written over
        assert "another program changed the files" in state["changedOutside"]
        assert state["labels"]["1"] == "dunes"  # what was not saved is still there
        if name == "policy":
            assert "weight 1: 7" in state["notes"][0] and "label 4: none" in state["notes"][0]
            assert state["weights"] == {"1": 7} and "4" not in state["labels"]
        assert shas(passes_of(desk)["draft"])
        state = desk.save()
        assert state["changedOutside"] == "" and not state["stale"]
    said = policy.load(str(down.policy))
    assert said.labels[1] == "dunes" and said.weights[1] == 7
    if name == "policy":
        assert "# by hand" in down.policy.read_text()


def test_what_was_saved_and_taken_back_stays_taken_back_when_a_file_is_read_anew(down):
    with opened(down) as desk:
        desk.change("weight", "1", 3)
        desk.change("mark", down.sha(8), "hold")
        desk.save()
        desk.undo()
        desk.undo()
        down.policy.write_text(down.policy.read_text() + "explore: 0.7\n")
        state = desk.save()
        assert state["changedOutside"] and "other explore" in state["changedOutside"]
        assert state["weights"].get("1", 1) == 1
        assert [one["mark"] for one in state["marks"]] == ["free"]
        desk.save()
    said = policy.load(str(down.policy))
    assert (said.explore, said.weights.get(1, 1), said.holds) == (0.7, 1, ())


def test_a_file_that_became_none_is_told_and_the_draft_stays(down):
    with opened(down) as desk:
        desk.change("weight", "1", 3)
        down.policy.write_text("clusters: [\n")
        before = desk.state()
        with pytest.raises(UserError, match="policy.yaml"):
            desk.save()
        assert desk.state() == before


# ---- what the file aboard says, and orders too ---------------------------------------------------


@pytest.mark.parametrize("mark, off", [("pin", "unpin"), ("hold", "release")])
def test_what_both_the_file_aboard_and_an_order_ask_is_taken_back_by_both(down, mark, off):
    with opened(down) as desk:
        desk.change("mark", down.sha(30), mark)
        desk.save()
    carry_out(down)
    is_aboard(down)
    with opened(down) as desk:
        state = desk.change("mark", down.sha(30), "free")
        assert f"{off}: {down.sha(30)[:8]}" in state["orders"]["text"]
        assert state["unsaid"] == [f"to {off} sol0000_0029.jpg, which the file aboard {mark}s"]
        assert desk.change("mark", down.sha(30), mark)["unsaid"] == []


def test_pins_of_two_sessions_rank_the_same_in_the_preview_and_aboard(down, monkeypatch):
    for image in (30, 77):
        with opened(down) as desk:
            desk.change("mark", down.sha(image), "pin")
            shown = shas(passes_of(desk)["draft"])
            desk.save()
    assert shown[:2] == [down.sha(30), down.sha(77)]
    with Aboard(down) as aboard:
        aboard.follow(down.orders.read_text())
        assert aboard.next_pass(policy.EMPTY, BUDGET, monkeypatch) == shown


@pytest.mark.parametrize("seed", range(25))
def test_whatever_was_done_before_the_preview_is_the_pass_by_orders_and_by_both_files(
        tmp_path, monkeypatch, seed):
    """Random files, orders of before and drafts: the pass shown is the one the rover makes."""
    chance = random.Random(seed)
    down = consoled.Down(tmp_path / "down", each=8)
    images = list(range(1, 49))

    def some(most):
        return [down.sha(image) for image in chance.sample(images, chance.randint(0, most))]

    def a_file():
        lines = ["explore: 0.6"]
        numbers = chance.sample(range(6), chance.randint(0, 3))
        lines += ["clusters:"] * bool(numbers) + [
            f"  {number}: {{weight: {chance.choice([0, 0.5, 2, 4])}}}" for number in numbers]
        for name in ("pins", "holds"):
            lines.append(f"{name}: [{', '.join(repr(sha[:12]) for sha in some(3))}]")
        return "\n".join(lines) + "\n"

    if chance.random() < 0.7:
        down.policy.write_text(a_file())
    is_aboard(down)
    with down.opened() as catalog:
        for sha256 in some(3):
            catalog.move("pin", catalog.find(sha256))
        for sha256 in some(2):
            catalog.move("hold", catalog.find(sha256))
        catalog.begin_pass([image for image in chance.sample(images, 3)
                            if catalog.rows([image])[image].state == "queued"], [], 100, "test",
                           consoled.AT)
        if chance.random() < 0.5:
            catalog.amend("weight", "3", 2.5)
    aboard_now = policy.load(str(down.policy))

    for session in range(chance.randint(1, 3)):
        if chance.random() < 0.3:
            down.policy.write_text(a_file())
        with opened(down, now_s=1.8e9 + 100 * session) as desk:
            for _ in range(chance.randint(0, 6)):
                kind = chance.choice(["weight", "mark", "mark", "mark", "more_like"])
                target = str(chance.randrange(6)) if kind == "weight" else down.sha(
                    chance.choice(images))
                try:
                    desk.change(kind, target, chance.choice(["pin", "hold", "free"])
                                if kind == "mark" else chance.choice([0, 0.5, 1, 3]))
                except UserError as error:
                    assert "cannot be asked to" in str(error)
            shown, state = shas(passes_of(desk, "3MB")["draft"]), desk.save()
        with Aboard(down, f"orders-{session}") as aboard:
            if state["orders"]["text"]:
                aboard.follow(state["orders"]["text"])
            in_force = aboard_now.amended(aboard.catalog.amendments())
            known = not any("another policy file" in note for note in state["notes"])
            if known and not state["unsaid"]:
                assert aboard.next_pass(in_force, 3000000, monkeypatch) == shown
            said = policy.load(str(down.policy))
            assert aboard.next_pass(said, 3000000, monkeypatch) == shown
        if chance.random() < 0.3 and down.orders.exists():
            carry_out(down)
            if chance.random() < 0.5:
                is_aboard(down)
                aboard_now = policy.load(str(down.policy))


# ---- orders of others ----------------------------------------------------------------------------


OTHERS = ('- {id: 41, ack: "pass:12"}\n- {id: r/2, resend: [sol0000_0003.jpg]}\n'
          '- {id: 43, pin: not-here-yet.jpg}\n- {id: 44, weight: {1: 4}}\n'
          '- {id: 45, pin: [ab, "later on.jpg"]}\n- {id: 46, pass: 4MB}  # then\n')


def test_orders_that_the_console_does_not_make_are_carried_along_with_their_ids(down):
    down.orders.write_text(OTHERS)
    with opened(down) as desk:
        desk.change("weight", "2", 5)
        desk.save()
    found = [(action.order_id, action.name, action.targets, action.value) for action in
             orders.parse(down.orders.read_bytes(), "order.yaml").actions]
    assert found[:3] == [("41", "ack", ("pass:12",), None),
                         ("r/2", "resend", ("sol0000_0003.jpg",), None),
                         ("43", "pin", ("not-here-yet.jpg",), None)]
    assert found[3][1:] == ("weight", ("1", "2"), (4.0, 5.0))  # ours, between those of before
    assert found[4:] == [("45", "pin", ("ab", "later on.jpg"), None),
                         ("46", "pass", (), 4000000)]


def test_an_order_file_to_which_nothing_is_added_stays_as_it_is_written(down):
    down.orders.write_text("# by hand\n" + OTHERS)
    with opened(down) as desk:
        state = desk.state()
        assert state["orders"]["text"] == "# by hand\n" + OTHERS
        assert not any(sign != " " for sign, _ in state["orders"]["difference"])
        desk.save()
    assert down.orders.read_text() == "# by hand\n" + OTHERS


def test_of_an_order_for_known_and_unknown_images_the_unknown_are_still_asked_for(down):
    down.orders.write_text("- {id: 1, pin: [%s, 'new one.jpg']}\n" % down.sha(9)[:8])
    with opened(down) as desk:
        text = desk.change("mark", down.sha(9), "free")["orders"]["text"]
    assert [(one.name, one.targets) for one in orders.parse(text.encode(), "o.yaml").actions] == [
        ("unpin", (down.sha(9)[:8],)), ("pin", ("new one.jpg",))]


def test_more_than_a_file_of_orders_holds_is_told_and_left_to_the_policy_file(down):
    before = "".join("- {id: %d, ack: %s}\n" % (number, "x" * 4000) for number in range(15))
    before += "- {id: 15, ack: %s}\n" % ("x" * (63990 - len(before) - 20))
    down.orders.write_text(before)
    with opened(down) as desk:
        state = desk.change("weight", "1", 3)
        assert state["orders"]["text"] == "" and state["stale"]
        words, = state["unsaid"]
        assert words.startswith("all of this, for it would take 64,0") and (
            "one file of orders holds at most 64,000" in words)
        desk.save()
    assert down.orders.read_text() == before and policy.load(str(down.policy)).weights == {1: 3}


def test_a_policy_of_more_than_a_file_of_orders_holds_is_opened(down):
    with down.opened() as catalog:
        catalog.remember("amended_policy", "")
    down.policy.write_text("clusters:\n" + "".join(
        "  %d: {label: %s}\n" % (number, "\u706b" * 79) for number in range(300)))
    with opened(down) as desk:
        assert any("all of this" in words for words in desk.state()["unsaid"])


# ---- where the files lie -------------------------------------------------------------------------


def test_a_link_to_the_policy_stays_a_link_and_the_file_keeps_its_mode(down):
    real = down.folder / "team" / "real.yaml"
    real.parent.mkdir()
    real.write_text("explore: 0.5\n")
    real.chmod(0o600)
    down.policy.symlink_to(real)
    with opened(down) as desk:
        desk.change("weight", "1", 3)
        desk.save()
    assert down.policy.is_symlink() and policy.load(str(real)).weights == {1: 3.0}
    for path in real.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(down.orders.stat().st_mode) == 0o644


def test_the_policy_that_the_rover_has_is_kept_with_its_mode(down):
    down.policy.write_text("explore: 0.5\n")
    down.policy.chmod(0o640)
    is_aboard(down)
    with opened(down) as desk:
        desk.change("weight", "1", 3)
        desk.save()
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in
            down.folder.glob("policy.yaml*")} == {
        "policy.yaml": 0o640, "policy.yaml.rover": 0o640, "policy.yaml.saved": 0o640}


@pytest.mark.parametrize("name", ["policy", "orders"])
def test_a_link_that_leads_nowhere_is_told_at_the_start(down, name):
    getattr(down, name).symlink_to(down.folder / "gone.yaml")
    with pytest.raises(UserError, match="gone.yaml, which is not there; mend the link"):
        opened(down)


@pytest.mark.parametrize("name", ["policy", "orders"])
def test_a_folder_that_is_not_there_is_told_at_the_start(down, name):
    setattr(down, name, down.folder / "no" / "such.yaml")
    with pytest.raises(UserError, match="there is no folder .*no; make it first"):
        opened(down)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no folder that not even root may "
                                                            "write to")
def test_a_folder_that_may_not_be_written_to_is_told_at_the_start(down):
    down.policy = pathlib.Path("/proc/self/policy.yaml")
    with pytest.raises(UserError, match="may not be written to"):
        opened(down)


def test_the_policy_that_the_rover_has_is_kept_to_the_byte(down):
    down.policy.write_bytes(b"\xef\xbb\xbfclusters: {1: {weight: 2}}\r\n")
    before = down.policy.read_bytes()
    is_aboard(down)
    with opened(down) as desk:
        desk.change("weight", "1", 3)
        desk.save()
    assert (down.folder / "policy.yaml.rover").read_bytes() == before
    with opened(down) as desk:
        assert desk.state()["weightsNow"] == {"1": 2}
