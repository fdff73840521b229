"""The plan cache over the stand-in for TensorRT: when a plan is used, built again, or set aside."""

import json
import os
import pathlib
import resource
import shutil

import fake_jetson
import pytest

from jetson_cluster import recipe
from jetson_cluster.embedder import engine, trt
from jetson_cluster.embedder.base import Options
from jetson_cluster.embedder.gpu import Gpu
from jetson_cluster.errors import UserError, WorldError


class Rover:
    """One model in a folder; every `start` is a new process's: new TensorRT, new CUDA context."""

    def __init__(self, model_path):
        self.model = recipe.load_model(str(model_path))
        self.options = Options()
        self.max_batch = 8
        self.version, self.gpu = "8.2.1.8", "NVIDIA Tegra X1"
        self.faults = ()
        self.builds = []

    @property
    def plan(self):
        return pathlib.Path(engine.plan_path(self.model, self.options.plan))

    @property
    def certificate_file(self):
        return pathlib.Path(engine.certificate_path(str(self.plan)))

    @property
    def timing_file(self):
        return pathlib.Path(engine.timing_path(str(self.plan)))

    @property
    def certificate(self):
        return engine.read_certificate(str(self.plan))

    def start(self):
        """Open the engine; the plans built for that, as the stand-in notes them."""
        with fake_jetson.jetson(self.version, self.gpu, nvcc=False) as machine:
            for fault in self.faults:
                machine.fail_next("deserialize", fault)
            with Gpu() as gpu:
                module = trt.find()
                try:
                    opened = engine.open_engine(module, trt.make_logger(module), self.model,
                                                self.max_batch, gpu.device, self.options)
                    assert opened.engine.num_layers == 2
                    del opened
                finally:
                    self.builds = machine.builds
        return len(self.builds)


@pytest.fixture
def rover(tiny, tmp_path):
    for name in ("tiny.onnx", "tiny.recipe.yaml"):
        shutil.copy(os.path.join(os.path.dirname(tiny), name), str(tmp_path / name))
    with_precision(tmp_path / "tiny.recipe.yaml", "fp32")  # no converter on the rover's Python
    return Rover(tmp_path / "tiny.onnx")


def with_precision(path, precision):
    path.write_text(path.read_text() + "precision: {}\n".format(precision))


@pytest.mark.parametrize("version", fake_jetson.VERSIONS)
def test_a_plan_is_built_once_and_used_ever_after(rover, version, caplog):
    caplog.set_level("INFO")
    rover.version = version
    assert rover.start() == 1
    assert "EngineBuilt: {}".format(rover.plan) in caplog.text
    first = rover.plan.read_bytes()
    assert rover.start() == 0
    assert "EngineLoaded: {}".format(rover.plan) in caplog.text
    assert rover.plan.read_bytes() == first
    assert sorted(path.name for path in rover.plan.parent.iterdir()) == [
        "tiny.onnx", "tiny.plan", "tiny.plan.json", "tiny.plan.timing", "tiny.recipe.yaml"]


def test_the_certificate_says_what_the_plan_was_built_from_with_and_for(rover):
    rover.start()
    told = json.loads(rover.certificate_file.read_text())
    assert told["onnx_sha256"] == rover.model.onnx_sha256
    assert told["plan_sha256"] == engine.sha256_hex(rover.plan.read_bytes())
    assert told["timing_sha256"] == engine.sha256_hex(rover.timing_file.read_bytes())
    assert told["built_at"].endswith("Z") and told["build_s"] >= 0
    assert {name: told[name] for name in (
        "tensorrt", "gpu", "compute_capability", "precision", "max_batch", "workspace_bytes",
        "input_height", "input_width", "tactic_sources")} == {
            "tensorrt": "tensorrt 8.2.1.8", "gpu": "NVIDIA Tegra X1", "compute_capability": "5.3",
            "precision": "fp32", "max_batch": 8, "workspace_bytes": 64 << 20, "input_height": 32,
            "input_width": 32, "tactic_sources": rover.builds[0].tactic_sources and "+".join(
                rover.builds[0].tactic_sources) or "none"}


# --- a plan that does not fit ------------------------------------------------------------------


OTHERS = {
    "onnx_sha256": "0" * 64, "tensorrt": "tensorrt 8.0.1.6", "gpu": "NVIDIA Tegra X2",
    "compute_capability": "6.2", "precision": "fp16", "max_batch": 4, "workspace_bytes": 32 << 20,
    "input_height": 33, "input_width": 31}


