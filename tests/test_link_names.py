"""Names of links: in the order of rank, few of them changed, and fit for every program."""

import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetson_cluster.link_names import MOST, NAME_BYTES, STEP, key_of, keys_for, name_of
from jetson_cluster.walker import is_passed_over

SHA256 = "0123456789abcdef" * 4


@pytest.mark.parametrize("path, ending", [
    ("/in/sol0343_mr_001395.jpg", "-sol0343_mr_001395.jpg"), ("/in/a b+c.PNG", "-a_b_c.PNG"),
    (os.fsdecode(b"/in/caf\xe9.png"), "-caf_.png"), ("/in/Bild\u00e4.png", "-Bild__.png"),
    ("/in/" + "x" * 90 + ".jpeg", "x.jpeg"), ("/in/no-suffix", "-no-suffix"),
    ("/in/x.tmp", "-x.tmp_"), ("/in/y.part", "-y.part_"), ("/in/" + "x" * 66 + ".PART", ".PAR_"),
    ("/in/a.b.tar.gz", "-a.b.tar.gz")])
def test_a_name_keeps_what_can_be_kept_of_the_files_own(path, ending):
    name = name_of(5, SHA256, path)
    assert name.startswith("000000000000005-0123456789ab-") and name.endswith(ending)


@settings(deadline=None, database=None)
@given(key=st.integers(0, MOST), raw=st.binary(min_size=1, max_size=255))
def test_any_name_is_plain_short_and_seen_by_every_program(key, raw):
    name = name_of(key, SHA256, os.path.join("/in", os.fsdecode(
        raw.replace(b"/", b"_").replace(b"\0", b"_"))))
    assert re.match(r"^[A-Za-z0-9_-][A-Za-z0-9._-]*\Z", name)
    assert len(name) <= NAME_BYTES and not is_passed_over(name) and key_of(name) == key


@pytest.mark.parametrize("name", ["", "a.png", "12-0123456789ab-a.png", ".%015d-0123456789ab-a" % 1,
                                  "%015d-0123456789AB-a" % 1, "%014dx-0123456789ab-a" % 1])
def test_another_name_has_no_key(name):
    assert key_of(name) is None


LINKS = st.lists(st.tuples(st.integers(0, 60), st.booleans(), st.booleans()), max_size=9,
                 unique_by=lambda link: link[0])


@settings(deadline=None, max_examples=500, database=None)
@given(links=LINKS, space=st.sampled_from([(61, 4), (100, 10), (MOST, STEP)]))
def test_keys_rise_in_the_order_wanted_and_few_change(links, space):
    spread = STEP if space[0] == MOST else 1
    present = [spread * (1 + key) if there else None for key, there, _ in links]
    fixed = [still for _, _, still in links]
    keys = keys_for(present, fixed, *space)
    assert len(keys) == len(links) and all(0 <= key <= space[0] for key in keys)
    loose = [key for key, was, still in zip(keys, present, fixed)
             if not (still and was is not None)]
    assert loose == sorted(set(loose))
    if space[0] == MOST:  # there is room everywhere
        assert all(key == was for key, was, still in zip(keys, present, fixed)
                   if still and was is not None)
        there = [key for key in present if key is not None]
        if there == sorted(there):
            assert [key for key, was in zip(keys, present) if was is not None] == there


def most_in_order(keys):
    """Length of the longest rising run, by trying every one."""
    best = [1] * len(keys)
    for place in range(len(keys)):
        best[place] += max([best[before] for before in range(place)
                            if keys[before] < keys[place]] or [0])
    return max(best or [0])


@settings(deadline=None, database=None)
@given(order=st.permutations(range(8)))
def test_when_the_order_changes_as_many_as_possible_keep_their_names(order):
    present = [STEP * (place + 1) for place in order]
    keys = keys_for(present, [False] * len(present))
    kept = sum(key == was for key, was in zip(keys, present))
    assert keys == sorted(keys) and kept == most_in_order(present)


def test_a_fixed_link_that_falls_behind_moves_no_other():
    present = [200, 300, 400, 500, 100]
    assert keys_for(present, [False] * 4 + [True]) == present


def test_a_new_best_image_gets_a_key_before_the_first():
    assert keys_for([None, 10 ** 9, 2 * 10 ** 9], [False, True, False]) == [
        10 ** 9 - STEP, 10 ** 9, 2 * 10 ** 9]


def test_images_come_between_the_same_two_26_times_before_others_are_renamed():
    low, high, times = MOST // 2, MOST // 2 + STEP, 0
    while True:
        keys = keys_for([low, None, high], [True, False, False])
        if keys[2] != high:
            break
        high, times = keys[1], times + 1
    assert times == 26
    assert keys[0] == low and keys[1] - low == keys[2] - keys[1] > 1000
