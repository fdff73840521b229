"""What all findings come to: which runtime the daemon would take and why, and whether it starts.

In: the config's `embedder`, what stops each runtime, the rows. Out: the last two rows, and the exit
code. Pure functions.
"""

from typing import Dict, List, NamedTuple, Sequence

from jetson_cluster.doctor.case import AUTO, CPU, TENSORRT
from jetson_cluster.doctor.findings import BAD, CONFIG, WARN, WORLD, Finding, Row, bad, ok, warn

ONNXRUNTIME, OPENVINO = "onnxruntime", "openvino"
NAMES = {TENSORRT: "TensorRT", ONNXRUNTIME: "ONNX Runtime", OPENVINO: "OpenVINO"}


class Choice(NamedTuple):
    """Which runtimes the daemon would take: none, one, or the faster of two."""

    runtimes: Sequence[str]  # of NAMES
    why: str


def choose(embedder: str, stopped: Dict[str, str], given_up: str = "") -> Choice:
    """What the daemon takes for the config's `embedder`.

    `stopped` says of each runtime that cannot be used why not; `given_up` why the GPU is left alone
    for a while, "" if it is not.
    """
    def of_the_processor(why: str) -> Choice:
        able = [name for name in (ONNXRUNTIME, OPENVINO) if name not in stopped]
        lacks = ["%s: %s" % (NAMES[name], stopped[name]) for name in (ONNXRUNTIME, OPENVINO)
                 if name in stopped]
        return Choice(able, why if able else "; ".join([why] * bool(why) + lacks))

    if embedder in (AUTO, TENSORRT):
        if given_up:
            return of_the_processor(given_up)
        if TENSORRT not in stopped:
            return Choice([TENSORRT], "")
        why = "%s: %s" % (NAMES[TENSORRT], stopped[TENSORRT])
        return of_the_processor(why) if embedder == AUTO else Choice([], why)
    if embedder == CPU:
        return of_the_processor("")
    runtime = embedder.split("-")[0]  # openvino-float32 is OpenVINO's as well
    if runtime in stopped:
        return Choice([], "%s: %s" % (NAMES[runtime], stopped[runtime]))
    return Choice([runtime], "")


def stopped_runtimes(rows: Sequence[Row]) -> Dict[str, str]:
    """Why a runtime cannot be used, by its name: what the first row that stops it found."""
    stopped = {}  # type: Dict[str, str]
    for row in rows:
        if row.finding.stops:
            stopped.setdefault(row.finding.stops, row.finding.found)
    return stopped


def of_embedder(embedder: str, choice: Choice, versions: Dict[str, str], stopped: Dict[str, str],
                has_gpu: bool, falls_back: bool, mend: str) -> Finding:
    """The row that says which runtime would be used. `mend` brings one for the processor."""
    asked = "embedder: %s" % embedder
    names = [" ".join([NAMES[name], versions.get(name, "")]).strip() for name in choice.runtimes]
    because = ", because of %s" % choice.why if choice.why else ""
    if not names:
        return bad(WORLD, "%s gives none%s" % (asked, because), "a runtime for the network", mend)
    taken = names[0] if len(names) == 1 else \
        "the faster of %s, tried at the start" % " and ".join(names)
    found = "%s gives %s%s" % (asked, taken, because)
    if choice.runtimes == [TENSORRT]:
        if falls_back and ONNXRUNTIME in stopped and OPENVINO in stopped:
            return warn(found + "; nothing to go on with should the GPU be lost",
                        "a runtime for the processor, or tensorrt.cpu_fallback: false", mend)
        return ok(found)
    if has_gpu and embedder in (AUTO, TENSORRT):
        return warn(found, "TensorRT, for which the GPU is there", "see the group GPU above")
    return ok(found)


def of_daemon(rows: Sequence[Row], running: bool) -> Finding:
    """The row that says whether the daemon could start."""
    wrong = [row for row in rows if row.finding.level == BAD]
    doubts = sum(row.finding.level == WARN for row in rows)
    if wrong:
        fault = CONFIG if any(row.finding.fault == CONFIG for row in wrong) else WORLD
        return bad(fault, "%s: %s" % (
            "runs, but could not start again" if running else "could not start",
            ", ".join(row.name for row in wrong)), "what is BAD above, mended")
    return ok("%s%s" % ("runs" if running else "could start", _warnings(doubts)))


def _warnings(count: int) -> str:
    return "" if not count else ", with %d warning%s" % (count, "" if count == 1 else "s")


def exit_code(rows: List[Row]) -> int:
    """0 if the daemon could run as configured, 2 if the user's input is wrong, else 1."""
    faults = {row.finding.fault for row in rows if row.finding.level == BAD}
    return 2 if CONFIG in faults else 1 if faults else 0
