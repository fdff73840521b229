"""`tools/bench yield`: what ranking buys, in terrain seen and odd ones found for the same bytes.

Many random days (streams.py) are made from drawn pictures and, where they lie beside the checkout,
from real Mars tiles; each has an archive that the clusters are fitted to. Every rule (ours.py,
peers.py) puts the day's stream into an order, a pass takes what fits into 5, 10 and 25 % of its
bytes, and measures.py says what that gave. Ours is the rover's own path: a catalog on disk,
placing, quality, near-duplicates, the head of the queue.
"""

import argparse
import os
from typing import Callable, Dict, List

import machine
import measures
import numpy as np
import ours
import peers
import pictures
import streams
from measures import BUDGETS

from jetson_cluster import recipe
from jetson_cluster.ground.clustering import fit_codebook

CACHE = os.path.join(machine.ROOT, ".cache", "yield")
SEEDS_FROM = 5000  # whatever was tried out, was tried out on others
DRAWS = 1000
IMAGES_PER_CLUSTER = 10
DRAWN = streams.Plan(archive=(12, 36), dominating=45, ordinary=(2, 6), held_out=(2, 6), shots=3,
                     discoveries=(2, 4), junk_share=0.12, copies_of_dominating=0.6,
                     copies_of_others=0.25)
# 24 different images of the dominating class are three tiles, 8 crops each.
TILES = DRAWN._replace(archive=(8, 16), dominating=24, ordinary=(2, 5), held_out=(2, 4), shots=2,
                       discoveries=(0, 0))
OURS = "ours"
BEST = "the most that is possible"

RULES = {
    OURS: lambda case: [ours.order(case, ours.DEFAULT)],
    "ours, explore 0.7": lambda case: [ours.order(case, ours.DEFAULT._replace(explore=0.7))],
    "ours, pass_by score_per_byte": lambda case: [
        ours.order(case, ours.DEFAULT._replace(pass_by="score_per_byte"))],
    "first in, first out": lambda case: [peers.first_come(case)],
    "every n-th": None,  # another order for each budget
    "random, %d draws" % DRAWS: lambda case: [
        peers.at_random(case, draw) for draw in range(DRAWS)],
    "farthest first": lambda case: [peers.farthest_first(case)],
    "farthest first after the archive": lambda case: [peers.farthest_first_after_archive(case)],
    "Isolation Forest": lambda case: [peers.isolation_forest(case)],
    "novelty only": lambda case: [peers.novelty_only(case)],
    # What part of the difference is owed to looking at quality.
    "ours, quality not judged": lambda case: [ours.order(ours.unmeasured(case), ours.DEFAULT)],
    "farthest first, behind our quality gate": lambda case: [
        ours.gated(case, peers.farthest_first(case))],
    "farthest first after the archive, behind our gate": lambda case: [
        ours.gated(case, peers.farthest_first_after_archive(case))],
    "novelty only, behind our gate": lambda case: [
        ours.gated(case, peers.novelty_only(case))],
}  # type: Dict[str, Callable[[peers.Case], List[np.ndarray]]]


def main():
    """Print the tables of each kind of picture."""
    parser = argparse.ArgumentParser(prog="tools/bench yield")
    parser.add_argument("--model", metavar="FILE.onnx")
    parser.add_argument("--streams", type=int, default=60,
                        help="of each kind (default %(default)s)")
    args = parser.parse_args()
    model = recipe.load_model(args.model or machine.models()[-1])
    print("Embeddings of %s.\n" % model.space.split("@")[0])
    for name, make, plan in (("Drawn", pictures.drawn, DRAWN), ("Real", pictures.tiles, TILES)):
        found = make(CACHE)
        if not found:
            print("No real Mars tiles at %s." % os.path.normpath(pictures.TILES))
            continue
        pool = pictures.read(found, model, os.path.join(
            CACHE, "%s-%s.npz" % (name.lower(), model.space.split("@")[1])))
        report(name, pool, plan, range(SEEDS_FROM, SEEDS_FROM + args.streams))


