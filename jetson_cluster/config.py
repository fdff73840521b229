"""The daemon's settings: one YAML file in, one checked `Config` out.

Every key has a default, `--set key=value` overrides the file, and all mistakes are reported at
once. systemd/config.yaml explains each key; a test holds the two together.
"""

import errno
import os
from typing import NamedTuple, Optional, Sequence

import yaml

from jetson_cluster import heat
from jetson_cluster.checking import NOT_YAML, Checker, nearest_name, one_line
from jetson_cluster.errors import UserError, WorldError

DEFAULT_PATH = "/etc/jetson-cluster/config.yaml"
# A folder that cannot be made for one of these is wrongly named; for any other the disk is at fault.
ASKED_WRONG = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG,
               errno.ELOOP, errno.EINVAL)
EMBEDDERS = ("auto", "cpu", "tensorrt", "onnxruntime", "openvino", "openvino-float32")
CENTROIDS = ("float32", "float16")
PREVIEW_FORMATS = ("none", "webp", "palette")
PREVIEW_LEAST_BYTES = 1024  # with fewer allowed, not every format has room for its headers
KEEP = "keep"
# In words that cannot be mistaken for anything else.
DELETE_UNRECEIVED = "delete-images-the-ground-never-received"
LOG_LEVELS = ("debug", "info", "warning", "error")


class InboxConfig(NamedTuple):
    """Where images arrive and what is accepted there."""

    path: str
    settle_s: float
    rescan_s: float
    max_file_bytes: int
    max_pixels: int
    sixteen_bit_white: int


class QueueConfig(NamedTuple):
    """The queue file."""

    path: str
    rows: int
    interval_s: float


class TensorRTConfig(NamedTuple):
    """The network on the GPU."""

    plan: Optional[str]  # None: beside the model
    workspace_bytes: int
    centroids: str  # how they are kept on the GPU
    cpu_fallback: bool


class OrdersConfig(NamedTuple):
    """Where the ground's orders come in."""

    path: str


class OutboxConfig(NamedTuple):
    """Links to the head of the queue, for downlink software that sends what lies in a folder."""

    path: Optional[str]  # None: there is none
    bytes: int


class PreviewConfig(NamedTuple):
    """The tiny picture made of every image."""

    format: str
    max_bytes: int


class RetentionConfig(NamedTuple):
    """What may be deleted when the disk fills up."""

    free_bytes: int  # below this
    unacknowledged: str  # KEEP or DELETE_UNRECEIVED


class StatusConfig(NamedTuple):
    """How the daemon is doing, for machines."""

    prom: str


class HeatConfig(NamedTuple):
    """At what degrees C the daemon works less, and not at all."""

    warm_c: float
    hot_c: float


class Config(NamedTuple):
    """All settings, checked, paths absolute."""

    path: str
    state_dir: str
    model: str
    recipe: Optional[str]  # None: the file beside the model
    codebook: str
    policy: str
    embedder: str
    batch: int  # 0: as the recipe says
    threads: int  # 0: as many as there are cores
    log_level: str
    inbox: InboxConfig
    queue: QueueConfig
    orders: OrdersConfig
    outbox: OutboxConfig
    preview: PreviewConfig
    retention: RetentionConfig
    status: StatusConfig
    tensorrt: TensorRTConfig
    heat: HeatConfig

    @property
    def catalog_path(self) -> str:
        return os.path.join(self.state_dir, "catalog.sqlite")

    @property
    def status_path(self) -> str:
        return os.path.join(self.state_dir, "status.json")

    @property
    def previews_path(self) -> str:
        return os.path.join(self.state_dir, "previews")

    @property
    def kept_path(self) -> str:
        """Where the last good codebook and policy are kept."""
        return os.path.join(self.state_dir, "last-good")


DEFAULTS = {
    "state_dir": "/var/lib/jetson-cluster",
    "model": "/var/lib/jetson-cluster/model.onnx",
    "recipe": None,
    "codebook": "/var/lib/jetson-cluster/codebook.npz",
    "policy": "/etc/jetson-cluster/policy.yaml",
    "embedder": "auto",
    "batch": 0,
    "threads": 0,
    "log_level": "info",
    "inbox": {
        "path": "/var/spool/jetson-cluster/inbox",
        "settle_s": 1.0,
        "rescan_s": 30.0,
        "max_file_bytes": 64 * 1024 * 1024,
        "max_pixels": 25 * 1000 * 1000,
        "sixteen_bit_white": 65535,
    },
    "queue": {
        "path": None,
        "rows": 200,
        "interval_s": 1.0,
    },
    "orders": {
        "path": "/var/spool/jetson-cluster/orders",
    },
    "outbox": {
        "path": None,
        "bytes": 4 * 1000 * 1000,
    },
    "preview": {
        "format": "webp",
        "max_bytes": 2048,
    },
    "retention": {
        "free_bytes": 1000 * 1000 * 1000,
        "unacknowledged": KEEP,
    },
    "status": {
        "prom": None,
    },
    "tensorrt": {
        "plan": None,
        "workspace_bytes": 64 * 1024 * 1024,
        "centroids": "float32",
        "cpu_fallback": True,
    },
    "heat": {
        "warm_c": heat.WARM_C,
        "hot_c": heat.HOT_C,
    },
}
SECTIONS = tuple(key for key, value in DEFAULTS.items() if isinstance(value, dict))
PATHS = ("state_dir", "model", "recipe", "codebook", "policy", "inbox.path", "queue.path",
         "orders.path", "outbox.path", "status.prom", "tensorrt.plan")


