"""A file the ground may replace at any time: what holds when it is bad, gone, torn or put back."""

import hashlib
import logging
import os

import pytest

from jetson_cluster import policy
from jetson_cluster.errors import UserError
from jetson_cluster.uplinked import ABSENT_S, Uplinked, in_force

GOOD, BETTER = "clusters: {1: {weight: 2}}\n", "clusters: {1: {weight: 3}}\n"
BAD = "clusters: {1: {weight: heavy}}\n"


class Ground:
    """The file on the rover, and the daemon's starts over it."""

    def __init__(self, folder):
        self.path = folder / "policy.yaml"
        self.kept = folder / "state" / "last-good" / "policy.yaml"
        self.writes, self.now_s = 0, 1000.0

    def put(self, text):
        """Replace the file by a rename, as it should be done."""
        beside = self.path.with_suffix(".new")
        beside.write_text(text)
        os.rename(str(beside), str(self.path))

    def rewrite(self, text):
        """Write into the file itself; its time is set, since two writes may fall into one tick."""
        self.path.write_text(text)
        self.writes += 1
        os.utime(str(self.path), (self.writes, self.writes))

    def start(self, read=policy.load):
        uplinked = Uplinked("policy", str(self.path), str(self.kept), read, lambda: self.now_s)
        uplinked.start()
        return uplinked


@pytest.fixture
def ground(tmp_path):
    return Ground(tmp_path)


def weight(uplinked):
    return uplinked.value.weights[1]


def test_a_bad_first_version_stops_the_start(ground):
    ground.put(BAD)
    with pytest.raises(UserError, match="policy.yaml: 'clusters.1.weight' must be a number"):
        ground.start()


def test_a_file_that_never_was_there_is_no_mistake(ground):
    uplinked = ground.start()
    assert uplinked.value is None and uplinked.error == "" and not uplinked.poll()
    ground.put(GOOD)
    assert uplinked.poll() and weight(uplinked) == 2 and not uplinked.poll()


def test_a_bad_later_version_leaves_the_last_good_one_and_is_told_once(ground, caplog):
    ground.put(GOOD)
    uplinked = ground.start()
    ground.put(BAD)
    with caplog.at_level(logging.INFO):
        assert [uplinked.poll() for _ in range(5)] == [False] * 5
    assert weight(uplinked) == 2
    assert uplinked.error.startswith("policy %s: " % ground.path) and "\n" not in uplinked.error
    assert [record.getMessage() for record in caplog.records] == [
        "PolicyRefused: " + uplinked.error]
    ground.put(BETTER)
    assert uplinked.poll() and weight(uplinked) == 3 and uplinked.error == ""


def test_a_restart_over_a_bad_version_goes_on_with_the_last_good_one(ground, caplog):
    ground.put(GOOD)
    uplinked = ground.start()
    ground.rewrite(BETTER)
    assert uplinked.poll()
    ground.put(BAD)
    for _ in range(2):
        again = ground.start()
        assert weight(again) == 3 and "weight" in again.error
        assert "going on with the last good one" in caplog.text
        assert not again.poll() and again.error
    ground.put(GOOD)
    assert again.poll() and weight(again) == 2 and again.error == ""


def test_a_bad_version_and_a_bad_copy_blame_the_file_not_the_copy(ground):
    ground.put(BAD)
    ground.kept.parent.mkdir(parents=True)
    ground.kept.write_text("[")
    with pytest.raises(UserError) as caught:
        ground.start()
    assert str(ground.path) in str(caught.value) and "last-good" not in str(caught.value)


def test_a_version_written_into_the_file_itself_is_seen(ground):
    ground.rewrite(GOOD)
    uplinked = ground.start()
    ground.rewrite(BETTER)  # as long as the one before
    assert len(GOOD) == len(BETTER) and uplinked.poll() and weight(uplinked) == 3


def test_a_version_torn_by_its_writer_is_refused_until_it_is_whole(ground):
    ground.rewrite(GOOD)
    uplinked = ground.start()
    ground.rewrite(BETTER[:-3])
    assert not uplinked.poll() and weight(uplinked) == 2 and "not valid YAML" in uplinked.error
    ground.rewrite(BETTER)
    assert uplinked.poll() and weight(uplinked) == 3 and uplinked.error == ""


def test_a_file_that_was_touched_but_not_changed_gives_the_same_value(ground):
    ground.put(GOOD)
    uplinked = ground.start()
    before = uplinked.value
    ground.rewrite(GOOD)
    uplinked.poll()
    assert uplinked.value == before and uplinked.error == ""


def test_a_file_that_goes_leaves_its_last_word_until_another_is_put_there(ground):
    ground.put(GOOD)
    uplinked = ground.start()
    ground.path.unlink()
    assert not uplinked.poll() and weight(uplinked) == 2 and uplinked.error == ""
    ground.put(BETTER)
    assert uplinked.poll() and weight(uplinked) == 3


