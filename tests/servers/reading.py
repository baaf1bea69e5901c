"""A server that reads from a broker, for the tests with a real one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from bench.browser import ROOT, free_port
from bench.followers import Server

PATIENCE = 30.0  # seconds
CONFIG = '[source]\nstream = "oven"\n[settings]\n'


class Reading:
    """A server that reads from a broker, in a process of its own, which can be killed."""

    def __init__(self, folder: Path, kind: str, *options: str, **variables: str) -> None:
        self.folder = folder
        self.kind = kind  # as the status names it
        self.variables = variables  # of its environment
        (folder / "push.toml").write_text(CONFIG)
        self.port = free_port()
        self.words = (
            *("run", "--config", f"{folder}/push.toml", "--db", f"{folder}/redline.db"),
            *("--port", str(self.port), *options),
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "redline", *self.words]
            self.process = subprocess.Popen(
                command, cwd=ROOT, stderr=log, stdout=log, env={**os.environ, **self.variables}
            )
        store = self.folder / "redline.db"
        self.server = Server(self.port, psutil.Process(self.process.pid), store, [])
        self.server.wait()
        return self.server

    def end(self, how: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(PATIENCE)
            self.process = None

    @property
    def said(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.server.ask("/api/status")[self.kind]
        return found

    def wait_for(self, look: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Return the status of the reading once a look finds something in it."""
        until = time.monotonic() + PATIENCE
        while not look(found := self.status):
            assert time.monotonic() < until, f"{found}\n{self.said}"
            time.sleep(0.05)
        return found

    def values(self, source: str) -> list[float]:
        path = f"/api/data/{source}?limit=10000"
        return [point["value"] for point in self.server.ask(path)["points"]]
