"""Passes: as much of the head of the queue as fits, marked sent under a number, never twice."""

import threading

import pytest
from hypothesis import given, strategies
from operated import AT, Operations

from jetson_cluster import passes
from jetson_cluster.downlink import QueueRow, write_queue
from jetson_cluster.errors import UserError
from jetson_cluster.passes import IMAGE, PREVIEW, Item, choose, make_pass, recall_pass


@pytest.fixture
def rover(tmp_path):
    with Operations(tmp_path) as made:
        yield made


def make(rover, budget_bytes, **more):
    return make_pass(rover.catalog, rover.downlink(), budget_bytes, "test", AT, **more)


def images_in(report):
    return [parcel.image for parcel in report.of(IMAGE)]


# ---- the choice ----------------------------------------------------------------------------------


def items(*sizes):
    return [Item(number, size) for number, size in enumerate(sizes)]


def test_what_does_not_fit_is_passed_over_and_smaller_ones_behind_it_go():
    assert [item.image for item in choose(items(40, 70, 30, 50, 30), 100)] == [0, 2, 4]


ITEMS = strategies.lists(strategies.integers(0, 1000), max_size=40).map(lambda sizes: items(*sizes))


@given(ITEMS, strategies.integers(0, 5000))
def test_a_choice_fits_keeps_its_order_and_leaves_out_only_what_does_not_fit(given, budget):
    chosen = choose(given, budget)
    assert sum(item.bytes for item in chosen) <= budget
    assert chosen == [item for item in given if item in chosen]
    for item in given:
        if item not in chosen:
            ahead = sum(one.bytes for one in chosen if one.image < item.image)
            assert ahead + item.bytes > budget


# ---- making a pass -------------------------------------------------------------------------------


def test_a_pass_takes_the_head_of_the_queue_and_marks_it_sent(rover):
    images = rover.add(100, 300, 100, 150, 100)
    report = make(rover, 320)
    assert images_in(report) == [images[0], images[2], images[4]]
    assert (report.number, report.bytes, report.words) == (
        1, 300, "pass 1: 3 images, 300 B of 320 B")
    assert rover.states() == ["sent", "queued", "sent", "queued", "sent"]
    assert rover.catalog.pass_images(1) == images_in(report)
    assert [parcel.path for parcel in report.parcels] == [
        str(rover.inbox / ("sol%04d.jpg" % number)) for number in (0, 2, 4)]
    assert make(rover, 1000).number == 2 and make(rover, 1000).number == 0


def test_a_dry_run_tells_the_same_and_changes_nothing(rover):
    rover.add(100, 300, 100)
    before = rover.everything()
    dry = make(rover, 250, dry_run=True)
    assert rover.everything() == before and dry.number == 0
    assert make(rover, 250).parcels == dry.parcels


@pytest.mark.parametrize("sizes, budget, why", [
    ((), 1000, "no image is queued"),
    ((100, 200), 0, "nothing fits into 0 B: the smallest of 2 images looked at has 100 B"),
    ((300, 200), 199, "nothing fits into 199 B: the smallest of 2 images looked at has 200 B")])
def test_a_pass_with_nothing_in_it_is_told_and_not_recorded(rover, sizes, budget, why):
    if sizes:
        rover.add(*sizes)
    before = rover.everything()
    report = make(rover, budget)
    assert report.number == 0 and not report.parcels and why in report.notes
    assert report.words == "no pass; " + why
    assert rover.everything() == before and rover.catalog.last_pass == 0


def test_with_an_outbox_nothing_is_marked_sent_that_nobody_would_send(rover):
    rover.add(100, 100)
    make(rover, 100)
    downlink = rover.downlink()._replace(outbox_path="/spool/outbox")
    before = rover.everything()
    with pytest.raises(UserError, match=r"^outbox.path is set \(/spool/outbox\): .*outbox.bytes"):
        make_pass(rover.catalog, downlink, 1000, "test", AT)
    assert rover.everything() == before
    assert len(make_pass(rover.catalog, downlink, 1000, "test", AT, dry_run=True).parcels) == 1
    assert make_pass(rover.catalog, downlink, 1000, "test", AT, number=1).repeated


def test_a_pass_says_that_the_policy_holds_what_is_queued(rover):
    images = rover.add(100, 100, 500)
    rover.catalog.move("hold", [images[1]])
    rover.policy = rover.policy._replace(holds=tuple(rover.sha(image)[:12] for image in images))
    assert make(rover, 1000).words == "no pass; the policy holds 2 of the 2 queued images"
    rover.policy = rover.policy._replace(holds=(rover.sha(images[0])[:12],))
    assert make(rover, 400).notes == (
        "nothing fits into 400 B: the smallest of 1 image looked at has 500 B",
        "the policy holds 1 of the 2 queued images")
    assert make(rover, 1000).notes == ()


