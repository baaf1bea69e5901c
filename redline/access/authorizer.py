"""The authorization of requests: by token and role, by origin and by rate.

A request must also name a host of this server: a page elsewhere can point its own DNS name at this
machine (DNS rebinding), and its requests then carry that name as Host and as Origin.

A server without tokens lets every client do everything, so it listens on this machine only. A token
comes as `Authorization: Bearer TOKEN`, or as the password a browser asks for. Tokens are 256 random
bits, so their plain SHA-256 cannot be reversed.
"""

from __future__ import annotations

import base64
import ipaddress
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from redline.access.throttle import TokenThrottle
from redline.access.tokens import ROLES, Token, Tokens, format_expiry, hash_secret

# paths that take points; a token may do no more than push for them
POINT_PATHS = ("/api/submit", "/api/v1/write", "/api/v2/write")
PUSH_PATHS = (*POINT_PATHS, "/api/labels")
PUBLIC_PATHS = ("/health",)  # paths that need no token, for probes
MAX_RATED_CLIENTS = 10_000  # clients whose rate is kept; the least recent one is dropped first
CHALLENGE = (
    "WWW-Authenticate",
    'Basic realm="Redline: any name, the token as password", charset="UTF-8"',
)


class Refusal(NamedTuple):
    """The answer to a request that is refused before a route sees it."""

    status: int
    detail: str
    headers: tuple[tuple[str, str], ...] = ()


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine only.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost")]
    [True, True, True]
    >>> [is_loopback(host) for host in ("0.0.0.0", "192.168.1.7", "example.org")]
    [False, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def exposure_problem(host: str, tokens: Tokens) -> str | None:
    """Return why an address that others reach may not be served without a token; None = it may."""
    if tokens or is_loopback(host):
        return None
    return (
        f"--host {host} lets other machines in, and no token is set. Make one with "
        "`python -m redline token operate me --file redline.tokens` "
        "and start with --tokens redline.tokens (or set REDLINE_TOKEN), or stay on 127.0.0.1."
    )


def presented_secret(headers: Mapping[str, str]) -> str | None:
    """Return the secret of a request, None = none.

    It comes after Bearer or Token, or as the password of Basic.
    """
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    if scheme.lower() in ("bearer", "token"):  # the second as clients of InfluxDB send it
        return rest.strip()
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(rest, validate=True).decode().partition(":")[2]
    except ValueError:  # no Base64, no ASCII, or no UTF-8 within
        return None


def required_role(method: str, path: str) -> str | None:
    """Return the role a request needs; None = none.

    >>> required_role("GET", "/health"), required_role("GET", "/api/data/cpu")
    (None, 'read')
    >>> required_role("POST", "/api/submit"), required_role("POST", "/api/configure")
    ('push', 'operate')
    >>> required_role("GET", "/")
    'operate'
    """
    if path in PUBLIC_PATHS:
        return None
    if method in ("GET", "HEAD", "OPTIONS") and path.startswith(
        ("/api/", "/docs", "/openapi.json", "/metrics")
    ):
        return "read"
    # the page can apply settings, so all its requests need "operate"
    return "push" if path in PUSH_PATHS else "operate"


class RateLimiter:
    """A token bucket for each client: `rate` requests a second, two seconds' worth at most."""

    def __init__(self, rate: float):
        self.rate = rate  # requests a second, 0 = no limit
        # client -> requests it may still make, and the time in seconds of that count
        self.allowances: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self.refused = 0

    def acquire(self, client: str, now: float) -> float:
        """Take one request off a client's allowance at `now` (seconds, any clock).

        Returns 0, or, where none is left, the seconds until the next one.
        """
        if not self.rate:
            return 0.0
        left, then = self.allowances.pop(client, (2 * self.rate, now))
        left = min(left + (now - then) * self.rate, 2 * self.rate)
        self.allowances[client] = (left - 1 if left >= 1 else left, now)
        if len(self.allowances) > MAX_RATED_CLIENTS:
            self.allowances.popitem(last=False)
        if left >= 1:
            return 0.0
        self.refused += 1
        return (1 - left) / self.rate


class Authorizer:
    """Decides by origin and token whether a request may be made."""

    def __init__(self, tokens: Tokens, origins: tuple[str, ...] = ()):
        self.tokens = tokens
        self.origins = origins
        self.throttle = TokenThrottle()
        self.refused: Counter[str] = Counter()  # requests: no_token, forbidden (origin or role)

    def authorize(
        self, method: str, path: str, headers: Mapping[str, str], client: str = ""
    ) -> Refusal | Token | None:
        """Return the token of a request, or its refusal; None = no token is needed.

        client: the address it comes from.
        """
        if method not in ("GET", "HEAD", "OPTIONS") and not self._same_origin(headers):
            self.refused["forbidden"] += 1
            return Refusal(
                403,
                f"a page of {headers['origin']} may not change anything here; "
                "list it under cors to allow it",
            )
        role = required_role(method, path)
        if not self.tokens or role is None:
            return None
        secret = presented_secret(headers)
        if not secret:
            self.refused["no_token"] += 1
            return Refusal(401, f"wanted a token that may {role}, came none", (CHALLENGE,))
        token = self._look_up(secret, role, client, f"{method} {path[:200]!r}")
        if isinstance(token, Token) and ROLES.index(token.role) < ROLES.index(role):
            self.refused["forbidden"] += 1
            return Refusal(
                403, f"wanted a token that may {role}; the one of {token.name} may {token.role}"
            )
        return token

    def _look_up(self, secret: str, role: str, client: str, request: str) -> Token | Refusal:
        """Return the token of a secret, or a refusal where it is wrong, or too many were."""
        now = time.monotonic()
        digest = hash_secret(secret)
        if wait := self.throttle.wait(client, digest, now):
            self.throttle.hold_back(client, request, now)
            return Refusal(
                429,
                "too many wrong tokens came from this address; wait before the next one",
                (("Retry-After", f"{math.ceil(wait)}"),),
            )
        token = self.tokens.find(secret)
        if token is not None and not token.is_expired(time.time()):
            self.throttle.accept(client, digest)
            return token
        self.throttle.refuse(client, digest, request, now)
        came = "one that is not known"
        if token is not None and token.until is not None:
            came = f"one that expired at {format_expiry(token.until)}"
        return Refusal(401, f"wanted a token that may {role}, came {came}", (CHALLENGE,))

    def _same_origin(self, headers: Mapping[str, str]) -> bool:
        """Return whether a request comes from the server's own page, an allowed one or a program.

        A program sends no origin. The origin of the own page is the Host header, which
        `host_refusal` has checked.
        """
        origin = headers.get("origin")
        if origin is None or "*" in self.origins or origin in self.origins:
            return True
        scheme, _, host = origin.partition("://")
        return scheme in ("http", "https") and host.lower() == headers.get("host", "").lower()
