"""The incident: its states, its history and its rows in the store."""

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
STATES = (
    OPEN,
    ACKNOWLEDGED,
    SNOOZED,
    RESOLVED,
)  # what anybody is shown; a forming one has not lasted long enough to be called an incident
UNTIL_NORMAL = math.inf  # wall seconds: a snooze that ends when the incident does
SNOOZES = {"10 min": 600.0, "1 h": 3_600.0, "until normal": UNTIL_NORMAL}  # seconds
SYSTEM_ACTOR = "redline"  # who changed an incident when no person did


class UnknownIncident(LookupError):
    """No incident has this id."""


class IncidentSettled(ValueError):
    """The incident is resolved already: there is nothing left to acknowledge, snooze or resolve."""


@dataclass(frozen=True)
class Policy:
    """When alarms are one incident, and when it is over; everything in steps of the stream.

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
    low: float  # expected range, NaN = the detector has no band
    high: float
    score: float  # standard deviations
    threshold: float


class HistoryEntry(NamedTuple):
    """One line of an incident's history."""

    what: str
    who: str
    time: float  # seconds since the epoch, the stream's
    wall: float | None = (
        None  # seconds since the epoch at which a person did it; None: it follows from the numbers
    )
    note: str = ""


class Incident(NamedTuple):
    """Alarms of one stream joined in time."""

    id: str
    stream: str
    features: tuple[int, ...]  # in order of appearance
    first: int  # step of the first alarm
    last: int  # last step that was not calm
    start: float  # seconds since the epoch, of those two
    end: float
    alarms: int
    anomalies: int  # steps above the threshold
    peak: Peak
    severity: str
    state: str
    until: float = (
        0.0  # wall seconds at which its snooze ends, NORMAL = with the incident, 0 = none
    )
    acknowledged: str = ""  # by whom
    announced: bool = False  # whether it was sent to the channels
    told: str = ""  # the severity that reached a channel, "" = none
    text: str = ""
    history: tuple[HistoryEntry, ...] = ()

    @property
    def live(self) -> bool:
        return self.state not in (FORMING, RESOLVED)


class Change(NamedTuple):
    """A change of an incident, and whether it should be sent to the channels."""

    incident: Incident
    what: str  # "opened", "worse", "reopened", "resolved", "acknowledged", "snoozed", "woke"
    call: bool


def incident_id(stream: str, step: int, time: float) -> str:
    """The id of the incident that began there: the same wherever the stream is replayed."""
    return blake2b(f"{stream}\n{step}\n{time!r}".encode(), digest_size=8).hexdigest()


def incident_sentence(incident: Incident, stream: StreamInfo) -> str:
    """Return one sentence: what was unusual since when, at its worst, and how many alarms it
    had.
    """
    peak = incident.peak
    among = len(stream.names) > 1
    what = (
        f"{stream.title}, {_listed([stream.names[f] for f in incident.features])},"
        if among
        else stream.title
    )
    when = [format_time(time, stream.period) for time in (incident.start, incident.end)]
    ended = incident.state == RESOLVED
    span = (
        f"was unusual at {when[0]}"
        if ended and when[0] == when[1]
        else f"was unusual from {when[0]} to {when[1]}"
        if ended
        else f"is unusual since {when[0]}"
    )
    which = f"{stream.names[peak.feature]} " if among and len(incident.features) > 1 else ""
    alarms = f"; {incident.alarms:,} alarms" if incident.alarms > 1 else ""
    unit = stream.units[peak.feature]
    reason = anomaly_reason(peak.value, (peak.low, peak.high), peak.score, unit)
    return f"{what} {span}: {which}{reason}{alarms}."


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def incident_row(incident: Incident) -> dict[str, Any]:
    """An incident as JSON can hold it: NaN is null, a snooze until normal is "normal"; the store
    keeps it and the API answers with it.
    """
    peak = {
        name: None if value != value else value for name, value in incident.peak._asdict().items()
    }
    history = [entry._asdict() for entry in incident.history]
    until = "normal" if incident.until == UNTIL_NORMAL else incident.until
    return incident._asdict() | {
        "features": list(incident.features),
        "peak": peak,
        "until": until,
        "history": history,
    }


def incident_from_row(row: dict[str, Any]) -> Incident:
    """The way back from `row`."""
    worst: dict[str, Any] = {
        name: math.nan if value is None else value for name, value in row["peak"].items()
    }
    history = tuple(HistoryEntry(**entry) for entry in row["history"])
    until = UNTIL_NORMAL if row["until"] == "normal" else row["until"]
    return Incident(
        **row
        | {
            "features": tuple(row["features"]),
            "peak": Peak(**worst),
            "until": until,
            "history": history,
        }
    )
