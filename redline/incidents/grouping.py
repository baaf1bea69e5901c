"""The grouping of a stream's alarms into incidents: from the first alarm until scores stay low.

The fold is pure and counts in the stream's own steps, so the same steps give the same incidents
however they are cut into batches, live or replayed. Only snoozes use the wall clock: ten minutes
are ten minutes for a person, whatever the pace of the stream.
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
    """The state of the fold of one stream."""

    stream: str
    step: int = 0  # the next one to come; older ones are folded already
    time: float = 0.0  # seconds since the epoch, of the newest step
    quiet: int = 0  # low steps since the last that was not low
    current: Incident | None = None
    former: Incident | None = None  # the last that ended
    closed: int = 0  # the step after the end of `former`
    snoozed_until: float = 0.0  # wall seconds until which incidents of the stream open snoozed
    suppressed: int = 0  # alarms in a cool-down that opened nothing: a person had resolved it
    info: StreamInfo | None = None  # of the newest batch; None = none since an older version

    def with_sentence(self, incident: Incident) -> Incident:
        """Return the incident with an up-to-date sentence as its text."""
        if self.info is None:
            return incident
        return incident._replace(text=incident_sentence(incident, self.info))


class Scan(NamedTuple):
    """What the fold of one batch needs for every row."""

    batch: Batch
    lows: np.ndarray  # (n + 1,) number of low steps before each row, the last one of all rows
    policy: Policy
    watch: Watch  # before the batch, with the stream's description
    now: float  # wall seconds
    changes: list[Change]  # what has happened so far


def fold_batch(
    watch: Watch, batch: Batch, policy: Policy, now: float
) -> tuple[Watch, list[Change]]:
    """Return the watch after a batch and the changes of incidents in it.

    `now` (wall seconds) only decides whether a snooze still lasts. Steps in a maintenance window
    are as those without a score: no incident begins, gets worse or ends there.
    """
    skip = max(0, watch.step - batch.first)
    n = len(batch.score)
    if skip >= n:
        return watch, []
    watch = watch._replace(info=batch.info)
    found = {a.step - batch.first: a for a in batch.anomalies if a.step >= batch.first + skip}
    score = batch.score if batch.muted is None else np.where(batch.muted, np.nan, batch.score)
    changes: list[Change] = []
    if watch.current or any(a.alarm for a in found.values()):
        # a NaN score is neither above the level nor low
        level = policy.release * batch.applied.threshold
        lows = np.append(0, np.cumsum(score <= level))
        scan = Scan(batch, lows, policy, watch, now, changes)
        done = skip
        for row in (np.flatnonzero(score[skip:] > level) + skip).tolist():
            watch = _fold_unusual(_fold_calm(watch, scan, done, row), scan, row, found.get(row))
            done = row + 1
        watch = _fold_calm(watch, scan, done, n)
        watch = watch._replace(current=watch.current and watch.with_sentence(watch.current))
    return watch._replace(step=batch.first + n, time=float(batch.time[-1])), changes


def _fold_calm(watch: Watch, scan: Scan, row: int, end: int) -> Watch:
    """Fold rows `row` to `end`, none above the release level: enough low ones end the incident."""
    current = watch.current
    wanted = scan.policy.quiet - watch.quiet
    low = int(scan.lows[end] - scan.lows[row])
    if current is None or low < wanted or row == end:
        return watch._replace(quiet=watch.quiet + low if current else 0)
    if current.state == FORMING:
        return watch._replace(current=None, quiet=0)
    last = row + int(np.searchsorted(scan.lows[row : end + 1], scan.lows[row] + wanted)) - 1
    entry = HistoryEntry(RESOLVED, SYSTEM_ACTOR, float(scan.batch.time[last]))
    over, notify = end_incident(watch, current, entry)
    scan.changes.append(Change(over, RESOLVED, notify))
    return watch._replace(current=None, former=over, closed=scan.batch.first + last + 1, quiet=0)


def end_incident(watch: Watch, current: Incident, entry: HistoryEntry) -> tuple[Incident, bool]:
    """Return the incident as resolved, and whether its end is to be sent to the channels."""
    until = 0.0 if current.until == UNTIL_NORMAL else current.until
    over = add_entry(current._replace(state=RESOLVED, until=until, announced=False), entry)
    return watch.with_sentence(over), current.announced and current.state != SNOOZED


def _fold_unusual(watch: Watch, scan: Scan, row: int, a: Anomaly | None) -> Watch:
    """Fold one row above the release level: it continues an incident, and an alarm begins one."""
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
    """Return the watch after an alarm that comes when no incident is live.

    It begins a new incident. In a cool-down it reopens the former one, or, if a person resolved
    that one, is only counted unless it is more severe.
    """
    former = watch.former
    severity = a.severity
    if former is not None and a.step < watch.closed + scan.policy.cooldown:
        if former.ended_by == SYSTEM_ACTOR:
            return watch._replace(current=_reopen(former, scan, a), former=None)
        if SEVERITIES.index(severity) <= SEVERITIES.index(former.severity):
            return watch._replace(suppressed=watch.suppressed + 1)
    time = float(a.time)
    new = Incident(
        id=incident_id(watch.stream, a.step, time),
        stream=watch.stream,
        features=(a.feature,),
        first=a.step,
        last=a.step,
        start=time,
        end=time,
        alarms=1,
        anomalies=1,
        peak=_peak(a),
        severity=severity,
        state=FORMING,
        until=watch.snoozed_until if watch.snoozed_until > scan.now else 0.0,
    )
    return watch._replace(current=new, former=None)


def _reopen(former: Incident, scan: Scan, a: Anomaly) -> Incident:
    """Return the live incident that an alarm makes of one that had ended by itself."""
    reopened = _add_anomaly(former, a)._replace(last=a.step, end=float(a.time))
    entry = HistoryEntry("reopened", SYSTEM_ACTOR, reopened.end)
    reopened = add_entry(current_state(reopened, scan.now), entry)
    what = "reopened" if reopened.severity == former.severity else "worse"
    return _announce(reopened, what, scan)


def _add_anomaly(incident: Incident, a: Anomaly) -> Incident:
    """Return the incident with one more anomalous step."""
    peak = incident.peak
    if a.score / a.threshold > peak.score / peak.threshold:
        peak = _peak(a)
    features = incident.features
    if a.feature not in features:
        features = (*features, a.feature)
    return incident._replace(
        features=features,
        alarms=incident.alarms + int(a.alarm),
        anomalies=incident.anomalies + 1,
        peak=peak,
        severity=max(incident.severity, severity(peak.score, peak.threshold), key=SEVERITIES.index),
    )


def _peak(a: Anomaly) -> Peak:
    """Return an anomaly as the peak of an incident."""
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


def current_state(incident: Incident, now: float) -> Incident:
    """Return a live incident with the state it has at `now` (wall seconds)."""
    if incident.until > now:
        return incident._replace(state=SNOOZED)
    return incident._replace(state=ACKNOWLEDGED if incident.acknowledged else OPEN)


def add_entry(incident: Incident, entry: HistoryEntry) -> Incident:
    """Return the incident with one more entry in its history, MAX_HISTORY at most."""
    history = (*incident.history, entry)
    if len(history) > MAX_HISTORY:
        history = (history[0], *history[2:])
    return incident._replace(history=history)


def _announce(incident: Incident, what: str, scan: Scan) -> Incident:
    """Add a change to the scan and return the incident.

    It is not sent to the channels if it is snoozed, only reopened, or of a backfill.
    """
    notify = scan.batch.live and what != "reopened" and incident.state != SNOOZED
    incident = scan.watch.with_sentence(incident._replace(announced=incident.announced or notify))
    scan.changes.append(Change(incident, what, notify))
    return incident
