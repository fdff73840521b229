"""How soon an idle daemon's status says what has just happened: in seconds, not within a minute."""

import pytest
from rover import Rover as Settings

from driven import Rover, some
from jetson_cluster.health import STATUS_BUSY_S
from jetson_cluster.uplinked import ABSENT_S


@pytest.fixture(params=[0, 3], ids=lambda count: "%d images" % count)
def idle(request, tmp_path, tiny):
    """A rover whose daemon has had nothing to do for a while, and has said so."""
    rover = Rover(tmp_path, tiny)
    (rover.folder / "policy.yaml").write_text("explore: 0.5\n")
    rover.drop(*some("a", request.param))
    with rover.daemon() as opened:
        rover.until(lambda: opened.settled)
        rover.turn(200)
        rover.seconds = lambda seconds: rover.turn(int(seconds * 10) + 20)
        yield rover


def test_a_policy_that_is_refused_and_one_that_is_right_again(idle):
    (idle.folder / "policy.yaml").write_text("explore: 9\n")
    idle.seconds(STATUS_BUSY_S)
    assert "explore" in idle.status()["policy"]["error"]
    assert "explore" in idle.status()["last_error"]["what"]
    (idle.folder / "policy.yaml").write_text("explore: 0.25\n")
    idle.seconds(STATUS_BUSY_S)
    assert idle.status()["policy"]["error"] == ""


def test_an_inbox_that_went_away(idle):
    idle.inbox.rename(idle.folder / "elsewhere")
    idle.seconds(STATUS_BUSY_S)
    assert idle.status()["inbox"]["available"] is False


def test_a_new_codebook(idle, tmp_path, tiny):
    (tmp_path / "other").mkdir()
    Settings(tmp_path / "other", tiny).make_codebook(["red", "green"],
                                                    idle.folder / "codebook.npz")
    idle.seconds(STATUS_BUSY_S)
    assert idle.status()["codebook"]["clusters"] == 2


def test_a_policy_that_is_gone_for_a_minute_and_back(idle, caplog):
    policy = idle.folder / "policy.yaml"
    policy.rename(idle.folder / "away.yaml")
    idle.seconds(ABSENT_S + STATUS_BUSY_S)
    assert idle.status()["policy"]["error"].startswith("PolicyAbsent: %s: " % policy)
    assert caplog.text.count("PolicyAbsent: ") == 1
    (idle.folder / "away.yaml").rename(policy)
    idle.seconds(STATUS_BUSY_S)
    assert idle.status()["policy"]["error"] == ""


def test_two_errors_that_stay_have_the_status_written_no_more_often_than_none(idle):
    (idle.folder / "policy.yaml").write_text("explore: 9\n")
    (idle.folder / "codebook.npz").write_text("none")
    idle.seconds(STATUS_BUSY_S)
    status = idle.state / "status.json"
    before = status.stat().st_ino, status.stat().st_mtime_ns
    idle.turn(300)
    assert (status.stat().st_ino, status.stat().st_mtime_ns) == before
    assert idle.status()["policy"]["error"] and idle.status()["codebook"]["error"]
