"""Dockerfile.l4t, held to the rest of the checkout: its sources, user, folders and health check.

Not shown here: an image being built or started, which needs Docker, NVIDIA's registry and a Jetson.
"""

import fnmatch
import json
import pathlib
import re
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]
TEXT = (ROOT / "Dockerfile.l4t").read_text()


def instructions():
    """(instruction, its arguments on one line) in order, without comments."""
    lines = [line for line in TEXT.splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(name, " ".join(arguments.split())) for name, arguments in found]


def arguments_of(name):
    """The arguments of every instruction of that name."""
    return [arguments for instruction, arguments in instructions() if instruction == name]


def final_stage():
    """The instructions after the last FROM."""
    every = instructions()
    start = max(number for number, (name, _) in enumerate(every) if name == "FROM")
    return every[start + 1:]


def let_in(path):
    """Whether .dockerignore lets the builder have a file: the last line that fits decides."""
    answer = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.lstrip("!")
        if not line or line.startswith("#"):
            continue
        parts = pattern[3:] if pattern.startswith("**/") else None
        if (fnmatch.fnmatch(path, pattern) or path.startswith(pattern + "/")
                or (parts is not None and parts in path.split("/"))):
            answer = line.startswith("!")
    return answer


def copied():
    """The paths in the checkout that are copied into an image."""
    sources = [arguments.split()[:-1] for arguments in arguments_of("COPY")
               if not arguments.startswith("--from")]
    return [source for group in sources for source in group]


def test_the_first_rover_is_the_default_and_both_stages_share_one_base():
    assert arguments_of("ARG") == ["BASE=nvcr.io/nvidia/l4t-base:r32.7.1"]
    assert arguments_of("FROM") == ["${BASE} AS builder", "${BASE}"]
    assert "--build-arg BASE=nvcr.io/nvidia/l4t-jetpack:r36" in TEXT


@pytest.mark.parametrize("source", copied())
def test_what_is_copied_exists_and_reaches_the_builder(source):
    path = ROOT / source
    assert path.exists()
    files = [path] if path.is_file() else [
        file for file in path.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    assert files and all(let_in(file.relative_to(ROOT).as_posix()) for file in files)


@pytest.mark.parametrize("path", [
    ".venv/bin/python", ".git/config", "engines/model.onnx", ".demo/queue.csv", "tests/conftest.py",
    "jetson_cluster/__pycache__/cli.cpython-36.pyc", "tools/lib/venvs.py"])
def test_what_no_image_needs_stays_outside(path):
    assert not let_in(path)


def test_the_package_can_be_built_from_what_is_copied():
    project = (ROOT / "pyproject.toml").read_text()
    for key in ("readme", "file"):  # flit reads both
        name = re.search(r'{} = "(.+?)"'.format(key), project).group(1)
        assert name in copied()


def test_the_compiler_and_the_sources_stay_behind():
    names = [name for name, _ in final_stage()]
    assert "COPY" in names and not any("pip install" in text for _, text in final_stage())
    assert "--from=builder /opt/jetson-cluster /opt/jetson-cluster" in arguments_of("COPY")
    assert not any("python3-dev" in text for _, text in final_stage())


def test_it_runs_as_an_ordinary_user_that_may_use_the_gpu():
    account, = [text for name, text in final_stage() if "useradd" in text]
    number = re.search(r"--uid (\d+)", account).group(1)
    assert arguments_of("USER") == [number] and number != "0"
    assert "--groups video" in account


def test_state_and_inbox_are_volumes_that_the_settings_name():
    config = yaml.safe_load((ROOT / "systemd" / "config.yaml").read_text())
    volumes, = arguments_of("VOLUME")
    assert json.loads(volumes) == [config["state_dir"], config["inbox"]["path"]]
    for folder in json.loads(volumes):
        assert re.search(r"install -d -o jetson-cluster .*" + folder, TEXT)
        assert "-v " in TEXT and ":" + folder in TEXT


def test_every_environment_that_a_nano_needs_is_set_where_it_runs():
    environment, = [text for name, text in final_stage() if name == "ENV"]
    assert {"LANG=C.UTF-8", "OPENBLAS_CORETYPE=ARMV8"} <= set(environment.split())


def verbs():
    """What the image runs: by itself, as its health check, and as the comment says."""
    entry, = arguments_of("ENTRYPOINT")
    assert json.loads(entry) == ["jetson-cluster"]
    check = json.loads(re.search(r"CMD (\[.*\])", arguments_of("HEALTHCHECK")[0]).group(1))
    assert check[0] == "jetson-cluster"
    command, = arguments_of("CMD")
    yield json.loads(command)
    yield check[1:]
    yield re.search(r"#\s+(build --config .*)", TEXT).group(1).split()


@pytest.mark.parametrize("arguments", list(verbs()), ids=" ".join)
def test_what_it_runs_is_something_the_command_knows(arguments):
    done = subprocess.run(
        [sys.executable, "-m", "jetson_cluster"] + arguments + ["--help"], cwd=str(ROOT),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    assert done.returncode == 0, done.stderr
    assert "--config" in done.stdout


def docker_runs():
    """The arguments of every `docker run` that the comment tells people to type."""
    text = re.sub(r"\\\n#\s+", "", TEXT)
    return re.findall(r"^#\s+docker run (.*)$", text, re.MULTILINE)


def test_a_container_stops_when_it_is_told_to_and_starts_with_the_computer():
    build, daemon = docker_runs()
    # The first process ignores SIGTERM until it has a handler; on-failure forgets exit status 0.
    assert "--init " in build and "--init " in daemon
    assert "--restart unless-stopped " in daemon and "--restart" not in build


def test_the_pins_are_those_of_the_installation_and_no_others():
    assert "tools/lib/jetson" in copied()
    assert not re.search(r"==\s*\d", TEXT)
