"""No two threads of nearest.cu or preprocess.cu meet unordered, in a block or across blocks.

Every barrier and every fence of the sources is taken out once, and its absence noticed: so each is
needed, and the watcher (tests/fakes/cuda/races.cpp) sees what it is for.
"""

import re

import numpy as np
import pytest
import questions
from cpu_kernels import KernelFault
from questions import NEAREST, PREPROCESS

from jetson_cluster import codebook

ORDERING = re.compile(r"^ *__(syncthreads|syncwarp|threadfence)\(\);.*\n", re.MULTILINE)


def places(source):
    """Where a source orders its threads: (start, end) of each such line."""
    return [match.span() for match in ORDERING.finditer(source.read_text())]


def ask(worker, seed=0):
    """Launches that pass through every part of nearest.cu, on few numbers."""
    generator = np.random.RandomState(5)
    centroids = codebook.normalise(generator.randn(280, 40).astype(np.float32))
    crowd = np.repeat(centroids[:1], 280, axis=0) + 1e-7 * generator.rand(280, 40)
    for rows, held, multiprocessors in ((2, centroids, 1), (3, centroids, 8), (18, centroids, 1),
                                        (70, centroids, 3), (18, crowd.astype(np.float32), 2)):
        embeddings = generator.randn(rows, 40).astype(np.float32)
        questions.nearest(worker, embeddings, held, stored="float32",
                          multiprocessors=multiprocessors, seed=seed)
        questions.nearest(worker, embeddings, held, multiprocessors=multiprocessors, seed=seed)


@pytest.mark.parametrize("seed", range(4))
def test_nearest_has_no_race(workers, seed):
    ask(workers(NEAREST, "races"), seed)


@pytest.mark.parametrize("seed", range(2))
def test_preprocess_has_no_race(workers, seed):
    frames = np.random.RandomState(seed).randint(0, 256, (2, 33, 37, 3)).astype(np.uint8)
    questions.planes(workers(PREPROCESS, "races"), frames, seed)


@pytest.mark.parametrize("number", range(len(places(NEAREST))))
def test_a_barrier_or_fence_left_out_of_nearest_is_noticed(workers, tmp_path, number):
    text = NEAREST.read_text()
    start, end = places(NEAREST)[number]
    source = tmp_path / "left_out_{}.cu".format(number)
    source.write_text(text[:start] + text[end:])
    with pytest.raises(KernelFault, match="^race: "):
        ask(workers(source, "races"))


def test_the_barrier_left_out_of_preprocess_is_noticed(workers, tmp_path):
    text = PREPROCESS.read_text()
    (start, end), = places(PREPROCESS)
    source = tmp_path / "left_out.cu"
    source.write_text(text[:start] + text[end:])
    with pytest.raises(KernelFault, match="^race: thread .* shared byte"):
        questions.planes(workers(source, "races"), np.zeros((1, 9, 9, 3), np.uint8))
