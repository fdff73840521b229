"""What the doctor says of config, folders and files: real ones, made wrong one at a time."""

import os
import shutil
import sqlite3

import numpy as np
import pytest

from jetson_cluster import codebook
from jetson_cluster.database import Database
from jetson_cluster.doctor import contents, folders
from jetson_cluster.doctor.people import Person
from jetson_cluster.inbox import mount_point
from jetson_cluster.lock import lock_folder
from jetson_cluster.recipe import load_model

# Of the names in PROBES.
PROBES = dict(folders.PROBES + contents.PROBES, config=contents.config)


def finding_of(name, case):
    return PROBES[name](case)


def write_codebook(path, space, k=2):
    grid = np.linspace(0.1, 1, 65).astype(np.float32)
    codebook.save(str(path), codebook.Codebook(
        space=space, normalisation="l2", centroids=np.eye(k, 48, dtype=np.float32),
        counts=np.full(k, 5), scales=np.ones(k, np.float32), novelty_quantiles=grid,
        margin_quantiles=grid, r50=0.5, r95=0.9))


def everything_below(folder):
    return sorted((place, name) for place, names, files in os.walk(str(folder))
                  for name in names + files)


def test_a_config_that_is_right_is_named(computer, config):
    assert finding_of("config", computer.case(config)) == ("ok", str(config), "", "", "", "")


def test_every_mistake_of_a_config_is_in_its_row_and_what_it_names_is_not_guessed(computer, config):
    config.write_text("modl: x\nbatch: many\ninbox: {settle_s: -1}\n")
    case = computer.case(config)
    finding = finding_of("config", case)
    assert (finding.level, finding.fault) == ("bad", "config")
    for told in ("3 mistakes", "did you mean 'model'", "'batch'", "'inbox.settle_s'"):
        assert told in finding.found
    for name in set(PROBES) - {"config"}:
        assert finding_of(name, case)[:3] == ("skip", "cannot be told: the config is wrong", "")


def test_without_a_config_the_defaults_are_looked_at_and_that_is_said(computer, tmp_path):
    case = computer.case(tmp_path / "none.yaml")
    finding = finding_of("config", case)
    assert finding.level == "bad" and "goes by the defaults" in finding.found
    assert "install -D -m 644 systemd/config.yaml %s" % (tmp_path / "none.yaml") in finding.mend
    assert case.config.state_dir == "/var/lib/jetson-cluster"


def test_a_wrong_override_is_a_mistake_of_the_config(computer, config, tmp_path):
    for path in (config, tmp_path / "none.yaml"):
        case = computer.case(path, "bach=3")
        assert case.config is None
        assert "did you mean 'batch'" in finding_of("config", case).found


def test_a_state_dir_that_is_missing_is_made_by_the_daemon_and_not_by_the_doctor(computer, config):
    finding = finding_of("state_dir", computer.case(config))
    assert finding.level == "ok" and "is made at the first start" in finding.found
    assert not (config.parent / "state").exists()


def test_a_file_where_a_folder_is_wanted_is_told(computer, config):
    (config.parent / "state").write_text("")
    finding = finding_of("state_dir", computer.case(config))
    assert finding.fault == "config" and "is no folder" in finding.found


def test_permissions_are_those_of_the_services_account(computer, config):
    (config.parent / "state").mkdir()
    computer.file("/etc/systemd/system/jetson-cluster.service",
                  "[Service]\nUser=rover\nExecStart=/x run --config %s\n" % config)
    config.parent.chmod(0o700)
    case = computer.case(config)
    assert case.person.name == "rover"
    finding = finding_of("state_dir", case)
    assert finding.fault == "config" and finding.found.startswith(
        "%s: user rover may not enter " % (config.parent / "state"))


