"""What PyCUDA asks of `nvcc --cubin`, done by NVIDIA's own nvrtc 11.8; nothing else is accepted.

In: nvcc's arguments as PyCUDA gives them. Out: kernel.cubin beside kernel.cu; a line in the file
that $NVCC_CALLS names. That nvcc itself, with its host compiler, takes the sources is not shown.
"""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "cuda"))

import toolchain  # noqa: E402  (found through the line above)


def main(arguments):
    """Compiles one file."""
    with open(os.environ["NVCC_CALLS"], "a") as calls:
        calls.write(" ".join(arguments) + "\n")
    if arguments[0] != "--cubin" or arguments[-1] != "kernel.cu":
        sys.exit("nvcc stand-in: only --cubin ... kernel.cu is known: " + " ".join(arguments))
    options = iter(arguments[1:-1])
    architecture = None
    for option in options:
        if option == "-arch":
            architecture = next(options)
        elif option not in ("-std=c++14", "-m64") and not option.startswith("-I"):
            sys.exit("nvcc stand-in: no such option: " + option)
    try:
        made = toolchain.compile_source(pathlib.Path("kernel.cu").read_text(), architecture)
    except ValueError as error:
        sys.exit(str(error))
    pathlib.Path("kernel.cubin").write_bytes(made)


if __name__ == "__main__":
    main(sys.argv[1:])
