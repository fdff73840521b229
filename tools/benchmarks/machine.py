"""What the benchmarks share: the kind of machine, the models at hand, medians, tables."""

import glob
import os
import platform
import statistics
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODELS = os.path.join(ROOT, ".demo", "models", "*.onnx")


def kind() -> str:
    """The machine in words that hold for any of its kind."""
    features = []
    with open("/proc/cpuinfo") as stream:
        flags = next((line for line in stream if line.startswith(("flags", "Features"))), "")
    for flag, name in (("avx512f", "AVX-512"), ("amx_bf16", "AMX"), ("avx2", "AVX2")):
        if " " + flag in flags and not (flag == "avx2" and features):
            features.append(name)
    return "%d cores of a %s processor%s, no GPU, Python %s" % (
        os.cpu_count(), platform.machine(), " with " + " and ".join(features) if features else "",
        platform.python_version())


def models() -> list:
    """The ONNX files that tools/demo exported; ends the program if there are none."""
    found = sorted(glob.glob(MODELS))
    if not found:
        sys.exit("no model: run tools/demo first, or name one")
    return found


def table(header: list, rows: list) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header)] + rows
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def median_and_spread(values: list) -> str:
    """"median (least to most)" with three digits."""
    return "%.3g (%.3g to %.3g)" % (statistics.median(values), min(values), max(values))