def load(path: str, overrides: Sequence[str] = ()) -> Config:
    """Read the config at `path` and apply `key=value` overrides; raises UserError.

    Relative paths in the file are taken from the file's folder, those in overrides from here.
    """
    checker = Checker("config", path)
    content = checker.read()
    given = checker.mapping({} if content is None else content, "", tuple(DEFAULTS))
    merged = dict(DEFAULTS, **_known(given, DEFAULTS))
    for section in SECTIONS:
        # A section with nothing in it is like one left out.
        inner = {} if given.get(section) is None else given[section]
        inner = checker.mapping(inner, section, tuple(DEFAULTS[section]))
        merged[section] = dict(DEFAULTS[section], **_known(inner, DEFAULTS[section]))
    merged = _absolute(merged, os.path.dirname(os.path.abspath(path)))
    for override in overrides:
        merged = _override(merged, override, checker)
    config = _check(_absolute(merged, os.getcwd()), path, checker)
    checker.finish()
    return config


def _known(given: dict, defaults: dict) -> dict:
    """What is given for known keys: the others were complained of, an empty one is not given."""
    return {key: value for key, value in given.items() if key in defaults and value is not None}


def _absolute(merged: dict, folder: str) -> dict:
    """The same settings with every relative path seen from `folder`."""
    def place(value):
        if not isinstance(value, str) or not value:
            return value
        return os.path.normpath(os.path.join(folder, os.path.expanduser(value)))

    placed = dict(merged)
    for key in PATHS:
        section, dot, inner = key.partition(".")
        placed[section] = dict(placed[section], **{inner: place(placed[section].get(inner))}) \
            if dot else place(placed[section])
    return placed


def _override(merged: dict, override: str, checker: Checker) -> dict:
    """`merged` with one `key=value` or `section.key=value` in it."""
    key, equals, text = override.partition("=")
    if not equals:
        checker.wrong("--set %s: expected key=value" % override)
        return merged
    known = [name for name, value in DEFAULTS.items() if not isinstance(value, dict)] + [
        "%s.%s" % (section, name) for section in SECTIONS for name in DEFAULTS[section]]
    if key not in known:
        checker.wrong("--set %s: unknown key '%s'%s" % (override, key, nearest_name(key, known)))
        return merged
    try:
        value = yaml.safe_load(text)
    except NOT_YAML as error:
        checker.wrong("--set %s: %s" % (override, one_line(error)))
        return merged
    section, dot, inner = key.partition(".")
    if value is None:
        value = DEFAULTS[section][inner] if dot else DEFAULTS[section]
    return dict(merged, **{section: dict(merged[section], **{inner: value}) if dot else value})