def test_held_and_waiting_images_do_not_go(rover):
    images = rover.add(100, 100)
    rover.add(100, embedded=False)
    rover.catalog.move("hold", [images[0]])
    assert images_in(make(rover, 1000)) == [images[1]]


def test_pinned_images_go_first_and_one_that_does_not_fit_is_named(rover):
    images = rover.add(100, 100, 100, 900)
    rover.catalog.move("pin", [images[3], images[2]])
    report = make(rover, 250)
    assert images_in(report) == [images[2], images[0]]
    assert report.notes == ("pinned sol0003.jpg (900 B) does not fit",)


def test_a_nacked_pass_goes_again_and_an_acknowledged_one_never(rover):
    images = rover.add(100, 100)
    make(rover, 1000)
    rover.catalog.move("ack", [images[0]])
    rover.catalog.move_pass("nack", 1)
    assert images_in(make(rover, 1000)) == [images[1]]
    rover.catalog.move_pass("ack", 2)
    assert make(rover, 1000).number == 0


def test_small_images_behind_fill_the_budget(rover, monkeypatch):
    monkeypatch.setattr(passes, "ROWS_FIRST", 2)
    monkeypatch.setattr(passes, "ROWS_MORE", 2)
    images = rover.add(*([60] + [500] * 40 + [60]))
    assert images_in(make(rover, 1150)) == [images[0], images[1], images[2], images[41]]


def test_no_more_rows_are_looked_at_once_the_smallest_of_them_does_not_fit(rover, monkeypatch):
    monkeypatch.setattr(passes, "ROWS_FIRST", 2)
    images = rover.add(*([500] * 40 + [60]))
    assert images_in(make(rover, 1090)) == images[:2]


def test_no_more_rows_are_looked_at_than_may_be(rover, monkeypatch):
    monkeypatch.setattr(passes, "ROWS_FIRST", 2)
    monkeypatch.setattr(passes, "ROWS_MOST", 8)
    images = rover.add(*([60] + [500] * 40 + [60]))
    assert images_in(make(rover, 1150)) == images[:3]


# ---- files ---------------------------------------------------------------------------------------


def test_files_that_are_gone_are_missing_and_others_take_their_place(rover):
    images = rover.add(100, 100, 100, 100)
    for number in (0, 2):
        (rover.inbox / ("sol%04d.jpg" % number)).unlink()
    report = make(rover, 200)
    assert images_in(report) == [images[1], images[3]]
    assert report.notes == ("the files of 2 images are gone",)
    assert rover.states() == ["missing", "sent", "missing", "sent"]


def test_a_dry_run_leaves_gone_files_for_the_daemon_to_find(rover):
    rover.add(100, 100)
    (rover.inbox / "sol0000.jpg").unlink()
    assert len(make(rover, 200, dry_run=True).parcels) == 1
    assert rover.states() == ["queued", "queued"]


def test_an_image_gone_from_one_path_goes_from_another(rover):
    rover.add(100, names=["a.jpg"])
    rover.made = 0  # so that it is the same content
    assert rover.add(100, names=["b.jpg"]) == []
    (rover.inbox / "a.jpg").unlink()
    parcel, = make(rover, 200).parcels
    assert parcel.path == str(rover.inbox / "b.jpg")


def test_with_the_inbox_gone_nothing_is_sent_and_nothing_called_missing(rover):
    rover.add(100, 100)
    rover.inbox.rename(rover.folder / "unplugged")
    rover.inbox_there = False
    report = make(rover, 1000)
    assert report.number == 0
    assert "2 images are gone, for the inbox is not there" in report.notes[0]
    assert rover.states() == ["queued", "queued"]


def test_a_file_rewritten_since_is_not_sent_as_what_it_was(rover):
    images = rover.add(100, 100)
    (rover.inbox / "sol0000.jpg").write_bytes(b"x" * 100)
    report = make(rover, 1000)
    assert images_in(report) == [images[1]]
    assert "1 file cannot be read or not what was catalogued" in report.notes[0]
    assert rover.states() == ["queued", "sent"]


# ---- previews ------------------------------------------------------------------------------------


