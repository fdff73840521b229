"""Names clusters after what most of their images were drawn as, and writes that as a policy.

In: MODEL CODEBOOK TRUTH.csv POLICY.yaml as arguments; embeddings come from the folder `fit` kept. Only
for drawn pictures, whose terrain is known.
"""

import collections
import csv
import os
import sys

import yaml

from jetson_cluster import codebook, recipe
from jetson_cluster.catalog import Catalog


def main(model_path, codebook_path, truth_path, policy_path):
    """Write the policy; print how many clusters were named."""
    model = recipe.load_model(model_path)
    fitted = codebook.load(codebook_path, model.space)
    with open(truth_path, newline="") as stream:
        truth = {row["name"]: row["class"] for row in csv.DictReader(stream)}
    folder = os.path.splitext(truth_path)[0]
    with Catalog(os.path.join(codebook_path + ".work", "catalog.sqlite"), model.space) as catalog:
        numbers = catalog.images_at([os.path.join(folder, name) for name in truth])
        embeddings = catalog.embeddings_of(list(numbers.values()))
    members = collections.defaultdict(collections.Counter)
    for path, cluster in zip(numbers, fitted.nearest(embeddings, 1).index[:, 0]):
        members[int(cluster)][truth[os.path.basename(path)]] += 1
    labels = {cluster: {"label": kinds.most_common(1)[0][0].replace("_", " ")}
              for cluster, kinds in sorted(members.items())}
    with open(policy_path, "w") as stream:
        yaml.safe_dump({"clusters": labels}, stream)
    print("%d clusters named in %s" % (len(labels), policy_path))


if __name__ == "__main__":
    main(*sys.argv[1:])
