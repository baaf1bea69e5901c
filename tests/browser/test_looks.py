"""Sizes on the page: what a finger hits on a phone, the share of the plot, no seam on a large
screen, nothing beyond the edge of a small one.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from bench.browser import Server
from tests.browser.pushing import push
from tests.browser.visitor import Visitor

Enter = Callable[..., Visitor]
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
TARGET = 24  # px, WCAG 2.2, 2.5.8
FINGER = 32  # px, the height of what style.css makes larger for fingers
PLOT_SHARE = 0.45  # of the window, at 1440 x 900
LOWER = ("Anomalies", "Incidents", "Compare", "Table", "Days", "Settings", "Log")
FILLED = {"Incidents": ".incident button", "Compare": "#compare button", "Anomalies": ".entry"}
KINDS_OF_TABS = ("wave", "iot", "this-machine", "your-data", "overview")
# [what, width, height] of each control that is shown and smaller than wanted
SMALL = f"""(() => {{
  const small = [];
  for (const el of document.querySelectorAll('button, .by label, [role=tab], [role=slider]')) {{
    if (!el.checkVisibility({{visibilityProperty: true, opacityProperty: true}})) continue;
    if (el.closest('#brush')) continue;
    const box = el.getBoundingClientRect();
    const high = el.matches('.by label, button.link') ? {FINGER} : {TARGET};
    if (box.width >= {TARGET} - 0.5 && box.height >= high - 0.5) continue;
    const what = el.id || el.textContent.trim() || el.getAttribute('aria-label') || el.className;
    small.push([what, Math.round(box.width), Math.round(box.height)]);
  }}
  return small;
}})()"""
# what stands out of the window on the right and is in no box that scrolls or cuts by itself
BEYOND = """(() => {
  const wide = document.documentElement.clientWidth, out = [];
  const cut = (el) => {
    for (let at = el.parentElement; at && at.id !== 'page'; at = at.parentElement)
      if (getComputedStyle(at).overflowX !== 'visible') return true;
    return false;
  };
  for (const el of document.querySelectorAll('#page *')) {
    if (!el.checkVisibility({visibilityProperty: true}) || el.closest('svg, .unseen')) continue;
    const box = el.getBoundingClientRect();
    if (box.width && (box.right > wide + 1 || box.left < -1) && !cut(el))
      out.push([el.id || el.className || el.tagName, Math.round(box.left), Math.round(box.right)]);
  }
  if (document.documentElement.scrollWidth > wide) out.push(['the page', 0, document.documentElement.scrollWidth]);
  return out;
})()"""  # noqa: E501
# [left, top, right, bottom] of the parts of the page, px
PARTS = """Object.fromEntries(
  ['header', '#domain', '#stage', '.stage', '#stage > aside', '.lower', '.plot'].map(name => {
    const box = document.querySelector(name).getBoundingClientRect();
    return [name, [box.left, box.top, box.right, box.bottom].map(Math.round)];
  }))"""


def resized(visitor: Visitor, width: int, height: int) -> None:
    """Give the window another size, and wait until the plot has followed."""
    visitor.page.set_viewport_size({"width": width, "height": height})
    visitor.until(
        "Math.abs(eyes.plot().getBoundingClientRect().width - "
        "document.querySelector('.graph').clientWidth) < 2 && "
        "document.querySelector('#chart .main-svg').clientWidth === eyes.plot().clientWidth && "
        "document.querySelector('#brush .right')?.getBoundingClientRect().right <= innerWidth"
    )


def test_a_long_name_in_the_list_of_incidents_is_cut_and_nothing_lies_on_it(
    pushed_server: Server, enter: Enter
) -> None:
    name = "blast furnace 3 of the north hall, temperature behind the second door"
    push(pushed_server, name, spike=True)
    visitor = enter(pushed_server, {"viewport": {"width": 1440, "height": 900}}, domain="wave")
    visitor.page.locator("#lower .tab", has_text="Incidents").click()
    visitor.page.get_by_text("all streams", exact=True).click()
    entry = (
        f"[...document.querySelectorAll('.incident')].find(e => e.textContent.includes('{name}'))"
    )
    visitor.until(entry)
    for width, height in ((1440, 900), (390, 844)):
        resized(visitor, width, height)
        head, said, cut, title = visitor.see(
            f"""(() => {{
              const [head, said] = {entry}.children, name = head.querySelector('.name');
              const last = head.lastElementChild.getBoundingClientRect();
              const box = said.getBoundingClientRect();
              return [[last.right, last.bottom], [box.left, box.top],
                      name.scrollWidth > name.clientWidth, name.title];
            }})()"""
        )
        assert head[0] <= said[0] or head[1] <= said[1], f"{width}: {head} lies on {said}"
        assert cut and title == name


def test_every_control_on_a_phone_is_large_enough_for_a_finger(
    pushed_server: Server, enter: Enter
) -> None:
    push(pushed_server, "furnace", spike=True)
    visitor = enter(pushed_server, PHONE, domain="furnace")
    visitor.until("eyes.lines().length && document.querySelector('#domain[role=tablist]')")
    visitor.until("document.querySelector('#window [role=slider][aria-label]')")
    small = {"furnace": visitor.see(SMALL)}
    for panel in LOWER:
        visitor.page.locator("#lower .tab", has_text=panel).click()
        visitor.until(f"document.querySelector('#lower .tab--selected').textContent === '{panel}'")
        if panel in FILLED:
            visitor.until(f"document.querySelector('{FILLED[panel]}')")
        small[panel] = visitor.see(SMALL)
    for name in KINDS_OF_TABS:
        visitor.tab(name)
        visitor.redraws(1)
        small[name] = visitor.see(SMALL)
    visitor.page.click("#search")
    visitor.page.keyboard.type("a")
    visitor.until("document.querySelectorAll('#streams-found button').length > 3")
    small["search"] = visitor.see(SMALL)
    assert not any(small.values()), {name: found for name, found in small.items() if found}


def test_the_plot_has_its_share_no_screen_has_a_seam_and_nothing_stands_out(
    server: Server, enter: Enter
) -> None:
    desk = {"width": 1440, "height": 900}
    visitor = enter(server, {"viewport": desk}, domain="wave")
    visitor.until("eyes.lines().length")
    resized(visitor, **desk)
    left, top, right, bottom = visitor.see(PARTS)[".plot"]
    share = (right - left) * (bottom - top) / (desk["width"] * desk["height"])
    assert share >= PLOT_SHARE and bottom <= desk["height"], (share, bottom)

    resized(visitor, 1920, 1080)
    part = visitor.see(PARTS)
    for name in ("header", "#domain", "#stage", ".lower"):
        assert (part[name][0], part[name][2]) == (0, 1920), f"{name}: {part[name]}"
    assert part[".stage"][0] == 0 and part["#stage > aside"][2] == 1920, part
    assert part[".stage"][2] == part["#stage > aside"][0], (
        "no gap between the stage and the controls"
    )
    for above, below in (("header", "#domain"), ("#domain", "#stage"), ("#stage", ".lower")):
        assert part[above][3] == part[below][1], f"a gap under {above}: {part}"

    beyond = {}
    for width, height in ((1920, 1080), (1561, 900), (1440, 900), (1280, 800), (1024, 768)):
        resized(visitor, width, height)
        beyond[width] = visitor.see(BEYOND)
    for name in KINDS_OF_TABS[1:]:
        visitor.tab(name)
        visitor.redraws(1)
        beyond[f"1024 {name}"] = visitor.see(BEYOND)
    assert not any(beyond.values()), {name: found for name, found in beyond.items() if found}


# what lies under the pop-ups or the bubble and may not: sliders, the first button, and *Apply*
# under a pop-up
HIDDEN = """(() => {
  const meets = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const under = (over, kept) => [...document.querySelectorAll(over)].flatMap(each => {
    const box = each.getBoundingClientRect();
    return [...document.querySelectorAll(kept)]
      .filter(el => box.width && meets(box, el.getBoundingClientRect()))
      .map(el => `${each.id || each.title} lies over ${el.id || el.className}`);
  });
  return [...under('.popup', '.slide, .size, .acts, #inject-point'),
          ...under('#hint:not([hidden])', '.slide:not(:has(#threshold)), .size, #inject-point')];
})()"""  # noqa: E501
# what `tell` gets of three incidents at once
THREE = """dash_clientside.set_props('news', {data: ['Wave', 'CPU', 'IoT'].map(name => ({
  title: `${name} · critical · simulated`, kind: 'critical', step: Math.round(performance.now()), stream: 'wave',
  text: `${name}, temperature, is unusual since Mon 03:25: 24.8 °C, expected 19.0 to 24.0, 5.5 σ above.`}))})"""  # noqa: E501


def test_neither_pop_ups_nor_the_bubbles_of_a_first_visit_lie_over_sliders(
    server: Server, enter: Enter
) -> None:
    covered = {}
    for width, height in ((1440, 900), (1920, 1080), (1024, 768)):
        look = {"viewport": {"width": width, "height": height}, "storage_state": None}
        visitor = enter(server, look, domain="wave")
        for number in ("1", "2", "3"):
            visitor.until(f"eyes.text('hint-count') === '{number} of 3' && eyes.lines().length")
            visitor.see("document.getElementById('popups').replaceChildren()")
            visitor.see(THREE)
            visitor.until("document.querySelectorAll('.popup').length === 3")
            covered[width, number] = visitor.see(HIDDEN)
            visitor.press("hint-next")
    assert not any(covered.values()), covered


def test_your_data_is_in_sight_beside_any_number_of_tabs(enter: Enter) -> None:
    with Server("--seed", "7", "--demo", "200") as running:
        visitor = enter(running, {"viewport": {"width": 1440, "height": 900}}, domain="wave")
        visitor.until("document.querySelector('#domain .tab.lanes')")
        boxes = visitor.see(
            "[...document.querySelectorAll('#domain .tab.last')].map(el => {"
            " const box = el.getBoundingClientRect(); return [box.left, box.right]; })"
        )
        assert len(boxes) == 3 and boxes[-1][1] <= 1440
        assert all(left[1] <= right[0] + 1 for left, right in pairwise(boxes)), boxes
        visitor.page.locator("#domain .tab.yours").click()
        visitor.until("document.body.dataset.domain === 'your-data'")
