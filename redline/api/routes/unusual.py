"""The route of what was unusual in a period, over all series."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from redline.api.problems import json_answer
from redline.api.service import MAX_STREAM_NAME, Service
from redline.incidents.unusual import UNUSUAL_ROWS, UnusualPeriod, unusual_between
from redline.sources.payload import BodyError, parse_time
from redline.sources.selectors import parse_selectors

USUAL_PERIOD = 3_600.0  # seconds before the end, where no start is given
MAX_UNUSUAL_ROWS = 1_000


def connect_unusual(router: APIRouter, service: Service) -> None:
    """Add the route of what was unusual in a period."""

    @router.get(
        "/api/unusual",
        tags=["incidents"],
        summary="What was unusual in a period: series and label values, ranked",
    )
    def unusual(
        start: Annotated[
            str | None,
            Query(description="Unix seconds or ISO 8601; without it an hour before the end"),
        ] = None,
        end: Annotated[str | None, Query(description="without it now")] = None,
        by: Annotated[
            str, Query(max_length=MAX_STREAM_NAME, description="only values of this label")
        ] = "",
        select: Annotated[
            str,
            Query(
                max_length=MAX_STREAM_NAME,
                description='of these series: a selector such as {job="web"}, or a part of a name',
            ),
        ] = "",
        limit: Annotated[int, Query(ge=1, le=MAX_UNUSUAL_ROWS)] = UNUSUAL_ROWS,
    ) -> Response:
        last = time.time() if end is None else parse_time(end, "end")
        first = last - USUAL_PERIOD if start is None else parse_time(start, "start")
        if first >= last:
            raise BodyError("end", f"a time after the start, {first:.0f}", f"{last:.0f}")
        if "{" in select:
            parse_selectors([select])  # one that is wrong is refused
        found = unusual_between(service.lanes, first, last, select, limit, by)
        known = service.monitor.series.worst.known_since()
        return json_answer({"start": first, "end": last, "known": known, **unusual_document(found)})


def unusual_document(found: UnusualPeriod) -> dict[str, Any]:
    """Return the document of what was unusual."""
    return {
        "watched": found.watched,
        "anomalous": found.anomalous,
        "series": [
            {"source": each.name, "score": each.score, "threshold": each.threshold}
            for each in found.series
        ],
        "labels": [each._asdict() for each in found.values],
    }
