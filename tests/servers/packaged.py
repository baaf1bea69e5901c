"""The servers that come as Debian packages: unpacked by `make servers`, or of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from bench.browser import free_port
from bench.postgres_server import UNPACKED

PATIENCE = 10.0  # seconds that a server may take to answer


def find_server(name: str) -> str:
    """Return where a program is, "" = nowhere."""
    places = [UNPACKED / "usr" / "bin" / name, UNPACKED / "usr" / "sbin" / name]
    return next((str(each) for each in places if each.exists()), shutil.which(name) or "")


class PackagedServer:
    """A server in a process of its own, with a folder for what it keeps, on a free port."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.folder = Path(tempfile.mkdtemp(prefix=f"{program}-"))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def words(self) -> list[str]:
        """Return the arguments of the program."""
        raise NotImplementedError

    def start(self) -> None:
        """Run it, and wait until it takes connections."""
        libraries = ":".join(str(each) for each in (UNPACKED / "usr" / "lib").glob("*-linux-gnu"))
        with (self.folder / "out").open("ab") as log:
            self.process = subprocess.Popen(
                [find_server(self.program), *self.words()],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, "LD_LIBRARY_PATH": libraries},
            )
        until = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                said = (self.folder / "out").read_text(errors="replace")[-2_000:]
                assert self.process.poll() is None and time.monotonic() < until, said
                time.sleep(0.01)

    def end(self, how: int = signal.SIGTERM) -> None:
        """End it."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(PATIENCE)
            self.process = None

    def close(self) -> None:
        """End it and remove its folder."""
        self.end(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)
