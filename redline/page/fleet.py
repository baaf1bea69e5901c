"""The fleet: swim lanes of all series, what rose together, and what was unusual in a period."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from dash import html

from redline.api.service import Service
from redline.detection.arrays import Array
from redline.engine import wording
from redline.engine.fleet.ranking import NameIndex
from redline.engine.fleet.swim_lanes import (
    MAX_SWIM_LANES,
    LanesQuery,
    SeriesMoment,
    SwimLane,
    SwimLanes,
)
from redline.engine.fleet.worst_scores import AT_THRESHOLD, NO_LEVEL, ratio_of
from redline.incidents.correlation import IncidentGroup
from redline.incidents.unusual import UnusualPeriod, unusual_between
from redline.page.panels import aria_attribute
from redline.page.query import cached_answer
from redline.page.streams_list import score_text, series_field
from redline.sources.payload import json_fragment, to_json
from redline.sources.series import METRIC_LABEL, SeriesKey, escape_label, parse_series

FEW_LANES = 28  # shown until all of them are asked for
# seconds shown -> words, and the columns: how many, of how many cells, whether these are minutes
FLEET_SPANS = {
    1_200: "last 20 min",
    3_600: "last hour",
    10_800: "last 3 hours",
    21_600: "last 6 hours",
}
_COLUMNS = {
    1_200: (120, 1, False),
    3_600: (60, 1, True),
    10_800: (90, 2, True),
    21_600: (120, 3, True),
}
DEFAULT_FLEET_SPAN = 1_200  # seconds
# labels by which a fleet is grouped where nothing is chosen, the first that there is
USUAL_LABELS = ("host", "instance", "node", "hostname", "machine", "pod", "service", "job")
SHOWN_GROUPS = 6
SHOWN_MEMBERS = 10  # of the group that is open
FIRST_CELL = 48  # the character of a cell without a score; each next one is the next level
CELLS_A_DOUBLING = 8  # levels of cells for each doubling of 1 + score / threshold
MAX_CELL = 78


class FleetView(NamedTuple):
    """What a visitor looks at."""

    by: str | None = None  # a label, "" = each series is a lane, None = the usual label
    part: str = ""  # of the name of a series, or a selector
    span: int = DEFAULT_FLEET_SPAN  # one of FLEET_SPANS, seconds
    all: bool = False  # whether all lanes are shown
    period: tuple[float, float] | None = None  # seconds since the Unix epoch; None = what is shown
    group: str | None = None  # id of the open one; None = the newest

    @classmethod
    def of(cls, held: Mapping[str, Any] | None) -> FleetView:
        """Return the view that a browser holds; without any, the one that comes first."""
        view = cls(**(held or {}))
        period = None if view.period is None else (min(view.period), max(view.period))
        return view._replace(period=period)


class FleetPage(NamedTuple):
    """The fleet for all visitors; what several ask for at once is made once."""

    service: Service
    lanes: SwimLanes

    @classmethod
    def over(cls, service: Service, index: NameIndex) -> FleetPage:
        """Return the page of a service; index: the names of its series."""
        return cls(service, SwimLanes(service.monitor.series, index))

    def fragment(self, view: FleetView) -> Any:
        """Return the document of a view as JSON that is written once."""
        return cached_answer(
            ("fleet", view), lambda: json_fragment(to_json(self.document(view)).decode())
        )

    def document(self, view: FleetView) -> dict[str, Any]:
        """Return what the fleet shows: its lanes, the groups, and the answer for the period."""
        choices = self.lanes.choices()
        by = usual_label(choices) if view.by is None else view.by
        count = MAX_SWIM_LANES if view.all else FEW_LANES
        columns, cells, wide = _COLUMNS[view.span]
        table = self.lanes.table(LanesQuery(by, view.part, columns, cells, wide, count))
        end = table.start + table.seconds * table.columns
        period = view.period or (table.start, end)
        answer = unusual_between(self.lanes, *period, view.part)
        what = "series" if not by else METRIC_WORD if by == METRIC_LABEL else by
        return {
            "by": by,
            "what": what,
            "part": view.part,
            "span": view.span,
            "all": view.all,
            "labels": [[label, values] for label, values in sorted(choices.items())],
            "start": table.start,
            "seconds": table.seconds,
            "columns": table.columns,
            "lanes": self._lanes(by, table.lanes),
            "said": fleet_sentence(what, table.found, table.anomalous, table.series, table.without),
            "empty": self._empty_words(view, by, table.found, table.columns),
            "more": min(table.found, MAX_SWIM_LANES) - len(table.lanes),
            "beyond": max(0, table.found - MAX_SWIM_LANES),
            "groups": groups_document(self.service.joint.groups(), view.group),
            "period": self._period(period, view.period is not None, answer),
        }

    def _lanes(self, by: str, lanes: list[SwimLane]) -> list[dict[str, Any]]:
        """Return the lanes; labels that all of several series share are left out."""
        keys = [] if by else [set(parse_series(lane.value).labels) for lane in lanes]
        shared = set.intersection(*keys) if len(keys) > 1 else set()
        return [self._lane(by, lane, shared) for lane in lanes]

    def _lane(self, by: str, lane: SwimLane, shared: set[tuple[str, str]]) -> dict[str, Any]:
        """Return one lane."""
        score, threshold = self.lanes.score_of(lane.number, lane.worst)
        if by:
            title, labels = lane.value, f"{lane.series:,} series" if lane.series > 1 else "1 series"
        else:
            title, labels = name_words(parse_series(lane.value), shared)
        return {
            "value": lane.value,
            "title": title,
            "labels": labels,
            "cells": cell_text(lane.levels),
            "worst": score_text(score) if lane.worst > NO_LEVEL else "–",
            "threshold": threshold if threshold == threshold else None,
            "hot": lane.worst > AT_THRESHOLD,
            "at": int(np.argmax(lane.levels)) if len(lane.levels) else 0,
            "inside": label_selector(by, lane.value) if by else "",
        }

    def _empty_words(self, view: FleetView, by: str, found: int, columns: int) -> str:
        """Return what is said in place of lanes; "" where there are some."""
        if not len(self.service.monitor.series.roster):
            return "No series yet: lanes come with the first ones that programs send."
        if not columns:
            return "No scores yet: lanes begin as soon as the detectors have learned."
        if not found and view.part:
            return "No series is like this."
        return "" if found else f"No series has a label {by}."

    def _period(
        self, period: tuple[float, float], chosen: bool, answer: UnusualPeriod
    ) -> dict[str, Any]:
        """Return the answer to what was unusual."""
        series = []
        for each in answer.series:
            title, labels = name_words(parse_series(each.name))
            series.append(
                {
                    "stream": each.name,
                    "title": title,
                    "labels": labels,
                    "score": score_text(each.score),
                }
            )
        values = [
            {
                "title": label_words(each.label, each.value),
                "anomalous": each.anomalous,
                "series": each.series,
                "inside": label_selector(each.label, each.value),
            }
            for each in answer.values
        ]
        return {
            "from": period[0],
            "to": period[1],
            "chosen": chosen,
            "series": series,
            "values": values,
            "said": f"{answer.anomalous:,} of {answer.watched:,} series with an anomaly",
        }


METRIC_WORD = "metric"  # what the name of a series is called where it is one label of several


def usual_label(choices: Mapping[str, int]) -> str:
    """Return the label by which a fleet is grouped where nothing is chosen; "" = by none.

    >>> usual_label({"__name__": 40, "host": 125, "job": 5})
    'host'
    >>> usual_label({"__name__": 3, "rack": 8}), usual_label({"__name__": 3, "host": 1})
    ('rack', '')
    """
    several = {label: values for label, values in choices.items() if values > 1}
    others = (label for label in several if label != METRIC_LABEL)
    return next((label for label in USUAL_LABELS if label in several), next(others, ""))


def cell_text(levels: Array) -> str:
    """Return levels (columns,) as a character for each cell; one above the threshold is >= ":".

    >>> cell_text(np.array([0, 1, 2049, 2050, 4097], np.uint16))
    '019:A'
    """
    ratio = np.nan_to_num(ratio_of(levels))
    cell = 1 + np.ceil(CELLS_A_DOUBLING * np.log2(1 + ratio) - 1e-9)
    cell = np.where(levels == NO_LEVEL, 0, np.minimum(cell, MAX_CELL))
    return bytes((FIRST_CELL + cell).astype(np.uint8)).decode("ascii")


def fleet_sentence(what: str, found: int, anomalous: int, series: int, without: int) -> str:
    """Return what is said of the lanes.

    >>> fleet_sentence("host", 125, 12, 5_000, 3)
    '12 of 125 lanes with an anomaly, of 5,000 series; 3 have no host'
    >>> fleet_sentence("series", 40, 0, 40, 0)
    '0 of 40 series with an anomaly'
    """
    if what == "series":
        return f"{anomalous:,} of {found:,} series with an anomaly"
    lacking = f"; {without:,} have no {what}" if without else ""
    return f"{anomalous:,} of {found:,} lanes with an anomaly, of {series:,} series{lacking}"


def name_words(key: SeriesKey, shared: Iterable[tuple[str, str]] = ()) -> tuple[str, str]:
    """Return the name of a series and its labels as text, without those that are shared."""
    known = set(shared)
    own = (f"{label}={value}" for label, value in key.labels if (label, value) not in known)
    return key.name, ", ".join(own)


def label_words(label: str, value: str) -> str:
    """Return a label value as text; of the label of the name the name alone."""
    return value if label == METRIC_LABEL else f"{label}={value}"


def label_selector(label: str, value: str) -> str:
    """Return the selector of all series with a label value.

    >>> label_selector("host", 'a"b'), label_selector("mount.point", "/")
    ('{host="a\\\\"b"}', '{"mount.point"="/"}')
    """
    plain = label.isascii() and label.isidentifier()
    name = label if plain else f'"{escape_label(label)}"'
    return f'{{{name}="{escape_label(value)}"}}'


def groups_document(groups: list[IncidentGroup], opened: str | None) -> list[dict[str, Any]]:
    """Return the newest groups, one of them with its members: the opened one, or the newest."""
    shown = [group for group in groups if not group.merged][:SHOWN_GROUPS]
    known = {group.id for group in shown}
    chosen = opened if opened in known else next((group.id for group in shown), None)
    return [group_rows(group, group.id == chosen) for group in shown]


def group_rows(group: IncidentGroup, opened: bool) -> dict[str, Any]:
    """Return one group for the list; opened: with its first members."""
    members = []
    for member in group.members[:SHOWN_MEMBERS] if opened else ():
        title, labels = name_words(parse_series(member.stream), group.shared)
        members.append(
            {
                "stream": member.stream,
                "title": title,
                "labels": labels,
                "severity": member.severity,
                "time": member.time,
                "after": member.time - group.first.time,
            }
        )
    label, value = group.cause
    return {
        "id": group.id,
        "open": opened,
        "count": len(group.members),
        "cause": label_words(label, value),
        "within": max(1, math.ceil(group.members[-1].time - group.first.time)),
        "first": parse_series(group.first.stream).name,
        "start": group.first.time,
        "severity": max((m.severity for m in group.members), key=wording.SEVERITIES.index),
        "members": members,
        "more": len(group.members) - len(members) if opened else 0,
        "inside": label_selector(label, value),
    }


def moment_document(moment: SeriesMoment | None, asked: float) -> dict[str, Any]:
    """Return where a click leads; asked: what the click was numbered with."""
    if moment is None:
        return {"asked": asked, "stream": None}
    return {"asked": asked, "stream": moment.name, "step": moment.step}


def fleet_area() -> html.Div:
    """Return the empty lanes with their controls, which assets/page_fleet.js fills."""
    spans = [html.Option(words, value=str(span)) for span, words in FLEET_SPANS.items()]
    bar = [
        html.Button("‹ all", id="fleet-back", hidden=True),
        series_field("fleet-part"),
        html.Select(id="fleet-by", **aria_attribute("label", "Lanes by")),
        html.Select(spans, id="fleet-span", **aria_attribute("label", "Time shown")),
        html.Span(id="fleet-said", role="status", className="soft"),
        html.Span(id="fleet-legend", className="legend"),
    ]
    table = html.Table(
        html.Tbody(id="fleet-lanes"), **aria_attribute("label", "Swim lanes, worst first")
    )
    lanes = [
        table,
        html.P(id="fleet-empty", className="quiet"),
        html.Div(id="fleet-axis", **aria_attribute("hidden", "true")),
        html.Div([html.Button(id="fleet-more", hidden=True), html.Span(id="fleet-beyond")]),
        html.P(id="fleet-found", role="status", className="unseen"),
    ]
    return html.Div(
        [
            html.H2("Fleet", className="unseen"),
            html.Div(bar, className="row bar"),
            html.Div(
                [
                    html.Div(lanes, id="fleet-field"),
                    html.Div(
                        [html.Section(id="fleet-groups"), html.Section(id="fleet-period")],
                        id="fleet-side",
                    ),
                ],
                className="fleet",
            ),
        ],
        id="fleet",
        hidden=True,
    )
