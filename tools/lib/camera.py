"""Plays the rover's camera: puts images into an inbox one by one, each written beside, then renamed.

In: the inbox's path as the argument, paths of images on standard input. Out: the images in the inbox.
"""

import os
import shutil
import sys
import time

PAUSE_S = 0.02


def main(inbox):
    """Drop every image named on standard input."""
    for line in sys.stdin.read().splitlines():
        name = os.path.basename(line)
        part = os.path.join(inbox, name + ".part")
        shutil.copyfile(line, part)
        os.rename(part, os.path.join(inbox, name))
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main(sys.argv[1])
