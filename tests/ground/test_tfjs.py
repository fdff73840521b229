"""TensorFlow.js models: quantised weights come back within half a step, JavaScript is only read."""

import base64
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetson_cluster.errors import UserError
from jetson_cluster.ground import tfjs


def minified(value):
    """A Python value as a JavaScript minifier writes it: bare keys, !0, .5, single quotes."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{minified(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(minified, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "!0", False: "!1"}[value]
    if isinstance(value, str):
        text = json.dumps(value)[1:-1].replace('\\"', '"').replace("'", "\\'")
        return f"'{text}'"
    text = repr(value)
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


KEYS = st.from_regex(r"[A-Za-z_$][A-Za-z0-9_$]{0,8}", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-10**9, 10**9) | st.text(max_size=12)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20)


@given(st.dictionaries(KEYS, VALUES, max_size=5) | st.lists(VALUES, max_size=5),
       st.text(max_size=9))
def test_what_a_minifier_wrote_is_read_back(value, rest):
    assert json.loads(tfjs.literal_to_json(minified(value) + rest)) == value


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_json_is_read_as_itself(value):
    assert json.loads(tfjs.literal_to_json(json.dumps(value, indent=1))) == value


@pytest.mark.parametrize("source", [
    "{a:alert(1)}", "{a:b}", "{a:1+1}", "{a:`x`}", "{a:function(){}}", "{a:NaN}", "{a:!2}",
    "{a:/x/}", "{a:[1,2}", "{a:1", "", "7", "'text'", "(1)", "{a:'open}", "//comment\n{}"])
def test_what_would_have_to_be_run_is_refused(source):
    with pytest.raises(ValueError):
        json.loads(tfjs.literal_to_json(source))


@given(st.text(alphabet="{}[]:,!01ab.'\"\\ -e", max_size=30))
def test_no_text_does_worse_than_be_refused(source):
    try:
        json.loads(tfjs.literal_to_json(source))
    except ValueError:
        pass


def stored(array, kind):
    """(bytes, manifest entry's part) of an array as TensorFlow.js stores it."""
    if kind == "float32":
        return array.astype("<f4").tobytes(), {}
    if kind == "float16":
        return array.astype("<f2").tobytes(), {"quantization": {"dtype": "float16"}}
    steps = np.iinfo(kind).max
    low = float(array.min()) if array.size else 0.0
    scale = (float(array.max()) - low) / steps if array.size else 1.0
    scale = scale or 1.0
    levels = np.round((array - low) / scale).astype(np.dtype(kind).newbyteorder("<"))
    return levels.tobytes(), {"quantization": {"dtype": kind, "scale": scale, "min": low}}


def write_model(folder, weights, kind="float32", form="json", shards=2, order=None, **changes):
    """A layers model: {"layer/weight": array}; its manifest lists the weights alphabetically."""
    data, entries = b"", []
    for name in sorted(weights):
        piece, part = stored(weights[name], kind)
        data += piece
        entries.append(
            {"name": name, "shape": list(weights[name].shape), "dtype": "float32", **part})
    names = order or list(dict.fromkeys(name.split("/")[0] for name in weights))
    paths = [f"group1-shard{n}of{shards}" + (".bin" if form == "json" else "")
             for n in range(1, shards + 1)]
    layers = [{"class_name": "Conv2D", "config": {"name": name}} for name in names]
    topology = {"model_config": {"class_name": "Model", "config": {"layers": layers}}}
    model = {"modelTopology": topology,
             "weightsManifest": [{"paths": paths, "weights": entries}], **changes}
    folder.mkdir(exist_ok=True)
    size = -(-len(data) // shards)
    pieces = [data[n * size:(n + 1) * size] for n in range(shards)]
    if form == "json":
        (folder / "model.json").write_text(json.dumps(model))
        for path, piece in zip(paths, pieces):
            (folder / path).write_bytes(piece)
    else:
        wrapper = ('!function(a){"object"==typeof exports?module.exports=a():window.model=a()}'
                   "(function(){return function(a,n){var i=n[1]={exports:{}};return i.exports}"
                   "({1:[function(a,n,i){n.exports=%s},{}]},{},[1])(1)});")
        (folder / "model.min.js").write_text(wrapper % minified(model))
        for path, piece in zip(paths, pieces):
            text = json.dumps(base64.b64encode(piece).decode())
            (folder / f"{path}.min.js").write_text(wrapper % text)
    return folder


def some_weights(seed=0):
    random = np.random.default_rng(seed)
    return {"conv_b/kernel": random.normal(size=(3, 2, 4, 5)), "conv_a/bias": random.normal(size=7),
            "conv_a/kernel": random.normal(size=(1, 1, 2, 3))}


@pytest.mark.parametrize("form", ["json", "javascript"])
@pytest.mark.parametrize("kind", ["float32", "float16", "uint8", "uint16"])
def test_weights_come_back_within_half_a_step(tmp_path, form, kind):
    weights = some_weights()
    found = tfjs.read_folder(write_model(tmp_path / "m", weights, kind, form))
    assert set(found) == set(weights)
    for name, array in weights.items():
        step = {"float32": 1e-6, "float16": 4e-3}.get(kind) or np.ptp(array) / np.iinfo(kind).max
        assert found[name].dtype == np.float32 and found[name].shape == array.shape
        np.testing.assert_allclose(found[name], array, atol=step * 0.51)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40),
       st.sampled_from(["uint8", "uint16"]), st.integers(1, 4))
