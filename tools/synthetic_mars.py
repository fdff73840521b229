#!/usr/bin/env python3
"""Draws an archive of Martian-looking rover pictures whose terrain is known.

In: a seed, how many pictures, which terrain. Out: a folder of JPEG and PNG files named as a rover
would, and a table beside it (`truth.csv`: name,class,scene,odd) saying what each one shows.
Every picture is drawn: none is a photograph, and each file says so in its EXIF data. The same
arguments give the same pixels on any number of processes.
"""

import argparse
import csv
import datetime
import hashlib
import os
import sys
from multiprocessing import Pool
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from PIL import Image, ImageDraw

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from martian.picture import ODD_PLACES, PLACES, draw, generator  # noqa: E402

CLASSES = tuple(sorted(PLACES))
ODD = tuple(ODD_PLACES)  # in the order in which an archive takes them
DISCOVERIES = tuple(name for name in ODD if ODD_PLACES[name][1] == "discovery")
JUNK = tuple(name for name in ODD if ODD_PLACES[name][1] == "junk")

SHOTS = (2, 7)  # pictures in a scene, the second excluded
DOMINANT_SHARE = 0.6  # of a dominated archive, what its commonest terrain holds
PNG_EVERY = 25
SOL_S = 88775.244
LANDING = datetime.datetime(2031, 4, 9, 5, 17, 0)
SOFTWARE = "synthetic_mars: drawn by a program, not a photograph"
EXIF_IFD, EXIF_SOFTWARE, EXIF_TIME, EXIF_TAKEN, EXIF_ID = 0x8769, 0x0131, 0x0132, 0x9003, 0xA420


class BadArguments(Exception):
    """What was asked for cannot be drawn; the message is one line."""


class Picture(NamedTuple):
    """One picture of the plan, before it is drawn."""

    name: str
    terrain: str  # one of CLASSES or ODD
    scene: int  # number in the archive, in the order of time
    odd: str  # "", "discovery" or "junk"
    number: Tuple[int, int]  # scene of that terrain, shot of that scene: what `draw` takes
    taken: datetime.datetime


class _Scene(NamedTuple):
    terrain: str
    number: int
    shots: int