def test_a_folder_that_systemd_makes_is_not_missed(computer, config):
    computer.file("/etc/systemd/system/jetson-cluster.service",
                  "[Service]\nUser=rover\nExecStart=/x run --config %s\n"
                  "StateDirectory=surely-not-here\n" % config)
    finding = finding_of("state_dir", computer.case(config, "state_dir=/var/lib/surely-not-here"))
    assert finding.level == "ok" and "systemd makes it" in finding.found


@pytest.mark.parametrize("mode, groups, wanted, allowed", [
    (0o700, {1}, os.R_OK, False), (0o750, {77}, os.R_OK | os.X_OK, True),
    (0o750, {77}, os.W_OK, False), (0o770, {77}, os.W_OK, True), (0o702, {1}, os.W_OK, True)])
def test_another_users_permissions_are_read_from_the_bits(tmp_path, mode, groups, wanted, allowed):
    place = tmp_path / "place"
    place.mkdir()
    if os.geteuid() == 0:
        os.chown(str(place), 0, 77)
    else:
        groups = {place.stat().st_gid if group == 77 else group + 10 ** 6 for group in groups}
    place.chmod(mode)
    assert Person("x", 123456, frozenset(groups), False)._bits_allow(str(place), wanted) is allowed


def test_a_network_disk_is_told_because_of_the_write_ahead_log(computer, config):
    (config.parent / "state").mkdir()
    computer.file("/proc/self/mounts", "/dev/root / ext4 rw 0 0\nserver:/x %s nfs4 rw 0 0\n" % str(
        config.parent).replace(" ", "\\040"))
    finding = finding_of("state_dir", computer.case(config))
    assert finding.level == "warn" and "nfs4" in finding.found
    computer.file("/proc/self/mounts", "/dev/root / ext4 rw 0 0\n")
    assert finding_of("state_dir", computer.case(config)).found.endswith("(ext4)")


@pytest.mark.parametrize("free_bytes, level", [
    (10 ** 12, "ok"), (10 ** 8, "warn"), (10 ** 4, "bad")])
def test_a_disk_that_runs_full_is_told(computer, config, monkeypatch, free_bytes, level):
    held = os.statvfs(str(config.parent))

    def said(_folder):
        fields = list(held[:10])
        fields[1], fields[4] = 1, free_bytes  # f_frsize, f_bavail
        return os.statvfs_result(fields)
    monkeypatch.setattr(folders.os, "statvfs", said)
    finding = finding_of("disk", computer.case(config))
    assert finding.level == level
    assert "room for the records of about %s images, and only for them" % {
        "ok": "133.3 million", "warn": "13,000", "bad": "1"}[level] in finding.found
    assert finding.needed == ("" if level == "ok" else "0.75 GB, the records of 100,000 images")


def test_a_running_daemon_is_seen_and_left_alone(computer, config):
    state = config.parent / "state"
    state.mkdir()
    case = computer.case(config)
    assert finding_of("lock", case).found == "none runs on %s" % state and not case.running
    with lock_folder(str(state)):
        assert finding_of("lock", case).found == "runs on %s, process %d" % (state, os.getpid())
        assert case.running
    assert not case.running


def test_the_inbox_is_waited_for_whatever_is_wrong_with_it(computer, config):
    case = computer.case(config)
    assert finding_of("inbox", case).found.startswith("%s, on /" % (config.parent / "inbox"))
    (config.parent / "inbox").rmdir()
    finding = finding_of("inbox", case)
    assert finding.level == "warn" and "not there; the daemon waits" in finding.found


def test_an_inbox_whose_card_is_out_is_told(computer, config):
    (config.parent / "state").mkdir()
    inbox = str(config.parent / "inbox")
    with Database(str(config.parent / "state" / "catalog.sqlite"), "s") as held:
        held.remember("mount of " + inbox, inbox)
    finding = finding_of("inbox", computer.case(config))
    assert finding.level == "warn" and "nothing is mounted at %s" % inbox in finding.found


