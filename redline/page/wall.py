"""The overview as a wall display: what is unusual now in tiles, worst first, the rest in a list."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import tzinfo
from typing import Any, NamedTuple

import numpy as np
from dash import html

from redline.api.service import Service
from redline.engine import wording
from redline.engine.feed import Feed
from redline.engine.results import Anomaly
from redline.engine.wording import SEVERITIES
from redline.incidents.incident import LIVE_STATES, OPEN, Incident, Peak
from redline.incidents.registry import IncidentQuery
from redline.page.query import worst_feature
from redline.page.view import TrackRows, read_track_rows, red_features
from redline.page.zones import times_of
from redline.sources.payload import json_fragment, to_json

MAX_TILES = 24  # tiles; what is unusual beyond them is only counted
MAX_CALM_ROWS = 22  # calm streams in the list
RENEWAL_SECONDS = 1.9  # a wall is good for all visitors for so long
WALL_STEPS = 240  # steps of a line
TILE_POINTS = 80  # of the line of a tile
CALM_POINTS = 40
LINE_SCALE = 1_000  # a line's points lie between 0 and this
BAND_REACH_SHARE = 0.5  # of the values' range that the band may add to a line's scale


class WallState(NamedTuple):
    """What one stream shows now."""

    feed: Feed
    severity: str  # "" = calm
    feature: int
    start: float  # seconds since the epoch, the stream's, of what is unusual; NaN = calm
    incident: Incident | None

    @property
    def is_open(self) -> bool:
        """Return whether an incident is open, neither acknowledged nor snoozed."""
        return self.incident is not None and self.incident.state == OPEN

    @property
    def peak(self) -> Peak | Anomaly | None:
        """Return what stood out most: of the incident, else the newest step; None = calm."""
        if self.incident is not None:
            return self.incident.peak
        return self.feed.journal[-1] if self.severity else None

    @property
    def severity_index(self) -> int:
        """Return the severity from 0 to 100, 0 = calm."""
        peak = self.peak
        return 0 if peak is None else wording.severity_index(peak.score, peak.threshold)

    @property
    def rank(self) -> tuple[int, bool, int]:
        """Return what tiles are sorted by: the worst first, an open incident before others."""
        return -SEVERITIES.index(self.severity), not self.is_open, -self.severity_index


class SeriesState(NamedTuple):
    """A series with a live incident, its worst one."""

    incident: Incident

    @property
    def severity_index(self) -> int:
        """Return the severity from 0 to 100."""
        return wording.severity_index(self.incident.peak.score, self.incident.peak.threshold)

    @property
    def rank(self) -> tuple[int, bool, int]:
        """Return what it is sorted by, as `WallState.rank`."""
        severity = SEVERITIES.index(self.incident.severity)
        return -severity, self.incident.state != OPEN, -self.severity_index


class Wall:
    """The wall of all streams, made at most once in RENEWAL_SECONDS for all visitors."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.lock = threading.Lock()
        # zone -> monotonic seconds at which it was made, and the JSON of the document
        self.made: dict[tzinfo, tuple[float, Any]] = {}

    def renewed(self) -> Any:
        """Return the wall's document as JSON that is written once."""
        now = self.service.monitor.clock()
        with self.lock:
            zone = wording.VIEWER_ZONE.get()
            made, fragment = self.made.get(zone, (-np.inf, None))
            if now - made > RENEWAL_SECONDS:
                fragment = json_fragment(to_json(wall_document(self.service)).decode())
                self.made[zone] = now, fragment
            return fragment


def wall_document(service: Service) -> dict[str, Any]:
    """Return what the wall shows: counts, tiles and calm streams."""
    incidents = live_incidents(service)
    states = stream_states(service, incidents)
    unusual = sorted((each for each in states if each.severity), key=lambda each: each.rank)
    calm = [each for each in states if not each.severity]
    series = sorted(series_states(service, incidents), key=lambda each: each.rank)
    all_series = len(service.monitor.series.roster)
    found = [each.severity for each in unusual] + [each.incident.severity for each in series]
    counts = {name: found.count(name) for name in SEVERITIES[::-1]}
    return {
        "headline": headline(unusual, series, len(states) + all_series),
        "counts": {**counts, "calm": len(calm) + max(0, all_series - len(series))},
        "tiles": [tile_document(each) for each in unusual[:MAX_TILES]],
        "more": max(0, len(unusual) - MAX_TILES) + len(series),
        "calm": [calm_document(each) for each in calm[:MAX_CALM_ROWS]],
    }


