"""Every name of TensorRT's that the project uses is one of NVIDIA's, in the versions that have it.

The names are read from the source, so branches no test runs are checked too; what a version lacks
is listed here, with the question by which the code finds out. The stand-ins' names, the numbers of
their enumerations and their arguments are compared with NVIDIA's modules as well.
"""

import ast
import inspect
import os
import pathlib
import shutil
import sys

import fake_tensorrt
import pytest
import real_tensorrt
import tensorrt_8_2

from jetson_cluster.embedder import builder

FOLDER = pathlib.Path(builder.__file__).parent
# What the expressions are that hold something of TensorRT's: a class, "" for the module.
HOLDS = {
    "trt.py": {"trt": "", "module": "", "severity": "ILogger.Severity"},
    "builder.py": {
        "trt": "", "builder": "Builder", "network": "INetworkDefinition", "parser": "OnnxParser",
        "config": "IBuilderConfig", "config.get_timing_cache()": "ITimingCache",
        "profile": "IOptimizationProfile", "inputs[0]": "ITensor", "outputs[0]": "ITensor",
        "network.get_input(0)": "ITensor", "one": "ITensor"},
    "engine.py": {"trt": "", "runtime": "Runtime"},
    "execution.py": {"trt": "", "engine": "ICudaEngine", "context": "IExecutionContext"},
    "tensorrt.py": {"module": ""},
    "gpu.py": {},
}
# Names that TensorRT has and other things as well: not every use of one is TensorRT's.
OF_OTHERS_TOO = {"name", "shape", "dtype", "log", "reset", "__init__", "__name__", "__version__",
                 "init", "plan", "items"}
OTHERS = {"np", "built"}  # and variables that hold none of it
# What a module lacks of the names used, and the text by which the code sees that it does.
NAMED = "if self._names:"  # execution.py: hasattr(engine, "num_io_tensors")
POOLS = "if hasattr(config, \"set_memory_pool_limit\")"
PRECISION = "precision_is_the_graphs(trt)"
SOURCES = "if hasattr(trt.TacticSource, name)"
RTX_ALONE = "if compute_capability is not None"
BINDINGS = {"ICudaEngine." + name: NAMED for name in (
    "num_bindings", "binding_is_input", "get_binding_shape")}
BINDINGS.update({"IExecutionContext." + name: NAMED for name in (
    "set_binding_shape", "execute_async_v2")})
BY_NAME = {"TensorIOMode": NAMED, "TensorIOMode.INPUT": NAMED}
BY_NAME.update({"ICudaEngine." + name: NAMED for name in (
    "num_io_tensors", "get_tensor_name", "get_tensor_mode", "get_tensor_shape")})
BY_NAME.update({"IExecutionContext." + name: NAMED for name in (
    "set_input_shape", "set_tensor_address", "execute_async_v3")})
FOR_RTX = {"ComputeCapability": RTX_ALONE, "IBuilderConfig.num_compute_capabilities": RTX_ALONE,
           "IBuilderConfig.set_compute_capability": RTX_ALONE}
FROM_11 = {"BuilderFlag.FP16": PRECISION, "IBuilderConfig.max_workspace_size": POOLS,
           "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": "\"EXPLICIT_BATCH\", None)"}
FROM_11.update({"TacticSource." + name: SOURCES for name in builder.COSTLY_SOURCES})
LACKS = {
    "8.2": dict(BY_NAME, MemoryPoolType=POOLS, **dict(
        FOR_RTX, **{"MemoryPoolType.WORKSPACE": POOLS,
                    "IBuilderConfig.set_memory_pool_limit": POOLS})),
    "8.6.1": FOR_RTX,
    "10.3.0": dict(BINDINGS, **dict(FOR_RTX, **{"IBuilderConfig.max_workspace_size": POOLS})),
    "11.0.0.114": dict(BINDINGS, **dict(FOR_RTX, **FROM_11)),
    "1.7.1.116": dict(BINDINGS, **FROM_11),
}
STOOD_IN = {"8.6.1": "8.6.1.6", "10.3.0": "10.3.0", "11.0.0.114": "11.0.0"}


@pytest.fixture(scope="session")
def real():
    """`real(version)`: what NVIDIA's module of that version says of itself."""
    if not (3, 8) <= sys.version_info[:2] <= (3, 11):
        pytest.skip("all of NVIDIA's modules are to be had for Python 3.8 to 3.11 only; the names "
                    "were NOT looked up on this one")
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here: the names were NOT looked up (apt-get install gcc)")
    cache = pathlib.Path(os.environ.get("JETSON_CLUSTER_CACHE") or
                         str(real_tensorrt.ROOT / ".cache")).resolve()
    packages = {version: package for package, version in real_tensorrt.pins()}
    asked = {}

    def ask(version):
        if version not in asked:
            asked[version] = real_tensorrt.ask(packages[version], version, cache)
        return asked[version]

    return ask


def source(file):
    return (FOLDER / file).read_text()


