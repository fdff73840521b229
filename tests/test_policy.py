"""What the operations team may write, and what it is told when it may not."""

import base64
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetson_cluster import policy, quality
from jetson_cluster.errors import UserError


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "policy.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
        return str(path)
    return write


def refusal(path):
    with pytest.raises(UserError) as caught:
        policy.load(path)
    message = str(caught.value)
    assert message.startswith("policy %s: " % path) and "\n" not in message
    return message


def test_labels_and_weights_are_taken_by_cluster(write):
    loaded = policy.load(write(
        "clusters:\n  0: {label: Dünen, weight: 0.5}\n  7: {label: layered rock}\n"
        "  9: {weight: 3}\n"))
    assert loaded.labels == {0: "Dünen", 7: "layered rock"}
    assert loaded.weights == {0: 0.5, 9: 3.0}
    weights = loaded.weights_of(10)
    assert weights.dtype == np.float64
    assert weights.tolist() == [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 3]
    assert policy.EMPTY.weights_of(3).tolist() == [1, 1, 1]


def test_a_policy_may_speak_of_clusters_that_this_codebook_does_not_have(write):
    loaded = policy.load(write("clusters: {3: {label: a}, 12: {weight: 2}, 40: {label: b}}"))
    assert loaded.weights_of(4).tolist() == [1, 1, 1, 1]
    assert loaded.unknown_clusters(12) == [12, 40] and loaded.unknown_clusters(41) == []


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "clusters:\n", "clusters: {}", "{}"])
def test_a_policy_that_says_nothing_is_an_empty_one(write, text):
    assert policy.load(write(text)) == policy.EMPTY


def test_a_policy_that_is_not_there_is_an_empty_one(tmp_path):
    assert policy.load(str(tmp_path / "absent.yaml")) == policy.EMPTY
    assert policy.load(str(tmp_path / "absent" / "policy.yaml")) == policy.EMPTY


def test_a_folder_is_no_policy(tmp_path):
    assert "cannot be read" in refusal(str(tmp_path))


def test_every_mistake_is_told_at_once(write):
    message = refusal(write(
        "clusters:\n  0: {lable: dunes}\n  1: {weight: -1}\n  2: {weight: .nan}\n"
        "  3: {weight: 1000.5}\n  4: {weight: '2'}\n  5: {label: 6}\n  six: {label: x}\n"
        "  -7: {label: x}\n  8: dunes\n  9: {label: \"a\\nb\"}\n  10: {weight: yes}\n"
        "  11: {label: %s}\nweights: {}\n" % ("x" * 81)))
    for part in ("13 mistakes", "unknown key 'clusters.0.lable'; did you mean 'label'?",
                 "'clusters.1.weight'", "'clusters.2.weight'", "'clusters.3.weight'",
                 "'clusters.4.weight'", "'clusters.5.label'", "'clusters.six'", "'clusters.-7'",
                 "'clusters.8'", "'clusters.9.label'", "'clusters.10.weight'",
                 "'clusters.11.label'", "unknown key 'weights'"):
        assert part in message, part


@pytest.mark.parametrize("text", [
    "clusters: [1, 2]", "- 1", "clusters: 5", "[", "\x00", b"\xff\xfe\xff", "just words",
    "clusters: {0: {label: 2024-13-45}}", "clusters: !!python/object:os.system {}",
    "clusters: {true: {label: x}}", "clusters: {1.5: {label: x}}", "clusters: " + "[" * 1000,
    "clusters: {0: {weight: 1%s}}" % ("0" * 400), "clusters: {0: {label: \"\\ud800\"}}",
    "clusters: &a {0: {label: *a}}", "clusters: !!timestamp x"],
    ids=lambda text: repr(text)[:32])
def test_a_file_that_is_no_policy_is_refused_in_one_line(write, text):
    refusal(write(text))


def test_a_cluster_named_twice_is_a_mistake_not_a_choice(write):
    twice = write("clusters:\n  3: {weight: 2}\n  3: {weight: 5}\n")
    assert "'3' stands there twice" in refusal(twice)


def test_a_cluster_named_in_two_ways_is_named_twice(write):
    message = refusal(write("clusters:\n  1: {weight: 2}\n  0x1: {weight: 5}\n"))
    assert "the key '0x1' stands there twice, first as '1'" in message


def test_the_example_policy_loads_and_changes_nothing(root):
    assert policy.load(str(root / "systemd" / "policy.yaml")) == policy.EMPTY


