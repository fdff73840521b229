"""`tools/bench preview`: how true a preview is, and what it costs, per format and pictures.

Each format over the same pictures: real Mars tiles where they lie beside the checkout, and drawn
ones. "full size" are those that could keep the 128 x 96 pixels, or as many as the picture has of
them. PSNR is that of the preview at its own size; "enlarged", at full size, which is what an
operator sees. The milliseconds begin with the decoded image; to judge its quality is listed with
them, for both are done at once.
"""

import argparse
import glob
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time

import machine
import numpy as np
from PIL import Image

from jetson_cluster import preview, quality

TILES = os.path.join(machine.ROOT, "..", "shared", "mars", "cluster*.png")
DRAWER = os.path.join(machine.ROOT, "tools", "synthetic_mars.py")
ROUNDS = 5


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(prog="tools/bench preview")
    parser.add_argument("--images", type=int, default=72, help="drawn ones (default %(default)s)")
    parser.add_argument("--max-bytes", type=int, default=2048)
    args = parser.parse_args()
    print("%s, Pillow %s; at most %d bytes\n" % (machine.kind(), Image.__version__, args.max_bytes))
    rows = []
    for name, images in pictures(args.images):
        kinds = [("WebP", "webp"), ("palette", "palette"), ("JPEG, where there is no WebP", "jpeg")]
        rows += [[name, said] + measure(images, kind, args.max_bytes) for said, kind in kinds]
        judged = [times(quality.measure, image) for image in images]
        rows.append([name, "(quality)", "", "", "", "", machine.median_and_spread(judged)])
    print(machine.table(["pictures", "format", "bytes", "PSNR, dB", "enlarged, dB",
                         "full size", "ms"], rows))


def pictures(count):
    """(what they are, decoded images), the real ones first."""
    real = sorted(glob.glob(TILES))
    if real:
        yield "%d real tiles, about 147×131" % len(real), [opened(path) for path in real]
    with tempfile.TemporaryDirectory() as folder:
        drawn = os.path.join(folder, "drawn")
        subprocess.check_call([sys.executable, DRAWER, drawn, "--count", str(count), "--odd", "0",
                               "--size", "640x480"], stdout=subprocess.DEVNULL)
        yield "%d drawn, 640×480" % count, [opened(entry.path) for entry in os.scandir(drawn)]


def opened(path):
    """The pixels of a file, read to the end."""
    with Image.open(path) as image:
        return image.convert("RGB")


def measure(images, kind, max_bytes):
    """The cells of one row."""
    preview._lossy = lambda: kind  # a JPEG is what comes of WebP where Pillow has none
    asked = "webp" if kind == "jpeg" else kind
    made = [preview.make(image, asked, max_bytes) for image in images]
    spent = [times(lambda image: preview.make(image, asked, max_bytes), image) for image in images]
    whole = [preview._reduced(image) for image in images]
    sizes = [len(each.content) for each in made]
    return ["%.0f (%d to %d)" % (statistics.median(sizes), min(sizes), max(sizes)),
            machine.median_and_spread([each.psnr_db for each in made]),
            "%.1f" % statistics.median(enlarged_db(each, picture)
                                       for each, picture in zip(made, whole)),
            "%.0f %%" % (100 * np.mean([(each.width, each.height) == picture.size
                                        for each, picture in zip(made, whole)])),
            machine.median_and_spread(spent)]


def enlarged_db(made, picture):
    """PSNR of the preview enlarged to the picture's size."""
    shown = Image.open(io.BytesIO(made.content)).convert("RGB").resize(picture.size, Image.BICUBIC)
    error = np.square(np.asarray(shown).astype(float) - np.asarray(picture)).mean()
    return 10 * np.log10(255 ** 2 / max(error, 1e-6))


def times(work, image):
    """Milliseconds of the quickest of some rounds: what the machine did besides does not count."""
    spent = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work(image)
        spent.append(time.perf_counter() - begun)
    return 1000 * min(spent)


if __name__ == "__main__":
    main()