def used_by(file):
    """(names used, {"expression.attribute"} that look like TensorRT's but are of unknown kind)."""
    holds, names, unknown = HOLDS[file], set(), set()
    universe = {name.rsplit(".", 1)[-1] for name in tensorrt_8_2.NAMES}
    universe |= {name.rsplit(".", 1)[-1] for table in LACKS.values() for name in table}
    for node in ast.walk(ast.parse(source(file))):
        if isinstance(node, ast.Attribute):
            held, attribute = node.value, node.attr
        elif (isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("hasattr", "getattr")
              and isinstance(node.args[1], ast.Constant)):
            held, attribute = node.args[0], node.args[1].value
        else:
            continue
        path = kind(held, holds)
        if path is not None:
            names.add((path + "." + attribute).lstrip("."))
        elif (attribute in universe - OF_OTHERS_TOO and not isinstance(held, ast.Constant)
              and getattr(held, "id", "") not in OTHERS):
            unknown.add("{}.{}".format(ast.dump(held), attribute))
    return {name for name in names if not name.split(".")[-1].startswith("__")}, unknown


def kind(expression, holds):
    """The class that an expression is, or is of; None if it is none of TensorRT's."""
    for text, name in holds.items():
        if ast.dump(ast.parse(text, mode="eval").body) == ast.dump(expression):
            return name
    if isinstance(expression, ast.Attribute):
        path = kind(expression.value, holds)
        if path is not None and expression.attr[0].isupper():
            return (path + "." + expression.attr).lstrip(".")
    return None


@pytest.fixture(scope="session")
def used():
    """Every name of TensorRT's in the project."""
    if sys.version_info < (3, 8):
        pytest.skip("the syntax tree is read where NVIDIA's modules are, from Python 3.8")
    names = {"TacticSource." + name for name in builder.COSTLY_SOURCES}
    for file in HOLDS:
        names |= used_by(file)[0]
    return names


@pytest.mark.parametrize("file", sorted(HOLDS))
@pytest.mark.skipif(sys.version_info < (3, 8), reason="ast.Constant came with Python 3.8")
def test_of_everything_that_looks_like_tensorrts_it_is_said_here_what_it_is(file):
    assert used_by(file)[1] == set()


@pytest.mark.skipif(sys.version_info < (3, 8), reason="ast.Constant came with Python 3.8")
def test_no_other_module_has_names_that_are_tensorrts_alone():
    alone = {name.rsplit(".", 1)[-1] for file in HOLDS for name in used_by(file)[0]}
    alone = {name for name in alone if "_" in name and name.islower()}
    assert len(alone) > 25
    for path in FOLDER.parent.rglob("*.py"):
        if path.parent != FOLDER or path.name not in HOLDS:
            attributes = {node.attr for node in ast.walk(ast.parse(path.read_text()))
                          if isinstance(node, ast.Attribute)}
            assert not attributes & alone, path


@pytest.mark.parametrize("version", [version for _, version in real_tensorrt.pins()])
def test_every_name_used_is_nvidias_but_those_the_version_lacks(real, used, version):
    assert used - set(real(version)["names"]) == set(LACKS[version])


def test_every_name_used_is_in_8_2_but_those_it_lacks(used):
    assert used - tensorrt_8_2.NAMES == set(LACKS["8.2"])


@pytest.mark.parametrize("version", sorted(LACKS))
def test_what_a_version_lacks_is_asked_for_first(version):
    text = "".join(source(file) for file in HOLDS)
    for name, question in LACKS[version].items():
        assert question in text, name


def test_names_of_8_2_are_still_in_8_6_but_one(real):
    """The list of 8.2 was written from its source; 8.6 keeps what it deprecated."""
    gone = tensorrt_8_2.NAMES - set(real("8.6.1")["names"])
    assert gone <= {"ProfilingVerbosity.DEFAULT", "ProfilingVerbosity.VERBOSE"}


def stand_in(version):
    """{name: what it is} of a stand-in, its own helpers left out."""
    found = {}

    def look(class_, path):
        for name, value in vars(class_).items():
            if name.startswith("_"):
                continue
            found[path + "." + name] = value
            if inspect.isclass(value):
                look(value, path + "." + name)
        for base in class_.__mro__[1:-1]:
            if base.__module__.startswith("fake_tensorrt.common"):
                look(base, path)

    module = fake_tensorrt.make(version)
    for name, value in vars(module).items():
        if name.startswith("_"):
            continue
        found[name] = value
        if inspect.isclass(value):
            look(value, name)
    return found


def test_the_stand_in_of_8_2_has_only_names_of_8_2():
    assert set(stand_in("8.2.1.8")) <= tensorrt_8_2.NAMES


@pytest.mark.parametrize("version", sorted(STOOD_IN))
def test_stand_ins_have_only_nvidias_names(real, version):
    assert set(stand_in(STOOD_IN[version])) <= set(real(version)["names"])


@pytest.mark.parametrize("version", sorted(STOOD_IN))
def test_enumerations_of_stand_ins_have_nvidias_numbers(real, version):
    theirs = real(version)["numbers"]
    ours = {name: int(value) for name, value in stand_in(STOOD_IN[version]).items()
            if hasattr(value, "_by_number") and "." in name and name in theirs}
    assert len(ours) > 30
    assert ours == {name: theirs[name] for name in ours}


@pytest.mark.parametrize("version", sorted(STOOD_IN))
def test_arguments_of_stand_ins_are_called_as_nvidias(real, version):
    theirs = real(version)["arguments"]
    compared = 0
    for name, value in stand_in(STOOD_IN[version]).items():
        if inspect.isfunction(value) and name in theirs:
            ours = list(inspect.signature(value).parameters)[1:]
            assert ours == theirs[name][:len(ours)], name
            compared += 1
    assert compared > 25
