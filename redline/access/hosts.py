"""The hosts whose names a Host header may carry, against DNS rebinding."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import NamedTuple

from redline.access.authorizer import Refusal, is_loopback

LOOPBACK_NAMES = ("localhost", "*.localhost", "127.0.0.0/8", "[::1]")  # this machine
HOST_PATTERN = re.compile(
    r"(?P<name>\[[0-9a-f:.]+\]|[0-9a-z._-]+)(:[0-9]{0,5})?", re.IGNORECASE | re.ASCII
)


class HostError(ValueError):
    """A name that no Host header can carry: says what was wanted and what came."""


def host_name(header: str) -> str | None:
    """Return the normalized host of a Host header, None where it is malformed.

    Normalized: lower case, without port, trailing dot and brackets, an address in its shortest
    form.

    >>> [host_name(text) for text in ("LOCALHOST.:8050", "[0::1]:80", "a.example")]
    ['localhost', '::1', 'a.example']
    >>> [host_name(text) for text in ("::1", "a b", "")]
    [None, None, None]
    """
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
    """Return the normalized host that an option names, without a port; None = malformed.

    >>> [allowed_host_name(text) for text in ("A.example", "::1", "[::1]", "fe80::1%eth0")]
    ['a.example', '::1', '::1', 'fe80::1']
    >>> [allowed_host_name(text) for text in ("a:80", "a/b")]
    [None, None]
    """
    return host_name(f"{text}:0") or host_name(f"[{text.partition('%')[0]}]:0")


def parse_proxies(names: Sequence[str]) -> tuple[str, ...]:
    """Return the addresses and networks that an option names.

    Raises HostError for one that is neither, also for `*`: any client could then choose its
    address.
    """
    found = []
    for name in names:
        try:
            network = ipaddress.ip_network(name, strict=False)
        except ValueError:
            wanted = "an address such as 10.0.0.4, or a network such as 10.0.0.0/8"
            raise HostError(f"--trust-proxy: wanted {wanted}; came {name!r}") from None
        single = network.num_addresses == 1
        found.append(str(network.network_address if single else network))
    return tuple(found)


class Hosts(NamedTuple):
    """The hosts a server answers for, besides LOOPBACK_NAMES."""

    bound: str = "127.0.0.1"  # the value of --host
    allowed: tuple[str, ...] = ()  # the values of --allow-host, normalized by `host_name`

    @classmethod
    def from_options(cls, bound: str, names: object) -> Hosts:
        """Return the hosts that options name.

        names: the value of --allow-host or of a settings file, a list of texts or one text.
        Raises HostError for one that is no host name.
        """
        listed = [names] if isinstance(names, str) else names
        if not isinstance(listed, list | tuple):
            raise HostError(f"--allow-host: wanted a list of host names, came {listed!r}")
        return cls(bound, tuple(cls._parse_name(name) for name in listed))

    @staticmethod
    def _parse_name(text: object) -> str:
        """Return the normalized host of one option, or raise HostError."""
        name = allowed_host_name(text) if isinstance(text, str) else None
        if name is None:
            wanted = "a host name or an address without scheme, port and path"
            raise HostError(f"--allow-host: wanted {wanted}; came {text!r}")
        return name

    @property
    def on_every_address(self) -> bool:
        """Return whether the server listens on every address of the machine."""
        try:
            return not self.bound or ipaddress.ip_address(self.bound).is_unspecified
        except ValueError:
            return False

    def includes(self, name: str) -> bool:
        """Return whether a host, normalized by `host_name`, is one of this server.

        A server that listens on every address accepts any address, because address translation can
        show it under one it does not know. An address needs no DNS, so it cannot be rebound.
        """
        if is_loopback(name) or name.endswith(".localhost") or name in self.allowed:
            return True
        if name == allowed_host_name(self.bound):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.on_every_address

    @property
    def description(self) -> str:
        """Return the hosts that `includes` accepts, as text for an error."""
        bound = "any IP address" if self.on_every_address else self.bound
        named = [] if is_loopback(self.bound) else [bound]
        return ", ".join([*LOOPBACK_NAMES, *named, *self.allowed])


def host_refusal(headers: Sequence[str], hosts: Hosts) -> Refusal | None:
    """Return the refusal of a request by all its Host headers; None = they name this server."""
    if len(headers) != 1:
        return Refusal(
            400, f"wanted one Host header, came {len(headers)}; send the host of the address"
        )
    name = host_name(headers[0])
    shown = repr(headers[0][:100])
    if name is None:
        return Refusal(400, f"Host: wanted a host, or host:port; came {shown}")
    if hosts.includes(name):
        return None
    advice = "to serve that name too, start the server with --allow-host NAME"
    return Refusal(421, f"Host: wanted one of {hosts.description}; came {shown}; {advice}")
