"""The plan cache: an engine is built once and kept with its birth certificate, while that fits.

In: a model, the GPU, the options. Out: an engine ready to run, and beside the model

    model.plan              the engine, as TensorRT serialises it
    model.plan.json         its certificate: what it was built from, with and for; written last
    model.plan.timing       what the build timed, so that the next one need not
    model.plan.damaged      a plan that could not be loaded, with its certificate, to be looked into

All work is done in the calling thread, which has to own the CUDA context.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import tempfile
import typing
from typing import Callable, NamedTuple, Optional

from jetson_cluster.clocks import utc_now
from jetson_cluster.embedder.base import Options
from jetson_cluster.embedder.builder import build_plan
from jetson_cluster.embedder.trt import without_collecting
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.files import write_atomically
from jetson_cluster.recipe import Model

log = logging.getLogger(__name__)

FITS, ABSENT, DIFFERS, DAMAGED = "fits", "absent", "differs", "damaged"
# How TensorRT, cuDNN and C++ say that memory does not suffice.
NO_MEMORY = re.compile("out ?of ?memory|bad_alloc|alloc_failed|failed_allocation", re.IGNORECASE)


class Device(NamedTuple):
    """The GPU a plan is for."""

    name: str  # as CUDA says it
    compute_capability: str  # "5.3"


class Certificate(NamedTuple):
    """What a plan was built from, with and for. All down to `input_width` has to fit here."""

    onnx_sha256: str
    plan_sha256: str
    tensorrt: str  # module and full version, "tensorrt 8.2.1.8"
    gpu: str
    compute_capability: str
    precision: str
    max_batch: int
    workspace_bytes: int
    input_height: int
    input_width: int
    built_at: str = ""  # UTC; this and what follows is not compared
    build_s: float = 0.0
    tactic_sources: str = ""
    timing_sha256: str = ""  # of the timing cache; "" where there is none
    cosine: float = 0.0  # least one to ONNX Runtime's float32; 0 where that was not measured


COMPARED = tuple(name for name in Certificate._fields[:Certificate._fields.index("built_at")]
                 if name != "plan_sha256")
# What measured times hold for. The workspace is among it: a cache does not tell the kernels that
# were never timed for want of room.
TIMED_FOR = ("tensorrt", "gpu", "compute_capability", "workspace_bytes")


class Found(NamedTuple):
    """What stands where a plan should be."""

    state: str  # FITS, ABSENT, DIFFERS or DAMAGED
    why: str  # in words; "" where it fits
    certificate: Optional[Certificate]  # None where there is none, or none that can be read
    plan: bytes  # empty unless it fits


class Opened(NamedTuple):
    """An engine ready to run. It is to be let go of before its runtime."""

    runtime: object
    engine: object


def plan_path(model: Model, plan: Optional[str] = None) -> str:
    """Where the plan stands: as the config says, else beside the model (model.onnx, model.plan)."""
    return plan or os.path.splitext(model.onnx_path)[0] + ".plan"


def bytes_to_expect(model: Model) -> int:
    """About how large a plan will be: mostly the weights, in float16 half of the ONNX file's."""
    return os.path.getsize(model.onnx_path) // (2 if model.recipe.precision == "fp16" else 1)


def wanted(trt, model: Model, max_batch: int, device: Device, workspace_bytes: int) -> Certificate:
    """The certificate that a plan for here would have, but for what only building it tells."""
    recipe = model.recipe
    return Certificate(
        onnx_sha256=model.onnx_sha256, plan_sha256="",
        tensorrt="%s %s" % (trt.__name__, trt.__version__), gpu=device.name,
        compute_capability=device.compute_capability, precision=recipe.precision,
        max_batch=max_batch, workspace_bytes=workspace_bytes,
        input_height=recipe.input_height, input_width=recipe.input_width)


def mismatch(certificate: Certificate, sought: Certificate) -> str:
    """Each field in which a plan differs from the one wanted here, in words; "" if it fits."""
    return "; ".join(
        "%s was %s, is %s here" % (name, _short(getattr(certificate, name)),
                                 _short(getattr(sought, name)))
        for name in COMPARED if getattr(certificate, name) != getattr(sought, name))


def look(path: str, sought: Certificate) -> Found:
    """What stands at `path`, as far as that can be said without TensorRT. Raises WorldError."""
    if not os.path.lexists(path):
        return Found(ABSENT, "there is none", _certificate_or_none(path), b"")
    try:
        certificate = read_certificate(path)
    except ValueError as error:
        return Found(DAMAGED, "its certificate %s" % error, None, b"")
    differs = mismatch(certificate, sought)
    if differs:
        return Found(DIFFERS, differs, certificate, b"")
    plan = _read(path)
    if sha256_hex(plan) != certificate.plan_sha256:
        return Found(DAMAGED, "its bytes are not those its certificate names", certificate, b"")
    return Found(FITS, "", certificate, plan)


