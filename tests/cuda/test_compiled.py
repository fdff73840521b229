"""The kernels as NVIDIA's compiler makes them, for a Jetson Nano and for newer GPUs.

That CUDA 10.2, the rover's, takes the sources and that they are fast is not shown here.
"""

import re

import pytest
from questions import NEAREST, PREPROCESS

from jetson_cluster.cuda import grids

# The Nano, Xavier, Orin, Hopper: the first and last that 11.8 knows, and the rovers between.
ARCHITECTURES = ["53", "72", "87", "90"]
# Of a Nano: a multiprocessor's registers and shared memory, a block's most registers, its threads.
REGISTERS = 65536
REGISTERS_OF_A_BLOCK = 32768
SHARED_BYTES = 64 * 1024
SHARED_BYTES_OF_A_BLOCK = 48 * 1024
# Of every GPU from the Nano on: registers are handed to warps in lots of 256, 8 a lane.
LOT = 8
RESIDENT = {
    "nearest_few_half": grids.FEW_RESIDENT,
    "nearest_few_float": grids.FEW_RESIDENT,
    "nearest_many_half": grids.MANY_RESIDENT,
    "nearest_many_float": grids.MANY_RESIDENT,
    "frames_to_planes": 6,  # 1536 threads: copying needs many loads under way
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_kernels_compile_without_spilling_and_leave_room_for_others(
        toolchain, tmp_path, architecture):
    found = {}
    for source in (NEAREST, PREPROCESS):
        found.update(toolchain.statistics(source.read_text(), architecture, tmp_path))
    assert set(found) == set(RESIDENT)
    for name, needs in sorted(found.items()):
        print("sm_{} {}: {}".format(architecture, name, needs))
        assert needs.spilled_bytes == 0 and needs.stack_bytes == 0, name
        of_a_block = -(-needs.registers // LOT) * LOT * grids.BLOCK
        assert of_a_block <= REGISTERS_OF_A_BLOCK, name
        assert of_a_block * RESIDENT[name] <= REGISTERS, name
        assert needs.shared_bytes <= SHARED_BYTES_OF_A_BLOCK, name
        assert needs.shared_bytes * RESIDENT[name] <= SHARED_BYTES, name


@pytest.mark.parametrize("source", [NEAREST, PREPROCESS], ids=lambda path: path.name)
def test_every_access_says_which_memory_it_means(toolchain, source):
    # An access the compiler could not place ("generic") costs extra instructions on a Nano.
    ptx = toolchain.compile_source(source.read_text(), "compute_53").decode("ascii", "replace")
    accesses = re.findall(r"^\s*((?:ld|st)\.\S+)", ptx, re.MULTILINE)
    assert accesses
    placed = {"global", "shared", "param", "const"}
    assert [access for access in accesses if not placed & set(access.split("."))] == []


def test_a_mistake_in_a_source_is_told_in_the_compilers_words(toolchain):
    with pytest.raises(ValueError, match='identifier "nothing" is undefined'):
        toolchain.compile_source("extern \"C\" __global__ void k() { nothing(); }", "compute_53")


def test_spilling_would_be_noticed(toolchain, tmp_path):
    hungry = NEAREST.read_text().replace("__launch_bounds__(256, 2)", "__launch_bounds__(256, 6)")
    found = toolchain.statistics(hungry, "53", tmp_path)
    assert found["nearest_many_half"].spilled_bytes > 0
