"""Draws a few picture files and notes what this environment makes of them.

    python tools/lib/embed_pictures.py MODEL.onnx FOLDER

tools/test runs it with the workstation's Python; tests/test_workstation.py then reads the same
files with every other Python. FOLDER gets the pictures, FOLDER.npz what was made of them: names
[N], frames uint8 [N, H, W, 3], embeddings float32 [N, D].
"""

import os
import subprocess
import sys

import numpy as np

from jetson_cluster import frame, recipe
from jetson_cluster.embedder import open_embedder

TOOLS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Large enough that JPEGs are decoded at reduced size, as the rover's camera files are.
SIZE = "1024x1024"
COUNT = 12


def main(model_path, folder):
    """The program described at the top of this file."""
    subprocess.check_call(
        [sys.executable, os.path.join(TOOLS, "synthetic_mars.py"), folder,
         "--size", SIZE, "--count", str(COUNT), "--odd", "2"]
    )
    names = sorted(os.listdir(folder))
    model = recipe.load_model(model_path)
    width, height = model.recipe.input_width, model.recipe.input_height
    frames = np.stack(
        [frame.load(os.path.join(folder, name), width, height).pixels for name in names]
    )
    with open_embedder("onnxruntime", model, 8) as embedder:
        embeddings = embedder.embed(frames)
    np.savez(folder + ".npz", names=np.array(names), frames=frames, embeddings=embeddings)


if __name__ == "__main__":
    main(*sys.argv[1:])