def test_an_inbox_that_is_where_it_was_is_fine(computer, config):
    (config.parent / "state").mkdir()
    inbox = str(config.parent / "inbox")
    with Database(str(config.parent / "state" / "catalog.sqlite"), "s") as held:
        held.remember("mount of " + inbox, mount_point(os.path.realpath(inbox)))
    assert finding_of("inbox", computer.case(config)).level == "ok"


def test_more_folders_than_may_be_watched_are_told(computer, config):
    for number in range(4):
        (config.parent / "inbox" / str(number)).mkdir()
    assert finding_of("inotify", computer.case(config)).found == "5 of 8192 allowed"
    computer.file("/proc/sys/fs/inotify/max_user_watches", "4\n")
    finding = finding_of("inotify", computer.case(config))
    assert finding.level == "warn"
    assert finding.mend == "sudo sysctl -w fs.inotify.max_user_watches=20"


def test_a_model_is_shown_with_its_space(computer, config, tiny):
    finding = finding_of("model", computer.case(config))
    assert finding.level == "ok" and load_model(tiny).space in finding.found
    assert "names no checksum" in finding.found


@pytest.mark.parametrize("missing", [(), ("onnx",)])
@pytest.mark.parametrize("content", [b"no network at all " * 50, bytes(range(256)) * 8])
def test_a_model_without_a_checksum_has_to_be_onnx(computer, config, tiny, content, missing):
    computer.without(*missing)
    assert finding_of("model", computer.case(config)).level == "ok"
    (config.parent / "m.onnx").write_bytes(content)
    shutil.copy(tiny.replace(".onnx", ".recipe.yaml"), str(config.parent / "m.recipe.yaml"))
    case = computer.case(config, "model=%s" % (config.parent / "m.onnx"))
    finding = finding_of("model", case)
    assert finding.fault == "config" and "is no ONNX file" in finding.found


def test_an_empty_network_is_refused(computer, config, tiny):
    (config.parent / "m.onnx").write_bytes(b"")
    shutil.copy(tiny.replace(".onnx", ".recipe.yaml"), str(config.parent / "m.recipe.yaml"))
    finding = finding_of("model", computer.case(
        config, "model=%s" % (config.parent / "m.onnx")))
    assert finding.level == "bad" and "there is no network in it" in finding.found


def test_a_model_that_nothing_here_can_check_is_told(computer, config):
    computer.without("onnx", "onnxruntime")
    finding = finding_of("model", computer.case(config))
    assert finding.level == "warn" and "no onnx here; no onnxruntime here" in finding.found
    assert "onnx_sha256" in finding.needed


def test_a_model_that_is_not_its_recipes_is_refused(computer, config, tiny):
    shutil.copy(tiny, str(config.parent / "m.onnx"))
    with open(tiny.replace(".onnx", ".recipe.yaml")) as stream:
        (config.parent / "m.recipe.yaml").write_text(
            stream.read() + "built: {onnx_sha256: '%s', weights_source: x, weights_sha256: '%s', "
            "output: embedding}\n" % ("0" * 64, "0" * 64))
    case = computer.case(config, "model=%s" % (config.parent / "m.onnx"))
    finding = finding_of("model", case)
    assert finding.fault == "config" and "not the file that" in finding.found
    assert case.model is None


def test_a_codebook_has_to_be_of_the_models_space(computer, config, tiny):
    space, path = load_model(tiny).space, config.parent / "codebook.npz"
    case = computer.case(config)
    assert finding_of("codebook", case).level == "warn"
    write_codebook(path, space)
    assert "2 clusters of " + space in finding_of("codebook", case).found
    write_codebook(path, "another/space@0")
    finding = finding_of("codebook", case)
    assert finding.fault == "config" and "another/space@0" in finding.found
    (config.parent / "state" / "last-good").mkdir(parents=True)
    write_codebook(config.parent / "state" / "last-good" / "codebook.npz", space)
    finding = finding_of("codebook", case)
    assert finding.level == "warn" and "going on with the last good one" in finding.found
    path.unlink()
    assert "last good one" in finding_of("codebook", case).found


