"""What a person does on the page and sees at once: labels, previews, incidents of any stream, tabs
beyond the strip, and a browser that slept.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from contextlib import suppress

from bench.browser import Server
from tests.browser.pushing import START, push
from tests.browser.visitor import Visitor

NOTES = """[...document.querySelectorAll('.while-preview')].filter(
    e => e.checkVisibility({visibilityProperty: true})).length"""
Enter = Callable[..., Visitor]
DISABLED = "document.getElementById('{}').getAttribute('aria-disabled')"
BLAMED = """eyes.blamed = []; new MutationObserver(() => {
    if (/server/.test(eyes.text('trouble'))) eyes.blamed.push(eyes.text('trouble'));
}).observe(document.body, {childList: true, characterData: true, subtree: true})"""
SAID = """eyes.said = []; new MutationObserver(() => eyes.said.push(eyes.text('labelled')))
    .observe(document.getElementById('labelled'), {childList: true, characterData: true, subtree: true})"""  # noqa: E501
# 2.5 s in which nothing runs in the page
SLEEP = "(() => { const end = performance.now() + 2500; while (performance.now() < end); })()"
FOCUS = "(e => e.id || e.dataset.act || e.dataset.spark || e.className)(document.activeElement)"


def click_plot(visitor: Visitor, share: float = 0.4) -> None:
    """Click on the line of the plot, at a share of its width."""
    box = visitor.page.locator("#chart .nsewdrag").first.bounding_box()
    x = box["x"] + share * box["width"]
    visitor.page.mouse.move(x - 5, box["y"] + 100)
    visitor.page.mouse.move(x, box["y"] + 100)
    visitor.until("eyes.text('under-pointer')")
    visitor.page.mouse.click(x, box["y"] + 100)


def test_a_label_keeps_its_stream_and_names_its_moment(own_server: Server, enter: Enter) -> None:
    visitor = enter(own_server, domain="cpu")
    visitor.until("eyes.lines()[0] === 'CPU'")
    visitor.press("pause")
    visitor.until("eyes.text('status') === 'looking back'")
    click_plot(visitor)
    visitor.until(r"/^missed: [\d:-]+$/.test(eyes.text('label-missed'))")
    visitor.tab("network")
    visitor.until("document.getElementById('labels').hidden && eyes.lines()[0] === 'in'")
    visitor.press("pause")
    visitor.until("eyes.text('status') === 'looking back'")
    click_plot(visitor)
    visitor.until("!document.getElementById('labels').hidden")
    visitor.see(SAID)
    visitor.press("label-missed")
    visitor.until("/labelled by page$/.test(eyes.text('labelled'))")
    assert visitor.see("eyes.said[0]").endswith("by you …"), "it says so before the server does"
    with urllib.request.urlopen(f"{own_server.url}/api/labels?source=network") as answer:
        assert len(json.load(answer)["labels"]) == 1
    with urllib.request.urlopen(f"{own_server.url}/api/labels?source=cpu") as answer:
        assert not json.load(answer)["labels"]


def test_what_another_visitor_applies_is_no_preview_here(own_server: Server, enter: Enter) -> None:
    first = enter(own_server, domain="cpu")
    second = enter(own_server, domain="cpu")
    for visitor in (first, second):
        visitor.redraws(2)
    first.slide("threshold", 9.0)
    first.until(f"{DISABLED.format('apply')} === 'false'")
    first.press("apply")
    second.until("eyes.text('threshold-said') === '9.0 σ' && eyes.text('chip') === ''")


def test_a_preview_is_called_one_and_only_then_there_is_something_to_apply(
    own_server: Server, enter: Enter
) -> None:
    visitor = enter(own_server, domain="cpu")
    for button in ("apply", "undo"):
        visitor.until(f"{DISABLED.format(button)} === 'true'")
    assert visitor.text("chip") == ""
    visitor.slide("threshold", 5.0)
    visitor.until("eyes.text('chip') === 'Preview, not applied'")
    visitor.until(f"{DISABLED.format('apply')} === 'false'")
    assert visitor.see(NOTES) >= 2, "each number says whether it is of the preview"
    visitor.until("eyes.text('explain').startsWith('Preview: ')")
    visitor.page.focus("#apply")
    visitor.page.keyboard.press("Enter")
    visitor.until(f"eyes.text('chip') === '' && {DISABLED.format('apply')} === 'true'")
    assert visitor.see(NOTES) == 0
    assert visitor.see("document.activeElement.id") == "apply", "the focus stays"
    visitor.until(f"{DISABLED.format('undo')} === 'false'")
    visitor.press("undo")
    visitor.until(f"{DISABLED.format('undo')} === 'true'")
    visitor.tab("this-machine")
    visitor.until(f"{DISABLED.format('best')} === 'true'")
    assert "needs labelled" in visitor.see("document.getElementById('best').title")


def test_an_incident_of_another_stream_is_announced_opened_and_acted_on(
    own_server: Server, enter: Enter
) -> None:
    visitor = enter(own_server, domain="your-data")
    visitor.until("eyes.text('explain').includes('drop a file')")
    visitor.redraws(2)
    push(own_server, "oven", spike=True)
    popup = visitor.page.locator("#popups .popup", has_text="oven · critical")
    popup.wait_for()
    popup.dispatch_event("click")
    visitor.until("document.body.dataset.domain === 'oven'")
    visitor.until("eyes.text('status') === 'looking back' && eyes.marks().length > 0")
    visitor.page.locator("#lower .tab", has_text="Incidents").click()
    visitor.page.locator("#incident-scope").get_by_text("all streams").click()
    entry = visitor.page.locator(".incident", has_text="oven")
    entry.locator("[data-act='snooze 1 h']").focus()
    visitor.page.keyboard.press("Enter")
    visitor.until("/snoozed 1 h by page/.test(eyes.text('incidents'))")
    assert visitor.see(FOCUS) == "snooze 1 h", "the focus stays where it was"
    entry.locator("[data-act=note]").click()
    visitor.page.keyboard.type("the <b>door</b> was open")
    visitor.page.keyboard.press("Tab")
    visitor.page.keyboard.press("Enter")
    visitor.until("eyes.text('incidents').includes('page: the <b>door</b> was open')")
    entry.locator("[data-act=resolve]").focus()
    visitor.page.keyboard.press("Enter")
    visitor.until("/resolved by page/.test(eyes.text('incidents'))")
    visitor.until("document.activeElement.closest('.incident')", 5)


def test_no_source_is_unreachable_and_an_opened_tab_can_be_closed(
    own_server: Server, enter: Enter
) -> None:
    for i in range(30):
        push(own_server, f"pump {i:02d}", steps=3)
    visitor = enter(own_server, domain="pump 01")
    visitor.until("document.body.dataset.domain === 'pump 01'")
    visitor.until("document.querySelector(\"#domain [data-close='pump 01']\")")
    assert visitor.see("document.querySelector(\"#domain [data-spark='pump 02']\")") is None
    visitor.page.keyboard.press("/")
    visitor.page.keyboard.type("ump 02")
    visitor.until("eyes.text('streams-found') === 'pump 02'")
    visitor.page.keyboard.press("Enter")
    visitor.until("document.body.dataset.domain === 'pump 02'")
    visitor.until("document.querySelector(\"#domain [data-close='pump 02']\")")
    visitor.page.locator("#domain [data-close='pump 02']").click()
    visitor.until("document.body.dataset.domain === 'wave'")
    visitor.until("!document.querySelector(\"#domain [data-close='pump 02']\")")


def test_a_browser_that_slept_does_not_blame_the_server(server: Server, enter: Enter) -> None:
    visitor = enter(server, domain="wave")
    visitor.until("document.body.dataset.state === 'live' && eyes.lines().length")
    visitor.see(BLAMED)
    for _ in range(3):
        visitor.see(SLEEP)
        visitor.redraws(2)
    assert visitor.see("eyes.blamed") == []


def test_a_pushed_stream_that_ended_is_silent_and_nothing_is_retried(
    own_server: Server, enter: Enter
) -> None:
    values = [180 + i % 7 / 10 for i in range(300)]
    lines = [
        {"source": "oven", "time": START + i / 10, "value": value} for i, value in enumerate(values)
    ]
    body = "\n".join(map(json.dumps, lines)).encode()
    with urllib.request.urlopen(f"{own_server.url}/api/submit", body, timeout=20) as answer:
        assert answer.status == 200
    visitor = enter(own_server, domain="oven")
    visitor.until(r"/^silent since [\d:]+ UTC$/.test(eyes.text('age'))")
    y = "eyes.traces('value')[0].y"
    assert visitor.see(f"{y}.filter(each => each === null || Number.isNaN(each)).length") == 0


def test_few_tab_stops_lead_from_the_header_to_the_plot(server: Server, enter: Enter) -> None:
    visitor = enter(server, domain="wave")
    visitor.until("eyes.lines().length && document.querySelector('#domain[role=tablist]')")
    stops = []
    while not stops or not stops[-1]:
        visitor.page.keyboard.press("Tab")
        stops.append(visitor.see("Boolean(document.activeElement.closest('main'))"))
        assert len(stops) <= 15, "more than 15 stops before the plot"
    visitor.page.locator("#domain .tab--selected").focus()
    for key, name in {"ArrowRight": "cpu", "End": "your-data", "ArrowLeft": "this-machine"}.items():
        visitor.page.keyboard.press(key)
        found = "document.activeElement.querySelector('[data-spark]').dataset.spark"
        assert visitor.see(found) == name
    visitor.page.keyboard.press("Home")
    visitor.page.keyboard.press("ArrowRight")
    visitor.page.keyboard.press("Enter")
    with suppress(AssertionError):
        visitor.until("document.body.dataset.domain === 'overview'", 1)
    assert visitor.see("document.body.dataset.domain") == "wave"
    selected = "[...document.querySelectorAll('#domain [aria-selected=true]')].length"
    assert visitor.see(selected) == 1
