"""What a person does at the page: with incidents, with labels of points, with
settings that were proposed.

This room stands on the others, as the page and the API do; it serves one person on this machine,
who needs no token.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from redline.api.service import Service
from redline.engine.feed import Feed
from redline.engine.track import score_history
from redline.evaluation import metrics
from redline.feedback import proposals
from redline.feedback.labels import EXPECTED_LABEL, Label
from redline.feedback.proposals import LabelledHistory, Proposal
from redline.incidents.incident import SNOOZES, Change, IncidentSettled, UnknownIncident
from redline.settings import Settings

PAGE_ACTOR = "page"  # who says so


def act_on_incident(service: Service, id: str, act: str) -> None:
    """Acknowledges, snoozes or resolves an incident, or says that its whole span was expected; what
    is settled already stays so.
    """
    try:
        change = change_incident(service, id, act, time.time())
    except (IncidentSettled, UnknownIncident):
        return
    service.publish([change])
    service.audit(PAGE_ACTOR, change.what, change.incident.stream, incident=id)


def change_incident(service: Service, id: str, act: str, now: float) -> Change:
    incidents = service.incidents
    if act == "acknowledge":
        return incidents.acknowledge(id, PAGE_ACTOR, now)
    if act.startswith("snooze ") and act.removeprefix("snooze ") in SNOOZES:
        return incidents.snooze(id, PAGE_ACTOR, now, act.removeprefix("snooze "))
    if act == "expected":
        found = incidents.get(id)
        add_label(
            service, service.monitor.feeds[found.stream], (found.start, found.end), EXPECTED_LABEL
        )
    return incidents.resolve(id, PAGE_ACTOR, now, act)


def add_label(service: Service, feed: Feed, span: tuple[float, float] | None, kind: str) -> None:
    """Keeps a person's word on a span of a stream, seconds since the epoch; nothing where no span
    was meant.
    """
    if span is None:
        return
    label = service.labels.add(
        Label(feed.name, *span, kind, PAGE_ACTOR, time.time()), len(feed.stream.names)
    )
    service.audit(PAGE_ACTOR, f"labelled {kind}", feed.name, id=label.id)


def find_proposal(service: Service, feed: Feed) -> Proposal | None:
    """Settings that agree with more of what people said of the buffer than those applied; None when
    there are none.
    """
    tape = feed.tape
    with feed.lock:
        first = tape.first
        end = tape.end
        at = tape.read("time", first, end)[:, 0]
        x = tape.read("x", first, end)
        past = LabelledHistory(at, x, tape.read("label", first, end) if feed.labelled else None)

    def scorer(settings: Settings, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return score_history(settings, tuple(feed.stream.floors), x)

    return proposals.propose_settings(
        past, service.labels.of_stream(feed.name), feed.applied, scorer, event_f1_at
    )


def event_f1_at(
    score: np.ndarray, alarm: np.ndarray, label: np.ndarray, thresholds: np.ndarray
) -> np.ndarray | None:
    """F1 of events at each threshold."""
    return metrics.threshold_curve(score, alarm, label, thresholds).event_f1


def selected_span(zoom: Any, click: Any) -> tuple[float, float] | None:
    """The time, seconds since the epoch, that a person speaks of: the span zoomed to, else the
    point clicked.
    """
    if zoom and zoom.get("range"):
        return axis_seconds(zoom["range"][0]), axis_seconds(zoom["range"][1])
    return (axis_seconds(click["points"][0]["x"]),) * 2 if click else None


def axis_seconds(x: str | float) -> float:
    """A place on the chart's x axis, a date in words or milliseconds, in seconds since the epoch.

    >>> axis_seconds("2026-01-05 00:00:01.5"), axis_seconds(1767571201500)
    (1767571201.5, 1767571201.5)
    """
    at = (
        np.datetime64(x.replace(" ", "T"), "us")
        if isinstance(x, str)
        else np.datetime64(round(x * 1000), "us")
    )
    return float(at.astype(np.int64) / 1e6)
