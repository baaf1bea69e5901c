"""The route that finds anomalies."""

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
from redline.storage.reading import AnomalyQuery as Search

SeverityName = Literal["info", "warning", "critical"]


class AnomalyFilter(NamedTuple):
    """Which anomalies are asked for."""

    sources: tuple[str, ...] = ()  # () = all
    start: float = -np.inf  # seconds since the Unix epoch, included
    end: float = np.inf
    rank: int = 0  # the least severity
    alarms: bool = False  # only those that raise an alarm
    after: int = 0  # id, not included
    limit: int = 100
    forward: bool = False  # from `after` on, rather than the newest

    def fits(self, shown: Mapping[str, Any]) -> bool:
        rank = SEVERITIES.index(shown["severity"])
        return (
            self.start <= shown["time"] < self.end
            and rank >= self.rank
            and shown["id"] > self.after
            and (shown["alarm"] or not self.alarms)
        )


def connect_anomalies(router: APIRouter, service: Service) -> None:
    @router.get(
        "/api/anomalies",
        tags=["anomalies"],
        summary="Anomalies, oldest first: the newest `limit`, or the first after an id",
    )
    def anomalies(
        source: Annotated[list[str] | None, Query(description="only of these streams")] = None,
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
        for name in source or ():
            service.feed(name)
        hunt = AnomalyFilter(
            tuple(source or ()),
            *time_bounds(start, end),
            SEVERITIES.index(severity),
            alarms,
            after or 0,
            limit,
            after is not None,
        )
        shown = find_anomalies(service, hunt)
        chosen = shown[:limit] if after is not None else shown[-limit:]
        return json_answer({"anomalies": chosen, "next": chosen[-1]["id"] if chosen else after})


def find_anomalies(service: Service, hunt: AnomalyFilter) -> list[dict[str, Any]]:
    """Those that fit, by id: from the store, or out of the journals where nothing is stored."""
    if service.store:
        return sorted(
            (
                stored_anomaly(service.monitor.feeds, each)
                for source in hunt.sources or (None,)
                for each in service.store.anomalies(store_query(hunt, source))
            ),
            key=anomaly_id,
        )
    feeds = [service.feed(name) for name in hunt.sources] or list(service.monitor.feeds.values())
    shown = [
        anomaly_document(feed.stream.names, feed.stream.units, feed.name, a)
        for feed in feeds
        for a in list(feed.journal)
        if a.id > hunt.after
    ]
    return sorted((each for each in shown if hunt.fits(each)), key=anomaly_id)


def anomaly_id(shown: Mapping[str, Any]) -> int:
    return int(shown["id"])


def store_query(hunt: AnomalyFilter, source: str | None) -> Search:
    since = None if hunt.start == -np.inf else hunt.start
    until = None if hunt.end == np.inf else float(np.nextafter(hunt.end, -np.inf))
    severities = SEVERITIES[hunt.rank :] if hunt.rank else ()
    return Search(
        source,
        since,
        until,
        hunt.after if hunt.forward else None,
        None,
        severities,
        hunt.alarms,
        limit=hunt.limit,
    )
