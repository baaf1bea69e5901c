"""Connections and bodies have limits by size and by time; none of these attacks ends the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import time
from collections.abc import Iterator

import pytest
import uvicorn
from uvicorn.server import ServerState

from bench.followers import Server, serving
from redline.api.connections import (
    MAX_PAGE_BODY,
    BodyBudget,
    ConnectionRegistry,
    is_paced,
    limited_protocol,
)
from redline.api.headers import RAW_HEADERS
from redline.api.service import assemble_service, server_options
from redline.engine.monitor import Monitor
from redline.settings import ServerSettings
from redline.sources import payload
from redline.sources.payload import BodyError

HEAD = b"POST /api/submit HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
OPTIONS = {
    "--connections": 30,
    "--client-connections": 20,
    "--header-timeout": 1,
    "--body-timeout": 1,
}


class Written(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.data = bytearray()

    def write(self, data: bytes) -> None:
        self.data += data

    def close(self) -> None:
        """Keep what was written."""

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        """Nothing is read anyway."""

    def resume_reading(self) -> None:
        """Nothing is read anyway."""


class Opened:
    """A connection to the server, with what it has answered."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def send(self, data: bytes) -> bool:
        """Send bytes; return whether the server still takes them."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def answer(self) -> tuple[int, dict]:
        """Return status and problem of the answer; (0, {}) = closed without one."""
        text = b""
        with contextlib.suppress(ConnectionError):
            while more := self.socket.recv(65_536):
                text += more
                head, _, body = text.partition(b"\r\n\r\n")
                length = [line for line in head.split(b"\r\n") if b"content-length" in line.lower()]
                if length and len(body) >= int(length[0].split(b":")[1]):
                    break
        if not text:
            return 0, {}
        head, _, body = text.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)


class Running:
    """The server, and the connections a test has opened to it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.lines: list[Opened] = []

    def open(self) -> Opened:
        self.lines.append(Opened(self.server.port))
        return self.lines[-1]

    def close(self) -> None:
        while self.lines:
            self.lines.pop().socket.close()

    def refused(self, reason: str) -> int:
        count: int = self.server.ask("/api/status")["connections"]["refused"].get(reason, 0)
        return count


@pytest.fixture(scope="module")
def started() -> Iterator[Server]:
    with serving(*(str(word) for option in OPTIONS.items() for word in option)) as server:
        yield server


@pytest.fixture
def server(started: Server) -> Iterator[Running]:
    running = Running(started)
    yield running
    running.close()
    assert started.ask("/health"), "the attack is over, and the server answers"


@pytest.mark.service
def test_headers_without_end_are_refused_at_their_limit(server):
    line = server.open()
    assert line.send(b"GET / HTTP/1.1\r\n")
    sent = 0
    while sent < 10_000_000 and line.send(b"X-Long: " + b"a" * 8_000 + b"\r\n"):
        sent += 8_010
    assert sent < 10_000_000
    status, problem = line.answer()
    assert status in (431, 0) and (status == 0 or "65,536 bytes" in problem["detail"])
    assert server.refused("Request Header Fields Too Large") >= 1
    assert server.server.ask("/health")


@pytest.mark.service
def test_one_header_without_end_is_refused_too(server):
    line = server.open()
    line.send(b"GET / HTTP/1.1\r\nX: ")
    assert not all(line.send(b"a" * 60_000) or time.sleep(0.01) for _ in range(400))


@pytest.mark.service
@pytest.mark.parametrize("begun", [b"GET /health HT", HEAD, b""])
def test_headers_that_never_end_are_ended(server, begun):
    line = server.open()
    line.send(begun)
    began = time.monotonic()
    status, problem = line.answer()
    assert status == (408 if begun else 0) and time.monotonic() - began < 5
    assert not begun or "all headers within 1 s" in problem["detail"]


