"""A process that runs the work of the fault tests, and a rover's folder for it to work on."""

import faults
import pytest


@pytest.fixture(scope="module")
def workbench(tmp_path_factory, tiny):
    """Runs the functions of scenarios.py in children, with interpose.c around them."""
    bench = faults.Workbench(str(tmp_path_factory.mktemp("workbench")), tiny)
    yield bench
    bench.close()


@pytest.fixture(scope="module")
def stage(workbench):
    """A rover's folder, saved as "new" with images in its inbox and as "done" with a daemon's life."""
    made = faults.Stage(workbench)
    made.run("arrival")
    made.save("done")
    yield made
    made.close()
