"""The power is cut anywhere: whatever the disk kept of what was not synced, what was told holds."""

import glob
import json
import os
import random

import faults
import pytest
from faults import SCENARIOS

CUTS = 400 if faults.SOAK else 24  # of each scenario; more are tried in a soak


def cut_power(stage, scenario, then):
    """Run the scenario, cut the power at many places in it, and do `then(told)` after each."""
    work, below = scenario.work, stage.below(scenario)
    told = list(stage.restore(scenario.before))
    disk = faults.Disk(below)
    stage.run(work, trace=stage.trace, below=below)
    operations = faults.read_trace(stage.trace)
    chosen = random.Random("%s %d" % (work, faults.MINOR))
    # Half of them where something was told just before: then it has to be on the disk.
    tellings = [number for number, operation in enumerate(operations, 1) if operation.kind == "!"]
    cuts = sorted(chosen.choice(tellings) if number % 2 else chosen.randrange(len(operations) + 1)
                  for number in range(CUTS))
    print("power cut %d times in %s, of %d operations" % (len(cuts), work, len(operations)))
    done = 0
    for number, cut in enumerate(cuts):
        for operation in operations[done:cut]:
            if operation.kind == "!":
                told.append(json.loads(operation.data.decode("ascii")))
            else:
                disk.do(operation)
        done = cut
        faults.restore(below, disk.after_cut(random.Random("%s %d" % (work, number))))
        try:
            then(told)
        except AssertionError as error:
            raise AssertionError("power cut %d of %s, after operation %d: %s" % (
                number, work, cut, error))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_a_power_cut_at_any_operation_loses_nothing_of_what_was_told(stage, scenario):
    cut_power(stage, scenario, lambda told: stage.run("recover", told))


def test_a_power_cut_that_costs_the_catalog_as_well_leaves_the_journal(stage):
    def lose_catalog(told):
        for path in glob.glob(os.path.join(stage.own, "state", "catalog.sqlite*")):
            os.unlink(path)
        stage.run("recover", told)

    scenario = next(one for one in SCENARIOS if one.work == "operations")
    cut_power(stage, scenario, lose_catalog)


# ---- the disk itself, which must be no kinder than a real one ----------------------------------

OLD, NEW = b"old " * 300, b"new " * 300


@pytest.mark.parametrize("steps, possible", [
    ("write", {OLD, NEW, "part"}),
    ("write sync", {NEW}),
    ("temp rename", {OLD, NEW, b"", "part"}),
    ("temp sync rename", {OLD, NEW}),
    ("temp sync rename sync-folder", {NEW}),
    ("temp rename sync-folder", {NEW, b"", "part"}),
    ("remove", {OLD, None}),
    ("remove sync-folder", {None}),
    ("remove write sync sync-folder", {NEW}),
    ("remove write sync", {OLD, NEW, None}),
])
def test_after_a_power_cut_there_is_what_was_synced_and_perhaps_more(stage, steps, possible):
    stage.restore("new")
    path = os.path.join(stage.own, "file")
    with open(path, "wb") as stream:
        stream.write(OLD)
    disk = faults.Disk(stage.own)
    stage.run("write_and_rename", path, steps.split(), NEW.decode(), trace=stage.trace)
    for operation in faults.read_trace(stage.trace):
        if operation.kind != "!":
            disk.do(operation)
    found = set()
    for seed in range(300):
        held = disk.after_cut(random.Random(seed)).get(os.path.realpath(path))
        found.add(None if held is None else held.content if held.content in (OLD, NEW, b"")
                  else "part")
    assert found == possible
