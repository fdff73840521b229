"""The exported networks against independent implementations, with the same weights and images.

Keras's own InceptionV3, torchvision's own, and the `efficientnet_lite_pytorch` package; the numbers
each comparison found are printed (pytest -rP shows them).
"""

import importlib.util
import re

import h5py
import numpy as np
import pytest

from jetson_cluster.ground import weights as weights_files
from jetson_cluster.ground.graph import Scaling
from jetson_cluster.ground.networks import efficientnet_lite0, inception_v3

COSINE = 0.99999
INCEPTION_LAYERS = ("mixed0", "mixed3", "mixed5", "mixed8", "mixed9", "avg_pool")
KERAS_SCALING = Scaling((127.5,) * 3, (127.5,) * 3)


def agreement(ours, theirs):
    """(smallest cosine of a row, largest difference as a part of the largest value)."""
    ours = np.asarray(ours, np.float64).reshape(len(ours), -1)
    theirs = np.asarray(theirs, np.float64).reshape(len(theirs), -1)
    assert ours.shape == theirs.shape
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return ((ours * theirs).sum(axis=1) / lengths).min(), np.abs(ours - theirs).max() / np.abs(
        theirs).max()


def assert_same(ours, theirs, what):
    cosine, difference = agreement(ours, theirs)
    print(f"{what}: cosine 1 - {1 - cosine:.1e}, largest difference {difference:.1e} of the range")
    assert cosine >= COSINE
    # Cosine alone forgives a wrong number in one place. Folding batch norms of tiny variance costs
    # up to 2.3e-4 where an image is flat (Lite0's first block); everything else is below 4e-5.
    assert difference <= 1e-3
    # Vectors that hardly differ between images would agree with anything.
    rows = np.asarray(theirs, np.float64).reshape(len(theirs), -1)
    assert agreement(rows[:-1], rows[1:])[0] < 0.999


# --- Keras -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


def numbered(layers):
    """Layers of one kind in the order they were created, which is how Keras numbers their names."""
    return sorted(layers, key=lambda layer: int((re.findall(r"_(\d+)$", layer.name) or [0])[0]))


class KerasInception:
    """Keras's InceptionV3, whose weights can be set and whose layers can be read."""

    def __init__(self, keras):
        self.keras = keras
        self.model = keras.applications.InceptionV3(
            weights=None, include_top=False, pooling="avg", input_shape=(299, 299, 3))
        self.convolutions = numbered(self.of_kind(keras.layers.Conv2D))
        self.norms = numbered(self.of_kind(keras.layers.BatchNormalization))

    def of_kind(self, kind):
        return [layer for layer in self.model.layers if isinstance(layer, kind)]

    def features(self, images, layers):
        """{layer: its map averaged over the grid}, images uint8 [N, 299, 299, 3]."""
        outputs = [self.model.output if name == "avg_pool" else self.model.get_layer(name).output
                   for name in layers]
        values = self.keras.Model(self.model.input, outputs).predict(
            images.astype(np.float32) / 127.5 - 1, verbose=0)
        return {name: value.mean(axis=(1, 2)) if value.ndim == 4 else value
                for name, value in zip(layers, values)}

    def randomise(self, seed):
        """Weights under which the signal neither dies nor explodes."""
        random = np.random.default_rng(seed)
        for layer in self.convolutions:
            (shape,) = [w.shape for w in layer.get_weights()]
            layer.set_weights([random.normal(0, np.sqrt(2 / np.prod(shape[:3])), shape)])
        for layer in self.norms:
            channels = layer.get_weights()[0].shape
            layer.set_weights([random.normal(0, 0.3, channels), random.normal(0, 0.2, channels),
                               random.uniform(0.5, 1.5, channels)])


@pytest.fixture(scope="module")
def keras_inception(keras):
    return KerasInception(keras)


@pytest.fixture(scope="module")
def keras_nsfwjs(keras_inception, nsfwjs_weights):
    """Keras with the npm package's weights, set by the names they have there."""
    tensors = nsfwjs_weights.tensors
    pairs = zip(keras_inception.convolutions, keras_inception.norms)
    for number, (convolution, norm) in enumerate(pairs, start=1):
        convolution.set_weights([tensors[f"conv2d_{number}/kernel"]])
        norm.set_weights([tensors[f"batch_normalization_{number}/{short}"]
                          for short in ("beta", "moving_mean", "moving_variance")])
    return keras_inception


