"""Plays the rover's camera: puts images into an inbox one by one, each written beside, then renamed.

In: the inbox's path as the argument, paths of images on standard input, a line each. Out: the
images in the inbox, each under a name of its own.
"""

import os
import shutil
import sys
import time

from arrivals import names_for

PAUSE_S = 0.02


def main(inbox):
    """Drop every image named on standard input."""
    paths = [path for path in os.fsdecode(sys.stdin.buffer.read()).split("\n") if path]
    for path, name in zip(paths, names_for(paths)):
        part = os.path.join(inbox, name + ".part")
        shutil.copyfile(path, part)
        os.rename(part, os.path.join(inbox, name))
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main(sys.argv[1])
