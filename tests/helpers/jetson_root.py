"""A Jetson that is a folder, for tools/install-on-jetson: JETSON_CLUSTER_TEST_ROOT.

Its programs are one script that writes down how it was called and does the little the installation
needs of it. `told` holds what the programs answer, and which call is to fail or to hang.
"""

import hashlib
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys

import numpy as np

from jetson_cluster import codebook, recipe
from jetson_cluster.catalog import Catalog

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tools" / "install-on-jetson"
# What a real system has and the program uses; everything else it calls is a stand-in.
REAL = ("awk", "bash", "cat", "chmod", "cmp", "cp", "dirname", "env", "grep", "install", "mkdir",
        "mv", "paste", "realpath", "rm", "sed", "sleep", "touch")
STAND_INS = ("df", "g++", "id", "nvpmodel", "python3", "runuser", "sync", "systemctl",
             "systemd-sysusers", "systemd-tmpfiles")
STAND_IN = r"""#!/bin/bash
here=$JETSON_CLUSTER_TEST_ROOT/told
name=${0##*/}
call="$name $*"
answer() { cat "$here/$1" 2>/dev/null; }
# Looking is not doing, and is not written down.
case $call in
    "id -u") answer uid; exit ;;
    "df "*) printf 'Filesystem Blocks Used Available\n/dev/x 9 9 %s\n' "$(answer free_kb)"; exit ;;
    "nvpmodel -q") answer nvpmodel; exit ;;
    "systemctl is-active"*)
        state=$(if [ -e "$here/active" ]; then answer active; else echo inactive; fi)
        [[ $call == *--quiet* ]] || echo "$state"
        [ "$state" = active ]
        exit ;;
    "python3 -c"*version_info*) answer python; exit ;;
    "python3 -c"*ensurepip*) [ ! -e "$here/no-python3-venv" ]; exit ;;
    "python3 -c"*Python.h*) [ ! -e "$here/no-python3-dev" ]; exit ;;
    "python3 -c"*tensorrt*) [ ! -e "$here/no-python3-libnvinfer" ]; exit ;;
    "python -m pip --version") exit ;;
    "python -B "*)
        echo "${OPENBLAS_CORETYPE:-unset} ${PATH%%:*} $call" >>"$here/environments"
        exec "$(answer interpreter)" "$@" ;;
esac
[ "$name" = jetson-cluster ] || echo "$call" >>"$here/calls"  # else runuser's call says it
echo "${OPENBLAS_CORETYPE:-unset} ${PATH%%:*} $call" >>"$here/environments"
if [ -e "$here/hang" ] && [[ $call == *$(answer hang)* ]]; then
    # No shell that waits for another process: it forgets a SIGINT which that one outlives.
    : >"$here/hanging"
    exec sleep 600
fi
if [ -e "$here/fail" ] && [[ $call == *$(answer fail)* ]]; then
    echo "$name says why" >&2
    exit 3
fi
case $call in
    "python3 -m venv"*)
        venv=${*: -1}
        mkdir -p "$venv/bin"
        cp "$0" "$venv/bin/python"
        cp "$0" "$venv/bin/jetson-cluster"
        echo "include-system-site-packages = true" >"$venv/pyvenv.cfg" ;;
    "runuser -u jetson-cluster -- env "*) shift 4; env "$@" ;;
    "systemctl stop"*) rm -f "$here/active" ;;
    "systemctl enable --now"* | "systemctl --no-block start"*)
        echo active >"$here/active" ;;
esac
"""
RELEASES = {4: "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64\n",
            6: "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n"}


