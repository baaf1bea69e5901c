"""Names from outside that are markup, selectors or templates: each is seen as text."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from bench.browser import Server
from tests.browser.visitor import Visitor

Enter = Callable[..., Visitor]
START = 1_767_571_200  # seconds since the epoch
OWNED = "window.owned=1"
NAMES = (
    '"]',
    f"<img src=x onerror={OWNED}>",
    "<b>bold</b>",
    f"</script><script>{OWNED}</script>",
    '<a href="https://evil.example">link</a>',
    "__proto__",
    "back\\slash' \\22 ]",
    "%{x} &amp; &lt;",
    "{{7*7}} ${7*7}",
    "שלום",
)
LOOK = "document.querySelectorAll('#page img, #page script, #page iframe, #page [onerror]').length"
LABELS = """[...document.querySelectorAll('#chart .annotation-text, #chart .legendtext')]
    .map(each => each.textContent)"""


def push(server: Server, source: str, features: list[str]) -> None:
    """Push 300 points of a source, with a spike among the last."""
    column = [float(i % 7) + (90 if 280 <= i < 283 else 0) for i in range(300)]
    values = dict.fromkeys(features, column)
    body = {"source": source, "time": [START + i for i in range(300)], "values": values}
    request = urllib.request.Request(
        f"{server.url}/api/submit", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 200


def tabs(visitor: Visitor) -> list[str]:
    """Return the texts of the tabs without their numbers."""
    found: list[str] = visitor.see(
        "[...document.querySelectorAll('#domain .tab-label > span:first-child')]"
        ".map(each => each.textContent)"
    )
    return found


def open_tab(visitor: Visitor, name: str) -> None:
    """Click on a tab by its text, and wait until its stream is drawn."""
    visitor.page.locator("#domain .tab").nth(tabs(visitor).index(name)).click()
    visitor.until(f"document.body.dataset.domain === {json.dumps(name)}")
    visitor.until(f"{LABELS}.some(text => text.startsWith({json.dumps(name)}))")


@pytest.fixture
def hostile(own_server: Server) -> Server:
    for name in NAMES:
        push(own_server, name, [name, f"{name} 2"])
    return own_server


def test_hostile_names_are_text_in_tabs_tiles_chart_and_panels(
    hostile: Server, enter: Enter
) -> None:
    visitor = enter(hostile, domain="overview")
    assert set(NAMES) <= set(tabs(visitor))
    drawn = "[...document.querySelectorAll('#domain .spark, .wall .spark')]"
    visitor.until(f"{drawn}.filter(each => each.querySelector('path')).length >= {2 * len(NAMES)}")
    tiles = "[...document.querySelectorAll('.wall button b')].map(each => each.textContent)"
    titles = [f"{name} · {name}" for name in NAMES]
    visitor.until(f"{json.dumps(titles)}.every(title => {tiles}.includes(title))")
    for name in NAMES:
        open_tab(visitor, name)
        labels: list[Any] = visitor.see(LABELS)
        assert {name, f"{name} 2"} <= set(labels), f"{labels} for {name}"
        assert visitor.see("document.querySelectorAll('#chart a').length") == 0
        assert name in visitor.text("explain")
        assert visitor.see(LOOK) == 0 and visitor.see("window.owned") is None
    for panel, element in {"Table": "rows", "Incidents": "incidents", "Log": "log"}.items():
        visitor.page.get_by_text(panel, exact=True).click()
        visitor.until(f"eyes.text('{element}')")
        assert visitor.see(LOOK) == 0
        assert element == "log" or NAMES[-1] in visitor.text(element)
    hover_over_chart(visitor, "<b>bold</b>")
    assert visitor.see("window.owned") is None


def hover_over_chart(visitor: Visitor, name: str) -> None:
    """Hover over the chart of a stream: the label names its features as text."""
    open_tab(visitor, name)
    box = visitor.page.locator("#chart .nsewdrag").first.bounding_box()
    visitor.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)
    visitor.until(f"eyes.text('under-pointer').includes('{name}')")


def test_every_tab_after_a_hostile_one_has_its_sparkline(own_server: Server, enter: Enter) -> None:
    push(own_server, '"]', ["value"])
    push(own_server, "after", ["value"])
    visitor = enter(own_server)
    visitor.until("document.querySelector('#domain [data-spark=after] path')")
    visitor.until("""document.querySelector("#domain [data-spark='\\"]'] path")""")


def test_a_file_with_hostile_columns_is_shown_as_text(own_server: Server, enter: Enter) -> None:
    visitor = enter(own_server, domain="your-data")
    heads = ["time", "<b>a</b> (<i>K</i>)", "%{y}", "=1+1", "\u202eesrever"]
    rows = [f"2026-01-05 00:{i:02d}:00,{i % 5},{i % 3},{i % 4},{i % 2}" for i in range(60)]
    visitor.drop(f"<img src=x onerror={OWNED}>.csv", "\n".join([",".join(heads), *rows]).encode())
    visitor.until("eyes.text('guess').includes('onerror')")
    visitor.until(f"{LABELS}.includes('<b>a</b>, <i>K</i>')")
    labels = visitor.see(LABELS)
    assert {"<b>a</b>, <i>K</i>", "%{y}", "=1+1", "esrever"} <= set(labels), labels
    assert visitor.see("window.owned") is None and visitor.see(LOOK) == 0


def test_marks_that_turn_the_direction_of_text_are_refused(own_server: Server) -> None:
    for name in ("\u202eoven", "ov\u200fen", "oven\u2066"):
        with pytest.raises(urllib.error.HTTPError, match="422"):
            push(own_server, name, ["value"])
