"""The files the config names, and the config: are they whole, and do they belong together.

In: a Case. Out: one finding a probe. They are read by the functions the daemon reads them with.
"""

import contextlib
import os
import shlex
import sqlite3
from typing import Optional

from jetson_cluster import config as settings
from jetson_cluster.doctor import people
from jetson_cluster.doctor.case import Case, with_config
from jetson_cluster.doctor.catalog import catalog_read, is_orphaned, is_shared
from jetson_cluster.doctor.findings import CONFIG, OK, WORLD, Finding, bad, ok, skip, warn
from jetson_cluster.doctor.people import READ, WRITE
from jetson_cluster.errors import UserError
from jetson_cluster.schema import FORMAT


def config(case: Case) -> Finding:
    if case.config_absent and case.config:
        return bad(CONFIG, "%s: there is none; the rest of this goes by the defaults" % (
            case.config_path), "a config",
            "sudo install -D -m 644 systemd/config.yaml %s" % shlex.quote(case.config_path))
    if case.config_error:
        unseen = not os.access(case.config_path, READ)
        return bad(CONFIG, case.config_error, "a config without mistakes", case.as_root if unseen
                   else "edit it; systemd/config.yaml explains each key")
    why = case.unit.hides(case.config_path) if case.serves else ""
    if why:
        return bad(CONFIG, "%s: the service does not see it, because of %s in its unit" % (
            case.config_path, why), "a place that the service sees",
            "sudo cp %s %s   # and name that in the unit's ExecStart" % (
                shlex.quote(case.config_path), settings.DEFAULT_PATH))
    return ok(case.config_path)


def model(case: Case) -> Finding:
    closed = case.unseen("model", case.config.model) or _out_of_sight(case, case.config.model)
    if closed:
        return closed
    if case.model is None:
        return bad(CONFIG, case.model_error, "a network and its recipe, which `export` makes",
                   "on the ground: jetson-cluster export engines/inception_v3.yaml --weights "
                   "imagenet --out model.onnx")
    held, built = case.model, case.model.recipe.built
    found = "%s, %.1f MB, %s" % (
        held.onnx_path, os.path.getsize(held.onnx_path) / 1e6, held.space)
    if not case.person.may(held.onnx_path, READ):
        return bad(CONFIG, "%s: user %s may not read it" % (found, case.person.name),
                   "a model that the daemon may read",
                   "sudo chmod a+r " + shlex.quote(held.onnx_path))
    if built:
        return ok(found + ", as its recipe says (sha256)")
    return _parsed(case, found + ", whose recipe names no checksum")


def _parsed(case: Case, found: str) -> Finding:
    """What stands in for a checksum: whether the file can be read as ONNX at all."""
    if not case.python_works:
        return skip("%s; cannot be read without python" % found)
    facts = case.facts("network", case.model.onnx_path)
    if "wrong" in facts:
        return bad(CONFIG, "%s, and is no ONNX file: %s" % (found, facts["wrong"]),
                   "a whole network", "copy it here again, and compare: sha256sum " + shlex.quote(
                       case.model.onnx_path))
    if "error" in facts:
        return warn("%s, and it could not be read as ONNX: %s" % (found, facts["error"]),
                    "a recipe that names its onnx_sha256, as export writes it, or a library that "
                    "reads it", case.pip + " install onnxruntime")
    return ok("%s; %s reads it" % (found, facts["by"]))


def codebook(case: Case) -> Finding:
    if not case.numpy_works:
        return skip("cannot be read without numpy")
    from jetson_cluster import codebook as codebooks

    path, held = case.config.codebook, case.model
    closed = _unseen_uplink(case, "codebook", path) or _out_of_sight(case, path)
    if closed:
        return closed

    def read(place):
        return codebooks.load(place, held.space if held else None)
    fit = "on the ground: jetson-cluster fit ARCHIVE --model model.onnx --out codebook.npz"
    if not os.path.lexists(path):
        kept = _kept(case, "codebook.npz")
        return warn("%s: none%s" % (path, ", going on with the last good one, %s" % kept
                                    if _is_good(read, kept) else ""),
                    "clusters; until then images are sorted by how they differ", fit)
    try:
        clusters = read(path)
    except UserError as error:
        return _refused(case, str(error), read, "codebook.npz",
                        "a codebook of the model's embedding space", fit)
    if not case.person.may(path, READ):
        return bad(CONFIG, "%s: user %s may not read it" % (path, case.person.name),
                   "a codebook that the daemon may read", "sudo chmod a+r " + shlex.quote(path))
    return ok("%s, %d clusters of %s%s" % (
        path, clusters.k, clusters.space, "" if held else "; there is no model to compare it with"))


