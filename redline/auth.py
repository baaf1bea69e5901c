"""Who may do what: tokens kept as hashes, the role each of them gives, and how often one client may ask.

A request must also name a host of this server: a page elsewhere can point its own DNS name at this
machine (DNS rebinding), and its requests then carry that name as Host and as Origin.

Without any token everybody who reaches the address may do everything, so such a server listens on this machine only. A token comes as
`Authorization: Bearer TOKEN`, or as the password a browser asks for. Tokens are 256 random bits, so a plain SHA-256 of one cannot be guessed back.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import os
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROLES = ("read", "push", "operate")  # each may do what those before it may: look; submit points and labels; change how streams run
OPEN = ("/health",)  # paths that a probe asks without a token
CLIENTS = 10_000  # clients whose rate is remembered; the longest silent one is forgotten first
CHALLENGE = ("WWW-Authenticate", 'Basic realm="Redline: any name, the token as password", charset="UTF-8"')
LOOPBACK = ("localhost", "*.localhost", "127.0.0.0/8", "[::1]")  # hosts that mean this machine
HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[0-9a-z._-]+)(:[0-9]{0,5})?", re.IGNORECASE | re.ASCII)
LINE = re.compile(r"(?P<role>\w+) sha256:(?P<digest>[0-9a-f]{64}) (?P<name>\S.*)")


class AuthError(ValueError):
    """A token file that cannot be read: says which line, what was wanted and what came."""


class Token(NamedTuple):
    """One token as it is kept: never the secret itself."""

    role: str
    digest: str  # SHA-256 of the secret, 64 hexadecimal digits
    name: str  # whose it is, for the audit log


class HostError(ValueError):
    """A name that no Host header can carry: says what was wanted and what came."""


class Refusal(NamedTuple):
    """Why a request is turned away before anybody looks at it."""

    status: int
    detail: str
    headers: tuple[tuple[str, str], ...] = ()


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def minted(role: str, name: str) -> tuple[str, str]:
    """A new secret, to be shown once, and the line of the token file that stands for it."""
    if role not in ROLES:
        raise AuthError(f"role: wanted one of {', '.join(ROLES)}; came {role!r}")
    if not name.strip() or "\n" in name:
        raise AuthError(f"name: wanted a word or two that say whose token it is; came {name!r}")
    secret = secrets.token_urlsafe(32)
    return secret, f"{role} sha256:{digest(secret)} {name.strip()}"


class Tokens:
    """All tokens of a server."""

    def __init__(self, tokens: Iterable[Token] = ()):
        self.tokens = tuple(tokens)

    def __bool__(self) -> bool:
        return bool(self.tokens)

    def who(self, secret: str) -> Token | None:
        """The token of this secret; every one is compared, each in constant time, so that the time taken tells nothing."""
        came, found = digest(secret), None
        for token in self.tokens:
            if hmac.compare_digest(came, token.digest):
                found = token
        return found


def gathered(path: str | None, secret: str | None) -> Tokens:
    """The tokens of a file and the one of an environment variable, which may do everything."""
    tokens = list(read(Path(path))) if path else []
    if secret:
        tokens.append(Token(ROLES[-1], digest(secret), "environment"))
    return Tokens(tokens)


def read(path: Path) -> Iterable[Token]:
    """The tokens of a file: a line each, `role sha256:digest name`; empty lines and those with # are left out."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = LINE.fullmatch(line.strip())
        if found is None or found["role"] not in ROLES:
            raise AuthError(f"{path}, line {number}: wanted `role sha256:digest name` as `python -m redline token` writes it; came something else")
        yield Token(found["role"], found["digest"], found["name"])


