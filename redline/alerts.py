"""Incidents: alarms of a stream joined in time, from the first one until the stream has been calm again for a while, and what people did about them.

The fold is pure and counts in the stream's own steps, so the same batches give the same incidents however they are cut, live or replayed.
Only people live by the wall clock: a snooze of ten minutes lasts ten of theirs, whatever the pace of the stream.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

SEVERITIES = ("info", "warning", "critical")  # as whoever is asked for a severity calls them, the mildest first
FORMING, OPEN, ACKNOWLEDGED, SNOOZED, RESOLVED = "forming", "open", "acknowledged", "snoozed", "resolved"
STATES = (OPEN, ACKNOWLEDGED, SNOOZED, RESOLVED)  # what anybody is shown; a forming one has not lasted long enough to be called an incident
NORMAL = math.inf  # wall seconds: a snooze that ends when the incident does
SNOOZES = {"10 min": 600.0, "1 h": 3_600.0, "until normal": NORMAL}  # seconds
REDLINE = "redline"  # who changed an incident when nobody did
HISTORY = 100  # entries kept of one incident: the first and the newest
KEPT = 2_000  # resolved incidents kept in memory, older ones are the store's


class UnknownIncident(LookupError):
    """No incident has this id."""


class Settled(ValueError):
    """The incident is resolved already: there is nothing left to acknowledge, snooze or resolve."""


class Anomaly(Protocol):
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


class Applied(Protocol):
    """The settings a batch was judged under."""

    @property
    def threshold(self) -> float: ...


class Batch(Protocol):
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
    def anomalies(self) -> Sequence[Anomaly]: ...
    @property
    def applied(self) -> Applied: ...
    @property
    def live(self) -> bool: ...  # False: the past of a stream that has just been opened, for which nobody is called


class Source(Protocol):
    """What a sentence needs to know of a stream."""

    title: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    period: float


class Policy(NamedTuple):
    """When alarms are one incident, and when it is over; everything in steps of the stream."""

    minimum: int = 1  # steps it must have lasted to be called an incident
    quiet: int = 20  # steps the score must stay low, one without an opinion not counted, until it is over
    release: float = 0.7  # share of the threshold that is low: below 1, so that a score dancing on the threshold ends nothing
    cooldown: int = 60  # steps after its end in which a new alarm is more of the same


class Peak(NamedTuple):
    """The strangest step of an incident, by score / threshold."""

    step: int
    time: float  # seconds since the epoch, the stream's
    feature: int
    value: float  # the feature's unit
    low: float  # expected range, NaN = the detector has no band
    high: float
    score: float  # standard deviations
    threshold: float


class Entry(NamedTuple):
    """One line of an incident's history."""

    what: str
    who: str
    time: float  # seconds since the epoch, the stream's
    wall: float | None = None  # seconds since the epoch at which somebody did it; None: it follows from the numbers
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
    until: float = 0.0  # wall seconds at which its snooze ends, NORMAL = with the incident, 0 = none
    acknowledged: str = ""  # by whom
    announced: bool = False  # whether somebody was to be called for it
    told: str = ""  # the severity that reached a channel, "" = none
    text: str = ""
    history: tuple[Entry, ...] = ()

    @property
    def live(self) -> bool:
        return self.state not in (FORMING, RESOLVED)


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


class Change(NamedTuple):
    """Something that happened to an incident, and whether somebody should be called for it."""

    incident: Incident
    what: str  # "opened", "worse", "reopened", "resolved", "acknowledged", "snoozed", "woke"
    call: bool


class Rules(NamedTuple):
    """What the fold goes by."""

    policy: Policy
    severity: Callable[[float, float], str]  # score, threshold -> one of SEVERITIES
    explain: Callable[[Incident], str]


class Rows(NamedTuple):
    """Plain rows to be written, by id and by stream: JSON can hold them."""

    incidents: list[dict[str, Any]]
    watches: list[dict[str, Any]]


class Wanted(NamedTuple):
    """Which incidents one asks for."""

    stream: str | None = None
    states: tuple[str, ...] = STATES
    severity: str = SEVERITIES[0]  # at least
    limit: int = 50
    after: str = ""  # id of the last one on the page before


class Page(NamedTuple):
    """Some of the incidents asked for: live ones first, then the newest."""

    incidents: list[Incident]
    total: int
    after: str  # ask with it for the next page; "" = this is the last


# --- the fold


