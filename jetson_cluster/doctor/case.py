"""One examination: the machine, the config, and what was found out on the way, each thing once.

In: a machine and where the config is. Out: what probes ask for more than once. What is wrong with
config or model is kept in words, for the row that reports it; other probes work with what is left.
"""

import functools
import os
import shlex
import sys
from typing import Callable, Dict, List, Optional, Sequence

from jetson_cluster import config as settings
from jetson_cluster import gpu_losses, lock, recipe
from jetson_cluster.doctor import people
from jetson_cluster.doctor import unit as units
from jetson_cluster.doctor.findings import CONFIG, SKIP, WARN, WORLD, Finding, bad, skip
from jetson_cluster.doctor.machine import Machine, NotStarted
from jetson_cluster.errors import UserError, WorldError

AUTO, CPU, TENSORRT = "auto", "cpu", "tensorrt"
# NVIDIA GPUs under L4T 32, under JetPack 6, on other computers, in Windows' Linux.
GPU_NODES = ("/dev/nvmap", "/dev/nvhost-*", "/dev/nvgpu/*/*", "/dev/nvidia[0-9]*", "/dev/nvidiactl",
             "/dev/nvidia-uvm", "/dev/dxg")


class Case:
    """What is known so far. Nothing is found out before it is asked for."""

    def __init__(self, machine: Machine, config_path: str, overrides: Sequence[str] = ()):
        self.machine = machine
        self.config_path = config_path
        self.overrides = tuple(overrides)
        self.config = None  # type: Optional[settings.Config]
        self.config_error = ""
        self.config_absent = False
        self._known = {}  # type: Dict[str, tuple]
        try:
            self.config = settings.load(config_path, overrides)
        except UserError as error:
            self.config_error = str(error)
            self.config_absent = _is_absent(config_path)
        if self.config_absent:
            self._take_defaults()

    def _take_defaults(self) -> None:
        try:
            self.config = settings.load(os.devnull, self.overrides)._replace(path=self.config_path)
        except UserError as error:  # an override is wrong as well
            self.config_error += "; " + str(error)

    # ---- what is wanted ----------------------------------------------------------------------

    @property
    def embedder(self) -> str:
        """The config's `embedder`; the default where the config is wrong."""
        return self.config.embedder if self.config else AUTO

    @property
    def wants_gpu(self) -> bool:
        return self.embedder in (AUTO, TENSORRT)

    def lacking(self, runtime: str, found: str, needed: str, mend: str = "") -> Finding:
        """What stops a runtime (tensorrt, onnxruntime, openvino), as bad as the config makes it.

        BAD where the config insists on that runtime, WARN where it would be the better choice, and
        nothing to worry about where it is not asked for, or is no use here.
        """
        if self.embedder.split("-")[0] == runtime:
            finding = bad(WORLD, found, needed, mend)
        elif runtime == TENSORRT and self.embedder == AUTO and self.has_gpu:
            finding = Finding(WARN, found, needed, mend)
        else:
            finding = Finding(SKIP, found)
        return finding._replace(stops=runtime)

    # ---- what is there -----------------------------------------------------------------------

    def _once(self, name: str, work: Callable):
        """What `work()` gave, or raised, when it was first asked for."""
        if name not in self._known:
            try:
                self._known[name] = (work(), None)
            except Exception as error:
                self._known[name] = (None, error)
        value, error = self._known[name]
        if error is not None:
            raise error
        return value

    def facts(self, what: str, *words: str) -> Dict[str, object]:
        """What child.py says of `what`; {"error": why} where it cannot say anything."""
        def ask():
            try:
                return self.machine.ask_child(what, *words)
            except WorldError as error:
                return {"error": str(error), "absent": False,
                        "not_started": isinstance(error, NotStarted)}
        return self._once(" ".join(("facts", what) + words), ask)

    @property
    def python_works(self) -> bool:
        """Whether a process of this Python can be started, which tells of libraries."""
        return not self.facts("python").get("not_started")

    @property
    def numpy_works(self) -> bool:
        """Whether numpy can be imported here without ending this process."""
        return "error" not in self.facts("numpy")

    @property
    def jetson(self) -> bool:
        """Whether this is one; a container on one does not have everything that tells."""
        return (self.machine.text("/etc/nv_tegra_release") is not None
                or "Jetson" in (self.machine.text("/proc/device-tree/model") or "")
                or "/dev/nvmap" in self.gpu_nodes)

    @property
    def gpu_nodes(self) -> List[str]:
        return self._once("nodes", lambda: [
            path for pattern in GPU_NODES for path in self.machine.paths(pattern)])

    @property
    def has_gpu(self) -> bool:
        """Whether there is reason to think that an NVIDIA GPU is here."""
        return self.jetson or bool(self.gpu_nodes) or bool(self.facts("cuda").get("gpus"))

    @property
    def unit(self) -> Optional[units.Unit]:
        return self._once("unit", lambda: units.installed(self.machine))

    @property
    def serves(self) -> bool:
        """Whether this is the config that the installed service runs with."""
        return self.unit is not None and os.path.abspath(self.config_path) == os.path.abspath(
            self.unit.config or settings.DEFAULT_PATH)

    @property
    def person(self) -> people.Person:
        """Who the daemon runs as: the service's account, else whoever looks."""
        def find():
            served = self.serves and people.account(
                self.machine, self.unit.user, self.unit.more_groups)
            return served or people.whoever_looks(self.machine)
        return self._once("person", find)

    def hidden(self, path: str) -> Optional[str]:
        """The folder on the way to `path` that whoever looks may not enter; None for none."""
        return people.whoever_looks(self.machine).stopped_at(path)

    def unseen(self, key: str, path: str) -> Optional[Finding]:
        """What is wrong if the service's sandbox hides `path`, which `key` of the config names."""
        why = self.unit.hides(path) if self.serves else ""
        if not why:
            return None
        return bad(CONFIG, "%s: the service does not see it, because of %s in its unit" % (
            path, why), "a place that the service sees",
            "put it elsewhere, such as at %s, and set %s to that" % (_usual(key), key))

    def unwritable(self, key: str, folder: str) -> Optional[Finding]:
        """What is wrong if the service's sandbox keeps it from writing to `folder`; see unseen."""
        unseen = self.unseen(key, folder)
        why = self.unit.keeps_from_writing(folder) if self.serves else ""
        if unseen or not why:
            return unseen
        place = '"-%s"' % folder if " " in folder else "-" + folder
        made = "" if os.path.isdir(folder) else "sudo install -d -o %s %s && " % (
            shlex.quote(self.person.name), shlex.quote(folder))
        return bad(CONFIG, "%s: the service cannot write to it, because of %s in its unit" % (
            folder, why), "ReadWritePaths= for it, and the folder there when the service starts",
            "%ssudo install -d %s && printf '%%s\\n' '[Service]' %s | sudo tee %s/%s.conf && sudo "
            "systemctl daemon-reload && sudo systemctl try-restart jetson-cluster" % (
                made, units.DROP_INS, shlex.quote("ReadWritePaths=" + place.replace("%", "%%")),
                units.DROP_INS, key))

    @property
    def model(self) -> Optional[recipe.Model]:
        """The model, None if there is none that can be used; see model_error."""
        try:
            return self._once("model", self._load_model)
        except UserError:
            return None

    @property
    def model_error(self) -> str:
        """Why there is no model."""
        try:
            self._once("model", self._load_model)
        except UserError as error:
            return str(error)
        return ""

    def _load_model(self) -> recipe.Model:
        if self.config is None:
            raise UserError("the config is wrong")
        return recipe.load_model(self.config.model, self.config.recipe)

    @property
    def batch(self) -> int:
        """Images a batch, once config and model are known."""
        return self.config.batch or self.model.recipe.max_batch

    @property
    def _losses(self) -> gpu_losses.GpuLosses:
        return gpu_losses.GpuLosses.of(
            self.config.state_dir, self.machine.text("/proc/sys/kernel/random/boot_id") or "",
            lambda: self.machine.since_boot_s)

    def gpu_losses(self) -> List[float]:
        """When the GPU was lost of late, in seconds since boot."""
        return self._once("losses", self._losses.recent)

    @property
    def gpu_left(self) -> bool:
        """Whether the process that used the GPU last ended without a word.

        The next one to start counts that as a loss. False where it is unknown if a daemon runs.
        """
        def find():
            try:
                return self._losses.account().in_use and not lock.is_held(self.config.state_dir)
            except UserError:
                return False  # the row of the lock itself says why it is unknown
        return self._once("left", find)

    @property
    def gpu_given_up(self) -> bool:
        """Whether the daemon would start on the processor because the GPU was lost too often."""
        if not (self.config and self.wants_gpu and self.config.tensorrt.cpu_fallback):
            return False
        return self._losses.too_many() or (
            self.gpu_left and len(self.gpu_losses()) + 1 >= gpu_losses.TOO_MANY)

    @property
    def running(self) -> bool:
        """Whether a daemon runs on the state_dir, as far as that can be seen."""
        try:
            return self.config is not None and lock.is_held(self.config.state_dir)
        except UserError:
            return False  # the row of the lock itself says why it is unknown

    # ---- words for what is to be done --------------------------------------------------------

    def command(self, *words: str) -> str:
        """A jetson-cluster command for this config, as it is to be typed."""
        given = ("--config", shlex.quote(self.config_path))
        if self.config_path == settings.DEFAULT_PATH:
            given = ()
        return " ".join((_program(),) + words[:1] + given + words[1:])

    def as_person(self, *words: str) -> str:
        """A jetson-cluster command, run by the user the daemon runs as."""
        person = self.person
        return ("" if person.looks else "sudo -u %s " % person.name) + self.command(*words)

    @property
    def as_root(self) -> str:
        """This examination by one who may look everywhere."""
        return "sudo " + self.command("doctor")

    @property
    def pip(self) -> str:
        """The pip of this Python, as it is to be typed."""
        return "%s -m pip" % shlex.quote(
            self.facts("python").get("executable", sys.executable))


