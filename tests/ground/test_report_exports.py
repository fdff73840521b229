"""What the report in a real browser saves of a selection: CSV, and orders that the rover reads."""

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="a corpus needs pyarrow")
pytest.importorskip("sklearn", reason="the map needs scikit-learn")

from reported import (  # noqa: F401: fixtures among them
    HOSTILE, KINDS, archive, chromium, page, saved, selection, told, url,
)

from jetson_cluster import orders


def test_the_csv_tells_what_the_page_knows_and_no_cell_is_a_formula(page, archive):
    data = told(page)
    page.locator("#select-shown").click()
    lines = selection(page)
    assert [line["sha256"] for line in lines] == data["sha256"]
    assert [int(line["cluster"]) for line in lines] == data["cluster"].tolist()
    assert {line["label"] for line in lines} == {"dunes", KINDS[1], "'" + KINDS[2], ""}
    assert not [cell for line in lines for cell in line.values() if cell[:1] in tuple("=+-@")]
    paths = {line["path"] for line in lines}
    folder = str(archive / "archive")
    assert folder + "/sol0/caf\\xe9 #1?&%41.png" in paths
    assert folder + "/sol0/line\nbreak\u202egnp.png" in paths
    assert folder + "/sol1/" + HOSTILE[12] in paths
    dark, = [line for line in lines if line["reason"]]
    assert dark["path"] == folder + "/sol0/008.png" and "under-exposed" in dark["reason"]
    assert float(dark["quality"]) < 0.2
    far, = [line for line in lines if line["far"] == "yes"]
    assert far["path"] == folder + "/sol5/059.png"
    assert [line["captured_at"] for line in lines if line["path"].endswith("/030.png")] == [""]
    assert "2031-04-01T05:17:00Z" in {line["captured_at"] for line in lines}


@pytest.mark.parametrize("action", ["pin", "hold", "more_like"])
def test_an_order_file_is_what_the_rover_reads(page, action):
    data = told(page)
    page.get_by_role("button", name="only cluster 1", exact=True).click()
    page.locator("#select-shown").click()
    page.locator("#order-action").select_option(action)
    if action == "more_like":
        page.locator("#order-weight").fill("2.5")
    name, content = saved(page, "#save-orders")
    assert "YAML, %d bytes to uplink" % len(content) in page.locator("#order-note").inner_text()
    parsed = orders.parse(content, name)
    assert parsed.refused == [] and [order.name for order in parsed.actions] == [action]
    expected = np.array(data["sha256"])[data["cluster"] == 1]
    assert parsed.actions[0].targets == tuple(sha256[:12] for sha256 in expected)
    if action == "more_like":
        assert parsed.actions[0].value == len(expected) * (2.5,)


def test_no_order_is_saved_twice_under_one_id(page):
    page.locator("#select-shown").click()
    ids = [orders.parse(content, name).actions[0].order_id
           for name, content in (saved(page, "#save-orders") for _ in range(3))]
    assert len(set(ids)) == 3


@pytest.mark.parametrize("weight", ["", "-1", "1000.5"])
def test_a_weight_the_rover_would_refuse_is_not_saved(page, weight):
    page.locator("#select-shown").click()
    page.locator("#order-action").select_option("more_like")
    page.locator("#order-weight").fill(weight)
    assert page.locator("#save-orders").is_disabled()
    assert "a number from 0 to 1000" in page.locator("#order-note").inner_text()
    page.locator("#order-weight").fill("0.30000000000000004")
    parsed = orders.parse(saved(page, "#save-orders")[1], "orders.yaml")
    assert parsed.actions[0].value[0] == 0.3


def test_with_nothing_selected_nothing_is_saved(page):
    assert page.locator("#save-csv").is_disabled() and page.locator("#save-orders").is_disabled()
