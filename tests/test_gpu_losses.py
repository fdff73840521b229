"""The GPU is given up when it was lost three times within ten minutes of one boot, and not otherwise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetson_cluster.gpu_losses import TOO_MANY, WITHIN_S, GpuLosses


class Clock:
    def __init__(self):
        self.s = 1000.0

    def __call__(self):
        return self.s


@pytest.fixture
def clock():
    return Clock()


def losses(tmp_path, clock, boot="one"):
    """As a new process finds them."""
    return GpuLosses(str(tmp_path / "losses.json"), boot, clock)


def test_three_losses_within_ten_minutes_are_too_many_also_over_restarts(tmp_path, clock):
    for _ in range(TOO_MANY):
        assert not losses(tmp_path, clock).too_many()
        clock.s += 190
        losses(tmp_path, clock).note()
    assert losses(tmp_path, clock).too_many()


def test_after_ten_minutes_a_loss_no_longer_counts(tmp_path, clock):
    for _ in range(TOO_MANY):
        losses(tmp_path, clock).note()
    clock.s += WITHIN_S
    assert losses(tmp_path, clock).too_many()
    clock.s += 0.001
    assert not losses(tmp_path, clock).too_many()


def test_a_reboot_starts_afresh(tmp_path, clock):
    for _ in range(TOO_MANY):
        losses(tmp_path, clock).note()
    assert not losses(tmp_path, clock, "two").too_many()
    losses(tmp_path, clock, "two").note()
    assert len(losses(tmp_path, clock, "two").recent()) == 1


@given(gaps=st.lists(st.floats(0, 2000), max_size=12))
def test_it_is_given_up_exactly_when_the_last_three_lie_within_ten_minutes(
        tmp_path_factory, gaps):
    clock = Clock()
    counted = losses(tmp_path_factory.mktemp("losses"), clock)
    moments = []
    for gap in gaps:
        clock.s += gap
        counted.note()
        moments.append(clock.s)
        expected = len(moments) >= TOO_MANY and clock.s - moments[-TOO_MANY] <= WITHIN_S
        assert counted.too_many() == expected


@pytest.mark.parametrize("content", [
    b"", b"no JSON", b"[]", b"{}", b'{"boot": "one"}', b'{"boot": "one", "lost_at_s": [null]}',
    b'{"boot": "one", "lost_at_s": 3}', b"\xff\xfe"])
def test_a_damaged_file_counts_as_none_and_is_said(tmp_path, clock, caplog, content):
    (tmp_path / "losses.json").write_bytes(content)
    assert losses(tmp_path, clock).recent() == []
    assert "GpuLossesUnreadable" in caplog.text and "losses.json" in caplog.text
    losses(tmp_path, clock).note()
    assert losses(tmp_path, clock).recent() == [clock.s]


def test_a_disk_that_cannot_note_a_loss_is_said_and_stops_nothing(tmp_path, clock, caplog):
    GpuLosses(str(tmp_path / "absent" / "losses.json"), "one", clock).note()
    assert "GpuLossNotNoted" in caplog.text


def test_a_process_that_ended_without_a_word_while_it_used_the_gpu_lost_it(
        tmp_path, clock, caplog):
    """Killed for want of memory while it built the engine, or by the watchdog because all hung."""
    for _ in range(TOO_MANY):
        losses(tmp_path, clock).begin()
        assert not losses(tmp_path, clock).too_many()
        clock.s += 60
    losses(tmp_path, clock).begin()
    assert losses(tmp_path, clock).too_many()
    assert caplog.text.count("GpuSuspected") == TOO_MANY


@pytest.mark.parametrize("ending", ["end", "note"])
def test_a_process_that_ended_in_good_order_is_not_suspected(tmp_path, clock, ending):
    first = losses(tmp_path, clock)
    first.begin()
    getattr(first, ending)()
    first.end()
    losses(tmp_path, clock).begin()
    assert len(losses(tmp_path, clock).recent()) == (ending == "note")


def test_a_power_cut_is_no_loss_of_the_gpu(tmp_path, clock):
    losses(tmp_path, clock).begin()
    losses(tmp_path, clock, "two").begin()
    assert losses(tmp_path, clock, "two").recent() == []


def test_the_time_a_restart_takes_does_not_make_three_losses_forgotten(tmp_path, clock):
    for _ in range(TOO_MANY):
        losses(tmp_path, clock).note()
        clock.s += 290
    losses(tmp_path, clock).begin()
    assert losses(tmp_path, clock).too_many()


def test_hours_later_they_are(tmp_path, clock):
    for _ in range(TOO_MANY):
        losses(tmp_path, clock).note()
    clock.s += 6 * 3600
    assert not losses(tmp_path, clock).too_many()
