"""The guard around every request: host, authorization, rate and size."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from redline.access.actor import acting
from redline.access.authorizer import Refusal
from redline.access.hosts import Hosts, host_refusal
from redline.access.tokens import Token
from redline.api.problems import Problem
from redline.api.service import Service

EVENT_PATHS = "/api/stream/"  # answers that last as long as the client wants
MAX_PAGE_BODY = 100 * 2**20  # bytes of a body that the page sends: an uploaded file as text


class HostGuard:
    """Refuses every request whose Host header names another server: pages, routes, files."""

    def __init__(self, app: Any, hosts: Hosts) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        refusal = None
        if scope["type"] in ("http", "websocket"):
            came = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            refusal = host_refusal(came, self.hosts)
        if refusal is None:
            await self.app(scope, receive, send)
        else:
            await refuse(refusal, scope, receive, send)


async def refuse(refusal: Refusal, scope: Any, receive: Any, send: Any) -> None:
    """Answer a request, or the opening of a WebSocket, with a refusal."""
    if scope["type"] == "websocket":
        code = 4_000 + refusal.status  # 4000 to 4999 are for applications (RFC 6455)
        await send({"type": "websocket.close", "code": code, "reason": refusal.detail[:100]})
        return
    problem = Problem(refusal.status, refusal.detail, headers=dict(refusal.headers))
    await problem.response(scope["path"])(scope, receive, send)


class RequestGuard:
    """Refuses requests that are not authorized, too frequent or too big.

    A request that passes has the name of its token as `request.state.who` and as its actor.
    """

    def __init__(self, app: Any, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        found = self._check(scope, headers)
        if isinstance(found, Refusal):
            await refuse(found, scope, receive, send)
            return
        scope.setdefault("state", {})["who"] = found.name if found else "local"
        if scope["type"] == "http":
            receive = self._limit_body(scope["path"], receive)
        if found is not None and scope["path"].startswith(EVENT_PATHS):
            send = self._end_with_token(found, send)
        with acting(found.name if found else None):
            await self.app(scope, receive, send)

    def _check(self, scope: Any, headers: Mapping[str, str]) -> Refusal | Token | None:
        """Return the token of a request, or its refusal; None = no token is needed."""
        path = scope["path"]
        service = self.service
        client = scope.get("client") or ("", 0)
        found = service.authorizer.authorize(scope.get("method", "GET"), path, headers, client[0])
        if isinstance(found, Refusal) or not path.startswith("/api/"):
            return found
        if wait := service.rate_limiter.acquire(client[0], time.monotonic()):
            return Refusal(
                429,
                f"wanted at most {service.options.rate:g} requests a second, came more",
                (("Retry-After", f"{math.ceil(wait)}"),),
            )
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > service.options.body:
            service.oversized += 1
            return Refusal(
                413,
                (
                    f"wanted a body of at most {service.options.body:,} bytes, came "
                    f"{int(length):,}; send it in parts"
                ),
            )
        return found

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

    def _limit_body(self, path: str, receive: Any) -> Any:
        """Return a `receive` that refuses a body without a Content-Length once it is too big."""
        api = path.startswith("/api/")
        limit = self.service.options.body if api else MAX_PAGE_BODY
        advice = "send it in parts" if api else "choose a smaller file"
        left = limit

        async def receive_limited() -> Any:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                self.service.oversized += 1
                raise Problem(413, f"wanted a body of at most {limit:,} bytes, came more; {advice}")
            return message

        return receive_limited