def test_keras_lists_its_layers_in_the_order_weights_files_are_read(keras_inception, keras):
    for created, kind in ((keras_inception.convolutions, keras.layers.Conv2D),
                          (keras_inception.norms, keras.layers.BatchNormalization)):
        place = {layer.name: number for number, layer in enumerate(created, start=1)}
        listed = tuple(place[layer.name] for layer in keras_inception.of_kind(kind))
        assert listed == inception_v3.KERAS_FILE_ORDER


def test_npm_weights_give_kerass_features_at_every_depth(keras_nsfwjs, exported, run_onnx,
                                                        pictures):
    images = pictures(299)
    expected = keras_nsfwjs.features(images, INCEPTION_LAYERS)
    for layer in INCEPTION_LAYERS:
        model = exported("inception_v3", "nsfwjs", layer)
        assert_same(run_onnx(model.onnx_path, images), expected[layer], f"Keras, npm, {layer}")


def test_the_grid_is_kerass_map_place_by_place(keras_nsfwjs, exported, run_onnx, pictures, keras):
    images = pictures(299)[-2:]
    model = exported("inception_v3", "nsfwjs", "mixed5", grid=True)
    reader = keras.Model(keras_nsfwjs.model.input,
                         keras_nsfwjs.model.get_layer("mixed5").output)
    expected = reader.predict(images.astype(np.float32) / 127.5 - 1, verbose=0)
    found = run_onnx(model.onnx_path, images)
    assert found.shape == (2, 768, 17, 17)
    assert_same(found, expected.transpose(0, 3, 1, 2), "Keras, npm, mixed5 grid")


def test_the_comparison_would_notice_pools_that_count_their_padding(
        keras_nsfwjs, nsfwjs_weights, run_onnx, pictures, tmp_path, monkeypatch):
    """Not vacuous: the one thing in which torchvision's graph differs is caught."""
    plain = inception_v3.GraphWriter.average_pool
    monkeypatch.setattr(inception_v3.GraphWriter, "average_pool",
                        lambda self, x, name, count_padding: plain(self, x, name, True))
    graph = inception_v3.build(nsfwjs_weights, "mixed5", False, 299, 299, KERAS_SCALING)
    (tmp_path / "wrong.onnx").write_bytes(graph.SerializeToString())
    images = pictures(299)
    found = run_onnx(tmp_path / "wrong.onnx", images)
    assert agreement(found, keras_nsfwjs.features(images, ["mixed5", "mixed0"])["mixed5"])[
        0] < COSINE


def write_official_h5(path, inception):
    """Weights as Keras's published files have them: legacy HDF5, conv2d_1 ... conv2d_94."""
    renamed = {layer.name: f"{kind}_{number}"
               for kind, layers in (("conv2d", inception.convolutions),
                                    ("batch_normalization", inception.norms))
               for number, layer in enumerate(layers, start=1)}
    with h5py.File(path, "w") as file:
        names = [renamed.get(layer.name, layer.name) for layer in inception.model.layers]
        file.attrs["layer_names"] = [name.encode() for name in names]
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.0.4"
        for layer, name in zip(inception.model.layers, names):
            group = file.create_group(name)
            weights = [f"{name}/{weight.name}:0" for weight in layer.weights]
            group.attrs["weight_names"] = [weight.encode() for weight in weights]
            for weight, value in zip(weights, layer.get_weights()):
                group[weight] = value


@pytest.mark.parametrize("writer", ["published layout", "model.save"])
def test_a_keras_file_gives_kerass_features(keras_inception, exported, run_onnx, pictures, tmp_path,
                                            writer):
    path = tmp_path / "weights.h5"
    keras_inception.randomise(seed=11)
    if writer == "model.save":
        keras_inception.model.save(path)
    else:
        write_official_h5(path, keras_inception)
        # Keras itself reads what was written here, into a model that knew nothing.
        keras_inception.randomise(seed=12)
        keras_inception.model.load_weights(path)
    images = pictures(299)
    layers = ("mixed2", "avg_pool")
    expected = keras_inception.features(images, layers)
    for layer in layers:
        model = exported("inception_v3", path, layer)
        assert_same(run_onnx(model.onnx_path, images), expected[layer],
                    f"Keras, .h5 ({writer}), {layer}")


# --- torchvision -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch")
    with torch.inference_mode():
        yield torch


@pytest.fixture(scope="module")
def torchvision_models(torch):
    """torchvision.models, also beside a CPU torch.

    Its wheel is built for CUDA: without that its operators do not load, and the import stops at
    their absence. The network uses none of them, so declaring them is enough.
    """
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    try:
        import torchvision.models
    except RuntimeError as error:
        assert "torchvision::" in str(error)
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        import torchvision.models
    yield torchvision.models


