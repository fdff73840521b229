"""From the inbox into the catalog while that fails: no file is lost, blamed, or taken twice."""

import contextlib
import sqlite3

import pytest
from rover import drop, picture

from catalog_checks import counted
from catalogued import image
from jetson_cluster import frame, heat, preview, recipe
from jetson_cluster.catalog import Catalog
from jetson_cluster.embedder import open_embedder
from jetson_cluster.head import Head
from jetson_cluster.ingest import NOTHING, Ingest, PreviewTally, Taken
from jetson_cluster.pipeline import Pipeline
from jetson_cluster.placing import Placing
from jetson_cluster.policy import EMPTY
from jetson_cluster.preview import Preview
from jetson_cluster.schema import QUEUED, WAITING
from jetson_cluster.walker import look

BATCH = 4
HOT = heat.levels()[-1]
AT = "2026-01-01T00:00:00Z"


class Source:
    """Gives files in order, and notes what is told of them."""

    def __init__(self, arrivals):
        self.arrivals, self.finished = list(arrivals), []

    def take(self, limit):
        taken, self.arrivals = self.arrivals[:limit], self.arrivals[limit:]
        return taken

    take_new = take

    def give_back(self, arrival):
        assert arrival not in self.arrivals and arrival not in self.finished
        self.arrivals.append(arrival)

    def done(self, arrival):
        assert arrival not in self.arrivals and arrival not in self.finished
        self.finished.append(arrival)


class Rover:
    """Real pictures, a real network and a real catalog."""

    def __init__(self, folder, model):
        self.inbox = folder / "inbox"
        self.inbox.mkdir()
        self.batches = 0  # embedded
        loaded = recipe.load_model(model)
        limits = frame.Limits(10 ** 7, 10 ** 7, 65535)
        self.pipeline = Pipeline(
            lambda: open_embedder("onnxruntime", loaded, BATCH), limits, lambda: AT,
            examine=lambda image: preview.examine(image, "webp", 2048))
        self.catalog = Catalog(str(folder / "catalog.sqlite"), loaded.space)
        self.head = Head(self.catalog, 50)
        placing = Placing(self.catalog, self.head)
        placing.use(None, EMPTY)
        self.files = [look(str(drop(self.inbox, "%d.png" % seed, "red", seed)))
                      for seed in range(3 * BATCH)]
        self.source = Source(self.files)
        process = self.pipeline.embedder.process

        def counting(frames):
            self.batches += 1
            return process(frames)

        self.pipeline.embedder.process = counting
        self.ingest = Ingest(self.pipeline, self.catalog, placing.record, self.source, BATCH,
                             lambda: AT)

    def close(self):
        self.pipeline.close()
        self.catalog.close()

    @contextlib.contextmanager
    def refusing(self, event):
        """Within, the catalog refuses this, as a full disk would."""
        self.catalog._db.execute("CREATE TEMP TRIGGER fails AFTER %s "
                                 "BEGIN SELECT RAISE(ABORT, 'as asked'); END" % event)
        yield
        self.catalog._db.execute("DROP TRIGGER fails")

    @contextlib.contextmanager
    def failing(self):
        """Within, no statement at all succeeds."""
        self.catalog._db.set_progress_handler(lambda: True, 1)
        yield
        self.catalog._db.set_progress_handler(None, 1)

    def all_of_it(self, level=heat.NORMAL):
        """Turn until there is no more to do; what that brought."""
        brought = NOTHING
        while self.source.arrivals or self.ingest.busy:
            step = self.ingest.step(level)
            brought = Taken(*map(sum, zip(brought, step)))
        return brought

    def assert_all_is_well(self):
        """Each file is catalogued once, told of once, embedded once, and blamed for nothing."""
        assert counted(self.catalog) == {QUEUED: len(self.files)}
        assert sorted(self.source.finished) == sorted(self.files)
        assert self.catalog.attempts(self.files) == {} and not self.ingest.busy
        assert self.ingest.spent.images == len(self.files) == self.ingest.previews.made
        assert {place.image for place in self.head.order(EMPTY)} == set(
            range(1, len(self.files) + 1))


