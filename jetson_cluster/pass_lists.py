"""A pass as a list for the radio's software: printed, or in a file where nobody looks on.

In: passes. Out: what `pass --csv` prints; and of each pass that an order made a file
`<state_dir>/passes/N.csv`, always whole, of which the newest KEPT stay. That a list is due is noted
in the catalog together with the pass, so that no kill comes between; and each is written once, for
whoever has sent what it names may remove it.
"""

import csv
import io
import logging
import os
import re
from typing import List, Tuple

from jetson_cluster.catalog import Catalog
from jetson_cluster.downlink import printable_path
from jetson_cluster.files import write_atomically
from jetson_cluster.passes import IMAGE, PREVIEW, PassReport, recall_pass
from jetson_cluster.previews import Previews
from jetson_cluster.wording import counted

log = logging.getLogger(__name__)

COLUMNS = ("pass", "kind", "bytes", "cumulative_bytes", "sha256", "path")
FOLDER = "passes"  # below state_dir
KEPT = 100  # lists; the catalog knows the passes before them as well
DUE = "pass_lists_due"  # in the catalog's meta: the numbers, with spaces between
_LIST = re.compile(r"([0-9]+)\.csv")


def rows_of(report: PassReport) -> List[tuple]:
    """The COLUMNS of each file of the pass, in the order to send them."""
    rows, cumulative = [], 0
    for parcel in report.parcels:
        cumulative += parcel.bytes
        rows.append((report.number or None, parcel.kind, parcel.bytes, cumulative, parcel.sha256,
                     printable_path(parcel.path)))
    return rows


def csv_of(report: PassReport) -> bytes:
    """RFC 4180, UTF-8, with a first line that names the COLUMNS."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows_of(report))
    return text.getvalue().encode("utf-8")


def with_previews(report: PassReport, previews: Previews) -> Tuple[PassReport, int]:
    """(The report with the previews' paths, how many of them there are no files of)."""
    paths = previews.ensure([parcel.image for parcel in report.of(PREVIEW)])
    parcels = tuple(
        parcel if parcel.kind == IMAGE else parcel._replace(path=paths[parcel.image])
        for parcel in report.parcels if parcel.kind == IMAGE or parcel.image in paths)
    return report._replace(parcels=parcels), len(report.parcels) - len(parcels)


def note_due(catalog: Catalog, number: int) -> None:
    """The list of this pass is to be written; to be called in the transaction that makes it."""
    catalog.remember(DUE, " ".join(map(str, _due(catalog) + [number])))


def _due(catalog: Catalog) -> List[int]:
    return [int(number) for number in (catalog.meta(DUE) or "").split()]


class PassLists:
    """The folder of lists. Only one process writes to it: the daemon."""

    def __init__(self, state_dir: str, catalog: Catalog, previews: Previews):
        self.folder = os.path.join(state_dir, FOLDER)
        self._catalog, self._previews = catalog, previews
        self.error = ""  # why a list could not be written, "" once all are

    def write_due(self) -> None:
        """Write the lists that are due. What a disk refuses is told once and kept in `error`.

        Raises sqlite3.Error.
        """
        try:
            for number in _due(self._catalog):
                self._write(number)
                with self._catalog.together():
                    self._catalog.remember(DUE, " ".join(
                        str(other) for other in _due(self._catalog) if other != number))
            self.error = ""
        except OSError as error:
            if not self.error:
                log.error("PassListNotWritten: %s: %s", self.folder, error)
            self.error = "PassListNotWritten: %s: %s" % (self.folder, error)

    def _write(self, number: int) -> None:
        report, unwritten = with_previews(recall_pass(self._catalog, number), self._previews)
        if unwritten:
            raise OSError("%s of pass %d could not be written" % (
                counted(unwritten, "preview"), number))
        os.makedirs(self.folder, exist_ok=True)
        write_atomically(os.path.join(self.folder, "%d.csv" % number), csv_of(report))
        lists = sorted(filter(_LIST.fullmatch, os.listdir(self.folder)),
                       key=lambda name: int(_LIST.fullmatch(name).group(1)))
        for name in lists[:-KEPT]:
            os.unlink(os.path.join(self.folder, name))
