"""The network on a GPU, over strict stand-ins for TensorRT 8.2, 8.6, 10 and 11 and for PyCUDA.

The stand-ins (tests/fakes) compute through ONNX Runtime in device memory that is really apart. They
know nothing of speed, and their float16 is that of the processor; what NVIDIA's own software makes of
the same calls, tools/gpu_check says on a machine with a GPU.
"""

import importlib.util
import os
import sys
import threading

import fake_jetson
import numpy as np
import pytest

from jetson_cluster import codebook as codebooks
from jetson_cluster import recipe
from jetson_cluster.cuda import grids
from jetson_cluster.embedder import (
    LEAST_COSINE, PROBE_FRAMES, least_cosine, open_embedder, probe_frames)
from jetson_cluster.embedder import tensorrt
from jetson_cluster.embedder.base import Embedded, Options
from jetson_cluster.embedder.onnxruntime import OnnxRuntimeEmbedder
from jetson_cluster.errors import GpuLost, UserError, WorldError

# From 11 on float16 has to be in the ONNX file, and what converts it is not on Python 3.6.
CONVERTS = importlib.util.find_spec("onnxconverter_common") is not None
VERSIONS = [pytest.param(version, marks=pytest.mark.skipif(
    version.startswith("11") and not CONVERTS, reason="onnxconverter_common is not installed"))
    for version in fake_jetson.VERSIONS]


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


@pytest.fixture
def model(tiny):
    return recipe.load_model(tiny)


@pytest.fixture
def options(tmp_path):
    return Options(plan=str(tmp_path / "tiny.plan"))


def frames(count, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (count, 32, 32, 3)).astype(np.uint8)


def cells(pictures):
    """What the tiny network computes, known without any runtime."""
    means = pictures.reshape(len(pictures), 4, 8, 4, 8, 3).mean(axis=(2, 4))
    return means.transpose(0, 3, 1, 2).reshape(len(pictures), 48).astype(np.float32)


def codebook_of(centroids):
    k = len(centroids)
    ramp = np.linspace(0, 1, codebooks.QUANTILE_POINTS).astype(np.float32)
    return codebooks.Codebook(
        "tiny", "l2", np.asarray(centroids, np.float32), np.full(k, 9), np.ones(k, np.float32),
        ramp, ramp, 0.5, 0.95)


def near(k, seed=1):
    """A codebook of k clusters among the pictures' embeddings."""
    return codebook_of(codebooks.normalise(cells(frames(k, seed))))


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 17])
def test_the_embedding_is_what_the_network_computes(version, model, options, count):
    pictures = frames(count)
    with fake_jetson.jetson(version):
        with open_embedder("tensorrt", model, 8, options) as embedder:
            embeddings = embedder.embed(pictures)
    assert embeddings.shape == (count, 48) and embeddings.dtype == np.float32
    assert np.allclose(embeddings, cells(pictures), rtol=2e-3)


@pytest.mark.parametrize("stored", ["float32", "float16"])
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 40])
def test_the_gpu_finds_the_centroids_that_the_processor_finds(version, model, options, k, stored):
    pictures, book = frames(19), near(k)
    with fake_jetson.jetson(version):
        with open_embedder("tensorrt", model, 8, options._replace(centroids=stored)) as embedder:
            embedder.use(book)
            embeddings, found = embedder.process(pictures)
    held = book.centroids.astype(stored).astype(np.float32)
    told = codebooks.nearest(codebooks.normalise(embeddings), held,
                             codebooks.half_squared_lengths(held), codebooks.NEIGHBOURS)
    assert found.index.dtype == np.int32 and found.distance.dtype == np.float32
    assert (found.index == told.index).all()
    # The processor's come from a matrix product, which loses a digit or two where they are short.
    np.testing.assert_allclose(found.distance, told.distance, rtol=1e-4)


def test_another_codebook_takes_the_place_of_the_one_before_and_none_ends_the_lookup(model, options):
    pictures, first, second = frames(3), near(7), near(5, seed=2)
    with fake_jetson.jetson() as machine:
        with open_embedder("tensorrt", model, 8, options) as embedder:
            without = machine.live_bytes()
            assert embedder.process(pictures).nearest is None
            for book in (first, second):
                embedder.use(book)
                embeddings, found = embedder.process(pictures)
                assert (found.index == book.nearest(embeddings, 4).index).all()
            embedder.use(None)
            assert embedder.process(pictures).nearest is None
            assert machine.live_bytes() == without


