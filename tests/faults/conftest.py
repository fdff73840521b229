"""A process that runs the work of the fault tests, and a rover's folder for it to work on."""

import os
import sys

import faults
import pytest

sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # for scenarios.py


@pytest.fixture(scope="session")
def workbench(tmp_path_factory, tiny):
    """Runs the functions of scenarios.py in children, with interpose.c around them."""
    bench = faults.Workbench(str(tmp_path_factory.mktemp("workbench")), tiny)
    yield bench
    bench.close()


@pytest.fixture(scope="session")
def stage(workbench):
    """A rover's folder in several states, by name: see Stage.save.

    new: images in the inbox; done: a daemon took them; used: operations behind it, and a codebook;
    busy: new work waits; linking: with an outbox; short: without room; damaged: used, no database.
    """
    made = faults.Stage(workbench)
    made.run("arrival")
    made.save("done")
    for name, work in (("busy", "new_work"), ("linking", "have_an_outbox"),
                       ("short", "have_no_room")):
        made.restore("done")
        made.save(name, made.run(work).told)
    made.restore("done")
    made.run("codebook_swap")
    told = made.run("operations").told
    made.run("recover", told)
    made.save("used", told)
    with open(os.path.join(made.own, "state", "catalog.sqlite"), "r+b") as stream:
        stream.write(b"no database")
    made.save("damaged", told)
    yield made
    made.close()
