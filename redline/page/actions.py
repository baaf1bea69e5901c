"""The actions of a person at the page, on incidents, labels, maintenance and proposals."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import numpy as np

from redline.access.actor import current_actor
from redline.api.service import Service
from redline.engine.feed import Feed
from redline.engine.maintenance import MaintenanceError, MaintenanceWindow
from redline.engine.track import score_history
from redline.engine.wording import format_time, visible_note
from redline.evaluation import metrics
from redline.feedback import proposals
from redline.feedback.labels import EXPECTED_LABEL, Label
from redline.feedback.proposals import LabelledHistory, Proposal
from redline.incidents.incident import (
    SNOOZED,
    SNOOZES,
    UNTIL_NORMAL,
    Change,
    Incident,
    IncidentSettled,
    UnknownIncident,
)
from redline.page.zones import axis_seconds, times_of, zone_words
from redline.settings import Settings

PAGE_ACTOR = "page"  # who acts, in the audit log, where no token is needed


def page_actor() -> str:
    """Return who acts at the page: the name of the token that the browser sent."""
    return current_actor(PAGE_ACTOR)


def act_on_incident(service: Service, id: str, act: str, note: str = "") -> str:
    """Acknowledge, snooze or resolve an incident, write a note, or label its span as expected.

    Returns a sentence that says what was done and by whom. An incident that is settled or unknown
    stays as it is.
    """
    note = visible_note(note)
    if act == "note" and not note:
        return "An empty note is not kept."
    try:
        change = change_incident(service, id, act, time.time(), note)
    except (IncidentSettled, UnknownIncident) as error:
        settled = isinstance(error, IncidentSettled)
        return "It is resolved already." if settled else "This incident is not kept any more."
    service.publish([change])
    detail = {"note": note} if act == "note" else {}
    service.audit(page_actor(), change.what, change.incident.stream, incident=id, **detail)
    done = "expected" if act == "expected" else change.what
    if change.what == SNOOZED:
        done = f"{SNOOZED} {snooze_end(change.incident)}"
    return f"{change.incident.stream}: {done} by {page_actor()}."


def snooze_end(incident: Incident) -> str:
    """Return until when nothing is sent about the stream of an incident."""
    if incident.until == UNTIL_NORMAL:
        return "until normal"
    return f"until {format_time(incident.until, 60.0).split()[-1]} {zone_words(incident.until)}"


def change_incident(service: Service, id: str, act: str, now: float, note: str = "") -> Change:
    """Return the change that an act makes to an incident at a time, seconds since the epoch.

    Raises:
        IncidentSettled: the incident cannot change any more.
        UnknownIncident: there is none with that id.
    """
    incidents = service.incidents
    if act == "acknowledge":
        return incidents.acknowledge(id, page_actor(), now)
    if act == "note":
        return incidents.annotate(id, page_actor(), now, note)
    if act.startswith("snooze ") and act.removeprefix("snooze ") in SNOOZES:
        return incidents.snooze(id, page_actor(), now, act.removeprefix("snooze "))
    if act == "expected":
        found = incidents.get(id)
        feed = service.monitor.find_feed(found.stream)
        if feed is None:  # a stream of an earlier run
            raise UnknownIncident(f"no stream is called {found.stream!r} any more")
        add_label(service, feed, (found.start, found.end), EXPECTED_LABEL)
        if not found.live:
            return incidents.annotate(id, page_actor(), now, EXPECTED_LABEL)
    return incidents.resolve(id, page_actor(), now, act)


def add_label(service: Service, feed: Feed, span: tuple[float, float], kind: str) -> None:
    """Store a person's label of a span of a stream, seconds since the epoch."""
    label = service.labels.add(
        Label(feed.name, *span, kind, page_actor(), time.time()), len(feed.stream.names)
    )
    service.audit(page_actor(), f"labelled {kind}", feed.name, id=label.id)


def find_proposal(service: Service, feed: Feed) -> Proposal | None:
    """Return settings that agree with more labels of the buffer than those applied, None = none."""
    tape = feed.tape
    with feed.lock:
        first = tape.first
        end = tape.end
        seconds = tape.read("time", first, end)[:, 0]
        x = tape.read("x", first, end)
        label = tape.read("label", first, end) if feed.labelled else None
    past = LabelledHistory(seconds, x, label)

    def scorer(settings: Settings, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return score_history(settings, tuple(feed.stream.floors), x)

    return proposals.propose_settings(
        past, service.labels.of_stream(feed.name), feed.applied, scorer, event_f1_at
    )


def event_f1_at(
    score: np.ndarray, alarm: np.ndarray, label: np.ndarray, thresholds: np.ndarray
) -> np.ndarray | None:
    """Return the F1 of events at each threshold, (thresholds,); None without labels."""
    return metrics.threshold_curve(score, alarm, label, thresholds).event_f1


def label_picked(service: Service, feed: Feed | None, picked: Any, kind: str) -> str:
    """Label the point or span that a person picked on the plot; return what was done, by whom.

    Args:
        service: whose labels.
        feed: the stream on display; None = there is none.
        picked: {"stream": the id of the feed it was picked on, "range": its two ends}, None = none.
        kind: one of the kinds of labels.
    """
    if feed is None or not picked or picked["stream"] != feed.id:
        return "Nothing was labelled: click a point of this stream first."
    start, end = sorted(map(axis_seconds, picked["range"]))
    add_label(service, feed, (start, end), kind)
    period = feed.stream.period
    with times_of(feed.stream):
        until = f" to {format_time(end, period)}" if end > start else ""
        return f"{kind}: {format_time(start, period)}{until}, labelled by {page_actor()}"


def mute_picked(service: Service, feed: Feed | None, picked: Any) -> str:
    """Make a maintenance window of the span that a person picked; return what was done, by whom.

    The arguments are those of `label_picked`.
    """
    if feed is None or not picked or picked["stream"] != feed.id:
        return "Nothing was changed: zoom to a span of this stream first."
    start, end = sorted(map(axis_seconds, picked["range"]))
    try:
        window = MaintenanceWindow(feed.name, start, end, page_actor(), time.time())
        service.add_window(window)
    except MaintenanceError as error:
        return f"Nothing was changed: {error}."
    period = feed.stream.period
    with times_of(feed.stream):
        span = f"{format_time(start, period)} to {format_time(end, period)}"
    return f"no alerts: {span}, set by {page_actor()}; take it back under Settings"


def remove_window(service: Service, id: int) -> None:
    """Take a maintenance window back; one that is gone already is no error."""
    with contextlib.suppress(KeyError):
        service.remove_window(id, page_actor())
