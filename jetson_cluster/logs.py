"""What this program says: each message one line on standard error, for a terminal or the journal.

In: log records, and texts that may hold anything. Out: lines. A file may be called anything, also a
line break and what looks like an event: whatever is no printable character stands as its number, so
that no name can pass for a message or move the cursor.
"""

import logging
import os
import sys


def printable(text: str) -> str:
    """`text` with whatever would move the cursor or colour the terminal as \\xNN or \\uNNNN."""
    def shown(letter: str) -> str:
        code = ord(letter)
        if 0xdc80 <= code <= 0xdcff:
            code -= 0xdc00  # a byte of a file's name that is not UTF-8
        return "\\x%02x" % code if code < 0x100 else "\\u%04x" % code

    return "".join(letter if letter.isprintable() else shown(letter) for letter in text)


def start(verbose: bool) -> None:
    """Log to standard error; under systemd with the priority that journalctl -p filters by."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JournalFormatter() if "JOURNAL_STREAM" in os.environ
                         else OneLineFormatter("%(asctime)s %(levelname)-7s %(message)s",
                                               "%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    logging.captureWarnings(True)  # Pillow's, about odd tags in a file
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("PIL").setLevel(logging.WARNING)  # its debug lines tell nothing of ours
    logging.getLogger("watchdog").setLevel(logging.WARNING)


class OneLineFormatter(logging.Formatter):
    """Messages of one line; only a traceback has more."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        if record.name == "py.warnings":  # Python's own have lines, and end in one
            record.message = " ".join(record.message.split())
        return printable(super().formatMessage(record))


class JournalFormatter(OneLineFormatter):
    """Lines as sd-daemon(3) has them: "<4>message"."""

    PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4),
                  (logging.INFO, 6), (logging.NOTSET, 7))

    def format(self, record: logging.LogRecord) -> str:
        priority = next(number for level, number in self.PRIORITIES if record.levelno >= level)
        return "<%d>%s" % (priority, super().format(record).replace("\n", "\n<%d>" % priority))