def test_a_policy_is_read_and_held_against_the_codebook(computer, config):
    path, case = config.parent / "policy.yaml", computer.case(config)
    assert "none, every cluster" in finding_of("policy", case).found
    path.write_text("clusters: {1: {label: dunes, weight: 2}, 7: {label: rock}}\n")
    assert finding_of("policy", case).found == "%s, 2 labels, 1 weights" % path
    write_codebook(config.parent / "codebook.npz", "s")
    finding = finding_of("policy", case)
    assert finding.level == "warn" and "[7]" in finding.found and "0 to 1" in finding.needed
    path.write_text("clustrs: {}\n")
    assert finding_of("policy", case).fault == "config"


@pytest.fixture
def catalog(config):
    """The path of a catalog; its folder is there."""
    (config.parent / "state").mkdir()
    return str(config.parent / "state" / "catalog.sqlite")


def test_a_catalog_is_counted_while_the_daemon_writes_and_left_as_it_is(
        computer, config, tiny, catalog):
    case = computer.case(config)
    assert "none yet" in finding_of("catalog", case).found
    assert not os.path.exists(catalog)
    space = load_model(tiny).space
    with Database(catalog, space) as held:
        held._db.execute("INSERT INTO images (sha256, path, bytes, width, height, captured_at, "
                         "state) VALUES (x'00', 'a', 1, 1, 1, '', 'waiting')")
        before = everything_below(config.parent)
        finding = finding_of("catalog", case)
        assert finding.level == "ok" and "images: 1 waiting of " + space in finding.found
        assert everything_below(config.parent) == before
        held._db.execute("UPDATE images SET bytes = 2")  # nobody holds it up
    before = everything_below(config.parent)
    assert finding_of("catalog", case).level == "ok"
    assert everything_below(config.parent) == before


def test_a_catalog_of_another_space_is_refused(computer, config, catalog):
    Database(catalog, "another/space@0").close()
    finding = finding_of("catalog", computer.case(config))
    assert finding.fault == "config" and "another/space@0" in finding.found
    assert "tiny/pooled" in finding.needed


@pytest.mark.parametrize("statements, level, told", [
    (["PRAGMA user_version = 99"], "bad", "format 99"),
    (["PRAGMA user_version = 1"], "ok", "brought up to date at the next start"),
    (["PRAGMA user_version = 0"], "bad", "another program"),
    (["DROP TABLE meta"], "bad", "another program")])
def test_a_catalog_of_another_format_is_told(
        computer, config, tiny, catalog, statements, level, told):
    Database(catalog, load_model(tiny).space).close()
    with sqlite3.connect(catalog) as held:
        for statement in statements:
            held.execute(statement)
    held.close()
    finding = finding_of("catalog", computer.case(config))
    assert finding.level == level and told in finding.found


def test_a_catalog_that_is_damaged_is_told(computer, config, catalog):
    with open(catalog, "wb") as stream:
        stream.write(b"no database at all " * 100)
    finding = finding_of("catalog", computer.case(config))
    assert finding.fault == "world" and "not a database" in finding.found
    assert finding.mend.startswith("mv %s " % catalog)


def test_a_log_left_without_its_index_is_read_without_making_one(computer, config, tiny, catalog):
    with Database(catalog, load_model(tiny).space) as held:
        shutil.copy(catalog, catalog + ".copy")
        held._db.execute("INSERT INTO meta VALUES ('more', 1)")
        shutil.copy(catalog + "-wal", catalog + ".copy-wal")
    os.rename(catalog + ".copy", catalog)
    os.rename(catalog + ".copy-wal", catalog + "-wal")
    before = everything_below(config.parent)
    finding = finding_of("catalog", computer.case(config))
    assert everything_below(config.parent) == before
    assert finding.level == "skip" and "the next start brings it in order" in finding.found
