"""The fleet in a browser: its worst lane is first, a cell opens its moment, a period is chosen."""

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
HOSTILE = "<img src=x onerror=owned=1>"
HOSTS = [f"h{i:02d}" for i in range(40)] + [HOSTILE]
NAMES = [f'{metric}{{host="{host}"}}' for host in HOSTS for metric in ("load", "free")]
FAULTY = 'free{host="h23"}'
OTHER = ',load{host="h23"}'
STEPS, FAULT = 110, 80  # 10 s apart
LANES = "[...document.querySelectorAll('#fleet-lanes tr')].map(row => row.lane.value)"
FOCUSED = "document.activeElement.closest('tr')?.lane?.value"


def push_steps(server: Server, steps: int = STEPS, since: int = 0, fault: int = FAULT) -> None:
    """Push steps of all series; one has a fault at a step."""
    values = np.random.default_rng(8).uniform(20, 21, (since + steps, len(NAMES)))[since:].round(3)
    if since <= fault < since + steps:
        values[fault - since, NAMES.index(FAULTY)] = 90.0
    body = [
        {"time": START + 10 * (since + i), "values": dict(zip(NAMES, row))}
        for i, row in enumerate(values.tolist())
    ]
    submit(server, json.dumps(body))


@pytest.fixture(scope="module")
def fleet_server() -> Iterator[Server]:
    with Server("--seed", str(SEED)) as running:
        push_steps(running)
        yield running


def opened_fleet(server: Server, enter: Enter, **view: Any) -> Visitor:
    look = {**DESK, **CALM, **view.pop("look", {})}
    visitor = enter(server, look, domain="fleet", **view)
    visitor.until(f"{LANES}.length")
    return visitor


def lane_box(visitor: Visitor, place: int) -> dict[str, float]:
    box = visitor.page.locator("#fleet-lanes .lane").nth(place).bounding_box()
    assert box is not None
    return dict(box)


def test_the_lane_of_the_fault_is_first_and_its_cell_opens_the_moment(
    fleet_server: Server, enter: Enter
) -> None:
    visitor = enter(fleet_server, {**DESK, **CALM}, domain="wave")
    visitor.page.locator("#domain .tab", has_text="Fleet").click()
    visitor.until(f"{LANES}[0] === 'h23'")
    assert visitor.text("fleet-said") == "1 of 41 lanes with an anomaly, of 82 series"
    first = visitor.page.locator("#fleet-lanes tr").first
    assert "2 series" in first.inner_text()
    box = lane_box(visitor, 0)
    place = (120 - STEPS + FAULT + 0.5) / 120
    # the cell is red on the screen too
    reds = visitor.see(
        "(() => { const c = document.querySelector('#fleet-lanes canvas'),"
        f"p = c.getContext('2d').getImageData(Math.round(c.width * {place}), 5, 1, 1).data;"
        "return [...p]; })()"
    )
    assert reds[0] > 200 and reds[1] < 60 and reds[2] < 60
    visitor.page.mouse.click(box["x"] + box["width"] * place, box["y"] + 8)
    visitor.until(f"document.body.dataset.domain === {json.dumps(FAULTY)}")
    moment = 1_000 * (START + 10 * FAULT)
    visitor.until(f"eyes.lines().length && eyes.marks().includes({moment})")


def test_a_period_that_is_dragged_is_answered_and_is_in_the_link(
    fleet_server: Server, enter: Enter
) -> None:
    visitor = opened_fleet(fleet_server, enter)
    visitor.until("eyes.text('fleet-period').includes('1 of 82 series')")
    box = lane_box(visitor, 3)
    y = box["y"] + 8
    visitor.page.mouse.move(box["x"] + 0.1 * box["width"], y)
    visitor.page.mouse.down()
    visitor.page.mouse.move(box["x"] + 0.3 * box["width"], y, steps=4)
    visitor.page.mouse.up()
    visitor.until("eyes.text('fleet-period').includes('0 of 82 series')")
    assert visitor.see("document.body.dataset.domain") == "fleet", "no cell was opened"
    assert visitor.see("document.getElementById('fleet-range').offsetWidth") > 100
    link = visitor.page.url
    assert "from=" in link and "to=" in link
    visitor.page.goto(link)
    visitor.until("eyes.text('fleet-period').includes('0 of 82 series')")
    visitor.page.locator("#fleet-period button", has_text="all the time").click()
    visitor.until("eyes.text('fleet-period').includes('1 of 82 series')")
    assert "from=" not in visitor.page.url
    visitor.page.locator("#fleet-period ol button").first.click()
    visitor.until(f"document.body.dataset.domain === {json.dumps(FAULTY)}")


