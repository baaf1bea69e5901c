"""What a person at the page says and does: of incidents, of points that were strange or not, of settings that were proposed.

This room stands on the others, as the page and the API do; it serves one person on this machine, who needs no token.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from redline import evaluate, labels
from redline.alerts import SNOOZES, Change, Settled, UnknownIncident
from redline.api import Service
from redline.labels import EXPECTED, Label, Past, Proposal
from redline.monitor import Feed
from redline.settings import Settings
from redline.sight import forget, scored

PAGE = "page"  # who says so


def heeded(service: Service) -> None:
    """From now on what people said counts as truth on the page, and what the store keeps can be looked back to."""

    def truth(name: str, label: np.ndarray | None, at: np.ndarray) -> np.ndarray | None:
        said = service.labels.of(name)
        return labels.merged(label, at, said, service.monitor.feeds[name].tape.columns["x"].shape[1]) if said else label

    service.monitor.truth, service.labels.heard = truth, forget
    service.monitor.past = service.store.points if service.store else None


def acted_on(service: Service, id: str, act: str) -> None:
    """Acknowledges, snoozes or resolves an incident, or says that its whole span was expected; what is settled already stays so."""
    try:
        change = changed(service, id, act, time.time())
    except (Settled, UnknownIncident):
        return
    service.changed([change])
    noted(service, change.what, change.incident.stream, incident=id)


def changed(service: Service, id: str, act: str, now: float) -> Change:
    incidents = service.incidents
    if act == "acknowledge":
        return incidents.acknowledge(id, PAGE, now)
    if act.startswith("snooze ") and act.removeprefix("snooze ") in SNOOZES:
        return incidents.snooze(id, PAGE, now, act.removeprefix("snooze "))
    if act == "expected":
        found = incidents.one(id)
        say(service, service.monitor.feeds[found.stream], (found.start, found.end), EXPECTED)
    return incidents.resolve(id, PAGE, now, act)


def say(service: Service, feed: Feed, span: tuple[float, float] | None, kind: str) -> None:
    """Keeps a person's word on a span of a stream, seconds since the epoch; nothing where no span was meant."""
    if span is None:
        return
    label = service.labels.add(Label(feed.name, *span, kind, PAGE, time.time()), len(feed.stream.names))
    noted(service, f"labelled {kind}", feed.name, id=label.id)


def noted(service: Service, what: str, stream: str, **detail: Any) -> None:
    if service.store:
        service.store.record(PAGE, what, stream, detail)


def proposed(service: Service, feed: Feed) -> Proposal | None:
    """Settings that agree with more of what people said of the buffer than those applied; None when there are none."""
    tape = feed.tape
    with feed.lock:
        first, end = tape.first, tape.end
        at, x = tape.read("time", first, end)[:, 0], tape.read("x", first, end)
        past = Past(at, x, tape.read("label", first, end) if feed.labelled else None)

    def scorer(settings: Settings, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return scored(settings, tuple(feed.stream.floors), x)

    return labels.propose(past, service.labels.of(feed.name), feed.applied, scorer, judge)


def judge(score: np.ndarray, alarm: np.ndarray, label: np.ndarray, thresholds: np.ndarray) -> np.ndarray | None:
    """F1 of events at each threshold."""
    return evaluate.curve(score, alarm, label, thresholds).event_f1


def span_said(zoom: Any, click: Any) -> tuple[float, float] | None:
    """The time, seconds since the epoch, that a person speaks of: the span zoomed to, else the point clicked."""
    if zoom and zoom.get("range"):
        return seconds(zoom["range"][0]), seconds(zoom["range"][1])
    return (seconds(click["points"][0]["x"]),) * 2 if click else None


def seconds(x: str | float) -> float:
    """A place on the chart's x axis, a date in words or milliseconds, in seconds since the epoch.

    >>> seconds("2026-01-05 00:00:01.5"), seconds(1767571201500)
    (1767571201.5, 1767571201.5)
    """
    at = np.datetime64(x.replace(" ", "T"), "us") if isinstance(x, str) else np.datetime64(round(x * 1000), "us")
    return float(at.astype(np.int64) / 1e6)
