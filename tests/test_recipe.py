"""Recipes: what is accepted, that all mistakes are named at once, what names an embedding space."""

import subprocess
import sys

import pytest
import yaml

from jetson_cluster import recipe as recipes
from jetson_cluster.errors import UserError
from jetson_cluster.files import sha256_of

GOOD = {
    "name": "tiny", "network": "inception_v3",
    "input": {"width": 299, "height": 200, "resample": "bicubic"},
    "scaling": {"mean": [127.5, 127.5, 127.5], "std": [127.5, 127.5, 127.5]},
    "layer": "mixed5", "layers": ["mixed5", "avg_pool"], "dimension": 768,
    "precision": "fp16", "max_batch": 4,
    "weights": {"imagenet": {"url": "https://example.org/w.h5", "md5": "0" * 32}},
}
FOREIGN = {
    "name": "foreign", "network": "other", "input": {"width": 64, "height": 64},
    "scaling": "in_graph", "layer": "pooled", "dimension": 8,
}


@pytest.fixture
def write(tmp_path):
    def write(content, name="r.yaml"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return str(path)
    return write


def message(path):
    with pytest.raises(UserError) as caught:
        recipes.load(path)
    text = str(caught.value)
    assert path in text and "\n" not in text
    return text


def changed(**changes):
    content = dict(GOOD, **changes)
    return {key: value for key, value in content.items() if value is not None}


def test_a_good_recipe_is_read_whole(write):
    recipe = recipes.load(write(GOOD))
    assert (recipe.input_width, recipe.input_height, recipe.resample) == (299, 200, "bicubic")
    assert recipe.mean == (127.5, 127.5, 127.5) and recipe.std == (127.5, 127.5, 127.5)
    assert (recipe.layer, recipe.dimension) == ("mixed5", 768)
    assert recipe.layers == ("mixed5", "avg_pool")
    assert (recipe.precision, recipe.max_batch, recipe.built) == ("fp16", 4, None)
    assert recipe.weights["imagenet"]["md5"] == "0" * 32


def test_every_recipe_that_ships_is_good(root):
    paths = sorted((root / "engines").glob("*.yaml"))
    assert {recipes.load(path).name for path in paths} >= {"inception_v3", "efficientnet_lite0"}


def test_a_recipe_survives_being_written_and_read(write):
    for content in (GOOD, FOREIGN):
        recipe = recipes.load(write(content))
        built = recipe._replace(built=recipes.Built("a" * 64, "imagenet", "b" * 64, "grid"))
        for one in (recipe, built):
            path = write(recipes.to_yaml(one), "again.yaml")
            assert recipes.load(path)._replace(path=one.path) == one


def test_a_foreign_network_takes_raw_pixels(write):
    recipe = recipes.load(write(FOREIGN))
    assert recipe.mean == (0, 0, 0) and recipe.std == (1, 1, 1)
    assert recipe.max_batch >= 1 and recipe.precision == "fp16" and recipe.resample == "bicubic"


def test_all_mistakes_are_named_at_once_with_the_nearest_name(write):
    text = message(write(changed(
        dimention=3, dimension=None, precision="fp61",
        input={"width": "wide", "height": 0, "resampel": "bicubic"})))
    assert "5 mistakes" in text or "6 mistakes" in text
    for part in ("unknown key 'dimention'", "did you mean 'dimension'?", "'dimension' is missing",
                 "did you mean 'fp16'?", "'input.width'", "'input.height'",
                 "unknown key 'input.resampel'", "did you mean 'resample'?"):
        assert part in text


def test_a_config_is_no_recipe_and_is_told_so_in_few_words(root):
    with pytest.raises(UserError) as caught:
        recipes.load(str(root / "systemd" / "config.yaml"))
    assert "keys is known ('state_dir', " in str(caught.value) and len(str(caught.value)) < 300
    assert "is missing" not in str(caught.value)


@pytest.mark.parametrize("changes, parts", [
    ({"name": "a b"}, ["'name'", "a b"]),
    ({"name": "../x"}, ["'name'"]),
    ({"network": "inception"}, ["'network'", "did you mean 'inception_v3'?"]),
    ({"scaling": "in_graph"}, ["in_graph", "network: other"]),
    ({"scaling": {"mean": [1, 2], "std": [1, 1, 1]}}, ["'scaling.mean'", "three"]),
    ({"scaling": {"mean": [1, 2, 3], "std": [1, 0, 1]}}, ["'scaling.std'", "positive"]),
    ({"scaling": {"mean": [1, 2, 3]}}, ["'scaling.std' is missing"]),
    ({"scaling": {"mean": [float("nan")] * 3, "std": [1, 1, 1]}}, ["'scaling.mean'"]),
    ({"layer": "mixed55"}, ["'layer' is 'mixed55'", "did you mean 'mixed5'?"]),
    ({"layers": "mixed5"}, ["'layers' must be a list"]),
    ({"max_batch": True}, ["'max_batch'", "True"]),
    ({"max_batch": 2.5}, ["'max_batch'", "2.5"]),
    ({"dimension": 0}, ["'dimension'"]),
    ({"input": None}, ["'input' is missing"]),
    ({"input": [299, 299]}, ["'input' must be a mapping"]),
    ({"weights": ["imagenet"]}, ["'weights' must be a mapping"]),
    ({"weights": {"imagenet": {"ulr": "x"}}}, ["weights.imagenet.ulr", "did you mean 'url'?"]),
    ({"weights": {"imagenet": {"url": 5}}}, ["weights.imagenet.url"]),
    ({"built": {"onnx_sha256": "zz", "weights_source": "x", "weights_sha256": "b" * 64,
                "output": "embeding"}},
     ["2 mistakes", "built.onnx_sha256", "did you mean 'embedding'?"]),
    ({"built": {}}, ["'built.onnx_sha256' is missing"]),
])
def test_a_wrong_value_is_named_with_its_key(write, changes, parts):
    text = message(write(changed(**changes)))
    for part in parts:
        assert part in text


@pytest.mark.parametrize("content", ["", "just text", "[1, 2]", "a: [unclosed", "\t: tab"])
def test_a_file_that_is_no_recipe_is_refused_in_one_line(write, content):
    message(write(content))


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    message(str(tmp_path / "absent.yaml"))
    message(str(tmp_path))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    message(str(tmp_path / "binary.yaml"))


@pytest.fixture
def model(tmp_path, write):
    """An ONNX file (its bytes do not matter here) with the recipe `export` writes beside it."""
    onnx = tmp_path / "net.onnx"
    onnx.write_bytes(b"network")
    built = recipes.Built(sha256_of(str(onnx)), "imagenet", "b" * 64, "embedding")
    sidecar = recipes.load(write(GOOD))._replace(built=built)
    (tmp_path / "net.recipe.yaml").write_text(recipes.to_yaml(sidecar))
    return onnx


def test_a_model_finds_the_recipe_beside_it(model):
    found = recipes.load_model(str(model))
    assert found.recipe.path == str(model.parent / "net.recipe.yaml")
    assert found.onnx_path == str(model)
    name, rest = found.space.split("@")
    assert name == "tiny/mixed5" and len(rest) == 16 and int(rest, 16) >= 0


def test_a_model_that_was_changed_after_export_is_refused(model):
    model.write_bytes(b"another network")
    with pytest.raises(UserError, match="not the file that .*net.recipe.yaml describes"):
        recipes.load_model(str(model))


def test_a_missing_model_and_a_missing_recipe_are_told_apart(tmp_path, model):
    with pytest.raises(UserError, match="no such file"):
        recipes.load_model(str(tmp_path / "absent.onnx"))
    (tmp_path / "net.recipe.yaml").unlink()
    with pytest.raises(UserError, match="no recipe beside it"):
        recipes.load_model(str(model))


def test_a_foreign_network_goes_with_any_file(tmp_path, write):
    onnx = tmp_path / "foreign.onnx"
    onnx.write_bytes(b"made elsewhere")
    found = recipes.load_model(str(onnx), write(FOREIGN))
    assert found.onnx_sha256 == sha256_of(str(onnx))
    onnx.write_bytes(b"made elsewhere, later")
    assert recipes.load_model(str(onnx), write(FOREIGN)).space != found.space


def test_a_grid_is_not_taken_for_an_embedding(model):
    sidecar = model.parent / "net.recipe.yaml"
    recipe = recipes.load(sidecar)
    sidecar.write_text(recipes.to_yaml(
        recipe._replace(built=recipe.built._replace(output="grid"))))
    with pytest.raises(UserError, match="output is 'grid'.*without --grid"):
        recipes.load_model(str(model))
    assert recipes.load_model(str(model), output="grid").recipe.dimension == 768


def test_the_space_changes_with_what_changes_the_numbers_and_with_nothing_else(write):
    recipe = recipes.load(write(GOOD))
    space = recipes.space_of(recipe, "a" * 64)
    assert space == recipes.space_of(
        recipe._replace(path="elsewhere", max_batch=1, precision="fp32", weights={}), "a" * 64)
    others = [recipes.space_of(recipe, "b" * 64)] + [
        recipes.space_of(recipe._replace(**change), "a" * 64) for change in (
            {"input_width": 200}, {"input_height": 299}, {"resample": "bilinear"},
            {"layer": "avg_pool"}, {"name": "other"})]
    assert len({space, *others}) == 1 + len(others)


def test_the_space_of_a_known_recipe_stays_what_codebooks_were_bound_to(write):
    assert recipes.space_of(recipes.load(write(GOOD)), "0" * 64) == "tiny/mixed5@34b56019d5e2ae67"


def test_the_sidecar_stands_beside_the_model():
    assert recipes.sidecar_path("a.b/net.v2.onnx") == "a.b/net.v2.recipe.yaml"


def test_reading_a_model_does_not_import_onnx(model, root):
    code = ("import sys; sys.path.insert(0, sys.argv[1])\n"
            "from jetson_cluster import recipe\n"
            "recipe.load_model(sys.argv[2])\n"
            "assert not {'onnx', 'onnxruntime', 'numpy'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code, str(root), str(model)], check=True)
