"""NVIDIA's own compiler without a GPU: source text to PTX, and to machine code with its statistics.

In: CUDA source and an architecture. Out: a cubin, and what `ptxas -v` says of each kernel.
Needs the packages nvidia-cuda-nvrtc-cu11, nvidia-cuda-nvcc-cu11 and nvidia-cuda-runtime-cu11, whose
11.8 is the last to make code for a Jetson Nano (sm_53). The rover's own compiler is 10.2: that it
accepts the source, too, is shown only on a rover.
"""

import ctypes
import importlib.util
import os
import pathlib
import re
import subprocess
from typing import Dict, List, NamedTuple

STANDARD = "--std=c++14"  # what CUDA 10.2 has


class Statistics(NamedTuple):
    """What one kernel needs: registers a thread, bytes of static shared memory, bytes spilled."""

    registers: int
    shared_bytes: int
    stack_bytes: int
    spilled_bytes: int


def package_folder(name: str) -> pathlib.Path:
    """The folder of one of NVIDIA's packages, `nvidia.cuda_nvrtc` say; raises ImportError."""
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ImportError("no package {} here; tools/test installs it".format(name))
    return pathlib.Path(list(found.submodule_search_locations)[0])


def include_folder() -> pathlib.Path:
    """Where cuda_fp16.h is."""
    return package_folder("nvidia.cuda_runtime") / "include"


def _nvrtc():
    folder = package_folder("nvidia.cuda_nvrtc") / "lib"
    library = ctypes.CDLL(str(next(folder.glob("libnvrtc.so.*"))))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def compile_source(source: str, architecture: str, options: List[str] = ()) -> bytes:
    """PTX for `compute_NN`, a cubin for `sm_NN`; raises ValueError with the compiler's words."""
    nvrtc = _nvrtc()
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), source.encode("utf-8"), b"kernel.cu", 0, None, None)
    texts = ["--gpu-architecture=" + architecture, STANDARD, "-I" + str(include_folder())]
    texts += list(options)
    array = (ctypes.c_char_p * len(texts))(*[text.encode("utf-8") for text in texts])
    status = nvrtc.nvrtcCompileProgram(program, len(texts), array)
    log = _fetched(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
    if status != 0:
        raise ValueError("nvrtc: {}\n{}".format(
            nvrtc.nvrtcGetErrorString(status).decode(), log.decode("utf-8", "replace")))
    if architecture.startswith("sm_"):
        made = _fetched(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
    else:
        made = _fetched(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return made


def _fetched(size_of, fetch, program) -> bytes:
    size = ctypes.c_size_t()
    size_of(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    fetch(program, buffer)
    return buffer.raw


def statistics(source: str, architecture: str, folder: pathlib.Path) -> Dict[str, Statistics]:
    """What ptxas says of every kernel in `source` for `architecture` (digits: "53")."""
    ptxas = package_folder("nvidia.cuda_nvcc") / "bin" / "ptxas"
    if not os.access(str(ptxas), os.X_OK):
        ptxas.chmod(0o755)
    written = folder / "kernel.ptx"
    written.write_bytes(compile_source(source, "compute_" + architecture).rstrip(b"\0"))
    done = subprocess.run(
        [str(ptxas), "-arch=sm_" + architecture, "-v", "-o", str(folder / "kernel.cubin"),
         str(written)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    if done.returncode != 0:
        raise ValueError("ptxas: " + done.stdout)
    found = {}
    for part in re.split(r"Compiling entry function '", done.stdout)[1:]:
        found[part[:part.index("'")]] = Statistics(
            registers=int(re.search(r"Used (\d+) registers", part).group(1)),
            shared_bytes=int((re.search(r"(\d+) bytes smem", part) or ["", "0"])[1]),
            stack_bytes=int(re.search(r"(\d+) bytes stack frame", part).group(1)),
            spilled_bytes=sum(int(number) for number in re.findall(
                r"(\d+) bytes spill", part)))
    return found
