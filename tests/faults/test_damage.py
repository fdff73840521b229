"""Every file of the daemon cut or with a bit flipped: it starts, and sends nothing again.

The catalog that is unsound is set aside and made anew, from the inbox and from the journal.
"""

import glob
import os
import random

import faults
import pytest


@pytest.fixture(scope="module")
def used(stage):
    """A rover with operations behind it, saved as "used", and as "killed" in the midst of them."""
    stage.restore("done")
    told = stage.run("end_without_a_word").told
    assert os.path.getsize(catalog(stage) + "-wal") > 0
    stage.save("killed", told)
    return stage


def catalog(stage):
    return os.path.join(stage.own, "state", "catalog.sqlite")


def state_files(stage):
    """Every file the daemon keeps, but the lock, which holds nothing, and what SQLite shares."""
    found = []
    for folder, _, names in os.walk(os.path.join(stage.own, "state")):
        found += [os.path.join(folder, name) for name in names
                  if name != "lock" and not name.endswith("-shm")]
    return sorted(found)


def cut(path, size):
    with open(path, "r+b") as stream:
        stream.truncate(size)


def flip(path, place, bit):
    with open(path, "r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([byte ^ 1 << bit]))


def assert_starts(stage, told, what, how):
    """It starts, at the second time at the latest, loses no image and forgets nothing it was told.

    Returns whether the catalog was made anew.
    """
    try:
        return stage.run(how, told).returned
    except AssertionError as error:
        raise AssertionError("%s: %s" % (what, error))


def sizes_to_cut(size, page, most):
    """Where to cut a file: everywhere if it is small, else about its pages and at random."""
    if size <= most:
        return list(range(size))
    places = {place + step for place in range(0, size, page) for step in (-1, 0, 1)}
    places = sorted(place for place in places if 0 <= place < size)
    if not faults.SOAK and len(places) > most:
        places = sorted(random.Random(size).sample(places, most))
    return places


@pytest.mark.parametrize("name, before, then", [
    ("catalog.sqlite", "used", "recover_from_damage"),
    ("catalog.sqlite-wal", "killed", "recover_from_lost_writes")])
def test_a_catalog_cut_anywhere_is_made_anew_or_survives_with_every_acknowledgement(
        used, name, before, then):
    used.restore(before)
    path = os.path.join(used.own, "state", name)
    anew, sizes = 0, sizes_to_cut(os.path.getsize(path), 4096, 30)
    for size in sizes:
        told = used.restore(before)
        cut(path, size)
        anew += assert_starts(used, told, "%s cut to %d bytes" % (name, size), then)
    print("%s cut to %d lengths: %d times made anew" % (name, len(sizes), anew))
    assert anew > 0 or name.endswith("-wal")


@pytest.mark.parametrize("name, before", [("catalog.sqlite", "used"),
                                          ("catalog.sqlite-wal", "killed")])
def test_a_flipped_bit_in_the_catalog_makes_nothing_be_sent_again(used, name, before):
    used.restore(before)
    path = os.path.join(used.own, "state", name)
    chosen, size = random.Random(name), os.path.getsize(path)
    flips, anew = 1500 if faults.SOAK else 40, 0
    for _ in range(flips):
        place, bit = chosen.randrange(size), chosen.randrange(8)
        told = used.restore(before)
        flip(path, place, bit)
        anew += assert_starts(used, told, "bit %d of byte %d of %s flipped" % (bit, place, name),
                              "recover_from_unseen_damage")
    print("%d bits of %s flipped, one at a time: %d times made anew" % (flips, name, anew))


def test_no_other_file_that_is_cut_or_flipped_keeps_the_daemon_from_starting(used):
    # All at once: they do not depend on one another.
    told = used.restore("used")
    used.run("leave_start_files")
    used.save("littered", told)
    paths = [path for path in state_files(used) if "catalog" not in os.path.basename(path)]
    assert {"journal", "queue.csv", "status.json", "starting.json", "gpu-losses.json",
            "policy.yaml", "codebook.npz"} <= {os.path.basename(path) for path in paths}
    chosen = random.Random(1)
    for number in range(400 if faults.SOAK else 20):
        used.restore("littered")
        for path in paths:
            size = os.path.getsize(path)
            if not size:
                continue
            if number % 2:
                cut(path, chosen.randrange(size))
            else:
                flip(path, chosen.randrange(size), chosen.randrange(8))
        if number % 4 < 2:
            for name in ("policy.yaml", "codebook.npz"):
                os.unlink(os.path.join(used.root, name))
        assert_starts(used, told, "damage number %d to the other files" % number,
                      "recover_with_its_catalog")


def test_without_its_catalog_the_daemon_knows_again_what_operations_did(used):
    told = used.restore("used")
    for path in glob.glob(catalog(used) + "*"):
        os.unlink(path)
    used.run("recover", told)
