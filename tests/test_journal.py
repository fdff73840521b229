"""The journal: every confirmed entry is there afterwards, damage costs its line and no other."""

import fcntl
import os
import resource
import stat
import subprocess
import sys
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jetson_cluster.journal import Entry, Journal, Read

ANY_TEXT = st.text() | st.sampled_from(["", " ", "\n", "a\nb", "\r", "\0", "\x85\u2028", "\udcff"])
ENTRIES = st.lists(st.builds(
    Entry, st.sampled_from(["sent", "acked", "queued", "held", "pinned", "unpinned", "order"]),
    st.sampled_from(["", "ab" * 32, "0" * 64]), st.integers(0, 2 ** 63), ANY_TEXT), max_size=8)
SOME = [Entry("sent", "0a" * 32, 12, ""), Entry("acked", "0a" * 32, 0, ""),
        Entry("order", "", 0, "pin \u00fc\n42"), Entry("held", "ff" * 32, 0, "43"),
        Entry("acked", "1b" * 32, 0, "")]


@pytest.fixture
def journal(tmp_path):
    return Journal(str(tmp_path / "journal"))


def content_of(journal):
    with open(journal.path, "rb") as stream:
        return stream.read()


def with_content(journal, content):
    with open(journal.path, "wb") as stream:
        stream.write(content)
    return journal


def test_there_is_nothing_in_a_journal_that_was_never_written(journal):
    assert journal.read() == Read([], 0)
    journal.append([])
    assert not os.path.exists(journal.path)


@given(parts=st.lists(ENTRIES, max_size=4))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_appended_is_read_again_in_order(parts):
    with tempfile.TemporaryDirectory() as folder:
        for entries in parts:
            Journal(os.path.join(folder, "journal")).append(entries)
        read = Journal(os.path.join(folder, "journal")).read()
    assert read == Read([entry for entries in parts for entry in entries], 0)
    assert all(type(entry) is Entry for entry in read.entries)


def test_an_entry_is_one_line_that_people_can_read(journal):
    journal.append(SOME)
    lines = content_of(journal).decode("ascii").splitlines()
    assert len(lines) == len(SOME)
    assert lines[0].startswith('["sent","' + "0a" * 32 + '",12,""] ')


def test_the_file_is_for_its_owner_and_group_alone(journal):
    mask = os.umask(0o022)
    try:
        journal.append(SOME)
        assert stat.S_IMODE(os.stat(journal.path).st_mode) == 0o640
        journal.rewrite(lambda: journal.read().entries)
        assert stat.S_IMODE(os.stat(journal.path).st_mode) == 0o640
    finally:
        os.umask(mask)


def test_a_link_in_its_place_is_not_followed(journal, tmp_path):
    (tmp_path / "elsewhere").write_text("")
    os.symlink(str(tmp_path / "elsewhere"), journal.path)
    with pytest.raises(OSError):
        journal.append(SOME)
    assert (tmp_path / "elsewhere").read_text() == ""


def test_a_journal_cut_anywhere_loses_no_entry_but_the_one_that_was_cut_and_goes_on(journal):
    journal.append(SOME)
    whole = content_of(journal)
    later = Entry("acked", "2c" * 32, 0, "")
    for length in range(len(whole) + 1):
        with_content(journal, whole[:length])
        lines = whole[:length].count(b"\n")
        read = journal.read()
        # Without its newline alone, an entry is whole all the same.
        assert read.entries in (SOME[:lines], SOME[:lines + 1]) and read.damaged == 0
        if len(read.entries) > lines:
            assert whole[length:length + 1] == b"\n"
        journal.append([later])
        # What was never confirmed is no damage, and what was read once is read again.
        assert journal.read() == Read(read.entries + [later], 0)


def test_a_flipped_bit_costs_the_entries_of_its_lines_and_invents_none(journal):
    journal.append(SOME)
    whole = content_of(journal)
    for place in range(len(whole)):
        hit = whole[:place].count(b"\n")
        # A newline belongs to two lines; that of the last line makes it one that was cut.
        lost = {hit, hit + 1} if whole[place:place + 1] == b"\n" else {hit}
        left = [entry for number, entry in enumerate(SOME) if number not in lost]
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            read = with_content(journal, bytes(flipped)).read()
            assert read.entries == left
            assert 1 <= read.damaged <= 2 or place == len(whole) - 1


def test_what_is_no_journal_is_all_damage_and_can_still_be_appended_to(journal):
    with_content(journal, os.urandom(5000) + b"\n" + bytes(5000) + b"\n\n[] 0d4a1185\n[[[[\n")
    read = journal.read()
    assert read.entries == [] and read.damaged >= 5
    journal.append(SOME)
    assert journal.read().entries == SOME


def test_zeros_that_a_power_cut_left_at_the_end_spoil_nothing(journal):
    journal.append(SOME[:2])
    with_content(journal, content_of(journal) + bytes(4096))
    assert journal.read() == Read(SOME[:2], 0)
    journal.append(SOME[2:])
    assert journal.read() == Read(SOME, 0)


def test_several_processes_append_at_once_and_none_loses_an_entry(journal):
    script = ("import sys\n"
              "from jetson_cluster.journal import Entry, Journal\n"
              "for number in range(60):\n"
              "    Journal(sys.argv[1]).append([Entry('acked', '', number, sys.argv[2])] * 3)\n"
              "    if sys.argv[2] == '0' and number % 10 == 0:\n"
              "        journal = Journal(sys.argv[1])\n"
              "        journal.rewrite(lambda: journal.read().entries)\n")
    writers = [subprocess.Popen([sys.executable, "-c", script, journal.path, str(writer)])
               for writer in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    read = journal.read()
    assert read.damaged == 0
    for writer in range(3):
        assert [entry.number for entry in read.entries if entry.text == str(writer)] == [
            number for number in range(60) for _ in range(3)]


def test_a_process_that_never_lets_go_is_not_waited_for_for_ever(journal, tmp_path):
    folder = os.open(str(tmp_path), os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(OSError) as error:
            Journal(journal.path, patience_s=0.1).append(SOME)
        assert "another process has held it" in str(error.value)
        assert journal.read() == Read([], 0)
    finally:
        os.close(folder)
    journal.append(SOME)
    assert journal.read().entries == SOME


def test_a_full_disk_at_any_byte_leaves_the_journal_as_it_was(journal):
    journal.append(SOME[:2])
    before = content_of(journal)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    for spare in range(0, 200, 7):
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + spare, hard))
        try:
            with pytest.raises(OSError):
                journal.append(SOME[2:])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert content_of(journal) == before
    journal.append(SOME[2:])
    assert journal.read() == Read(SOME, 0)


def test_compacting_keeps_what_is_chosen_and_sheds_damage(journal):
    journal.append(SOME)
    with_content(journal, b"damaged\n" + content_of(journal) + b"torn")
    assert journal.read() == Read(SOME, 1)
    journal.rewrite(lambda: [entry for entry in journal.read().entries
                             if entry.what == "acked"])
    assert journal.read() == Read([SOME[1], SOME[4]], 0)
    assert os.listdir(os.path.dirname(journal.path)) == ["journal"]


def test_compacting_that_fails_leaves_the_old_journal(journal):
    journal.append(SOME)
    with pytest.raises(ZeroDivisionError):
        journal.rewrite(lambda: [1 / 0])
    assert journal.read() == Read(SOME, 0)
