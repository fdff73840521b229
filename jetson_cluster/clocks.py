"""The clocks that do not come from `time`: UTC as text, and which boot of the computer this is."""

import datetime


def boot_identity() -> str:
    """What tells this boot of the system from others; "" where the system does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def utc_now() -> str:
    """Now as ISO 8601, UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
