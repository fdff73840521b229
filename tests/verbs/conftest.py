"""TensorRT and PyCUDA as these tests have them: stand-ins, see tests/fakes/fake_jetson.py."""

import pathlib
import sys

FAKES = str(pathlib.Path(__file__).resolve().parents[1] / "fakes")
if FAKES not in sys.path:
    sys.path.append(FAKES)
