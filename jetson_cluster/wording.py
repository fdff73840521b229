"""Numbers as people read them.

In: counts, bytes, seconds. Out: text for a line on a screen or in the journal.
"""


def counted(count: int, noun: str) -> str:
    """1 image, 2 images, 0 passes."""
    if count != 1:
        noun += "es" if noun.endswith("s") else "s"
    return "%d %s" % (count, noun)


def in_units(count: float) -> str:
    """A number of bytes: 1500 is "1.5 kB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return "%.1f %s" % (count / size, unit)
    return "%d B" % count


def ago(age_s: float) -> str:
    """How long ago something was, in the unit that fits."""
    if age_s < 0:
        return "by a clock ahead of this one"
    for unit, size_s in (("days", 86400), ("h", 3600), ("min", 60)):
        if age_s >= 2 * size_s:
            return "%d %s ago" % (age_s // size_s, unit)
    return "%d s ago" % age_s
