"""The pretended PyCUDA is as strict as it says: what a GPU would let pass once is an error here."""

import os
import sys
import threading

import fake_jetson
import numpy as np
import pytest
from fake_pycuda import kernels

from jetson_cluster import codebook
from jetson_cluster.cuda import launcher
from jetson_cluster.errors import WorldError


@pytest.fixture
def machine():
    """A Nano whose rules may be broken."""
    with fake_jetson.jetson(strict=False) as made:
        yield made


@pytest.fixture
def driver(machine):
    """PyCUDA with a context current in this thread, which is taken down again."""
    import pycuda.driver as driver

    driver.init()
    context = driver.Device(0).make_context(driver.ctx_flags.SCHED_BLOCKING_SYNC)
    yield driver
    if not context._state.gone:
        if context._state in machine._stack():
            context.pop()
        context.detach()


def read_later(driver, buffer, count, stream):
    """An array that holds device memory once the stream is done."""
    array = np.zeros(count, np.float32)
    driver.memcpy_dtoh_async(array, buffer, stream)
    return array


def test_a_clean_run_breaks_no_rule():
    with fake_jetson.jetson() as machine:
        import pycuda.driver as driver

        driver.init()
        context = driver.Device(0).make_context()
        buffer = driver.mem_alloc(40)
        buffer.free()
        context.pop()
        context.detach()
    assert machine.violations == []
    assert machine.count("mem_alloc") == 1
    assert machine.live_bytes() == 0