class Scan(NamedTuple):
    """One batch on its way through the fold."""

    batch: Batch
    lows: np.ndarray  # (n + 1,) how many low steps there are before each row, and in all
    rules: Rules
    now: float  # wall seconds
    changes: list[Change]  # what has happened so far


def fold(watch: Watch, batch: Batch, rules: Rules, now: float) -> tuple[Watch, list[Change]]:
    """The watch after a batch, and what happened in it; `now` (wall seconds) only decides whether a snooze still lasts."""
    skip, n = max(0, watch.step - batch.first), len(batch.score)
    if skip >= n:
        return watch, []
    found = {a.step - batch.first: a for a in batch.anomalies if a.step >= batch.first + skip}
    changes: list[Change] = []
    if watch.current or any(a.alarm for a in found.values()):
        level = rules.policy.release * batch.applied.threshold  # a score without an opinion is neither above it nor low
        scan = Scan(batch, np.append(0, np.cumsum(batch.score <= level)), rules, now, changes)
        done = skip
        for row in (np.flatnonzero(batch.score[skip:] > level) + skip).tolist():
            watch = _strange(_calm(watch, scan, done, row), scan, row, found.get(row))
            done = row + 1
        watch = _calm(watch, scan, done, n)
        watch = watch._replace(current=watch.current and watch.current._replace(text=rules.explain(watch.current)))
    return watch._replace(step=batch.first + n, time=float(batch.time[-1])), changes


def _calm(watch: Watch, scan: Scan, row: int, end: int) -> Watch:
    """Rows among which none is strange: enough low ones end the incident."""
    current, wanted = watch.current, scan.rules.policy.quiet - watch.quiet
    low = int(scan.lows[end] - scan.lows[row])
    if current is None or low < wanted or row == end:
        return watch._replace(quiet=watch.quiet + low if current else 0)
    if current.state == FORMING:
        return watch._replace(current=None, quiet=0)
    last = row + int(np.searchsorted(scan.lows[row : end + 1], scan.lows[row] + wanted)) - 1
    over, call = _ended(current, Entry(RESOLVED, REDLINE, float(scan.batch.time[last])), scan.rules)
    scan.changes.append(Change(over, RESOLVED, call))
    return watch._replace(current=None, former=over, closed=scan.batch.first + last + 1, quiet=0)


def _ended(current: Incident, entry: Entry, rules: Rules) -> tuple[Incident, bool]:
    """The incident when it is over, by itself or by hand, and whether whoever was called should hear of it."""
    until = 0.0 if current.until == NORMAL else current.until
    over = _noted(current._replace(state=RESOLVED, until=until, announced=False), entry)
    return over._replace(text=rules.explain(over)), current.announced and current.state != SNOOZED


def _strange(watch: Watch, scan: Scan, row: int, a: Anomaly | None) -> Watch:
    """A step that is not low: an alarm begins an incident, anything carries on the one there is."""
    current: Incident | None
    if watch.current is not None:
        current = _carried(watch.current, scan, row, a)
    elif a is not None and a.alarm:
        watch = _begun(watch, scan, a)
        current = watch.current
    else:
        return watch
    if current is not None and current.state == FORMING and current.last - current.first + 1 >= scan.rules.policy.minimum:
        current = _noted(_standing(current, scan.now), Entry("opened", REDLINE, current.end))
        current = _told(current, "opened", scan)
    return watch._replace(current=current, quiet=0)


def _carried(current: Incident, scan: Scan, row: int, a: Anomaly | None) -> Incident:
    """The incident one strange step later; it says so when it has become more severe."""
    before, time = current.severity, float(scan.batch.time[row])
    current = current._replace(last=scan.batch.first + row, end=time)
    current = current if a is None else _gathered(current, a, scan.rules)
    if current.state == FORMING or current.severity == before:
        return current
    return _told(_noted(current, Entry(current.severity, REDLINE, time)), "worse", scan)


def _begun(watch: Watch, scan: Scan, a: Anomaly) -> Watch:
    """What an alarm begins when no incident is live: a new one; in a cool-down the former again, or nothing after a person resolved it."""
    former, severity = watch.former, scan.rules.severity(a.score, a.threshold)
    if former is not None and a.step < watch.closed + scan.rules.policy.cooldown:
        if former.history[-1].who == REDLINE:
            return watch._replace(current=_again(former, scan, a), former=None)
        if SEVERITIES.index(severity) <= SEVERITIES.index(former.severity):
            return watch._replace(held=watch.held + 1)
    time = float(a.time)
    new = Incident(named(watch.stream, a.step, time), watch.stream, (a.feature,), a.step, a.step, time, time, 1, 1, _peak(a), severity, FORMING)
    return watch._replace(current=new._replace(until=watch.hush if watch.hush > scan.now else 0.0), former=None)


