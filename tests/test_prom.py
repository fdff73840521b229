"""What node_exporter reads: the whole status as numbers, in a format that a strict reader takes."""

import copy
import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statuses import AT_WORK, status
from jetson_cluster import prom

NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(,|$)')
NUMBER = r"[-+]?(?:[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|Inf|NaN)"
SAMPLE = re.compile(r"(%s)(?:\{(.*)\})? (%s)$" % (NAME, NUMBER), re.DOTALL)


def read(text):
    """{name: {labels as a sorted tuple: value}}, by the rules of text format 0.0.4 and no others."""
    assert text.endswith("\n")
    families, current = {}, None
    for line in text[:-1].split("\n"):
        helped = re.match(r"# HELP (%s) (.+)$" % NAME, line)
        typed = re.match(r"# TYPE (%s) (counter|gauge|untyped)$" % NAME, line)
        if helped:
            current = helped.group(1)
            assert current not in families, "a family stands in two places"
            families[current] = None
        elif typed:
            assert typed.group(1) == current and families[current] is None
            families[current] = {}
        else:
            name, inside, value = SAMPLE.match(line).groups()
            assert name == current
            labels, rest = [], inside or ""
            while rest:
                found = LABEL.match(rest)
                labels.append((found.group(1), re.sub(
                    r"\\(.)", lambda held: {"n": "\n"}.get(held.group(1), held.group(1)),
                    found.group(2))))
                rest = rest[found.end():]
            key = tuple(sorted(labels))
            assert len(dict(key)) == len(key) and key not in families[name]
            families[name][key] = float(value)
    assert all(families.values())
    return families


def of(status_held, name, **labels):
    return read(prom.text(status_held))["jetson_cluster_" + name][tuple(sorted(labels.items()))]


def test_every_family_is_named_for_this_program_and_explained():
    families = read(prom.text(AT_WORK))
    assert len(families) > 25 and all(name.startswith("jetson_cluster_") for name in families)


@pytest.mark.parametrize("name, labels, value", [
    ("info", {"version": "1", "embedder": "onnxruntime", "space": "tiny/pooled@0"}, 1),
    ("running", {}, 1), ("images", {"state": "dropped"}, 8), ("image_bytes", {"state": "acked"}, 40),
    ("files_refused", {}, 1), ("files_quarantined", {}, 1), ("oldest_queued_passes", {}, 12),
    ("last_pass_number", {}, 9), ("last_pass_bytes", {}, 30), ("accepting", {}, 1), ("paused", {}, 0),
    ("inbox_available", {}, 1), ("inbox_files", {"step": "settling"}, 2), ("outbox_links", {}, 4),
    ("error", {"part": "policy"}, 0), ("clusters", {}, 3), ("placing_anew", {"step": "total"}, 5),
    ("images_per_second", {}, 0.5), ("stage_seconds_per_image", {"stage": "network"}, 0.02),
    ("preview_mean_bytes", {}, 1800.5), ("preview_mean_psnr_decibels", {}, 31.25),
    ("temperature_celsius", {"zone": "CPU-therm"}, 82.5), ("heat_level", {"level": "warm"}, 1),
    ("heat_level", {"level": "hot"}, 0), ("power_watts", {"rail": "POM_5V_IN"}, 5.12),
    ("gpu_busy_ratio", {}, 0.5), ("gpu_given_up", {}, 0), ("state_disk_bytes", {"kind": "free"}, 1),
    ("inbox_disk_bytes", {"kind": "total"}, 4), ("last_pass_images", {}, 3), ("previews", {}, 5),
    ("inbox_watched", {}, 1), ("policy_amendments", {}, 2), ("policy_unknown_targets", {}, 1),
    ("gpu_lost_of_late", {}, 1), ("written_timestamp_seconds", {}, 1714557600),
    ("oldest_queued_captured_timestamp_seconds", {}, 1711965600),
    ("last_pass_made_timestamp_seconds", {}, 1714554000),
    ("last_error_timestamp_seconds", {}, 1714550400)])
def test_what_the_status_says_is_a_number_with_its_unit(name, labels, value):
    assert of(AT_WORK, name, **labels) == pytest.approx(value)


@pytest.mark.parametrize("change, name, labels", [
    ({"running": False}, "running", {}), ({"accepting": {"images": False, "why_not": "full"}},
                                          "accepting", {})])
def test_what_is_not_so_is_0(change, name, labels):
    assert of(dict(AT_WORK, **change), name, **labels) == 0


