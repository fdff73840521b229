"""What an examination comes to: one finding a prerequisite, one row of the report for each.

In: what probes found. Out: `Row`s with a level. BAD means that the daemon could not run as
configured; WARN that it runs, but worse than it could; SKIP that this was not looked at or is not
needed here, and `found` says why.
"""

from typing import NamedTuple

OK, WARN, BAD, SKIP = "ok", "warn", "bad", "skip"
# At whose fault something is BAD, and so the exit code: the user's input, or the world.
CONFIG, WORLD = "config", "world"


class Finding(NamedTuple):
    """What one probe found."""

    level: str  # OK, WARN, BAD or SKIP
    found: str
    needed: str = ""
    mend: str = ""  # one line, the exact command where there is one
    fault: str = ""  # of what is BAD: CONFIG or WORLD
    stops: str = ""  # the runtime that cannot be used for it, as in the config's `embedder`


class Row(NamedTuple):
    """A finding in its place."""

    group: str
    name: str
    finding: Finding


def ok(found: str) -> Finding:
    return Finding(OK, found)


def warn(found: str, needed: str, mend: str = "") -> Finding:
    return Finding(WARN, found, needed, mend)


def bad(fault: str, found: str, needed: str, mend: str = "") -> Finding:
    return Finding(BAD, found, needed, mend, fault)


def skip(why: str) -> Finding:
    return Finding(SKIP, why)