def test_a_batch_goes_up_in_one_copy_and_comes_back_in_one(version, model, options):
    with fake_jetson.jetson(version) as machine:
        with open_embedder("tensorrt", model, 8, options) as embedder:
            embedder.use(near(6))
            before = len(machine.calls)
            embedder.process(frames(8))
            names = [name for name, _ in machine.calls[before:]]
    copies = [name for name in names if name.startswith("memcpy")]
    assert copies == ["memcpy_htod_async", "memcpy_dtoh_async"]
    assert names.count("synchronize") == 1 and "mem_alloc" not in names


def test_everything_cuda_happens_in_one_thread_whichever_it_is(version, model, options):
    """The stand-in fails every call from a thread other than the context's."""
    with fake_jetson.jetson(version) as machine:
        results = []

        def work():
            with open_embedder("tensorrt", model, 8, options) as embedder:
                results.append(embedder.embed(frames(2)))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert len(results) == 1 and machine.live_bytes() == 0


def test_the_waiting_thread_sleeps_and_does_not_spin(model, options):
    with fake_jetson.jetson() as machine:
        flags = machine.driver.ctx_flags.SCHED_BLOCKING_SYNC
        with open_embedder("tensorrt", model, 8, options):
            assert [detail for name, detail in machine.calls if name == "make_context"] == [flags]


def test_the_second_start_builds_nothing_and_compiles_nothing(version, model, options):
    with fake_jetson.jetson(version) as machine:
        for _ in range(2):
            with open_embedder("tensorrt", model, 8, options) as embedder:
                embedder.embed(frames(1))
        assert len(machine.builds) == 1
        assert machine.count("compile") == 2  # the two kernel files, at the first start


def test_the_description_names_software_precision_and_gpu(model, options):
    with fake_jetson.jetson("8.2.1.8", gpu="NVIDIA Tegra X1"):
        with open_embedder("tensorrt", model, 8, options) as embedder:
            assert embedder.description == "tensorrt 8.2.1.8, fp16, on NVIDIA Tegra X1"


def test_a_recipe_that_names_another_dimension_is_told_what_to_set(version, model, options):
    wrong = model._replace(recipe=model.recipe._replace(dimension=47))
    with fake_jetson.jetson(version) as machine:
        with pytest.raises(UserError, match="dimension: 48"):
            open_embedder("tensorrt", wrong, 8, options)
        assert machine.live_bytes() == 0


# ---- what goes wrong -------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["memcpy", "launch", "execute", "synchronize"])
def test_an_error_of_cuda_while_it_works_is_a_lost_gpu_and_nothing_hangs(
        version, model, options, what):
    with fake_jetson.jetson(version) as machine:
        embedder = open_embedder("tensorrt", model, 8, options)
        embedder.use(near(5))
        machine.fail_next(what)
        with pytest.raises(GpuLost, match="only a new process") as caught:
            embedder.process(frames(2))
        assert "\n" not in str(caught.value)
        with pytest.raises(GpuLost):
            embedder.process(frames(2))
        freed = machine.count("mem_free")
        embedder.close()
        assert machine.count("mem_free") == freed  # a dead context is left alone


def test_a_gpu_that_fails_by_itself_between_batches_is_lost(version, model, options):
    with fake_jetson.jetson(version) as machine:
        with open_embedder("tensorrt", model, 8, options) as embedder:
            embedder.process(frames(1))
            machine.lose("an uncorrectable ECC error was encountered")
            with pytest.raises(GpuLost, match="uncorrectable ECC error"):
                embedder.process(frames(1))


@pytest.mark.parametrize("what", ["context", "module", "launch"])
def test_a_gpu_that_fails_at_the_start_is_lost_too(model, options, what):
    with fake_jetson.jetson() as machine:
        machine.fail_next(what, poisons=True)
        with pytest.raises(GpuLost):
            open_embedder("tensorrt", model, 8, options)


@pytest.mark.parametrize("allocation", range(6))
def test_too_little_memory_at_the_start_is_no_lost_gpu_and_leaves_nothing(
        version, model, options, allocation):
    """The engine's own memory, its execution context's, and that for frames, planes and answers."""
    with fake_jetson.jetson(version) as machine:
        machine.fail_next("alloc", skip=allocation)
        with pytest.raises(WorldError, match="memory"):
            open_embedder("tensorrt", model, 8, options)
        assert machine.live_bytes() == 0
        with open_embedder("tensorrt", model, 8, options) as embedder:
            assert embedder.embed(frames(1)).shape == (1, 48)


