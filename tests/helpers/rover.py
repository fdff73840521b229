"""A rover's folders and settings, and daemons over them; for the tests of the daemon."""

import contextlib
import csv
import json
import os
import threading
import time

import numpy as np
from PIL import Image

from jetson_cluster import codebook, config, daemon, loops, recipe
from jetson_cluster.embedder import open_embedder

COLOURS = {"red": (200, 40, 30), "green": (40, 190, 60), "blue": (30, 60, 200), "grey": (128,) * 3}


def picture(colour, seed):
    """A noisy picture of one colour: same colour, same kind; each seed another content."""
    random = np.random.RandomState(seed)
    pixels = np.array(COLOURS[colour])[None, None] + random.randint(-25, 26, (48, 64, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def drop(folder, name, colour, seed):
    """Put a picture into the folder the best way: written beside, renamed into place."""
    part = folder / (name + ".part")
    picture(colour, seed).save(str(part), "PNG")
    part.rename(folder / name)
    return folder / name


class Rover:
    """A rover's folders and settings, and daemons over them."""

    def __init__(self, folder, model):
        self.folder, self.inbox = folder, folder / "inbox"
        self.state, self.policy = folder / "state", folder / "policy.yaml"
        self.codebook, self.config = folder / "codebook.npz", folder / "config.yaml"
        self.orders = folder / "orders"
        self.inbox.mkdir()
        self.orders.mkdir()
        self.config.write_text(
            "state_dir: state\nmodel: {}\ncodebook: codebook.npz\npolicy: policy.yaml\n"
            "embedder: onnxruntime\nthreads: 1\n"
            "inbox: {{path: inbox, settle_s: 0.05, rescan_s: 0.3}}\n"
            "queue: {{rows: 50, interval_s: 0.1}}\norders: {{path: orders}}\n"
            "retention: {{free_bytes: 0}}\n".format(model))
        self.model = model

    def settings(self, *overrides):
        return config.load(str(self.config), overrides)

    def once(self, *overrides):
        """Empty the inbox, as `jetson-cluster once` does."""
        with daemon.Daemon(self.settings(*overrides), environment={}) as opened:
            loops.once(opened, threading.Event())

    @contextlib.contextmanager
    def running(self):
        """The daemon in a thread, stopped and joined at the end."""
        stop, failures = threading.Event(), []
        ready = threading.Event()
        holder = []

        def work():
            try:
                with daemon.Daemon(self.settings(), environment={}) as opened:
                    holder.append(opened)
                    ready.set()
                    loops.run(opened, stop)
            except Exception as error:
                failures.append(error)
                ready.set()

        thread = threading.Thread(target=work)
        thread.start()
        assert ready.wait(60)
        try:
            yield
        finally:
            stop.set()
            for opened in holder:
                opened.wake.set()
            thread.join(60)
        assert not failures, failures

    def queue(self):
        with open(str(self.state / "queue.csv"), encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))

    def names(self):
        return [os.path.basename(row["path"]) for row in self.queue()]

    def status(self):
        return json.loads((self.state / "status.json").read_text())

    def images(self):
        """How many images in each state, by the status; of the states that any is in."""
        return {state: count for state, count in self.status()["images"].items() if count}

    def make_codebook(self, colours, path=None):
        """A codebook with one cluster a colour, in that order."""
        model = recipe.load_model(self.model)
        with open_embedder("onnxruntime", model, 8) as embedder:
            frames = np.stack([np.array(picture(colour, 1000).resize((32, 32)))
                               for colour in colours])
            centroids = codebook.normalise(embedder.embed(frames))
        ramp = np.linspace(0, 1, codebook.QUANTILE_POINTS).astype(np.float32)
        made = codebook.Codebook(
            space=model.space, normalisation="l2", centroids=centroids,
            counts=np.full(len(colours), 10), scales=np.full(len(colours), 0.1, np.float32),
            novelty_quantiles=2 * ramp, margin_quantiles=ramp, r50=1.0, r95=1.9)
        codebook.save(str(path or self.codebook), made)


def until(true, seconds=180):
    """Wait for something another thread brings about."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.02)