def test_every_field_that_is_compared_is_tried_here():
    assert set(OTHERS) == set(engine.COMPARED)
    informative = set(engine.Certificate._fields) - set(engine.COMPARED)
    assert informative == {
        "plan_sha256", "built_at", "build_s", "tactic_sources", "timing_sha256", "cosine"}


@pytest.mark.parametrize("field", sorted(OTHERS))
def test_a_plan_that_differs_in_one_field_is_built_again_and_the_field_named(rover, field, caplog):
    caplog.set_level("INFO")
    rover.start()
    fitting = rover.certificate
    other = fitting._replace(**{field: OTHERS[field]})
    rover.certificate_file.write_text(json.dumps(other._asdict()))
    assert rover.start() == 1
    said = "EngineDiffers: {}: {} was ".format(rover.plan, field)
    assert said in caplog.text and caplog.text.count(" was ") == 1
    assert engine.mismatch(rover.certificate, fitting) == ""
    assert not os.path.exists(engine.damaged_path(str(rover.plan)))
    assert rover.start() == 0


@pytest.mark.parametrize("change", [
    {"version": "8.6.1.6"}, {"gpu": "Orin"}, {"max_batch": 2},
    {"options": Options(workspace_bytes=32 << 20)}])
def test_what_changes_around_a_plan_has_it_built_again(rover, change):
    rover.start()
    for name, value in change.items():
        setattr(rover, name, value)
    assert rover.start() == 1
    assert rover.start() == 0


def test_another_model_in_the_same_place_has_the_plan_built_again(rover, tmp_path):
    import onnx

    rover.start()
    network = onnx.load(rover.model.onnx_path)
    network.doc_string = "not the same file"
    onnx.save(network, rover.model.onnx_path)
    rover.model = recipe.load_model(rover.model.onnx_path)
    assert rover.start() == 1


def test_what_differs_is_told_with_both_values(rover):
    rover.start()
    one = rover.certificate
    other = one._replace(tensorrt="tensorrt 8.5.0.1", onnx_sha256="ab" * 32)
    assert engine.mismatch(one, other) == (
        "onnx_sha256 was {}.., is abababababab.. here; "
        "tensorrt was tensorrt 8.2.1.8, is tensorrt 8.5.0.1 here".format(one.onnx_sha256[:12]))
    assert engine.mismatch(one, one._replace(built_at="", build_s=9.0, tactic_sources="x",
                                             timing_sha256="", plan_sha256="")) == ""


