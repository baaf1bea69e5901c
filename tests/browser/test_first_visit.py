"""The bubbles of a first visit: where they stand, how they are closed, that they stay closed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.browser import Server
from tests.browser.visitor import Visitor

Enter = Callable[..., Visitor]
NEW: dict[str, Any] = {"storage_state": None}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
LAPTOP = {"viewport": {"width": 1440, "height": 900}}
SHOWN = "!document.getElementById('hint').hidden"
# how many red marks of the plot lie under the bubble
COVERED = """(() => {
  const box = document.getElementById('hint').getBoundingClientRect();
  return [...document.querySelectorAll('#chart .scatterlayer .point')].filter((mark) => {
    const at = mark.getBoundingClientRect();
    return at.right > box.left && at.left < box.right && at.bottom > box.top && at.top < box.bottom;
  }).length;
})()"""
TABS_COVERED = """(() => {
  const box = document.getElementById('hint').getBoundingClientRect();
  const at = document.getElementById('domain').getBoundingClientRect();
  return at.right > box.left && at.left < box.right && at.bottom > box.top && at.top < box.bottom;
})()"""
INSIDE = """(() => {
  const box = document.getElementById('hint').getBoundingClientRect();
  return box.left >= 0 && box.top >= 0 && box.right <= innerWidth && box.bottom <= innerHeight;
})()"""


@pytest.mark.parametrize("look", [{}, LAPTOP, PHONE], ids=["desk", "laptop", "phone"])
def test_three_bubbles_over_no_red_mark_that_never_come_back(
    server: Server, enter: Enter, look: dict[str, Any]
) -> None:
    visitor = enter(server, {**NEW, **look}, domain="cpu")
    texts = []
    for number in ("1", "2", "3"):
        visitor.until(f"{SHOWN} && eyes.text('hint-count') === '{number} of 3' && eyes.plot()")
        visitor.until("document.querySelectorAll('#chart .scatterlayer .point').length")
        assert visitor.see(COVERED) == 0 and visitor.see(INSIDE), number
        assert look is PHONE or not visitor.see(TABS_COVERED), number
        texts.append(visitor.text("hint-text"))
        visitor.press("hint-next")
    assert len(set(texts)) == 3 and "Red" in texts[0] and "threshold" in texts[1]
    visitor.until(f"!({SHOWN}) && localStorage.hints === 'closed'")
    visitor.page.reload()
    visitor.until("eyes.text('status') === 'live' && eyes.lines().length")
    visitor.redraws(6)
    assert not visitor.see(SHOWN)


def test_the_keyboard_reaches_it_first_escape_closes_it_and_the_help_brings_it_back(
    server: Server, enter: Enter
) -> None:
    visitor = enter(server, NEW, domain="cpu")
    visitor.until(SHOWN)
    focused = []
    for _ in range(2):
        visitor.page.keyboard.press("Tab")
        focused.append(visitor.see("document.activeElement.id"))
    assert focused == ["hint-close", "hint-next"]
    visitor.page.keyboard.press("Enter")
    visitor.until("eyes.text('hint-count') === '2 of 3'")
    assert visitor.see("document.activeElement.id") == "hint-next", "the focus stays"
    visitor.page.keyboard.press("Escape")
    visitor.until(f"!({SHOWN}) && localStorage.hints === 'closed'")
    visitor.page.keyboard.press("?")
    visitor.press("hint-again")
    visitor.until(f"{SHOWN} && eyes.text('hint-count') === '1 of 3'")
