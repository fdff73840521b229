"""How kernels are launched: for every shape, all rows and centroids are covered, none twice."""

import itertools
import pathlib
import re

import numpy as np
import pytest

from jetson_cluster.cuda import grids

CUDA = pathlib.Path(grids.__file__).resolve().parent
ROWS = [1, 2, 15, 16, 17, 63, 64, 65, 128, 129, 4096, 65535, 65536]
CENTROIDS = [1, 2, 3, 4, 31, 32, 33, 127, 128, 129, 512, 1000, 4095, 4096]
MULTIPROCESSORS = [1, 2, 8, 132]


@pytest.mark.parametrize("multiprocessors", MULTIPROCESSORS)
def test_every_centroid_of_every_row_is_looked_at_once(multiprocessors):
    for rows, k in itertools.product(ROWS, CENTROIDS):
        launch = grids.nearest_launch(rows, k, multiprocessors)
        blocks, shares = launch.grid
        height = grids.TILE_ROWS if launch.many else 1
        assert (blocks - 1) * height < rows <= blocks * height
        assert (shares - 1) * launch.slice < k <= shares * launch.slice
        assert launch.slice % (grids.TILE_CENTROIDS if launch.many else grids.FEW_STEP) == 0
        assert shares <= 65535 and blocks < 2 ** 31


@pytest.mark.parametrize("multiprocessors", MULTIPROCESSORS)
def test_what_blocks_leave_each_other_has_room_for_every_shape(multiprocessors):
    tickets = grids.ticket_count(multiprocessors)
    room = grids.partial_bytes(multiprocessors)
    for rows, k in itertools.product(list(range(1, 300)) + ROWS, CENTROIDS):
        launch = grids.nearest_launch(rows, k, multiprocessors)
        blocks, shares = launch.grid
        if shares > 1:
            assert blocks <= tickets
            assert rows * shares * grids.PARTIAL_BYTES <= room


def test_a_single_row_keeps_every_multiprocessor_busy_where_there_is_work():
    for multiprocessors in MULTIPROCESSORS:
        launch = grids.nearest_launch(1, 4096, multiprocessors)
        assert not launch.many
        assert launch.grid[1] >= min(128, multiprocessors)


def test_many_rows_are_not_shared_out_without_need():
    assert grids.nearest_launch(65536, 512, 8).grid == (1024, 1)
    assert grids.nearest_launch(4096, 512, 132).grid == (64, 4)


def constant(name, source):
    """A `const int` of a .cu file."""
    text = (CUDA / source).read_text()
    number, = re.findall(r"const int {} = (\d+);".format(name), text)
    return int(number)


def test_the_constants_are_the_kernels_own():
    assert grids.TILE_ROWS == constant("TILE_ROWS", "nearest.cu")
    assert grids.TILE_CENTROIDS == constant("TILE_CENTROIDS", "nearest.cu")
    assert grids.TILE_DEPTH == constant("TILE_DEPTH", "nearest.cu")
    assert grids.MOST_NEIGHBOURS == constant("NEIGHBOURS", "nearest.cu")
    assert grids.BLOCK == constant("WARP", "nearest.cu") * constant("WARPS", "nearest.cu")
    assert grids.FEW_STEP == constant("WARPS", "nearest.cu") * constant("GROUP", "nearest.cu")
    assert grids.PIXELS == constant("PIXELS", "preprocess.cu")
    assert grids.BLOCK == constant("THREADS", "preprocess.cu")


@pytest.mark.parametrize("dimension, stride", [(1, 16), (16, 16), (17, 32), (2048, 2048)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_centroids_are_stored_in_rows_of_whole_16_bytes_ending_in_zeros(dimension, stride, dtype):
    centroids = np.random.RandomState(1).rand(3, dimension).astype(np.float32)
    stored = grids.stored_centroids(centroids, dtype)
    assert stored.shape == (3, stride) and stored.dtype == dtype
    assert (stored[:, :dimension] == centroids.astype(dtype)).all()
    assert not stored[:, dimension:].any()


def test_half_norms_are_those_of_the_centroids_as_stored():
    stored = grids.stored_centroids(np.array([[3, 4], [0, 0], [0.1, 0]], np.float32), "float16")
    half_norms, doubt = grids.half_norms_and_doubt(stored, 2)
    assert half_norms.dtype == np.float32
    np.testing.assert_allclose(half_norms, [12.5, 0, float(np.float16(0.1)) ** 2 / 2], rtol=1e-7)
    assert 0 < doubt < 1e-4


@pytest.mark.parametrize("pixels, blocks", [(1, 1), (1024, 1), (1025, 2), (299 * 299, 88)])
def test_every_pixel_has_a_thread(pixels, blocks):
    assert grids.planes_grid(7, pixels) == (blocks, 7)
