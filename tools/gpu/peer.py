"""Times what the lookup is compared with: cuBLAS's SGEMM and an argmin, by CuPy.

    python -m gpu.peer RESULT.json [--quick] [--tf32]

Out: a JSON file:

    library     "cupy 14.2.0"; "" where there is none
    absent      why there is none; "" where there is
    tf32        whether tensor cores may round the product's numbers to 10 bits
    rows        [{rows, k, dimension, ms, ms_least, ms_most, runs, agrees, left_out}]: agrees is the
                share of rows for which it finds the centroid that float64 finds

It is given less to do than the kernels do: rows are of length 1 already, one centroid is asked for
and no distance. Timed as `timing` says, with the library's own events.
"""

import argparse
import json
import os
import sys

from gpu import cases, timing
from jetson_cluster import codebook

CHECKED = 256  # rows


def main(arguments) -> int:
    """The program described above."""
    parser = argparse.ArgumentParser(prog="gpu.peer")
    parser.add_argument("result")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tf32", action="store_true")
    args = parser.parse_args(arguments)
    result = {"library": "", "absent": "", "tf32": args.tf32, "rows": []}
    try:
        library = Cupy(args.tf32)
    except (ImportError, RuntimeError) as error:
        result["absent"] = in_a_line(error)
    else:
        result["library"] = library.name
        result["rows"] = [compared(library, size, args.quick) for size in timing.sizes(args.quick)]
    with open(args.result, "w", encoding="utf-8") as stream:
        json.dump(result, stream)
    return 0


def compared(library, size, quick) -> dict:
    """The figures of one size."""
    figures = dict(size._asdict(), ms=None, ms_least=None, ms_most=None, runs=0, agrees=None,
                   left_out="")
    given = timing.data(size)
    points = codebook.normalise(given.embeddings)
    rows = cases.repeated(len(points), size.rows)
    try:
        work = library.lookup(points[rows], given.centroids)
        flush = library.flush(timing.flush_bytes(quick, library.free_bytes()))
        figures.update(timing.measured(lambda runs: library.times(flush, work, runs), quick))
    except (MemoryError, RuntimeError) as error:
        return dict(figures, left_out=in_a_line(error))
    truth = cases.true_distances(points[rows[:CHECKED]], given.centroids).argmin(axis=1)
    return dict(figures, agrees=float((library.found()[:CHECKED] == truth).mean()))


def in_a_line(error) -> str:
    """An error's words, shortened."""
    return " ".join(str(error).split())[:200]


class Cupy:
    """CuPy. Raises ImportError where it is not installed, RuntimeError where it sees no GPU."""

    def __init__(self, tf32):
        os.environ["CUPY_TF32"] = "1" if tf32 else "0"  # read when it is imported
        import cupy

        self._cupy = cupy
        cupy.cuda.Device(0).use()
        self.name = "cupy " + cupy.__version__

    def free_bytes(self):
        return self._cupy.cuda.runtime.memGetInfo()[0]

    def lookup(self, points, centroids):
        """What is to be timed."""
        cupy = self._cupy
        rows, columns = cupy.asarray(points), cupy.asarray(centroids).T
        half_norms = cupy.asarray(timing.half_squared_lengths(centroids))
        scores = cupy.empty((len(points), len(centroids)), cupy.float32)
        self._index = cupy.empty(len(points), cupy.int64)

        def work():
            cupy.matmul(rows, columns, out=scores)
            cupy.subtract(half_norms, scores, out=scores)
            cupy.argmin(scores, axis=1, out=self._index)
        return work

    def found(self):
        return self._cupy.asnumpy(self._index)

    def flush(self, size):
        cupy = self._cupy
        source, target = cupy.zeros(size, cupy.uint8), cupy.empty(size, cupy.uint8)
        return lambda: cupy.copyto(target, source)

    def times(self, flush, work, runs):
        cuda = self._cupy.cuda
        pairs = [(cuda.Event(), cuda.Event()) for _ in range(runs)]
        for before, after in pairs:
            flush()
            before.record()
            work()
            after.record()
        cuda.Device().synchronize()
        return [cuda.get_elapsed_time(before, after) for before, after in pairs]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
