"""The two files that the console writes: policy.yaml with its comments, and the smallest orders."""

import pathlib

import pytest

pytest.importorskip("flask", reason="no Flask here: pip install '.[ground]'")
pytest.importorskip("waitress", reason="no waitress here: pip install '.[ground]'")
pytest.importorskip("ruamel.yaml", reason="no ruamel.yaml here: pip install '.[ground]'")

from jetson_cluster import orders as flight
from jetson_cluster import policy as policies
from jetson_cluster.errors import UserError
from jetson_cluster.ground.console import orders, policy_file
from jetson_cluster.ground.console.draft import Draft, History
from jetson_cluster.ground.console.orders import Last, Wanted

SHA = "ab12cd34" * 8
HEX = set("0123456789abcdef")
EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "systemd" / "policy.yaml"
NOTHING = Last("", "", [], 0)


def written(folder, text, edits=(), **more):
    """(the new text, lost comments, the policy read from it)."""
    path = folder / "policy.yaml"
    path.write_bytes(text.encode())
    source = policy_file.read(str(path))
    wanted = policy_file.over(source.policy, dict(edits))._replace(**more)
    made = policy_file.write(source, wanted, str(folder / "scratch.yaml"))
    path.write_bytes(made.text.encode())
    assert policy_file.meaning(policies.load(str(path))) == policy_file.meaning(wanted)
    return made


# ---- policy.yaml ---------------------------------------------------------------------------------


def test_every_comment_of_the_example_policy_is_kept_and_nothing_else_changes(tmp_path):
    before = EXAMPLE.read_text()
    made = written(tmp_path, before, {("weight", "7"): 3.0, ("label", "7"): "layered rock",
                                      ("more_like", SHA): 2.0}, pins=(SHA[:12],))
    assert made.lost_comments == []
    assert policy_file.comments(before) == policy_file.comments(made.text)
    removed = [line for sign, line in orders.difference(before, made.text) if sign == "-"]
    assert removed == ["clusters: {}", "targets: []", "pins: []"]


def test_a_file_with_its_own_indents_and_quotes_keeps_them(tmp_path):
    made = written(tmp_path, "clusters:\n    3: {label: 'the \"vein\"', weight: 2.0}\n"
                             "    4:\n        weight: 1.50   # half again\npins:\n"
                             "    - \"abcdef\" # x\n",
                   {("weight", "5"): 0.25})
    assert made.text == ("clusters:\n    3: {label: 'the \"vein\"', weight: 2.0}\n"
                         "    4:\n        weight: 1.50   # half again\n    5: {weight: 0.25}\n"
                         "pins:\n    - \"abcdef\" # x\n")


@pytest.mark.parametrize("label", ["yes", "3", "null", "a: b # c", "- x", "{", "'", '"', "\\", "~",
                                   "1e3", "2026-01-02", "\u00fcber \u706b", "\U0001f600", "#",
                                   "*a"])
def test_any_label_is_read_again_as_it_was_typed(tmp_path, label):
    made = written(tmp_path, "explore: 0.5 # dial\n", {("label", "2"): label})
    assert made.policy.labels == {2: label} and made.lost_comments == []


def test_what_cannot_be_edited_in_place_is_written_plainly_and_the_lost_comments_are_told(tmp_path):
    made = written(tmp_path, "clusters: # of sol 3\n  1: &one {weight: 2}\n  2: *one\n",
                   {("weight", "1"): 3.0})
    assert made.policy.weights == {1: 3.0, 2: 2.0}
    assert made.lost_comments == ["# of sol 3"]


def test_a_comment_that_goes_with_what_is_taken_away_is_told(tmp_path):
    made = written(tmp_path, "explore: 0.6\npins: [abcdef] # the arch\n", {}, pins=())
    assert made.policy.pins == () and made.lost_comments in ([], ["# the arch"])
    assert ("# the arch" in made.text) == (made.lost_comments == [])


def test_a_file_of_nothing_but_comments_keeps_them(tmp_path):
    made = written(tmp_path, "# ours\n", {("label", "0"): "dunes"})
    assert made.text.startswith("# ours\n") and made.lost_comments == []


def test_a_label_a_target_and_a_pin_are_taken_away_again(tmp_path):
    made = written(tmp_path, "clusters: {2: {label: sand, weight: 3}, 4: {label: x}}\n"
                             "targets: [{name: vein, like: ab12cd34, weight: 2}]\n"
                             "holds: ['ABCDEF']\n",
                   {("label", "2"): "", ("label", "4"): "", ("more_like", SHA): 0.0}, holds=())
    assert made.policy == policies.EMPTY._replace(weights={2: 3.0})


