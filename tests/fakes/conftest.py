"""The stand-ins lie beside their tests; this is how the tests find them."""

import pathlib
import sys

HERE = str(pathlib.Path(__file__).resolve().parent)
if HERE not in sys.path:
    sys.path.append(HERE)
