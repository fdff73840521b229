"""Archives of drawn pictures, and work on them that goes wrong, for the tests of the corpus."""

import functools
import os
import pathlib

import numpy as np
from PIL import Image

COLOURS = [(200, 40, 30), (40, 190, 60), (30, 60, 200)]


def draw(path, seed, size=(64, 48), exif=None):
    """Put a picture at `path` (its folder is made), another one for each seed; return the path."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(seed)
    pixels = np.array(COLOURS[seed % 3]) + random.randint(-25, 26, (size[1], size[0], 3))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    image.save(os.fsencode(path), **({"exif": exif} if exif else {}))
    return path


def archive(folder, count):
    """`count` pictures in three folders, and beside them a copy and two files that are none."""
    folder = pathlib.Path(folder)
    for number in range(count):
        draw(folder / ("sol%d" % (number % 3)) / ("%03d.png" % number), number)
    (folder / "copy.png").write_bytes((folder / "sol0" / "000.png").read_bytes())
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    return folder


def contents(corpus):
    """All that a corpus says, in a form that compares; the shards it stands in do not matter."""
    return {"space": corpus.space, "complete": corpus.complete, "failed": corpus.failed,
            "copies": corpus.copies, "images": list(zip(
                corpus.paths, corpus.sha256, corpus.bytes.tolist(), corpus.mtime_ns.tolist(),
                corpus.widths.tolist(), corpus.heights.tolist(), corpus.captured_at, corpus.scenes,
                corpus.measures.tolist(), corpus.embeddings().tolist(), corpus.thumbnails()))}


def name_or_end(arrival, _geometry):
    """A decoder that ends its process on files called `deadly...`."""
    if os.path.basename(arrival.path).startswith("deadly"):
        os._exit(9)
    return os.path.basename(arrival.path)


def hashed_after(count):
    """looking.identify, which first adds a byte to the file `count`; from any process."""
    return functools.partial(_counted, str(count))


def _counted(count, arrival, geometry):
    from jetson_cluster.ground.corpus.looking import identify
    with open(count, "ab") as stream:
        stream.write(b".")
    return identify(arrival, geometry)