def _again(former: Incident, scan: Scan, a: Anomaly) -> Incident:
    """An incident that had ended by itself and comes back."""
    again = _gathered(former, a, scan.rules)._replace(last=a.step, end=float(a.time))
    again = _noted(_standing(again, scan.now), Entry("reopened", REDLINE, again.end))
    return _told(again, "reopened" if again.severity == former.severity else "worse", scan)


def _gathered(incident: Incident, a: Anomaly, rules: Rules) -> Incident:
    """The incident with one more anomalous step."""
    peak = incident.peak if a.score / a.threshold <= incident.peak.score / incident.peak.threshold else _peak(a)
    return incident._replace(
        features=incident.features if a.feature in incident.features else (*incident.features, a.feature),
        alarms=incident.alarms + int(a.alarm),
        anomalies=incident.anomalies + 1,
        peak=peak,
        severity=_worst(incident.severity, rules.severity(peak.score, peak.threshold)),
    )


def _peak(a: Anomaly) -> Peak:
    return Peak(a.step, float(a.time), a.feature, float(a.value), float(a.low), float(a.high), float(a.score), float(a.threshold))


def _worst(one: str, other: str) -> str:
    return max(one, other, key=SEVERITIES.index)


def _standing(incident: Incident, now: float) -> Incident:
    """The incident in the state that a live one has now."""
    return incident._replace(state=SNOOZED if incident.until > now else ACKNOWLEDGED if incident.acknowledged else OPEN)


def _noted(incident: Incident, entry: Entry) -> Incident:
    history = (*incident.history, entry)
    return incident._replace(history=history if len(history) <= HISTORY else (history[0], *history[2:]))


def _told(incident: Incident, what: str, scan: Scan) -> Incident:
    """Adds the change; a snoozed one calls nobody, and neither does one that only came back, or one of the past."""
    call = scan.batch.live and what != "reopened" and incident.state != SNOOZED
    incident = incident._replace(announced=incident.announced or call, text=scan.rules.explain(incident))
    scan.changes.append(Change(incident, what, call))
    return incident


def named(stream: str, step: int, time: float) -> str:
    """The id of the incident that began there: the same wherever the stream is replayed."""
    return blake2b(f"{stream}\n{step}\n{time!r}".encode(), digest_size=8).hexdigest()


# --- what people read


def sentence(incident: Incident, stream: Source, reason: Callable[..., str], moment: Callable[[float, float], str]) -> str:
    """One sentence: what was strange since when, at its worst, and how often it called.

    reason(value, (low, high), score, unit) says why a step is strange, moment(time, period) when it was.
    """
    peak, among = incident.peak, len(stream.names) > 1
    what = f"{stream.title}, {_listed([stream.names[f] for f in incident.features])}," if among else stream.title
    when = [moment(time, stream.period) for time in (incident.start, incident.end)]
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
    return f"{what} {span}: {which}{reason(peak.value, (peak.low, peak.high), peak.score, stream.units[peak.feature])}{alarms}."


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# --- plain rows


def row(incident: Incident) -> dict[str, Any]:
    """An incident as JSON can hold it: NaN is null, a snooze until normal is "normal"; the store keeps it and the API answers with it."""
    peak = {name: None if value != value else value for name, value in incident.peak._asdict().items()}
    history = [entry._asdict() for entry in incident.history]
    until = "normal" if incident.until == NORMAL else incident.until
    return incident._asdict() | {"features": list(incident.features), "peak": peak, "until": until, "history": history}


def incident_of(row: dict[str, Any]) -> Incident:
    """The way back from `row`."""
    worst: dict[str, Any] = {name: math.nan if value is None else value for name, value in row["peak"].items()}
    history = tuple(Entry(**entry) for entry in row["history"])
    until = NORMAL if row["until"] == "normal" else row["until"]
    return Incident(**row | {"features": tuple(row["features"]), "peak": Peak(**worst), "until": until, "history": history})


def _watch_row(watch: Watch) -> dict[str, Any]:
    return watch._asdict() | {name: each and row(each) for name, each in (("current", watch.current), ("former", watch.former))}


def _watch_of(row: dict[str, Any]) -> Watch:
    return Watch(**row | {name: row[name] and incident_of(row[name]) for name in ("current", "former")})


