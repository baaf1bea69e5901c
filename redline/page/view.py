"""What is shown of one stream under one setting, as plain values: the page, a report and the API
each present a View.

A View is cut from what the monitor keeps: it scores nothing, changes nothing and has no colours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from redline.engine.feed import Feed
from redline.engine.maintenance import MaintenanceWindow
from redline.engine.results import StreamInfo
from redline.engine.track import Track
from redline.engine.wording import (
    SEVERITIES,
    anomaly_reason,
    explanation,
    format_time,
    severity,
    severity_index,
)
from redline.evaluation import metrics

EXPLAINED = 1e-6  # relative difference up to which parts add up to the score
MIN_SPAN_STEPS = 10  # steps in a row from which an anomaly is one shaded span


MAX_FAINT = 500  # marks of the applied settings behind those of a preview
MAX_DRAWN_ROWS = 10_000  # rows that are drawn; longer ranges are thinned
NO_DATA = "no data"
LEARNING = "learning"
NO_ALERTS = "no alerts"
DAY_SECONDS = 86_400
DAY_GRAIN = 3_600.0  # seconds; times as fine as this are written with their day
MAX_NOTE_SHOWN = 40  # characters of the note of a maintenance window


class Mark(NamedTuple):
    """One feature of a step above the *previewed* threshold.

    The anomalies that are stored and notified are not these: see `redline.engine.results.Anomaly`.
    """

    row: int  # index into the view
    feature: int
    severity: str
    outcome: str  # that of its event, else "false alarm"; "" = truth unknown
    reason: str  # the text of its tooltip
    # whether it begins a run of anomalous steps, or is more severe than all before it in the run
    leads: bool = True


class Gap(NamedTuple):
    """A span of time in which there is no value, no opinion, or nothing is alerted."""

    first: float  # seconds since the epoch
    last: float
    feature: int | None  # None = all of them
    text: str


class ViewEvent(NamedTuple):
    """One run of truth that overlaps the view."""

    first: int  # row of the view
    last: int
    kind: str
    # "caught", "seen, no alarm", "missed", or "open" while an alarm could still come
    outcome: str


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
    red: np.ndarray | None = None  # (n, features) bool, the features that a row is anomalous on
    gaps: tuple[Gap, ...] = ()
    steps: np.ndarray | None = None  # (n,) absolute step of each row of a thinned view
    clock: str = "UTC"  # what the times are
    peaks: np.ndarray | None = None  # (features,) highest contribution of each to a score
    faint: tuple[tuple[int, int], ...] = ()  # (row, feature) anomalous only as applied
    hidden: tuple[str, ...] = ()  # anomalous features that are not drawn
    maintenance: tuple[Gap, ...] = ()  # spans in which nothing is alerted
    severity: str = ""  # of what the sentence is about; "" = nothing is anomalous
    ongoing: bool = False  # whether that still goes on


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
    scored: int | None = None  # step up to which the track has scored; None = all
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
        low, high = feed.bounds(track, threshold, first, end)
        score, alarm = track.scores(first, end)
        parts = track.read("parts", first, end)  # (n, features), or (n, 1) before the first score
        assert parts is not None
        parts = np.broadcast_to(parts, (end - first, len(feed.stream.names)))
        time = feed.tape.read("time", first, end)[:, 0]
        x = feed.tape.read("x", first, end)
        kind = track.read("kind", first, end)
        scored = track.end
    kinds = track.detector.kinds
    found = (time, x, label, score, alarm, parts, low, high)
    return TrackRows(feed.info, first, end, *found, scored, kind, kinds)


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
        outcome: (n,) words, for an anomalous row that of its event, or "false alarm"; None = truth
            unknown.
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
        severity=_newest_severity(rows, above, runs, threshold),
        ongoing=bool(len(above) and above[-1]),
        red=red_features(rows.parts, above, threshold),
        gaps=find_gaps(rows),
        peaks=np.fmax.reduce(rows.parts, axis=0, initial=-np.inf),
    )


def maintenance_gaps(windows: Iterable[MaintenanceWindow], time: np.ndarray) -> tuple[Gap, ...]:
    """Return the maintenance windows that a view with these times (n,) shows, with their notes."""
    if not len(time):
        return ()
    oldest = float(time[0])
    newest = float(time[-1])
    seen = (each for each in windows if each.start <= newest and each.end >= oldest)
    return tuple(
        Gap(max(each.start, oldest), min(each.end, newest), None, maintenance_text(each.note))
        for each in seen
    )


def maintenance_text(note: str) -> str:
    """Return what a plot says over a maintenance window.

    >>> maintenance_text(""), maintenance_text("backup")
    ('no alerts', 'no alerts: backup')
    """
    short = note if len(note) <= MAX_NOTE_SHOWN else f"{note[: MAX_NOTE_SHOWN - 1]}…"
    return f"{NO_ALERTS}: {short}" if short else NO_ALERTS


def bucket_steps(steps: int, features: int) -> int:
    """Return the length of the buckets that thin so many steps to MAX_DRAWN_ROWS rows; 1 = no need.

    >>> bucket_steps(10_000, 1), bucket_steps(200_000, 1)
    (1, 64)
    """
    if steps <= MAX_DRAWN_ROWS:
        return 1
    kept = 2 * features + 1  # rows of each bucket
    return 1 << math.ceil(math.log2(steps * kept / MAX_DRAWN_ROWS))


def thin_view(view: View, bucket: int) -> View:
    """Return a view with fewer rows, for a range too long to draw each step.

    The buckets are absolute, so that a row once drawn stays. Of each stay the rows with the least
    and the greatest value of each feature and with the highest score. Each anomalous row stays,
    and each at an edge of missing values, of an opinion or of an event.

    Args:
        view: of every step.
        bucket: steps; 1 = the view as it is.
    """
    count = len(view.time)
    if bucket < 2 or not count:
        return view
    missing = np.concatenate([np.isnan(view.x), np.isnan(view.score)[:, None]], axis=1)
    changes = np.flatnonzero((missing[1:] != missing[:-1]).any(axis=1))
    edges = [row for event in view.truth or () for row in (event.first, event.last)]
    kept = np.unique(
        np.concatenate(
            [
                _extremes(view.x, view.first, bucket),
                _extremes(view.score[:, None], view.first, bucket),
                np.flatnonzero(view.score > view.threshold),
                np.array([row for row, _ in view.faint], int),
                changes,
                changes + 1,
                np.clip(np.array(edges, int), 0, count - 1),
                [0, count - 1],
            ]
        )
    )
    jumps = np.cumsum(view.breaks)[kept]

    def new_row(row: int) -> int:
        return int(np.searchsorted(kept, min(max(row, 0), count - 1)))

    return view._replace(
        time=view.time[kept],
        x=view.x[kept],
        score=view.score[kept],
        low=None if view.low is None else view.low[kept],
        high=None if view.high is None else view.high[kept],
        breaks=np.diff(jumps, prepend=0) > 0,
        red=None if view.red is None else view.red[kept],
        marks=[mark._replace(row=new_row(mark.row)) for mark in view.marks],
        faint=tuple((new_row(row), feature) for row, feature in view.faint),
        spans=[(new_row(first), new_row(last)) for first, last in view.spans],
        truth=None
        if view.truth is None
        else [
            event._replace(first=new_row(event.first), last=new_row(event.last))
            for event in view.truth
        ],
        steps=view.first + kept,
    )


def _extremes(x: np.ndarray, first: int, bucket: int) -> np.ndarray:
    """Return the rows of the least and the greatest of each feature of x (n, features) in each
    bucket of absolute steps; `first` is the step of the first row.
    """
    count = len(x)
    before = first % bucket
    after = -(before + count) % bucket
    found = []
    for empty, pick in ((np.inf, np.argmin), (-np.inf, np.argmax)):
        padded = np.pad(x, ((before, after), (0, 0)), constant_values=np.nan)
        filled = np.where(np.isnan(padded), empty, padded).reshape(-1, bucket, x.shape[1])
        start = np.arange(len(filled))[:, None] * bucket - before
        found.append((pick(filled, axis=1) + start).ravel())
    rows: np.ndarray = np.clip(np.concatenate(found), 0, count - 1)
    return rows


def red_features(parts: np.ndarray, above: np.ndarray, threshold: float) -> np.ndarray:
    """Return the features that each row is anomalous on, (n, features) bool.

    Args:
        parts: (n, features) how much each feature contributes to the score.
        above: (n,) bool, the anomalous rows.
        threshold: standard deviations.
    """
    red: np.ndarray = (parts > threshold) & above[:, None]
    joint = np.flatnonzero(above & ~red.any(axis=1))  # no feature is above it by itself
    if len(joint):
        red[joint, np.nanargmax(parts[joint], axis=1)] = True
    return red


def only_applied(
    applied: TrackRows, threshold: float, red: np.ndarray
) -> tuple[tuple[int, int], ...]:
    """Return the (row, feature) that are anomalous under the applied settings alone, the newest
    MAX_FAINT.

    Args:
        applied: the same rows with the scores of the applied track.
        threshold: the applied one.
        red: (n, features) bool, what is anomalous under the previewed settings.
    """
    above = applied.score > threshold
    unmarked = np.logical_not(red.any(axis=1, keepdims=True))
    found = red_features(applied.parts, above, threshold) & unmarked
    rows, features = np.nonzero(found)
    return tuple(zip(rows[-MAX_FAINT:].tolist(), features[-MAX_FAINT:].tolist()))


def find_gaps(rows: TrackRows) -> tuple[Gap, ...]:
    """Return the spans without a value, of a feature or of all, and those without an opinion."""
    missing = np.isnan(rows.x)
    whole = missing.all(axis=1)
    gaps = _spans_of(rows, whole, None, NO_DATA)
    for row in np.flatnonzero(line_breaks(rows.time, rows.stream.period)).tolist():
        gaps.append(Gap(float(rows.time[row - 1]), float(rows.time[row]), None, NO_DATA))
    for feature in range(missing.shape[1] if missing.shape[1] > 1 else 0):
        gaps += _spans_of(rows, missing[:, feature] & ~whole, feature, NO_DATA)
    scored = len(whole) if rows.scored is None else max(rows.scored - rows.first, 0)
    silent = np.isnan(rows.score) & ~whole & (np.arange(len(whole)) < scored)
    return (*gaps, *_spans_of(rows, silent, None, LEARNING))


def _spans_of(rows: TrackRows, where: np.ndarray, feature: int | None, text: str) -> list[Gap]:
    """Return a gap for each run of True in (n,), half a period longer at both ends."""
    if not where.any():
        return []
    half = rows.stream.period / 2
    time = rows.time
    return [
        Gap(float(time[first]) - half, float(time[last]) + half, feature, text)
        for first, last in metrics.event_runs(where).tolist()
    ]


def _marks(
    rows: TrackRows, threshold: float, runs: np.ndarray, outcome: np.ndarray | None
) -> list[Mark]:
    """Return a mark for each anomalous feature of the first anomalous steps of each run."""
    leads = _leads(rows.score, runs, threshold)
    return [
        Mark(
            row,
            feature,
            severity(rows.score[row], threshold),
            "" if outcome is None else str(outcome[row]),
            _mark_reason(rows, row, feature, int(runs[row]), threshold),
            bool(leads[row]),
        )
        for row in np.flatnonzero((runs > 0) & (runs < MIN_SPAN_STEPS)).tolist()
        for feature in anomalous_features(rows.parts[row], threshold)
    ]


def _leads(score: np.ndarray, runs: np.ndarray, threshold: float) -> np.ndarray:
    """Return which rows begin a run, or are more severe than all before them in it, (n,) bool."""
    leads: np.ndarray = runs == 1
    most = ""
    for row in np.flatnonzero(runs > 0).tolist():
        now = severity(score[row], threshold)
        leads[row] |= SEVERITIES.index(now) > SEVERITIES.index(most or now)
        most = now if leads[row] else most
    return leads


def _mark_reason(rows: TrackRows, row: int, feature: int, run: int, threshold: float) -> str:
    """Return the text of a mark: why it is anomalous, and how severe from 0 to 100."""
    index = severity_index(rows.score[row], threshold)
    return f"{_explained_reason(rows, row, feature, run)}, severity {index} of 100"


def _explained_reason(rows: TrackRows, row: int, feature: int, run: int) -> str:
    """Return why a feature is anomalous at a row, and what contributed most.

    That is a feature, with its strongest kind of evidence where the detector has several; only
    where the detector explains its score by parts that add up to it.
    """
    parts = rows.parts[row]
    adds_up = math.isclose(float(np.nansum(parts)), float(rows.score[row]), rel_tol=EXPLAINED)
    if not adds_up or len(parts) < 2:
        return _reason(rows, row, feature, run, strongest_kind(rows, row, feature))
    names = [
        f"{kind} on {name}" if (kind := strongest_kind(rows, row, each)) else name
        for each, name in enumerate(rows.stream.names)
    ]
    said = explanation(list(zip(names, parts.tolist())))
    reason = _reason(rows, row, feature, run)
    return f"{reason}, {said}" if said else reason


def strongest_kind(rows: TrackRows, row: int, feature: int) -> str:
    """Return the strongest kind of evidence on a feature at a row; "" = there is but one kind."""
    return "" if rows.kind is None else rows.kinds[int(rows.kind[row, feature])]


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


def _reason(rows: TrackRows, row: int, feature: int, run: int, kind: str = "") -> str:
    """Return why a feature is anomalous at a row, in the detector's own numbers."""
    expected = (math.nan, math.nan)
    if rows.low is not None and rows.high is not None:
        expected = (rows.low[row, feature], rows.high[row, feature])
    unit = rows.stream.units[feature]
    return anomaly_reason(rows.x[row, feature], expected, rows.score[row], unit, run, kind)


