"""A hundred thousand images through the real loop: memory stays flat, nothing is lost or twice."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import faults
import pytest

HERE = pathlib.Path(__file__).resolve().parent
IMAGES = 100000
GROWN_KB_AT_MOST = 16 * 1024  # from a tenth of the images to all of them
LEAST_PER_S = 5  # below this something holds the loop up; it is no measure of speed


def soak(folder, model, images, wave, root):
    """Run it; one dict a wave."""
    done = subprocess.run(
        [sys.executable, str(HERE / "soaking.py"), folder, model, str(images), str(wave)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(
            [str(root), str(HERE), str(HERE.parent / "helpers")])))
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def show(waves):
    print("\n%8s %10s %10s %12s %8s %6s" % (
        "images", "memory MB", "images/s", "kB written", "threads", "files"))
    for wave in waves:
        print("%8d %10.1f %10.1f %12.1f %8d %6d" % (
            wave["images"], wave["resident_kb"] / 1024, wave["images_per_s"],
            wave["written_per_image"] / 1000, wave["threads"], wave["descriptors"]))


@pytest.mark.skipif(not faults.SOAK, reason="100,000 images take some minutes: tools/test --soak")
def test_a_hundred_thousand_images_leave_memory_flat(tiny, root):
    folder = tempfile.mkdtemp()  # on a disk, and not kept as tmp_path is: it takes a gigabyte
    try:
        waves = soak(folder, tiny, IMAGES, 1000, root)
    finally:
        shutil.rmtree(folder)
    show(waves[::10] + waves[-1:])
    tenth, last = waves[len(waves) // 10], waves[-1]
    assert last["images"] == IMAGES
    assert last["resident_kb"] - tenth["resident_kb"] <= GROWN_KB_AT_MOST
    assert last["threads"] == tenth["threads"] and last["descriptors"] <= tenth["descriptors"] + 2
    assert min(wave["images_per_s"] for wave in waves) >= LEAST_PER_S


def test_some_hundred_images_through_the_real_loop_are_all_there_once(tiny, root):
    folder = faults.quick_folder()
    try:
        waves = soak(folder, tiny, 300, 100, root)
    finally:
        shutil.rmtree(folder)
    assert [wave["images"] for wave in waves] == [100, 200, 300]
