"""A visitor: a browser on the page, with what a person can do and see there as methods."""

from __future__ import annotations

import time
from typing import Any

from playwright.sync_api import Error

from bench.browser import seen_hints

EYES = """
window.eyes = {
  plot: () => document.querySelector('#chart .js-plotly-plot'),
  traces: (name) => (eyes.plot()?.data || []).filter(t => t.name === name),
  x: (name) => Array.from(eyes.traces(name)[0]?.x || []),
  marks: () => eyes.traces('anomaly').flatMap(t => Array.from(t.x)).sort((a, b) => a - b),
  lines: () => (eyes.plot()?.data || []).filter(t => t.mode === 'lines' && !['expected', 'score', 'anomalous'].includes(t.name)).map(t => t.name),
  text: (id) => document.getElementById(id)?.textContent.trim() ?? '',
  count: (id) => Number(eyes.text(id).replaceAll(',', '')),
  box(id) {
    const b = document.getElementById(id)?.getBoundingClientRect();
    return b ? [b.x + scrollX, b.y + scrollY, b.width, b.height].map(Math.round) : null;
  },
  faults: [], looks: 0,  // what guard() found, and how often it checked
  ticks: [], sizes: [],  // of each redraw by the timer: ms from the request to the last byte, characters
  guard() {  // check every 20 ms that the first line is in order, without a gap or a repeat
    setInterval(() => {
      const names = eyes.lines();
      if (!names.length) return;
      eyes.looks += 1;
      const x = eyes.x(names[0]), y = eyes.traces(names[0])[0].y, step = x[1] - x[0];
      if (x.length !== y.length) eyes.faults.push(`${x.length} times for ${y.length} values of ${names[0]}`);
      const wrong = x.findIndex((t, i) => i && Math.abs(t - x[i - 1] - step) > 1e-3 * step);
      if (wrong > 0) eyes.faults.push(`${names[0]}: ${x[wrong - 1]} is followed by ${x[wrong]}, ${step} ms a step`);
    }, 20);
  },
};
const fetched = window.fetch;
window.fetch = async (...asked) => {
  const began = performance.now(), answer = await fetched(...asked);
  if (String(asked[1]?.body).includes('["tick.n_intervals"]')) {
    answer.clone().text().then(text => (eyes.sizes.push(text.length), eyes.ticks.push(performance.now() - began)));
  }
  return answer;
};
"""  # noqa: E501
PATIENCE = 30_000  # ms a test waits for anything
POLL = 20  # ms between two looks at what is waited for


class Visitor:
    """A page in its own browser context, with the errors of its console."""

    def __init__(self, browser: Any, url: str, **look: Any) -> None:
        usual = {"viewport": {"width": 1400, "height": 1180}, "storage_state": seen_hints(url)}
        self.context = browser.new_context(**{**usual, **look})
        self.context.set_default_timeout(PATIENCE)
        self.context.add_init_script(EYES)
        self.url = url
        self.page = self.context.new_page()
        self.console_errors: list[str] = []
        self.page.on("console", self._record)
        self.page.on("pageerror", lambda error: self.console_errors.append(str(error)))

    def _record(self, message: Any) -> None:
        if message.type == "error":
            self.console_errors.append(message.text)

    def open(self, **view: Any) -> Visitor:
        """Open the link to a view, and wait until the page shows a status."""
        self.page.goto(f"{self.url}/?{'&'.join(f'{name}={value}' for name, value in view.items())}")
        self.until("eyes.text('status') && eyes.text('status') !== '–'")
        return self

    def until(self, condition: str, seconds: float | None = None) -> Any:
        """Wait until a JavaScript expression is true in the page, and return its value.

        Raises:
            AssertionError: it stays false; says what was waited for and what the page shows.
        """
        # `wait_for_function` would evaluate text in the page, which the page's policy forbids
        end = time.monotonic() + (PATIENCE / 1_000 if seconds is None else seconds)
        while True:
            value = self._see_or_none(condition)
            if value:
                return value
            if time.monotonic() > end:
                break
            self.page.wait_for_timeout(POLL)
        elements = ("status", "explain", "trouble", "age", "acted", "upload-said")
        shown = " | ".join(f"{name}: {self.text(name)}" for name in elements)
        raise AssertionError(
            f"waited for {condition}; the page shows {shown}; console: {self.console_errors}"
        )

    def _see_or_none(self, expression: str) -> Any:
        """Return the value of an expression, None while the page is being replaced."""
        try:
            return self.see(expression)
        except Error as error:
            if "context was destroyed" in error.message or "navigat" in error.message:
                return None
            raise

    def see(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        return self.page.evaluate(expression)

    def text(self, element: str) -> str:
        """Return the text of an element, by id."""
        return str(self.see(f"eyes.text('{element}')"))

    def marks(self) -> list[float]:
        """Return the times of the red marks in the chart, ms since the epoch."""
        return list(self.see("eyes.marks()"))

    def press(self, element: str) -> None:
        """Click on an element, by id."""
        self.page.click(f"#{element}")

    def tab(self, name: str) -> None:
        """Open the tab of a stream by a click, and wait until it is shown."""
        tab = "#domain .tab >> nth=0" if name == "overview" else f"#domain [data-spark='{name}']"
        self.page.click(tab)
        self.until(f"document.body.dataset.domain === '{name}'")

    def choose(self, dropdown: str, *labels: str) -> None:
        """Pick options of a dropdown by their labels."""
        self.press(dropdown)
        options = self.page.locator(".dash-dropdown-content [role=option]")
        for label in labels:
            options.get_by_text(label, exact=True).click()
        self.page.keyboard.press("Escape")

    def slide(self, slider: str, value: float) -> None:
        """Drag a slider near a value with the mouse, then set it with the arrow keys."""
        thumb = self.page.locator(f"#{slider} [role=slider]")
        low, high = (float(thumb.get_attribute(f"aria-value{end}") or 0) for end in ("min", "max"))
        track = self.page.locator(f"#{slider} .dash-slider-track").bounding_box()
        x = track["x"] + track["width"] * (value - low) / (high - low)
        y = track["y"] + track["height"] / 2
        thumb.hover()
        self.page.mouse.down()
        self.page.mouse.move(x, y, steps=4)
        self.page.mouse.up()
        thumb.focus()
        for _ in range(60):
            now = float(thumb.get_attribute("aria-valuenow") or 0)
            if abs(now - value) < 1e-6:
                return
            self.page.keyboard.press("ArrowRight" if now < value else "ArrowLeft")
        raise AssertionError(
            f"the slider {slider} cannot be brought to {value}; it stands at {now}"
        )

    def steps(self, count: int) -> None:
        """Wait for that many new points."""
        self.until(f"eyes.count('points') >= {self.see('eyes.count(`points`)') + count}", 90)

    def redraws(self, count: int) -> None:
        """Wait for that many redraws by the timer."""
        self.until(f"eyes.ticks.length >= {self.see('eyes.ticks.length') + count}")

    def drop(self, name: str, content: bytes) -> None:
        """Upload a file."""
        self.page.set_input_files(
            "#upload input[type=file]", {"name": name, "mimeType": "text/csv", "buffer": content}
        )

    def close(self) -> None:
        """Close the browser context."""
        self.context.close()
