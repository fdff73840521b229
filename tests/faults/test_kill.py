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


EVERY = 1 if faults.SOAK else 3  # so that on 3.6, 3.11 and 3.13 together every point has its turn


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_work_that_is_killed_at_any_operation_loses_nothing_of_what_was_told(stage, scenario):
    work, below = scenario.work, stage.below(scenario)
    told = stage.restore(scenario.before)
    whole = stage.run(work, trace=stage.trace, below=below)
    stage.run("recover", told + whole.told)
    points = points_of([operation for operation in faults.read_trace(stage.trace)
                        if operation.kind != "!"])
    assert len(points) > 10
    points = points[faults.MINOR % EVERY::EVERY]
    print("killed at %d points of %s" % (len(points), work))
    for number, how in points:
        told = stage.restore(scenario.before)
        ended = stage.run(work, die_at=number, how=how, below=below)
        assert ended.died, "it did other things than in the life before"
        try:
            stage.run("recover", told + ended.told)
        except AssertionError as error:
            raise AssertionError("killed %s operation %d of %s: %s" % (
                "in the middle of" if how == TORN else "before", number, work, error))
