"""The page's figures beside their goals, measured with a real server and a real headless Chromium.

`python -m bench.page` (about three minutes), `--minutes 10` watches the memory for longer, `--only
start tick` measures some. Run it alone on the machine: server, browser and the imitated browsers
share its cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import psutil
from playwright.sync_api import sync_playwright

from bench.browser import Server, launched, seen_hints
from streams import STREAMS

TICK = 0.5  # seconds
STARTS = 5
TICKS = 200
MOVES = 40
POINTS = 10_000
CROWDS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 800)  # browsers tried
CROWDED = 10.0  # seconds a crowd is watched
DRAWS = "_dash-update-component"
WATCH = """
window.seen = {asked: [], drawn: 0, moved: 0};
const fetched = window.fetch;
window.fetch = async (...asked) => {
  const body = String(asked[1]?.body);
  if (!body.startsWith('{"output":"..chart.figure')) return fetched(...asked);
  const answer = await fetched(...asked), at = Date.now();
  const text = await answer.clone().text(), value = id => JSON.parse(body).inputs.find(i => i.id === id).value;
  const said = text.length < 50_000 ? JSON.parse(text).response : {}; // a large one would cost the page what only this script wants
  const x = said.chart?.figure?.operations?.find(o => o.operation === 'Extend')?.params.value || [];
  const status = text.slice(-20_000).match(/"status":{"children":"([^"]*)"/)?.[1], age = said.pulse?.data?.age;
  seen.asked.push({at, body, status, points: x.length, age, threshold: value('threshold'), window: value('window'), drawn: 0});
  return answer;
};
addEventListener('keydown', () => (seen.moved = Date.now()), true);
const plotted = setInterval(() => {
  const plot = document.querySelector('#chart .js-plotly-plot');
  if (!plot || !plot.on) return;
  clearInterval(plotted);
  plot.on('plotly_afterplot', () => requestAnimationFrame(() => seen.asked.forEach(a => (a.drawn = a.drawn || Date.now()))));
}, 20);
"""  # noqa: E501


class Row(NamedTuple):
    """One figure of the table."""

    figure: str
    measured: str
    goal: str
    met: bool


def p95(values: list[float]) -> float:
    return float(np.percentile(values, 95))


# What a person waits for


def opened(browser: Any, url: str, **view: Any) -> Any:
    """A page of a browser of its own, once its plot stands."""
    page = browser.new_context(
        viewport={"width": 1400, "height": 1180},
        bypass_csp=True,  # `wait_for_function` evaluates text in the page
        storage_state=seen_hints(url),
    ).new_page()
    page.add_init_script(WATCH)
    page.goto(f"{url}/?{'&'.join(f'{name}={value}' for name, value in view.items())}")
    page.wait_for_selector("#chart .scatterlayer path.js-line")
    return page


def start(browser: Any) -> list[Row]:
    """From the command to the first answer, and to a plot that stands."""
    answers = []
    plots = []
    for _ in range(STARTS):
        began = time.perf_counter()
        with Server() as server:
            with urllib.request.urlopen(server.url) as answer:
                answer.read()
            answers.append(time.perf_counter() - began)
            opened(browser, server.url).context.close()
            plots.append(time.perf_counter() - began)
    return [
        Row(
            "`python app.py` -> server answers, median",
            f"{median(answers):.2f} s",
            "<= 1.2 s",
            median(answers) <= 1.2,
        ),
        Row(
            "`python app.py` -> plot visible, median",
            f"{median(plots):.2f} s",
            "<= 2.5 s",
            median(plots) <= 2.5,
        ),
    ]


def drawn(browser: Any) -> list[Row]:
    """From a point's arrival at the server to the frame that shows it; a point waits for the tick,
    then for the way.
    """
    with Server() as server:
        page = opened(browser, server.url, domain="wave")
        page.wait_for_function(
            f"seen.asked.filter(a => a.points && a.drawn).length > {round(20 / TICK)}",
            timeout=60_000,
        )
        asked = page.evaluate(
            "seen.asked.filter(a => a.points && a.drawn).map(({at, age, points, "
            "drawn}) => ({at, age, points, drawn}))"
        )
        page.context.close()
    beat = 0.1  # seconds between two points of the wave
    waits = [
        a["age"] + (a["drawn"] - a["at"]) / 1000 + beat * k
        for a in asked
        for k in range(a["points"])
    ]
    middle = 1000 * median(waits)
    return [
        Row(
            "point produced -> drawn, p50 (p95)",
            f"{middle:.0f} ms ({1000 * p95(waits):.0f} ms)",
            "<= 560 ms",
            middle <= 560,
        )
    ]


def moves(browser: Any) -> list[Row]:
    """From a key on a slider to the frame with the new marks and numbers, 10,000 points in
    sight.
    """
    rows = []
    with Server() as server:
        for slider, keys in (("threshold", ["PageUp", "PageDown"]), ("window", ["ArrowRight"])):
            page = opened(browser, server.url, domain="cpu", range=POINTS)
            page.focus(f"#{slider} [role=slider]")
            took = [moved(page, slider, keys[i % len(keys)]) for i in range(MOVES)]
            page.context.close()
            figure = (
                f"{slider} moved -> marks and numbers changed, {POINTS:,} points in sight, "
                "p95 (p50)"
            )
            rows.append(
                Row(
                    figure,
                    f"{p95(took):.0f} ms ({median(took):.0f} ms)",
                    "<= 150 ms",
                    p95(took) <= 150,
                )
            )
    return rows


def moved(page: Any, slider: str, key: str) -> float:
    """Milliseconds from one key to the frame with what it changed."""
    thumb = page.locator(f"#{slider} [role=slider]")
    page.keyboard.press(key)
    value = float(thumb.get_attribute("aria-valuenow"))
    done = (
        f"seen.asked.find(a => a.at >= seen.moved && a.{slider} === {value:g} && "
        "!/scoring/.test(a.status) && a.drawn)"
    )
    took = page.wait_for_function(f"{done} && {done}.drawn - seen.moved").json_value()
    page.evaluate("seen.asked = []")
    return float(took)


def watched(browser: Any, minutes: float) -> list[Row]:
    """Server and browser while all streams run and one person looks on."""
    with Server() as server:
        assert server.process is not None
        process = psutil.Process(server.process.pid)
        page = opened(browser, server.url, domain="wave")
        time.sleep(10)
        spent = sum(process.cpu_times()[:2])
        began = time.monotonic()
        memory = [process.memory_info().rss]
        heaps = [heap(page)]
        while time.monotonic() - began < 60 * minutes:
            time.sleep(min(10.0, 60 * minutes / 10))
            memory.append(process.memory_info().rss)
            heaps.append(heap(page))
        cpu = 100 * (sum(process.cpu_times()[:2]) - spent) / (time.monotonic() - began)
        page.context.close()
    return [
        Row(
            "CPU of the server, all streams running, one browser",
            f"{cpu:.1f} % of a core",
            "<= 10 %",
            cpu <= 10,
        ),
        *grown(memory, heaps, minutes),
    ]


def grown(memory: list[float], heaps: list[float], minutes: float) -> list[Row]:
    """How far both sides' bytes went up; a browser's heap breathes by some MB, and in its first
    minutes it compiles what runs often.
    """
    first, last, most = (value / 1e6 for value in (memory[0], memory[-1], max(memory)))
    fifth = len(heaps) // 5
    young = min(heaps[fifth : 2 * fifth]) / 1e6
    old = min(heaps[-fifth:]) / 1e6
    flat = most <= 200 and last < 1.1 * first
    heap_flat = old < 1.1 * young + 2
    server = Row(
        f"memory of the server over {minutes:g} min, first -> last (most)",
        f"{first:.0f} -> {last:.0f} MB ({most:.0f} MB)",
        "<= 200 MB, flat",
        flat,
    )
    return [
        server,
        Row(
            f"JavaScript heap of the browser over {minutes:g} min, second fifth -> last",
            f"{young:.0f} -> {old:.0f} MB",
            "flat",
            heap_flat,
        ),
    ]


def heap(page: Any) -> float:
    """Bytes that the page holds after the rubbish was collected; what this script itself remembers
    is forgotten first.
    """
    session = page.context.new_cdp_session(page)
    page.evaluate("seen.asked = []")
    session.send("HeapProfiler.collectGarbage")
    used = session.send("Runtime.getHeapUsage")["usedSize"]
    session.detach()
    return float(used)


# Many browsers, imitated: each sends what a real one sends at a tick, with what the last answer
# gave it to hold


def asked_for(browser: Any, url: str) -> list[dict[str, Any]]:
    """The request that a real browser sends at a tick, one for each simulated stream."""
    bodies = []
    for name in STREAMS:
        page = opened(browser, url, domain=name)
        last = "seen.asked.findLast(a => a.points && a.body.includes('tick.n_intervals'))?.body"
        bodies.append(json.loads(page.wait_for_function(last).json_value()))
        page.context.close()
    return bodies


class Imitation:
    """A browser's ticks over one connection."""

    def __init__(self, port: int, body: dict[str, Any]) -> None:
        self.port = port
        self.failed = 0
        self.body = json.loads(json.dumps(body))
        self.took: list[float] = []  # seconds

    async def live(self, wait: float, until: float) -> None:
        """Ticks from a random moment on."""
        await asyncio.sleep(wait)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        while (began := time.monotonic()) < until:
            await self.tick(reader, writer)
            self.took.append(time.monotonic() - began)
            await asyncio.sleep(max(0.0, TICK - self.took[-1]))
        writer.close()

    async def tick(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, and its answer read to the end."""
        body = json.dumps(self.body).encode()
        head = (
            f"POST /{DRAWS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
            f"application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        said = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        answer = await reader.readexactly(
            int(said.partition("content-length: ")[2].partition("\r")[0])
        )
        self.failed += " 200 " not in said.partition("\r")[0]
        self.body["inputs"][0]["value"] += 1
        for held in self.body["state"]:
            held["value"] = (
                json.loads(answer)["response"]
                .get(held["id"], {})
                .get(held["property"], held.get("value"))
            )


def crowd(port: int, bodies: list[dict[str, Any]], size: int, seconds: float) -> Any:
    """What a crowd of imitated browsers waited for, in seconds, and how many answers failed."""

    async def all_at_once() -> list[Imitation]:
        until = time.monotonic() + 2 + seconds
        draw = np.random.default_rng(0)
        inside = [Imitation(port, bodies[i % len(bodies)]) for i in range(size)]
        await asyncio.gather(*(each.live(float(draw.uniform(0, TICK)), until) for each in inside))
        return inside

    with ThreadPoolExecutor(1) as apart:  # playwright has a loop of its own in this thread
        inside = apart.submit(asyncio.run, all_at_once()).result()
    return [t for each in inside for t in each.took[round(2 / TICK) :]], sum(
        each.failed for each in inside
    )


def ticks(browser: Any) -> list[Row]:
    """The tick's callback as one browser feels it, and how many browsers one process serves."""
    with Server() as server:
        bodies = asked_for(browser, server.url)
        one, failed = crowd(server.port, bodies[:1], 1, TICKS * TICK / 10)
        figure = "tick callback with its HTTP, one browser, p95 (p50)"
        rows = [
            Row(
                figure,
                f"{1000 * p95(one):.1f} ms ({1000 * median(one):.1f} ms)",
                "<= 5 ms",
                p95(one) <= 0.005,
            )
        ]
        served = 0
        waited = 0.0
        for size in CROWDS:
            took, failed = crowd(server.port, bodies, size, CROWDED)
            if failed or p95(took) >= TICK:
                break
            served = size
            waited = p95(took)
    figure = (
        f"browsers served by one process at a {1000 * TICK:.0f} ms tick, all waiting less "
        "than a tick (p95)"
    )
    rows.append(Row(figure, f"{served} ({1000 * waited:.0f} ms)", ">= 300", served >= 300))
    return rows


MEASURES: dict[str, Callable[..., list[Row]]] = {
    "start": start,
    "ticks": ticks,
    "drawn": drawn,
    "moves": moves,
    "watched": watched,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.page", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=MEASURES,
        default=list(MEASURES),
        help="which figures to measure",
    )
    parser.add_argument(
        "--minutes", type=float, default=1.0, help="how long CPU and memory are watched"
    )
    asked = parser.parse_args()
    print(f"{os.cpu_count()} cores; load before the start {os.getloadavg()[0]:.1f}\n")
    print("| figure | measured | goal | |\n|---|---|---|---|")
    with sync_playwright() as playwright:
        browser = launched(playwright)
        for name in asked.only:
            for row in MEASURES[name](browser, *([asked.minutes] if name == "watched" else [])):
                print(
                    (
                        f"| {row.figure} | {row.measured} | {row.goal} | "
                        f"{'met' if row.met else 'missed'} |"
                    ),
                    flush=True,
                )
        browser.close()


if __name__ == "__main__":
    main()
