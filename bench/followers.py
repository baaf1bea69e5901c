"""Many clients on the stream of events, some of which never read: how late the others are told, and
what it costs the server.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from bench.browser import free_port

ROOT = Path(__file__).parents[1]
TIME = re.compile(rb'"time":([0-9.]+)')
SOURCES = 200
CALM = 20  # points between two spikes of a source
AT_ONCE = 3  # spikes every 50 ms
LONG = (
    "-" * 150
)  # makes events long, so that what the kernel holds for one who does not read is soon full
CONFIG = '[source]\nstream = "oven"\n[settings]\n'


class Server(NamedTuple):
    """A server in a process of its own, on a fresh store."""

    port: int
    process: psutil.Process
    store: Path
    said: list[str]  # to stderr, whole once it has ended

    def ask(self, path: str, body: bytes | None = None) -> dict:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}{path}", body, timeout=60
        ) as answer:
            return json.load(answer)

    def wait(self) -> None:
        """Until it is ready."""
        until = time.monotonic() + 20
        while True:
            try:
                self.ask("/health")
                return
            except OSError:
                if time.monotonic() > until or not self.process.is_running():
                    raise
                time.sleep(0.02)

    @property
    def seconds(self) -> float:
        """Of processor time, spent until now."""
        spent = self.process.cpu_times()
        return spent.user + spent.system


class Delivery(NamedTuple):
    """What came of it."""

    # (deliveries,) seconds from the point's time, just before it was pushed, to its event at a
    # client
    late: np.ndarray
    events: int
    slow: int  # clients let go, as /api/status counts them
    grown: float  # MiB of the server's memory, from the first event to the last
    share: float  # of a core the server used
    heart: tuple[
        float, float
        # milliseconds: the longest work in one turn of the server's event loop; how late one turn
        # in a
        # hundred came
    ]


@contextmanager
def serving(*options: str, kept: Path | None = None) -> Iterator[Server]:
    """Run `python -m redline run` with what programs push, under some more options.

    kept: the folder of its files, which may hold a store; None = a new one, removed at the end.
    """
    with ExitStack() as stack:
        folder = kept or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = free_port()
        (folder / "push.toml").write_text(CONFIG)
        words = [
            "run",
            "--config",
            f"{folder}/push.toml",
            "--db",
            f"{folder}/redline.db",
            "--port",
            str(port),
            "--rate-limit",
            "0",
            *options,
        ]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.heart", *words],
                cwd=ROOT,
                stderr=log,
                stdout=subprocess.DEVNULL,
            )
        server = Server(port, psutil.Process(process.pid), folder / "redline.db", [])
        try:
            server.wait()
            yield server
        finally:
            process.terminate()
            process.wait(20)
            server.said.extend((folder / "log").read_text().splitlines())


def heartbeat(server: Server) -> tuple[float, float]:
    """Of a server that has ended, milliseconds: the longest work in one turn of its event loop, how
    late one in a hundred came (bench/heart.py).
    """
    work, late = next(line for line in server.said if line.startswith("heart: ")).split()[1:]
    return float(work), float(late)


class Follower(asyncio.Protocol):
    """One client: notes how late each event came; one that does not read stops after the first
    bytes.
    """

    def __init__(self, late: list[float], reads: bool) -> None:
        self.late = late
        self.reads = reads

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(b"GET /api/stream/anomalies HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        now = time.time()
        self.late.extend(now - float(found) for found in TIME.findall(data))
        if not self.reads:
            self.transport.pause_reading()


async def followed(
    server: Server, clients: int, stalled: int, seconds: float
) -> tuple[np.ndarray, int, int, float, float]:
    """Everybody follows while spikes are pushed, up to 60 a second; the first fields of a
    Delivery.
    """
    late: list[float] = []
    loop = asyncio.get_running_loop()
    lines = []
    for i in range(clients):
        sock = socket.socket()
        if i < stalled:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", server.port))
        lines.append(
            (
                await loop.create_connection(
                    lambda reads=i >= stalled: Follower(late, reads), sock=sock
                )
            )[0]
        )  # type: ignore[misc]
    while server.ask("/api/status")["events"]["clients"] < clients:
        await asyncio.sleep(0.1)
    before = server.process.memory_info().rss
    spent = server.seconds
    began = time.perf_counter()
    sent = await spikes(server, seconds, stalled)
    await asyncio.sleep(2)
    share = (server.seconds - spent) / (time.perf_counter() - began)
    grown = (server.process.memory_info().rss - before) / 2**20
    slow = let_go(server)
    for line in lines:
        line.abort()
    return np.array(late), sent, slow, grown, share


def let_go(server: Server) -> int:
    """How many were too slow."""
    slow: int = server.ask("/api/status")["events"]["slow"]
    return slow


async def spikes(server: Server, seconds: float, stalled: int) -> int:
    """A few sources every 50 ms: some calm points, then one that is not, whose time is now; how
    many there were. So long until all who do not read are let go, which takes as many events as
    fill what is held for them; not longer than four times as long."""
    rng = np.random.default_rng(1)
    began = time.monotonic()
    sent = 0
    while (spent := time.monotonic() - began) < seconds or (
        spent < 4 * seconds and await asyncio.to_thread(let_go, server) < stalled
    ):
        wait = asyncio.create_task(asyncio.sleep(0.05))
        now = time.time()
        times = (now - np.arange(CALM, -1, -1) * 1e-4).tolist()
        body = [
            {
                "source": f"s{(sent + i) % SOURCES}{LONG}",
                "time": times,
                "value": [*rng.normal(0, 1, CALM).tolist(), 1000.0],
            }
            for i in range(AT_ONCE)
        ]
        await asyncio.to_thread(server.ask, "/api/submit", json.dumps(body).encode())
        sent += AT_ONCE
        await wait
    return sent


def past(server: Server) -> None:
    """Every source has learned what is normal."""
    rng = np.random.default_rng(0)
    now = time.time() - 1_000
    for first in range(0, SOURCES, 50):
        times = (now + np.arange(300)).tolist()
        body = [
            {"source": f"s{i}{LONG}", "time": times, "value": rng.normal(0, 1, 300).tolist()}
            for i in range(first, first + 50)
        ]
        server.ask("/api/submit", json.dumps(body).encode())


def deliver(clients: int, stalled: int, seconds: float) -> Delivery:
    with serving() as server:
        past(server)
        found = asyncio.run(followed(server, clients, stalled, seconds))
    return Delivery(*found, heartbeat(server))


def pushed(points: int, batch: int) -> tuple[float, float]:
    """Columns over HTTP by one client that waits for each answer: points a second of the server's
    processor time, and of the clock.
    """
    with serving() as server:
        values = np.random.default_rng(1).normal(size=batch).round(4).tolist()
        bodies = [
            json.dumps(
                {"source": "oven", "time": [1.7e9 + i + k for k in range(batch)], "value": values}
            ).encode()
            for i in range(0, points, batch)
        ]
        server.ask("/api/submit", bodies[0])
        spent = server.seconds
        began = time.perf_counter()
        for body in bodies[1:]:
            server.ask("/api/submit", body)
        done = (len(bodies) - 1) * batch
        return done / (server.seconds - spent), done / (time.perf_counter() - began)
