"""A daemon's status of the right shape, for the tests of what reads one."""

from jetson_cluster import health


def plainest(shape):
    """The plainest value of a shape as health.STATUS_SHAPE has them."""
    if isinstance(shape, dict):
        return {key: plainest(inner) for key, inner in shape.items() if key is not ...}
    return [] if isinstance(shape, list) else (shape[0] if isinstance(shape, tuple) else shape)()


def status(**changes):
    """A status whose every key is the plainest there is, but for `changes`."""
    return dict(plainest(health.STATUS_SHAPE), **changes)


# Of a daemon at work: nothing in it is 0 or empty that need not be.
AT_WORK = {
    "written_at": "2024-05-01T10:00:00Z", "running": True, "process": 7, "version": "1",
    "embedder": "onnxruntime", "space": "tiny/pooled@0",
    "gpu": {"given_up": False, "lost_of_late": 1},
    "codebook": {"path": "/c", "error": "", "clusters": 3},
    "policy": {"path": "/p", "error": "", "amendments": 2, "unknown_targets": ["veins: not here"]},
    "images": {"queued": 1, "waiting": 2, "sent": 3, "acked": 4, "held": 5, "missing": 6,
               "deleted": 7, "dropped": 8},
    "bytes": {"queued": 10, "waiting": 20, "sent": 30, "acked": 40, "held": 50, "missing": 60,
              "deleted": 70, "dropped": 80},
    "files_refused": 1, "files_quarantined": 1,
    "oldest_queued": {"captured_at": "2024-04-01T10:00:00Z", "passes": 12},
    "last_pass": {"number": 9, "made_at": "2024-05-01T09:00:00Z", "images": 3, "bytes": 30,
                  "previews": 2, "preview_bytes": 40},
    "accepting": {"images": True, "why_not": ""}, "paused": "",
    "queue": {"path": "/q", "error": ""}, "retention": {"error": ""},
    "orders": {"path": "/o", "error": ""}, "outbox": {"path": "/x", "links": 4, "error": ""},
    "previews": {"made": 5, "mean_bytes": 1800.5, "mean_psnr_db": 31.25},
    "inbox": {"path": "/i", "available": True, "watched": True, "ready": 1, "settling": 2},
    "placing_anew": {"done": 1, "total": 5}, "images_per_s": 0.5,
    "heat": {"level": "warm", "hottest_c": 82.5, "zones": {"CPU-therm": 82.5, "GPU-therm": 80.0}},
    "power_mw": {"POM_5V_IN": 5120}, "gpu_load": 0.5,
    "ms_per_image": {"decode": 1.5, "network": 20.0, "catalog": 0.5, "queue": 2.0},
    "disk": {"free_bytes": 1, "total_bytes": 2}, "inbox_disk": {"free_bytes": 3, "total_bytes": 4},
    "last_error": {"at": "2024-05-01T08:00:00Z", "what": "QueueNotWritten: /q: no space"},
    "refusals": [{"path": "/i/x", "code": "c", "reason": "r", "refused_at": "t"}]}
