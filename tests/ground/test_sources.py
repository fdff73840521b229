"""Named weights are fetched, verified and kept; each way that can fail says so in one line.

The web is a server on this machine; npm and pip are the real ones.
"""

import functools
import hashlib
import http.server
import threading

import pytest

from jetson_cluster import recipe as recipes
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.ground import sources

CONTENT = bytes(range(256)) * 5000
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("JETSON_CLUSTER_CACHE", str(folder))
    return folder


@pytest.fixture
def recipe(engines):
    """A recipe whose only source of weights is the given entry."""
    base = recipes.load(engines / "inception_v3.yaml")
    return lambda **entry: base._replace(weights={"named": entry})


@pytest.fixture
def web(tmp_path):
    """(address of a folder with w.h5 in it, the folder, the paths asked for so far)."""
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "w.h5").write_bytes(CONTENT)
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder, asked
    server.shutdown()
    thread.join()
    server.server_close()


def get(source, recipe):
    with sources.local_weights(source, recipe) as path:
        return path, path.read_bytes() if path.is_file() else None


def refusal(kind, recipe, source="named"):
    with pytest.raises(kind) as caught:
        get(source, recipe)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_path_is_taken_as_it_is(tmp_path, recipe, cache):
    path = tmp_path / "w.pth"
    path.write_bytes(b"x")
    assert get(str(path), recipe()) == (path, b"x")
    assert not cache.exists()


def test_what_is_neither_a_name_nor_a_path_is_refused_with_the_names(recipe, engines):
    real = recipes.load(engines / "inception_v3.yaml")
    text = refusal(UserError, real, "imagnet")
    assert "imagenet, nsfwjs" in text and "did you mean 'imagenet'?" in text


def test_a_download_is_verified_and_kept(web, cache, recipe):
    address, folder, asked = web
    for checksum in ({"md5": MD5}, {"sha256": hashlib.sha256(CONTENT).hexdigest()}):
        path, content = get("named", recipe(url=f"{address}/w.h5", **checksum))
        assert content == CONTENT and path == cache / "w.h5"
    assert asked == ["/w.h5"]
    assert [p.name for p in cache.iterdir()] == ["w.h5"]


def test_a_kept_file_that_was_damaged_is_fetched_again(web, cache, recipe):
    address, _, asked = web
    path, _ = get("named", recipe(url=f"{address}/w.h5", md5=MD5))
    path.write_bytes(CONTENT[:-1])
    assert get("named", recipe(url=f"{address}/w.h5", md5=MD5))[1] == CONTENT
    assert len(asked) == 2


def test_a_download_with_another_checksum_is_refused_and_not_kept(web, cache, recipe):
    address, folder, _ = web
    (folder / "w.h5").write_bytes(b"a page that says you must log in")
    text = refusal(WorldError, recipe(url=f"{address}/w.h5", md5=MD5))
    assert MD5 in text and "weights.named" in text
    assert list(cache.iterdir()) == []


def test_a_server_that_cannot_be_reached_is_named(web, cache, recipe):
    address, _, _ = web
    assert "File not found" in refusal(WorldError, recipe(url=f"{address}/other.h5", md5=MD5))
    closed = "http://127.0.0.1:9/w.h5"
    text = refusal(WorldError, recipe(url=closed, md5=MD5))
    assert "127.0.0.1" in text and "give --weights the path" in text


def test_a_cache_that_cannot_be_written_is_named(web, tmp_path, recipe, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("JETSON_CLUSTER_CACHE", str(tmp_path / "file" / "cache"))
    assert "JETSON_CLUSTER_CACHE" in refusal(
        WorldError, recipe(url=f"{web[0]}/w.h5", md5=MD5))


@pytest.mark.parametrize("entry, part", [
    ({"md5": MD5}, "exactly one of url, npm and pip"),
    ({"url": "http://127.0.0.1:9/w", "npm": "x@1", "md5": MD5}, "exactly one of"),
    ({"url": "http://127.0.0.1:9/w"}, "needs a checksum"),
    ({"npm": "x@1", "md5": MD5}, "needs 'member'"),
    ({"url": "no address", "md5": MD5}, "weights.named.url"),
])
def test_an_entry_that_cannot_work_is_the_recipes_mistake(cache, recipe, entry, part):
    assert part in refusal(UserError, recipe(**entry))


def test_an_unknown_kind_of_integrity_is_the_recipes_mistake(web, cache, recipe):
    entry = {"url": f"{web[0]}/w.h5", "integrity": "crc32-AAAA"}
    assert "crc32" in refusal(UserError, recipe(**entry))


def test_the_npm_package_is_unpacked_for_as_long_as_it_is_needed(engines, nsfwjs_weights):
    with sources.local_weights("nsfwjs", recipes.load(engines / "inception_v3.yaml")) as folder:
        names = {path.name for path in folder.iterdir()}
        assert "model.min.js" in names and len(names) == 7
    assert not folder.exists()


def test_a_tool_that_is_not_installed_is_named(cache, recipe, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    entry = {"npm": "nsfwjs@4.3.0", "member": "package", "integrity": "sha512-AAAA"}
    assert "npm is not installed" in refusal(WorldError, recipe(**entry))


def test_a_package_that_is_not_there_is_the_worlds_failure(cache, recipe):
    entry = {"pip": "jetson-cluster==0.0.0.dev999", "member": "m.pth", "md5": MD5}
    assert "pip failed: ERROR" in refusal(WorldError, recipe(**entry))


def test_the_cache_stands_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.delenv("JETSON_CLUSTER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert sources.cache_folder() == tmp_path / "jetson-cluster"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert sources.cache_folder() == tmp_path / "home" / ".cache" / "jetson-cluster"
