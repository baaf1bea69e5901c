"""What there is to see of one stream under one setting, as plain values: a page, a report or an API answer shows a View.

A View is cut from what the monitor keeps: it scores nothing, changes nothing and knows no colours.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

SEVERITIES = ("info", "warning", "critical")  # score / threshold from 1, from 1.5, from 2
LONG = 10  # steps in a row from which an anomaly is one shaded span
PREFIXED = ("B/s", "B", "bit/s", "W", "Hz", "V", "A", "Wh")  # units that take an SI prefix
ORDINALS = ("", "", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


class Mark(NamedTuple):
    """One anomalous step of one feature."""

    row: int  # index into the view
    feature: int
    severity: str
    outcome: str  # "caught" or "false alarm"; "" = truth unknown
    reason: str  # what a person reads on it


class Event(NamedTuple):
    """One run of truth that overlaps the view."""

    first: int  # row of the view
    last: int
    kind: str
    fate: str  # "caught", "missed", or "open" while an alarm could still come


class View(NamedTuple):
    """Rows first..end of a stream; arrays are (n,) or (n, features), NaN = missing or no opinion."""

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
    truth: list[Event] | None  # None: truth unknown
    sentence: str


class Scene(NamedTuple):
    """What a View is made of, read in one go: rows first..end of a feed's buffer and what a track said of them."""

    stream: Any  # a streams.Stream: title, names, units, period
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


def scene(feed: Any, track: Any, threshold: float, first: int, end: int) -> Scene:
    """Reads rows first..end of a monitor's feed and of a track beside it, cut to what the buffer still has."""
    with feed.lock:
        first, end = max(first, feed.tape.first), min(end, feed.tape.end)
        end = max(first, end)
        label = feed.tape.read("label", first, end) if feed.labelled else None
        low, high = track.bounds(threshold, first, end)
        score, alarm = track.read("score", first, end)[:, 0], track.read("alarm", first, end)[:, 0]
        parts = np.broadcast_to(track.read("parts", first, end), (end - first, len(feed.stream.names)))
        time, x = feed.tape.read("time", first, end)[:, 0], feed.tape.read("x", first, end)
    return Scene(feed.stream, first, end, time, x, label, score, alarm, parts, low, high)


def severity(score: float, threshold: float) -> str:
    """info from the threshold, warning from 1.5 times, critical from 2 times.

    >>> severity(7.0, 3.5)
    'critical'
    """
    return SEVERITIES[int(score >= 1.5 * threshold) + int(score >= 2 * threshold)]


def run_lengths(above: np.ndarray) -> np.ndarray:
    """How many true steps in a row end at each step.

    >>> run_lengths(np.array([True, True, False, True])).tolist()
    [1, 2, 0, 1]
    """
    count = np.arange(1, len(above) + 1)
    return np.where(above, count - np.maximum.accumulate(np.where(above, 0, count)), 0)


def breaks(time: np.ndarray, period: float) -> np.ndarray:
    """Where the drawn line is broken before a row: the time jumps by more than 1.5 periods."""
    return np.concatenate([[False], np.diff(time) > 1.5 * period]) if len(time) else np.zeros(0, bool)


def digits(spread: float) -> int:
    """Decimals that show the first digit of a spread."""
    return max(0, -math.floor(math.log10(spread))) if spread > 0 and math.isfinite(spread) else 0


def plain(value: float, spread: float = math.nan) -> str:
    """A number as a person writes it: as fine as its spread asks for, else three significant digits.

    >>> plain(1013.26, 0.5), plain(0.012345), plain(48210.0)
    ('1,013.3', '0.0123', '48,210')
    """
    if not math.isfinite(value):
        return "–"
    decimals = digits(spread) if math.isfinite(spread) and spread > 0 else 3 - 1 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{min(max(decimals, 0), 9)}f}"


def quantity(value: float, unit: str, spread: float = math.nan) -> str:
    """A number with its unit, with an SI prefix where the unit takes one.

    >>> quantity(97.04, "%", 5.0), quantity(1_234_567.0, "B/s"), quantity(4.0, "")
    ('97 %', '1.23 MB/s', '4.00')
    """
    scale, unit = prefixed(value, unit)
    return f"{plain(value / scale, spread / scale)} {unit}".strip()


