"""`jetson-cluster status`: how the daemon is doing, from the status file it keeps."""

import argparse
import calendar
import json
import os
import time
from typing import Optional

from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.health import read_status
from jetson_cluster.heat import describe as in_words
from jetson_cluster.lock import NAME as LOCK
from jetson_cluster.lock import is_held
from jetson_cluster.starting import underway
from jetson_cluster.verbs import (
    add_config_arguments, config_of, printable, refuse_unreadable)
from jetson_cluster.wording import ago, counted, in_units

# An idle daemon writes its status once a minute, and systemd allows one turn of its loop two.
STALE_MIN = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print the status file itself")
    shown.add_argument(
        "--check", nargs="?", type=_minutes, const=STALE_MIN, metavar="MINUTES",
        help="print nothing; fail with one line if the daemon does not run or has not written its "
             "status for so long (%s), as when the GPU or a disk hangs" % in_minutes(STALE_MIN))


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError("a number of minutes above 0, not %r" % text)
    return minutes


def in_minutes(minutes: float) -> str:
    """5.0 as "5 minutes"."""
    return "%g minute%s" % (minutes, "" if minutes == 1 else "s")


def run(args: argparse.Namespace) -> int:
    config = config_of(args)
    for path in (os.path.join(config.state_dir, LOCK), config.status_path):
        refuse_unreadable(path)
    held = is_held(config.state_dir)
    starting = underway(config.state_dir, time.monotonic()) if held else ""
    if starting:  # the status file is of a process before
        if args.json:
            print(json.dumps({"running": False, "starting": starting}, indent=1))
        elif args.check is None:
            print(printable("daemon      starting: %s" % starting))
        return 0
    try:
        status = read_status(config.status_path)
    except UserError as error:
        if args.check is None:
            raise
        raise WorldError(str(error))  # not what the caller asked, but what the daemon did, is wrong
    status["running"] = status["running"] and held
    if args.check is not None:
        trouble = health_trouble(status, time.time(), args.check)
        if trouble:
            raise WorldError(trouble)
        return 0
    print(json.dumps(status, indent=1) if args.json else describe(status, time.time()))
    return 0


def health_trouble(status: dict, now: float, stale_min: float) -> str:
    """Why the daemon cannot be trusted to work at `now` (seconds since 1970), "" if it can.

    A status from the future is one from before the clock was set back, so its age counts both ways.
    """
    if not status["running"]:
        return "the daemon does not run (status as of %s)" % status["written_at"]
    written = moment_of(status["written_at"])
    if written is None:
        return "the status says %r for a time; it is damaged" % status["written_at"]
    if abs(now - written) <= 60 * stale_min:
        return ""
    return "the daemon (process %d) seems stuck: its status is of %s, not of the last %s" % (
        status["process"], status["written_at"], in_minutes(stale_min))


def moment_of(text: str) -> Optional[int]:
    """A time as the status has it, in seconds since 1970; None if it is none."""
    try:
        return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return None


def inbox_trouble(status: dict) -> str:
    """What the operator should know of the inbox, "" if all is well."""
    if not status["inbox"]["available"]:
        return " - NOT AVAILABLE (unmounted?)"
    if status["running"] and not status["inbox"]["watched"]:
        return " - no events from it; new files are found by looking now and then"
    return ""


def power_and_load(power_mw: dict, gpu_load: Optional[float]) -> str:
    """What the computer draws, rail by rail, and how busy its GPU is."""
    rails = ", ".join("%.2f W %s" % (milliwatts / 1000.0, rail)
                      for rail, milliwatts in sorted(power_mw.items()))
    return "%s; %s" % (rails or "not measured here", "GPU load not known" if gpu_load is None
                       else "GPU busy %d %% of the time" % round(100 * gpu_load))


