"""The address of a broker as a setting names it: a password comes from a variable, never from it.

>>> parse_broker_address("redis", "redis://ann:${P}@host", {"redis": 6379}, {"P": "s3cret"}).shown
'redis://host:6379'
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

BROKER_CONNECT_SECONDS = 2.0  # that a broker has to accept a connection
BROKER_ANSWER_SECONDS = 5.0  # that it has to answer
BROKER_RETRY_SECONDS = 1.0  # between two trials while something is wrong
REFERENCES = re.compile(r"(\$\{\w+\})+")
VARIABLE = re.compile(r"\$\{(\w+)\}")


class BrokerSettingsError(ValueError):
    """Settings of a broker that cannot be used; its text says what to do."""


class BrokerAddress(NamedTuple):
    """Where a broker is, and who reads."""

    scheme: str
    host: str
    port: int
    path: str = ""
    user: str | None = None
    password: str | None = None

    @property
    def shown(self) -> str:
        """Return the address without the user and the password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    def redact(self, text: str) -> str:
        """Return a text on one line, cut, and without the password."""
        if self.password:
            text = text.replace(self.password, "***")
        return " ".join(text.split())[:300]


def parse_broker_address(
    option: str, text: str, ports: Mapping[str, int], environment: Mapping[str, str]
) -> BrokerAddress:
    """Return the parts of an address.

    Args:
        option: the setting that it comes from.
        text: the address, such as redis://user@host:6379/0.
        ports: the schemes that are taken, with the port of each.
        environment: the variables of the process.

    Raises:
        BrokerSettingsError: it is wrong; its text does not repeat it, for it may hold a password.
    """
    schemes = " or ".join(f"{scheme}://host:{port}" for scheme, port in ports.items())
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        parts = urlsplit("")
        port = None
    if parts.scheme not in ports or not parts.hostname or parts.query or parts.fragment:
        raise BrokerSettingsError(
            f"--{option}: wanted {schemes}; came {len(text)} characters of another form"
        )
    user = expand_variables(option, parts.username or "", environment)
    password = parts.password or ""
    if password and not REFERENCES.fullmatch(password):
        raise BrokerSettingsError(
            f"--{option}: a password is not taken from an address, which others may see; put it "
            f"into a variable and its name into the address: '{parts.scheme}://user:${{NAME}}@host'"
        )
    return BrokerAddress(
        parts.scheme,
        parts.hostname,
        port or ports[parts.scheme],
        parts.path.rstrip("/"),
        user or None,
        expand_variables(option, password, environment) or None,
    )


def expand_variables(option: str, text: str, environment: Mapping[str, str]) -> str:
    """Return a text with the values of the variables ${NAME} in it, or raise."""
    for name in VARIABLE.findall(text):
        if name not in environment:
            raise BrokerSettingsError(f"--{option}: the variable {name} is not set")
    return VARIABLE.sub(lambda match: environment[match[1]], text)


def broker_names(option: str, text: str) -> tuple[str, ...]:
    """Return the names between commas, each once; raise BrokerSettingsError where one is empty."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not all(names) or any(len(name.encode(errors="replace")) > 1_000 for name in names):
        raise BrokerSettingsError(
            f"--{option}: wanted names of 1 to 1,000 bytes, with commas between several"
        )
    return names