def test_a_file_that_is_gone_for_a_minute_is_told_once(ground, caplog):
    ground.put(GOOD)
    uplinked = ground.start()
    ground.path.unlink()
    for seconds in (0, ABSENT_S - 1):
        ground.now_s += seconds
        assert not uplinked.poll() and uplinked.error == "" and not caplog.records
    for _ in range(3):
        ground.now_s += 1
        assert not uplinked.poll()
    words = "PolicyAbsent: %s: it is not there; going on with the last good one; put it back" % (
        ground.path)
    assert uplinked.error == words and weight(uplinked) == 2
    assert [record.getMessage() for record in caplog.records] == [words]
    ground.put(GOOD)
    assert uplinked.poll() and uplinked.error == ""
    ground.path.unlink()
    uplinked.poll()
    assert uplinked.error == ""


def test_a_file_that_is_gone_at_a_start_is_told_once_and_where_the_good_one_lies(ground, caplog):
    ground.put(GOOD)
    ground.start()
    ground.path.unlink()
    uplinked = ground.start()
    ground.now_s += 2 * ABSENT_S
    assert not uplinked.poll() and uplinked.error.startswith("PolicyAbsent: %s: " % ground.path)
    assert uplinked.error.endswith("%s; remove that as well to do without" % ground.kept)
    assert len(caplog.records) == 1


def test_a_file_that_never_was_there_is_not_missed(ground, caplog):
    uplinked = ground.start()
    ground.now_s += 2 * ABSENT_S
    assert not uplinked.poll() and uplinked.error == "" and not caplog.records


def test_a_bad_file_that_goes_is_an_error_no_more(ground):
    ground.put(GOOD)
    uplinked = ground.start()
    ground.put(BAD)
    uplinked.poll()
    ground.path.unlink()
    assert not uplinked.poll() and uplinked.error == "" and weight(uplinked) == 2
    ground.put(BAD)
    assert not uplinked.poll() and uplinked.error and weight(uplinked) == 2


def test_a_file_that_cannot_be_reached_is_an_error_not_an_absence(ground):
    ground.put(GOOD)
    uplinked = ground.start()
    ground.path.unlink()
    os.symlink(ground.path.name, str(ground.path))  # a loop
    assert not uplinked.poll()
    assert "cannot be read" in uplinked.error and weight(uplinked) == 2


def test_what_was_not_read_is_never_kept_as_good(ground):
    """The file is replaced between its reading and its copying."""
    ground.put(GOOD)
    ground.start()

    def read(path):
        value = policy.load(path)
        ground.put(BAD)
        return value

    ground.put(BETTER)
    uplinked = ground.start(read)
    assert weight(uplinked) == 3
    assert ground.kept.read_text() == GOOD
    assert weight(ground.start()) == 2  # over the bad one: the copy, which is good


def test_a_copy_that_cannot_be_kept_is_said_and_does_no_harm(ground, caplog):
    ground.put(GOOD)
    (ground.kept.parent.parent).write_text("a file where a folder should be")
    assert weight(ground.start()) == 2
    assert "CopyNotKept: %s" % ground.kept in caplog.text


def sha256_of(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_what_is_in_force_has_a_digest_over_bad_versions_and_restarts(ground):
    uplinked = ground.start()
    assert uplinked.digest == ""
    ground.put(GOOD)
    uplinked.poll()
    assert uplinked.digest == sha256_of(GOOD)
    ground.put(BAD)
    uplinked.poll()
    assert uplinked.digest == sha256_of(GOOD) == ground.start().digest
    ground.path.unlink()
    assert ground.start().digest == sha256_of(GOOD)
    ground.put(BETTER)
    assert uplinked.poll() and uplinked.digest == sha256_of(BETTER)


def test_a_file_that_fails_while_it_is_read_is_read_again(ground, caplog):
    failing = [OSError(5, "Input/output error"), FileNotFoundError(2, "No such file or directory")]

    def read(path):
        if failing:
            raise failing.pop()
        return policy.load(path)

    ground.put(GOOD)
    uplinked = Uplinked("policy", str(ground.path), str(ground.kept), read)
    assert not uplinked.poll() and not uplinked.poll()
    assert caplog.text.count("PolicyUnreadable: %s: " % ground.path) == 2
    assert uplinked.poll() and weight(uplinked) == 2 and uplinked.error == ""


# ---- for programs beside the daemon --------------------------------------------------------------

def beside(ground):
    return in_force(str(ground.path), str(ground.kept), policy.load)


def test_others_go_by_the_file_and_where_it_is_bad_or_gone_by_the_last_good_one(ground, caplog):
    assert beside(ground) == policy.EMPTY
    ground.put(GOOD)
    assert beside(ground).weights == {1: 2}  # whether or not the daemon has read it
    ground.start()
    ground.put(BETTER)
    assert beside(ground).weights == {1: 3}
    ground.put(BAD)
    assert beside(ground).weights == {1: 2} and "PolicyNotUsed: policy " in caplog.text
    ground.path.unlink()
    assert beside(ground).weights == {1: 2}


def test_others_are_told_of_a_bad_file_where_there_is_no_good_one(ground):
    ground.put(BAD)
    with pytest.raises(UserError, match="policy.yaml: 'clusters.1.weight' must be a number"):
        beside(ground)
    assert not ground.kept.exists()


def test_others_write_nothing(ground):
    ground.put(GOOD)
    beside(ground)
    assert not ground.kept.exists()