@pytest.mark.service
def test_a_second_request_of_a_connection_that_never_ends_its_headers_is_ended_too(server):
    line = server.open()
    line.send(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert line.answer()[0] == 200
    line.send(b"GET /health HTTP/1.1\r\nHost:")
    assert line.answer()[0] == 408


@pytest.mark.service
@pytest.mark.parametrize(
    "more", [b"", b"Content-Length: 10\r\n", b"Transfer-Encoding: chunked\r\n", b"X: y\r\n" * 150]
)
def test_no_connection_leaves_the_limits_by_an_upgrade(server, more):
    line = server.open()
    line.send(
        b"GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        + more
        + b"\r\n"
    )
    status, problem = line.answer()
    assert status == 403 and "no WebSocket" in problem["detail"]


def spoken(*pieces: bytes) -> tuple[list[str], bytes, ConnectionRegistry]:
    """Send pieces to a protocol; return the paths that were asked, the answers, the registry."""
    registry = ConnectionRegistry()
    called: list[str] = []

    async def app(scope, receive, send):
        called.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def scene() -> bytes:
        config = uvicorn.Config(app, lifespan="off", log_config=None)
        config.load()
        protocol = limited_protocol(registry)(config, ServerState(), {})
        transport = Written()
        protocol.connection_made(transport)
        for piece in pieces:
            protocol.data_received(piece)
            for _ in range(2_000):  # turns, one or two for each request
                await asyncio.sleep(0)
        protocol.connection_lost(None)
        return bytes(transport.data)

    return called, asyncio.run(scene()), registry


def test_what_is_no_http_gets_a_problem_and_is_counted_and_logged(caplog):
    pieces = (b"\x16\x03\x01 not http at all\r\n\r\n", b"GET / HTTP/1.1\r\n")
    called, written, registry = spoken(*pieces)
    head, _, body = written.partition(b"\r\n\r\n")
    fields = dict(row.lower().split(b": ", 1) for row in head.split(b"\r\n")[1:])
    assert head.startswith(b"HTTP/1.1 400 ") and json.loads(body)["status"] == 400
    assert fields[b"content-type"] == b"application/problem+json"
    assert all(fields[name] == value.lower() for name, value in RAW_HEADERS)
    assert registry.refused == {"Bad Request": 1} and not called
    assert ["wanted a request of HTTP/1.1" in line for line in caplog.messages] == [True]


def test_many_small_requests_in_one_piece_are_all_answered():
    small = b"GET /a HTTP/1.1\r\nHost: x\r\nX-Long: %b\r\n\r\n" % (b"a" * 1_000)
    whole = small * 200
    called, _, registry = spoken(whole[:-500], whole[-500:])
    assert called == ["/a"] * 200 and not registry.refused


def test_a_pipelined_header_without_end_is_refused():
    small = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
    begun = small + small + b"GET /b HTTP"
    called, _, registry = spoken(begun, b"/1.1\r\nX: " + b"a" * 70_000)
    assert called == ["/a"] * 2 and registry.refused == {"Request Header Fields Too Large": 1}


@pytest.mark.parametrize(("size", "asked"), [(60_000, ["/1"]), (70_000, [])])
def test_headers_that_come_in_one_piece_have_the_same_limit(size, asked):
    head = b"GET /%b HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * size + b"\r\n\r\n"
    called, written, _ = spoken(head % b"1")
    assert called == asked and written.count(b"HTTP/1.1 431 ") == (not asked)


@pytest.mark.service
def test_a_body_that_drips_is_ended_and_one_that_flows_is_not(server):
    drip, flow = server.open(), server.open()
    body = json.dumps([{"source": "oven", "time": i, "value": 1} for i in range(100)]).encode()
    drip.send(HEAD + b"Content-Length: 1000\r\n\r\n{")
    flow.send(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode())
    began = time.monotonic()
    for at in range(0, len(body), 200):
        flow.send(body[at : at + 200])
        drip.send(b" ")
        time.sleep(0.1)
    assert time.monotonic() - began > 2, "it took longer than a pause may"
    assert flow.answer()[0] == 200
    status, problem = drip.answer()
    assert status == 408 and "does not pause for 1 s" in problem["detail"]


@pytest.mark.service
def test_trailers_and_frames_without_end_are_refused(server):
    for piece in (b"X-Trailer: " + b"t" * 5_000 + b"\r\n", b"1;extension=" + b"e" * 5_000):
        line = server.open()
        line.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        line.send(b"0\r\n" if piece.startswith(b"X") else b"")
        assert not all(line.send(piece) or time.sleep(0.001) for _ in range(2_000))
    assert server.server.ask("/health")


@pytest.mark.service
def test_one_address_has_so_many_connections_and_gets_them_back(server):
    for _ in range(19):
        server.open()
    time.sleep(0.1)
    last = server.open()
    status, problem = server.open().answer()
    assert status == 503 and "20 connections from one address" in problem["detail"]
    server.lines.remove(last)
    last.socket.close()
    time.sleep(0.1)
    assert server.refused("Service Unavailable") >= 1, "there is room again"


def test_bodies_share_a_budget_and_a_client_has_a_part_of_it():
    budget = BodyBudget(most=100, most_per_client=60)
    assert budget.take("a", 60) and not budget.take("a", 1)
    assert budget.take("b", 40) and not budget.take("c", 1)
    budget.give_back("a", 60)
    assert budget.take("c", 60) and budget.total == 100 and budget.refused == 2
    assert set(budget.held) == {"b", "c"}


def test_there_is_room_for_the_largest_upload_of_the_page():
    service = assemble_service(lambda store: Monitor({}, store=store))
    assert service.bodies.take("visitor", MAX_PAGE_BODY)


def test_there_is_room_for_the_largest_body_that_the_operator_allows():
    options = server_options(ServerSettings(body_limit=512, bodies=1))
    service = assemble_service(lambda store: Monitor({}, store=store), options=options)
    assert service.bodies.take("program", 512 * 2**20) and not service.bodies.take("other", 1)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"[" + b"{}," * 300_000 + b"{}]", "at most 250,000 objects"),
        (b"[" + b"[]," * 300_000 + b"[]]", "at most 250,000 lists"),
        (b"\n" * 300_000, "at most 250,000 lines"),
        (b"[" + b"1," * 2_000_001 + b"1]", "at most 2,000,000 values"),
    ],
)
def test_a_body_of_too_many_parts_is_refused_before_it_is_parsed(body, sentence, monkeypatch):
    monkeypatch.setattr(payload.orjson, "loads", lambda text: pytest.fail("it was parsed"))
    with pytest.raises(BodyError, match=sentence):
        payload.parse_document(body, lines=True)


def test_a_feature_name_for_each_point_makes_no_square():
    points = [{"source": "wide", "time": i, "values": {f"f{i}": 1}} for i in range(15_000)]
    began = time.process_time()
    with pytest.raises(BodyError, match="at most 1,000 features; came"):
        payload.parse_submission(points)
    assert time.process_time() - began < 1
    points = [{"source": "wide", "time": i, "values": {f"f{i % 900}": 1}} for i in range(15_000)]
    with pytest.raises(BodyError, match="at most 2,000,000 values of a source"):
        payload.parse_submission(points)


def test_lines_of_the_log_that_a_client_could_repeat_at_will_are_left_out():
    def line(text):
        return logging.LogRecord("uvicorn.error", logging.WARNING, "", 0, text, None, None)

    assert not is_paced(line("Invalid HTTP request received."))
    assert is_paced(line("Exception in ASGI application\n"))


def test_a_sweep_goes_on_only_while_there_are_connections():
    loop = asyncio.new_event_loop()
    registry = ConnectionRegistry()
    registry.sweep(loop)
    assert registry.sweeper is None
    loop.close()