def test_the_lines_left_out_of_the_example_are_right(root, write):
    """What stands in its comments is what an operator will uncomment."""
    text = (root / "systemd" / "policy.yaml").read_text(encoding="utf-8")
    for empty in (" {}", " []"):
        text = text.replace(empty + "\n#  ", "\n#  ")
    loaded = policy.load(write(re.sub("(?m)^#  ", "  ", text)))
    assert loaded.labels and loaded.weights and loaded.targets


# ---- everything else it may say ------------------------------------------------------------------

def encoded(kind, numbers):
    """An embedding as a policy has it."""
    dtype = {"int8": "i1", "float16": "<f2"}[kind]
    return "%s:%s" % (kind, base64.b64encode(np.array(numbers, dtype).tobytes()).decode("ascii"))


def test_every_key_is_taken(write):
    loaded = policy.load(write(
        "explore: 0.25\nsignature: 2\n"
        "targets:\n"
        "  - {name: veins, like: \"A1B2C3\", weight: 0.5}\n"
        "  - {like: \"0123456789ab\"}\n"
        "  - {embedding: \"%s\", weight: 3}\n"
        "diversity: {discount: 0.5, half_life_passes: 2, near_duplicate: 0.1}\n"
        "ageing: {after_passes: 3, one_place_in: 0}\n"
        "quality: {bright_fine: 0.2, bright_useless: 0.5, least: 0.2}\n"
        "previews: first\npass_by: score_per_byte\n"
        "pins: [\"a1b2c3d4\"]\nholds: [\"abcdef\", \"ABCDEF01\"]\n" % encoded("int8", [1, -2, 127])))
    assert (loaded.explore, loaded.signature) == (0.25, 2)
    assert [target[:2] + target[3:] for target in loaded.targets] == [
        ("veins", "a1b2c3", 0.5), ("0123456789ab", "0123456789ab", 1), ("target 3", "", 3)]
    assert loaded.targets[0].embedding is None
    assert loaded.targets[2].embedding.tolist() == [1, -2, 127]
    assert loaded.diversity == policy.Diversity(0.5, 2, 0.1)
    assert loaded.ageing == policy.Ageing(3, 0)
    assert loaded.quality == quality.Thresholds(
        bright_fine=0.2, bright_useless=0.5, least=0.2)
    assert (loaded.previews, loaded.pass_by) == ("first", "score_per_byte")
    assert (loaded.pins, loaded.holds) == (("a1b2c3d4",), ("abcdef", "abcdef01"))


def test_what_is_left_out_is_as_the_documentation_has_it(write):
    loaded = policy.load(write("diversity: {discount: 0.4}\nageing: {after_passes: 5}\nquality:\n"
                               "explore:\ntargets:\npins:\n"))
    assert loaded == policy.EMPTY._replace(
        diversity=policy.Diversity(discount=0.4), ageing=policy.Ageing(after_passes=5))
    assert policy.EMPTY == policy.Policy({}, {}, 0.6, 1.0, (), policy.Diversity(0.5, 5.0, 0.25),
                                         policy.Ageing(10, 20), quality.Thresholds(),
                                         "none", "score", (), ())


RANGES = [
    ("explore: %s", "'explore'", (0, 1), (-0.01, 1.01)),
    ("signature: %s", "'signature'", (0, 1000), (-1, 1001)),
    ("targets: [{like: \"abcdef\", weight: %s}]", "'targets[0].weight'", (0, 1000), (-1, 1000.5)),
    ("diversity: {discount: %s}", "'diversity.discount'", (0.01, 1), (0, 1.1)),
    ("diversity: {half_life_passes: %s}", "'diversity.half_life_passes'", (0.1, 1000), (0, 1001)),
    ("diversity: {near_duplicate: %s}", "'diversity.near_duplicate'", (0.01, 1), (0, 1.1)),
    ("ageing: {after_passes: %s}", "'ageing.after_passes'", (1, 10000), (0, 2.5)),
    ("ageing: {one_place_in: %s}", "'ageing.one_place_in'", (0, 2, 10000), (-1, 1.5)),
    ("quality: {least: %s}", "'quality.least'", (0.001, 1), (0, 1.1)),
    ("quality: {dark_fine: 0, dark_useless: %s}", "'quality.dark_useless'", (0, 1), (-0.1, 1.1)),
]


@pytest.mark.parametrize("text, named, fine, wrong", RANGES, ids=[held[1] for held in RANGES])
def test_a_number_has_its_range_and_both_ends_belong_to_it(write, text, named, fine, wrong):
    for value in fine:
        policy.load(write(text % value))
    for value in wrong + (".nan", ".inf", "'0.5'", "yes", "[1]"):
        assert named in refusal(write(text % value)), value


