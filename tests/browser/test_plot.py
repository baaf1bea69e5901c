"""The live plot: marks stay, no gap or repeat, zoom is kept, visitors do not slow each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.browser import Server
from tests.browser.visitor import Visitor

Enter = Callable[..., Visitor]
RANGE = "eyes.plot()._fullLayout.xaxis.range"  # ms since the epoch


def test_marks_in_the_buffer_stay_as_they_are_while_5000_steps_come(
    own_server: Server, enter: Enter
) -> None:
    visitor = enter(own_server, domain="cpu", range=10_000)
    visitor.until("eyes.x('CPU').length > 9900")
    before = visitor.marks()
    last = visitor.see("eyes.x('CPU').at(-1)")
    visitor.choose("speed", "50x")  # slow enough that a busy machine overshoots little
    visitor.steps(5_000)
    visitor.choose("speed", "1x")
    visitor.redraws(3)
    x = visitor.see("eyes.x('CPU')")
    after = visitor.marks()
    assert x[-1] - last >= 4_900 * (x[1] - x[0])
    oldest = x[-10_000:][0]  # the line may begin before the visible steps
    kept = [t for t in before if t >= oldest]
    assert len(kept) > 10
    assert [t for t in after if t <= last] == kept


def test_for_a_minute_of_ticks_moves_and_tabs_no_line_has_a_gap_or_a_repeat(
    own_server: Server, enter: Enter
) -> None:
    visitor = enter(own_server, domain="wave")
    visitor.until("eyes.lines().length")
    visitor.see("eyes.guard()")
    began = visitor.see("performance.now()")
    streams = ["cpu", "stocks", "machine", "wave"]
    while visitor.see("performance.now()") - began < 60_000:
        visitor.slide("threshold", 2.5)
        visitor.slide("threshold", 5.0)
        visitor.slide("window", 100)
        visitor.slide("window", 40)
        visitor.tab("overview")
        visitor.tab(streams[0])
        streams = streams[1:] + streams[:1]
        visitor.redraws(4)
    assert visitor.see("eyes.looks") > 500
    assert visitor.see("eyes.faults") == []


def test_at_twenty_times_the_speed_too(own_server: Server, enter: Enter) -> None:
    visitor = enter(own_server, domain="wave")
    visitor.until("eyes.lines().length")
    visitor.see("eyes.guard()")
    visitor.choose("speed", "20x")
    for value in (2.5, 5.0, 3.5):
        visitor.steps(1_000)
        visitor.slide("threshold", value)
    visitor.steps(1_000)
    assert visitor.see("eyes.faults") == []


def test_a_hidden_browser_tab_comes_back_whole(own_server: Server, enter: Enter) -> None:
    visitor = enter(own_server, domain="wave")
    visitor.until("eyes.lines().length")
    visitor.see("eyes.guard()")
    session = visitor.context.new_cdp_session(visitor.page)
    points = visitor.see("eyes.count('points')")
    last = visitor.see("eyes.x('signal').at(-1)")
    session.send("Page.setWebLifecycleState", {"state": "frozen"})
    watching = enter(own_server, domain="wave")  # time goes on for another visitor
    watching.until(f"eyes.count('points') > {points + 60}")
    session.send("Page.setWebLifecycleState", {"state": "active"})
    visitor.until(f"eyes.count('points') > {points + 60} && eyes.x('signal').at(-1) > {last}")
    visitor.redraws(3)
    assert visitor.see("eyes.faults") == []
    assert visitor.see("document.body.dataset.state") == "live"


def test_a_zoom_survives_redraws_and_go_live_ends_it(server: Server, enter: Enter) -> None:
    visitor = enter(server, domain="wave")
    visitor.until("eyes.x('signal').length >= 600")
    plot = visitor.page.locator("#chart .nsewdrag").first.bounding_box()
    visitor.page.mouse.move(plot["x"] + 0.3 * plot["width"], plot["y"] + 0.5 * plot["height"])
    visitor.page.mouse.down()
    visitor.page.mouse.move(
        plot["x"] + 0.6 * plot["width"], plot["y"] + 0.55 * plot["height"], steps=5
    )
    visitor.page.mouse.up()
    whole = 600 * 100  # ms
    visitor.until(f"(() => {{ const r = {RANGE}; return r[1] - r[0] < {0.5 * whole} }})()")
    zoomed = visitor.see(RANGE)
    assert "looking back" in visitor.until(
        "eyes.text('age').includes('looking') && eyes.text('age')"
    )
    visitor.redraws(6)
    assert visitor.see(RANGE) == zoomed
    visitor.slide("threshold", 2.5)
    visitor.redraws(2)
    assert visitor.see(RANGE) == zoomed
    visitor.until("!document.getElementById('golive').hidden")
    visitor.press("golive")
    visitor.until(f"(() => {{ const r = {RANGE}; return r[1] - r[0] > {0.9 * whole} }})()")
    right = visitor.see(RANGE)[1]
    visitor.until(f"{RANGE}[1] > {right}")


def test_look_back_freezes_the_view_counts_what_waits_and_goes_live_again(
    server: Server, enter: Enter
) -> None:
    visitor = enter(server, domain="wave")
    visitor.until("eyes.x('signal').length >= 600")
    visitor.press("pause")
    visitor.until("eyes.text('age').includes('looking back')")
    frozen = visitor.see("eyes.x('signal').at(-1)")
    visitor.until("/\\+[1-9]/.test(eyes.text('golive'))")
    assert visitor.see("eyes.x('signal').at(-1)") == frozen
    visitor.redraws(2)
    assert visitor.see("eyes.sizes.at(-1)") < 20_000, (
        "a plot that does not change is not sent again"
    )
    visitor.press("earlier")
    visitor.until(f"eyes.x('signal').at(-1) < {frozen}")
    visitor.press("previous")
    visitor.until("eyes.marks().length > 0")
    visitor.press("golive")
    visitor.until(f"eyes.x('signal').at(-1) > {frozen} && document.getElementById('golive').hidden")


def test_a_slow_compare_of_one_visitor_does_not_slow_another(
    own_server: Server, enter: Enter
) -> None:
    calm, busy = enter(own_server, domain="wave"), enter(own_server, domain="machine")
    calm.redraws(10)
    usual = np.percentile(calm.see("eyes.ticks"), 95)
    busy.page.get_by_text("Compare", exact=True).click()
    busy.until("document.querySelectorAll('#compare tr').length > 0")
    calm.see("eyes.ticks = []")
    for window in (200, 300, 400, 150):  # each needs a new track of every detector
        busy.slide("window", window)
        busy.until(
            "[...document.querySelectorAll('#compare tr')].some(row => "
            "row.textContent.includes('scoring'))"
        )
        calm.redraws(4)
    took = calm.see("eyes.ticks")
    # a redraw slower than the tick is never shown; a busy machine slows all of them
    assert np.percentile(took, 95) < max(500, 4 * usual), (
        f"they took {[round(ms) for ms in took]} ms, before {usual:.0f} ms"
    )
