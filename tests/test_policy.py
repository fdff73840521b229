"""What the operations team may write, and what it is told when it may not."""

import numpy as np
import pytest

from jetson_cluster import policy
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
    lines = [line[1:] for line in text.splitlines() if line.startswith("#  ")]
    assert len(lines) >= 2
    loaded = policy.load(write("clusters:\n" + "\n".join(lines)))
    assert loaded.labels and loaded.weights