def keep(path: Path, line: str) -> None:
    """Adds a line to the token file, which only its owner may read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8") as file:
        file.write(line + "\n")


def is_loopback(host: str) -> bool:
    """Whether an address means this machine only.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "192.168.1.7", "example.org")]
    [True, True, True, False, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_name(header: str) -> str | None:
    """Return the host of a Host header in its one spelling, None where it is malformed.

    That is: lower case, without port, trailing dot and brackets, an address in its shortest form.

    >>> [host_name(text) for text in ("LOCALHOST.:8050", "[0::1]:80", "a.example", "::1", "a b", "")]
    ['localhost', '::1', 'a.example', None, None, None]
    """
    found = HOST.fullmatch(header)
    if found is None:
        return None
    name = found["name"].lower().removesuffix(".")
    try:
        if name.startswith("["):
            return str(ipaddress.IPv6Address(name[1:-1]))
        return str(ipaddress.IPv4Address(name))
    except ValueError:
        proper = not name.startswith("[") and all(name.split("."))
        return name if proper else None


def option_name(text: str) -> str | None:
    """Return the host that an option names, in the spelling of `host_name`; it has no port.

    >>> [option_name(text) for text in ("A.example", "::1", "[::1]", "fe80::1%eth0", "a:80", "a/b")]
    ['a.example', '::1', '::1', 'fe80::1', None, None]
    """
    return host_name(f"{text}:0") or host_name(f"[{text.partition('%')[0]}]:0")


class Hosts(NamedTuple):
    """The hosts a server answers for, besides those of LOOPBACK."""

    bound: str = "127.0.0.1"  # what --host says
    allowed: tuple[str, ...] = ()  # what --allow-host says, in the spelling of `host_name`

    @classmethod
    def given(cls, bound: str, names: object) -> Hosts:
        """Return the hosts that the options name; HostError says which of them is no name.

        `names` is what --allow-host or a settings file gives: a list of texts, or one text.
        """
        listed = [names] if isinstance(names, str) else names
        if not isinstance(listed, list | tuple):
            raise HostError(f"--allow-host: wanted a list of host names, came {listed!r}")
        return cls(bound, tuple(cls.checked(name) for name in listed))

    @staticmethod
    def checked(text: object) -> str:
        name = option_name(text) if isinstance(text, str) else None
        if name is None:
            wanted = "a host name or an address without scheme, port and path"
            raise HostError(f"--allow-host: wanted {wanted}; came {text!r}")
        return name

    @property
    def anywhere(self) -> bool:
        """Whether the server listens on every address of the machine."""
        try:
            return not self.bound or ipaddress.ip_address(self.bound).is_unspecified
        except ValueError:
            return False

    def include(self, name: str) -> bool:
        """Return whether a host, in the spelling of `host_name`, is one of this server.

        A server on every address is asked under any of them, behind address translation also under
        one it does not know. No DNS stands behind an address, so none of them can be rebound.
        """
        if is_loopback(name) or name.endswith(".localhost") or name in self.allowed:
            return True
        if name == option_name(self.bound):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.anywhere

    @property
    def wanted(self) -> str:
        """Say in words what `include` takes."""
        bound = "any IP address" if self.anywhere else self.bound
        named = [] if is_loopback(self.bound) else [bound]
        return ", ".join([*LOOPBACK, *named, *self.allowed])


def misdirected(came: Sequence[str], hosts: Hosts) -> Refusal | None:
    """Refuse a request whose Host headers, all that came, do not name one host of this server."""
    if len(came) != 1:
        return Refusal(400, f"wanted one Host header, came {len(came)}; send the host of the address")
    name, shown = host_name(came[0]), repr(came[0][:100])
    if name is None:
        return Refusal(400, f"Host: wanted a host, or host:port; came {shown}")
    if hosts.include(name):
        return None
    advice = "to serve that name too, start the server with --allow-host NAME"
    return Refusal(421, f"Host: wanted one of {hosts.wanted}; came {shown}; {advice}")


def exposed(host: str, tokens: Tokens) -> str | None:
    """The sentence that refuses to serve an address others can reach while anybody could do anything; None = it may be served."""
    if tokens or is_loopback(host):
        return None
    return (
        f"--host {host} lets other machines in, and no token is set. Make one with `python -m redline token operate me --file redline.tokens` "
        "and start with --tokens redline.tokens (or set REDLINE_TOKEN), or stay on 127.0.0.1."
    )


def presented(headers: Mapping[str, str]) -> str | None:
    """The secret a request brings: after Bearer, or as the password of Basic; None = it brings none."""
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(rest, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return None


def needed(method: str, path: str) -> str | None:
    """The role a request needs; None = nobody asks for one.

    >>> [needed(*r) for r in (("GET", "/health"), ("GET", "/api/data/cpu"), ("POST", "/api/submit"), ("POST", "/api/configure"), ("GET", "/"))]
    [None, 'read', 'push', 'operate', 'operate']
    """
    if path in OPEN:
        return None
    if method in ("GET", "HEAD", "OPTIONS") and path.startswith(("/api/", "/docs", "/openapi.json")):
        return "read"
    return "push" if path in ("/api/submit", "/api/labels") else "operate"  # the page can apply settings, so it needs as much


class Allowance:
    """So many requests a second and client, saved up for two seconds at most; the clock is passed in."""

    def __init__(self, rate: float):
        self.rate = rate  # requests a second, 0 = no limit
        self.left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client -> requests left, at which second
        self.refused = 0

    def wait(self, client: str, now: float) -> float:
        """Takes one request off the client's allowance: 0, or the seconds until it has one again."""
        if not self.rate:
            return 0.0
        left, then = self.left.pop(client, (2 * self.rate, now))
        left = min(left + (now - then) * self.rate, 2 * self.rate)
        self.left[client] = (left - 1 if left >= 1 else left, now)
        if len(self.left) > CLIENTS:
            self.left.popitem(last=False)
        if left >= 1:
            return 0.0
        self.refused += 1
        return (1 - left) / self.rate


class Door:
    """Looks at each request before anybody else does."""

    def __init__(self, tokens: Tokens, allowance: Allowance, origins: tuple[str, ...] = ()):
        self.tokens, self.allowance, self.origins = tokens, allowance, origins

    def judged(self, method: str, path: str, headers: Mapping[str, str]) -> Refusal | Token | None:
        """A refusal, or whose token it was; None = no token is needed."""
        if method not in ("GET", "HEAD", "OPTIONS") and not self.homely(headers):
            return Refusal(403, f"a page of {headers['origin']} may not change anything here; list it under cors to allow it")
        role = needed(method, path)
        if not self.tokens or role is None:
            return None
        secret = presented(headers)
        token = self.tokens.who(secret) if secret is not None else None
        if token is None:
            came = "one that is not known" if secret else "none"
            return Refusal(401, f"wanted a token that may {role}, came {came}", (CHALLENGE,))
        if ROLES.index(token.role) < ROLES.index(role):
            return Refusal(403, f"wanted a token that may {role}; the one of {token.name} may {token.role}")
        return token

    def homely(self, headers: Mapping[str, str]) -> bool:
        """Whether a browser sends this from our own page or from one that is allowed; programs send no origin.

        Our own page is one whose origin is the Host asked, which `misdirected` has let through.
        """
        origin = headers.get("origin")
        if origin is None or "*" in self.origins or origin in self.origins:
            return True
        scheme, _, host = origin.partition("://")
        return scheme in ("http", "https") and host.lower() == headers.get("host", "").lower()