def test_the_plan_stands_where_the_config_says(rover, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    rover.options = Options(plan=str(tmp_path / "elsewhere" / "my.engine"))
    rover.start()
    assert {path.name for path in (tmp_path / "elsewhere").iterdir()} == {
        "my.engine", "my.engine.json", "my.engine.timing"}
    assert not (tmp_path / "tiny.plan").exists()


# --- a plan that is damaged --------------------------------------------------------------------


def truncate(rover):
    rover.plan.write_bytes(rover.plan.read_bytes()[:-100])


def flip_a_bit(rover):
    content = bytearray(rover.plan.read_bytes())
    content[len(content) // 2] ^= 1
    rover.plan.write_bytes(bytes(content))


def empty(rover):
    rover.plan.write_bytes(b"")


def garble_the_certificate(rover):
    rover.certificate_file.write_bytes(b"{\"onnx_sha256\": \"")


def make_the_certificate_binary(rover):
    rover.certificate_file.write_bytes(b"\xff\xfe\x00")


def make_the_certificate_a_list(rover):
    rover.certificate_file.write_text("[1, 2]")


def shorten_the_certificate(rover):
    told = json.loads(rover.certificate_file.read_text())
    del told["gpu"]
    rover.certificate_file.write_text(json.dumps(told))


def give_the_certificate_nonsense(rover):
    told = json.loads(rover.certificate_file.read_text())
    rover.certificate_file.write_text(json.dumps(dict(told, max_batch="eight")))


def take_the_certificate_away(rover):
    rover.certificate_file.unlink()


@pytest.mark.parametrize("damage, why", [
    (truncate, "its bytes are not those"), (flip_a_bit, "its bytes are not those"),
    (empty, "its bytes are not those"), (garble_the_certificate, "certificate is not JSON"),
    (make_the_certificate_binary, "certificate is not JSON"),
    (make_the_certificate_a_list, "certificate is no mapping"),
    (shorten_the_certificate, "certificate lacks 'gpu'"),
    (give_the_certificate_nonsense, "has a 'max_batch' that makes no sense"),
    (take_the_certificate_away, "certificate is not there")])
def test_a_damaged_plan_is_set_aside_and_built_again_once(rover, damage, why, caplog):
    rover.start()
    damage(rover)
    kept = {path.name: path.read_bytes() for path in (rover.plan, rover.certificate_file)
            if path.exists()}
    assert rover.start() == 1
    assert "EngineDamaged: {}: ".format(rover.plan) in caplog.text and why in caplog.text
    aside = pathlib.Path(engine.damaged_path(str(rover.plan)))
    assert aside.read_bytes() == kept["tiny.plan"]
    certificate_aside = pathlib.Path(engine.certificate_path(str(aside)))
    if "tiny.plan.json" in kept:
        assert certificate_aside.read_bytes() == kept["tiny.plan.json"]
    assert rover.start() == 0


def test_a_plan_set_aside_replaces_an_older_one(rover):
    rover.start()
    truncate(rover)
    rover.start()
    rover.plan.write_bytes(b"the second damage")
    rover.start()
    aside = pathlib.Path(engine.damaged_path(str(rover.plan)))
    assert aside.read_bytes() == b"the second damage"


def test_a_plan_that_tensorrt_does_not_load_is_set_aside_and_built_again_once(rover, caplog):
    rover.start()
    rover.faults = ["a kernel is missing"]
    assert rover.start() == 1
    assert "TensorRT cannot load it: " in caplog.text and "a kernel is missing" in caplog.text
    assert os.path.exists(engine.damaged_path(str(rover.plan)))
    rover.faults = ()
    assert rover.start() == 0


def test_a_plan_that_finds_no_memory_is_whole_and_stays_where_it_is(rover):
    rover.start()
    whole = rover.plan.read_bytes()
    rover.faults = ["defaultAllocator: Cuda Runtime (Out of memory)"]
    with pytest.raises(WorldError, match="no memory to load it.*smaller batch"):
        rover.start()
    assert rover.builds == [] and rover.plan.read_bytes() == whole
    rover.faults = ()
    assert rover.start() == 0


def test_a_plan_that_does_not_load_when_newly_built_either_is_the_end_with_tensorrts_words(rover):
    rover.start()
    rover.faults = ["a kernel is missing", "the same kernel is missing"]
    with pytest.raises(WorldError) as caught:
        rover.start()
    assert len(rover.builds) == 1
    assert str(caught.value).startswith("engine {}: ".format(rover.plan))
    assert "the same kernel is missing" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_of_somebody_elses_in_the_plans_place_is_kept(rover):
    rover.plan.write_bytes(b"made with trtexec")
    assert rover.start() == 1
    assert pathlib.Path(engine.damaged_path(str(rover.plan))).read_bytes() == b"made with trtexec"


# --- a plan that cannot be kept ----------------------------------------------------------------


@pytest.mark.parametrize("plan, part", [
    ("/proc/tiny.plan", "cannot write to the folder /proc"),
    ("{folder}/absent/tiny.plan", "cannot write to the folder {folder}/absent"),
    ("{folder}/tiny.onnx/tiny.plan", "cannot write to the folder {folder}/tiny.onnx"),
    ("{folder}", "is a folder")])
def test_a_place_that_cannot_be_written_to_is_refused_before_the_minutes_of_building(
        rover, tmp_path, plan, part):
    rover.options = Options(plan=plan.format(folder=tmp_path))
    with pytest.raises((UserError, WorldError)) as caught:
        rover.start()
    # Only what no change of the world can mend may end the service for good.
    assert isinstance(caught.value, UserError) == (part == "is a folder")
    assert rover.builds == []
    assert part.format(folder=tmp_path) in str(caught.value)
    assert "tensorrt.plan" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_of_another_users_is_refused_before_the_minutes_of_building(rover, tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(WorldError, match="user {} cannot write".format(os.geteuid())):
            rover.start()
    finally:
        tmp_path.chmod(0o755)
    assert rover.builds == []


def test_a_disk_with_too_little_room_is_refused_before_the_minutes_of_building(rover):
    free = os.statvfs(str(rover.plan.parent))
    os.truncate(rover.model.onnx_path, 3 * free.f_bavail * free.f_frsize)  # a file full of holes
    with pytest.raises(WorldError, match="has [0-9]+ MB free"):
        rover.start()
    assert rover.builds == []


@pytest.fixture
def full_disk():
    """No file may grow beyond 500 bytes: a disk that is full once the plan is built."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(full):
        resource.setrlimit(resource.RLIMIT_FSIZE, (500 if full else before[0], before[1]))

    yield fill
    fill(False)


def test_a_disk_that_fills_up_meanwhile_is_the_worlds_failure_and_leaves_no_half_plan(
        rover, full_disk):
    full_disk(True)
    with pytest.raises(WorldError, match="tiny.plan: cannot be written: "):
        rover.start()
    full_disk(False)
    assert len(rover.builds) == 1
    assert not rover.plan.exists() and not rover.certificate_file.exists()
    assert rover.start() == 1 and rover.start() == 0


def test_a_plan_that_fits_is_used_though_the_disk_is_full(rover, full_disk):
    rover.start()
    full_disk(True)
    assert rover.start() == 0


def test_a_disk_that_fills_up_leaves_the_older_plan_whole(rover, full_disk):
    rover.start()
    before = rover.plan.read_bytes(), rover.certificate_file.read_bytes()
    rover.max_batch = 2
    full_disk(True)
    with pytest.raises(WorldError):
        rover.start()
    full_disk(False)
    assert (rover.plan.read_bytes(), rover.certificate_file.read_bytes()) == before


class PowerCut(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("ending", [".plan", ".timing", ".json"])
@pytest.mark.parametrize("first", [True, False])
def test_a_power_cut_before_any_of_the_files_costs_another_build_and_nothing_else(
        rover, ending, first, monkeypatch):
    """Over no plan and over an older one; what is used afterwards is what its certificate says."""
    if not first:
        rover.start()
    rover.max_batch = 4
    write = engine.write_atomically

    def cut(path, content):
        if path.endswith(ending):
            raise PowerCut()
        write(path, content)

    monkeypatch.setattr(engine, "write_atomically", cut)
    with pytest.raises(PowerCut):
        rover.start()
    monkeypatch.undo()
    assert rover.start() == 1
    assert rover.certificate.max_batch == 4
    assert engine.sha256_hex(rover.plan.read_bytes()) == rover.certificate.plan_sha256
    assert rover.start() == 0


# --- what was timed ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", fake_jetson.VERSIONS)
def test_what_one_build_timed_the_next_one_need_not(rover, version):
    rover.version = version
    rover.start()
    assert (rover.builds[0].timed, rover.builds[0].remembered) == (2, 0)
    truncate(rover)
    rover.start()
    assert (rover.builds[0].timed, rover.builds[0].remembered) == (0, 2)


@pytest.mark.parametrize("change", [
    {"version": "10.3.0"}, {"gpu": "NVIDIA Tegra X2"},
    {"options": Options(workspace_bytes=1 << 25)}])
def test_what_was_timed_on_something_else_is_not_used(rover, change):
    rover.start()
    for name, value in change.items():
        setattr(rover, name, value)
    rover.start()
    assert (rover.builds[0].timed, rover.builds[0].remembered) == (2, 0)


@pytest.mark.parametrize("version", fake_jetson.VERSIONS)
def test_a_damaged_timing_cache_never_reaches_tensorrt(rover, version, caplog):
    """TensorRT 10 ends the process on one; the stand-in does the same."""
    caplog.set_level("INFO")
    rover.version = version
    rover.start()
    content = bytearray(rover.timing_file.read_bytes())
    content[len(content) // 2] ^= 1
    rover.timing_file.write_bytes(bytes(content))
    rover.max_batch = 2
    rover.start()
    assert "TimingCacheDamaged: {}".format(rover.timing_file) in caplog.text
    assert (rover.builds[0].timed, rover.builds[0].remembered) == (2, 0)


def test_a_timing_cache_that_is_gone_is_no_misfortune(rover, caplog):
    caplog.set_level("INFO")
    rover.start()
    rover.timing_file.unlink()
    rover.max_batch = 2
    assert rover.start() == 1
    assert "TimingCacheUnreadable: {}".format(rover.timing_file) in caplog.text


def test_progress_reaches_whoever_waits_for_the_build(rover):
    told = []
    rover.options = Options(progress=lambda text, allow_s: told.append((text, allow_s)))
    rover.start()
    assert told[0][0].startswith("building the engine for tiny.onnx") and told[0][1] >= 600
    assert told[-1][0].startswith("built the engine for tiny.onnx")
    told.clear()
    rover.start()
    assert told == []
