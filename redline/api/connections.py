"""The limits of connections: their number, how long a request may take to arrive, its size.

uvicorn's parser reads headers of any length and waits for them for ever. This protocol adds the
limits, at the cost of a few comparisons for each piece that arrives.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from enum import Enum
from http import HTTPStatus
from typing import ClassVar, NamedTuple

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from redline.access.refusal_log import RefusalLog
from redline.api.headers import RAW_HEADERS
from redline.api.problems import Problem

SWEEP_SECONDS = 1.0  # between two looks at the deadlines
MAX_PAGE_BODY = 100 * 2**20  # bytes of a body that the page sends: an uploaded file as text
# what uvicorn logs of a request that is no HTTP, without a pace; the refusal has its own line
UNPACED_LINES = frozenset(("Invalid HTTP request received.", "Unsupported upgrade request."))
CHUNK_OVERHEAD = 8  # bytes around a byte of a chunked body that are still no attack


class ConnectionLimits(NamedTuple):
    """What one connection, one client and all of them together may use."""

    connections: int = 2_000
    per_client: int = 1_000  # connections of one address
    header_bytes: int = 65_536
    header_seconds: float = 10.0  # from the first byte to the last of the headers
    body_seconds: float = 30.0  # that a body may pause
    body_rate: float = 1_024.0  # bytes a second below which a body counts as pausing


class BodyBudget:
    """The bytes of request bodies that are held at the moment, in all and by client."""

    def __init__(self, most: int, most_per_client: int) -> None:
        self.most = most
        self.most_per_client = most_per_client
        self.held: Counter[str] = Counter()  # client -> bytes
        self.total = 0
        self.refused = 0  # requests

    def take(self, client: str, count: int) -> bool:
        """Take bytes of the budget; return whether there were as many left."""
        over = self.held[client] + count > self.most_per_client
        if over or self.total + count > self.most:
            self.refused += 1
            return False
        self.held[client] += count
        self.total += count
        return True

    def give_back(self, client: str, count: int) -> None:
        """Give bytes back that were taken."""
        self.total -= count
        self.held[client] -= count
        if not self.held[client]:
            del self.held[client]


class Phase(Enum):
    """What a connection waits for."""

    HEADERS = 1
    BODY = 2
    ANSWER = 3  # or for the next request, which uvicorn's own time limit ends
    CLOSED = 4


class ConnectionRegistry:
    """The open connections; a sweep ends those that are past their deadline."""

    def __init__(self, limits: ConnectionLimits = ConnectionLimits()) -> None:  # noqa: B008
        self.limits = limits
        self.open: set[LimitedProtocol] = set()
        self.by_client: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()  # reason -> connections
        self.sweeper: asyncio.TimerHandle | None = None
        self.log = RefusalLog()

    def admit(self, connection: LimitedProtocol) -> str | None:
        """Take a connection in; return why it is refused, None = it is not."""
        if len(self.open) >= self.limits.connections:
            return f"at most {self.limits.connections:,} connections"
        if self.by_client[connection.address] >= self.limits.per_client:
            return f"at most {self.limits.per_client:,} connections from one address"
        self.open.add(connection)
        self.by_client[connection.address] += 1
        if self.sweeper is None:
            self.sweeper = connection.loop.call_later(SWEEP_SECONDS, self.sweep, connection.loop)
        return None

    def release(self, connection: LimitedProtocol) -> None:
        """Let a connection go; one that was not admitted, or is gone, is ignored."""
        if connection in self.open:
            self.open.remove(connection)
            self.by_client[connection.address] -= 1
            if not self.by_client[connection.address]:
                del self.by_client[connection.address]

    def sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the connections that are past their deadline; go on while there is any."""
        now = loop.time()
        for connection in list(self.open):
            connection.end_if_late(now)
        more = bool(self.open)
        self.sweeper = loop.call_later(SWEEP_SECONDS, self.sweep, loop) if more else None


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol within the limits of a registry."""

    registry: ClassVar[ConnectionRegistry]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        self.limits = self.registry.limits
        self.phase = Phase.HEADERS
        self.header_bytes = 0  # as they came, for an unfinished header too
        self.named_bytes = 0  # of the headers that are complete
        self.raw_bytes = 0  # of the body as they came
        self.body_bytes = 0
        self.deadline = self.loop.time() + self.limits.header_seconds
        refusal = self.registry.admit(self)
        if refusal:
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"wanted {refusal}; try again later")

    def connection_lost(self, exc: Exception | None) -> None:
        self.registry.release(self)
        self.phase = Phase.CLOSED
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """Refuse it: the protocol that would take the connection over knows no limits."""
        self.refuse(HTTPStatus.FORBIDDEN, "wanted a request of HTTP; no WebSocket is served here")

    def data_received(self, data: bytes) -> None:
        if self.phase is Phase.CLOSED:
            return
        if self.phase is Phase.HEADERS:
            self.header_bytes += len(data)
        elif self.phase is Phase.BODY:
            self.raw_bytes += len(data)
            self.deadline = min(
                self.deadline + len(data) / self.limits.body_rate,
                self.loop.time() + self.limits.body_seconds,
            )
        super().data_received(data)
        self.refuse_oversized()

    def refuse_oversized(self) -> None:
        """Refuse headers that are too long, and a chunked body that consists of its frame."""
        most = self.limits.header_bytes
        if self.phase is Phase.HEADERS and max(self.header_bytes, self.named_bytes) > most:
            self.refuse_long_headers()
        overhead = self.raw_bytes - self.body_bytes
        if self.phase is Phase.BODY and overhead > most + CHUNK_OVERHEAD * self.body_bytes:
            detail = f"wanted chunks with at most {most:,} bytes around them; came more"
            self.refuse(HTTPStatus.BAD_REQUEST, detail)

    def refuse_long_headers(self) -> None:
        """Refuse headers that are too long."""
        detail = f"wanted headers of at most {self.limits.header_bytes:,} bytes; came more"
        self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; uvicorn would answer in plain text, uncounted."""
        self.refuse(HTTPStatus.BAD_REQUEST, "wanted a request of HTTP/1.1; came something else")

    def end_if_late(self, now: float) -> None:
        """Refuse a request whose headers or body do not arrive in time."""
        reading = self.phase in (Phase.HEADERS, Phase.BODY) and not self.flow.read_paused
        if not reading or now <= self.deadline:
            return
        if not self.header_bytes:  # a browser that connected in advance: nothing to answer
            self.phase = Phase.CLOSED
            self.transport.close()
            return
        limits = self.limits
        detail = (
            f"wanted all headers within {limits.header_seconds:g} s"
            if self.phase is Phase.HEADERS
            else f"wanted a body that does not pause for {limits.body_seconds:g} s"
        )
        self.refuse(HTTPStatus.REQUEST_TIMEOUT, f"{detail}; send the request again")

    def refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answer with a problem, unless an answer has begun, and close the connection.

        It is counted and logged. A connection that was refused already is left as it is.
        """
        if self.phase is Phase.CLOSED:
            return
        self.registry.refused[status.phrase] += 1
        client = self.address or "an unknown address"
        self.registry.log.add(f"connection from {client} refused: {detail}", self.loop.time())
        self.phase = Phase.CLOSED
        answering = self.cycle is not None and not self.cycle.response_complete
        if not (answering and self.cycle.response_started):
            headers = {"Connection": "close"}
            if status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.SERVICE_UNAVAILABLE):
                headers["Retry-After"] = "5"
            path = (self.scope or {}).get("path", "")
            response = Problem(status.value, detail, headers=headers).response(path)
            pairs = [*response.raw_headers, *RAW_HEADERS]
            fields = b"".join(b"%b: %b\r\n" % pair for pair in pairs)
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() + fields
            self.transport.write(head + b"\r\n" + bytes(response.body))
        self.transport.close()

    # --- what the parser finds

    def on_message_begin(self) -> None:
        if self.phase is Phase.CLOSED:  # what was refused may be followed by more in its piece
            return
        if self.phase is Phase.ANSWER:  # not the first request of the connection
            self.deadline = self.loop.time() + self.limits.header_seconds
            # of the piece it came in an unknown part is of the requests before: one byte is sure
            self.header_bytes = 1
        self.named_bytes = 0
        self.phase = Phase.HEADERS
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.phase is Phase.HEADERS:  # later ones are trailers, which nothing here reads
            self.named_bytes += len(name) + len(value)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.phase is Phase.CLOSED:
            return
        if self.named_bytes + len(self.url) > self.limits.header_bytes:  # all in one piece
            self.refuse_long_headers()
            return
        self.phase = Phase.BODY
        self.raw_bytes = 0
        self.body_bytes = 0
        self.deadline = self.loop.time() + self.limits.body_seconds
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.phase is Phase.CLOSED:
            return
        self.body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.phase is Phase.CLOSED:
            return
        self.phase = Phase.ANSWER
        super().on_message_complete()


def is_paced(record: logging.LogRecord) -> bool:
    """Return whether a line of uvicorn's log is none that any client can repeat at will."""
    return record.msg not in UNPACED_LINES


def limited_protocol(registry: ConnectionRegistry) -> type[asyncio.Protocol]:
    """Return the protocol class that uvicorn makes connections of."""
    logging.getLogger("uvicorn.error").addFilter(is_paced)
    return type("RegisteredProtocol", (LimitedProtocol,), {"registry": registry})
