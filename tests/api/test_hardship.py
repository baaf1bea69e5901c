"""Hardship over HTTP: malformed input, five times the load it can take, 500 followers.

Ten followers do not read. `make hardship` runs these with those of test_durable.py: 25 times
kill -9 under load, a full disk, a clock that jumps.
"""

from __future__ import annotations

import http.client
import itertools
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from bench.followers import Server, deliver, serving
from redline.access.tokens import append_token, mint_token
from redline.storage.sqlite import SqliteStore

pytestmark = [pytest.mark.service, pytest.mark.hardship]
START = 1_700_000_000.0  # seconds since the epoch


# --- hostile and malformed input

SUBMIT = "/api/submit"
BOMBS = {
    "nothing": b"",
    "no JSON": b"\x00\xff\xfe rubbish",
    "half an object": b'{"source": "oven", "time": ',
    "half a character": b'{"source": "\\ud800", "time": 0, "value": 1}',
    "not UTF-8": b'{"source": "\xc3\x28", "time": 0, "value": 1}',
    "very deep": b"[" * 200_000,
    "deep and closed": b'{"source": "oven", "time": 0, "values": {"v": '
    + b"[" * 5_000
    + b"]" * 5_000
    + b"}}",
    "beyond a double": b'{"source": "oven", "time": 0, "value": 1e999}',
    "a number of 100,000 digits": b'{"source": "oven", "time": 0, "value": '
    + b"9" * 100_000
    + b"}",
    "NaN": b'{"source": "oven", "time": NaN, "value": NaN}',
    "the year 30000": b'{"source": "oven", "time": 9e11, "value": 1}',
    "before the year 1": b'{"source": "oven", "time": -1e300, "value": 1}',
    "a time of words": b'{"source": "oven", "time": "9999-99-99T99:99:99Z", "value": 1}',
    "no name": b'{"source": "", "time": 0, "value": 1}',
    "a name of escapes": b'{"source": "\\u001b[31m\\u0000", "time": 0, "value": 1}',
    "a name of a million": b'{"source": "' + b"a" * 1_000_000 + b'", "time": 0, "value": 1}',
    "a feature too many": json.dumps(
        {"source": "wide", "time": 0, "values": {f"f{i}": 1 for i in range(1_001)}}
    ).encode(),
    "a point too many": json.dumps(
        {"source": "long", "time": list(range(100_001)), "value": [1] * 100_001}
    ).encode(),
    "columns of two lengths": b'{"source": "oven", "time": [0, 1], "value": [1]}',
    "a list of everything": b'[null, true, 1, "x", [], {}]',
    "what nobody asked for": b'{"source": "oven", "time": 0, "value": 1, "__class__": "os.system"}',
    "a line that is none": b'{"source": "line", "time": 0, "value": 1}\n' * 500 + b"}\n",
}
TALK = {  # what is no request, or only half of one
    "no HTTP": b"\x16\x03\x01\x02\x00 this is no HTTP \r\n\r\n",
    "half a request": b"POST /api/submit HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",  # noqa: E501
    "a length below zero": b"POST /api/submit HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",  # noqa: E501
    "a length of words": b"POST /api/submit HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\n",  # noqa: E501
    "two lengths": b"POST /api/submit HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",  # noqa: E501
    "chunks that are none": b"POST /api/submit HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",  # noqa: E501
    "a header without end": b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000,
    "an odd event id": b"GET /api/stream/anomalies HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: -1; DROP TABLE points\r\n\r\n",  # noqa: E501
}
PATHS = [
    "/api/%00",
    "/api/data/..%2f..%2fetc%2fpasswd",
    "/api/streams/" + "a" * 5_000,
    "/api/data/oven?start=%ff",
    "/api/anomalies?limit=1e9",
    "//",
    "/api/",
]
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
        self.server, self.until, self.counts, self.lock = (
            server,
            time.monotonic() + seconds,
            Counter[int](),
            threading.Lock(),
        )
        self.numbers = {name: itertools.count() for name in self.SOURCES}
        self.acknowledged: dict[str, list[int]] = {name: [] for name in self.SOURCES}
        value = np.random.default_rng(1).normal(size=self.BODY).round(3).tolist()
        self.tail = f'], "value": {value}}}'

    def body(self, name: str, number: int) -> bytes:
        first = int(START) + number * self.BODY
        return (
            f'{{"source": "{name}", "time": '
            f"[{','.join(map(str, range(first, first + self.BODY)))}{self.tail}"
        ).encode()

    def send(self, name: str) -> None:
        line = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        while time.monotonic() < self.until:
            number, status = next(self.numbers[name]), 0
            body = self.body(name, number)
            while status != 200 and time.monotonic() < self.until:
                line.request("POST", SUBMIT, body)
                answer = line.getresponse()
                said, status = answer.read(), answer.status
                with self.lock:
                    self.counts[status] += 1
                    if status == 200:
                        assert (
                            sum(json.loads(said)[what] for what in ("accepted", "repeated", "late"))
                            == self.BODY
                        )
                        self.acknowledged[name].append(number)
        line.close()

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


def test_five_times_more_than_it_can_take_is_refused_counted_and_nothing_acknowledged_is_lost():
    with serving() as server:
        for name in Flood.SOURCES:
            assert (
                asked(
                    server,
                    "POST",
                    SUBMIT,
                    json.dumps({"source": name, "time": START - 1, "value": 0}).encode(),
                )[0]
                == 200
            )
            slow = {"source": name, "detector": "novelty"}
            assert asked(server, "POST", "/api/configure", json.dumps(slow).encode())[0] == 200
        before, flood = server.process.memory_info().rss, Flood(server, 5)
        flood.run()
        grown, queue = server.process.memory_info().rss - before, server.ask("/api/status")["queue"]
        assert server.ask("/health")["ready"]
        kept = {name: stored(server, name) for name in Flood.SOURCES}
    taken, refused = flood.counts[200] * Flood.BODY, flood.counts[429] * Flood.BODY
    print(
        f"\noverload: {taken + refused:,} points offered, {taken:,} taken, {refused:,} "
        f"refused, memory +{grown >> 20} MiB"
    )
    assert (
        set(flood.counts) <= {200, 429, 503}
        and queue["refused"] == refused
        and queue["waiting"] == 0
    )
    assert taken + refused >= 5 * taken > 0 and grown < 300 << 20
    for name, numbers in flood.acknowledged.items():
        want = (
            int(START) + np.add.outer(np.array(numbers, int) * Flood.BODY, np.arange(Flood.BODY))
        ).ravel()
        assert np.isin(want, kept[name]).all() and len(np.unique(kept[name])) == len(kept[name])


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
            if time.monotonic() > began + 5:
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
