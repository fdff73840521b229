"""Names clusters after what most of their images were drawn as, and writes that as a policy.

In: CORPUS CODEBOOK TRUTH.csv POLICY.yaml as arguments. Only for drawn pictures, whose terrain is known.
"""

import collections
import csv
import os
import sys

import yaml

from jetson_cluster import codebook
from jetson_cluster.ground import corpus


def main(corpus_path, codebook_path, truth_path, policy_path):
    """Write the policy; print how many clusters were named."""
    held = corpus.read(corpus_path)
    fitted = codebook.load(codebook_path, held.space)
    with open(truth_path, newline="") as stream:
        truth = {row["name"]: row["class"] for row in csv.DictReader(stream)}
    members = collections.defaultdict(collections.Counter)
    for path, cluster in zip(held.paths, fitted.nearest(held.embeddings(), 1).index[:, 0]):
        members[int(cluster)][truth[os.path.basename(path)]] += 1
    labels = {cluster: {"label": kinds.most_common(1)[0][0].replace("_", " ")}
              for cluster, kinds in sorted(members.items())}
    with open(policy_path, "w") as stream:
        yaml.safe_dump({"clusters": labels}, stream)
    print("%d clusters named in %s" % (len(labels), policy_path))


if __name__ == "__main__":
    main(*sys.argv[1:])
