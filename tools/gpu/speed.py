"""Times the kernels on this machine's GPU by CUDA events, beside a plain copy of memory.

    python -m gpu.speed CACHE RESULT.json [--quick]

Out: a JSON file; ms, ms_least, ms_most, runs are the median and the ends of so many runs:

    copy        {bytes, gb_s, ms..}: device to device; gb_s counts bytes read and bytes written
    empty_ms    between two events with nothing between them; it is in every ms
    nearest     [{rows, k, dimension, stored, ms.., gb_s, share_of_copy, gflop_s, left_out}]: gb_s
                of the embeddings, centroids and answers, each once; gflop_s of 2 N k D
    planes      [{frames, height, width, ms.., gb_s, share_of_copy}]: of bytes read and written
    wrong       [text]; a CUDA error ends the measuring

Clocks are left as they are.
"""

import argparse
import json
import sys

from gpu import cases, timing
from gpu.device import Memory, TooLarge, context
from jetson_cluster.cuda import launcher

NEIGHBOURS = 4  # what the daemon asks for
FRAMES = ((1, 299, 299), (8, 299, 299))
QUICK_FRAMES = ((1, 31, 33),)


def main(arguments) -> int:
    """The program described above."""
    parser = argparse.ArgumentParser(prog="gpu.speed")
    parser.add_argument("cache")
    parser.add_argument("result")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args(arguments)
    result = {"copy": None, "empty_ms": None, "nearest": [], "planes": [], "wrong": []}
    with context() as driver:
        try:
            measure(driver, launcher.Kernels(args.cache), args.quick, result)
        except driver.Error as error:
            result["wrong"].append("CUDA: %s; nothing more was measured" % error)
        # Here, for a context that is lost ends the process when it is left.
        with open(args.result, "w", encoding="utf-8") as stream:
            json.dump(result, stream)
    return 0


def measure(driver, kernels, quick, result) -> None:
    """Fill in the result, line by line: what was measured before an error stays."""
    with Memory(driver) as memory:
        clock = Clock(driver, memory, quick)
        copied = clock.measured(clock.flush)
        bandwidth = 2 * clock.size / copied["ms"] / 1e6
        result["copy"] = dict(copied, bytes=clock.size, gb_s=bandwidth)
        result["empty_ms"] = clock.measured(lambda: None)["ms"]
        for size in timing.sizes(quick):
            for stored in cases.STORED:
                result["nearest"].append(dict(size._asdict(), stored=stored, **nearest(
                    driver, kernels, clock, size, stored, bandwidth)))
        for shape in QUICK_FRAMES if quick else FRAMES:
            result["planes"].append(planes(driver, kernels, clock, shape, bandwidth))


class Clock:
    """Times what is launched into its stream, each run after a copy that flushes the caches."""

    def __init__(self, driver, memory, quick):
        self.stream = driver.Stream()
        self.size = timing.flush_bytes(quick, driver.mem_get_info()[0])
        self._driver = driver
        self._quick = quick
        self._from, self._to = memory.allocate(self.size), memory.allocate(self.size)
        driver.memset_d8(self._from, 0, self.size)

    def flush(self) -> None:
        """Copy the one large piece of memory to the other."""
        self._driver.memcpy_dtod_async(self._to, self._from, self.size, self.stream)

    def measured(self, launch) -> dict:
        """Milliseconds of many calls of `launch`."""
        return timing.measured(lambda runs: self._times(launch, runs), self._quick)

    def _times(self, launch, runs) -> list:
        pairs = [(self._driver.Event(), self._driver.Event()) for _ in range(runs)]
        for before, after in pairs:
            self.flush()
            before.record(self.stream)
            launch()
            after.record(self.stream)
        self.stream.synchronize()
        return [before.time_till(after) for before, after in pairs]


def nearest(driver, kernels, clock, size, stored, bandwidth) -> dict:
    """The figures of one lookup."""
    given = timing.data(size)
    neighbours = min(NEIGHBOURS, size.k)
    answer_bytes = size.rows * neighbours * 4
    given_bytes = size.rows * size.dimension * 4
    figures = {"ms": None, "ms_least": None, "ms_most": None, "runs": 0, "gb_s": None,
               "share_of_copy": None, "gflop_s": None, "left_out": ""}
    try:
        with Memory(driver) as memory:
            memory.room(given_bytes + 2 * answer_bytes + given.centroids.nbytes)
            rows = cases.repeated(len(given.embeddings), size.rows)
            embeddings = memory.up(given.embeddings, rows)
            index, distance = memory.allocate(answer_bytes), memory.allocate(answer_bytes)
            with launcher.Lookup(kernels, given.centroids, stored) as lookup:
                figures.update(clock.measured(lambda: lookup.nearest(
                    embeddings, size.rows, neighbours, index, distance, clock.stream)))
    except TooLarge as error:
        return dict(figures, left_out=str(error))
    moved = given_bytes + 2 * answer_bytes + given.centroids.astype(stored).nbytes
    rate = moved / figures["ms"] / 1e6
    return dict(figures, gb_s=rate, share_of_copy=rate / bandwidth,
                gflop_s=2 * size.rows * size.k * size.dimension / figures["ms"] / 1e6)


def planes(driver, kernels, clock, shape, bandwidth) -> dict:
    """The figures of turning frames into planes."""
    frames = cases.frames(shape)
    count, height, width = shape
    with Memory(driver) as memory:
        given = memory.up(frames)
        made = memory.allocate(frames.size * 4)
        figures = clock.measured(
            lambda: kernels.planes(given, count, height, width, made, clock.stream))
    rate = frames.size * 5 / figures["ms"] / 1e6
    return dict(figures, frames=count, height=height, width=width, gb_s=rate,
                share_of_copy=rate / bandwidth)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
