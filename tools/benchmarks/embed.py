"""`tools/bench embed`: what a corpus costs beside its network, and in the original work's loop.

Against the network: `corpus.embed` turns N different JPEG files into a corpus (read, hash, decode,
judge, thumbnail, shards on disk); the same embedder alone embeds as many frames that lie ready in
memory, in the same batches; the two take turns. What looking at an image takes one core alone says
where a ratio below 1 comes from: decoding and the network share the cores. Against the original
work: its loop, Keras's `predict` on batches of 64 images that Pillow loaded, with the same weights,
over the same files.
"""

import argparse
import importlib.util
import os
import statistics
import tempfile
import time

import machine
import numpy as np
from daemon import draw

from jetson_cluster import config, recipe
from jetson_cluster.embedder import open_embedder
from jetson_cluster.ground import corpus, sources, weights
from jetson_cluster.ground.corpus import listing, looking

MARS32K = (560, 500)  # the original work's data set
SIZES = ((299, 299), MARS32K, (1024, 768))
KERAS_BATCH = 64


def main():
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="tools/bench embed")
    parser.add_argument("--model", metavar="FILE.onnx")
    parser.add_argument("--embedder", default="auto", choices=config.EMBEDDERS)
    parser.add_argument("--images", type=int, default=320, help="an archive (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, help="processes that decode (default: one a core)")
    args = parser.parse_args()
    model = recipe.load_model(args.model or machine.models()[-1])
    print("%s; %s\n" % (machine.kind(), os.path.basename(model.onnx_path)))
    with tempfile.TemporaryDirectory() as folder:
        archives = [write_archive(folder, size, args.images) for size in SIZES]
        rows = [against_network(args, model, size, archive)
                for size, archive in zip(SIZES, archives)]
        print(machine.table(["image", "corpus, images/s", "bare embedder, images/s", "ratio",
                             "looking at one, ms of a core"], rows))
        keras, missing = keras_network(model)
        if keras is None:
            print("\nNo comparison with the original work's loop: %s" % missing)
            return
        print("\n" + machine.table(
            ["image", "corpus, images/s", "Keras's predict, batch %d, images/s" % KERAS_BATCH,
             "times as fast", "least cosine"],
            [against_keras(args, model, MARS32K, archives[SIZES.index(MARS32K)], keras)]))


def write_archive(folder, size, images):
    """A folder of different JPEG files of this size."""
    archive = os.path.join(folder, "%dx%d" % size)
    os.mkdir(archive)
    for seed in range(images):
        draw(size, seed).save(os.path.join(archive, "%05d.jpg" % seed), quality=90)
    return archive


def against_network(args, model, size, archive):
    """One row: a corpus and the bare embedder in turns."""
    ours, bare = [], []
    for _ in range(args.rounds):
        ours.append(run_corpus(args, model, archive)[0])
        bare.append(run_bare(args, model))
    ratios = [one / other for one, other in zip(ours, bare)]
    return ["%d×%d JPEG" % size, "%.1f" % statistics.median(ours),
            "%.1f" % statistics.median(bare), machine.median_and_spread(ratios),
            "%.1f" % look_ms(model, archive)]


def look_ms(model, archive):
    """Milliseconds one core takes to read, decode, judge and thumbnail an image."""
    geometry = looking.geometry_of(model.recipe)
    files = listing.list_files([archive], apart=archive + ".corpus").files[:50]
    begun_s = time.process_time()
    for arrival in files:
        looking.look_at(arrival, geometry)
    return 1000 * (time.process_time() - begun_s) / len(files)


def run_corpus(args, model, archive):
    """(images/s, embeddings), without the first quarter, before and in which much is loaded."""
    reached_s = {}  # images done -> when

    def progress(done, _total, _known):
        reached_s.setdefault(done, time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        made = corpus.embed([archive], os.path.join(folder, "corpus"), model, args.embedder,
                            workers=args.workers, progress=progress, tell=lambda note: None)
        skipped = len(made) // 4
        return (len(made) - skipped) / (time.perf_counter() - reached_s[skipped]), made.embeddings()


def run_bare(args, model):
    """Images a second of the embedder alone."""
    batch, shape = model.recipe.max_batch, (model.recipe.input_height, model.recipe.input_width, 3)
    frames = np.random.RandomState(0).randint(0, 256, (batch,) + shape).astype(np.uint8)
    with open_embedder(args.embedder, model, batch) as embedder:
        embedder.embed(frames)
        begun_s = time.perf_counter()
        for start in range(0, args.images, batch):
            embedder.embed(frames[:min(batch, args.images - start)])
        return args.images / (time.perf_counter() - begun_s)


# ---- the original work's loop ------------------------------------------------------------------


def keras_network(model):
    """(Keras's InceptionV3 with the model's own weights up to its layer, "") or (None, why not)."""
    built = model.recipe.built
    if model.recipe.network != "inception_v3" or built is None:
        return None, "that is InceptionV3's, exported by `jetson-cluster export`"
    if importlib.util.find_spec("keras") is None:
        return None, "Keras is not installed (pip install keras tensorflow)"
    import keras

    with sources.local_weights(built.weights_source.split(" (")[0], model.recipe) as path:
        read = weights.read(path)
    network = keras.applications.InceptionV3(
        weights=None, include_top=False, pooling="avg", input_shape=(299, 299, 3))
    counts = {keras.layers.Conv2D: 0, keras.layers.BatchNormalization: 0}
    for layer in sorted(network.layers, key=created):
        if isinstance(layer, keras.layers.Conv2D):
            counts[keras.layers.Conv2D] += 1
            layer.set_weights([read.tensors["conv2d_%d/kernel" % counts[keras.layers.Conv2D]]])
        elif isinstance(layer, keras.layers.BatchNormalization):
            counts[keras.layers.BatchNormalization] += 1
            layer.set_weights([read.tensors["batch_normalization_%d/%s" % (
                counts[keras.layers.BatchNormalization], short)]
                for short in ("beta", "moving_mean", "moving_variance")])
    output = network.output
    if model.recipe.layer != "avg_pool":
        output = keras.layers.GlobalAveragePooling2D()(network.get_layer(model.recipe.layer).output)
    return keras.Model(network.input, output), ""


def created(layer):
    """Keras numbers layers of one kind in the order of their making; the first has no number."""
    number = layer.name.rpartition("_")[2]
    return int(number) if number.isdigit() else 0


def against_keras(args, model, size, archive, network):
    """One row: a corpus and the original work's loop in turns, and whether they agree."""
    network.predict(np.zeros((KERAS_BATCH, 299, 299, 3), np.float32), verbose=0)
    ours, theirs, embeddings, expected = [], [], None, None
    for _ in range(args.rounds):
        rate, embeddings = run_corpus(args, model, archive)
        ours.append(rate)
        rate, expected = run_keras(archive, network)
        theirs.append(rate)
    cosines = (embeddings * expected).sum(axis=1) / (
        np.linalg.norm(embeddings, axis=1) * np.linalg.norm(expected, axis=1))
    return ["%d×%d JPEG" % size, "%.1f" % statistics.median(ours),
            "%.1f" % statistics.median(theirs),
            machine.median_and_spread([one / other for one, other in zip(ours, theirs)]),
            "%.5f" % cosines.min()]


def run_keras(archive, network):
    """(images/s, embeddings float32 [N, D]): load 64 images with Pillow, predict, and so on."""
    from keras.applications.inception_v3 import preprocess_input
    from keras.utils import img_to_array, load_img

    paths = [os.path.join(archive, name) for name in sorted(os.listdir(archive))]
    begun_s, found = time.perf_counter(), []
    for start in range(0, len(paths), KERAS_BATCH):
        batch = np.stack([img_to_array(load_img(path, target_size=(299, 299),
                                                interpolation="bicubic"))
                          for path in paths[start:start + KERAS_BATCH]])
        found.append(network.predict(preprocess_input(batch), verbose=0))
    return len(paths) / (time.perf_counter() - begun_s), np.concatenate(found)


if __name__ == "__main__":
    main()