def _program() -> str:
    """This command as it can be typed anywhere, also behind sudo, whose PATH is another one."""
    beside = os.path.join(os.path.dirname(sys.executable), "jetson-cluster")
    if os.path.exists(beside):
        return shlex.quote(beside)
    return "%s -m jetson_cluster" % shlex.quote(sys.executable)


def _usual(key: str) -> str:
    """Where what a key names stands by default; the state_dir where that goes by another key."""
    if key == "outbox.path":
        return os.path.join(os.path.dirname(settings.DEFAULTS["inbox"]["path"]), "outbox")
    section, _, inner = key.partition(".")
    held = settings.DEFAULTS[section]
    return (held[inner] if inner else held) or settings.DEFAULTS["state_dir"]


def _is_absent(path: str) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False  # it may be there, behind a folder that is closed to us
    return False


def with_python(probe: Callable[..., Finding]) -> Callable[..., Finding]:
    """The probe, whose last argument is the case, but for a Python that does not start.

    Of what that would load nothing is known then.
    """
    @functools.wraps(probe)
    def guarded(*words) -> Finding:
        works = words[-1].python_works
        return probe(*words) if works else skip("cannot be told without python")
    return guarded


def with_config(probe: Callable[[Case], Finding]) -> Callable[[Case], Finding]:
    """The probe, but for a config that is wrong: then what it names is not known."""
    @functools.wraps(probe)
    def guarded(case: Case) -> Finding:
        return probe(case) if case.config else skip("cannot be told: the config is wrong")
    return guarded
