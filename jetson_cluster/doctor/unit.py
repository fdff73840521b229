"""The installed service unit with its drop-ins: who runs, with which config, in which sandbox.

In: a machine. Out: a `Unit`, which also says of a path what the sandbox leaves of it. Read as
systemd.unit(5) and systemd.exec(5) have it; what a unit gets by other ways (set-property, drop-ins
for all services) is not seen.
"""

import os
import shlex
from typing import Dict, List, NamedTuple, Optional, Sequence

from jetson_cluster.doctor.machine import Machine

UNIT = "jetson-cluster.service"
FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system",
           "/usr/lib/systemd/system", "/lib/systemd/system")
DROP_INS = FOLDERS[0] + "/" + UNIT + ".d"
# Where the folders are that systemd itself makes for a service, which may write to them.
MADE_BELOW = {"StateDirectory": "/var/lib", "CacheDirectory": "/var/cache",
              "LogsDirectory": "/var/log", "RuntimeDirectory": "/run",
              "ConfigurationDirectory": "/etc"}
HOMES = ("/home", "/root", "/run/user")
TEMPORARY = ("/tmp", "/var/tmp")
YES = ("1", "yes", "true", "on")
# Hidden, and all below with it; another, empty one in its place, in which a path can be bound.
HIDDEN, OWN, BOUND, READ_ONLY, WRITABLE = "hidden", "own", "bound", "read-only", "writable"


class Rule(NamedTuple):
    """What the sandbox makes of one path and of what is below it."""

    path: str
    kind: str  # HIDDEN, OWN, BOUND, READ_ONLY or WRITABLE
    why: str  # the directive, "ProtectHome=yes"


class Unit(NamedTuple):
    """What the unit says, as far as the doctor needs it."""

    path: str
    user: str
    more_groups: List[str]
    config: str  # "" where the command names none
    state_folders: List[str]  # that systemd makes
    rules: List[Rule]

    def hides(self, path: str) -> str:
        """The directive for which the service does not see what is at `path`; "" if it does."""
        fitting = _fitting(self.rules, path)
        for rule in fitting:
            if rule.kind == HIDDEN:
                return rule.why
        nearest = [rule for rule in fitting if rule.kind in (OWN, BOUND)][-1:]
        return nearest[0].why if nearest and nearest[0].kind == OWN else ""

    def keeps_from_writing(self, path: str) -> str:
        """The directive for which the service cannot write to `path`; "" if none forbids it."""
        nearest = [rule for rule in _fitting(self.rules, path)
                   if rule.kind in (READ_ONLY, WRITABLE)][-1:]
        return nearest[0].why if nearest and nearest[0].kind == READ_ONLY else ""

    def mounts_apart(self, path: str, other: str) -> str:
        """The directive for which the service has two paths on two mounts; "" if on one.

        Each path that a directive names is mounted by itself.
        """
        nearest = [_fitting(self.rules, place)[-1:] for place in (path, other)]
        if [rule.path for rule in nearest[0]] == [rule.path for rule in nearest[1]]:
            return ""
        return max(nearest[0] + nearest[1], key=lambda rule: len(rule.path)).why


def installed(machine: Machine) -> Optional[Unit]:
    """The service unit, None if none is installed; raises OSError if it cannot be read."""
    places = ("%s/%s" % (folder, UNIT) for folder in FOLDERS)
    path, text = next(((path, text) for path, text in (
        (path, machine.text(path)) for path in places) if text is not None), ("", None))
    if text is None:
        return None
    held = settings([text] + _drop_ins(machine))
    command = words(held, "ExecStart")
    config = command[command.index("--config") + 1] if "--config" in command[:-1] else ""
    return Unit(path, _last(held, "User") or "root", words(held, "SupplementaryGroups"), config,
                _made(held, "StateDirectory"), rules(held))


