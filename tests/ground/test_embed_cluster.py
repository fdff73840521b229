"""`embed --cluster` on a Dask cluster of real processes: the same corpus, also when they die."""

import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("pyarrow", reason="the corpus needs pyarrow")
distributed = pytest.importorskip("distributed", reason="--cluster needs Dask")

import dask
from archives import archive, contents, draw

from jetson_cluster import recipe
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.ground import corpus
from jetson_cluster.ground.corpus import many, shards
from jetson_cluster.ground.corpus.shards import Failure

# Loaded by every worker, and by those that take the place of dead ones: files called `deadly...` end
# the process that decodes them, as a fault in a decoder would.
DEADLY = """
import os
from jetson_cluster import frame

def deadly(path, *more, load=frame.load):
    if os.path.basename(path).startswith("deadly"):
        os._exit(9)
    return load(path, *more)

if frame.load.__name__ == "load":  # Dask runs this more than once
    frame.load = deadly
"""


# Files called `apart...` are not there for a worker, as on a machine without the archive's mount.
UNMOUNTED = DEADLY.replace("deadly", "apart").replace("os._exit(9)", '''raise frame.Refused(
            "vanished", "It was gone before it could be read.")''')


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """cluster(...) -> a running LocalCluster of two processes, or as many as `n_workers`."""
    monkeypatch.setattr(many, "CHUNK_FILES", 16)
    opened = []

    def start(n_workers=2, **options):
        opened.append(distributed.LocalCluster(
            n_workers=n_workers, threads_per_worker=1, processes=True, dashboard_address=None,
            local_directory=str(tmp_path / "dask"), **options))
        return opened[-1]

    with dask.config.set({"distributed.scheduler.allowed-failures": 0,
                          "distributed.worker.memory.terminate": False}):
        yield start
        for one in opened:
            one.close()


def embed(folder, out, tiny, **options):
    return corpus.embed([str(folder)], str(out), recipe.load_model(tiny), "onnxruntime", workers=1,
                        **options)


def test_a_cluster_makes_the_same_corpus(tmp_path, tiny, cluster):
    folder, told = archive(tmp_path / "archive", 100), []
    expected = contents(embed(folder, tmp_path / "here", tiny))
    got = embed(folder, tmp_path / "there", tiny, cluster=cluster().scheduler_address,
                tell=told.append)
    assert contents(got) == expected
    assert told[0].startswith("embedding 103 files on 2 workers with 2 threads at tcp://")


def test_moved_files_are_compared_here_and_need_no_cluster(tmp_path, tiny):
    folder, told, seen = archive(tmp_path / "archive", 20), [], []
    embed(folder, tmp_path / "there", tiny)
    os.rename(folder / "sol1", folder / "moved")
    for name in ("empty.jpg", "notes.txt"):
        os.unlink(folder / name)
    got = embed(folder, tmp_path / "there", tiny, cluster="tcp://127.0.0.1:1", tell=told.append,
                progress=lambda *counts: seen.append(counts))
    assert len(got) == 20 and "comparing 7 files with what is embedded" in told
    assert (7, 7, 7) in seen


def test_a_worker_killed_in_the_middle_costs_nothing(tmp_path, tiny, cluster):
    folder = archive(tmp_path / "archive", 300)
    expected = contents(embed(folder, tmp_path / "here", tiny))
    started, killed = cluster(), []

    def kill(done, total, known):
        if done > len(killed) * 100 + 20 and len(killed) < 2:
            worker = started.workers[len(killed)]
            os.kill(worker.pid, signal.SIGKILL)
            killed.append(worker.pid)

    got = embed(folder, tmp_path / "there", tiny, cluster=started.scheduler_address, progress=kill)
    assert len(killed) == 2
    assert contents(got) == expected


def test_a_file_that_kills_its_workers_is_found_and_listed(tmp_path, tiny, cluster):
    folder = archive(tmp_path / "archive", 4)
    draw(folder / "deadly.png", 100)
    (tmp_path / "deadly.py").write_text(DEADLY)
    started = cluster(preload=[str(tmp_path / "deadly.py")])
    got = embed(folder, tmp_path / "there", tiny, cluster=started.scheduler_address)
    assert len(got) == 4
    assert [(os.path.basename(path), code) for path, code, _ in got.failed] == [
        ("deadly.png", "crashed"), ("empty.jpg", "empty"), ("notes.txt", "not_an_image")]


def test_a_worker_that_does_not_see_the_files_is_named_and_costs_no_image(
        tmp_path, tiny, cluster):
    folder = archive(tmp_path / "archive", 4)
    before = embed(folder, tmp_path / "there", tiny).paths
    for number in range(3):
        draw(folder / ("apart%d.png" % number), 100 + number)
    (tmp_path / "apart.py").write_text(UNMOUNTED)
    started = cluster(preload=[str(tmp_path / "apart.py")])
    with pytest.raises(WorldError, match=r"worker tcp://\S+ cannot read %s.*which is there: every "
                       "worker has to see the files under the same paths" % (folder / "apart0")):
        embed(folder, tmp_path / "there", tiny, cluster=started.scheduler_address)
    got = corpus.read(tmp_path / "there")
    assert got.paths == before and not got.complete


