"""The console over a real catalog: its preview is the rover's own pass, its files bring it there."""

import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
import threading

import numpy as np
import pytest

pytest.importorskip("flask", reason="no Flask here: pip install '.[ground]'")
pytest.importorskip("waitress", reason="no waitress here: pip install '.[ground]'")
pytest.importorskip("ruamel.yaml", reason="no ruamel.yaml here: pip install '.[ground]'")

import consoled
from consoled import Aboard, desk, down, opened, passes_of, shas  # noqa: F401: fixtures among them

from jetson_cluster import orders, policy
from jetson_cluster.applying import APPLIED, apply
from jetson_cluster.errors import UserError
from jetson_cluster.files import sha256_of
from jetson_cluster.ground.console.desk import Desk
from jetson_cluster.ground.console import policy_file
from jetson_cluster.ground.console.copying import copy_catalog
from jetson_cluster.head import Head
from jetson_cluster.placing import Placing

BUDGET = 2000000


def edit_everything(desk, down):
    desk.change("weight", "2", 5)
    desk.change("weight", "0", 0)
    desk.change("label", "2", "layered rock")
    desk.change("more_like", down.sha(9), 2)
    desk.change("mark", down.sha(30), "pin")
    desk.change("mark", down.sha(77), "pin")
    desk.change("mark", down.sha(8), "hold")


# ---- the preview ---------------------------------------------------------------------------------


def test_the_preview_is_the_pass_that_the_rover_would_make(desk, down, monkeypatch):
    edit_everything(desk, down)
    shown = passes_of(desk)
    desk.save()
    with Aboard(down) as aboard:
        assert shas(shown["now"]) == aboard.next_pass(policy.EMPTY, BUDGET, monkeypatch)
        said = policy.load(str(down.policy))
        assert shas(shown["draft"]) == aboard.next_pass(said, BUDGET, monkeypatch)
    assert shas(shown["now"]) != shas(shown["draft"])


def test_images_are_told_apart_by_where_they_stand_in_the_other_pass(desk, down):
    desk.change("weight", "1", 20)
    shown = passes_of(desk)
    now, draft = shas(shown["now"]), shas(shown["draft"])
    assert [image["other"] for image in shown["draft"]["images"]] == [
        now.index(sha256) + 1 if sha256 in now else None for sha256 in draft]
    assert [image["place"] for image in shown["now"]["images"]] == list(range(1, len(now) + 1))


def test_classes_are_counted_by_label_on_both_sides(desk):
    for cluster in ("1", "2"):
        desk.change("label", cluster, "rock")
    shown = passes_of(desk)
    counts = {one["name"]: one for one in shown["classes"]}
    assert set(counts) == {"rock", "cluster 0", "cluster 3", "cluster 4", "cluster 5"}
    assert sorted(counts["rock"]["clusters"]) == [1, 2]
    for side in ("now", "draft"):
        assert sum(one[side][0] for one in counts.values()) == len(shown[side]["images"])
        assert sum(one[side][1] for one in counts.values()) == shown[side]["bytes"] <= BUDGET


def test_the_catalog_that_came_down_is_never_touched(down):
    before = sha256_of(str(down.catalog)), sorted(os.listdir(str(down.folder)))
    with opened(down) as desk:
        edit_everything(desk, down)
        passes_of(desk)
    assert (sha256_of(str(down.catalog)), sorted(os.listdir(str(down.folder)))) == before


def test_a_catalog_that_a_daemon_writes_to_is_copied_whole(down):
    with down.opened(consoled.SPACE) as live:
        live.move("hold", [1, 2, 3])  # in the write-ahead log only
        with opened(down) as desk:
            assert desk.state()["counts"]["held"] == 3


