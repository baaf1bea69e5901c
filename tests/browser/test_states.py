"""The states of the page: learning, stale, disconnected, failed, empty and paused each have a text,
and a failure on one tab does not affect the others.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.browser import Server
from tests.browser.visitor import Visitor

Enter = Callable[..., Visitor]
TICK = 0.5  # seconds


@pytest.fixture(scope="module")
def odd() -> Iterator[Server]:
    """Start the Redline with faulty streams."""
    with Server(program=Path(__file__).parent / "odd.py") as running:
        yield running


def test_a_killed_server_is_noticed_within_three_ticks_and_heals(enter: Enter) -> None:
    server = Server("--seed", "7").start()
    visitor = enter(server, domain="wave")
    visitor.until("document.body.dataset.state === 'live' && eyes.x('signal').length >= 600")
    visitor.redraws(2)
    shown = len(visitor.see("eyes.x('signal')"))
    visitor.see("""eyes.spoke = null; new MutationObserver(() => {
        if (!eyes.spoke && /not answered/.test(eyes.text('trouble'))) eyes.spoke = Date.now();
    }).observe(document.body, {subtree: true, childList: true, characterData: true})""")
    server.stop(signal.SIGKILL)
    killed = time.time()
    spoke = visitor.until("eyes.spoke", 10) / 1000
    assert spoke - killed < 3 * TICK + 0.25 + 0.25, (
        "three ticks, the interval of the check, and a quarter of a second for a busy machine"
    )
    assert visitor.see("document.body.dataset.state") == "lost"
    assert len(visitor.see("eyes.x('signal')")) >= shown, "the plot is kept"
    visitor.until("/not answered for [3-9] s/.test(eyes.text('trouble'))")
    server.start()
    visitor.until(
        "document.body.dataset.state === 'live' && /is back/.test(eyes.text('trouble'))", 15
    )
    points = visitor.see("eyes.count('points')")
    visitor.until(f"eyes.count('points') > {points}")
    visitor.until("eyes.text('trouble') === ''", 10)
    server.__exit__(None, None, None)
    expected = (
        "ERR_CONNECTION_REFUSED",
        "ERR_EMPTY_RESPONSE",
        "ERR_CONNECTION_RESET",
        "Failed to fetch",
        "the server did not respond",
    )
    visitor.console_errors = [
        text for text in visitor.console_errors if not any(part in text for part in expected)
    ]


def test_a_stream_that_raises_says_so_on_its_tab_with_an_id_that_is_in_the_log(
    odd: Server, enter: Enter
) -> None:
    visitor = enter(odd, domain="stocks")
    visitor.until("/failed, id/.test(eyes.text('status'))")
    sentence = visitor.text("explain")
    assert "the cable is unplugged" in sentence
    assert (found := re.search(r"[0-9a-f]{6}", visitor.text("status")))
    assert found[0] in odd.log.read_text()
    assert visitor.see("eyes.lines().length") == 2, "the plot is kept"
    visitor.tab("wave")
    points = visitor.until("eyes.text('status') === 'live' && eyes.count('points')")
    visitor.until(f"eyes.count('points') > {points}")


def test_a_callback_that_raises_is_visible_and_the_other_tabs_live(
    odd: Server, enter: Enter
) -> None:
    visitor = enter(odd, domain="wave")
    visitor.tab("network")
    visitor.until("/the list of anomalies is torn/.test(eyes.text('trouble'))")
    assert (found := re.search(r"[0-9a-f]{6}", visitor.text("trouble").split("look for")[-1]))
    assert found[0] in odd.log.read_text()
    visitor.tab("cpu")
    points = visitor.until(
        "eyes.text('status') === 'live' && eyes.lines()[0] === 'CPU' && eyes.count('points')"
    )
    visitor.until(f"eyes.count('points') > {points}")


def test_a_silent_stream_is_called_stale(odd: Server, enter: Enter) -> None:
    visitor = enter(odd, domain="fraud")
    visitor.until("/^last data \\d+ s ago, retrying$/.test(eyes.text('age'))")
    assert visitor.see("document.body.dataset.state") == "stale"
    visitor.until("getComputedStyle(document.getElementById('chart').closest('.plot')).opacity < 1")


def test_an_empty_stream_says_since_when(odd: Server, enter: Enter) -> None:
    visitor = enter(odd, domain="server")
    visitor.until("/^No points from .*Server.* for \\d+ (s|min)/.test(eyes.text('explain'))")
    assert visitor.see("eyes.count('points')") == 0


def test_a_young_stream_says_how_much_it_has_learned(enter: Enter) -> None:
    with Server(program=Path(__file__).parent / "odd.py") as server:
        visitor = enter(server, domain="iot", window=500)
        visitor.until("/^Learning what is normal: \\d+ of 500 steps/.test(eyes.text('explain'))")
        assert visitor.text("status").startswith("learning")


def test_this_machine_is_shown_live_with_red_marks_and_no_invented_quality(
    server: Server, enter: Enter
) -> None:
    visitor = enter(server, domain="this-machine", window=10, threshold=1.5)
    visitor.until("eyes.lines().length >= 4")
    points = visitor.see("eyes.count('points')")
    visitor.until(f"eyes.count('points') > {points}")
    visitor.until("eyes.marks().length > 0", 60)
    for number in ("precision", "recall", "caught"):
        assert visitor.text(number) == "no labels for this stream"
    visitor.page.get_by_text("Compare", exact=True).click()
    visitor.until("document.querySelectorAll('#compare tr').length > 3")
    assert "no labels for this stream" in visitor.text("compare")
    assert not visitor.see("document.getElementById('inject').offsetParent"), (
        "nothing can be injected into a real stream"
    )


def test_pause_freezes_one_visitor_only(server: Server, enter: Enter) -> None:
    one, other = enter(server, domain="wave"), enter(server, domain="wave")
    one.until("eyes.lines().length")
    one.press("pause")
    one.until(
        "/looking back, \\d+ waiting/.test(eyes.text('age')) && eyes.text('pause') === 'Go on'"
    )
    last = other.until("eyes.x('signal').at(-1)")
    other.until(f"eyes.x('signal').at(-1) > {last} && document.body.dataset.state === 'live'")
    one.press("pause")
    one.until("document.body.dataset.state === 'live' && eyes.text('pause') === 'Pause'")


def test_a_broker_that_does_not_answer_is_said_and_the_rest_goes_on(enter: Enter) -> None:
    with Server("--kafka", "127.0.0.1:9", "--topic", "metrics") as running:
        visitor = enter(running, domain="wave")
        visitor.until("/^Kafka: .*it is tried again\\.$/.test(eyes.text('trouble'))", 20)
        visitor.redraws(2)
        visitor.press("trouble")
        visitor.redraws(2)
        assert visitor.text("trouble") == "", "a click closes it"
        assert visitor.see("document.body.dataset.state") == "live"