def test_an_ageing_that_leaves_no_place_to_any_but_the_oldest_is_a_mistake(write):
    assert "leaves no place to any but the oldest" in refusal(write("ageing: {one_place_in: 1}"))


@pytest.mark.parametrize("name", quality.Measures._fields)
def test_what_is_useless_must_be_worse_than_what_is_fine(write, name):
    low, high = "%s_fine" % name, "%s_useless" % name
    if name in ("contrast", "sharpness"):
        low, high = high, low
    policy.load(write("quality: {%s: 0.2, %s: 0.3}" % (low, high)))
    policy.load(write("quality: {%s: 0.2, %s: 0.2}" % (low, high)))
    message = refusal(write("quality: {%s: 0.3, %s: 0.2}" % (low, high)))
    assert "'quality'" in message and "%s_fine" % name in message


def test_all_mistakes_are_told_at_once(write):
    message = refusal(write(
        "explore: 2\nsignature: much\ntargets: [{name: x}, {like: abc}, 5]\n"
        "diversity: {discont: 1}\nageing: {after_passes: 0, one_place_in: 1}\n"
        "quality: {dark_fine: 2}\npreviews: yes\npass_by: bytes\npins: [12]\nholds: \"abcdef\"\n"
        "clusters: {0: {weight: -1}}\nprevews: first\n"))
    for part in ("15 mistakes", "'explore'", "'signature'", "'targets[0]' must have either",
                 "'targets[1].like'", "'targets[2]'", "'diversity.discont'; did you mean 'discount'",
                 "'ageing.after_passes'", "'ageing.one_place_in'", "'quality.dark_fine'",
                 "'previews'", "'pass_by' must be one of score, score_per_byte", "'pins[0]'",
                 "'holds' must be a list", "'clusters.0.weight'",
                 "unknown key 'prevews'; did you mean 'previews'"):
        assert part in message, part


@pytest.mark.parametrize("written", ["123456", "0123456", "1.234567e+8", "abcde", "\"abcde\"",
                                     "\"ghijkl\"", "\"%s\"" % ("a" * 65), "null", "[]", "\"\""])
def test_the_beginning_of_a_sha256_must_be_text_of_hex_digits(write, written):
    """YAML takes 123456 for a number, and 0123456 for another one."""
    for text, where in (("pins: [%s]", "'pins[0]'"), ("holds: [%s]", "'holds[0]'")):
        message = refusal(write(text % written))
        assert where in message and "in quotes" in message
    assert "'targets[0]" in refusal(write("targets: [{like: %s}]" % written))


def test_quoted_digits_are_a_beginning_of_a_sha256(write):
    loaded = policy.load(write("pins: [\"123456\", abcdef]\nholds: [\"%s\"]\n" % ("0" * 64)))
    assert loaded.pins == ("123456", "abcdef") and loaded.holds == ("0" * 64,)


@settings(deadline=None, max_examples=50, database=None)
@given(st.sampled_from(["int8", "float16"]),
       st.lists(st.integers(-128, 127), min_size=1, max_size=40).filter(any))
def test_an_embedding_reads_back_as_it_was_encoded(tmp_path_factory, kind, numbers):
    path = tmp_path_factory.mktemp("policy") / "policy.yaml"
    path.write_text("targets: [{embedding: \"%s\"}]\n" % encoded(kind, numbers))
    embedding = policy.load(str(path)).targets[0].embedding
    assert embedding.dtype == np.float32 and embedding.tolist() == numbers


def test_an_embedding_may_be_folded_over_lines(write):
    coded = encoded("float16", range(1, 200))
    lines = "\n".join("      " + coded[start:start + 70] for start in range(0, len(coded), 70))
    loaded = policy.load(write("targets:\n  - embedding: >\n%s\n" % lines))
    assert loaded.targets[0].embedding.tolist() == list(range(1, 200))


@pytest.mark.parametrize("coded", [
    "float32:AAAA", "int8", "int8:", "int8:!!!!", "AQID", "float16:AQID", "5", "int8:AAAA",
    encoded("float16", [0, 0]), encoded("float16", [np.nan, 1]), encoded("float16", [np.inf, 1]),
    "int8:\u00e9", "[1, 2]"])
def test_an_embedding_that_is_none_is_refused(write, coded):
    message = refusal(write("targets: [{embedding: \"%s\"}]" % coded))
    assert "'targets[0].embedding' must be 'int8:' or 'float16:'" in message


