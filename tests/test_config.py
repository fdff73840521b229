"""Settings: defaults for everything, every mistake told at once, an example that is true."""

import math
import os
import subprocess

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from jetson_cluster import config
from jetson_cluster.errors import UserError, WorldError


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "config.yaml"
        path.write_bytes(text.encode("utf-8"))
        return str(path)
    return write


def refusal(path, overrides=()):
    with pytest.raises(UserError) as caught:
        config.load(path, overrides)
    message = str(caught.value)
    assert message.startswith("config %s: " % path) and "\n" not in message
    return message


def flat(mapping):
    """{"inbox.path": ..., "batch": ...} of nested settings."""
    found = {}
    for key, value in mapping.items():
        if isinstance(value, dict):
            found.update(("%s.%s" % (key, inner), held) for inner, held in value.items())
        else:
            found[key] = value
    return found


def as_nested(loaded):
    """A Config as the mapping it could have been read from."""
    fields = {key: dict(held._asdict()) if key in config.SECTIONS else held
              for key, held in loaded._asdict().items()}
    del fields["path"]
    return fields


@pytest.mark.parametrize("text", ["", "# all defaults\n", "{}", "inbox:\nqueue:\n", "inbox: {}"])
def test_a_file_that_says_nothing_gives_the_defaults(write, text):
    loaded = config.load(write(text))
    expected = dict(flat(config.DEFAULTS), **{
        "queue.path": "/var/lib/jetson-cluster/queue.csv",
        "status.prom": "/var/lib/jetson-cluster/status.prom"})
    assert flat(as_nested(loaded)) == expected
    assert loaded.catalog_path == "/var/lib/jetson-cluster/catalog.sqlite"
    assert loaded.status_path == "/var/lib/jetson-cluster/status.json"
    assert loaded.previews_path == "/var/lib/jetson-cluster/previews"


def test_every_setting_has_a_default_of_its_own(write):
    assert set(flat(config.DEFAULTS)) == set(flat(as_nested(config.load(write("")))))


