"""The service: what the routes answer from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fastapi import Request

from redline.access.authorizer import Authorizer, RateLimiter
from redline.access.hosts import Hosts
from redline.access.tokens import Tokens
from redline.api import payload
from redline.api.problems import Problem, field_error
from redline.api.sse import EventHub, ServerEvent
from redline.engine import wording
from redline.engine.feed import Feed
from redline.engine.monitor import Monitor
from redline.engine.results import Anomaly, Batch
from redline.feedback.labels import Label, LabelRegistry
from redline.incidents.grouping import Rules
from redline.incidents.incident import (
    SEVERITY_WORDS,
    Change,
    Incident,
    Policy,
    incident_row,
    incident_sentence,
)
from redline.incidents.notify import Notifier
from redline.incidents.registry import Incidents
from redline.storage.sqlite import AnomalyQuery as Search
from redline.storage.sqlite import SqliteStore

API_VERSION = "0.1.0"
WAKE_SECONDS = 2.0  # seconds somebody may wait for the past of streams
COMMIT_PATIENCE = 30.0  # seconds a submission waits for its commit before it is told to come again


class ServerOptions(NamedTuple):
    """What the operator decides."""

    tokens: Tokens = Tokens()
    cors: tuple[str, ...] = ()  # origins whose pages may ask
    body: int = 32 * 2**20  # bytes of one request
    rate: float = 1_000.0  # requests a second and client, 0 = no limit
    hosts: Hosts = Hosts()  # under which names the server may be asked


@dataclass
class Service:
    """What the routes answer from."""

    monitor: Monitor
    store: SqliteStore | None = None  # None = nothing outlives the program
    alerts: Incidents | None = None  # None = joined here and forgotten at the end
    changed: Callable[[Sequence[Change]], None] = field(
        default=lambda changes: None
    )  # told what a person did to an incident
    options: ServerOptions = field(default_factory=ServerOptions)
    labels: LabelRegistry = field(default_factory=LabelRegistry)
    calls: Notifier | None = None  # who calls people and runs the operator's actions

    def __post_init__(self) -> None:
        self.began = time.time()
        self.allowance = RateLimiter(self.options.rate)
        self.door = Authorizer(self.options.tokens, self.allowance, self.options.cors)
        self.hub = EventHub(
            self.older if self.store else None, self.store.newest() if self.store else 0
        )
        self.oversized = 0  # requests refused for their size
        self.joins = self.alerts is None
        self.incidents = self.alerts or Incidents(Rules(Policy(), wording.severity, self.explained))

    def explained(self, incident: Incident) -> str:
        return incident_sentence(
            incident,
            self.monitor.feeds[incident.stream].stream,
            wording.anomaly_reason,
            wording.format_time,
        )

    def end(self) -> None:
        """Lets go of those who follow, and of calls that are still tried."""
        self.hub.close()
        if self.calls:
            self.calls.stop()

    def older(self, after: int, most: int) -> list[ServerEvent]:
        """Events out of the store, for one who comes back."""
        assert self.store is not None
        return [
            anomaly_event(stored_anomaly(self, each))
            for each in self.store.anomalies(Search(after=after, limit=most))
        ]

    def noted(self, request: Request, what: str, source: str, **detail: Any) -> None:
        """A line of the audit log: who changed what."""
        if self.store:
            self.store.record(request.state.who, what, source, detail)

    def heard(self, batches: Sequence[Batch]) -> None:
        """The monitor's listener: every committed anomaly becomes an event, and where nobody else
        does it, alarms become incidents.
        """
        if self.joins:
            self.incidents.commit(
                [batch for batch in batches if batch.live], time.time(), lambda rows: None
            )
        events = [
            anomaly_event(anomaly_document(batch.names, batch.units, batch.name, a))
            for batch in batches
            if batch.live
            for a in batch.anomalies
        ]
        if events:
            self.hub.publish(events)

    def feed(self, name: str) -> Feed:
        feed = self.monitor.feeds.get(name)
        if feed is None:
            raise Problem(
                404,
                f"no stream is called {name!r}; /api/streams lists them",
                [field_error("source", "the name of a stream", name)],
            )
        self.awake([feed])
        return feed

    def awake(self, feeds: Sequence[Feed]) -> None:
        """Waits a moment for streams whose past has not been fetched from the store since the
        start.
        """
        asleep = [feed for feed in feeds if not feed.ready and self.monitor.thread]
        for feed in asleep:
            self.monitor.want(feed.name, feed.applied)
        until = time.monotonic() + WAKE_SECONDS
        while any(not feed.ready for feed in asleep) and time.monotonic() < until:
            time.sleep(0.005)


def anomaly_document(
    names: Sequence[str], units: Sequence[str], source: str, a: Anomaly
) -> dict[str, Any]:
    """One anomaly as an answer shows it."""
    unit = units[a.feature]
    shown: dict[str, Any] = {
        "id": a.id,
        "source": source,
        "step": a.step,
        "time": a.time,
        "feature": names[a.feature],
        "unit": unit,
    }
    shown |= {
        "value": a.value,
        "expected": None if a.low != a.low else [a.low, a.high],
        "score": a.score,
        "threshold": a.threshold,
    }
    shown |= {"severity": wording.severity(a.score, a.threshold), "run": a.run, "alarm": a.alarm}
    return shown | {
        "reason": wording.anomaly_reason(a.value, (a.low, a.high), a.score, unit, a.run)
    }


def anomaly_event(shown: dict[str, Any]) -> ServerEvent:
    return ServerEvent(
        shown["id"],
        shown["source"],
        SEVERITY_WORDS.index(shown["severity"]),
        payload.to_json(shown),
    )


def stored_anomaly(service: Service, each: Mapping[str, Any]) -> dict[str, Any]:
    """One anomaly out of the store, in the words of `found`."""
    feed = service.monitor.feeds.get(each["stream"])
    units = dict(zip(feed.stream.names, feed.stream.units)) if feed else {}
    shown = {
        "id": each["id"],
        "source": each["stream"],
        "step": each["step"],
        "time": each["time"],
        "feature": each["feature"],
    }
    shown |= {
        "unit": units.get(each["feature"], ""),
        "value": each["value"],
        "expected": None if each["low"] is None else [each["low"], each["high"]],
    }
    return shown | {
        name: each[name] for name in ("score", "threshold", "severity", "run", "alarm", "reason")
    }


def incident_document(service: Service, each: Incident) -> dict[str, Any]:
    """An incident as an answer shows it: features by name, `source` as everywhere."""
    shown = incident_row(each)
    feed = service.monitor.feeds.get(each.stream)
    names, units = (feed.stream.names, feed.stream.units) if feed else ((), ())
    shown["features"] = [names[f] if f < len(names) else str(f) for f in each.features]
    worst = dict(shown["peak"])
    f = each.peak.feature
    worst |= {
        "feature": names[f] if f < len(names) else str(f),
        "unit": units[f] if f < len(units) else "",
    }
    return {"id": shown.pop("id"), "source": shown.pop("stream"), **shown, "peak": worst}


def label_document(service: Service, label: Label) -> dict[str, Any]:
    feed = service.monitor.feeds.get(label.stream)
    feature = None if label.feature is None or feed is None else feed.stream.names[label.feature]
    shown = {
        "id": label.id,
        "source": label.stream,
        "kind": label.kind,
        "start": label.start,
        "end": label.end,
    }
    return shown | {"feature": feature, "note": label.note, "who": label.who, "at": label.at}