def _drop_ins(machine: Machine) -> List[str]:
    """The texts of the drop-ins, in the order of their names; of one name the first folder's."""
    found = {}  # type: Dict[str, str]
    for folder in FOLDERS:
        for path in machine.paths("%s/%s.d/*.conf" % (folder, UNIT)):
            found.setdefault(os.path.basename(path), path)
    return [machine.text(found[name]) or "" for name in sorted(found)]


def settings(texts: Sequence[str]) -> Dict[str, List[str]]:
    """Every value of each key of [Service], in turn; an empty one takes back those before it."""
    held = {}  # type: Dict[str, List[str]]
    for text in texts:
        section = ""
        for line in map(str.strip, text.replace("\\\n", " ").splitlines()):
            if line.startswith("["):
                section = line
            key, equals, value = (part.strip() for part in line.partition("="))
            if not equals or line[0] in "#;" or section != "[Service]":
                continue
            if value:
                held.setdefault(key, []).append(value)
            else:
                held.pop(key, None)
    return held


def words(held: Dict[str, List[str]], key: str) -> List[str]:
    """The words of all values of a key that takes several."""
    found = []  # type: List[str]
    for value in held.get(key, ()):
        try:
            found += shlex.split(value)
        except ValueError:  # a quote without its other half
            found += value.split()
    return [word.replace("%%", "%") for word in found]


def _last(held: Dict[str, List[str]], key: str) -> str:
    return held.get(key, [""])[-1]


def _made(held: Dict[str, List[str]], key: str) -> List[str]:
    # "name:other" is made with a symlink to it.
    return [os.path.join(MADE_BELOW[key], word.split(":")[0]) for word in words(held, key)]


def rules(held: Dict[str, List[str]]) -> List[Rule]:
    """What the settings make of the file system."""
    found = []  # type: List[Rule]

    def add(places: Sequence[str], kind: str, key: str, value: str = "") -> None:
        why = "%s=%s" % (key, value or _last(held, key))
        found.extend(Rule(os.path.realpath(place), kind, why) for place in places)

    system, home = _last(held, "ProtectSystem").lower(), _last(held, "ProtectHome").lower()
    if system == "strict":
        add(["/"], READ_ONLY, "ProtectSystem")
        add(("/dev", "/proc", "/sys") + HOMES, WRITABLE, "ProtectSystem")
    elif system == "full" or system in YES:
        add(["/usr", "/boot", "/efi"] + ["/etc"] * (system == "full"), READ_ONLY, "ProtectSystem")
    if home == "read-only":
        add(HOMES, READ_ONLY, "ProtectHome")
    elif home == "tmpfs" or home in YES:
        add(HOMES, OWN if home == "tmpfs" else HIDDEN, "ProtectHome")
    if _last(held, "PrivateTmp").lower() in YES + ("disconnected",):
        add(TEMPORARY, OWN, "PrivateTmp")
        add(TEMPORARY, WRITABLE, "PrivateTmp")
    for key in MADE_BELOW:
        add(_made(held, key), WRITABLE, key)
    for key, kind in (("InaccessiblePaths", HIDDEN), ("TemporaryFileSystem", OWN),
                      ("ReadOnlyPaths", READ_ONLY), ("ReadWritePaths", WRITABLE)):
        for word in words(held, key):
            place = word.lstrip("-+")
            if key == "TemporaryFileSystem":
                place = place.split(":")[0]
            # What is not there when the service starts is not opened for it later.
            if kind != WRITABLE or os.path.exists(place):
                add([place], kind, key, word)
    for key, kind in (("BindPaths", WRITABLE), ("BindReadOnlyPaths", READ_ONLY)):
        for word in words(held, key):
            parts = word.lstrip("-").split(":")
            for one in (BOUND, kind):
                add([parts[1] if len(parts) > 1 else parts[0]], one, key, word)
    return found


def _fitting(found: Sequence[Rule], path: str) -> List[Rule]:
    """The rules that speak of `path`, the nearest last; of two for one place the later one."""
    inside = os.path.join(os.path.realpath(path), "")
    return sorted((rule for rule in found if inside.startswith(os.path.join(rule.path, ""))),
                  key=lambda rule: len(rule.path))