def test_with_previews_first_all_unsent_ones_go_ahead_of_the_images(rover):
    images = rover.add(100, 100, 100, previews=10)
    rover.policy = rover.policy._replace(previews="first")
    report = make(rover, 230)
    assert [parcel.image for parcel in report.of(PREVIEW)] == images
    assert images_in(report) == images[:2] and report.bytes == 230
    assert [parcel.kind for parcel in report.parcels] == [PREVIEW] * 3 + [IMAGE] * 2
    assert report.words == "pass 1: 2 images and 3 previews, 230 B of 230 B"
    more = rover.add(100, previews=10)
    second = make(rover, 110)
    assert [parcel.image for parcel in second.of(PREVIEW)] == more
    assert images_in(second) == [images[2]]


def test_previews_that_do_not_all_fit_go_by_rank_and_then_by_age(rover, monkeypatch):
    monkeypatch.setattr(passes, "ROWS_FIRST", 2)
    monkeypatch.setattr(passes, "ROWS_MOST", 2)
    images = rover.add(1000, 1000, 1000, 1000, 1000, previews=100)
    rover.catalog.move("pin", [images[4]])
    rover.policy = rover.policy._replace(previews="first")
    report = make(rover, 450)
    assert [parcel.image for parcel in report.parcels] == [
        images[4], images[0], images[1], images[2]]
    assert not report.of(IMAGE)
    assert [parcel.image for parcel in make(rover, 450).parcels] == [images[3]]


def test_the_preview_of_an_image_that_the_policy_holds_does_not_go(rover):
    images = rover.add(100, 100, 100, previews=10)
    rover.policy = rover.policy._replace(previews="first", holds=(rover.sha(images[0])[:8],))
    assert [parcel.image for parcel in make(rover, 1000).of(PREVIEW)] == images[1:]


def test_without_that_word_in_the_policy_no_preview_goes(rover):
    rover.add(100, previews=10)
    assert not make(rover, 1000).of(PREVIEW)


# ---- numbers -------------------------------------------------------------------------------------


def test_the_same_number_twice_makes_one_pass(rover):
    rover.add(100, 100, 100)
    first = make(rover, 200, number=1)
    before = rover.everything()
    again = make(rover, 300, number=1)
    assert again.repeated and again.parcels == first.parcels and again.budget_bytes == 200
    assert rover.everything() == before
    assert make(rover, 200, number=2).number == 2


@pytest.mark.parametrize("number", [2, 7])
def test_a_number_ahead_of_the_next_is_refused(rover, number):
    rover.add(100)
    with pytest.raises(UserError, match="numbers go up by one; the next pass is 1"):
        make(rover, 200, number=number)


def test_a_pass_that_never_was_cannot_be_shown(rover):
    with pytest.raises(UserError, match="pass 3: there was none; the last one is 0"):
        recall_pass(rover.catalog, 3)


def test_a_pass_of_which_only_the_journal_tells_is_shown_from_it(rover, tmp_path):
    rover.add(100, 100)
    make(rover, 1000)
    rover.catalog.close()
    for path in rover.state.glob("catalog.sqlite*"):
        path.unlink()
    with Operations(tmp_path) as anew:
        anew.catalog.recall()
        images = anew.add(100, 100)
        shown = recall_pass(anew.catalog, 1)
        assert sorted(images_in(shown)) == images and shown.repeated
        assert shown.words == "pass 1: 2 images, 200 B; known from the journal alone"


def test_a_pass_shown_again_says_what_went_again_since(rover):
    images = rover.add(100, 100, previews=10)
    rover.policy = rover.policy._replace(previews="first")
    make(rover, 1000)
    rover.catalog.move("nack", [images[0]])
    make(rover, 1000)
    shown = recall_pass(rover.catalog, 1)
    assert images_in(shown) == [images[1]] and len(shown.of(PREVIEW)) == 2
    assert shown.repeated and shown.notes == (
        "made before, at " + AT, "1 of its 2 images were sent again since, and are not listed")


# ---- others at work at the same time -------------------------------------------------------------


def meanwhile(rover, doing):
    """What a pass is made from; once, after the choice and before it is recorded, do this."""
    done = []

    def inbox_available():
        if not done:
            done.append(doing())
        return True

    return rover.downlink()._replace(inbox_available=inbox_available)


def test_what_another_process_takes_meanwhile_is_chosen_anew(rover):
    images = rover.add(100, 100, 100)
    downlink = meanwhile(rover, lambda: rover.catalog.move("hold", [images[0]]))
    report = make_pass(rover.catalog, downlink, 200, "test", AT)
    assert images_in(report) == [images[1], images[2]] and report.number == 1
    assert rover.states() == ["held", "sent", "sent"]


