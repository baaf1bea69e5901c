"""Routes that say how the service is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Response

from redline.api.problems import json_answer
from redline.api.service import API_VERSION, Service
from redline.engine.feed import Feed
from redline.sources.pushed import PushedStream

MAX_SILENT_SECONDS = 5.0  # seconds without a beat of the loop after which the server is called dead


def connect_health(router: APIRouter, service: Service) -> None:
    @router.get(
        "/health",
        tags=["state"],
        summary="Live and ready, with reasons",
        responses={503: {"description": "not live, or not ready"}},
    )
    async def health() -> Response:
        state = health_report(service)
        return json_answer(state, 200 if state["live"] and state["ready"] else 503)

    @router.get("/api/status", tags=["state"], summary="What the server does, in numbers")
    def status() -> Response:
        return json_answer(status_report(service))

    @router.get("/api/stats", tags=["state"], summary="What was counted, stream by stream")
    def stats(source: str | None = None) -> Response:
        feeds = (
            [service.feed(source)] if source is not None else list(service.monitor.feeds.values())
        )
        return json_answer({"streams": [stream_counts(feed) for feed in feeds]})


def health_report(service: Service) -> dict[str, Any]:
    """Live: the loop beats. Ready: it also keeps what it finds."""
    monitor = service.monitor
    reasons = []
    silent = monitor.clock() - monitor.last_beat
    started = monitor.thread is not None
    live = not started or (monitor.thread.is_alive() and silent < MAX_SILENT_SECONDS)  # type: ignore[union-attr]
    if not started:
        reasons.append("the loop has not started")
    elif not live:
        reasons.append(f"the loop has not beaten for {silent:.0f} s")
    trouble = monitor.outbox.trouble
    if trouble:
        reasons.append(f"the store: {trouble.text}")
    failing = sorted(feed.name for feed in list(monitor.feeds.values()) if feed.failure)
    notes = [f"{name} failed, the other streams go on" for name in failing[:10]]
    return {
        "live": live,
        "ready": live and started and not trouble,
        "reasons": reasons,
        "notes": notes,
    }


def status_report(service: Service) -> dict[str, Any]:
    feeds = list(service.monitor.feeds.values())
    points = sum(feed.points for feed in feeds)
    anomalies = sum(feed.anomalies for feed in feeds)
    counts: dict[str, Any] = {
        "streams": len(feeds),
        "points": points,
        "anomalies": anomalies,
        "alarms": sum(feed.alarms for feed in feeds),
    }
    counts |= {
        "rate": anomalies / points if points else 0.0,
        "failing": sorted(feed.name for feed in feeds if feed.failure),
    }
    hub = service.hub
    rooms: dict[str, Any] = {"queue": queue_lengths(feeds), "store": storage_report(service)}
    rooms["events"] = {
        "clients": len(hub.clients),
        "newest": hub.newest,
        "sent": hub.sent,
        "slow": hub.slow,
    }
    rooms["calls"] = service.notifier.status() if service.notifier else []
    rooms["requests"] = {"too_often": service.rate_limiter.refused, "too_big": service.oversized}
    return {"version": API_VERSION, "up_seconds": time.time() - service.began, **counts, **rooms}


def queue_lengths(feeds: Sequence[Feed]) -> dict[str, int]:
    """What waits in the queues of pushed streams, and what was not simply taken."""
    pushed = [feed.stream for feed in feeds if isinstance(feed.stream, PushedStream)]
    counts = {
        fact: sum(stream.notes.get(fact, 0) for stream in pushed)
        for fact in ("repeated", "late", "refused")
    }
    return {"waiting": sum(stream.waiting for stream in pushed), **counts}


def storage_report(service: Service) -> dict[str, Any]:
    """How the store does: batches that wait for it, batches given up, and what is wrong with it."""
    outbox = service.monitor.outbox
    trouble = outbox.trouble.text if outbox.trouble else None
    return {
        "kept": outbox.store is not None,
        "waiting": len(outbox.waiting),
        "lost": outbox.lost,
        "trouble": trouble,
    }


def stream_counts(feed: Feed) -> dict[str, Any]:
    """The counters of one stream since it was opened."""
    track = feed.applied_track
    counts: dict[str, Any] = {
        "source": feed.name,
        "points": feed.points,
        "anomalies": feed.anomalies,
        "alarms": feed.alarms,
    }
    counts |= {
        "rate": feed.anomalies / feed.points if feed.points else 0.0,
        "notes": dict(feed.stream.notes),
    }
    counts |= {"microseconds_per_point": 1e6 * track.pace, "scored_to": track.end, "end": feed.end}
    return counts | {"waiting": feed.stream.waiting if isinstance(feed.stream, PushedStream) else 0}