# --- all streams together


class Incidents:
    """The incidents of all streams: one thread folds batches in, others list and change them.

    save(Rows) writes what a person changed, and `commit` is given what writes the rows of batches; when it raises, nothing has changed.
    lock: that of the store, where `commit` is called while the store holds it; who only reads takes none.
    """

    def __init__(self, rules: Rules, save: Callable[[Rows], None] | None = None, lock: AbstractContextManager[Any] | None = None) -> None:
        self.rules = rules
        self.save = save or (lambda rows: None)
        self.watches: dict[str, Watch] = {}
        self.items: dict[str, Incident] = {}  # id -> what anybody is shown, oldest first
        self.lock: AbstractContextManager[Any] = lock or threading.RLock()

    def commit(self, batches: Iterable[Batch], now: float, save: Callable[[Rows], None]) -> list[Change]:
        """Folds batches in; their rows are handed to `save`, and count only once it has returned.

        Batches that come a second time, because a transaction failed after that, change nothing and have their rows handed on again.
        """
        with self.lock:
            watches: dict[str, Watch] = {}
            changes: list[Change] = []
            again: dict[str, float] = {}  # seconds since the epoch from which on a stream's steps come a second time
            for batch in batches:
                known = watches.get(batch.name) or self.watches.get(batch.name)
                if known is None and not any(a.alarm for a in batch.anomalies):
                    continue
                if known is not None and batch.first < known.step and len(batch.time):
                    again.setdefault(batch.name, float(batch.time[0]))
                after, more = fold(known or Watch(batch.name), batch, self.rules, now)
                watches[batch.name] = after
                changes += more
            self._adopt(watches, changes, save, again)
            return changes

    def take(self, batch: Batch, now: float) -> list[Change]:
        """Folds one batch in; what happened to the incidents of its stream, in order."""
        return self.commit([batch], now, self.save)

    def acknowledge(self, id: str, who: str, now: float) -> Change:
        """Somebody knows: nobody is called again unless it gets worse."""
        return self._act(id, lambda i: _standing(i._replace(acknowledged=who), now), Entry(ACKNOWLEDGED, who, 0.0, now))

    def snooze(self, id: str, who: str, now: float, length: str) -> Change:
        """Nobody is called for this stream for a while, one of SNOOZES; a later incident of it that opens in this time is born snoozed."""
        if length not in SNOOZES:
            raise ValueError(f"snooze: wanted one of {', '.join(SNOOZES)}; came {length!r}")
        return self._act(id, lambda i: _standing(i._replace(until=now + SNOOZES[length]), now), Entry(SNOOZED, who, 0.0, now, length))

    def resolve(self, id: str, who: str, now: float, note: str = "") -> Change:
        """Somebody says it is over; within the cool-down only a more severe alarm opens another."""
        with self.lock:
            watch = self._watched(id)
            return self._end(watch, Entry(RESOLVED, who, watch.time, now, note), watch._replace(closed=watch.step, quiet=0))

    def told(self, id: str, severity: str) -> None:
        """Remembers that a channel was reached, so that a restart calls nobody twice and forgets nobody."""
        with self.lock:
            if id in self.items:
                incident = self.items[id]._replace(told=severity)
                watch = self.watches[incident.stream]
                current, former = (i and (i._replace(told=severity) if i.id == id else i) for i in (watch.current, watch.former))
                self._adopt({watch.stream: watch._replace(current=current, former=former)}, [Change(incident, "told", False)], self.save)

    def untold(self) -> list[Change]:
        """Calls that were due when the program ended and reached no channel: to be made again at the start."""
        due = [i for i in list(self.items.values()) if i.live and i.announced and i.state != SNOOZED]
        return [Change(i, "opened", True) for i in due if not i.told or SEVERITIES.index(i.told) < SEVERITIES.index(i.severity)]

    def wake(self, now: float) -> list[Change]:
        """Snoozes that are over by now, their incidents still live: whoever should know is called again."""
        with self.lock:
            over = [i for i in self.items.values() if i.state == SNOOZED and i.until <= now]
            return [self._act(i.id, lambda i: _standing(i._replace(until=0.0), now), Entry("woke", REDLINE, 0.0, now)) for i in over]

    def forget(self, stream: str, now: float) -> list[Change]:
        """Ends what is live on a stream whose steps will be counted anew, because another source took its place."""
        with self.lock:
            watch = self.watches.get(stream, Watch(stream))
            new = Watch(stream, hush=watch.hush)
            if watch.current is not None and watch.current.live:
                return [self._end(watch, Entry(RESOLVED, REDLINE, watch.time, now, "the stream was replaced"), new)]
            self._adopt({stream: new}, [], self.save)
            return []

    def one(self, id: str) -> Incident:
        """The incident with this id, or UnknownIncident."""
        found = self.items.get(id)
        if found is None:
            raise UnknownIncident(f"incident: wanted the id of a known one; came {id!r}")
        return found

    def find(self, wanted: Wanted = Wanted()) -> Page:  # noqa: B008  a tuple of constants
        """The incidents asked for, live ones first, then the newest; resolved ones as far as memory goes."""
        least = SEVERITIES.index(wanted.severity)
        found = [i for i in list(self.items.values()) if wanted.stream in (None, i.stream) and i.state in wanted.states]
        mark = self.items.get(wanted.after)
        found = sorted((i for i in found if SEVERITIES.index(i.severity) >= least), key=_rank)
        rest = found if mark is None else [i for i in found if _rank(i) > _rank(mark)]
        page = rest[: wanted.limit]
        return Page(page, len(found), page[-1].id if len(rest) > len(page) else "")

    def restore(self, rows: Rows) -> None:
        """Takes up what was saved, into an empty object."""
        with self.lock:
            self.items = {incident.id: incident for incident in sorted(map(incident_of, rows.incidents), key=lambda i: i.start)}
            self.watches = {i.stream: Watch(i.stream) for i in self.items.values()} | {w.stream: w for w in map(_watch_of, rows.watches)}

    def _watched(self, id: str) -> Watch:
        """The watch whose live incident this is, or an error that says why there is none."""
        incident = self.one(id)
        watch = self.watches[incident.stream]
        if watch.current is None or watch.current.id != id:
            raise Settled(f"incident {id}: wanted a live one; it is resolved since {incident.history[-1].time:.0f}")
        return watch

    def _end(self, watch: Watch, entry: Entry, after: Watch) -> Change:
        """Ends the live incident of a watch; `after` is the watch without it, a fresh one keeps no former."""
        assert watch.current is not None
        over, call = _ended(watch.current, entry, self.rules)
        change = Change(over, RESOLVED, call)
        former = over if after.step else None
        self._adopt({watch.stream: after._replace(current=None, former=former)}, [change], self.save)
        return change

    def _act(self, id: str, act: Callable[[Incident], Incident], entry: Entry) -> Change:
        """Changes a live incident by hand."""
        with self.lock:
            watch = self._watched(id)
            assert watch.current is not None
            after = _noted(act(watch.current), entry._replace(time=watch.time))
            call = entry.what == "woke"
            after = after._replace(announced=after.announced or call)
            hush = after.until if entry.what == SNOOZED and after.until != NORMAL else watch.hush
            change = Change(after, entry.what, call)
            self._adopt({watch.stream: watch._replace(current=after, hush=hush)}, [change], self.save)
            return change

    def _adopt(
        self, watches: dict[str, Watch], changes: list[Change], save: Callable[[Rows], None], again: Mapping[str, float] = MappingProxyType({})
    ) -> None:
        """Writes what is new, and what may not have been written at the first try, then makes it what anybody sees."""
        old = [i for i in self.items.values() if i.stream in again and max(i.end, i.history[-1].time) >= again[i.stream]] if again else []
        touched = {incident.id: incident for incident in old}
        touched |= {change.incident.id: change.incident for change in changes}
        touched |= {watch.current.id: watch.current for watch in watches.values() if watch.current is not None and watch.current.live}
        fresh = [watch for name, watch in watches.items() if name in again or _weighty(watch, self.watches.get(name))]
        save(Rows([row(i) for i in touched.values() if i.stream in again or i != self.items.get(i.id)], [_watch_row(watch) for watch in fresh]))
        self.watches |= watches
        self.items |= touched
        if len(self.items) > KEPT + KEPT // 4:
            for id in [i.id for i in self.items.values() if not i.live][:-KEPT]:
                del self.items[id]


def _weighty(after: Watch, before: Watch | None) -> bool:
    """Whether a restart would miss what the watch has learned: a stream that is calm only counts its steps."""
    return before is None or bool(after.current) or after._replace(step=before.step, time=before.time, quiet=before.quiet) != before


def _rank(incident: Incident) -> tuple[bool, float, str]:
    return (not incident.live, -incident.start, incident.id)
