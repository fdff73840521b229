"""kill -9 at every operation that changes the disk: what was told before it holds after it."""

import faults
import pytest
from faults import BEFORE, SCENARIOS, TORN


def points_of(operations):
    """Where to kill: (number, how). All of them in a soak; else those that leave different disks.

    A sync changes nothing for a kill, and writes to one file with nothing between them are ended
    before the first and in the middle of the last.
    """
    points, last = [], None
    for operation, following in zip(operations, operations[1:] + [None]):
        writes = operation.kind == "w"
        again = writes and last is not None and (last.kind, last.path) == ("w", operation.path)
        more = writes and following is not None and (
            (following.kind, following.path) == ("w", operation.path))
        if faults.SOAK or not (again or operation.kind == "s"):
            points.append((operation.number, BEFORE))
        if writes and (faults.SOAK or not more):
            points.append((operation.number, TORN))
        last = operation
    return points


@pytest.mark.parametrize("work, before", SCENARIOS)
def test_work_that_is_killed_at_any_operation_loses_nothing_of_what_was_told(stage, work, before):
    stage.restore(before)
    whole = stage.run(work, trace=stage.trace)
    stage.run("recover", whole.told)
    points = points_of([operation for operation in faults.read_trace(stage.trace)
                        if operation.kind != "!"])
    assert points
    for number, how in points:
        stage.restore(before)
        ended = stage.run(work, die_at=number, how=how)
        assert ended.died, "it did other things than in the life before"
        try:
            stage.run("recover", ended.told)
        except AssertionError as error:
            raise AssertionError("killed %s operation %d of %s: %s" % (
                "in the middle of" if how == TORN else "before", number, work, error))
