"""What the check found, as lines for people: Markdown tables, as they can stand in the README.

In: the result of tools/gpu_check. Out: text. Nothing is decided here.
"""

from typing import List


def text_of(result: dict) -> str:
    """All of it, what is wrong at the end."""
    parts = [head(result)]
    if result["kernels"]:
        parts.append(kernels(result["kernels"]))
    if result["speed"]:
        parts.append(speed(result["speed"]))
    if result["network"]:
        parts.append(network(result["network"]))
    if result["absent"]:
        parts.append("absent:\n" + "\n".join("- " + line for line in result["absent"]))
    parts.append("wrong:\n" + "\n".join("- " + line for line in result["wrong"])
                 if result["wrong"] else "nothing is wrong")
    return "\n\n".join(part for part in parts if part)


def head(result) -> str:
    """The machine in a few lines."""
    gpu, versions, machine = (
        result["environment"][name] for name in ("gpu", "versions", "machine"))
    lines = ["%s (compute capability %s, %d multiprocessor%s, %.1f GB)" % (
        gpu["name"], gpu["compute_capability"], gpu["multiprocessors"],
        "s" if gpu["multiprocessors"] > 1 else "", gpu["memory_bytes"] / 1e9)]
    lines.append(", ".join("%s %s" % (name, machine[name]) for name in (
        "model", "l4t", "power_mode", "driver") if machine.get(name)))
    lines.append(", ".join(["CUDA of the driver %s" % gpu["cuda_of_driver"]] + [
        "%s %s" % (name, versions[name]) for name in sorted(versions) if versions[name]]))
    if result["quick"]:
        lines.append("--quick: the figures say that the check works, not how fast anything is")
    return "\n".join(line for line in lines if line)


def kernels(part) -> str:
    """How many questions of each group, and the sanitizer's word."""
    rows = [[group["name"], group["asked"], "%.2f" % group["most_of_leeway"],
             len(group["left_out"]) or ""] for group in part.get("groups", [])]
    lines = [table(["kernels asked", "questions", "largest error, of what rounding explains",
                    "left out"], rows)] if rows else []
    if "compile_s" in part:
        lines.append("compiled in %.1f s; loaded at the next start in %.3f s" % (
            part["compile_s"], part["load_s"]))
    lines += ["%s: %s" % pair for pair in sorted(part["sanitizer"]["tools"].items())]
    return "\n".join(lines)


def speed(part) -> str:
    """The tables of times."""
    if not part.get("copy"):
        return ""
    lines = ["copy of %d MB: %.1f GB/s read and written; between two events with nothing between "
             "them %.4f ms; times are medians" % (
                 part["copy"]["bytes"] >> 20, part["copy"]["gb_s"], part["empty_ms"]), ""]
    rows = [[row["rows"], row["k"], row["dimension"], row["stored"]] + (
        [row["left_out"], "", "", "", "", ""] if row["left_out"] else [
            "%.4g" % row["ms"], "%.4g" % row["gb_s"], "%.1f %%" % (100 * row["share_of_copy"]),
            "%.4g" % row["gflop_s"]] + [ratio(row["ratio_to_peer"][name])
                                       for name in ("tf32_off", "tf32_on")])
        for row in part["nearest"]]
    lines += [table(["rows", "k", "D", "centroids", "ms", "GB/s", "of the copy", "GFLOP/s",
                     "to cuBLAS + argmin", "with TF32"], rows), ""]
    lines += [table(["frames", "ms", "GB/s", "of the copy"], [
        ["%d of %d×%d" % (row["frames"], row["height"], row["width"]), "%.4g" % row["ms"],
         "%.4g" % row["gb_s"], "%.1f %%" % (100 * row["share_of_copy"])]
        for row in part["planes"]])]
    lines += ["compared with %s%s" % (peer["library"], " with TF32" if peer["tf32"] else "")
              for peer in part["peers"] if peer["library"]]
    return "\n".join(lines)


def ratio(value) -> str:
    """A ratio, or that there is none."""
    return "" if value is None else "%.3g" % value


def network(part) -> str:
    """The engine beside ONNX Runtime, and the two daemons."""
    build, use, daemons = part["build"], part["use"], part["daemons"]
    lines = []
    if "build_s" in build:
        lines.append("%s: %s; engine of %.1f MB built in %.1f s (%s)" % (
            part["model"], build["runtime"], build["plan_bytes"] / 1e6, build["build_s"],
            build["tactic_sources"]))
    if use.get("agreement"):
        lines.append("loaded at the next start in %.1f s; %.0f MB less free on the GPU, the "
                     "process at most %.0f MB" % (use["load_s"], use["gpu_bytes"] / 1e6,
                                          use["process_bytes"] / 1e6))
        lines += ["", table(["batch", "ms", "images/s"], [
            [row["batch"], "%.4g" % row["ms"], "%.1f" % row["images_per_s"]]
            for row in use["images_per_s"]])]
        lines += ["", table(["images", "count", "least cosine to ONNX Runtime", "median",
                             "same nearest centroid"], [
            [row["images"], row["count"], "%.6f" % row["cosine_least"],
             "%.6f" % row["cosine_median"], "%.1f %%" % (100 * row["same_nearest"])]
            for row in use["agreement"]])]
    if "at_another_rank" in daemons:
        lines += ["", "the daemon's queue of %d images: %d rows at another rank than with ONNX "
                  "Runtime (by %d at most), %d in another cluster" % (
                      daemons["images"], daemons["at_another_rank"], daemons["furthest"],
                      daemons["other_cluster"])]
    return "\n".join(lines).strip()


def table(header: List[str], rows: List[list]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header)] + rows
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
