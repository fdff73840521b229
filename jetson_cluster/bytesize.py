"""Amounts of bytes as people write them: 4000000, 500kB, 4MB, 1.5 MiB.

In: text, or a number that YAML read. Out: a whole number of bytes. Units as the standards have
them: kB, MB and GB count in thousands, KiB, MiB and GiB in 1024s.
"""

import re
from decimal import Decimal
from typing import Any

from jetson_cluster.checking import shown
from jetson_cluster.errors import UserError

UNITS = {"": 1, "B": 1, "kB": 10 ** 3, "KB": 10 ** 3, "MB": 10 ** 6, "GB": 10 ** 9,
         "KiB": 2 ** 10, "MiB": 2 ** 20, "GiB": 2 ** 30}
MOST_BYTES = 10 ** 15  # a petabyte; whatever is above was mistyped
# "Mb" would be a million bits, and "4M" is 4 MB to one program and 4 MiB to the next: no.
_PATTERN = re.compile(r"([0-9]{1,16}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)", re.ASCII)


def parse(value: Any, where: str) -> int:
    """The bytes that `value` speaks of, fractions of a byte cut off.

    Raises UserError; `where` says what the value stands for, as "--budget".
    """
    found = _PATTERN.fullmatch(str(value)) if isinstance(value, (str, int)) else None
    if found is None or found.group(2) not in UNITS or isinstance(value, bool):
        raise UserError("%s %s: not an amount of bytes; write it like 4000000, 500kB, 4MB or 1.5MiB"
                        % (where, shown(value)))
    count = int(Decimal(found.group(1)) * UNITS[found.group(2)])
    if count > MOST_BYTES:
        raise UserError("%s %s: more than a petabyte" % (where, shown(value)))
    return count
