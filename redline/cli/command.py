"""What a command is, and how its errors are reported."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple


class UsageError(ValueError):
    """Something asked for that cannot be: said in a sentence, exit code 2."""


class Command(NamedTuple):
    """One row of the table of commands."""

    run: Callable[[argparse.Namespace], None]
    help: str
    words: Callable[[argparse.ArgumentParser], None]  # adds the arguments


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Turns the refusal of what somebody asked for into exit code 2."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


def anomaly_line(told: Mapping[str, Any]) -> str:
    """An anomaly for a person.

    >>> anomaly_line({"time": 1767571200.0, "source": "cpu", "feature": "CPU", "severity": "info", "reason": "97 %"})
    '2026-01-05T00:00:00.000Z  info      cpu  CPU: 97 %'
    """
    return (
        f"{format_timestamp(told['time'])}  {told['severity']:8}  {told['source']}  "
        f"{told['feature']}: {told['reason']}"
    )


def format_timestamp(seconds: float | None) -> str:
    """A time in UTC, to the millisecond; a dash where there is none."""
    return (
        "-"
        if seconds is None
        else datetime.fromtimestamp(seconds, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def print_status(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
