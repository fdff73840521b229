"""`tools/bench scale`: what an image costs when the catalog holds a thousand, and when a million.

A catalog on disk grows to each size through the rover's own code (filling.py); then one image, or
a batch, is recorded and the queue published, again and again, in turns with a fresh catalog of
1,000, so that a ratio compares like with like. Every stage runs in a process of its own, which says
what it costs in memory. Then: a start, a pass, a policy that values images otherwise, another
codebook.

Bytes written are the kernel's count of what a process made dirty for a disk (write_bytes of
/proc/self/io, whole pages of 4 KB): the catalog, its log, the queue file and previews, but not what
the file system writes about its own files. SQLite moves its log into the catalog once in about a
thousand images, so they are counted over more images than that, from one such move to another.
"""

import argparse
import multiprocessing
import os
import shutil
import sqlite3
import statistics
import tempfile
import time

import filling
import machine

from jetson_cluster import codebook, daemon, passes
from jetson_cluster.downlink import read_queue
from jetson_cluster.policy import EMPTY

SIZES = (1000, 10000, 100000, 1000000)
BYTES_PER_IMAGE = 9000  # of disk, with room for the log
SMALL = SIZES[0]
BATCH, ROUNDS, ROUND = 8, 12, 40  # a round: so many images one by one, then so many in batches
WRITTEN_OVER = 2016  # images; a multiple of PUBLISH_EVERY
PUBLISH_EVERY = 24  # images: one publish a second at what a Nano is expected to embed
PASS_BYTES = 20 * 10 ** 6
PASS_ROWS = 1024  # more than such a pass looks at
NEW = 10 ** 8  # numbers of images that come after the filling


def main():
    """Print both tables, a line of each as soon as it is known."""
    parser = argparse.ArgumentParser(prog="tools/bench scale")
    parser.add_argument("--most", type=int, default=100000, metavar="IMAGES",
                        help="stop at this size (default %(default)s; 1000000 needs 9 GB of disk)")
    parser.add_argument("--in", dest="folder", metavar="FOLDER", default=machine.ROOT,
                        help="on the disk to measure; nothing is left there (default: checkout)")
    args = parser.parse_args()
    sizes = [size for size in SIZES if size <= args.most] or [args.most]
    needed, free = sizes[-1] * BYTES_PER_IMAGE, shutil.disk_usage(args.folder).free
    if needed > free:
        parser.error("%d images need %.1f GB of disk, %s has %.1f GB free" % (
            sizes[-1], needed / 1e9, args.folder, free / 1e9))
    print("%s; D = %d, %d clusters, previews of %d bytes\n" % (
        machine.kind(), filling.DIMENSION, filling.CENTRES, filling.PREVIEW_BYTES))
    with tempfile.TemporaryDirectory(prefix=".bench-scale-", dir=args.folder) as folder:
        measured = grow(folder, sizes)
    print(machine.table(
        ["images", "one recorded, ms", "in batches of %d, ms each" % BATCH, "a publish, ms",
         "cost of an image, ms", "÷ that at 1,000", "written for an image, KB",
         "of it the queue file, KB", "catalog, KB an image", "peak memory, MB"],
        [turns_row(size, *found[:4]) for size, found in measured]) + "\n")
    print("Cost of an image and what is written for it: in batches of %d, with a publish every %d.\n"
          % (BATCH, PUBLISH_EVERY))
    print(machine.table(
        ["images", "a start, to its queue, s", "a pass of 20 MB, ms",
         "weights changed, to the new queue, ms",
         "`explore` changed, s per 1,000 images", "longest turn, ms", "written an image, KB",
         "another codebook, s per 1,000 images", "longest turn, ms", "written an image, KB"],
        [changes_row(size, *found[3:]) for size, found in measured]))