def test_a_daemon_that_never_rests_does_not_keep_the_copy_from_its_end(down, tmp_path):
    with down.opened(consoled.SPACE):
        pass  # leaves it with a write-ahead log
    with sqlite3.connect(str(down.catalog)) as database:
        database.execute("CREATE TABLE pad (x BLOB)")
        database.executemany("INSERT INTO pad VALUES (?)", [(bytes(1 << 20),)] * 64)
        database.execute("CREATE TABLE pairs (a INTEGER, b INTEGER)")
        database.execute("INSERT INTO pairs VALUES (0, 0)")
    ended = threading.Event()

    def write():
        with contextlib.closing(sqlite3.connect(str(down.catalog), timeout=30)) as database:
            database.execute("PRAGMA synchronous = OFF")  # to commit as often as can be
            while not ended.is_set():
                with database:
                    database.execute("UPDATE pairs SET a = a + 1")
                    database.execute("UPDATE pairs SET b = b + 1")

    # Daemons, so that a copy without an end fails this test and does not stop the others.
    writer = threading.Thread(target=write, daemon=True)
    copier = threading.Thread(target=copy_catalog, daemon=True,
                              args=(str(down.catalog), str(tmp_path / "copy.sqlite")))
    writer.start()
    copier.start()
    copier.join(60)
    ended.set()
    writer.join()
    assert not copier.is_alive()
    with contextlib.closing(sqlite3.connect(str(tmp_path / "copy.sqlite"))) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        a, b = copy.execute("SELECT a, b FROM pairs").fetchone()
        assert a == b


# ---- the two files -------------------------------------------------------------------------------


def test_the_orders_make_the_same_ranking_as_the_edited_policy(desk, down):
    edit_everything(desk, down)
    desk.save()
    said = policy.load(str(down.policy))
    with Aboard(down, "by-orders") as by_orders, Aboard(down, "by-policy") as by_policy:
        assert set(by_orders.follow(down.orders.read_text())) == {APPLIED}
        amended = policy.EMPTY.amended(by_orders.catalog.amendments())
        found = by_orders.ranking(amended)
        assert found == by_policy.ranking(said) and len(found) == 119
        assert found[0][0] == down.sha(30) and found[1][0] == down.sha(77)


def test_what_was_saved_is_there_when_the_console_is_started_again(down):
    with opened(down) as desk:
        edit_everything(desk, down)
        desk.save()
        state, shown = desk.state(), passes_of(desk)
    with opened(down) as desk:
        again = desk.state()
        for key in ("labels", "weights"):
            assert again[key] == state[key]
        assert again["targets"] == state["targets"]
        assert ({one["sha256"]: one["mark"] for one in again["marks"]}
                == {one["sha256"]: one["mark"] for one in state["marks"]})
        assert not again["stale"] and again["orders"]["text"] == state["orders"]["text"]
        assert shas(passes_of(desk)["draft"]) == shas(shown["draft"])


def test_after_the_orders_were_carried_out_the_next_catalog_needs_none(down):
    with opened(down) as desk:
        edit_everything(desk, down)
        desk.save()
    with down.opened() as catalog:
        for action in orders.parse(down.orders.read_bytes(), "order.yaml").actions:
            apply(catalog, action, "radio", consoled.AT, None)
    with opened(down) as desk:
        state = desk.state()
        assert state["orders"]["text"] == "" and not state["stale"]
        assert state["labelsNow"] == {"2": "layered rock"} and state["weightsNow"]["2"] == 5


def test_what_the_last_file_spoke_of_is_said_again_when_it_is_taken_back(down):
    with opened(down) as desk:
        desk.change("weight", "2", 5)
        desk.change("mark", down.sha(30), "pin")
        desk.save()
        desk.undo()
        desk.undo()
        taken_back = desk.save()["orders"]["text"]
    assert "weight: {2: 1}" in taken_back and "unpin: " in taken_back
    with Aboard(down) as aboard:  # whether the first file was uplinked or not
        before = aboard.ranking(policy.EMPTY)
        aboard.follow("- {id: first, weight: {2: 5}}\n- {id: two, pin: %s}\n" % down.sha(30)[:8])
        aboard.follow(taken_back)
        assert aboard.ranking(policy.EMPTY.amended(aboard.catalog.amendments())) == before
    said = policy.load(str(down.policy))
    assert (said.weights_of(6) == 1).all() and said.pins == ()


def test_marks_that_orders_made_are_taken_back_by_orders_and_by_no_policy(down):
    with down.opened() as catalog:
        catalog.move("pin", [11])
        catalog.move("pin", [12])
        catalog.move("hold", [13])
    with opened(down) as desk:
        assert shas(passes_of(desk)["draft"])[:2] == [down.sha(11), down.sha(12)]
        desk.change("mark", down.sha(11), "free")
        state = desk.change("mark", down.sha(13), "pin")
        text = state["orders"]["text"]
        shown = shas(passes_of(desk)["draft"])
        assert shown[:2] == [down.sha(12), down.sha(13)] and down.sha(11) not in shown[:2]
        assert [line.split(", ")[1].split(":")[0] for line in text.splitlines()] == [
            "unpin", "release", "pin"]
        for _ in range(2):
            desk.undo()
        assert shas(passes_of(desk)["draft"])[:2] == [down.sha(11), down.sha(12)]
    with Aboard(down) as aboard:
        aboard.follow(text)
        assert [sha256 for sha256, _ in aboard.ranking(policy.EMPTY)[:2]] == shown[:2]


