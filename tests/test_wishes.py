"""The policy in force: the file and what orders amended of it; a new file is the last word."""

import base64
import logging
import os

import numpy as np
import pytest

from catalogued import SPACE
from jetson_cluster import config
from jetson_cluster.catalog import Catalog
from jetson_cluster.errors import UserError
from jetson_cluster.wishes import Wishes, policy_of, uplinked_policy

AT = "2026-01-02T00:00:00Z"


class Rover:
    """A config over a state folder, a catalog, and the daemon's starts over them."""

    def __init__(self, folder):
        (folder / "config.yaml").write_text(
            "state_dir: state\npolicy: policy.yaml\ninbox: {path: inbox}\n")
        (folder / "state").mkdir()
        self.config, self.file = config.load(str(folder / "config.yaml")), folder / "policy.yaml"
        self.catalog = Catalog(self.config.catalog_path, SPACE)

    def put(self, text):
        """Replace the policy file by a rename, as it should be done."""
        beside = self.file.with_suffix(".new")
        beside.write_text(text)
        os.rename(str(beside), str(self.file))

    def start(self):
        file = uplinked_policy(self.config)
        file.start()
        return Wishes(file, self.catalog, lambda: AT)

    def weights(self):
        """As a verb beside the daemon has them."""
        return policy_of(self.config, self.catalog).weights


@pytest.fixture
def rover(tmp_path):
    made = Rover(tmp_path)
    yield made
    made.catalog.close()


def test_without_a_file_orders_amend_a_policy_that_says_nothing(rover):
    wishes = rover.start()
    assert wishes.policy.weights == {} and not wishes.look()
    rover.catalog.amend("weight", "7", 3.0)
    assert wishes.look() and wishes.policy.weights == {7: 3.0} == rover.weights()
    assert not wishes.look()


def test_what_orders_amended_holds_over_a_restart(rover):
    rover.put("clusters: {1: {weight: 2}}")
    wishes = rover.start()
    rover.catalog.amend("weight", "7", 3.0)
    assert wishes.look()
    assert rover.start().policy.weights == {1: 2.0, 7: 3.0} == rover.weights()


@pytest.mark.parametrize("restarted", [False, True])
def test_a_new_file_drops_what_was_amended_before_it_and_the_account_says_so(
        rover, caplog, restarted):
    rover.put("clusters: {1: {weight: 2}}")
    wishes = rover.start()
    rover.catalog.amend("weight", "7", 3.0)
    rover.catalog.amend("label", "7", "rock")
    wishes.look()
    rover.put("clusters: {1: {weight: 5}}")
    if restarted:
        wishes = rover.start()
    else:
        assert wishes.look()
    assert wishes.policy.weights == {1: 5.0} and wishes.policy.labels == {}
    assert "AmendmentsDropped: 2; " in caplog.text
    line, = rover.catalog.audit_rows(9)
    assert (line.at, line.origin, line.action, line.detail) == (
        AT, "policy file", "drop amendments", "2 of them")
    assert line.target == str(rover.file)
    rover.catalog.amend("weight", "9", 4.0)  # and the next ones hold
    assert wishes.look() and wishes.policy.weights == {1: 5.0, 9: 4.0}
    assert rover.start().policy.weights == {1: 5.0, 9: 4.0}
    assert caplog.text.count("AmendmentsDropped") == 1


def test_a_first_file_is_a_new_one(rover):
    rover.catalog.amend("weight", "7", 3.0)
    wishes = rover.start()
    assert wishes.policy.weights == {7: 3.0}
    rover.put("clusters: {1: {weight: 2}}")
    assert wishes.look() and wishes.policy.weights == {1: 2.0}


def test_a_bad_file_changes_nothing_and_drops_nothing(rover):
    rover.put("clusters: {1: {weight: 2}}")
    wishes = rover.start()
    rover.catalog.amend("weight", "7", 3.0)
    wishes.look()
    rover.put("clusters: {1: {wieght: 5}}")
    assert not wishes.look() and wishes.policy.weights == {1: 2.0, 7: 3.0}
    assert "did you mean 'weight'" in wishes.error and wishes.path == str(rover.file)
    again = rover.start()
    assert again.policy.weights == {1: 2.0, 7: 3.0} == rover.weights() and again.error


def test_a_file_that_is_gone_or_uplinked_again_as_it_was_drops_nothing(rover):
    rover.put("clusters: {1: {weight: 2}}")
    wishes = rover.start()
    rover.catalog.amend("weight", "7", 3.0)
    wishes.look()
    rover.file.unlink()
    assert not wishes.look() and rover.start().policy.weights == {1: 2.0, 7: 3.0}
    assert rover.weights() == {1: 2.0, 7: 3.0}
    rover.put("clusters: {1: {weight: 2}}")
    assert not wishes.look() and wishes.policy.weights == {1: 2.0, 7: 3.0}


def test_a_bad_file_and_no_good_one_is_an_error_of_the_user(rover):
    rover.put("clusters: {1: {wieght: 5}}")
    for ask in (rover.start, rover.weights):
        with pytest.raises(UserError, match="did you mean 'weight'"):
            ask()


def test_a_policy_with_an_embedding_is_another_one_only_when_it_is(rover):
    def put(numbers, name):
        coded = base64.b64encode(np.array(numbers, "i1").tobytes()).decode("ascii")
        rover.put("targets: [{embedding: \"int8:%s\"}]\n# %s" % (coded, name))

    numbers = np.arange(2048) % 128
    put(numbers, "first")
    wishes = rover.start()
    assert not wishes.look()
    put(numbers, "the same, written otherwise")
    assert not wishes.look()
    numbers[1000] += 1  # where a shortened array shows nothing
    put(numbers, "other")
    assert wishes.look() and not wishes.look()


def test_a_catalog_that_cannot_be_written_keeps_policy_and_amendments_until_it_can(rover):
    rover.put("clusters: {1: {weight: 2}}")
    wishes = rover.start()
    rover.catalog.amend("weight", "7", 3.0)
    wishes.look()
    rover.catalog._db.execute("CREATE TEMP TRIGGER fails AFTER INSERT ON main.audit "
                              "BEGIN SELECT RAISE(ABORT, 'as asked'); END")
    rover.put("clusters: {1: {weight: 5}}")
    for _ in range(2):
        with pytest.raises(Exception, match="as asked"):
            wishes.look()
        assert rover.catalog.amendments() and wishes.policy.weights == {1: 2.0, 7: 3.0}
    rover.catalog._db.execute("DROP TRIGGER fails")
    assert wishes.look() and wishes.policy.weights == {1: 5.0}


def test_what_a_file_brings_is_said(rover, caplog):
    wishes = rover.start()
    with caplog.at_level(logging.INFO):
        rover.put("explore: 0.5")
        wishes.look()
        wishes.look()
    assert caplog.text.count("PolicyTaken: %s" % rover.file) == 1
