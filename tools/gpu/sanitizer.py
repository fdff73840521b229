"""A few questions under CUDA's own checker of memory accesses, races and barriers.

In: a python with PyCUDA. Out: a dict:

    program     the checker's path, or null: compute-sanitizer, before CUDA 11 cuda-memcheck
    absent      why there is none; "" where there is. It comes with the CUDA toolkit
    tools       {tool: "clean", or what it found, or why it could not run, as on some GPUs}
    wrong       [text], what was found; a checker that is missing or does not run is no fault
"""

import os
import shutil
import subprocess

PROGRAMS = ("compute-sanitizer", "cuda-memcheck")
FOLDERS = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
FOUND = 42  # the exit status for what it found, unlike any other's
LIMIT_S = 600
CLEAN = "ERROR SUMMARY: 0 errors", "RACECHECK SUMMARY: 0 hazards"


def find():
    """The path of a checker, or None."""
    path = os.pathsep.join([os.environ.get("PATH", "")] + list(FOLDERS))
    return next((found for found in (shutil.which(name, path=path) for name in PROGRAMS) if found),
                None)


def run(python: str, environment: dict, cache: str, result_path: str) -> dict:
    """Every tool in turn. Kernels are compiled into `cache` if they are not there."""
    program = find()
    answer = {"program": program, "tools": {}, "wrong": [],
              "absent": "" if program else "no %s on PATH nor in %s" % (
                  " and no ".join(PROGRAMS), ", ".join(FOLDERS))}
    for tool in TOOLS if program else ():
        command = [program, "--tool", tool, "--error-exitcode", str(FOUND), python, "-m",
                   "gpu.kernels", cache, result_path, "--small"]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, universal_newlines=True,
                                  env=environment, timeout=LIMIT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            answer["tools"][tool] = "could not run: %s" % error
            continue
        answer["tools"][tool] = verdict(done.returncode, done.stdout)
        if done.returncode == FOUND:
            answer["wrong"].append("%s: %s" % (tool, answer["tools"][tool]))
    return answer


def verdict(status: int, output: str) -> str:
    """What a checker's exit status and words mean."""
    lines = [line.strip("= ") for line in output.splitlines() if line.strip("= ")]
    if status == 0 and any(words in output for words in CLEAN):
        return "clean"
    if status == FOUND:
        return "; ".join([line for line in lines if "COMPUTE-SANITIZER" not in line][:3])
    return "could not run (status %d): %s" % (status, " ".join(lines[-1:]))
