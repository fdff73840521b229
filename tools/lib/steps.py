"""What tools/demo and tools/ground-demo share: networks to be had, commands run, drawn pictures.

In: what a step needs. Out: its result, or Failed, after the step's own output said why.
"""

import os
import shutil
import subprocess

import venvs

DEMO = os.path.join(venvs.ROOT, ".demo")

# What to try, best first: (recipe, source of the weights, layer, what to say about it).
NETWORKS = (
    ("inception_v3", "imagenet", "avg_pool", "InceptionV3 with ImageNet weights"),
    ("inception_v3", "nsfwjs", "mixed5",
     "InceptionV3 with the 8-bit weights of the npm package nsfwjs. Its layers after mixed5 were "
     "tuned for another task, so the embedding is taken at mixed5"),
    ("efficientnet_lite0", "imagenet", "avg_pool",
     "EfficientNet-Lite0 with ImageNet weights, because no InceptionV3 weights are to be had here "
     "(no npm)"),
)


class Failed(Exception):
    """A step of the demo failed; its own output says why."""


def say(text):
    """Announce a step."""
    print("\n== %s" % text, flush=True)


def command(python, *arguments, **keywords):
    """Run `jetson-cluster ARGUMENTS`; raises Failed."""
    status = subprocess.call([python, "-m", "jetson_cluster"] + list(arguments), cwd=venvs.ROOT,
                             **keywords)
    if status:
        raise Failed("'jetson-cluster %s' ended with status %d" % (arguments[0], status))


def export_model(python):
    """The path of the best ONNX file to be had here."""
    for recipe, source, layer, words in NETWORKS:
        path = os.path.join(DEMO, "models", "%s-%s-%s.onnx" % (recipe, source, layer))
        if os.path.exists(path):
            say("network: %s (exported before)" % words)
            return path
        if source == "nsfwjs" and shutil.which("npm") is None:
            continue
        say("exporting %s" % words)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            command(python, "export", os.path.join("engines", recipe + ".yaml"),
                    "--weights", source, "--layer", layer, "--out", path)
            return path
        except Failed:
            print("not to be had here; trying the next")
    raise Failed("no network could be exported; is there a way to the package registries?")


def draw(python, target, count, odd, seed, skew):
    """Paths of drawn pictures in the folder `target`, sorted; what they show is in `target`.csv.

    `skew` is as tools/synthetic_mars.py has it. Raises Failed.
    """
    status = subprocess.call([
        python, os.path.join(venvs.ROOT, "tools", "synthetic_mars.py"), target,
        "--count", str(count), "--odd", str(odd), "--seed", str(seed), "--skew", skew,
        "--truth", target + ".csv"])
    if status:
        raise Failed("the pictures could not be drawn")
    return sorted(os.path.join(target, name) for name in os.listdir(target))
