"""A sweep as people and programs read it: a table, a plot, CSV and JSON.

In: a Sweep and what it was made of. Out: text, and three files beside the codebook-to-be.
"""

import csv
import json
from typing import Any, Dict, List

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jetson_cluster.ground.sweep import Sweep, Trial

HEADINGS = {"inertia": "inertia (of one cluster's)", "silhouette": "silhouette (higher is better)",
            "davies_bouldin": "Davies-Bouldin (lower is better)",
            "stability": "stability over seeds (1: the same)"}
WIDTH_INCHES, HEIGHT_INCHES, DPI = 9.0, 6.0, 100
LINE, CHOSEN = "#1f6f8b", "#c8553d"


def heading() -> str:
    """The first line of the table."""
    return "%6s  %8s  %10s  %14s  %9s" % ("k", "inertia", "silhouette", "Davies-Bouldin", "stability")


def line(trial: Trial) -> str:
    """A line of the table."""
    return "%6d  %8.4f  %10.4f  %14.4f  %9.4f" % trial


def write(stem: str, found: Sweep, facts: Dict[str, Any]) -> List[str]:
    """STEM.csv, .json and .png; their paths. `facts` go into the JSON as they are. Raises OSError."""
    paths = [stem + ending for ending in (".csv", ".json", ".png")]
    with open(paths[0], "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(Trial._fields)
        writer.writerows(found.trials)
    with open(paths[1], "w", encoding="utf-8") as stream:
        json.dump(dict(facts, recommended=found.recommended, reason=found.reason,
                       trials=[trial._asdict() for trial in found.trials]), stream, indent=1)
        stream.write("\n")
    plot(found).savefig(paths[2], dpi=DPI)
    return paths


def plot(found: Sweep) -> Figure:
    """Four curves over k with what is recommended marked in each."""
    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), layout="constrained")
    FigureCanvasAgg(figure)
    ks = [trial.k for trial in found.trials]
    for axes, (name, title) in zip(figure.subplots(2, 2).flat, HEADINGS.items()):
        axes.plot(ks, [getattr(trial, name) for trial in found.trials], "o-", color=LINE, markersize=4)
        axes.axvline(found.recommended, color=CHOSEN, linestyle="--",
                     label="k = %d" % found.recommended)
        axes.set_xscale("log", base=2)
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.minorticks_off()
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("k")
        axes.grid(alpha=0.3)
        axes.legend()
    return figure
