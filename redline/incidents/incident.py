"""The incident, with its states, its history and its row in the store."""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated, Any, NamedTuple

from annotated_types import Ge, Gt, Interval, doc
from pydantic import Strict

from redline.engine.results import StreamInfo
from redline.engine.wording import anomaly_reason, format_time

FORMING = "forming"
OPEN = "open"
ACKNOWLEDGED = "acknowledged"
SNOOZED = "snoozed"
RESOLVED = "resolved"
NOTED = "noted"  # no state: a person wrote something about it
# the states that are shown; a forming one has not lasted long enough to be called an incident
STATES = (OPEN, ACKNOWLEDGED, SNOOZED, RESOLVED)
LIVE_STATES = (OPEN, ACKNOWLEDGED, SNOOZED)
UNTIL_NORMAL = math.inf  # wall seconds: a snooze that ends when the incident does
SNOOZES = {"10 min": 600.0, "1 h": 3_600.0, "until normal": UNTIL_NORMAL}  # seconds
SYSTEM_ACTOR = "redline"  # who changed an incident when no person did
_ROW_KEYS = {"notified_severity": "told"}  # Incident field -> its key in rows


MAX_INCIDENT_NOTE = 1_000  # characters of a note


class UnknownIncident(LookupError):
    """No incident has this id."""


class IncidentSettled(ValueError):
    """The incident is resolved already, so it cannot be acknowledged, snoozed or resolved."""


@dataclass(frozen=True)
class Policy:
    """Rules that say which alarms are one incident and when it ends, in steps of the stream.

    The marks of its fields say what the channels file may hold.
    """

    # steps it must have lasted to be called an incident
    minimum: Annotated[int, Strict(), Gt(0), doc("a number of steps, at least 1")] = 1
    # steps the score must stay low until it is over, a step without an opinion not counted
    quiet: Annotated[int, Strict(), Gt(0), doc("a number of steps, at least 1")] = 20
    # what is low, as a share of the threshold; below 1, so that a score near it ends nothing
    release: Annotated[
        float, Strict(), Interval(gt=0, le=1), doc("a share of the threshold, above 0 to 1")
    ] = 0.7
    # steps after its end in which a new alarm continues it
    cooldown: Annotated[int, Strict(), Ge(0), doc("a number of steps, at least 0")] = 60


class Peak(NamedTuple):
    """The peak of an incident: its step with the highest score / threshold."""

    step: int
    time: float  # seconds since the epoch, the stream's
    feature: int
    value: float  # the feature's unit
    low: float  # expected range, the feature's unit, NaN = the detector has no band
    high: float
    score: float  # standard deviations
    threshold: float


class HistoryEntry(NamedTuple):
    """One line of an incident's history."""

    what: str
    who: str
    time: float  # seconds since the epoch, the stream's
    # seconds since the epoch at which a person did it; None = it follows from the scores
    wall: float | None = None
    note: str = ""


class Incident(NamedTuple):
    """Alarms of one stream joined in time."""

    id: str
    stream: str
    features: tuple[int, ...]  # in order of appearance
    first: int  # step of the first alarm
    last: int  # last step with a score that was not low
    start: float  # seconds since the epoch, of `first`
    end: float  # seconds since the epoch, of `last`
    alarms: int
    anomalies: int  # steps above the threshold
    peak: Peak
    severity: str
    state: str
    # wall seconds at which its snooze ends; UNTIL_NORMAL = with the incident, 0 = not snoozed
    until: float = 0.0
    acknowledged: str = ""  # by whom
    announced: bool = False  # whether it was sent to the channels
    notified_severity: str = ""  # the severity that reached a channel, "" = none
    unsent: bool = False  # whether it ended while its alarm was held for a group
    text: str = ""
    history: tuple[HistoryEntry, ...] = ()

    @property
    def ended_by(self) -> str:
        """Return who resolved it last; "" = it never was."""
        return next((e.who for e in reversed(self.history) if e.what == RESOLVED), "")

    @property
    def live(self) -> bool:
        """Return whether it is open, acknowledged or snoozed."""
        return self.state not in (FORMING, RESOLVED)


class Change(NamedTuple):
    """A change of an incident, and whether it should be sent to the channels."""

    incident: Incident
    # "opened", "worse", "reopened", "resolved", "acknowledged", "snoozed", "woke", "noted"
    what: str
    notify: bool


def incident_id(stream: str, step: int, time: float) -> str:
    """Return the id of the incident that begins at a step: the same in every replay."""
    return blake2b(f"{stream}\n{step}\n{time!r}".encode(), digest_size=8).hexdigest()


def incident_sentence(incident: Incident, stream: StreamInfo) -> str:
    """Return one sentence: what is unusual since when, its peak, and how many alarms it had."""
    peak = incident.peak
    what = stream.title
    peak_feature = ""
    if len(stream.names) > 1:
        what += f", {_join_names([stream.names[f] for f in incident.features])},"
        if len(incident.features) > 1:
            peak_feature = f"{stream.names[peak.feature]} "
    start, end = (format_time(time, stream.period) for time in (incident.start, incident.end))
    if incident.state != RESOLVED:
        span = f"is unusual since {start}"
    elif start == end:
        span = f"was unusual at {start}"
    else:
        span = f"was unusual from {start} to {end}"
    alarms = f"; {incident.alarms:,} alarms" if incident.alarms > 1 else ""
    unit = stream.units[peak.feature]
    reason = anomaly_reason(peak.value, (peak.low, peak.high), peak.score, unit)
    return f"{what} {span}: {peak_feature}{reason}{alarms}."


def _join_names(names: list[str]) -> str:
    """Return names as a list in a sentence: "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def incident_row(incident: Incident) -> dict[str, Any]:
    """Return an incident as the store keeps it and the API answers with it.

    JSON can hold it: NaN is null, a snooze until normal is "normal".
    """
    row = {_ROW_KEYS.get(name, name): value for name, value in incident._asdict().items()}
    peak = incident.peak._asdict()
    return row | {
        "features": list(incident.features),
        "peak": {name: None if value != value else value for name, value in peak.items()},
        "until": "normal" if incident.until == UNTIL_NORMAL else incident.until,
        "history": [entry._asdict() for entry in incident.history],
    }


def incident_from_row(row: dict[str, Any]) -> Incident:
    """Return the incident of a row that `incident_row` made."""
    fields = {name: row[key] for name, key in _ROW_KEYS.items() if key in row}
    fields |= {key: value for key, value in row.items() if key not in _ROW_KEYS.values()}
    peak: dict[str, Any] = {
        name: math.nan if value is None else value for name, value in row["peak"].items()
    }
    fields |= {
        "features": tuple(row["features"]),
        "peak": Peak(**peak),
        "until": UNTIL_NORMAL if row["until"] == "normal" else row["until"],
        "history": tuple(HistoryEntry(**entry) for entry in row["history"]),
    }
    return Incident(**fields)