def test_a_relative_path_is_taken_from_the_folder_of_the_file_an_override_from_here(
        write, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(str(here))
    loaded = config.load(
        write("state_dir: state\nmodel: ../model.onnx\ninbox: {path: in}\ncodebook: ~/book.npz\n"),
        ["queue.path=out/queue.csv", "policy=policy.yaml"])
    assert loaded.state_dir == str(tmp_path / "state")
    assert loaded.model == str(tmp_path.parent / "model.onnx")
    assert loaded.inbox.path == str(tmp_path / "in")
    assert loaded.codebook == os.path.expanduser("~/book.npz")
    assert loaded.queue.path == str(here / "out" / "queue.csv")
    assert loaded.policy == str(here / "policy.yaml")


def test_the_queue_stands_in_the_state_folder_unless_it_is_put_elsewhere(write):
    assert config.load(write("state_dir: /data/s")).queue.path == "/data/s/queue.csv"
    assert config.load(write(""), ["state_dir=/data/t"]).queue.path == "/data/t/queue.csv"
    assert config.load(write("queue: {path: /out/q.csv}")).queue.path == "/out/q.csv"


def test_so_does_what_is_written_for_prometheus(write):
    assert config.load(write("state_dir: /data/s")).status.prom == "/data/s/status.prom"
    assert config.load(write("status: {prom: m/x.prom}")).status.prom == os.path.join(
        os.path.dirname(write("")), "m", "x.prom")


def test_there_is_an_outbox_only_where_one_is_named(write, tmp_path):
    assert config.load(write("")).outbox.path is None
    assert config.load(write("outbox: {path: out}")).outbox.path == str(tmp_path / "out")
    assert config.load(write("")).orders.path == "/var/spool/jetson-cluster/orders"


@pytest.mark.parametrize("key, text", [
    ("preview.format", "jpeg"), ("preview.format", "wepb"),
    # Deleting what the ground never received cannot be asked for by a short word or by mistake.
    ("retention.unacknowledged", "delete"), ("retention.unacknowledged", "true"),
    ("retention.unacknowledged", "DELETE-IMAGES-THE-GROUND-NEVER-RECEIVED")])
def test_a_word_is_one_of_a_few(write, key, text):
    message = refusal(write(""), ["%s=%s" % (key, text)])
    assert "'%s' must be " % key in message
    section, name = key.split(".")
    with pytest.raises(UserError):
        config.load(write("%s: {%s: %s}" % (section, name, text)))


def test_what_may_be_deleted_is_said_in_words_that_cannot_be_mistaken(write):
    assert config.load(write("")).retention.unacknowledged == "keep"
    words = "delete-images-the-ground-never-received"
    assert config.load(write("retention: {unacknowledged: %s}" % words)
                       ).retention.unacknowledged == words == config.DELETE_UNRECEIVED


def test_an_override_wins_over_the_file_and_the_last_over_the_first(write):
    path = write("batch: 3\ninbox: {settle_s: 5}\nrecipe: /a.yaml\n")
    loaded = config.load(path, ["batch=4", "inbox.settle_s=0.2", "batch=5", "recipe="])
    assert (loaded.batch, loaded.inbox.settle_s, loaded.recipe) == (5, 0.2, None)
    assert loaded.inbox.rescan_s == 30.0


@pytest.mark.parametrize("key", sorted(flat(config.DEFAULTS)))
def test_an_empty_key_means_the_default(write, key):
    section, dot, inner = key.partition(".")
    text = "%s:\n  %s:\n" % (section, inner) if dot else section + ":\n"
    defaults = as_nested(config.load(write("")))
    assert as_nested(config.load(write(text))) == defaults
    assert as_nested(config.load(write(""), [key + "="])) == defaults


def test_an_empty_override_takes_back_what_the_file_says(write):
    path = write("batch: 3\nembedder: openvino\ninbox: {max_file_bytes: 5}\n")
    loaded = config.load(path, ["batch=", "embedder=null", "inbox.max_file_bytes=~"])
    assert (loaded.batch, loaded.embedder, loaded.inbox.max_file_bytes) == (0, "auto", 67108864)


@pytest.mark.parametrize("text, value", [
    ("1e3", 1000.0), ("1E3", 1000.0), ("+2e-1", 0.2), ("1.5e2", 150.0), ("1.0e+3", 1000.0)])
def test_a_number_may_be_written_with_an_exponent(write, text, value):
    loaded = config.load(write("inbox: {rescan_s: %s}" % text), ["queue.interval_s=" + text])
    assert loaded.inbox.rescan_s == loaded.queue.interval_s == value


@pytest.mark.parametrize("text", ["1e9", "1e999", "e3", "1e", "one", "1_0e2x"])
def test_what_only_looks_like_an_exponent_is_refused(write, text):
    assert "'inbox.rescan_s' must be a number" in refusal(write("inbox: {rescan_s: %s}" % text))


def test_every_mistake_is_told_at_once(write):
    message = refusal(write(
        "state_dir: ''\nmodle: x\nmodel: 5\nembedder: tensorflow\nbatch: -1\nthreads: 1.5\n"
        "log_level: inf\ninbox: {path: '', settel_s: 1, rescan_s: 1e9, max_pixels: many, 3: 4}\n"
        "queue: {rows: 0, interval_s: .nan, path: [a]}\n"),
        ["inbox.setle_s=3", "nonsense", "batch=[", "bacth=1"])
    for part in ("'state_dir' must be text", "unknown key 'modle'; did you mean 'model'?",
                 "'model' must be text, not 5", "'embedder' must be one of auto",
                 "'batch' must be a whole number from 0 to 1024, not -1", "'threads'",
                 "'log_level' must be one of debug, info, warning, error, not 'inf'; did you mean "
                 "'info'?", "'inbox.path' must be text", "unknown key 'inbox.settel_s'; "
                 "did you mean 'settle_s'?", "'inbox.rescan_s'", "'inbox.max_pixels'",
                 "unknown key 'inbox.3'", "'queue.rows'", "'queue.interval_s'", "'queue.path'",
                 "--set inbox.setle_s=3: unknown key 'inbox.setle_s'; did you mean "
                 "'inbox.settle_s'?", "--set nonsense: expected key=value", "--set batch=[",
                 "--set bacth=1: unknown key 'bacth'; did you mean 'batch'?"):
        assert part in message, part
    assert "19 mistakes" in message


NUMBERS = {
    "batch": (0, 1024), "threads": (0, 1024), "inbox.settle_s": (0.01, 3600),
    "inbox.rescan_s": (0.1, 3600), "inbox.max_file_bytes": (1, 2 ** 40),
    "inbox.max_pixels": (1, 10 ** 10), "inbox.sixteen_bit_white": (1, 65535),
    "queue.rows": (1, 100000), "queue.interval_s": (0.1, 3600), "outbox.bytes": (1, 2 ** 50),
    "retention.free_bytes": (0, 2 ** 50),
    "preview.max_bytes": (1024, 65536)}


@pytest.mark.parametrize("key", sorted(NUMBERS))
def test_a_number_is_taken_within_its_range_and_refused_outside_it(write, key):
    low, high = NUMBERS[key]
    whole = isinstance(low, int)
    step = 1 if whole else 0.001
    for value in (low, high):
        loaded = flat(as_nested(config.load(write(""), ["%s=%s" % (key, value)])))[key]
        assert loaded == value and isinstance(loaded, int if whole else float)
    for value in (low - step, high + step, "true", "'1'", "[1]", ".inf", "-.inf", ".nan",
                  "1" * 500):
        message = refusal(write(""), ["%s=%s" % (key, value)])
        assert "'%s' must be a %snumber" % (key, "whole " if whole else "") in message, value
        assert len(message) < 400


@pytest.mark.parametrize("key", [key for key in sorted(NUMBERS) if key.endswith("bytes")]
                         + ["tensorrt.workspace_bytes"])
@pytest.mark.parametrize("text", ["60kB", "5 GB", "1.5MiB", "4M"])
def test_bytes_with_a_unit_are_told_that_they_want_none(write, key, text):
    section, _, inner = key.partition(".")
    wanted = "'%s' must be a whole number of bytes, without a unit (60000 for 60kB), not '%s'" % (
        key, text)
    assert wanted in refusal(write(""), ["%s=%s" % (key, text)])
    assert wanted in refusal(write("%s: {%s: %s}\n" % (section, inner, text)))


def test_a_file_of_another_kind_is_taken_for_one_and_the_keys_are_named_once(root):
    message = refusal(str(root / "systemd" / "policy.yaml"))
    assert "none of its 11 keys is known ('clusters', 'explore', 'signature', ...); is this " \
           "another file? known: state_dir, model, " in message
    assert message.count("known:") == 1 and "mistakes" not in message


def test_of_several_unknown_keys_the_known_ones_are_named_once(write):
    message = refusal(write("batch: 1\nqqqq: 1\nmodle: x\nzzzz: 2\n"))
    assert "unknown key 'qqqq'; unknown key 'modle'; did you mean 'model'?; unknown key 'zzzz'; " \
           "known: state_dir, " in message
    assert message.count("known:") == 1


@pytest.mark.parametrize("key, other", [
    ("heat.warm_c", "heat.hot_c=120"), ("heat.hot_c", "heat.warm_c=20")])
def test_a_temperature_is_one_that_silicon_can_live_with(write, key, other):
    assert config.load(write(""), [key + "=66.5", other])
    for value in ("19.9", "120.1", "cold", "true", ".nan"):
        assert "'%s' must be a number from 20 to 120" % key in refusal(
            write(""), ["%s=%s" % (key, value), other])


@pytest.mark.parametrize("text", [
    "{warm_c: 90}", "{hot_c: 80}", "{warm_c: 95, hot_c: 85}", "{warm_c: 70, hot_c: 70}"])
def test_hot_must_be_above_warm(write, text):
    assert "'heat.hot_c' is " in refusal(write("heat: " + text))


@pytest.mark.parametrize("text", [
    "- 1", "just words", "[", "inbox: 5", "inbox: [path]", "state_dir: \"a\\0b\"",
    "state_dir: \"\\ud800\"", "batch: 2024-13-45", "batch: !!int ''", "batch: !!bool x",
    "? [1]\n: 2", "batch: &a {b: *a}", "state_dir: " + "[" * 1000, "batch: 1\nbatch: 2",
    "log_level: \"a\\nb\"", "batch: !!python/name:os.system"],
    ids=lambda text: repr(text)[:24])
def test_a_file_that_is_no_config_is_refused_in_one_line(write, text):
    refusal(write(text))


@settings(deadline=None, max_examples=150, database=None)
@given(content=st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(sorted(config.DEFAULTS) + sorted(config.DEFAULTS["inbox"]))
        | st.text(max_size=4) | st.integers(), inner, max_size=5), max_leaves=12))