def view_sentence(rows: TrackRows, above: np.ndarray, runs: np.ndarray, threshold: float) -> str:
    """Return one sentence: what is anomalous now, or was last, or that nothing is."""
    stream = rows.stream
    if not len(above):
        return f"No points from {stream.title} yet."
    found = np.flatnonzero(above)
    if not len(found):
        return _no_anomaly_sentence(rows)
    start, row = _newest_run(rows, above, runs)
    ongoing = bool(above[-1])
    feature = int(np.nanargmax(rows.parts[row]))
    reason = _explained_reason(rows, row, feature, row - start + 1)
    what = stream.title if len(stream.names) == 1 else f"{stream.title}, {stream.names[feature]},"
    if ongoing:
        since = format_time(rows.time[start], stream.period)
        return f"{what} is unusual since {since}: {reason}."
    return f"{what} was unusual at {format_time(rows.time[row], stream.period)}: {reason}."


def _newest_run(rows: TrackRows, above: np.ndarray, runs: np.ndarray) -> tuple[int, int]:
    """Return the first row of the newest anomaly, and the row that its sentence is about.

    above: (n,) bool, at least one of them True.
    """
    last = int(np.flatnonzero(above)[-1])
    start = last - int(runs[last]) + 1
    if last == len(above) - 1:
        return start, last
    # of a run that is over, the step that stands out most: what comes after a spike is its echo
    return start, start + int(np.nanargmax(rows.score[start : last + 1]))


