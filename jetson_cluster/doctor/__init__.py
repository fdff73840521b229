"""Every prerequisite of the daemon: what was found, what is needed, how to mend it; the verdict.

In: a machine and a config. Out: a `Report` of rows in groups. Nothing is changed, nothing is left
behind, and no probe ends the examination: one that fails is a row that says so.

What `jetson-cluster doctor --json` prints, in this shape and order:

    {"version": "0.1.0",               of this program
     "config": "/etc/...yaml",         the config looked at, as it was named
     "could_start": true,              whether the daemon could run as configured
     "embedder": ["onnxruntime"],      what it would use: tensorrt, onnxruntime, openvino; two: the
                                       faster; none: it could not start
     "exit_code": 0,                   0 it could run, 1 the world lacks something, 2 the user's
                                       input is wrong
     "rows": [{"group": "Computer",    Computer, Libraries, GPU, Files, Service, Verdict
               "name": "memory",       unique within its group
               "level": "ok",          ok, warn, bad (the daemon could not run), skip (not looked
                                       at, or not needed; `found` says why)
               "found": "...",         always there
               "needed": "...",        "" where the level is ok or skip
               "mend": "...",          one line; "" where there is nothing to be done or to be told
               "fault": "",            of bad: "config" (the user's input) or "world"
               "stops": ""}]}          the runtime that cannot be used for it, else ""
"""

import logging
from typing import Callable, List, NamedTuple, Sequence

from jetson_cluster import gpu_losses
from jetson_cluster.checking import one_line
from jetson_cluster.doctor import (
    computer, contents, folders, gpu, hand_off, libraries, service, verdict)
from jetson_cluster.doctor.case import Case, with_python
from jetson_cluster.doctor.findings import BAD, CONFIG, WORLD, Finding, Row, bad, warn
from jetson_cluster.errors import UserError, WorldError

log = logging.getLogger(__name__)

COMPUTER, LIBRARIES, GPU, FILES, SERVICE, VERDICT = GROUPS = (
    "Computer", "Libraries", "GPU", "Files", "Service", "Verdict")
PROBES = ((COMPUTER, computer.PROBES), (LIBRARIES, libraries.PROBES), (GPU, gpu.PROBES),
          (FILES, (("config", contents.config),) + folders.PROBES + contents.PROBES
           + hand_off.PROBES),
          (SERVICE, service.PROBES))


class Report(NamedTuple):
    """One examination."""

    rows: List[Row]
    runtimes: Sequence[str]  # that the daemon would use

    @property
    def exit_code(self) -> int:
        return verdict.exit_code(self.rows)

    @property
    def could_start(self) -> bool:
        return all(row.finding.level != BAD for row in self.rows)


def examine(case: Case) -> Report:
    """Look at everything; raises nothing that a probe raises."""
    rows = [Row(group, name, guarded(probe, case))
            for group, probes in PROBES for name, probe in probes]
    stopped = verdict.stopped_runtimes(rows)
    choice = verdict.choose(case.embedder, stopped, _given_up(case))
    rows.append(Row(VERDICT, "embedder", guarded(with_python(lambda case: verdict.of_embedder(
        case.embedder, choice, _versions(case), stopped, case.has_gpu,
        bool(case.config and case.config.tensorrt.cpu_fallback),
        case.pip + " install onnxruntime")), case)))
    rows.append(Row(VERDICT, "daemon", guarded(
        lambda case: verdict.of_daemon(rows, case.running), case)))
    return Report(rows, choice.runtimes if case.python_works else [])


def guarded(probe: Callable[[Case], Finding], case: Case) -> Finding:
    """What the probe finds; what it raises is a finding too."""
    try:
        return probe(case)
    except UserError as error:
        return bad(CONFIG, str(error), "what can be used")
    except WorldError as error:
        return bad(WORLD, str(error), "what can be used")
    except PermissionError as error:
        return warn("cannot be looked at by this user: %s" % one_line(error),
                    "a look by one who may", case.as_root)
    except Exception as error:
        # Whatever it is, the other rows are worth having; --verbose shows where it came from.
        log.debug("probe failed", exc_info=True)
        return warn("could not be examined: %s: %s" % (type(error).__name__, one_line(error)),
                    "an answer; this is a fault of the doctor's own")


def _given_up(case: Case) -> str:
    try:
        return "the GPU was lost %d times" % gpu_losses.TOO_MANY if case.gpu_given_up else ""
    except OSError as error:
        log.debug("losses of the GPU unknown: %s", error)
        return ""


def _versions(case: Case) -> dict:
    return {name: str(case.facts(name).get("version", "")).split("-")[0]
            for name in ("tensorrt", "onnxruntime", "openvino")}
