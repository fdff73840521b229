"""What the daemon says of itself: everything that `status.json` and the Prometheus file hold.

In: the parts of a running daemon. Out: one dictionary of the shape health.STATUS_SHAPE.
"""

import os
from typing import Any, Dict, NamedTuple

from jetson_cluster import __version__, health, sensors
from jetson_cluster.catalog import Catalog
from jetson_cluster.config import Config
from jetson_cluster.gpu_losses import GpuLosses
from jetson_cluster.heat import Heat
from jetson_cluster.inbox import Inbox
from jetson_cluster.ingest import Ingest
from jetson_cluster.operations import Operations
from jetson_cluster.pausing import Pause
from jetson_cluster.pipeline import Pipeline
from jetson_cluster.placing import Placing
from jetson_cluster.publisher import Publisher
from jetson_cluster.schema import REFUSED, STATES
from jetson_cluster.uplinked import Uplinked
from jetson_cluster.wishes import Wishes

REFUSALS_SHOWN = 20


class Parts(NamedTuple):
    """What a running daemon is made of."""

    config: Config
    space: str
    gpu_losses: GpuLosses
    gpu_given_up: bool
    pipeline: Pipeline
    codebook: Uplinked
    wishes: Wishes
    catalog: Catalog
    placing: Placing
    inbox: Inbox
    ingest: Ingest
    publisher: Publisher
    operations: Operations
    heat: Heat
    pause: Pause
    reporter: health.Reporter
    sysfs: str


def status_of(parts: Parts, running: bool, now: str) -> Dict[str, Any]:
    """The status; `now` is ISO 8601, UTC. Raises sqlite3.Error."""
    catalog, placing, operations = parts.catalog, parts.placing, parts.operations
    counts, sizes, progress = catalog.counts, catalog.sizes, placing.progress
    hottest, spent = parts.heat.hottest, parts.ingest.spent
    last = catalog.pass_of(catalog.last_pass)
    return {
        "written_at": now, "running": running, "process": os.getpid(), "version": __version__,
        "embedder": parts.pipeline.embedder.description, "space": parts.space,
        "gpu": {"given_up": parts.gpu_given_up, "lost_of_late": len(parts.gpu_losses.recent())},
        "codebook": {"path": parts.config.codebook, "error": parts.codebook.error,
                     "clusters": placing.clusters if placing.clustered else 0},
        "policy": {"path": parts.wishes.path, "error": parts.wishes.error,
                   "amendments": len(catalog.amendments()),
                   "unknown_targets": list(placing.unresolved)},
        "images": {state: counts[state] for state in STATES},
        "bytes": {state: sizes[state] for state in STATES},
        "files_refused": counts[REFUSED],
        "files_quarantined": catalog.quarantined(),
        "oldest_queued": _oldest(catalog),
        "last_pass": {"number": catalog.last_pass, "made_at": last.made_at if last else "",
                      "images": last.images if last else 0, "bytes": last.bytes if last else 0,
                      "previews": last.previews if last else 0,
                      "preview_bytes": last.preview_bytes if last else 0},
        "accepting": {"images": operations.accepting, "why_not": operations.retention.error
                      if not operations.accepting else ""},
        "paused": parts.pause.why,
        "queue": {"path": parts.config.queue.path, "error": parts.publisher.error},
        "retention": {"error": operations.retention.error},
        "orders": {"path": parts.config.orders.path, "error": operations.orders.error},
        "outbox": {"path": parts.config.outbox.path or "",
                   "links": operations.outbox.links if operations.outbox else 0,
                   "error": operations.outbox.error if operations.outbox else ""},
        "previews": parts.ingest.previews.means(),
        "inbox": {"path": parts.config.inbox.path, "available": parts.inbox.available,
                  "watched": parts.inbox.watching,
                  "ready": parts.inbox.backlog, "settling": parts.inbox.settling},
        "placing_anew": {"done": progress.done, "total": progress.total},
        "heat": {"level": parts.heat.level.name, "hottest_c": hottest and hottest[1],
                 "zones": parts.heat.zones},
        "power_mw": sensors.power_mw(parts.sysfs), "gpu_load": sensors.gpu_load(parts.sysfs),
        "images_per_s": round(parts.reporter.images_per_s, 2),
        "ms_per_image": {stage: round(1000 * seconds / max(1, spent.images), 2)
                         for stage, seconds in (
                             ("decode", spent.decode_s), ("network", spent.network_s),
                             ("catalog", spent.catalog_s), ("queue", parts.publisher.spent_s))},
        "disk": health.disk_of(parts.config.state_dir),
        "inbox_disk": health.disk_of(parts.config.inbox.path),
        "last_error": parts.reporter.last_error,
        "refusals": [{"path": refusal.path, "code": refusal.code, "reason": refusal.reason,
                      "refused_at": refusal.refused_at}
                     for refusal in catalog.refusals(REFUSALS_SHOWN)],
    }


def _oldest(catalog: Catalog) -> Dict[str, Any]:
    """The queued image that has been here longest; how many passes left it behind."""
    held = catalog.oldest_queued()
    if held is None:
        return {"captured_at": "", "passes": 0}
    return {"captured_at": held[1], "passes": catalog.passes_since(held[0])}
