"""The upload of a file: the drop area, the guessed columns and their correction.

Once a file was read the form is folded to one line, in the browser.
"""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Any

import dash
from dash import Input, Output, State, ctx, dcc, html, no_update

from redline.api.service import Service
from redline.engine.feed import Feed
from redline.engine.monitor import Monitor
from redline.page.actions import page_actor
from redline.page.finding import needs_search
from redline.page.layout import DEFAULT_SPAN, WHOLE_SPAN
from redline.page.preview import preview_fields
from redline.settings import Settings
from redline.sources.csv import read_csv
from redline.sources.csv_cells import CsvError, visible_text
from redline.sources.pushed import YOUR_DATA
from redline.sources.recording import Columns, Recording
from redline.sources.timestamps import TIMESTAMP_FORMATS

COLUMN_BOXES = ("time", "stamps", "values", "label")  # they correct how a file was read
UPLOAD_ACTS = {  # what opens *Your data* anew -> how the audit log calls it
    "upload": "uploaded a file",
    "col-apply": "read the file with other columns",
    "replay": "played the file from the start",
    "show-all": "showed the whole file",
}
MAX_NAMED = 6  # columns that the sentence about a file names


def upload_area() -> html.Div:
    """Return the area where a file is dropped and its guessed columns are corrected."""
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
    again = html.Div(html.Button("Read it like this", id="col-apply"), className="row")
    columns = html.Div([*boxes, again], className="columns")
    guessed = html.Div(
        [html.P(id="guess-how", className="soft"), columns], id="guessed", hidden=True
    )
    form = html.Details(
        [html.Summary("Change", id="change"), drop, guessed], id="upload-form", open=True
    )
    play = [
        html.Button("Play from the start", id="replay", className="link"),
        html.Button("Show all at once", id="show-all", className="link"),
    ]
    return html.Div(
        [
            html.P(id="upload-said", role="status", className="said"),
            html.P(id="guess"),
            html.Div(play, id="play", className="row", hidden=True),
            form,
        ],
        id="yours",
        hidden=True,
    )


def connect_upload(app: dash.Dash, service: Service) -> None:
    """Connect the drop area and the boxes that correct how a file was read."""
    outputs = {
        "said": Output("upload-said", "children"),
        "guess": Output("guess", "children"),
        "how": Output("guess-how", "children"),
        "hidden": Output("guessed", "hidden"),
        "unplayed": Output("play", "hidden"),
        "read": Output("read", "data"),
        **{
            f"{box}_{part}": Output(f"col-{box}", part)
            for box in COLUMN_BOXES
            for part in ("options", "value")
        },
    }

    @app.callback(
        output=outputs,
        inputs={
            "contents": Input("upload", "contents"),
            "again": Input("col-apply", "n_clicks"),
            "replay": Input("replay", "n_clicks"),
            "whole": Input("show-all", "n_clicks"),
            "domain": Input("domain", "value"),
        },
        state={
            "name": State("upload", "filename"),
            **{box: State(f"col-{box}", "value") for box in COLUMN_BOXES},
        },
    )
    async def upload(contents: Any, name: Any, **boxes: Any) -> dict[str, Any]:
        """Read a dropped file, or the same one again; on an error everything stays as it was."""
        same = dict.fromkeys(outputs, no_update)
        trigger = ctx.triggered_id
        try:
            await asyncio.to_thread(handle_upload, service.monitor, trigger, contents, name, boxes)
        except CsvError as error:
            return {**same, "said": str(error)}
        if trigger in UPLOAD_ACTS:  # another source: its steps count anew
            await asyncio.to_thread(audit_upload, service, UPLOAD_ACTS[trigger])
            changes = await asyncio.to_thread(
                service.incidents.reset_stream, YOUR_DATA, time.time()
            )
            service.publish(changes)
            show_from_start(service.monitor.feeds[YOUR_DATA], playing=trigger == "replay")
        feed = service.monitor.feeds.get(YOUR_DATA)
        if feed is None:
            return {**same, "said": "", "hidden": True, "unplayed": True}
        fresh = trigger in ("upload", "col-apply") and needs_search(feed)
        return {**same, "said": "", "read": feed.id if fresh else no_update, **guess_boxes(feed)}


def show_from_start(feed: Feed, playing: bool) -> None:
    """Have the browser show a file that was opened: under its applied settings, all of its rows.

    playing: it plays from its first row, so that the last steps are shown.
    """
    for control, value in preview_fields(feed.applied).items():
        dash.set_props(control, {"value": value})
    dash.set_props("range", {"value": DEFAULT_SPAN if playing else WHOLE_SPAN})


