"""What there is to see of one stream under one setting, as plain values: a page, a report or an API
answer shows a View.

A View is cut from what the monitor keeps: it scores nothing, changes nothing and knows no colours.
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
    """One anomalous step of one feature."""

    row: int  # index into the view
    feature: int
    severity: str
    outcome: str  # "caught" or "false alarm"; "" = truth unknown
    reason: str  # what a person reads on it


class ViewEvent(NamedTuple):
    """One run of truth that overlaps the view."""

    first: int  # row of the view
    last: int
    kind: str
    fate: str  # "caught", "missed", or "open" while an alarm could still come


class View(NamedTuple):
    """Rows first..end of a stream; arrays are (n,) or (n, features), NaN = missing or no
    opinion.
    """

    title: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    period: float  # seconds a step
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
    spans: list[tuple[int, int]]  # rows of long anomalies, first and last
    truth: list[ViewEvent] | None  # None: truth unknown
    sentence: str


class TrackRows(NamedTuple):
    """What a View is made of, read in one go: rows first..end of a feed's buffer and what a track
    said of them.
    """

    stream: StreamInfo
    first: int
    end: int
    time: np.ndarray  # (n,) seconds since the epoch
    x: np.ndarray  # (n, features)
    label: np.ndarray | None  # (n, features) index into the kinds, None = truth unknown
    score: np.ndarray  # (n,) NaN = no opinion
    alarm: np.ndarray  # (n,)
    parts: np.ndarray  # (n, features) what each feature has to do with the score
    low: np.ndarray | None  # (n, features) expected range at the threshold, None = no band
    high: np.ndarray | None


def read_track_rows(feed: Feed, track: Track, threshold: float, first: int, end: int) -> TrackRows:
    """Reads rows first..end of a monitor's feed and of a track beside it, cut to what the buffer
    still has.
    """
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
    return TrackRows(feed.info, first, end, time, x, label, score, alarm, parts, low, high)


def run_lengths(above: np.ndarray) -> np.ndarray:
    """How many true steps in a row end at each step.

    >>> run_lengths(np.array([True, True, False, True])).tolist()
    [1, 2, 0, 1]
    """
    count = np.arange(1, len(above) + 1)
    return np.where(above, count - np.maximum.accumulate(np.where(above, 0, count)), 0)


def line_breaks(time: np.ndarray, period: float) -> np.ndarray:
    """Where the drawn line is broken before a row: the time jumps by more than 1.5 periods."""
    return (
        np.concatenate([[False], np.diff(time) > 1.5 * period]) if len(time) else np.zeros(0, bool)
    )


def make_view(
    scene: TrackRows,
    threshold: float,
    outcome: np.ndarray | None,
    fates: list[tuple[int, int, str, str]] | None,
) -> View:
    """The View of a scene at a threshold; outcome (n,) words and fates (first step, last step,
    kind, fate) come from whoever judged.
    """
    stream = scene.stream
    above = scene.score > threshold
    runs = run_lengths(above)
    low = scene.low
    high = scene.high
    marks = [
        Mark(
            i,
            f,
            severity(scene.score[i], threshold),
            "" if outcome is None else str(outcome[i]),
            _reason(scene, i, f, int(runs[i])),
        )
        for i in np.flatnonzero(above & (runs < MIN_SPAN_STEPS)).tolist()
        for f in anomalous_features(scene.parts[i], threshold)
    ]
    ends = np.flatnonzero((runs >= MIN_SPAN_STEPS) & ~np.append(above[1:], False))
    spans = [(int(i - runs[i] + 1), int(i)) for i in ends]
    truth = (
        None
        if fates is None
        else [
            ViewEvent(max(a, scene.first) - scene.first, b - scene.first, kind, fate)
            for a, b, kind, fate in fates
        ]
    )
    shown = (
        None
        if truth is None
        else [event for event in truth if event.last >= 0 and event.first < len(above)]
    )
    sentence = view_sentence(scene, above, runs, threshold)
    cut = line_breaks(scene.time, stream.period)
    head = (
        stream.title,
        tuple(stream.names),
        tuple(stream.units),
        stream.period,
        scene.first,
        scene.end,
        threshold,
    )
    return View(
        *head, scene.time, scene.x, scene.score, low, high, cut, marks, spans, shown, sentence
    )


def anomalous_features(parts: np.ndarray, threshold: float) -> list[int]:
    """The features that a mark belongs to: each above the threshold by itself, else the one that
    carries most.
    """
    found = np.flatnonzero(parts > threshold).tolist()
    return found or [int(np.nanargmax(parts))]


def _reason(scene: TrackRows, row: int, feature: int, run: int) -> str:
    expected = (
        (math.nan, math.nan)
        if scene.low is None or scene.high is None
        else (scene.low[row, feature], scene.high[row, feature])
    )
    unit = scene.stream.units[feature]
    return anomaly_reason(scene.x[row, feature], expected, scene.score[row], unit, run)


def view_sentence(scene: TrackRows, above: np.ndarray, runs: np.ndarray, threshold: float) -> str:
    """One sentence: what is anomalous now, or what was last, or that all is well."""
    stream = scene.stream
    if not len(above):
        return f"No points from {stream.title} yet."
    found = np.flatnonzero(above)
    if not len(found):
        return _calm(scene)
    i = int(found[-1])
    f = int(np.nanargmax(scene.parts[i]))
    what = stream.title if len(stream.names) == 1 else f"{stream.title}, {stream.names[f]},"
    if i == len(above) - 1:
        since = format_time(scene.time[i - int(runs[i]) + 1], stream.period)
        return f"{what} is unusual since {since}: {_reason(scene, i, f, int(runs[i]))}."
    return (
        f"{what} was unusual at {format_time(scene.time[i], stream.period)}: "
        f"{_reason(scene, i, f, int(runs[i]))}."
    )


def _calm(scene: TrackRows) -> str:
    stream = scene.stream
    if np.isnan(scene.score).all():
        return f"{stream.title}: learning what is normal."
    return f"{stream.title} looks normal: nothing above the threshold in view."
