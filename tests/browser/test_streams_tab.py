"""The list of all streams in a browser: the series with the fault is first, a click opens it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from bench.browser import Server
from tests.browser.conftest import SEED
from tests.browser.pushing import START, submit
from tests.browser.test_accessibility import CALM, DESK, PHONE, faults_in_both_themes, reach
from tests.browser.visitor import Visitor

Enter = Callable[..., Visitor]
SERIES = [f'load{{host="h{i:03d}",job="{"web" if i % 2 else "db"}"}}' for i in range(298)]
HOSTILE = "<img src=x onerror=owned=1>"
SPECIAL = "Ofen Süd"
NAMES = [*SERIES, HOSTILE, SPECIAL]
FAULTY = SERIES[123]
STEPS = 120
ROWS = "[...document.querySelectorAll('#streams-body tr')].map(row => row.dataset.domain)"


def push_series(server: Server, steps: int = STEPS, since: int = 0, fault: bool = True) -> None:
    """Push the steps of 300 series, 15 s apart; one has a fault at the end."""
    values = np.random.default_rng(8).uniform(20, 21, (STEPS, len(NAMES)))[:steps].round(3)
    if fault:
        values[-2:, NAMES.index(FAULTY)] = 90.0
    body = [
        {"time": START + 15 * (since + i), "values": dict(zip(NAMES, row))}
        for i, row in enumerate(values.tolist())
    ]
    submit(server, json.dumps(body))


@pytest.fixture(scope="module")
def series_server() -> Iterator[Server]:
    with Server("--seed", str(SEED)) as running:
        push_series(running)
        yield running


def order_of(visitor: Visitor) -> list[str]:
    return list(visitor.see(ROWS))


def opened_list(server: Server, enter: Enter, **look: Any) -> Visitor:
    visitor = enter(server, look, domain="streams")
    visitor.until(f"{ROWS}.length")
    return visitor


def test_the_series_with_a_fault_is_first_and_a_click_opens_it_with_its_anomaly(
    series_server: Server, enter: Enter
) -> None:
    visitor = enter(series_server, {**DESK, **CALM}, domain="wave")
    tab = visitor.page.locator("#domain .tab.last", has_text="Streams")
    assert "Streams 313" in tab.inner_text()
    box = tab.bounding_box()
    assert box is not None and box["x"] + box["width"] <= 1_441, "it is in sight"
    tab.click()
    visitor.until(f"{ROWS}[0] === {json.dumps(FAULTY)}")
    assert len(order_of(visitor)) == 100
    first = visitor.page.locator("#streams-body tr").first
    for said in ("load", "host=h123, job=web", "critical, open", "90", "of 5", "ago"):
        assert said in first.inner_text(), said
    assert first.locator("path.hot").count() == 1
    assert visitor.see("window.owned") is None
    first.locator("td").first.click()
    visitor.until(f"document.body.dataset.domain === {json.dumps(FAULTY)}")
    newest = 1_000 * (START + 15 * (STEPS - 1))
    visitor.until(f"eyes.lines().length && eyes.marks().at(-1) >= {newest - 15_000}")
    assert visitor.marks()[-1] <= newest
    assert "90" in visitor.text("explain")
    assert visitor.see(f"Boolean(document.querySelector(`[data-close='{FAULTY}']`))")


def test_it_is_searched_sorted_and_turned_over(series_server: Server, enter: Enter) -> None:
    visitor = opened_list(series_server, enter)
    assert visitor.text("streams-said") == "1 to 100 of 313"
    visitor.press("streams-after")
    visitor.until("eyes.text('streams-said') === '101 to 200 of 313'")
    visitor.page.fill("#streams-part", "h12")
    visitor.until("eyes.text('streams-said') === '1 to 10 of 10 of 313'")
    visitor.page.click("#streams [data-sort=name]")
    visitor.until("document.querySelector('#streams th[aria-sort=ascending]')")
    visitor.until(f"{ROWS}[0] === {json.dumps(SERIES[120])}")
    visitor.page.click("#streams [data-sort=name]")
    visitor.until(f"{ROWS}[0] === {json.dumps(SERIES[129])}")
    assert visitor.see("document.querySelector('#streams [aria-sort]').ariaSort") == "descending"
    visitor.press("streams-unusual")
    visitor.until(f"{ROWS}[0] === {json.dumps(FAULTY)}")
    visitor.page.fill("#streams-part", '{job="db",host=~"h00.*"}')
    visitor.until("eyes.text('streams-said') === '1 to 5 of 5 of 313'")
    visitor.page.fill("#streams-part", HOSTILE)
    visitor.until(f"{ROWS}.length === 1")
    assert HOSTILE in visitor.page.locator("#streams-body").inner_text()
    assert visitor.see("document.querySelectorAll('#streams img').length") == 0


@pytest.mark.parametrize("look", [DESK, PHONE], ids=["1440", "390"])
def test_axe_finds_nothing_serious_in_the_list_and_it_fits(
    series_server: Server, enter: Enter, look: dict[str, Any]
) -> None:
    visitor = opened_list(series_server, enter, **look, **CALM)
    assert faults_in_both_themes(visitor) == []
    assert visitor.see("document.documentElement.scrollWidth <= innerWidth")


def test_a_row_is_reached_by_keys_and_keeps_the_focus_while_rows_are_renewed(
    own_server: Server, enter: Enter
) -> None:
    push_series(own_server, fault=False)
    visitor = opened_list(own_server, enter)
    visitor.page.fill("#streams-part", "load{")
    visitor.until("eyes.text('streams-said').includes('of 298 of 313')")
    reach(visitor, "#streams-body tr:first-child button")
    held = "document.activeElement.closest('tr')?.dataset.domain"
    name = visitor.see(held)
    push_series(own_server, steps=2, since=STEPS)
    visitor.until(f"{ROWS}.includes({json.dumps(FAULTY)})")
    visitor.until("document.querySelector('#streams-body td.above')")
    assert visitor.see(held) == name == order_of(visitor)[0], "the rows keep their places meanwhile"
    visitor.see("document.activeElement.blur()")
    visitor.until(f"{ROWS}[0] === {json.dumps(FAULTY)}")
    visitor.page.locator("#streams-body tr:first-child button").focus()
    visitor.page.keyboard.press("Enter")
    visitor.until(f"document.body.dataset.domain === {json.dumps(FAULTY)}")
