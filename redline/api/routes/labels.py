"""Routes of labels."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request, Response

from redline.api.documents import label_document
from redline.api.payload import BodyError, parse_time
from redline.api.problems import Problem, json_answer
from redline.api.service import Service
from redline.feedback.labels import Label


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
    @router.get("/api/labels", tags=["labels"], summary="What people said of a stream")
    def labels(source: str) -> Response:
        return json_answer(
            {
                "labels": [
                    label_document(service.monitor.feeds, label)
                    for label in service.labels.of_stream(service.feed(source).name)
                ]
            }
        )

    @router.post(
        "/api/labels",
        tags=["labels"],
        summary="Say that a point or span was expected, or missed",
        status_code=201,
    )
    def say(request: Request, word: LabelBody) -> Response:
        feed = service.feed(word.source)
        names = feed.stream.names
        if word.feature is not None and word.feature not in names:
            raise BodyError("feature", f"one of {', '.join(names)}, or none for all", word.feature)
        span = (
            parse_time(word.start, "start"),
            parse_time(word.start if word.end is None else word.end, "end"),
        )
        feature = None if word.feature is None else names.index(word.feature)
        label = Label(
            feed.name, *span, word.kind, request.state.who, time.time(), feature, word.note
        )
        label = service.labels.add(label, len(names))
        service.audit(request.state.who, f"labelled {word.kind}", feed.name, id=label.id)
        return json_answer(label_document(service.monitor.feeds, label), 201)

    @router.delete("/api/labels/{id}", tags=["labels"], summary="Take a label back")
    def remove(request: Request, id: Annotated[int, Path(ge=1, le=2**62)]) -> Response:
        try:
            label = service.labels.remove(id)
        except KeyError:
            raise Problem(404, f"there is no label {id}") from None
        service.audit(request.state.who, "took a label back", label.stream, id=id)
        return json_answer(label_document(service.monitor.feeds, label))