def open_engine(trt, logger, model: Model, max_batch: int, device: Device, options: Options,
                check: Callable[[], None] = lambda: None) -> Opened:
    """The engine for this model, TensorRT and GPU: the one kept, else a new one, kept from now on.

    `check` raises if the GPU is lost, which is no fault of the plan's. Raises UserError if the model is
    at fault, WorldError if TensorRT or the disk is.
    """
    path = plan_path(model, options.plan)
    found = look(path, wanted(trt, model, max_batch, device, options.workspace_bytes))
    if found.state == FITS:
        opened = _load(trt, logger, found.plan)
        if opened is not None:
            log.info("EngineLoaded: %s, built at %s", path, found.certificate.built_at)
            return opened
        check()
        if NO_MEMORY.search(logger.last_errors()):
            # The plan is whole: building another would want far more memory than loading this one.
            raise WorldError("engine %s: no memory to load it (%s); end what else uses the GPU, or "
                             "set a smaller batch" % (path, logger.last_errors()))
        found = Found(DAMAGED, "TensorRT cannot load it: %s" % logger.last_errors(),
                      found.certificate, b"")
    opened = _load(trt, logger, build(trt, logger, model, max_batch, device, options, found))
    if opened is None:
        raise WorldError("engine %s: TensorRT built it and cannot load it: %s" % (
            path, logger.last_errors()))
    return opened


def build(trt, logger, model: Model, max_batch: int, device: Device, options: Options,
          found: Found) -> bytes:
    """Build the plan, whatever was `found` in its place, and keep it; returns it.

    Raises UserError and WorldError as open_engine does; before the minutes of building if the plan
    could not be kept.
    """
    path = plan_path(model, options.plan)
    recipe = model.recipe
    sought = wanted(trt, model, max_batch, device, options.workspace_bytes)
    _check_room(path, model)
    if found.state == DAMAGED:
        _set_aside(path, found.why)
    elif found.state == DIFFERS:
        log.info("EngineDiffers: %s: %s; building it again", path, found.why)
    log.info("EngineBuilding: %s, %s, up to %d images a batch, for %s; takes minutes on a Nano",
             path, recipe.precision, max_batch, device.name)
    built = build_plan(
        trt, logger, model.onnx_path, (recipe.input_height, recipe.input_width), max_batch,
        recipe.precision, options.workspace_bytes, _timings(path, found.certificate, sought),
        options.progress)
    certificate = sought._replace(
        plan_sha256=sha256_hex(built.plan),
        built_at=utc_now(),
        build_s=round(built.seconds, 1), tactic_sources=built.tactic_sources,
        timing_sha256=sha256_hex(built.timing_cache) if built.timing_cache else "")
    try:
        write_atomically(path, built.plan)
        if built.timing_cache:
            write_atomically(timing_path(path), built.timing_cache)
        # Last: until it is there, or while it names another plan, the next start builds again.
        write_atomically(certificate_path(path), _to_json(certificate))
    except OSError as error:
        raise WorldError("engine %s: cannot be written: %s" % (path, error.strerror or error))
    log.info("EngineBuilt: %s, %.1f MB, %d layers, in %.0f s, kernels of %s", path,
             len(built.plan) / 1e6, built.layers, built.seconds, built.tactic_sources)
    return built.plan


def note_cosine(path: str, cosine: float) -> None:
    """Write into the certificate of the plan at `path` how well its embeddings agree.

    A disk that does not take it is said: the next start measures again.
    """
    certificate = _certificate_or_none(path)
    if certificate is None:
        return
    try:
        write_atomically(certificate_path(path), _to_json(certificate._replace(
            cosine=round(cosine, 7))))
    except OSError as error:
        log.warning("CertificateNotWritten: %s: %s", certificate_path(path), error)


def certificate_path(path: str) -> str:
    """Where the certificate of the plan at `path` stands."""
    return path + ".json"


def timing_path(path: str) -> str:
    """Where the timing cache of the plan at `path` stands."""
    return path + ".timing"


def damaged_path(path: str) -> str:
    """Where a plan at `path` that cannot be loaded is moved to."""
    return path + ".damaged"


def sha256_hex(content: bytes) -> str:
    """As certificates have it."""
    return hashlib.sha256(content).hexdigest()


