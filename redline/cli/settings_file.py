"""The settings file that `init` writes: every setting, with a comment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tomli_w

from redline.settings import SERVER_SETTINGS, STREAM_SETTINGS, Setting
from streams import STREAMS

PAGE_SETTINGS = ("interval", "seed", "csv", "demo")  # of the page alone, `run` has no use for them
FILE_HEAD = """\
# Run it: python -m redline run --config FILE

# Where the numbers come from: a simulated stream, this-machine, csv = "file.csv", or a name that \
programs push to.
"""


def commented_settings(stream: str) -> str:
    """Return a settings file with every setting, its unit, its bounds and its meaning."""
    source: dict[str, Any] = {"stream": stream, "first": 0}
    if stream in STREAMS:
        source |= {"seed": 0, "rate": 0.01, "injections": []}
    return "\n".join(
        (
            FILE_HEAD + tomli_w.dumps({"source": source}),
            "[settings]\n" + explain_settings(STREAM_SETTINGS.values()),
            "[server]\n" + explain_settings(headless_settings()),
        )
    )


def headless_settings() -> list[Setting]:
    """Return the server settings that `run` takes, as options and as the table [server]."""
    return [row for name, row in SERVER_SETTINGS.items() if name not in PAGE_SETTINGS]


def explain_settings(rows: Iterable[Setting]) -> str:
    """Return the lines of the settings; one without a default is commented out."""
    text = ""
    for row in rows:
        unit = f" ({row.unit})" if row.unit else ""
        bounds = f", {row.low:g} to {row.high:g}" if row.bounded else ""
        text += f"# {row.help}{unit}{bounds}\n"
        absent = row.default is None
        text += f'# {row.name} = ""\n' if absent else tomli_w.dumps({row.name: row.default})
    return text
