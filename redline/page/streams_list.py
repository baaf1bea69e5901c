"""The list of all streams: a page of rows, the most unusual first, filtered and sorted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from dash import dcc, html

from redline.api.service import Service
from redline.engine import wording
from redline.engine.feed import Feed
from redline.engine.fleet.ranking import (
    LINE_STEPS,
    ORDERS,
    PAGE_ROWS,
    UNUSUAL_FIRST,
    OtherStreams,
    Ranked,
    RankedColumns,
    RankedPage,
    RankingQuery,
    SeriesRanking,
)
from redline.incidents.incident import Incident
from redline.page.panels import aria_attribute, data_attribute
from redline.page.query import cached_answer, last_arrival, worst_feature
from redline.page.wall import line_parts, live_incidents
from redline.sources.payload import json_fragment, to_json
from redline.sources.series import parse_series

# heading -> the order that a click on it gives, "" = it is only a heading
HEADINGS = {
    "Stream": "name",
    "Value": "value",
    "Lately": "",
    "Score": "score",
    "Worst lately": "worst",
    "Last seen": "seen",
}
assert set(HEADINGS.values()) <= {*ORDERS, ""}


class FeedSteps(NamedTuple):
    """The newest steps of one feature of a feed, the one that is anomalous most, all (n,)."""

    feature: int
    value: np.ndarray
    score: np.ndarray  # of the rows

    @property
    def newest(self) -> tuple[float, float, float]:
        """Return the newest value and score, and the worst score; NaN = there is none."""
        if not len(self.value):
            return np.nan, np.nan, np.nan
        known = self.score[np.isfinite(self.score)]
        worst = float(known.max()) if len(known) else np.nan
        return float(self.value[-1]), float(self.score[-1]), worst


class StreamsList:
    """The list for all visitors; what several ask for at once is made once."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.ranking = SeriesRanking(service.monitor.series, service.lanes.index)

    def fragment(self, wanted: RankingQuery) -> Any:
        """Return the document of a page of the list as JSON that is written once."""
        return cached_answer(
            ("streams", wanted), lambda: json_fragment(to_json(self.document(wanted)).decode())
        )

    def document(self, wanted: RankingQuery) -> dict[str, Any]:
        """Return what the list shows: its rows, how many there are, and their order."""
        monitor = self.service.monitor
        feeds = [feed for feed in list(monitor.feeds.values()) if feed.end]
        steps = [newest_steps(feed) for feed in feeds]
        incidents = live_incidents(self.service)
        page = self.ranking.page(wanted, incidents.keys(), feed_streams(feeds, steps))
        now = monitor.wall()
        rows = []
        for row in page.rows:
            incident = incidents.get(row.name)
            if row.number < 0:
                place = -1 - row.number
                rows.append(feed_row(row, feeds[place], steps[place], incident, now))
            else:
                rows.append(self._series_row(row, incident, now))
        return {"rows": rows, **page_words(page, wanted)}

    def _series_row(self, row: Ranked, incident: Incident | None, now: float) -> dict[str, Any]:
        """Return the row of a series."""
        recent = self.ranking.recent(row.number)
        key = parse_series(row.name)
        value = np.zeros(0) if recent is None else recent.value
        anomaly = np.zeros(0, bool) if recent is None else recent.anomaly
        return {
            "title": key.name,
            "labels": ", ".join(f"{label}={text}" for label, text in key.labels),
            **shared_parts(row, incident, now),
            **line_parts(row.value, "", value, anomaly, anomaly.astype(float)),
        }


def newest_steps(feed: Feed) -> FeedSteps:
    """Return the newest steps of a feed, as `LINE_STEPS` says, under its applied settings."""
    threshold = feed.applied.threshold
    with feed.lock:
        first = max(feed.tape.first, feed.end - LINE_STEPS)
        x = feed.tape.read("x", first, feed.end)
        score, _ = feed.applied_track.scores(first, feed.end)
        parts = feed.applied_track.read("parts", first, feed.end)
    assert parts is not None
    parts = np.broadcast_to(parts, x.shape)  # (n, 1) before the first score
    feature = worst_feature(parts, score > threshold)
    return FeedSteps(feature, x[:, feature], score)