def plan(
    count: int, seed: int, classes: Sequence[str] = CLASSES, odd: int = 6, skew: str = "uniform"
) -> List[Picture]:
    """Which pictures an archive holds, in the order they are taken. Draws nothing."""
    _check(count, classes, odd, skew)
    rng = generator(seed, "plan")
    ordinary = count - odd
    shares = np.full(len(classes), 1.0 / len(classes))
    if skew == "dominated" and len(classes) > 1:
        shares[:] = (1.0 - DOMINANT_SHARE) / (len(classes) - 1)
        shares[rng.randint(len(classes))] = DOMINANT_SHARE
    ends = np.round(np.cumsum(shares) * ordinary).astype(int)
    scenes = []
    for name, left in zip(classes, np.diff(np.concatenate([[0], ends]))):
        number = 0
        while left > 0:
            shots = min(int(rng.randint(*SHOTS)), int(left))
            scenes.append(_Scene(name, number, shots))
            number, left = number + 1, left - shots
    scenes.extend(_Scene(ODD[i % len(ODD)], i // len(ODD), 1) for i in range(odd))
    scenes = [scenes[i] for i in rng.permutation(len(scenes))]

    pictures = []
    sol, counter = int(rng.randint(40, 400)), int(rng.randint(100, 9000))
    hour = 9.0
    for place, scene in enumerate(scenes):
        if hour > 15.5 or rng.random_sample() < 0.3:
            sol, hour = sol + int(rng.randint(1, 4)), rng.uniform(8.5, 11.0)
        camera = ("ml", "mr", "nl", "nr")[rng.randint(4)]
        for shot in range(scene.shots):
            counter, hour = counter + int(rng.randint(1, 5)), hour + rng.uniform(0.01, 0.06)
            taken = LANDING + datetime.timedelta(seconds=int(sol * SOL_S + hour * 3700.0))
            suffix = "png" if counter % PNG_EVERY == 0 else "jpg"
            name = f"sol{sol:04d}_{camera}_{counter:06d}.{suffix}"
            kind = ODD_PLACES[scene.terrain][1] if scene.terrain in ODD_PLACES else ""
            pictures.append(
                Picture(name, scene.terrain, place, kind, (scene.number, shot), taken)
            )
        hour += rng.uniform(0.1, 0.9)
    return pictures


def _check(count, classes, odd, skew) -> None:
    if count < 1:
        raise BadArguments(f"--count is {count}: it must be 1 or more")
    if not 0 <= odd <= count:
        raise BadArguments(f"--odd is {odd}: it must lie between 0 and --count, {count}")
    if skew not in ("uniform", "dominated"):
        raise BadArguments(f'--skew is "{skew}": it must be uniform or dominated')
    unknown = [name for name in classes if name not in PLACES]
    if unknown or not classes:
        wrong, known = unknown[0] if unknown else "", ", ".join(CLASSES)
        raise BadArguments(
            f'--classes names "{wrong}": the classes are {known}'
        )
    if len(set(classes)) != len(classes):
        raise BadArguments("--classes names the same class twice")


def _identity(picture: Picture, seed: int, size: Tuple[int, int]) -> str:
    """What decides a picture's pixels, as 32 hex digits that do not tell its class."""
    words = [picture.terrain, picture.number, seed, size]
    return hashlib.sha256(repr(words).encode()).hexdigest()[:32]


def _identity_in(path: str) -> Optional[str]:
    """The identity a finished picture carries, None where there is none."""
    try:
        with Image.open(path) as image:
            found = image.getexif().get_ifd(EXIF_IFD).get(EXIF_ID)
    except (OSError, SyntaxError):
        return None
    return found.rstrip("\0") if isinstance(found, str) else None


def _write(task) -> None:
    """Draw one picture and put it in place whole."""
    path, picture, seed, size = task
    image = Image.fromarray(draw(picture.terrain, seed, *picture.number, size=size))
    moment = picture.taken.strftime("%Y:%m:%d %H:%M:%S")
    exif = Image.Exif()
    exif[EXIF_SOFTWARE] = SOFTWARE
    exif[EXIF_TIME] = moment
    exif[EXIF_IFD] = {EXIF_TAKEN: moment, EXIF_ID: _identity(picture, seed, size)}
    form = {"format": "PNG"} if path.endswith(".png") else {"format": "JPEG", "quality": 90}
    image.save(path + ".part", exif=exif, **form)
    os.replace(path + ".part", path)


def write_archive(
    folder: str,
    count: int = 600,
    seed: int = 1,
    size: Tuple[int, int] = (400, 300),
    odd: int = 6,
    classes: Sequence[str] = CLASSES,
    skew: str = "uniform",
    truth: Optional[str] = None,
    processes: Optional[int] = None,
    force: bool = False,
) -> List[Picture]:
    """Draw the planned pictures into `folder` and the table of what they show into `truth`.

    `truth` defaults to `truth.csv` beside the folder. Pictures already there from the same
    arguments stay untouched, so a broken-off run is continued by repeating it. Anything else in
    the folder is refused, unless `force`: then other files stay and other pictures of the same
    name are replaced. Raises BadArguments, or OSError when the disk will not.
    """
    if min(size) < 32 or max(size) > 4096:
        raise BadArguments(f"--size is {size[0]}x{size[1]}: each side must be 32 to 4096")
    pictures = plan(count, seed, classes, odd, skew)
    folder = os.path.abspath(folder)
    truth = os.path.abspath(truth or os.path.join(os.path.dirname(folder), "truth.csv"))
    os.makedirs(folder, exist_ok=True)
    tasks = []
    for picture in pictures:
        path = os.path.join(folder, picture.name)
        there = _identity_in(path) if os.path.exists(path) else ""
        if there and there == _identity(picture, seed, size):
            continue
        if there != "" and not force:
            raise BadArguments(_in_the_way(folder, picture.name))
        tasks.append((path, picture, seed, size))
    names = {picture.name for picture in pictures}
    others = [name for name in os.listdir(folder)
              if name not in names and not name.endswith(".part")
              and os.path.join(folder, name) != truth]
    if others and not force:
        raise BadArguments(_in_the_way(folder, min(others)))
    _draw_all(tasks, processes or os.cpu_count() or 1)
    _write_truth(truth, pictures)
    return pictures


def _in_the_way(folder: str, name: str) -> str:
    return (f"{folder} already holds {name}, which these arguments do not draw: "
            "give an empty folder, or --force")


def _draw_all(tasks, processes: int) -> None:
    if processes == 1 or len(tasks) < 8:
        for task in tasks:
            _write(task)
        return
    # Neighbours share a scene, and a scene's ground is made once per process: keep them together.
    with Pool(processes) as pool:
        for _ in pool.imap_unordered(_write, tasks, chunksize=min(16, -(-len(tasks) // processes))):
            pass


def _write_truth(path: str, pictures: Sequence[Picture]) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".part", "w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(["name", "class", "scene", "odd"])
        for picture in pictures:
            rows.writerow([picture.name, picture.terrain, picture.scene, picture.odd])
    os.replace(path + ".part", path)


def contact_sheet(
    folder: str, pictures: Sequence[Picture], columns: int = 8, width: int = 200
) -> Image.Image:
    """Pictures of each class in a row, from scenes far apart, labelled with the class."""
    rows = []
    for name in CLASSES + ODD:
        found = [picture for picture in pictures if picture.terrain == name]
        if found:
            places = np.linspace(0, len(found) - 1, min(columns, len(found))).astype(int)
            rows.append((name, [found[i] for i in places]))
    height = width * 3 // 4
    sheet = Image.new("RGB", (width * columns, (height + 14) * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    for down, (name, chosen) in enumerate(rows):
        top = down * (height + 14)
        kind = ODD_PLACES[name][1] + ": " if name in ODD_PLACES else ""
        pen.text((4, top + 1), kind + name, fill="black")
        for across, picture in enumerate(chosen):
            with Image.open(os.path.join(folder, picture.name)) as image:
                shown = image.resize((width, height), Image.BICUBIC)
                sheet.paste(shown, (across * width, top + 14))
    return sheet


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"synthetic_mars: {message}\n")


def _size(text: str) -> Tuple[int, int]:
    try:
        width, height = text.lower().split("x")
        return int(width), int(height)
    except ValueError:
        raise argparse.ArgumentTypeError(f'"{text}" is not WIDTHxHEIGHT, such as 400x300')


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = _Parser(prog="synthetic_mars", description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="where the pictures go; made if missing")
    parser.add_argument("--count", type=int, default=600, help="pictures in all (default 600)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, another archive")
    parser.add_argument("--size", type=_size, default=(400, 300), metavar="WxH",
                        help="pixels (default 400x300)")
    parser.add_argument("--odd", type=int, default=6,
                        help="how many of them are rare finds or spoilt frames (default 6)")
    parser.add_argument("--classes", default=",".join(CLASSES), metavar="A,B",
                        help="terrain to draw (default all: %(default)s)")
    parser.add_argument("--skew", default="uniform", choices=("uniform", "dominated"),
                        help="all terrain alike, or one holding most pictures")
    parser.add_argument("--truth", metavar="FILE",
                        help="where the table of classes goes (default FOLDER/../truth.csv)")
    parser.add_argument("--contact-sheet", metavar="FILE.png",
                        help="also write one picture showing some of each class")
    parser.add_argument("--processes", type=int, help="default: one per processor")
    parser.add_argument("--force", action="store_true",
                        help="write into a folder that holds something else")
    given = parser.parse_args(arguments)
    if given.processes is not None and given.processes < 1:
        parser.error(f"--processes is {given.processes}: it must be 1 or more")
    classes = [name.strip() for name in given.classes.split(",")]
    try:
        pictures = write_archive(given.folder, given.count, given.seed, given.size, given.odd,
                                 classes, given.skew, given.truth, given.processes, given.force)
        if given.contact_sheet:
            contact_sheet(given.folder, pictures).save(given.contact_sheet)
    except BadArguments as mistake:
        parser.error(str(mistake))
    except (OSError, ValueError) as failure:  # ValueError: Pillow's word for an unknown suffix
        print(f"synthetic_mars: {failure}", file=sys.stderr)
        return 1
    kinds = {picture.terrain for picture in pictures if not picture.odd}
    odd = sum(1 for picture in pictures if picture.odd)
    print(f"{len(pictures)} drawn pictures of {len(kinds)} kinds of terrain in {given.folder} "
          f"({odd} odd ones out)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
