"""Faults that a soak puts upon a running server: each lasts seconds and leaves it as it was."""

from __future__ import annotations

import json
import random
import resource
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress

import numpy as np

from bench.attacks import BOMBS, PATHS, TALK
from bench.pushers import BODY, SOURCES, START, Ledger, Target, point_columns, points_body

DECADE = 10 * 365 * 86_400.0  # seconds
JUMPS = (-DECADE, DECADE, -90.0, 90.0)  # of the clock, seconds
HALF_OPEN = 60  # connections
STALLED = 10  # followers that do not read
LATE = 20  # points
FOLLOW = b"GET /api/stream/anomalies HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF_REQUESTS = (
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-",
    b"POST /api/submit HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
)


class Trouble:
    """Makes the faults; what a server does wrong under one of them is in `wrong`."""

    def __init__(self, target: Target, ledger: Ledger, seed: int, length: float) -> None:
        """Make faults of about `length` seconds."""
        self.target = target
        self.ledger = ledger
        self.draw = random.Random(seed)
        self.length = length
        self.back: list[float] = []  # seconds until it answers again after each kill
        self.wrong: list[str] = []

    def kill(self) -> None:
        """kill -9, and a start."""
        self.target.kill()
        self.back.append(self.target.start())

    def full_disk(self) -> None:
        """No file may grow for a while."""
        pid = self.target.process.pid
        most = resource.RLIM_INFINITY
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4_096, most))
        time.sleep(self.length)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))

    def locked_file(self) -> None:
        """Another program holds the lock of the file."""
        with closing(sqlite3.connect(self.target.store, timeout=20, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(self.length)
            other.execute("ROLLBACK")

    def clock_jump(self) -> None:
        """The clock goes wrong by seconds or years, and right again."""
        for offset in (self.draw.choice(JUMPS), 0.0):
            self.target.offset.write_text(f"{offset}")
            self.target.process.send_signal(signal.SIGUSR1)
            time.sleep(self.length)

    def slow_readers(self) -> None:
        """Followers of the event stream that do not read."""
        lines = []
        for _ in range(STALLED):
            line = socket.socket()
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            line.connect(("127.0.0.1", self.target.port))
            line.sendall(FOLLOW)
            lines.append(line)
        time.sleep(self.length)
        for line in lines:
            line.close()

    def hostile_bodies(self) -> None:
        """Bodies, paths and talk that are refused, each in a sentence."""
        asked = [
            ("POST", "/api/submit", body) for body in self.draw.sample(list(BOMBS.values()), 6)
        ]
        asked += [("GET", path, None) for path in self.draw.sample(PATHS, 2)]  # type: ignore[list-item]
        for method, path, body in asked:
            status = self.target.ask(method, path, body).status
            if not 400 <= status < 500:
                self.wrong.append(f"{method} {path[:40]} {(body or b'')[:40]!r}: {status}")
        lines = [self.connected(words) for words in self.draw.sample(list(TALK.values()), 4)]
        time.sleep(self.length / 4)
        for line in lines:
            line.close()

    def half_open(self) -> None:
        """Requests that never end; the server ends each of them."""
        lines = [self.connected(HALF_REQUESTS[i % 2]) for i in range(HALF_OPEN)]
        for line in lines:
            line.settimeout(30)
            try:
                refused = b" 408 " in line.recv(65_536)
            except OSError:
                refused = False
            if not refused:
                self.wrong.append("a half-open request was not ended with 408")
            line.close()

    def late_points(self) -> None:
        """Points between those that are stored already; sent again until they count."""
        source = self.draw.choice(SOURCES)
        first = max(0, self.ledger.acknowledged[source] - BODY)
        time_ = START + first + np.arange(LATE) + 0.5
        for _ in range(100):
            if (
                self.target.ask(
                    "POST", "/api/submit", points_body(source, time_, np.zeros(LATE))
                ).status
                == 200
            ):
                self.ledger.late.append((source, time_))
                return
            time.sleep(0.2)
        self.wrong.append("late points were not taken")

    def doubled_points(self) -> None:
        """Bodies that were acknowledged, once more."""
        for source in self.draw.sample(SOURCES, 5):
            first = self.ledger.acknowledged[source] - BODY
            body = points_body(source, *point_columns(source, first, BODY))
            answer = self.target.ask("POST", "/api/submit", body)
            if answer.status == 200 and json.loads(answer.body)["repeated"] != BODY:
                self.wrong.append(f"repeated points were taken: {answer.body[:100]!r}")

    def connected(self, words: bytes) -> socket.socket:
        """Open a connection and send bytes; an answer is not read."""
        line = socket.create_connection(("127.0.0.1", self.target.port), timeout=10)
        with suppress(OSError):  # refused while it is sent
            line.sendall(words)
        return line


Fault = Callable[[Trouble], None]
FAULTS: dict[str, Fault] = {
    "kill -9": Trouble.kill,
    "full disk": Trouble.full_disk,
    "locked file": Trouble.locked_file,
    "clock jump": Trouble.clock_jump,
    "slow readers": Trouble.slow_readers,
    "hostile bodies": Trouble.hostile_bodies,
    "half-open connections": Trouble.half_open,
    "late points": Trouble.late_points,
    "doubled points": Trouble.doubled_points,
}
