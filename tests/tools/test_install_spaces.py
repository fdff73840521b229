"""tools/install-on-jetson with a network, codebook and catalog that do not belong together.

The catalogs, codebooks and recipes are real ones, read by the package as on a rover.
"""

import shutil

import pytest
from jetson_root import Jetson, one_error


@pytest.fixture
def jetson(tmp_path):
    return Jetson(tmp_path)


@pytest.fixture
def used(jetson):
    """A rover that has worked: its catalog is of the network's space."""
    jetson.install()
    jetson.catalog(jetson.give("a network"))
    jetson.calls()
    return jetson


def assert_refused(jetson, out, *words):
    """One thing is wrong, it says `words`, and nothing was done."""
    line, = [line for line in out.splitlines() if line.startswith("MISSING  ")]
    assert all(word in line for word in words), line
    assert jetson.calls() == []


def test_another_network_on_a_rover_with_a_catalog_is_refused_before_anything_changes(used):
    old, new = used.give("a network"), used.give("another network")
    before = used.files()
    status, out, err = used.run("--model", used.model, "--codebook", used.codebook)
    assert status == 1 and "nothing was changed" in one_error(err)
    assert_refused(used, out, "catalog: ", old, new, "move catalog.sqlite aside", "state_dir")
    assert used.files() == before


def test_once_the_catalog_is_aside_another_network_is_installed(used):
    used.give("another network")
    catalog = used.root / "var/lib/jetson-cluster/catalog.sqlite"
    catalog.rename(str(catalog) + ".old")
    used.install()
    assert catalog.with_name("model.onnx").read_text() == "another network"


def test_the_catalog_is_looked_for_where_the_settings_say(used):
    used.write("etc/jetson-cluster/config.yaml", "state_dir: /data/state\n")
    used.give("another network")
    used.install()


def test_a_catalog_that_cannot_be_read_is_refused(used):
    used.write("var/lib/jetson-cluster/catalog.sqlite", "no database at all\n" * 100)
    status, out, _ = used.run("--model", used.model)
    assert status == 1
    assert_refused(used, out, "catalog: ", "not a database", "move catalog.sqlite aside")


def test_the_same_network_again_is_no_matter(used):
    used.install()
    status, out, err = used.run("--model", used.model)
    assert (status, err) == (0, ""), out + err
    status, out, err = used.run("--codebook", used.codebook)
    assert (status, err) == (0, ""), out + err


def test_another_network_without_its_codebook_is_refused(jetson):
    jetson.install()
    jetson.calls()
    before = jetson.files()
    jetson.give("another network")
    status, out, _ = jetson.run("--model", jetson.model)
    assert status == 1 and jetson.files() == before
    assert_refused(jetson, out, "codebook: ", "fit a codebook with this model", "--codebook")


def test_a_damaged_codebook_is_no_matter_where_the_daemon_kept_a_good_one(jetson):
    jetson.install()
    state = jetson.root / "var/lib/jetson-cluster"
    (state / "last-good").mkdir()
    shutil.copy(str(state / "codebook.npz"), str(state / "last-good"))
    (state / "codebook.npz").write_text("damaged")
    status, out, err = jetson.run("--model", jetson.model)
    assert (status, err) == (0, ""), out + err


def test_a_codebook_of_another_network_is_refused(used):
    before = used.files()
    used.give("another network")
    status, out, _ = used.run("--codebook", used.codebook)
    assert status == 1 and used.files() == before
    assert_refused(used, out, "codebook: ", str(used.codebook), "fit a codebook with this model")


def test_a_codebook_is_refused_where_the_settings_name_another(used):
    used.write("etc/jetson-cluster/config.yaml", "codebook: /data/clusters.npz\n")
    status, out, _ = used.run("--codebook", used.codebook)
    assert status == 1
    assert_refused(used, out, "config: ", "/data/clusters.npz", "leave --codebook out")


@pytest.mark.parametrize("place, text, words", [
    ("etc/jetson-cluster/config.yaml", "modle: /data/net.onnx\n", ["config: ", "modle", "model"]),
    ("../given/net.recipe.yaml", "name: net\n", ["recipe: ", "dimension"])])
def test_settings_and_recipes_with_mistakes_are_refused(used, place, text, words):
    used.write(place, text)
    status, out, _ = used.run("--model", used.model)
    assert status == 1
    assert_refused(used, out, *words)


def test_the_recipe_that_the_settings_name_is_the_one_that_counts(used):
    # The daemon takes this one instead of the file beside the model: another layer, another space.
    used.write("etc/jetson-cluster/config.yaml", "recipe: other.yaml\n")
    recipe = used.model.with_name("net.recipe.yaml").read_text()
    used.write("etc/jetson-cluster/other.yaml", recipe.replace("pooled", "mixed"))
    status, out, _ = used.run("--model", used.model, "--codebook", used.codebook)
    assert status == 1 and "net/mixed@" in out and "net/pooled@" in out


def test_the_recipe_beside_the_model_may_be_named(used):
    used.write("etc/jetson-cluster/config.yaml",
               "recipe: /var/lib/jetson-cluster/model.recipe.yaml\n")
    used.root.joinpath("var/lib/jetson-cluster/catalog.sqlite").unlink()
    used.give("another network")
    used.install()


def test_without_libraries_to_ask_with_it_is_refused_before_a_file_is_replaced(used):
    shutil.rmtree(str(used.root / "opt/jetson-cluster"))
    used.tell("active", "active")
    state = used.root / "var/lib/jetson-cluster"
    before = {path.name: path.read_bytes() for path in state.iterdir()}
    used.give("another network")
    status, out, err = used.run("--model", used.model, "--codebook", used.codebook)
    assert status == 1 and "MISSING  " not in out
    assert "move catalog.sqlite aside" in one_error(err) and "no file was replaced" in err
    assert {path.name: path.read_bytes() for path in state.iterdir()} == before
    assert used.calls()[-1] == "systemctl --no-block start jetson-cluster"


def test_numpy_is_asked_with_the_environment_it_needs_on_a_nano(used):
    (used.told / "environments").write_text("")
    used.install()
    lines = [line for line in (used.told / "environments").read_text().splitlines()
             if " python -B " in line]
    assert len(lines) == 2 and all(line.startswith("ARMV8 ") for line in lines)


def test_a_package_that_cannot_answer_ends_it(used):
    used.root.joinpath("opt/jetson-cluster/bin/python").write_text(
        "#!/bin/bash\n[ \"$2\" = -c ] || { echo why >&2; exit 1; }\n")
    status, _, err = used.run("--model", used.model)
    assert status == 1 and "could not be looked into" in one_error(err) and "why" in err
    assert used.calls() == []