def policy(case: Case) -> Finding:
    if not case.numpy_works:
        return skip("cannot be read without numpy")
    from jetson_cluster import codebook as codebooks
    from jetson_cluster import policy as policies

    path = case.config.policy
    closed = _unseen_uplink(case, "policy", path)
    if closed:
        return closed
    try:
        wanted = policies.load(path)
    except UserError as error:
        return _refused(case, str(error), policies.load, "policy.yaml", "a policy without mistakes",
                        "edit it; systemd/policy.yaml shows one")
    if not os.path.lexists(path):
        return ok("%s: none, every cluster has weight 1" % path)
    if not case.person.may(path, READ):
        return bad(CONFIG, "%s: user %s may not read it" % (path, case.person.name),
                   "a policy that the daemon may read", "sudo chmod a+r " + shlex.quote(path))
    found = "%s, %d labels, %d weights" % (path, len(wanted.labels), len(wanted.weights))
    with contextlib.suppress(UserError):  # the codebook has a row of its own
        clusters = codebooks.load(case.config.codebook)
        unknown = wanted.unknown_clusters(clusters.k)
        if unknown:
            return warn("%s; it speaks of clusters %s" % (found, unknown),
                        "clusters of the codebook, 0 to %d" % (clusters.k - 1),
                        "name the clusters of this codebook in it")
    return ok(found)


def _unseen_uplink(case: Case, key: str, path: str) -> Optional[Finding]:
    """What the sandbox hides of files that the daemon also starts without."""
    unseen = case.unseen(key, path)
    return unseen and warn(unseen.found, unseen.needed, unseen.mend)


def _kept(case: Case, name: str) -> str:
    """Where the daemon keeps the last good copy of an uplinked file."""
    return os.path.join(case.config.state_dir, "last-good", name)


def _is_good(read, path: str) -> bool:
    try:
        read(path)
    except UserError:
        return False
    return os.path.exists(path)


def _refused(case: Case, error: str, read, name: str, needed: str, mend: str) -> Finding:
    """A bad file stops the start only where no good version of it was kept."""
    if _is_good(read, _kept(case, name)):
        return warn("%s; going on with the last good one, %s" % (error, _kept(case, name)),
                    needed, mend)
    return bad(CONFIG, error, needed, mend)


def _out_of_sight(case: Case, path: str) -> Optional[Finding]:
    """The finding for what whoever looks may not see, None if it can be looked at."""
    hidden = case.hidden(path)
    if hidden is None:
        return None
    found = "%s: user %s may not enter %s" % (path, people.whoever_looks(case.machine).name, hidden)
    if case.person.looks:
        return bad(CONFIG, found, "a file that the daemon may read",
                   "put it where that user may read it, and name that place in the config")
    return warn(found, "a look by one who may", case.as_root)


def catalog(case: Case) -> Finding:
    path = case.config.catalog_path
    closed = _out_of_sight(case, path)
    if closed:
        return closed
    if not os.path.lexists(path):
        return ok("%s: none yet, it is made at the first start" % path)
    aside = "mv %s %s" % (shlex.quote(path), shlex.quote(path + ".old"))
    files = [path + ending for ending in ("", "-wal", "-shm") if os.path.exists(path + ending)]
    # Even to read it, SQLite writes to the index of a log that is in use.
    if not all(os.access(one, READ | WRITE if is_shared(path) else READ) for one in files):
        return warn("%s: cannot be looked into by this user" % path, "a look by one who may",
                    case.as_root)
    if is_orphaned(path):
        return skip("%s: a daemon ended without closing it, and the index of its log is gone; the "
                    "next start brings it in order" % path)
    try:
        with catalog_read(path) as database:
            finding = _judged(case, database, path, aside)
    except sqlite3.Error as error:
        return bad(WORLD, "%s: %s" % (path, error), "a whole catalog",
                   aside + "   # the images are catalogued anew")
    locked = [one for one in files if not case.person.may(one, READ | WRITE)]
    if locked and finding.level == OK:
        return bad(WORLD, "%s: user %s may not write to %s" % (
            path, case.person.name, ", ".join(map(os.path.basename, locked))),
            "files that the daemon may write to", "sudo chown %s %s" % (
                shlex.quote(case.person.name), " ".join(map(shlex.quote, locked))))
    return finding


def _judged(case: Case, database: sqlite3.Connection, path: str, aside: str) -> Finding:
    """What an open catalog holds; raises sqlite3.Error."""
    version = database.execute("PRAGMA user_version").fetchone()[0]
    tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
    if not tables:
        return ok("%s: empty, it is filled at the first start" % path)
    if version == 0 or not {"images", "meta"} <= tables:
        return bad(CONFIG, "%s: a database of another program" % path, "a state_dir of its own",
                   "set state_dir to a new folder, or: " + aside)
    if version > FORMAT:
        return bad(CONFIG, "%s: format %d" % (path, version), "format %d at most" % FORMAT,
                   "install the newer jetson-cluster again, or: " + aside)
    space = database.execute("SELECT value FROM meta WHERE key = 'space'").fetchone()
    counts = dict(database.execute("SELECT state, COUNT(*) FROM images GROUP BY state"))
    words = ", ".join("%d %s" % (number, state) for state, number in sorted(counts.items()))
    found = "%s, format %d%s, %s of %s" % (
        path, version,
        "" if version == FORMAT else ", brought up to date at the next start",
        "images: " + words if words else "no images", space[0] if space else "an unknown space")
    if case.model and (space is None or space[0] != case.model.space):
        return bad(CONFIG, found, "embeddings of the model here, %s" % case.model.space,
                   "set state_dir to a new folder, or: " + aside)
    return ok(found)


PROBES = tuple((name, with_config(probe)) for name, probe in (
    ("model", model), ("codebook", codebook), ("policy", policy), ("catalog", catalog)))