def test_centroids_that_do_not_fit_on_the_gpu_are_looked_up_by_the_processor(
        model, options, caplog):
    with fake_jetson.jetson() as machine:
        with open_embedder("tensorrt", model, 8, options) as embedder:
            machine.fail_next("alloc", skip=1)
            embedder.use(near(9))
            assert "LookupOnProcessor: 9 centroids: the GPU has too little memory" in caplog.text
            embeddings, found = embedder.process(frames(3))
            assert found is None and embeddings.shape == (3, 48)


@pytest.mark.parametrize("centroids, stored, words", [
    (np.full((2, 48), 1e6), "float16", "keep them in float32"),
    (np.ones((4097, 48)), "float32", "more than 4096")])
def test_a_codebook_the_gpu_cannot_hold_is_looked_up_by_the_processor(
        model, options, caplog, centroids, stored, words):
    with fake_jetson.jetson():
        with open_embedder("tensorrt", model, 8, options._replace(centroids=stored)) as embedder:
            embedder.use(codebook_of(centroids))
            assert "LookupOnProcessor" in caplog.text and words in caplog.text
            assert embedder.process(frames(2)).nearest is None


@pytest.mark.parametrize("prepared", [
    {"normalisation": "sqrt"}, {"normalisation": "none"},
    {"mean": np.zeros(48, np.float32), "components": np.eye(48, dtype=np.float32)}])
def test_what_is_prepared_in_another_way_is_looked_up_by_the_processor(
        model, options, caplog, prepared):
    caplog.set_level("INFO")
    book = codebooks.Codebook(*near(9)._replace(**prepared))
    with fake_jetson.jetson() as machine:
        with open_embedder("tensorrt", model, 8, options) as embedder:
            embedder.use(near(9))
            assert embedder.process(frames(3)).nearest is not None
            embedder.use(book)
            assert "embeddings are prepared (%s)" % str(book.preparation) in caplog.text
            assert embedder.process(frames(3)).nearest is None
        assert machine.live_bytes() == 0


@pytest.mark.parametrize("wrong", ["index", "distance", "nan"])
def test_a_gpu_that_finds_wrong_centroids_is_not_asked_for_them(
        model, options, caplog, monkeypatch, wrong):
    run = tensorrt.TensorRTEmbedder._run

    def spoil(self, pictures):
        embeddings, found = run(self, pictures)
        if found is not None and wrong == "index":
            found = found._replace(index=found.index[:, ::-1].copy())
        elif found is not None:
            found.distance[0, 0] = 0.5 if wrong == "distance" else np.nan
        return Embedded(embeddings, found)

    monkeypatch.setattr(tensorrt.TensorRTEmbedder, "_run", spoil)
    with fake_jetson.jetson():
        with open_embedder("tensorrt", model, 8, options) as embedder:
            embedder.use(near(40))
            assert "LookupOnProcessor: the GPU finds wrong centroids" in caplog.text
            assert embedder.process(frames(2)).nearest is None


def test_a_new_engine_is_compared_with_onnx_runtime_once(version, model, options, caplog):
    caplog.set_level("INFO")
    with fake_jetson.jetson(version):
        for _ in range(2):
            with open_embedder("tensorrt", model, 8, options) as embedder:
                assert embedder.cosine >= 0.999
    assert caplog.text.count("EngineCompared") == 1


def test_an_engine_that_computes_something_else_is_not_used_and_stays_suspected(
        model, options, monkeypatch):
    run = tensorrt.TensorRTEmbedder._run
    monkeypatch.setattr(tensorrt.TensorRTEmbedder, "_run", lambda self, pictures: run(
        self, pictures[:, ::-1])._replace(nearest=None))
    with fake_jetson.jetson():
        for _ in range(2):
            with pytest.raises(WorldError, match="other embeddings than the network.*fp32"):
                open_embedder("tensorrt", model, 8, options)


def test_an_onnx_runtime_that_does_not_work_is_no_fault_of_the_engines(
        model, options, monkeypatch, caplog):
    def broken(self):
        raise WorldError("ONNX Runtime is not to be had (its library is missing)")
    monkeypatch.setattr(OnnxRuntimeEmbedder, "_activate", broken)
    with fake_jetson.jetson():
        with open_embedder("tensorrt", model, 8, options) as embedder:
            assert embedder.cosine == 0
    assert "EngineNotCompared" in caplog.text


