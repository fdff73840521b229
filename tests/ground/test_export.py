"""The verb `export`: what it writes, all or nothing, and what it says when it cannot."""

import argparse

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from jetson_cluster import recipe as recipes
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.files import sha256_of
from jetson_cluster.ground import export
from jetson_cluster.ground.graph import Scaling
from jetson_cluster.ground.networks import efficientnet_lite0, inception_v3

INCEPTION_CHANNELS = dict(zip(inception_v3.LAYERS, (
    256, 288, 288, 768, 768, 768, 768, 768, 1280, 2048, 2048, 2048)))
LITE0_CHANNELS = dict(zip(efficientnet_lite0.LAYERS, (
    32, 16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112, 192, 192, 192, 192, 320, 1280, 1280)))


@pytest.fixture
def lite0(engines, lite0_weights, tmp_path):
    """export() of EfficientNet-Lite0 from its file, with changes; returns the Model."""
    def run(weights=lite0_weights.path, out=tmp_path / "lite0.onnx",
            recipe=engines / "efficientnet_lite0.yaml", **options):
        return export.export(recipe, str(weights), out, **options)
    return run


def refusal(kind, function, *arguments, **options):
    with pytest.raises(kind) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def command(*words):
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    return export.run(parser.parse_args([str(word) for word in words]))


def test_the_command_writes_a_model_and_says_what_it_is(engines, lite0_weights, tmp_path, capsys):
    out = tmp_path / "net.onnx"
    assert command(engines / "efficientnet_lite0.yaml", "--weights", lite0_weights.path,
                   "--out", out, "--layer", "block10") == 0
    model = recipes.load_model(out)
    said = capsys.readouterr().out
    for part in ("efficientnet_lite0", "block10: 112 numbers", model.space, sha256_of(str(out)),
                 lite0_weights.sha256, str(out), str(tmp_path / "net.recipe.yaml"), " MB"):
        assert part in said


def test_the_recipe_beside_the_model_says_what_was_built(lite0, lite0_weights, tmp_path):
    model = lite0(layer="block5", grid=True)
    written = yaml.safe_load((tmp_path / "lite0.recipe.yaml").read_text())
    assert (written["layer"], written["dimension"]) == ("block5", 80)
    assert written["built"] == {
        "onnx_sha256": sha256_of(model.onnx_path), "weights_sha256": lite0_weights.sha256,
        "weights_source": "efficientnet-lite0-57934424.pth", "output": "grid"}
    assert recipes.load_model(model.onnx_path, output="grid") == model


def test_a_named_source_is_written_down_with_its_package(exported):
    built = exported("inception_v3", "nsfwjs").recipe.built
    assert built.weights_source == "nsfwjs (nsfwjs@4.3.0)"


def test_the_same_weights_give_the_same_file(lite0, tmp_path):
    assert lite0().onnx_sha256 == lite0(out=tmp_path / "again.onnx").onnx_sha256


def test_a_model_can_be_exported_anew_from_the_recipe_beside_it(lite0, tmp_path):
    first = lite0(layer="block3")
    again = lite0(recipe=first.recipe.path, out=tmp_path / "again.onnx")
    assert (again.space, again.onnx_sha256) == (first.space, first.onnx_sha256)


@pytest.mark.parametrize("layer", inception_v3.LAYERS)
def test_every_layer_of_inception_v3_has_its_width(nsfwjs_weights, layer):
    graph = inception_v3.build(nsfwjs_weights, layer, False, 299, 299,
                               Scaling((127.5,) * 3, (127.5,) * 3))
    assert_contract(graph, [INCEPTION_CHANNELS[layer]])


@pytest.mark.parametrize("layer", efficientnet_lite0.LAYERS)
def test_every_layer_of_efficientnet_lite0_has_its_width(lite0_weights, layer):
    graph = efficientnet_lite0.build(lite0_weights, layer, False, 224, 224,
                                     Scaling((127.,) * 3, (128.,) * 3))
    assert_contract(graph, [LITE0_CHANNELS[layer]])


def test_a_recipe_may_use_another_image_size(lite0_weights, nsfwjs_weights, run_onnx, tmp_path):
    scaling = Scaling((127.,) * 3, (128.,) * 3)
    for network, weights in ((efficientnet_lite0, lite0_weights), (inception_v3, nsfwjs_weights)):
        graph = network.build(weights, network.LAYERS[3], True, 139, 200, scaling)
        onnx.save(graph, tmp_path / "odd.onnx")
        found = run_onnx(tmp_path / "odd.onnx", np.zeros((1, 139, 200, 3), np.uint8))
        shape = graph.graph.output[0].type.tensor_type.shape.dim
        assert found.shape[1:] == tuple(d.dim_value for d in shape[1:])
    with pytest.raises(UserError, match="too small"):
        inception_v3.build(nsfwjs_weights, "avg_pool", False, 60, 60, scaling)


def assert_contract(graph, shape):
    assert graph.ir_version == 7 and [o.version for o in graph.opset_import] == [13]
    assert [i.name for i in graph.graph.input] == ["image"]
    output, = graph.graph.output
    dims = output.type.tensor_type.shape.dim
    assert output.name == "embedding" and dims[0].dim_param == "N"
    assert [d.dim_value for d in dims[1:]] == shape
    kinds = {node.op_type for node in graph.graph.node}
    assert kinds <= {"Conv", "Relu", "Clip", "Add", "Pad", "MaxPool", "AveragePool", "Concat",
                     "GlobalAveragePool", "Flatten"}