def headline(unusual: list[WallState], series: list[SeriesState], watched: int) -> dict[str, str]:
    """Return the sentence over the tiles: which stream is most unusual now, or that all are calm.

    "stream" is the one that a click on the sentence opens, "" = none.

    Args:
        unusual: the streams that are not calm, the worst first.
        series: those with a live incident, the worst first.
        watched: how many streams there are, series among them.
    """
    if series and (not unusual or series[0].rank < unusual[0].rank):
        return series_headline(series[0])
    if not unusual:
        said = f"All calm: {watched:,} stream{'' if watched == 1 else 's'} watched."
        return {"stream": "", "severity": "", "title": "", "text": said}
    worst = unusual[0]
    stream = worst.feed.stream
    with times_of(stream):
        since = wording.format_time(worst.start, stream.period)
    return {
        "stream": worst.feed.name,
        "severity": worst.severity,
        "title": tile_title(worst.feed, min(worst.feature, len(stream.names) - 1)),
        "text": f"{worst.severity} ({worst.severity_index} of 100) since {since}",
    }


def series_headline(state: SeriesState) -> dict[str, str]:
    """Return the sentence over the tiles where a series is the worst; no feed is opened for it."""
    incident = state.incident
    since = wording.format_time(incident.start, 1.0)
    return {
        "stream": incident.stream,
        "severity": incident.severity,
        "title": incident.stream,
        "text": f"{incident.severity} ({state.severity_index} of 100) since {since}",
    }


def series_states(service: Service, incidents: Mapping[str, Incident]) -> list[SeriesState]:
    """Return the series among the streams with a live incident."""
    find = service.monitor.series.find
    return [SeriesState(each) for name, each in incidents.items() if find(name) is not None]


def stream_states(service: Service, incidents: Mapping[str, Incident]) -> list[WallState]:
    """Return what each stream with points shows now, in the order of the streams.

    A stream is as bad as its worst live incident, else as its newest step; without either it is
    calm.
    """
    return [
        stream_state(feed, incidents.get(feed.name))
        for feed in list(service.monitor.feeds.values())
        if feed.end
    ]


def live_incidents(service: Service) -> dict[str, Incident]:
    """Return the worst live incident of each stream or series that has one."""
    live = service.incidents.find(IncidentQuery(states=LIVE_STATES, limit=10_000)).incidents
    worst: dict[str, Incident] = {}
    for incident in live:
        known = worst.get(incident.stream)
        if known is None or _severity_rank(incident) > _severity_rank(known):
            worst[incident.stream] = incident
    return worst


def _severity_rank(incident: Incident) -> int:
    return SEVERITIES.index(incident.severity)


def stream_state(feed: Feed, incident: Incident | None) -> WallState:
    """Return what a stream shows now; `incident` is its worst live one, None = there is none."""
    if incident is not None:
        return WallState(feed, incident.severity, incident.peak.feature, incident.start, incident)
    if feed.run and feed.journal:
        newest = feed.journal[-1]
        start = newest.time - (feed.run - 1) * feed.stream.period
        return WallState(feed, newest.severity, newest.feature, start, None)
    return WallState(feed, "", 0, np.nan, None)


