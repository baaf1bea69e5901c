"""Many clients on the stream of events, some of which never read: how late the others are told, and what it costs the server."""

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
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

ROOT = Path(__file__).parents[1]
TIME = re.compile(rb'"time":([0-9.]+)')
SOURCES = 200
CALM = 20  # points between two spikes of a source
AT_ONCE = 3  # spikes every 50 ms
CONFIG = '[source]\nstream = "oven"\n[settings]\n'


class Server(NamedTuple):
    """A server in a process of its own, on a fresh store."""

    port: int
    process: psutil.Process

    def ask(self, path: str, body: bytes | None = None) -> dict:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", body, timeout=60) as answer:
            return json.load(answer)

    @property
    def seconds(self) -> float:
        """Of processor time, spent until now."""
        spent = self.process.cpu_times()
        return spent.user + spent.system


class Delivery(NamedTuple):
    """What came of it."""

    late: np.ndarray  # (deliveries,) seconds from the point's time, just before it was pushed, to its event at a client
    events: int
    slow: int  # clients let go, as /api/status counts them
    grown: float  # MiB of the server's memory, from the first event to the last
    share: float  # of a core the server used


@contextmanager
def serving() -> Iterator[Server]:
    """`python -m redline run` with what programs push."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        (Path(folder) / "push.toml").write_text(CONFIG)
        words = ["run", "--config", f"{folder}/push.toml", "--db", f"{folder}/redline.db", "--port", str(port), "--rate-limit", "0"]
        with subprocess.Popen([sys.executable, "-m", "redline", *words], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            assert process.stderr is not None and b"oven" in process.stderr.readline()
            server = Server(port, psutil.Process(process.pid))
            while not server.ask("/health")["ready"]:
                time.sleep(0.05)
            try:
                yield server
            finally:
                process.terminate()


class Follower(asyncio.Protocol):
    """One client: notes how late each event came; one that does not read stops after the first bytes."""

    def __init__(self, late: list[float], reads: bool) -> None:
        self.late, self.reads = late, reads

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(b"GET /api/stream/anomalies HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        now = time.time()
        self.late.extend(now - float(found) for found in TIME.findall(data))
        if not self.reads:
            self.transport.pause_reading()


async def followed(server: Server, clients: int, stalled: int, seconds: float) -> Delivery:
    """Everybody follows while spikes are pushed, up to 60 a second."""
    late: list[float] = []
    loop = asyncio.get_running_loop()
    lines = []
    for i in range(clients):
        sock = socket.socket()
        if i < stalled:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", server.port))
        lines.append((await loop.create_connection(lambda reads=i >= stalled: Follower(late, reads), sock=sock))[0])  # type: ignore[misc]
    while server.ask("/api/status")["events"]["clients"] < clients:
        await asyncio.sleep(0.1)
    before, spent, began = server.process.memory_info().rss, server.seconds, time.perf_counter()
    sent = await spikes(server, seconds)
    await asyncio.sleep(2)
    share = (server.seconds - spent) / (time.perf_counter() - began)
    grown = (server.process.memory_info().rss - before) / 2**20
    slow = server.ask("/api/status")["events"]["slow"]
    for line in lines:
        line.abort()
    return Delivery(np.array(late), sent, slow, grown, share)


async def spikes(server: Server, seconds: float) -> int:
    """A few sources every 50 ms: some calm points, then one that is not, whose time is now; how many there were."""
    rng, until, sent = np.random.default_rng(1), time.monotonic() + seconds, 0
    while time.monotonic() < until:
        wait = asyncio.create_task(asyncio.sleep(0.05))
        now = time.time()
        times = (now - np.arange(CALM, -1, -1) * 1e-4).tolist()
        body = [{"source": f"s{(sent + i) % SOURCES}", "time": times, "value": [*rng.normal(0, 1, CALM).tolist(), 1000.0]} for i in range(AT_ONCE)]
        await asyncio.to_thread(server.ask, "/api/submit", json.dumps(body).encode())
        sent += AT_ONCE
        await wait
    return sent


def past(server: Server) -> None:
    """Every source has learned what is normal."""
    rng, now = np.random.default_rng(0), time.time() - 1_000
    for first in range(0, SOURCES, 50):
        times = (now + np.arange(300)).tolist()
        body = [{"source": f"s{i}", "time": times, "value": rng.normal(0, 1, 300).tolist()} for i in range(first, first + 50)]
        server.ask("/api/submit", json.dumps(body).encode())


def deliver(clients: int, stalled: int, seconds: float) -> Delivery:
    with serving() as server:
        past(server)
        return asyncio.run(followed(server, clients, stalled, seconds))


def pushed(points: int, batch: int) -> tuple[float, float]:
    """Columns over HTTP by one client that waits for each answer: points a second of the server's processor time, and of the clock."""
    with serving() as server:
        values = np.random.default_rng(1).normal(size=batch).round(4).tolist()
        bodies = [
            json.dumps({"source": "oven", "time": [1.7e9 + i + k for k in range(batch)], "value": values}).encode() for i in range(0, points, batch)
        ]
        server.ask("/api/submit", bodies[0])
        spent, began = server.seconds, time.perf_counter()
        for body in bodies[1:]:
            server.ask("/api/submit", body)
        done = (len(bodies) - 1) * batch
        return done / (server.seconds - spent), done / (time.perf_counter() - began)
