"""The settings file of `run`: its tables, its defaults, and a commented example."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from redline.cli.errors import UsageError
from redline.settings import SETTINGS_BY_NAME, Settings, to_toml
from streams import STREAMS

STREAM_SETTINGS = tuple(asdict(Settings()))  # [settings]: what one stream runs under
SERVER_SETTINGS = (  # [server]: what the program runs under, each also a command line option
    "host",
    "allow-host",
    "port",
    "db",
    "retention-days",
    "retention-rows",
    "create",
    "streams",
    "alerts",
    "tokens",
    "cors",
    "body-limit",
    "rate-limit",
)


def server_settings(text: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of each server setting.

    The command line overrides the table [server] of the settings file, which overrides the default.

    Args:
        text: the settings file.
        options: the values given on the command line, None where an option is absent.
    """
    table = read_server_table(text)
    values = {name: table.get(name, SETTINGS_BY_NAME[name].default) for name in SERVER_SETTINGS}
    values |= {name: value for name, value in options.items() if value is not None}
    for name, value in values.items():
        if isinstance(SETTINGS_BY_NAME[name].default, int):
            values[name] = parse_whole_number(name, value)
    return values


def read_server_table(text: str) -> dict[str, Any]:
    """Return the table [server] of a settings file; raise UsageError for an unknown name."""
    table = tomllib.loads(text).get("server", {})
    unknown = set(table) - set(SERVER_SETTINGS)
    if unknown:
        raise UsageError(
            f"settings file, [server]: unknown setting {min(unknown)!r}; known are "
            f"{', '.join(SERVER_SETTINGS)}"
        )
    return dict(table)


def parse_whole_number(name: str, value: str | int) -> int:
    """Return the number of a setting; raise UsageError where it is out of bounds."""
    row = SETTINGS_BY_NAME[name]
    if not str(value).isdecimal() or not row.low <= int(value) <= row.high:
        raise UsageError(
            f"--{name}: wanted {row.low:,.0f} to {row.high:,.0f} {row.unit}; came {value!r}"
        )
    return int(value)


def commented_settings(stream: str) -> str:
    """Return a settings file with every setting, its unit, its bounds and its meaning."""
    source: dict[str, Any] = {"stream": stream, "first": 0}
    if stream in STREAMS:
        source |= {"seed": 0, "rate": 0.01, "injections": []}
    head = (
        "# Run it: python -m redline run --config FILE\n\n# Where the numbers come from: "
        'a simulated stream, this-machine, csv = "file.csv", or a name that programs push to.\n'
    )
    parts = [head + to_toml({"source": source})]
    for title, names in (("settings", STREAM_SETTINGS), ("server", SERVER_SETTINGS)):
        parts.append(f"[{title}]\n" + "".join(explain_setting(name) for name in names))
    return "\n".join(parts)


def explain_setting(name: str) -> str:
    """Return the lines of one setting; one without a default is commented out."""
    row = SETTINGS_BY_NAME[name]
    unit = f" ({row.unit})" if row.unit else ""
    bounds = "" if row.low != row.low else f", {row.low:g} to {row.high:g}"  # NaN: no bounds
    if row.default is None:
        line = f'# {name} = ""\n'
    else:
        line = to_toml({"x": {name: row.default}}).partition("\n")[2]  # without its heading
    return f"# {row.help}{unit}{bounds}\n{line}"