def tile_document(state: WallState) -> dict[str, Any]:
    """Return what the tile of an unusual stream shows; the texts are plain."""
    feed = state.feed
    stream = feed.stream
    rows = newest_rows(feed)
    feature = min(state.feature, len(stream.names) - 1)
    now = float(rows.time[-1]) if len(rows.time) else np.nan
    alarms = state.incident.alarms if state.incident else 0
    said = f"{alarms:,} alarm{'s' if alarms != 1 else ''}"
    incident = f"{state.incident.state}, {said}" if state.incident else "no incident"
    shown = current_value(rows, feature)
    with times_of(stream):
        since = wording.format_time(state.start, stream.period)
        alarm = alarm_text(state, feature, f"{shown['value']} {shown['unit']}".strip())
    return {
        "stream": feed.name,
        "title": tile_title(feed, feature),
        "severity": state.severity,
        "open": state.is_open,
        **shown,
        "alarm": alarm,
        "since": since,
        "for": wording.format_span(now - state.start),
        "incident": incident,
        "line": wall_line(rows, feature, feed.applied.threshold, TILE_POINTS),
    }


def alarm_text(state: WallState, feature: int, now: str) -> str:
    """Return the value and the time of the alarm beside the value now, "" where both are one.

    now: the newest value with its unit.
    """
    peak = state.peak
    if peak is None or peak.step >= state.feed.end - 1:
        return ""
    stream = state.feed.stream
    spread = (peak.high - peak.low) / 16
    value = wording.format_quantity(peak.value, stream.units[feature], spread)
    return f"alarm {wording.format_time(peak.time, stream.period)}: {value}, now {now}"


def calm_document(state: WallState) -> dict[str, Any]:
    """Return what the row of a calm stream shows: of its features the one that was worst lately."""
    feed = state.feed
    stream = feed.stream
    threshold = feed.applied.threshold
    with feed.lock:  # without the band, which a calm row does not show
        first = max(feed.tape.first, feed.end - WALL_STEPS)
        rows = feed.tape.read("x", first, feed.end)
        score, _ = feed.applied_track.scores(first, feed.end)
        parts = feed.applied_track.read("parts", first, feed.end)
    assert parts is not None
    parts = np.broadcast_to(parts, rows.shape)  # (n, 1) before the first score
    feature = worst_feature(parts, score > threshold)
    red = red_features(parts, score > threshold, threshold)[:, feature]
    x = rows[:, feature]
    weight = np.where(red, np.inf, parts[:, feature])
    return {
        "stream": feed.name,
        "title": tile_title(feed, feature),
        **line_parts(float(x[-1]), stream.units[feature], x, red, weight),
    }