def describe(status: dict, now: float) -> str:
    """The status in lines for people, at `now` (seconds since 1970)."""
    inbox, codebook, placing = status["inbox"], status["codebook"], status["placing_anew"]
    heat, written = status["heat"], moment_of(status["written_at"])
    lines = [
        ("daemon", "%s, as of %s%s (version %s)" % (
            "running, process %d" % status["process"] if status["running"] else "not running",
            status["written_at"], "" if written is None else ", " + ago(now - written),
            status["version"])),
        ("network", "%s in %s%s" % (
            status["space"], status["embedder"],
            " - THE GPU WAS LOST too often, the processor stands in" if status["gpu"]["given_up"]
            else "")),
        ("clusters", "%d from %s" % (codebook["clusters"], codebook["path"])
         if codebook["clusters"] else "none yet; waiting for %s" % codebook["path"]),
        ("images", images_in_words(status["images"], status["bytes"])),
        ("oldest", oldest_in_words(status["oldest_queued"])),
        ("passes", passes_in_words(status["last_pass"])),
        ("heat", "%s: %s" % (heat["level"], in_words(
            heat["level"], heat["zones"], status["images"]["waiting"]))),
        ("power", power_and_load(status["power_mw"], status["gpu_load"])),
        ("inbox", "%s: %d ready, %d settling%s" % (
            inbox["path"], inbox["ready"], inbox["settling"], inbox_trouble(status))),
        ("speed", "%.2f images/s over the last minute; ms an image: %s" % (
            status["images_per_s"], ", ".join(
                "%s %.1f" % pair for pair in sorted(status["ms_per_image"].items())))),
        ("disk", "%s free of %s" % (in_units(status["disk"]["free_bytes"]),
                                    in_units(status["disk"]["total_bytes"]))),
    ]
    if status["previews"]["made"]:
        lines.append(("previews", "%(mean_bytes).0f bytes at %(mean_psnr_db).1f dB on average" %
                      status["previews"]))
    if status["paused"]:
        lines.append(("PAUSED", status["paused"]))
    if not status["accepting"]["images"]:
        lines.append(("NO ROOM", status["accepting"]["why_not"]))
    if status["outbox"]["path"]:
        lines.append(("outbox", "%s in %s" % (
            counted(status["outbox"]["links"], "link"), status["outbox"]["path"])))
    if status["policy"]["amendments"]:
        lines.append(("policy", "with %s by orders" % counted(
            status["policy"]["amendments"], "amendment")))
    lines += [("policy", "target not here yet: " + why)
              for why in status["policy"]["unknown_targets"]]
    if placing["done"] < placing["total"]:
        lines.append(("placing", "anew: %d of %d images; the queue waits for it" % (
            placing["done"], placing["total"])))
    for kind, what in (("codebook", "REFUSED: "), ("policy", "REFUSED: "), ("orders", ""),
                       ("outbox", ""), ("queue", "")):
        why = status[kind]["error"]
        if why:
            gone = why.startswith(kind.capitalize() + "Absent: ")  # which is not refused
            lines.append((kind, ("" if gone else what) + why))
    if status["last_error"]["what"]:
        lines.append(("last error", "%(at)s %(what)s" % status["last_error"]))
    lines.append(("refused", "%s%s" % (
        counted(status["files_refused"], "file"), ", the newest:" if status["refusals"] else "")))
    text = ["%-11s %s" % line for line in lines]
    text += ["  %s %s: %s (%s)" % (refusal["refused_at"], refusal["path"], refusal["reason"],
                                   refusal["code"]) for refusal in status["refusals"]]
    return "\n".join(map(printable, text))


def images_in_words(counts: dict, sizes: dict) -> str:
    """How many in each state; of the states without any only the first two are named."""
    words = {"queued": "queued (%s)" % in_units(sizes["queued"]),
             "sent": "sent (%s)" % in_units(sizes["sent"]), "acked": "acknowledged",
             "waiting": "waiting to be embedded", "deleted": "acknowledged and deleted",
             "dropped": "DELETED UNACKNOWLEDGED"}
    return ", ".join("%d %s" % (count, words.get(state, state)) for state, count in counts.items()
                     if count or state in ("queued", "sent"))


def oldest_in_words(oldest: dict) -> str:
    """The queued image that has waited longest."""
    if not oldest["captured_at"]:
        return "nothing is queued"
    return "queued image is of %s; %s left it behind" % (
        oldest["captured_at"], counted(oldest["passes"], "pass"))


def passes_in_words(last: dict) -> str:
    """The newest pass."""
    if not last["number"]:
        return "none yet"
    previews = " and %s, %s" % (
        counted(last["previews"], "preview"), in_units(last["preview_bytes"]))
    return "last one: number %d%s, %s, %s%s" % (
        last["number"], " at " + last["made_at"] if last["made_at"] else "",
        counted(last["images"], "image"), in_units(last["bytes"]),
        previews if last["previews"] else "")
