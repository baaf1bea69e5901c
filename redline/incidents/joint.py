"""The joint incidents of a running server: groups of incidents, followed as incidents change."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from redline.incidents.correlation import Beginning, Correlator, IncidentGroup
from redline.incidents.incident import Change

# changes with which an incident begins, to a person: a small one that gets worse begins then
BEGINNINGS = ("opened", "worse", "reopened")
WARM_STEPS = 100  # of a series, on average, after which the rate of beginnings is known
COUNT_SECONDS = 5.0  # between two looks at which series there are
COUNTED_AT_ONCE = 5_000  # new series, so that a commit never waits for long


class JointIncidents:
    """The groups of incidents; one thread reports changes, others read."""

    def __init__(
        self,
        names: Callable[[], Iterable[str]],
        mean_steps: Callable[[], float] = lambda: 0.0,
        correlator: Correlator | None = None,
    ) -> None:
        """Follow incidents.

        Args:
            names: returns the names of all series that are watched.
            mean_steps: returns how many steps of a series are scored, on average.
            correlator: finds the groups.
        """
        self.names = names
        self.mean_steps = mean_steps
        self.correlator = correlator or Correlator()
        self.counted = -math.inf  # monotonic seconds at which the labels were counted
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
            return self.correlator.feed(found, time.time())

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
