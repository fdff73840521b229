"""What only the daemon's package can tell before files are put in place; see install-on-jetson.

In: the folder that stands for /, the folder that a new model and codebook are put into, the config,
the new model and the new codebook ("" for none). Out: a line `named PATH`, the network that the
config names, and a line for all that would keep the daemon from starting with what is new.
"""

import os
import sqlite3
import sys

from jetson_cluster import codebook, config, recipe
from jetson_cluster.doctor.catalog import catalog_read
from jetson_cluster.errors import UserError


def problems(root, state, settings, new_model, new_codebook):
    """What is wrong with the new files, in words; raises UserError if nothing can be compared."""
    def placed(path):
        return _placed(root, path)

    model = _model(new_model or placed(settings.model), settings.recipe and placed(settings.recipe),
                   state, new_model)
    clusters = placed(settings.codebook)
    if new_codebook and clusters != os.path.join(state, "codebook.npz"):
        yield ("config %s: its codebook is %s, where --codebook would not put it; copy it there "
               "and leave --codebook out" % (settings.path, clusters))
    elif new_codebook:
        yield from _of_codebooks([new_codebook], model, "")
    elif os.path.lexists(clusters):
        # As the daemon does: a bad one does no harm where a good one was kept.
        kept = os.path.join(placed(settings.state_dir), "last-good", "codebook.npz")
        yield from _of_codebooks([clusters, kept], model, " and give it with --codebook")
    catalog = placed(settings.catalog_path)
    if model and os.path.lexists(catalog):
        yield from _of_catalog(catalog, model)


def _placed(root, path):
    """A path of the config; a relative one is below the root already."""
    return path if path.startswith(root) else root + path


def _model(path, recipe_path, state, new_model):
    """The model the daemon would have; None if that is not a new one and cannot be read."""
    if new_model and recipe_path == os.path.join(state, "model.recipe.yaml"):
        recipe_path = None  # the new one's goes there
    try:
        return recipe.load_model(path, recipe_path)
    except UserError:
        if new_model:
            raise
        return None  # there is none yet; what is wrong with an old one is said by `build`


def _of_codebooks(paths, model, mend):
    """What is wrong with the first, if none of them will do."""
    errors = []
    for path in paths:
        try:
            codebook.load(path, *((model.space, model.recipe.dimension) if model else ()))
            return
        except UserError as error:
            errors.append(error)
    yield "%s%s" % (errors[0], mend)


def _of_catalog(path, model):
    aside = ("move catalog.sqlite aside (systemctl stop jetson-cluster; mv %s %s.old) or set "
             "state_dir to a new folder" % (path, path))
    try:
        with catalog_read(path) as database:
            row = database.execute("SELECT value FROM meta WHERE key = 'space'").fetchone()
    except sqlite3.Error as error:
        yield "catalog %s: cannot be read (%s); %s" % (path, error, aside)
        return
    space = row[0] if row else "an unknown space"
    if space != model.space:
        yield "catalog %s: holds embeddings of %s, but the model here gives %s; %s" % (
            path, space, model.space, aside)


def main(root, state, config_path, new_model, new_codebook):
    """Prints the lines."""
    try:
        settings = config.load(config_path)
        print("named", _placed(root, settings.model))
        if new_model or new_codebook:
            for problem in problems(root, state, settings, new_model, new_codebook):
                print(problem)
    except UserError as error:
        print(error)


if __name__ == "__main__":
    main(*sys.argv[1:])
