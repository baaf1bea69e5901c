"""The routes of maintenance windows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from redline.api.problems import Problem, json_answer
from redline.api.service import Service
from redline.engine.maintenance import MaintenanceWindow
from redline.sources.payload import parse_time


@dataclass
class MaintenanceBody:
    """A time range of a stream in which nothing is alerted; it may lie in the future."""

    source: str
    start: float | str  # Unix seconds or ISO 8601, the stream's own time
    end: float | str
    note: str = ""


def connect_maintenance(router: APIRouter, service: Service) -> None:
    """Add the routes that list, add and remove maintenance windows."""
    windows = service.monitor.maintenance

    @router.get(
        "/api/maintenance", tags=["maintenance"], summary="The maintenance windows, oldest first"
    )
    def listed(source: str | None = None) -> Response:
        found = windows.of_stream(source and service.feed(source).name)
        return json_answer({"windows": [window_document(window) for window in found]})

    @router.post(
        "/api/maintenance",
        tags=["maintenance"],
        summary="Alert nothing on a stream from a start to an end",
        status_code=201,
    )
    def add(request: Request, body: MaintenanceBody) -> Response:
        feed = service.feed(body.source)
        window = MaintenanceWindow(
            stream=feed.name,
            start=parse_time(body.start, "start"),
            end=parse_time(body.end, "end"),
            who=request.state.who,
            at=time.time(),
            note=body.note,
        )
        return json_answer(window_document(service.add_window(window)), 201)

    @router.delete(
        "/api/maintenance/{id}", tags=["maintenance"], summary="Take a maintenance window back"
    )
    def remove(request: Request, id: Annotated[int, Path(ge=1, le=2**62)]) -> Response:
        try:
            window = service.remove_window(id, request.state.who)
        except KeyError:
            raise Problem(404, f"there is no maintenance window {id}") from None
        return json_answer(window_document(window))


def window_document(window: MaintenanceWindow) -> dict[str, Any]:
    """Return the document of a maintenance window."""
    document = window._asdict()
    return {"id": document.pop("id"), "source": document.pop("stream"), **document}
