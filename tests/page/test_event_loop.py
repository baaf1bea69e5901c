"""The event loop: a slow read of the store delays no other request."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

import app
from redline.api.service import Service, assemble_service
from redline.engine.monitor import Monitor
from redline.storage.sqlite import SqliteStore
from tests.behaviour.page import Browser

PATIENCE = 10.0  # seconds after which a test fails instead of waiting for ever


def test_looking_back_into_a_slow_store_does_not_stop_other_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redline.engine.monitor.BUFFER_STEPS", 1_000)
    reading, released = threading.Event(), threading.Event()
    read = Service.stored_points

    def slow(service: Service, name: str, until: float, limit: int):
        reading.set()
        assert released.wait(PATIENCE)
        return read(service, name, until, limit)

    monkeypatch.setattr(Service, "stored_points", slow)
    with closing(SqliteStore(tmp_path / "r.db")) as store:
        service = assemble_service(lambda store: Monitor({}, store=store), store)
        monitor = service.monitor
        monkeypatch.setattr(monitor, "start", lambda: None)  # the loop runs by hand
        x = np.random.default_rng(3).normal(size=3_000)
        for i in range(0, 3_000, 250):
            monitor.submit("oven", np.arange(i, i + 250) + 1.7e9, x[i : i + 250, None])
            monitor.beat()
        feed = monitor.feeds["oven"]
        with TestClient(app.build_app(service).server, base_url="http://localhost") as client:
            browser = Browser(client)
            browser.held["at"]["data"] = {"id": feed.id, "end": 900}
            answers: list[object] = []

            def look_back() -> None:
                answers.append(browser.press("at.data", "chart.figure", domain="oven", range=600))

            visitor = threading.Thread(target=look_back)
            other = threading.Thread(target=lambda: answers.append(client.get("/api/status")))
            visitor.start()
            assert reading.wait(PATIENCE)
            other.start()
            other.join(PATIENCE / 2)
            stopped = other.is_alive()
            released.set()
            visitor.join(PATIENCE)
            assert not stopped, "a request waited for another one's read of the store"
            assert len(answers) == 2