def audit_upload(service: Service, what: str) -> None:
    """Write to the audit log who opened *Your data* anew, and with which file."""
    feed = service.monitor.feeds.get(YOUR_DATA)
    if feed is not None and isinstance(feed.stream, Recording):
        detail = {"file": feed.stream.title, "rows": feed.stream.total, "bytes": len(feed.about)}
        service.audit(page_actor(), what, YOUR_DATA, **detail)


def handle_upload(
    monitor: Monitor, trigger: Any, contents: Any, name: Any, boxes: dict[str, Any]
) -> None:
    """Do what a click or a drop in the upload area asks for.

    Args:
        monitor: where *Your data* is opened.
        trigger: the id of the element that was used; one that asks for no reading does nothing.
        contents: the dropped file as a data URL.
        name: its file name.
        boxes: the values of COLUMN_BOXES.

    Raises:
        CsvError: the file cannot be read.
    """
    if trigger == "upload" and contents:
        receive_file(monitor, contents, name)
    elif trigger == "col-apply":
        reread_file(monitor, corrected_columns(boxes))
    elif trigger in ("replay", "show-all"):
        replay_file(monitor, trigger == "show-all")


def receive_file(monitor: Monitor, contents: str, name: str | None) -> None:
    """Open a dropped file as *Your data*, in place of an earlier one.

    Args:
        monitor: where it is opened.
        contents: the file as a data URL, base64.
        name: its file name.

    Raises:
        CsvError: it is no file, or no CSV that can be read.
    """
    name = visible_text(name or "") or "a file"
    try:
        raw = base64.b64decode(contents.partition(",")[2], validate=True)
    except ValueError as error:  # no base64, or no ASCII
        raise CsvError(
            f"{name}: the browser sent something that is no file ({error}); drop it again"
        ) from error
    show_recording(monitor, read_csv(raw, title=name), raw)


def show_recording(
    monitor: Monitor,
    recording: Recording,
    raw: bytes,
    steps: int | None = None,
    applied: Settings | None = None,
) -> None:
    """Open a recording as *Your data*.

    Args:
        monitor: where it is opened.
        recording: what is played.
        raw: its file.
        steps: the rows shown at once, before it plays on; None = all of them.
        applied: the settings that it runs under; None = those known of this file, or the defaults.
    """
    steps = recording.total if steps is None else steps
    monitor.open(YOUR_DATA, recording, about=raw, steps=steps, applied=applied)


def corrected_columns(boxes: dict[str, Any]) -> Columns:
    """Return the columns as the boxes say; an empty box is none, or a guess for the time format."""
    return Columns(
        boxes["time"] or None,
        tuple(boxes["values"] or ()),
        boxes["label"] or None,
        stamps=boxes["stamps"] or "",
    )


def uploaded_feed(monitor: Monitor) -> Feed:
    """Return the feed of *Your data*; CsvError = no file was dropped yet."""
    feed = monitor.feeds.get(YOUR_DATA)
    if feed is None:
        raise CsvError("there is no file yet; drop one")
    return feed


def reread_file(monitor: Monitor, columns: Columns) -> None:
    """Read the file of *Your data* again with corrected columns."""
    feed = uploaded_feed(monitor)
    show_recording(monitor, read_csv(feed.about, columns, title=feed.stream.title), feed.about)


def replay_file(monitor: Monitor, whole: bool) -> None:
    """Open the file of *Your data* again: from its first row, or the whole at once."""
    feed = uploaded_feed(monitor)
    columns = feed.stream.columns  # type: ignore[attr-defined]
    recording = read_csv(feed.about, columns, title=feed.stream.title)
    recording.preset = feed.stream.preset
    show_recording(monitor, recording, feed.about, None if whole else 0, feed.applied)


def guess_boxes(feed: Feed) -> dict[str, Any]:
    """Return what was read, how it was guessed, and values and options of the boxes."""
    recording = feed.stream
    assert isinstance(recording, Recording)
    columns = recording.columns
    names = list(recording.columns.names)
    counted = ", ".join(f"{what}: {count:,}" for what, count in recording.notes.items())
    how = f"{columns.guess}."
    if counted:
        how += f" Counted: {counted}."
    return {
        "guess": read_sentence(recording),
        "how": how,
        "hidden": False,
        "unplayed": False,
        "time_options": names,
        "time_value": columns.time,
        "stamps_options": list(TIMESTAMP_FORMATS),
        "stamps_value": columns.stamps or None,
        "values_options": names,
        "values_value": list(columns.features),
        "label_options": names,
        "label_value": columns.label,
    }


def read_sentence(recording: Recording) -> str:
    """Return how many rows of which columns were read, as one sentence."""
    columns = recording.columns
    names = [name for name in (columns.time, *columns.features, columns.label) if name]
    more = f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
    listed = ", ".join(names[:MAX_NAMED])
    return f"Read {recording.total:,} rows from {recording.title}: {listed}{more}."