@pytest.fixture(scope="module")
def torchvision_inception(torch, torchvision_models, pictures):
    """torchvision's InceptionV3 with seeded weights and batch norms that have seen images."""
    torch.manual_seed(5)
    model = torchvision_models.inception_v3(weights=None, init_weights=False, transform_input=True)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.6, 1.4)
            torch.nn.init.normal_(module.bias, 0, 0.3)
            module.momentum = None
    model.train()
    model(normalised(torch, pictures(299)))
    return model.eval()


def normalised(torch, images):
    """What torchvision's pretrained weights expect: 0..1, then ImageNet's mean and std."""
    mean = torch.tensor([0.485, 0.456, 0.406])
    std = torch.tensor([0.229, 0.224, 0.225])
    return ((torch.from_numpy(images).float() / 255 - mean) / std).permute(0, 3, 1, 2)


def hooked(modules, run):
    """{name: output averaged over its grid} of torch modules while `run` runs."""
    found = {}
    handles = [module.register_forward_hook(
        lambda _module, _inputs, output, name=name: found.__setitem__(
            name, output.mean(dim=(2, 3)).numpy())) for name, module in modules.items()]
    run()
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_torchvision_state_dict_gives_torchvisions_features(
        torch, torchvision_inception, exported, run_onnx, pictures, tmp_path, suffix):
    path = tmp_path / f"inception{suffix}"
    state = torchvision_inception.state_dict()
    if suffix == ".pth":
        torch.save(state, path)
    else:
        import safetensors.torch
        safetensors.torch.save_file(state, path)
    images = pictures(299)
    modules = {"mixed3": torchvision_inception.Mixed_6a, "mixed9": torchvision_inception.Mixed_7b,
               "avg_pool": torchvision_inception.avgpool}
    expected = hooked(modules, lambda: torchvision_inception(normalised(torch, images)))
    for layer in modules:
        model = exported("inception_v3", path, layer)
        assert_same(run_onnx(model.onnx_path, images), expected[layer],
                    f"torchvision, {suffix}, {layer}")


# --- EfficientNet-Lite0 ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lite0(torch, lite0_weights):
    package = pytest.importorskip("efficientnet_lite_pytorch")
    model = package.EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(lite0_weights.path, weights_only=True))
    return model.eval()


def scaled(torch, images):
    return ((torch.from_numpy(images).float() - 127) / 128).permute(0, 3, 1, 2)


def test_efficientnet_lite0_gives_its_packages_features(torch, lite0, exported, run_onnx, pictures):
    images = pictures(224)
    modules = {f"block{index}": block for index, block in enumerate(lite0._blocks)}
    expected = hooked(modules, lambda: lite0.extract_features(scaled(torch, images)))
    head = lite0.extract_features(scaled(torch, images)).mean(dim=(2, 3)).numpy()
    expected.update(head=head, avg_pool=head)
    for layer in ("block0", "block2", "block5", "block10", "block15", "head", "avg_pool"):
        model = exported("efficientnet_lite0", "imagenet", layer)
        assert_same(run_onnx(model.onnx_path, images), expected[layer], f"Lite0, {layer}")


def test_the_first_convolution_of_efficientnet_lite0_is_exact_at_the_border(
        torch, lite0, exported, run_onnx, pictures):
    """Folding a mean into a convolution padded with zeros would be wrong just there."""
    images = pictures(224)
    model = exported("efficientnet_lite0", "imagenet", "stem", grid=True)
    found = run_onnx(model.onnx_path, images)
    expected = lite0._swish(lite0._bn0(lite0._conv_stem(scaled(torch, images)))).numpy()
    assert found.shape == expected.shape == (len(images), 32, 112, 112)
    for border in (np.s_[:, :, 0], np.s_[:, :, -1], np.s_[:, :, :, 0], np.s_[:, :, :, -1]):
        np.testing.assert_allclose(found[border], expected[border], atol=2e-5)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_reading_torchs_file_gives_the_numbers_torch_reads(torch, lite0_weights):
    theirs = torch.load(lite0_weights.path, weights_only=True)
    ours = weights_files.read(lite0_weights.path).tensors
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value.numpy())


def test_the_networks_layers_are_those_their_recipes_list(engines):
    from jetson_cluster import recipe as recipes
    for network in (inception_v3, efficientnet_lite0):
        name = network.__name__.rsplit(".", 1)[-1]
        assert recipes.load(engines / f"{name}.yaml").layers == network.LAYERS
