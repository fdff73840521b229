"""NVIDIA's own Python modules, asked for their names: no library of NVIDIA's and no GPU is needed.

In: tests/names-requirements.txt, a cache folder. Out: for each package its classes' names, the
numbers of its enumerations and the names of its methods' arguments. Each is unpacked into a folder
of its own and imported in a process of its own, over libraries that have its symbols and do nothing.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "tests" / "names-requirements.txt"
SYMBOLS = (
    "createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL "
    "createNvOnnxParserRefitter_INTERNAL createNvOnnxParser_INTERNAL getBuilderPluginRegistry "
    "getNvOnnxParserVersion getPluginRegistry initLibNvInferPlugins "
    "_ZN11nvuffparser15createUffParserEv _ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi "
    "_ZN14nvcaffeparser117createCaffeParserEv _ZN14nvcaffeparser123shutdownProtobufLibraryEv"
).split()
LIBRARIES = {
    "tensorrt_bindings": ("libnvinfer.so.8", "libnvonnxparser.so.8", "libnvparsers.so.8",
                          "libnvinfer_plugin.so.8"),
    "tensorrt-cu12-bindings": ("libnvinfer.so.{0}", "libnvonnxparser.so.{0}",
                               "libnvinfer_plugin.so.{0}"),
    "tensorrt-rtx-cu12-bindings": ("libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"),
}

# Runs in a process of its own: imports the module and says what is in it. pybind11 keeps a method's
# signature in the first line of its text, or one a line, numbered, where there are several.
ASK = r"""
import importlib, inspect, json, re, sys

module = importlib.import_module(sys.argv[1])
names, numbers, arguments = set(dir(module)), {}, {}

def look(class_, path):
    for name in dir(class_):
        names.add(path + "." + name)
    for name, member in getattr(class_, "__members__", {}).items():
        numbers[path + "." + name] = int(member)
    for name, value in vars(class_).items():
        text = getattr(value, "__doc__", "") or ""
        signature = re.match(name + r"\(self: [^,)]*(.*)\) -> ", text)
        if signature and not isinstance(value, property):
            arguments[path + "." + name] = re.findall(r", (\w+):", signature.group(1))
        if inspect.isclass(value) and not name.startswith("_"):
            look(value, path + "." + name)

for name, value in vars(module).items():
    if inspect.isclass(value):
        look(value, name)
print(json.dumps({"names": sorted(names), "numbers": numbers, "arguments": arguments}))
"""


def pins():
    """{(package, version)} as the requirements say, in their order."""
    found = re.findall(r"^([\w-]+) ==([\w.]+)$", REQUIREMENTS.read_text(), re.MULTILINE)
    return [(package, version) for package, version in found]


def unpacked(package, version, cache):
    """The folder of one package, made at the first call; an interrupted one starts over."""
    folder = cache / "bindings" / "{}-{}-python{}.{}".format(package, version, *sys.version_info)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = pathlib.Path(tempfile.mkdtemp(dir=str(folder.parent)))
    try:
        _run([sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet",
              "--no-deps", "--only-binary=:all:", "--target", str(made / "it"),
              "{}=={}".format(package, version)])
        _build_libraries(package, version, made / "it" / "libraries")
        if not folder.is_dir():
            os.rename(str(made / "it"), str(folder))
    finally:
        shutil.rmtree(str(made), ignore_errors=True)
    return folder


def _build_libraries(package, version, folder):
    folder.mkdir()
    source = folder / "nothing.c"
    source.write_text("".join("void {}(void) {{}}\n".format(symbol) for symbol in SYMBOLS))
    for name in LIBRARIES[package]:
        name = name.format(version.split(".")[0])
        _run(["gcc", "-shared", "-fPIC", str(source), "-Wl,-soname," + name,
              "-o", str(folder / name)])


def ask(package, version, cache):
    """{"names", "numbers", "arguments"} of one package's module."""
    folder = unpacked(package, version, cache)
    module, = [each.name for each in folder.iterdir() if (each / "__init__.py").exists()]
    path = os.pathsep.join([str(folder)] + [each for each in sys.path if each])
    said = _run([sys.executable, "-c", ASK, module],
                dict(os.environ, LD_LIBRARY_PATH=str(folder / "libraries"), PYTHONPATH=path))
    return json.loads(said.splitlines()[-1])


def _run(command, environment=None):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, env=environment)
    if done.returncode != 0:
        raise RuntimeError("{}\nfailed: {}".format(done.stderr[-2000:], " ".join(command)))
    return done.stdout