def test_any_values_survive_quantisation(tmp_path_factory, values, kind, shards):
    array = np.array(values)
    folder = write_model(tmp_path_factory.mktemp("m"), {"l/w": array}, kind, shards=shards)
    step = (np.ptp(array) or 1.0) / np.iinfo(kind).max
    np.testing.assert_allclose(tfjs.read_folder(folder)["l/w"], array, rtol=1e-6, atol=step * 0.51)


def test_layers_come_in_the_models_order_not_the_alphabets(tmp_path):
    folder = write_model(tmp_path / "m", some_weights(), order=["conv_b", "empty", "conv_a"])
    layers = [name.split("/")[0] for name in tfjs.read_folder(folder)]
    assert layers == ["conv_b", "conv_a", "conv_a"]


def test_the_npm_package_is_read(nsfwjs_weights):
    tensors = nsfwjs_weights.tensors
    assert len(tensors) == 382
    assert tensors["conv2d_1/kernel"].shape == (3, 3, 3, 32)
    # 8 bits: no tensor has more than 256 different numbers.
    assert max(np.unique(value).size for value in tensors.values()) <= 256
    assert all(np.isfinite(value).all() for value in tensors.values())


def refusal(folder):
    with pytest.raises(UserError) as caught:
        tfjs.read_folder(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_without_a_model_is_refused(tmp_path):
    assert "not a TensorFlow.js model" in refusal(tmp_path)


@pytest.mark.parametrize("form", ["json", "javascript"])
def test_a_missing_shard_is_named(tmp_path, form):
    folder = write_model(tmp_path / "m", some_weights(), form=form)
    next(folder.glob("group1-shard2of2*")).unlink()
    assert "shard2of2" in refusal(folder)


@pytest.mark.parametrize("form", ["json", "javascript"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("which", ["model*", "group1-shard1*", "group1-shard2*"])
def test_a_truncated_file_is_refused(tmp_path, form, keep, which):
    folder = write_model(tmp_path / "m", some_weights(), form=form)
    path = next(folder.glob(which))
    content = path.read_bytes()
    if form == "javascript":
        # Cut inside the data: what follows it is only wrapping.
        content = content[:content.index(b"},{}]")]
    path.write_bytes(content[:int(len(content) * keep)])
    refusal(folder)


def test_shards_of_another_model_are_noticed(tmp_path):
    folder = write_model(tmp_path / "m", some_weights())
    with open(folder / "group1-shard2of2.bin", "ab") as stream:
        stream.write(b"more")
    assert "another model" in refusal(folder)


def test_a_graph_model_is_told_apart(tmp_path):
    folder = write_model(tmp_path / "m", some_weights(), modelTopology={"node": []})
    assert "graph model" in refusal(folder)


def test_a_weight_of_no_layer_is_named(tmp_path):
    folder = write_model(tmp_path / "m", some_weights(), order=["conv_a"])
    assert "conv_b/kernel" in refusal(folder)


@pytest.mark.parametrize("entry", [
    {"name": "conv_a/kernel"}, {"name": 3, "shape": [1], "dtype": "float32"},
    {"name": "conv_a/kernel", "shape": [-1], "dtype": "float32"},
    {"name": "conv_a/kernel", "shape": [1], "dtype": "complex64"},
    {"name": "conv_a/kernel", "shape": [1], "dtype": "float32", "quantization": {"dtype": "uint8"}},
    "text"])
def test_a_broken_manifest_entry_is_refused(tmp_path, entry):
    folder = write_model(tmp_path / "m", some_weights(), weightsManifest=[
        {"paths": ["group1-shard1of2.bin"], "weights": [entry]}])
    refusal(folder)


@pytest.mark.parametrize("manifest", [{}, [3], [{"paths": ["../secret"], "weights": []}],
                                      [{"paths": ["/etc/passwd"], "weights": []}]])
def test_a_manifest_that_is_none_or_leads_out_of_the_folder_is_refused(tmp_path, manifest):
    folder = write_model(tmp_path / "m", some_weights(), weightsManifest=manifest)
    assert "weightsManifest" in refusal(folder)


def test_javascript_that_computes_is_refused_and_not_run(tmp_path):
    folder = write_model(tmp_path / "m", some_weights(), form="javascript")
    path = folder / "model.min.js"
    path.write_text(path.read_text().replace("n.exports={", "n.exports={a:fetch('/x'),"))
    assert "the name 'fetch'" in refusal(folder)
