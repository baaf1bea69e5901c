"""Points that a program pushes to a server: a calm source, perhaps with a spike at its end."""

from __future__ import annotations

import json
import urllib.request

import numpy as np

from bench.browser import Server

START = 1_767_571_200  # seconds since the epoch


def push(server: Server, source: str, steps: int = 300, spike: bool = False) -> None:
    """Push minutes of a calm source, perhaps with a spike at its end."""
    values = np.random.default_rng(5).uniform(-1, 1, steps).round(3).tolist()
    if spike:
        values[-1] = 60.0
    times = [START + 60 * i for i in range(steps)]
    submit(server, json.dumps({"source": source, "time": times, "values": {"value": values}}))


def submit(server: Server, body: str) -> None:
    """Send the body of a submission, and wait until its points are stored."""
    request = urllib.request.Request(
        f"{server.url}/api/submit", body.encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 200
