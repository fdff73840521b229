"""The queue file: what to send first, for the radio software and for people.

In: rows in the order to send them. Out: `queue.csv`, RFC 4180, UTF-8, always whole. Reading it back
is `read_queue`.
"""

import csv
import io
import os
from typing import Iterable, List, NamedTuple

from jetson_cluster.errors import UserError
from jetson_cluster.files import write_atomically


class QueueRow(NamedTuple):
    """One line of the queue file; the fields are its columns."""

    rank: int  # 1 is the most urgent
    score: str
    state: str
    cluster: str  # empty while there is no codebook
    label: str
    novelty: str  # 0 to 1, empty while there is no codebook
    reason: str
    bytes: int
    cumulative_bytes: int  # of this row and all before it
    preview: str  # path of a small picture sent ahead of the image, empty if there is none
    captured_at: str  # ISO 8601, UTC
    sha256: str
    path: str


def write_queue(path: str, rows: Iterable[QueueRow]) -> None:
    """Replace the queue file at `path`; raises OSError and leaves the old one if it cannot."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(QueueRow._fields)
    for row in rows:
        writer.writerow(row._replace(label=spreadsheet_safe(row.label),
                                     reason=spreadsheet_safe(row.reason),
                                     path=printable_path(row.path)))
    write_atomically(path, text.getvalue().encode("utf-8"))


def read_queue(path: str) -> List[QueueRow]:
    """The rows of a queue file; raises UserError if it is none."""
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            lines = list(csv.reader(stream))
    except OSError as error:
        raise UserError("queue file %s: cannot be read: %s%s" % (
            path, error.strerror, "; has the daemon run with this config?"
            if isinstance(error, FileNotFoundError) else ""))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError("queue file %s: cannot be read: %s" % (path, error))
    if not lines or tuple(lines[0]) != QueueRow._fields:
        raise UserError("queue file %s: its first line is not that of a queue file (%s)" % (
            path, ",".join(QueueRow._fields)))
    try:
        return [QueueRow(*line)._replace(
            rank=int(line[0]), bytes=int(line[7]), cumulative_bytes=int(line[8]))
            for line in lines[1:]]
    except (TypeError, ValueError, IndexError) as error:
        raise UserError("queue file %s: a line is damaged: %s" % (path, error))


def spreadsheet_safe(text: str) -> str:
    """Text that no spreadsheet takes for a formula: ' goes before the characters that start one."""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def printable_path(path: str) -> str:
    """The path in UTF-8; bytes of a name that are not UTF-8 stand as \\xNN (sha256 still names it)."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
