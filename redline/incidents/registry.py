"""The registry of incidents: finds, changes and stores them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, NamedTuple

from redline.engine.results import Batch, StreamInfo
from redline.engine.wording import SEVERITIES
from redline.incidents.grouping import (
    Watch,
    add_entry,
    current_state,
    end_incident,
    fold_batch,
)
from redline.incidents.incident import (
    ACKNOWLEDGED,
    RESOLVED,
    SNOOZED,
    SNOOZES,
    STATES,
    SYSTEM_ACTOR,
    UNTIL_NORMAL,
    Change,
    HistoryEntry,
    Incident,
    IncidentSettled,
    Policy,
    UnknownIncident,
    incident_from_row,
    incident_row,
)

MAX_RESOLVED = 2_000  # resolved incidents kept in memory, older ones are the store's


class StoredIncidents(NamedTuple):
    """Plain rows to be written, by id and by stream: JSON can hold them."""

    incidents: list[dict[str, Any]]
    watches: list[dict[str, Any]]


class IncidentQuery(NamedTuple):
    """Which incidents one asks for."""

    stream: str | None = None
    states: tuple[str, ...] = STATES
    severity: str = SEVERITIES[0]  # at least
    limit: int = 50
    after: str = ""  # id of the last one on the page before


class IncidentPage(NamedTuple):
    """Some of the incidents asked for: live ones first, then the newest."""

    incidents: list[Incident]
    total: int
    after: str  # ask with it for the next page; "" = this is the last


def _watch_row(watch: Watch) -> dict[str, Any]:
    return watch._asdict() | {
        name: each and incident_row(each)
        for name, each in (("current", watch.current), ("former", watch.former))
    }


def _watch_of(row: dict[str, Any]) -> Watch:
    info = row.get("info")
    if info:
        title, names, units, period = info
        info = StreamInfo(title, tuple(names), tuple(units), period)
    incidents = {name: row[name] and incident_from_row(row[name]) for name in ("current", "former")}
    return Watch(**row | incidents | {"info": info})


class Incidents:
    """The incidents of all streams: one thread folds batches in, others list and change them.

    save(Rows) writes what a person changed, and `commit` is given what writes the rows of batches;
    when it raises, nothing has changed. lock: that of the store, where `commit` is called while the
    store holds it; who only reads takes none.
    """

    def __init__(
        self,
        policy: Policy = Policy(),  # noqa: B008
        save: Callable[[StoredIncidents], None] | None = None,
        lock: AbstractContextManager[Any] | None = None,
    ) -> None:
        self.policy = policy
        self.save = save or (lambda rows: None)
        self.watches: dict[str, Watch] = {}
        self.items: dict[str, Incident] = {}  # id -> what anybody is shown, oldest first
        self.lock: AbstractContextManager[Any] = lock or threading.RLock()

    def commit(
        self, batches: Iterable[Batch], now: float, save: Callable[[StoredIncidents], None]
    ) -> list[Change]:
        """Folds batches in; their rows are handed to `save`, and count only once it has returned.

        Batches that come a second time, because a transaction failed after that, change nothing and
        have their rows handed on again.
        """
        with self.lock:
            watches: dict[str, Watch] = {}
            changes: list[Change] = []
            again: dict[
                str, float
            ] = {}  # seconds since the epoch from which on a stream's steps come a second time
            for batch in batches:
                known = watches.get(batch.name) or self.watches.get(batch.name)
                if known is None and not any(a.alarm for a in batch.anomalies):
                    continue
                if known is not None and batch.first < known.step and len(batch.time):
                    again.setdefault(batch.name, float(batch.time[0]))
                after, more = fold_batch(known or Watch(batch.name), batch, self.policy, now)
                watches[batch.name] = after
                changes += more
            self._adopt(watches, changes, save, again)
            return changes

    def take(self, batch: Batch, now: float) -> list[Change]:
        """Folds one batch in; what happened to the incidents of its stream, in order."""
        return self.commit([batch], now, self.save)

    def stream_info(self, name: str) -> StreamInfo | None:
        """Return how a stream is described to people; None = no batch of it came yet."""
        watch = self.watches.get(name)
        return watch.info if watch else None

    def acknowledge(self, id: str, who: str, now: float) -> Change:
        """Acknowledge it: it is not sent again unless it gets worse."""
        return self._act(
            id,
            lambda i: current_state(i._replace(acknowledged=who), now),
            HistoryEntry(ACKNOWLEDGED, who, 0.0, now),
        )

    def snooze(self, id: str, who: str, now: float, length: str) -> Change:
        """Send nothing for this stream for a while, one of SNOOZES; a later incident of it that
        opens in this time is born snoozed.
        """
        if length not in SNOOZES:
            raise ValueError(f"snooze: wanted one of {', '.join(SNOOZES)}; came {length!r}")
        return self._act(
            id,
            lambda i: current_state(i._replace(until=now + SNOOZES[length]), now),
            HistoryEntry(SNOOZED, who, 0.0, now, length),
        )

    def resolve(self, id: str, who: str, now: float, note: str = "") -> Change:
        """Resolve it by hand; within the cool-down only a more severe alarm opens another."""
        with self.lock:
            watch = self._watched(id)
            return self._end(
                watch,
                HistoryEntry(RESOLVED, who, watch.time, now, note),
                watch._replace(closed=watch.step, quiet=0),
            )

    def told(self, id: str, severity: str) -> None:
        """Remembers that a channel was reached, so that a restart sends nothing twice and forgets
        nothing.
        """
        with self.lock:
            if id in self.items:
                incident = self.items[id]._replace(told=severity)
                watch = self.watches[incident.stream]
                current, former = (
                    i and (i._replace(told=severity) if i.id == id else i)
                    for i in (watch.current, watch.former)
                )
                self._adopt(
                    {watch.stream: watch._replace(current=current, former=former)},
                    [Change(incident, "told", False)],
                    self.save,
                )

    def untold(self) -> list[Change]:
        """Calls that were due when the program ended and reached no channel: to be made again at
        the start.
        """
        due = [
            i for i in list(self.items.values()) if i.live and i.announced and i.state != SNOOZED
        ]
        return [
            Change(i, "opened", True)
            for i in due
            if not i.told or SEVERITIES.index(i.told) < SEVERITIES.index(i.severity)
        ]

    def wake(self, now: float) -> list[Change]:
        """Snoozes that are over by now, their incidents still live: whoever should know is called
        again.
        """
        with self.lock:
            over = [i for i in self.items.values() if i.state == SNOOZED and i.until <= now]
            return [
                self._act(
                    i.id,
                    lambda i: current_state(i._replace(until=0.0), now),
                    HistoryEntry("woke", SYSTEM_ACTOR, 0.0, now),
                )
                for i in over
            ]

    def forget(self, stream: str, now: float) -> list[Change]:
        """Ends what is live on a stream whose steps will be counted anew, because another source
        took its place.
        """
        with self.lock:
            watch = self.watches.get(stream, Watch(stream))
            new = Watch(stream, hush=watch.hush)
            if watch.current is not None and watch.current.live:
                return [
                    self._end(
                        watch,
                        HistoryEntry(
                            RESOLVED, SYSTEM_ACTOR, watch.time, now, "the stream was replaced"
                        ),
                        new,
                    )
                ]
            self._adopt({stream: new}, [], self.save)
            return []

    def one(self, id: str) -> Incident:
        """The incident with this id, or UnknownIncident."""
        found = self.items.get(id)
        if found is None:
            raise UnknownIncident(f"incident: wanted the id of a known one; came {id!r}")
        return found

    def find(self, wanted: IncidentQuery = IncidentQuery()) -> IncidentPage:  # noqa: B008  a tuple of constants
        """The incidents asked for, live ones first, then the newest; resolved ones as far as memory
        goes.
        """
        least = SEVERITIES.index(wanted.severity)
        found = [
            i
            for i in list(self.items.values())
            if wanted.stream in (None, i.stream) and i.state in wanted.states
        ]
        mark = self.items.get(wanted.after)
        found = sorted((i for i in found if SEVERITIES.index(i.severity) >= least), key=_rank)
        rest = found if mark is None else [i for i in found if _rank(i) > _rank(mark)]
        page = rest[: wanted.limit]
        return IncidentPage(page, len(found), page[-1].id if len(rest) > len(page) else "")

    def restore(self, rows: StoredIncidents) -> None:
        """Takes up what was saved, into an empty object."""
        with self.lock:
            self.items = {
                incident.id: incident
                for incident in sorted(
                    map(incident_from_row, rows.incidents), key=lambda i: i.start
                )
            }
            self.watches = {i.stream: Watch(i.stream) for i in self.items.values()} | {
                w.stream: w for w in map(_watch_of, rows.watches)
            }

    def _watched(self, id: str) -> Watch:
        """The watch whose live incident this is, or an error that says why there is none."""
        incident = self.one(id)
        watch = self.watches[incident.stream]
        if watch.current is None or watch.current.id != id:
            raise IncidentSettled(
                f"incident {id}: wanted a live one; it is resolved since "
                f"{incident.history[-1].time:.0f}"
            )
        return watch

    def _end(self, watch: Watch, entry: HistoryEntry, after: Watch) -> Change:
        """Ends the live incident of a watch; `after` is the watch without it, a fresh one keeps no
        former.
        """
        assert watch.current is not None
        over, call = end_incident(watch, watch.current, entry)
        change = Change(over, RESOLVED, call)
        former = over if after.step else None
        self._adopt(
            {watch.stream: after._replace(current=None, former=former)}, [change], self.save
        )
        return change

    def _act(self, id: str, act: Callable[[Incident], Incident], entry: HistoryEntry) -> Change:
        """Changes a live incident by hand."""
        with self.lock:
            watch = self._watched(id)
            assert watch.current is not None
            after = add_entry(act(watch.current), entry._replace(time=watch.time))
            call = entry.what == "woke"
            after = after._replace(announced=after.announced or call)
            hush = (
                after.until if entry.what == SNOOZED and after.until != UNTIL_NORMAL else watch.hush
            )
            change = Change(after, entry.what, call)
            self._adopt(
                {watch.stream: watch._replace(current=after, hush=hush)}, [change], self.save
            )
            return change

    def _adopt(
        self,
        watches: dict[str, Watch],
        changes: list[Change],
        save: Callable[[StoredIncidents], None],
        again: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Writes what is new, and what may not have been written at the first try, then makes it
        what anybody sees.
        """
        old = (
            [
                i
                for i in self.items.values()
                if i.stream in again and max(i.end, i.history[-1].time) >= again[i.stream]
            ]
            if again
            else []
        )
        touched = {incident.id: incident for incident in old}
        touched |= {change.incident.id: change.incident for change in changes}
        touched |= {
            watch.current.id: watch.current
            for watch in watches.values()
            if watch.current is not None and watch.current.live
        }
        fresh = [
            watch
            for name, watch in watches.items()
            if name in again or _weighty(watch, self.watches.get(name))
        ]
        save(
            StoredIncidents(
                [
                    incident_row(i)
                    for i in touched.values()
                    if i.stream in again or i != self.items.get(i.id)
                ],
                [_watch_row(watch) for watch in fresh],
            )
        )
        self.watches |= watches
        self.items |= touched
        if len(self.items) > MAX_RESOLVED + MAX_RESOLVED // 4:
            for id in [i.id for i in self.items.values() if not i.live][:-MAX_RESOLVED]:
                del self.items[id]


def _weighty(after: Watch, before: Watch | None) -> bool:
    """Whether a restart would miss what the watch has learned: a stream that is calm only counts
    its steps.
    """
    return (
        before is None
        or bool(after.current)
        or after._replace(step=before.step, time=before.time, quiet=before.quiet) != before
    )


def _rank(incident: Incident) -> tuple[bool, float, str]:
    return (not incident.live, -incident.start, incident.id)
