"""What flight code must be: Python 3.6, few imports, small modules, no swallowed errors, no ground.

`vermin` judges syntax and library calls; it misses `int | None` in an annotation, so that is looked
for here, and the 3.6 run of tools/test imports every module for real.
"""

import ast
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "jetson_cluster"
GROUND = "jetson_cluster.ground"
LINES_AT_MOST = 400

MODULES = sorted(PACKAGE.rglob("*.py"))
FLIGHT = [path for path in MODULES if "ground" not in path.relative_to(PACKAGE).parts]
SCRIPTS = sorted(
    path
    for path in (ROOT / "tools").rglob("*")
    if path.is_file() and (path.suffix == ".py" or path.read_bytes().startswith(b"#!"))
)

# Runs in a process of its own: imports every module named in argv under an import system that knows
# the standard library, the rover's four libraries and this package, then says what was loaded.
IMPORT_ALONE = """
import importlib, importlib.machinery, json, sys, sysconfig

ALLOWED = {"jetson_cluster", "numpy", "PIL", "yaml", "_yaml", "watchdog"}
STANDARD = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
STANDARD += [folder for folder in sys.path if folder.endswith("lib-dynload")]

class OnlyTheRovers:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in ALLOWED or top in sys.builtin_module_names:
            return None
        if importlib.machinery.PathFinder.find_spec(top, STANDARD) is not None:
            return None
        raise ModuleNotFoundError("not on the rover: " + name, name=name)

for name in list(sys.modules):
    if "site-packages" in (getattr(sys.modules[name], "__file__", None) or ""):
        del sys.modules[name]
sys.meta_path.insert(0, OnlyTheRovers())
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted(sys.modules)))
"""


def module_name(path):
    """`jetson_cluster/embedder/base.py` → `jetson_cluster.embedder.base`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def tree_of(path):
    """The syntax tree of a source file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported_names(path, tree):
    """Every dotted name a module imports, wherever in it and however, as (line, name)."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            outer = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join(outer + ([node.module] if node.module else []))
            for alias in node.names:
                yield node.lineno, base + "." + alias.name
        elif isinstance(node, ast.Call):
            function = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if function in ("import_module", "__import__") and node.args:
                for part in ast.walk(node.args[0]):
                    # A string constant keeps its text in `s` on Python 3.6, in `value` since.
                    text = part.value if hasattr(part, "value") else getattr(part, "s", None)
                    if isinstance(text, str):
                        yield node.lineno, text


def is_ground(name):
    """Whether a dotted name lies in the ground package."""
    return name == GROUND or name.startswith((GROUND + ".", ".ground"))


def ground_imports(path, tree):
    """The lines on which a flight module imports ground code, lazily or not."""
    return [line for line, name in imported_names(path, tree) if is_ground(name)]


def annotations(tree):
    """Every annotation in a module."""
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            found = getattr(node, field, None)
            if found is not None:
                yield found


def union_bars(tree):
    """The lines with an annotation such as `int | None`."""
    return [
        part.lineno
        for annotation in annotations(tree)
        for part in ast.walk(annotation)
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.BitOr)
    ]


def swallowers(tree):
    """The lines of handlers that take everything, or take `Exception` and do nothing about it."""
    lines = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        broad = getattr(node.type, "id", None) in ("Exception", "BaseException")
        idle = all(isinstance(statement, (ast.Pass, ast.Continue)) for statement in node.body)
        if node.type is None or (broad and idle):
            lines.append(node.lineno)
    return lines


def import_alone(names):
    """Imports modules in a fresh process with the rover's libraries; returns what was loaded."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALONE] + names,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, cwd=str(ROOT),
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def each(paths):
    """Parametrises a test over files, each named by its path in the checkout."""
    return pytest.mark.parametrize(
        "path", paths, ids=[str(path.relative_to(ROOT)) for path in paths]
    )


def test_there_is_flight_code_and_the_ground_is_not_among_it():
    names = [module_name(path) for path in FLIGHT]
    assert "jetson_cluster.cli" in names and "jetson_cluster.embedder.base" in names
    assert not [name for name in names if is_ground(name)]


def test_flight_code_keeps_to_python_36():
    pytest.importorskip("vermin", reason="vermin is not installed in this environment")
    done = subprocess.run(
        [sys.executable, "-c", "from vermin.main import main; main()", "-t=3.6-", "--no-tips",
         "--eval-annotations", "--violations"] + [str(path) for path in FLIGHT],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True,
    )
    assert done.returncode == 0, done.stdout


@each(FLIGHT)
def test_no_annotation_joins_types_with_a_bar(path):
    assert union_bars(tree_of(path)) == []


@each([path for path in FLIGHT if path.name != "cli.py"])
def test_flight_code_never_imports_the_ground(path):
    assert ground_imports(path, tree_of(path)) == []


def test_the_command_line_names_the_ground_only_inside_a_verb():
    path = PACKAGE / "cli.py"
    top = ast.Module(
        body=[
            node for node in tree_of(path).body if not isinstance(node, ast.FunctionDef)
        ],
        type_ignores=[],
    )
    assert ground_imports(path, top) == []


@pytest.mark.parametrize(
    "source",
    [
        "from jetson_cluster.ground import fit",
        "from jetson_cluster import ground",
        "import jetson_cluster.ground.fit",
        "from .ground import fit",
        "from . import ground",
        "def verb():\n    from .ground.fit import run",
        "import importlib\nimportlib.import_module('jetson_cluster.ground.fit')",
        "import importlib\nimportlib.import_module('.ground.fit', __package__)",
    ],
)
def test_no_way_to_import_the_ground_goes_unseen(source):
    assert ground_imports(PACKAGE / "inbox.py", ast.parse(source))


def test_flight_code_imports_with_the_rovers_libraries_alone():
    names = [module_name(path) for path in FLIGHT if path.name != "__main__.py"]
    loaded = import_alone(names)
    assert set(names) <= loaded
    assert not [name for name in loaded if is_ground(name)]


def test_the_command_answers_before_any_heavy_library_is_loaded():
    heavy = {"numpy", "PIL", "onnx", "onnxruntime", "openvino", "torch", "faiss", "watchdog"}
    assert not heavy & import_alone(["jetson_cluster.cli"])


@each(MODULES + SCRIPTS)
def test_a_file_stays_small_enough_to_be_one_thing(path):
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= LINES_AT_MOST


@each(MODULES)
def test_no_exception_is_swallowed_silently(path):
    assert swallowers(tree_of(path)) == []


@each(MODULES)
def test_a_module_opens_by_saying_what_it_is_for(path):
    assert ast.get_docstring(tree_of(path))