def test_a_target_is_either_like_an_image_or_an_embedding(write):
    both = "targets: [{like: \"abcdef\", embedding: \"%s\"}]" % encoded("int8", [1])
    for text in (both, "targets: [{name: x}]", "targets: [{}]"):
        assert "must have either 'like'" in refusal(write(text))


@pytest.mark.parametrize("name", ["\"a\\nb\"", "\"\\e[31m\"", "x" * 81, "7"])
def test_the_name_of_a_target_is_one_line_of_text(write, name):
    assert "'targets[0].name'" in refusal(write("targets: [{name: %s, like: \"abcdef\"}]" % name))


# ---- what orders amend ---------------------------------------------------------------------------

BASE = policy.Policy(
    {1: "sand", 7: "rock"}, {1: 0.5, 9: 2.0},
    targets=(policy.Target("veins", "abcdef01", None, 1.0),
             policy.Target("by numbers", "", np.ones(3, np.float32), 2.0)))


def test_without_amendments_a_policy_stays_what_it_is():
    assert repr(BASE.amended({})) == repr(BASE) and policy.EMPTY.amended({}) == policy.EMPTY


def test_weights_and_labels_are_changed_cluster_by_cluster():
    amended = BASE.amended({("weight", "1"): 3.0, ("weight", "4"): 0, ("label", "7"): "layered",
                            ("label", "12"): "dune"})
    assert amended.weights == {1: 3.0, 4: 0.0, 9: 2.0}
    assert amended.labels == {1: "sand", 7: "layered", 12: "dune"}
    assert BASE.weights == {1: 0.5, 9: 2.0} and BASE.labels == {1: "sand", 7: "rock"}
    assert amended.targets == BASE.targets


def test_more_like_adds_a_target_and_changes_one_that_is_there():
    amended = BASE.amended({("more_like", "0a1b2c3d"): 0.5, ("more_like", "abcdef01"): 4.0})
    assert {target.like: target.weight for target in amended.targets if target.like} == {
        "0a1b2c3d": 0.5, "abcdef01": 4.0}
    assert len(amended.targets) == 3
    whole = BASE.amended({("more_like", "0a1b2c3d" * 8): 1.0}).targets[-1]
    assert (whole.name, whole.like) == ("0a1b2c3d0a1b", "0a1b2c3d" * 8)


@pytest.mark.parametrize("like, key", [("abcdef01", "abcdef01" * 8), ("abcdef01" * 8, "abcdef01")])
def test_more_like_replaces_what_is_said_of_the_same_image_in_more_or_fewer_digits(like, key):
    base = policy.EMPTY._replace(targets=(policy.Target("veins", like, None, 5.0),))
    assert base.amended({("more_like", key): 0.5}).targets == (
        policy.Target(key[:12], key, None, 0.5),)


def test_targets_of_one_name_or_like_one_image_all_stay():
    vector = np.ones(3, np.float32)
    targets = (policy.Target("dune", "", vector, 1.0), policy.Target("dune", "", -vector, 2.0),
               policy.Target("a", "abcdef01", None, 1.0), policy.Target("b", "abcdef01", None, 2.0))
    base = policy.EMPTY._replace(targets=targets)
    assert base.amended({("weight", "1"): 2.0}).targets == targets


def test_more_like_of_weight_0_removes_a_target():
    amended = BASE.amended({("more_like", "abcdef01"): 0, ("more_like", "ffffff"): 0.0})
    assert [target.name for target in amended.targets] == ["by numbers"]


AMENDMENTS = st.dictionaries(
    st.one_of(
        st.tuples(st.just("weight"), st.integers(0, 12).map(str)),
        st.tuples(st.just("label"), st.integers(0, 12).map(str)),
        st.tuples(st.just("more_like"), st.sampled_from(["abcdef01", "0a1b2c3d", "ffffff"]))),
    st.floats(0, 1000), max_size=8)


@settings(deadline=None, database=None)
@given(AMENDMENTS)
def test_the_same_amendments_twice_are_as_once(amendments):
    once = BASE.amended(amendments)
    assert repr(once.amended(amendments)) == repr(once)
    assert once._replace(labels={}, weights={}, targets=()) == BASE._replace(
        labels={}, weights={}, targets=())
    for (kind, key), value in amendments.items():
        if kind == "weight":
            assert once.weights[int(key)] == value
        elif kind == "label":
            assert once.labels[int(key)] == str(value)
        else:
            assert [target.weight for target in once.targets if target.like == key] == (
                [value] if value else [])