def test_a_runtime_that_does_not_start_is_said_in_one_line(model, options):
    with fake_jetson.jetson() as machine:
        def refuses(_logger):
            raise TypeError("pybind11::init(): factory function returned nullptr")
        machine.tensorrt.Runtime = refuses
        with pytest.raises(WorldError, match="TensorRT's runtime does not start"):
            open_embedder("tensorrt", model, 8, options)


def test_a_gpu_lost_while_the_engine_loads_does_not_cost_a_good_engine(version, model, options):
    with fake_jetson.jetson(version) as machine:
        with open_embedder("tensorrt", model, 8, options):
            pass
        whole = open(options.plan, "rb").read()
        machine.fail_next("deserialize", poisons=True)
        with pytest.raises(GpuLost):
            open_embedder("tensorrt", model, 8, options)
        assert open(options.plan, "rb").read() == whole and len(machine.builds) == 1


def test_too_little_memory_while_it_works_is_a_lost_gpu(model, options):
    """Only a new process can help, and three of them in a row are to be counted."""
    with fake_jetson.jetson() as machine:
        with open_embedder("tensorrt", model, 8, options) as embedder:
            machine.fail_next("memcpy", machine.errors.MemoryError("out of memory"))
            with pytest.raises(GpuLost, match="too little memory"):
                embedder.process(frames(1))
            machine.lose()  # for the stand-in: what is lost may leave anything behind


# ---- what is not there -----------------------------------------------------------------------


def test_without_anything_one_line_says_everything_that_is_missing(model, options, monkeypatch):
    for name in ("tensorrt", "tensorrt_rtx", "pycuda", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(WorldError) as caught:
        open_embedder("tensorrt", model, 8, options)
    message = str(caught.value)
    assert "\n" not in message
    for words in ("embedder tensorrt", "python3-libnvinfer", "pip install pycuda",
                  "embedder: cpu"):
        assert words in message


def test_without_a_gpu_one_line_says_so(model, options):
    with fake_jetson.jetson(gpu=None):
        with pytest.raises(WorldError, match="no GPU for CUDA.*embedder: cpu"):
            open_embedder("tensorrt", model, 8, options)


def test_auto_takes_tensorrt_where_it_works(model, options, monkeypatch):
    with fake_jetson.jetson():
        with open_embedder("auto", model, 8, options) as embedder:
            assert embedder.name == "tensorrt"


@pytest.mark.parametrize("lacking", [{"gpu": None}, {"version": None}])
def test_auto_takes_the_processor_where_tensorrt_does_not_work(model, options, lacking, caplog):
    with fake_jetson.jetson(**lacking):
        with open_embedder("auto", model, 8, options) as embedder:
            assert embedder.name != "tensorrt"
            assert np.allclose(embedder.embed(frames(3)), cells(frames(3)), rtol=0.01)
    assert ("RuntimeNotUsed" in caplog.text) == ("gpu" in lacking)


def test_auto_does_not_hide_a_lost_gpu(model, options):
    with fake_jetson.jetson() as machine:
        machine.fail_next("synchronize")
        with pytest.raises(GpuLost):
            open_embedder("auto", model, 8, options)


# ---- a real network --------------------------------------------------------------------------


def test_a_real_network_agrees_with_onnx_runtime(version, lite0, tmp_path):
    network = recipe.load_model(lite0)
    pictures = probe_frames(network.recipe)
    with open_embedder("onnxruntime", network, PROBE_FRAMES) as embedder:
        expected = embedder.embed(pictures)
    with fake_jetson.jetson(version):
        options = Options(plan=str(tmp_path / "lite0.plan"))
        with open_embedder("tensorrt", network, PROBE_FRAMES, options) as embedder:
            embedder.use(codebook_of(codebooks.normalise(expected)))
            embeddings, found = embedder.process(pictures)
    assert least_cosine(expected, embeddings) >= 0.999
    assert found.index[:, 0].tolist() == list(range(PROBE_FRAMES))
    assert os.path.getsize(str(tmp_path / "lite0.plan.json")) > 0


def test_agreement_is_asked_of_processors_more_strictly_than_of_float16():
    assert LEAST_COSINE > 0.999


def test_the_places_of_the_answer_suit_the_lookup():
    assert codebooks.NEIGHBOURS == grids.MOST_NEIGHBOURS
