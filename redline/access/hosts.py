"""Hosts: which Host headers name this server, against DNS rebinding."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import NamedTuple

from redline.access.authorizer import Refusal, is_loopback

LOOPBACK_NAMES = (
    "localhost",
    "*.localhost",
    "127.0.0.0/8",
    "[::1]",
)  # hosts that mean this machine
HOST_PATTERN = re.compile(
    r"(?P<name>\[[0-9a-f:.]+\]|[0-9a-z._-]+)(:[0-9]{0,5})?", re.IGNORECASE | re.ASCII
)


class HostError(ValueError):
    """A name that no Host header can carry: says what was wanted and what came."""


def host_name(header: str) -> str | None:
    """Return the host of a Host header in its one spelling, None where it is malformed.

    That is: lower case, without port, trailing dot and brackets, an address in its shortest form.

    >>> [host_name(text) for text in ("LOCALHOST.:8050", "[0::1]:80", "a.example", "::1", "a b", "")]
    ['localhost', '::1', 'a.example', None, None, None]
    """  # noqa: E501
    found = HOST_PATTERN.fullmatch(header)
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


def allowed_host_name(text: str) -> str | None:
    """Return the host that an option names, in the spelling of `host_name`; it has no port.

    >>> [allowed_host_name(text) for text in ("A.example", "::1", "[::1]", "fe80::1%eth0", "a:80", "a/b")]
    ['a.example', '::1', '::1', 'fe80::1', None, None]
    """  # noqa: E501
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
        name = allowed_host_name(text) if isinstance(text, str) else None
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
        if name == allowed_host_name(self.bound):
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
        return ", ".join([*LOOPBACK_NAMES, *named, *self.allowed])


def misdirected_host(came: Sequence[str], hosts: Hosts) -> Refusal | None:
    """Refuse a request whose Host headers, all that came, do not name one host of this server."""
    if len(came) != 1:
        return Refusal(
            400, f"wanted one Host header, came {len(came)}; send the host of the address"
        )
    name = host_name(came[0])
    shown = repr(came[0][:100])
    if name is None:
        return Refusal(400, f"Host: wanted a host, or host:port; came {shown}")
    if hosts.include(name):
        return None
    advice = "to serve that name too, start the server with --allow-host NAME"
    return Refusal(421, f"Host: wanted one of {hosts.wanted}; came {shown}; {advice}")
