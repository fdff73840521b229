"""preprocess.cu, unchanged, run on the CPU: planes hold the frames' numbers, of any size."""

import numpy as np
import pytest
import questions
from cpu_kernels import KernelFault
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from questions import PREPROCESS


@pytest.fixture(scope="module")
def worker(workers):
    """preprocess.cu under the sanitizers."""
    return workers(PREPROCESS, "checked")


def frames_of(count, height, width, seed=0):
    """Random frames uint8 [count, height, width, 3]."""
    return np.random.RandomState(seed).randint(0, 256, (count, height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("shape", [(1, 299, 299), (3, 299, 299), (2, 224, 224), (1, 1, 1),
                                   (5, 1, 1), (3, 31, 33), (4, 5, 1025), (2, 1025, 1)])
def test_every_number_arrives_in_its_plane(worker, shape):
    frames = frames_of(*shape)
    assert (questions.planes(worker, frames) == frames.transpose(0, 3, 1, 2)).all()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(1, 5), st.integers(1, 60), st.integers(1, 60), st.integers(0, 1000))
def test_any_size_and_order_of_threads_will_do(worker, count, height, width, seed):
    frames = frames_of(count, height, width, seed)
    assert (questions.planes(worker, frames, seed) == frames.transpose(0, 3, 1, 2)).all()


def test_a_planted_read_beyond_the_last_frame_is_caught(workers, tmp_path):
    text = PREPROCESS.read_text()
    old = "word * 4 + 4 <= bytes"
    assert text.count(old) == 1
    source = tmp_path / "beyond.cu"
    source.write_text(text.replace(old, "word * 4 < bytes"))
    with pytest.raises(KernelFault, match="heap-buffer-overflow"):
        questions.planes(workers(source, "checked"), frames_of(1, 5, 5))
