"""The routes of streams and their descriptions."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Query, Request, Response

from redline.api.problems import Problem, json_answer
from redline.api.service import COMMIT_TIMEOUT, MAX_STREAM_NAME, Service, unknown_stream
from redline.engine.feed import Feed, is_finished
from redline.engine.fleet.series_monitor import SeriesMonitor
from redline.engine.fleet.series_views import SeriesStream
from redline.sources.payload import BodyError
from redline.sources.pushed import PushedStream
from redline.sources.recording import Recording
from redline.storage.errors import StoreError

StreamName = Annotated[str, Path(max_length=MAX_STREAM_NAME)]
RESTORED_AT_ONCE = 50  # streams whose past one request has restored; the next one continues


def connect_streams(router: APIRouter, service: Service) -> None:
    """Add the routes that list streams and describe one."""

    @router.get(
        "/api/streams",
        tags=["streams"],
        summary="Every stream with its features and applied settings",
    )
    def streams(limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000, after: str = "") -> Response:
        feeds = dict(service.monitor.feeds)
        series = service.monitor.series
        names = [*feeds, *series.names()]
        if after and after not in names:
            wanted = "the name of a stream that is there, or none to begin again"
            raise BodyError("after", wanted, after)
        start = names.index(after) + 1 if after else 0
        shown = names[start : start + limit]
        asleep = [feeds[name] for name in shown if name in feeds and not feeds[name].ready]
        service.wait_until_restored(asleep[:RESTORED_AT_ONCE])
        found = [
            stream_description(feeds[name]) if name in feeds else series_description(series, name)
            for name in shown
        ]
        return json_answer(
            {
                "streams": [description for description in found if description],
                "total": len(names),
                "next": names[start + limit - 1] if start + limit < len(names) else None,
            }
        )

    @router.get("/api/streams/{source:path}", tags=["streams"], summary="One stream")
    def stream(source: StreamName) -> Response:
        return json_answer(stream_description(service.feed(source)))

    @router.delete(
        "/api/streams/{source:path}",
        tags=["streams"],
        summary="Remove a source that programs push, with its points and anomalies",
    )
    def remove(request: Request, source: StreamName) -> Response:
        monitor = service.monitor
        if not (monitor.knows(source) or source in monitor.forgotten):
            raise unknown_stream(source)
        try:
            service.monitor.remove_source(source).result(COMMIT_TIMEOUT)
        except TimeoutError:
            detail = f"{source} is not removed yet; the loop is busy, send the same again"
            raise Problem(503, detail, headers={"Retry-After": "5"}) from None
        except StoreError:
            raise
        except OSError as error:
            raise Problem(503, str(error), headers={"Retry-After": "5"}) from error
        service.publish(service.incidents.reset_stream(source, time.time()))
        service.audit(request.state.who, "remove", source)
        return json_answer({"removed": source})


def series_description(series: SeriesMonitor, name: str) -> dict[str, Any] | None:
    """Return the document of a series without reading its past; None = it has just gone."""
    number = series.find(name)
    if number is None:
        return None
    summary = series.summary(number)
    newest = None if np.isinf(summary.newest) else summary.newest
    return {
        "source": name,
        "title": name,
        "about": SeriesStream.about,
        "kind": "pushed",
        "features": [{"name": each, "unit": ""} for each in SeriesStream.names],
        "period": None,
        "points": summary.points,
        "first": None,
        "end": summary.steps,
        "from": None,
        "to": newest,
        "anomalies": summary.anomalies,
        "alarms": summary.alarms,
        "applied": asdict(summary.settings),
        "status": "live",
        "arrived": newest,
    }


def stream_kind(feed: Feed) -> str:
    """Return where a stream comes from: pushed, recording, live or simulated."""
    if isinstance(feed.stream, PushedStream | SeriesStream):
        return "pushed"
    if isinstance(feed.stream, Recording):
        return "recording"
    return "live" if feed.own_clock else "simulated"


def stream_description(feed: Feed) -> dict[str, Any]:
    """Return the document of a stream: its features, time range, counts, settings and status."""
    stream = feed.stream
    first = feed.tape.first
    oldest = None
    newest = None
    with feed.lock:
        if feed.end > first:
            oldest, newest = feed.tape.read("time", first, feed.end)[[0, -1], 0].tolist()
    return {
        "source": feed.name,
        "title": stream.title,
        "about": stream.about,
        "kind": stream_kind(feed),
        "features": [
            {"name": name, "unit": unit} for name, unit in zip(stream.names, stream.units)
        ],
        "period": stream.period,
        "points": feed.points,
        "first": first,
        "end": feed.end,
        "from": oldest,
        "to": newest,
        "anomalies": feed.anomalies,
        "alarms": feed.alarms,
        "applied": asdict(feed.applied),
        "status": stream_status(feed),
        "arrived": feed.arrived,
    }


def stream_status(feed: Feed) -> str:
    """Return the state of a stream under its applied settings, in a few words."""
    if failure := feed.failure or feed.applied_track.failure:
        return f"failed, id {failure.id}"
    if not feed.ready:
        return "being fetched from the store"
    if is_finished(feed):
        return "end of file"
    return "live" if feed.end else "no points yet"
