"""A computer to be examined: a folder for /, programs of its own in PATH, libraries as wanted.

Nothing of it is a mock: the probes read real files, run real programs, import in real processes.
"""

import os
import pathlib
import platform

import pytest

from jetson_cluster.doctor.case import Case
from jetson_cluster.doctor.machine import Machine

FAKES = pathlib.Path(__file__).resolve().parents[1] / "fakes"
NOW_S = 1800000000  # in 2027

# PyCUDA and TensorRT as stand-ins, for a process that imports them by their names.
PYCUDA = """
import sys
sys.path.append({fakes!r})
from fake_pycuda import driver, machine
sys.modules.update(driver.make(machine.Machine({what})))
"""
TENSORRT = """
import sys
sys.path.append({fakes!r})
import fake_tensorrt
sys.modules["tensorrt"] = fake_tensorrt.make({version!r})
"""


class Computer:
    """The computer; what it is made of may be changed until a case of it is taken."""

    def __init__(self, folder):
        self.root, self.programs, self.libraries = (
            folder / name for name in ("root", "programs", "libraries"))
        for place in (self.root, self.programs, self.libraries):
            place.mkdir()
        self.environment = {"PATH": str(self.programs), "PYTHONPATH": str(self.libraries),
                            "LANG": "C.UTF-8"}
        self.architecture = platform.machine()
        self.now_s = NOW_S
        self.since_boot_s = 5000.0

    def file(self, path, text):
        """Put a file where the computer has `path`."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        return place

    def program(self, name, script):
        """Put a shell script into PATH."""
        place = self.programs / name
        place.write_text("#!/bin/sh\n" + script + "\n")
        place.chmod(0o755)

    def library(self, name, text):
        """A Python module of that name, found before any that is installed."""
        (self.libraries / (name + ".py")).write_text(text)

    def without(self, *names):
        """Libraries that cannot be imported."""
        for name in names:
            self.library(name, "raise ImportError('no %s here')" % name)

    def gpu(self, tensorrt="8.2.1.8", what=""):
        """PyCUDA over a pretended GPU, and TensorRT where a version is given."""
        self.library("pycuda", PYCUDA.format(fakes=str(FAKES), what=what))
        if tensorrt:
            self.library("tensorrt", TENSORRT.format(fakes=str(FAKES), version=tensorrt))

    def nano(self):
        """The files by which a Jetson Nano with JetPack 4.6.1 is known."""
        self.file("/proc/device-tree/model", "NVIDIA Jetson Nano Developer Kit\0")
        self.file("/etc/nv_tegra_release", "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: "
                  "t210ref, EABI: aarch64, DATE: Sat Feb 19 17:05:08 UTC 2022\n")
        self.file("/etc/nvpmodel.conf", "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n"
                  "< POWER_MODEL ID=1 NAME=5W >\n< PM_CONFIG DEFAULT=0 >\n")

    @property
    def machine(self):
        return Machine(str(self.root), self.environment, self.architecture, os.geteuid(),
                       self.now_s, self.since_boot_s)

    def case(self, config, *overrides):
        """An examination of it with the config at a path."""
        return Case(self.machine, str(config), overrides)


@pytest.fixture
def computer(tmp_path):
    (tmp_path / "computer").mkdir()
    made = Computer(tmp_path / "computer")
    made.file("/proc/meminfo", "MemTotal:        4059712 kB\nMemAvailable:    2900000 kB\n"
              "SwapTotal:       2029856 kB\n")
    made.file("/proc/sys/fs/inotify/max_user_watches", "8192\n")
    made.file("/proc/sys/kernel/random/boot_id", "this-boot\n")
    made.file("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nrover:x:77001:77001::/:/bin/false\n")
    made.file("/etc/group", "root:x:0:\nvideo:x:77044:\nrover:x:77001:\n")
    return made


@pytest.fixture
def config(tmp_path, tiny):
    """A config whose folders and model are there."""
    rover = tmp_path / "rover"
    (rover / "inbox").mkdir(parents=True)
    (rover / "orders").mkdir()
    (rover / "orders").chmod(0o3770)
    path = rover / "config.yaml"
    path.write_text("state_dir: state\nmodel: {}\ncodebook: codebook.npz\npolicy: policy.yaml\n"
                    "inbox: {{path: inbox}}\norders: {{path: orders}}\nembedder: onnxruntime\n".format(tiny))
    return path
