"""The route that lists anomalies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from fastapi import APIRouter, Query, Response

from redline.api.documents import anomaly_document, stored_anomaly
from redline.api.problems import json_answer
from redline.api.routes.data import time_bounds
from redline.api.service import Service
from redline.engine.tape import BUFFER_STEPS
from redline.engine.wording import SEVERITIES
from redline.storage.reading import AnomalyQuery

MAX_SOURCES = 100  # streams one request may name
SeverityName = Literal["info", "warning", "critical"]


class AnomalyFilter(NamedTuple):
    """Filter of a list of anomalies."""

    sources: tuple[str, ...] = ()  # () = all
    start: float = -np.inf  # seconds since the Unix epoch, included
    end: float = np.inf
    rank: int = 0  # the least severity
    alarms: bool = False  # only those that raise an alarm
    after: int = 0  # id, not included
    limit: int = 100
    forward: bool = False  # the first ones after `after` rather than the newest

    def matches(self, document: Mapping[str, Any]) -> bool:
        """Return whether an anomaly's document is wanted, whatever its source."""
        rank = SEVERITIES.index(document["severity"])
        return (
            self.start <= document["time"] < self.end
            and rank >= self.rank
            and document["id"] > self.after
            and (document["alarm"] or not self.alarms)
        )


def connect_anomalies(router: APIRouter, service: Service) -> None:
    """Add the route that lists anomalies."""

    @router.get(
        "/api/anomalies",
        tags=["anomalies"],
        summary="Anomalies, oldest first: the newest `limit`, or the first after an id",
    )
    def anomalies(
        source: Annotated[
            list[str] | None, Query(description="only of these streams", max_length=MAX_SOURCES)
        ] = None,
        start: str | None = None,
        end: str | None = None,
        severity: SeverityName = "info",
        alarms: Annotated[bool, Query(description="only those that raise an alarm")] = False,
        after: Annotated[
            int | None,
            Query(ge=0, le=2**62, description="only those with a higher id, from there on"),
        ] = None,
        limit: Annotated[int, Query(ge=1, le=BUFFER_STEPS)] = 100,
    ) -> Response:
        sources = tuple(dict.fromkeys(source or ()))
        for name in sources:
            service.feed(name)
        start_time, end_time = time_bounds(start, end)
        wanted = AnomalyFilter(
            sources=sources,
            start=start_time,
            end=end_time,
            rank=SEVERITIES.index(severity),
            alarms=alarms,
            after=after or 0,
            limit=limit,
            forward=after is not None,
        )
        found = find_anomalies(service, wanted)
        chosen = found[:limit] if wanted.forward else found[-limit:]
        return json_answer({"anomalies": chosen, "next": chosen[-1]["id"] if chosen else after})


def find_anomalies(service: Service, wanted: AnomalyFilter) -> list[dict[str, Any]]:
    """Return the documents of wanted anomalies by id, from the store or, without one, journals."""
    if service.store:
        rows = service.store.anomalies(store_query(wanted))
        return sorted(
            (stored_anomaly(service.monitor.describe, row) for row in rows), key=anomaly_id
        )
    feeds = [service.feed(name) for name in wanted.sources] or list(service.monitor.feeds.values())
    documents = [
        anomaly_document(feed.stream.names, feed.stream.units, feed.name, anomaly)
        for feed in feeds
        for anomaly in list(feed.journal)
        if anomaly.id > wanted.after
    ]
    return sorted((each for each in documents if wanted.matches(each)), key=anomaly_id)


def anomaly_id(document: Mapping[str, Any]) -> int:
    """Return the id of an anomaly's document."""
    return int(document["id"])


def store_query(wanted: AnomalyFilter) -> AnomalyQuery:
    """Return the query of the store for the wanted anomalies."""
    return AnomalyQuery(
        streams=wanted.sources,
        since=None if wanted.start == -np.inf else wanted.start,
        until=None if wanted.end == np.inf else float(np.nextafter(wanted.end, -np.inf)),
        after=wanted.after if wanted.forward else None,
        severities=SEVERITIES[wanted.rank :] if wanted.rank else (),
        alarms=wanted.alarms,
        limit=wanted.limit,
    )