def test_a_target_keeps_its_name_when_its_weight_changes(tmp_path):
    made = written(tmp_path, "targets: [{name: vein, like: ab12cd34, weight: 2}]\n",
                   {("more_like", SHA): 5.0})
    assert [(one.name, one.like, one.weight) for one in made.policy.targets] == [
        ("vein", "ab12cd34", 5.0)]


def test_pins_are_written_in_the_order_that_is_wanted(tmp_path):
    made = written(tmp_path, "pins: [aaaaaa, bbbbbb]\n", pins=("cccccc", "bbbbbb", "aaaaaa"))
    assert made.policy.pins == ("cccccc", "bbbbbb", "aaaaaa")


def test_an_edited_policy_says_what_the_flight_codes_amendments_make_of_it(tmp_path):
    (tmp_path / "p.yaml").write_text("clusters: {1: {label: a, weight: 2}}\n"
                                     "targets: [{like: ab12cd, weight: 1}, {like: '99999999'}]\n")
    said = policies.load(str(tmp_path / "p.yaml"))
    edits = {("weight", "1"): 4.0, ("label", "3"): "b", ("more_like", SHA): 3.0}
    ours, theirs = policy_file.over(said, edits), said.amended(edits)
    assert (ours.labels, ours.weights) == (theirs.labels, theirs.weights)
    assert ({(one.like[:6], one.weight) for one in ours.targets}
            == {(one.like[:6], one.weight) for one in theirs.targets})


def test_of_two_targets_that_begin_alike_each_keeps_its_place(tmp_path):
    made = written(tmp_path, "targets:  # ours\n- {name: one, like: ab12cd34, weight: 2}\n"
                             "- {name: two, like: ab12cd34, weight: 3} # 2\n",
                   {("more_like", "f" * 64): 5.0})
    assert [(one.name, one.weight) for one in made.policy.targets] == [
        ("one", 2.0), ("two", 3.0), ("f" * 12, 5.0)]
    assert made.lost_comments == []


def test_of_two_targets_that_begin_alike_one_stays_when_the_wish_changes(tmp_path):
    made = written(tmp_path, "targets:\n- {name: one, like: ab12cd34, weight: 2}\n"
                             "- {name: two, like: ab12cd34, weight: 3}\n",
                   {("more_like", SHA): 5.0})
    assert [(one.name, one.weight) for one in made.policy.targets] == [("one", 5.0)]


FILE = """\
# top
clusters:
  # of sol 3
  2:
    label: sand   # nice
    # about the weight
    weight: 3
    # about four
  4:
    # first
    weight: 2
    label: rock
    # about five
  5:
    label: only
    # about holds
pins:
  - abcdef  # the arch
  # about the next
  - abcde0
  # at the end of pins
holds: [aaaaaa]
targets:
  - like: ab12cd34
    weight: 2
    # after the target
  - like: bb12cd34
# the end
explore: 0.6
# the very end
"""


@pytest.mark.parametrize("edits, more, lost", [
    ({("label", "2"): ""}, {}, ["# nice"]), ({("label", "4"): ""}, {}, []),
    ({("label", "5"): ""}, {}, []), ({("label", "5"): "", ("weight", "5"): 2.0}, {}, []),
    ({("label", "2"): "", ("weight", "2"): 1.0}, {}, ["# nice"]),
    ({("label", "4"): "", ("label", "5"): ""}, {}, []),
    ({("more_like", SHA): 0.0}, {}, []), ({("more_like", "b" + SHA[1:]): 0.0}, {}, []),
    ({}, {"pins": ("abcde0",)}, ["# the arch"]), ({}, {"pins": ("abcdef",)}, [])])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_comments_below_what_is_taken_away_stay_in_their_order(tmp_path, edits, more, lost, ends):
    made = written(tmp_path, FILE.replace("\n", ends), edits, **more)
    assert made.lost_comments == lost
    assert policy_file.comments(made.text) == [
        comment for comment in policy_file.comments(FILE) if comment not in lost]
    assert made.text.count("\n") == made.text.count(ends)


def test_a_file_with_the_line_ends_of_another_system_keeps_them(tmp_path):
    made = written(tmp_path, "# ours\r\nclusters:\r\n  1: {weight: 2} # two\r\nexplore: 0.5\r\n",
                   {("weight", "1"): 3.0, ("label", "2"): "x"})
    assert made.text == ("# ours\r\nclusters:\r\n  1: {weight: 3} # two\r\n  2: {label: \"x\"}\r\n"
                         "explore: 0.5\r\n")


# ---- order.yaml ----------------------------------------------------------------------------------


