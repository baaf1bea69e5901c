"""The list of incidents: of one stream or of all, filtered, grouped by day, with what can be done
about each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from dash import dcc, html

from redline.engine import wording
from redline.engine.feed import Feed
from redline.incidents.incident import (
    ACKNOWLEDGED,
    LIVE_STATES,
    NOTED,
    RESOLVED,
    SNOOZED,
    SNOOZES,
    STATES,
    SYSTEM_ACTOR,
    HistoryEntry,
    Incident,
)
from redline.incidents.joint import JointIncidents
from redline.incidents.registry import MAX_RESOLVED, IncidentQuery, Incidents
from redline.page.actions import snooze_end
from redline.page.panels import (
    SEVERITY_INDEX_HELP,
    aria_attribute,
    data_attribute,
    dropdown,
    empty_state,
    moment_attribute,
)
from redline.page.query import incident_text
from redline.page.zones import local_day, times_of
from streams import Simulated

LISTED_INCIDENTS = 50
SIMULATED = "simulated"  # what is written beside an incident of a simulated stream
SCOPES = {"stream": "this stream", "all": "all streams"}
LIVE = "live"
# value of the filter -> the states that it lets through
STATE_FILTERS = {
    "any": STATES,
    LIVE: LIVE_STATES,
    **{state: (state,) for state in STATES},
}


class IncidentFilter(NamedTuple):
    """What a visitor wants to see in the list."""

    stream: str | None = None  # one stream; None = all of them
    part: str = ""  # of the name or title of a stream
    states: tuple[str, ...] = STATES
    severity: str = wording.SEVERITIES[0]  # at least


def incident_area() -> html.Div:
    """Return the list, still empty, with its filters."""
    scope = dcc.RadioItems(SCOPES, "stream", id="incident-scope", inline=True, className="by")
    severities = {name: f"{name} or worse" for name in wording.SEVERITIES}
    severities |= {wording.SEVERITIES[0]: "any severity"}
    states = {name: "any state" if name == "any" else name for name in STATE_FILTERS}
    part = dcc.Input(
        id="incident-stream", type="search", debounce=False, placeholder="part of a stream's name"
    )
    filters = [
        html.Div(scope, role="group", **aria_attribute("label", "Incidents of")),
        dropdown("incident-severity", severities, "info"),
        dropdown("incident-state", states, "any"),
        part,
        html.Span(id="incident-said", role="status", className="soft"),
    ]
    return html.Div([html.Div(filters, className="row small filters"), html.Div(id="incidents")])


def note_dialog() -> html.Dialog:
    """Return the dialog in which a note on an incident is written."""
    return html.Dialog(
        [
            html.B("Note on this incident", id="note-title"),
            html.P(id="note-on", className="soft"),
            dcc.Textarea(id="note-text", maxLength=1_000, rows=3),
            html.Div(
                [
                    html.Button("Write the note", id="note-write", className="solid"),
                    html.Button("Cancel", id="note-cancel"),
                ],
                className="acts",
            ),
        ],
        id="note",
        **aria_attribute("labelledby", "note-title"),
    )


def find_incidents(
    incidents: Incidents, feeds: Mapping[str, Feed], wanted: IncidentFilter
) -> tuple[list[Incident], int]:
    """Return the incidents that pass a filter, live ones first, and how many more there are."""
    query = IncidentQuery(wanted.stream, wanted.states, wanted.severity, limit=2 * MAX_RESOLVED)
    part = wanted.part.strip().casefold()
    found = [
        incident
        for incident in incidents.find(query).incidents
        if part in f"{incident.stream}\n{stream_title(feeds, incident.stream)}".casefold()
    ]
    return found[:LISTED_INCIDENTS], max(0, len(found) - LISTED_INCIDENTS)


def stream_title(feeds: Mapping[str, Feed], name: str) -> str:
    """Return the title of a stream, its name where it is not watched any more."""
    feed = feeds.get(name)
    return feed.stream.title if feed else name


def incident_list(
    incidents: Incidents,
    feeds: Mapping[str, Feed],
    wanted: IncidentFilter,
    joint: JointIncidents | None = None,
) -> list[Any]:
    """Return the incidents that pass a filter by day, newest day first, live ones first in it.

    joint: those of all streams that began together are listed under what they have in common.
    """
    found, hidden = find_incidents(incidents, feeds, wanted)
    if not found:
        unfiltered = wanted[1:] == IncidentFilter()[1:]
        return empty_state("No incidents." if unfiltered else "No incident passes this filter.")
    days: dict[date, list[Incident]] = {}
    for incident in found:
        feed = feeds.get(incident.stream)
        with times_of(feed.stream if feed else None):
            days.setdefault(local_day(incident.start), []).append(incident)
    shown: list[Any] = []
    for day in sorted(days, reverse=True):
        shown.append(html.H3(f"{day}"))
        if joint is not None and wanted.stream is None:
            shown += joined_entries(feeds, days[day], joint)
        else:
            named = wanted.stream is None
            shown += [incident_entry(feeds, incident, named) for incident in days[day]]
    if hidden:
        shown.append(html.P(f"and {hidden:,} more: /api/alerts", className="quiet"))
    return shown


def joined_entries(
    feeds: Mapping[str, Feed], found: Sequence[Incident], joint: JointIncidents
) -> list[Any]:
    """Return the incidents of a day, those of a group under its sentence, at its first one."""
    groups = {group.id: group for group in joint.groups()}
    together: dict[str, list[Incident]] = {}
    for incident in found:
        together.setdefault(joint.group_of(incident.id) or incident.id, []).append(incident)
    shown: list[Any] = []
    for key, own in together.items():
        entries = [incident_entry(feeds, incident, True) for incident in own]
        if key in groups and len(own) > 1:
            sentence = html.P(groups[key].sentence, className="joint")
            shown.append(html.Div([sentence, *entries], className="together"))
        else:
            shown += entries
    return shown


def incident_entry(feeds: Mapping[str, Feed], incident: Incident, named: bool) -> html.Div:
    """Return one incident with its buttons; `named` = with the title of its stream."""
    feed = feeds.get(incident.stream)
    with times_of(feed.stream if feed else None):
        when = wording.format_time(incident.start, feed.stream.period if feed else 1.0)
    severity = incident.severity
    name = stream_title(feeds, incident.stream)
    title: list[Any] = [html.Span(name, className="name", title=name)] if named else []
    if feed is not None and isinstance(feed.stream, Simulated):
        title.append(html.Small(SIMULATED, title="an incident of a simulated stream"))
    place = data_attribute("step", incident.peak.step) | data_attribute("stream", incident.stream)
    peak = incident.peak
    index = html.Small(
        str(wording.severity_index(peak.score, peak.threshold)), title=SEVERITY_INDEX_HELP
    )
    head = html.Button(
        [
            html.I(className=f"mark {severity}"),
            html.Span(when, **moment_attribute(feed, incident.start)),
            *title,
            html.B(severity),
            index,
        ],
        className="link",
        **place,
    )
    count = f"{incident.alarms} alarm{'s' if incident.alarms > 1 else ''}"
    answer = html.Em(className="answer", **data_attribute("answer", incident.id))
    said = incident_text(feed, incident)
    text = html.Small([said, html.Em(f" {count}, {state_words(incident)} "), answer])
    notes = [
        html.Small(f"{entry.who}: {entry.note}", className="note")
        for entry in incident.history
        if entry.what == NOTED
    ]
    return html.Div(
        [head, html.Div([text, *notes]), html.Span(_act_buttons(incident), className="row small")],
        className=f"incident is-{incident.state}",
    )


def _act_buttons(incident: Incident) -> list[html.Button]:
    """Return the buttons of what can be done about an incident; each is named by it too."""
    acts = ["expected", "note"]
    if incident.live:
        snoozes = [f"snooze {length}" for length in SNOOZES]
        first = [] if incident.acknowledged else ["acknowledge"]
        acts = [*first, *snoozes, "expected", "resolve", "note"]
    target = data_attribute("incident", incident.id)
    return [
        html.Button(act, className="link", **data_attribute("act", act), **target) for act in acts
    ]


def state_words(incident: Incident) -> str:
    """Return the state of an incident, and which person brought it there."""
    if incident.state == ACKNOWLEDGED:
        return f"{ACKNOWLEDGED} by {incident.acknowledged}"
    entry = last_entry(incident, incident.state)
    if entry is None or entry.who == SYSTEM_ACTOR or incident.state not in (SNOOZED, RESOLVED):
        return incident.state
    if incident.state == SNOOZED:
        return f"{SNOOZED} {snooze_end(incident)} by {entry.who}"
    why = "" if entry.note in ("", "resolve") else f" ({entry.note})"
    return f"{RESOLVED} by {entry.who}{why}"


def last_entry(incident: Incident, what: str) -> HistoryEntry | None:
    """Return the last entry of a kind in an incident's history; None = there is none."""
    found = [entry for entry in incident.history if entry.what == what]
    return found[-1] if found else None
