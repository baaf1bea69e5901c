"""The route by which a Prometheus reads Redline: its counts, and the streams with an incident."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from fastapi import APIRouter, Response

from redline.api.routes.state import health_report, status_report
from redline.api.service import Service
from redline.incidents.incident import LIVE_STATES, Incident
from redline.incidents.registry import IncidentQuery

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_INCIDENTS = 1_000  # live ones that are listed; all are counted
NO_LABELS: Mapping[str, str] = {}


class Metric(NamedTuple):
    """One metric with its samples, as the text format has it."""

    name: str
    kind: str  # counter or gauge
    about: str
    samples: Sequence[tuple[Mapping[str, str], float]]  # (labels, value)


def connect_metrics(router: APIRouter, service: Service) -> None:
    """Add the route."""

    @router.get(
        "/metrics",
        tags=["state"],
        summary="Counts and live incidents for a Prometheus to scrape",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def metrics() -> Response:
        return Response(format_metrics(own_metrics(service)), media_type=CONTENT_TYPE)


def own_metrics(service: Service) -> list[Metric]:
    """Return what Redline says of itself, and the score of each stream with a live incident."""
    status = status_report(service)
    health = health_report(service)
    live = service.incidents.find(IncidentQuery(states=LIVE_STATES, limit=10_000)).incidents
    queue = status["queue"]
    single: list[tuple[str, str, str, float]] = [
        ("redline_streams", "gauge", "Streams that are watched.", status["streams"]),
        ("redline_points_total", "counter", "Points that were scored.", status["points"]),
        ("redline_anomalies_total", "counter", "Steps above the threshold.", status["anomalies"]),
        ("redline_alarms_total", "counter", "Alarms.", status["alarms"]),
        ("redline_queue_points", "gauge", "Points that wait to be scored.", queue["waiting"]),
        ("redline_late_points_total", "counter", "Points stored without a score.", queue["late"]),
        ("redline_ready", "gauge", "1 while results are stored, else 0.", health["ready"]),
        ("redline_incidents", "gauge", "Incidents that have not ended.", len(live)),
    ]
    found = [Metric(name, kind, about, [(NO_LABELS, value)]) for name, kind, about, value in single]
    refused = [({"reason": reason}, float(count)) for reason, count in status["requests"].items()]
    about = "Requests that were refused, by reason."
    found.append(Metric("redline_refused_requests_total", "counter", about, refused))
    if written := service.score_writer.report():
        about = "Scored points for the remote write, by what became of them."
        outcomes = [({"outcome": name}, float(n)) for name, n in written["counts"].items()]
        found.append(Metric("redline_written_points_total", "counter", about, outcomes))
        waiting = [(NO_LABELS, float(written["waiting"]))]
        about = "Scored points that wait for the remote write."
        found.append(Metric("redline_write_queue_points", "gauge", about, waiting))
    return [*found, *incident_metrics(live[:MOST_INCIDENTS])]


def incident_metrics(live: Iterable[Incident]) -> list[Metric]:
    """Return the peak score of each stream with a live incident, and its share of the threshold."""
    worst: dict[str, Incident] = {}
    for incident in live:
        known = worst.get(incident.stream)
        if known is None or incident.peak.score > known.peak.score:
            worst[incident.stream] = incident
    labels = [({"stream": each.stream, "severity": each.severity}, each) for each in worst.values()]
    scores = [(label, each.peak.score) for label, each in labels]
    ratios = [(label, each.peak.score / each.peak.threshold) for label, each in labels]
    return [
        Metric("redline_incident_score", "gauge", "Highest score of a live incident.", scores),
        Metric("redline_incident_ratio", "gauge", "That score by the threshold.", ratios),
    ]


def format_metrics(metrics: Iterable[Metric]) -> str:
    r"""Return metrics in the text format of Prometheus.

    >>> metric = Metric("up", "gauge", "Whether it answers.", [({"job": 'a"b'}, 1.0)])
    >>> print(format_metrics([metric]).splitlines()[-1])
    up{job="a\"b"} 1
    """
    lines = []
    for name, kind, about, samples in metrics:
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
        for labels, value in samples:
            pairs = ",".join(f'{key}="{escape_text(text)}"' for key, text in labels.items())
            lines.append(f"{name}{{{pairs}}} {value:.10g}" if pairs else f"{name} {value:.10g}")
    return "\n".join(lines) + "\n"


def escape_text(text: str) -> str:
    """Return a label's value as the text format wants it."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
