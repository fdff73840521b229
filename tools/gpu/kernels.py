"""Asks the kernels on this machine's GPU everything in `cases`, compiled by its own nvcc.

    python -m gpu.kernels CACHE RESULT.json [--quick | --small]

In: a folder for compiled kernels. Out: a JSON file:

    compile_s, load_s   seconds for both sources to be compiled, and to be loaded at the next start
    groups              [{name, asked, most_of_leeway, left_out: [text]}]: how many questions, the
                        largest error as a share of what rounding explains, what did not fit
    wrong               [text], each wrong answer by the question's name; [] where all is well

--small asks so little that a memory checker gets through, and ends with status 1 if that is wrong.
"""

import argparse
import collections
import json
import sys
import time

import numpy as np

from gpu import cases
from gpu.device import Memory, TooLarge, context
from jetson_cluster.cuda import launcher

GROUPS_OF_SMALL = ("shapes",)
SMALL_DIMENSION = 77


def main(arguments) -> int:
    """The program described above."""
    parser = argparse.ArgumentParser(prog="gpu.kernels")
    parser.add_argument("cache")
    parser.add_argument("result")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args(arguments)
    with context() as driver:
        result = run(driver, args)
        # Here, for a context that is lost ends the process when it is left.
        with open(args.result, "w", encoding="utf-8") as stream:
            json.dump(result, stream)
    return 1 if args.small and result["wrong"] else 0


def run(driver, args) -> dict:
    """Everything that RESULT.json holds."""
    begun = time.perf_counter()
    launcher.Kernels(args.cache)
    loaded = time.perf_counter()
    kernels = launcher.Kernels(args.cache)
    compile_s, load_s = loaded - begun, time.perf_counter() - loaded
    report = Report()
    stream = driver.Stream()
    try:
        for question in cases.questions(args.quick or args.small):
            if not args.small or is_small(question):
                report.take(question.group, question.name,
                            lambda: answer(driver, kernels, question, stream))
        for shape in cases.frame_shapes(args.quick or args.small):
            report.take("frames to planes", "%d frames of %d x %d" % shape,
                        lambda: planes(driver, kernels, shape, stream))
    except driver.Error as error:
        report.wrong("%s: CUDA: %s; nothing more was asked" % (report.asking, error))
    return {"compile_s": compile_s, "load_s": load_s,
            "groups": list(report.groups.values()), "wrong": report.problems}


def is_small(question: cases.Question) -> bool:
    """Whether a memory checker, a hundred times slower, gets through it in seconds."""
    return question.group in GROUPS_OF_SMALL and question.embeddings.shape[1] == SMALL_DIMENSION


class Report:
    """What came of the questions so far, by groups."""

    def __init__(self):
        self.asking = ""
        self.groups = collections.OrderedDict()
        self.problems = []

    def take(self, group: str, name: str, ask) -> None:
        """Ask one question: `ask()` returns (what is wrong, share of the leeway used)."""
        self.asking = name
        counts = self.groups.setdefault(
            group, {"name": group, "asked": 0, "most_of_leeway": 0.0, "left_out": []})
        try:
            problem, used = ask()
        except TooLarge as error:
            counts["left_out"].append("%s: %s" % (name, error))
            return
        counts["asked"] += 1
        if problem:
            self.wrong("%s: %s" % (name, problem))
        else:
            counts["most_of_leeway"] = max(counts["most_of_leeway"], round(used, 3))

    def wrong(self, text: str) -> None:
        """Note a wrong answer, and say it at once."""
        self.problems.append(text)
        print("WRONG: " + text, file=sys.stderr, flush=True)


def answer(driver, kernels, question, stream):
    """Ask the GPU and judge; (what is wrong or "", share of the leeway used)."""
    index, distance = ask(driver, kernels, question, stream)
    problem, used = cases.judge(question, index, distance)
    for row in () if problem else question.again:
        for offset in (0, 4, 8):
            alone = question._replace(rows=np.array([row]))
            other = ask(driver, kernels, alone, stream, offset)
            if other[0][0].tobytes() != index[row].tobytes() or (
                    other[1][0].tobytes() != distance[row].tobytes()):
                problem = "row %d alone, %d bytes into its memory, gets another answer" % (
                    row, offset)
    return problem, used


def ask(driver, kernels, question, stream, offset=0):
    """What the GPU says: (index int32 [N, n], distance float32 [N, n])."""
    count, dimension = question.count, question.embeddings.shape[1]
    neighbours = min(question.neighbours, len(question.centroids))
    with Memory(driver) as memory:
        memory.room(count * (dimension + 2 * neighbours) * 4 + question.centroids.nbytes)
        given = memory.up(question.embeddings, question.rows, offset)
        # Filled, so that what the kernel does not write is no answer left from the one before.
        index = memory.up(np.full((count, neighbours), -7, np.int32))
        distance = memory.up(np.full((count, neighbours), -7, np.float32))
        with launcher.Lookup(kernels, question.centroids, question.stored) as lookup:
            lookup.nearest(given, count, neighbours, index, distance, stream)
            return (memory.down(index, (count, neighbours), np.int32, stream),
                    memory.down(distance, (count, neighbours), np.float32, stream))


def planes(driver, kernels, shape, stream):
    """Turn frames into planes on the GPU; (what is wrong or "", 0)."""
    frames = cases.frames(shape)
    count, height, width = shape
    with Memory(driver) as memory:
        memory.room(frames.size * 5)
        given = memory.up(frames)
        made = memory.up(np.full((count, 3, height, width), -7, np.float32))
        kernels.planes(given, count, height, width, made, stream)
        found = memory.down(made, (count, 3, height, width), np.float32, stream)
    different = int((found != frames.transpose(0, 3, 1, 2)).sum())
    if different:
        return "%d of %d numbers are not the frames'" % (different, found.size), 0.0
    return "", 0.0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