def test_comments_of_the_policy_stay_and_only_what_changed_changes(down):
    down.policy.write_text("# of sol 343\nclusters:\n  0: {label: dunes}  # enough\nexplore: 0.7\n")
    with opened(down) as desk:
        desk.change("weight", "0", 0.5)
        desk.save()
    assert down.policy.read_text() == (
        "# of sol 343\nclusters:\n  0: {label: dunes, weight: 0.5} # enough\nexplore: 0.7\n")


def test_what_orders_cannot_say_is_told(down):
    down.policy.write_text("clusters: {0: {label: dunes}}\npins: [%s]\n" % repr(down.sha(5)[:12]))
    with opened(down) as desk:
        desk.change("label", "0", "")
        desk.change("label", "1", "default")
        state = desk.change("mark", down.sha(5), "free")
        assert state["unsaid"] == [
            "that cluster 0 has no label", "the label 'default' of cluster 1",
            "to unpin sol0000_0004.jpg, which the file aboard pins"]
        assert state["orders"]["text"] == ""
        desk.save()
    said = policy.load(str(down.policy))
    assert said.labels == {1: "default"} and said.pins == ()


def test_a_change_is_worked_out_once(desk, monkeypatch):
    made, write = [], policy_file.write
    monkeypatch.setattr(policy_file, "write", lambda *asked: made.append(1) or write(*asked))
    desk.change("weight", "1", 3)
    desk.state()
    assert len(made) == 1


# ---- what the rover goes by ----------------------------------------------------------------------


def test_now_is_the_policy_aboard_even_after_the_teams_file_was_saved(down):
    down.policy.write_text("clusters: {0: {weight: 2}}\n")
    with down.opened() as catalog:
        catalog.remember("amended_policy", sha256_of(str(down.policy)))
    with opened(down) as desk:
        desk.change("weight", "0", 7)
        desk.save()
    with opened(down) as desk:
        state = desk.state()
        assert (state["weightsNow"], state["weights"]) == ({"0": 2}, {"0": 7})
        assert any("still goes by the policy file kept as" in note for note in state["notes"])


def test_a_rover_that_goes_by_an_unknown_policy_is_told(down):
    with down.opened() as catalog:
        catalog.remember("amended_policy", "ab" * 32)
    with opened(down) as desk:
        note, = desk.state()["notes"]
        assert "another policy file, of SHA-256 abababababab" in note


def test_a_rover_without_a_policy_gets_all_that_the_file_says_by_orders(down):
    down.policy.write_text("clusters: {0: {weight: 2}}\nexplore: 0.9\n")
    with down.opened() as catalog:
        catalog.remember("amended_policy", "")
    with opened(down) as desk:
        state = desk.state()
        assert "weight: {0: 2}" in state["orders"]["text"] and state["stale"]
        assert state["unsaid"] == ["explore, which the file aboard has otherwise"]


def test_amendments_in_force_are_part_of_now_and_are_kept_in_the_file(down):
    with down.opened() as catalog:
        catalog.amend("label", "3", "sand")
    with opened(down) as desk:
        assert desk.state()["labelsNow"] == {"3": "sand"} and not desk.state()["orders"]["text"]
        desk.change("weight", "3", 2)
        desk.save()
    assert policy.load(str(down.policy)).labels == {3: "sand"}


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind, target, value, why", [
    ("weight", "6", 1, "there are 0 to 5"), ("weight", "-1", 1, "there are 0 to 5"),
    ("label", "\u0663", "x", "there are 0 to 5"), ("weight", "1", -1, "from 0 to 1000"),
    ("mark", "f" * 64, "pin", "no image has"), ("mark", "", "pin", "no image has"),
    ("explore", "0", 1, "nothing that can be changed")])
def test_a_change_that_means_nothing_is_refused_and_changes_nothing(desk, kind, target, value, why):
    before = desk.state()
    with pytest.raises(UserError, match=why):
        desk.change(kind, target, value)
    assert desk.state() == before


