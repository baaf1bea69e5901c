"""The channels file: which channels and actions an operator has set up."""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from redline.engine.wording import SEVERITIES
from redline.incidents.incident import Policy

# of an incident: when an action runs
INCIDENT_START = "start"
INCIDENT_END = "end"


class ChannelError(ValueError):
    """The operator's file cannot be followed: says where, what was wanted and what to do, without
    any secret.
    """


class Channel(NamedTuple):
    """A channel that incidents are sent to."""

    name: str
    url: str  # Apprise's
    severity: str = SEVERITIES[0]  # at least
    streams: tuple[str, ...] = ("*",)  # patterns
    resolved: bool = True  # whether it hears of the end


class Action(NamedTuple):
    """Something that is done about an incident, once for each."""

    name: str
    command: tuple[str, ...] = ()  # program and arguments, never through a shell
    url: str = ""  # or a webhook
    severity: str = SEVERITIES[-1]  # at least
    streams: tuple[str, ...] = ("*",)
    on: str = INCIDENT_START
    timeout: float = 30.0  # seconds
    hourly: int = 6  # runs within an hour, more are left out
    dry_run: bool = False  # only recorded


class NotificationPlan(NamedTuple):
    """What the operator's file says."""

    base: str = "http://localhost:8050"  # where people reach the page
    policy: Policy = Policy()
    channels: tuple[Channel, ...] = ()
    actions: tuple[Action, ...] = ()


class Number(NamedTuple):
    """What a number in the file must be."""

    kind: type  # int, or float, which a whole number is too
    least: float = 0.0  # a float lies above it
    most: float = math.inf

    def fits(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(
            value, int if self.kind is int else int | float
        ):
            return False
        above = value >= self.least if self.kind is int else value > self.least
        return above and value <= self.most


TEXT_TYPE = (str, "a text")
SHARED_KEYS: dict[str, tuple[Any, str]] = {
    "severity": (SEVERITIES, f"one of {', '.join(SEVERITIES)}"),
    "streams": (list, "a list of names or patterns"),
}
CHANNEL_KEYS: dict[str, dict[str, tuple[Any, str]]] = {
    "channels": {"url": TEXT_TYPE, **SHARED_KEYS, "resolved": (bool, "true or false")},
    "actions": {
        "command": (list, "a list: the program and its arguments"),
        "url": TEXT_TYPE,
        **SHARED_KEYS,
        "on": ((INCIDENT_START, INCIDENT_END), f"{INCIDENT_START} or {INCIDENT_END}"),
        "timeout": (Number(float, most=86_400), "seconds, above 0"),
        "hourly": (Number(int, least=1), "a number of runs, at least 1"),
        "dry-run": (bool, "true or false"),
    },
    "policy": {
        "minimum": (Number(int, least=1), "a number of steps, at least 1"),
        "quiet": (Number(int, least=1), "a number of steps, at least 1"),
        "release": (Number(float, most=1), "a share of the threshold, above 0 to 1"),
        "cooldown": (Number(int), "a number of steps, at least 0"),
    },
}


def read_channels_file(
    text: str, environment: Mapping[str, str] = os.environ
) -> tuple[NotificationPlan, frozenset[str]]:
    """The operator's file (TOML) as a plan, and the secrets that came from the environment as
    ${NAME}; ChannelError says what is wrong.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ChannelError(f"alerts file: wanted TOML; {error}") from None
    unknown = sorted(set(tables) - {"base", *CHANNEL_KEYS})
    if unknown:
        raise ChannelError(
            f"alerts file: unknown {unknown[0]!r}; known are base, [policy], "
            "[channels.NAME] and [actions.NAME]"
        )
    secrets: set[str] = set()
    base = _value("alerts file: base", tables.get("base", NotificationPlan().base), TEXT_TYPE)
    policy = Policy(**_keys("policy", tables.get("policy", {}), environment, secrets))
    channels, actions = (
        {
            name: _keys(f"{kind}.{name}", each, environment, secrets)
            for name, each in _named(tables, kind)
        }
        for kind in ("channels", "actions")
    )
    plan = NotificationPlan(
        base.rstrip("/"),
        policy,
        tuple(Channel(name, **each) for name, each in channels.items()),
        tuple(Action(name, **each) for name, each in actions.items()),
    )
    for action in plan.actions:
        if bool(action.command) == bool(action.url) or not (action.url or "https://").startswith(
            ("http://", "https://")
        ):
            raise ChannelError(
                f"alerts file: [actions.{action.name}] wants a command or an http(s) "
                "url, one of the two"
            )
    return plan, frozenset(secrets)


def _named(tables: dict[str, Any], kind: str) -> Iterable[tuple[str, Any]]:
    found = tables.get(kind, {})
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        raise ChannelError(f"alerts file: [{kind}] wants a table for each of them: [{kind}.NAME]")
    missing = [name for name, each in found.items() if kind == "channels" and "url" not in each]
    if missing:
        raise ChannelError(
            f"alerts file: [channels.{missing[0]}] wants an url, as Apprise writes them"
        )
    return found.items()


def _keys(
    where: str, raw: Any, environment: Mapping[str, str], secrets: set[str]
) -> dict[str, Any]:
    """One table, checked, its ${NAME}s filled in."""
    known = CHANNEL_KEYS[where.split(".")[0]]
    if not isinstance(raw, dict):
        raise ChannelError(f"alerts file: {where} is no table; write [{where}]")
    for key in sorted(set(raw) - set(known)):
        raise ChannelError(
            f"alerts file: [{where}] does not know {key!r}; it knows {', '.join(known)}"
        )
    values = {
        key: _value(f"alerts file: [{where}] {key}", value, known[key])
        for key, value in raw.items()
    }

    def fill(value: Any) -> Any:
        return (
            tuple(map(fill, value))
            if isinstance(value, tuple)
            else _filled(where, value, environment, secrets)
            if isinstance(value, str)
            else value
        )

    return {key.replace("-", "_"): fill(value) for key, value in values.items()}


def _value(where: str, value: Any, wanted: tuple[Any, str]) -> Any:
    """A value of the kind that is wanted; an error does not repeat it, it may be a secret."""
    kind, words = wanted
    if isinstance(kind, Number):
        fits = kind.fits(value)
    elif isinstance(kind, tuple):
        fits = value in kind
    elif kind is list:
        fits = (
            isinstance(value, list)
            and bool(value)
            and all(isinstance(each, str) and each for each in value)
        )
    else:
        fits = isinstance(value, kind) and value != ""
    if not fits:
        raise ChannelError(
            f"{where}: wanted {words}; came "
            f"{type(value).__name__ if not isinstance(value, int | float) else value}"
        )
    return tuple(value) if kind is list else value


def _filled(where: str, text: str, environment: Mapping[str, str], secrets: set[str]) -> str:
    """The text with each ${NAME} replaced from the environment."""

    def one(found: re.Match[str]) -> str:
        value = environment.get(found[1])
        if not value:
            raise ChannelError(
                f"alerts file: [{where}] wants the environment variable {found[1]}, "
                "which is not set"
            )
        secrets.add(value)
        return value

    return re.sub(r"\$\{(\w+)\}", one, text)
