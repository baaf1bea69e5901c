"""The reports: of series with an anomaly, or that something follows, the steps as batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from redline.detection.arrays import Array
from redline.engine.fleet.fleets import ScoredSteps, SequenceFleet
from redline.engine.fleet.roster import Roster
from redline.engine.maintenance import MaintenanceWindows
from redline.engine.outbox import Outbox
from redline.engine.results import Anomaly, Batch
from redline.engine.runs import Run, RunSteps, follow_run
from redline.settings import Settings
from redline.sources.directory import SeriesDirectory

SERIES_ORIGIN = '{"kind": "series"}'
SERIES_NAMES = ("value",)


class ReportedSteps(NamedTuple):
    """The newest steps of one series that something follows, all (n,)."""

    number: int
    batch: Batch
    scored: ScoredSteps


class RunsBefore(NamedTuple):
    """The counters of the series of some steps before these, both (n,)."""

    run: Array  # anomalous steps in a row
    anomalies: Array

    @classmethod
    def of(cls, fleet: SequenceFleet, columns: Array) -> RunsBefore:
        """Return those of columns (n,) of a fleet."""
        return cls(fleet.counters["run"][columns], fleet.counters["anomalies"][columns])


class SeriesReports:
    """Puts what is found in series into the outbox, and tells those who look at them.

    For the thread of the loop, but for `followers` and `watchers`, which are added from any.
    """

    def __init__(
        self,
        directory: SeriesDirectory,
        roster: Roster,
        outbox: Outbox,
        maintenance: MaintenanceWindows,
        next_id: Callable[[], int],
        held: set[int],
    ) -> None:
        """Make it without followers.

        Args:
            directory: the names of the series.
            roster: where they are.
            outbox: gets the batches.
            maintenance: the windows in which no step is an alarm.
            next_id: returns the ids of anomalies.
            held: the series with an alarm held back by a maintenance window; kept up here.
        """
        self.directory = directory
        self.roster = roster
        self.outbox = outbox
        self.maintenance = maintenance
        self.next_id = next_id
        self.held = held
        # each returns names of series of which every step is reported, as of an open incident
        self.followers: list[Callable[[], Iterable[str]]] = []
        self.watchers: dict[int, Callable[[ReportedSteps], None]] = {}  # by series

    def mark_followed(self) -> None:
        """Mark the series of which every step is reported."""
        numbers = self.directory.numbers
        names = itertools.chain.from_iterable(follower() for follower in self.followers)
        wanted = [numbers[name] for name in names if name in numbers]
        wanted += self.watchers
        shown = self.roster["shown"]
        shown[:] = False
        shown[[number for number in wanted if number < self.roster.size]] = True

    def report(
        self, fleet: SequenceFleet, series: Array, scored: ScoredSteps, before: RunsBefore
    ) -> Array:
        """Report what is to be followed of newly scored steps; return the alarms, (n,) bool.

        Args:
            fleet: of the series.
            series: (n,) their numbers.
            scored: with the steps of the series.
            before: the counters before these steps.
        """
        alarm = scored.alarm.copy()
        wanted = scored.anomaly | self.roster["shown"][series]
        if not wanted.any():
            return alarm
        chosen = np.zeros(self.roster.size, bool)
        chosen[series[wanted]] = True
        rows = np.flatnonzero(chosen[series])
        rows = rows[np.argsort(series[rows], kind="stable")]
        for own in np.split(rows, np.flatnonzero(np.diff(series[rows])) + 1):
            steps = ScoredSteps(*(values[own] for values in scored))
            run = int(before.run[own[0]])
            counted = int(before.anomalies[own[0]])
            alarm[own] = self._report(fleet, int(series[own[0]]), steps, run, counted)
        return alarm

    def _report(
        self, fleet: SequenceFleet, number: int, steps: ScoredSteps, run: int, counted: int
    ) -> Array:
        """Put the newest steps of one series into the outbox; return which are alarms, (n,) bool.

        Args:
            fleet: its fleet.
            number: of the series.
            steps: with the steps of the series.
            run: its anomalous steps in a row before them.
            counted: its anomalies before them.
        """
        name = self.directory.texts[number] or ""
        muted = self.maintenance.covering(name, steps.time)
        found = follow_run(steps.anomaly, steps.alarm, muted, Run(run, number in self.held))
        if found.after.held:
            self.held.add(number)
        else:
            self.held.discard(number)
        alarm = np.zeros(len(steps.step), bool)
        alarm[found.rows] = found.alarm
        column = int(steps.column[0])
        fleet.counters["alarms"][column] += np.count_nonzero(alarm) - np.count_nonzero(steps.alarm)
        anomalies = self._anomalies(fleet.settings, steps, found, counted)
        batch = series_batch(name, fleet.settings, steps, anomalies, muted)
        self.outbox.enqueue(batch)
        watcher = self.watchers.get(number)
        if watcher is not None:
            watcher(ReportedSteps(number, batch, steps))
        return alarm

    def _anomalies(
        self, settings: Settings, steps: ScoredSteps, found: RunSteps, counted: int
    ) -> list[Anomaly]:
        """Return the anomalies among the newest steps of one series."""
        reach = settings.threshold * steps.spread
        low = steps.centre - reach
        high = steps.centre + reach
        return [
            Anomaly(
                number=counted + i + 1,
                step=int(steps.step[row]),
                time=float(steps.time[row]),
                feature=0,
                value=float(steps.value[row]),
                low=float(low[row]),
                high=float(high[row]),
                score=float(steps.score[row]),
                threshold=settings.threshold,
                run=found.length[i],
                alarm=found.alarm[i],
                id=self.next_id(),
            )
            for i, row in enumerate(found.rows)
        ]


def series_batch(
    name: str,
    settings: Settings,
    steps: ScoredSteps,
    anomalies: list[Anomaly],
    muted: Array | None,
) -> Batch:
    """Return the newest steps of one series as a batch; what it is about the fleets store."""
    return Batch(
        name=name,
        first=int(steps.step[0]),
        time=steps.time,
        x=steps.value[:, None],
        score=steps.score,
        alarm=steps.alarm_score,
        anomalies=anomalies,
        applied=settings,
        snapshot=None,
        stores_points=False,
        live=True,
        names=SERIES_NAMES,
        units=("",),
        origin=SERIES_ORIGIN,
        counts={},
        stored_apart=True,
        title=name,
        muted=muted,
    )
