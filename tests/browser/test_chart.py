"""The handles on the plot: the brush over the whole buffer, the threshold line, the pointer."""

from __future__ import annotations

from collections.abc import Callable

from bench.browser import Server
from tests.browser.visitor import Visitor

Enter = Callable[..., Visitor]
THRESHOLD = "Number(document.querySelector('#threshold [role=slider]').ariaValueNow)"
# [x in the window, the text of the mark] of the middle one of the red marks
MIDDLE_MARK = """(() => {
  const marks = eyes.traces('anomaly').flatMap(t => Array.from(t.x).map((x, i) => [x, t.text[i]]));
  const [x, text] = marks.sort((a, b) => a[0] - b[0])[marks.length >> 1] || [];
  const axis = eyes.plot()._fullLayout.xaxis, left = eyes.plot().getBoundingClientRect().left;
  return text && [left + axis._offset + axis.d2p(x), text];
})()"""
PART = "Number(document.querySelector('#brush .{}').getAttribute('aria-valuenow'))"


def dragged(visitor: Visitor, selector: str, dx: float, dy: float) -> None:
    """Press on the middle of an element and move the pointer, without letting go."""
    box = visitor.page.locator(selector).bounding_box()
    assert box is not None
    x = box["x"] + box["width"] / 2
    y = box["y"] + box["height"] / 2
    visitor.page.mouse.move(x, y)
    visitor.page.mouse.down()
    visitor.page.mouse.move(x + dx, y + dy, steps=5)


def test_the_brush_moves_and_resizes_the_view_by_pointer_and_by_key(
    server: Server, enter: Enter
) -> None:
    visitor = enter(server, domain="cpu")
    visitor.until("document.querySelector('#brush .line')?.getAttribute('d')")
    assert visitor.see("document.querySelector('#brush .marks').getAttribute('d')")
    assert " of " in visitor.see("document.querySelector('#brush b').textContent")
    newest = visitor.see("eyes.x('CPU').at(-1)")
    dragged(visitor, "#brush .move", -300, 0)
    visitor.page.mouse.up()
    visitor.until(f"eyes.text('age').includes('looking') && eyes.x('CPU').at(-1) < {newest}")
    end = visitor.see(PART.format("right"))
    span = end - visitor.see(PART.format("left"))
    assert span == 600
    dragged(visitor, "#brush .left", -60, 0)
    visitor.page.mouse.up()
    wider = visitor.until(f"{end} - {PART.format('left')} > 700 && {end} - {PART.format('left')}")
    visitor.until(f"eyes.x('CPU').length >= {wider}")
    visitor.page.locator("#brush .move").focus()
    visitor.page.keyboard.press("End")
    visitor.until("document.getElementById('golive').hidden")


def test_the_threshold_line_is_dragged_and_escape_takes_it_back(
    server: Server, enter: Enter
) -> None:
    visitor = enter(server, domain="cpu")
    visitor.until("document.querySelector('#threshold-handle')?.textContent.includes('σ')")
    before = visitor.see(THRESHOLD)
    dragged(visitor, "#threshold-handle", 0, -12)
    visitor.until(f"{THRESHOLD} > {before}")
    visitor.page.keyboard.press("Escape")
    visitor.until(f"{THRESHOLD} === {before}")
    visitor.page.mouse.up()
    dragged(visitor, "#threshold-handle", 0, -12)
    visitor.page.mouse.up()
    moved = visitor.until(f"{THRESHOLD} > {before} && {THRESHOLD}")
    visitor.until(f"document.querySelector('#threshold-handle').textContent === '{moved:.1f} σ'")


def test_the_pointer_is_told_value_expected_range_score_and_that_time_is_simulated(
    server: Server, enter: Enter
) -> None:
    visitor = enter(server, domain="cpu")
    visitor.until("eyes.plot()?.dataset.watched && eyes.x('CPU').length >= 600")
    plot = visitor.page.locator("#chart .nsewdrag").first.bounding_box()
    assert plot is not None
    for share in (0.4, 0.41, 0.42):
        visitor.page.mouse.move(plot["x"] + share * plot["width"], plot["y"] + 0.5 * plot["height"])
    said = visitor.until(
        "!(document.getElementById('under-pointer')?.hidden ?? true) && "
        "document.getElementById('under-pointer').textContent"
    )
    assert "simulated" in said and "%" in said and "σ" in said
    visitor.press("pause")
    visitor.until("eyes.text('status') === 'looking back'")
    newest = visitor.see("eyes.x('CPU').at(-1)")
    visitor.press("previous")
    visitor.until(f"eyes.x('CPU').at(-1) < {newest}")
    x, reason = visitor.see(MIDDLE_MARK)
    visitor.page.mouse.move(round(x), plot["y"] + 0.5 * plot["height"])
    visitor.until("document.querySelector('#under-pointer p')")
    said = visitor.see("[...document.querySelectorAll('#under-pointer p')].map(p => p.textContent)")
    assert reason in said and "expected" in reason and "severity" in reason
