"""The routes of labels."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request, Response

from redline.api.documents import label_document
from redline.api.problems import Problem, json_answer
from redline.api.service import Service
from redline.feedback.labels import Label
from redline.sources.payload import BodyError, parse_time


@dataclass
class LabelBody:
    """A label on a point or span of a stream."""

    source: str
    kind: Literal["expected", "missed"]
    start: float | str  # Unix seconds or ISO 8601
    end: float | str | None = None  # the same as start for a point
    feature: str | None = None  # all of them
    note: str = ""


def connect_labels(router: APIRouter, service: Service) -> None:
    """Add the routes that list, add and remove labels."""

    @router.get("/api/labels", tags=["labels"], summary="What people said of a stream")
    def labels(source: str) -> Response:
        found = service.labels.of_stream(service.feed(source).name)
        return json_answer(
            {"labels": [label_document(service.monitor.describe, label) for label in found]}
        )

    @router.post(
        "/api/labels",
        tags=["labels"],
        summary="Say that a point or span was expected, or missed",
        status_code=201,
    )
    def say(request: Request, body: LabelBody) -> Response:
        feed = service.feed(body.source)
        names = feed.stream.names
        if body.feature is not None and body.feature not in names:
            raise BodyError("feature", f"one of {', '.join(names)}, or none for all", body.feature)
        label = Label(
            stream=feed.name,
            start=parse_time(body.start, "start"),
            end=parse_time(body.start if body.end is None else body.end, "end"),
            kind=body.kind,
            who=request.state.who,
            at=time.time(),
            feature=None if body.feature is None else names.index(body.feature),
            note=body.note,
        )
        label = service.labels.add(label, len(names))
        service.audit(request.state.who, f"labelled {body.kind}", feed.name, id=label.id)
        return json_answer(label_document(service.monitor.describe, label), 201)

    @router.delete("/api/labels/{id}", tags=["labels"], summary="Take a label back")
    def remove(request: Request, id: Annotated[int, Path(ge=1, le=2**62)]) -> Response:
        try:
            label = service.labels.remove(id)
        except KeyError:
            raise Problem(404, f"there is no label {id}") from None
        service.audit(request.state.who, "took a label back", label.stream, id=id)
        return json_answer(label_document(service.monitor.describe, label))