def test_batch_and_single_images_give_the_same_rows(exported, run_onnx, pictures):
    model = exported("efficientnet_lite0", "imagenet")
    images = pictures(224)
    together = run_onnx(model.onnx_path, images)
    for image, row in zip(images, together):
        np.testing.assert_allclose(run_onnx(model.onnx_path, image[None])[0], row, atol=1e-4)


# --- what is refused ---------------------------------------------------------------------------


def test_an_unknown_layer_is_refused_with_the_nearest_name(lite0, tmp_path):
    text = refusal(UserError, lite0, layer="blok5")
    assert "did you mean 'block5'?" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out, part", [
    ("net.plan", "must end in .onnx"), ("absent/net.onnx", "there is no folder"),
    ("folder.onnx", "is a folder")])
def test_a_place_that_cannot_be_written_to_is_refused_at_once(lite0, tmp_path, out, part):
    (tmp_path / "folder.onnx").mkdir()
    assert part in refusal(UserError, lite0, out=tmp_path / out, weights="not even looked at")


def test_the_recipe_given_is_never_overwritten(lite0, tmp_path, engines):
    own = tmp_path / "net.recipe.yaml"
    own.write_text((engines / "efficientnet_lite0.yaml").read_text())
    assert "would overwrite" in refusal(UserError, lite0, recipe=own, out=tmp_path / "net.onnx")


def test_a_disk_that_refuses_is_the_worlds_failure(lite0):
    assert "cannot be written" in refusal(WorldError, lite0, out="/proc/net.onnx")


def test_a_failed_export_leaves_the_old_model_as_it_was(lite0, tmp_path, nsfwjs_weights):
    before = lite0()
    refusal(UserError, lite0, weights=tmp_path / "absent.pth")
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"PK\x03\x04")
    refusal(UserError, lite0, weights=broken)
    assert recipes.load_model(before.onnx_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {
        "lite0.onnx", "lite0.recipe.yaml", "broken.pth"}


def test_another_networks_weights_are_refused(engines, lite0_weights, nsfwjs_weights, tmp_path):
    text = refusal(UserError, export.export, engines / "inception_v3.yaml", lite0_weights.path,
                   tmp_path / "net.onnx")
    assert "no tensor 'Conv2d_1a_3x3.conv.weight'" in text
    text = refusal(UserError, efficientnet_lite0.build, nsfwjs_weights, "avg_pool", False, 224, 224,
                   Scaling((127.,) * 3, (128.,) * 3))
    assert "not from a Keras file" in text


def changed(weights, **changes):
    tensors = dict(weights.tensors, **changes)
    return type(weights)(weights.path, weights.style, weights.sha256,
                         {name: array for name, array in tensors.items() if array is not None})


@pytest.mark.parametrize("changes, part", [
    ({"conv2d_94/kernel": None}, "93 convolutions where InceptionV3 has 94"),
    ({"batch_normalization_7/moving_mean": None}, "93 batch normalisations"),
    ({"conv2d_8/kernel": np.zeros((3, 3, 48, 64))}, "'conv2d_8' has shape 64x48x3x3, 64x48x5x5"),
    ({"batch_normalization_2/beta": np.zeros(31)}, "'batch_normalization_2/beta' has shape 31, 32"),
])
def test_keras_weights_of_the_wrong_shape_are_named(nsfwjs_weights, changes, part):
    text = refusal(UserError, inception_v3.build, changed(nsfwjs_weights, **changes), "avg_pool",
                   False, 299, 299, Scaling((127.5,) * 3, (127.5,) * 3))
    assert part in text


def test_a_wrong_dimension_in_the_recipe_is_named(lite0, engines, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text((engines / "efficientnet_lite0.yaml").read_text().replace("1280", "1000"))
    assert "'dimension' is 1000, layer 'avg_pool' has 1280" in refusal(UserError, lite0, recipe=own)


def test_unequal_means_are_refused_where_the_border_would_not_be_exact(lite0, engines, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text((engines / "efficientnet_lite0.yaml").read_text().replace(
        "mean: [127.0, 127.0, 127.0]", "mean: [127.0, 116.0, 104.0]"))
    assert "one scaling.mean" in refusal(UserError, lite0, recipe=own)


# --- networks made elsewhere -------------------------------------------------------------------


FOREIGN = """
name: mean_colour
network: other
input: {width: 16, height: 16}
scaling: in_graph
layer: colour
dimension: 3
"""


def test_a_network_made_elsewhere_needs_only_a_recipe(tmp_path, run_onnx):
    half = numpy_helper.from_array(np.float32(0.5), "half")
    graph = helper.make_graph(
        [helper.make_node("Mul", ["image", "half"], ["scaled"]),
         helper.make_node("GlobalAveragePool", ["scaled"], ["pooled"]),
         helper.make_node("Flatten", ["pooled"], ["embedding"])], "mean_colour",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 3])], [half])
    onnx.save(helper.make_model(graph, ir_version=7,
                                opset_imports=[helper.make_opsetid("", 13)]), tmp_path / "c.onnx")
    (tmp_path / "c.yaml").write_text(FOREIGN)
    model = recipes.load_model(tmp_path / "c.onnx", tmp_path / "c.yaml")
    assert model.space.startswith("mean_colour/colour@")
    found = run_onnx(model.onnx_path, np.full((2, 16, 16, 3), 100, np.uint8))
    np.testing.assert_allclose(found, 50)


def test_there_is_nothing_to_export_of_a_network_made_elsewhere(tmp_path):
    (tmp_path / "c.yaml").write_text(FOREIGN)
    text = refusal(UserError, export.export, tmp_path / "c.yaml", "w.pth", tmp_path / "c.onnx")
    assert "made elsewhere" in text and "inception_v3" in text
