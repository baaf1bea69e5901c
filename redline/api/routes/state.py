"""The routes of the service's health, status and counters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Response

from redline.api.problems import json_answer
from redline.api.service import API_VERSION, Service
from redline.engine.feed import Feed
from redline.engine.fleet.series_monitor import SeriesMonitor
from redline.sources.pushed import PushedStream

BROKERS = ("kafka", "redis", "mqtt")
MAX_SILENT_SECONDS = 5.0  # seconds without a beat of the loop after which the server is not live


def connect_health(router: APIRouter, service: Service) -> None:
    """Add the routes of health, status and counters."""

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
        if source is not None:
            feeds = [service.feed(source)]
        else:
            feeds = list(service.monitor.feeds.values())
        return json_answer({"streams": [stream_counts(feed) for feed in feeds]})


def health_report(service: Service) -> dict[str, Any]:
    """Return whether the service is live (its loop beats) and ready (it also stores results)."""
    monitor = service.monitor
    reasons = []
    silent = monitor.clock() - monitor.last_beat
    started = monitor.thread is not None
    live = monitor.thread is None or (monitor.thread.is_alive() and silent < MAX_SILENT_SECONDS)
    if not started:
        reasons.append("the loop has not started")
    elif not live:
        reasons.append(f"the loop has not beaten for {silent:.0f} s")
    trouble = monitor.outbox.trouble
    if trouble:
        reasons.append(f"the store: {trouble.text}")
    damage = service.store.damage if service.store else None
    if damage:
        reasons.append(f"the store: {damage}")
    failing = sorted(feed.name for feed in list(monitor.feeds.values()) if feed.failure)
    notes = [f"{kind}: {why}" for kind, why in sorted(monitor.source_troubles.copy().items())]
    notes += [f"{name} failed, the other streams go on" for name in failing[:10]]
    return {
        "live": live,
        "ready": live and started and not trouble and not damage,
        "reasons": reasons,
        "notes": notes,
    }


def broker_reports(service: Service) -> dict[str, Any]:
    """Return how the reading from each kind of broker goes; None = none is read."""
    found: dict[str, Any] = dict.fromkeys(BROKERS)
    return found | {each.options.kind.lower(): each.report() for each in service.feeders}


def status_report(service: Service) -> dict[str, Any]:
    """Return the counts of all streams and the state of each part of the service."""
    feeds = list(service.monitor.feeds.values())
    series = service.monitor.series.totals
    points = sum(feed.points for feed in feeds) + series.points
    anomalies = sum(feed.anomalies for feed in feeds) + series.anomalies
    hub = service.hub
    return {
        "version": API_VERSION,
        "up_seconds": time.time() - service.began,
        "streams": len(feeds) + series.streams,
        "points": points,
        "anomalies": anomalies,
        "alarms": sum(feed.alarms for feed in feeds) + series.alarms,
        "rate": anomalies / points if points else 0.0,
        "failing": sorted(feed.name for feed in feeds if feed.failure),
        "sources": {
            "pushed": sum(feed.pushed for feed in feeds),
            "series": series.streams,
            "forgotten": len(service.monitor.forgotten),
            "refused": service.monitor.refused_sources,
        },
        "queue": queue_lengths(feeds, service.monitor.series),
        "doors": service.doors.report(),
        "scrape": [target.report() for target in service.scraper.targets],
        **broker_reports(service),
        "remote_write": service.score_writer.report(),
        "store": storage_report(service),
        "events": {
            "clients": len(hub.clients),
            "newest": hub.newest,
            "sent": hub.sent,
            "slow": hub.slow,
        },
        "calls": service.notifier.status() if service.notifier else [],
        "held_alarms": len(service.hold.held) if service.hold else 0,
        "requests": refused_requests(service),
        "connections": {
            "open": len(service.connections.open),
            "refused": dict(service.connections.refused),
        },
    }


def refused_requests(service: Service) -> dict[str, int]:
    """Return how many requests were refused, by reason."""
    authorizer = service.authorizer
    return {
        "too_often": service.rate_limiter.refused,
        "too_big": service.oversized,
        "no_room": service.bodies.refused,
        "wrong_host": service.wrong_hosts,
        "malformed": service.malformed,
        "no_token": authorizer.refused["no_token"],
        "wrong_token": authorizer.throttle.wrong,
        "throttled": authorizer.throttle.throttled,  # wrong tokens too often
        "forbidden": authorizer.refused["forbidden"],
    }


def queue_lengths(feeds: Sequence[Feed], series: SeriesMonitor) -> dict[str, int]:
    """Return the points of programs that wait, and those repeated, late and refused."""
    pushed = [feed.stream for feed in feeds if isinstance(feed.stream, PushedStream)]
    counts = {
        fact: sum(stream.notes.get(fact, 0) for stream in pushed) + series.unscored(fact)
        for fact in ("repeated", "late", "refused")
    }
    waiting = sum(stream.waiting for stream in pushed) + series.intake.waiting
    return {"waiting": waiting, **counts}


def storage_report(service: Service) -> dict[str, Any]:
    """Return the state of the store: batches that wait for it, batches lost, and its trouble."""
    outbox = service.monitor.outbox
    trouble = outbox.trouble.text if outbox.trouble else None
    return {
        "kept": outbox.store is not None,
        "waiting": len(outbox.waiting),
        "lost": outbox.lost,
        "trouble": trouble,
    }


def stream_counts(feed: Feed) -> dict[str, Any]:
    """Return the counters of one stream since it was opened."""
    track = feed.applied_track
    return {
        "source": feed.name,
        "points": feed.points,
        "anomalies": feed.anomalies,
        "alarms": feed.alarms,
        "rate": feed.anomalies / feed.points if feed.points else 0.0,
        "notes": dict(feed.stream.notes),
        "microseconds_per_point": 1e6 * track.pace,
        "scored_to": track.end,
        "end": feed.end,
        "waiting": feed.stream.waiting if isinstance(feed.stream, PushedStream) else 0,
    }
