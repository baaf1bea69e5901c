"""Incidents: alarms of a stream joined in time, from the first one until the stream has been calm
again for a while, and what people did about them.

The fold is pure and counts in the stream's own steps, so the same batches give the same incidents
however they are cut, live or replayed. Only people live by the wall clock: a snooze of ten minutes
lasts ten of theirs, whatever the pace of the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from redline.incidents.incident import (
    ACKNOWLEDGED,
    FORMING,
    OPEN,
    RESOLVED,
    SEVERITY_WORDS,
    SNOOZED,
    SYSTEM_ACTOR,
    UNTIL_NORMAL,
    Change,
    HistoryEntry,
    Incident,
    Peak,
    Policy,
    incident_id,
)

MAX_HISTORY = 100  # entries kept of one incident: the first and the newest


class AnomalyLike(Protocol):
    """One step above the threshold, as the monitor found it."""

    @property
    def step(self) -> int: ...
    @property
    def time(self) -> float: ...
    @property
    def feature(self) -> int: ...
    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def score(self) -> float: ...
    @property
    def threshold(self) -> float: ...
    @property
    def alarm(self) -> bool: ...


class AppliedLike(Protocol):
    """The settings a batch was judged under."""

    @property
    def threshold(self) -> float: ...


class BatchLike(Protocol):
    """Some steps in a row of one stream, scored: n of them from step `first`."""

    @property
    def name(self) -> str: ...
    @property
    def first(self) -> int: ...
    @property
    def time(self) -> np.ndarray: ...  # (n,) seconds since the epoch
    @property
    def score(self) -> np.ndarray: ...  # (n,) standard deviations, NaN = no opinion
    @property
    def anomalies(self) -> Sequence[AnomalyLike]: ...
    @property
    def applied(self) -> AppliedLike: ...
    @property
    def live(
        self,
    ) -> (
        bool
    ): ...  # False: the past of a stream that has just been opened, for which nobody is called


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


class Rules(NamedTuple):
    """What the fold goes by."""

    policy: Policy
    severity: Callable[[float, float], str]  # score, threshold -> one of SEVERITIES
    explain: Callable[[Incident], str]


class Scan(NamedTuple):
    """One batch on its way through the fold."""

    batch: BatchLike
    lows: np.ndarray  # (n + 1,) how many low steps there are before each row, and in all
    rules: Rules
    now: float  # wall seconds
    changes: list[Change]  # what has happened so far


def fold_batch(
    watch: Watch, batch: BatchLike, rules: Rules, now: float
) -> tuple[Watch, list[Change]]:
    """The watch after a batch, and what happened in it; `now` (wall seconds) only decides whether a
    snooze still lasts.
    """
    skip = max(0, watch.step - batch.first)
    n = len(batch.score)
    if skip >= n:
        return watch, []
    found = {a.step - batch.first: a for a in batch.anomalies if a.step >= batch.first + skip}
    changes: list[Change] = []
    if watch.current or any(a.alarm for a in found.values()):
        level = (
            rules.policy.release * batch.applied.threshold
        )  # a score without an opinion is neither above it nor low
        scan = Scan(batch, np.append(0, np.cumsum(batch.score <= level)), rules, now, changes)
        done = skip
        for row in (np.flatnonzero(batch.score[skip:] > level) + skip).tolist():
            watch = _strange(_calm(watch, scan, done, row), scan, row, found.get(row))
            done = row + 1
        watch = _calm(watch, scan, done, n)
        watch = watch._replace(
            current=watch.current and watch.current._replace(text=rules.explain(watch.current))
        )
    return watch._replace(step=batch.first + n, time=float(batch.time[-1])), changes


def _calm(watch: Watch, scan: Scan, row: int, end: int) -> Watch:
    """Rows among which none is strange: enough low ones end the incident."""
    current = watch.current
    wanted = scan.rules.policy.quiet - watch.quiet
    low = int(scan.lows[end] - scan.lows[row])
    if current is None or low < wanted or row == end:
        return watch._replace(quiet=watch.quiet + low if current else 0)
    if current.state == FORMING:
        return watch._replace(current=None, quiet=0)
    last = row + int(np.searchsorted(scan.lows[row : end + 1], scan.lows[row] + wanted)) - 1
    over, call = _ended(
        current, HistoryEntry(RESOLVED, SYSTEM_ACTOR, float(scan.batch.time[last])), scan.rules
    )
    scan.changes.append(Change(over, RESOLVED, call))
    return watch._replace(current=None, former=over, closed=scan.batch.first + last + 1, quiet=0)


def _ended(current: Incident, entry: HistoryEntry, rules: Rules) -> tuple[Incident, bool]:
    """The incident when it is over, by itself or by hand, and whether whoever was called should
    hear of it.
    """
    until = 0.0 if current.until == UNTIL_NORMAL else current.until
    over = _noted(current._replace(state=RESOLVED, until=until, announced=False), entry)
    return over._replace(text=rules.explain(over)), current.announced and current.state != SNOOZED


def _strange(watch: Watch, scan: Scan, row: int, a: AnomalyLike | None) -> Watch:
    """A step that is not low: an alarm begins an incident, anything carries on the one there is."""
    current: Incident | None
    if watch.current is not None:
        current = _carried(watch.current, scan, row, a)
    elif a is not None and a.alarm:
        watch = _begun(watch, scan, a)
        current = watch.current
    else:
        return watch
    if (
        current is not None
        and current.state == FORMING
        and current.last - current.first + 1 >= scan.rules.policy.minimum
    ):
        current = _noted(
            _standing(current, scan.now), HistoryEntry("opened", SYSTEM_ACTOR, current.end)
        )
        current = _told(current, "opened", scan)
    return watch._replace(current=current, quiet=0)


def _carried(current: Incident, scan: Scan, row: int, a: AnomalyLike | None) -> Incident:
    """The incident one strange step later; it says so when it has become more severe."""
    before = current.severity
    time = float(scan.batch.time[row])
    current = current._replace(last=scan.batch.first + row, end=time)
    current = current if a is None else _gathered(current, a, scan.rules)
    if current.state == FORMING or current.severity == before:
        return current
    return _told(_noted(current, HistoryEntry(current.severity, SYSTEM_ACTOR, time)), "worse", scan)


def _begun(watch: Watch, scan: Scan, a: AnomalyLike) -> Watch:
    """What an alarm begins when no incident is live: a new one; in a cool-down the former again, or
    nothing after a person resolved it.
    """
    former = watch.former
    severity = scan.rules.severity(a.score, a.threshold)
    if former is not None and a.step < watch.closed + scan.rules.policy.cooldown:
        if former.history[-1].who == SYSTEM_ACTOR:
            return watch._replace(current=_again(former, scan, a), former=None)
        if SEVERITY_WORDS.index(severity) <= SEVERITY_WORDS.index(former.severity):
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


def _again(former: Incident, scan: Scan, a: AnomalyLike) -> Incident:
    """An incident that had ended by itself and comes back."""
    again = _gathered(former, a, scan.rules)._replace(last=a.step, end=float(a.time))
    again = _noted(_standing(again, scan.now), HistoryEntry("reopened", SYSTEM_ACTOR, again.end))
    return _told(again, "reopened" if again.severity == former.severity else "worse", scan)


def _gathered(incident: Incident, a: AnomalyLike, rules: Rules) -> Incident:
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
        severity=_worst(incident.severity, rules.severity(peak.score, peak.threshold)),
    )


def _peak(a: AnomalyLike) -> Peak:
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
    return max(one, other, key=SEVERITY_WORDS.index)


def _standing(incident: Incident, now: float) -> Incident:
    """The incident in the state that a live one has now."""
    return incident._replace(
        state=SNOOZED if incident.until > now else ACKNOWLEDGED if incident.acknowledged else OPEN
    )


def _noted(incident: Incident, entry: HistoryEntry) -> Incident:
    history = (*incident.history, entry)
    return incident._replace(
        history=history if len(history) <= MAX_HISTORY else (history[0], *history[2:])
    )


def _told(incident: Incident, what: str, scan: Scan) -> Incident:
    """Adds the change; a snoozed one calls nobody, and neither does one that only came back, or one
    of the past.
    """
    call = scan.batch.live and what != "reopened" and incident.state != SNOOZED
    incident = incident._replace(
        announced=incident.announced or call, text=scan.rules.explain(incident)
    )
    scan.changes.append(Change(incident, what, call))
    return incident
