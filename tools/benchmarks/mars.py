"""`tools/bench mars`: k = 10 clusters of real Mars tiles against the original work's clusters.

The tiles are named after the cluster that the original work put them in; the adjusted Rand index says
how far ours agree (1: the same, 0: chance), averaged over seeds.
"""

import glob
import os
import statistics
import sys

import machine
import numpy as np
from PIL import Image
from sklearn.metrics import adjusted_rand_score

from jetson_cluster import codebook, frame, recipe
from jetson_cluster.embedder import open_embedder
from jetson_cluster.ground.clustering import fit_codebook

TILES = os.path.join(machine.ROOT, "..", "shared", "mars", "cluster*.png")
SEEDS = range(10)


def main():
    """Print the table; says so and ends where there are no tiles."""
    tiles = sorted(glob.glob(TILES))
    if not tiles:
        sys.exit("no real Mars tiles at %s" % os.path.normpath(TILES))
    truth = [os.path.basename(path)[:9] for path in tiles]
    models = sys.argv[1:] or machine.models()
    print("%d tiles of %d clusters, k = %d, mean of %d seeds\n" % (
        len(tiles), len(set(truth)), len(set(truth)), len(SEEDS)))
    rows = [["raw pixels, 32×32"] + measure(raw_pixels(tiles), truth)]
    rows += [[recipe.load_model(path).space.split("@")[0]] + measure(embed(path, tiles), truth)
             for path in models]
    print(machine.table(["network/layer", "adjusted Rand index", "1-nearest neighbour agrees"], rows))


def raw_pixels(tiles):
    """float32 [N, 3072]."""
    return np.array([np.asarray(Image.open(path).convert("RGB").resize((32, 32))).ravel()
                     for path in tiles], np.float32)


def embed(model_path, tiles):
    """float32 [N, D]."""
    model = recipe.load_model(model_path)
    limits = frame.Limits()
    with open_embedder("onnxruntime", model, 8) as embedder:
        return embedder.embed(np.stack([
            frame.load(path, model.recipe.input_width, model.recipe.input_height, limits,
                       model.recipe.resample).pixels for path in tiles]))


def measure(embeddings, truth):
    """[adjusted Rand index, share of tiles whose nearest other tile is of the same cluster]."""
    k = len(set(truth))
    scores = []
    for seed in SEEDS:
        fitted = fit_codebook(embeddings, [""] * len(truth), k, seed, "bench").codebook
        scores.append(adjusted_rand_score(truth, fitted.nearest(embeddings, 1).index[:, 0]))
    points = codebook.normalise(embeddings)
    closeness = points @ points.T
    np.fill_diagonal(closeness, -np.inf)
    agree = np.array(truth)[closeness.argmax(axis=1)] == np.array(truth)
    return ["%.2f ± %.2f" % (statistics.mean(scores), statistics.stdev(scores)), "%.2f" % agree.mean()]


if __name__ == "__main__":
    main()
