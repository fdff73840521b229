"""The verb `build`: over the stand-ins for TensorRT and PyCUDA, and on a machine without either."""

import argparse
import os
import shutil
import sys

import fake_jetson
import pytest

from jetson_cluster import config
from jetson_cluster.embedder import engine
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.verbs import build


@pytest.fixture
def model(tiny, tmp_path):
    """A model of its own for each test, for it gets a plan beside it."""
    for name in ("tiny.onnx", "tiny.recipe.yaml"):
        shutil.copy(os.path.join(os.path.dirname(tiny), name), str(tmp_path / name))
    return str(tmp_path / "tiny.onnx")


@pytest.fixture
def rover():
    with fake_jetson.jetson("8.2.1.8") as machine:
        yield machine


def command(*words):
    parser = argparse.ArgumentParser()
    parser.add_argument("--verbose", action="store_true")
    build.add_arguments(parser)
    return build.run(parser.parse_args([str(word) for word in words]))


def test_it_builds_says_what_and_tries_it(rover, model, capsys):
    assert command("--model", model) == 0
    noted, = rover.builds
    assert noted.profile["image"][2] == [8, 3, 32, 32]
    told = capsys.readouterr().out
    plan = model[:-len("onnx")] + "plan"
    for part in ("building the engine for tiny.onnx", "fp16, up to 8 images a batch",
                 "NVIDIA Tegra X1 (5.3), tensorrt 8.2.1.8", plan, "images/s in batches of 8",
                 "one at a time", "agreement  cosine at least ", "ONNX Runtime"):
        assert part in told


def test_an_engine_that_fits_is_left_unless_forced(rover, model, capsys):
    command("--model", model)
    command("--model", model)
    assert "up to date, built at" in capsys.readouterr().out
    assert len(rover.builds) == 1
    command("--model", model, "--force")
    assert len(rover.builds) == 2


def test_the_daemon_uses_what_was_built_with_its_config(rover, model, tmp_path):
    from jetson_cluster import recipe
    from jetson_cluster.embedder import open_embedder
    from jetson_cluster.embedder.base import Options

    path = tmp_path / "config.yaml"
    path.write_text("model: tiny.onnx\nbatch: 3\ntensorrt: {{plan: {}/the.plan, "
                    "workspace_bytes: 33554432}}\n".format(tmp_path))
    command("--config", path)
    settings = config.load(str(path))
    with open_embedder("tensorrt", recipe.load_model(model), settings.batch, Options(
            plan=settings.tensorrt.plan, workspace_bytes=settings.tensorrt.workspace_bytes)):
        assert len(rover.builds) == 1
    assert rover.builds[0].workspace_bytes == 32 << 20


def test_arguments_go_before_recipe_and_config(rover, model, tmp_path):
    (tmp_path / "config.yaml").write_text("model: tiny.onnx\nbatch: 3\n")
    command("--config", tmp_path / "config.yaml", "--batch", 2, "--precision", "fp32",
            "--workspace-bytes", 1 << 21, "--out", tmp_path / "my.plan")
    found = engine.read_certificate(str(tmp_path / "my.plan"))
    assert (found.max_batch, found.precision, found.workspace_bytes) == (2, "fp32", 1 << 21)


def test_another_recipe_may_be_named(rover, model, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text((tmp_path / "tiny.recipe.yaml").read_text().replace(
        "max_batch: 8", "max_batch: 6"))
    command(own, "--model", model)
    assert engine.read_certificate(str(tmp_path / "tiny.plan")).max_batch == 6


def test_an_engine_whose_embeddings_are_not_the_networks_is_not_passed(rover, model, monkeypatch):
    monkeypatch.setattr(build, "least_cosine", lambda one, other: 0.97)
    with pytest.raises(WorldError, match="cosine 0.970000 .* --precision fp32"):
        command("--model", model)


def test_without_onnx_runtime_the_agreement_is_said_not_to_be_measured(rover, model, monkeypatch,
                                                                      capsys):
    find = build.importlib.util.find_spec
    monkeypatch.setattr(build.importlib.util, "find_spec",
                        lambda name: None if name == "onnxruntime" else find(name))
    assert command("--model", model) == 0
    assert "agreement  not measured" in capsys.readouterr().out


def test_without_tensorrt_and_gpu_one_line_says_what_is_missing(model, monkeypatch):
    for name in ("tensorrt", "tensorrt_rtx", "pycuda", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(WorldError) as caught:
        command("--model", model)
    text = str(caught.value)
    assert text.startswith("no engine can be built here: ") and "\n" not in text
    assert "TensorRT is not to be had" in text and "PyCUDA is not to be had" in text


@pytest.mark.parametrize("words, part", [
    (["--batch", "0"], "--batch 0: must be a whole number from 1"),
    (["--workspace-bytes", "100"], "--workspace-bytes 100: must be a whole number from 1048576")])
def test_numbers_that_make_no_sense_are_refused(model, words, part):
    with pytest.raises(UserError, match=part):
        command("--model", model, *words)


def test_a_model_that_is_not_there_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="absent.onnx"):
        command("--model", tmp_path / "absent.onnx")


def test_a_network_in_the_recipes_place_is_told_how_to_be_named(model):
    with pytest.raises(UserError, match="no recipe; name it with --model %s" % model):
        command(model)


def test_without_any_config_the_way_to_do_without_is_named(tmp_path):
    with pytest.raises(UserError, match="none.yaml: is not there; .* --model FILE.onnx"):
        command("--config", tmp_path / "none.yaml")


def test_a_model_and_a_config_are_not_both_taken(model, tmp_path, capsys):
    with pytest.raises(SystemExit):
        command("--model", model, "--config", tmp_path / "config.yaml")
    assert "not allowed with" in capsys.readouterr().err
