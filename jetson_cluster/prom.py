"""The daemon's status for node_exporter's textfile collector, in Prometheus' text format 0.0.4.

In: the status as status.json holds it. Out: text, one metric family after the other, each with its
help. Times and sizes are in seconds and bytes, as Prometheus asks for; moments in seconds since
1970.
"""

import calendar
import time
from typing import Any, Dict, Iterable, List, Optional, Tuple

Sample = Tuple[Dict[str, str], Optional[float]]  # labels, value; None: not known, left out
PREFIX = "jetson_cluster_"
# What has an error of its own, "" while all is well.
PARTS = ("codebook", "policy", "orders", "outbox", "queue", "retention")


def text(status: Dict[str, Any]) -> str:
    """The whole file."""
    lines = []  # type: List[str]
    for name, kind, meaning, samples in _families(status):
        known = [(labels, value) for labels, value in samples if value is not None]
        if known:
            lines.append("# HELP %s%s %s" % (PREFIX, name, meaning))
            lines.append("# TYPE %s%s %s" % (PREFIX, name, kind))
            lines += ["%s%s%s %s" % (PREFIX, name, _in_braces(labels), _number(value))
                      for labels, value in known]
    return "\n".join(lines) + "\n"


def _families(status: Dict[str, Any]) -> Iterable[Tuple[str, str, str, List[Sample]]]:
    def gauge(name: str, meaning: str, samples: List[Sample]):
        return name, "gauge", meaning, samples

    def single(name: str, meaning: str, value: Optional[float]):
        return gauge(name, meaning, [({}, value)])

    yield gauge("info", "What runs; always 1", [({
        "version": status["version"], "embedder": status["embedder"],
        "space": status["space"]}, 1)])
    yield single("running", "1 while the daemon runs, 0 once it has stopped", status["running"])
    yield single("written_timestamp_seconds", "When this was written",
                 _moment(status["written_at"]))
    yield gauge("images", "Images in the catalog by state",
                [({"state": state}, count) for state, count in sorted(status["images"].items())])
    yield gauge("image_bytes", "Bytes of those images",
                [({"state": state}, size) for state, size in sorted(status["bytes"].items())])
    yield single("files_refused", "Files that are no usable image", status["files_refused"])
    yield single("files_quarantined", "Files given up because they ended the program",
                 status["files_quarantined"])
    yield single("oldest_queued_passes", "Passes that left the oldest queued image behind",
                 status["oldest_queued"]["passes"])
    yield single("oldest_queued_captured_timestamp_seconds", "When that image was taken",
                 _moment(status["oldest_queued"]["captured_at"]))
    yield single("last_pass_number", "Number of the newest pass", status["last_pass"]["number"])
    yield single("last_pass_made_timestamp_seconds", "When it was made",
                 _moment(status["last_pass"]["made_at"]))
    yield single("last_pass_images", "Images in it", status["last_pass"]["images"])
    yield single("last_pass_bytes", "Bytes of the images in it", status["last_pass"]["bytes"])
    yield single("last_pass_previews", "Previews in it", status["last_pass"]["previews"])
    yield single("last_pass_preview_bytes", "Bytes of the previews in it",
                 status["last_pass"]["preview_bytes"])
    yield single("accepting", "1 while new images are taken in, 0 while the disk is too full",
                 status["accepting"]["images"])
    yield single("paused", "1 while the catalog cannot be written", bool(status["paused"]))
    yield single("inbox_available", "1 while the inbox is there", status["inbox"]["available"])
    yield single("inbox_watched", "1 while events tell of new files, 0 while looking finds them",
                 status["inbox"]["watched"])
    yield gauge("inbox_files", "Files in the inbox not taken in yet", [
        ({"step": "ready"}, status["inbox"]["ready"]),
        ({"step": "settling"}, status["inbox"]["settling"])])
    yield single("outbox_links", "Links in the outbox", status["outbox"]["links"])
    yield gauge("error", "1 where something is wrong at the moment", [
        ({"part": part}, bool(status[part]["error"])) for part in PARTS])
    yield single("last_error_timestamp_seconds", "When the newest error was first seen",
                 _moment(status["last_error"]["at"]))
    yield single("policy_amendments", "Weights, labels and targets by orders",
                 status["policy"]["amendments"])
    yield single("policy_unknown_targets", "Targets of the policy that name no image here",
                 len(status["policy"]["unknown_targets"]))
    yield single("clusters", "Clusters of the codebook, 0 without one",
                 status["codebook"]["clusters"])
    yield gauge("placing_anew", "Images placed anew for a new codebook or policy", [
        ({"step": step}, status["placing_anew"][step]) for step in ("done", "total")])
    yield single("images_per_second", "Images joining the queue, over the last minute",
                 status["images_per_s"])
    yield gauge("stage_seconds_per_image", "Seconds an image, since the start", [
        ({"stage": stage}, milliseconds / 1000.0)
        for stage, milliseconds in sorted(status["ms_per_image"].items())])
    yield single("previews", "Previews made since the start", status["previews"]["made"])
    yield single("preview_mean_bytes", "Bytes of a preview, since the start",
                 status["previews"]["mean_bytes"])
    yield single("preview_mean_psnr_decibels", "Likeness of the previews, since the start",
                 status["previews"]["mean_psnr_db"])
    yield gauge("temperature_celsius", "Degrees C of each sensor of the chip", [
        ({"zone": zone}, degrees) for zone, degrees in sorted(status["heat"]["zones"].items())])
    yield gauge("heat_level", "1 at the level of heat the daemon works by", [
        ({"level": level}, level == status["heat"]["level"])
        for level in ("unknown", "normal", "warm", "hot")])
    yield gauge("power_watts", "Power drawn, rail by rail", [
        ({"rail": rail}, milliwatts / 1000.0)
        for rail, milliwatts in sorted(status["power_mw"].items())])
    yield single("gpu_busy_ratio", "Share of the time that the GPU works", status["gpu_load"])
    yield single("gpu_given_up", "1 while the processor stands in for a lost GPU",
                 status["gpu"]["given_up"])
    yield single("gpu_lost_of_late", "Losses of the GPU that count towards giving it up",
                 status["gpu"]["lost_of_late"])
    for name, key in (("state", "disk"), ("inbox", "inbox_disk")):
        yield gauge("%s_disk_bytes" % name, "Disk that holds the %s folder" % name, [
            ({"kind": "free"}, status[key]["free_bytes"]),
            ({"kind": "total"}, status[key]["total_bytes"])])


def _moment(text: str) -> Optional[int]:
    """Seconds since 1970 of a time as the status has them; None for none, or one by no calendar."""
    try:
        return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return None


def _in_braces(labels: Dict[str, str]) -> str:
    if not labels:
        return ""
    return "{%s}" % ",".join('%s="%s"' % (name, _escaped(value))
                             for name, value in sorted(labels.items()))


def _escaped(value: str) -> str:
    shown = value.encode("utf-8", "backslashreplace").decode("utf-8")
    return shown.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return repr(float(value)) if isinstance(value, float) else str(int(value))
