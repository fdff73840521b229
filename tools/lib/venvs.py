"""Finds the Pythons of this machine and makes virtual environments, again only when they change.

Shared by tools/test, tools/demo and tools/bench. In: what is on PATH and among pyenv's, and lists
of pip arguments. Out: the path of an environment's python. Needs nothing but Python 3.6 itself.
"""

import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from typing import Dict, List, NamedTuple, Optional, Tuple

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
STAMP = "made-from.json"
PROBE = (
    "import importlib.util as u, json, sys; print(json.dumps({'version': sys.version_info[:3],"
    " 'venv': bool(u.find_spec('venv') and u.find_spec('ensurepip')), 'path': sys.executable,"
    " 'final': sys.version_info.releaselevel == 'final'}))"
)
# 21.3 is the first pip that installs this package editable, 21.3.1 the last for Python 3.6; pip 18,
# which Python 3.6 starts with, has to be told so where a local folder of files offers newer ones.
PIP = "pip >=21.3.1"
PIP_FOR_36 = "pip ==21.3.1"

Version = Tuple[int, int]


class Python(NamedTuple):
    """One interpreter: (major, minor), the path of its executable, whether it can make a venv."""

    version: Version
    path: str
    has_venv: bool


class Install(NamedTuple):
    """One `pip install`: its arguments, and others to fall back on where those cannot be had."""

    arguments: List[str]
    instead: Optional[List[str]] = None


# What tools/demo and the benchmarks run in.
PACKAGE = [Install(["--editable", ".[cpu,ground]"])]


class SetupError(Exception):
    """An environment could not be made; the message says what to do about it."""


def say(text: str) -> None:
    """Prints one line of progress at once, whatever stdout is connected to."""
    print(text, file=sys.stderr, flush=True)


def find_pythons() -> Dict[Version, Python]:
    """Every released CPython 3 on PATH and among pyenv's, the best of each minor version.

    Where two have the same minor version, one that can make a virtual environment wins, then the
    one found first: this script's own, PATH, pyenv.
    """
    found: Dict[Version, Python] = {}
    for path in _candidates():
        python = _probe(path)
        if python is not None:
            known = found.get(python.version)
            if known is None or (python.has_venv and not known.has_venv):
                found[python.version] = python
    return found


def _candidates() -> List[str]:
    folders = os.environ.get("PATH", "").split(os.pathsep)
    pyenv = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    folders += sorted(glob.glob(os.path.join(pyenv, "versions", "3.*", "bin")))
    paths = [sys.executable]
    for folder in folders:
        names = glob.glob(os.path.join(folder, "python3*"))
        paths += sorted(
            path for path in names
            if re.match(r"^python3(\.\d+)?$", os.path.basename(path)) and os.access(path, os.X_OK)
        )
    return paths


def _probe(path: str) -> Optional[Python]:
    """What an interpreter says of itself; None where it does not run (a pyenv shim, say)."""
    done = subprocess.run(
        [path, "-c", PROBE], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, cwd="/",
    )
    if done.returncode != 0:
        return None
    answer = json.loads(done.stdout.decode("utf-8"))
    if not answer["final"]:
        return None
    major, minor = answer["version"][:2]
    return Python((major, minor), answer["path"], answer["venv"])


def ground_python(pythons: Dict[Version, Python]) -> Python:
    """The Python for ground work: 3.11, for which every library has wheels, else the nearest one.

    Newer ones come before older ones. Raises SetupError where there is none from 3.10 on.
    """
    fit = [version for version in pythons if version >= (3, 10)]
    if not fit:
        raise SetupError("no Python 3.10 or newer here; as root: apt-get install python3")
    able = [version for version in fit if pythons[version].has_venv] or fit
    return pythons[min(able, key=lambda version: (abs(version[1] - 11), -version[1]))]


def install_debian_packages(packages: List[str]) -> bool:
    """Installs Debian packages where that is possible (root, apt-get); returns whether it did."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    say("installing Debian packages: " + " ".join(packages))
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    for command in (
        ["apt-get", "update", "-q"],
        ["apt-get", "install", "-q", "-y", "--no-install-recommends"] + packages,
    ):
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, universal_newlines=True,
        )
        if done.returncode != 0:
            say(done.stdout[-2000:])
            return False
    return True


def make_venv_possible(python: Python) -> Python:
    """Debian keeps `venv` in a package of its own: installs it, or says which one to install."""
    if python.has_venv:
        return python
    package = "python{}.{}-venv".format(*python.version)
    if install_debian_packages([package]):
        checked = _probe(python.path)
        if checked is not None and checked.has_venv:
            return checked
    raise SetupError(
        "{} cannot make virtual environments; as root: apt-get install {}".format(
            python.path, package
        )
    )


def ready(folder: str, python: Python, installs: List[Install]) -> str:
    """Makes `folder` a virtual environment and installs into it, in order.

    Nothing happens where the environment was made before from the same Python, the same arguments
    and the same contents of pyproject.toml and of the requirement files named. The stamp that says
    so is written last, so an interrupted run starts over. Returns the path of the environment's
    python. Raises SetupError with pip's own words where pip fails.
    """
    executable = os.path.join(folder, "bin", "python")
    stamp = os.path.join(folder, STAMP)
    wanted = fingerprint(python, installs)
    if _read(stamp) == wanted and _probe(executable) is not None:
        return executable
    python = make_venv_possible(python)
    say("making {} with Python {}.{}".format(os.path.relpath(folder, ROOT), *python.version))
    if os.path.isdir(folder):
        shutil.rmtree(folder)
    _run([python.path, "-m", "venv", folder])
    pip = PIP if python.version > (3, 6) else PIP_FOR_36
    for install in [Install(["--upgrade", pip])] + installs:
        _pip_install(executable, install)
    with open(stamp, "w") as file:
        file.write(wanted)
    return executable


def _pip_install(executable: str, install: Install) -> None:
    pip = [executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    try:
        _run(pip + install.arguments)
    except SetupError:
        if install.instead is None:
            raise
        say("no {}; taking {}".format(" ".join(install.arguments), " ".join(install.instead)))
        _run(pip + install.instead)


def _run(command: List[str]) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        universal_newlines=True, cwd=ROOT,
    )
    if done.returncode != 0:
        raise SetupError("{}\nfailed: {}".format(done.stdout[-3000:].strip(), " ".join(command)))


def fingerprint(python: Python, installs: List[List[str]]) -> str:
    """What an environment depends on, as text that is equal exactly when it need not be remade."""
    files = ["pyproject.toml"]
    for install in installs:
        pairs = zip(install.arguments, install.arguments[1:])
        files += [following for name, following in pairs if name == "-r"]
    contents = {}
    for name in files:
        with open(os.path.join(ROOT, name), "rb") as file:
            contents[name] = hashlib.sha256(file.read()).hexdigest()
    return json.dumps(
        {"root": ROOT, "python": python.path, "version": python.version, "installs": installs,
         "files": contents},
        indent=1, sort_keys=True,
    )


def _read(path: str) -> Optional[str]:
    if not os.path.exists(path):
        return None
    with open(path) as file:
        return file.read()
