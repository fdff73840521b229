"""The report as people read it, and as machines do.

In: a Report. Out: aligned lines by group, of which only those that are not OK say what is needed
and how to mend it; or the mapping that the package's docstring describes.
"""

import textwrap
from typing import Dict, List, Optional

from jetson_cluster import __version__
from jetson_cluster.doctor import GROUPS, Report
from jetson_cluster.doctor.findings import BAD, OK, SKIP, WARN, Row

SIGNS = {OK: "ok", WARN: "WARN", BAD: "BAD", SKIP: "-"}
LEAST_WIDTH = 60


def to_mapping(report: Report, config_path: str) -> Dict[str, object]:
    """For `--json`."""
    return {
        "version": __version__, "config": config_path, "could_start": report.could_start,
        "embedder": list(report.runtimes), "exit_code": report.exit_code,
        "rows": [{
            "group": row.group, "name": row.name, "level": row.finding.level,
            "found": row.finding.found, "needed": row.finding.needed, "mend": row.finding.mend,
            "fault": row.finding.fault, "stops": row.finding.stops} for row in report.rows]}


def to_lines(report: Report, width: Optional[int] = None) -> List[str]:
    """For people; wrapped to `width` columns, None leaves the lines as long as they are."""
    names = max(len(row.name) for row in report.rows)
    lines = []
    for group in GROUPS:
        lines += ([""] if lines else []) + [group]
        for row in report.rows:
            if row.group == group:
                lines += _lines_of(row, names, width)
    return lines


def _lines_of(row: Row, names: int, width: Optional[int]) -> List[str]:
    finding = row.finding
    margin = " " * (names + 10)
    lines = _wrapped("  %-5s %-*s  " % (SIGNS[finding.level], names, row.name), finding.found,
                     margin, width)
    if finding.level in (WARN, BAD):
        if finding.needed:
            lines += _wrapped(margin + "needed: ", finding.needed, margin + " " * 8, width)
        if finding.mend:
            # Never broken: it is there to be copied.
            lines.append(margin + "mend:   " + finding.mend)
    return lines


def _wrapped(start: str, text: str, margin: str, width: Optional[int]) -> List[str]:
    if width is None:
        return [start + text]
    return textwrap.wrap(text, max(width, LEAST_WIDTH), initial_indent=start,
                         subsequent_indent=margin, break_long_words=False,
                         break_on_hyphens=False) or [start.rstrip()]