@pytest.fixture
def rover(tmp_path, tiny):
    made = Rover(tmp_path, tiny)
    yield made
    made.close()


def test_files_become_images_a_batch_a_step(rover):
    first = rover.ingest.step()
    assert first == Taken(BATCH, BATCH, 0) and rover.ingest.busy
    assert rover.all_of_it() == Taken(2 * BATCH, 2 * BATCH, 0)
    rover.assert_all_is_well()
    assert rover.batches == 3 and rover.ingest.step() == NOTHING


@pytest.mark.parametrize("event", [
    "INSERT ON main.images", "INSERT ON main.embeddings", "INSERT ON main.files",
    "UPDATE ON main.images", "INSERT ON main.previews"])
def test_a_batch_that_cannot_be_recorded_is_kept_and_recorded_when_it_can_be(rover, event):
    with rover.refusing(event):
        for _ in range(3):
            with pytest.raises(sqlite3.Error, match="as asked"):
                rover.ingest.step()
            assert rover.ingest.busy and rover.source.finished == []
            assert len(rover.source.arrivals) == BATCH  # the other two batches were begun
    assert rover.ingest.step() == Taken(BATCH, BATCH, 0)
    rover.all_of_it()
    rover.assert_all_is_well()
    assert rover.batches == 3


def test_what_could_not_be_recorded_is_recorded_at_the_end_if_it_can_be_by_then(rover):
    with rover.refusing("INSERT ON main.images"):
        with pytest.raises(sqlite3.Error):
            rover.ingest.step()
        with pytest.raises(sqlite3.Error):
            rover.ingest.finish_one()
    assert rover.ingest.finish_one().added == BATCH
    assert rover.ingest.finish_one().added == BATCH
    assert rover.ingest.finish_one() == NOTHING and not rover.ingest.busy


@pytest.mark.parametrize("level", [heat.NORMAL, HOT], ids=["cool", "hot"])
def test_files_taken_while_nothing_can_be_asked_or_written_are_given_back(rover, level):
    with rover.failing():
        for _ in range(4):
            with pytest.raises(sqlite3.OperationalError):
                rover.ingest.step(level)
            assert sorted(rover.source.arrivals) == sorted(rover.files)
            assert not rover.ingest.busy and rover.batches == 0
    rover.all_of_it()
    rover.assert_all_is_well()


@pytest.mark.parametrize("level", [heat.NORMAL, HOT], ids=["cool", "hot"])
def test_files_whose_attempt_cannot_be_noted_are_given_back_and_not_read(rover, level):
    with rover.refusing("INSERT ON main.attempts"):
        with pytest.raises(sqlite3.Error, match="as asked"):
            rover.ingest.step(level)
    assert sorted(rover.source.arrivals) == sorted(rover.files) and not rover.ingest.busy
    assert rover.catalog.attempts(rover.files) == {}
    rover.all_of_it()
    rover.assert_all_is_well()


def test_a_batch_whose_attempts_cannot_be_crossed_out_stays_in_flight(rover):
    with rover.refusing("DELETE ON main.attempts"):
        for _ in range(2):
            with pytest.raises(sqlite3.Error, match="as asked"):
                rover.ingest.step()
            assert rover.ingest.busy and counted(rover.catalog) == {}
    rover.all_of_it()
    rover.assert_all_is_well()
    assert rover.batches == 3


def test_in_the_heat_what_cannot_be_recorded_is_given_back_and_not_blamed(rover):
    with rover.refusing("INSERT ON main.images"):
        for _ in range(4):
            with pytest.raises(sqlite3.Error, match="as asked"):
                rover.ingest.step(HOT)
            assert sorted(rover.source.arrivals) == sorted(rover.files)
    assert rover.catalog.attempts(rover.files) == {}
    assert rover.all_of_it(HOT) == Taken(3 * BATCH, 0, 0)
    assert counted(rover.catalog) == {WAITING: 3 * BATCH} and rover.batches == 0


def ended_the_program(rover, file, times):
    for _ in range(times):
        rover.catalog.begin_attempts([file])