def _newest_severity(rows: TrackRows, above: np.ndarray, runs: np.ndarray, threshold: float) -> str:
    """Return the severity of the newest anomaly, the worst of its steps; "" = there is none."""
    if not above.any():
        return ""
    start, row = _newest_run(rows, above, runs)
    return severity(float(np.nanmax(rows.score[start : row + 1])), threshold)


def recording_sentence(rows: TrackRows, threshold: float, total: int) -> str:
    """Return one sentence about the rows of a whole file: how often it is unusual, and where most.

    total: rows of the file; its buffer may hold fewer.
    """
    stream = rows.stream
    count = len(rows.score)
    over = f"all {count:,} rows" if count == total else f"the last {count:,} of {total:,} rows"
    above = rows.score > threshold
    if not above.any():
        return _no_anomaly_sentence(rows, over)
    runs = run_lengths(above)
    times = int((runs == 1).sum())
    row = int(np.nanargmax(rows.score))
    feature = int(np.nanargmax(rows.parts[row]))
    reason = _explained_reason(rows, row, feature, int(runs[row]))
    often = {1: "once", 2: "twice"}.get(times, f"{times:,} times")
    which = f"{stream.names[feature]} " if len(stream.names) > 1 else ""
    # with the day where there are several
    long = rows.time[-1] - rows.time[0] >= DAY_SECONDS
    at = format_time(rows.time[row], max(stream.period, DAY_GRAIN) if long else stream.period)
    most = "" if times == 1 else "most of all "
    return f"{stream.title} was unusual {often} in {over}, {most}{which}at {at}: {reason}."


def _no_anomaly_sentence(rows: TrackRows, where: str = "view") -> str:
    title = rows.stream.title
    if np.isnan(rows.score).all():
        return f"{title}: learning what is normal."
    return f"{title} looks normal: nothing above the threshold in {where}."
