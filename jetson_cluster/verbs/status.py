"""`jetson-cluster status`: how the daemon is doing, from the status file it keeps."""

import argparse
import json

from jetson_cluster.health import read_status
from jetson_cluster.lock import is_held
from jetson_cluster.verbs import add_config_arguments, config_of, printable
from jetson_cluster.verbs.queue import in_units


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the status file itself")


def run(args: argparse.Namespace) -> int:
    config = config_of(args)
    status = read_status(config.status_path)
    status["running"] = status["running"] and is_held(config.state_dir)
    print(json.dumps(status, indent=1) if args.json else describe(status))
    return 0


def inbox_trouble(status: dict) -> str:
    """What the operator should know of the inbox, "" if all is well."""
    if not status["inbox"]["available"]:
        return " - NOT AVAILABLE (unmounted?)"
    if status["running"] and not status["inbox"]["watched"]:
        return " - no events from it; new files are found by looking now and then"
    return ""


def describe(status: dict) -> str:
    """The status in lines for people."""
    inbox, codebook, placing = status["inbox"], status["codebook"], status["placing_anew"]
    lines = [
        ("daemon", "%s, as of %s (version %s)" % (
            "running, process %d" % status["process"] if status["running"] else "not running",
            status["written_at"], status["version"])),
        ("network", "%s in %s" % (status["space"], status["embedder"])),
        ("clusters", "%d from %s" % (codebook["clusters"], codebook["path"])
         if codebook["clusters"] else "none yet; waiting for %s" % codebook["path"]),
        ("images", "%d queued (%s), %d missing" % (
            status["images"]["queued"], in_units(status["queued_bytes"]),
            status["images"]["missing"])),
        ("inbox", "%s: %d ready, %d settling%s" % (
            inbox["path"], inbox["ready"], inbox["settling"], inbox_trouble(status))),
        ("speed", "%.2f images/s over the last minute; ms an image: %s" % (
            status["images_per_s"], ", ".join(
                "%s %.1f" % pair for pair in sorted(status["ms_per_image"].items())))),
        ("disk", "%s free of %s" % (in_units(status["disk"]["free_bytes"]),
                                    in_units(status["disk"]["total_bytes"]))),
    ]
    if placing["done"] < placing["total"]:
        lines.append(("placing", "anew: %d of %d images; the queue waits for it" % (
            placing["done"], placing["total"])))
    for kind in ("codebook", "policy"):
        if status[kind]["error"]:
            lines.append((kind, "REFUSED: " + status[kind]["error"]))
    if status["last_error"]["what"]:
        lines.append(("last error", "%(at)s %(what)s" % status["last_error"]))
    lines.append(("refused", "%d files%s" % (
        status["files_refused"], ", the newest:" if status["refusals"] else "")))
    text = ["%-11s %s" % line for line in lines]
    text += ["  %s %s: %s (%s)" % (refusal["refused_at"], refusal["path"], refusal["reason"],
                                   refusal["code"]) for refusal in status["refusals"]]
    return "\n".join(map(printable, text))