def test_lanes_are_grouped_filtered_and_opened_and_names_are_text(
    fleet_server: Server, enter: Enter
) -> None:
    visitor = opened_fleet(fleet_server, enter)
    visitor.press("fleet-more")
    visitor.until(f"{LANES}.length === 41")
    assert HOSTILE in visitor.see(LANES)
    assert visitor.see("document.querySelectorAll('#fleet img').length") == 0
    assert visitor.see("window.owned") is None
    visitor.page.locator("#fleet-lanes .name").first.click()
    visitor.until(f"{LANES}.join() === {json.dumps(FAULTY + OTHER)}")
    assert visitor.see("document.getElementById('fleet-part').value") == '{host="h23"}'
    visitor.press("fleet-back")
    visitor.until(f"{LANES}.length === 28")
    visitor.page.select_option("#fleet-by", "__name__")
    visitor.until(f"{LANES}.join() === 'free,load'")
    visitor.page.fill("#fleet-part", "nothing")
    visitor.until("eyes.text('fleet-empty') === 'No series is like this.'")


def test_lanes_are_reached_by_keys_and_keep_the_focus_while_they_are_renewed(
    own_server: Server, enter: Enter
) -> None:
    push_steps(own_server, 100, fault=-1)
    visitor = opened_fleet(own_server, enter)
    press = visitor.page.keyboard.press
    reach(visitor, "#fleet-lanes .lane")
    press("ArrowDown")
    press("ArrowDown")
    press("ArrowDown")
    held = visitor.see(FOCUSED)
    assert held == visitor.see(LANES)[3]
    place = visitor.see(f"{LANES}.indexOf({json.dumps(held)})")
    push_steps(own_server, 5, since=100, fault=102)
    visitor.until(f"{LANES}.includes('h23') && eyes.text('fleet-said').startsWith('1 of')")
    assert visitor.see(FOCUSED) == held
    assert visitor.see(f"{LANES}.indexOf({json.dumps(held)})") == place
    press("Home")
    said = "document.activeElement.getAttribute('aria-valuetext')"
    assert visitor.see(said).endswith("no score")
    press("End")
    assert visitor.see(said).endswith("calm")
    press("Shift+ArrowLeft")
    visitor.until("eyes.text('fleet-period').includes('all the time')")
    press("Escape")
    visitor.until("!eyes.text('fleet-period').includes('all the time')")
    press("Enter")
    visitor.until(f"document.body.dataset.domain.includes({json.dumps(held)})")


@pytest.mark.parametrize("look", [DESK, PHONE], ids=["1440", "390"])
def test_axe_finds_nothing_serious_in_the_fleet_and_it_fits(
    fleet_server: Server, enter: Enter, look: dict[str, Any]
) -> None:
    visitor = opened_fleet(fleet_server, enter, look=look)
    visitor.until("eyes.text('fleet-period').includes('1 of 82 series')")
    assert faults_in_both_themes(visitor) == []
    assert visitor.see("document.documentElement.scrollWidth <= innerWidth")


def test_without_series_the_link_says_what_is_missing(server: Server, enter: Enter) -> None:
    visitor = enter(server, {**DESK, **CALM}, domain="fleet")
    visitor.until("eyes.text('fleet-empty').includes('No series yet')")
    assert visitor.page.locator("#domain .tab", has_text="Fleet").count() == 0