def report(name, pool, plan, seeds):
    """Measure every rule on every stream and print three tables."""
    days = [streams.draw(pool.pictures, plan, seed) for seed in seeds]
    yields = {rule: [] for rule in list(RULES) + [BEST]}
    for seed, day in zip(seeds, days):
        case, truth = case_of(pool, day, seed), truth_of(pool, day)
        for rule, order in RULES.items():
            yields[rule].append(mean_of([measures.judge(one, case.bytes, truth)
                                         for one in order(case)])
                                if order else every_nth(case, truth))
        yields[BEST].append(measures.judge(
            measures.best_classes(case.bytes, truth), case.bytes, truth))
    table = {rule: np.array([measures.flat(one) for one in rows]) for rule, rows in yields.items()}
    print("%s pictures, %d streams of %d images on average, %d of them odd and %d junk; archives "
          "of %d images. Mean ± standard deviation over streams.\n" % (
              name, len(days), np.mean([len(day.arrivals) for day in days]),
              *np.mean([[(truth.odd != "").sum(), truth.junk.sum()] for truth in (
                  truth_of(pool, day) for day in days)], axis=0).round().astype(int),
              np.mean([len(day.archive) for day in days])))
    shares = " / ".join("%g" % (100 * share) for share in BUDGETS)
    print(machine.table(
        ["rule", "classes of terrain sent, %%, in %s %% of the bytes" % shares,
         "junk among the sent, %"],
        [[rule] + [spread(table[rule], field) for field in ("classes", "junk")]
         for rule in table]) + "\n")
    print(machine.table(
        ["rule", "precision at N, %", "mean rank of the odd, % of the stream",
         "kinds of odd sent, %%, in %s %%" % shares, "odd ones sent, %"],
        [[rule] + [spread(table[rule], field)
                   for field in ("precision", "mean_rank", "odd_kinds", "odd")]
         for rule in table if rule != BEST]) + "\n")
    print("Ours less each, on the same streams: points in the mean ± what makes 95 %.\n")
    print(machine.table(
        ["ours less", "classes, in %s %%" % shares, "kinds of odd", "precision at N",
         "mean rank (less is better)"],
        [[rule] + [sureness(table[OURS] - table[rule], field)
                   for field in ("classes", "odd_kinds", "precision", "mean_rank")]
         for rule in table if rule not in (OURS, BEST)]) + "\n")


def case_of(pool, day, seed):
    """What the rules may see of a day."""
    archive = pool.embeddings[day.archive]
    scenes = [pool.pictures[place].scene for place in day.archive]
    clusters = max(2, len(archive) // IMAGES_PER_CLUSTER)
    fitted = fit_codebook(archive, scenes, clusters, seed, "bench")
    return peers.Case(archive, pool.embeddings[day.arrivals], pool.bytes[day.arrivals],
                      pool.measures[day.arrivals], pool.sha256[day.arrivals], fitted.codebook, seed)


def truth_of(pool, day):
    """What they may not see."""
    shown = [pool.pictures[place] for place in day.arrivals]
    return measures.Truth(
        np.array([one.kind if one.role == pictures.TERRAIN else "" for one in shown]),
        np.array([one.kind if one.role == pictures.DISCOVERY or one.kind in day.held_out else ""
                  for one in shown]),
        np.array([one.role == pictures.JUNK for one in shown]))


def mean_of(yields):
    """The mean of several orders of one rule."""
    return measures.unflat(np.mean([measures.flat(one) for one in yields], axis=0))


def every_nth(case, truth):
    """n follows the budget; precision and mean rank are those of the middle one."""
    each = [measures.judge(peers.every_nth(case, share), case.bytes, truth) for share in BUDGETS]
    lists = [[getattr(one, field)[place] for place, one in enumerate(each)]
             for field in measures.Yield._fields[:4]]
    return measures.Yield(*lists, precision=each[1].precision, mean_rank=each[1].mean_rank)


def spread(rows, field):
    """"mean ± standard deviation" in percent, of one field at each budget."""
    values = 100 * np.array([np.ravel(getattr(measures.unflat(row), field)) for row in rows])
    return " / ".join("%.0f ± %.0f" % pair
                      for pair in zip(values.mean(axis=0), values.std(axis=0, ddof=1)))


def sureness(rows, field):
    """The mean with half of its 95 % interval, in points of percent; bold where it leaves out 0."""
    values = 100 * np.array([np.ravel(getattr(measures.unflat(row), field)) for row in rows])
    half = 1.96 * values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return " / ".join(("**%+.0f ± %.0f**" if abs(mean) > reach else "%+.0f ± %.0f") % (mean, reach)
                      for mean, reach in zip(values.mean(axis=0), half))


if __name__ == "__main__":
    main()
