"""Programs that push at a steady pace to a server that may be killed, and an audit of what it
acknowledged.
"""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from bench.browser import ROOT, free_port
from redline.storage.sqlite import SqliteStore

START = 1_700_000_000.0  # seconds since the epoch: the time of the first point of every source
SENDERS = 4
SOURCES = tuple(f"source {i}" for i in range(20))
BODY = 200  # points
TABLE = 4_999  # values, which repeat
CONFIG = '[source]\nstream = "source 0"\n[settings]\n'
PATIENCE = 40.0  # seconds until a server that was started must answer


def value_table() -> np.ndarray:
    """Return the values (TABLE,): noise, and a spike in one of 500."""
    draw = np.random.default_rng(5)
    values = draw.normal(size=TABLE)
    values[draw.random(TABLE) < 0.002] += 9.0
    return values.round(3)


VALUES = value_table()


def point_columns(source: str, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return times (count,) and values (count,) of a source from its point `first` on."""
    numbers = np.arange(first, first + count)
    return START + numbers, VALUES[(numbers + 997 * SOURCES.index(source)) % TABLE]


def points_body(source: str, time_: np.ndarray, x: np.ndarray) -> bytes:
    """Return the body of points of a source, as columns."""
    return json.dumps({"source": source, "time": time_.tolist(), "value": x.tolist()}).encode()


class Answer(NamedTuple):
    """What a server answered."""

    status: int  # 0 = it did not
    body: bytes


class Target:
    """A Redline in a process of its own that can be killed and started again on its store."""

    def __init__(self, folder: Path, pause: float, *options: str) -> None:
        """Start it; a pass of retention begins every `pause` seconds."""
        self.port = free_port()
        self.store = folder / "redline.db"
        self.log = folder / "log"
        self.offset = folder / "offset"  # seconds by which its clock is wrong
        (folder / "push.toml").write_text(CONFIG)
        self.words = [sys.executable, "-m", "bench.clock", str(self.offset), str(pause), "run"]
        self.words += ["--config", f"{folder}/push.toml", "--db", str(self.store)]
        self.words += ["--port", str(self.port), "--rate-limit", "0", *options]
        self.start()

    def start(self) -> float:
        """Start it; return the seconds until it answers."""
        began = time.monotonic()
        with self.log.open("a") as log:
            self.child = subprocess.Popen(
                self.words, cwd=ROOT, stderr=log, stdout=subprocess.DEVNULL
            )
        self.process = psutil.Process(self.child.pid)
        while not self.ask("GET", "/health").status:
            assert self.child.poll() is None, self.log.read_text()[-2_000:]
            assert time.monotonic() < began + PATIENCE, "it does not answer"
            time.sleep(0.02)
        return time.monotonic() - began

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it at once, or as another signal does."""
        self.child.send_signal(how)
        self.child.wait(30)

    def ask(self, method: str, path: str, body: bytes | None = None) -> Answer:
        """Send one request over a connection of its own."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            line.request(method, path, body)
            answer = line.getresponse()
            return Answer(answer.status, answer.read())
        except (OSError, http.client.HTTPException):
            return Answer(0, b"")
        finally:
            line.close()

    def ask_until_served(self, path: str) -> bytes:
        """Return the body of an answer with status 200; a server that is busy is asked again."""
        last = time.monotonic() + PATIENCE
        while (answer := self.ask("GET", path)).status != 200:
            assert time.monotonic() < last, f"{path}: {answer.status} {answer.body[:500]!r}"
            time.sleep(0.2)
        return answer.body

    def size(self) -> int:
        """Return the bytes of the store and its log."""
        total = 0
        for file in (self.store, Path(f"{self.store}-wal")):
            with suppress(FileNotFoundError):
                total += file.stat().st_size
        return total


class Ledger:
    """What was acknowledged, and how long the answers took."""

    def __init__(self) -> None:
        self.acknowledged = dict.fromkeys(SOURCES, 0)  # points, from the first one on
        self.late: list[tuple[str, np.ndarray]] = []  # source, times of late points
        self.took: list[tuple[float, float]] = []  # monotonic seconds of an answer, its seconds
        self.statuses: Counter[int] = Counter()  # of pushes; 0 = no answer

    @property
    def points(self) -> int:
        """Return how many points were acknowledged."""
        late = sum(len(times) for _, times in list(self.late))
        return sum(self.acknowledged.values()) + late


class Pushers:
    """SENDERS programs; each has a part of the sources, and sends a body again until it counts."""

    def __init__(self, target: Target, ledger: Ledger) -> None:
        self.target = target
        self.ledger = ledger
        self.pause = 0.0  # seconds from one body of a sender to its next, 0 = none
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self.send, args=(i,)) for i in range(SENDERS)]
        for thread in self.threads:
            thread.start()

    def send(self, number: int) -> None:
        """Play one program."""
        own = SOURCES[number::SENDERS]
        line = http.client.HTTPConnection("127.0.0.1", self.target.port, timeout=60)
        due = time.monotonic()
        turn = 0
        while not self.ending.is_set():
            source = own[turn % len(own)]
            body = points_body(
                source, *point_columns(source, self.ledger.acknowledged[source], BODY)
            )
            if self.push(line, body):
                self.ledger.acknowledged[source] += BODY
                turn += 1
            else:
                self.ending.wait(0.2)
            due = max(due + self.pause, time.monotonic() - self.pause)  # no burst after a pause
            self.ending.wait(max(0.0, due - time.monotonic()))
        line.close()

    def push(self, line: http.client.HTTPConnection, body: bytes) -> bool:
        """Send a body once; return whether it was acknowledged."""
        began = time.monotonic()
        status = 0
        try:
            line.request("POST", "/api/submit", body)
            answer = line.getresponse()
            answer.read()
            status = answer.status
        except (OSError, http.client.HTTPException):
            line.close()
        now = time.monotonic()
        self.ledger.statuses[status] += 1
        if status == 200:
            self.ledger.took.append((now, now - began))
        return status == 200

    def capacity(self, seconds: float) -> float:
        """Return the points a second that are acknowledged when no program pauses.

        Measured when every source is known: a server that starts slowly would seem slow for ever.
        """
        self.pause = 0.0
        last = time.monotonic() + PATIENCE
        while not all(self.ledger.acknowledged.values()):
            assert time.monotonic() < last, f"not acknowledged: {dict(self.ledger.statuses)}"
            time.sleep(0.05)
        before = self.ledger.points
        began = time.monotonic()
        time.sleep(seconds)
        return (self.ledger.points - before) / (time.monotonic() - began)

    def slow_to(self, rate: float) -> None:
        """Send so many points a second from now on."""
        self.pause = SENDERS * BODY / rate

    def wait_for_each(self) -> None:
        """Wait until every source has sent once more.

        One that was silent while the clock was wrong by years is forgotten until it sends again.
        """
        before = dict(self.ledger.acknowledged)
        last = time.monotonic() + PATIENCE
        while any(self.ledger.acknowledged[source] == count for source, count in before.items()):
            assert time.monotonic() < last, f"not acknowledged: {dict(self.ledger.statuses)}"
            time.sleep(0.05)

    def stop(self) -> None:
        """End the programs; a body under way is waited for."""
        self.ending.set()
        for thread in self.threads:
            thread.join()


class Audit:
    """Reads what was acknowledged back from the file, each point once, before it is deleted."""

    def __init__(self, path: Path, ledger: Ledger) -> None:
        self.store = SqliteStore(path, write=False)
        self.ledger = ledger
        self.read = dict.fromkeys(SOURCES, 0)  # points of each source
        self.late_read = 0  # entries of the ledger's list
        self.lost = 0
        self.doubled = 0
        self.changed = 0

    def run(self) -> None:
        """Read what was acknowledged since the last time."""
        for source, end in list(self.ledger.acknowledged.items()):
            while self.read[source] < end:
                first = self.read[source]
                count = min(end - first, 50_000)
                self.compare(source, *point_columns(source, first, count))
                self.read[source] = first + count
        late = self.ledger.late[self.late_read :]
        for source, time_ in late:
            self.compare(source, time_, np.zeros(len(time_)))
        self.late_read += len(late)

    def compare(self, source: str, time_: np.ndarray, x: np.ndarray) -> None:
        """Compare times (n,) and values (n,) that were sent with what is stored at these times."""
        found = self.store.points(source, float(time_[0]), float(time_[-1]), 3 * len(time_))
        assert found is not None
        same = (found.time % 1 == 0.5) == (time_[0] % 1 == 0.5)  # late points lie between others
        stored, first = np.unique(found.time[same], return_index=True)
        there = np.isin(time_, stored)
        self.lost += int(np.count_nonzero(~there))
        self.doubled += int(np.count_nonzero(same)) - len(stored)
        values = found.x[same, 0][first][np.isin(stored, time_)]
        self.changed += int(np.count_nonzero(values != x[there]))

    def finish(self, target: Target) -> None:
        """Read the rest, and count holes in what retention left and steps that count twice."""
        self.run()
        for source, end in self.ledger.acknowledged.items():
            stream = target.ask_until_served(f"/api/streams/{source.replace(' ', '%20')}")
            self.doubled += max(0, json.loads(stream)["end"] - end)
            found = self.store.points(source, limit=10**9)
            assert found is not None
            steps = found.time[found.time % 1 == 0] - START
            self.lost += int(end - 1 - steps[-1]) + int(np.sum(np.diff(steps) - 1))
        self.store.close()
