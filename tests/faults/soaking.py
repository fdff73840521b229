"""Many small images through the real loop: python soaking.py FOLDER MODEL COUNT WAVE.

The network is real and tiny, the watcher, the clocks and the files are real. Images come in waves;
after each a pass takes some of them, and the pass before is acknowledged. Prints a line of JSON for
each.
"""

import contextlib
import json
import os
import pathlib
import sqlite3
import sys
import threading
import time

import numpy as np
import scenarios

from jetson_cluster import config, daemon

BYTES = 269  # of an image
WAIT_S = 300.0  # a wave that takes longer hangs


def drop_wave(inbox, wave, size):
    """A folder of small grey pictures, each of them another."""
    random = np.random.RandomState(wave)
    folder = inbox / ("sol%04d" % wave)
    folder.mkdir()
    for number in range(size):
        # Kinds of picture, so that there are clusters: a brightness and a slope, and noise.
        grey = random.randint(40, 200) + random.randint(-3, 4) * np.arange(16)[:, None]
        pixels = np.clip(grey + random.randint(-20, 21, (16, 16)), 0, 255).astype(np.uint8)
        path = folder / ("%04d.pgm" % number)
        part = folder / ("%04d.part" % number)
        part.write_bytes(b"P5 16 16 255\n" + pixels.tobytes())
        part.rename(path)


def turn_until(rover, done):
    """Turn until done() and nothing is left to do; events of new files take their time."""
    began = time.monotonic()
    while not (done() and rover.settled):
        assert time.monotonic() - began < WAIT_S, "a wave took more than %d s" % WAIT_S
        rover.wake.clear()
        if rover.step().idle:
            rover.wake.wait(min(rover.next_due_s(), 0.05))


def images_in(root):
    """How many images the catalog knows."""
    path = str(root / "own" / "state" / "catalog.sqlite")
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute(
            "SELECT SUM(images) FROM tallies WHERE state <> 'refused'").fetchone()[0]


def resident_kb():
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


def written_bytes():
    with open("/proc/self/io") as stream:
        return int(dict(line.split(": ") for line in stream.read().splitlines())["wchar"])


def main(folder, model, count, size):
    scenarios.make_rover(None, folder, model)
    root, orders = pathlib.Path(folder), pathlib.Path(folder, "own", "orders")
    with daemon.Daemon(config.load(str(root / "config.yaml")), environment={}) as rover:
        turn_until(rover, lambda: images_in(root) == len(scenarios.IMAGES))
        for wave in range(1, count // size + 1):
            drop_wave(root / "inbox", wave, size)
            written, began = written_bytes(), time.monotonic()
            turn_until(rover, lambda: images_in(root) == len(scenarios.IMAGES) + wave * size)
            took_s = time.monotonic() - began
            lines = ["p%d,pass,,%d\n" % (wave, BYTES * size // 3)]
            lines += ["a%d,ack,pass:%d\n" % (wave, wave - 1)] if wave > 1 else []
            (orders / ("%d.csv" % wave)).write_text("".join(lines))
            turn_until(rover, lambda: not list(orders.glob("*.csv")))
            print(json.dumps({
                "images": wave * size, "resident_kb": resident_kb(), "images_per_s": size / took_s,
                "written_per_image": (written_bytes() - written) / size,
                "threads": threading.active_count(),
                "descriptors": len(os.listdir("/proc/self/fd"))}), flush=True)
        rover.drain()
    told = [["passes", count // size]] + [
        ["order", "%s%d" % (kind, wave)] for wave in range(1, count // size + 1)
        for kind in "pa" if kind == "p" or wave > 1]
    scenarios.check_many(folder, told)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
