"""Attacks that once took gigabytes or minutes: memory stays bounded and `/health` answers."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from bench import browser
from bench.browser import ROOT
from bench.followers import Server, serving
from bench.probe import Redraws

pytestmark = [pytest.mark.service, pytest.mark.hardship]
MAX_MEMORY = 600 * 2**20  # bytes of the server's process
MAX_SILENCE = 1.0  # seconds `/health` may take
START = 1_700_000_000.0  # seconds since the epoch


class Watcher:
    """The memory of a server and the times of `/health` while an attack goes on.

    It is a process of its own: the attack is made by this one, whose pauses are not the server's.
    """

    def __init__(self, server: Server) -> None:
        self.memory = 0  # bytes, the highest seen
        self.slowest = 0.0  # seconds
        self.ours, theirs = SPAWNED.Pipe()
        self.process = SPAWNED.Process(target=watch, args=(theirs, server.port, server.process.pid))

    @contextmanager
    def watching(self) -> Iterator[None]:
        self.process.start()
        self.ours.recv()
        try:
            yield
        finally:
            self.ours.send("end")
            self.memory, self.slowest = self.ours.recv()
            self.process.join()


SPAWNED = multiprocessing.get_context("spawn")


def watch(pipe: Connection, port: int, pid: int) -> None:
    """Ask `/health` ten times a second until the pipe says "end", then send what was seen."""
    memory, slowest, over = 0, 0.0, threading.Event()

    def look() -> None:
        nonlocal memory
        while not over.wait(0.02):
            with suppress(psutil.Error):
                memory = max(memory, psutil.Process(pid).memory_info().rss)

    looking = threading.Thread(target=look)
    looking.start()
    pipe.send("begun")
    while not pipe.poll(0.1):
        began = time.monotonic()
        with suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=20)
        slowest = max(slowest, time.monotonic() - began)
    over.set()
    looking.join()
    pipe.send((memory, slowest))


@contextmanager
def page() -> Iterator[Server]:
    """Run `python app.py`."""
    with browser.Server() as made:
        assert made.process is not None
        yield Server(made.port, psutil.Process(made.process.pid), ROOT / "redline.db", [])


def request(server: Server, method: str, path: str, body: bytes | None = None) -> int:
    """Send one request; return its status, 0 = the connection was ended without one."""
    line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        line.request(method, path, body, {"Content-Type": "application/json"})
        answer = line.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        line.close()


def together(count: int, work: Callable[[int], object]) -> None:
    """Do something in many threads at once."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def endless_headers(server: Server) -> set[int]:
    def send(_: int) -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as line, suppress(OSError):
            line.sendall(b"GET / HTTP/1.1\r\nX: ")
            for _ in range(300):
                line.sendall(b"a" * 100_000)

    together(20, send)
    return {431}


def a_feature_for_each_point(server: Server) -> set[int]:
    points = [{"source": "wide", "time": i, "values": {f"f{i}": 1}} for i in range(15_000)]
    return {request(server, "POST", "/api/submit", json.dumps(points).encode())}