def test_a_file_that_is_gone_here_as_well_is_not_laid_to_the_worker(tmp_path):
    gone = Failure(str(tmp_path / "gone.png"), "vanished", "It was gone before it could be read.")
    many.check_seen("tcp://worker:1", gone)
    with pytest.raises(WorldError, match="worker tcp://worker:1 cannot read"):
        many.check_seen("tcp://worker:1", gone._replace(path=str(draw(tmp_path / "a.png", 0))))


def test_a_model_that_only_this_machine_has_is_one_clear_line(tmp_path, tiny, cluster):
    folder = archive(tmp_path / "archive", 3)
    model = recipe.load_model(tiny)._replace(onnx_path=str(tmp_path / "absent.onnx"))
    with pytest.raises(UserError, match="worker tcp://.*absent.onnx: there is no such file"):
        corpus.embed([str(folder)], str(tmp_path / "there"), model, "onnxruntime", workers=1,
                     cluster=cluster().scheduler_address)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://x", "127.0.0.1"])
def test_an_address_where_no_scheduler_is_is_one_clear_line(tmp_path, tiny, monkeypatch, address):
    monkeypatch.setattr(many, "CONNECT_S", 1)
    folder = archive(tmp_path / "archive", 3)
    with pytest.raises(UserError, match="--cluster %s: no Dask scheduler answers there" % address):
        embed(folder, tmp_path / "there", tiny, cluster=address)


def test_a_cluster_without_workers_is_waited_for_and_then_given_up(
        tmp_path, tiny, cluster, monkeypatch):
    monkeypatch.setattr(many, "WORKERS_WAIT_S", 1)
    folder, told = archive(tmp_path / "archive", 20), []
    started = cluster(n_workers=0)
    with pytest.raises(WorldError, match="--cluster tcp://.*: no worker there for 1 s; what is "
                       "embedded is kept"):
        embed(folder, tmp_path / "there", tiny, cluster=started.scheduler_address, tell=told.append)
    assert told[1:] == ["waiting for workers: there are none at " + started.scheduler_address]
    monkeypatch.setattr(many, "WORKERS_WAIT_S", 60)
    got = embed(folder, tmp_path / "there", tiny, cluster=started.scheduler_address,
                tell=lambda line: started.scale(1) if line.startswith("waiting") else None)
    assert len(got) == 20 and got.complete


def test_workers_that_are_all_lost_do_not_hang_the_run(tmp_path, tiny, cluster, monkeypatch):
    monkeypatch.setattr(many, "WORKERS_WAIT_S", 1)
    folder, started = archive(tmp_path / "archive", 200), cluster()
    with pytest.raises(WorldError, match="--cluster tcp://.*: no worker there for 1 s"):
        embed(folder, tmp_path / "there", tiny, cluster=started.scheduler_address,
              progress=lambda done, total, known: started.scale(0) if done == 20 else None)
    assert len(shards.shard_numbers(str(tmp_path / "there"))) == 1


def test_a_lost_scheduler_is_told_without_tracebacks(tmp_path, tiny):
    scheduler = subprocess.Popen(
        [sys.executable, "-c", "import distributed\n"
         "if __name__ == '__main__':\n"
         "    with distributed.LocalCluster(n_workers=0, dashboard_address=None) as cluster:\n"
         "        print(cluster.scheduler_address, flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    address = scheduler.stdout.readline().strip()
    running = subprocess.Popen(
        [sys.executable, "-m", "jetson_cluster", "embed", str(archive(tmp_path / "archive", 4)),
         "--model", tiny, "--out", str(tmp_path / "there"), "--cluster", address],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "0 workers" in running.stdout.readline()  # said at once, though it is a pipe
    assert "waiting for workers" in running.stdout.readline()
    scheduler.kill()
    errors = running.communicate(timeout=60)[1]
    assert running.returncode == 1
    assert "the scheduler was lost" in errors and errors.count("\n") == 1
    scheduler.communicate()


def test_a_lost_scheduler_is_one_clear_line_and_what_was_done_is_kept(
        tmp_path, tiny, cluster, monkeypatch):
    monkeypatch.setattr(many, "CONNECT_S", 3)
    folder, told = archive(tmp_path / "archive", 200), []
    expected = contents(embed(folder, tmp_path / "here", tiny))
    started = cluster()
    with pytest.raises(WorldError, match="--cluster tcp://.*: the scheduler was lost"):
        embed(folder, tmp_path / "there", tiny, cluster=started.scheduler_address,
              progress=lambda done, total, known: started.close() if done == 40 else None)
    got = embed(folder, tmp_path / "there", tiny, tell=told.append)
    assert contents(got) == expected
    assert int(told[0].split(" of 203 files are embedded already")[0]) >= 38
