"""The documents that answers and events show of anomalies, incidents and labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redline.api.sse import ServerEvent
from redline.engine.results import Anomaly, StreamInfo
from redline.engine.wording import SEVERITIES, severity_index
from redline.feedback.labels import Label
from redline.incidents.incident import Incident, incident_row
from redline.sources import payload

# returns how a stream is described; None = there is none with this name
Describe = Callable[[str], StreamInfo | None]


def anomaly_document(
    names: Sequence[str], units: Sequence[str], source: str, anomaly: Anomaly
) -> dict[str, Any]:
    """Return the document of an anomaly of a source with these features and units."""
    unit = units[anomaly.feature]
    return {
        "id": anomaly.id,
        "source": source,
        "step": anomaly.step,
        "time": anomaly.time,
        "feature": names[anomaly.feature],
        "unit": unit,
        "value": anomaly.value,
        "expected": anomaly.expected,
        "score": anomaly.score,
        "threshold": anomaly.threshold,
        "severity": anomaly.severity,
        "severity_index": anomaly.severity_index,
        "run": anomaly.run,
        "alarm": anomaly.alarm,
        "reason": anomaly.reason(unit),
    }


def stored_anomaly(describe: Describe, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a stored anomaly, the same as `anomaly_document`."""
    info = describe(row["stream"])
    units = dict(zip(info.names, info.units)) if info else {}
    same = ("score", "threshold", "severity", "run", "alarm", "reason")  # named as in the row
    return {
        "id": row["id"],
        "source": row["stream"],
        "step": row["step"],
        "time": row["time"],
        "feature": row["feature"],
        "unit": units.get(row["feature"], ""),
        "value": row["value"],
        "expected": None if row["low"] is None else [row["low"], row["high"]],
        "severity_index": severity_index(row["score"], row["threshold"]),
        **{name: row[name] for name in same},
    }


def anomaly_event(document: Mapping[str, Any]) -> ServerEvent:
    """Return the event of an anomaly's document."""
    rank = SEVERITIES.index(document["severity"])
    # a copy, because it is kept: what orjson returns holds kilobytes of spare room
    data = memoryview(payload.to_json(document)).tobytes()
    return ServerEvent(document["id"], document["source"], rank, data)


def incident_document(describe: Describe, incident: Incident) -> dict[str, Any]:
    """Return the document of an incident, its features by name."""
    document = incident_row(incident)
    info = describe(incident.stream)
    names = info.names if info else ()
    units = info.units if info else ()

    def name_of(feature: int) -> str:
        return names[feature] if feature < len(names) else str(feature)

    at_peak = incident.peak.feature
    peak = {
        **document["peak"],
        "feature": name_of(at_peak),
        "unit": units[at_peak] if at_peak < len(units) else "",
    }
    document["features"] = [name_of(feature) for feature in incident.features]
    head = {"id": document.pop("id"), "source": document.pop("stream")}
    index = severity_index(incident.peak.score, incident.peak.threshold)
    return {**head, **document, "severity_index": index, "peak": peak}


def label_document(describe: Describe, label: Label) -> dict[str, Any]:
    """Return the document of a label, its feature by name."""
    info = describe(label.stream)
    feature = None
    if info is not None and label.feature is not None:
        feature = info.names[label.feature]
    return {
        "id": label.id,
        "source": label.stream,
        "kind": label.kind,
        "start": label.start,
        "end": label.end,
        "feature": feature,
        "note": label.note,
        "who": label.who,
        "at": label.at,
    }
