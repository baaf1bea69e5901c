"""Uploading a file: the drop area, the guessed columns and their correction."""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from typing import Any

import dash
from dash import Input, Output, State, ctx, dcc, html, no_update

from redline.api.service import Service
from redline.engine.feed import Feed
from redline.engine.monitor import Monitor
from redline.page.layout import YOUR_DATA
from redline.sources.csv import read_csv
from redline.sources.csv_cells import CsvError
from redline.sources.recording import Columns, Recording
from redline.sources.timestamps import TIMESTAMP_FORMATS

COLUMN_BOXES = (
    "time",
    "stamps",
    "values",
    "label",
)  # in which a visitor corrects how a file was read
ROWS_AT_ONCE = 600  # rows of an uploaded file that are there before it plays on


def upload_area() -> html.Div:
    """Where a file is dropped, and where what was guessed of it can be corrected."""
    drop = dcc.Upload(
        [
            html.B("Drop a CSV here"),
            html.Span(
                " or click to choose one. Time stamps and columns are recognised; 50 MB at most."
            ),
        ],
        id="upload",
        className="drop",
        max_size=-1,
    )
    pick = [
        ("Time", "col-time", False),
        ("read as", "col-stamps", False),
        ("Values", "col-values", True),
        ("Label", "col-label", False),
    ]
    boxes = [
        html.Label([name, dcc.Dropdown([], id=element, multi=several, clearable=not several)])
        for name, element, several in pick
    ]
    buttons = [
        html.Button("Read it like this", id="col-apply"),
        html.Button("Play from the start", id="replay"),
        html.Button("Show all at once", id="show-all"),
    ]
    guess = html.Div(
        [
            html.P(id="guess", className="soft"),
            html.Div([*boxes, html.Div(buttons, className="row")], className="columns"),
        ],
        id="guessed",
        hidden=True,
    )
    return html.Div(
        [drop, html.P(id="upload-said", role="status", className="said"), guess],
        id="yours",
        hidden=True,
    )


def connect_upload(app: dash.Dash, service: Service) -> None:
    monitor = service.monitor
    said = {
        "said": Output("upload-said", "children"),
        "guess": Output("guess", "children"),
        "hidden": Output("guessed", "hidden"),
    }
    boxes = {
        f"{box}_{part}": Output(f"col-{box}", part)
        for box in COLUMN_BOXES
        for part in ("options", "value")
    }
    asked = {
        "contents": Input("upload", "contents"),
        "again": Input("col-apply", "n_clicks"),
        "replay": Input("replay", "n_clicks"),
        "whole": Input("show-all", "n_clicks"),
    }
    states = {
        "name": State("upload", "filename"),
        **{box: State(f"col-{box}", "value") for box in COLUMN_BOXES},
    }

    @app.callback(
        output={**said, **boxes}, inputs={**asked, "domain": Input("domain", "value")}, state=states
    )
    async def upload(contents: Any, name: Any, **rest: Any) -> dict[str, Any]:
        """Reads a dropped file, or the same one again as the visitor corrected it; a bad one leaves
        everything as it was.
        """
        same = dict.fromkeys({**said, **boxes}, no_update)
        why = ctx.triggered_id
        try:
            if why == "upload" and contents:
                await asyncio.to_thread(receive_file, monitor, contents, name)
            elif why == "col-apply":
                await asyncio.to_thread(reread_file, monitor, corrected_columns(rest))
            elif why in ("replay", "show-all"):
                await asyncio.to_thread(replay_file, monitor, why == "show-all")
        except CsvError as error:
            return {**same, "said": str(error)}
        feed = monitor.feeds.get(YOUR_DATA)
        if why in (
            "upload",
            "col-apply",
            "replay",
            "show-all",
        ):  # another source: its steps are counted anew
            service.publish(
                await asyncio.to_thread(service.incidents.reset_stream, YOUR_DATA, time.time())
            )
        return {**same, "said": "", **(guess_boxes(feed) if feed else {"hidden": True})}


def receive_file(monitor: Monitor, contents: str, name: str) -> None:
    """A dropped file becomes *Your data*; the newest wins."""
    try:
        raw = base64.b64decode(contents.partition(",")[2], validate=True)
    except binascii.Error as error:
        raise CsvError(
            f"{name}: the browser sent something that is no file ({error}); drop it again"
        ) from error
    show_recording(monitor, read_csv(raw, title=name), raw)


def show_recording(
    monitor: Monitor, recording: Recording, raw: bytes, steps: int = ROWS_AT_ONCE
) -> None:
    monitor.open(YOUR_DATA, recording, about=raw, steps=steps)


def corrected_columns(said: dict[str, Any]) -> Columns:
    """The columns as the boxes say; an empty box is none, or a guess."""
    return Columns(
        said["time"] or None,
        tuple(said["values"] or ()),
        said["label"] or None,
        stamps=said["stamps"] or "",
    )


def reread_file(monitor: Monitor, columns: Columns) -> None:
    feed = monitor.feeds[YOUR_DATA]
    show_recording(monitor, read_csv(feed.about, columns, title=feed.stream.title), feed.about)


def replay_file(monitor: Monitor, whole: bool) -> None:
    """The same file again: from its first row, or all of it at once."""
    feed = monitor.feeds[YOUR_DATA]
    recording = read_csv(feed.about, feed.stream.columns, title=feed.stream.title)  # type: ignore[attr-defined]
    show_recording(monitor, recording, feed.about, recording.total if whole else 0)


def guess_boxes(feed: Feed) -> dict[str, Any]:
    """How the file was understood, in words and in boxes that correct it."""
    recording = feed.stream
    assert isinstance(recording, Recording)
    columns = recording.columns
    names = list(recording.columns.names)
    counted = ", ".join(f"{what}: {count:,}" for what, count in recording.notes.items())
    words = f"{recording.title}, {recording.total:,} rows. {columns.guess}." + (
        f" Counted: {counted}." if counted else ""
    )
    values = {
        "time_value": columns.time,
        "values_value": list(columns.features),
        "label_value": columns.label,
        "stamps_value": columns.stamps or None,
    }
    return {
        "guess": words,
        "hidden": False,
        **{
            f"{box}_options": list(TIMESTAMP_FORMATS) if box == "stamps" else names
            for box in COLUMN_BOXES
        },
        **values,
    }
