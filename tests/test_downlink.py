"""The queue file: what any CSV reader gets from it, whatever stands in names and labels."""

import csv
import io
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetson_cluster import downlink
from jetson_cluster.downlink import QueueRow
from jetson_cluster.errors import UserError

ROW = QueueRow(rank=1, score="0.5", state="queued", cluster="3", label="dunes", novelty="0.70",
               reason="ordinary dunes; nothing like it ahead", bytes=100, cumulative_bytes=100,
               preview="", captured_at="2026-01-01T00:00:00Z", sha256="ab" * 32,
               path="/inbox/a.png")
HEADER = ("rank,score,state,cluster,label,novelty,reason,bytes,cumulative_bytes,preview,"
          "captured_at,sha256,path")

# Names as a disk may hold them: any bytes but NUL, seen as Python sees them.
NAMES = (st.binary(min_size=1, max_size=20) | st.sampled_from(
    [b'say "ah".png', b"a,b;c.png", b"two\nlines\r.png", b"\r", b" ", b"'", b'"', b"caf\xe9.png",
     "☄️ 火星.png".encode("utf-8"), b"=1+1", b"\\xe9", b"\xed\xa0\x80", b"\xff\xfe"])).map(
         lambda name: os.fsdecode(b"/inbox/" + name.replace(b"\0", b"0")))
# What policy.load lets through: at most 80 printable characters.
LABELS = st.text(max_size=80).filter(str.isprintable) | st.sampled_from(
    ["=HYPERLINK(\"http://x\")", "+1", "-1", "@SUM(A1)", "'", '"', "a,b", "☄️", "=", ""])


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "queue.csv")


def read(path):
    with open(path, "rb") as stream:
        return stream.read()


@settings(deadline=None, max_examples=100, database=None)
@given(labels=st.lists(LABELS, max_size=5), names=st.lists(NAMES, min_size=5, max_size=5))
def test_whatever_names_and_labels_hold_the_file_reads_back(tmp_path_factory, labels, names):
    path = str(tmp_path_factory.mktemp("queue") / "queue.csv")
    rows = [ROW._replace(rank=rank, label=label, reason="ordinary %s" % label, path=name)
            for rank, (label, name) in enumerate(zip(labels, names), 1)]
    downlink.write_queue(path, rows)
    text = read(path).decode("utf-8")
    assert text.startswith(HEADER + "\r\n") and text.endswith("\r\n") and "\0" not in text
    back = downlink.read_queue(path)
    for row, read_back in zip(rows, back):
        assert read_back.label in (row.label, "'" + row.label)
        assert read_back.label[:1] not in ("=", "+", "-", "@")
        try:
            row.path.encode("utf-8")
        except UnicodeEncodeError:
            assert "\\x" in read_back.path
        else:
            assert read_back.path == row.path
        assert read_back._replace(label="", path="") == row._replace(label="", path="")
    # Another reader agrees: fields of RFC 4180, quotes doubled, thirteen to a line.
    lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert len(lines) == 1 + len(rows) and {len(line) for line in lines} == {13}


def test_the_bytes_of_a_row_are_those_the_standard_says(path):
    downlink.write_queue(path, [ROW._replace(label='wind "A", east', path="/in/a\nb.png")])
    assert read(path) == (
        HEADER + '\r\n1,0.5,queued,3,"wind ""A"", east",0.70,ordinary dunes; nothing like it ahead,'
        "100,100,,2026-01-01T00:00:00Z," + "ab" * 32 + ',"/in/a\nb.png"\r\n').encode("utf-8")


@pytest.mark.parametrize("name, shown", [
    (b"/in/caf\xe9.png", "/in/caf\\xe9.png"), (b"/in/caf\xc3\xa9.png", "/in/café.png"),
    (b"/in/\xf0\x9f\xaa\xa8.png", "/in/🪨.png"), (b"/in/\xff", "/in/\\xff")])
def test_a_name_stands_as_text_where_it_is_and_by_its_bytes_where_not(path, name, shown):
    downlink.write_queue(path, [ROW._replace(path=os.fsdecode(name))])
    assert downlink.read_queue(path)[0].path == shown


@pytest.mark.parametrize("label, shown", [
    ("=1+1", "'=1+1"), ("+1", "'+1"), ("-1", "'-1"), ("@a", "'@a"), ("a=1", "a=1"), ("", "")])
def test_no_label_is_a_formula_to_a_spreadsheet(path, label, shown):
    downlink.write_queue(path, [ROW._replace(label=label, reason=label)])
    back = downlink.read_queue(path)[0]
    assert (back.label, back.reason) == (shown, shown)


def test_an_empty_queue_is_a_header(path):
    downlink.write_queue(path, [])
    assert read(path) == (HEADER + "\r\n").encode("ascii")
    assert downlink.read_queue(path) == []


def test_a_queue_that_cannot_be_written_leaves_the_old_one(path, tmp_path):
    downlink.write_queue(path, [ROW])

    def rows():
        yield ROW
        raise OSError("the catalog's disk is gone")

    with pytest.raises(OSError):
        downlink.write_queue(path, rows())
    assert downlink.read_queue(path) == [ROW] and os.listdir(str(tmp_path)) == ["queue.csv"]
    with pytest.raises(OSError):
        downlink.write_queue(str(tmp_path / "absent" / "queue.csv"), [ROW])


@pytest.mark.parametrize("content", [
    b"", b"\r\n", b"rank,score\r\n1,2\r\n", HEADER.encode("ascii")[:-1], b"\xff\xfe", b"a\0b",
    HEADER.encode("ascii") + b"\r\n1,2\r\n",
    HEADER.encode("ascii") + b"\r\n" + b"x," * 12 + b"\r\n",
    HEADER.encode("ascii") + b"\r\n" + b"1," * 13 + b"\r\n", HEADER.encode("ascii") + b"\r\n\r\n",
    b"x" * 200000])
def test_a_file_that_is_no_queue_is_refused_by_name(path, content):
    with open(path, "wb") as stream:
        stream.write(content)
    with pytest.raises(UserError) as caught:
        downlink.read_queue(path)
    assert str(caught.value).startswith("queue file %s: " % path) and "\n" not in str(caught.value)


def test_a_queue_that_is_not_there_is_named(path):
    with pytest.raises(UserError, match="queue.csv: cannot be read: ") as caught:
        downlink.read_queue(path)
    assert str(caught.value).count(path) == 1 and "has the daemon run" in str(caught.value)


WRITER = """
import sys
from jetson_cluster.downlink import QueueRow, write_queue
for version in range(10 ** 9):
    write_queue(sys.argv[1], [
        QueueRow(rank, str(version), "queued", "", "", "", "x" * 200, 1, rank, "", "", "", "/a")
        for rank in range(1, 201)])
    print(version, flush=True)
"""


def test_a_kill_never_leaves_a_part_of_a_queue(path):
    root = os.path.dirname(os.path.dirname(os.path.abspath(downlink.__file__)))
    for turn in range(10):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE,
                                  env=dict(os.environ, PYTHONPATH=root))
        for _ in range(1 + turn % 4):
            writer.stdout.readline()
        for _ in range(turn * 300):  # not always right after a version
            os.stat(path)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        rows = downlink.read_queue(path)
        assert [row.rank for row in rows] == list(range(1, 201))
        assert len({row.score for row in rows}) == 1