def grow(folder, sizes):
    """[(size, what every stage found)]."""
    big, measured, before = os.path.join(folder, "big"), [], 0
    os.mkdir(big)
    filling.fit(big, "codebook.npz", filling.CENTRES, 1)
    filling.fit(big, "other.npz", filling.CENTRES * 3 // 4, 2)
    for size in sizes:
        alone(filling.fill, big, before, size)
        before = size
        size_each = catalog_bytes(big) / size
        small = os.path.join(folder, "small-%d" % size)
        os.mkdir(small)
        shutil.copy(os.path.join(big, "codebook.npz"), small)
        alone(filling.fill, small, 0, SMALL)
        measured.append((size, (
            alone(turns, small, big), alone(write, big), size_each, alone(start, big),
            alone(make_pass, big), alone(revalue, big), alone(replace_codebook, big))))
        shutil.rmtree(small)
        print("measured at %s images" % grouped(size), flush=True)
    print()
    return measured


def alone(stage, *arguments):
    """Run one stage in a new process; what it returns."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(stage, arguments)


# ---- the stages; each returns a dict ------------------------------------------------------------


def turns(small, big):
    """Record and publish in turns on both catalogs: milliseconds, for each of the two."""
    found = [{"one": [], "batch": [], "publish": []} for _ in (small, big)]
    with filling.rover(small) as one, filling.rover(big) as other:
        for rover in (one, other):
            assert rover.placing.progress.done == rover.placing.progress.total
            rover.publish(EMPTY)
        for number in range(ROUNDS):
            # Who goes first takes turns as well.
            for which in ((0, 1), (1, 0))[number % 2]:
                one_round((one, other)[which], (small, big)[which], number, found[which])
    return found


def one_round(rover, folder, number, found):
    """One by one, then in batches, with a publish now and then."""
    single = filling.images(folder, NEW + catalogued(rover), ROUND)
    batched = filling.images(folder, NEW + catalogued(rover) + ROUND, ROUND)
    found["one"].append(per(ROUND, lambda: [rover.record([image]) for image in single]))
    found["batch"].append(per(ROUND, lambda: [
        rover.record(batched[start:start + BATCH]) for start in range(0, ROUND, BATCH)]))
    found["publish"].append(per(1, lambda: rover.publish(EMPTY)))


def write(folder):
    """Bytes written for an image, moves of the log into the catalog included."""
    with filling.rover(folder) as rover:
        rover.publish(EMPTY)
        move_log(folder)
        begun, for_publishing = bytes_written(), 0
        for number in range(BATCH, WRITTEN_OVER + BATCH, BATCH):
            rover.record(filling.images(folder, NEW + catalogued(rover), BATCH))
            if number % PUBLISH_EVERY == 0:
                before = bytes_written()
                rover.publish(EMPTY)
                for_publishing += bytes_written() - before
        move_log(folder)
        return {"all": (bytes_written() - begun) / WRITTEN_OVER,
                "publishing": for_publishing / WRITTEN_OVER}


def move_log(folder):
    """Have SQLite write into the catalog what stands in its log."""
    database = sqlite3.connect(os.path.join(folder, "state", "catalog.sqlite"))
    busy, pages, moved = database.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
    database.close()
    assert not busy and pages == moved


def catalogued(rover):
    """Images in the catalog, whatever their state."""
    return sum(count for state, count in rover.catalog.counts.items() if state != "refused")


def start(folder):
    """From opening the files to a written queue; then the memory after some turns."""
    assert daemon  # imported, as it counts in the daemon's memory
    begun = time.perf_counter()
    with filling.rover(folder) as rover:
        rover.publish(EMPTY)
        took = time.perf_counter() - begun
        for number in range(ROUND):
            rover.record(filling.images(folder, NEW + catalogued(rover), BATCH))
            rover.publish(EMPTY)
    return {"start_s": took, "peak_mb": peak_mb()}


def make_pass(folder):
    """A pass as the verb makes it, the catalog just opened; and the daemon's next queue."""
    with filling.rover(folder) as rover:
        filling.put_files(rover, PASS_ROWS)
    begun = time.perf_counter()
    with filling.rover(folder) as rover:
        report = passes.make_pass(
            rover.catalog,
            passes.Downlink(rover.head, EMPTY, rover.config.queue.path, lambda: True),
            PASS_BYTES, "bench", "2031-04-09T05:17:00Z")
        took = time.perf_counter() - begun
        assert report.number and report.bytes > 0.9 * PASS_BYTES, report.words
        heavier = EMPTY._replace(weights={0: 3.0})
        return {"pass_ms": 1000 * took, "weights_ms": per(1, lambda: rover.publish(heavier))}


def revalue(folder):
    """A policy whose `explore` is another one: every image is valued anew."""
    with filling.rover(folder) as rover:
        rover.publish(EMPTY)
        wanted = EMPTY._replace(explore=0.7)
        rover.placing.use(codebook.load(os.path.join(folder, "codebook.npz")), wanted)
        return place_all(rover, wanted)


def replace_codebook(folder):
    """Another codebook: every image is placed anew from its stored embedding."""
    with filling.rover(folder, clusters="other.npz") as rover:
        return place_all(rover, EMPTY)


def place_all(rover, policy):
    """Turn until everything is placed; the queue on disk stays whole meanwhile."""
    written, longest, begun, number = bytes_written(), 0.0, time.perf_counter(), 0
    total = rover.placing.progress.total
    rows = len(read_queue(rover.config.queue.path))
    while rover.placing.progress.done < total:
        turn = time.perf_counter()
        rover.placing.place_some()
        longest = max(longest, time.perf_counter() - turn)
        number += 1
        if number % 50 == 0:
            rover.publish(policy)
            assert len(read_queue(rover.config.queue.path)) == rows
    took = time.perf_counter() - begun
    assert total and rover.publish(policy)
    return {"s_per_1000": 1000 * took / total, "longest_ms": 1000 * longest,
            "written": (bytes_written() - written) / total}


# ---- what is read off ----------------------------------------------------------------------------


def per(count, work):
    """Milliseconds for each of `count`."""
    begun = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - begun) / count


