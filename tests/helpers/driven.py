"""A daemon driven turn by turn, with a clock that is passed in and a folder that stands for /sys."""

import csv
import json
import os

import numpy as np
from PIL import Image

from jetson_cluster import config, daemon
from jetson_cluster.walker import look

TURN_S = 0.1
BATCH = 8  # of the tiny network's recipe


def some(letter, count):
    return ["%s%03d.png" % (letter, number) for number in range(count)]


class Rover:
    """Folders, settings, a clock and temperatures; `with rover.daemon() as opened` drives it."""

    def __init__(self, folder, model):
        self.folder, self.inbox, self.state = folder, folder / "inbox", folder / "state"
        self.sys, self.now, self.opened, self.begun = folder / "sys", 5000.0, None, []
        self.inbox.mkdir()
        (folder / "orders").mkdir()
        (folder / "config.yaml").write_text(
            "state_dir: state\nmodel: {}\ncodebook: codebook.npz\npolicy: policy.yaml\n"
            "embedder: onnxruntime\nthreads: 1\n"
            "inbox: {{path: inbox, settle_s: 0.05, rescan_s: 0.3}}\n"
            "queue: {{rows: 1000, interval_s: 0.1}}\norders: {{path: orders}}\n"
            "retention: {{free_bytes: 0}}\n".format(model))
        self.temperature(30)

    def temperature(self, gpu_c):
        zone = self.sys / "class" / "thermal" / "thermal_zone1"
        zone.mkdir(parents=True, exist_ok=True)
        (zone / "type").write_text("GPU-therm\n")
        (zone / "temp").write_text("%d\n" % (1000 * gpu_c))

    def drop(self, *names):
        """Pictures, each of its own content, which its name decides."""
        for name in names:
            noise = np.random.RandomState(sum(map(ord, name)) * 31 + len(name)).randint(
                0, 256, (8, 8, 3))
            noise[0, 0] = [int(number) for number in os.fsencode(name)[:3].ljust(3)]
            part = self.inbox / (name + ".part")
            Image.fromarray(noise.astype(np.uint8)).save(str(part), "PNG")
            part.rename(self.inbox / name)

    def seen(self, *names):
        """The files as the inbox sees them."""
        return [look(str(self.inbox / name)) for name in names]

    def daemon(self, *overrides, **more):
        """The daemon; (time, degrees, names) of every batch that it begins to embed is noted."""
        opened = daemon.Daemon(
            config.load(str(self.folder / "config.yaml"), overrides), environment=more,
            monotonic=lambda: self.now, sysfs=str(self.sys))
        submit = opened._pipeline.submit

        def noting(arrivals):
            self.begun.append((self.now, opened._heat.zones.get("GPU-therm"),
                               [os.path.basename(arrival.path) for arrival in arrivals]))
            submit(arrivals)

        opened._pipeline.submit = noting
        self.opened = opened
        return opened

    def turn(self, turns=1):
        for _ in range(turns):
            self.opened.step()
            self.now += TURN_S

    def until(self, true, most=2000):
        for _ in range(most):
            if true():
                return
            self.turn()
        raise AssertionError("did not come true in %d turns" % most)

    def counts(self):
        """(queued, waiting, missing)"""
        counts = self.opened._catalog.counts
        return counts["queued"], counts["waiting"], counts["missing"]

    def embedded(self):
        """Every name whose embedding was begun, in order."""
        return [name for _, _, names in self.begun for name in names]

    def names(self):
        with open(str(self.state / "queue.csv"), encoding="utf-8", newline="") as stream:
            return sorted(os.path.basename(row["path"]) for row in csv.DictReader(stream))

    def status(self):
        return json.loads((self.state / "status.json").read_text())

    def images(self):
        """How many images in each state, by the status; of the states that any is in."""
        return {state: count for state, count in self.status()["images"].items() if count}


class Clock:
    """Stands for the daemon's `wake`: to wait moves the passed-in clock and changes the weather."""

    def __init__(self, rover, weather=lambda now: None):
        self.rover, self.weather = rover, weather

    def clear(self):
        """Nothing wakes the loop but time."""

    def wait(self, seconds):
        assert seconds > 0 or self.rover.opened._publisher.stale
        self.rover.now += max(seconds, 0.01)
        self.weather(self.rover.now)


class Running(Clock):
    """The clock runs on with every turn as well."""

    def clear(self):
        self.wait(0.5)
