"""What is shown of one stream under one setting, as plain values: the page, a report and the API
each present a View.

A View is cut from what the monitor keeps: it scores nothing, changes nothing and has no colours.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from redline.engine.feed import Feed
from redline.engine.results import StreamInfo
from redline.engine.track import Track
from redline.engine.wording import anomaly_reason, format_time, severity

MIN_SPAN_STEPS = 10  # steps in a row from which an anomaly is one shaded span


class Mark(NamedTuple):
    """One feature of a step above the *previewed* threshold.

    The anomalies that are stored and notified are not these: see `redline.engine.results.Anomaly`.
    """

    row: int  # index into the view
    feature: int
    severity: str
    outcome: str  # "caught" or "false alarm"; "" = truth unknown
    reason: str  # the text of its tooltip


class ViewEvent(NamedTuple):
    """One run of truth that overlaps the view."""

    first: int  # row of the view
    last: int
    kind: str
    outcome: str  # "caught", "missed", or "open" while an alarm could still come


class View(NamedTuple):
    """Rows first..end of a stream.

    Arrays are (n,) or (n, features), NaN = missing or no opinion.
    """

    title: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    period: float  # seconds per step
    first: int  # absolute steps
    end: int
    threshold: float  # standard deviations
    time: np.ndarray  # (n,) seconds since the epoch, UTC
    x: np.ndarray  # (n, features) in the features' units
    score: np.ndarray  # (n,) standard deviations
    low: np.ndarray | None  # (n, features) the expected range; None: a detector without a band
    high: np.ndarray | None
    breaks: np.ndarray  # (n,) bool, the drawn line is broken before this row
    marks: list[Mark]
    spans: list[tuple[int, int]]  # first and last row of each long anomaly
    truth: list[ViewEvent] | None  # None: truth unknown
    sentence: str


class TrackRows(NamedTuple):
    """Rows first..end of a feed's buffer with a track's scores of them, read under one lock."""

    stream: StreamInfo
    first: int
    end: int
    time: np.ndarray  # (n,) seconds since the epoch
    x: np.ndarray  # (n, features)
    label: np.ndarray | None  # (n, features) index into the kinds, None = truth unknown
    score: np.ndarray  # (n,) NaN = no opinion
    alarm: np.ndarray  # (n,)
    parts: np.ndarray  # (n, features) how much each feature contributes to the score
    low: np.ndarray | None  # (n, features) expected range at the threshold, None = no band
    high: np.ndarray | None
    # (n, features) index into `kinds`, the strongest kind of evidence; None = one kind
    kind: np.ndarray | None = None
    kinds: tuple[str, ...] = ()


def read_track_rows(feed: Feed, track: Track, threshold: float, first: int, end: int) -> TrackRows:
    """Return rows first..end of a feed and of one of its tracks, cut to what the buffer holds."""
    with feed.lock:
        first = max(first, feed.tape.first)
        end = min(end, feed.tape.end)
        end = max(first, end)
        label = feed.tape.read("label", first, end) if feed.labelled else None
        low, high = track.bounds(threshold, first, end)
        score, alarm = track.scores(first, end)
        parts = track.read("parts", first, end)  # (n, features), or (n, 1) before the first score
        assert parts is not None
        parts = np.broadcast_to(parts, (end - first, len(feed.stream.names)))
        time = feed.tape.read("time", first, end)[:, 0]
        x = feed.tape.read("x", first, end)
        kind = track.read("kind", first, end)
    kinds = track.detector.kinds
    band = (low, high)
    return TrackRows(feed.info, first, end, time, x, label, score, alarm, parts, *band, kind, kinds)


def run_lengths(above: np.ndarray) -> np.ndarray:
    """Return how many true steps in a row end at each step, (n,).

    >>> run_lengths(np.array([True, True, False, True])).tolist()
    [1, 2, 0, 1]
    """
    count = np.arange(1, len(above) + 1)
    return np.where(above, count - np.maximum.accumulate(np.where(above, 0, count)), 0)


def line_breaks(time: np.ndarray, period: float) -> np.ndarray:
    """Return before which rows the drawn line is broken: the time jumps by over 1.5 periods."""
    if not len(time):
        return np.zeros(0, bool)
    return np.concatenate([[False], np.diff(time) > 1.5 * period])


def make_view(
    rows: TrackRows,
    threshold: float,
    outcome: np.ndarray | None,
    events: list[tuple[int, int, str, str]] | None,
) -> View:
    """Return the View of some rows at a threshold.

    Args:
        rows: what was read of the feed and the track.
        threshold: standard deviations.
        outcome: (n,) words, "caught" or "false alarm" for an anomalous row; None = truth unknown.
        events: first and last absolute step, kind and outcome of each event of the buffer; None =
            truth unknown.
    """
    stream = rows.stream
    above = rows.score > threshold
    runs = run_lengths(above)
    return View(
        title=stream.title,
        names=tuple(stream.names),
        units=tuple(stream.units),
        period=stream.period,
        first=rows.first,
        end=rows.end,
        threshold=threshold,
        time=rows.time,
        x=rows.x,
        score=rows.score,
        low=rows.low,
        high=rows.high,
        breaks=line_breaks(rows.time, stream.period),
        marks=_marks(rows, threshold, runs, outcome),
        spans=_long_runs(runs),
        truth=None if events is None else _visible_events(events, rows.first, len(above)),
        sentence=view_sentence(rows, above, runs, threshold),
    )


def _marks(
    rows: TrackRows, threshold: float, runs: np.ndarray, outcome: np.ndarray | None
) -> list[Mark]:
    """Return a mark for each anomalous feature of the first anomalous steps of each run."""
    return [
        Mark(
            row,
            feature,
            severity(rows.score[row], threshold),
            "" if outcome is None else str(outcome[row]),
            _reason(rows, row, feature, int(runs[row])),
        )
        for row in np.flatnonzero((runs > 0) & (runs < MIN_SPAN_STEPS)).tolist()
        for feature in anomalous_features(rows.parts[row], threshold)
    ]


def _long_runs(runs: np.ndarray) -> list[tuple[int, int]]:
    """Return the first and last row of each run of at least MIN_SPAN_STEPS anomalous steps."""
    goes_on = np.append(runs[1:] > 0, False)
    last = np.flatnonzero((runs >= MIN_SPAN_STEPS) & ~goes_on)
    return [(int(row - runs[row] + 1), int(row)) for row in last]


def _visible_events(
    events: list[tuple[int, int, str, str]], first: int, count: int
) -> list[ViewEvent]:
    """Return the events, in absolute steps, that overlap `count` rows from step `first` on."""
    shifted = [
        ViewEvent(max(start, first) - first, last - first, kind, outcome)
        for start, last, kind, outcome in events
    ]
    return [event for event in shifted if event.last >= 0 and event.first < count]


def anomalous_features(parts: np.ndarray, threshold: float) -> list[int]:
    """Return the features that an anomalous row is marked on.

    Those above the threshold by themselves, else the one that contributes most.
    """
    found = np.flatnonzero(parts > threshold).tolist()
    return found or [int(np.nanargmax(parts))]


def _reason(rows: TrackRows, row: int, feature: int, run: int) -> str:
    """Return why a feature is anomalous at a row, in the detector's own numbers."""
    expected = (math.nan, math.nan)
    if rows.low is not None and rows.high is not None:
        expected = (rows.low[row, feature], rows.high[row, feature])
    unit = rows.stream.units[feature]
    strongest = "" if rows.kind is None else rows.kinds[int(rows.kind[row, feature])]
    return anomaly_reason(rows.x[row, feature], expected, rows.score[row], unit, run, strongest)


def view_sentence(rows: TrackRows, above: np.ndarray, runs: np.ndarray, threshold: float) -> str:
    """Return one sentence: what is anomalous now, or was last, or that nothing is."""
    stream = rows.stream
    if not len(above):
        return f"No points from {stream.title} yet."
    found = np.flatnonzero(above)
    if not len(found):
        return _no_anomaly_sentence(rows)
    row = int(found[-1])
    run = int(runs[row])
    feature = int(np.nanargmax(rows.parts[row]))
    reason = _reason(rows, row, feature, run)
    what = stream.title if len(stream.names) == 1 else f"{stream.title}, {stream.names[feature]},"
    if row == len(above) - 1:
        since = format_time(rows.time[row - run + 1], stream.period)
        return f"{what} is unusual since {since}: {reason}."
    return f"{what} was unusual at {format_time(rows.time[row], stream.period)}: {reason}."


def _no_anomaly_sentence(rows: TrackRows) -> str:
    title = rows.stream.title
    if np.isnan(rows.score).all():
        return f"{title}: learning what is normal."
    return f"{title} looks normal: nothing above the threshold in view."
