"""The registry of incidents: finds, changes and stores them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, NamedTuple

from redline.engine.results import Batch, StreamInfo
from redline.engine.wording import SEVERITIES, visible_note
from redline.incidents.grouping import (
    Watch,
    add_entry,
    current_state,
    end_incident,
    fold_batch,
)
from redline.incidents.incident import (
    ACKNOWLEDGED,
    LIVE_STATES,
    NOTED,
    OPEN,
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

MAX_RESOLVED = 2_000  # resolved incidents kept in memory; older ones are only in the store
MAX_OPENINGS = 100  # openings remembered for those who follow them
# Watch field -> its key in stored rows
_WATCH_KEYS = {"snoozed_until": "hush", "suppressed": "held"}


class StoredIncidents(NamedTuple):
    """Incidents and watches as rows that JSON can hold."""

    incidents: list[dict[str, Any]]  # one per incident id
    watches: list[dict[str, Any]]  # one per stream
    dropped: Sequence[str] = ()  # streams whose watch is not needed any more


class IncidentQuery(NamedTuple):
    """Filter and page of a list of incidents."""

    stream: str | None = None
    states: tuple[str, ...] = STATES
    severity: str = SEVERITIES[0]  # at least
    limit: int = 50
    after: str = ""  # id of the last incident of the previous page


class IncidentPage(NamedTuple):
    """One page of the incidents that match a query: live ones first, then the newest."""

    incidents: list[Incident]
    total: int  # on all pages
    after: str  # `after` of the query for the next page; "" = this is the last page


def _watch_row(watch: Watch) -> dict[str, Any]:
    """Return a watch as a row that JSON can hold."""
    row = {_WATCH_KEYS.get(name, name): value for name, value in watch._asdict().items()}
    row["current"] = watch.current and incident_row(watch.current)
    row["former"] = watch.former and incident_row(watch.former)
    return row


def _watch_from_row(row: dict[str, Any]) -> Watch:
    """Return the watch of a stored row."""
    fields = {name: row[key] for name, key in _WATCH_KEYS.items() if key in row}
    fields |= {key: value for key, value in row.items() if key not in _WATCH_KEYS.values()}
    for name in ("current", "former"):
        fields[name] = row[name] and incident_from_row(row[name])
    if info := row.get("info"):
        title, names, units, period = info
        fields["info"] = StreamInfo(title, tuple(names), tuple(units), period)
    return Watch(**fields)


class Incidents:
    """The incidents of all streams: one thread folds batches in, others list and change them.

    save: writes the rows of what a person changed; `commit` gets a function of its own for the rows
    of batches. When either raises, nothing has changed. lock: the store's, because `commit` is
    called while the store holds it; readers take no lock.
    """

    def __init__(
        self,
        policy: Policy = Policy(),  # noqa: B008
        save: Callable[[StoredIncidents], None] | None = None,
        lock: AbstractContextManager[Any] | None = None,
        held: Container[str] = (),
    ) -> None:
        self.policy = policy
        self.held = held  # ids of incidents whose alarm waits to be sent, as `GroupHold` keeps them
        self.save = save or (lambda rows: None)
        self.watches: dict[str, Watch] = {}
        self.items: dict[str, Incident] = {}  # id -> incident, oldest first
        self.newest_opening = 0  # counts the incidents that opened or got worse
        # (number, id) of the last of them, oldest first
        self.openings: deque[tuple[int, str]] = deque(maxlen=MAX_OPENINGS)
        self.lock: AbstractContextManager[Any] = lock or threading.RLock()

    def commit(
        self, batches: Iterable[Batch], now: float, save: Callable[[StoredIncidents], None]
    ) -> list[Change]:
        """Fold batches into incidents and return what changed; it counts once `save` has returned.

        Batches that come a second time, because the transaction failed after `save`, change nothing
        and have their rows passed to `save` again.
        """
        with self.lock:
            watches: dict[str, Watch] = {}
            changes: list[Change] = []
            # stream -> seconds since the epoch of the first step that comes a second time
            repeated: dict[str, float] = {}
            for batch in batches:
                known = watches.get(batch.name) or self.watches.get(batch.name)
                if known is None and not any(a.alarm for a in batch.anomalies):
                    continue
                if known is not None and batch.first < known.step and len(batch.time):
                    repeated.setdefault(batch.name, float(batch.time[0]))
                after, more = fold_batch(known or Watch(batch.name), batch, self.policy, now)
                after, more = self._mark_unsent(after, more)
                watches[batch.name] = after
                changes += more
            self._store(watches, changes, save, repeated)
            return changes

    def _mark_unsent(self, watch: Watch, changes: list[Change]) -> tuple[Watch, list[Change]]:
        """Return a watch and its changes with a mark on incidents that end while they are held."""
        ended = {
            change.incident.id: change.incident._replace(unsent=True)
            for change in changes
            if change.what == RESOLVED and change.notify and change.incident.id in self.held
        }
        if not ended:
            return watch, changes
        if watch.former is not None and watch.former.id in ended:
            watch = watch._replace(former=watch.former._replace(unsent=True))
        marked = [
            change._replace(incident=ended[change.incident.id])
            if change.what == RESOLVED and change.incident.id in ended
            else change
            for change in changes
        ]
        return watch, marked

    def fold(self, batch: Batch, now: float) -> list[Change]:
        """Fold one batch in and return the changes of its stream's incidents, in order."""
        return self.commit([batch], now, self.save)

    def live_streams(self) -> list[str]:
        """Return the streams with an incident that has not ended: their calm steps may end it."""
        return [name for name, watch in list(self.watches.items()) if watch.current]

    def stream_info(self, name: str) -> StreamInfo | None:
        """Return the title, names and units of a stream; None = no batch of it has come yet."""
        watch = self.watches.get(name)
        return watch.info if watch else None

    def acknowledge(self, id: str, who: str, now: float) -> Change:
        """Acknowledge an incident: it is not sent again unless it gets worse."""
        return self._act(
            id,
            lambda i: current_state(i._replace(acknowledged=who), now),
            HistoryEntry(ACKNOWLEDGED, who, 0.0, now),
        )

    def snooze(self, id: str, who: str, now: float, length: str) -> Change:
        """Send nothing for the incident's stream for a while, one of SNOOZES.

        An incident of the stream that opens in that time is snoozed from its start.
        """
        if length not in SNOOZES:
            raise ValueError(f"snooze: wanted one of {', '.join(SNOOZES)}; came {length!r}")
        return self._act(
            id,
            lambda i: current_state(i._replace(until=now + SNOOZES[length]), now),
            HistoryEntry(SNOOZED, who, 0.0, now, length),
        )

    def resolve(self, id: str, who: str, now: float, note: str = "") -> Change:
        """Resolve an incident by hand; in the cool-down only a more severe alarm opens another."""
        with self.lock:
            watch = self._live_watch(id)
            return self._end(
                watch,
                HistoryEntry(RESOLVED, who, watch.time, now, visible_note(note)),
                watch._replace(closed=watch.step, quiet=0),
            )

    def annotate(self, id: str, who: str, now: float, note: str) -> Change:
        """Write a note on an incident, also on one that is resolved."""
        with self.lock:
            incident = self.get(id)
            entry = HistoryEntry(NOTED, who, incident.end, now, visible_note(note))
            watch = self.watches.get(incident.stream)  # None = the stream is gone
            if watch is not None and watch.current is not None and watch.current.id == id:
                return self._act(id, lambda i: i, entry)
            after = add_entry(incident, entry)
            known = {} if watch is None else {watch.stream: watch}
            if watch is not None and watch.former is not None and watch.former.id == id:
                known = {watch.stream: watch._replace(former=after)}
            change = Change(after, NOTED, False)
            self._store(known, [change], self.save)
            return change

    def mark_notified(self, severities: Mapping[str, str]) -> None:
        """Record that a message of a severity reached a channel, by incident id.

        After a restart nothing is then sent twice, and nothing left out.
        """
        with self.lock:
            watches: dict[str, Watch] = {}
            changes = []
            for id, severity in severities.items():
                if id not in self.items:
                    continue
                incident = _with_notified(self.items[id], severity)
                changes.append(Change(incident, "notified", False))
                watch = watches.get(incident.stream) or self.watches.get(incident.stream)
                if watch is None:
                    continue
                if watch.current and watch.current.id == id:
                    watch = watch._replace(current=_with_notified(watch.current, severity))
                if watch.former and watch.former.id == id:
                    watch = watch._replace(former=_with_notified(watch.former, severity))
                watches[watch.stream] = watch
            if changes:
                self._store(watches, changes, self.save)

    def undelivered(self) -> list[Change]:
        """Return the changes that were due when the program ended and reached no channel.

        Of an incident that ended while its alarm was held both its beginning and its end.
        """
        due = [
            i
            for i in list(self.items.values())
            if i.unsent or (i.live and i.announced and i.state != SNOOZED)
        ]
        changes = []
        for i in due:
            known = i.notified_severity
            if known and SEVERITIES.index(known) >= SEVERITIES.index(i.severity):
                continue
            if i.live:
                changes.append(Change(i, "opened", True))
            else:
                changes.append(Change(i._replace(state=OPEN), "opened", True))
                changes.append(Change(i, RESOLVED, True))
        return changes

    def end_snoozes(self, now: float) -> list[Change]:
        """End the snoozes of live incidents that are over at `now` (wall seconds); each is sent."""
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

    def reset_stream(self, stream: str, now: float) -> list[Change]:
        """End the live incident of a stream that is gone or replaced; count its steps anew.

        Nothing is kept of the stream but a snooze that goes on.
        """
        with self.lock:
            watch = self.watches.get(stream)
            if watch is None:
                return []
            new = Watch(stream, snoozed_until=watch.snoozed_until)
            dropped = () if watch.snoozed_until > now else (stream,)
            if watch.current is None or not watch.current.live:
                self._store({stream: new}, [], self.save, dropped=dropped)
                return []
            note = "the stream was replaced"
            entry = HistoryEntry(RESOLVED, SYSTEM_ACTOR, watch.time, now, note)
            return [self._end(watch, entry, new, dropped)]

    def get(self, id: str) -> Incident:
        """Return the incident with this id.

        Raises UnknownIncident if memory has none.
        """
        found = self.items.get(id)
        if found is None:
            raise UnknownIncident(f"incident: wanted the id of a known one; came {id!r}")
        return found

    def live_of(self, stream: str) -> Incident | None:
        """Return the incident of a stream that is not resolved; None = there is none."""
        watch = self.watches.get(stream)
        current = watch.current if watch else None
        return current if current is not None and current.state in LIVE_STATES else None

    def find(self, wanted: IncidentQuery = IncidentQuery()) -> IncidentPage:  # noqa: B008
        """Return a page of the incidents in memory that match: live ones first, then the newest."""
        least = SEVERITIES.index(wanted.severity)
        found = [
            i
            for i in list(self.items.values())
            if wanted.stream in (None, i.stream)
            and i.state in wanted.states
            and SEVERITIES.index(i.severity) >= least
        ]
        found.sort(key=_rank)
        previous = self.items.get(wanted.after)
        rest = found if previous is None else [i for i in found if _rank(i) > _rank(previous)]
        page = rest[: wanted.limit]
        return IncidentPage(page, len(found), page[-1].id if len(rest) > len(page) else "")

    def opened_since(self, number: int) -> list[Incident]:
        """Return the incidents that opened or got worse after opening `number`, oldest first.

        An incident that did both comes once.
        """
        ids = dict.fromkeys(id for each, id in list(self.openings) if each > number)
        return [self.items[id] for id in ids if id in self.items]

    def restore(self, rows: StoredIncidents) -> None:
        """Load stored incidents and watches into an empty object."""
        with self.lock:
            incidents = sorted(map(incident_from_row, rows.incidents), key=lambda i: i.start)
            self.items = {incident.id: incident for incident in incidents}
            self.watches = {i.stream: Watch(i.stream) for i in incidents}
            self.watches |= {w.stream: w for w in map(_watch_from_row, rows.watches)}

    def _live_watch(self, id: str) -> Watch:
        """Return the watch whose live incident has this id.

        Raises UnknownIncident, or IncidentSettled if the incident is resolved already.
        """
        incident = self.get(id)
        watch = self.watches.get(incident.stream, Watch(incident.stream))
        if watch.current is None or watch.current.id != id:
            raise IncidentSettled(
                f"incident {id}: wanted a live one; it is resolved since "
                f"{last_resolved(incident):.0f}"
            )
        return watch

    def _end(
        self, watch: Watch, entry: HistoryEntry, after: Watch, dropped: Sequence[str] = ()
    ) -> Change:
        """End the live incident of a watch.

        Args:
            watch: has the incident.
            entry: the last of the incident's history.
            after: the watch without it; one at step 0 is new and keeps no former incident.
            dropped: the stream, where its watch is not needed any more.
        """
        assert watch.current is not None
        over, notify = end_incident(watch, watch.current, entry)
        change = Change(over, RESOLVED, notify)
        former = over if after.step else None
        after = after._replace(current=None, former=former)
        self._store({watch.stream: after}, [change], self.save, dropped=dropped)
        return change

    def _act(self, id: str, act: Callable[[Incident], Incident], entry: HistoryEntry) -> Change:
        """Apply `act` to a live incident, with an entry in its history."""
        with self.lock:
            watch = self._live_watch(id)
            assert watch.current is not None
            after = add_entry(act(watch.current), entry._replace(time=watch.time))
            notify = entry.what == "woke"
            after = after._replace(announced=after.announced or notify)
            watch = watch._replace(current=after)
            if entry.what == SNOOZED and after.until != UNTIL_NORMAL:
                watch = watch._replace(snoozed_until=after.until)
            change = Change(after, entry.what, notify)
            self._store({watch.stream: watch}, [change], self.save)
            return change

    def _store(
        self,
        watches: dict[str, Watch],
        changes: list[Change],
        save: Callable[[StoredIncidents], None],
        repeated: Mapping[str, float] = MappingProxyType({}),
        dropped: Sequence[str] = (),
    ) -> None:
        """Save watches and incidents that changed, then make them visible to readers.

        repeated: stream -> seconds since the epoch from which its steps came a second time; its
        incidents since then are saved again, because the first transaction may have failed.
        dropped: streams whose watch is deleted.
        """
        touched: dict[str, Incident] = {}
        if repeated:
            touched = {
                i.id: i
                for i in self.items.values()
                if i.stream in repeated and max(i.end, i.history[-1].time) >= repeated[i.stream]
            }
        touched |= {change.incident.id: change.incident for change in changes}
        touched |= {
            watch.current.id: watch.current
            for watch in watches.values()
            if watch.current is not None and watch.current.live
        }
        incident_rows = [
            incident_row(i)
            for i in touched.values()
            if i.stream in repeated or i != self.items.get(i.id)
        ]
        watch_rows = [
            _watch_row(watch)
            for name, watch in watches.items()
            if name not in dropped
            and (name in repeated or _needs_saving(watch, self.watches.get(name)))
        ]
        save(StoredIncidents(incident_rows, watch_rows, dropped))
        self.watches |= watches
        for name in dropped:
            del self.watches[name]
        self.items |= touched
        for change in changes:
            if change.what in ("opened", "worse") and change.incident.state != SNOOZED:
                self.openings.append((self.newest_opening + 1, change.incident.id))
                self.newest_opening += 1  # last: who reads the number finds the opening
        if len(self.items) > MAX_RESOLVED + MAX_RESOLVED // 4:
            for id in [i.id for i in self.items.values() if not i.live][:-MAX_RESOLVED]:
                del self.items[id]


def last_resolved(incident: Incident) -> float:
    """Return when an incident was last resolved, seconds since the epoch, the stream's time."""
    ends = (e.time for e in reversed(incident.history) if e.what == RESOLVED)
    return next(ends, incident.end)  # many later notes may have taken the entry's place


def _needs_saving(after: Watch, before: Watch | None) -> bool:
    """Return whether a restart needs more than the old watch: a calm stream only counts steps."""
    return (
        before is None
        or bool(after.current)
        or after._replace(step=before.step, time=before.time, quiet=before.quiet) != before
    )


def _with_notified(incident: Incident, severity: str) -> Incident:
    """Return an incident of which a message of this severity reached a channel."""
    return incident._replace(notified_severity=severity, unsent=False)


def _rank(incident: Incident) -> tuple[bool, float, str]:
    """Return the sort key of a list: live incidents first, then the newest."""
    return (not incident.live, -incident.start, incident.id)