def test_a_file_to_be_given_up_is_given_up_once_although_the_catalog_fails_at_first(rover):
    killer = rover.files[1]
    ended_the_program(rover, killer, 3)
    with rover.refusing("INSERT ON main.refusals"):
        with pytest.raises(sqlite3.Error, match="as asked"):
            rover.ingest.step()
    assert sorted(rover.source.arrivals) == sorted(rover.files) and not rover.source.finished
    assert rover.all_of_it() == Taken(3 * BATCH, 3 * BATCH - 1, 1)
    assert rover.catalog.quarantined() == 1 and sorted(rover.source.finished) == sorted(rover.files)


def test_a_suspect_is_read_last_and_alone_also_where_the_catalog_fails_meanwhile(rover):
    suspect = rover.files[0]
    ended_the_program(rover, suspect, 1)
    while rover.source.arrivals:
        rover.ingest.step()
    rover.ingest.finish_one()
    rover.ingest.finish_one()
    assert counted(rover.catalog) == {QUEUED: 3 * BATCH - 1} and rover.ingest.busy
    with rover.refusing("INSERT ON main.attempts"):
        with pytest.raises(sqlite3.Error, match="as asked"):
            rover.ingest.step()
    assert rover.source.arrivals == [suspect] and not rover.ingest.busy
    batches = rover.batches
    rover.all_of_it()
    rover.assert_all_is_well()
    assert rover.batches == batches + 1


def test_where_new_images_are_not_accepted_what_is_begun_is_finished_and_no_more_taken(rover):
    rover.ingest.step()
    left = list(rover.source.arrivals)
    assert rover.ingest.step(accepting=False) == Taken(BATCH, BATCH, 0)
    for level in (heat.NORMAL, HOT):
        rover.ingest.step(level, accepting=False)
        assert rover.ingest.step(level, accepting=False) == NOTHING
    assert rover.source.arrivals == left and counted(rover.catalog) == {
        QUEUED: len(rover.files) - len(left)}
    rover.all_of_it()
    rover.assert_all_is_well()


def test_a_file_changed_while_it_was_read_is_given_back_once_the_batch_is_recorded(rover):
    first = rover.files[0]
    picture("blue", 99).save(first.path)
    with rover.refusing("INSERT ON main.images"):
        with pytest.raises(sqlite3.Error, match="as asked"):
            rover.ingest.step()
        assert first not in rover.source.arrivals
    rover.ingest.step()
    assert first in rover.source.arrivals and first not in rover.source.finished


def test_a_network_that_fails_costs_its_batch_and_blames_no_file(rover):
    def broken(frames):
        raise RuntimeError("no such layer")

    rover.pipeline.embedder.process = broken
    with pytest.raises(RuntimeError, match="no such layer"):
        rover.ingest.step()
    assert rover.catalog.attempts(rover.files[:BATCH]) == {}


# ---- what is told of the previews ----------------------------------------------------------------

def test_without_previews_nothing_is_known_of_them():
    assert PreviewTally().means() == {"made": 0, "mean_bytes": None, "mean_psnr_db": None}


def test_previews_are_counted_and_averaged(rover):
    rover.ingest.step()
    made = [rover.catalog.preview_sizes([number])[number] for number in range(1, BATCH + 1)]
    means = rover.ingest.previews.means()
    assert means["made"] == BATCH
    assert means["mean_bytes"] == pytest.approx(sum(size for _, size, _ in made) / BATCH, abs=0.1)
    assert means["mean_psnr_db"] == pytest.approx(sum(held for _, _, held in made) / BATCH, abs=0.1)


def test_images_without_a_preview_do_not_count(rover):
    rover.ingest.step()
    before = rover.ingest.previews
    assert before.made == BATCH and before.with_those_of([]) == before
    without = image("/inbox/a.png", 1)
    added = before.with_those_of([
        without, without._replace(preview=Preview(b"x" * 100, "webp", 8, 6, 30.0))])
    assert added == (before.made + 1, before.bytes + 100, before.psnr_db + 30)
