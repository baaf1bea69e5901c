"""The routes of streams and their descriptions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from redline.api.problems import json_answer
from redline.api.service import Service
from redline.engine.feed import Feed, is_finished
from redline.sources.pushed import PushedStream
from redline.sources.recording import Recording

RESTORED_AT_ONCE = 50  # streams whose past one request has restored; the next one continues


def connect_streams(router: APIRouter, service: Service) -> None:
    """Add the routes that list streams and describe one."""

    @router.get(
        "/api/streams",
        tags=["streams"],
        summary="Every stream with its features and applied settings",
    )
    def streams(limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000, after: str = "") -> Response:
        names = list(service.monitor.feeds)
        start = names.index(after) + 1 if after in names else 0
        feeds = [service.monitor.feeds[name] for name in names[start : start + limit]]
        asleep = [feed for feed in feeds if not feed.ready]
        service.wait_until_restored(asleep[:RESTORED_AT_ONCE])
        return json_answer(
            {
                "streams": [stream_description(feed) for feed in feeds],
                "total": len(names),
                "next": names[start + limit - 1] if start + limit < len(names) else None,
            }
        )

    @router.get("/api/streams/{source:path}", tags=["streams"], summary="One stream")
    def stream(source: Annotated[str, Path(max_length=1_000)]) -> Response:
        return json_answer(stream_description(service.feed(source)))


def stream_kind(feed: Feed) -> str:
    """Return where a stream comes from: pushed, recording, live or simulated."""
    if isinstance(feed.stream, PushedStream):
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
