"""Every way a camera might put files into the inbox: each content ends up in the catalog exactly once.

The daemon runs in its own thread with the real inbox, real events and a real (tiny) network while the
camera writes.
"""

import hashlib
import os
import sqlite3
import threading
import time

import numpy as np
import pytest
from PIL import Image

from jetson_cluster import config, daemon, loops

BURST = 5000


class Camera:
    """Writes pictures into the inbox and remembers every content it finished."""

    def __init__(self, inbox):
        self.inbox = inbox
        self.finished = set()
        self._seed = 0

    def content(self):
        """The bytes of a picture never taken before."""
        self._seed += 1
        random = np.random.RandomState(self._seed)
        path = self.inbox.parent / "shot.png"
        Image.fromarray(random.randint(0, 256, (8, 8, 3)).astype(np.uint8)).save(str(path))
        return path.read_bytes()

    def keep(self, content):
        self.finished.add(hashlib.sha256(content).hexdigest())

    def in_place_slowly(self, name):
        content = self.content()
        with open(str(self.inbox / name), "wb") as stream:
            for start in range(0, len(content), 64):
                stream.write(content[start:start + 64])
                stream.flush()
                time.sleep(0.01)
        self.keep(content)

    def renamed_in(self, name):
        content = self.content()
        outside = self.inbox.parent / name
        outside.write_bytes(content)
        outside.rename(self.inbox / name)
        self.keep(content)

    def renamed_within(self, name):
        content = self.content()
        part = self.inbox / (name + ".part")
        part.write_bytes(content)
        part.rename(self.inbox / name)
        self.keep(content)

    def hard_linked(self, name):
        content = self.content()
        outside = self.inbox.parent / ("linked-" + name)
        outside.write_bytes(content)
        os.link(str(outside), str(self.inbox / name))
        self.keep(content)

    def in_a_new_folder(self, name):
        content = self.content()
        folder = self.inbox / ("sol-" + name)
        folder.mkdir()
        (folder / name).write_bytes(content)
        self.keep(content)

    def rewritten(self, name, wait):
        """The same name three times; `wait` lets each version be seen before the next."""
        for _ in range(3):
            content = self.content()
            (self.inbox / name).write_bytes(content)
            wait(content)
            self.keep(content)

    def copied_again(self, name):
        """A content that came before, under another name: no new image."""
        source = next(entry for entry in sorted(os.listdir(str(self.inbox)))
                      if entry.endswith(".png"))
        content = (self.inbox / source).read_bytes()
        (self.inbox / name).write_bytes(content)


class Rover:
    """A daemon in a thread over fresh folders."""

    def __init__(self, folder, model):
        self.inbox = folder / "inbox"
        self.inbox.mkdir()
        self._config = folder / "config.yaml"
        self._config.write_text(
            "state_dir: state\nmodel: {}\ncodebook: codebook.npz\npolicy: policy.yaml\n"
            "embedder: onnxruntime\nthreads: 1\nbatch: 64\nlog_level: warning\n"
            "inbox: {{path: inbox, settle_s: 0.15, rescan_s: 1}}\n".format(model))
        self._catalog = folder / "state" / "catalog.sqlite"
        self._stop = threading.Event()
        self._thread = None

    def __enter__(self):
        self._daemon = daemon.Daemon(config.load(str(self._config)), environment={})
        self._daemon.close()  # settings are good; the thread opens its own
        self._thread = threading.Thread(target=self._work)
        self._thread.start()
        return self

    def _work(self):
        with daemon.Daemon(config.load(str(self._config)), environment={}) as opened:
            self._daemon = opened
            loops.run(opened, self._stop)

    def __exit__(self, *_exception):
        self._stop.set()
        self._daemon.wake.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def catalogued(self):
        """The contents in the catalog, as a list so that a double would show."""
        with sqlite3.connect(str(self._catalog)) as db:
            return [row[0].hex() for row in db.execute("SELECT sha256 FROM images")]

    def has(self, content):
        return hashlib.sha256(content).hexdigest() in self.catalogued()

    def until(self, true, seconds=120):
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, "did not come true"
            assert self._thread.is_alive(), "the daemon ended"
            time.sleep(0.05)


def test_each_content_is_catalogued_exactly_once_however_it_comes(tmp_path, tiny):
    rover = Rover(tmp_path, tiny)
    camera = Camera(rover.inbox)
    for number in range(5):
        camera.renamed_in("before-%d.png" % number)  # before the daemon starts
    early = threading.Thread(target=lambda: [
        camera.renamed_within("during-%d.png" % number) for number in range(50)])
    early.start()  # while it starts
    with rover:
        early.join()
        camera.in_place_slowly("slow.png")
        for number in range(5):
            camera.renamed_in("in-%d.png" % number)
            camera.renamed_within("within-%d.png" % number)
            camera.hard_linked("link-%d.png" % number)
            camera.in_a_new_folder("deep-%d.png" % number)
            camera.copied_again("copy-%d.png" % number)
        camera.rewritten("again.png", lambda content: rover.until(lambda: rover.has(content)))
        rover.until(lambda: camera.finished <= set(rover.catalogued()))
        time.sleep(1.5)  # another walk must add nothing
    found = rover.catalogued()
    assert len(found) == len(set(found)) and set(found) == camera.finished


@pytest.mark.parametrize("how", ["renamed", "written"])
def test_a_burst_of_5000_is_catalogued_completely(tmp_path, tiny, how):
    rover = Rover(tmp_path, tiny)
    camera = Camera(rover.inbox)
    with rover:
        for number in range(BURST):
            if how == "renamed":
                camera.renamed_within("%05d.png" % number)
            else:
                content = camera.content()
                (rover.inbox / ("%05d.png" % number)).write_bytes(content)
                camera.keep(content)
        rover.until(lambda: len(rover.catalogued()) >= BURST)
    found = rover.catalogued()
    assert len(found) == BURST and set(found) == camera.finished
