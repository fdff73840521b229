"""Images come out of the pipeline with their quality and their preview, if it is told to look."""

import threading

import numpy as np
import pytest
from PIL import Image

from jetson_cluster import frame, preview, recipe
from jetson_cluster.embedder import open_embedder
from jetson_cluster.pipeline import Pipeline
from jetson_cluster.quality import measure
from jetson_cluster.walker import look


@pytest.fixture
def arrivals(tmp_path):
    """Three pictures and a file that is none, in this order."""
    paths = []
    for seed in range(3):
        random = np.random.RandomState(seed)
        path = tmp_path / "{}.png".format(seed)
        Image.fromarray(random.randint(0, 256, (60, 80, 3)).astype(np.uint8)).save(str(path))
        paths.append(path)
    paths.append(tmp_path / "3.png")
    paths[3].write_bytes(b"no picture")
    return [look(str(path)) for path in paths]


@pytest.fixture
def piped(tiny):
    """What becomes of arrivals in a pipeline that examines them so: (submitted, identified)."""
    def run(arrivals, examine):
        model = recipe.load_model(tiny)
        with Pipeline(lambda: open_embedder("onnxruntime", model, 8), frame.Limits(),
                      lambda: "2031-04-09T05:17:00Z", examine) as pipeline:
            pipeline.submit(arrivals)
            return pipeline.collect(), pipeline.identify(arrivals)

    return run


def test_each_image_brings_its_own_measures_and_preview(arrivals, piped):
    outcome, _ = piped(arrivals, lambda image: preview.examine(image, "palette", 2048))
    assert [image.arrival for image in outcome.images] == arrivals[:3]
    for image in outcome.images:
        picture = Image.open(image.arrival.path)
        assert image.measures == measure(picture)
        assert image.preview == preview.make(picture, "palette", 2048)
    assert len({image.preview.content for image in outcome.images}) == 3


def test_without_being_told_to_look_it_does_not(arrivals, piped):
    outcome, _ = piped(arrivals, None)
    assert [(image.measures, image.preview) for image in outcome.images] == [(None, None)] * 3


def test_a_failed_examination_costs_measures_and_preview_but_no_image(arrivals, piped, caplog):
    def fail(_image):
        raise ValueError("cannot")

    outcome, _ = piped(arrivals, fail)
    assert [(image.measures, image.preview) for image in outcome.images] == [(None, None)] * 3
    assert [refusal.path for refusal in outcome.refusals] == [arrivals[3].path]
    assert sum("ExamineFailed" in record.getMessage() for record in caplog.records) == 3


def test_the_network_has_a_frame_before_its_image_is_examined(arrivals, tiny, monkeypatch):
    embedded, waited = threading.Event(), []

    def examine(_image):
        waited.append(embedded.wait(60))
        return None, None

    with Pipeline(lambda: open_embedder("onnxruntime", recipe.load_model(tiny), 8), frame.Limits(),
                  lambda: "2031-04-09T05:17:00Z", examine) as pipeline:
        process = pipeline.embedder.process
        monkeypatch.setattr(pipeline.embedder, "process",
                            lambda frames: (process(frames), embedded.set())[0])
        pipeline.submit(arrivals[:1])
        assert len(pipeline.collect().images) == 1 and waited == [True]


def test_while_it_is_too_hot_nothing_is_examined(arrivals, piped):
    seen = []
    _, identified = piped(arrivals[3:], lambda image: seen.append(image) or (None, None))
    assert seen == [] and identified.images == []
    _, identified = piped(arrivals, lambda image: seen.append(image) or (None, None))
    assert len(seen) == 3 and len(identified.images) == 3  # all of them by `submit`
    assert all(image.measures is None and image.preview is None for image in identified.images)
