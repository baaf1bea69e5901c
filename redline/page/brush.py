"""The brush: the whole buffer as a small line with its anomalies, and the part of it in sight."""

from __future__ import annotations

from typing import Any

import numpy as np
from dash import html

from redline.engine.wording import format_span, format_time
from redline.page.panels import aria_attribute
from redline.page.query import ViewQuery, cached_answer, worst_feature
from redline.page.view import read_track_rows, run_lengths
from redline.page.zones import axis_seconds

BRUSH_BINS = 300  # of the line, each with its least and its greatest value
TICK_SHARES = (0.25, 0.5, 0.75)  # where a time stands, as shares of the buffer
# (length of the buffer below which a time is as fine as so many seconds, these)
TIME_GRAINS = ((30.0, 0.0), (86_400, 1.0), (7 * 86_400, 60.0), (float("inf"), 3_600.0))


def brush_strip() -> html.Div:
    """Return the element that assets/page_brush.js draws in."""
    return html.Div(
        id="brush", role="group", **aria_attribute("label", "the whole buffer and what is shown")
    )


def brush_data(query: ViewQuery, zoom: list[Any] | None) -> dict[str, Any]:
    """Return what the browser draws, with the window on what is in sight.

    Args:
        query: the stream, the settings and the steps.
        zoom: the time range zoomed to, None = the whole view.
    """
    # not for each step: a line of 300 bins looks the same for a while
    age = query.track_end // max(query.feed.tape.kept // BRUSH_BINS, 1)
    key = ("brush", query.feed.id, query.settings.key, query.settings.threshold, age)
    line = cached_answer(key, lambda: brush_line(query))
    if not line:
        return {}
    feed = query.feed
    with feed.lock:
        first = feed.tape.first
        end = feed.tape.end
        time = feed.tape.read("time", first, end)[:, 0]
    left = max(query.end - query.span, first)
    right = query.end
    if zoom:
        sight = np.searchsorted(time, [axis_seconds(edge) for edge in zoom]) + first
        left, right = max(int(sight[0]), first), min(int(sight[1]), end)
    shown = time[max(left - first, 0) : max(right - first, 1)]
    seconds = [float(each[-1] - each[0]) + feed.stream.period for each in (shown, time)]
    of = " of ".join(map(format_span, seconds))
    edges = format_time(shown[0], feed.stream.period), format_time(shown[-1], feed.stream.period)
    window = {"left": left, "right": right, "span": query.span, "live": query.at is None}
    said = {"text": of, "valuetext": " to ".join(edges)}
    return {**line, "id": feed.id, "first": first, "end": end, **window, **said}


def brush_line(query: ViewQuery) -> dict[str, Any]:
    """Return the line, the anomalies and the times of the buffer; {} = it is empty.

    Everything lies between 0 and 1: "line" has the least and greatest of each bin, null where
    nothing is known, "marks" and "learning" are shares of the buffer.
    """
    feed = query.feed
    rows = read_track_rows(feed, query.track, query.settings.threshold, 0, query.feed_end)
    count = len(rows.time)
    if not count:
        return {}
    above = rows.score > query.settings.threshold
    values = rows.x[:, worst_feature(rows.parts, above)]
    known = values[np.isfinite(values)]
    low = float(known.min()) if len(known) else 0.0
    high = float(known.max()) if len(known) else 1.0
    edges = np.unique(np.linspace(0, count, BRUSH_BINS + 1).astype(int))
    least = np.fmin.reduceat(values, edges[:-1])
    most = np.fmax.reduceat(values, edges[:-1])
    level = (np.stack([least, most], axis=1).ravel() - low) / ((high - low) or 1.0)
    scored = np.flatnonzero(np.isfinite(rows.score))
    starts = np.flatnonzero(run_lengths(above) == 1)
    length = float(rows.time[-1] - rows.time[0])
    # as fine as it takes to tell the times apart, with the day where there are several
    grain = max(feed.stream.period, next(size for most, size in TIME_GRAINS if length < most))
    ticks = [(share, float(rows.time[int(share * count)])) for share in TICK_SHARES]
    return {
        "line": [None if np.isnan(y) else round(float(y), 2) for y in level],
        "marks": np.unique(np.round(starts / count, 4)).tolist(),
        "learning": round(float(scored[0]) / count, 4) if len(scored) else 0,
        "ticks": [[share, format_time(time, grain)] for share, time in ticks],
    }
