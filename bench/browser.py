"""A real server in a process of its own, seen by a real headless Chromium: what the screenshots,
the page figures and the browser tests stand on.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[1]
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
QUIET = (
    "--disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
FLAGS = ["--headless", "--no-sandbox", *QUIET.split()]
PATIENCE = 30.0  # seconds until a server that says nothing counts as dead


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def launched(playwright: Any, *flags: str) -> Any:
    """A Chromium, started by playwright's synchronous interface."""
    if CHROMIUM is None:
        raise SystemExit(
            "wanted chromium, chromium-browser or google-chrome on the PATH; none is "
            "there; on Debian: apt-get install chromium"
        )
    return playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])


class Server:
    """`python app.py` on a free port, in a folder of its own; `program` may stand in for app.py."""

    def __init__(
        self, *flags: str, program: Path = ROOT / "app.py", port: int | None = None
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = tempfile.TemporaryDirectory(prefix="redline-")
        self.log = Path(self.folder.name) / "log"
        self.words = [
            sys.executable,
            str(program),
            "--no-browser",
            "--port",
            str(self.port),
            *flags,
        ]
        self.process: subprocess.Popen[str] | None = None
        self.said = ""  # the line with the address

    def start(self) -> Self:
        """Starts it and waits for its line."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.words,
                cwd=self.folder.name,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        self.said = self.process.stdout.readline() if ready else ""
        if not self.said:
            self.stop()
            raise RuntimeError(
                f"wanted a line with the address within {PATIENCE:.0f} s, came "
                f"nothing; the server said: {self.log.read_text()}"
            )
        return self

    def stop(self, how: signal.Signals = signal.SIGTERM) -> float:
        """Ends it; the seconds that took."""
        began = time.monotonic()
        if self.process is not None:
            self.process.send_signal(how)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None
        return time.monotonic() - began

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self.folder.cleanup()


def seen_hints(url: str) -> dict[str, Any]:
    """Return what a browser remembers in which the bubbles of a first visit were closed."""
    closed = {"name": "hints", "value": "closed"}
    return {"cookies": [], "origins": [{"origin": url, "localStorage": [closed]}]}
