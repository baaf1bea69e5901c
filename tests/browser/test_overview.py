"""The overview as a wall display: tiles, calm rows, full screen, hostile names, focus."""

from __future__ import annotations

import json
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


def test_the_zone_of_the_times_is_said_beside_that_of_the_viewer(
    server: Server, enter: Enter
) -> None:
    look = {"viewport": {"width": 1440, "height": 900}, "timezone_id": "Asia/Kolkata"}
    visitor = enter(server, look, domain="wave")
    shown = "[...document.querySelectorAll('.zone')].filter(e => e.offsetParent)"
    said = f"{shown}.map(e => e.textContent)"
    visitor.until(f"{said}.length === 1 && {said}[0]")
    (zone,) = visitor.see(said)
    assert zone.startswith("Times are in UTC; your clock is UTC+5:30: ")
    visitor.tab("overview")
    visitor.until(f"{said}.length === 1 && {said}[0].startsWith('Times are in UTC; ')")


def test_a_time_says_on_hover_what_the_clock_of_the_viewer_showed(
    pushed_server: Server, enter: Enter
) -> None:
    push(pushed_server, "tower", spike=True)
    look = {"viewport": {"width": 1440, "height": 900}, "timezone_id": "Asia/Kolkata"}
    visitor = enter(pushed_server, look, domain="tower")
    visitor.page.locator("#history .entry [data-moment]").first.hover()
    title = visitor.until("document.querySelector('#history [data-moment]').title")
    assert title.endswith(" UTC+5:30, by your clock")
    plot = visitor.page.locator("#chart .nsewdrag").first.bounding_box()
    assert plot is not None
    visitor.until("eyes.plot()?.dataset.watched")
    for share in (0.4, 0.41, 0.42):
        visitor.page.mouse.move(plot["x"] + share * plot["width"], plot["y"] + 0.5 * plot["height"])
    said = visitor.until("document.getElementById('under-pointer')?.textContent")
    assert "UTC" in said and "your clock" in said and "UTC+5:30" in said
    simulated = enter(pushed_server, look, domain="wave")
    simulated.until("document.querySelector('#history .entry')")
    assert simulated.see("document.querySelectorAll('#history [data-moment]').length") == 0


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
