"""Amounts of bytes as people write them."""

import pytest
from hypothesis import given, strategies

from jetson_cluster import bytesize
from jetson_cluster.errors import UserError


@pytest.mark.parametrize("text, count", [
    ("0", 0), ("4000000", 4000000), ("4MB", 4000000), ("1.5 MiB", 1572864), ("500kB", 500000),
    ("500KB", 500000), ("12 B", 12), ("2GB", 2 * 10 ** 9), ("1GiB", 2 ** 30), ("3KiB", 3072),
    ("0.0005kB", 0), ("1.9999 kB", 1999), ("0.1MB", 100000), (4000000, 4000000),
    ("1000000 GB", 10 ** 15)])
def test_an_amount_is_read_as_people_write_it(text, count):
    assert bytesize.parse(text, "--budget") == count


@pytest.mark.parametrize("text", [
    "", " ", "MB", "4 Mb", "4mb", "4M", "-4MB", "+4", "4,5MB", "1e6", "nan", "inf", "4MB ", " 4MB",
    "0x10", "4  MB", "4\nMB", "\u0664MB", "9" * 17, "9" * 100000, "1" * 16 + "GB", "1000001GB",
    "0.0000000001GB", None, True, 4.5, [4]])
def test_anything_else_is_one_line_that_names_it_and_shows_how(text):
    with pytest.raises(UserError) as caught:
        bytesize.parse(text, "--budget")
    message = str(caught.value)
    assert message.startswith("--budget ") and len(message) < 200 and "\n" not in message
    assert "4MB" in message or "petabyte" in message


@given(strategies.integers(0, bytesize.MOST_BYTES))
def test_a_plain_number_is_itself(count):
    assert bytesize.parse(str(count), "x") == bytesize.parse(count, "x") == count