def read_certificate(path: str) -> Certificate:
    """The certificate of the plan at `path`; raises ValueError that says what is wrong with it."""
    try:
        with open(certificate_path(path), encoding="utf-8") as stream:
            content = json.load(stream)
    except FileNotFoundError:
        raise ValueError("is not there")
    except OSError as error:
        raise WorldError("engine %s: its certificate cannot be read: %s" % (
            path, error.strerror or error))
    except (ValueError, RecursionError):
        raise ValueError("is not JSON")
    if not isinstance(content, dict):
        raise ValueError("is no mapping")
    kinds = typing.get_type_hints(Certificate)
    given = {name: content[name] for name in Certificate._fields if name in content}
    for name, value in given.items():
        kind = (int, float) if kinds[name] is float else kinds[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError("has a '%s' that makes no sense" % name)
    try:
        return Certificate(**given)
    except TypeError:
        raise ValueError("lacks %s" % ", ".join(
            "'%s'" % name for name in COMPARED + ("plan_sha256",) if name not in given))


def _certificate_or_none(path: str) -> Optional[Certificate]:
    try:
        return read_certificate(path)
    except (ValueError, WorldError) as error:
        log.debug("certificate of %s: %s", path, error)
        return None


def _to_json(certificate: Certificate) -> bytes:
    return (json.dumps(certificate._asdict(), indent=1) + "\n").encode("utf-8")


def _short(value) -> str:
    """A value as a message shows it: of a checksum enough to tell it from another."""
    text = str(value)
    return text[:12] + ".." if len(text) == 64 else text


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise WorldError("engine %s: cannot be read: %s" % (path, error.strerror or error))


@without_collecting()
def _load(trt, logger, plan: bytes) -> Optional[Opened]:
    """The engine of a plan's bytes, or None if TensorRT does not take them."""
    logger.forget()
    try:
        runtime = trt.Runtime(logger)
    except TypeError:  # what the binding makes of a null pointer
        raise WorldError("TensorRT's runtime does not start: %s" % logger.last_errors())
    loaded = runtime.deserialize_cuda_engine(plan)
    logger.reraise()
    return None if loaded is None else Opened(runtime, loaded)


def _timings(path: str, certificate: Optional[Certificate], sought: Certificate) -> Optional[bytes]:
    """The timing cache kept beside the plan, if it is whole and was measured on what is here."""
    if certificate is None or not certificate.timing_sha256 or any(
            getattr(certificate, name) != getattr(sought, name) for name in TIMED_FOR):
        return None
    try:
        with open(timing_path(path), "rb") as stream:
            content = stream.read()
    except OSError as error:
        log.info("TimingCacheUnreadable: %s: %s", timing_path(path), error.strerror or error)
        return None
    if sha256_hex(content) != certificate.timing_sha256:
        log.info("TimingCacheDamaged: %s: not used", timing_path(path))
        return None
    return content


def _check_room(path: str, model: Model) -> None:
    """Raise, before the minutes of building, if the plan could not be written."""
    folder = os.path.dirname(os.path.abspath(path))
    try:
        # Tried and not asked: also root cannot write to a read-only disk or to one that is full.
        with tempfile.TemporaryFile(dir=folder):
            disk = os.statvfs(folder)
    except OSError as error:
        # The world's fault, whatever it is: a card that is not mounted yet must not stop the service.
        hint = " (under systemd ReadWritePaths= must name that one)" \
            if error.errno == errno.EROFS else ""
        raise WorldError("engine %s: user %d cannot write to the folder %s (%s); set tensorrt.plan "
                         "to a file in another%s" % (
                             path, os.geteuid(), folder, error.strerror or error, hint))
    if os.path.isdir(path):
        raise UserError("engine %s: is a folder; set tensorrt.plan to a file" % path)
    needed = bytes_to_expect(model)
    free = disk.f_bavail * disk.f_frsize
    if free < needed:
        raise WorldError("engine %s: needs about %.0f MB, and the disk of %s has %.0f MB free" % (
            path, needed / 1e6, folder, free / 1e6))


def _set_aside(path: str, why: str) -> None:
    """Move a damaged plan and its certificate out of the way, over older ones there."""
    aside = damaged_path(path)
    log.error("EngineDamaged: %s: %s; moved to %s, building it again", path, why, aside)
    try:
        for one, other in ((certificate_path(path), certificate_path(aside)), (path, aside)):
            with contextlib.suppress(FileNotFoundError):
                os.replace(one, other)
    except OSError as error:
        raise WorldError("engine %s: cannot be moved to %s: %s" % (
            path, aside, error.strerror or error))
