"""The pretended TensorRT has what its version has, refuses what that would, computes for real."""

import gc
import threading

import fake_jetson
import numpy as np
import pytest
from fake_tensorrt.world import ProcessAborted

SHAPES = ((1, 3, 32, 32), (4, 3, 32, 32), (4, 3, 32, 32))
BY_NAME = ("8.6.1.6", "10.3.0", "11.0.0")
BY_NUMBER = ("8.2.1.8", "8.6.1.6")


class Rover:
    """A machine with a current context, and the calls that every user of TensorRT makes."""

    def __init__(self, machine):
        import pycuda.driver as driver

        self.machine, self.trt, self.driver = machine, machine.tensorrt, driver
        driver.init()
        self.context = driver.Device(0).make_context()
        self.logger = self.new_logger()

    def new_logger(self):
        class Kept(self.trt.ILogger):
            def __init__(self):
                super().__init__()
                self.lines = []

            def log(self, severity, msg):
                self.lines.append((severity.name, msg))

        return Kept()

    def errors(self):
        return [text for severity, text in self.logger.lines if severity == "ERROR"]

    def network(self, model):
        """(builder, network, parser, whether it was parsed)."""
        builder = self.trt.Builder(self.logger)
        flag = getattr(self.trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
        network = builder.create_network(0 if flag is None else 1 << int(flag))
        parser = self.trt.OnnxParser(network, self.logger)
        return builder, network, parser, parser.parse(model)

    def plan(self, model, shapes=SHAPES, set_up=lambda config: None):
        """Bytes of a plan, or None."""
        builder, network, parser, parsed = self.network(model)
        assert parsed, [str(parser.get_error(place)) for place in range(parser.num_errors)]
        config = builder.create_builder_config()
        if shapes:
            profile = builder.create_optimization_profile()
            profile.set_shape("image", *shapes)
            assert config.add_optimization_profile(profile) == 0
        set_up(config)
        made = builder.build_serialized_network(network, config)
        return made if made is None else bytes(made)

    def engine(self, plan):
        return self.trt.Runtime(self.logger).deserialize_cuda_engine(plan)

    def down(self):
        gc.collect()
        self.context.pop()
        self.context.detach()


@pytest.fixture
def rovers():
    """`rovers(version)`: a Rover in which nothing may be misused but by intention."""
    stacks = []

    def make(version, **more):
        stack = fake_jetson.jetson(version, strict=False, **more)
        machine = stack.__enter__()
        stacks.append(stack)
        return Rover(machine)

    yield make
    for stack in reversed(stacks):
        stack.__exit__(None, None, None)


@pytest.fixture
def model(tiny):
    with open(tiny, "rb") as stream:
        return stream.read()


def frames(count):
    """float32 [count, 3, 32, 32], whole numbers as of pixels."""
    return np.random.RandomState(count).randint(0, 256, (count, 3, 32, 32)).astype(np.float32)


def truth(tiny, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(tiny, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0]


def run(rover, execution, images, by_name):
    """What an execution context makes of images, by way of device memory."""
    driver, stream = rover.driver, rover.driver.Stream()
    given, made = driver.mem_alloc(images.nbytes), driver.mem_alloc(len(images) * 48 * 4)
    driver.memcpy_htod_async(given, images, stream)
    if by_name:
        assert execution.set_input_shape("image", images.shape)
        assert execution.set_tensor_address("image", int(given))
        assert execution.set_tensor_address("embedding", int(made))
        assert execution.execute_async_v3(stream.handle)
    else:
        assert execution.set_binding_shape(0, images.shape)
        assert execution.execute_async_v2([int(given), int(made)], stream.handle)
    back = np.zeros((len(images), 48), np.float32)
    driver.memcpy_dtoh_async(back, made, stream)
    early = back.copy()
    stream.synchronize()
    given.free()
    made.free()
    assert np.isnan(early).all()
    return back


@pytest.mark.parametrize("version, by_name", [(each, True) for each in BY_NAME] +
                         [(each, False) for each in BY_NUMBER])
def test_an_engine_computes_what_the_network_computes(rovers, tiny, model, version, by_name):
    rover = rovers(version)
    engine = rover.engine(rover.plan(model))
    execution = engine.create_execution_context()
    for count in (1, 4, 2):
        made = run(rover, execution, frames(count), by_name)
        assert (made == truth(tiny, frames(count))).all()
    del execution, engine
    rover.down()
    assert rover.machine.violations == []


@pytest.mark.parametrize("version", fake_jetson.VERSIONS)
def test_the_network_says_what_it_takes_and_gives(rovers, model, version):
    rover = rovers(version)
    trt = rover.trt
    _, network, _, _ = rover.network(model)
    assert (network.num_inputs, network.num_outputs, network.num_layers) == (1, 1, 2)
    assert network.get_input(0).name == "image"
    assert network.get_input(0).shape == (-1, 3, 32, 32)
    assert network.get_input(0).dtype == trt.DataType.FLOAT == trt.float32
    assert tuple(network.get_output(0).shape) == (-1, 48)
    assert network.get_input(1) is None
    assert len(rover.errors()) == 1


@pytest.mark.parametrize("version, lacks", [
    ("8.2.1.8", ["MemoryPoolType", "TensorIOMode"]),
    ("8.2.1.8", ["ICudaEngine.num_io_tensors", "IExecutionContext.execute_async_v3",
                 "IExecutionContext.set_input_shape", "IBuilderConfig.set_memory_pool_limit",
                 "ParserError.node_name", "TacticSource.JIT_CONVOLUTIONS"]),
    ("10.3.0", ["IBuilderConfig.max_workspace_size", "ICudaEngine.num_bindings",
                "IExecutionContext.execute_async_v2", "IExecutionContext.set_binding_shape"]),
    ("11.0.0", ["BuilderFlag.FP16", "NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
                "TacticSource.CUDNN", "Builder.platform_has_fast_fp16",
                "INetworkDefinition.has_implicit_batch_dimension"]),
])
def test_a_name_the_version_has_not_is_not_there(rovers, version, lacks):
    trt = rovers(version).trt
    for name in lacks:
        place = trt
        for part in name.split(".")[:-1]:
            place = getattr(place, part)
        assert not hasattr(place, name.split(".")[-1]), name


@pytest.mark.parametrize("version", fake_jetson.VERSIONS)
def test_a_wrong_attribute_cannot_be_set(rovers, version):
    rover = rovers(version)
    config = rover.trt.Builder(rover.logger).create_builder_config()
    with pytest.raises(AttributeError):
        config.workspace = 1 << 20
    if version.startswith("1"):
        with pytest.raises(AttributeError):
            config.max_workspace_size = 1 << 20


@pytest.mark.parametrize("call", [
    lambda trt, rover: trt.Builder(print),
    lambda trt, rover: trt.Builder(rover.logger).create_network(
        trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH),
    lambda trt, rover: 1 << trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH,
    lambda trt, rover: trt.Builder(rover.logger).create_builder_config().set_flag(0),
    lambda trt, rover: trt.Builder(rover.logger).create_builder_config().set_tactic_sources("x"),
    lambda trt, rover: trt.Builder(rover.logger).create_builder_config().set_timing_cache(None),
    lambda trt, rover: trt.Builder(rover.logger).create_optimization_profile().set_shape(
        "image", (1,), (1,), maximum=(1,)),
    lambda trt, rover: trt.Runtime(rover.logger).deserialize_cuda_engine("text"),
    lambda trt, rover: trt.OnnxParser(rover.logger, rover.logger),
])
def test_arguments_of_the_wrong_kind_are_refused(rovers, call):
    rover = rovers("8.2.1.8")
    with pytest.raises(TypeError):
        call(rover.trt, rover)


def test_a_logger_has_to_call_the_init_of_its_base(rovers):
    trt = rovers("8.2.1.8").trt

    class Forgetful(trt.ILogger):
        def __init__(self):
            pass

        def log(self, severity, msg):
            pass

    with pytest.raises(TypeError, match="must be called when overriding __init__"):
        Forgetful()


def test_an_exception_that_leaves_log_ends_the_process(rovers):
    rover = rovers("8.2.1.8")

    class Careless(rover.trt.ILogger):
        def __init__(self):
            rover.trt.ILogger.__init__(self)

        def log(self, severity, msg):
            raise ValueError(msg)

    with pytest.raises(ProcessAborted):
        rover.trt.Runtime(Careless()).deserialize_cuda_engine(b"no plan")
    assert "an exception left log()" in rover.machine.violations[0]


def test_severities_compare_as_numbers_do_and_other_enumerations_do_not(rovers):
    trt = rovers("8.2.1.8").trt
    assert trt.ILogger.ERROR < trt.ILogger.Severity.WARNING == 2
    assert trt.Logger.VERBOSE.name == "VERBOSE"
    assert trt.DataType.HALF != 1
    with pytest.raises(TypeError):
        trt.DataType.HALF < trt.DataType.INT8


@pytest.mark.parametrize("version, flags", [("8.2.1.8", 0), ("10.3.0", 4), ("11.0.0", 8)])
def test_wrong_network_flags_are_refused(rovers, model, version, flags):
    rover = rovers(version)
    network = rover.trt.Builder(rover.logger).create_network(flags)
    if version == "8.2.1.8":  # without explicit batch it is the parser that refuses
        parser = rover.trt.OnnxParser(network, rover.logger)
        assert not parser.parse(model)
        assert "explicit batch" in parser.get_error(0).desc()
    else:
        assert network is None
    assert len(rover.errors()) == 1


def remade(model, opset=13, ir_version=7, change=None):
    """The model's bytes with something else in them."""
    import onnx

    proto = onnx.load_model_from_string(model)
    proto.opset_import[0].version = opset
    proto.ir_version = ir_version
    if change:
        change(proto.graph)
    return proto.SerializeToString()


def unknown_operator(graph):
    graph.node[0].domain, graph.node[0].op_type = "com.example", "Blur"


def missing_tensor(graph):
    graph.node[1].input[0] = "nowhere"


def wrong_shape(graph):
    graph.output[0].type.tensor_type.shape.dim[1].dim_value = 47


def doubles(graph):
    graph.input[0].type.tensor_type.elem_type = graph.output[0].type.tensor_type.elem_type = 11


@pytest.mark.parametrize("spoilt, code, words", [
    (lambda model: b"", "MODEL_DESERIALIZE_FAILED", "no ONNX model"),
    (lambda model: model[:100], "MODEL_DESERIALIZE_FAILED", "no ONNX model"),
    (lambda model: remade(model, opset=14), "UNSUPPORTED_GRAPH", "operator set 14"),
    (lambda model: remade(model, ir_version=8), "UNSUPPORTED_GRAPH", "IR version 8"),
    (lambda model: remade(model, change=unknown_operator), "UNSUPPORTED_NODE", "com.example::Blur"),
    (lambda model: remade(model, change=missing_tensor), "INVALID_GRAPH", "nowhere"),
    (lambda model: remade(model, change=wrong_shape), "INVALID_GRAPH", "47"),
    (lambda model: remade(model, change=doubles), "UNSUPPORTED_GRAPH", "image has a type"),
])
def test_the_parser_of_8_2_says_what_it_cannot_read(rovers, model, spoilt, code, words):
    rover = rovers("8.2.1.8")
    _, network, parser, parsed = rover.network(spoilt(model))
    assert not parsed
    assert parser.num_errors == 1
    error = parser.get_error(0)
    assert code in error.code().name
    assert words in error.desc() and words in rover.errors()[0]
    assert network.num_outputs == 0
    with pytest.raises(IndexError):
        parser.get_error(1)


def test_later_versions_read_newer_operator_sets(rovers, model):
    for version in BY_NAME:
        rover = rovers(version)
        assert rover.network(remade(model, opset=14, ir_version=8))[-1], version


def test_a_file_is_parsed_by_its_name(rovers, tiny, tmp_path):
    rover = rovers("8.2.1.8")
    _, network, parser, _ = rover.network(b"")
    parser.clear_errors()
    assert parser.parse_from_file(tiny) and network.num_inputs == 1
    assert not parser.parse_from_file(str(tmp_path / "absent.onnx"))
    assert "absent.onnx" in parser.get_error(0).desc()


@pytest.mark.parametrize("version", fake_jetson.VERSIONS)
def test_a_dynamic_shape_needs_an_optimisation_profile(rovers, model, version):
    rover = rovers(version)
    assert rover.plan(model, shapes=None) is None
    assert "no optimization profile" in rover.errors()[0]
    assert rover.plan(model, shapes=((1, 3, 32, 31),) * 3) is None
    assert "(1, 3, 32, 31)" in rover.errors()[1]


def test_a_profile_goes_from_small_to_large(rovers):
    rover = rovers("8.2.1.8")
    builder = rover.trt.Builder(rover.logger)
    profile = builder.create_optimization_profile()
    with pytest.raises(RuntimeError, match="provided for opt is inconsistent"):
        profile.set_shape("image", (1, 3), (1, 3, 4), (1, 3))
    profile.set_shape("image", (4, 3), (2, 3), (4, 3))
    assert builder.create_builder_config().add_optimization_profile(profile) == -1


def test_a_plan_tells_how_it_was_built(rovers, model):
    rover = rovers("8.6.1.6")
    trt = rover.trt

    def set_up(config):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 32 << 20)
        config.set_flag(trt.BuilderFlag.FP16)
        config.set_tactic_sources(1 << int(trt.TacticSource.CUDNN))

    assert rover.plan(model, set_up=set_up)
    build, = rover.machine.builds
    assert build.workspace_bytes == 32 << 20
    assert build.tactic_sources == ("CUDNN",)
    assert build.precision in ("fp16 graph", "fp16 outputs")
    assert build.profile == {"image": [list(shape) for shape in SHAPES]}


def test_half_precision_costs_digits_and_no_more(rovers, tiny, model):
    rover = rovers("8.2.1.8")
    images = frames(3) + 0.37
    plan = rover.plan(model, set_up=lambda config: config.set_flag(rover.trt.BuilderFlag.FP16))
    execution = rover.engine(plan).create_execution_context()
    made, true = run(rover, execution, images, False), truth(tiny, images)
    assert (made != true).any()
    np.testing.assert_allclose(made, true, rtol=2e-3)
    del execution
    rover.down()


def test_tactics_that_are_needed_and_off_leave_no_plan(rovers, model):
    rover = rovers("8.2.1.8")
    rover.machine.tactics_needed = ("CUDNN",)
    assert rover.plan(model, set_up=lambda config: config.set_tactic_sources(1)) is None
    assert "CUDNN are off" in rover.errors()[0]
    assert rover.plan(model) is not None


def test_a_timing_cache_remembers_layers(rovers, model):
    rover = rovers("8.2.1.8")
    kept = []

    def with_cache(content):
        def set_up(config):
            cache = config.create_timing_cache(content)
            assert config.set_timing_cache(cache, ignore_mismatch=False)
            kept.append(config)

        return set_up

    rover.plan(model, set_up=with_cache(b""))
    content = bytes(kept[0].get_timing_cache().serialize())
    rover.plan(model, set_up=with_cache(content))
    first, second = rover.machine.builds
    assert (first.timed, first.remembered) == (2, 0)
    assert (second.timed, second.remembered) == (0, 2)
    config = rover.trt.Builder(rover.logger).create_builder_config()
    assert config.create_timing_cache(content[:-1]) is None
    assert config.get_timing_cache() is None


def test_a_damaged_timing_cache_ends_the_process_in_version_10(rovers):
    rover = rovers("10.3.0")
    config = rover.trt.Builder(rover.logger).create_builder_config()
    with pytest.raises(ProcessAborted):
        config.create_timing_cache(b"damaged")


def test_a_timing_cache_of_another_gpu_is_not_taken(rovers):
    rover = rovers("8.2.1.8")
    config = rover.trt.Builder(rover.logger).create_builder_config()
    cache = config.create_timing_cache(b"")
    rover.machine.gpu = "NVIDIA Orin"
    assert not config.set_timing_cache(cache, False)
    assert config.set_timing_cache(cache, True)


@pytest.mark.parametrize("spoil, words", [
    (lambda plan: b"", "not one of its own"),
    (lambda plan: plan[:-1], "damaged"),
    (lambda plan: plan[:60] + b"?" + plan[61:], "damaged"),
])
def test_a_damaged_plan_is_refused(rovers, model, spoil, words):
    rover = rovers("8.2.1.8")
    assert rover.engine(spoil(rover.plan(model))) is None
    assert words in rover.errors()[0]


def test_a_plan_of_another_version_or_another_gpu_is_refused(rovers, model):
    plan = rovers("8.2.1.8").plan(model)
    later = rovers("8.6.1.6")
    assert later.engine(plan) is None
    assert "built by version 8.2.1.8, this is 8.6.1.6" in later.errors()[0]
    larger = rovers("8.2.1.8", gpu="NVIDIA Orin", compute_capability=(8, 7))
    assert larger.engine(plan) is None
    assert "compute capability 5.3, this is 8.7" in larger.errors()[0]
    sibling = rovers("8.2.1.8", gpu="another Maxwell")
    assert sibling.engine(plan) is not None
    assert ("WARNING", "the plan was built on another model of device") in sibling.logger.lines


@pytest.mark.parametrize("version", fake_jetson.VERSIONS)
def test_shapes_outside_of_the_profile_are_refused(rovers, model, version):
    rover = rovers(version)
    execution = rover.engine(rover.plan(model)).create_execution_context()
    for shape in ((0, 3, 32, 32), (5, 3, 32, 32), (1, 3, 32, 31), (1, 3, 32)):
        if version == "8.2.1.8":
            assert not execution.set_binding_shape(0, shape)
        else:
            assert not execution.set_input_shape("image", shape)
    assert len(rover.errors()) == 4


@pytest.mark.parametrize("version", fake_jetson.VERSIONS)
def test_an_execution_wants_shapes_and_addresses_first(rovers, model, version):
    rover = rovers(version)
    execution = rover.engine(rover.plan(model)).create_execution_context()
    if version == "8.2.1.8":
        assert not execution.execute_async_v2([0, 0], 0)
        with pytest.raises(TypeError):
            execution.execute_async_v2([0, 0], rover.driver.Stream())
    else:
        assert not execution.execute_async_v3(0)
        with pytest.raises(TypeError):
            execution.execute_async_v3(rover.driver.Stream())
    assert len(rover.errors()) == 1


def test_tensors_lie_on_multiples_of_256(rovers, model):
    rover = rovers("8.6.1.6")
    execution = rover.engine(rover.plan(model)).create_execution_context()
    buffer = rover.driver.mem_alloc(1 << 16)
    execution.set_input_shape("image", (1, 3, 32, 32))
    execution.set_tensor_address("image", int(buffer))
    execution.set_tensor_address("embedding", int(buffer) + 3 * 32 * 32 * 4 + 16)
    assert not execution.execute_async_v3(0)
    assert "not on a multiple of 256" in rover.machine.violations[0]


def test_an_output_that_is_too_small_loses_the_context(rovers, model):
    rover = rovers("8.6.1.6")
    execution = rover.engine(rover.plan(model)).create_execution_context()
    given, small = rover.driver.mem_alloc(12288), rover.driver.mem_alloc(48 * 4 - 4)
    rover.driver.memcpy_htod(given, frames(1))
    execution.set_input_shape("image", (1, 3, 32, 32))
    execution.set_tensor_address("image", int(given))
    execution.set_tensor_address("embedding", int(small))
    stream = rover.driver.Stream()
    assert execution.execute_async_v3(stream.handle)
    with pytest.raises(rover.driver.LogicError, match="illegal memory access"):
        stream.synchronize()
    assert "192 bytes at" in rover.machine.violations[0]


@pytest.mark.parametrize("what", ["build", "deserialize", "execution_context"])
def test_arranged_faults_are_none_and_a_logged_error(rovers, model, what):
    rover = rovers("8.2.1.8")
    plan = rover.plan(model)
    engine = rover.engine(plan)
    rover.machine.fail_next(what, "no luck")
    made = {"build": lambda: rover.plan(model), "deserialize": lambda: rover.engine(plan),
            "execution_context": engine.create_execution_context}[what]
    assert made() is None
    assert "no luck" in rover.errors()[0]
    assert made() is not None


def test_an_execution_that_fails_loses_the_context(rovers, model):
    rover = rovers("8.2.1.8")
    execution = rover.engine(rover.plan(model)).create_execution_context()
    execution.set_binding_shape(0, (1, 3, 32, 32))
    buffer = rover.driver.mem_alloc(1 << 16)
    rover.machine.fail_next("execute")
    assert not execution.execute_async_v2([int(buffer), int(buffer) + (1 << 15)], 0)
    with pytest.raises(rover.driver.LaunchError):
        rover.driver.Context.synchronize()


def test_device_memory_too_small_for_an_engine_is_an_error_in_the_log(rovers, model):
    rover = rovers("8.2.1.8", total_memory=1 << 10)
    plan = rover.plan(model)
    engine = rover.engine(plan)
    assert engine.create_execution_context() is None
    assert "out of memory" in rover.errors()[0]
    rest = rover.driver.mem_alloc(rover.driver.mem_get_info()[0])
    assert rover.engine(plan) is None
    assert "out of device memory" in rover.errors()[1]
    rest.free()


def test_the_parser_must_outlive_the_building_in_8_2_and_is_kept_later(rovers, model):
    for version, built in (("8.2.1.8", False), ("8.6.1.6", True)):
        rover = rovers(version)
        builder, network, parser, _ = rover.network(model)
        del parser
        config = builder.create_builder_config()
        profile = builder.create_optimization_profile()
        profile.set_shape("image", *SHAPES)
        config.add_optimization_profile(profile)
        made = builder.build_serialized_network(network, config)
        assert (made is not None) == built
        assert bool(rover.machine.violations) != built


@pytest.mark.parametrize("version", fake_jetson.VERSIONS)
def test_a_parser_whose_network_is_gone_ends_the_process(rovers, model, version):
    rover = rovers(version)
    builder = rover.trt.Builder(rover.logger)
    flag = getattr(rover.trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    parser = rover.trt.OnnxParser(
        builder.create_network(0 if flag is None else 1 << int(flag)), rover.logger)
    with pytest.raises(ProcessAborted):
        parser.parse(model)


def test_an_engine_that_outlives_its_context_is_noticed(rovers, model):
    rover = rovers("8.2.1.8")
    engine = rover.engine(rover.plan(model))
    execution = engine.create_execution_context()
    rover.down()
    assert "a TensorRT engine" in rover.machine.violations[0]
    assert "a TensorRT execution context" in rover.machine.violations[0]
    del execution, engine


@pytest.mark.parametrize("version", fake_jetson.VERSIONS)
@pytest.mark.parametrize("kept", ["builder", "network", "parser", "config"])
def test_whatever_a_plan_is_built_with_and_outlives_its_context_is_noticed(
        rovers, model, version, kept):
    rover = rovers(version)
    builder, network, parser, _ = rover.network(model)
    held = {"builder": builder, "network": network, "parser": parser,
            "config": builder.create_builder_config()}[kept]
    del builder, network, parser
    rover.down()
    assert "held 256 bytes of a TensorRT builder" in rover.machine.violations[0]
    del held


def test_a_builder_that_a_traceback_keeps_beyond_its_context_is_noticed(rovers, model):
    rover = rovers("8.2.1.8")

    def build():
        builder, network, parser, _ = rover.network(model)
        raise ValueError("while it is there")

    with pytest.raises(ValueError) as caught:
        build()
    rover.context.pop()
    assert "a TensorRT builder" in rover.machine.violations[0]
    del caught


def test_a_builder_that_is_gone_before_its_context_leaves_nothing(rovers, model):
    rover = rovers("8.2.1.8")
    assert rover.plan(model) is not None
    rover.down()
    assert rover.machine.violations == [] and rover.machine.live_bytes() == 0


def test_there_is_no_builder_without_a_context_or_without_memory_for_it(rovers):
    rover = rovers("8.2.1.8")
    rover.machine.fail_next("alloc")
    with pytest.raises(TypeError, match="returned nullptr"):
        rover.trt.Builder(rover.logger)
    assert "out of device memory" in rover.errors()[0]
    rover.down()
    with pytest.raises(TypeError, match="returned nullptr"):
        rover.trt.Builder(rover.logger)
    assert "a builder without a CUDA context" in rover.machine.violations[0]


def test_tensorrt_in_another_thread_than_the_contexts_is_noticed(rovers, model):
    rover = rovers("8.6.1.6")
    plan = rover.plan(model)
    engines = []
    thread = threading.Thread(target=lambda: engines.append(rover.engine(plan)))
    thread.start()
    thread.join()
    assert engines == [None]
    assert "TensorRT used without a CUDA context" in rover.machine.violations[-1]


def test_memory_of_the_host_is_a_buffer_and_nothing_else(rovers, model, tmp_path):
    rover = rovers("8.2.1.8")
    builder, network, parser, _ = rover.network(model)
    config = builder.create_builder_config()
    memory = config.create_timing_cache(b"").serialize()
    assert memory.nbytes == len(bytes(memory)) > 0
    (tmp_path / "written").write_bytes(memory)
    assert (tmp_path / "written").read_bytes() == bytes(memory)
    with pytest.raises(TypeError):
        len(memory)
