"""The usability of the page: nothing jumps, keys work, the theme is kept, it fits a phone, a link
restores the view.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from bench.browser import Server
from streams import STREAMS
from tests.browser.visitor import Visitor

Enter = Callable[..., Visitor]
PHONE_HEIGHT = 844
PHONE = {"viewport": {"width": 390, "height": PHONE_HEIGHT}, "is_mobile": True, "has_touch": True}
STILL = [
    "status",
    "points",
    "domain",
    "explain",
    "chart",
    "detector",
    "window",
    "threshold",
    "alarms",
    "precision",
    "recall",
    "curve",
    "apply",
    "lower",
]
SERIES = {"light": "#3B6FB6", "dark": "#7FB2F0"}  # colour of the values
BOXES = f"Object.fromEntries({STILL}.map(id => [id, eyes.box(id)]))"
SPOKEN_ROLE = "document.getElementById('spoken').getAttribute('role')"
FOCUSED = """(() => {
    const ids = [];
    for (let e = document.activeElement; e; e = e.parentElement) if (e.id) ids.push(e.id);
    return ids;
})()"""
SHIFTS = """eyes.shifts = []; new PerformanceObserver(list => list.getEntries().forEach(e => e.hadRecentInput || eyes.shifts.push(
    [Math.round(e.startTime), e.value, e.sources.map(s => s.node?.id || s.node?.className || s.node?.nodeName)]
))).observe({type: 'layout-shift', buffered: true})"""  # noqa: E501


@pytest.mark.parametrize("look", [{}, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("name", ["wave", "iot"])
def test_nothing_jumps(server: Server, enter: Enter, look: dict, name: str) -> None:
    visitor = enter(server, look, domain=name)
    visitor.until(
        "eyes.lines().length && document.querySelector('#curve .js-plotly-plot')?.data?.length"
    )
    first = visitor.see(BOXES)
    visitor.redraws(10)
    visitor.slide("threshold", 2.0)
    visitor.until("eyes.text('alarms').includes('→')")
    later = visitor.see(BOXES)
    moved = {name: (first[name], later[name]) for name in STILL if first[name] != later[name]}
    assert not moved, f"element: (x, y, width, height) before and after: {moved}"


def test_from_the_first_paint_on_nothing_shifts(server: Server, enter: Enter) -> None:
    visitor = enter(server, domain="cpu")
    visitor.until(
        "eyes.lines().length && document.querySelector('#curve .js-plotly-plot')?.data?.length"
    )
    drawn = visitor.see("performance.now()")
    visitor.redraws(8)
    visitor.see(SHIFTS)
    visitor.redraws(1)
    # a pop-up lies over the page, and moves when another comes
    shifts = [
        each
        for each in visitor.see("eyes.shifts")
        if not all(str(what).startswith("popup") for what in each[2])
    ]
    assert sum(share for _, share, _ in shifts) < 0.05, (
        f"(ms since opening, share of the page, what): {shifts}"
    )
    assert sum(share for when, share, _ in shifts if when > drawn) < 0.001, (
        f"shifts after {drawn:.0f} ms: {shifts}"
    )


@pytest.mark.parametrize("name", ["wave", "iot", "overview", "this-machine", "your-data"])
def test_a_phone_needs_no_scrolling_sideways(server: Server, enter: Enter, name: str) -> None:
    visitor = enter(server, PHONE, domain=name)
    visitor.until(f"document.body.dataset.domain === '{name}'")
    visitor.redraws(2)
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert visitor.see(wide) <= 0
    for panel in ("Compare", "Table") if name in ("wave", "iot") else ():
        visitor.page.get_by_text(panel, exact=True).click()
        visitor.redraws(5)
        assert visitor.see(wide) <= 0, panel


def test_on_a_phone_the_plot_comes_first(server: Server, enter: Enter) -> None:
    visitor = enter(server, PHONE, domain="cpu")
    visitor.until("eyes.lines().length")
    chart_y = visitor.see("eyes.box('chart')[1]")
    controls_y = visitor.see("eyes.box('threshold')[1]")
    assert chart_y < PHONE_HEIGHT / 2 and controls_y > chart_y
    assert visitor.see("eyes.box('chart')[2]") > 300


def test_keys(server: Server, enter: Enter) -> None:
    visitor = enter(server, domain="wave")
    visitor.until("eyes.lines().length")
    press = visitor.page.keyboard.press
    press("2")
    visitor.until("document.body.dataset.domain === 'cpu' && eyes.lines()[0] === 'CPU'")
    press("Space")
    visitor.until("/looking back/.test(eyes.text('age'))")
    frozen = visitor.see("eyes.x('CPU').at(-1)")
    press("p")
    visitor.until(f"eyes.x('CPU').at(-1) < {frozen}")
    back = visitor.see("eyes.x('CPU').at(-1)")
    press("p")
    visitor.until(f"eyes.x('CPU').at(-1) < {back}")
    press("n")
    visitor.until(f"eyes.x('CPU').at(-1) === {back}")
    assert visitor.marks()
    press("g")
    visitor.until("document.body.dataset.state === 'live'")
    press("?")
    visitor.until("document.getElementById('keys').open")
    press("Escape")
    visitor.until("!document.getElementById('keys').open")
    press("9")
    visitor.until("document.body.dataset.domain === 'stocks'")


def test_a_tab_is_opened_by_enter(server: Server, enter: Enter) -> None:
    visitor = enter(server, domain="wave")
    visitor.page.locator("#domain .tab").last.focus()
    visitor.page.keyboard.press("Enter")
    visitor.until("document.body.dataset.domain === 'your-data'")


def test_every_control_is_reached_by_the_tab_key(server: Server, enter: Enter) -> None:
    visitor = enter(server, domain="wave")
    visitor.until("eyes.lines().length")
    reached = set()
    for _ in range(80):
        visitor.page.keyboard.press("Tab")
        reached |= set(visitor.see(FOCUSED))
    wanted = {
        "domain",
        "detector",
        "window",
        "threshold",
        "range",
        "apply",
        "undo",
        "export",
        "pause",
        "speed",
        "bell",
        "theme",
        "share",
        "inject-point",
    }
    assert wanted <= reached, f"not reached: {sorted(wanted - reached)}"


def test_the_chart_has_a_role_a_name_and_the_sentence_which_is_spoken(
    server: Server, enter: Enter
) -> None:
    visitor = enter(server, domain="wave")
    visitor.until("eyes.lines().length")
    plot = visitor.page.locator("[role=figure]:has(#chart)")
    assert plot.get_attribute("aria-describedby") == "explain"
    named = "document.querySelector('[role=figure]').getAttribute('aria-label')"
    parts = "values, expected range and score over time"
    visitor.until(f"{named} === 'Chart of {STREAMS['wave'].title}: {parts}'")
    assert visitor.see(SPOKEN_ROLE) == "status", "a live region"
    visitor.tab("network")
    visitor.until(f"{named} === 'Chart of {STREAMS['network'].title}: {parts}'")
    # the figures of the sentence change at each step, what is before them with each anomaly
    head = "eyes.text('{}').split(': ')[0]"
    visitor.until(f"eyes.lines()[0] === 'in' && {head.format('explain')}.includes('Network')")
    visitor.until(f"{head.format('spoken')} === {head.format('explain')}")
    visitor.page.get_by_text("Table", exact=True).click()
    visitor.until("document.querySelectorAll('#rows tbody tr').length >= 20")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_and_a_switch_is_kept(
    server: Server, enter: Enter, scheme: str
) -> None:
    visitor = enter(server, {"color_scheme": scheme}, domain="wave")
    theme = "document.documentElement.dataset.theme"
    assert visitor.see(theme) == scheme
    ground = "getComputedStyle(document.body).backgroundColor"
    before = visitor.see(ground)
    line = "eyes.traces('signal')[0].line.color"
    other = "dark" if scheme == "light" else "light"
    visitor.until(f"eyes.lines().length && {line} === '{SERIES[scheme]}'")
    visitor.press("theme")
    visitor.until(f"{theme} !== '{scheme}' && {line} === '{SERIES[other]}'")
    visitor.until(f"{ground} !== '{before}'")
    visitor.page.reload()
    visitor.until(f"{theme} && {theme} !== '{scheme}'")


def test_no_white_flash_in_the_dark(server: Server, enter: Enter) -> None:
    visitor = enter(server, {"color_scheme": "dark"}, domain="wave")
    visitor.page.goto(visitor.page.url, wait_until="commit")
    visitor.page.wait_for_load_state("domcontentloaded")
    rgb = visitor.see(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    )
    assert max(rgb) < 60


def test_the_view_is_in_the_address_and_a_link_leads_back_to_it(
    server: Server, enter: Enter
) -> None:
    visitor = enter(server)
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visitor.until("eyes.lines().length")
    visitor.tab("electricity")
    preset = STREAMS["electricity"].preset
    visitor.until(f"eyes.text('detector') === '{preset['detector']}'")
    visitor.choose("detector", "CUSUM")
    visitor.slide("threshold", 5.0)
    visitor.choose("range", "2,000 steps")
    visitor.until(
        "location.search.includes('CUSUM') && location.search.includes('threshold=5') "
        "&& location.search.includes('range=2000')"
    )
    visitor.press("share")
    visitor.until("eyes.text('share') === 'Copied'")
    link = visitor.see("navigator.clipboard.readText()")
    friend = enter(server)
    friend.page.goto(link)
    friend.until(
        "eyes.text('detector') === 'CUSUM' && "
        "eyes.text('threshold-said').startsWith('5.0') && eyes.x('load').length > 1900"
    )


def test_a_link_of_another_seed_says_so(server: Server, enter: Enter) -> None:
    visitor = enter(server, domain="wave", seed=8)
    visitor.until("/made with --seed 8/.test(eyes.text('trouble'))")


# Pop-ups disappear after 6000 ms, on a busy machine before the click comes; this keeps them.
STAY = """(() => {
  const later = window.setTimeout;
  window.setTimeout = (act, ms, ...more) => (ms === 6000 ? 0 : later(act, ms, ...more));
})()"""


def test_pop_ups_are_three_at_most_and_the_bell_is_silent_until_clicked(
    own_server: Server, enter: Enter
) -> None:
    visitor = enter(own_server, domain="wave")
    visitor.until("eyes.lines().length")
    assert visitor.see("document.getElementById('bell').getAttribute('aria-pressed')") != "true"
    visitor.press("bell")
    visitor.until("document.getElementById('bell').getAttribute('aria-pressed') === 'true'")
    visitor.slide("size", 12)
    visitor.see(STAY)
    # only a record of the last steps is an alarm: where an event has just been, a later one is
    shown = "document.querySelectorAll('#popups .popup').length"
    for _ in range(4):
        visitor.press("inject-point")
        with suppress(AssertionError):
            visitor.until(f"{shown} >= 1", 15)
            break
    assert visitor.see(shown) >= 1
    assert visitor.see("document.querySelectorAll('#popups .popup').length") <= 3
    visitor.page.hover("#stage > aside")
    visitor.see("document.querySelectorAll('.popup').forEach(each => each.remove())")
    for _ in range(6):
        visitor.page.dispatch_event("#inject-point", "click")  # the pointer stays where it is
        with suppress(AssertionError):
            visitor.until(f"{shown} >= 1", 10)
            break
    assert visitor.see(
        "document.querySelector('.popup').getBoundingClientRect().right"
        " < document.querySelector('#stage > aside').getBoundingClientRect().left"
    ), "not over the controls while the pointer is there"
    visitor.page.click("#popups .popup")
    visitor.until("eyes.text('status') === 'looking back'")


def test_a_phone_shows_the_newest_pop_up_alone(server: Server, enter: Enter) -> None:
    visitor = enter(server, PHONE, domain="wave")
    visitor.until("eyes.lines().length")
    shown = visitor.see(  # in one go: real ones may come at any time
        "(() => { const box = document.getElementById('popups'); box.replaceChildren();"
        " for (const text of ['first', 'second']) box.append(Object.assign("
        "document.createElement('button'), {className: 'popup info', textContent: text}));"
        " return [...box.children].map(each => each.offsetHeight > 0); })()"
    )
    assert shown == [False, True]


def test_an_anomaly_in_the_list_leads_to_its_moment(server: Server, enter: Enter) -> None:
    visitor = enter(server, domain="cpu")
    visitor.until("document.querySelectorAll('#history .entry').length === 20")
    visitor.page.click("#history .entry >> nth=12")
    visitor.until("eyes.text('status') === 'looking back' && eyes.marks().length > 0")


def test_the_plot_library_is_fetched_once_and_from_the_start(server: Server, enter: Enter) -> None:
    visitor = enter(server)
    visitor.until("eyes.marks().length > 0")
    fetched = visitor.see(
        "performance.getEntriesByType('resource').filter(r => "
        "r.name.includes('plotly')).map(r => [r.initiatorType, r.name])"
    )
    assert [how for how, _ in fetched] == ["script"], fetched