def bytes_written():
    """What this process made dirty for a disk since it started."""
    with open("/proc/self/io") as stream:
        fields = dict(line.split(": ") for line in stream)
    return int(fields["write_bytes"]) - int(fields["cancelled_write_bytes"])


def peak_mb():
    """The most memory that this process ever held, in MB."""
    with open("/proc/self/status") as stream:
        return next(int(line.split()[1]) for line in stream if line.startswith("VmHWM")) / 1024


def catalog_bytes(folder):
    """Of the database and its log."""
    state = os.path.join(folder, "state")
    return sum(os.path.getsize(os.path.join(state, name)) for name in os.listdir(state)
               if name.startswith("catalog"))


def turns_row(size, found, written, size_each, started):
    """One line of the first table."""
    small, big = found
    costs = [[batch + publish / PUBLISH_EVERY
              for batch, publish in zip(which["batch"], which["publish"])] for which in found]
    return [
        grouped(size), "%.2f" % statistics.median(big["one"]),
        "%.2f" % statistics.median(big["batch"]), "%.1f" % statistics.median(big["publish"]),
        "%.2f" % statistics.median(costs[1]),
        machine.median_and_spread([one / other for one, other in zip(costs[1], costs[0])]),
        "%.1f" % (written["all"] / 1000), "%.1f" % (written["publishing"] / 1000),
        "%.1f" % (size_each / 1000),
        "%.0f" % started["peak_mb"]]


def changes_row(size, started, passed, valued, placed):
    """One line of the second table."""
    return [grouped(size), "%.2f" % started["start_s"], "%.0f" % passed["pass_ms"],
            "%.0f" % passed["weights_ms"]] + [
        cell for found in (valued, placed) for cell in (
            "%.3f" % found["s_per_1000"], "%.0f" % found["longest_ms"],
            "%.1f" % (found["written"] / 1000))]


def grouped(number):
    return "{:,}".format(number)


if __name__ == "__main__":
    main()
