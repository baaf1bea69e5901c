"""Hardship over HTTP: malformed input, five times the load it can take, 500 followers.

Ten followers do not read. `make hardship` runs these with those of test_durable.py: 25 times
kill -9 under load, a full disk, a clock that jumps; and with the soak of test_soak.py.
"""

from __future__ import annotations

import http.client
import itertools
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from bench import browser
from bench.attacks import BOMBS, PATHS, TALK
from bench.followers import Server, deliver, serving
from bench.probe import started_probe
from redline.access.tokens import append_token, mint_token
from redline.storage.sqlite import SqliteStore

pytestmark = [pytest.mark.service, pytest.mark.hardship]
START = 1_700_000_000.0  # seconds since the epoch


# --- hostile and malformed input

SUBMIT = "/api/submit"
HARMLESS = [
    "'; DROP TABLE points; --",
    "../../redline.db",
    "<script>alert(1)</script>",
    "{{7*7}}",
    "oven%00",
    "🔥",
]  # as names of sources


def asked(server: Server, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        line.request(method, path, body, {"Content-Type": "application/json"})
        answer = line.getresponse()
        return answer.status, answer.read()
    finally:
        line.close()


def is_a_problem(status: int, said: bytes) -> None:
    problem = json.loads(said)
    assert (
        400 <= status < 500
        and problem["status"] == status
        and problem["title"]
        and problem["detail"]
    ), said[:300]


def open_connection(server: Server, words: bytes) -> socket.socket:
    """Send bytes over a connection; an answer is optional."""
    line = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    line.sendall(words)
    return line


def push_valid_point(server: Server, step: int) -> None:
    """Send one valid point."""
    body = json.dumps({"source": "honest", "time": START + step, "value": step % 7}).encode()
    status, said = asked(server, "POST", SUBMIT, body)
    assert status == 200 and json.loads(said)["accepted"] == 1, said[:300]


def test_hostile_and_malformed_input_is_refused_in_a_sentence_and_disturbs_nobody():
    with serving() as server:
        push_valid_point(server, 0)
        before, steps = server.process.memory_info().rss, itertools.count(1)
        for name, body in BOMBS.items():
            status, said = asked(server, "POST", SUBMIT, body)
            assert 400 <= status < 500, (name, status, said[:300])
            is_a_problem(status, said)
            push_valid_point(server, next(steps))
        status, said = asked(server, "POST", SUBMIT, b" " * (33 << 20))
        assert status == 413
        for path in PATHS:
            is_a_problem(*asked(server, "GET", path))
        lines = [
            open_connection(server, words) for words in TALK.values() for _ in range(10)
        ]  # left open, all of them
        for name in HARMLESS:
            status, said = asked(
                server,
                "POST",
                SUBMIT,
                json.dumps({"source": name, "time": START, "value": 1}).encode(),
            )
            assert status == 200 and list(json.loads(said)["sources"]) == [name], said[:300]
        push_valid_point(server, next(steps))
        grown, count = server.process.memory_info().rss - before, next(steps)
        assert server.ask("/health")["ready"] and grown < 150 << 20
        for line in lines:
            line.close()
    assert not any("Traceback" in line for line in server.said), server.said
    ways = len(BOMBS) + len(TALK) + len(PATHS) + len(HARMLESS)
    print(
        f"\nhostile: {ways} ways refused or harmless, {count} honest points in "
        f"between, memory +{grown >> 20} MiB"
    )


# --- five times more than it can take


class Flood:
    """Two sources whose senders never pause: what is refused is sent again at once."""

    BODY = 10_000  # points
    SENDERS = 14  # of each source; what they have under way is more than a queue holds
    SOURCES = ("left", "right")

    def __init__(self, server: Server, seconds: float) -> None:
        self.server = server
        self.until = time.monotonic() + seconds
        self.lock = threading.Lock()
        self.counts: Counter[int] = Counter()  # answers by status
        self.retry_after: Counter[str | None] = Counter()  # of the refusals
        self.numbers = {name: itertools.count() for name in self.SOURCES}
        self.acknowledged: dict[str, list[int]] = {name: [] for name in self.SOURCES}
        value = np.random.default_rng(1).normal(size=self.BODY).round(3).tolist()
        self.tail = f'], "value": {value}}}'

    def body(self, name: str, number: int) -> bytes:
        first = int(START) + number * self.BODY
        times = ",".join(map(str, range(first, first + self.BODY)))
        return f'{{"source": "{name}", "time": [{times}{self.tail}'.encode()

    def send(self, name: str) -> None:
        line = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        while time.monotonic() < self.until:
            number = next(self.numbers[name])
            body = self.body(name, number)
            while self.refused(line, name, number, body) and time.monotonic() < self.until:
                pass
        line.close()

    def refused(
        self, line: http.client.HTTPConnection, name: str, number: int, body: bytes
    ) -> bool:
        """Send a body once; return whether it was refused."""
        line.request("POST", SUBMIT, body)
        answer = line.getresponse()
        said = answer.read()
        with self.lock:
            self.counts[answer.status] += 1
            if answer.status == 429:
                self.retry_after[answer.headers["Retry-After"]] += 1
            if answer.status == 200:
                counts = json.loads(said)
                assert sum(counts[k] for k in ("accepted", "repeated", "late")) == self.BODY
                self.acknowledged[name].append(number)
        return answer.status != 200

    def run(self) -> None:
        senders = [
            threading.Thread(target=self.send, args=(name,))
            for name in self.SOURCES
            for _ in range(self.SENDERS)
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()


@contextmanager
def page_server() -> Iterator[Server]:
    """`python app.py` in a folder of its own."""
    with browser.Server("--rate-limit", "0") as made:
        assert made.process is not None
        store = Path(made.folder.name) / "redline.db"
        yield Server(made.port, psutil.Process(made.process.pid), store, [])


def slow_down(server: Server) -> None:
    """Have the sources of the flood scored by a slow detector."""
    for name in Flood.SOURCES:
        first = json.dumps({"source": name, "time": START - 1, "value": 0}).encode()
        assert asked(server, "POST", SUBMIT, first)[0] == 200
        slow = json.dumps({"source": name, "detector": "novelty"}).encode()
        assert asked(server, "POST", "/api/configure", slow)[0] == 200


def overload(seconds: float) -> float:
    """Send a server of the page five times more than it can take; return p99 of /health, seconds.

    What is refused must be refused with 429, the page be served, and nothing acknowledged be lost.
    """
    with page_server() as server:
        slow_down(server)
        before = server.process.memory_info().rss
        prober = started_probe(server.port, seconds)  # apart: this process is busy with sending
        flood = Flood(server, seconds)
        flood.run()
        answers = json.loads(prober.communicate(timeout=60)[0])
        grown = server.process.memory_info().rss - before
        queue = server.ask("/api/status")["queue"]
        assert server.ask("/health")["ready"]
        kept = {name: stored(server, name) for name in Flood.SOURCES}
    taken, refused = flood.counts[200] * Flood.BODY, flood.counts[429] * Flood.BODY
    health = [took for _, took in answers["health"]]
    redraws = [took for _, took in answers["page"]]
    p99 = float(np.quantile(health, 0.99))
    print(
        f"\noverload: {taken + refused:,} points offered, {taken:,} taken, {refused:,} refused "
        f"with Retry-After {sorted(flood.retry_after)}, memory +{grown >> 20} MiB, 0 lost; "
        f"/health p50 {1_000 * np.median(health):.0f} ms, p99 {1_000 * p99:.0f} ms of "
        f"{len(health)}; page redrawn {len(redraws)} times, p50 {1_000 * np.median(redraws):.0f} "
        f"ms, at most {1_000 * max(redraws):.0f} ms"
    )
    assert set(flood.counts) <= {200, 429, 503}
    assert all(wait and int(wait) >= 1 for wait in flood.retry_after)
    assert queue["refused"] == refused and queue["waiting"] == 0
    assert taken + refused >= 5 * taken > 0 and grown < 300 << 20
    assert {status for status, _ in answers["health"] + answers["page"]} == {200}
    assert len(redraws) >= 3
    for name, numbers in flood.acknowledged.items():
        first = int(START) + np.array(numbers, int) * Flood.BODY
        want = np.add.outer(first, np.arange(Flood.BODY)).ravel()
        assert np.isin(want, kept[name]).all() and len(np.unique(kept[name])) == len(kept[name])
    return p99


def test_five_times_more_than_it_can_take_is_refused_while_health_and_page_answer():
    assert least_measured(lambda: overload(6.0), 0.2) <= 0.2


def stored(server: Server, name: str) -> np.ndarray:
    """Return the stored times of a source, late ones included."""
    store = SqliteStore(server.store, write=False)
    found = store.points(name, limit=10**9)
    store.close()
    assert found is not None
    return found.time


# --- 500 followers, ten of whom do not read


def least_measured(measure: Callable[[], float], limit: float) -> float:
    """Return the least of up to three measurements, as the machine may be busy with other work."""
    found = measure()
    for _ in range(2):
        found = found if found <= limit else min(found, measure())
    return found


def test_500_followers_of_whom_ten_do_not_read_are_told_within_a_second_and_memory_stays():
    def measured() -> float:
        found = deliver(500, 10, 22.0)
        p99 = float(np.quantile(found.late, 0.99))
        print(
            f"\nfollowers: p99 {1_000 * p99:.0f} ms over {found.events:,} events, "
            f"{found.slow} of 10 let go, memory +{found.grown:.0f} MiB"
        )
        assert found.slow == 10 and found.grown < 100 and len(found.late) >= 490 * found.events
        return p99

    assert least_measured(measured, 1.0) <= 1.0


# --- who may


def test_wrong_tokens_at_full_speed_are_held_back_counted_and_logged_once_a_second(tmp_path):
    secret, line = mint_token("operate", "me")
    append_token(tmp_path / "tokens", line)
    with serving("--tokens", str(tmp_path / "tokens")) as server:
        right = {"Authorization": f"Bearer {secret}"}
        codes: Counter[int] = Counter()
        slowest, began = 0.0, time.monotonic()
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        forged = ({}, {"X-Forwarded-For": "10.0.0.%d"})  # a proxy that nobody trusts
        for i in itertools.count():
            name = {key: value % (i % 250) for key, value in forged[i % 2].items()}
            headers = {"Authorization": f"Bearer wrong token number {i:08}", **name}
            client.request("GET", "/api/status", headers=headers)
            codes[(answer := client.getresponse()).status] += 1
            answer.read()
            if i % 500 == 0:
                asked_at = time.monotonic()
                assert server.ask("/health")["live"]
                slowest = max(slowest, time.monotonic() - asked_at)
            if time.monotonic() > began + 7:  # between two of the looks that are allowed, 5 s apart
                break
        assert answer.status == 429 and int(answer.headers["Retry-After"]) >= 1
        client.request("GET", "/api/status", headers={**right, "X-Forwarded-For": "10.0.0.1"})
        assert client.getresponse().status == 429, "the address waits, whatever it claims to be"
        client.close()
        seconds = time.monotonic() - began
    lines = [line for line in server.said if "wrong token" in line]
    print(
        f"\nwrong tokens: {sum(codes.values()) / seconds:,.0f} a second came, {codes[401]} were "
        f"looked up in {seconds:.0f} s, {len(lines)} lines logged, /health within {slowest:.2f} s"
    )
    assert set(codes) == {401, 429} and codes[401] <= 10 + seconds / 5 + 1
    assert 1 <= len(lines) <= seconds + 2 and slowest < 1
    assert not any("number" in line for line in lines)


def test_a_token_is_revoked_and_an_open_event_stream_ends_without_a_restart(tmp_path):
    path = tmp_path / "tokens"
    (kept, keep), (lost, lose) = mint_token("push", "sensor"), mint_token("read", "wallboard")
    append_token(path, keep)
    append_token(path, lose)

    def status(server, secret):
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        client.request("GET", "/api/status", headers={"Authorization": f"Bearer {secret}"})
        found = client.getresponse().status
        client.close()
        return found

    with serving("--tokens", str(path)) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as listener:
            ask = f"GET /api/stream/anomalies HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {lost}\r\n\r\n"  # noqa: E501
            listener.sendall(ask.encode())
            assert b"200 OK" in listener.recv(65_536)
            assert status(server, lost) == status(server, kept) == 200
            path.write_text(keep + "\n")
            revoked = time.monotonic()
            while status(server, lost) != 401:
                assert time.monotonic() < revoked + 5
                time.sleep(0.05)
            gone = time.monotonic() - revoked
            said = b""
            while not said.endswith(b"0\r\n\r\n"):  # the end of a chunked answer
                said += listener.recv(65_536)
            ended = time.monotonic() - revoked
        assert status(server, kept) == 200
    print(f"\nrevoked: refused after {gone:.2f} s, its event stream ended after {ended:.1f} s")
    assert gone < 2 and ended < 16
