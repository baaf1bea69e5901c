"""The route of a stream's points and scores."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from redline.api.history import MEDIA_TYPES, HistoryFormat, HistoryRange, format_rows, history_rows
from redline.api.service import MAX_STREAM_NAME, Service
from redline.sources.payload import BodyError, parse_time

MAX_ANSWER_POINTS = 100_000  # points of one answer
MAX_ANSWER_CELLS = 2_000_000  # points times features of one answer


def time_bounds(start: str | None, end: str | None) -> tuple[float, float]:
    """Return the two ends of a query's time range in seconds since the Unix epoch; None = open."""
    first = -np.inf if start is None else parse_time(start, "start")
    last = np.inf if end is None else parse_time(end, "end")
    return first, last


def refuse_wide_answer(features: int, limit: int) -> None:
    """Refuse an answer of more values than are read at once, before any of them is read."""
    most = MAX_ANSWER_CELLS // features
    if limit > most:
        raise BodyError(
            "limit", f"at most {most:,} points of {features:,} features at once", f"{limit:,}"
        )


def connect_data(router: APIRouter, service: Service) -> None:
    """Add the route of a stream's points and scores."""

    @router.get(
        "/api/data/{source:path}",
        tags=["streams"],
        summary="Points, scores and anomalies of a stream, oldest first",
        responses={
            200: {
                "content": {
                    kind: {"schema": {"type": "string"}}
                    for kind in ("text/csv", "application/x-ndjson")
                }
            }
        },
    )
    def data(
        request: Request,
        source: Annotated[str, Path(max_length=MAX_STREAM_NAME)],
        start: Annotated[
            str | None,
            Query(
                description=(
                    "first time, Unix seconds or ISO 8601; then the oldest `limit` points "
                    "from there on"
                )
            ),
        ] = None,
        end: Annotated[str | None, Query(description="first time not wanted any more")] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_ANSWER_POINTS)] = 1_000,
        thin: Annotated[
            int,
            Query(
                ge=0,
                le=MAX_ANSWER_POINTS,
                description="leave about so many, every anomaly among them; 0 = all",
            ),
        ] = 0,
        format: HistoryFormat = "json",
    ) -> Response:
        feed = service.feed(source)
        refuse_wide_answer(len(feed.stream.names), limit)
        asked = HistoryRange(*time_bounds(start, end), limit, start is not None, thin)
        found = history_rows(feed, service.store, asked)
        return StreamingResponse(format_rows(feed, found, format), media_type=MEDIA_TYPES[format])
