"""The service: which account runs the daemon, and whether systemd starts and keeps it.

In: a Case. Out: one finding a probe.
"""

from typing import Dict, Optional

from jetson_cluster.doctor.case import Case
from jetson_cluster.doctor.findings import WORLD, Finding, bad, ok, skip, warn
from jetson_cluster.doctor.people import account
from jetson_cluster.doctor.unit import UNIT

CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv")
ASKED = ("UnitFileState", "ActiveState", "SubState", "NRestarts", "NeedDaemonReload")
JOURNAL = "sudo journalctl -u jetson-cluster -n 30"


def user(case: Case) -> Finding:
    """Who the daemon runs as; all permissions above are this user's."""
    if case.serves and account(case.machine, case.unit.user, case.unit.more_groups) is None:
        return bad(WORLD, "%s runs as user %s, and there is no such user" % (
            case.unit.path, case.unit.user), "that account", "sudo systemd-sysusers")
    return ok("%s, %s" % (case.person.name, "as %s says" % case.unit.path if case.serves
                          else "who looks"))


def service(case: Case) -> Finding:
    """Whether the daemon starts by itself, and how it is doing."""
    state = _state(case)
    if case.unit is None:
        if any(case.machine.text(mark) is not None for mark in CONTAINER_MARKS):
            return skip("none in this container; what starts the container restarts the daemon")
        if not case.jetson:
            return skip("%s is not installed; that is for a rover" % UNIT)
        return warn("%s is not installed" % UNIT, "a service, so that the daemon starts by itself",
                    "sudo tools/install-on-jetson")
    if state is None:
        return skip("%s is installed, but systemd cannot be asked here" % case.unit.path)
    found = "%s, %s (%s)" % (
        state["UnitFileState"] or "unknown", state["ActiveState"], state["SubState"])
    if state.get("NRestarts", "0") != "0":
        found += ", started again %s times" % state["NRestarts"]
    if state.get("NeedDaemonReload") == "yes":
        return warn(found + ", and its file changed since", "what the file says, in force",
                    "sudo systemctl daemon-reload && sudo systemctl restart jetson-cluster")
    if state["UnitFileState"] != "enabled":
        return warn(found, "enabled, so that it starts after a reboot",
                    "sudo systemctl enable --now jetson-cluster")
    if state["ActiveState"] == "failed" or state["SubState"] == "auto-restart":
        return warn(found, "a daemon that stays up", JOURNAL)
    if state["ActiveState"] not in ("active", "activating", "reloading"):
        return warn(found, "active", "sudo systemctl start jetson-cluster")
    return ok(found)


def _state(case: Case) -> Optional[Dict[str, str]]:
    """What systemd says of the service; None where there is no systemd to ask."""
    ran = case.machine.run(["systemctl", "show", UNIT, "--property=" + ",".join(ASKED)])
    if ran is None or ran.code != 0:
        return None
    state = dict(line.split("=", 1) for line in ran.out.splitlines() if "=" in line)
    return state if {"UnitFileState", "ActiveState", "SubState"} <= set(state) else None


PROBES = (("account", user), ("service", service))
