"""Writes docs/light.png, docs/dark.png and docs/phone.png, taken from the running page: `python -m
bench.screenshot`.
"""

from __future__ import annotations

import argparse
from typing import Any

from playwright.sync_api import sync_playwright

from bench.browser import ROOT, Server, launched, seen_hints

WIDE = {"viewport": {"width": 1400, "height": 1180}, "device_scale_factor": 1.5}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
SHOTS = {
    "light": {**WIDE, "color_scheme": "light"},
    "dark": {**WIDE, "color_scheme": "dark"},
    "phone": {**PHONE, "color_scheme": "light"},
}
MARKS = (
    "document.querySelector('#chart .js-plotly-plot')?.data?.filter(t => t.name === "
    "'anomaly').reduce((n, t) => n + t.x.length, 0)"
)
SETTLED = (
    "document.querySelector('[data-spark=iot] svg') && document.querySelector('#curve "
    ".js-plotly-plot')?.data?.length"
)
NEWEST = """(() => {
  const marks = document.querySelector('#chart .js-plotly-plot').data.filter(t => t.name === 'anomaly');
  return Math.max(...marks.flatMap(t => t.x));
})()"""  # noqa: E501


# the race is over, and no pop-up lies over the page
UNCOVERED = """/caught by \\d+ of \\d+,/.test(document.body.textContent)
  && !document.getElementById('popups').children.length"""


def taken(browser: Any, url: str, name: str, look: dict[str, Any]) -> None:
    """One picture: the page as it stands a little after an injected spike was caught."""
    # `wait_for_function` needs to bypass the page's policy
    context = browser.new_context(**look, bypass_csp=True, storage_state=seen_hints(url))
    page = context.new_page()
    page.goto(url)
    page.wait_for_function(f"{MARKS} > 0 && {SETTLED}")
    newest = page.evaluate(NEWEST)
    page.evaluate("document.getElementById('inject-point').click()")
    page.wait_for_function(f"{NEWEST} > {newest}")
    points = int(page.inner_text("#points").replace(",", ""))
    page.wait_for_function(
        f"+document.getElementById('points').textContent.replace(',', '') > {points + 60}"
    )  # the spike is inside the plot
    page.wait_for_function(UNCOVERED, timeout=180_000)  # twenty detectors run the race
    page.screenshot(path=ROOT / "docs" / f"{name}.png")
    context.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.screenshot", description=(__doc__ or "").split(":")[0]
    )
    parser.add_argument("--view", default="domain=cpu", help="what the link to the page asks for")
    asked = parser.parse_args()
    with sync_playwright() as playwright:
        browser = launched(playwright)
        for name, look in SHOTS.items():
            with Server(
                "--seed", "7"
            ) as server:  # a fresh one each, so that all show the same moment
                taken(browser, f"{server.url}/?{asked.view}", name, look)
            print(f"docs/{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
