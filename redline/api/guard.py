"""The guard around every request: host, authorization, rate and size."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from redline.access.actor import acting
from redline.access.authorizer import POINT_PATHS, Refusal
from redline.access.hosts import host_refusal
from redline.access.refusal_log import RefusalLog
from redline.access.throttle import client_network
from redline.access.tokens import Token
from redline.api.connections import MAX_PAGE_BODY
from redline.api.problems import Problem
from redline.api.service import Service

EVENT_PATHS = "/api/stream/"  # answers that last as long as the client wants
MAX_ACCEPTED_HOSTS = 100  # spellings of this server's hosts that are remembered
WEBSOCKET_REFUSED = 4_403  # 4000 to 4999 are for applications (RFC 6455)
# those that decide about a request
GUARDED_HEADERS = {
    name.encode(): name for name in ("authorization", "content-length", "host", "origin")
}
COMMAND_BODY = 65_536  # bytes of a body that carries no points: it is parsed on the event loop


class HostGuard:
    """Refuses every request whose Host header names another server: pages, routes, files.

    What is refused is counted and logged. A WebSocket, which the connections of this server do not
    open, would be closed, so that no other guard has to know of them.
    """

    def __init__(self, app: Any, service: Service) -> None:
        self.app = app
        self.service = service
        self.hosts = service.options.hosts
        self.log = RefusalLog()
        self.accepted: set[bytes] = set()  # Host headers that were checked and name this server

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": WEBSOCKET_REFUSED})
            return
        refusal = None
        if scope["type"] == "http":
            refusal = self.find_refusal([v for name, v in scope["headers"] if name == b"host"])
        if refusal is None:
            await self.app(scope, receive, send)
        else:
            self.service.wrong_hosts += 1
            client = client_address(scope) or "an unknown address"
            self.log.add(f"request from {client} refused: {refusal.detail}", time.monotonic())
            await refuse(refusal, scope, receive, send)

    def find_refusal(self, came: Sequence[bytes]) -> Refusal | None:
        """Return the refusal of a request with these Host headers; None = they name this server."""
        if len(came) == 1 and came[0] in self.accepted:
            return None
        refusal = host_refusal([value.decode("latin-1") for value in came], self.hosts)
        if refusal is None and len(self.accepted) < MAX_ACCEPTED_HOSTS:
            self.accepted.add(came[0])
        return refusal


async def refuse(refusal: Refusal, scope: Any, receive: Any, send: Any) -> None:
    """Answer a request with a refusal."""
    problem = Problem(refusal.status, refusal.detail, headers=dict(refusal.headers))
    await problem.response(scope["path"])(scope, receive, send)


class RequestGuard:
    """Refuses requests that are not authorized, too frequent or too big.

    A request that passes has the name of its token in its `state.who` and as its actor. Its
    `state.client` is the token or, where none is needed, the address.
    """

    def __init__(self, app: Any, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {
            GUARDED_HEADERS[name]: value.decode("latin-1")
            for name, value in scope["headers"]
            if name in GUARDED_HEADERS
        }
        found = self._check(scope, headers)
        if isinstance(found, Refusal):
            await refuse(found, scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["who"] = found.name if found else "local"
        address = client_address(scope)
        state["client"] = f"token {found.name}" if found else f"address {client_network(address)}"
        if found is not None and scope["path"].startswith(EVENT_PATHS):
            send = self._end_with_token(found, send)
        body = LimitedBody(self.service, scope["path"], address, receive)
        try:
            with acting(found.name if found else None):
                await self._answer(scope, body, send)
        finally:
            body.release()

    async def _answer(self, scope: Any, body: LimitedBody, send: Any) -> None:
        """Have a request answered; a body that was refused is answered with its own problem.

        What read the body may have taken the refusal for another error.
        """
        started = False

        async def send_unless_refused(message: Any) -> None:
            nonlocal started
            if started or body.refusal is None:
                started = True
                await send(message)

        try:
            await self.app(scope, body.receive, send_unless_refused)
        except Exception:
            if started or body.refusal is None:
                raise
        if body.refusal is not None and not started:
            await body.refusal.response(scope["path"])(scope, body.receive, send)

    def _check(self, scope: Any, headers: Mapping[str, str]) -> Refusal | Token | None:
        """Return the token of a request, or its refusal; None = no token is needed."""
        path = scope["path"]
        service = self.service
        client = client_address(scope)
        found = service.authorizer.authorize(scope.get("method", "GET"), path, headers, client)
        if isinstance(found, Refusal):
            return found
        if not path.startswith("/api/"):
            return self._check_length(path, headers.get("content-length", "0")) or found
        if wait := service.rate_limiter.acquire(client, time.monotonic()):
            return Refusal(
                429,
                f"wanted at most {service.options.rate:g} requests a second, came more",
                (("Retry-After", f"{math.ceil(wait)}"),),
            )
        return self._check_length(path, headers.get("content-length", "0")) or found

    def _check_length(self, path: str, length: str) -> Refusal | None:
        """Return the refusal of a body that says itself that it is too big."""
        limit, advice = body_limit(self.service, path)
        if not length.isdecimal() or int(length) <= limit:
            return None
        self.service.oversized += 1
        came = f"wanted a body of at most {limit:,} bytes, came {int(length):,}; {advice}"
        return Refusal(413, came)

    def _end_with_token(self, token: Token, send: Any) -> Any:
        """Return a `send` that ends an answer without end once its token is not valid any more."""
        ended = False

        async def send_while_valid(message: Any) -> None:
            nonlocal ended
            if ended:
                return
            body = message["type"] == "http.response.body"
            tokens = self.service.authorizer.tokens
            ended = body and not tokens.is_valid(token, time.time())
            await send({**message, "body": b"", "more_body": False} if ended else message)

        return send_while_valid


class LimitedBody:
    """The body of a request, counted while it arrives."""

    def __init__(self, service: Service, path: str, client: str, receive: Any) -> None:
        self.service = service
        self.client = client
        self.limit, self.advice = body_limit(service, path)
        self._receive = receive
        self.held = 0  # bytes
        self.refusal: Problem | None = None

    async def receive(self) -> Any:
        """Return the next message; refuse a body that is too big, or one for which no room is."""
        message = await self._receive()
        count = len(message.get("body", b""))
        if self.held + count > self.limit:
            self.service.oversized += 1
            self.refusal = Problem(
                413, f"wanted a body of at most {self.limit:,} bytes, came more; {self.advice}"
            )
            raise self.refusal
        if count and not self.service.bodies.take(self.client, count):
            self.refusal = Problem(
                429,
                "wanted room for the body, came more than this server holds at a time; send it "
                "again, or in parts",
                headers={"Retry-After": "1"},
            )
            raise self.refusal
        self.held += count
        return message

    def release(self) -> None:
        """Give the room of the body back, once the request is answered."""
        self.service.bodies.give_back(self.client, self.held)
        self.held = 0


def client_address(scope: Any) -> str:
    """Return the address a request comes from."""
    return str((scope.get("client") or ("", 0))[0])


def body_limit(service: Service, path: str) -> tuple[int, str]:
    """Return the bytes a body may have at a path, and what to do about a bigger one."""
    if path in POINT_PATHS:
        return service.options.body, "send it in parts"
    if path.startswith("/api/"):
        return min(service.options.body, COMMAND_BODY), "send less at once"
    return MAX_PAGE_BODY, "choose a smaller file"