def test_the_stand_ins_are_gone_afterwards_and_what_was_there_is_back(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", "whatever it was")
    path = os.environ["PATH"]
    with fake_jetson.jetson():
        assert sys.modules["tensorrt"].__version__ == "8.2.1.8"
    assert sys.modules["tensorrt"] == "whatever it was"
    assert "pycuda" not in sys.modules or "fake" not in repr(sys.modules["pycuda"])
    assert os.environ["PATH"] == path


def test_a_broken_rule_fails_the_test_that_broke_it():
    with pytest.raises(AssertionError, match="neither popped nor detached"):
        with fake_jetson.jetson():
            import pycuda.driver as driver

            driver.init()
            driver.Device(0).make_context()


def test_without_a_gpu_nothing_starts():
    with fake_jetson.jetson(gpu=None):
        import pycuda.driver as driver

        with pytest.raises(driver.RuntimeError, match="no CUDA-capable device is detected"):
            driver.init()
        with pytest.raises(driver.LogicError, match="initialization error"):
            driver.Device.count()


def test_without_tensorrt_there_is_none_to_import():
    with fake_jetson.jetson(version=None):
        import pycuda.driver  # noqa: F401

        with pytest.raises(ImportError):
            import tensorrt  # noqa: F401


def test_nothing_works_before_init():
    with fake_jetson.jetson():
        import pycuda.driver as driver

        with pytest.raises(driver.LogicError, match="cuMemAlloc failed: initialization error"):
            driver.mem_alloc(4)


def test_the_device_is_a_nano(driver):
    device = driver.Context.get_device()
    assert device.name() == "NVIDIA Tegra X1"
    assert device.compute_capability() == (5, 3)
    assert device.get_attribute(driver.device_attribute.MULTIPROCESSOR_COUNT) == 1


def test_a_name_that_pycuda_has_not_is_not_there(driver):
    with pytest.raises(AttributeError):
        driver.memcpy_to_device
    with pytest.raises(AttributeError):
        driver.Stream().wait


def test_memory_comes_back_as_it_went_up(driver):
    array = np.arange(7, dtype=np.float32)
    buffer = driver.mem_alloc(array.nbytes)
    driver.memcpy_htod(buffer, array)
    back = np.zeros(7, np.float32)
    driver.memcpy_dtoh(back, buffer)
    buffer.free()
    assert (back == array).all()


def test_what_was_never_written_is_no_number(driver):
    buffer = driver.mem_alloc(12)
    back = np.zeros(3, np.float32)
    driver.memcpy_dtoh(back, buffer)
    buffer.free()
    assert np.isnan(back).all()


def test_an_asynchronous_copy_is_not_there_before_the_stream_is_waited_for(driver):
    stream = driver.Stream()
    array = np.arange(3, dtype=np.float32)
    buffer = driver.mem_alloc(12)
    driver.memcpy_htod_async(buffer, array, stream)
    back = read_later(driver, buffer, 3, stream)
    assert np.isnan(back).all()
    stream.synchronize()
    assert (back == array).all()
    buffer.free()


def test_another_stream_is_not_waited_for_but_the_default_stream_waits_for_all(driver):
    first, second = driver.Stream(), driver.Stream()
    buffer, other = driver.mem_alloc(4), driver.mem_alloc(4)
    driver.memcpy_htod_async(buffer, np.ones(1, np.float32), first)
    second.synchronize()
    back = read_later(driver, buffer, 1, second)
    second.synchronize()
    assert np.isnan(back).all()
    driver.memcpy_htod_async(other, np.ones(1, np.float32))
    again = read_later(driver, buffer, 1, second)
    second.synchronize()
    assert again[0] == 1
    buffer.free()
    other.free()


def test_an_array_changed_while_it_goes_up_is_noticed(driver, machine):
    stream = driver.Stream()
    array = np.ones(3, np.float32)
    buffer = driver.mem_alloc(12)
    driver.memcpy_htod_async(buffer, array, stream)
    array[0] = 7
    stream.synchronize()
    buffer.free()
    assert machine.violations == ["memory of the host changed before it was copied to the device"]


@pytest.mark.parametrize("how, words", [
    ("longer than the memory", "16 bytes at"),
    ("to freed memory", "no device address"),
    ("to memory of the host", "no device address"),
])
def test_a_copy_outside_of_device_memory_is_refused(driver, machine, how, words):
    array = np.zeros(4, np.float32)
    buffer = driver.mem_alloc(12 if how == "longer than the memory" else 16)
    address = array.ctypes.data if how == "to memory of the host" else int(buffer)
    if how == "to freed memory":
        buffer.free()
    with pytest.raises(driver.LogicError, match="cuMemcpyHtoD failed: invalid argument"):
        driver.memcpy_htod(address, array)
    assert words in machine.violations[0]
    machine.allocations.clear()


def test_a_copy_of_scattered_memory_is_refused(driver):
    buffer = driver.mem_alloc(64)
    with pytest.raises(BufferError):
        driver.memcpy_htod(buffer, np.zeros((4, 4), np.float32)[:, ::2])
    with pytest.raises(TypeError):
        driver.memcpy_htod(np.int64(int(buffer)), np.zeros(4, np.float32))
    buffer.free()


def test_memory_is_as_large_as_the_machine_says():
    with fake_jetson.jetson(total_memory=1 << 20):
        import pycuda.driver as driver

        driver.init()
        context = driver.Device(0).make_context()
        buffer = driver.mem_alloc(1 << 19)
        assert driver.mem_get_info() == (1 << 19, 1 << 20)
        with pytest.raises(driver.MemoryError, match="cuMemAlloc failed: out of memory"):
            driver.mem_alloc((1 << 19) + 1)
        buffer.free()
        context.pop()
        context.detach()


def test_a_buffer_is_freed_once(driver):
    buffer = driver.mem_alloc(4)
    buffer.free()
    with pytest.raises(driver.LogicError, match="invalid resource handle"):
        buffer.free()


def test_another_thread_has_no_context(driver, machine):
    caught = []

    def elsewhere():
        try:
            driver.mem_alloc(4)
        except driver.LogicError as error:
            caught.append(str(error))

    thread = threading.Thread(target=elsewhere, name="another")
    thread.start()
    thread.join()
    assert caught == ["cuMemAlloc failed: invalid device context"]
    assert machine.violations == ["cuMemAlloc in thread another, which is not the context's"]


@pytest.mark.parametrize("lost, words", [(False, "a context"), (True, "a lost context")])
def test_a_thread_that_ends_with_a_context_on_its_stack_fails_the_test(lost, words):
    def work(machine):
        import pycuda.driver as driver

        driver.init()
        driver.Device(0).make_context()
        if lost:
            machine.lose()

    with pytest.raises(AssertionError, match="thread network ended with " + words):
        with fake_jetson.jetson() as machine:
            thread = threading.Thread(target=work, args=(machine,), name="network")
            thread.start()
            thread.join()


def test_the_end_of_a_thread_that_nobody_joins_any_more_is_seen_too():
    """As of an executor's that is forgotten: it ends when it notices."""
    go_on, begun = threading.Event(), threading.Event()

    def work():
        import pycuda.driver as driver

        driver.init()
        driver.Device(0).make_context()
        begun.set()
        go_on.wait()

    with pytest.raises(AssertionError, match="thread forgotten ended with a context"):
        with fake_jetson.jetson():
            threading.Thread(target=work, name="forgotten").start()
            begun.wait()
            go_on.set()


def test_a_thread_that_pops_its_context_or_lives_on_may_have_had_a_lost_one():
    go_on, ready = threading.Event(), threading.Event()

    def work(machine, pops):
        import pycuda.driver as driver

        driver.init()
        driver.Device(0).make_context()
        machine.lose()
        if pops:
            driver.Context.pop()
        else:
            ready.set()
            go_on.wait()

    with fake_jetson.jetson() as machine:
        popping = threading.Thread(target=work, args=(machine, True))
        living = threading.Thread(target=work, args=(machine, False))
        for thread in (popping, living):
            thread.start()
        popping.join()
        ready.wait()
    go_on.set()
    living.join()
    assert len(machine.violations) == 1  # the one that lived on has ended now


def test_a_process_forked_after_cuda_started_cannot_use_it(driver, machine, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(driver.LogicError, match="initialization error"):
        driver.mem_alloc(4)
    monkeypatch.undo()
    assert "forked" in machine.violations[0]


def test_memory_left_in_a_context_is_noticed_when_it_is_popped(driver, machine):
    kept = driver.mem_alloc(40)
    machine.allocations[int(kept)].what = "centroids"
    driver.Context.pop()
    assert machine.violations == ["a context was popped while it held 40 bytes of centroids"]


def test_memory_freed_after_its_context_is_noticed(driver, machine):
    kept = driver.mem_alloc(40)
    context = driver.Context.get_current()
    driver.Context.pop()
    context.detach()
    del machine.violations[:]
    kept.free()
    assert machine.violations == ["memory was freed after its context was gone"]


@pytest.mark.parametrize("what", ["alloc", "memcpy", "launch", "synchronize", "module", "context"])
def test_a_fault_happens_where_it_was_arranged_and_once(driver, machine, what):
    stream = driver.Stream()
    image = kernels.build(launcher.source_of("preprocess"), "sm_53")
    buffer = driver.mem_alloc(4)

    def everything():
        driver.mem_alloc(4).free()
        driver.memcpy_htod(buffer, np.zeros(1, np.float32))
        function = driver.module_from_buffer(image).get_function("frames_to_planes")
        frames, planes = driver.mem_alloc(12), driver.mem_alloc(48)
        function.prepare(list(launcher.PLANES)).prepared_async_call(
            (1, 1), launcher.BLOCK, stream, frames, 12, 4, planes)
        stream.synchronize()
        frames.free()
        planes.free()
        other = driver.Device(0).make_context()
        other.pop()
        other.detach()

    everything()
    machine.fail_next(what, poisons=False)
    with pytest.raises(driver.Error):
        everything()
    everything()
    buffer.free()


def test_a_lost_context_fails_every_call_that_follows(driver, machine):
    stream = driver.Stream()
    machine.fail_next("synchronize", "an illegal memory access was encountered")
    with pytest.raises(driver.LaunchError, match="illegal memory access"):
        stream.synchronize()
    for call in (stream.synchronize, lambda: driver.mem_alloc(4), driver.mem_get_info,
                 driver.Context.get_device, driver.Context.synchronize):
        with pytest.raises(driver.LaunchError, match="failed: an illegal memory access"):
            call()
    assert machine.is_lost()


def test_running_out_of_memory_does_not_lose_the_context(driver, machine):
    machine.fail_next("alloc")
    with pytest.raises(driver.MemoryError):
        driver.mem_alloc(4)
    driver.mem_alloc(4).free()


def test_frames_become_planes_and_centroids_are_found_through_the_launcher(driver, tmp_path):
    generator = np.random.RandomState(5)
    stream = driver.Stream()
    compiled = launcher.Kernels(str(tmp_path))
    frames = generator.randint(0, 256, (3, 5, 7, 3)).astype(np.uint8)
    given, planes = driver.mem_alloc(frames.nbytes), driver.mem_alloc(frames.size * 4)
    driver.memcpy_htod_async(given, frames, stream)
    compiled.planes(given, 3, 5, 7, planes, stream)
    made = read_later(driver, planes, frames.size, stream)
    stream.synchronize()
    assert (made.reshape(3, 3, 5, 7) == frames.transpose(0, 3, 1, 2)).all()
    centroids = codebook.normalise(generator.randn(150, 77).astype(np.float32))
    for rows, stored in ((3, "float32"), (40, "float16")):
        points = generator.randn(rows, 77).astype(np.float32)
        embeddings = driver.mem_alloc(points.nbytes)
        driver.memcpy_htod(embeddings, points)
        answer = driver.mem_alloc(rows * 32)
        with launcher.Lookup(compiled, centroids, stored) as lookup:
            lookup.nearest(embeddings, rows, 4, int(answer), int(answer) + rows * 16, stream)
            back = read_later(driver, answer, rows * 8, stream)
            stream.synchronize()
        held = centroids.astype(stored).astype(np.float32)
        told = codebook.nearest(codebook.normalise(points), held,
                                codebook.half_squared_lengths(held), 4)
        assert (back[:rows * 4].view(np.int32).reshape(rows, 4) == told.index).all()
        np.testing.assert_allclose(back[rows * 4:].reshape(rows, 4), told.distance, rtol=1e-6)
        embeddings.free()
        answer.free()
    given.free()
    planes.free()


@pytest.mark.parametrize("form, block, words", [
    ("PiiP", launcher.BLOCK, "parameters PiiP, the source has PQiP"),
    (launcher.PLANES, (512, 1, 1), "blocks of (512, 1, 1), compiled for 256"),
])
def test_a_launch_unlike_the_source_is_refused(driver, machine, tmp_path, form, block, words):
    compiled = launcher.Kernels(str(tmp_path))
    function = launcher.Kernels.prepared(compiled._preprocess, "frames_to_planes", form)
    with pytest.raises(driver.LogicError, match="cuLaunchKernel failed: invalid argument"):
        function.prepared_async_call((1, 1), block, None, 0, 12, 4, 0)
    assert words in machine.violations[0]


def test_a_kernel_that_writes_outside_of_its_memory_loses_the_context(driver, machine, tmp_path):
    stream = driver.Stream()
    compiled = launcher.Kernels(str(tmp_path))
    frames, planes = driver.mem_alloc(12), driver.mem_alloc(44)
    compiled.planes(frames, 1, 2, 2, planes, stream)
    with pytest.raises(driver.LogicError, match="an illegal memory access was encountered"):
        stream.synchronize()
    assert "48 bytes at" in machine.violations[0]


def test_damaged_or_foreign_kernels_are_refused(driver):
    image = kernels.build(launcher.source_of("preprocess"), "sm_87")
    for bad in (b"", b"\0" * 100, image, image[:-10]):
        with pytest.raises(driver.LogicError, match="device kernel image is invalid"):
            driver.module_from_buffer(bad)
    good = driver.module_from_buffer(kernels.build(launcher.source_of("preprocess"), "sm_53"))
    with pytest.raises(driver.LogicError, match="named symbol not found"):
        good.get_function("frames_to_plane")


def test_without_a_compiler_on_path_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(launcher, "USUAL_NVCC", str(tmp_path / "nvcc"))
    with fake_jetson.jetson(nvcc=False):
        import pycuda.driver as driver

        driver.init()
        context = driver.Device(0).make_context()
        with pytest.raises(WorldError, match="no nvcc on PATH"):
            launcher.Kernels(str(tmp_path))
        context.pop()
        context.detach()
