"""Incidents: alarms of a stream joined in time, from the first one until the stream has been calm
again for a while, and what people did about them.

The fold is pure and counts in the stream's own steps, so the same batches give the same incidents
however they are cut, live or replayed. Only people live by the wall clock: a snooze of ten minutes
lasts ten of theirs, whatever the pace of the stream.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from redline.engine.results import Anomaly, Batch, StreamInfo
from redline.engine.wording import SEVERITIES, severity
from redline.incidents.incident import (
    ACKNOWLEDGED,
    FORMING,
    OPEN,
    RESOLVED,
    SNOOZED,
    SYSTEM_ACTOR,
    UNTIL_NORMAL,
    Change,
    HistoryEntry,
    Incident,
    Peak,
    Policy,
    incident_id,
    incident_sentence,
)

MAX_HISTORY = 100  # entries kept of one incident: the first and the newest


class Watch(NamedTuple):
    """Where the fold of one stream stands."""

    stream: str
    step: int = 0  # the next one to come; what is older was folded already
    time: float = 0.0  # seconds since the epoch, of the newest step
    quiet: int = 0  # low steps since the last that was not
    current: Incident | None = None
    former: Incident | None = None  # the last that ended
    closed: int = 0  # the step after its end
    hush: float = 0.0  # wall seconds until which a person wants to hear nothing of this stream
    held: int = 0  # alarms that a cool-down held back, after a person had resolved the incident
    info: StreamInfo | None = None  # of the newest batch; None = none came since an older version

    def worded(self, incident: Incident) -> Incident:
        """Return the incident with its sentence made anew."""
        if self.info is None:
            return incident
        return incident._replace(text=incident_sentence(incident, self.info))


class Scan(NamedTuple):
    """One batch on its way through the fold."""

    batch: Batch
    lows: np.ndarray  # (n + 1,) how many low steps there are before each row, and in all
    policy: Policy
    watch: Watch  # as the batch found it, with the stream's description
    now: float  # wall seconds
    changes: list[Change]  # what has happened so far


def fold_batch(
    watch: Watch, batch: Batch, policy: Policy, now: float
) -> tuple[Watch, list[Change]]:
    """The watch after a batch, and what happened in it; `now` (wall seconds) only decides whether a
    snooze still lasts.
    """
    skip = max(0, watch.step - batch.first)
    n = len(batch.score)
    if skip >= n:
        return watch, []
    watch = watch._replace(info=batch.info)
    found = {a.step - batch.first: a for a in batch.anomalies if a.step >= batch.first + skip}
    changes: list[Change] = []
    if watch.current or any(a.alarm for a in found.values()):
        level = (
            policy.release * batch.applied.threshold
        )  # a score without an opinion is neither above it nor low
        scan = Scan(
            batch, np.append(0, np.cumsum(batch.score <= level)), policy, watch, now, changes
        )
        done = skip
        for row in (np.flatnonzero(batch.score[skip:] > level) + skip).tolist():
            watch = _fold_unusual(_fold_calm(watch, scan, done, row), scan, row, found.get(row))
            done = row + 1
        watch = _fold_calm(watch, scan, done, n)
        watch = watch._replace(current=watch.current and watch.worded(watch.current))
    return watch._replace(step=batch.first + n, time=float(batch.time[-1])), changes


def _fold_calm(watch: Watch, scan: Scan, row: int, end: int) -> Watch:
    """Fold rows of which none is above the release level: enough low ones end the incident."""
    current = watch.current
    wanted = scan.policy.quiet - watch.quiet
    low = int(scan.lows[end] - scan.lows[row])
    if current is None or low < wanted or row == end:
        return watch._replace(quiet=watch.quiet + low if current else 0)
    if current.state == FORMING:
        return watch._replace(current=None, quiet=0)
    last = row + int(np.searchsorted(scan.lows[row : end + 1], scan.lows[row] + wanted)) - 1
    entry = HistoryEntry(RESOLVED, SYSTEM_ACTOR, float(scan.batch.time[last]))
    over, call = end_incident(watch, current, entry)
    scan.changes.append(Change(over, RESOLVED, call))
    return watch._replace(current=None, former=over, closed=scan.batch.first + last + 1, quiet=0)


def end_incident(watch: Watch, current: Incident, entry: HistoryEntry) -> tuple[Incident, bool]:
    """The incident when it is over, by itself or by hand, and whether whoever was called should
    hear of it.
    """
    until = 0.0 if current.until == UNTIL_NORMAL else current.until
    over = add_entry(current._replace(state=RESOLVED, until=until, announced=False), entry)
    return watch.worded(over), current.announced and current.state != SNOOZED


def _fold_unusual(watch: Watch, scan: Scan, row: int, a: Anomaly | None) -> Watch:
    """A step that is not low: an alarm begins an incident, anything carries on the one there is."""
    current: Incident | None
    if watch.current is not None:
        current = _continue(watch.current, scan, row, a)
    elif a is not None and a.alarm:
        watch = _begin(watch, scan, a)
        current = watch.current
    else:
        return watch
    if (
        current is not None
        and current.state == FORMING
        and current.last - current.first + 1 >= scan.policy.minimum
    ):
        current = add_entry(
            current_state(current, scan.now), HistoryEntry("opened", SYSTEM_ACTOR, current.end)
        )
        current = _announce(current, "opened", scan)
    return watch._replace(current=current, quiet=0)


def _continue(current: Incident, scan: Scan, row: int, a: Anomaly | None) -> Incident:
    """Return the incident one unusual step later; a higher severity is announced."""
    before = current.severity
    time = float(scan.batch.time[row])
    current = current._replace(last=scan.batch.first + row, end=time)
    current = current if a is None else _add_anomaly(current, a)
    if current.state == FORMING or current.severity == before:
        return current
    return _announce(
        add_entry(current, HistoryEntry(current.severity, SYSTEM_ACTOR, time)), "worse", scan
    )


def _begin(watch: Watch, scan: Scan, a: Anomaly) -> Watch:
    """What an alarm begins when no incident is live: a new one; in a cool-down the former again, or
    nothing after a person resolved it.
    """
    former = watch.former
    severity = a.severity
    if former is not None and a.step < watch.closed + scan.policy.cooldown:
        if former.history[-1].who == SYSTEM_ACTOR:
            return watch._replace(current=_reopen(former, scan, a), former=None)
        if SEVERITIES.index(severity) <= SEVERITIES.index(former.severity):
            return watch._replace(held=watch.held + 1)
    time = float(a.time)
    new = Incident(
        incident_id(watch.stream, a.step, time),
        watch.stream,
        (a.feature,),
        a.step,
        a.step,
        time,
        time,
        1,
        1,
        _peak(a),
        severity,
        FORMING,
    )
    return watch._replace(
        current=new._replace(until=watch.hush if watch.hush > scan.now else 0.0), former=None
    )


def _reopen(former: Incident, scan: Scan, a: Anomaly) -> Incident:
    """An incident that had ended by itself and comes back."""
    again = _add_anomaly(former, a)._replace(last=a.step, end=float(a.time))
    again = add_entry(
        current_state(again, scan.now), HistoryEntry("reopened", SYSTEM_ACTOR, again.end)
    )
    return _announce(again, "reopened" if again.severity == former.severity else "worse", scan)


def _add_anomaly(incident: Incident, a: Anomaly) -> Incident:
    """The incident with one more anomalous step."""
    peak = (
        incident.peak
        if a.score / a.threshold <= incident.peak.score / incident.peak.threshold
        else _peak(a)
    )
    return incident._replace(
        features=incident.features
        if a.feature in incident.features
        else (*incident.features, a.feature),
        alarms=incident.alarms + int(a.alarm),
        anomalies=incident.anomalies + 1,
        peak=peak,
        severity=_worst(incident.severity, severity(peak.score, peak.threshold)),
    )


def _peak(a: Anomaly) -> Peak:
    return Peak(
        a.step,
        float(a.time),
        a.feature,
        float(a.value),
        float(a.low),
        float(a.high),
        float(a.score),
        float(a.threshold),
    )


def _worst(one: str, other: str) -> str:
    return max(one, other, key=SEVERITIES.index)


def current_state(incident: Incident, now: float) -> Incident:
    """The incident in the state that a live one has now."""
    return incident._replace(
        state=SNOOZED if incident.until > now else ACKNOWLEDGED if incident.acknowledged else OPEN
    )


def add_entry(incident: Incident, entry: HistoryEntry) -> Incident:
    history = (*incident.history, entry)
    return incident._replace(
        history=history if len(history) <= MAX_HISTORY else (history[0], *history[2:])
    )


def _announce(incident: Incident, what: str, scan: Scan) -> Incident:
    """Adds the change; a snoozed one is not sent, nor one that only came back, nor one
    of the past.
    """
    call = scan.batch.live and what != "reopened" and incident.state != SNOOZED
    incident = scan.watch.worded(incident._replace(announced=incident.announced or call))
    scan.changes.append(Change(incident, what, call))
    return incident