def feed_streams(feeds: Sequence[Feed], steps: Sequence[FeedSteps]) -> OtherStreams:
    """Return streams that are no series as the ranking takes them."""
    n = len(feeds)
    newest = np.array([each.newest for each in steps]).reshape(n, 3)
    arrived = np.array([last_arrival(feed) for feed in feeds])
    columns = RankedColumns(
        number=-1 - np.arange(n),
        value=newest[:, 0],
        score=newest[:, 1],
        worst=newest[:, 2],
        threshold=np.array([feed.applied.threshold for feed in feeds]),
        run=np.array([feed.run for feed in feeds], np.int64),
        newest=arrived,
        seen=arrived,
    )
    return OtherStreams([feed.name for feed in feeds], columns)


def feed_row(
    row: Ranked, feed: Feed, steps: FeedSteps, incident: Incident | None, now: float
) -> dict[str, Any]:
    """Return the row of a stream that is no series."""
    stream = feed.stream
    unit = stream.units[steps.feature]
    anomaly = steps.score > row.threshold
    return {
        "title": stream.title,
        "labels": stream.names[steps.feature] if len(stream.names) > 1 else "",
        **shared_parts(row, incident, now),
        **line_parts(row.value, unit, steps.value, anomaly, anomaly.astype(float)),
    }


def shared_parts(row: Ranked, incident: Incident | None, now: float) -> dict[str, Any]:
    """Return what any row shows of its score, its incident and its age; now: wall seconds."""
    return {
        "stream": row.name,
        "score": score_text(row.score),
        "threshold": f"{row.threshold:g}",
        "worst": score_text(row.worst),
        "above": row.score > row.threshold,
        "worstAbove": row.worst > row.threshold,
        "seen": f"{wording.format_span(round(now - row.seen))} ago" if row.seen > 0 else "–",
        "incident": incident and {"severity": incident.severity, "state": incident.state},
    }


def score_text(score: float) -> str:
    """Return a score as text; a dash where the detector has no opinion."""
    return wording.format_score(score) if score == score else "–"


def page_words(page: RankedPage, wanted: RankingQuery) -> dict[str, Any]:
    """Return what is said around the rows of a page, and the order that they are in."""
    by = wanted.by if wanted.by in ORDERS else UNUSUAL_FIRST
    last = page.first + len(page.rows)
    of = f"{page.found:,}" if page.found == page.total else f"{page.found:,} of {page.total:,}"
    said = f"{page.first + 1:,} to {last:,} of {of}" if page.rows else "No stream is like this."
    after = max(0, page.found - last)
    return {
        "said": said,
        "more": f"and {after:,} more" if after else "",
        "by": by,
        "descending": ORDERS[by] if wanted.descending is None else wanted.descending,
        "page": page.first // wanted.rows,
        "part": wanted.part,
    }


def wanted_rows(part: str | None, order: Mapping[str, Any] | None) -> RankingQuery:
    """Return the query of what a visitor typed and chose; the page is that of the same text."""
    part = part or ""
    chosen = dict(order or {})
    page = chosen.get("page", 0) if chosen.get("part", "") == part else 0
    by = chosen.get("by", UNUSUAL_FIRST)
    return RankingQuery(part, by, chosen.get("descending"), page, PAGE_ROWS)


def series_field(element: str) -> dcc.Input:
    """Return the field in which a visitor says which series to show; element: its id."""
    return dcc.Input(
        id=element,
        type="search",
        debounce=0.3,  # seconds
        placeholder='Part of a name, or {job="web"}',
        autoComplete="off",
    )


def streams_area() -> html.Div:
    """Return the empty list with its controls, which assets/page_streams.js fills."""
    unusual = html.Button(
        "Most unusual first", id="streams-unusual", **data_attribute("sort", UNUSUAL_FIRST)
    )
    controls = [
        series_field("streams-part"),
        unusual,
        html.Span(id="streams-said", role="status", className="soft"),
    ]
    heads = [
        html.Th(html.Button(words, className="link", **data_attribute("sort", by)) if by else words)
        for words, by in HEADINGS.items()
    ]
    table = html.Table(
        [html.Thead(html.Tr(heads)), html.Tbody(id="streams-body")],
        **aria_attribute("label", "Streams"),
    )
    turning = [
        html.Button("‹ previous", id="streams-before", hidden=True),
        html.Button(id="streams-after", hidden=True),
    ]
    return html.Div(
        [
            html.H2("All streams", className="unseen"),
            html.Div(controls, className="row"),
            table,
            html.Div(turning, className="row"),
        ],
        id="streams",
        hidden=True,
    )
