"""The internals that the behaviour tests need: when modules move, this file follows and no test
does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

import app
from redline import settings
from redline.api.service import ServerOptions, assemble_service
from redline.engine.feed import MonitoredStream
from redline.engine.monitor import Monitor
from redline.sources.machine import ThisMachine
from redline.storage.sqlite import SqliteStore
from streams import STREAMS

PAST = 3_000  # steps a simulated stream has behind it
SEED = 3


def served_page(body_limit: int = ServerOptions().body) -> TestClient:
    """Return a client of the page and the API, over two simulated streams and this machine.

    The loop is not started, so every stream stands still and every answer can be repeated.
    """
    simulated = {name: MonitoredStream(STREAMS[name](seed=SEED)) for name in ("wave", "iot")}
    monitor = Monitor({**simulated, "this-machine": MonitoredStream(ThisMachine(), own_clock=True)})
    for name in simulated:
        monitor.backfill(monitor.feeds[name], PAST)
    options = ServerOptions(body=body_limit)
    page = app.build_app(assemble_service(lambda store: monitor, options=options), seed=SEED)
    return TestClient(page.server, base_url="http://localhost", raise_server_exceptions=False)


def make_store(path: Path) -> None:
    """Write a fresh store there, with nothing in it."""
    SqliteStore(path).close()


def import_settings(text: str) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Return (source, settings) of an exported file, both as plain values."""
    source, found = settings.import_settings(text)
    return source, asdict(found)