def many_small_parts(server: Server) -> set[int]:
    bodies = [b"[" + part * (31_000_000 // len(part)) + b"1]" for part in PARTS]
    return {request(server, "POST", "/api/submit", body) for body in bodies}


PARTS = (b"{},", b"[],", b'"",', b"1.5,", b"[[", b"\n")


def big_bodies_at_once(server: Server) -> set[int]:
    found: set[int] = set()
    body = b"[" + b"9" * 31_000_000 + b"]"
    together(12, lambda _: found.add(request(server, "POST", "/api/submit", body)))
    return found


def big_calls_of_the_page(server: Server) -> set[int]:
    found: set[int] = set()
    body = b'{"output": "' + b"9" * 100_000_000 + b'"}'
    path = "/_dash-update-component"
    together(3, lambda _: found.add(request(server, "POST", path, body)))
    return found


def one_parameter_often(server: Server) -> set[int]:
    return {request(server, "GET", "/api/anomalies?" + "&".join(["source=x"] * 1_000))}


def wide_sources(server: Server) -> set[int]:
    """300 sources of 1,000 features, each filled; then all of them are read."""
    found: set[int] = set()
    names = [f"f{i}" for i in range(1_000)]
    for number in range(300):
        values = {name: [1.5] * 300 for name in names}
        body = {"source": f"wide {number}", "time": list(range(300)), "values": values}
        found.add(request(server, "POST", "/api/submit", json.dumps(body).encode()))
    together(8, lambda i: request(server, "GET", f"/api/data/wide%20{i % 5}?limit=2000"))
    return found


def more_series_than_allowed(server: Server) -> set[int]:
    """The series of the default limit, 620 steps each, with as many others that are refused."""
    found: set[int] = set()
    line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    for step in range(620):
        names = [f"series {i}" for i in range(20_000)] + [f"junk {step} {i}" for i in range(2_000)]
        for first in range(0, len(names), 4_000):
            values = dict.fromkeys(names[first : first + 4_000], step % 7)
            body = json.dumps({"time": START + 15 * step, "values": values})
            line.request("POST", "/api/submit", body)
            answer = line.getresponse()
            answer.read()
            found.add(answer.status)
    line.close()
    assert server.ask("/api/status")["sources"]["series"] == 20_000
    return found


def more_sources_than_allowed(server: Server) -> set[int]:
    """600 points of each of 3,600 sources, from three addresses."""
    found: set[int] = set()

    def flood(address: int) -> None:
        line = http.client.HTTPConnection(
            "127.0.0.1", server.port, timeout=60, source_address=(f"127.0.0.{1 + address}", 0)
        )
        for number in range(1_200):
            times = [START + at for at in range(600)]
            body = {"source": f"junk {address} {number}", "time": times, "value": [1.5] * 600}
            line.request("POST", "/api/submit", json.dumps(body))
            answer = line.getresponse()
            answer.read()
            found.add(answer.status)
        line.close()

    together(3, flood)
    return found


def half_open_requests(server: Server) -> set[int]:
    lines = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(500)]
    for line in lines:
        line.sendall(b"POST /api/submit HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
    time.sleep(2)
    ended = 0
    for line in lines:
        line.settimeout(60)
        with suppress(OSError):
            ended += line.recv(100).startswith(b"HTTP/1.1 408")
        line.close()
    assert ended == 500, "each was ended"
    return {408}


ATTACKS = {
    endless_headers: {431},
    a_feature_for_each_point: {422},
    many_small_parts: {422},
    big_bodies_at_once: {0, 422, 429},
    big_calls_of_the_page: {0, 400, 429},
    one_parameter_often: {422},
    wide_sources: {200, 422},
    more_series_than_allowed: {200, 422},
    more_sources_than_allowed: {200, 422, 429},
    half_open_requests: {408},
}
ON_THE_PAGE = (big_calls_of_the_page, more_sources_than_allowed)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_memory_is_bounded_and_health_answers(attack: Callable[[Server], set[int]]) -> None:
    options = ("--header-timeout", "2", "--body-timeout", "2")
    with page() if attack in ON_THE_PAGE else serving(*options) as server:
        watcher = Watcher(server)
        with watcher.watching():
            statuses = attack(server)
        grown = watcher.memory >> 20
        print(f"\n{attack.__name__}: at most {grown} MiB, /health {watcher.slowest:.2f} s")
        assert statuses <= ATTACKS[attack], statuses
        assert watcher.memory < MAX_MEMORY
        assert watcher.slowest < MAX_SILENCE
        assert server.ask("/health")["ready"]


def test_a_list_of_all_streams_after_a_restart_wakes_few(tmp_path: Path) -> None:
    with serving(kept=tmp_path) as server:
        for number in range(1_500):
            body = {
                "source": f"source {number}",
                "time": [START + at for at in range(600)],
                "value": [1.5] * 600,
            }
            assert request(server, "POST", "/api/submit", json.dumps(body).encode()) == 200
    with serving(kept=tmp_path) as server:
        watcher = Watcher(server)
        with watcher.watching():
            listed = [server.ask("/api/streams?limit=10000") for _ in range(3)]
            points = {"source": "source 0", "time": START + 600, "value": 1.5}
            assert request(server, "POST", "/api/submit", json.dumps(points).encode()) == 200
        grown = watcher.memory >> 20
        print(f"\na list after a restart: at most {grown} MiB, /health {watcher.slowest:.2f} s")
        assert len(listed[-1]["streams"]) >= 1_500
        assert watcher.memory < MAX_MEMORY and watcher.slowest < MAX_SILENCE


SPEEDS = ("nan", "1e6", "inf", -1, 1e6)


def test_a_crafted_speed_stops_no_stream() -> None:
    with page() as server, ExitStack() as stack:
        redraws = Redraws(server.port)
        stack.callback(redraws.client.line.close)
        visitor = redraws.browser
        (found,) = [each for each in visitor.callbacks if "sparks.data" in each["output"]]
        call = {
            "output": found["output"],
            "outputs": [visitor.place(name) for name in found["output"].strip(".").split("...")],
            "inputs": [visitor.filled(each) for each in found["inputs"]],
            "state": [visitor.filled(each) for each in found["state"]],
            "changedPropIds": ["speed.value"],
        }
        (place,) = [each for each in call["inputs"] if each["id"] == "speed"]
        watcher = Watcher(server)
        with watcher.watching():
            for place["value"] in SPEEDS:
                body = json.dumps(call).encode()
                assert request(server, "POST", "/_dash-update-component", body) == 400
            before = server.ask("/api/streams/wave")["end"]
            time.sleep(2)
            assert server.ask("/api/streams/wave")["end"] > before
            place["value"] = 1
            body = json.dumps(call).encode()
            assert request(server, "POST", "/_dash-update-component", body) == 200
        print(f"\na crafted speed: {watcher.memory >> 20} MiB, /health {watcher.slowest:.2f} s")
        assert watcher.memory < MAX_MEMORY and watcher.slowest < MAX_SILENCE