def test_a_number_that_another_process_uses_meanwhile_is_the_same_pass(rover):
    rover.add(100, 100)
    downlink = meanwhile(rover, lambda: make(rover, 100, number=1))
    report = make_pass(rover.catalog, downlink, 200, "test", AT, number=1)
    assert report.repeated and report.number == 1 and rover.catalog.last_pass == 1
    assert rover.states() == ["sent", "queued"]


def test_passes_made_at_the_same_time_never_share_an_image(tmp_path):
    with Operations(tmp_path) as rover:
        rover.add(*[100] * 40)
    reports, failures = [], []

    def work():
        try:
            with Operations(tmp_path) as mine:
                for _ in range(4):
                    reports.append(make(mine, 500))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    sent = [image for report in reports for image in images_in(report)]
    assert len(sent) == len(set(sent)) == 40
    numbers = sorted(report.number for report in reports if report.number)
    assert numbers == list(range(1, len(numbers) + 1))


# ---- while images are placed anew ----------------------------------------------------------------


def test_while_images_are_placed_anew_the_published_queue_is_taken(rover):
    images = rover.add(100, 100, 100)
    write_queue(str(rover.state / "queue.csv"), [QueueRow(
        rank, "0.5", "queued", "", "", "", "", 100, 100 * rank, "", AT, rover.sha(image), "/x")
        for rank, image in enumerate((images[2], images[0]), 1)])
    rover.catalog.move("hold", [images[0]])
    rover.catalog.begin_placing("another", "test", 64, True)
    report = make(rover, 1000)
    assert images_in(report) == [images[2]]
    assert report.notes[0].startswith(
        "images are being placed anew; chosen from the 2 of the queue file")


def test_while_images_are_placed_anew_and_no_queue_was_published_it_says_so(rover):
    rover.add(100)
    rover.catalog.begin_placing("another", "test", 64, True)
    report = make(rover, 1000)
    assert report.number == 0 and "there is no queue file to choose from" in report.notes[0]


@pytest.fixture
def anew(rover):
    """Four images, of which the first three stand in the queue file; they are placed anew."""
    rover.images = rover.add(100, 100, 100, 100)
    write_queue(str(rover.state / "queue.csv"), [QueueRow(
        rank, "0.5", "queued", "", "", "", "", 100, 100 * rank, "", AT, rover.sha(image), "/x")
        for rank, image in enumerate(rover.images[:3], 1)])
    rover.catalog.begin_placing("another", "test", 64, True)
    return rover


def test_while_images_are_placed_anew_what_the_policy_holds_does_not_go(anew):
    anew.policy = anew.policy._replace(holds=(anew.sha(anew.images[0])[:12],))
    assert images_in(make(anew, 100)) == [anew.images[1]]
    anew.policy = anew.policy._replace(holds=tuple(anew.sha(image) for image in anew.images))
    assert make(anew, 1000).words.endswith("; the policy holds 3 of the 3 queued images")


def test_while_images_are_placed_anew_pins_go_first_by_operators_and_then_by_the_policy(anew):
    first, second, third, not_published = anew.images
    anew.policy = anew.policy._replace(pins=(anew.sha(second)[:12], anew.sha(not_published)[:12]))
    anew.catalog.move("pin", [third])
    assert images_in(make(anew, 300)) == [third, second, not_published]
    assert images_in(make(anew, 1000)) == [first]


def test_while_images_are_placed_anew_a_pin_that_is_held_stays_and_one_too_large_is_named(anew):
    first, large = anew.images[0], anew.add(900)[0]
    anew.catalog.move("pin", [large, anew.images[3]])
    anew.policy = anew.policy._replace(holds=(anew.sha(anew.images[3]),))
    report = make(anew, 100)
    assert images_in(report) == [first]
    assert report.notes[1:] == ("pinned sol0004.jpg (900 B) does not fit",)


def test_while_images_are_placed_anew_a_pin_that_is_sent_does_not_go_again(anew):
    anew.policy = anew.policy._replace(pins=(anew.sha(anew.images[3]),))
    assert images_in(make(anew, 100)) == [anew.images[3]]
    report = make(anew, 100)
    assert images_in(report) == [anew.images[0]] and len(report.notes) == 1


def test_while_images_are_placed_anew_a_pin_goes_even_without_a_queue_file(anew):
    (anew.state / "queue.csv").unlink()
    anew.catalog.move("pin", [anew.images[3]])
    assert images_in(make(anew, 1000)) == [anew.images[3]]
