"""The routes of incidents."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from redline.api.documents import incident_document
from redline.api.problems import json_answer
from redline.api.routes.anomalies import SeverityName
from redline.api.service import Service
from redline.engine.wording import visible_note
from redline.incidents.incident import MAX_INCIDENT_NOTE, STATES, Change, Incident
from redline.incidents.registry import IncidentQuery
from redline.sources.payload import BodyError

IncidentStateName = Literal["open", "acknowledged", "snoozed", "resolved"]
SnoozeLength = Literal["10 min", "1 h", "until normal"]


def connect_alerts(router: APIRouter, service: Service) -> None:
    """Add the routes that list, show and change incidents."""
    _connect_reads(router, service)
    _connect_changes(router, service)


def _connect_reads(router: APIRouter, service: Service) -> None:
    """Add the routes that list incidents and show one."""

    @router.get(
        "/api/alerts", tags=["incidents"], summary="Incidents: live ones first, then the newest"
    )
    def alerts(
        source: str | None = None,
        state: Annotated[
            list[IncidentStateName] | None, Query(description="only in these states; default: all")
        ] = None,
        severity: SeverityName = "info",
        limit: Annotated[int, Query(ge=1, le=1_000)] = 50,
        after: Annotated[str, Query(description="`next` of the page before")] = "",
    ) -> Response:
        if after and after not in service.incidents.items:
            wanted = "the id of an incident that is there, or none to begin again"
            raise BodyError("after", wanted, after)
        query = IncidentQuery(source, tuple(state or STATES), severity, limit, after)
        page = service.incidents.find(query)
        documents = [_document(service, each) for each in page.incidents]
        return json_answer(
            {"incidents": documents, "total": page.total, "next": page.after or None}
        )

    @router.get("/api/alerts/{id}", tags=["incidents"], summary="One incident with its history")
    def alert(id: str) -> Response:
        return json_answer(_document(service, service.incidents.get(id)))


def _connect_changes(router: APIRouter, service: Service) -> None:
    """Add the routes that acknowledge, snooze and resolve an incident."""

    @router.post(
        "/api/alerts/{id}/acknowledge",
        tags=["incidents"],
        summary="Acknowledge it: it is not sent again unless it gets worse",
    )
    def acknowledge(request: Request, id: str) -> Response:
        change = service.incidents.acknowledge(id, request.state.who, time.time())
        return _answer_change(service, request, change)

    @router.post(
        "/api/alerts/{id}/snooze",
        tags=["incidents"],
        summary="Send nothing for this stream for a while",
    )
    def snooze(
        request: Request, id: str, length: Annotated[SnoozeLength, Query(alias="for")] = "10 min"
    ) -> Response:
        change = service.incidents.snooze(id, request.state.who, time.time(), length)
        return _answer_change(service, request, change)

    @router.post("/api/alerts/{id}/resolve", tags=["incidents"], summary="Resolve it by hand")
    def resolve(
        request: Request, id: str, note: Annotated[str, Query(max_length=MAX_INCIDENT_NOTE)] = ""
    ) -> Response:
        change = service.incidents.resolve(id, request.state.who, time.time(), note)
        return _answer_change(service, request, change)

    @router.post(
        "/api/alerts/{id}/note",
        tags=["incidents"],
        summary="Write a note on it, live or resolved",
    )
    def note(
        request: Request,
        id: str,
        note: Annotated[str, Query(min_length=1, max_length=MAX_INCIDENT_NOTE)],
    ) -> Response:
        note = visible_note(note)
        if not note:
            raise BodyError("note", "text that can be seen", "none")
        change = service.incidents.annotate(id, request.state.who, time.time(), note)
        return _answer_change(service, request, change, note=note)


def _document(service: Service, incident: Incident) -> dict[str, Any]:
    """Return the document of an incident, with the id of its group."""
    document = incident_document(service.monitor.describe, incident)
    return document | {"group": service.joint.group_of(incident.id)}


def _answer_change(service: Service, request: Request, change: Change, **detail: str) -> Response:
    """Publish and audit a person's change of an incident, and answer with the incident."""
    service.publish([change])
    incident = change.incident
    service.audit(request.state.who, change.what, incident.stream, incident=incident.id, **detail)
    return json_answer(_document(service, change.incident))