class Jetson:
    """A folder that the program takes for a Jetson."""

    def __init__(self, folder, jetpack=4):
        self.root = folder / "jetson"
        self.told = self.root / "told"
        bin_folder = self.root / "usr" / "bin"
        for name in ("told", "etc", "proc", "opt", "var/lib", "usr/bin", "usr/local/cuda/bin",
                     "usr/local/cuda/include"):
            (self.root / name).mkdir(parents=True)
        for name in REAL:
            (bin_folder / name).symlink_to(shutil.which(name))
        for name in STAND_INS:
            (bin_folder / name).write_text(STAND_IN)
            (bin_folder / name).chmod(0o755)
        for name in ("bin/nvcc", "include/cuda.h", "include/cudaProfiler.h", "include/curand.h"):
            (self.root / "usr/local/cuda" / name).touch()
        self.write("etc/nv_tegra_release", RELEASES[jetpack])
        self.write("proc/meminfo", "MemTotal: 4059000 kB\nMemFree: 1 kB\nSwapTotal: 2029000 kB\n")
        for name, text in (("uid", "0"), ("free_kb", "9000000"), ("python", "3.6"),
                           ("nvpmodel", "NV Power Mode: MAXN\n0\n"),
                           ("interpreter", sys.executable)):
            self.tell(name, text)
        if jetpack == 6:
            self.tell("python", "3.10")
        self.model = folder / "given" / "net.onnx"
        self.codebook = folder / "given" / "terrain.npz"
        self.model.parent.mkdir()
        self.give("a network")

    def give(self, network):
        """A network (whatever its bytes are), its recipe and a codebook; returns their space."""
        self.model.write_text(network)
        self.model.with_name("net.recipe.yaml").write_text(
            "name: net\nnetwork: other\ninput: {width: 32, height: 32}\nscaling: in_graph\n"
            "layer: pooled\ndimension: 4\n# beside %s\n" % network[:80])
        ramp = np.linspace(0, 1, codebook.QUANTILE_POINTS).astype(np.float32)
        space = recipe.load_model(str(self.model)).space
        codebook.save(str(self.codebook), codebook.Codebook(
            space=space, normalisation="l2", centroids=np.eye(4, dtype=np.float32),
            counts=np.full(4, 10), scales=np.ones(4, np.float32), novelty_quantiles=2 * ramp,
            margin_quantiles=ramp, r50=1.0, r95=1.9))
        return space

    def catalog(self, space):
        """What a daemon with a network of that space leaves behind; returns its path."""
        path = self.root / "var/lib/jetson-cluster/catalog.sqlite"
        Catalog(str(path), space).close()
        return path

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def tell(self, name, text=""):
        (self.told / name).write_text(text)

    def forget(self, name):
        (self.told / name).unlink()

    def start(self, *arguments, largest_file=resource.RLIM_INFINITY):
        """Starts the program, in a process group of its own; no file may exceed so many bytes."""
        def prepare():
            os.setsid()
            # Whoever started the tests in the background had it ignored, and a shell cannot undo that.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        return subprocess.Popen(
            [str(PROGRAM)] + [str(argument) for argument in arguments], cwd=str(self.model.parent),
            env={"PATH": str(self.root / "usr/bin"), "JETSON_CLUSTER_TEST_ROOT": str(self.root)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
            preexec_fn=prepare)

    def run(self, *arguments, **limits):
        """Runs the program; returns exit status, standard output, standard error."""
        running = self.start(*arguments, **limits)
        out, err = running.communicate(timeout=120)
        return running.returncode, out, err

    def install(self, *more):
        status, out, err = self.run("--model", self.model, "--codebook", self.codebook, *more)
        assert (status, err) == (0, ""), out + err
        return out

    def calls(self):
        """What was called since the last time this was asked, without the folder's own path."""
        path = self.told / "calls"
        text = path.read_text().replace(str(self.root), "") if path.exists() else ""
        path.write_text("")
        return text.splitlines()

    def files(self):
        """Path → digest of every file but the stand-ins' notes."""
        return {str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(self.root.rglob("*"))
                if path.is_file() and self.told not in path.parents}


def commands(out):
    """The commands a run printed."""
    return [line for line in out.splitlines() if line.startswith("+ ")]


def one_error(err):
    """The message of the one error line."""
    line, = [line for line in err.splitlines() if line.startswith("install-on-jetson: error: ")]
    return line


def position(calls, part):
    """Where the one call is that has `part` in it."""
    found, = [number for number, call in enumerate(calls) if part in call]
    return found
