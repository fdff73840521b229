"""Runs on the rover's Python: what uses the GPU, over the real PyCUDA and a pretended driver.

    on_the_rover.py embed VERSION ONNX IN OUT   the TensorRT embedder: from a file with frames and
                                                centroids to one with embeddings and places
    on_the_rover.py cli VERSION ARGUMENT...     jetson-cluster as it is, with this TensorRT
    on_the_rover.py names                       the names of PyCUDA's driver, as JSON

Not a test itself; test_rover.py runs it in a process of its own.
"""

import json
import os
import sys

# PyCUDA names many more driver functions than the pretend driver has: look them up when called.
sys.setdlopenflags(os.RTLD_LAZY)

import numpy as np  # noqa: E402
import pycuda.driver as driver  # noqa: E402

FAKES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "fakes")


def names():
    """{name of the module's, "Class.name" of a class's: what is known of it}."""
    found = {}
    for name, value in vars(driver).items():
        found[name] = str(type(value).__name__)
        if isinstance(value, type):
            for member in dir(value):
                found[name + "." + member] = ""
            if issubclass(value, Exception):
                found[name] = " ".join(each.__name__ for each in value.__mro__)
    for enumeration in ("ctx_flags", "device_attribute"):
        for name, value in getattr(driver, enumeration).names.items():
            found[enumeration + "." + name] = int(value)
    return found


def install(version):
    """Puts the stand-in for this TensorRT where `import` finds it."""
    sys.path.append(FAKES)
    import fake_tensorrt

    sys.modules["tensorrt"] = fake_tensorrt.make(version, driver)


def tell_broken_rules():
    """What TensorRT's stand-in has against its use."""
    for violation in sys.modules["tensorrt"]._violations:
        print("rule broken:", violation)


def cli(version, *arguments):
    """The command with these arguments, which may end the process by itself; its exit code."""
    install(version)
    from jetson_cluster import cli

    sys.argv = ["jetson-cluster"] + list(arguments)
    status = cli.main()
    tell_broken_rules()
    return status


def embed(version, onnx_path, inputs, outputs):
    """What the embedder makes of the frames, and the module's broken rules."""
    install(version)
    from jetson_cluster import codebook, recipe
    from jetson_cluster.embedder.base import Options
    from jetson_cluster.embedder.tensorrt import TensorRTEmbedder

    with np.load(inputs) as arrays:
        frames, centroids = arrays["frames"], arrays["centroids"]
    ramp = np.linspace(0, 1, codebook.QUANTILE_POINTS).astype(np.float32)
    k = len(centroids)
    book = codebook.Codebook("space", "l2", centroids, np.ones(k, np.int64),
                             np.ones(k, np.float32), ramp, ramp, 0.5, 1.0)
    options = Options(plan=outputs + ".plan", progress=lambda text, allow_s: None)
    embedder = TensorRTEmbedder(recipe.load_model(onnx_path), len(frames), options)
    with embedder:
        embedder.use(book)
        answers = [embedder.process(frames[:count]) for count in (1, len(frames))]
    np.savez(outputs, **{
        name + str(place): array for place, answer in enumerate(answers)
        for name, array in (("embeddings", answer.embeddings), ("index", answer.nearest.index),
                            ("distance", answer.nearest.distance))})
    tell_broken_rules()


if __name__ == "__main__":
    if sys.argv[1] == "names":
        print(json.dumps(names()))
    elif sys.argv[1] == "embed":
        embed(*sys.argv[2:])
    else:
        sys.exit(cli(*sys.argv[2:]))