def line_parts(
    newest: float, unit: str, value: np.ndarray, red: np.ndarray, weight: np.ndarray
) -> dict[str, Any]:
    """Return the newest value as text, and the small line of the last ones, all (n,).

    red: which of them are anomalous; weight: which of them are kept where there are many.
    """
    kept = thinned_steps(weight, CALM_POINTS)
    shown = value[kept]
    known = shown[np.isfinite(shown)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    number, shown_unit = quantity_parts(newest, unit, (high - low) / 16)
    hot = np.flatnonzero(red[kept]).tolist()
    line = {"y": scaled_levels(shown, low, high) if len(known) else [], "hot": hot}
    return {"value": number, "unit": shown_unit, "line": line}


def quantity_parts(value: float, unit: str, spread: float) -> tuple[str, str]:
    """Return a number as text and its unit, with the decimals that its spread asks for."""
    scale, shown_unit = wording.si_scale(value, unit)
    return wording.format_number(value / scale, spread / scale), shown_unit


def tile_title(feed: Feed, feature: int) -> str:
    """Return the title of a stream, with the feature where it has several."""
    stream = feed.stream
    return stream.title if len(stream.names) == 1 else f"{stream.title} · {stream.names[feature]}"


def newest_rows(feed: Feed) -> TrackRows:
    """Return the last steps of a stream under its applied settings."""
    threshold = feed.applied.threshold
    return read_track_rows(feed, feed.applied_track, threshold, feed.end - WALL_STEPS, feed.end)


def current_value(rows: TrackRows, feature: int) -> dict[str, str]:
    """Return the newest value with its unit and the expected range, as text.

    The newest value of all, also where it is missing; "expected" is "" without a band.
    """
    unit = rows.stream.units[feature]
    value = float(rows.x[-1, feature]) if len(rows.x) else np.nan
    low = np.nan if rows.low is None or not len(rows.low) else float(rows.low[-1, feature])
    high = np.nan if rows.high is None or not len(rows.high) else float(rows.high[-1, feature])
    spread = (high - low) / 16
    largest = float(np.nanmax(np.abs([value, low, high, 0.0])))
    scale, shown_unit = wording.si_scale(largest, unit)
    known = np.isfinite(low) and np.isfinite(high)
    number = wording.format_number(value / scale, spread / scale if known else np.nan)
    ends = [wording.format_number(end / scale, spread / scale) for end in (low, high)]
    return {
        "value": number,
        "unit": shown_unit,
        "expected": f"{ends[0]} to {ends[1]}" if known else "",
    }


def wall_line(rows: TrackRows, feature: int, threshold: float, points: int) -> dict[str, Any]:
    """Return the line of a feature, thinned to evenly spaced points between 0 and LINE_SCALE.

    Of each interval the step at which the feature is most anomalous is taken, so that none is lost.
    "hot" are the indices of points at which this feature is anomalous; "low" and "high" are the
    band, null where there is none.
    """
    red = red_features(rows.parts, rows.score > threshold, threshold)[:, feature]
    kept = thinned_steps(np.where(red, np.inf, rows.parts[:, feature]), points)
    value = rows.x[kept, feature]
    known = value[np.isfinite(value)]
    if not len(known):
        return {"y": [], "hot": [], "low": None, "high": None}
    bottom = float(known.min())
    top = float(known.max())
    band = None
    if rows.low is not None and rows.high is not None:
        low = rows.low[kept, feature]
        high = rows.high[kept, feature]
        reach = BAND_REACH_SHARE * (top - bottom)
        if np.isfinite(low).any() and np.isfinite(high).any():
            bottom = min(bottom, max(float(np.nanmin(low)), bottom - reach))
            top = max(top, min(float(np.nanmax(high)), top + reach))
            band = (low, high)
    hot = np.flatnonzero(red[kept]).tolist()
    return {
        "y": scaled_levels(value, bottom, top),
        "hot": hot,
        "low": None if band is None else scaled_levels(band[0], bottom, top),
        "high": None if band is None else scaled_levels(band[1], bottom, top),
    }


def scaled_levels(values: np.ndarray, bottom: float, top: float) -> list[int | None]:
    """Return values (n,) as whole numbers from 0 at the bottom to LINE_SCALE, None = missing."""
    share = np.clip((values - bottom) / ((top - bottom) or 1.0), 0.0, 1.0)
    levels = np.round(share * LINE_SCALE)
    return [None if level != level else int(level) for level in levels.tolist()]


def thinned_steps(score: np.ndarray, points: int) -> np.ndarray:
    """Return at most `points` indices: of each interval that with the highest score.

    >>> thinned_steps(np.array([0.0, 1.0, 9.0, 0.0, np.nan, np.nan]), 3).tolist()
    [1, 2, 4]
    """
    if len(score) <= points:
        return np.arange(len(score))
    width = -(-len(score) // points)  # steps of an interval
    padded = np.full(width * -(-len(score) // width), -2.0)
    padded[: len(score)] = np.where(np.isnan(score), -1.0, score)
    intervals = padded.reshape(-1, width)
    found: np.ndarray = np.arange(len(intervals)) * width + intervals.argmax(axis=1)
    return found


def overview_wall() -> html.Div:
    """Return the empty wall, which assets/page_wall.js fills."""
    button = html.Button("Full screen", id="wall-full", title="without the tabs; Esc ends it")
    zone = html.Span(className="zone soft small")
    calm = [
        html.Div([html.H2("Calm"), html.Small(id="wall-shown", className="soft")]),
        html.Div(id="wall-calm"),
    ]
    return html.Div(
        [
            html.Div(
                [html.Div(id="wall-counts"), html.Span(className="grow"), zone, button],
                className="wall-head",
            ),
            html.P(id="wall-worst", role="status"),
            html.Div(
                [html.Div(id="wall-tiles", className="tiles"), html.Aside(calm, id="calm")],
                className="wall",
            ),
        ],
        id="overview",
        hidden=True,
    )