def test_any_yaml_is_a_config_or_refused_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "config.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    try:
        loaded = config.load(str(path))
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert all(os.path.isabs(held) for held in (loaded.state_dir, loaded.model, loaded.policy))
        assert all(not isinstance(value, float) or math.isfinite(value)
                   for value in flat(as_nested(loaded)).values())


def test_a_config_that_is_not_there_is_named(tmp_path):
    path = str(tmp_path / "absent.yaml")
    assert refusal(path) == "config %s: cannot be read: No such file or directory" % path
    assert "cannot be read" in refusal(str(tmp_path))


@pytest.mark.parametrize("text", [
    "inbox: {path: /in}\nstate_dir: /in", "inbox: {path: /in/}\nstate_dir: /in/state",
    "inbox: {path: in}\nstate_dir: ./in/../in//state", "inbox: {path: /}\nstate_dir: /data",
    "inbox: {path: in}\nstate_dir: x/../in"])
def test_the_state_folder_must_not_lie_in_the_inbox(write, text):
    assert "'state_dir' is " in refusal(write(text)) and "inside the inbox" in refusal(write(text))


def test_neither_through_a_link_nor_the_queue_alone(write, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in")
    assert "'state_dir' is " in refusal(write("inbox: {path: in}\nstate_dir: link/state"))
    message = refusal(write("inbox: {path: in}\nstate_dir: s\nqueue: {path: in/queue.csv}"))
    assert "'queue.path' is " in message and "state_dir" not in message


@pytest.mark.parametrize("key", ["orders.path", "outbox.path", "status.prom"])
def test_nor_may_orders_links_or_status_lie_there(write, key):
    section, name = key.split(".")
    message = refusal(write("inbox: {path: in}\nstate_dir: s\n%s: {%s: in/x}" % (section, name)))
    assert "'%s' is " % key in message and "inside the inbox" in message


@pytest.mark.parametrize("text, key", [
    ("orders: {path: s}", "state_dir"), ("orders: {path: s/last-good}", "state_dir"),
    ("orders: {path: s/previews}", "state_dir"),
    ("orders: {path: o}\noutbox: {path: o}", "outbox.path"),
    ("orders: {path: o}\noutbox: {path: o/outbox}", "outbox.path"),
    ("orders: {path: link}\noutbox: {path: o}", "outbox.path"),
    ("orders: {path: .}", "state_dir"), ("orders: {path: o}\nmodel: o/m.onnx", "model"),
    ("orders: {path: o}\nrecipe: o/m.yaml", "recipe"),
    ("orders: {path: o}\ncodebook: o/c.npz", "codebook"),
    ("orders: {path: o}\npolicy: o/policy.yaml", "policy"),
    ("orders: {path: o}\nqueue: {path: o/queue.csv}", "queue.path"),
    ("orders: {path: o}\nstatus: {prom: o/status.prom}", "status.prom"),
    ("orders: {path: .}\nstate_dir: /data/s", "--config")])
def test_the_drop_folder_must_hold_nothing_of_ours(write, tmp_path, text, key):
    (tmp_path / "link").symlink_to("o")
    if "state_dir" not in text:
        text += "\nstate_dir: s"
    assert "which holds what '%s' names" % key in refusal(write(text))


def test_a_drop_folder_of_its_own_is_fine_also_inside_the_state_folder(write):
    config.load(write("state_dir: s\norders: {path: s/orders}\noutbox: {path: s/outbox}"))


@pytest.mark.parametrize("word", ["yes", "no", "true", "1"])
def test_what_to_do_with_unacknowledged_images_is_asked_for_in_words(write, word):
    assert ("'retention.unacknowledged' must be one of keep, "
            "delete-images-the-ground-never-received" in refusal(write(
                "retention: {unacknowledged: %s}" % word)))


def test_an_inbox_beside_or_inside_the_state_folder_is_fine(write):
    config.load(write("inbox: {path: /data/inbox}\nstate_dir: /data/inbox2"))
    config.load(write("inbox: {path: /data/state/inbox}\nstate_dir: /data/state"))


def test_folders_are_made_where_they_can_be_and_the_key_is_named_where_not(write, tmp_path):
    loaded = config.load(write("state_dir: a/b\ninbox: {path: c/d}\nqueue: {path: e/f/q.csv}"))
    config.make_folders(loaded)
    config.make_folders(loaded)
    assert all((tmp_path / name).is_dir() for name in ("a/b", "e/f"))
    assert not (tmp_path / "c").exists()  # the inbox is the cameras'; it may be a card not mounted
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="'state_dir' is .*, which cannot be made"):
        config.make_folders(config.load(write("state_dir: file/state")))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_disk_that_is_read_only_is_the_worlds_fault_and_systemd_tries_again(write, tmp_path):
    (tmp_path / "disk").mkdir()
    if subprocess.call(["mount", "-t", "tmpfs", "-o", "ro", "disk", str(tmp_path / "disk")]):
        pytest.skip("this root may not mount")
    try:
        for folder in ("disk", "disk/state"):
            with pytest.raises(WorldError):
                config.make_folders(config.load(write("state_dir: " + folder)))
    finally:
        subprocess.check_call(["umount", str(tmp_path / "disk")])


def test_the_example_names_every_key_with_its_default(root):
    path = str(root / "systemd" / "config.yaml")
    with open(path, encoding="utf-8") as stream:
        assert yaml.safe_load(stream) == config.DEFAULTS
    config.load(path)


def test_the_example_explains_every_key(root):
    """A comment stands above each key, or above the group of keys it begins."""
    lines = (root / "systemd" / "config.yaml").read_text(encoding="utf-8").splitlines()
    explained = False
    for line in lines:
        if line.strip().startswith("#"):
            explained = True
        elif not line.strip():
            explained = False
        elif not line.endswith(":"):
            assert explained, line
