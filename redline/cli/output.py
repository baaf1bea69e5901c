"""The output of the commands: results, messages, anomalies and progress."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO, TypeVar

Item = TypeVar("Item")


def print_status(text: str) -> None:
    """Print a message for the user to standard error."""
    print(text, file=sys.stderr, flush=True)


def write_output(text: str, path: Path | None) -> None:
    """Write a result to a file, or to standard output without one."""
    if path is None:
        print(text)
    else:
        path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        print_status(f"wrote {path}")


def format_timestamp(seconds: float | None) -> str:
    """Return a time in UTC to the millisecond, "-" for None."""
    if seconds is None:
        return "-"
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def anomaly_line(document: Mapping[str, Any]) -> str:
    """Return one line of text for an anomaly document of the API.

    >>> anomaly_line({"time": 1767571200.0, "source": "cpu", "feature": "CPU",
    ...               "severity": "info", "reason": "97 %"})
    '2026-01-05T00:00:00.000Z  info      cpu  CPU: 97 %'
    """
    time = format_timestamp(document["time"])
    place = f"{document['source']}  {document['feature']}"
    return f"{time}  {document['severity']:8}  {place}: {document['reason']}"


def progress_bar(
    steps: Iterable[tuple[int, str, Item]], total: int, file: TextIO
) -> Iterator[Item]:
    """Yield the items; on a terminal, show a progress bar that is removed at the end.

    Args:
        steps: per item the number of steps done before it, a description, and the item.
        total: number of steps.
        file: the terminal, or any other file, which gets no bar.
    """
    if not file.isatty():
        yield from (item for *_, item in steps)
        return
    from rich.console import Console  # loaded only where a bar is shown
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(30), MofNCompleteColumn(), TextColumn("{task.description}"))
    # rich prints standard output on the bar's console, which is standard error: do so only on a
    # terminal, so that results in a file or a pipe stay apart
    bar = Progress(
        *columns,
        console=Console(file=file),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    )
    with bar:
        task = bar.add_task("", total=total)
        for done, description, item in steps:
            bar.update(task, completed=done, description=description)
            yield item
