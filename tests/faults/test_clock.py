"""The wall clock steps back and forward by years between turns: nothing decided hangs on it."""

import pytest

YEAR_S = 365.25 * 86400
# What is added to the wall clock before each of a history's steps.
STEADY = [0.0]
JUMPS = {
    "forward": [YEAR_S], "back": [-YEAR_S], "to and fro": [7 * YEAR_S, -9 * YEAR_S, 30.0],
    "to 1970, as without a battery": [0.0, -1.6e9 + 20.0, 0.0, 1.6e9],
    "beyond what a file's date can say": [0.0, 0.0, 250 * YEAR_S, 0.0]}


@pytest.fixture(scope="module")
def steady(stage):
    """What a history comes to under a clock that only runs."""
    stage.restore("new")
    return stage.run("history", STEADY)


def test_the_history_is_one_in_which_something_happens(steady):
    outcome = steady.returned
    assert len(outcome["queue"]) >= 3 and len(outcome["passes"]) == 3
    assert set(outcome["states"].values()) == {"queued", "sent", "held", "deleted"}
    assert any("oldest" in row["reason"] or "passes" in row["reason"] for row in outcome["queue"])


@pytest.mark.parametrize("jumps", list(JUMPS.values()), ids=list(JUMPS))
def test_a_clock_that_jumps_changes_no_order_no_pass_and_no_deletion(stage, steady, jumps):
    stage.restore("new")
    jumped = stage.run("history", jumps)
    assert jumped.returned == steady.returned
    assert [line.split(":")[0] for line in jumped.log] == [
        line.split(":")[0] for line in steady.log]
