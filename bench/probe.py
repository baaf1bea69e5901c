"""How long a server takes to answer while others load it, seen from a process of its own.

`python -m bench.probe PORT SECONDS` asks /health forty times a second, and has the page redrawn as
a browser does; it prints JSON: for each of them the [status, seconds] of all answers.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from typing import Any, NamedTuple

from bench.browser import ROOT
from tests.behaviour.page import Browser

HEALTH_PAUSE = 0.025  # seconds
KEEP_ALIVE = 3.0  # seconds that a connection is used again; the server keeps it for five
TICK = 0.5  # seconds between two redraws of the page


class PageAnswer(NamedTuple):
    """An answer, as the page's imitation reads it."""

    status_code: int
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


class PageClient:
    """One connection to a server in another process; it stands in for starlette's test client."""

    def __init__(self, port: int) -> None:
        self.line = http.client.HTTPConnection("localhost", port, timeout=60)
        self.took: list[tuple[int, float]] = []  # status and seconds of every answer
        self.used = time.monotonic()

    def get(self, path: str) -> PageAnswer:
        return self.send("GET", path, None)

    def post(self, path: str, json: Any) -> PageAnswer:  # the name is the test client's
        return self.send("POST", path, encoded(json))

    def send(self, method: str, path: str, body: bytes | None) -> PageAnswer:
        began = time.monotonic()
        if began > self.used + KEEP_ALIVE:
            self.line.close()  # the server has closed it, or is about to; it is opened again
        self.used = began
        self.line.request(method, path, body, {"Content-Type": "application/json"})
        answer = self.line.getresponse()
        text = answer.read().decode()
        self.took.append((answer.status, time.monotonic() - began))
        return PageAnswer(answer.status, text)


def encoded(value: Any) -> bytes:
    """Return a value as JSON."""
    return json.dumps(value).encode()


class Redraws:
    """A browser's ticks on the page with a simulated stream."""

    def __init__(self, port: int) -> None:
        self.client = PageClient(port)
        self.client.get("/")
        self.browser: Any = Browser(self.client)  # type: ignore[arg-type]
        self.browser.press("domain.value", "chart.figure", domain="wave")

    def tick(self) -> None:
        """Have the chart redrawn, as a browser's timer does."""
        self.browser.held["tick"]["n_intervals"] = (
            self.browser.held["tick"].get("n_intervals", 0) + 1
        )
        self.browser.press("tick.n_intervals", "chart.figure")


def ask_health(port: int, until: float) -> list[tuple[int, float]]:
    """Ask /health until a moment, each time over a new connection as monitors do."""
    took = []
    while time.monotonic() < until:
        client = PageClient(port)
        client.get("/health")
        client.line.close()
        took += client.took
        time.sleep(HEALTH_PAUSE)
    return took


def probe(port: int, seconds: float) -> dict[str, list[tuple[int, float]]]:
    """Return the status and seconds of every answer: /health, and the redraws of the page."""
    redraws = Redraws(port)
    redraws.client.took.clear()
    until = time.monotonic() + seconds
    found: dict[str, list[tuple[int, float]]] = {}
    thread = threading.Thread(target=lambda: found.update(health=ask_health(port, until)))
    thread.start()
    while time.monotonic() < until:
        redraws.tick()
        time.sleep(TICK)
    thread.join()
    return {**found, "page": redraws.client.took}


def started_probe(port: int, seconds: float) -> subprocess.Popen[bytes]:
    """Start a probe in a process of its own; its output is the JSON."""
    words = [sys.executable, "-m", "bench.probe", str(port), str(seconds)]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE)


if __name__ == "__main__":
    print(json.dumps(probe(int(sys.argv[1]), float(sys.argv[2]))))
