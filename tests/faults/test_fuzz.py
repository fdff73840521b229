"""Ten thousand spoilt pictures: each is read or refused with a reason, none ends the program."""

import json
import os
import pathlib
import subprocess
import sys

import faults

HERE = pathlib.Path(__file__).resolve().parent
FILES = 10000 if faults.SOAK else 1000
GROWN_KB_AT_MOST = 100 * 1024  # a picture of the most pixels allowed there is 4 MB in RGBA


def test_spoilt_pictures_are_read_or_refused_within_bounded_memory(tmp_path, root):
    done = subprocess.run(
        [sys.executable, str(HERE / "fuzzing.py"), str(tmp_path), "1", str(FILES)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
        env=dict(os.environ, PYTHONPATH=str(root), PYTHONWARNINGS="ignore"))
    assert done.returncode == 0, "%s\nstatus %d; the file is %s" % (
        done.stderr[-3000:], done.returncode, tmp_path / "spoilt")
    result = json.loads(done.stdout)
    print(result)
    outcomes = result["outcomes"]
    assert sum(outcomes.values()) == FILES
    # Else the pictures are spoilt too much, or too little, to find anything.
    assert outcomes["read"] > FILES / 20
    assert {"damaged", "not_an_image", "too_many_pixels"} <= set(outcomes)
    assert result["grown_kb"] <= GROWN_KB_AT_MOST, result["by"]
