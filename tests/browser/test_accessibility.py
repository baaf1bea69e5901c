"""The page for keys and screen readers: axe-core finds nothing serious on any tab, and a stream is
tuned from start to end without a mouse.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

from bench.browser import Server
from detectors import DETECTORS
from redline.page.layout import TAB_TITLES
from tests.browser.visitor import Visitor

Enter = Callable[..., Visitor]
SERIOUS = ("serious", "critical")
DESK = {"viewport": {"width": 1440, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
LOWER = ("Incidents", "Compare", "Table", "Settings", "Log")
# one tab of each kind: what differs between two streams are words and numbers
KINDS_OF_TABS = ("overview", "health", "your-data")
MAX_STOPS = 120  # pressed before a control counts as unreachable


def serious_faults(visitor: Visitor) -> list[str]:
    """Return what axe-core finds: the rule, and where."""
    found = Axe().run(visitor.page).response["violations"]
    return [
        f"{fault['id']}: {'; '.join(node['html'][:160] for node in fault['nodes'][:4])}"
        for fault in found
        if fault["impact"] in SERIOUS
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("look", [DESK, PHONE], ids=["1440", "390"])
def test_axe_finds_nothing_serious_on_any_tab(
    server: Server, enter: Enter, look: dict, scheme: str
) -> None:
    visitor = enter(server, {**look, "color_scheme": scheme}, domain="wave")
    visitor.until("eyes.lines().length && document.querySelector('#domain[role=tablist]')")
    visitor.until("document.querySelector('#window [role=slider][aria-label]')")
    faults: dict[str, list[str]] = {}
    for panel in LOWER:
        visitor.page.locator("#lower .tab", has_text=panel).click()
        visitor.redraws(2)
        faults[panel] = serious_faults(visitor)
    whole = (look, scheme) == (DESK, "light")
    for name in TAB_TITLES if whole else KINDS_OF_TABS:
        visitor.tab(name)
        visitor.redraws(1)
        faults[name] = serious_faults(visitor)
    assert not any(faults.values()), {name: found for name, found in faults.items() if found}


def reach(visitor: Visitor, selector: str) -> None:
    """Press Tab until an element, or one in it, has the focus."""
    for _ in range(MAX_STOPS):
        if visitor.see(f"Boolean(document.activeElement.closest({selector!r}))"):
            return
        visitor.page.keyboard.press("Tab")
    raise AssertionError(f"{selector} is not reached by the Tab key")


def choose_by_keys(visitor: Visitor, detector: str) -> None:
    """Choose a detector in the open list of all."""
    for key in ["ArrowUp"] * len(DETECTORS) + ["ArrowDown"] * len(DETECTORS):
        if visitor.see("document.activeElement.value") == detector:
            break
        visitor.page.keyboard.press(key)
        visitor.page.wait_for_timeout(100)  # the focus follows at the next frame
    visitor.page.keyboard.press("Enter")


def test_a_stream_is_tuned_by_keys_alone(own_server: Server, enter: Enter) -> None:
    visitor = enter(own_server, domain="wave")
    press = visitor.page.keyboard.press
    visitor.until("eyes.text('alarms') !== '–' && document.querySelector('#domain[role=tablist]')")
    press("/")
    visitor.page.keyboard.type("cpu")
    visitor.until("eyes.text('streams-found') === 'CPU'")
    press("Enter")
    visitor.until("document.body.dataset.domain === 'cpu' && eyes.lines()[0] === 'CPU'")
    reach(visitor, "#detector")
    press("Enter")
    visitor.page.locator(".dash-dropdown-content [role=option]").first.wait_for()
    choose_by_keys(visitor, "EWMA")
    visitor.until("eyes.text('detector') === 'EWMA' && eyes.text('chip')")
    press("Escape")
    reach(visitor, "#threshold")
    before = visitor.text("threshold-said")
    press("ArrowRight")
    visitor.until(f"eyes.text('threshold-said') !== '{before}'")
    reach(visitor, "#apply")
    press("Enter")
    visitor.until("eyes.text('acted').includes('for everybody') && eyes.text('chip') === ''")
    reach(visitor, "#undo")
    press("Enter")
    visitor.until("eyes.text('detector') !== 'EWMA' && eyes.text('acted').includes('Back to')")
    reach(visitor, "#export")
    with visitor.page.expect_download() as download:
        press("Enter")
    exported = tomllib.loads(Path(download.value.path()).read_text())
    assert exported["source"]["stream"] == "cpu"
    reach(visitor, "#lower .tab")
    press("ArrowRight")
    press("ArrowRight")
    press("Enter")
    visitor.until("document.querySelectorAll('#compare tr').length > 3")