def test_an_image_on_the_ground_cannot_be_pinned(down):
    with down.opened() as catalog:
        catalog.begin_pass([7], [], 100, "test", consoled.AT)
    with opened(down) as desk:
        with pytest.raises(UserError, match="it is sent, and cannot be asked to pin"):
            desk.change("mark", down.sha(7), "pin")


def test_a_codebook_of_another_space_is_refused_by_name(down):
    with pytest.raises(UserError, match="net/layer@0123456789abcdef, but the codebook was made for "
                                        "other/x@1"):
        Desk(str(down.catalog), down.book._replace(space="other/x@1"), str(down.policy),
             str(down.orders))


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + bytes(2000)])
def test_what_is_no_catalog_is_refused_in_one_line(down, content):
    down.catalog.write_bytes(content)
    with pytest.raises(UserError, match="catalog .*catalog.sqlite: ") as refused:
        opened(down)
    assert "\n" not in str(refused.value)


def test_images_placed_by_another_codebook_are_placed_by_the_one_given(down):
    turned = down.book._replace(centroids=np.roll(down.book.centroids, 1, axis=0))
    with Desk(str(down.catalog), turned, str(down.policy), str(down.orders)) as desk:
        members = desk.members(1, "typical", 0, False)
        assert {image["sha256"] for image in members["images"]} == {
            down.sha(number) for number in range(1, 121, 6)}  # cluster 0 of the other
        assert "another codebook" in desk.state()["notes"][0]


def test_a_rover_that_has_no_codebook_is_told_from_one_that_has_another(down):
    with down.opened(consoled.SPACE) as catalog:
        placing = Placing(catalog, Head(catalog, 50))
        placing.use(None, policy.EMPTY)
        while placing.place_some():
            pass
    with opened(down) as desk:
        note, = desk.state()["notes"]
        assert "the rover has no codebook yet" in note and "another codebook" not in note


def test_a_bad_policy_is_refused_with_its_key(down):
    down.policy.write_text("clusters: {1: {wieght: 2}}\n")
    with pytest.raises(UserError, match="clusters.1.wieght"):
        opened(down)


def test_nothing_is_left_of_the_copies(down, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with opened(down):
        assert list(scratch.iterdir())
    assert list(scratch.iterdir()) == []
    down.policy.write_text("[")
    with pytest.raises(UserError):
        opened(down)
    assert list(scratch.iterdir()) == []


# ---- the command ---------------------------------------------------------------------------------


@pytest.mark.parametrize("more, words", [
    (["--orders-out", "order.csv"], "let the name end in .yaml"),
    (["--policy", "order.yaml"], "is the policy itself"),
    (["--orders-out", "linked.yaml"], "a copy that is kept of it"),
    (["--orders-out", "no/such/order.yaml"], "there is no folder no/such"),
    (["--policy", "no/such/x.yaml"], "there is no folder no/such"),
    (["--host", "a..b"], "is no name of a computer"),
    (["--host", "x" * 70], "is no name of a computer"),
    (["--port", "70000"], "must be 0 to 65535"), (["--catalog", "nowhere"], "no such file")])
def test_a_mistake_on_the_command_line_is_one_line(down, more, words, monkeypatch):
    monkeypatch.chdir(down.folder)
    (down.folder / "linked.yaml").symlink_to("policy.yaml.rover")
    ran = run_console(down, *more)
    assert ran.returncode == 2 and words in ran.stderr and "Traceback" not in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1


def test_a_port_that_is_taken_is_told(down):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = run_console(down, "--port", str(taken.getsockname()[1]))
    assert ran.returncode == 1 and "choose another --port" in ran.stderr


COMMAND = ("import argparse, sys\nfrom jetson_cluster.errors import JetsonClusterError\n"
           "from jetson_cluster.ground import console\nparser = argparse.ArgumentParser()\n"
           "console.add_arguments(parser)\n"
           "try:\n    sys.exit(console.run(parser.parse_args()))\n"
           "except JetsonClusterError as error:\n    print(error, file=sys.stderr)\n"
           "    sys.exit(error.exit_code)\n")


def run_console(down, *more):
    return subprocess.run(
        [sys.executable, "-c", COMMAND, "--catalog", str(down.catalog), "--codebook",
         str(down.codebook), "--policy", str(down.policy), "--no-browser", *more],
        capture_output=True, text=True, timeout=60)