@pytest.mark.parametrize("change, name, labels", [
    ({"paused": "CatalogNotWritten: x"}, "paused", {}),
    ({"orders": {"path": "/o", "error": "OrdersUnreadable: x"}}, "error", {"part": "orders"}),
    ({"outbox": {"path": "/o", "links": 0, "error": "x"}}, "error", {"part": "outbox"}),
    ({"queue": {"path": "/q", "error": "QueueNotWritten: x"}}, "error", {"part": "queue"}),
    ({"retention": {"error": "NotAccepting: x"}}, "error", {"part": "retention"}),
    ({"gpu": {"given_up": True, "lost_of_late": 3}}, "gpu_given_up", {})])
def test_what_is_wrong_is_1(change, name, labels):
    assert of(dict(AT_WORK, **change), name, **labels) == 1
    assert of(AT_WORK, name, **labels) == 0


# What says who, where or why, and what is one of the numbers told already.
TOLD_IN_WORDS = {"process", "codebook.path", "policy.path", "last_error.what", "orders.path",
                 "outbox.path", "queue.path", "inbox.path", "accepting.why_not", "heat.hottest_c"}


def leaves(held, where=()):
    if isinstance(held, dict):
        for key, inner in held.items():
            for leaf in leaves(inner, where + (key,)):
                yield leaf
    else:
        yield where, held


def other_than(held):
    """Another value of the same kind."""
    if isinstance(held, bool):
        return not held
    if isinstance(held, (int, float)):
        return held + 1
    if isinstance(held, list):
        return held + held[:1]
    return held.replace("2024", "2023") if held.startswith("2024") else held + "x"


def test_whatever_the_status_says_in_numbers_times_and_errors_is_told():
    silent = set()
    for where, held in leaves(AT_WORK):
        other = copy.deepcopy(AT_WORK)
        inner = other
        for key in where[:-1]:
            inner = inner[key]
        inner[where[-1]] = "hot" if where == ("heat", "level") else other_than(held)
        if prom.text(other) == prom.text(AT_WORK):
            silent.add(".".join(where))
    # The newest refusals in words; how many there are is told.
    assert silent == TOLD_IN_WORDS | {"refusals"}


def test_what_is_not_known_is_left_out_and_not_0():
    unknown = dict(AT_WORK, gpu_load=None, power_mw={}, heat=dict(AT_WORK["heat"], zones={}),
                   previews={"made": 0, "mean_bytes": None, "mean_psnr_db": None},
                   inbox_disk={"free_bytes": None, "total_bytes": None},
                   oldest_queued={"captured_at": "", "passes": 0},
                   last_pass=dict(AT_WORK["last_pass"], made_at=""),
                   last_error={"at": "", "what": ""})
    families = read(prom.text(unknown))
    for name in ("gpu_busy_ratio", "power_watts", "temperature_celsius", "preview_mean_bytes",
                 "preview_mean_psnr_decibels", "inbox_disk_bytes", "last_error_timestamp_seconds",
                 "last_pass_made_timestamp_seconds", "oldest_queued_captured_timestamp_seconds"):
        assert "jetson_cluster_" + name not in families
    assert "jetson_cluster_state_disk_bytes" in families


def test_a_status_that_holds_what_must_be_there_and_no_more_can_be_told():
    assert read(prom.text(status()))["jetson_cluster_running"][()] == 0


def test_large_numbers_keep_all_their_digits():
    disk = {"free_bytes": 2 ** 53 + 2, "total_bytes": 10 ** 15}
    text = prom.text(dict(AT_WORK, disk=disk))
    assert 'jetson_cluster_state_disk_bytes{kind="free"} 9007199254740994\n' in text


@settings(deadline=None, max_examples=80, database=None)
@given(st.text(max_size=20), st.floats(-100, 200))
def test_whatever_a_sensor_is_called_it_reads_back(zone, degrees):
    heat = dict(AT_WORK["heat"], zones={zone: degrees})
    shown = zone.encode("utf-8", "backslashreplace").decode("utf-8")
    text = prom.text(dict(AT_WORK, heat=heat))
    text.encode("utf-8")
    assert of(dict(AT_WORK, heat=heat), "temperature_celsius", zone=shown) == pytest.approx(degrees)


def test_a_name_that_is_not_utf8_breaks_nothing():
    held = dict(AT_WORK, embedder=os.fsdecode(b"caf\xe9"))
    assert "caf\\\\udce9" in prom.text(held)
    read(prom.text(held))