def composed(amendments=(), last=NOTHING, stamp="t0", **marks):
    return orders.compose(Wanted(dict(amendments), marks), last, stamp, lambda sha256: sha256[:8],
                          lambda target: (target + "0" * 64)[:64] if set(target) <= HEX else "",
                          "order.yaml")


def test_orders_are_few_and_short_and_the_rover_reads_what_was_meant():
    made = composed({("weight", "7"): 3.0, ("weight", "12"): 0.5, ("label", "7"): "layered rock",
                     ("more_like", SHA): 1.0}, pin=[SHA, "f" * 64])
    assert made.text == ("- {id: t00, weight: {7: 3, 12: 0.5}}\n"
                         "- {id: t01, label: {7: layered rock}}\n"
                         "- {id: t02, more_like: {ab12cd34: 1}}\n- {id: t03, pin: [ab12cd34, "
                         "ffffffff]}\n")
    assert [(one.name, one.targets, one.value) for one in flight.parse(
        made.text.encode(), "order.yaml").actions] == [
            ("weight", ("7", "12"), (3.0, 0.5)), ("label", ("7",), ("layered rock",)),
            ("more_like", ("ab12cd34",), (1.0,)), ("pin", ("ab12cd34", "ffffffff"), None)]
    assert made.bytes == len(made.text)


@pytest.mark.parametrize("label", ["a, b", "x: y", "}", "'", '"', "# no", "[", "3", "yes", "*a",
                                   "&b", "\u706b", "a\\nb", "-", "!x", "%", "@", "`", "default "])
def test_a_label_of_yamls_own_signs_reaches_the_rover_as_it_is(label):
    action, = composed({("label", "3"): label}).actions
    assert action.value == (label,)


def test_an_order_that_stays_the_same_keeps_its_id_and_a_changed_one_gets_a_new_one():
    first = composed({("weight", "1"): 2.0, ("label", "1"): "dunes"}, stamp="aa")
    last = orders.read_last(first.text, "", "order.yaml", lambda order_id: False)
    second = composed({("weight", "1"): 3.0, ("label", "1"): "dunes"}, last, stamp="bb")
    assert second.text == "- {id: bb0, weight: {1: 3}}\n- {id: aa1, label: {1: dunes}}\n"


def test_an_order_that_was_carried_out_is_not_pending_and_its_id_is_not_used_again():
    first = composed({("weight", "1"): 2.0}, stamp="aa")
    last = orders.read_last(first.text, "", "order.yaml", {"aa0"}.__contains__)
    assert last.pending == [] and last.text == first.text
    again = composed({("weight", "1"): 2.0}, last, stamp="bb")
    assert again.text == "- {id: bb0, weight: {1: 2}}\n"


def test_new_ids_are_never_those_that_the_catalog_or_the_last_file_has():
    taken = {"rs2"}
    stamp = orders.stamp_of(1000, taken.__contains__, set())
    assert orders.stamp_of(1000, lambda order_id: False, set()) == "rs"
    assert stamp == "rt"
    assert orders.stamp_of(1000, lambda order_id: False, {"rs0"}) == "rt"


def test_a_last_file_that_is_damaged_is_refused_with_its_line():
    with pytest.raises(UserError, match="order.yaml: line 2: .*mend the file"):
        orders.read_last("- {id: a, pin: abcdef12}\n- {id: b}\n", "", "order.yaml", lambda _: False)


# ---- the draft -----------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [-1, 1001, float("nan"), float("inf"), None, "3", True, [1]])
def test_a_weight_that_the_policy_could_not_have_is_refused(weight):
    with pytest.raises(UserError, match="from 0 to 1000"):
        Draft().weighed(1, weight)


@pytest.mark.parametrize("label", ["x" * 81, "a\nb", "\x1b[31m", "\u202etxt", "\ud800", None, 3])
def test_a_label_that_the_policy_could_not_have_is_refused(label):
    with pytest.raises(UserError, match="at most 80 printable"):
        Draft().labelled(1, label)


def test_undo_and_redo_go_through_the_drafts_and_a_new_change_ends_redoing():
    history, drafts = History(Draft()), [Draft()]
    for weight in (1.5, 2.5, 3.5):
        drafts.append(drafts[-1].weighed(4, weight))
        history.take(drafts[-1])
    versions = {history.version}
    for expected in (drafts[2], drafts[1]):
        history.undo()
        assert history.draft == expected and history.version not in versions
        versions.add(history.version)
    history.redo()
    assert history.draft == drafts[2] and history.can_redo
    history.take(drafts[2].labelled(4, "x"))
    assert not history.can_redo and history.can_undo


def test_undoing_nothing_changes_nothing():
    history = History(Draft())
    history.undo()
    history.redo()
    assert history.version == 0 and not history.can_undo and not history.can_redo
