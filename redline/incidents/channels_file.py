"""The channels file: which channels and actions an operator has set up."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_type_hints

from annotated_types import DocInfo, Gt, Interval, Len, doc
from pydantic import Strict, TypeAdapter, ValidationError

from redline.engine.wording import SEVERITIES
from redline.incidents.incident import Policy

# more tables in each other than any file has: a parser takes seconds for thousands of them
DEEP_KEY = re.compile(r"(?<![\w-])(?:[\w-]++ *+\. *+){40}")
MAX_ERROR_LENGTH = 1_000  # characters of an error, which may name a key of the file
# of an incident: when an action runs
INCIDENT_START = "start"
INCIDENT_END = "end"

Text = Annotated[str, Strict(), Len(1)]
Texts = Annotated[tuple[Text, ...], Len(1)]
Severity = Annotated[Literal["info", "warning", "critical"], doc(f"one of {', '.join(SEVERITIES)}")]
Patterns = Annotated[Texts, doc("a list of names or patterns")]
Flag = Annotated[bool, Strict(), doc("true or false")]


class ChannelError(ValueError):
    """The channels file is not valid: says where, what was wanted and what to do, without a
    secret.
    """

    def __init__(self, text: str) -> None:
        super().__init__(
            text if len(text) <= MAX_ERROR_LENGTH else f"{text[: MAX_ERROR_LENGTH - 1]}…"
        )


@dataclass(frozen=True)
class Channel:
    """A channel that incidents are sent to. The marks of its fields say what the file may hold."""

    name: str
    url: Annotated[Text, doc("a text, an address as Apprise writes them")]
    severity: Severity = "info"  # at least
    streams: Patterns = ("*",)
    resolved: Flag = True  # whether the end of an incident is sent too


@dataclass(frozen=True)
class Action:
    """Something that is done about an incident, once for each."""

    name: str
    # program and arguments, never through a shell
    command: Annotated[Texts, doc("a list: the program and its arguments")] = ()
    url: Annotated[Text, doc("a text")] = ""  # or a webhook
    severity: Severity = "critical"  # at least
    streams: Patterns = ("*",)
    on: Annotated[Literal["start", "end"], doc(f"{INCIDENT_START} or {INCIDENT_END}")] = "start"
    timeout: Annotated[float, Strict(), Interval(gt=0, le=86_400), doc("seconds, above 0")] = 30.0
    hourly: Annotated[int, Strict(), Gt(0), doc("a number of runs, at least 1")] = 6
    dry_run: Flag = False  # only recorded


class NotificationPlan(NamedTuple):
    """What the channels file says."""

    base: str = "http://localhost:8050"  # where people reach the page
    policy: Policy = Policy()
    channels: tuple[Channel, ...] = ()
    actions: tuple[Action, ...] = ()


TABLES: dict[str, Any] = {"policy": Policy, "channels": Channel, "actions": Action}
T = TypeVar("T")


def read_channels_file(
    text: str | bytes, environment: Mapping[str, str] = os.environ
) -> tuple[NotificationPlan, frozenset[str]]:
    """Return the plan of the channels file (TOML), and the secrets in it.

    A secret is what came from the environment, as ${NAME}.

    Raises:
        ChannelError: says what is wrong.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        deep = DEEP_KEY.search(text)
        tables = {} if deep else tomllib.loads(text)
    # no UTF-8, no TOML, a number of thousands of digits; lists thousands deep
    except (ValueError, RecursionError) as error:
        raise ChannelError(f"alerts file: wanted TOML; {error}") from None
    if deep:
        raise ChannelError(f"alerts file: wanted tables, came {deep[0][:40]!r} and so on, too deep")
    unknown = sorted(set(tables) - {"base", *TABLES})
    if unknown:
        raise ChannelError(
            f"alerts file: unknown {unknown[0]!r}; known are base, [policy], "
            "[channels.NAME] and [actions.NAME]"
        )
    base = tables.get("base", NotificationPlan().base)
    if not isinstance(base, str) or not base:
        raise ChannelError(f"alerts file: base: wanted a text; came {_shown(base)}")
    secrets: set[str] = set()
    try:
        filled = {
            table: _fill(table, tables[table], environment, secrets)
            for table in TABLES
            if table in tables
        }
    except RecursionError:
        raise ChannelError("alerts file: wanted tables, came tables a thousand deep") from None
    channels = _named_tables("channels", filled)
    actions = _named_tables("actions", filled)
    plan = NotificationPlan(
        base.rstrip("/"),
        _checked("policy", Policy, filled.get("policy", {})),
        tuple(_checked(f"channels.{name}", Channel, channels[name], name) for name in channels),
        tuple(_checked(f"actions.{name}", Action, actions[name], name) for name in actions),
    )
    for action in plan.actions:
        web = action.url.startswith(("http://", "https://"))
        if bool(action.command) == bool(action.url) or (action.url and not web):
            raise ChannelError(
                f"alerts file: [actions.{action.name}] wants a command or an http(s) "
                "url, one of the two"
            )
    return plan, frozenset(secrets)


def _named_tables(kind: str, tables: Mapping[str, Any]) -> dict[str, Any]:
    found = tables.get(kind, {})
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        raise ChannelError(f"alerts file: [{kind}] wants a table for each of them: [{kind}.NAME]")
    if "" in found:
        raise ChannelError(f"alerts file: [{kind}] wants names: [{kind}.NAME]; came an empty one")
    return found


def _checked(where: str, table: type[T], raw: Any, name: str = "") -> T:
    """Return one table as an object; an error does not repeat a text, which may be a secret.

    Args:
        where: its heading in the file.
        name: of a channel or an action, which is no key of the table.
    """
    if not isinstance(raw, dict):
        raise ChannelError(f"alerts file: {where} is no table; write [{where}]")
    hints = get_type_hints(table, include_extras=True)
    keys = [hint.replace("_", "-") for hint in hints if hint != "name"]
    for key in sorted(set(raw) - set(keys)):
        raise ChannelError(
            f"alerts file: [{where}] does not know {key!r}; it knows {', '.join(keys)}"
        )
    values = {key.replace("-", "_"): raw[key] for key in raw}
    if name:
        values["name"] = name
    try:
        return TypeAdapter(table).validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0])
        wanted = next(m.documentation for m in hints[field].__metadata__ if type(m) is DocInfo)
        if first["type"] == "missing":
            raise ChannelError(f"alerts file: [{where}] wants an {field}: {wanted}") from None
        raise ChannelError(
            f"alerts file: [{where}] {field.replace('_', '-')}: wanted {wanted}; "
            f"came {_shown(values[field])}"
        ) from None


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, int | float) else type(value).__name__


def _fill(where: str, value: Any, environment: Mapping[str, str], secrets: set[str]) -> Any:
    """Return a value of the file with each ${NAME} in it replaced from the environment."""

    def from_environment(found: re.Match[str]) -> str:
        secret = environment.get(found[1])
        if not secret:
            raise ChannelError(
                f"alerts file: [{where}] wants the environment variable {found[1]}, "
                "which is not set"
            )
        secrets.add(secret)
        return secret

    if isinstance(value, dict):
        within = {key: f"{where}.{key}" if where.count(".") < 1 else where for key in value}
        return {key: _fill(within[key], value[key], environment, secrets) for key in value}
    if isinstance(value, list):
        return [_fill(where, each, environment, secrets) for each in value]
    if isinstance(value, str):
        return re.sub(r"\$\{(\w+)\}", from_environment, value)
    return value
