"""The security headers of every answer, those of refusals included."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from fastapi import FastAPI, Response

FRAME_RULES = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; object-src 'none'"
DATA_POLICY = f"default-src 'none'; {FRAME_RULES}"  # of an answer that is no page
SECURITY_HEADERS = {
    "content-security-policy": DATA_POLICY,
    "x-content-type-options": "nosniff",
    # "no-referrer" would make browsers send `Origin: null` with the page's own requests
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",  # for browsers that do not know frame-ancestors
}
RAW_HEADERS = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


def inline_source(text: str) -> str:
    """Return the source of a policy that allows one inline script or style.

    >>> inline_source("alert(1)")
    "'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='"
    """
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def page_policy(scripts: Iterable[str] = (), styles: Iterable[str] = ()) -> str:
    """Return the Content-Security-Policy of a page that loads everything from this server.

    Args:
        scripts: further sources of scripts, as `inline_source` returns them.
        styles: further sources of styles.
    """
    own = {
        "default-src": ("'none'",),
        "script-src": ("'self'", *scripts),
        "style-src": ("'self'", *styles),
        "img-src": ("'self'", "data:", "blob:"),  # the plot saved as a picture
        "font-src": ("'self'", "data:"),
        "connect-src": ("'self'",),
    }
    rules = (f"{name} {' '.join(sources)}" for name, sources in own.items())
    return f"{'; '.join(rules)}; {FRAME_RULES}"


def html_answer(html: str, policy: str) -> Response:
    """Return a page with its Content-Security-Policy."""
    headers = {"Content-Security-Policy": policy}
    return Response(html, headers=headers, media_type="text/html; charset=utf-8")


def connect_index(server: FastAPI, html: Callable[[], str], policy: Callable[[], str]) -> None:
    """Answer `/` with a page and its policy; call it before another route for `/` is added."""

    @server.get("/", include_in_schema=False)
    async def index() -> Response:
        return html_answer(html(), policy())


class SecurityHeaders:
    """Adds SECURITY_HEADERS to every answer; one that a route has set itself stays."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_secured(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                present = {name.lower() for name, _ in headers}
                headers += [pair for pair in RAW_HEADERS if pair[0] not in present]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_secured)
