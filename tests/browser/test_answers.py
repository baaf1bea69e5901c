"""What the page answers at once: an act before the server has one, a tone for the bell, a pop-up
for screen readers, a maintenance window made and taken back.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any

from bench.browser import Server
from tests.browser.pushing import push
from tests.browser.visitor import Visitor

Enter = Callable[..., Visitor]
# what is written beside an incident and beside the plot, each change of it
SAID = """eyes.said = []; new MutationObserver(() => {
    for (const each of document.querySelectorAll('.answer, #labelled')) eyes.said.push(each.textContent);
}).observe(document.body, {childList: true, characterData: true, subtree: true})"""  # noqa: E501
# acts wait in the browser until eyes.letGo() is called
HOLD = """(() => {
  const passed = window.fetch;
  window.fetch = async (...asked) => {
    if (String(asked[1]?.body).includes('"act.data"]')) await new Promise(go => (eyes.letGo = go));
    return passed(...asked);
  };
})()"""
# for each tone the pop-ups that are shown
COUNT_TONES = """(() => {
  const start = OscillatorNode.prototype.start;
  eyes.tones = [];
  OscillatorNode.prototype.start = function (...when) {
    eyes.tones.push([...document.querySelectorAll('.popup')].map(each => each.dataset.title));
    return start.apply(this, when);
  };
})()"""
NO_ALERTS = "(eyes.plot().layout.annotations || []).some(each => each.text === 'no alerts')"


def maintenance_windows(server: Server, source: str) -> list[Any]:
    """Return the maintenance windows of a source, as the API lists them."""
    with urllib.request.urlopen(f"{server.url}/api/maintenance?source={source}") as answer:
        return list(json.load(answer)["windows"])


def test_acknowledge_is_answered_before_the_server_does(
    pushed_server: Server, enter: Enter
) -> None:
    push(pushed_server, "boiler", spike=True)
    visitor = enter(pushed_server, domain="boiler")
    visitor.page.locator("#lower .tab", has_text="Incidents").click()
    visitor.page.locator("[data-act=acknowledge]").wait_for()
    visitor.see(SAID)
    visitor.see(HOLD)
    visitor.page.locator("[data-act=acknowledge]").click()
    visitor.until("eyes.letGo && eyes.said.includes('· acknowledge, by you …')")
    assert "acknowledged by" not in visitor.text("incidents"), "the server is not asked yet"
    visitor.see("eyes.letGo()")
    visitor.until("eyes.text('incidents').includes('acknowledged by page')")
    visitor.until("document.querySelector('.answer').textContent === ''")
    assert visitor.see("document.querySelector('[data-act=acknowledge]')") is None


def test_an_incident_of_another_stream_rings_the_bell_and_is_spoken(
    pushed_server: Server, enter: Enter
) -> None:
    visitor = enter(pushed_server, domain="this-machine")
    visitor.redraws(2)
    visitor.see(COUNT_TONES)
    push(pushed_server, "kiln", spike=True)
    visitor.page.locator("#popups .popup", has_text="kiln · critical").wait_for()
    assert visitor.see("eyes.tones") == [], "silent until the bell is clicked"
    spoken = visitor.page.locator("#popups")
    assert spoken.get_attribute("aria-live") == "polite"
    assert spoken.get_attribute("aria-hidden") is None
    visitor.press("bell")
    visitor.until("eyes.tones.length >= 1")
    push(pushed_server, "oven", spike=True)
    visitor.until("eyes.tones.some(shown => shown.includes('oven · critical'))")
    visitor.press("bell")


def test_no_alerts_here_makes_a_window_that_is_taken_back(
    pushed_server: Server, enter: Enter
) -> None:
    push(pushed_server, "dryer")
    visitor = enter(pushed_server, domain="dryer")
    visitor.until("eyes.x('value').length === 300")
    visitor.see(SAID)
    plot = visitor.page.locator("#chart .nsewdrag").first.bounding_box()
    y = plot["y"] + 80
    visitor.page.mouse.move(plot["x"] + 0.4 * plot["width"], y)
    visitor.page.mouse.down()
    visitor.page.mouse.move(plot["x"] + 0.6 * plot["width"], y, steps=5)
    visitor.page.mouse.up()
    visitor.until(r"/^missed: [\d:]+ to [\d:]+$/.test(eyes.text('label-missed'))")
    visitor.press("mute")
    visitor.until("eyes.said.includes('no alerts here, by you …')")
    visitor.until("/^no alerts: .+ to .+, set by page/.test(eyes.text('labelled'))")
    visitor.until(NO_ALERTS)
    (window,) = maintenance_windows(pushed_server, "dryer")
    assert 60 * 40 < window["end"] - window["start"] < 60 * 100, "a fifth of 300 minutes"
    visitor.page.locator("#lower .tab", has_text="Settings").click()
    visitor.page.get_by_role("button", name="Take back").click()
    visitor.until("!eyes.text('settings').includes('Take back')")
    visitor.until(f"!{NO_ALERTS}")
    assert maintenance_windows(pushed_server, "dryer") == []


def test_what_is_live_can_be_silenced_beside_the_plot_and_the_answer_says_until_when(
    pushed_server: Server, enter: Enter
) -> None:
    push(pushed_server, "smelter", spike=True)
    visitor = enter(pushed_server, domain="smelter")
    visitor.until("eyes.marks().length > 0")
    visitor.redraws(1)
    click = "dash_clientside.set_props('chart', {clickData: {points: [{x: %s}]}})"
    visitor.see(click % "eyes.x('value')[10]")
    visitor.until("!document.getElementById('labels').hidden")
    assert visitor.see("document.getElementById('silence').hidden"), "long before the incident"
    visitor.see(click % "eyes.marks().at(-1)")
    visitor.until("!document.getElementById('silence').hidden")
    visitor.press("silence")
    visitor.until("/^smelter: snoozed until [0-9]+:[0-9]+ UTC by page/.test(eyes.text('labelled'))")