def _check(merged: dict, path: str, checker: Checker) -> Config:
    inbox, queue, tensorrt = merged["inbox"], merged["queue"], merged["tensorrt"]
    state_dir = checker.text(merged["state_dir"], "state_dir")
    queue_path = checker.text(queue["path"], "queue.path") or os.path.join(state_dir, "queue.csv")
    outbox, preview, retention = merged["outbox"], merged["preview"], merged["retention"]
    config = Config(
        path=path,
        state_dir=state_dir,
        model=checker.text(merged["model"], "model"),
        recipe=checker.text(merged["recipe"], "recipe") or None,
        codebook=checker.text(merged["codebook"], "codebook"),
        policy=checker.text(merged["policy"], "policy"),
        embedder=checker.text(merged["embedder"], "embedder", EMBEDDERS),
        batch=checker.whole(merged["batch"], "batch", 0, 1024),
        threads=checker.whole(merged["threads"], "threads", 0, 1024),
        log_level=checker.text(merged["log_level"], "log_level", LOG_LEVELS),
        inbox=InboxConfig(
            path=checker.text(inbox["path"], "inbox.path"),
            settle_s=checker.number(inbox["settle_s"], "inbox.settle_s", 0.01, 3600),
            rescan_s=checker.number(inbox["rescan_s"], "inbox.rescan_s", 0.1, 3600),
            max_file_bytes=checker.count_of_bytes(
                inbox["max_file_bytes"], "inbox.max_file_bytes", 1, 2 ** 40),
            max_pixels=checker.whole(inbox["max_pixels"], "inbox.max_pixels", 1, 10 ** 10),
            sixteen_bit_white=checker.whole(
                inbox["sixteen_bit_white"], "inbox.sixteen_bit_white", 1, 65535)),
        queue=QueueConfig(
            path=queue_path,
            rows=checker.whole(queue["rows"], "queue.rows", 1, 100000),
            interval_s=checker.number(queue["interval_s"], "queue.interval_s", 0.1, 3600)),
        orders=OrdersConfig(
            path=checker.text(merged["orders"]["path"], "orders.path")),
        outbox=OutboxConfig(
            path=checker.text(outbox["path"], "outbox.path") or None,
            bytes=checker.count_of_bytes(outbox["bytes"], "outbox.bytes", 1, 2 ** 50)),
        preview=PreviewConfig(
            format=checker.text(preview["format"], "preview.format", PREVIEW_FORMATS),
            max_bytes=checker.count_of_bytes(
                preview["max_bytes"], "preview.max_bytes", PREVIEW_LEAST_BYTES, 65536)),
        retention=RetentionConfig(
            free_bytes=checker.count_of_bytes(
                retention["free_bytes"], "retention.free_bytes", 0, 2 ** 50),
            # As text, for whoever writes `yes` should be told the two words.
            unacknowledged=checker.text(str(retention["unacknowledged"]),
                                        "retention.unacknowledged", (KEEP, DELETE_UNRECEIVED))),
        status=StatusConfig(
            prom=checker.text(merged["status"]["prom"], "status.prom")
            or os.path.join(state_dir, "status.prom")),
        tensorrt=TensorRTConfig(
            plan=checker.text(tensorrt["plan"], "tensorrt.plan") or None,
            # Two gigabytes hang a Nano; larger computers may want more than the default.
            workspace_bytes=checker.count_of_bytes(
                tensorrt["workspace_bytes"], "tensorrt.workspace_bytes", 2 ** 20, 2 ** 40),
            centroids=checker.text(tensorrt["centroids"], "tensorrt.centroids", CENTROIDS),
            cpu_fallback=checker.yes_or_no(tensorrt["cpu_fallback"], "tensorrt.cpu_fallback")),
        heat=HeatConfig(
            warm_c=checker.number(merged["heat"]["warm_c"], "heat.warm_c", 20, 120),
            hot_c=checker.number(merged["heat"]["hot_c"], "heat.hot_c", 20, 120)))
    if not config.heat.warm_c < config.heat.hot_c:
        checker.wrong("'heat.hot_c' is %g; it must be above 'heat.warm_c', which is %g" % (
            config.heat.hot_c, config.heat.warm_c))
    _refuse_nesting(config, checker)
    _refuse_orders_among_ours(config, checker)
    return config


def _refuse_nesting(config: Config, checker: Checker) -> None:
    """Our own files must not stand in the inbox, where they would be read as images."""
    if not config.inbox.path or not config.state_dir:
        return  # complained of already
    inside = os.path.join(os.path.realpath(config.inbox.path), "")
    for key, path in (("state_dir", config.state_dir), ("queue.path", config.queue.path),
                      ("orders.path", config.orders.path), ("outbox.path", config.outbox.path),
                      ("status.prom", config.status.prom)):
        if path and os.path.join(os.path.realpath(path), "").startswith(inside):
            checker.wrong("'%s' is %s, inside the inbox %s; put it elsewhere" % (
                key, path, config.inbox.path))


def _refuse_orders_among_ours(config: Config, checker: Checker) -> None:
    """What lies in the drop folder is read, deleted or moved: nothing of ours may."""
    if not config.orders.path:
        return  # complained of already
    orders = os.path.realpath(config.orders.path)
    held = [("state_dir", config.state_dir), ("outbox.path", config.outbox.path)] + [
        (key, path and os.path.dirname(path)) for key, path in (
            ("--config", os.path.abspath(config.path)), ("model", config.model),
            ("recipe", config.recipe), ("codebook", config.codebook), ("policy", config.policy),
            ("queue.path", config.queue.path), ("status.prom", config.status.prom))]
    for key, folder in held + [("state_dir", config.kept_path), ("state_dir", config.previews_path)]:
        place = folder and os.path.realpath(folder)
        if place and orders in (place, os.path.dirname(place)):
            checker.wrong("'orders.path' is %s, which holds what '%s' names; give orders a folder "
                          "of their own" % (config.orders.path, key))
            return


def refuse_read_only(config: Config, key: str, folder: str) -> None:
    """Raises WorldError if the folder that `key` names cannot be written to by anybody."""
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise WorldError("config %s: '%s' is %s, on a file system that is mounted read-only" % (
            config.path, key, folder))


def make_folders(config: Config) -> None:
    """Make the folders the daemon writes to; the inbox is the cameras', it is waited for.

    Raises UserError where the config asks for the impossible, WorldError where a disk is at fault.
    """
    for key, folder in (("state_dir", config.state_dir),
                        ("queue.path", os.path.dirname(config.queue.path))):
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            kind = UserError if error.errno in ASKED_WRONG else WorldError
            raise kind("config %s: '%s' is %s, which cannot be made: %s" % (
                config.path, key, folder, error.strerror or error))
        refuse_read_only(config, key, folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError("config %s: '%s' is %s, which user %d may not write to" % (
                config.path, key, folder, os.getuid()))
