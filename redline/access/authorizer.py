"""Who may do what: tokens kept as hashes, the role each of them gives, and how often one client may
ask.

A request must also name a host of this server: a page elsewhere can point its own DNS name at this
machine (DNS rebinding), and its requests then carry that name as Host and as Origin.

Without any token everybody who reaches the address may do everything, so such a server listens on
this machine only. A token comes as `Authorization: Bearer TOKEN`, or as the password a browser asks
for. Tokens are 256 random bits, so a plain SHA-256 of one cannot be guessed back.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from redline.access.tokens import ROLES, Token, Tokens

PUBLIC_PATHS = ("/health",)  # paths that a probe asks without a token
MAX_RATED_CLIENTS = (
    10_000  # clients whose rate is remembered; the longest silent one is forgotten first
)
CHALLENGE = (
    "WWW-Authenticate",
    'Basic realm="Redline: any name, the token as password", charset="UTF-8"',
)


class Refusal(NamedTuple):
    """Why a request is turned away before anybody looks at it."""

    status: int
    detail: str
    headers: tuple[tuple[str, str], ...] = ()


def is_loopback(host: str) -> bool:
    """Whether an address means this machine only.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "192.168.1.7", "example.org")]
    [True, True, True, False, False, False]
    """  # noqa: E501
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def exposure_problem(host: str, tokens: Tokens) -> str | None:
    """The sentence that refuses to serve an address others can reach while anybody could do
    anything; None = it may be served.
    """
    if tokens or is_loopback(host):
        return None
    return (
        f"--host {host} lets other machines in, and no token is set. Make one with "
        "`python -m redline token operate me --file redline.tokens` "
        "and start with --tokens redline.tokens (or set REDLINE_TOKEN), or stay on 127.0.0.1."
    )


def presented_secret(headers: Mapping[str, str]) -> str | None:
    """The secret a request brings: after Bearer, or as the password of Basic; None = it brings
    none.
    """
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(rest, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return None


def required_role(method: str, path: str) -> str | None:
    """The role a request needs; None = none is needed.

    >>> [required_role(*r) for r in (("GET", "/health"), ("GET", "/api/data/cpu"), ("POST", "/api/submit"), ("POST", "/api/configure"), ("GET", "/"))]
    [None, 'read', 'push', 'operate', 'operate']
    """  # noqa: E501
    if path in PUBLIC_PATHS:
        return None
    if method in ("GET", "HEAD", "OPTIONS") and path.startswith(
        ("/api/", "/docs", "/openapi.json")
    ):
        return "read"
    return (
        "push" if path in ("/api/submit", "/api/labels") else "operate"
    )  # the page can apply settings, so it needs as much


class RateLimiter:
    """So many requests a second and client, saved up for two seconds at most; the clock is passed
    in.
    """

    def __init__(self, rate: float):
        self.rate = rate  # requests a second, 0 = no limit
        self.left: OrderedDict[str, tuple[float, float]] = (
            OrderedDict()
        )  # client -> requests left, at which second
        self.refused = 0

    def wait(self, client: str, now: float) -> float:
        """Takes one request off the client's allowance: 0, or the seconds until it has one
        again.
        """
        if not self.rate:
            return 0.0
        left, then = self.left.pop(client, (2 * self.rate, now))
        left = min(left + (now - then) * self.rate, 2 * self.rate)
        self.left[client] = (left - 1 if left >= 1 else left, now)
        if len(self.left) > MAX_RATED_CLIENTS:
            self.left.popitem(last=False)
        if left >= 1:
            return 0.0
        self.refused += 1
        return (1 - left) / self.rate


class Authorizer:
    """Looks at each request before anybody else does."""

    def __init__(self, tokens: Tokens, allowance: RateLimiter, origins: tuple[str, ...] = ()):
        self.tokens = tokens
        self.allowance = allowance
        self.origins = origins

    def judged(self, method: str, path: str, headers: Mapping[str, str]) -> Refusal | Token | None:
        """A refusal, or whose token it was; None = no token is needed."""
        if method not in ("GET", "HEAD", "OPTIONS") and not self._same_origin(headers):
            return Refusal(
                403,
                f"a page of {headers['origin']} may not change anything here; list it under cors to allow it",  # noqa: E501
            )
        role = required_role(method, path)
        if not self.tokens or role is None:
            return None
        secret = presented_secret(headers)
        token = self.tokens.who(secret) if secret is not None else None
        if token is None:
            came = "one that is not known" if secret else "none"
            return Refusal(401, f"wanted a token that may {role}, came {came}", (CHALLENGE,))
        if ROLES.index(token.role) < ROLES.index(role):
            return Refusal(
                403, f"wanted a token that may {role}; the one of {token.name} may {token.role}"
            )
        return token

    def _same_origin(self, headers: Mapping[str, str]) -> bool:
        """Whether a browser sends this from our own page or from one that is allowed; programs send
        no origin.

        Our own page is one whose origin is the Host asked, which `misdirected` has let through.
        """
        origin = headers.get("origin")
        if origin is None or "*" in self.origins or origin in self.origins:
            return True
        scheme, _, host = origin.partition("://")
        return scheme in ("http", "https") and host.lower() == headers.get("host", "").lower()
