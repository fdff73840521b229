"""Runs on the rover's Python: the TensorRT embedder over the real PyCUDA and a pretended driver.

In: a TensorRT version, an ONNX file, a file with frames and centroids. Out: a file with embeddings
and what is nearest. `names` instead of a version: the names of PyCUDA's driver, as JSON. Not a
test itself; test_rover.py runs it in a process of its own.
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


def embed(version, onnx_path, inputs, outputs):
    """What the embedder makes of the frames, and the module's broken rules."""
    sys.path.append(FAKES)
    import fake_tensorrt

    sys.modules["tensorrt"] = fake_tensorrt.make(version, driver)

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
    for violation in sys.modules["tensorrt"]._violations:
        print("rule broken:", violation)


if __name__ == "__main__":
    if sys.argv[1] == "names":
        print(json.dumps(names()))
    else:
        embed(*sys.argv[1:])