def prefixed(value: float, unit: str) -> tuple[float, str]:
    """What to divide by, with the unit under its SI prefix, so that a value is short; a unit that takes no prefix stays as it is.

    >>> prefixed(-28_630_988.0, "B/s"), prefixed(4_000.0, "lots")
    ((1000000, 'MB/s'), (1, 'lots'))
    """
    if unit not in PREFIXED or not math.isfinite(value) or abs(value) < 1000:
        return 1, unit
    power = min(int(math.log10(abs(value)) // 3), 5)
    return 1000**power, " kMGTP"[power] + unit


def moment(time: float, period: float) -> str:
    """The time of a step, UTC, as fine as its period, with the day where a view spans days.

    >>> moment(1767571200.0, 1.0), moment(1767571200.25, 0.1), moment(1767571200.0, 300.0), moment(1767571200.0, 3600.0)
    ('00:00:00', '00:00:00.2', 'Mon 00:00', '5 Jan 00:00')
    """
    try:
        at = datetime.fromtimestamp(time, UTC)
    except (OverflowError, ValueError, OSError):
        return "–"
    if period >= 3600:
        return f"{at.day} {at:%b %H:%M}" if period < 86400 else f"{at.day} {at:%b %Y}"
    if period >= 60:
        return f"{at:%a %H:%M}"
    return f"{at:%H:%M:%S}" + (f".{at.microsecond // 100_000}" if period < 1 else "")


def reason(value: float, expected: tuple[float, float], score: float, unit: str, run: int = 1) -> str:
    """Why a step is strange, in the detector's own numbers.

    >>> reason(97.0, (20.0, 45.0), 5.1, "%", 3)
    '97 %, expected 20 to 45, 5.1 σ above, third in a row'
    >>> reason(37_000_000.0, (-28_630_988.0, 34_891_610.0), 3.7, "B/s")
    '37 MB/s, expected -29 to 35 MB/s, 3.7 σ above'
    >>> reason(5.04, (2.0, 4.96), 3.5, "mm/s")
    '5.04 mm/s, expected 2.00 to 4.96, 3.5 σ above'
    """
    low, high = expected
    beyond = max(value - high, low - value, (high - low) / 1000)  # rounding must not hide it
    grain = min((high - low) / 16, beyond)
    words = [quantity(value, unit, grain)]
    if math.isfinite(low):
        scale, prefix = prefixed(max(abs(low), abs(high)), unit)
        ends = [plain(end / scale, grain / scale) for end in expected]
        words.append(f"expected {ends[0]} to {ends[1]}{f' {prefix}' if scale > 1 else ''}")
        words.append(f"{score:.1f} σ {'above' if value > high else 'below'}")
    else:
        words.append(f"score {score:.1f} σ")
    if run > 1:
        words.append(f"{ORDINALS[run] if run < len(ORDINALS) else f'number {run}'} in a row")
    return ", ".join(words)


def look(scene: Scene, threshold: float, outcome: np.ndarray | None, fates: list[tuple[int, int, str, str]] | None) -> View:
    """The View of a scene at a threshold; outcome (n,) words and fates (first step, last step, kind, fate) come from whoever judged."""
    stream = scene.stream
    above = scene.score > threshold
    runs = run_lengths(above)
    low, high = scene.low, scene.high
    marks = [
        Mark(i, f, severity(scene.score[i], threshold), "" if outcome is None else str(outcome[i]), _reason(scene, i, f, int(runs[i])))
        for i in np.flatnonzero(above & (runs < LONG)).tolist()
        for f in strange(scene.parts[i], threshold)
    ]
    ends = np.flatnonzero((runs >= LONG) & ~np.append(above[1:], False))
    spans = [(int(i - runs[i] + 1), int(i)) for i in ends]
    truth = None if fates is None else [Event(max(a, scene.first) - scene.first, b - scene.first, kind, fate) for a, b, kind, fate in fates]
    shown = None if truth is None else [event for event in truth if event.last >= 0 and event.first < len(above)]
    sentence = explained(scene, above, runs, threshold)
    cut = breaks(scene.time, stream.period)
    head = (stream.title, tuple(stream.names), tuple(stream.units), stream.period, scene.first, scene.end, threshold)
    return View(*head, scene.time, scene.x, scene.score, low, high, cut, marks, spans, shown, sentence)


def strange(parts: np.ndarray, threshold: float) -> list[int]:
    """The features that a mark belongs to: each above the threshold by itself, else the one that carries most."""
    found = np.flatnonzero(parts > threshold).tolist()
    return found or [int(np.nanargmax(parts))]


def _reason(scene: Scene, row: int, feature: int, run: int) -> str:
    expected = (math.nan, math.nan) if scene.low is None or scene.high is None else (scene.low[row, feature], scene.high[row, feature])
    unit = scene.stream.units[feature]
    return reason(scene.x[row, feature], expected, scene.score[row], unit, run)


def explained(scene: Scene, above: np.ndarray, runs: np.ndarray, threshold: float) -> str:
    """One sentence: what is strange now, or what was last, or that all is well."""
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
        since = moment(scene.time[i - int(runs[i]) + 1], stream.period)
        return f"{what} is unusual since {since}: {_reason(scene, i, f, int(runs[i]))}."
    return f"{what} was unusual at {moment(scene.time[i], stream.period)}: {_reason(scene, i, f, int(runs[i]))}."


def _calm(scene: Scene) -> str:
    stream = scene.stream
    if np.isnan(scene.score).all():
        return f"{stream.title}: learning what is normal."
    return f"{stream.title} looks normal: nothing above the threshold in view."
