"""The joint incidents of a running server: groups of incidents, followed as incidents change."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from redline.engine.results import log
from redline.incidents.correlation import MEMORY, Beginning, Correlator, IncidentGroup
from redline.incidents.incident import Change, Incident

# changes with which an incident begins, to a person: a small one that gets worse begins then
BEGINNINGS = ("opened", "worse", "reopened")
WARM_STEPS = 100  # of a series, on average, after which the rate of beginnings is known
COUNT_SECONDS = 5.0  # between two looks at which series there are
COUNTED_AT_ONCE = 5_000  # new series, so that a commit never waits for long


class GroupPersistence(NamedTuple):
    """The functions that store groups; what raises must have stored nothing."""

    # gets rows, each with id and start, and the ids of the groups that are deleted
    save: Callable[[Sequence[Mapping[str, Any]], Sequence[str]], None] = lambda rows, gone: None


class JointIncidents:
    """The groups of incidents, kept over a restart; any thread may call."""

    def __init__(
        self,
        names: Callable[[], Iterable[str]],
        mean_steps: Callable[[], float] = lambda: 0.0,
        correlator: Correlator | None = None,
        persistence: GroupPersistence = GroupPersistence(),  # noqa: B008
    ) -> None:
        """Follow incidents.

        Args:
            names: returns the names of all series that are watched.
            mean_steps: returns how many steps of a series are scored, on average.
            correlator: finds the groups.
            persistence: stores them.
        """
        self.names = names
        self.mean_steps = mean_steps
        self.correlator = correlator or Correlator()
        self.persistence = persistence
        self.counted = -math.inf  # monotonic seconds at which the labels were counted
        # group -> the severity that a message about it had, RESOLVED after that of its end
        self.notified: dict[str, str] = {}
        self.stored: set[str] = set()  # ids of the groups that the store has
        self.unsaved: set[str] = set()  # ids of those that are to be stored
        self.earlier: list[Beginning] = []  # of an earlier run, not taken in yet
        self.lock = threading.Lock()

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Take changes of incidents in; for a list of listeners."""
        self.follow(changes)

    def follow(self, changes: Sequence[Change]) -> list[IncidentGroup]:
        """Take changes of incidents in; return the groups that are new or have changed."""
        found = beginnings_of(changes)
        if not found:
            return []
        with self.lock:
            now = time.monotonic()
            due = now - self.counted > COUNT_SECONDS
            if due and self.correlator.set_streams(self.names(), COUNTED_AT_ONCE):
                self.counted = now
            self.correlator.warm |= self.mean_steps() >= WARM_STEPS
            if self.earlier and self.counted > -math.inf:
                found = [*self.earlier, *found]
                self.earlier = []
            changed = self.correlator.feed(found, time.time())
            self.unsaved |= {group.id for group in changed}
            self._save()
            return changed

    def mark_notified(self, id: str, severity: str) -> None:
        """Store that a message about a group of this severity, or about its end, was sent."""
        with self.lock:
            if id in self.correlator.ids():
                self.notified[id] = severity
                self.unsaved.add(id)
                self._save()

    def restore(self, rows: Iterable[Mapping[str, Any]], incidents: Iterable[Incident]) -> None:
        """Load stored groups into an empty object.

        incidents: those of the store; the beginnings of the last hour that are in no group count
            for the present rate, and the newest of them may still join one.
        """
        with self.lock:
            groups = []
            for row in rows:
                groups.append(group_from_row(row))
                if row["notified"]:
                    self.notified[row["id"]] = row["notified"]
            self.stored = {group.id for group in groups}
            self.correlator.restore(groups)
            began = [Beginning(i.stream, i.start, i.severity, i.id) for i in incidents]
            newest = max((each.time for each in began), default=0.0)
            self.earlier = [
                each
                for each in began
                if each.time > newest - MEMORY and each.incident not in self.correlator.group_of
            ]

    def _save(self) -> None:
        """Store what has changed; what fails is stored with the next change."""
        kept = self.correlator.ids()
        found = {group.id: group for group in self.correlator.groups() if group.id in self.unsaved}
        rows = [group_row(group, self.notified.get(id, "")) for id, group in found.items()]
        gone = sorted(self.stored - kept)
        if not rows and not gone:
            return
        try:
            self.persistence.save(rows, gone)
        except OSError as error:
            log.warning("groups of incidents could not be stored and are tried again: %s", error)
            return
        self.stored = (self.stored - set(gone)) | set(found)
        self.unsaved.clear()
        for id in gone:
            self.notified.pop(id, None)

    def find(self, id: str) -> IncidentGroup | None:
        """Return the group with this id; None = it is not known any more."""
        with self.lock:
            return self.correlator.find(id)

    def groups(self) -> list[IncidentGroup]:
        """Return all groups known, the newest first."""
        with self.lock:
            return self.correlator.groups()

    def group_of(self, incident: str) -> str | None:
        """Return the id of the group of an incident; None = it is in none."""
        return self.correlator.group_of.get(incident)


def beginnings_of(changes: Iterable[Change]) -> list[Beginning]:
    """Return the beginnings among changes of incidents, in their streams' own time."""
    return [
        Beginning(
            change.incident.stream,
            change.incident.start if change.what == "opened" else change.incident.end,
            change.incident.severity,
            change.incident.id,
        )
        for change in changes
        if change.what in BEGINNINGS
    ]


def group_row(group: IncidentGroup, notified: str) -> dict[str, Any]:
    """Return a group as the store keeps it: JSON can hold it.

    notified: the severity that a message about it had, "" = there was none.
    """
    row = group._asdict() | {"start": group.first.time, "notified": notified}
    return row | {"members": [list(member) for member in group.members]}


def group_from_row(row: Mapping[str, Any]) -> IncidentGroup:
    """Return the group of a row that `group_row` made."""
    label, value = row["cause"]
    return IncidentGroup(
        id=row["id"],
        cause=(label, value),
        carriers=row["carriers"],
        members=tuple(Beginning(*member) for member in row["members"]),
        shared=tuple((name, of) for name, of in row["shared"]),
        over=row["over"],
    )
