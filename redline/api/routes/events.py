"""The route of anomalies as server-sent events."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from redline.api.problems import Problem
from redline.api.routes.anomalies import MAX_SOURCES, SeverityName
from redline.api.service import Service
from redline.api.sse import EventFilter
from redline.engine.wording import SEVERITIES

NO_CACHE = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def connect_events(router: APIRouter, service: Service) -> None:
    """Add the route of anomalies as server-sent events."""
    sse: dict[int | str, dict[str, Any]] = {}
    sse[200] = {
        "description": "server-sent events: `id`, `event: anomaly`, `data`: an anomaly as JSON",
        "content": {"text/event-stream": {}},
    }

    @router.get(
        "/api/stream/anomalies",
        tags=["anomalies"],
        summary="Anomalies as they are found",
        response_class=Response,
        responses=sse,
    )
    async def follow(
        request: Request,
        source: Annotated[
            list[str] | None, Query(description="only of these streams", max_length=MAX_SOURCES)
        ] = None,
        severity: SeverityName = "info",
        last_event_id: Annotated[
            int | None,
            Query(
                ge=0, le=2**62, description="as the header Last-Event-ID, for who cannot set one"
            ),
        ] = None,
    ) -> Response:
        if len(service.hub.clients) >= service.options.followers:
            raise Problem(
                503,
                f"{service.options.followers:,} streams of events are open; come again later",
                headers={"Retry-After": "10"},
            )
        header = request.headers.get("last-event-id", "")
        after = int(header) if header.isdecimal() and len(header) < 19 else last_event_id
        wanted = EventFilter(frozenset(source or ()), SEVERITIES.index(severity))
        return StreamingResponse(
            service.hub.follow(wanted, after), media_type="text/event-stream", headers=NO_CACHE
        )
