"""A first visit: see anomalies, move the threshold, inject a spike and see it caught."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.browser import Server
from streams import STREAMS
from tests.browser.visitor import Visitor

Enter = Callable[..., Visitor]
RED = {"light": "rgb(214, 0, 28)", "dark": "rgb(255, 90, 95)"}
DRAWN = (
    "[...document.querySelectorAll('#chart .scatterlayer .points path.point')].map(p => "
    "getComputedStyle(p)).filter(s => s.opacity > 0)"
)


def red_points(visitor: Visitor, theme: str = "light") -> int:
    """Return how many points the browser has painted in the red of anomalies."""
    return int(
        visitor.see(f"{DRAWN}.filter(s => [s.fill, s.stroke].includes('{RED[theme]}')).length")
    )


def test_within_ten_seconds_red_is_seen_moved_and_injected(
    own_server: Server, enter: Enter
) -> None:
    visitor = enter(own_server)
    visitor.until("eyes.marks().length > 0", 10)
    visitor.until("eyes.x('signal').length >= 600")  # full from the start
    assert red_points(visitor) >= len(visitor.marks())
    assert "unusual" in visitor.text("explain")
    before = visitor.marks()
    alarms = visitor.text("alarms")
    visitor.slide("threshold", 2.0)
    visitor.until(f"eyes.marks().length > {len(before)} && eyes.text('alarms') !== '{alarms}'")
    assert all("→" in visitor.text(number) for number in ("alarms", "precision", "recall"))
    oldest = min(visitor.marks())  # on a busy machine older ones have left the plot meanwhile
    assert {mark for mark in before if mark >= oldest} <= set(visitor.marks())
    visitor.slide("threshold", float(STREAMS["wave"].preset["threshold"]))
    visitor.until("!eyes.text('alarms').includes('→')")
    newest = visitor.see("eyes.x('signal').at(-1)")
    visitor.press("inject-point")
    visitor.until("eyes.text('injected').includes('spike')")
    visitor.until(f"eyes.marks().at(-1) > {newest}", 5)
    visitor.until("eyes.traces('anomaly')[0].text.at(-1).includes('caught')")


@pytest.mark.parametrize("name", [*STREAMS])
def test_every_tab_shows_a_full_plot_with_its_anomalies_in_red(
    server: Server, enter: Enter, name: str
) -> None:
    visitor = enter(server, domain=name, range=10_000)
    visitor.until("eyes.marks().length > 3 && eyes.lines().length")
    assert visitor.see("eyes.lines()") == list(STREAMS[name].names)
    assert red_points(visitor) >= 4
    points = visitor.see("eyes.count('points')")
    visitor.until(f"eyes.count('points') > {points}")
    assert 0 < visitor.see("eyes.count('anomalies')") < 0.1 * points
    assert visitor.text("status") == "live"
    assert 0 <= float(visitor.text("precision")) <= 1


def test_the_overview_shows_every_stream_and_leads_to_it(server: Server, enter: Enter) -> None:
    visitor = enter(server, domain="overview")
    visitor.until(f"document.querySelectorAll('#overview .spark svg').length >= {len(STREAMS)}")
    counted = "[...document.querySelectorAll('#wall-counts b')].map(b => Number(b.textContent))"
    assert sum(visitor.see(counted)) >= len(STREAMS)
    assert "watching" in visitor.text("status")
    visitor.page.click("#overview [data-domain=iot]")
    visitor.until("eyes.lines().length === 3")
    assert visitor.see("!document.getElementById('overview').offsetParent")


def test_the_tabs_carry_little_lines_with_red_marks_renewed_every_two_seconds(
    server: Server, enter: Enter
) -> None:
    visitor = enter(server)
    visitor.until(f"document.querySelectorAll('#domain .spark svg').length >= {len(STREAMS)}")
    assert visitor.see("document.querySelectorAll('#domain .spark i').length") > 0
    line = "document.querySelector('#domain [data-spark=cpu] path').getAttribute('d')"
    before = visitor.see(line)
    visitor.until(f"{line} !== {before!r}", 4)


def test_after_a_fault_was_injected_its_race_is_shown_to_everybody(
    own_server: Server, enter: Enter
) -> None:
    visitor, other = enter(own_server, domain="wave"), enter(own_server, domain="wave")
    visitor.until("eyes.lines().length")
    visitor.press("inject-point")
    for each in (visitor, other):
        each.until("/caught by [0-9]+ of [0-9]+, first: /.test(eyes.text('race'))", 120)
        dots = "document.querySelectorAll('#race i').length"
        caught = "document.querySelectorAll('#race i.hit, #race i.first').length"
        counted = each.see(
            "eyes.text('race').match(/by ([0-9]+) of ([0-9]+)/).slice(1).map(Number)"
        )
        assert [each.see(caught), each.see(dots)] == counted
