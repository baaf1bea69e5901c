"""The overview as a wall display: tiles, calm rows, full screen, hostile names, focus."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from bench.browser import Server
from streams import STREAMS
from tests.browser.pushing import push
from tests.browser.visitor import Visitor

Enter = Callable[..., Visitor]
TABS = "Boolean(document.getElementById('domain').offsetParent)"
WALL = {
    "headline": {
        "stream": "<b>x</b>",
        "severity": "critical",
        "title": "<img src=y onerror=owned=1>",
        "text": "critical (92 of 100) since <b>then</b>",
    },
    "counts": {"critical": 1, "warning": 0, "info": 0, "calm": 1},
    "more": 2,
    "tiles": [
        {
            "stream": "<b>x</b>",
            "title": "<img src=x onerror=owned=1>",
            "severity": "critical",
            "open": True,
            "value": "<i>9</i>",
            "unit": "<u>%</u>",
            "expected": "1 to <b>2</b>",
            "alarm": "alarm 14:02: <b>98</b> %, now 9 %",
            "since": "<b>now</b>",
            "for": "3 s",
            "incident": "<script>owned=1</script>",
            "line": {"y": [0, 500, 1000], "hot": [1, 2], "low": [0, 1, 2], "high": [9, 9, 9]},
        }
    ],
    "calm": [
        {
            "stream": "wave",
            "title": "<img src=x>",
            "value": "1",
            "unit": "<b>V</b>",
            "line": {"y": [0, None, 3], "hot": [0]},
        }
    ],
}


def drawn(visitor: Visitor, wall: dict[str, Any]) -> None:
    visitor.see(f"window.dash_clientside.redline.wall({json.dumps(wall)})")


def test_every_stream_is_a_tile_or_a_row_and_full_screen_hides_the_tabs(
    server: Server, enter: Enter
) -> None:
    visitor = enter(server, domain="overview")
    shown = "document.querySelectorAll('#wall-tiles .tile, #wall-calm .calm-row').length"
    visitor.until(f"{shown} >= {len(STREAMS)}")
    line = "document.querySelector('#overview [data-domain=wave] path:not(.band)')"
    before = visitor.see(f"{line}.getAttribute('d')")
    visitor.until(f"{line}.getAttribute('d') !== {json.dumps(before)}")
    visitor.press("wall-full")
    visitor.until(f"!{TABS}")
    assert visitor.see(shown) >= len(STREAMS)
    visitor.press("wall-full")
    visitor.until(TABS)


def test_every_text_on_the_wall_is_text_and_a_tile_keeps_the_focus(
    server: Server, enter: Enter
) -> None:
    visitor = enter(server, domain="wave")  # where no wall of the server comes between
    drawn(visitor, WALL)
    inside = "document.getElementById('overview')"
    markup = visitor.see(f"{inside}.querySelectorAll('img, script, u, [onerror]').length")
    assert markup == 0 and visitor.see("window.owned") is None
    text = visitor.see(f"{inside}.textContent")
    for each in (
        "<img src=x onerror=owned=1>",
        "<i>9</i>",
        "1 to <b>2</b>",
        "<script>owned=1",
        "<b>98",
    ):
        assert each in text
    visitor.see(f"{inside}.hidden = false")
    visitor.see(f"{inside}.querySelector('.tile').focus()")
    drawn(visitor, {**WALL, "tiles": [{**WALL["tiles"][0], "stream": "new"}, *WALL["tiles"]]})
    assert visitor.see("document.activeElement.dataset.domain") == "<b>x</b>"
    assert visitor.see(f"{inside}.querySelectorAll('.tile.alarmed').length") == 2


def test_the_sentence_on_top_names_the_worst_stream_and_leads_to_it(
    server: Server, enter: Enter
) -> None:
    visitor = enter(server, domain="wave")
    worst = {
        "stream": "cpu",
        "severity": "critical",
        "title": "CPU",
        "text": "critical since 14:02",
    }
    drawn(visitor, {**WALL, "headline": worst})
    visitor.see("document.getElementById('overview').hidden = false")
    assert visitor.text("wall-worst") == "Most unusual now: CPU, critical since 14:02."
    visitor.see("document.querySelector('#wall-worst button').focus()")
    drawn(visitor, {**WALL, "headline": {**worst, "text": "critical since 14:03"}})
    assert visitor.text("wall-worst").endswith("since 14:03.")
    assert visitor.see("document.activeElement.dataset.domain") == "cpu"
    visitor.page.click("#wall-worst button")
    visitor.until("document.body.dataset.domain === 'cpu'")
    calm = {"stream": "", "severity": "", "title": "", "text": "All calm: 13 streams watched."}
    drawn(visitor, {**WALL, "headline": calm})
    assert visitor.text("wall-worst") == calm["text"]
    assert visitor.see("document.querySelectorAll('#wall-worst button').length") == 0


def test_times_are_those_of_the_viewer_until_utc_is_chosen_which_is_remembered(
    pushed_server: Server, enter: Enter
) -> None:
    push(pushed_server, "tower", spike=True)  # 300 minutes from midnight on, UTC
    look = {"viewport": {"width": 1440, "height": 900}, "timezone_id": "Asia/Tokyo"}
    visitor = enter(pushed_server, look, domain="tower")
    visitor.until("eyes.text('explain').includes('Mon 13:59')")
    first = "document.querySelector('#history .entry [data-moment]')"
    visitor.until(f"{first}.textContent === 'Mon 13:59'")
    axis = "[...document.querySelectorAll('#chart .xtick text')].map(e => e.textContent)"
    visitor.until(f"{axis}.some(text => text.startsWith('13:00'))")
    assert visitor.see("eyes.x('value').at(-1)") == 1_767_571_200_000 + 299 * 60_000, "data in UTC"
    visitor.page.locator("#history .entry [data-moment]").first.hover()
    assert visitor.until(f"{first}.title") == "2026-01-05 04:59:00 UTC"
    plot = visitor.page.locator("#chart .nsewdrag").first.bounding_box()
    assert plot is not None
    visitor.until("eyes.plot()?.dataset.watched")
    for share in (0.4, 0.41, 0.42):
        visitor.page.mouse.move(plot["x"] + share * plot["width"], plot["y"] + 0.5 * plot["height"])
    said = visitor.until("document.getElementById('under-pointer')?.textContent")
    assert "GMT+9" in said and "UTC" in said
    moment = visitor.see("document.querySelector('#under-pointer b').textContent")
    assert re.search(r"1[01]:\d\d GMT", moment), "two fifths of the way from 9 to 14 o'clock"
    mark = "dash_clientside.set_props('chart', {clickData: {points: [{x: eyes.marks().at(-1)}]}})"
    visitor.see(mark)
    visitor.until("eyes.text('label-missed') === 'missed: 13:59:00'")
    shown = "[...document.querySelectorAll('.zone')].filter(e => e.offsetParent)"
    said = f"{shown}.map(e => e.textContent)"
    visitor.until(f"{said}[0] === 'Times in Asia/Tokyo (UTC+9) · show UTC'")
    visitor.page.locator(".lower > .zone button").click()
    visitor.until("eyes.text('explain').includes('Mon 04:59')")
    visitor.until(f"{first}.textContent === 'Mon 04:59'")
    visitor.until(f"{said}[0] === 'Times in UTC · show Asia/Tokyo'")
    visitor.page.reload()
    visitor.until("eyes.text('explain').includes('Mon 04:59')")
    visitor.tab("overview")
    visitor.until(f"{said}.length === 1 && {said}[0] === 'Times in UTC · show Asia/Tokyo'")


def test_simulated_times_are_those_of_the_simulation_in_any_zone(
    server: Server, enter: Enter
) -> None:
    look = {"viewport": {"width": 1440, "height": 900}, "timezone_id": "Asia/Tokyo"}
    visitor = enter(server, look, domain="wave")
    visitor.until("document.querySelector('#history .entry')")
    assert visitor.see("document.querySelectorAll('#history [data-moment]').length") == 0
    visitor.until("eyes.x('signal').length")
    newest = visitor.see("new Date(eyes.x('signal').at(-1)).toISOString().slice(11, 14)")
    tick = "[...document.querySelectorAll('#chart .xtick text')].at(-1).textContent"
    visitor.until(f"{tick}.startsWith('{newest}')")


def test_an_empty_tab_shows_nothing_of_the_brush_before(server: Server, enter: Enter) -> None:
    visitor = enter(server, domain="wave")
    empty = "document.getElementById('brush').classList.contains('empty')"
    visitor.until(f"!{empty} && document.querySelector('#brush path')")
    visitor.see(
        """(() => {
          eyes.late = 0;
          setInterval(() => {
            const away = document.body.dataset.domain === 'your-data';
            const shown = getComputedStyle(document.getElementById('brush')).visibility;
            if (away && shown !== 'hidden') eyes.late += 1;
          }, 10);
        })()"""
    )
    visitor.tab("your-data")
    visitor.redraws(3)
    assert visitor.see("eyes.late") == 0
    visitor.tab("cpu")
    visitor.until(f"!{empty}")
