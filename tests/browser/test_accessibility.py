"""The page for keys and screen readers: axe-core finds nothing serious on any tab, and a stream is
tuned from start to end without a mouse.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from bench.browser import Server
from detectors import DETECTORS
from redline.page.layout import MAX_PUSHED_TABS, TAB_TITLES
from tests.browser.pushing import START, submit
from tests.browser.visitor import Visitor

Enter = Callable[..., Visitor]
SERIOUS = ("serious", "critical")
DESK: dict[str, Any] = {"viewport": {"width": 1440, "height": 900}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "is_mobile": True,
    "has_touch": True,
}
# colours that fade into others would be judged half way
CALM: dict[str, Any] = {"color_scheme": "light", "reduced_motion": "reduce"}
COLOUR_RULES = ("color-contrast", "link-in-text-block")  # what a dark page can break by itself
LOWER = ("Incidents", "Compare", "Table", "Settings", "Log", "Days")
RUN_AXE = (
    "axe.run({ONLYresultTypes: ['violations'], preload: false})"
    ".then(({violations}) => violations.map(({id, impact, nodes}) => "
    "({id, impact, nodes: nodes.map(({html}) => ({html}))})))"
)
# the page names a dropdown in a moment after Dash has drawn it
NAMED = (
    "[...document.querySelectorAll('.dash-dropdown-focus-target')]"
    ".every((target) => target.tabIndex < 0 || !target.offsetParent)"
)
# one source more than there are tabs for
PUMPS = [
    json.dumps({"source": f"pump {i:02d}", "time": START + 60 * step, "value": step % 2})
    for i in range(MAX_PUSHED_TABS + 1)
    for step in range(3)
]
CALM_CSV = b"time,heat\n" + b"".join(
    b"2026-01-05 %02d:%02d:00,%d\n" % (step // 60, step % 60, step % 7) for step in range(400)
)
MAX_STOPS = 120  # pressed before a control counts as unreachable


def serious_faults(visitor: Visitor, rules: Sequence[str] = ()) -> list[str]:
    """Return what axe-core finds by some rules, none named = by all: the rule, and where."""
    if not visitor.see("Boolean(window.axe)"):
        visitor.see(Axe().axe_script)
    visitor.until(NAMED)
    only = f"runOnly: {json.dumps(rules)}, " if rules else ""
    return [
        f"{fault['id']}: {'; '.join(node['html'][:160] for node in fault['nodes'][:4])}"
        for fault in visitor.see(RUN_AXE.replace("ONLY", only))
        if fault["impact"] in SERIOUS
    ]


def faults_in_both_themes(visitor: Visitor) -> list[str]:
    """Return what axe-core finds in this theme, and what it finds of colours in the other.

    The visitor stays in the other: each switch redraws the plot.
    """
    this = visitor.see("document.documentElement.dataset.theme")
    other = {"light": "dark", "dark": "light"}[this]
    found = [f"{this}: {fault}" for fault in serious_faults(visitor)]
    visitor.page.emulate_media(color_scheme=other)  # which the page follows
    visitor.until(f"document.documentElement.dataset.theme === '{other}'")
    return found + [f"{other}: {fault}" for fault in serious_faults(visitor, COLOUR_RULES)]


@pytest.mark.parametrize("look", [DESK, PHONE], ids=["1440", "390"])
def test_axe_finds_nothing_serious_on_any_tab(
    server: Server, enter: Enter, look: dict[str, Any]
) -> None:
    visitor = enter(server, {**look, **CALM}, domain="wave")
    visitor.until("eyes.lines().length && document.querySelector('#domain[role=tablist]')")
    visitor.until("document.querySelector('#window [role=slider][aria-label]')")
    faults: dict[str, list[str]] = {}
    for panel in LOWER:
        visitor.page.locator("#lower .tab", has_text=panel).click()
        visitor.until(f"document.querySelector('#lower .tab--selected').textContent === '{panel}'")
        visitor.redraws(2)
        faults[panel] = faults_in_both_themes(visitor)
    visitor.see("document.getElementById('keys').showModal()")
    faults["the keys"] = faults_in_both_themes(visitor)
    visitor.page.keyboard.press("Escape")
    for name in TAB_TITLES:
        visitor.tab(name)
        visitor.redraws(1)
        faults[name] = faults_in_both_themes(visitor)
    assert not any(faults.values()), {name: found for name, found in faults.items() if found}


def test_axe_finds_nothing_serious_with_a_file_and_a_tab_that_can_be_closed(
    own_server: Server, enter: Enter
) -> None:
    submit(own_server, "\n".join(PUMPS))
    visitor = enter(own_server, {**DESK, **CALM}, domain="pump 00")
    visitor.until("document.querySelector(\"#domain [data-close='pump 00']\")")
    faults = {"a tab that can be closed": faults_in_both_themes(visitor)}
    visitor.tab("your-data")
    visitor.drop("calm.csv", CALM_CSV)
    visitor.until("eyes.text('guess').includes('calm.csv') && eyes.lines().length")
    faults["a file that was read, 1440"] = faults_in_both_themes(visitor)
    visitor.page.set_viewport_size(PHONE["viewport"])
    visitor.redraws(1)
    faults["a file that was read, 390"] = faults_in_both_themes(visitor)
    visitor.press("change")
    faults["its form, 390"] = faults_in_both_themes(visitor)
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


def preview_by_keys(visitor: Visitor) -> None:
    """Choose a detector, move both sliders and pick the threshold of the best F1."""
    press = visitor.page.keyboard.press
    reach(visitor, "#detector")
    press("Enter")
    visitor.page.locator(".dash-dropdown-content [role=option]").first.wait_for()
    choose_by_keys(visitor, "EWMA")
    visitor.until("eyes.text('detector') === 'EWMA' && eyes.text('chip')")
    press("Escape")
    reach(visitor, "#window")
    before = visitor.text("window-said")
    press("ArrowRight")
    visitor.until(f"eyes.text('window-said') !== '{before}'")
    reach(visitor, "#threshold")
    press("End")
    visitor.until("eyes.text('threshold-said') === '12.0 σ'")
    visitor.redraws(2)
    reach(visitor, "#best")
    press("Enter")
    visitor.until("parseFloat(eyes.text('threshold-said')) < 12")


def export_by_keys(visitor: Visitor) -> str:
    """Export the settings, and return the stream that the file names."""
    reach(visitor, "#export")
    with visitor.page.expect_download() as download:
        visitor.page.keyboard.press("Enter")
    exported = tomllib.loads(Path(download.value.path()).read_text())
    return str(exported["source"]["stream"])


def test_a_stream_is_tuned_by_keys_alone(own_server: Server, enter: Enter) -> None:
    visitor = enter(own_server, domain="wave")
    press = visitor.page.keyboard.press
    visitor.until("eyes.text('alarms') !== '–' && document.querySelector('#domain[role=tablist]')")
    press("/")
    visitor.page.keyboard.type("cpu")
    visitor.until("eyes.text('streams-found') === 'CPU'")
    press("Enter")
    visitor.until("document.body.dataset.domain === 'cpu' && eyes.lines()[0] === 'CPU'")
    reach(visitor, "#inject-point")
    press("Enter")
    visitor.until("eyes.text('injected').includes('spike')")
    preview_by_keys(visitor)
    reach(visitor, "#apply")
    press("Enter")
    visitor.until("eyes.text('acted').includes('for everybody') && eyes.text('chip') === ''")
    reach(visitor, "#undo")
    press("Enter")
    visitor.until("eyes.text('detector') !== 'EWMA' && eyes.text('acted').includes('Back to')")
    assert export_by_keys(visitor) == "cpu"
    reach(visitor, "#lower .tab")
    press("ArrowRight")
    press("ArrowRight")
    press("Enter")
    visitor.until("document.querySelectorAll('#compare tr').length > 3")
    reach(visitor, "#compare [data-detector='CUSUM']")
    press("Enter")
    visitor.until("eyes.text('detector') === 'CUSUM' && eyes.text('chip')")
